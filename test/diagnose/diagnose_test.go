package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/diagnose"
	"holdfast/lab"
	"holdfast/postfix"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

// TestShortList plays the cases that are marked so: each cause once, and some
// relays that are well. All of them take "make diagnose".
func TestShortList(t *testing.T) {
	all, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	c := campaign{program: built(t)}
	// Three labs at a time: most of a case is waiting.
	slots := make(chan struct{}, 3)
	for _, cs := range all {
		if !cs.Short {
			continue
		}
		t.Run(cs.Name, func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			r := c.playOne(t.Context(), cs)
			if r.Err != nil {
				t.Fatalf("%s: %v", cs.Summary, r.Err)
			}
			if len(r.Misses) > 0 {
				t.Errorf("%s:\n%s\n%s", cs.Summary, strings.Join(r.Misses, "\n"), r.Raw)
			}
		})
	}
}

// built is the holdfast command of this tree, below /tmp, which labs share with the host.
func built(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "holdfast-diagnose-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // users without rights run it too
		t.Fatal(err)
	}
	program := filepath.Join(dir, "holdfast")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, "holdfast/cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it ships
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build holdfast: %v\n%s", err, out)
	}
	return program
}

// answer makes what triage would print, with findings given as CAUSE SUBJECT SCOPE.
func answer(t *testing.T, instance string, state diagnose.State, findings ...string) string {
	t.Helper()
	var parts []string
	for _, f := range findings {
		var w [3]string
		copy(w[:], strings.Fields(f))
		parts = append(parts, fmt.Sprintf(`{"cause":%q,"subject":%q,"scope":%q,"summary":"s","evidence":[{"text":"e"}],"next":[{"argv":["x"],"why":"w"}]}`, w[0], w[1], w[2]))
	}
	return fmt.Sprintf(`{"schema":"holdfast.triage/1","instance":%q,"state":%q,"findings":[%s]}`, instance, state, strings.Join(parts, ","))
}

// TestJudge holds the judge to right and wrong answers: one that is content
// with everything would make every case pass.
func TestJudge(t *testing.T) {
	down := Wanted{Cause: "remote-down", Subject: "north.example", Scope: diagnose.Destination}
	single := Expect{Findings: []Wanted{down}}
	pair := Expect{Findings: []Wanted{{Cause: "dns", Scope: diagnose.Global}, down}}
	none := Expect{State: []diagnose.State{diagnose.Flowing}}
	const right = "remote-down north.example destination"
	tests := []struct {
		name   string
		expect Expect
		raw    string
		misses int
	}{
		{"right", single, answer(t, "postfix", diagnose.Flowing, right), 0},
		{"other cause", single, answer(t, "postfix", diagnose.Flowing, "dns north.example destination"), 3},
		{"other subject", single, answer(t, "postfix", diagnose.Flowing, "remote-down south.example destination"), 3},
		{"other scope", single, answer(t, "postfix", diagnose.Flowing, "remote-down north.example global"), 3},
		{"one too many", single, answer(t, "postfix", diagnose.Flowing, right, "egress x global"), 1},
		{"one too many, allowed", Expect{Findings: single.Findings, Also: []postfix.Cause{postfix.DNS}}, answer(t, "postfix", diagnose.Flowing, right, "dns x global"), 0},
		{"nothing", single, answer(t, "postfix", diagnose.Flowing), 1},
		{"no answer", single, "", 1},
		{"both", pair, answer(t, "postfix", diagnose.NotFlowing, "dns x global", right), 0},
		{"both, wrong order", pair, answer(t, "postfix", diagnose.NotFlowing, right, "dns x global"), 1},
		{"both, any order", Expect{Findings: pair.Findings, AnyOrder: true}, answer(t, "postfix", diagnose.NotFlowing, right, "dns x global"), 0},
		{"one of both", pair, answer(t, "postfix", diagnose.NotFlowing, "dns x global"), 1},
		{"well", none, answer(t, "postfix", diagnose.Flowing), 0},
		{"well, called sick", none, answer(t, "postfix", diagnose.Flowing, right), 1},
		{"well, called stuck", none, answer(t, "postfix", diagnose.NotFlowing), 1},
		{"another instance is sick", none, answer(t, "postfix", diagnose.Flowing) + answer(t, "postfix-out", diagnose.Flowing, right), 1},
		{"another schema", none, strings.Replace(answer(t, "postfix", diagnose.Flowing), "triage/1", "triage/2", 1), 1},
		{"no proof", single, strings.Replace(answer(t, "postfix", diagnose.Flowing, right), `[{"text":"e"}]`, "[]", 1), 1},
		{"text", Expect{Text: []string{"mute"}}, answer(t, "postfix", diagnose.Flowing), 1},
		{"silent", Expect{Silent: []string{"flowing"}}, answer(t, "postfix", diagnose.Flowing), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answers, err := decodeAnswers(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := judge(tt.expect, answers, tt.raw); len(got) != tt.misses {
				t.Errorf("%d misses, not %d: %q", len(got), tt.misses, got)
			}
		})
	}
}

// TestCases says whether the bar can be counted: enough cases of each kind, and a name for each.
func TestCases(t *testing.T) {
	all, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	count := map[Kind]int{}
	for _, c := range all {
		count[c.Kind]++
	}
	for kind, least := range map[Kind]int{Single: 40, Pair: 10, Cured: 10, Healthy: 10, Attack: 5, Sight: 5} {
		if count[kind] < least {
			t.Errorf("%d cases of kind %s, fewer than %d", count[kind], kind, least)
		}
	}
}
