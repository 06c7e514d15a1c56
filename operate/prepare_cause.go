package operate

import (
	"strings"

	"holdfast/diagnose"
	"holdfast/plan"
	"holdfast/postfix"
)

// inTheWay reports whether mail that is let go would fail of a cause. Of the
// others none gets worse by it.
func inTheWay(c postfix.Cause) bool {
	switch c {
	case postfix.HeldForgotten, postfix.ExpirySoon, postfix.BackoffWait, postfix.Overdue, postfix.Clock, postfix.Flood,
		postfix.Backscatter, postfix.Corruption:
		return false
	}
	return true
}

// addFindings bars a plan that sends mail against what made it wait: all of it
// would fail once more, and each failure brings it closer to being returned.
func (d *drafting) addFindings(e *plan.Effects) {
	if d.verdict == nil {
		return
	}
	places := d.draft.Places()
	for i := range d.verdict.Findings {
		f := &d.verdict.Findings[i]
		n := concerns(f, places, len(d.draft.Targets()))
		if n == 0 || !inTheWay(f.Cause) {
			continue
		}
		text := plan.Canonical(f.Summary)
		risk := plan.Risk{Kind: "cause-stands", Count: n, Text: "what made them wait still stands: " + text}
		if len(f.Next) > 0 {
			risk.Next = f.Next[0].Argv
		}
		e.Risks = append(e.Risks, risk)
		// A guess warns and does not bar.
		if f.Confidence != diagnose.Low && !d.r.Options.Anyway {
			e.Bars = append(e.Bars, plan.Bar{Kind: "finding", Text: string(f.Cause) + " still stands: " + text, Lift: "--anyway goes on all the same"})
		}
	}
}

// concerns counts the messages of a plan that a finding is about, all of them
// where it is about the host.
func concerns(f *diagnose.Finding, places map[string]int, all int) int {
	switch f.Scope {
	case diagnose.Global, diagnose.HostScope:
		return all
	case diagnose.Destination:
		n := 0
		for place, count := range places {
			if strings.EqualFold(place, f.Subject) {
				n += count
			}
		}
		return n
	}
	return 0
}
