package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/lab"
)

// campaign plays cases against one program.
type campaign struct {
	program  string
	keep     string
	jobs     int
	progress io.Writer
}

// Result is what became of one case.
type Result struct {
	Case    Case
	Answers []Answer
	Raw     string        // as triage wrote it
	Took    time.Duration // until triage had answered
	Err     error         // it could not be played
	Misses  []string      // what was expected and is not so
}

func (r Result) met() bool { return r.Err == nil && len(r.Misses) == 0 }

// play plays all cases, some at a time, and returns the results in their order.
func (c campaign) play(ctx context.Context, cases []Case) []Result {
	results := make([]Result, len(cases))
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range max(1, c.jobs) {
		wg.Go(func() {
			for i := range next {
				results[i] = c.playOne(ctx, cases[i])
				mu.Lock()
				c.say(results[i])
				mu.Unlock()
			}
		})
	}
	for i := range cases {
		next <- i
	}
	close(next)
	wg.Wait()
	return results
}

func (c campaign) say(r Result) {
	word := "ok"
	if !r.met() {
		word = "MISS"
	}
	fmt.Fprintf(c.progress, "%-4s %5.1f s  %s\n", word, r.Took.Seconds(), r.Case.Name)
}

// patience bounds one case with everything that happens in it.
const patience = 4 * time.Minute

func (c campaign) playOne(ctx context.Context, cs Case) Result {
	r := Result{Case: cs}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, err := lab.Start(ctx, cs.options())
	if err != nil {
		r.Err = fmt.Errorf("start lab: %w", err)
		return r
	}
	if err := c.inLab(ctx, l, &r); err != nil {
		r.Err = fmt.Errorf("%w; the mail log ends with:\n%s", err, endOfLog(l))
	}
	// What is broken is mended first: a frozen or read-only spool must not keep the lab from going.
	r.Err = errors.Join(r.Err, l.Cure("all"), l.Down())
	if r.Err == nil {
		r.Misses = append(judge(cs.Expect, r.Answers, r.Raw), r.Misses...)
	}
	if c.keep != "" && r.Raw != "" {
		r.Err = errors.Join(r.Err, os.WriteFile(filepath.Join(c.keep, cs.Name+".json"), []byte(r.Raw), 0o600))
	}
	return r
}

// endOfLog is what Postfix said last: why a step failed is mostly in it.
func endOfLog(l *lab.Lab) string {
	const enough = 1500
	data, err := os.ReadFile(l.HostPath(l.Instances[0].LogFile))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-enough):])
}

func (c campaign) inLab(ctx context.Context, l *lab.Lab, r *Result) error {
	if err := l.Play(ctx, append(r.Case.warmUp(), r.Case.Steps...), nil); err != nil {
		return err
	}
	stop := c.keepInjecting(ctx, l, r.Case.During)
	err := c.ask(ctx, l, r)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	for _, argv := range r.Case.After {
		res, err := l.Exec(ctx, argv...)
		if err != nil {
			return err
		}
		if res.Code != 0 {
			r.Misses = append(r.Misses, fmt.Sprintf("afterwards %q: exit %d: %s%s", argv, res.Code, res.Stdout, res.Stderr))
		}
	}
	return nil
}

// keepInjecting sends a batch again and again until it is told to stop.
func (c campaign) keepInjecting(ctx context.Context, l *lab.Lab, load *lab.Load) (stop func() error) {
	if load == nil {
		return func() error { return nil }
	}
	halt := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := l.Inject(ctx, *load); err != nil {
				done <- err
				return
			}
			select {
			case <-halt:
				done <- nil
				return
			default:
			}
		}
	}()
	return func() error {
		close(halt)
		return <-done
	}
}

// ask runs triage inside the lab.
func (c campaign) ask(ctx context.Context, l *lab.Lab, r *Result) error {
	var o lab.ExecOptions
	if name := r.Case.Look.User; name != "" {
		var err error
		if o.UID, o.GID, err = identity(name); err != nil {
			return err
		}
	}
	argv := append([]string{c.program, "triage", "-o", "json"}, r.Case.Look.Args...)
	began := time.Now()
	res, err := l.ExecWith(ctx, o, argv...)
	if err != nil {
		return err
	}
	r.Took, r.Raw = time.Since(began), res.Stdout
	if res.Code != r.Case.Expect.Exit {
		r.Misses = append(r.Misses, fmt.Sprintf("exit %d, not %d: %s", res.Code, r.Case.Expect.Exit, strings.TrimSpace(res.Stderr)))
	}
	r.Answers, err = decodeAnswers(res.Stdout)
	return err
}

func identity(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("look up user: %w", err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(errUID, errGID)
}
