package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// Sight is everything that was seen of one instance. Log and Host are nil where
// nothing could be seen of them.
type Sight struct {
	Snapshot *observe.Snapshot
	Log      *observe.Log
	Host     *observe.Host
	// Holds are the messages that Holdfast put on hold, as its record has them;
	// nil where the record could not be read, and then all holds are somebody's.
	Holds map[HeldFile]OwnHold
	// Late is what Holdfast was to do some minutes ago, as its record has it.
	Late []LateDuty
	Now  time.Time
}

// LateDuty is something that was to happen, and has not.
type LateDuty struct {
	What, Object string
	When         time.Time
	// Keeper is set where the process that is to do it lives.
	Keeper bool
}

// HeldFile names a file on hold.
type HeldFile struct {
	ID    postfix.QueueID
	Inode uint64
}

// OwnHold is a hold of Holdfast's.
type OwnHold struct {
	// Review is when somebody is to look at it again.
	Review time.Time
	// Remembered is set where the queue manager that runs still has the message
	// in memory and would remove it undelivered.
	Remembered bool
}

// Judge says whether mail flows, and what keeps it.
func Judge(s Sight) Verdict {
	v := newView(s)
	list := v.assess()
	findings := []Finding{}
	for _, rule := range []func() []Finding{
		func() []Finding { return postfixDown(v) },
		func() []Finding { return storage(v) },
		func() []Finding { return queueManager(v) },
		func() []Finding { return v.dns(list) },
		func() []Finding { return v.connections(list) },
		v.activeFull,
		v.expiring,
		func() []Finding { return v.said(list) },
		v.returning,
		v.forgotten,
		func() []Finding { return v.backoff(list) },
		func() []Finding { return muteLog(v) },
	} {
		findings = append(findings, rule()...)
	}
	order(findings)
	var verdict Verdict
	verdict.State, verdict.Sentence = v.state(findings)
	// What Holdfast has not done says nothing about the mail that flows.
	findings = append(findings, v.overdue()...)
	order(findings)
	for i := range findings {
		findings[i].complete()
	}
	verdict.Findings = findings
	return verdict
}

// complete makes lists of what has nothing in it.
func (f *Finding) complete() {
	if f.Evidence == nil {
		f.Evidence = []Evidence{}
	}
	if f.RuledOut == nil {
		f.RuledOut = []Rejected{}
	}
	if f.Next == nil {
		f.Next = []Step{}
	}
	if f.Avoid == nil {
		f.Avoid = []Step{}
	}
}

// urgency orders findings: what stops everything comes first, and what must be
// mended before the next can be told. A hold that nobody reviewed in time comes
// before the troubles of single destinations, and before mail that only waits.
func (f *Finding) urgency() int {
	switch f.Cause {
	case postfix.StorageReadonly, postfix.StorageSpace, postfix.StorageInodes, postfix.StorageLatency:
		return 0 // Postfix may be down because of it, and cannot start before
	case postfix.PostfixDown:
		return 1
	case postfix.QueueManager:
		return 2
	case postfix.DNS, postfix.Egress, postfix.Relayhost:
		if f.Scope == Global {
			return 3
		}
	case postfix.ActiveQueueFull:
		return 4
	case postfix.ExpirySoon:
		return 5
	case postfix.HeldForgotten:
		if f.Confidence == High {
			return 6
		}
		return 8
	case postfix.Overdue:
		return 6
	case postfix.BackoffWait:
		return 9
	case postfix.Configuration:
		return 10
	}
	return 7
}

func order(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(a.urgency(), b.urgency()),
			cmp.Compare(b.Waiting, a.Waiting),
			cmp.Compare(a.Subject, b.Subject),
		)
	})
}

// stops says that a finding keeps all mail from flowing.
func (f *Finding) stops() bool {
	switch f.Cause {
	case postfix.PostfixDown, postfix.QueueManager, postfix.StorageReadonly, postfix.StorageSpace, postfix.StorageInodes, postfix.StorageLatency:
		return true
	case postfix.DNS, postfix.Egress, postfix.Relayhost, postfix.ActiveQueueFull:
		return f.Scope == Global
	}
	return false
}

// state answers the first question.
func (v *view) state(findings []Finding) (State, string) {
	for i := range findings {
		if findings[i].stops() {
			return NotFlowing, "Mail does not flow: " + lower(findings[i].Summary) + "."
		}
	}
	if why := v.blind(); why != "" {
		return CannotTell, "Cannot tell whether mail flows: " + why + "."
	}
	delivered := v.recentlyDelivered()
	switch {
	case v.waiting == 0 && v.held.messages == 0:
		return Flowing, "Mail flows: nothing waits."
	case v.Log != nil && delivered == 0 && v.waiting > 0 && len(findings) > 0:
		return NotFlowing, fmt.Sprintf("Mail does not flow: %s %s, and nothing was delivered since %s.", messages(v.waiting), verb(v.waiting, "waits", "wait"), v.Log.From.UTC().Format("15:04 UTC"))
	case len(findings) == 0 && v.held.own > 0:
		return Flowing, fmt.Sprintf("Mail flows: nothing is stuck, and Holdfast has %s on hold, to be looked at by %s.", messages(v.held.own), v.held.review.UTC().Format("2006-01-02 15:04 UTC"))
	case len(findings) == 0:
		return Flowing, fmt.Sprintf("Mail flows: %s %s, and nothing is stuck.", messages(v.waiting), verb(v.waiting, "is under way", "are under way"))
	}
	stuck := 0
	for _, f := range findings {
		stuck += f.Waiting
	}
	return Flowing, fmt.Sprintf("Mail flows, but not all of it: %s %s stuck, for %d %s.", messages(stuck), verb(stuck, "is", "are"), len(findings), verb(len(findings), "reason", "reasons"))
}

func (v *view) recentlyDelivered() int64 {
	if v.Log == nil {
		return 0
	}
	return v.Log.Total.Delivered
}

// blind says what keeps us from telling whether mail flows: a healthy answer
// needs a queue that could be read and a Postfix that is known to run, or a log
// that shows deliveries.
func (v *view) blind() string {
	for _, q := range []postfix.Queue{postfix.Incoming, postfix.Active, postfix.Deferred} {
		if !v.Snapshot.Shape(q).Known {
			return fmt.Sprintf("the %s queue could not be looked at", q)
		}
	}
	alive := v.Host != nil && v.Host.Master.Known && v.Host.Manager.Known
	if !alive && v.recentlyDelivered() == 0 {
		return "nothing could be learnt about Postfix's own processes, and there is no log that shows a delivery"
	}
	return ""
}

// lower makes the first letter small, for a sentence that goes on, unless it
// begins a name.
func lower(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' && s[:min(7, len(s))] != "Postfix" {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}
