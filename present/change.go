package present

import (
	"time"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// The names of the JSON records of verbs that change something.
const (
	SchemaPlan    = "holdfast.plan-shown/1"
	SchemaOutcome = "holdfast.outcome/1"
	SchemaSummary = "holdfast.change/1"
)

// PlanRecord is a plan as it is shown: the sealed one without the list of all
// its targets.
type PlanRecord struct {
	Envelope
	Plan      string        `json:"plan"`
	Verb      plan.Verb     `json:"verb"`
	ConfigDir string        `json:"config_dir"`
	Selector  plan.Selector `json:"selector"`
	Options   plan.Options  `json:"options"`
	Reason    string        `json:"reason"`
	Ticket    string        `json:"ticket"`
	By        plan.Who      `json:"by"`
	Made      time.Time     `json:"made"`
	Expires   time.Time     `json:"expires"`
	Policy    string        `json:"policy"`
	Undoes    string        `json:"undoes"`
	Count     int           `json:"count"`
	Targets   string        `json:"targets"`
	Effects   plan.Effects  `json:"effects"`
}

// PlanRecordOf makes the record of a plan.
func PlanRecordOf(p *plan.Plan) *PlanRecord {
	return &PlanRecord{
		Envelope: Envelope{Schema: SchemaPlan, Instance: p.Instance},
		Plan:     p.ID(), Verb: p.Verb, ConfigDir: p.Config, Selector: p.Selector, Options: p.Options,
		Reason: p.Reason, Ticket: p.Ticket, By: p.By, Made: p.Made, Expires: p.Expires, Policy: p.Policy,
		Undoes: p.Undoes, Count: p.Count, Targets: p.Targets, Effects: p.Effects,
	}
}

// OutcomeRecord is what became of one target.
type OutcomeRecord struct {
	Envelope
	Plan       string          `json:"plan"`
	Verb       plan.Verb       `json:"verb"`
	ID         postfix.QueueID `json:"id"`
	Inode      uint64          `json:"inode"`
	State      record.State    `json:"state"`
	Now        string          `json:"now"`
	Held       bool            `json:"held"`
	FromActive bool            `json:"from_active"`
	Item       string          `json:"item"`
	Successor  postfix.QueueID `json:"successor"`
	Text       string          `json:"text"`
}

// OutcomeRecordOf makes the record of one outcome of a plan.
func OutcomeRecordOf(p *plan.Plan, id string, o *record.Outcome) *OutcomeRecord {
	return &OutcomeRecord{
		Envelope: Envelope{Schema: SchemaOutcome, Instance: p.Instance},
		Plan:     id, Verb: p.Verb, ID: o.ID, Inode: o.Inode, State: o.State, Now: o.Now,
		Held: o.Held, FromActive: o.FromActive, Item: o.Item, Successor: o.Successor, Text: o.Text,
	}
}

// CountsRecord has the targets of a plan by what became of them.
type CountsRecord struct {
	Done    int `json:"done"`
	Already int `json:"already"`
	Gone    int `json:"gone"`
	Changed int `json:"changed"`
	Refused int `json:"refused"`
	Failed  int `json:"failed"`
	Unknown int `json:"unknown"`
}

// CountsOf counts outcomes. A state that is not in the list counts as unknown:
// it must not vanish from the sum.
func CountsOf(outcomes []record.Outcome) CountsRecord {
	var c CountsRecord
	for i := range outcomes {
		*c.of(outcomes[i].State)++
	}
	return c
}

func (c *CountsRecord) of(s record.State) *int {
	switch s {
	case record.Done:
		return &c.Done
	case record.Already:
		return &c.Already
	case record.Gone:
		return &c.Gone
	case record.Changed:
		return &c.Changed
	case record.Refused:
		return &c.Refused
	case record.Failed:
		return &c.Failed
	}
	return &c.Unknown
}

// Of is the number of one state.
func (c CountsRecord) Of(s record.State) int { return *c.of(s) }

// Total is the sum of all states.
func (c CountsRecord) Total() int {
	return c.Done + c.Already + c.Gone + c.Changed + c.Refused + c.Failed + c.Unknown
}

// SummaryRecord follows the outcomes of a plan.
type SummaryRecord struct {
	Envelope
	Plan   string       `json:"plan"`
	Verb   plan.Verb    `json:"verb"`
	Counts CountsRecord `json:"counts"`
	// Left is how many targets were not begun.
	Left int      `json:"left"`
	Why  []string `json:"why"`
	// Back is the command that takes it back, empty where nothing does.
	Back []string `json:"back"`
	// Tries are what the mail log said of each recipient of a try.
	Tries []TryRecord `json:"tries"`
}

// TryRecord is what the mail log said of one attempt.
type TryRecord struct {
	Recipient Text   `json:"recipient"`
	Relay     Text   `json:"relay"`
	Status    string `json:"status"` // sent, deferred, bounced, ...
	DSN       string `json:"dsn"`
	Reason    Text   `json:"reason"`
}
