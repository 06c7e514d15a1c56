package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// ProviderConfig is a receiving mail provider: some domains, the MX hosts that
// serve them, and one traffic policy over all hosts.
type ProviderConfig struct {
	Name string `json:"name"`
	// Domains get an MX record for each host; "*.example.net" stands for all
	// below it. The hosts get A or AAAA records and PTR records as well.
	Domains []string `json:"domains,omitempty"`
	Hosts   []Host   `json:"hosts"`
	Traffic Traffic  `json:"traffic,omitzero"`
	// Down closes the ports: connections are refused, open sessions end.
	Down bool `json:"down,omitempty"`
}

// Host is one MX host.
type Host struct {
	Name       string `json:"name,omitempty"` // mx1.PROVIDER.test, mx2..., unless set
	Addr       string `json:"addr"`           // "203.0.113.10", port 25 unless given
	Preference uint16 `json:"preference,omitempty"`
}

// SmartHostConfig is a relay that takes mail for every domain, from those who
// know a password. It relays nothing: what it accepts is delivered, into the
// ledger. In its Traffic, Auth must be set.
type SmartHostConfig struct {
	Name string `json:"name"`
	// Host is its name in DNS and in its certificate; NAME.test unless set.
	Host    string  `json:"host,omitempty"`
	Addr    string  `json:"addr"` // port 587 unless given
	Traffic Traffic `json:"traffic,omitzero"`
	Down    bool    `json:"down,omitempty"`
}

func (c SmartHostConfig) check() error {
	if c.Traffic.Auth == nil {
		return fmt.Errorf("smart host %q: traffic.auth is not set; one without passwords is a provider", c.Name)
	}
	return c.provider().check()
}

// provider is what a smart host is underneath.
func (c SmartHostConfig) provider() ProviderConfig {
	host := c.Host
	if host == "" {
		host = c.Name + ".test"
	}
	return ProviderConfig{
		Name: c.Name, Hosts: []Host{{Name: host, Addr: withPort(c.Addr, "587")}},
		Traffic: c.Traffic, Down: c.Down,
	}
}

func (c ProviderConfig) check() error {
	fail := func(err error) error { return fmt.Errorf("provider %q: %w", c.Name, err) }
	if err := checkName(c.Name); err != nil {
		return err
	}
	if len(c.Hosts) == 0 {
		return fail(errors.New("has no hosts"))
	}
	for i, h := range c.Hosts {
		if err := checkListen(withPort(h.Addr, "25")); err != nil {
			return fail(err)
		}
		if _, ok := dns.IsDomainName(c.hostName(i)); !ok {
			return fail(fmt.Errorf("host name %q is not a domain name", h.Name))
		}
	}
	for _, d := range c.Domains {
		if _, ok := dns.IsDomainName(d); !ok || d == "" {
			return fail(fmt.Errorf("%q is not a domain name", d))
		}
	}
	if err := c.Traffic.check(); err != nil {
		return fail(err)
	}
	return nil
}

// checkName keeps names usable in a URL path and in a DNS label.
func checkName(name string) error {
	if name == "" {
		return errors.New("a peer has no name")
	}
	for _, c := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", c) {
			return fmt.Errorf("name %q: only a-z, 0-9 and - may stand in it", name)
		}
	}
	return nil
}

func (c ProviderConfig) hostName(i int) string {
	if n := c.Hosts[i].Name; n != "" {
		return strings.TrimSuffix(n, ".")
	}
	return fmt.Sprintf("mx%d.%s.test", i+1, c.Name)
}

func (c ProviderConfig) hostNames() []string {
	names := make([]string, len(c.Hosts))
	for i := range c.Hosts {
		names[i] = c.hostName(i)
	}
	return names
}

func (c ProviderConfig) hostAddrs() []string {
	addrs := make([]string, len(c.Hosts))
	for i, h := range c.Hosts {
		addrs[i] = withPort(h.Addr, "25")
	}
	return addrs
}

