package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// DNSConfig is the name server: one set of data and faults, answered on UDP and
// TCP at every address of Listen. The records of providers are added to it by
// themselves. Everything that is in no zone does not exist.
type DNSConfig struct {
	Listen []string   `json:"listen,omitempty"` // "192.0.2.53", port 53 unless given; none: no name server
	Zones  []Zone     `json:"zones,omitempty"`
	Faults []DNSFault `json:"faults,omitempty"`
	// Down closes the port, so that queries meet an ICMP refusal.
	Down bool `json:"down,omitempty"`
}

// DNSFaultKind is what goes wrong with an answer.
type DNSFaultKind string

// The kinds of DNS fault. With none, the answer is right and only Delay counts.
const (
	DNSServfail     DNSFaultKind = "servfail"
	DNSNXDomain     DNSFaultKind = "nxdomain"
	DNSRefused      DNSFaultKind = "refused"
	DNSNoData       DNSFaultKind = "nodata"        // the name exists, the type does not
	DNSDrop         DNSFaultKind = "drop"          // no answer at all
	DNSTruncate     DNSFaultKind = "truncate"      // TC over UDP, the answer over TCP
	DNSTruncateDead DNSFaultKind = "truncate-dead" // TC over UDP, silence over TCP
	DNSGarbage      DNSFaultKind = "garbage"       // not a DNS message, but for its ID
)

// DNSFault spoils the answers about one domain and all below it. Of several
// faults the one with the longest domain counts, alone.
type DNSFault struct {
	Domain string       `json:"domain"` // "." for every question
	Kind   DNSFaultKind `json:"kind,omitempty"`
	Delay  Duration     `json:"delay,omitempty"`
	// Types limits the fault to questions of these types, such as "MX".
	Types []string `json:"types,omitempty"`
	// Probability that a question meets the fault; 0 means always. The dice are
	// seeded by Config.Seed and the domain.
	Probability float64 `json:"probability,omitempty"`
}

func (f DNSFault) check() error {
	if _, ok := dns.IsDomainName(f.Domain); f.Domain == "" || !ok {
		return fmt.Errorf("dns fault: %q is not a domain name (\".\" stands for all)", f.Domain)
	}
	if err := oneOf("dns fault kind", f.Kind, "", DNSServfail, DNSNXDomain, DNSRefused, DNSNoData,
		DNSDrop, DNSTruncate, DNSTruncateDead, DNSGarbage); err != nil {
		return err
	}
	for _, t := range f.Types {
		if _, ok := dns.StringToType[t]; !ok {
			return fmt.Errorf("dns fault: %q is not a record type", t)
		}
	}
	return checkProbability(f.Probability)
}

func (c DNSConfig) check() error {
	for _, a := range c.Listen {
		if err := checkListen(withPort(a, "53")); err != nil {
			return fmt.Errorf("dns: %w", err)
		}
	}
	seen := make(map[string]bool)
	for _, z := range c.Zones {
		name := dns.CanonicalName(z.Name)
		if seen[name] {
			return fmt.Errorf("zone %q: given twice", z.Name)
		}
		seen[name] = true
		if _, err := z.parse(); err != nil {
			return err
		}
	}
	clear(seen)
	for _, f := range c.Faults {
		if err := f.check(); err != nil {
			return err
		}
		name := dns.CanonicalName(f.Domain)
		if seen[name] {
			return fmt.Errorf("dns fault for %q: given twice", f.Domain)
		}
		seen[name] = true
	}
	return nil
}

// DNSCounters is what the name server was asked.
type DNSCounters struct {
	Queries int            `json:"queries"`
	Faulted int            `json:"faulted"` // answered by a fault, or delayed by one
	Rcodes  map[string]int `json:"rcodes"`  // of what was answered
	// ByName counts per name asked and type. Only so many names are kept; the
	// rest is counted under "(other)".
	ByName map[string]map[string]int `json:"by_name"`
}

const maxCountedNames = 20000

// nameServer is the DNS peer.
type nameServer struct {
	clock *clock
	seed  uint64

	life sync.Mutex // held while sockets open or close; taken before mu

	mu        sync.Mutex
	cfg       DNSConfig
	published map[string][]dns.RR // records of providers, by provider
	names     *namespace
	dice      map[string]*rand.Rand
	n         DNSCounters
	open      *openDNS
	bound     []string // addresses with their real ports, once bound
}

// openDNS is one life of the listening sockets.
type openDNS struct {
	ctx     context.Context
	cancel  context.CancelFunc
	servers []*dns.Server
	wg      sync.WaitGroup
}

