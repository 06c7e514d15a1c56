package cli

import (
	"maps"
	"slices"
	"time"

	"holdfast/account"
	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/operate"
	"holdfast/postfix"
	"holdfast/present"
	"holdfast/record"
)

// The names of the JSON records about snapshots.
const (
	schemaSnapshot      = "holdfast.snapshot/1"
	schemaSavedSnapshot = "holdfast.snapshot-saved/1"
	schemaSnapshotDiff  = "holdfast.snapshot-diff/1"
)

// snapshotRecord is what a snapshot has, but for the messages.
type snapshotRecord struct {
	present.Envelope
	Name string `json:"name"`
	Host string `json:"host"`
	Note string `json:"note"`
	// Again is when a second one is saved, where that was asked for now.
	Again      *time.Time         `json:"again,omitempty"`
	From       time.Time          `json:"from"`
	To         time.Time          `json:"to"`
	Source     observe.Source     `json:"source"`
	Messages   int                `json:"messages"`
	Recipients int                `json:"recipients"`
	Queues     []shapeRecord      `json:"queues"`
	Blind      []string           `json:"blind"`
	State      diagnose.State     `json:"state"`
	Sentence   string             `json:"sentence"`
	Findings   []diagnose.Finding `json:"findings"`
	Gaps       []observe.Gap      `json:"gaps"`
	// Surroundings are as in a triage, null where nobody looked.
	Surroundings *present.HostRecord `json:"surroundings"`
}

// shapeRecord is the size of one queue.
type shapeRecord struct {
	Queue         string `json:"queue"`
	Messages      int    `json:"messages"`
	Bytes         int64  `json:"bytes"`
	OldestSeconds int64  `json:"oldest_seconds"`
}

// savedRecord is a snapshot as the audit log has it.
type savedRecord struct {
	present.Envelope
	Name     string `json:"name"`
	Sum      string `json:"sha256"`
	Messages int    `json:"messages"`
	By       string `json:"by"`
}

// diffRecord is what differs between two looks.
type diffRecord struct {
	present.Envelope
	From       account.Side  `json:"from"`
	To         account.Side  `json:"to"`
	Came       []diffMessage `json:"came"`
	Left       []diffMessage `json:"left"`
	Stayed     int           `json:"stayed"`
	Progressed int           `json:"progressed"`
	Switched   []diffSwitch  `json:"switched"`
}

type diffMessage struct {
	ID         postfix.QueueID `json:"id"`
	Queue      postfix.Queue   `json:"queue"`
	Arrival    time.Time       `json:"arrival"`
	Size       int64           `json:"size"`
	Sender     string          `json:"sender"`
	Recipients []string        `json:"recipients"`
}

type diffSwitch struct {
	Between string `json:"between"`
	Count   int    `json:"count"`
}

func snapshotRecordOf(h *account.Head) *snapshotRecord {
	r := &snapshotRecord{
		Envelope: present.Envelope{Schema: schemaSnapshot, Instance: h.Instance},
		Name:     h.Name, Host: h.Host, Note: h.Note, From: h.From, To: h.To, Source: h.Source, Messages: h.Messages, Recipients: h.Recipients,
		Blind: h.Blind, Gaps: h.Gaps,
	}
	for _, q := range postfix.Queues() {
		if s, ok := h.Queues[q.String()]; ok {
			r.Queues = append(r.Queues, shapeRecord{q.String(), s.Messages, s.Bytes, present.Seconds(s.Oldest, h.To)})
		}
	}
	if t := h.Triage; t != nil {
		r.State, r.Sentence, r.Findings, r.Surroundings = t.State, t.Sentence, t.Findings, present.HostRecordOf(t.Host)
	}
	return r
}

// showSaved shows what was saved just now.
func (p *program) showSaved(saved *operate.SavedSnapshot) error {
	if saved.KeeperErr != nil {
		p.screen.Note(present.Say("nobody keeps time for the second snapshot (%s): run holdfast tick when it is due", present.Hostile(saved.KeeperErr.Error())))
	}
	return p.showHead(&saved.Head, true, saved.Again)
}

