package operate

import (
	"context"
	"fmt"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// foreign is what others have on hold, by who put it there as far as the log
// tells.
type foreign struct {
	by map[observe.HoldOrigin]int
	// passing are the messages that came in the time of the log, ruled those of
	// them that a rule or a milter put on hold.
	passing, ruled int64
	// arrived are those that cleanup put on hold when they came, as a log tells
	// to which no stranger can add.
	arrived map[record.File]bool
}

// neverActive reports whether a message on hold is proved never to have been in
// the hands of the queue manager.
func (f *foreign) neverActive(m *postfix.Message) bool {
	return f != nil && f.arrived[record.File{ID: m.ID, Inode: m.Inode}]
}

// unknownOrigin is that of a hold of which the log does not tell.
const unknownOrigin observe.HoldOrigin = ""

// workQueue is the part of new mail that must go on hold by a rule before hold
// counts as somebody's work queue, and the number of messages that it takes.
const (
	workQueuePart  = 0.9
	workQueueLeast = 10
)

// strangers looks who else puts mail on hold here. It reads the log only where
// there is something on hold that Holdfast did not put there.
func (d *drafting) strangers(ctx context.Context) *foreign {
	var held []*postfix.Message
	d.snap.Each(func(m *postfix.Message) bool {
		if m.Queue == postfix.Hold {
			if _, ours := d.ledger.HoldOf(m.Fingerprint(d.in.Name)); !ours {
				kept := *m
				held = append(held, &kept)
			}
		}
		return true
	})
	if len(held) == 0 {
		return nil
	}
	f := &foreign{by: make(map[observe.HoldOrigin]int), arrived: make(map[record.File]bool)}
	log, _ := maillog.Read(ctx, d.in.Instance, maillog.ReadOptions{Opener: d.o.opener, Since: d.now.Add(-usualWindow), Detail: true})
	for _, m := range held {
		origin := unknownOrigin
		if log != nil {
			if h, ok := log.Holds[m.ID]; ok && !h.At.Before(m.Arrival.Add(-time.Second)) {
				origin = h.By
				if log.Trust != observe.TrustPlain && (h.By == observe.HeldByRule || h.By == observe.HeldByMilter) {
					f.arrived[record.File{ID: m.ID, Inode: m.Inode}] = true
				}
			}
		}
		f.by[origin]++
	}
	if log != nil {
		f.passing = log.Total.Arrived
		for _, h := range log.Holds {
			if h.By != observe.HeldByPostsuper {
				f.ruled++
			}
		}
	}
	return f
}

// isWork says whether hold is where a rule sends all mail, for a scanner that
// takes it from there (MailScanner, amavisd in pre-queue hold): what Holdfast
// puts there would be taken, too, and what it takes from there is unscanned.
func (f *foreign) isWork() bool {
	return f != nil && f.ruled >= workQueueLeast && float64(f.ruled) >= workQueuePart*float64(f.passing)
}

func (f *foreign) String() string {
	var parts []string
	for _, one := range []struct {
		origin observe.HoldOrigin
		words  string
	}{
		{observe.HeldByPostsuper, "by postsuper"},
		{observe.HeldByRule, "by a HOLD rule"},
		{observe.HeldByMilter, "by a milter"},
		{unknownOrigin, "by whom the log does not tell"},
	} {
		if n := f.by[one.origin]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, one.words))
		}
	}
	return strings.Join(parts, ", ")
}

// addStrangers says in a plan whose holds it leaves alone, and bars it where
// hold is a work queue.
func (d *drafting) addStrangers(e *plan.Effects) {
	if d.others.isWork() {
		e.Bars = append(e.Bars, plan.Bar{
			Kind: "guard",
			Text: fmt.Sprintf("hold is a work queue here: a rule put %d of the %d messages on hold that came within the hour, and something takes them from there", d.others.ruled, d.others.passing),
			Lift: "stop what empties the hold queue, and the rule that fills it",
		})
	}
	if d.others == nil {
		return
	}
	for i := range e.Skipped {
		if s := &e.Skipped[i]; s.Why == plan.SkipForeign {
			s.Hint = "in all of hold: " + d.others.String() + "; " + s.Hint
		}
	}
}
