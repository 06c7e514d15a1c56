package diagnose

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// How much is asked: enough to tell one bad destination from a bad host, and
// no more, since each question is somebody's server.
const (
	askedNames    = 6
	controlNames  = 3
	askedHops     = 6
	serversPerHop = 2
	controlHosts  = 3
)

// Questions says what to ask the surroundings, by what the queue and the log
// suggest: the destinations that fail, and some that are known to be well. A
// relay without failures is asked about its name servers only.
func Questions(snap *observe.Snapshot, log *observe.Log, now time.Time) observe.Questions {
	v := newView(Sight{Snapshot: snap, Log: log, Now: now})
	q := observe.Questions{LogPath: logPath(log)}
	controls := v.controls()
	failing := make(map[string]bool)
	for _, h := range v.sorted() {
		if w := h.waits[postfix.DNS]; w != nil && len(q.Names) < askedNames {
			if l := h.lookup(w); l.name != "" && !failing[l.name] {
				failing[l.name] = true
				q.Names = append(q.Names, observe.Question{Name: l.name, Type: l.kind})
			}
		}
	}
	known := v.controlNames(controls, maps.Clone(failing))
	q.Names = append(q.Names, known...)
	for _, h := range v.sorted() {
		if len(q.Servers) >= askedHops*serversPerHop {
			break // those with most mail come first
		}
		q.Servers = append(q.Servers, h.servers()...)
	}
	if len(q.Servers) > 0 || len(failing) > 0 {
		// Without name servers no connection is tried, so that only these tell
		// whether the whole network is away.
		q.Servers = append(q.Servers, controlServers(controls, q.Servers)...)
	}
	return q
}

func logPath(log *observe.Log) string {
	if log == nil || len(log.Sources) == 0 {
		return ""
	}
	if name := log.Sources[len(log.Sources)-1].Name; strings.HasPrefix(name, "/") {
		return name
	}
	return ""
}

// nameOf returns the name that Postfix looks up for a next hop, and as what.
func nameOf(hop string) (name, kind string) {
	kind = "MX"
	if rest, ok := strings.CutPrefix(hop, "["); ok {
		kind = "A"
		if hop, _, ok = strings.Cut(rest, "]"); !ok {
			return "", ""
		}
	} else if at := strings.LastIndexByte(hop, ':'); at >= 0 {
		hop = hop[:at]
	}
	if _, err := netip.ParseAddr(strings.TrimPrefix(strings.ToLower(hop), "ipv6:")); err == nil {
		return "", ""
	}
	if !isHostName(hop) {
		return "", ""
	}
	return hop, kind
}

// isHostName keeps anybody's words out of questions: domains come from
// recipients.
func isHostName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '-' && c != '.' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c < 0x80 {
			return false
		}
	}
	return s != "" && len(s) <= 253 && strings.Contains(s, ".")
}

// lookup is what Postfix asked for in vain: what the reason names, else the
// next hop.
func (h *hop) lookup(w *wait) lookup {
	if w.lookup.name != "" {
		return w.lookup
	}
	name, kind := nameOf(h.name)
	return lookup{name, kind}
}

// control is a server that the log shows to have taken mail.
type control struct {
	key string
	*observe.LogServer
}

// controls returns servers that took mail and did not fail since, the latest
// first.
func (v *view) controls() []control {
	if v.Log == nil {
		return nil
	}
	var list []control
	for _, key := range slices.Sorted(maps.Keys(v.Log.Servers)) {
		s := v.Log.Servers[key]
		if s.Delivered > 0 && !leftAlone(s.LastCause) {
			list = append(list, control{key, s})
		}
	}
	slices.SortStableFunc(list, func(a, b control) int {
		return cmp.Or(b.LastDelivered.Compare(a.LastDelivered), cmp.Compare(b.Delivered, a.Delivered))
	})
	return list
}

// controlNames are domains whose servers were found before: in the log, or
// else, where there is none, domains in the queue that a server has answered
// for.
func (v *view) controlNames(controls []control, failing map[string]bool) []observe.Question {
	var names []observe.Question
	add := func(domain string) {
		if name, kind := nameOf(domain); name != "" && !failing[name] && len(names) < controlNames {
			failing[name] = true
			names = append(names, observe.Question{Name: name, Type: kind, Control: true})
		}
	}
	if v.in.Relayhost != "" {
		add(v.in.Relayhost) // the only name that is looked up
		return names
	}
	for _, c := range controls {
		add(c.Domain)
	}
	for _, h := range v.sorted() {
		if w := h.main(); w != nil && w.cause != postfix.DNS && len(w.servers) > 0 {
			add(h.name)
		}
	}
	return names
}

// servers are the servers of a hop that no conversation came about with.
func (h *hop) servers() []observe.Server {
	w := h.main()
	if w == nil || !unreachable(w.cause) {
		return nil
	}
	for c := range h.waits {
		if leftAlone(c) && h.waits[c].messages*4 > w.messages {
			return []observe.Server{{Hop: h.name, LeaveAlone: "it last asked to be left alone (" + string(c) + ")"}}
		}
	}
	var list []observe.Server
	for _, s := range w.servers {
		if len(list) < serversPerHop {
			list = append(list, observe.Server{Hop: h.name, Name: s.name, Address: s.address, Port: s.port, Configured: h.configured})
		}
	}
	if len(list) == 0 {
		list = append(list, observe.Server{Hop: h.name, Configured: h.configured})
	}
	return list
}

// controlServers are servers that are known to be well, at other networks than
// those that fail, so that a fault of one provider is not taken for one of this
// host.
func controlServers(controls []control, asked []observe.Server) []observe.Server {
	networks := make(map[netip.Prefix]bool)
	for _, s := range asked {
		if s.Address.IsValid() {
			networks[networkOf(s.Address)] = true
		}
	}
	var list []observe.Server
	for _, strict := range []bool{true, false} {
		for _, c := range controls {
			s, ok := serverOfRelay(c.key)
			if !ok || len(list) >= controlHosts || strict == networks[networkOf(s.address)] || slices.ContainsFunc(append(asked, list...), func(o observe.Server) bool { return o.Address == s.address }) {
				continue
			}
			networks[networkOf(s.address)] = true
			list = append(list, observe.Server{Hop: c.Domain, Name: s.name, Address: s.address, Port: s.port, Control: true})
		}
	}
	return list
}

// networkOf is the block of addresses that one provider is likely to have.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

// serverOfRelay reads "name[address]:port", as delivery lines have it.
func serverOfRelay(relay string) (server, bool) {
	s, rest, ok := cutServer(relay)
	digits, colon := strings.CutPrefix(rest, ":")
	port, err := strconv.ParseUint(digits, 10, 16)
	if !ok || !colon || err != nil {
		return server{}, false
	}
	s.port = uint16(port)
	return s, true
}

// String is the server as Postfix writes it.
func (s server) String() string {
	return s.name + "[" + s.address.String() + "]:" + strconv.Itoa(int(s.port))
}

// hostPort is an address with its port.
func hostPort(a netip.Addr, port uint16) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
}
