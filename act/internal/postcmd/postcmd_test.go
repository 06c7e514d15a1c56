package postcmd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/postfix"
)

// command makes a directory with a postsuper of this test's.
func command(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "postsuper"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func call(dir string, op Op, ids ...postfix.QueueID) Call {
	return Call{CommandDir: dir, ConfigDir: "/etc/postfix", Op: op, IDs: ids, Patience: 30 * time.Second}
}

func TestOperationsNameTheirQueues(t *testing.T) {
	dir := command(t, `out="$0.ran"; echo "$@" >"$out"; env >>"$out"; pwd >>"$out"; cat >>"$out"`+"\n")
	t.Setenv("MAIL_CONFIG", "/planted")
	t.Setenv("LD_PRELOAD", "/planted.so")
	for op, want := range map[Op]string{
		HoldWaiting: "-c /etc/postfix -h - deferred incoming",
		HoldAny:     "-c /etc/postfix -h - deferred incoming active",
		Release:     "-c /etc/postfix -H - hold",
		Requeue:     "-c /etc/postfix -r - hold",
		Expire:      "-c /etc/postfix -e - hold",
		Delete:      "-c /etc/postfix -d - hold",
	} {
		if _, err := Run(t.Context(), call(dir, op, "4F2A01B2C4", "4F2A01B2C5")); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "postsuper.ran"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		if lines[0] != want {
			t.Errorf("ran postsuper %s, want %s", lines[0], want)
		}
		if !strings.HasSuffix(string(text), "\n/\n4F2A01B2C4\n4F2A01B2C5\n") {
			t.Errorf("it got %q", text)
		}
		if strings.Contains(string(text), "planted") {
			t.Errorf("it inherited the environment: %q", text)
		}
	}
}

func TestNothingIsRunWithoutValidIDs(t *testing.T) {
	dir := command(t, `: >"$0.ran"`+"\n")
	bad := []postfix.QueueID{"", "ALL", "-", "-d", "../x", "a;rm", "ABC\n123", "ABC\x00", "ABC123\nALL", postfix.QueueID(strings.Repeat("A", 300))}
	if _, err := Run(t.Context(), call(dir, Delete)); !errors.Is(err, ErrNothing) {
		t.Errorf("no IDs: %v", err)
	}
	for _, id := range bad {
		if _, err := Run(t.Context(), call(dir, Delete, "4F2A01B2C4", id)); err == nil {
			t.Errorf("%q was taken for a queue ID", id)
		}
	}
	for _, c := range []Call{call("relative", HoldWaiting, "4F2A01B2C4"), call(dir, 0, "4F2A01B2C4"), call(dir, 99, "4F2A01B2C4")} {
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%+v was run", c)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "postsuper.ran")); err == nil {
		t.Error("something was run")
	}
}

func TestSaidIsEvidenceOfItsOwnIDsOnly(t *testing.T) {
	dir := command(t, `cat >/dev/null
echo "postsuper: 4F2A01B2C5: placed on hold" >&2
echo "postsuper: 4F2A01B2C5: placed on hold" >&2
echo "postsuper: 4F2A01B2C9: placed on hold" >&2
echo "postsuper: 4F2A01B2C4: removed" >&2
echo "postsuper: warning: 4F2A01B2C4: placed on hold" >&2
echo "postsuper: Placed on hold: 2 messages" >&2
exit 3
`)
	said, err := Run(t.Context(), call(dir, HoldWaiting, "4F2A01B2C4", "4F2A01B2C5"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(said.IDs, []postfix.QueueID{"4F2A01B2C5"}) || said.Exit != 3 || len(said.Warnings) != 4 {
		t.Errorf("said %+v", said)
	}
}

func TestKilledHungAndMissing(t *testing.T) {
	said, err := Run(t.Context(), call(command(t, "kill -9 $$\n"), Release, "4F2A01B2C4"))
	if err != nil || said.Exit != -1 || said.Signal != "killed" || said.TimedOut {
		t.Errorf("killed: %+v, %v", said, err)
	}
	c := call(command(t, "exec sleep 600\n"), Release, "4F2A01B2C4")
	c.Patience = 200 * time.Millisecond
	if said, err = Run(t.Context(), c); err != nil || !said.TimedOut {
		t.Errorf("hung: %+v, %v", said, err)
	}
	if _, err := Run(t.Context(), call(t.TempDir(), Release, "4F2A01B2C4")); err == nil {
		t.Error("a command that is not there was run")
	}
}
