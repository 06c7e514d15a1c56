// Command holdfast-lab starts real Postfix labs and breaks them: for people who want to see an incident, to practise on
// it, or to script one.
//
// It is package lab with words. What it prints on stdout is data, as text or as JSON (-o json); talk goes to stderr.
//
// # Diagnostics
//
// Exit status: 0 done, 1 failed, 2 wrong usage. "exec" exits with the status of the command that it ran.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"holdfast/lab"
)

func main() {
	lab.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], screen{out: os.Stdout, talk: os.Stderr})
	stop()
	os.Exit(code)
}

// exitStatus is the status of a command that ran inside the lab and failed: a result, not an error of ours.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is what cobra cannot know by itself to be the caller's mistake.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func run(ctx context.Context, argv []string, s screen) int {
	root := newRoot(&s)
	root.SetArgs(argv)
	root.SetOut(s.out)
	root.SetErr(s.talk)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	fmt.Fprintf(s.talk, "holdfast-lab: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}