// records is what DNS has to say about the provider.
func (c ProviderConfig) records() []dns.RR {
	header := func(name string, t uint16) dns.RR_Header {
		return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: t, Class: dns.ClassINET, Ttl: defaultTTL}
	}
	var rrs []dns.RR
	for i, h := range c.Hosts {
		name := c.hostName(i)
		for _, d := range c.Domains {
			pref := h.Preference
			if pref == 0 {
				pref = 10
			}
			rrs = append(rrs, &dns.MX{Hdr: header(d, dns.TypeMX), Preference: pref, Mx: dns.Fqdn(name)})
		}
		ap, err := netip.ParseAddrPort(withPort(h.Addr, "25"))
		if err != nil {
			continue // a socket path has no place in DNS
		}
		ip := net.IP(ap.Addr().AsSlice())
		if ap.Addr().Is4() {
			rrs = append(rrs, &dns.A{Hdr: header(name, dns.TypeA), A: ip})
		} else {
			rrs = append(rrs, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: ip})
		}
		if rev, err := dns.ReverseAddr(ap.Addr().String()); err == nil {
			rrs = append(rrs, &dns.PTR{Hdr: header(rev, dns.TypePTR), Ptr: dns.Fqdn(name)})
		}
	}
	return rrs
}

// provider is a running provider or smart host.
type provider struct {
	kind string
	name string
	w    *World
	cfg  ProviderConfig // of apply and close only; sessions must not look
	door *door
	in   *inbox
}

func newProvider(w *World, kind string, c ProviderConfig) (*provider, error) {
	if err := w.needLedger(); err != nil {
		return nil, err
	}
	p := &provider{kind: kind, name: c.Name, w: w, cfg: c}
	p.in = &inbox{
		gate:  newGate(&w.clock, w.seed, kind+" "+c.Name),
		clock: &w.clock, certs: w.certs, take: p.take, unanswered: p.unanswered,
		hosts: c.hostNames(),
	}
	p.in.gate.apply(c.Traffic)
	p.door = newDoor(c.hostAddrs(), p.in.serve)
	w.dns.publish(kind+" "+c.Name, c.records())
	if err := p.door.set(c.hostAddrs(), c.Down); err != nil {
		w.dns.publish(kind+" "+c.Name, nil)
		return nil, fmt.Errorf("open %s %q: %w", kind, c.Name, err)
	}
	return p, nil
}

// apply changes the provider in place. Traffic alone disturbs no session.
func (p *provider) apply(c ProviderConfig) error {
	moved := !slices.Equal(c.hostNames(), p.cfg.hostNames()) || !slices.Equal(c.hostAddrs(), p.cfg.hostAddrs())
	if moved || c.Down {
		p.door.shut() // sessions read the host names without a lock
		p.in.hosts = c.hostNames()
	}
	p.in.gate.apply(c.Traffic)
	p.w.dns.publish(p.kind+" "+p.name, c.records())
	p.cfg = c
	return p.door.set(c.hostAddrs(), c.Down)
}

func (p *provider) close() {
	p.door.shut()
	p.w.dns.publish(p.kind+" "+p.name, nil)
}

func (p *provider) listening() []string { return p.door.listening() }

func (p *provider) counters() any { return p.in.gate.counters() }

func (p *provider) reset() { p.in.gate.reset() }

// take delivers: the message is in the ledger, on disk, or it is refused.
func (p *provider) take(_ context.Context, d *delivery) Reply {
	d.id = p.w.deliveryID()
	id := queueIDOf(d.head)
	lines := make([]ledgerLine, len(d.rcpts))
	for i, r := range d.rcpts {
		lines[i].LedgerEntry = &LedgerEntry{
			Provider: p.name, Host: d.host, Delivery: d.id, Token: tokenOf(r.addr), Rcpt: r.addr,
			Sender: d.sender, Client: d.client, QueueID: id, Bytes: d.bytes, TLS: d.tls, User: d.user, Lost: d.lost,
		}
	}
	if err := p.w.ledger.commit(lines); err != nil {
		p.in.gate.count(func(n *SMTPCounters) { n.Internal++ })
		return Reply{Code: 451, Enhanced: "4.3.0", Text: "cannot keep the message"}
	}
	return Reply{Code: 250, Enhanced: "2.0.0", Text: "taken as " + d.id}
}

func (p *provider) unanswered(d *delivery) {
	if err := p.w.ledger.unanswered(d.id); err != nil {
		p.in.gate.count(func(n *SMTPCounters) { n.Internal++ })
	}
}
