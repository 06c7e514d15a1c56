package world

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// PolicyConfig is a server of Postfix's policy delegation protocol
// (SMTPD_POLICY_README): attributes in, one action out.
type PolicyConfig struct {
	Name   string       `json:"name"`
	Listen string       `json:"listen"` // "192.0.2.60:10040" or "unix:/path"
	Rules  []PolicyRule `json:"rules,omitempty"`
	// Default is the action when no rule speaks; DUNNO unless set.
	Default string   `json:"default,omitempty"`
	Delay   Duration `json:"delay,omitempty"` // before every answer
	Down    bool     `json:"down,omitempty"`
}

// PolicyRule answers requests whose attributes match, the first that does.
// Action is any action of access(5), such as "DEFER_IF_PERMIT 4.7.1 not now".
type PolicyRule struct {
	// Match gives a pattern for each attribute that matters, such as
	// "sender": "*@example.com".
	Match       map[string]Pattern `json:"match,omitempty"`
	Probability float64            `json:"probability,omitempty"` // 0 means always
	Delay       Duration           `json:"delay,omitempty"`
	Action      string             `json:"action,omitempty"`
	Fault       PolicyFault        `json:"fault,omitempty"` // in place of an action
}

// PolicyFault is a way to give no action.
type PolicyFault string

// The faults of a policy service.
const (
	PolicyHang    PolicyFault = "hang"    // reads, and never answers
	PolicyClose   PolicyFault = "close"   // hangs up on the request
	PolicyGarbage PolicyFault = "garbage" // answers what is not an action
)

// PolicyCounters is what a policy service was asked.
type PolicyCounters struct {
	Connections int            `json:"connections"`
	Open        int            `json:"open"`
	Requests    int            `json:"requests"`
	Actions     map[string]int `json:"actions"` // by the first word of the answer
	Faults      map[string]int `json:"faults"`
}

func (c PolicyConfig) check() error {
	fail := func(err error) error { return fmt.Errorf("policy service %q: %w", c.Name, err) }
	err := errors.Join(checkName(c.Name), checkListen(c.Listen), checkAction(c.Default))
	if err != nil {
		return fail(err)
	}
	for i, r := range c.Rules {
		err := errors.Join(checkAction(r.Action), checkProbability(r.Probability),
			oneOf("fault", r.Fault, "", PolicyHang, PolicyClose, PolicyGarbage))
		if err == nil && (r.Action == "") == (r.Fault == "") {
			err = errors.New("give either an action or a fault")
		}
		if err != nil {
			return fail(fmt.Errorf("rule %d: %w", i+1, err))
		}
	}
	return nil
}

func checkAction(action string) error {
	if strings.ContainsAny(action, "\r\n") {
		return fmt.Errorf("action %q has more than one line", action)
	}
	return nil
}

// policy is a running policy service.
type policy struct {
	clock *clock
	door  *door

	mu    sync.Mutex
	cfg   PolicyConfig
	rules []livePolicyRule
	dice  *rand.Rand
	n     PolicyCounters
}

type livePolicyRule struct {
	PolicyRule
	match map[string]*matcher
}

func newPolicy(w *World, c PolicyConfig) (*policy, error) {
	p := &policy{clock: &w.clock, dice: newDice(w.seed, "policy "+c.Name)}
	p.reset()
	p.door = newDoor([]string{c.Listen}, p.serve)
	if err := p.apply(c); err != nil {
		return nil, fmt.Errorf("open policy service %q: %w", c.Name, err)
	}
	return p, nil
}

func (p *policy) apply(c PolicyConfig) error {
	rules := make([]livePolicyRule, len(c.Rules))
	for i, r := range c.Rules {
		rules[i] = livePolicyRule{PolicyRule: r, match: make(map[string]*matcher)}
		for attr, pattern := range r.Match {
			rules[i].match[attr] = pattern.compile()
		}
	}
	p.mu.Lock()
	p.cfg, p.rules = c, rules
	p.mu.Unlock()
	return p.door.set([]string{c.Listen}, c.Down)
}

func (p *policy) close() { p.door.shut() }

func (p *policy) listening() []string { return p.door.listening() }

func (p *policy) counters() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.n
	n.Actions, n.Faults = cloneCounts(p.n.Actions), cloneCounts(p.n.Faults)
	return n
}

func (p *policy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n = PolicyCounters{Open: p.n.Open, Actions: make(map[string]int), Faults: make(map[string]int)}
}

// serve answers the requests of one connection. Postfix keeps it open for many.
func (p *policy) serve(ctx context.Context, conn net.Conn, _ int) {
	p.mu.Lock()
	p.n.Connections++
	p.n.Open++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.n.Open--
		p.mu.Unlock()
	}()
	r := bufio.NewReaderSize(conn, lineBytes)
	for {
		attrs, err := readAttributes(r)
		if err != nil {
			return
		}
		answer, delay, fault := p.decide(attrs)
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		switch fault {
		case PolicyHang:
			drain(r)
			return
		case PolicyClose:
			return
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}

// drain reads until the client leaves or the door shuts.
func drain(r *bufio.Reader) {
	for {
		if _, err := r.Discard(1); err != nil {
			return
		}
	}
}

const maxAttributes = 200

// readAttributes reads "name=value" lines up to an empty one.
func readAttributes(r *bufio.Reader) (map[string]string, error) {
	attrs := make(map[string]string)
	for range maxAttributes {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, fmt.Errorf("read policy request: %w", err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			return attrs, nil
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("read policy request: %q is no attribute", text)
		}
		attrs[name] = value
	}
	return nil, fmt.Errorf("read policy request: more than %d attributes", maxAttributes)
}

// decide finds the answer to one request.
func (p *policy) decide(attrs map[string]string) (answer string, delay time.Duration, fault PolicyFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n.Requests++
	action := p.cfg.Default
	if action == "" {
		action = "DUNNO"
	}
	wait := p.cfg.Delay
	for _, r := range p.rules {
		if r.matches(attrs) && (r.Probability == 0 || p.dice.Float64() < r.Probability) {
			action, fault = r.Action, r.Fault
			wait += r.Delay
			break
		}
	}
	answer = "action=" + action + "\n\n"
	if fault != "" {
		p.n.Faults[string(fault)]++
		answer = "\x16\x03\x01 this is no action\n\xff\xfe\n\n"
	} else {
		word, _, _ := strings.Cut(action, " ")
		p.n.Actions[strings.ToUpper(word)]++
	}
	return answer, p.clock.real(wait), fault
}

func (r livePolicyRule) matches(attrs map[string]string) bool {
	for name, m := range r.match {
		value, given := attrs[name]
		if !given || !m.match(value) {
			return false
		}
	}
	return true
}
