package world

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

// Config is a whole world, as data. Names of peers are unique within their
// kind; addresses are numeric, with a port or without where the protocol has
// one of its own.
type Config struct {
	// TimeScale divides every span of the world and multiplies every rate:
	// with 1000, an hour of greylisting is over in 3.6 seconds. 0 is 1.
	TimeScale float64 `json:"time_scale,omitempty"`
	// Seed of all dice. The same seed and the same sequence of events at a
	// peer give the same faults.
	Seed       uint64            `json:"seed,omitempty"`
	LedgerDir  string            `json:"ledger_dir,omitempty"`
	DNS        DNSConfig         `json:"dns,omitzero"`
	Providers  []ProviderConfig  `json:"providers,omitempty"`
	SmartHosts []SmartHostConfig `json:"smart_hosts,omitempty"`
	Milters    []MilterConfig    `json:"milters,omitempty"`
	Policies   []PolicyConfig    `json:"policies,omitempty"`
	Filters    []FilterConfig    `json:"filters,omitempty"`
}

// ReadConfig decodes a Config strictly: an unknown field, or anything after
// the end, is an error that names it.
func ReadConfig(r io.Reader) (Config, error) {
	var c Config
	if err := decodeStrict(r, &c); err != nil {
		return Config{}, fmt.Errorf("read world configuration: %w", err)
	}
	return c, nil
}

func decodeStrict(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the end of the value")
	}
	return nil
}

// clone copies a configuration deeply, by way of its JSON, so that no caller
// shares a map or slice with a running peer. It also is the proof that a
// configuration can be carried as data.
func clone[T any](v T) (T, error) {
	var c T
	data, err := json.Marshal(v)
	if err == nil {
		err = decodeStrict(bytes.NewReader(data), &c)
	}
	return c, err
}

// Addresses lists every IP address at which the world will listen: what has to
// be assigned to an interface before Start, unless any address can be bound.
func (c Config) Addresses() []netip.Addr {
	listen := slices.Clone(c.DNS.Listen)
	for _, p := range c.Providers {
		for _, h := range p.Hosts {
			listen = append(listen, h.Addr)
		}
	}
	for _, h := range c.SmartHosts {
		listen = append(listen, h.Addr)
	}
	for _, m := range c.Milters {
		listen = append(listen, m.Listen)
	}
	for _, p := range c.Policies {
		listen = append(listen, p.Listen)
	}
	for _, f := range c.Filters {
		listen = append(listen, f.Listen)
	}
	var addrs []netip.Addr
	for _, l := range listen {
		ap, err := netip.ParseAddrPort(withPort(l, "0"))
		if err == nil && !slices.Contains(addrs, ap.Addr()) {
			addrs = append(addrs, ap.Addr())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}
