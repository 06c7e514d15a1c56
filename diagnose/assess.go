package diagnose

import (
	"fmt"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// condition says whether what a hop's mail waits for still holds.
type condition int

const (
	stands  condition = iota // seen now, or nothing speaks against it
	cured                    // seen to be over
	unasked                  // not looked at: too many of its kind
)

// assessed is one hop, what most of its mail waits for, and whether that still
// holds.
type assessed struct {
	*hop
	*wait
	state condition
	// seen is the proof that it stands or is cured, "" where there is none but
	// the queue itself.
	seen []Evidence
	// old is set where the proof is a remembered answer of a probe.
	old time.Duration
}

// assess looks at every hop that has failures.
func (v *view) assess() []*assessed {
	var list []*assessed
	for _, h := range v.sorted() {
		w := h.main()
		if w == nil {
			continue
		}
		a := &assessed{hop: h, wait: w}
		switch {
		case w.cause == postfix.DNS:
			v.assessDNS(a)
		case unreachable(w.cause):
			v.assessReach(a)
		default:
			v.assessSaid(a)
		}
		list = append(list, a)
	}
	settleUnasked(list)
	return list
}

// assessDNS compares the reason with what the name servers say now.
func (v *view) assessDNS(a *assessed) {
	l := a.hop.lookup(a.wait)
	answered, failed := v.answers(l.name, l.kind)
	switch {
	case l.name == "" || len(answered)+len(failed) == 0:
		a.state = unasked
	case len(answered) == 0:
		a.seen = append(a.seen, v.answerEvidence(failed[0], len(failed)))
	case answered[0].Outcome == "nxdomain":
		// The last word was "try again", this one is final: the next try
		// bounces the mail. That is no cure.
		a.seen = append(a.seen, v.answerEvidence(answered[0], 1))
	default:
		a.state = cured
		a.seen = append(a.seen, v.answerEvidence(answered[0], len(answered)))
	}
}

// answer is what one of Postfix's name servers said.
type answer struct {
	server string
	observe.Answer
}

// answers returns what Postfix's name servers said of a name.
func (v *view) answers(name, kind string) (answered, failed []answer) {
	if v.Host == nil {
		return nil, nil
	}
	for _, r := range v.Host.DNS.Servers {
		for _, a := range r.Answers {
			if a.Name != name || a.Type != kind {
				continue
			}
			if a.Failed() {
				failed = append(failed, answer{r.Address, a})
			} else {
				answered = append(answered, answer{r.Address, a})
			}
		}
	}
	return answered, failed
}

func (v *view) answerEvidence(a answer, of int) Evidence {
	text := fmt.Sprintf("%s asked for %s %s: %s", a.server, a.Type, a.Name, a.outcome())
	if of > 1 {
		text += fmt.Sprintf(" (%d name servers agree)", of)
	}
	return Evidence{"probe dns", v.Host.At, text}
}

// outcome says in words what an answer was.
func (a answer) outcome() string {
	after := " after " + latency(a.Latency)
	switch a.Outcome {
	case "answer":
		return fmt.Sprintf("%d %s%s", a.Records, verb(a.Records, "record", "records"), after)
	case "nodata":
		return "no such record" + after
	case "nxdomain":
		return "the name does not exist" + after
	case "servfail":
		return "SERVFAIL" + after
	case "refused":
		return "REFUSED" + after
	case "timeout":
		return "no answer" + after
	}
	if a.Text != "" {
		return cut(a.Text, 120)
	}
	return a.Outcome
}

func latency(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// assessReach compares "cannot connect" with a connection of our own.
func (v *view) assessReach(a *assessed) {
	for _, r := range a.reachable {
		if r.Refused != "" {
			continue
		}
		old := v.Host.At.Sub(r.At)
		if (r.Well() || r.Stage == "starttls") && !failsLater(a.text) {
			a.state, a.seen, a.old = cured, []Evidence{v.reachEvidence(r)}, 0
			return
		}
		if r.Well() {
			continue
		}
		a.seen = append(a.seen, v.reachEvidence(r))
		if old > 2*time.Second {
			a.old = old
		}
	}
	if len(a.seen) > 0 {
		return
	}
	if a.inLog && a.log.DeliveredAfter > 0 {
		a.state = cured
		a.seen = []Evidence{v.deliveredEvidence(a.hop)}
		return
	}
	if failsLater(a.text) {
		return
	}
	a.state = unasked
	for _, r := range a.reachable {
		a.state = stands
		a.seen = append(a.seen, Evidence{"probe egress", r.At, "not tried: " + r.Refused})
	}
}

// failsLater says that a conversation broke behind the point to which a probe
// goes, "lost connection with X while sending RCPT TO" (smtp_trouble.c and
// smtp_proto.c): that the server greets is no news then.
func failsLater(reason string) bool {
	_, stage, ok := strings.Cut(postfix.FirstReason(reason), " while ")
	return ok && !strings.Contains(stage, "greeting") && !strings.Contains(stage, "handshake") && !strings.Contains(stage, "STARTTLS")
}

func (v *view) reachEvidence(r observe.Reach) Evidence {
	where := r.Server
	if where == "" {
		where = "server"
	}
	where += "[" + hostPort(r.Address, r.Port) + "]"
	if !r.Failed {
		return Evidence{"probe egress", r.At, fmt.Sprintf("%s greets and would talk (%s)", where, latency(r.Latency))}
	}
	text := r.Text
	if text == "" {
		text = r.Stage + " failed"
	}
	return Evidence{"probe egress", r.At, fmt.Sprintf("%s: %s", where, cut(text, 160))}
}

func (v *view) deliveredEvidence(h *hop) Evidence {
	return Evidence{v.logSource(), h.log.LastDelivered, fmt.Sprintf("%s delivered there after the last failure of %s", messages(h.log.DeliveredAfter), h.log.LastDeferred.UTC().Format("15:04:05 UTC"))}
}

// sureDeliveries is how many deliveries in a row tell that a server which
// refused mail takes it again. A provider that allows a few messages a minute
// lets one or two through at any time.
const sureDeliveries = 5

// assessSaid: a server that refused is not asked again by a probe. Only what
// it did with later mail tells whether it takes mail now.
func (v *view) assessSaid(a *assessed) {
	if !a.inLog || a.log.DeliveredAfter == 0 {
		return
	}
	quiet := a.log.LastDelivered.Sub(a.log.LastDeferred)
	if a.log.DeliveredAfter >= sureDeliveries || a.log.DeliveredAfter >= 2 && quiet > time.Minute {
		a.state = cured
		a.seen = []Evidence{v.deliveredEvidence(a.hop)}
	}
}

// settleUnasked judges what was not looked at by its kind: all hops with DNS
// failures wait for the same name servers.
func settleUnasked(list []*assessed) {
	type tally struct{ stands, cured int }
	by := make(map[bool]*tally)
	for _, dns := range []bool{true, false} {
		by[dns] = &tally{}
	}
	for _, a := range list {
		t := by[a.cause == postfix.DNS]
		switch a.state {
		case stands:
			t.stands++
		case cured:
			t.cured++
		case unasked:
		}
	}
	for _, a := range list {
		if a.state != unasked {
			continue
		}
		a.state = stands
		if t := by[a.cause == postfix.DNS]; t.cured > 0 && t.stands == 0 && a.cause == postfix.DNS {
			a.state = cured
		}
	}
}
