package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// destination begins the finding that one hop's mail waits for a cause.
func (v *view) destination(a *assessed, c postfix.Cause, what string) Finding {
	f := Finding{
		Cause: c, Subject: a.name, Scope: Destination, Confidence: Medium, Waiting: a.wait.messages, Since: a.since(),
		Summary: fmt.Sprintf("%s; %s %s", what, messages(a.wait.messages), verb(a.wait.messages, "waits", "wait")),
	}
	f.Evidence = append(f.Evidence, a.seen...)
	f.Evidence = append(f.Evidence, v.waitEvidence(a))
	if e, ok := v.logEvidence(a); ok {
		f.Evidence = append(f.Evidence, e)
	}
	if len(a.seen) > 0 {
		f.Confidence = High
	}
	if a.old > 0 {
		f.Evidence = append(f.Evidence, Evidence{"probe egress", v.Host.At, fmt.Sprintf("this answer is %s old: a server is asked once a minute at most", span(a.old))})
		f.Confidence = Medium
	}
	return f
}

// waitEvidence is what the queue says: how many wait, and with which words.
func (v *view) waitEvidence(a *assessed) Evidence {
	return Evidence{"spool", v.Snapshot.To, fmt.Sprintf("%s for %s: %s", messages(a.wait.messages), a.name, quoted(a.text))}
}

// logEvidence is what the log says of a hop's cause.
func (v *view) logEvidence(a *assessed) (Evidence, bool) {
	r := a.log.Reasons[a.cause]
	if r == nil || r.Attempts == 0 {
		return Evidence{}, false
	}
	text := fmt.Sprintf("%s failed %s since %s", number(r.Attempts), verb(int(r.Attempts), "attempt", "attempts"), r.First.UTC().Format("15:04:05 UTC"))
	if a.log.Delivered > 0 {
		text += fmt.Sprintf(", %s delivered there in the same time", number(a.log.Delivered))
	}
	return Evidence{v.logSource(), r.Last, text}, true
}

// said: servers that answer and refuse, put together by provider.
func (v *view) said(list []*assessed) []Finding {
	groups := make(map[[2]string][]*assessed)
	var keys [][2]string
	for _, a := range list {
		if a.state != stands || a.cause == postfix.DNS || unreachable(a.cause) || v.moving(a) {
			continue
		}
		key := [2]string{string(a.cause), providerOf(a)}
		if groups[key] == nil {
			keys = append(keys, key)
		}
		groups[key] = append(groups[key], a)
	}
	var found []Finding
	for _, key := range keys {
		if f, ok := v.refusing(groups[key], key[1]); ok {
			found = append(found, f)
		}
	}
	return found
}

// providerOf is what tells the hops of one provider: the last two labels of
// the server's name, or the hop where no server is known.
func providerOf(a *assessed) string {
	name := strings.TrimSuffix(strings.ToLower(a.host), ".")
	labels := strings.Split(name, ".")
	if len(labels) < 2 || strings.ContainsAny(name, "[]: ") {
		return a.name
	}
	return strings.Join(labels[len(labels)-2:], ".")
}

// patience is how long mail may wait for a server that takes mail as well as
// refusing it: greylisting, and limits that a relay keeps running into, let
// mail through on the second or third try.
const patience = 20 * time.Minute

// moving says that a destination refuses some mail, takes more than waits, and
// keeps nobody waiting for long: that is business as usual.
func (v *view) moving(a *assessed) bool {
	if !a.inLog || a.log.Delivered < int64(a.wait.messages) || v.Now.Sub(a.oldest) > patience {
		return false
	}
	r := a.log.Reasons[a.cause]
	if r == nil || a.cause == postfix.Greylisting {
		return true // refusing everything once is what greylisting is
	}
	// Deliveries and refusals take turns: a limit that mail runs into at peaks.
	turns := v.Now.Sub(a.log.LastDelivered) < time.Minute && a.log.LastDelivered.After(a.log.LastDeferred.Add(-10*time.Second))
	return r.Attempts*4 <= a.log.Delivered || turns && a.log.Delivered >= 2*int64(a.wait.messages)
}

// refusing makes one finding of the hops of one provider with one cause.
func (v *view) refusing(hops []*assessed, provider string) (Finding, bool) {
	slices.SortStableFunc(hops, func(a, b *assessed) int { return cmp.Compare(b.wait.messages, a.wait.messages) })
	total := 0
	for _, a := range hops {
		total += a.wait.messages
	}
	if !v.notable(total) {
		return Finding{}, false
	}
	first := hops[0]
	subject := first.name
	if len(hops) > 3 {
		subject = provider
	}
	advised := v.advice(first)
	f := v.destination(first, first.cause, subject+" "+advised.what)
	f.Subject, f.Waiting = subject, total
	if len(hops) > 1 {
		f.Summary = fmt.Sprintf("%s %s; %s wait for %d domains there", subject, advised.what, messages(total), len(hops))
		for _, a := range hops[1:min(len(hops), 4)] {
			f.Evidence = append(f.Evidence, v.waitEvidence(a))
		}
	}
	if r := first.log.Reasons[first.cause]; r != nil && r.Attempts >= int64(total)/2 {
		f.Confidence = High // the queue and the log say the same
	}
	if remoteWords(first.cause) {
		f.RuledOut = append(f.RuledOut, Rejected{postfix.Egress, "the server answers, so the way to it is open"}, Rejected{postfix.DNS, "its name was found"})
	}
	f.Next, f.Avoid = advised.next, advised.avoid
	return f, true
}

