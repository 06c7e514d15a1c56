package world

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// World is a running world.
type World struct {
	clock     clock
	seed      uint64
	ledgerDir string
	certs     *certs
	dns       *nameServer
	ledger    *ledger
	serial    atomic.Int64

	providers  *family[ProviderConfig]
	smartHosts *family[SmartHostConfig]
	milters    *family[MilterConfig]
	policies   *family[PolicyConfig]
	filters    *family[FilterConfig]

	mu     sync.Mutex // guards ledger's opening and closed
	closed bool
}

// relatives is what the control API needs of a family, whatever its kind.
type relatives interface {
	putJSON(name string, body []byte) error
	patchJSON(name string, patch []byte) error
	get(name string) (any, error)
	remove(name string) error
	reset(name string) error
	status() ([]PeerStatus, error)
	close()
}

// The kinds of peers, as they stand in URLs.
const (
	KindProvider  = "providers"
	KindSmartHost = "smart_hosts"
	KindMilter    = "milters"
	KindPolicy    = "policies"
	KindFilter    = "filters"
)

// Start opens every listener of the configuration, or none.
func Start(cfg Config) (*World, error) {
	w := &World{seed: cfg.Seed, ledgerDir: cfg.LedgerDir}
	if err := w.clock.set(cfg.TimeScale); err != nil {
		return nil, fmt.Errorf("start world: %w", err)
	}
	var err error
	if w.certs, err = newCerts(); err != nil {
		return nil, fmt.Errorf("start world: %w", err)
	}
	w.dns = newNameServer(&w.clock, cfg.Seed)
	w.raise()
	if err := w.populate(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("start world: %w", err), w.Close())
	}
	return w, nil
}

// raise makes the families, empty.
func (w *World) raise() {
	w.providers = &family[ProviderConfig]{
		kind: KindProvider, nameOf: func(c ProviderConfig) string { return c.Name },
		start: func(c ProviderConfig) (peer[ProviderConfig], error) { return newProvider(w, "provider", c) },
	}
	w.smartHosts = &family[SmartHostConfig]{
		kind: KindSmartHost, nameOf: func(c SmartHostConfig) string { return c.Name },
		start: func(c SmartHostConfig) (peer[SmartHostConfig], error) {
			p, err := newProvider(w, "smart host", c.provider())
			return smartHost{p}, err
		},
	}
	w.milters = &family[MilterConfig]{
		kind: KindMilter, nameOf: func(c MilterConfig) string { return c.Name },
		start: func(c MilterConfig) (peer[MilterConfig], error) { return newMilter(w, c) },
	}
	w.policies = &family[PolicyConfig]{
		kind: KindPolicy, nameOf: func(c PolicyConfig) string { return c.Name },
		start: func(c PolicyConfig) (peer[PolicyConfig], error) { return newPolicy(w, c) },
	}
	w.filters = &family[FilterConfig]{
		kind: KindFilter, nameOf: func(c FilterConfig) string { return c.Name },
		start: func(c FilterConfig) (peer[FilterConfig], error) { return newFilter(w, c) },
	}
}

// smartHost is a provider that is configured as a smart host.
type smartHost struct{ *provider }

func (s smartHost) apply(c SmartHostConfig) error { return s.provider.apply(c.provider()) }

func (w *World) populate(cfg Config) error {
	if err := w.changeDNS(func(c *DNSConfig) error { *c = cfg.DNS; return nil }); err != nil {
		return err
	}
	return errors.Join(
		addAll(w.providers, cfg.Providers), addAll(w.smartHosts, cfg.SmartHosts), addAll(w.milters, cfg.Milters),
		addAll(w.policies, cfg.Policies), addAll(w.filters, cfg.Filters))
}

func addAll[C interface{ check() error }](f *family[C], configs []C) error {
	for _, c := range configs {
		name := f.nameOf(c)
		if _, err := f.get(name); err == nil {
			return fmt.Errorf("%s %q: given twice", f.kind, name)
		}
		if err := f.put(name, c); err != nil {
			return err
		}
	}
	return nil
}

// families lists the kinds in the order in which they are closed: those that
// send to others first.
func (w *World) families() []struct {
	kind string
	relatives
} {
	return []struct {
		kind string
		relatives
	}{
		{KindFilter, w.filters},
		{KindMilter, w.milters},
		{KindPolicy, w.policies},
		{KindSmartHost, w.smartHosts},
		{KindProvider, w.providers},
	}
}

// Close ends every session, closes every port and flushes the ledger.
func (w *World) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.mu.Unlock()
	for _, f := range w.families() {
		f.close()
	}
	w.dns.close()
	if w.ledger == nil {
		return nil
	}
	if err := w.ledger.close(); err != nil {
		return fmt.Errorf("close world: %w", err)
	}
	return nil
}

// needLedger opens the ledger for the first peer that delivers.
func (w *World) needLedger() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errors.New("the world is closed")
	}
	if w.ledger != nil {
		return nil
	}
	l, err := openLedger(w.ledgerDir)
	w.ledger = l
	return err
}

func (w *World) deliveryID() string {
	return fmt.Sprintf("%s-%d", w.ledger.run, w.serial.Add(1))
}

