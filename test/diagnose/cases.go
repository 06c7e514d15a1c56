package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"holdfast/diagnose"
	"holdfast/lab"
	"holdfast/lab/world"
	"holdfast/postfix"
)

// Kind says what a case is to prove; the bar is counted by kind.
type Kind string

// The kinds of cases.
const (
	Single  Kind = "single"  // one fault, to be named first
	Pair    Kind = "pair"    // several at once, all to be named
	Cured   Kind = "cured"   // repaired, while mail still waits
	Healthy Kind = "healthy" // busy and well: no finding
	Attack  Kind = "attack"  // a stranger or a local user would mislead
	Sight   Kind = "sight"   // something cannot be seen, and has to be said
)

var kinds = []Kind{Single, Pair, Cured, Healthy, Attack, Sight}

// Case is an incident and the answer to it.
type Case struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	Kind    Kind   `json:"-"` // the name of its file
	// Short puts the case on the list that every test run plays.
	Short bool `json:"short,omitempty"`
	// Cold leaves out the mail that every other relay has delivered before.
	Cold bool `json:"cold,omitempty"`
	// With is added to the ordinary relay: its providers, parameters and zones
	// beside those that are there, everything else in place of it.
	With  lab.Options `json:"with,omitzero"`
	Steps []lab.Step  `json:"steps"`
	// During is mail that comes in while triage looks.
	During *lab.Load `json:"during,omitempty"`
	Look   Look      `json:"look,omitzero"`
	Expect Expect    `json:"expect"`
	// After are commands that must succeed in the lab once triage has answered.
	After [][]string `json:"after,omitempty"`
}

// Look says how triage is asked.
type Look struct {
	Args []string `json:"args,omitempty"`
	// User looks in place of root.
	User string `json:"user,omitempty"`
}

// Expect is what triage has to answer.
type Expect struct {
	// Instance is which instance is meant; all others must have no finding.
	Instance string `json:"instance,omitempty"`
	// Findings have to be there, the first of them on top unless AnyOrder. With
	// none, there must be none.
	Findings []Wanted `json:"findings,omitempty"`
	AnyOrder bool     `json:"any_order,omitempty"`
	// Also are causes that may be named beside them.
	Also  []postfix.Cause  `json:"also,omitempty"`
	State []diagnose.State `json:"state,omitempty"` // any of them; all are right if empty
	// Text has to stand somewhere in the answer as JSON, gaps and evidence included;
	// Silent nowhere.
	Text   []string `json:"text,omitempty"`
	Silent []string `json:"silent,omitempty"`
	Exit   int      `json:"exit,omitempty"`
}

// Wanted is one finding that has to be there. Empty fields do not matter.
type Wanted struct {
	Cause   postfix.Cause  `json:"cause"`
	Subject string         `json:"subject,omitempty"`
	Scope   diagnose.Scope `json:"scope,omitempty"`
}

func (w Wanted) String() string {
	text := string(w.Cause)
	if w.Subject != "" {
		text += " of " + w.Subject
	}
	if w.Scope != "" {
		text += " (" + string(w.Scope) + ")"
	}
	return text
}

//go:embed cases/*.json
var caseFiles embed.FS

// Cases returns all cases, by kind and in the order of their files.
func Cases() ([]Case, error) {
	var all []Case
	seen := map[string]bool{}
	for _, kind := range kinds {
		list, err := readCases(kind)
		if err != nil {
			return nil, fmt.Errorf("read cases of kind %q: %w", kind, err)
		}
		for _, c := range list {
			if seen[c.Name] {
				return nil, fmt.Errorf("two cases are named %q", c.Name)
			}
			seen[c.Name] = true
		}
		all = append(all, list...)
	}
	return all, nil
}

func readCases(kind Kind) ([]Case, error) {
	data, err := caseFiles.ReadFile(path.Join("cases", string(kind)+".json"))
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := strictly(data, &raw); err != nil {
		return nil, err
	}
	var list []Case
	for i, text := range raw {
		variants, err := vary(text)
		if err != nil {
			return nil, fmt.Errorf("case %d: %w", i+1, err)
		}
		for _, text := range variants {
			c := Case{Kind: kind}
			if err := strictly(text, &c); err != nil {
				return nil, fmt.Errorf("case %d: %w", i+1, err)
			}
			if err := c.check(); err != nil {
				return nil, fmt.Errorf("case %q: %w", c.Name, err)
			}
			list = append(list, c)
		}
	}
	return list, nil
}

