package diagnose

import (
	"fmt"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// connections: no conversation comes about, with all servers or with one.
func (v *view) connections(list []*assessed) []Finding {
	var failing []*assessed
	waiting := 0
	for _, a := range list {
		if unreachable(a.cause) && a.state == stands {
			failing = append(failing, a)
			waiting += a.wait.messages
		}
	}
	ways := v.ways(failing)
	if len(failing) == 0 && ways.controls < 2 {
		return nil
	}
	if f, ok := v.egress(failing, waiting, ways); ok {
		return []Finding{f}
	}
	var found []Finding
	for _, a := range failing {
		if v.notable(a.wait.messages) {
			found = append(found, v.remoteDown(a, ways))
		}
	}
	return found
}

// ways is what is known about connections from here to anywhere.
type ways struct {
	well, failed []observe.Reach
	controls     int // how many of failed were known to be well before
	networks     int // how many different networks failed
	// talked is a server that answered after the trouble began.
	talked   string
	talkedAt time.Time
	since    time.Time
}

// ways sums up probes and log. What a server said counts as proof that
// connections go out only if it was after the trouble began.
func (v *view) ways(failing []*assessed) ways {
	var w ways
	networks := make(map[string]bool)
	if v.Host != nil {
		for _, r := range v.Host.Egress.Reaches {
			switch {
			case r.Failed && r.Stage != "connect" && !unreachable(r.Cause):
				// It answered, if only to say no, or not to speak TLS: the way to
				// it is open.
				w.well = append(w.well, r)
			case r.Refused != "":
			case r.Failed:
				w.failed = append(w.failed, r)
				networks[networkOf(r.Address).String()] = true
				if r.Control || v.tookMail(r) {
					w.controls++
				}
			default:
				w.well = append(w.well, r)
			}
		}
	}
	if len(w.failed) == 0 {
		for _, a := range failing {
			for _, s := range a.wait.servers {
				networks[networkOf(s.address).String()] = true
			}
		}
	}
	w.networks = len(networks)
	servers := make(map[string]bool)
	for _, a := range failing {
		w.since = earlier(w.since, a.since())
		for _, s := range a.wait.servers {
			servers[s.String()] = true
		}
	}
	if v.Log != nil {
		for key, s := range v.Log.Servers {
			at := talkedTo(s)
			if servers[key] || w.since.IsZero() || !at.After(w.since.Add(settling)) {
				continue
			}
			if w.talked == "" || at.After(w.talkedAt) || at.Equal(w.talkedAt) && key < w.talked {
				w.talked, w.talkedAt = key, at
			}
		}
	}
	return w
}

// talkedTo is when a server last said anything, if only a refusal.
func talkedTo(s *observe.LogServer) time.Time {
	if s.LastCause != postfix.NoCause && !unreachable(s.LastCause) && s.LastCause != postfix.DNS {
		return later(s.LastDelivered, s.LastFailed)
	}
	return s.LastDelivered
}

// tookMail says that the log has deliveries to a server.
func (v *view) tookMail(r observe.Reach) bool {
	if v.Log == nil {
		return false
	}
	s := v.Log.Servers[server{r.Server, r.Address, r.Port}.String()]
	return s != nil && s.Delivered > 0
}

// settling is how long deliveries go on after connections stopped to come
// about: sessions that were open, and stamps of whole seconds.
const settling = 30 * time.Second

// since is when a hop's present trouble began, as far as can be told.
func (a *assessed) since() time.Time {
	if r := a.log.Reasons[a.cause]; r != nil && !r.First.IsZero() {
		return r.First
	}
	return a.oldest
}

// egress: connections fail wherever they go, so it is this host or its network.
func (v *view) egress(failing []*assessed, waiting int, w ways) (Finding, bool) {
	f := Finding{Cause: postfix.Egress, Scope: Global, Waiting: waiting, Since: w.since}
	if v.onlyContentFails(failing, w) {
		return v.largePackets(f, failing), true
	}
	if len(w.well) > 0 {
		return Finding{}, false
	}
	local := localRefusal(failing)
	if f.Confidence = v.nobodyReached(failing, w, local != ""); f.Confidence == "" {
		return Finding{}, false
	}
	if age := v.remembered(w.failed); age > 0 {
		f.Confidence = Medium
		f.Evidence = append(f.Evidence, Evidence{"probe egress", v.Host.At, fmt.Sprintf("these answers are up to %s old: a server is asked once a minute at most", span(age))})
	}
	s := steps{v.in}
	f.Summary = "No connection to any mail server comes about: outgoing SMTP is blocked or broken"
	if waiting > 0 {
		f.Summary += fmt.Sprintf(", %s %s", messages(waiting), verb(waiting, "waits", "wait"))
	}
	if local != "" {
		f.Summary += "; the system says: " + local
	}
	f.Subject = "port 25"
	if v.Host != nil && len(v.Host.Egress.From) > 0 {
		f.Evidence = append(f.Evidence, Evidence{"postconf", v.Host.At, "Postfix connects from " + fmt.Sprint(v.Host.Egress.From)})
	}
	for i, r := range w.failed {
		if i < 4 {
			e := v.reachEvidence(r)
			if r.Control || v.tookMail(r) {
				e.Text += " (it took mail before)"
			}
			f.Evidence = append([]Evidence{e}, f.Evidence...)
		}
	}
	if len(w.failed) == 0 {
		for _, a := range failing[:min(3, len(failing))] {
			f.Evidence = append(f.Evidence, v.waitEvidence(a))
		}
	}
	f.RuledOut = append(f.RuledOut, Rejected{postfix.RemoteDown, fmt.Sprintf("servers in %d networks fail at the same time", max(w.networks, 1))})
	if d := v.workingResolver(); d != "" {
		f.RuledOut = append(f.RuledOut, Rejected{postfix.DNS, d})
	}
	target := "198.51.100.1"
	if len(w.failed) > 0 {
		target = w.failed[0].Address.String()
	} else if len(failing) > 0 && len(failing[0].wait.servers) > 0 {
		target = failing[0].wait.servers[0].address.String()
	}
	f.Next = []Step{
		{[]string{"ip", "route", "get", target}, "shows which way and from which address this host would go; then look at its firewall and ask the network's or hosting provider's people about port 25"},
		s.again("says when connections come about again"),
	}
	f.Avoid = []Step{s.flush(whyNoFlush), s.restart(whyNoRestart), s.requeue(whyNoRequeue)}
	return f, true
}

// remembered is the age of the oldest answer, where none of them is of this look.
func (v *view) remembered(list []observe.Reach) time.Duration {
	var oldest time.Duration
	for _, r := range list {
		age := v.Host.At.Sub(r.At)
		if age < 2*time.Second {
			return 0
		}
		oldest = max(oldest, age)
	}
	return oldest
}

// nobodyReached says how sure it is that connections fail wherever they go, ""
// where it is more likely that single servers are down. local is set where this
// host's own system refused.
func (v *view) nobodyReached(failing []*assessed, w ways, local bool) Confidence {
	switch {
	case v.onlyRelayhost(failing):
		return ""
	case w.controls > 0 && len(w.failed) >= 2:
		return High
	case w.talked != "":
		return ""
	case len(w.failed) >= 2 && w.networks >= 2, len(w.failed) == 0 && len(failing) >= 3 && w.networks >= 2, local && len(failing) > 1:
		return Medium
	case local && v.Log == nil:
		return Low
	}
	return ""
}

// onlyContentFails says that conversations with several unrelated servers break
// off behind the greeting: what is in the way lets small packets through.
func (v *view) onlyContentFails(failing []*assessed, w ways) bool {
	for _, a := range failing {
		if !failsLater(a.text) {
			return false
		}
	}
	networks := make(map[string]bool)
	for _, a := range failing {
		for _, s := range a.wait.servers {
			networks[networkOf(s.address).String()] = true
		}
	}
	return len(failing) >= 3 && len(networks) >= 2 && w.talked == ""
}

// largePackets: servers greet, and nothing long gets through to any of them.
func (v *view) largePackets(f Finding, failing []*assessed) Finding {
	s := steps{v.in}
	f.Subject, f.Confidence = "port 25", Medium
	f.Summary = fmt.Sprintf("Servers greet, but conversations with all of them break off later: something on the way swallows large packets or cuts sessions, %s %s", messages(f.Waiting), verb(f.Waiting, "waits", "wait"))
	for _, a := range failing[:3] {
		f.Evidence = append(f.Evidence, v.waitEvidence(a))
	}
	f.RuledOut = []Rejected{{postfix.RemoteDown, fmt.Sprintf("%d unrelated destinations fail in the same way", len(failing))}}
	f.Next = []Step{
		{[]string{"ping", "-c", "3", "-M", "do", "-s", "1472", failing[0].wait.servers[0].address.String()}, "shows whether full-sized packets pass; if not, the MTU of this host or a firewall that drops ICMP \"fragmentation needed\" is the reason"},
		s.again("says when mail gets through again"),
	}
	f.Avoid = []Step{s.flush(whyNoFlush), s.restart(whyNoRestart), s.requeue(whyNoRequeue)}
	return f
}

// localRefusal returns the words of this host's own system, where it refused a
// connection before anything was sent.
func localRefusal(failing []*assessed) string {
	for _, a := range failing {
		if a.cause == postfix.Egress {
			return quoted(a.text)
		}
	}
	return ""
}

// onlyRelayhost says that all mail goes to one configured host: its failure
// says nothing about the rest of the world.
func (v *view) onlyRelayhost(failing []*assessed) bool {
	return v.in.Relayhost != "" && len(failing) == 1 && failing[0].name == v.in.Relayhost
}

func (v *view) workingResolver() string {
	for _, st := range v.resolverStates() {
		if st.answered > 0 {
			return fmt.Sprintf("%s answers", st.Address)
		}
	}
	return ""
}

// remoteDown: one destination takes no connection, others do.
func (v *view) remoteDown(a *assessed, w ways) Finding {
	s := steps{v.in}
	cause, what := postfix.RemoteDown, "does not take connections"
	if a.name == v.in.Relayhost && v.in.Relayhost != "" {
		cause, what = postfix.Relayhost, "is the relayhost and does not take connections: no mail leaves"
	}
	f := v.destination(a, cause, fmt.Sprintf("%s %s", a.name, what))
	if cause == postfix.Relayhost {
		f.Scope = Global
	}
	compared := true
	switch {
	case len(w.well) > 0:
		r := w.well[0]
		f.RuledOut = append(f.RuledOut, Rejected{postfix.Egress, fmt.Sprintf("connections to others come about: %s greets", hostPort(r.Address, r.Port))})
	case w.talked != "":
		f.RuledOut = append(f.RuledOut, Rejected{postfix.Egress, fmt.Sprintf("%s answered at %s", w.talked, w.talkedAt.UTC().Format("15:04:05 UTC"))})
	default:
		compared = false
	}
	if d := v.workingResolver(); d != "" {
		f.RuledOut = append(f.RuledOut, Rejected{postfix.DNS, d})
	}
	if !compared {
		f.Confidence = Low
		f.Summary += " (or this host cannot connect to anybody: there was no other server to compare with)"
	}
	f.Next = []Step{
		s.holdfast("shows the mail that waits for it", "queue", "--next-hop", a.name),
		advice("wait: Postfix tries again by itself, and triage says when the server answers"),
	}
	f.Avoid = []Step{s.flush(fmt.Sprintf("%s still does not answer; %s", a.name, whyNoFlush)), s.restart(whyNoRestart)}
	return f
}
