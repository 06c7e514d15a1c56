// Package host holds the probes of this host to what was really done to it.
//
// Each test breaks one thing of a real Postfix in a lab, asks as holdfast
// does, root given up and inside, and compares the answer with the lab's own
// knowledge: which process is the master, what file system the spool is on,
// what fault is active.
//
// Invariant: a probe says what is so, or that it cannot tell; it ends in time
// whatever hangs; and it leaves the spool as it was.
//
// It never skips: without root and Postfix the tests fail and say so.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/observe/probe"
	"holdfast/observe/spool"
)

// askVar makes this program, started once more inside a lab, one that asks.
const askVar = "HOLDFAST_TEST_ASK"

// question is what that program is to ask.
type question struct {
	ConfigDir string
	LogPath   string
	Deadline  time.Duration
}

func TestMain(m *testing.M) {
	if opener.Serve(os.Args) {
		return
	}
	if text := os.Getenv(askVar); text != "" {
		if err := answer(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main()
	os.Exit(run(m))
}

// program is this program where every user may run it.
var program string

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "holdfast-host-")
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "host.test")
		err = copySelf(dir, program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "copy the test program:", err)
		return 1
	}
	return m.Run()
}

func copySelf(dir, to string) error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return errors.Join(os.Chmod(dir, 0o755), os.WriteFile(to, data, 0o755))
}

// answer asks the way holdfast does: what takes root first, then as the owner
// of the spool.
func answer(text string) error {
	var q question
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		return fmt.Errorf("decode question: %w", err)
	}
	ctx := context.Background()
	found, _, err := probe.Instances(ctx, "", []string{q.ConfigDir})
	if err != nil {
		return err
	}
	in := found[0]
	op, err := opener.Start(opener.Grants{QueueDirs: []string{in.QueueDir}})
	if err != nil {
		return err
	}
	if err := spool.Drop(in.MailOwner); err != nil {
		return err
	}
	h := probe.Ask(ctx, in, observe.Questions{LogPath: q.LogPath}, probe.AskOptions{Opener: op, Deadline: q.Deadline})
	if err := json.NewEncoder(os.Stdout).Encode(h); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return op.Close()
}

// relay is a lab and what is asked of it.
type relay struct {
	*testing.T
	*lab.Lab
	question
}

func up(t *testing.T, storage lab.Storage) *relay {
	t.Helper()
	l := lab.Up(t, lab.Options{Spool: storage})
	return &relay{t, l, question{ConfigDir: l.Instances[0].ConfigDir}}
}

func (r *relay) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// run runs a command inside and fails the test if it fails.
func (r *relay) run(argv ...string) string {
	r.Helper()
	res, err := r.Exec(r.Context(), argv...)
	r.check(err)
	if res.Code != 0 {
		r.Fatalf("%q: exit %d: %s", argv, res.Code, res.Stderr)
	}
	return res.Stdout
}

// ask starts this program inside. That it ends at all is part of every test: a
// process that wrote to a frozen disk itself could not.
func (r *relay) ask() *observe.Host {
	r.Helper()
	return r.askAs(lab.ExecOptions{})
}

func (r *relay) askAs(o lab.ExecOptions) *observe.Host {
	r.Helper()
	text, err := json.Marshal(r.question)
	r.check(err)
	o.Env = append(o.Env, askVar+"="+string(text))
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	res, err := r.ExecWith(ctx, o, program)
	r.check(err)
	if res.Code != 0 {
		r.Fatalf("ask: exit %d: %s", res.Code, res.Stderr)
	}
	h := new(observe.Host)
	r.check(json.Unmarshal([]byte(res.Stdout), h))
	return h
}

// gaps are those of one source, in words.
func gaps(h *observe.Host, source string) string {
	var text []string
	for _, g := range h.Gaps {
		if g.Source == source {
			text = append(text, fmt.Sprintf("%s: %s (%s)", g.Object, g.Text, g.Hint))
		}
	}
	return strings.Join(text, "; ")
}

// known fails the test where a part could not tell.
func (r *relay) known(h *observe.Host) {
	r.Helper()
	for _, source := range []string{"settings", "master", "queue manager", "storage", "pressure"} {
		if text := gaps(h, source); text != "" {
			r.Errorf("%s: %s", source, text)
		}
	}
}

// process returns the one process of a program of Postfix, with its number
// inside the lab.
func (r *relay) process(name string) lab.Process {
	r.Helper()
	list, err := r.PostfixProcesses("", name)
	r.check(err)
	if len(list) != 1 {
		r.Fatalf("%d processes are called %q", len(list), name)
	}
	return list[0]
}
