package diagnose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// soonOver is a wait that is over before anybody has read of it.
const soonOver = 15 * time.Second

// backoff: what the mail waited for is over; it waits for its next try.
func (v *view) backoff(list []*assessed) []Finding {
	var over []*assessed
	total := 0
	var first, last time.Time
	for _, a := range list {
		if a.state != cured || a.wait.last.IsZero() {
			continue
		}
		over = append(over, a)
		total += a.wait.messages
		first, last = earlier(first, a.wait.first), later(last, a.wait.last)
	}
	if len(over) == 0 || !v.notable(total) {
		return nil
	}
	if last.Add(v.in.QueueRunDelay).Sub(v.Now) < soonOver {
		return nil
	}
	a := over[0]
	f := Finding{
		Cause: postfix.BackoffWait, Scope: Destination, Subject: a.name, Confidence: High, Waiting: total, Since: a.log.LastDeferred,
	}
	if len(over) > 1 {
		f.Scope, f.Subject = Global, ""
	}
	// A try comes with the first queue run after its time.
	run := v.in.QueueRunDelay
	f.Summary = fmt.Sprintf("What kept %s is over (%s); %s for the next try, %s", messages(total), causesOf(over), verb(total, "it waits", "they wait"), window(first.Sub(v.Now), last.Sub(v.Now)+run))
	for i, a := range over {
		if i < 3 {
			f.Evidence = append(f.Evidence, a.seen...)
			f.Evidence = append(f.Evidence, v.waitEvidence(a))
		}
	}
	if v.onlyClaimed(over) {
		f.Confidence = Medium // a log that others can write to says so, and nothing else
	}
	f.Evidence = append(f.Evidence, Evidence{"spool", v.Snapshot.To, fmt.Sprintf("next tries between %s and %s, looked for every %s", first.UTC().Format("15:04:05"), last.UTC().Format("15:04:05 UTC"), span(run))})
	f.RuledOut = append(f.RuledOut, Rejected{a.cause, "it was the reason of the last try, and does not hold any more"})
	s := steps{v.in}
	f.Next = []Step{
		s.tryOne(a.wait.sample, "tries one message now, to be sure"),
		advice("wait: the rest goes by itself, a little at a time"),
		s.again("shows whether it drains"),
	}
	f.Avoid = []Step{
		s.flush(fmt.Sprintf("all %s would go at once: a server that has just come back, or counts, refuses most of them", messages(total))),
		s.requeue("it changes nothing about the schedule that waiting would not; " + whyNoRequeue),
	}
	return []Finding{f}
}

// onlyClaimed says that nothing but a log that anybody could write to proves
// that it is over.
func (v *view) onlyClaimed(over []*assessed) bool {
	for _, a := range over {
		for _, e := range a.seen {
			if strings.HasPrefix(e.Source, "probe") {
				return false
			}
		}
	}
	return v.Log == nil || v.Log.Trust != observe.TrustJournal
}

// causesOf lists what is over, each once.
func causesOf(over []*assessed) string {
	var list []string
	for _, a := range over {
		if !slices.Contains(list, string(a.cause)) {
			list = append(list, string(a.cause))
		}
	}
	return strings.Join(list, ", ")
}

// window writes the remaining wait: "the first in 40 s, the last within 1 h".
func window(first, last time.Duration) string {
	if first <= 0 {
		return "the first with the next queue run, the last within " + span(last)
	}
	return fmt.Sprintf("the first in %s, the last within %s", span(first), span(last))
}

// overdue: what Holdfast was told to do later, and nobody did.
func (v *view) overdue() []Finding {
	if len(v.Late) == 0 {
		return nil
	}
	first := v.Late[0]
	s := steps{v.in}
	f := Finding{
		Cause: postfix.Overdue, Subject: "keeper", Scope: HostScope, Confidence: High, Since: first.When,
		Summary: fmt.Sprintf("what was to happen at %s did not: %s; no keeper lives to do it", first.When.UTC().Format("2006-01-02 15:04 UTC"), first.What),
		Next:    []Step{s.holdfast("does what is due, each thing once", "tick")},
	}
	if first.Keeper {
		f.Summary = fmt.Sprintf("what was to happen at %s did not: %s; the keeper lives, and its attempts fail", first.When.UTC().Format("2006-01-02 15:04 UTC"), first.What)
		f.Next[0].Why = "tries now, and says why it fails"
	}
	for _, late := range v.Late[:min(len(v.Late), 5)] {
		f.Evidence = append(f.Evidence, Evidence{"record", v.Now, strings.TrimSpace(fmt.Sprintf("due since %s: %s %s", late.When.UTC().Format(time.RFC3339), late.What, late.Object))})
	}
	return []Finding{f}
}

