package cli

import (
	"time"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

const (
	// someNames, someTargets and someIDs are how many of each a plan shows.
	// The others are in the JSON, or are counted.
	someNames   = 3
	someTargets = 5
	someIDs     = 3
)

// showPlan writes a plan: before the question, and for a dry run.
func (p *program) showPlan(made *plan.Plan) error {
	if p.screen.json {
		return p.screen.Record(present.PlanRecordOf(made))
	}
	s := &planSheet{page: page{screen: p.screen}, p: made, at: p.env.Now()}
	s.head()
	s.reach()
	s.leftAlone()
	s.warnings()
	s.back()
	s.write()
	return nil
}

// planSheet writes one plan for people.
type planSheet struct {
	page
	p  *plan.Plan
	at time.Time
}

func (s *planSheet) head() {
	e := &s.p.Effects
	what := present.Say("%s %s", text(string(s.p.Verb)), present.Plural(s.p.Count, "message", "messages"))
	if s.p.Count > 0 {
		what = present.Say("%s, %s, %s", what, present.Size(e.Bytes), present.Plural(e.Recipients, "recipient still to do", "recipients still to do"))
	}
	if s.p.Count == 0 {
		what = present.Say("nothing to %s", text(string(s.p.Verb)))
	}
	s.labelled(present.Say("PLAN"), what.In(present.Strong), 0)
	why := text(s.p.Reason)
	if s.p.Ticket != "" {
		why = present.Say("%s (%s)", why, text(s.p.Ticket))
	}
	s.labelled(present.Say("WHY"), why, 0)
	if s.p.Undoes != "" {
		s.labelled(present.Say("UNDOES"), text(plan.Short(s.p.Undoes)), 0)
	}
	if s.p.Count == 0 {
		return
	}
	if !e.Oldest.IsZero() {
		s.labelled(present.Say("AGE"), present.Say("oldest %s, newest %s", present.When(e.Oldest, s.at), present.When(e.Newest, s.at)), 0)
	}
	s.labelled(present.Say("ID"), present.Say("%s, good until %s, runs once", text(plan.Short(s.p.ID())), present.When(s.p.Expires, s.at)), 0)
}

// reach says whose mail it is and where it goes.
func (s *planSheet) reach() {
	e := &s.p.Effects
	s.labelled(present.Say("FROM"), tallies(e.Senders, e.MoreSenders, func(name string) present.Words {
		if name == "" {
			return present.Say("<> (null sender)")
		}
		return present.Address(name)
	}), 0)
	s.labelled(present.Say("TO"), tallies(e.Destinations, e.MoreDestinations, text), 0)
	if e.Elsewhere > 0 {
		s.labelled(present.Say("ALSO"), present.Say("these messages carry %s at other destinations, which the selection did not ask for",
			present.Plural(e.Elsewhere, "recipient", "recipients")).In(present.Warn), 0)
	}
	if len(e.Sample) == 0 {
		return
	}
	t := &present.Table{Columns: []present.Column{
		{Width: pageIndent - 2},
		{Title: present.Say("ID")},
		{Title: present.Say("QUEUE")},
		{Title: present.Say("AGE"), Right: true},
		{Title: present.Say("SIZE"), Right: true, Spare: 1},
		{Title: present.Say("SENDER"), Least: 16},
		{Title: present.Say("NEXT HOP"), Least: 12, Spare: 2},
	}}
	for i := range e.Sample[:min(len(e.Sample), someTargets)] {
		m := &e.Sample[i]
		t.Row(present.Words{}, text(string(m.ID)), text(m.Queue.String()), present.Since(m.Arrival, s.at),
			present.Size(m.Size), present.Address(m.Sender), text(m.NextHop))
	}
	s.tableOf(t)
}

// tallies puts names with their numbers into one line.
func tallies(list []plan.Tally, beside int, name func(string) present.Words) present.Words {
	var parts []present.Words
	for _, one := range list[:min(len(list), someNames)] {
		parts = append(parts, present.Say("%s %s", name(one.Name), present.Count(one.Count)))
	}
	if more := max(len(list)-someNames, 0) + beside; more > 0 {
		parts = append(parts, present.Say("%s more", present.Count(more)))
	}
	return present.Join(", ", parts...)
}

// leftAlone says what was selected and is no part of the plan.
func (s *planSheet) leftAlone() {
	label := present.Say("NOT")
	for _, skip := range s.p.Effects.Skipped {
		words := present.Say("%s %s: %s", present.Count(skip.Count), skipped(skip.Why), someOf(skip.IDs, skip.Count))
		s.labelled(label, words, 0)
		label = present.Say("")
		s.labelled(label, text(skip.Hint).In(present.Faint), 0)
	}
}

// someOf names the first few IDs of a number of messages.
func someOf(ids []postfix.QueueID, count int) present.Words {
	var parts []present.Words
	for _, id := range ids[:min(len(ids), someIDs)] {
		parts = append(parts, text(string(id)))
	}
	if len(parts) > 0 && count > len(parts) {
		parts = append(parts, present.Say("..."))
	}
	return present.Join(" ", parts...)
}

// skipped says why messages are left alone.
func skipped(why string) present.Words {
	switch why {
	case plan.SkipActive:
		return present.Say("being delivered")
	case plan.SkipHeldActive:
		return present.Say("held while being delivered, which this queue manager would lose")
	case plan.SkipMaildrop:
		return present.Say("in maildrop, where Postfix can hold nothing")
	case plan.SkipDamaged:
		return present.Say("damaged")
	case plan.SkipForeign:
		return present.Say("put on hold by somebody else")
	case plan.SkipNotHeld:
		return present.Say("not on hold")
	case plan.SkipHeld:
		return present.Say("on hold already")
	case plan.SkipQueue:
		return present.Say("in a queue that this does not reach")
	case plan.SkipFinished:
		return present.Say("without a recipient left to do")
	case plan.SkipQueued:
		return present.Say("still queued")
	case plan.SkipDelivered:
		return present.Say("delivered already")
	case plan.SkipRequeued:
		return present.Say("taken in anew, under another queue ID")
	case plan.SkipPending:
		return present.Say("with a bounce pending, which would be abandoned")
	case plan.SkipPurged:
		return present.Say("purged from the vault")
	case plan.SkipLegalHold:
		return present.Say("under legal hold")
	case plan.SkipRetention:
		return present.Say("not kept for its time yet")
	case plan.SkipMissing:
		return present.Say("not there, although named")
	case plan.SkipDigest:
		return present.Say("unreadable")
	}
	return text(why)
}

// warnings are what it causes beside its purpose, and what forbids it.
func (s *planSheet) warnings() {
	label := present.Say("RISK")
	for _, r := range s.p.Effects.Risks {
		words := text(r.Text)
		if r.Count > 0 {
			words = present.Say("%s: %s", present.Count(r.Count), words)
		}
		s.labelled(label, words.In(present.Warn), 0)
		label = present.Say("")
		if len(r.Next) > 0 {
			s.command(label, present.Shell(r.Next...))
		}
	}
	label = present.Say("BARRED")
	for _, b := range s.p.Effects.Bars {
		s.labelled(label, present.Say("%s (%s)", text(b.Text), text(b.Kind)).In(present.Bad), 0)
		label = present.Say("")
		s.labelled(label, text(b.Lift), 0)
	}
}

// back says how it is taken back.
func (s *planSheet) back() {
	e := &s.p.Effects
	if s.p.Count == 0 {
		return
	}
	why := text(e.BackWhy)
	if len(e.Back) == 0 {
		s.labelled(present.Say("BACK"), present.Say("nothing takes this back").In(present.Bad), 0)
		s.labelled(present.Say(""), why, 0)
		return
	}
	s.command(present.Say("BACK"), present.Shell(wayBack(s.p)...))
	s.labelled(present.Say(""), why, 0)
}

// wayBack is the command that takes a plan back, nil where nothing does. A plan
// cannot name its own ID, which is a digest over all that it says: where the
// way back is to undo it, the ID is added here.
func wayBack(p *plan.Plan) []string {
	back := p.Effects.Back
	if len(back) == 2 && back[0] == "holdfast" && back[1] == "undo" {
		return []string{back[0], back[1], plan.Short(p.ID())}
	}
	return back
}
