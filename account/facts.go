package account

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// Facts are what Holdfast itself did to messages since a time, as its record
// has it. An outcome is there because somebody looked, so it needs no log.
type Facts struct {
	deeds map[postfix.QueueID][]*deed // by the ID that the message had
	born  []*deed                     // those that gave a message a new ID
	items map[string]*deed            // what came back from the vault, by its copy
	open  map[postfix.QueueID]plan.Verb
}

// deed is what was done to one message.
type deed struct {
	verb      plan.Verb
	target    plan.Target
	at        time.Time // of the outcome
	begun     time.Time // of the intent
	item      string
	successor postfix.QueueID
	inode     uint64 // of the successor
	text      string // who, why, where the copy is
}

// FactsOf reads the record of one instance. Entries before since are read too:
// an intent may be older than its outcome.
func FactsOf(entries iter.Seq2[record.Entry, error], instance string, since time.Time) (*Facts, error) {
	f := &Facts{deeds: map[postfix.QueueID][]*deed{}, items: map[string]*deed{}, open: map[postfix.QueueID]plan.Verb{}}
	reading := &deeds{f: f, instance: instance, since: since, intents: map[uint64]*begun{}, plans: map[string]record.PlanBody{}}
	for e, err := range entries {
		if err != nil {
			return nil, fmt.Errorf("read the record for an account: %w", err)
		}
		if err := reading.add(&e); err != nil {
			return nil, fmt.Errorf("read entry %d of the record: %w", e.Seq, err)
		}
	}
	for _, in := range reading.intents {
		for i := range in.body.Targets {
			if in.body.Targets[i].Instance == instance {
				f.open[in.body.Targets[i].ID] = in.body.Verb
			}
		}
	}
	return f, nil
}

// deeds is one FactsOf.
type deeds struct {
	f        *Facts
	instance string
	since    time.Time
	intents  map[uint64]*begun
	plans    map[string]record.PlanBody
}

type begun struct {
	at     time.Time
	body   record.IntentBody
	inodes map[postfix.QueueID]uint64 // of successors
}

func (d *deeds) add(e *record.Entry) error {
	var err error
	switch e.Kind {
	case record.Planned, record.Started:
		var b record.PlanBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			d.plans[b.Plan] = b
		}
	case record.Intended:
		in := &begun{at: e.At, inodes: map[postfix.QueueID]uint64{}}
		err = json.Unmarshal(e.Detail, &in.body)
		d.intents[e.Seq] = in
	case record.Noted:
		var b record.NoteBody
		if err = json.Unmarshal(e.Detail, &b); err == nil && d.intents[e.Ref] != nil {
			d.intents[e.Ref].inodes[b.Successor] = b.Inode
		}
	case record.Settled:
		in := d.intents[e.Ref]
		if in == nil {
			return nil // settled twice: the first counts
		}
		delete(d.intents, e.Ref)
		if e.At.Before(d.since) {
			return nil
		}
		var b record.OutcomeBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			d.settle(e.At, in, b.Outcomes)
		}
	}
	return err
}

// settle takes the outcomes that took a message away or brought one.
func (d *deeds) settle(at time.Time, in *begun, outcomes []record.Outcome) {
	switch in.body.Verb {
	case plan.Delete, plan.Requeue, plan.Restore:
	default:
		return
	}
	targets := make(map[postfix.QueueID]*plan.Target, len(in.body.Targets))
	copies := map[string]*plan.Target{}
	for i := range in.body.Targets {
		t := &in.body.Targets[i]
		targets[t.ID] = t
		if t.Item != "" {
			copies[t.Item] = t
		}
	}
	for i := range outcomes {
		o := &outcomes[i]
		t := cmp.Or(copies[o.Item], targets[o.ID])
		if o.State != record.Done || t == nil || t.Instance != d.instance {
			continue
		}
		one := &deed{
			verb: in.body.Verb, target: *t, at: at, begun: in.at, item: cmp.Or(o.Item, t.Item), successor: o.Successor,
			inode: cmp.Or(in.inodes[o.Successor], o.Inode), text: d.words(in, o),
		}
		if one.verb == plan.Restore {
			d.f.items[one.item] = one
		} else {
			d.f.deeds[t.ID] = append(d.f.deeds[t.ID], one)
		}
		if one.successor != "" {
			d.f.born = append(d.f.born, one)
		}
	}
}

func (d *deeds) words(in *begun, o *record.Outcome) string {
	p := d.plans[in.body.Plan]
	text := fmt.Sprintf("%s by plan %s", in.body.Verb, plan.Short(in.body.Plan))
	if name := p.By.Name(); name != "" {
		text += ", " + name
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	if o.Item != "" {
		text += " (vault item " + o.Item + ")"
	}
	return text
}