// forgotten: mail on hold goes nowhere until somebody releases it.
func (v *view) forgotten() []Finding {
	h := v.held
	n := h.messages - h.byRule - h.own
	if n <= 0 {
		return nil
	}
	s := steps{v.in}
	f := Finding{
		Cause: postfix.HeldForgotten, Subject: "hold", Scope: HostScope, Confidence: Medium, Waiting: n, Since: h.since,
		Summary:  fmt.Sprintf("%s %s on hold since %s: Postfix never tries %s, whatever else is mended", messages(n), verb(n, "is", "are"), h.since.UTC().Format("2006-01-02 15:04 UTC"), verb(n, "it", "them")),
		Evidence: []Evidence{{"spool", v.Snapshot.To, fmt.Sprintf("%s in hold, %s, held for %s at most", messages(h.messages), size(h.bytes), span(v.Now.Sub(h.since)))}},
	}
	if h.since.IsZero() {
		f.Summary = fmt.Sprintf("%s %s on hold: Postfix never tries %s, whatever else is mended", messages(n), verb(n, "is", "are"), verb(n, "it", "them"))
		f.Evidence[0].Text = messages(h.messages) + " in hold"
	}
	if h.overdue > 0 {
		f.Confidence = High
		f.Evidence = append(f.Evidence, Evidence{"spool", v.Snapshot.To, fmt.Sprintf("%s for more than %s", messages(h.overdue), span(reviewAfter))})
	}
	f.Next = []Step{
		s.holdfast("shows what is held and whose it is; ask who put it there and why", "queue", "--queue", "hold"),
		s.holdfast("shows one of them", "show", string(h.sample)),
	}
	if h.ownOverdue > 0 {
		f.Evidence = append(f.Evidence, Evidence{"record", v.Now, fmt.Sprintf("Holdfast put %s on hold, and somebody was to look at %s by now", messages(h.ownOverdue), verb(h.ownOverdue, "it", "them"))})
		f.Next = append([]Step{s.holdfast("lets go what Holdfast holds, at a pace; what others hold stays", "release", "--queue", "hold", "--reason", "reviewed")}, f.Next...)
	}
	f.Avoid = []Step{s.remove("it deletes accepted mail, held or not, and cannot be taken back")}
	v.heldFromActive(&f)
	if h.expired > 0 {
		f.Evidence = append(f.Evidence, Evidence{"spool", v.Snapshot.To, fmt.Sprintf("%s so old that the first failure after a release returns %s to the sender", messages(h.expired), verb(h.expired, "it", "them"))})
		f.Avoid = append(f.Avoid, s.release("mail that is past its lifetime bounces at its first failure; raise maximal_queue_lifetime before it is released"))
	} else if h.risky == 0 {
		f.Avoid = append(f.Avoid, s.release("all of it would be tried in one queue run; release a few and look"))
	}
	return []Finding{f}
}

// heldFromActive says which held mail a release would lose.
func (v *view) heldFromActive(f *Finding) {
	h := v.held
	s := steps{v.in}
	if h.risky == 0 {
		if h.unsure > 0 {
			f.Evidence = append(f.Evidence, Evidence{"spool", v.Snapshot.To, fmt.Sprintf("nothing tells whether %s held while qmgr had %s in memory: treat %s as if", messages(h.unsure), verb(h.unsure, "it", "them"), verb(h.unsure, "it", "them"))})
			f.Avoid = append(f.Avoid, s.postfix("if they were held from active, qmgr removes them undelivered when they come back: run postfix reload before", "postsuper", "-H", string(h.sample)))
		}
		return
	}
	f.Confidence = High
	f.Summary += fmt.Sprintf("; %s held from active and would be LOST if released now", messages(h.risky))
	if h.risky == 1 {
		f.Summary = fmt.Sprintf("%s; 1 of them was held from active and would be LOST if released now", f.Summary[:len(f.Summary)-len("; 1 message held from active and would be LOST if released now")])
	}
	at := managerStarted(v.Host)
	text := fmt.Sprintf("%s: qmgr took it up, then it was put on hold, and the same qmgr still runs", h.riskySample)
	if !at.IsZero() {
		text += " (since " + at.UTC().Format("2006-01-02 15:04:05 UTC") + ")"
	}
	f.Evidence = append([]Evidence{{v.logSource(), v.Log.To, text}}, f.Evidence...)
	f.Next = append([]Step{s.postfix("starts another queue manager, which does not have them in memory; only then may they be released", "postfix", "reload")}, f.Next...)
	f.Avoid = append([]Step{s.release("qmgr takes each for the message that it still has in memory, and removes the file: undelivered, without a bounce")}, f.Avoid...)
}

// fullShare is when the active queue counts as full, in percent: qmgr takes
// nothing in at the limit, and is there again as soon as one message has left.
const fullShare = 90

