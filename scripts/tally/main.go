// Tally runs go test and counts what happened.
//
//	go run ./scripts/tally [-counts FILE] -- [go test arguments] PACKAGES
//
// It prints a line for each package, the whole output of what failed, and one
// closing line with the counts. With -counts it appends "passed failed" to a
// file, so that several runs can be added up.
//
// Invariant: it exits 0 only if at least one test ran, all of them passed, and
// none was skipped. A skipped test is one that nobody has seen pass, so here
// it counts as failed, with the reason that it gave.
//
// What it never does: it does not judge by the exit status of go test alone,
// and not by the output alone; either of them can fail a run.
//
// Diagnostics: "did not finish" is a test that began and has no verdict,
// because its process died or was killed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	counts := flag.String("counts", "", "append the counts to this `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *counts, flag.Args(), os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "tally: %v\n", err)
		os.Exit(1)
	}
}

// run runs go test with the arguments and reports to out.
func run(ctx context.Context, countsFile string, args []string, out io.Writer) error {
	t := newTally(out)
	runErr := t.goTest(ctx, args)
	fmt.Fprintf(out, "%d passed, %d failed\n", t.passed, t.failed)
	if countsFile != "" {
		if err := appendCounts(countsFile, t); err != nil {
			return err
		}
	}
	switch {
	case t.failed > 0:
		return fmt.Errorf("%d of %d tests failed", t.failed, t.passed+t.failed)
	case runErr != nil:
		return runErr
	case t.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}

func appendCounts(name string, t *tally) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("keep counts: %w", err)
	}
	_, err = fmt.Fprintf(f, "%d %d\n", t.passed, t.failed)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep counts: %w", err)
	}
	return nil
}

// goTest runs go test and reads its stream of events to the end.
func (t *tally) goTest(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	// Tests of the lab have namespaces to take down: they get an interrupt and
	// the time to obey it, not a kill.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = t.out
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go test: %w", err)
	}
	readErr := t.read(stdout)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	return readErr
}

// event is a line of `go test -json`, see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// tally adds up the verdicts of a run.
type tally struct {
	out            io.Writer
	passed, failed int
	packages       map[string]*testPackage
}

// testPackage is one package whose tests are running.
type testPackage struct {
	tests  map[string]*test
	output strings.Builder // what the package said outside of its tests
}

// test is one test or subtest.
type test struct {
	verdict string // pass, fail, skip, or empty while it runs
	parent  bool   // its subtests are counted in its place
	output  strings.Builder
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, packages: map[string]*testPackage{}}
}

// read takes events until the stream ends.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				_, _ = t.out.Write(line) // not an event: the go command talks to people
			} else {
				t.take(e)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
	// A stream that ends before its packages do is a run that was killed.
	for name, p := range t.packages {
		t.finish(name, p, event{Action: "fail"})
	}
	return nil
}

// take adds one event.
func (t *tally) take(e event) {
	if e.Action == "build-output" {
		fmt.Fprint(t.out, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := t.packages[e.Package]
	if p == nil {
		p = &testPackage{tests: map[string]*test{}}
		t.packages[e.Package] = p
	}
	if e.Test == "" {
		switch e.Action {
		case "output":
			p.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			t.finish(e.Package, p, e)
		}
		return
	}
	p.take(e)
}

// take adds an event of one test.
func (p *testPackage) take(e event) {
	one := p.tests[e.Test]
	if one == nil {
		one = &test{}
		p.tests[e.Test] = one
		for name := e.Test; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			if up := p.tests[name]; up != nil {
				up.parent = true
			}
		}
	}
	switch e.Action {
	case "output":
		one.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		one.verdict = e.Action
	}
}

// finish counts the tests of a package that has ended and forgets them.
func (t *tally) finish(name string, p *testPackage, end event) {
	delete(t.packages, name)
	passed, failed := 0, 0
	for _, test := range sortedKeys(p.tests) {
		one := p.tests[test]
		switch {
		case one.verdict == "pass" && one.parent:
			// Counted by its subtests.
		case one.verdict == "pass":
			passed++
		case one.verdict == "fail" && one.parent && p.failedBelow(test):
			fmt.Fprint(t.out, one.output.String())
		case one.verdict == "skip":
			failed++
			fmt.Fprintf(t.out, "%s%s: %s was skipped; a test that cannot run here has to fail and say what it needs\n",
				one.output.String(), name, test)
		case one.verdict == "fail":
			failed++
			fmt.Fprint(t.out, one.output.String())
		default:
			failed++
			fmt.Fprintf(t.out, "%s%s: %s did not finish\n", one.output.String(), name, test)
		}
	}
	if end.Action == "fail" && failed == 0 {
		failed = 1 // it did not build, or it failed outside of a test
	}
	if end.Action == "fail" {
		fmt.Fprint(t.out, p.output.String())
	}
	t.passed += passed
	t.failed += failed
	switch {
	case failed > 0:
		fmt.Fprintf(t.out, "FAIL  %-34s %5.1fs  %d passed, %d failed\n", name, end.Elapsed, passed, failed)
	case passed > 0:
		fmt.Fprintf(t.out, "ok    %-34s %5.1fs  %d passed\n", name, end.Elapsed, passed)
	}
}

// failedBelow says whether a subtest of the test has a failure to count.
func (p *testPackage) failedBelow(name string) bool {
	for below, one := range p.tests {
		if strings.HasPrefix(below, name+"/") && one.verdict != "pass" {
			return true
		}
	}
	return false
}

func sortedKeys(m map[string]*test) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