// CA is the certificate, in PEM, that signs those of all hosts.
func (w *World) CA() []byte { return w.certs.pem() }

// Config returns the world as it is now configured; started anew from it,
// another world behaves the same.
func (w *World) Config() (Config, error) {
	c := Config{TimeScale: w.clock.factor(), Seed: w.seed, LedgerDir: w.ledgerDir, DNS: w.dns.config()}
	var errs [5]error
	c.Providers, errs[0] = w.providers.configs()
	c.SmartHosts, errs[1] = w.smartHosts.configs()
	c.Milters, errs[2] = w.milters.configs()
	c.Policies, errs[3] = w.policies.configs()
	c.Filters, errs[4] = w.filters.configs()
	return c, errors.Join(errs[:]...)
}

// Status is the world as it is.
type Status struct {
	TimeScale float64      `json:"time_scale"`
	DNS       DNSStatus    `json:"dns"`
	Peers     []PeerStatus `json:"peers"`
}

// DNSStatus is the state of the name server.
type DNSStatus struct {
	Listening []string    `json:"listening"`
	Counters  DNSCounters `json:"counters"`
}

// Status counts what every peer did.
func (w *World) Status() (Status, error) {
	s := Status{TimeScale: w.clock.factor(), DNS: DNSStatus{w.dns.listening(), w.dns.counters()}}
	fams := w.families()
	slices.Reverse(fams)
	for _, f := range fams {
		peers, err := f.status()
		if err != nil {
			return Status{}, err
		}
		s.Peers = append(s.Peers, peers...)
	}
	return s, nil
}

// changeDNS edits the name server's configuration.
func (w *World) changeDNS(edit func(c *DNSConfig) error) error {
	return w.dns.change(func(c DNSConfig) (DNSConfig, error) {
		// Copied before and after, so that neither a reader of the old nor the
		// caller shares anything with the new one.
		c, err := clone(c)
		if err == nil {
			err = edit(&c)
		}
		if err != nil {
			return c, err
		}
		return clone(c)
	})
}

func (w *World) putZone(z Zone) error {
	return w.changeDNS(func(c *DNSConfig) error {
		c.Zones = slices.DeleteFunc(c.Zones, func(o Zone) bool { return sameName(o.Name, z.Name) })
		c.Zones = append(c.Zones, z)
		return nil
	})
}

func (w *World) removeZone(name string) error {
	return w.changeDNS(func(c *DNSConfig) error {
		n := len(c.Zones)
		c.Zones = slices.DeleteFunc(c.Zones, func(o Zone) bool { return sameName(o.Name, name) })
		if len(c.Zones) == n {
			return fmt.Errorf("zone %q: %w", name, errNoPeer)
		}
		return nil
	})
}

func (w *World) putFault(fault DNSFault) error {
	return w.changeDNS(func(c *DNSConfig) error {
		c.Faults = slices.DeleteFunc(c.Faults, func(o DNSFault) bool { return sameName(o.Domain, fault.Domain) })
		c.Faults = append(c.Faults, fault)
		return nil
	})
}

func (w *World) removeFault(domain string) error {
	return w.changeDNS(func(c *DNSConfig) error {
		n := len(c.Faults)
		c.Faults = slices.DeleteFunc(c.Faults, func(o DNSFault) bool { return sameName(o.Domain, domain) })
		if len(c.Faults) == n {
			return fmt.Errorf("dns fault for %q: %w", domain, errNoPeer)
		}
		return nil
	})
}

// RecordSet is all records of one name and type in a zone.
type RecordSet struct {
	Zone   string   `json:"zone"`
	Name   string   `json:"name"` // relative to the zone unless it ends in a dot; "@" is the zone itself
	Type   string   `json:"type"`
	Values []string `json:"values"` // such as "10 mx1"; none removes the records
}

// putRecords replaces one record set; the zone is made if it is not there.
func (w *World) putRecords(set RecordSet) error {
	z := Zone{Name: set.Zone}
	for _, v := range set.Values {
		z.Records = append(z.Records, set.Name+" "+set.Type+" "+v)
	}
	t, known := dns.StringToType[set.Type]
	if !known {
		return fmt.Errorf("%w: %q is not a record type", errBadConfig, set.Type)
	}
	if _, err := z.parse(); err != nil {
		return badConfig(err)
	}
	owner := set.Name
	if owner == "@" {
		owner = ""
	}
	if !dns.IsFqdn(owner) {
		owner = strings.Trim(owner+"."+set.Zone, ".")
	}
	return w.changeDNS(func(c *DNSConfig) error {
		for i, old := range c.Zones {
			if !sameName(old.Name, set.Zone) {
				continue
			}
			rrs, err := old.parse()
			if err != nil {
				return err
			}
			for _, rr := range rrs {
				if !sameName(rr.Header().Name, owner) || rr.Header().Rrtype != t {
					z.Records = append(z.Records, rr.String())
				}
			}
			c.Zones[i] = z
			return nil
		}
		c.Zones = append(c.Zones, z)
		return nil
	})
}

func sameName(a, b string) bool { return dns.CanonicalName(a) == dns.CanonicalName(b) }
