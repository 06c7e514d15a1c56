package world

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// peer is a running member of the world, of the kind that C configures. Calls
// of apply and close are serialized by its family.
type peer[C any] interface {
	apply(c C) error
	close()
	listening() []string
	counters() any
	reset()
}

// errNoPeer and errBadConfig are what the control API tells apart from a
// failure to listen.
var (
	errNoPeer    = errors.New("no such peer")
	errBadConfig = errors.New("bad configuration")
)

func badConfig(err error) error { return fmt.Errorf("%w: %w", errBadConfig, err) }

// family is all peers of one kind: it adds, changes and removes them by name,
// from configurations that are data.
type family[C interface{ check() error }] struct {
	kind   string
	nameOf func(C) string
	start  func(C) (peer[C], error)

	mu      sync.Mutex
	members map[string]*member[C]
	order   []string
	closed  bool
}

type member[C any] struct {
	cfg  C
	peer peer[C]
}

// PeerStatus is the state of one peer.
type PeerStatus struct {
	Kind      string   `json:"kind"`
	Name      string   `json:"name"`
	Listening []string `json:"listening"` // real addresses; empty when it is down
	// Counters is an SMTPCounters, a MilterCounters or a PolicyCounters.
	Counters json.RawMessage `json:"counters"`
}

// put adds a peer or gives an existing one another configuration.
func (f *family[C]) put(name string, c C) error {
	c, err := f.vet(name, c)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.putLocked(name, c)
}

func (f *family[C]) vet(name string, c C) (C, error) {
	if f.nameOf(c) != name {
		return c, fmt.Errorf("%w: the name is %q here and %q in the configuration", errBadConfig, name, f.nameOf(c))
	}
	if err := c.check(); err != nil {
		return c, badConfig(err)
	}
	return clone(c)
}

func (f *family[C]) putLocked(name string, c C) error {
	if m := f.members[name]; m != nil {
		// Kept also if it cannot listen: then the peer is closed, and a later
		// change opens it.
		m.cfg = c
		if err := m.peer.apply(c); err != nil {
			return fmt.Errorf("change %s %q: %w", f.kind, name, err)
		}
		return nil
	}
	if f.closed {
		return fmt.Errorf("start %s %q: the world is closed", f.kind, name)
	}
	p, err := f.start(c)
	if err != nil {
		return err
	}
	if f.members == nil {
		f.members = make(map[string]*member[C])
	}
	f.members[name] = &member[C]{cfg: c, peer: p}
	f.order = append(f.order, name)
	return nil
}

// get returns a copy of a peer's configuration.
func (f *family[C]) get(name string) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.members[name]
	if m == nil {
		return nil, fmt.Errorf("%s %q: %w", f.kind, name, errNoPeer)
	}
	return clone(m.cfg)
}

// putJSON is put for the control API.
func (f *family[C]) putJSON(name string, body []byte) error {
	var c C
	if err := decodeStrict(bytes.NewReader(body), &c); err != nil {
		return badConfig(err)
	}
	return f.put(name, c)
}

// patchJSON changes some fields of a peer, as a merge patch (RFC 7396): null
// removes a field, a list is replaced as a whole.
func (f *family[C]) patchJSON(name string, patch []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.members[name]
	if m == nil {
		return fmt.Errorf("%s %q: %w", f.kind, name, errNoPeer)
	}
	var c C
	if err := mergePatch(m.cfg, patch, &c); err != nil {
		return badConfig(err)
	}
	c, err := f.vet(name, c)
	if err != nil {
		return err
	}
	return f.putLocked(name, c)
}

// remove ends a peer.
func (f *family[C]) remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.members[name]
	if m == nil {
		return fmt.Errorf("%s %q: %w", f.kind, name, errNoPeer)
	}
	m.peer.close()
	delete(f.members, name)
	f.order = slices.DeleteFunc(f.order, func(n string) bool { return n == name })
	return nil
}

// reset makes one peer forget its counters and its clients, or all of them.
func (f *family[C]) reset(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "" && f.members[name] == nil {
		return fmt.Errorf("%s %q: %w", f.kind, name, errNoPeer)
	}
	for n, m := range f.members {
		if name == "" || n == name {
			m.peer.reset()
		}
	}
	return nil
}

func (f *family[C]) status() ([]PeerStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []PeerStatus
	for _, name := range f.order {
		p := f.members[name].peer
		counters, err := json.Marshal(p.counters())
		if err != nil {
			return nil, fmt.Errorf("count %s %q: %w", f.kind, name, err)
		}
		all = append(all, PeerStatus{Kind: f.kind, Name: name, Listening: p.listening(), Counters: counters})
	}
	return all, nil
}

// configs returns all configurations, in the order in which they came.
func (f *family[C]) configs() ([]C, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []C
	for _, name := range f.order {
		c, err := clone(f.members[name].cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (f *family[C]) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range f.order {
		f.members[name].peer.close()
	}
	f.members, f.order, f.closed = nil, nil, true
}

// mergePatch applies a patch to a value and decodes the result into out.
func mergePatch(v any, patch []byte, out any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	base, err := decodeTree(data)
	if err != nil {
		return err
	}
	change, err := decodeTree(patch)
	if err != nil {
		return err
	}
	if _, ok := change.(map[string]any); !ok {
		return errors.New("a patch must be an object")
	}
	data, err = json.Marshal(merge(base, change))
	if err != nil {
		return err
	}
	return decodeStrict(bytes.NewReader(data), out)
}

// decodeTree keeps numbers as they are written: a 64-bit seed does not survive
// a float64.
func decodeTree(data []byte) (any, error) {
	var tree any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err := d.Decode(&tree)
	return tree, err
}

func merge(base, change any) any {
	fields, ok := change.(map[string]any)
	if !ok {
		return change
	}
	out, ok := base.(map[string]any)
	if !ok {
		out = make(map[string]any)
	}
	for key, v := range fields {
		if v == nil {
			delete(out, key)
			continue
		}
		out[key] = merge(out[key], v)
	}
	return out
}