func newNameServer(clock *clock, seed uint64) *nameServer {
	s := &nameServer{clock: clock, seed: seed, published: make(map[string][]dns.RR)}
	s.resetLocked()
	s.names = newNamespace(nil, nil)
	return s
}

// apply takes a new configuration.
func (s *nameServer) apply(cfg DNSConfig) error {
	return s.change(func(DNSConfig) (DNSConfig, error) { return cfg, nil })
}

// change edits the configuration, one edit at a time. Sockets are touched only
// if the addresses or Down changed.
func (s *nameServer) change(edit func(DNSConfig) (DNSConfig, error)) error {
	s.life.Lock()
	defer s.life.Unlock()
	cfg, err := edit(s.config())
	if err != nil {
		return err
	}
	if err := cfg.check(); err != nil {
		return badConfig(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := !slices.Equal(cfg.Listen, s.cfg.Listen)
	if s.open != nil && (moved || cfg.Down) {
		s.closeLocked()
	}
	if moved {
		s.bound = nil
	}
	s.cfg = cfg
	s.dice = make(map[string]*rand.Rand)
	s.rebuildLocked()
	if s.open == nil && !cfg.Down && len(cfg.Listen) > 0 {
		return s.openLocked()
	}
	return nil
}

// publish replaces the records that belong to one provider.
func (s *nameServer) publish(owner string, rrs []dns.RR) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rrs == nil {
		delete(s.published, owner)
	} else {
		s.published[owner] = rrs
	}
	s.rebuildLocked()
}

func (s *nameServer) rebuildLocked() {
	var origins []string
	var rrs []dns.RR
	for _, z := range s.cfg.Zones {
		more, err := z.parse()
		if err != nil {
			continue // check has refused such a zone already
		}
		origins = append(origins, z.Name)
		rrs = append(rrs, more...)
	}
	for _, more := range s.published {
		rrs = append(rrs, more...)
	}
	s.names = newNamespace(origins, rrs)
}

func (s *nameServer) openLocked() error {
	addrs := s.bound
	if addrs == nil {
		addrs = s.cfg.Listen
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &openDNS{ctx: ctx, cancel: cancel}
	bound := make([]string, 0, len(addrs))
	for _, a := range addrs {
		pc, ln, err := listenDNS(withPort(a, "53"))
		if err != nil {
			o.close()
			return fmt.Errorf("open name server: %w", err)
		}
		bound = append(bound, pc.LocalAddr().String())
		o.serve(&dns.Server{PacketConn: pc, Handler: s.handler(ctx)})
		o.serve(&dns.Server{Listener: ln, Handler: s.handler(ctx)})
	}
	s.open, s.bound = o, bound
	return nil
}

// listenDNS binds UDP and TCP at the same address. With port 0 the first
// choice of the kernel may be taken for TCP, so it gets a few tries.
func listenDNS(addr string) (net.PacketConn, net.Listener, error) {
	var failed error
	for range 16 {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, nil, err
		}
		ln, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, ln, nil
		}
		failed = errors.Join(err, pc.Close())
		if !strings.HasSuffix(addr, ":0") {
			break
		}
	}
	return nil, nil, failed
}

// serve returns when the server answers; ActivateAndServe may not be shut down
// before that.
func (o *openDNS) serve(srv *dns.Server) {
	ready := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(ready) }
	// A question without an answer over TCP is silence until this closes the
	// connection; an early close would let the client give up at once.
	srv.IdleTimeout = func() time.Duration { return 30 * time.Second }
	o.servers = append(o.servers, srv)
	ended := make(chan struct{})
	o.wg.Go(func() {
		defer close(ended)
		_ = srv.ActivateAndServe() // ends by Shutdown; the sockets are bound already
	})
	select {
	case <-ready:
	case <-ended:
	}
}

func (o *openDNS) close() {
	o.cancel()
	for _, srv := range o.servers {
		_ = srv.Shutdown() // "not started" is the only error, and then nothing is to be shut
	}
	o.wg.Wait()
}

func (s *nameServer) closeLocked() {
	o := s.open
	s.open = nil
	// Handlers in flight take mu, and close waits for them; life keeps others out.
	s.mu.Unlock()
	o.close()
	s.mu.Lock()
}

func (s *nameServer) close() {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil {
		s.closeLocked()
	}
}

func (s *nameServer) config() DNSConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}

func (s *nameServer) listening() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return nil
	}
	return slices.Clone(s.bound)
}

func (s *nameServer) counters() DNSCounters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.n
	c.Rcodes = cloneCounts(s.n.Rcodes)
	c.ByName = make(map[string]map[string]int, len(s.n.ByName))
	for name, types := range s.n.ByName {
		c.ByName[name] = cloneCounts(types)
	}
	return c
}

