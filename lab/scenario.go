package lab

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
)

// Scenario is an incident as data: a lab, and what happens in it, in order.
type Scenario struct {
	Name    string  `json:"name"`
	Summary string  `json:"summary"` // one line
	Options Options `json:"options"`
	Steps   []Step  `json:"steps,omitempty"`
}

// Step is one thing that happens. One field is set, and MayFail beside it where failure is part of the incident.
type Step struct {
	MayFail bool `json:"may_fail,omitempty"`

	Inject *Load      `json:"inject,omitempty"`
	Fault  *FaultStep `json:"fault,omitempty"`
	Cure   string     `json:"cure,omitempty"`   // a fault's name, or all
	Exec   []string   `json:"exec,omitempty"`   // inside the lab; must exit 0
	Params []string   `json:"params,omitempty"` // main.cf changes ("name=value"), then reload
	Wait   *Wait      `json:"wait,omitempty"`
	Age    *Age       `json:"age,omitempty"`
}

// FaultStep starts a fault.
type FaultStep struct {
	Name   string `json:"name"`
	Params Params `json:"params,omitempty"`
}

// Wait looks at the primary instance's queue until it is so.
type Wait struct {
	Queue   string `json:"queue,omitempty"`    // incoming, active, deferred, hold; all together if empty
	AtLeast int    `json:"at_least,omitempty"` // messages
	AtMost  *int   `json:"at_most,omitempty"`
	Settled bool   `json:"settled,omitempty"` // nothing in incoming or active
	Seconds int    `json:"seconds,omitempty"` // give up after; 60 if 0
}

func (w Wait) met(list []Queued) bool {
	counts := Counts(list)
	n := counts[w.Queue]
	if w.Queue == "" {
		n = len(list)
	}
	settled := counts["incoming"] == 0 && counts["active"] == 0 && counts["maildrop"] == 0
	return n >= w.AtLeast && (w.AtMost == nil || n <= *w.AtMost) && (settled || !w.Settled)
}

//go:embed scenarios/*.json
var scenarioFiles embed.FS

// Scenarios returns the scenarios that come with the lab, by name.
func Scenarios() ([]Scenario, error) {
	entries, err := scenarioFiles.ReadDir("scenarios")
	if err != nil {
		return nil, fmt.Errorf("list scenarios: %w", err)
	}
	var list []Scenario
	for _, e := range entries {
		s, err := LoadScenario(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// LoadScenario reads a scenario that comes with the lab, or, if the name has a slash or ends in .json, a file.
func LoadScenario(name string) (Scenario, error) {
	var data []byte
	var err error
	if strings.Contains(name, "/") || strings.HasSuffix(name, ".json") {
		data, err = os.ReadFile(name)
	} else if data, err = scenarioFiles.ReadFile(path.Join("scenarios", name+".json")); err != nil {
		err = fmt.Errorf("no scenario %q; see: holdfast-lab scenarios", name)
	}
	if err != nil {
		return Scenario{}, fmt.Errorf("load scenario: %w", err)
	}
	var s Scenario
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Scenario{}, fmt.Errorf("load scenario %q: %w", name, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Scenario{}, fmt.Errorf("load scenario %q: something follows its end", name)
	}
	return s, nil
}

// Play lets the steps of a scenario happen. say, if not nil, hears about each before it happens.
func (l *Lab) Play(ctx context.Context, steps []Step, say func(string)) error {
	for i, step := range steps {
		what, do := step.act(l)
		if do == nil {
			return fmt.Errorf("scenario step %d: nothing to do", i+1)
		}
		if say != nil {
			say(what)
		}
		if err := do(ctx); err != nil && !step.MayFail {
			return fmt.Errorf("scenario step %d (%s): %w", i+1, what, err)
		}
	}
	return nil
}

func (s Step) act(l *Lab) (what string, do func(context.Context) error) {
	switch {
	case s.Inject != nil:
		return fmt.Sprintf("inject %d messages for %s", s.Inject.Count, strings.Join(s.Inject.Domains, ", ")), func(ctx context.Context) error {
			_, err := l.Inject(ctx, *s.Inject)
			return err
		}
	case s.Fault != nil:
		return "break " + s.Fault.Name, func(context.Context) error { return l.Fault(s.Fault.Name, s.Fault.Params) }
	case s.Cure != "":
		return "mend " + s.Cure, func(context.Context) error { return l.Cure(s.Cure) }
	case len(s.Exec) > 0:
		return "run " + s.Exec[0], func(ctx context.Context) error {
			_, err := l.must(ctx, s.Exec...)
			return err
		}
	case len(s.Params) > 0:
		return "configure " + strings.Join(s.Params, ", "), func(ctx context.Context) error { return l.SetParams(ctx, "", s.Params...) }
	case s.Wait != nil:
		return "wait for the queue", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(defaultTo(s.Wait.Seconds, 60))*time.Second)
			defer cancel()
			return l.WaitQueue(ctx, s.Wait.met)
		}
	case s.Age != nil:
		return "let messages grow old", func(ctx context.Context) error { return l.GrowOld(ctx, *s.Age) }
	}
	return "", nil
}
