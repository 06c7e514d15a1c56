package cli

import (
	"slices"

	"holdfast/observe/maillog"
	"holdfast/plan"
	"holdfast/present"
	"holdfast/record"
)

// someOutcomes is how many outcomes a terminal shows one by one.
const someOutcomes = 10

// notDone are the states in which a message is not as it was wanted.
func notDone() []record.State {
	return slices.DeleteFunc(record.States(), func(s record.State) bool { return s == record.Done || s == record.Already })
}

// showReport tells what was seen of a plan's messages afterwards. The first
// outcomes, so many of them, were told as they came.
func (p *program) showReport(made *plan.Plan, r *Report, told int, tries []present.TryRecord) error {
	if r.CheckpointErr != nil {
		p.screen.Note(present.Say("the audit log could not be signed: %s", text(r.CheckpointErr.Error())))
	}
	if p.screen.json {
		return p.reportJSON(made, r, told, tries)
	}
	s := &planSheet{page: page{screen: p.screen}, p: made, at: p.env.Now()}
	s.result(r)
	s.verdicts(tries)
	s.each(r)
	s.afterwards(r)
	s.write()
	return nil
}

// showLog shows a line of the mail log as it comes, and returns what it says of
// an attempt, if it says something.
func (p *program) showLog(l *maillog.Line) []present.TryRecord {
	if !p.screen.json {
		p.screen.Line(present.Say("%s", present.Say("LOG")).In(present.Faint), present.Say("  %s %s: %s", present.Clock(l.At, p.env.Now()), text(l.Program), text(l.Text)))
		_ = p.screen.Flush() // its error is kept
	}
	if l.Event != maillog.Delivery {
		return nil
	}
	return []present.TryRecord{{
		Recipient: present.Hostile(l.Recipient), Relay: present.Hostile(l.Relay), Status: l.Status, DSN: l.DSN, Reason: present.Hostile(l.Reason),
	}}
}

// verdicts say what became of each recipient of a message that was tried.
func (s *planSheet) verdicts(tries []present.TryRecord) {
	label := present.Say("VERDICT")
	for i := range tries {
		t := &tries[i]
		words, style := present.Say("%s: %s", text(t.Status), t.Recipient.Words(0)), present.Warn
		switch t.Status {
		case "sent":
			words, style = present.Say("delivered to %s", t.Recipient.Words(0)), present.Good
		case "deferred":
			words = present.Say("put off again: %s", t.Recipient.Words(0))
		case "bounced":
			words = present.Say("refused for good: %s", t.Recipient.Words(0))
		}
		s.labelled(label, words.In(style), 0)
		s.labelled(present.Say(""), present.Say("%s said: %s", t.Relay.Words(0), t.Reason.Words(0)), 0)
		label = present.Say("")
	}
}

func (p *program) outcomesJSON(made *plan.Plan, id string, list []record.Outcome) error {
	for i := range list {
		if err := p.screen.Record(present.OutcomeRecordOf(made, id, &list[i])); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) reportJSON(made *plan.Plan, r *Report, told int, tries []present.TryRecord) error {
	id := made.ID()
	if err := p.outcomesJSON(made, id, r.Outcomes[min(told, len(r.Outcomes)):]); err != nil {
		return err
	}
	return p.screen.Record(&present.SummaryRecord{
		Envelope: present.Envelope{Schema: present.SchemaSummary, Instance: made.Instance},
		Plan:     id, Verb: made.Verb, Counts: present.CountsOf(r.Outcomes), Left: r.Left, Why: r.Why, Back: wayBack(made), Tries: tries,
	})
}

// result is the line of numbers.
func (s *planSheet) result(r *Report) {
	c := present.CountsOf(r.Outcomes)
	words := present.Say("%s of %s done, as seen afterwards", present.Count(c.Done), present.Plural(s.p.Count, "message", "messages"))
	if c.Already > 0 {
		words = present.Say("%s; %s so already", words, present.Count(c.Already))
	}
	style := present.Good
	for _, state := range notDone() {
		if n := c.Of(state); n > 0 {
			words = present.Say("%s; %s %s", words, present.Count(n), meaning(state))
			style = present.Warn
		}
	}
	if r.Left > 0 {
		words = present.Say("%s; %s not begun", words, present.Count(r.Left))
		style = present.Warn
	}
	s.labelled(present.Say("RESULT"), words.In(style), 0)
	for _, why := range r.Why {
		s.labelled(present.Say(""), text(why), 0)
	}
}

// meaning says what a state means, beside a number of messages.
func meaning(s record.State) present.Words {
	switch s {
	case record.Gone:
		return present.Say("gone before they were acted upon")
	case record.Changed:
		return present.Say("left alone, since another message has the ID now")
	case record.Refused:
		return present.Say("refused")
	case record.Failed:
		return present.Say("failed")
	case record.Unknown:
		return present.Say("unknown, since what was seen does not tell")
	}
	return text(string(s))
}

// each lists the messages that have something of their own to tell: what is
// not as it was wanted, and what has another ID now.
func (s *planSheet) each(r *Report) {
	t := &present.Table{Columns: []present.Column{
		{Width: pageIndent - 2}, {Title: present.Say("ID")}, {Title: present.Say("STATE")}, {Title: present.Say("NOW")}, {Title: present.Say("WHY"), Least: 20},
	}}
	told, more := 0, 0
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		if (o.State == record.Done || o.State == record.Already) && o.Successor == "" && s.p.Verb != plan.Try {
			continue
		}
		if told >= someOutcomes && s.screen.term.Columns > 0 {
			more++
			continue
		}
		told++
		now := text(o.Now)
		if o.Successor != "" {
			now = present.Say("%s as %s", now, text(string(o.Successor)))
		}
		t.Row(present.Words{}, text(string(o.ID)), text(string(o.State)), now, text(o.Text))
	}
	if told > 0 {
		s.tableOf(t)
	}
	if more > 0 {
		s.labelled(present.Say(""), present.Say("%s more; -o json lists them all", present.Count(more)), 0)
	}
}

// afterwards says what state the mail is in now and what takes it back.
func (s *planSheet) afterwards(r *Report) {
	c := present.CountsOf(r.Outcomes)
	if c.Done > 0 && s.p.Verb != plan.Try { // what became of a try is said for the message itself
		s.labelled(present.Say("NOW"), stateOf(s.p.Verb), 0)
		if back := wayBack(s.p); len(back) > 0 {
			s.command(present.Say("BACK"), present.Shell(back...))
		}
	}
	if r.Left > 0 {
		s.labelled(present.Say("REST"), present.Say("what was not begun is as it was; the same command again makes a plan for it"), 0)
	}
}

// stateOf says what state mail is in that a verb was done to.
func stateOf(v plan.Verb) present.Words {
	switch v {
	case plan.Hold:
		return present.Say("on hold: Postfix neither delivers nor returns it until it is released")
	case plan.Release:
		return present.Say("in the queue again: Postfix delivers it, or returns it if its time has ended")
	case plan.Requeue:
		return present.Say("taken in anew: the mail log has the new queue IDs, each with orig_id= and the old one")
	case plan.Expire:
		return present.Say("given up: Postfix returns it to its sender; a copy is in the vault")
	case plan.Delete:
		return present.Say("out of the queue, nobody was told; a copy is in the vault until it is purged")
	case plan.Restore:
		return present.Say("on hold under the IDs above; holdfast release lets it go")
	case plan.Purge:
		return present.Say("out of the vault for ever")
	}
	return text(string(v))
}