// remoteWords says that a cause is the words of a remote server.
func remoteWords(c postfix.Cause) bool {
	switch c {
	case postfix.RemoteThrottling, postfix.RemoteRejecting, postfix.Greylisting, postfix.Reputation:
		return true
	}
	return false
}

// advised is what to say and do about mail that a server refuses.
type advised struct {
	what        string
	next, avoid []Step
}

func (v *view) advice(a *assessed) advised {
	s := steps{v.in}
	look := s.waiting(a.cause, "shows the mail that waits", "--next-hop", a.name)
	meaning := s.holdfast("says what the reply means and who has to act", "explain", "--", quoted(a.text))
	one := s.tryOne(a.wait.sample, "tries one message now, to see whether the server takes it, and shows its log lines")
	harder := s.flush("the server asks for less and would get everything at once: refusals turn into a penalty")
	switch a.cause {
	case postfix.RemoteThrottling:
		return advised{
			"limits how fast it takes mail from here",
			[]Step{
				advice("wait: Postfix tries again by itself, and each pause lets the provider's count run down"),
				s.holdfast("takes the backlog out of Postfix's own schedule, so that new mail has the provider's limit to itself; holdfast release lets it go at a pace", "hold", "--next-hop", a.name, "--cause", string(a.cause), "--reason", "the provider limits us"),
				s.postfix("how many connections at once Postfix makes to a destination; fewer are less likely to be refused", "postconf", "default_destination_concurrency_limit"),
				look,
			},
			[]Step{harder, s.requeue("it is tried at once again; " + whyNoRequeue), s.restart("what qmgr has learnt about the provider's pace is lost; " + whyNoRestart)},
		}
	case postfix.Greylisting:
		return advised{
			"greylists: it refuses the first tries and takes the mail after a delay",
			[]Step{advice("wait: the next try after the delay goes through; nothing is wrong here"), meaning, look},
			[]Step{s.flush("tries before the delay is over do not count, and may start it anew"), s.requeue("some greylists begin anew with what changes on requeue; " + whyNoRequeue)},
		}
	case postfix.Reputation:
		return advised{
			"refuses mail for this host's reputation",
			[]Step{
				meaning,
				s.holdfast("shows who sends: a compromised account or a bulk mailing is the usual reason", "queue", "--by", "sender"),
				advice("stop what sends the unwanted mail first; then ask the provider or the list to be taken off"),
			},
			[]Step{s.flush("each refused try counts against this host's address; " + whyNoFlush), advice("do not change the sending address to get around it: the next one is listed faster")},
		}
	case postfix.RemoteRejecting:
		return advised{"refuses mail for now", []Step{meaning, one, look}, []Step{s.flush(whyNoFlush), s.requeue(whyNoRequeue)}}
	}
	return advised{
		fmt.Sprintf("does not get its mail (%s)", a.cause),
		[]Step{meaning, look},
		[]Step{s.flush("the cause still stands; " + whyNoFlush), s.requeue(whyNoRequeue)},
	}
}

// returning: a destination that takes nothing and returns what it is sent. No
// mail waits for it, so only the log tells, and each message is lost to its
// recipient.
func (v *view) returning() []Finding {
	if v.Log == nil {
		return nil
	}
	var found []Finding
	for _, name := range slices.Sorted(maps.Keys(v.Log.Domains)) {
		d := v.Log.Domains[name]
		if d.Bounced < 10 || d.Bounced <= d.Delivered || !v.notable(int(d.Bounced)) {
			continue
		}
		cause, r := worst(d)
		if r == nil || r.Attempts*2 < d.Bounced || d.LastDelivered.After(r.Last) {
			continue
		}
		a := &assessed{hop: &hop{name: name, log: *d}, wait: &wait{cause: cause, text: r.Text}}
		advised := v.advice(a)
		f := Finding{
			Cause: cause, Subject: name, Scope: Destination, Confidence: Medium, Since: r.First,
			Summary: fmt.Sprintf("%s %s, for good: %s returned to the sender", name, strings.TrimSuffix(advised.what, " for now"), messages(d.Bounced)),
			Evidence: []Evidence{
				{v.logSource(), r.Last, fmt.Sprintf("%s bounced and %s delivered since %s: %s", number(d.Bounced), number(d.Delivered), r.First.UTC().Format("15:04:05 UTC"), quoted(r.Text))},
			},
			RuledOut: []Rejected{{postfix.RecipientUnknown, "the reply is not about a single recipient"}},
			Next: []Step{
				steps{v.in}.holdfast("says what the reply means and who has to act", "explain", "--", quoted(r.Text)),
				advice("hold mail for " + name + " back at its senders until this is settled: what is sent now comes back"),
			},
			Avoid: []Step{advice("do not send what was returned once more: each refused message counts against this host")},
		}
		found = append(found, f)
	}
	return found
}

// worst returns the cause of most failures of a domain, of those that are about
// this host and not about a recipient, a name or a connection.
func worst(d *observe.LogDomain) (postfix.Cause, *observe.LogReason) {
	var most *observe.LogReason
	var cause postfix.Cause
	for _, c := range []postfix.Cause{
		postfix.Reputation, postfix.RemoteRejecting, postfix.RemoteThrottling, postfix.Auth, postfix.TLS, postfix.Relayhost,
	} {
		if r := d.Reasons[c]; r != nil && (most == nil || r.Attempts > most.Attempts) {
			cause, most = c, r
		}
	}
	return cause, most
}
