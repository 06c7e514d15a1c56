package hand

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serveTick stands in for the command that a keeper starts: it notes that it
// ran, and answers with a line of the file "answers", the last one for ever.
func serveTick(args []string) bool {
	if len(args) < 2 || args[1] != "tick" {
		return false
	}
	dir := args[slices.Index(args, "--state-dir")+1]
	log, err := os.OpenFile(filepath.Join(dir, "ticks"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(log, strings.Join(args[1:], " "))
	_ = log.Close()
	said, err := os.ReadFile(filepath.Join(dir, "ticks"))
	answers, second := os.ReadFile(filepath.Join(dir, "answers"))
	if err != nil || second != nil {
		os.Exit(1)
	}
	lines := strings.Split(strings.TrimSuffix(string(answers), "\n"), "\n")
	switch answer := lines[min(bytes.Count(said, []byte("\n")), len(lines))-1]; answer {
	case "fail":
		os.Exit(1)
	case "":
	default:
		wait, err := time.ParseDuration(answer)
		if err != nil {
			os.Exit(1)
		}
		fmt.Println(time.Now().Add(wait).Unix())
	}
	return true
}

// answers says what the ticks of a bench are to say: when the next thing is due.
func (b *bench) answers(list ...string) {
	b.Helper()
	b.check(os.WriteFile(filepath.Join(b.StateDir, "answers"), []byte(strings.Join(list, "\n")+"\n"), 0o600))
}

// ticks are the ticks so far.
func (b *bench) ticks() []string {
	b.Helper()
	said, err := os.ReadFile(filepath.Join(b.StateDir, "ticks"))
	if os.IsNotExist(err) {
		return nil
	}
	b.check(err)
	return strings.Split(strings.TrimSuffix(string(said), "\n"), "\n")
}

// keeper is the process that holds the lock, 0 where none does.
func (b *bench) keeper() int {
	b.Helper()
	path := filepath.Join(b.StateDir, KeeperShelf, KeeperLock(b.ConfigDir))
	locks, err := os.ReadFile("/proc/locks")
	b.check(err)
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[3] == "WRITE" && strings.HasSuffix(f[5], ":"+strconv.FormatUint(st.Sys().(*syscall.Stat_t).Ino, 10)) {
			pid, err := strconv.Atoi(f[4])
			b.check(err)
			return pid
		}
	}
	return 0
}

// eventually waits for what must come true.
func (b *bench) eventually(what string, so func() bool) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("it never was so: %s; ticks %q", what, b.ticks())
		}
	}
}

// keeping starts a keeper, and ends whatever keeper there is with the test.
func (b *bench) keeping(answers ...string) {
	b.Helper()
	b.answers(answers...)
	b.Cleanup(func() {
		if pid := b.keeper(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	b.check(b.StartKeeper(b.ctx))
}

func TestKeeperEndsWhenNothingIsDue(t *testing.T) {
	b := newBench(t, "")
	b.Settings = "/etc/of/it.toml"
	b.check(b.Client.Close())
	b.Client = b.start()
	b.check(b.Begin(b.ctx))
	b.keeping("1s", "fail", "0s", "")
	b.eventually("four ticks", func() bool { return len(b.ticks()) == 4 })
	b.eventually("no keeper", func() bool { return b.keeper() == 0 })
	want := "tick --next --quiet --state-dir " + b.StateDir + " --config-dir " + b.ConfigDir + " --config /etc/of/it.toml"
	for _, got := range b.ticks() {
		if got != want {
			t.Errorf("it started %q, not %q", got, want)
		}
	}
}

// TestOneKeeperLives: hang-up and Ctrl-C and the end of the hand are nothing to
// it; of two the second waits, and takes over from one that was killed.
func TestOneKeeperLives(t *testing.T) {
	b := newBench(t, "")
	b.keeping("10h")
	b.eventually("a tick", func() bool { return len(b.ticks()) == 1 && b.keeper() > 0 })
	first := b.keeper()
	b.check(b.StartKeeper(b.ctx))
	b.check(b.Client.Close())
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE} {
		b.check(syscall.Kill(first, sig))
	}
	time.Sleep(200 * time.Millisecond)
	if now := b.keeper(); now != first || len(b.ticks()) != 1 {
		t.Fatalf("the keeper is %d, was %d; ticks %q", now, first, b.ticks())
	}
	b.check(syscall.Kill(first, syscall.SIGKILL))
	b.eventually("the second takes over", func() bool { return b.keeper() > 0 && b.keeper() != first && len(b.ticks()) == 2 })
	second := b.keeper()
	b.check(syscall.Kill(second, syscall.SIGTERM))
	b.eventually("SIGTERM ends it", func() bool { return b.keeper() == 0 })
}

// TestKeeperSeesThatTheLogGrew: what became due meanwhile is not slept through.
// Without its directory it ends.
func TestKeeperSeesThatTheLogGrew(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.keeping("10h")
	b.eventually("a tick", func() bool { return len(b.ticks()) == 1 })
	b.intend("hold", "deferred", ids(1)...)
	b.eventually("a second tick", func() bool { return len(b.ticks()) == 2 })
	first := b.keeper()
	b.check(os.RemoveAll(filepath.Join(b.StateDir, KeeperShelf)))
	b.eventually("it ended", func() bool { return syscall.Kill(first, 0) != nil })
}
