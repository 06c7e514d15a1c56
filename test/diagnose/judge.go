package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"holdfast/diagnose"
	"holdfast/postfix"
)

// Answer is one instance in the output of triage, as far as it is judged. It is
// read by the names that docs/json.md promises, not by the types of the program.
type Answer struct {
	Schema   string         `json:"schema"`
	Instance string         `json:"instance"`
	State    diagnose.State `json:"state"`
	Sentence string         `json:"sentence"`
	Findings []struct {
		Cause    postfix.Cause  `json:"cause"`
		Subject  string         `json:"subject"`
		Scope    diagnose.Scope `json:"scope"`
		Summary  string         `json:"summary"`
		Evidence []struct {
			Text string `json:"text"`
		} `json:"evidence"`
		Next []struct {
			Argv []string `json:"argv"`
			Why  string   `json:"why"`
		} `json:"next"`
	} `json:"findings"`
}

const (
	schema      = "holdfast.triage/1"
	errorSchema = "holdfast.error/1"
)

// decodeAnswers reads one object an instance.
func decodeAnswers(text string) ([]Answer, error) {
	var list []Answer
	d := json.NewDecoder(strings.NewReader(text))
	for d.More() {
		var a Answer
		if err := d.Decode(&a); err != nil {
			return nil, fmt.Errorf("decode answer: %w", err)
		}
		list = append(list, a)
	}
	return list, nil
}

// named are the findings as one compares them.
func (a Answer) named() []Wanted {
	list := make([]Wanted, 0, len(a.Findings))
	for _, f := range a.Findings {
		list = append(list, Wanted{f.Cause, f.Subject, f.Scope})
	}
	return list
}

// judge says what is not as it should be, one sentence each.
func judge(e Expect, answers []Answer, raw string) []string {
	var misses []string
	miss := func(format string, args ...any) { misses = append(misses, fmt.Sprintf(format, args...)) }
	instance := e.Instance
	if instance == "" {
		instance = "postfix"
	}
	met := false
	for _, a := range answers {
		if a.Schema == errorSchema && e.Exit != 0 {
			continue // it could not look at all
		}
		if a.Schema != schema {
			miss("schema %q", a.Schema)
		}
		if a.Instance == instance {
			met = true
			misses = append(misses, e.compare(a)...)
		} else if len(a.Findings) > 0 {
			miss("instance %s: %s", a.Instance, join(a.named()))
		}
	}
	if !met && e.Exit == 0 {
		miss("no answer about instance %s", instance)
	}
	for _, text := range e.Text {
		if !strings.Contains(raw, text) {
			miss("%q is said nowhere", text)
		}
	}
	for _, text := range e.Silent {
		if strings.Contains(raw, text) {
			miss("%q is said", text)
		}
	}
	return misses
}

func (e Expect) compare(a Answer) []string {
	var misses []string
	miss := func(format string, args ...any) { misses = append(misses, fmt.Sprintf(format, args...)) }
	named := a.named()
	for _, w := range e.Findings {
		if !slices.ContainsFunc(named, w.matches) {
			miss("%s is not named", w)
		}
	}
	if !e.AnyOrder && len(e.Findings) > 0 && len(named) > 0 && !e.Findings[0].matches(named[0]) {
		miss("%s is on top, not %s", named[0], e.Findings[0])
	}
	for _, n := range named {
		wanted := slices.ContainsFunc(e.Findings, func(w Wanted) bool { return w.matches(n) })
		if !wanted && !slices.Contains(e.Also, n.Cause) {
			miss("%s is named", n)
		}
	}
	if len(e.State) > 0 && !slices.Contains(e.State, a.State) {
		miss("state %s (%s), not %v", a.State, a.Sentence, e.State)
	}
	for _, f := range a.Findings {
		// A cause without proof, or without a next step, is an opinion.
		if f.Summary == "" || len(f.Evidence) == 0 || len(f.Next) == 0 {
			miss("%s of %s has summary %q, %d pieces of evidence, %d next steps", f.Cause, f.Subject, f.Summary, len(f.Evidence), len(f.Next))
		}
	}
	return misses
}

func (w Wanted) matches(n Wanted) bool {
	return n.Cause == w.Cause && (w.Subject == "" || n.Subject == w.Subject) && (w.Scope == "" || n.Scope == w.Scope)
}

func join(list []Wanted) string {
	if len(list) == 0 {
		return "nothing"
	}
	var parts []string
	for _, w := range list {
		parts = append(parts, w.String())
	}
	return strings.Join(parts, ", ")
}
