package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"holdfast/observe"
)

// maxAddresses is how many addresses of one next hop are tried.
const maxAddresses = 2

// candidate is an address at which a next hop may be.
type candidate struct {
	name string
	at   netip.AddrPort
}

// nextHop is a next hop in its parts.
type nextHop struct {
	host string
	port uint16
	mx   bool // host is a domain whose MX is to be looked up
}

var errNoNetwork = errors.New("this next hop is no mail server on the network")

// parseHop reads a next hop as transport(5) and smtp(8) write it: "domain",
// "domain:port", "[host]", "[host]:port", "[address]", "[ipv6:address]", with
// lmtp(8)'s "inet:" before it.
func parseHop(ctx context.Context, hop string, defaultPort uint16) (nextHop, error) {
	h := nextHop{port: defaultPort, mx: true}
	rest := strings.TrimPrefix(hop, "inet:")
	if strings.HasPrefix(hop, "unix:") || strings.Contains(rest, "/") {
		return h, errNoNetwork
	}
	var port string
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		h.mx = false
		if h.host, rest, ok = strings.Cut(inner, "]"); !ok {
			return h, fmt.Errorf("next hop %q: a bracket is not closed", hop)
		}
		if len(h.host) > 5 && strings.EqualFold(h.host[:5], "ipv6:") {
			h.host = h.host[5:]
		}
		if port, ok = strings.CutPrefix(rest, ":"); !ok && rest != "" {
			return h, fmt.Errorf("next hop %q: something follows the bracket", hop)
		}
	} else {
		h.host, port, _ = strings.Cut(rest, ":")
	}
	if port != "" {
		n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port) // a number, or a name of /etc/services
		if err != nil || n == 0 {
			return h, fmt.Errorf("next hop %q: %q is no port", hop, port)
		}
		h.port = uint16(n) //nolint:gosec // LookupPort returns nothing beyond 65535
	}
	if h.host == "" {
		return h, fmt.Errorf("next hop %q: it names no host", hop)
	}
	return h, nil
}

