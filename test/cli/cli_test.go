// Package cli_test runs the holdfast command as a shell does, on spools that
// were forged file by file: the scripts in testdata are the manual of the
// command line in a form that cannot be wrong for long.
//
// It needs root, as holdfast itself does to see every queue: the command gives
// root up before it decodes the first byte of mail. No Postfix is started.
package cli_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"holdfast/lab/forge"
	"holdfast/plan"
	"holdfast/postfix"
)

// workshop is a directory with the command in it that the mail owner may
// enter: tests' own temporary directories are closed to others.
func workshop(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "holdfast-cli-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // MkdirTemp makes it for its owner alone
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "bin")+"/", "holdfast/cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build holdfast: %v\n%s", err, out)
	}
	return dir
}

func TestScripts(t *testing.T) {
	dir := workshop(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata", WorkdirRoot: dir, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Join(dir, "bin")+":"+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"spool": makeSpool, "exits": exits},
	})
}

// letter is one line of a spool's description.
type letter struct {
	ID      postfix.QueueID
	Queue   postfix.Queue
	Age     plan.Duration
	Next    plan.Duration // until the next try
	Sender  string
	Size    int
	Content string
	SASL    string
	Client  postfix.Client
	Filter  string
	To      []struct {
		Address, Original, Status, Reason, Host string
		Done                                    bool
	}
	Unfinished bool
}

// makeSpool is the script command "spool DIR FILE": it forges the messages that
// the lines of FILE describe. DIR/config is then a configuration directory.
func makeSpool(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: spool DIR FILE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	private, err := forge.NewPrivate(dir, &forge.Spool{HashDepth: 1})
	ts.Check(err)
	now := time.Now()
	lines := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[1])))
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var l letter
		in := json.NewDecoder(strings.NewReader(lines.Text()))
		in.DisallowUnknownFields()
		ts.Check(in.Decode(&l))
		m := &forge.Message{
			ID: l.ID, Queue: l.Queue, Sender: l.Sender, Size: l.Size, SASLUser: l.SASL, Client: l.Client, Filter: l.Filter, Unfinished: l.Unfinished,
			Arrival: now.Add(-time.Duration(l.Age)), NextTry: now.Add(time.Duration(l.Next)),
		}
		if l.Content != "" {
			m.Content = []byte(l.Content)
		}
		for _, r := range l.To {
			to := forge.Recipient{Address: r.Address, Original: r.Original, Done: r.Done}
			if r.Reason != "" {
				to.Deferred = &forge.Reason{Status: r.Status, Text: r.Reason, Host: r.Host}
			}
			m.Recipients = append(m.Recipients, to)
		}
		_, err := private.Spool.Write(m)
		ts.Check(err)
	}
}

// exits is the script command "exits CODE COMMAND...": a script promises an
// exit code, not just a failure. Output goes where exec puts it.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	code := "0"
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		code = strconv.Itoa(failed.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, not %s", code, args[0])
	}
}

// TestInterrupt sends the signals that a terminal and a supervisor send, once
// the command has shown that it runs.
func TestInterrupt(t *testing.T) {
	dir := workshop(t)
	private, err := forge.NewPrivate(filepath.Join(dir, "relay"), &forge.Spool{HashDepth: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "holdfast"), "-c", private.ConfigDir, "queue", "--watch=100ms")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for n := 0; n < 3 && lines.Scan(); n++ {
			if lines.Text() != "The queue is empty." {
				t.Errorf("it says %q", lines.Text())
			}
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 || !strings.HasSuffix(stderr.String(), "holdfast: interrupted\n") {
			t.Errorf("%v ends in %v: %q", signal, err, stderr.String())
		}
	}
}