// showHead shows a snapshot. saved is set where it was saved just now; again is
// the second one that is to come.
func (p *program) showHead(h *account.Head, saved bool, again *operate.Duty) error {
	if p.screen.json {
		r := snapshotRecordOf(h)
		if again != nil {
			r.Again = &again.When
		}
		return p.screen.Record(r)
	}
	s, at := &page{screen: p.screen}, p.env.Now()
	label := present.Say("SEEN")
	if saved {
		label = present.Say("SAVED")
	}
	s.labelled(label, present.Say("%s of %s, %s: %s", text(h.Name), text(h.Instance), present.When(h.To, at), totalOf(h)), 0)
	s.labelled(present.Say("NOTE"), present.Hostile(h.Note).Words(0), 0)
	t := &present.Table{Columns: []present.Column{
		{Width: pageIndent - 2},
		{Title: present.Say("QUEUE")},
		{Title: present.Say("MESSAGES"), Right: true},
		{Title: present.Say("SIZE"), Right: true},
		{Title: present.Say("OLDEST"), Right: true},
	}}
	for _, q := range snapshotRecordOf(h).Queues {
		if q.Messages > 0 {
			t.Row(present.Words{}, text(q.Queue), present.Count(q.Messages), present.Size(q.Bytes), present.Age(time.Duration(q.OldestSeconds)*time.Second))
		}
	}
	if t.Len() > 0 {
		s.tableOf(t)
	}
	if h.Triage != nil {
		s.labelled(present.Say("STATE"), present.Hostile(h.Triage.Sentence).Words(0), 0)
		for i := range h.Triage.Findings {
			f := &h.Triage.Findings[i]
			s.labelled(present.Say("CAUSE"), present.Say("%s %s: %s", text(string(f.Cause)), text(f.Subject), present.Hostile(f.Summary)), 2)
		}
		if h.Triage.Host != nil {
			s.labelled(present.Say("HOST"), pressureLine(h.Triage.Host.Pressure), 0)
		}
	}
	for _, name := range h.Blind {
		s.labelled(present.Say("UNSEEN"), present.Say("the %s queue", text(name)), 0)
	}
	for _, g := range h.Gaps {
		s.labelled(present.Say("UNSEEN"), present.Hostile(g.String()).Words(0), 0)
	}
	if again != nil {
		s.labelled(present.Say("AGAIN"), present.When(again.When, at), 0)
	}
	if saved {
		s.command(present.Say("LATER"), present.Shell("holdfast", "account", "--from", h.Name))
	}
	s.write()
	return nil
}

func (p *program) listSnapshots(saved []record.SavedBody) error {
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("NAME")}, {Title: present.Say("MESSAGES"), Right: true}, {Title: present.Say("BY"), Least: 6}, {Title: present.Say("SHA-256"), Spare: 1, Least: 16},
	}}
	for i := range saved {
		b := &saved[i]
		if p.screen.json {
			if err := p.screen.Record(&savedRecord{present.Envelope{Schema: schemaSavedSnapshot, Instance: b.Instance}, b.Name, b.Sum, b.Messages, b.By.Name()}); err != nil {
				return err
			}
			continue
		}
		t.Row(text(b.Name), present.Count(b.Messages), text(b.By.Name()), text(b.Sum))
	}
	switch {
	case p.screen.json:
	case len(saved) == 0:
		p.screen.Note(present.Say("there is no snapshot yet"))
	default:
		p.screen.Table(t)
	}
	return nil
}

func sideOf(h *account.Head) account.Side {
	return account.Side{Name: h.Name, From: h.From, To: h.To, Messages: h.Messages, Recipients: h.Recipients}
}

func (p *program) showDiff(d *operate.Comparison) error {
	var switches []diffSwitch
	for _, between := range slices.Sorted(maps.Keys(d.Between)) {
		switches = append(switches, diffSwitch{between, d.Between[between]})
	}
	if p.screen.json {
		return p.screen.Record(&diffRecord{
			Envelope: present.Envelope{Schema: schemaSnapshotDiff, Instance: d.From.Instance},
			From:     sideOf(&d.From), To: sideOf(&d.To), Came: differing(d.Came), Left: differing(d.Left),
			Stayed: d.Stayed, Progressed: d.Progressed, Switched: switches,
		})
	}
	s, at := &page{screen: p.screen}, p.env.Now()
	to := present.Say("the queue at %s", present.Clock(d.To.To, at))
	if d.To.Name != "" {
		to = present.Say("snapshot %s, %s", text(d.To.Name), present.When(d.To.To, at))
	}
	s.labelled(present.Say("BETWEEN"), present.Say("snapshot %s, %s, and %s", text(d.From.Name), present.When(d.From.To, at), to), 0)
	s.labelled(present.Say("FIRST"), totalOf(&d.From), 0)
	s.labelled(present.Say("THEN"), totalOf(&d.To), 0)
	s.labelled(present.Say("CAME"), present.Plural(len(d.Came), "message", "messages"), 0)
	s.labelled(present.Say("LEFT"), present.Plural(len(d.Left), "message", "messages"), 0)
	s.labelled(present.Say("STAYED"), present.Say("%s, %s of them with fewer recipients to do", present.Plural(d.Stayed, "message", "messages"), present.Count(d.Progressed)), 0)
	for _, w := range switches {
		s.labelled(present.Say("MOVED"), present.Say("%s from %s", present.Plural(w.Count, "message", "messages"), text(w.Between)), 0)
	}
	if len(d.Left) > 0 {
		argv := []string{"holdfast", "account", "--from", d.From.Name}
		if d.To.Name != "" {
			argv = append(argv, "--to", d.To.Name)
		}
		s.command(present.Say("WHERE"), present.Shell(argv...))
	}
	s.write()
	return nil
}

func differing(list []account.Message) []diffMessage {
	out := make([]diffMessage, len(list))
	for i := range list {
		m := &list[i]
		out[i] = diffMessage{m.ID, m.Queue, m.Arrival, m.Size, m.Sender, m.Recipients}
	}
	return out
}
