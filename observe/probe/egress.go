package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"holdfast/observe"
	"holdfast/postfix"
)

// Bounds of one look. A relay with a thousand dead destinations learns no more
// from a thousand connections than from a dozen.
const (
	maxServers    = 12
	leastControls = 3
	maxAtOnce     = 16
	// settlePatience is how long a look takes after its end to note what it has
	// learnt.
	settlePatience = 250 * time.Millisecond
)

// egressProbe connects to mail servers.
type egressProbe struct {
	dns      dnsProbe
	smtpPort uint16
	// loopback permits what strangers may not aim at: a world of peers on this
	// host.
	loopback bool
}

// askEgress connects to mail servers from where Postfix does. memoryDir holds
// what earlier looks, by whomever, have learnt within the minute; where it
// cannot be written, nobody is connected to.
func askEgress(ctx context.Context, in postfix.Instance, s observe.Settings, d observe.DNS, q observe.Questions, memoryDir string) (observe.Egress, []observe.Gap) {
	return egressProbe{dns: dnsProbe{hostResolvConf, "53"}, smtpPort: 25}.look(ctx, in, s, d, q.Servers, memory{memoryDir})
}

// source is where connections come from.
type source struct {
	ipv4, ipv6   bool
	bind4, bind6 netip.Addr
	own          []netip.Addr
}

// from is the address to bind to for a connection to addr; the zero value
// leaves it to the system.
func (s source) from(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return s.bind4
	}
	return s.bind6
}

// destination is one address and all for which it is tried.
type destination struct {
	observe.Reach
	cut bool // the look ended too early to say anything
}

func (d *destination) at() netip.AddrPort { return netip.AddrPortFrom(d.Address, d.Port) }

func (p egressProbe) look(ctx context.Context, in postfix.Instance, settings observe.Settings, d observe.DNS, servers []observe.Server, m memory) (observe.Egress, []observe.Gap) {
	egress := observe.Egress{Protocols: settings.InetProtocols}
	from, gaps, err := newSource(settings)
	if err != nil {
		return egress, []observe.Gap{{Source: "egress", Text: err.Error()}}
	}
	for _, addr := range []netip.Addr{from.bind4, from.bind6} {
		if addr.IsValid() {
			egress.From = append(egress.From, addr.String())
		}
	}
	list, more := p.destinations(ctx, d, from, choose(servers))
	gaps = append(gaps, more...)
	wanted := make(map[netip.AddrPort]string)
	for _, to := range list {
		if to.Refused == "" {
			wanted[to.at()] = bindText(from.from(to.Address))
		}
	}
	if len(wanted) > 0 {
		known, more, err := m.claim(ctx, time.Now(), wanted)
		gaps = append(gaps, more...)
		if err != nil {
			return egress, append(gaps, observe.Gap{
				Source: "egress", Object: m.dir, Text: "no mail server was connected to, since it cannot be noted which ones were: " + err.Error(),
				Hint: "run holdfast as root once, or name another directory with --state-dir",
			})
		}
		gaps = append(gaps, connectAll(ctx, in, settings, from, list, known, m)...)
	}
	for _, to := range list {
		if to.cut {
			gaps = append(gaps, observe.Gap{Source: "egress", Object: to.at().String(), Text: errCut.Error(), Hint: "look again with a longer --timeout"})
			continue
		}
		egress.Known = true
		egress.Reaches = append(egress.Reaches, to.Reach)
	}
	return egress, gaps
}

// bindText is the address that is bound to, "" for none.
func bindText(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// connectAll connects to what is not known already, side by side, and notes
// what comes of it.
func connectAll(ctx context.Context, in postfix.Instance, s observe.Settings, from source, list []*destination, known map[netip.AddrPort]observe.Reach, m memory) []observe.Gap {
	var group errgroup.Group
	group.SetLimit(maxAtOnce)
	var mu sync.Mutex
	results := make(map[netip.AddrPort]observe.Reach)
	for _, to := range list {
		if to.Refused != "" {
			continue
		}
		if old, ok := known[to.at()]; ok {
			to.recall(old)
			continue
		}
		group.Go(func() error {
			if to.cut = errors.Is(converse(ctx, &to.Reach, from.from(to.Address), heloName(in, s)), errCut); to.cut {
				return nil // it stays claimed: it has seen a connection
			}
			mu.Lock()
			defer mu.Unlock()
			results[to.at()] = to.Reach
			return nil
		})
	}
	_ = group.Wait() // none of them returns an error
	if len(results) == 0 {
		return nil
	}
	// What was learnt is worth keeping when the look's own time is up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settlePatience)
	defer cancel()
	if err := m.settle(ctx, time.Now(), results); err != nil {
		return []observe.Gap{{Source: "egress", Object: m.dir, Text: "what mail servers answered cannot be remembered: " + err.Error()}}
	}
	return nil
}

// recall takes over what is remembered of a server.
func (d *destination) recall(old observe.Reach) {
	d.At, d.Stage, d.Failed, d.Text, d.Cause = old.At, old.Stage, old.Failed, old.Text, old.Cause
	d.Banner, d.TLS, d.Latency, d.Refused = old.Banner, old.TLS, old.Latency, old.Refused
}

// heloName is how smtp(8) greets. A name that would end the line is not used.
func heloName(in postfix.Instance, s observe.Settings) string {
	name := in.Hostname
	if s.HeloName != "" {
		name = s.HeloName
	}
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "localhost.localdomain"
	}
	return name
}

