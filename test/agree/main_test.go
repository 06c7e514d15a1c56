// Package agree holds the reader to what Postfix itself says, and to its word.
//
// The reader must see what postqueue and postcat see, in a queue of every
// shape of mail, at rest and on the move. It must leave no trace. It must not
// be root when it decodes what strangers wrote. And when it cannot see, it must
// say so in one sentence.
//
// Invariant: nothing here compares the reader with itself or with a recording.
// The queue is a real one, made by Postfix in a lab; the other opinion is that
// of Postfix's own programs, of the kernel (fanotify, strace, /proc), or of the
// journal of what was injected. Where the reader differs from Postfix on
// purpose, the difference has a name, and one without a name fails.
//
// It never skips: without root, Postfix or strace the tests fail and say so.
//
// Bugs: the tests need a minute or two of a machine that other tests may share,
// so they wait for states and never measure time.
package agree

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/lab/world"
	"holdfast/observe"
	"holdfast/observe/probe"
	"holdfast/postfix"
)

// program is the holdfast command, built from this tree. It lies below /tmp,
// which labs share with the host.
var program string

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "holdfast-agree-")
	if err == nil {
		defer os.RemoveAll(dir)
		// Users without rights run it too.
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		program = filepath.Join(dir, "holdfast")
		build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "holdfast/cmd/holdfast")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it ships
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build holdfast:", err)
		return 1
	}
	return m.Run()
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in runs a command inside the lab and fails the test if it fails.
func in(t *testing.T, l *lab.Lab, stdin string, argv ...string) string {
	t.Helper()
	res, err := l.ExecWith(within(t, 2*time.Minute), lab.ExecOptions{Stdin: strings.NewReader(stdin)}, argv...)
	check(t, err)
	if res.Code != 0 {
		t.Fatalf("%q: exit %d: %s", argv, res.Code, res.Stderr)
	}
	return res.Stdout
}

func holdfastAs(t *testing.T, l *lab.Lab, o lab.ExecOptions, args ...string) lab.Result {
	t.Helper()
	res, err := l.ExecWith(within(t, 2*time.Minute), o, append([]string{program}, args...)...)
	check(t, err)
	return res
}

// jsonLines decodes output of one object a line.
func jsonLines[T any](t *testing.T, text string) []T {
	t.Helper()
	var list []T
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	for d.More() {
		var v T
		if err := d.Decode(&v); err != nil {
			t.Fatalf("decode output: %v\n%s", err, text)
		}
		list = append(list, v)
	}
	return list
}

// instanceOf asks Postfix for the instance, as holdfast does, and points it at
// the spool as it is reached from outside.
func instanceOf(t *testing.T, l *lab.Lab) postfix.Instance {
	t.Helper()
	found, gaps, err := probe.Instances(within(t, time.Minute), "", []string{l.HostPath(l.Instances[0].ConfigDir)})
	check(t, err)
	if len(found) != 1 || len(gaps) != 0 {
		t.Fatalf("found %d instances with gaps %v", len(found), gaps)
	}
	found[0].QueueDir = l.SpoolDir("")
	return found[0]
}

// messages takes all messages out of a snapshot.
func messages(s *observe.Snapshot) []*postfix.Message {
	var list []*postfix.Message
	s.Each(func(m *postfix.Message) bool {
		list = append(list, m.Clone())
		return true
	})
	return list
}

// reply parses an answer of a provider, which is a constant of a test.
func reply(t *testing.T, text string) *world.Reply {
	t.Helper()
	r, err := world.ParseReply(text)
	check(t, err)
	return &r
}