func (s *nameServer) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resetLocked()
}

func (s *nameServer) resetLocked() {
	s.n = DNSCounters{Rcodes: make(map[string]int), ByName: make(map[string]map[string]int)}
	s.dice = make(map[string]*rand.Rand)
}

func (s *nameServer) handler(ctx context.Context) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		if len(req.Question) != 1 {
			m := new(dns.Msg).SetRcodeFormatError(req)
			_ = w.WriteMsg(m)
			return
		}
		names, fault := s.look(req.Question[0])
		if !s.clock.sleep(ctx, fault.Delay) {
			return
		}
		s.reply(w, req, names, fault.Kind)
	})
}

// look counts the question and finds what is to happen to it.
func (s *nameServer) look(q dns.Question) (*namespace, DNSFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countLocked(q)
	name := dns.CanonicalName(q.Name)
	best, found := DNSFault{}, false
	for _, f := range s.cfg.Faults {
		if len(f.Types) > 0 && !slices.Contains(f.Types, dns.TypeToString[q.Qtype]) {
			continue
		}
		f.Domain = dns.CanonicalName(f.Domain)
		if dns.IsSubDomain(f.Domain, name) && (!found || dns.CountLabel(f.Domain) > dns.CountLabel(best.Domain)) {
			best, found = f, true
		}
	}
	if !found || best.Probability > 0 && s.dieLocked(best.Domain).Float64() >= best.Probability {
		return s.names, DNSFault{}
	}
	s.n.Faulted++
	return s.names, best
}

func (s *nameServer) dieLocked(domain string) *rand.Rand {
	die := s.dice[domain]
	if die == nil {
		die = newDice(s.seed, "dns "+domain)
		s.dice[domain] = die
	}
	return die
}

func (s *nameServer) countLocked(q dns.Question) {
	s.n.Queries++
	name := strings.TrimSuffix(dns.CanonicalName(q.Name), ".")
	if s.n.ByName[name] == nil {
		if len(s.n.ByName) >= maxCountedNames {
			name = "(other)"
		}
		if s.n.ByName[name] == nil {
			s.n.ByName[name] = make(map[string]int)
		}
	}
	s.n.ByName[name][dns.Type(q.Qtype).String()]++
}

func (s *nameServer) reply(w dns.ResponseWriter, req *dns.Msg, names *namespace, kind DNSFaultKind) {
	_, overTCP := w.RemoteAddr().(*net.TCPAddr)
	m := new(dns.Msg).SetReply(req)
	m.Authoritative, m.RecursionAvailable = true, true
	size := dns.MinMsgSize
	if o := req.IsEdns0(); o != nil {
		size = max(size, int(o.UDPSize()))
		m.SetEdns0(4096, false)
	}
	switch kind {
	case DNSDrop:
		return
	case DNSTruncateDead:
		if overTCP {
			return
		}
		m.Truncated = true
	case DNSTruncate:
		m.Truncated = !overTCP
	case DNSGarbage:
		s.garble(w, req.Id)
		return
	case DNSServfail:
		m.Rcode = dns.RcodeServerFailure
	case DNSRefused:
		m.Rcode = dns.RcodeRefused
	case DNSNXDomain:
		m.Rcode = dns.RcodeNameError
		m.Ns = append(m.Ns, names.soa(dns.CanonicalName(req.Question[0].Name)))
	case DNSNoData:
		m.Ns = append(m.Ns, names.soa(dns.CanonicalName(req.Question[0].Name)))
	}
	if m.Rcode == dns.RcodeSuccess && !m.Truncated && kind != DNSNoData {
		names.answer(m, req.Question[0])
	}
	if !overTCP && !m.Truncated {
		m.Truncate(size) // would clear the bit when everything fits
	}
	s.mu.Lock()
	s.n.Rcodes[dns.RcodeToString[m.Rcode]]++
	s.mu.Unlock()
	_ = w.WriteMsg(m) // the client has gone; it will ask again
}

// garble answers with the right ID, so that the client takes the packet for
// its answer, and with counts that promise more than follows.
func (s *nameServer) garble(w dns.ResponseWriter, id uint16) {
	junk := []byte{byte(id >> 8), byte(id), 0x85, 0x80, 0, 1, 0xff, 0xff, 0, 9, 0, 9, 0xc0, 0xff, 0x3f, 0x1b, 0}
	s.mu.Lock()
	s.n.Rcodes["garbage"]++
	s.mu.Unlock()
	_, _ = w.Write(junk)
}

func cloneCounts(m map[string]int) map[string]int {
	c := make(map[string]int, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}
