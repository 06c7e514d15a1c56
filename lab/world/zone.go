package world

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// Zone is a piece of the name space, as data.
type Zone struct {
	Name string `json:"name"` // the origin, such as "example.com"; "." for the root
	// Records in the presentation form of a zone file, one each, names relative
	// to the origin unless they end in a dot: "@ MX 10 mx1", "mx1 A 192.0.2.1",
	// "* TXT hello". "@ MX 0 ." is the null MX of RFC 7505.
	Records []string `json:"records"`
}

const defaultTTL = 60

func (z Zone) parse() ([]dns.RR, error) {
	origin := dns.CanonicalName(z.Name)
	if _, ok := dns.IsDomainName(z.Name); z.Name == "" || !ok {
		return nil, fmt.Errorf("zone %q: not a domain name", z.Name)
	}
	rrs := make([]dns.RR, 0, len(z.Records))
	for _, text := range z.Records {
		p := dns.NewZoneParser(strings.NewReader(text+"\n"), origin, "")
		p.SetDefaultTTL(defaultTTL)
		rr, ok := p.Next()
		if err := p.Err(); err != nil {
			return nil, fmt.Errorf("zone %q: record %q: %w", z.Name, text, err)
		}
		if !ok {
			return nil, fmt.Errorf("zone %q: record %q: nothing in it", z.Name, text)
		}
		if !dns.IsSubDomain(origin, dns.CanonicalName(rr.Header().Name)) {
			return nil, fmt.Errorf("zone %q: record %q: outside of the zone", z.Name, text)
		}
		rrs = append(rrs, rr)
	}
	return rrs, nil
}

// namespace answers questions from a fixed set of records. It is immutable; a
// change builds another one, so that no answer mixes two states of the world.
type namespace struct {
	records map[string][]dns.RR // by canonical owner name
	exists  map[string]bool     // owners and the empty names above them
	origins map[string]bool
}

func newNamespace(origins []string, rrs []dns.RR) *namespace {
	ns := &namespace{
		records: make(map[string][]dns.RR),
		exists:  map[string]bool{".": true},
		origins: map[string]bool{".": true},
	}
	for _, o := range origins {
		ns.origins[dns.CanonicalName(o)] = true
		ns.note(dns.CanonicalName(o))
	}
	for _, rr := range rrs {
		owner := dns.CanonicalName(rr.Header().Name)
		ns.records[owner] = append(ns.records[owner], rr)
		ns.note(owner)
	}
	return ns
}

func (ns *namespace) note(name string) {
	for ; name != "."; name = parent(name) {
		ns.exists[name] = true
	}
}

func parent(name string) string {
	i, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[i:]
}

// find returns the records at a name, made from a wildcard where RFC 4592
// says so, and whether the name exists at all.
func (ns *namespace) find(name string) ([]dns.RR, bool) {
	if ns.exists[name] {
		return ns.records[name], true
	}
	encloser := parent(name)
	for !ns.exists[encloser] {
		encloser = parent(encloser)
	}
	star := "*." + strings.TrimPrefix(encloser, ".")
	made := make([]dns.RR, 0, len(ns.records[star]))
	for _, rr := range ns.records[star] {
		c := dns.Copy(rr)
		c.Header().Name = name
		made = append(made, c)
	}
	return made, ns.exists[star]
}

const maxAliases = 8

// answer fills in the answer and authority sections and the return code.
func (ns *namespace) answer(m *dns.Msg, q dns.Question) {
	name := dns.CanonicalName(q.Name)
	for range maxAliases {
		rrs, exists := ns.find(name)
		if !exists {
			m.Rcode = dns.RcodeNameError
			m.Ns = append(m.Ns, ns.soa(name))
			return
		}
		var alias *dns.CNAME
		found := false
		for _, rr := range rrs {
			if rr.Header().Rrtype == q.Qtype || q.Qtype == dns.TypeANY {
				m.Answer = append(m.Answer, rr)
				found = true
			}
			if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if found {
			return
		}
		if alias == nil {
			m.Ns = append(m.Ns, ns.soa(name))
			return
		}
		m.Answer = append(m.Answer, alias)
		name = dns.CanonicalName(alias.Target)
	}
	// A loop of aliases: resolvers give up on it.
	m.Answer, m.Rcode = nil, dns.RcodeServerFailure
}

func (ns *namespace) soa(name string) dns.RR {
	origin := ns.originOf(name)
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: origin, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: defaultTTL},
		Ns:  "ns.invalid.", Mbox: "hostmaster.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: defaultTTL,
	}
}

func (ns *namespace) originOf(name string) string {
	for !ns.origins[name] {
		name = parent(name)
	}
	return name
}