// vary makes several cases of one that has a "vary": each entry gives a suffix
// for the name and texts that stand in for $WORD wherever it occurs.
func vary(text json.RawMessage) ([]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	if fields["vary"] == nil {
		return []json.RawMessage{text}, nil
	}
	var variants []map[string]string
	if err := json.Unmarshal(fields["vary"], &variants); err != nil {
		return nil, fmt.Errorf("vary: %w", err)
	}
	delete(fields, "vary")
	var made []json.RawMessage
	for _, v := range variants {
		text, err := json.Marshal(fields)
		if err != nil {
			return nil, err
		}
		name := bytes.Replace(fields["name"], []byte(`"`), []byte(`"`+v["name"]+"-"), 1)
		text = bytes.Replace(text, append([]byte(`"name":`), fields["name"]...), append([]byte(`"name":`), name...), 1)
		// The longest word first, so that $TEXT does not take the head of $TEXTS.
		words := slices.SortedFunc(maps.Keys(v), func(a, b string) int { return len(b) - len(a) })
		for _, word := range words {
			quoted, err := json.Marshal(v[word])
			if err != nil {
				return nil, err
			}
			if word != "name" {
				text = bytes.ReplaceAll(text, []byte("$"+word), bytes.Trim(quoted, `"`))
			}
		}
		made = append(made, text)
	}
	return made, nil
}

func strictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the end of the value")
	}
	return nil
}

func (c Case) check() error {
	switch {
	case c.Name == "" || c.Summary == "":
		return errors.New("a case needs a name and a summary")
	case c.Kind == Healthy && len(c.Expect.Findings) > 0:
		return errors.New("a healthy relay has no finding")
	case c.Kind == Single && len(c.Expect.Findings) == 0:
		return errors.New("a fault without a cause to name")
	case c.Kind == Pair && len(c.Expect.Findings) < 2:
		return errors.New("fewer than two faults")
	}
	return nil
}

// ordinaryDomains are where the mail of an ordinary relay goes.
var ordinaryDomains = []string{"alpha.example", "beta.example", "gamma.example", "delta.example", "epsilon.example"}

// options are the ordinary relay, and what the case adds to it. Its schedule is
// Postfix's own, so that nothing is tried again while triage looks; only time-outs are shorter.
func (c Case) options() lab.Options {
	o := c.With
	peers := map[string]string{
		"alpha": "198.51.100.10", "beta": "198.51.100.20", "gamma": "198.51.100.30", "delta": "203.0.113.10", "epsilon": "203.0.113.20",
	}
	var providers []world.ProviderConfig
	for _, domain := range ordinaryDomains {
		name, _, _ := strings.Cut(domain, ".")
		p := world.ProviderConfig{Name: name, Domains: []string{domain}, Hosts: []world.Host{{Addr: peers[name]}}}
		if !slices.ContainsFunc(o.World.Providers, func(other world.ProviderConfig) bool { return other.Name == name }) {
			providers = append(providers, p)
		}
	}
	o.World.Providers = append(providers, o.World.Providers...)
	if len(o.World.DNS.Listen) == 0 {
		o.World.DNS.Listen = []string{"192.0.2.53"}
	}
	params := map[string]string{"smtp_connect_timeout": "2s", "smtp_helo_timeout": "4s", "smtp_mail_timeout": "4s", "smtp_rcpt_timeout": "4s"}
	maps.Copy(params, o.Params)
	o.Params = params
	return o
}

// warmUp is the mail that was delivered before anything happened.
func (c Case) warmUp() []lab.Step {
	if c.Cold {
		return nil
	}
	none := 0
	return []lab.Step{
		{Inject: &lab.Load{Count: 40, Domains: ordinaryDomains}},
		{Wait: &lab.Wait{Settled: true, AtMost: &none}},
	}
}