// newSource reads where smtp(8) connects from.
func newSource(s observe.Settings) (source, []observe.Gap, error) {
	own, err := ownAddresses()
	if err != nil {
		return source{}, nil, err
	}
	from := source{own: own}
	for _, word := range strings.FieldsFunc(s.InetProtocols, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		from.ipv4 = from.ipv4 || word == "ipv4" || word == "all"
		from.ipv6 = from.ipv6 || word == "ipv6" || word == "all"
	}
	if !from.ipv4 && !from.ipv6 {
		from.ipv4, from.ipv6 = true, true
	}
	// Postfix leaves out IPv6 where the host has none, as getaddrinfo does.
	from.ipv6 = from.ipv6 && slices.ContainsFunc(own, func(a netip.Addr) bool {
		return a.Is6() && a.IsGlobalUnicast()
	})
	var gaps []observe.Gap
	for _, b := range []struct {
		name, value string
		to          *netip.Addr
	}{{"smtp_bind_address", s.BindAddress, &from.bind4}, {"smtp_bind_address6", s.BindAddress6, &from.bind6}} {
		if b.value == "" {
			continue
		}
		addr, err := netip.ParseAddr(strings.Trim(b.value, "[]"))
		if err == nil {
			err = bindable(addr)
		}
		if err != nil {
			// As smtp(8) does where smtp_bind_address_enforce is "no".
			gaps = append(gaps, observe.Gap{
				Source: "egress", Object: b.name + " = " + b.value, Text: "connections were made from another address: " + err.Error(),
				Hint: "correct " + b.name + " in main.cf",
			})
			continue
		}
		*b.to = addr
	}
	return from, gaps, nil
}

// bindable tries whether the system lets an address be bound to.
func bindable(addr netip.Addr) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return err
	}
	return conn.Close()
}

// choose picks the servers of one look: the first that fail, which the caller
// puts in order of the mail that waits, and some that are known to be well,
// without which a failure says nothing about where it is.
func choose(servers []observe.Server) []observe.Server {
	controls := 0
	for _, s := range servers {
		if s.Control {
			controls++
		}
	}
	others := len(servers) - controls
	keepControls := min(controls, max(leastControls, maxServers-others))
	keepOthers := maxServers - keepControls
	var list []observe.Server
	for _, s := range servers {
		left := &keepOthers
		if s.Control {
			left = &keepControls
		}
		if *left > 0 {
			*left--
			list = append(list, s)
		}
	}
	return list
}

// destinations finds where the servers are, each address once, and says which
// must not be connected to.
func (p egressProbe) destinations(ctx context.Context, d observe.DNS, from source, servers []observe.Server) ([]*destination, []observe.Gap) {
	found := make([][]candidate, len(servers))
	failed := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		switch {
		case s.LeaveAlone != "" || s.Address.IsValid():
			port := s.Port
			if port == 0 {
				port = p.smtpPort
			}
			found[i] = []candidate{{s.Name, netip.AddrPortFrom(s.Address.Unmap(), port)}}
		default:
			wg.Go(func() { found[i], failed[i] = p.locate(ctx, d, from, s.Hop) })
		}
	}
	wg.Wait()
	var list []*destination
	var gaps []observe.Gap
	for i, s := range servers {
		if failed[i] != nil {
			gaps = append(gaps, observe.Gap{Source: "egress", Object: s.Hop, Text: failed[i].Error()})
		}
		for _, c := range found[i] {
			list = add(list, p.destination(s, c, from))
		}
	}
	return list, gaps
}

func (p egressProbe) destination(s observe.Server, c candidate, from source) *destination {
	to := &destination{Reach: observe.Reach{
		Server: c.name, Address: c.at.Addr().Unmap(), Port: c.at.Port(), Hops: []string{s.Hop}, Control: s.Control,
	}}
	switch v4 := to.Address.Is4(); {
	case s.LeaveAlone != "":
		to.Refused = s.LeaveAlone
	case v4 && !from.ipv4, !v4 && !from.ipv6:
		to.Refused = "Postfix does not use this address family here (inet_protocols), or the host has none of it"
	case !s.Configured:
		to.Refused = p.forbidden(to.at(), from.own)
	}
	return to
}

// add adds a destination, or its hops to the one of the same address. What is
// refused for one hop may be permitted for another, so those stay apart.
func add(list []*destination, to *destination) []*destination {
	for _, old := range list {
		if old.at() == to.at() && old.Refused == to.Refused && (old.Address.IsValid() || old.Server == to.Server) {
			old.Control = old.Control || to.Control
			if !slices.Contains(old.Hops, to.Hops[0]) {
				old.Hops = append(old.Hops, to.Hops[0])
			}
			return list
		}
	}
	return append(list, to)
}
