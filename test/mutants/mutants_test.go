package main

import (
	"os"
	"strings"
	"testing"
)

// TestMutantsFitTheSource keeps the list fresh: playing it takes minutes and is
// done by make mutants.
func TestMutantsFitTheSource(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range mutants() {
		text, err := os.ReadFile("../../" + m.file)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: %s has %d places that read %q", m.name, m.file, n, m.old)
		}
		if m.old == m.new || len(m.tests) == 0 || seen[m.name] {
			t.Errorf("%s is no mutant, is in the list twice, or has no test", m.name)
		}
		seen[m.name] = true
	}
}

func TestFailedNamesTheTest(t *testing.T) {
	if got := failed("=== RUN   TestA\n    --- FAIL: TestA/b (0.00s)\nFAIL\n"); got != "TestA/b" {
		t.Errorf("got %q", got)
	}
	if got := failed("panic: test timed out"); got != "a test that did not end" {
		t.Errorf("got %q", got)
	}
}
