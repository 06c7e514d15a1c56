package diagnose

import (
	"fmt"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// slowAnswer is when an answer is so late that lookups hold deliveries up: the
// resolver library gives up after five seconds, and each message needs several
// lookups.
const slowAnswer = 1500 * time.Millisecond

// resolverState sums up what one name server said.
type resolverState struct {
	observe.Resolver
	answered, failed, denied, slow int
	sample                         answer // a failure, else any
}

func stateOf(r observe.Resolver) resolverState {
	s := resolverState{Resolver: r}
	for _, a := range r.Answers {
		switch {
		case a.Failed():
			if s.failed == 0 {
				s.sample = answer{r.Address, a}
			}
			s.failed++
		default:
			if s.answered == 0 && s.failed == 0 {
				s.sample = answer{r.Address, a}
			}
			s.answered++
			if a.Control && a.Outcome == "nxdomain" {
				s.denied++
			}
			if a.Latency > slowAnswer {
				s.slow++
			}
		}
	}
	return s
}

// dead says that a server answers nothing, not even about names that are known
// to exist.
func (s resolverState) dead() bool { return s.failed > 0 && s.answered == 0 }

// dns: names cannot be resolved, here or at one domain.
func (v *view) dns(list []*assessed) []Finding {
	var failing []*assessed
	waiting := 0
	for _, a := range list {
		if a.cause == postfix.DNS && a.state == stands {
			failing = append(failing, a)
			waiting += a.wait.messages
		}
	}
	if f, ok := v.globalDNS(failing, waiting); ok {
		return []Finding{f}
	}
	var found []Finding
	for _, a := range failing {
		if v.notable(a.wait.messages) {
			found = append(found, v.domainDNS(a))
		}
	}
	return found
}

// globalDNS tells a broken resolver from broken domains: it is the resolver
// when none of its answers is of use, whatever it is asked.
func (v *view) globalDNS(failing []*assessed, waiting int) (Finding, bool) {
	f := Finding{Cause: postfix.DNS, Scope: Global, Confidence: High, Waiting: waiting}
	if v.Host == nil || !v.Host.DNS.Known || len(v.Host.DNS.Servers) == 0 {
		return v.guessedDNS(f, failing)
	}
	d := v.Host.DNS
	var states []resolverState
	dead, controls, denied, slow, asked := 0, 0, 0, 0, 0
	for _, r := range d.Servers {
		s := stateOf(r)
		states = append(states, s)
		asked += len(r.Answers)
		denied += s.denied
		slow += s.slow
		if s.dead() {
			dead++
		}
		for _, a := range r.Answers {
			if a.Control {
				controls++
			}
		}
	}
	path := d.Path
	switch {
	case asked == 0:
		return v.guessedDNS(f, failing)
	case dead == len(states) && (controls > 0 || len(failing) > 1 || v.allTimeouts(states)):
		f.Subject = addresses(states)
		f.Summary = fmt.Sprintf("%s: no mail can be routed", verb(len(states), "The name server answers nothing", "No name server answers"))
	case dead == len(states):
		return f, false // one failing name and nothing to compare with: that domain's affair
	case denied > 0 && denied == controls && controls >= 2*len(states):
		f.Subject, f.Confidence = addresses(states), Medium
		f.Summary = "The name servers deny names that mail was delivered to before: their answers are wrong, and mail bounces"
	case slow*2 > asked && v.waiting >= 10 && (waiting > 0 || v.active+v.incoming >= 10):
		f.Subject, f.Confidence = addresses(states), Medium
		f.Summary = "The name servers answer late: each delivery waits for them"
	case dead > 0 && len(failing) > 0:
		f.Subject, f.Confidence, f.Scope = addresses(deadOf(states)), Medium, HostScope
		f.Summary = fmt.Sprintf("%d of %d name servers %s not answer: lookups wait for %s", dead, len(states), verb(dead, "does", "do"), verb(dead, "it", "them"))
	default:
		return f, false
	}
	if d.Stale && hostIsWell(d) {
		f.Subject = path
		f.Summary += fmt.Sprintf("; Postfix runs in a chroot and reads an old copy of %s", d.HostPath)
	}
	f.finishDNS(v, states, path)
	return f, true
}

// guessedDNS decides by breadth where no name server could be asked: several
// unrelated domains fail at the same time and nothing was delivered since.
func (v *view) guessedDNS(f Finding, failing []*assessed) (Finding, bool) {
	if len(failing) < 3 || v.Log != nil && v.deliveredSince(failing) {
		return f, false
	}
	f.Confidence = Medium
	f.Summary = fmt.Sprintf("Names of %s domains cannot be resolved: most likely the name servers of this host", number(len(failing)))
	f.finishDNS(v, nil, "/etc/resolv.conf")
	f.RuledOut = append(f.RuledOut, Rejected{postfix.RemoteDown, "unrelated domains fail at the same time"})
	for _, a := range failing[:3] {
		f.Evidence = append(f.Evidence, v.waitEvidence(a))
	}
	return f, true
}

func (f *Finding) finishDNS(v *view, states []resolverState, path string) {
	s := steps{v.in}
	for _, st := range states {
		if st.sample.Name != "" {
			f.Evidence = append(f.Evidence, Evidence{"probe dns", v.Host.At, fmt.Sprintf("%s: %d of %d questions failed; %s %s: %s", st.Address, st.failed, len(st.Answers), st.sample.Type, st.sample.Name, st.sample.outcome())})
		}
	}
	if v.Host != nil && v.Host.DNS.Stale {
		d := v.Host.DNS
		f.Evidence = append(f.Evidence, Evidence{"file " + d.Path, v.Host.At, "names other servers than " + d.HostPath})
	}
	if f.Waiting > 0 {
		f.Evidence = append(f.Evidence, Evidence{"spool", v.Snapshot.To, fmt.Sprintf("%s deferred by a failed name lookup", messages(f.Waiting))})
	}
	if v.Host != nil {
		for _, r := range v.Host.Egress.Reaches {
			if r.Well() {
				f.RuledOut = append(f.RuledOut, Rejected{postfix.Egress, fmt.Sprintf("connections go out: %s greets", hostPort(r.Address, r.Port))})
				break
			}
		}
	}
	f.Next = []Step{
		{[]string{"cat", path}, "these are the name servers that Postfix asks; mend them or name others"},
		s.again("says when they answer again; the mail then goes by its own schedule"),
	}
	if v.Host != nil && v.Host.DNS.Stale && hostIsWell(v.Host.DNS) {
		f.Next = append([]Step{{[]string{"cp", "-p", v.Host.DNS.HostPath, v.Host.DNS.Path}, "the host's own name servers answer; processes that start from now on read the copy"}}, f.Next...)
	}
	f.Avoid = []Step{s.flush("every message would wait for the name servers again; " + whyNoFlush), s.restart(whyNoRestart), s.requeue(whyNoRequeue)}
}

// domainDNS: the name servers of one domain fail, ours are well.
func (v *view) domainDNS(a *assessed) Finding {
	s := steps{v.in}
	f := v.destination(a, postfix.DNS, fmt.Sprintf("The name servers of %s give no answer", a.name))
	for _, st := range v.resolverStates() {
		if st.answered > 0 {
			f.RuledOut = append(f.RuledOut, Rejected{postfix.DNS, fmt.Sprintf("not this host's: %s answers for other domains", st.Address)})
			break
		}
	}
	f.Next = []Step{
		s.waiting(postfix.DNS, "shows the mail that waits for this domain", "--next-hop", a.name),
		advice("nothing to do here: Postfix tries again by itself; tell the domain's owner where the mail matters"),
	}
	f.Avoid = []Step{s.flush("the domain still cannot be resolved; " + whyNoFlush), s.restart(whyNoRestart)}
	return f
}

func (v *view) resolverStates() []resolverState {
	if v.Host == nil {
		return nil
	}
	var states []resolverState
	for _, r := range v.Host.DNS.Servers {
		states = append(states, stateOf(r))
	}
	return states
}

func (v *view) allTimeouts(states []resolverState) bool {
	for _, s := range states {
		for _, a := range s.Answers {
			if a.Outcome != "timeout" && a.Outcome != "unreachable" {
				return false
			}
		}
	}
	return true
}

// deliveredSince says whether mail went out after the first of these failures.
func (v *view) deliveredSince(failing []*assessed) bool {
	var first time.Time
	for _, a := range failing {
		first = earlier(first, a.log.FirstDeferred)
	}
	if first.IsZero() {
		return false
	}
	for _, d := range v.Log.Domains {
		if d.LastDelivered.After(first.Add(time.Minute)) {
			return true
		}
	}
	return false
}

func hostIsWell(d observe.DNS) bool {
	for _, r := range d.HostServers {
		if s := stateOf(r); s.answered > 0 {
			return true
		}
	}
	return false
}

func deadOf(states []resolverState) []resolverState {
	var dead []resolverState
	for _, s := range states {
		if s.dead() {
			dead = append(dead, s)
		}
	}
	return dead
}

func addresses(states []resolverState) string {
	var list []string
	for _, s := range states {
		list = append(list, s.Address)
	}
	return strings.Join(list, ", ")
}