// locate finds the addresses of a next hop, as smtp(8) does: the mail servers
// of the domain by preference, the domain itself where it has none.
func (p egressProbe) locate(ctx context.Context, d observe.DNS, s source, hop string) ([]candidate, error) {
	h, err := parseHop(ctx, hop, p.smtpPort)
	if err != nil {
		return nil, err
	}
	if addr, err := netip.ParseAddr(h.host); err == nil {
		return []candidate{{at: netip.AddrPortFrom(addr, h.port)}}, nil
	}
	hosts := []string{h.host}
	if h.mx {
		if hosts, err = p.mailServers(ctx, d, h.host); err != nil {
			return nil, err
		}
	}
	var found []candidate
	for _, host := range hosts[:min(len(hosts), maxAddresses)] {
		var of []candidate
		if of, err = p.addresses(ctx, d, s, host); err != nil {
			continue
		}
		for _, c := range of {
			c.at = netip.AddrPortFrom(c.at.Addr(), h.port)
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return nil, errors.Join(fmt.Errorf("no address of %q is known", hop), err)
	}
	return found[:min(len(found), maxAddresses)], nil
}

// mailServers looks up the MX records of a domain.
func (p egressProbe) mailServers(ctx context.Context, d observe.DNS, domain string) ([]string, error) {
	r, err := p.dns.lookup(ctx, d, domain, dns.TypeMX)
	switch {
	case err != nil:
		return nil, err
	case r.Outcome == outcomeNXDomain:
		return nil, fmt.Errorf("the domain %q does not exist", domain)
	case r.Outcome == outcomeNoData:
		return []string{domain}, nil // RFC 5321, 5.1
	}
	var list []*dns.MX
	for _, rr := range r.records {
		if mx, ok := rr.(*dns.MX); ok {
			list = append(list, mx)
		}
	}
	slices.SortStableFunc(list, func(a, b *dns.MX) int { return int(a.Preference) - int(b.Preference) })
	var hosts []string
	for _, mx := range list {
		if mx.Mx == "." {
			return nil, fmt.Errorf("the domain %q says that it takes no mail (RFC 7505)", domain)
		}
		hosts = append(hosts, strings.TrimSuffix(mx.Mx, "."))
	}
	return hosts, nil
}

// addresses looks up the addresses of a host, of each family that Postfix uses
// one before the second of either: what is down for one may be up for the other.
func (p egressProbe) addresses(ctx context.Context, d observe.DNS, s source, host string) ([]candidate, error) {
	var v4, v6 []candidate
	var failed error
	for _, family := range []struct {
		use   bool
		qtype uint16
		list  *[]candidate
	}{{s.ipv4, dns.TypeA, &v4}, {s.ipv6, dns.TypeAAAA, &v6}} {
		if !family.use {
			continue
		}
		r, err := p.dns.lookup(ctx, d, host, family.qtype)
		if err != nil {
			failed = err
			continue
		}
		for _, rr := range r.records {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if addr, ok := netip.AddrFromSlice(ip); ok {
				*family.list = append(*family.list, candidate{name: host, at: netip.AddrPortFrom(addr.Unmap(), 0)})
			}
		}
	}
	switch {
	case len(v4) > 0 && len(v6) > 0:
		return slices.Concat(v4[:1], v6[:1], v4[1:], v6[1:]), nil
	case len(v4) > 0 || len(v6) > 0:
		return slices.Concat(v4, v6), nil
	}
	return nil, errors.Join(fmt.Errorf("the host %q has no address of a family in use", host), failed)
}

// forbidden says why an address must not be connected to for a stranger's
// sake, "" where it may be. Who writes an MX record or a line in a log would
// otherwise choose what this host, from inside of its network, connects to.
// The blocks that are kept for documentation count as public: no host has them.
func (p egressProbe) forbidden(at netip.AddrPort, own []netip.Addr) string {
	addr := innermost(at.Addr())
	switch {
	case p.loopback && addr.IsLoopback():
		return ""
	case at.Addr().Zone() != "", addr.IsLinkLocalUnicast():
		return "the address is link-local"
	case addr.IsLoopback():
		return "the address is this host's loopback"
	case addr.IsUnspecified():
		return "the address is none"
	case addr.IsMulticast():
		return "the address is a multicast group"
	case addr.IsPrivate():
		return "the address is in a private network"
	case slices.Contains(own, addr):
		return "the address is this host's own"
	}
	for _, block := range reservedBlocks() {
		if block.Contains(addr) {
			return "the address is in " + block.String() + ", which is no part of the public network"
		}
	}
	if !slices.Contains([]uint16{25, 465, 587}, at.Port()) {
		return "port " + strconv.Itoa(int(at.Port())) + " is not where strangers take mail"
	}
	return ""
}

// reservedBlocks are ranges of the registries of special-purpose addresses (RFC
// 6890) that netip has no word for.
func reservedBlocks() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("fec0::/10"),
		netip.MustParsePrefix("100::/64"),
	}
}

// innermost returns the IPv4 address that an IPv6 address stands for: mapped,
// compatible, NAT64 (RFC 6052) and 6to4 (RFC 3056). A gateway would carry a
// connection there.
func innermost(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() || addr == netip.IPv6Loopback() || addr.IsUnspecified() {
		return addr
	}
	b := addr.As16()
	for prefix, at := range map[netip.Prefix]int{
		netip.MustParsePrefix("::/96"): 12, netip.MustParsePrefix("64:ff9b::/96"): 12,
		netip.MustParsePrefix("64:ff9b:1::/48"): 12, netip.MustParsePrefix("2002::/16"): 2,
	} {
		if prefix.Contains(addr) {
			return netip.AddrFrom4([4]byte(b[at : at+4]))
		}
	}
	return addr
}

// ownAddresses are the addresses of this host's interfaces.
func ownAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, addr.Unmap())
			}
		}
	}
	return own, nil
}