// activeFull: the active queue is at its limit, so mail for everybody waits for
// the one who fills it.
func (v *view) activeFull() []Finding {
	if v.Host == nil || v.Host.Settings.ActiveLimit <= 0 {
		return nil
	}
	limit := v.Host.Settings.ActiveLimit
	if v.active*100 < limit*fullShare || v.incoming+v.deferred == 0 {
		return nil
	}
	var most *hop
	for _, h := range v.sorted() {
		if most == nil || h.active > most.active {
			most = h
		}
	}
	if most == nil || v.drains(most) {
		return nil
	}
	s := steps{v.in}
	f := Finding{
		Cause: postfix.ActiveQueueFull, Subject: most.name, Scope: Global, Confidence: High, Waiting: v.incoming + v.active,
		Summary: fmt.Sprintf("The active queue is full (%s of %s) with mail for %s: mail for everybody else waits in incoming", number(v.active), number(limit), most.name),
		Evidence: []Evidence{
			{"spool", v.Snapshot.To, fmt.Sprintf("%s active, %s of them for %s; %s in incoming", number(v.active), number(most.active), most.name, number(v.incoming))},
			{"postconf", v.Host.At, "qmgr_message_active_limit = " + strconv.Itoa(limit)},
		},
		RuledOut: []Rejected{{postfix.QueueManager, "qmgr answers (" + latency(v.Host.Manager.Latency) + ")"}},
		Next: []Step{
			s.holdfast("shows what fills it", "queue", "--queue", "active", "--by", "next-hop"),
			advice("give " + most.name + " a transport of its own with few connections, so that it does not stand in everybody's way"),
		},
		Avoid: []Step{
			s.flush("nothing more fits into the active queue; " + whyNoFlush),
			s.postfix("mail held from active is lost when it is released while the same qmgr runs", "postsuper", "-h", "ALL", "active"),
		},
	}
	if v.Host.Manager.State != "well" {
		f.RuledOut = nil
	}
	if most.active*2 < v.active {
		f.Confidence = Medium
		f.Summary = fmt.Sprintf("The active queue is full (%s of %s): new mail waits in incoming", number(v.active), number(limit))
	}
	if t := v.usingUp(); t != (Evidence{}) {
		f.Evidence = append(f.Evidence, t)
	}
	return []Finding{f}
}

func (v *view) usingUp() Evidence {
	if v.Log == nil {
		return Evidence{}
	}
	for i := range v.Log.Troubles {
		if t := &v.Log.Troubles[i]; t.Program == "qmgr" && t.Cause == postfix.ActiveQueueFull {
			return v.fromTrouble(t)
		}
	}
	return Evidence{}
}

// drains says that a full active queue is only a busy one: the hop that fills
// it took mail a moment ago, and at the pace that the log shows, what is active
// for it is gone in a minute.
func (v *view) drains(most *hop) bool {
	if !most.inLog || v.Now.Sub(most.log.LastDelivered) > 15*time.Second {
		return false
	}
	spent := max(most.log.LastDelivered.Sub(most.log.FirstDelivered), time.Second)
	return float64(most.active)*spent.Seconds() < float64(most.log.Delivered)*60
}

// expiring: mail is about to be returned to its senders.
func (v *view) expiring() []Finding {
	e := v.expiry
	if e.soon == 0 || !(e.soon >= 10 || e.soon >= 3 && e.soon*10 >= v.deferred || e.soon*2 >= v.deferred && v.notable(e.soon)) {
		return nil
	}
	s := steps{v.in}
	f := Finding{
		Cause: postfix.ExpirySoon, Subject: "maximal_queue_lifetime", Scope: Global, Confidence: High, Waiting: e.soon,
		Summary: fmt.Sprintf("%s will be returned to the sender at the next failed try within %s, the first %s", messages(e.soon), span(e.within), in(e.first.Sub(v.Now))),
		Evidence: []Evidence{
			{"spool", v.Snapshot.To, fmt.Sprintf("%s older than %s less %s; %s past it already", messages(e.soon), span(v.in.MaxLifetime), span(e.within), number(e.past))},
			{"postconf", v.Snapshot.To, fmt.Sprintf("maximal_queue_lifetime is %s", span(v.in.MaxLifetime))},
		},
		Next: []Step{
			s.holdfast("shows which mail it is", "queue", "--where", fmt.Sprintf("expires_in < duration(%q)", strconv.Itoa(int(e.within/time.Second))+"s")),
			s.postfix("gives the mail more time, once postfix reload has told qmgr; put it back when the queue has drained", "postconf", "-e", fmt.Sprintf("maximal_queue_lifetime=%ds", int(2*v.in.MaxLifetime/time.Second))),
		},
		Avoid: []Step{
			s.flush("the next failure returns them: each try that fails is their last"),
			s.requeue("it resets the age, and does more: " + whyNoRequeue),
		},
	}
	if e.past > 0 {
		f.Avoid = append(f.Avoid, s.tryOne(e.sample, "this one is past its lifetime: if the try fails it is returned"))
	}
	return []Finding{f}
}

func in(d time.Duration) string {
	if d <= 0 {
		return "at its very next try"
	}
	return "in " + span(d)
}
