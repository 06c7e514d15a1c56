// Command diagnose plants troubles in real Postfix relays and compares what
// holdfast triage makes of them with what was planted.
//
// A case is data (cases/*.json): a relay with a world of its own, what happens
// to it, and what triage has to say. Each is played in a lab of its own, and
// triage runs inside it as root, as an operator would run it. The table at the
// end sets planted against named causes.
//
// # Invariants
//
// What was planted is known from the lab, never from what triage says. A case
// that could not be played is a failure and not a pass. An answer counts only
// if nothing was named beside what was planted, unless the case says that it
// may be: a tool that always names everything would be right about each.
//
// # Diagnostics
//
// Exit status: 0 when every case was met, 1 when some were not or could not be
// played, 2 wrong usage. For each case that was not met the answer is kept as
// NAME.json in the directory of -keep.
//
// # Bugs
//
// The clock cannot be moved in a lab: what takes hours is shortened by
// Postfix's own parameters, or by making queue files older than they are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"holdfast/lab"
)

func main() {
	lab.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, argv []string) int {
	flags := flag.NewFlagSet("diagnose", flag.ContinueOnError)
	c := campaign{progress: os.Stderr}
	flags.StringVar(&c.program, "program", "bin/holdfast", "the holdfast `FILE` under test")
	flags.StringVar(&c.keep, "keep", "", "`DIR` that answers are kept in; none unless set")
	flags.IntVar(&c.jobs, "jobs", 3, "labs at the same time")
	only := flags.String("run", "", "play cases whose name matches this `REGEXP`")
	list := flags.Bool("list", false, "list the cases and play none")
	if err := flags.Parse(argv); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	cases, err := chosen(*only)
	if err == nil {
		c.program, err = filepath.Abs(c.program) // as seen from inside a lab, whose working directory is /
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "diagnose: %v\n", err)
		return 2
	}
	if *list {
		for _, cs := range cases {
			fmt.Printf("%-9s %-34s %s\n", cs.Kind, cs.Name, cs.Summary)
		}
		return 0
	}
	results := c.play(ctx, cases)
	report(os.Stdout, results)
	if ctx.Err() != nil {
		return 130
	}
	for _, r := range results {
		if !r.met() {
			return 1
		}
	}
	return 0
}

func chosen(only string) ([]Case, error) {
	all, err := Cases()
	if err != nil || only == "" {
		return all, err
	}
	re, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("parse -run: %w", err)
	}
	var cases []Case
	for _, c := range all {
		if re.MatchString(c.Name) {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("no case matches %q; see -list", only)
	}
	return cases, nil
}
