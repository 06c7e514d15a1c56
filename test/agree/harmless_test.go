package agree

// Reading leaves no trace: no time, mode, size or name in the spool changes,
// the kernel sees no change by anybody, and no lock is taken; on file systems
// that note every reading too.

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"holdfast/lab"
)

// readVerbs are the verbs that only look. A new verb belongs here or to the
// tests of what it changes.
var readVerbs = []string{"queue", "show", "triage"}

// changingVerbs change mail or settle what a change left open. What they do to
// the spool is tested with the hand.
var changingVerbs = []string{"hold", "release", "try", "requeue", "expire", "delete", "restore", "undo", "recover", "tick"}

// otherVerbs have nothing to do with the spool.
var otherVerbs = []string{"account", "audit", "completion", "config", "explain", "help", "logs", "plan", "snapshot", "vault", "version"}

func TestReadingLeavesNoTrace(t *testing.T) {
	for _, c := range []struct {
		name    string
		storage lab.Storage
		atime   []string // in the order in which the spool is mounted
	}{
		{"ext4", lab.Storage{Kind: "ext4", Bytes: 64 << 20}, []string{"relatime", "strictatime"}},
		{"tmpfs", lab.Storage{Kind: "tmpfs", Bytes: 64 << 20}, []string{"strictatime"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			j := still(t, c.storage)
			j.everyVerbIsKnown()
			w, held := watch(t, j.spool), j.files("hold")[0]
			for _, atime := range c.atime {
				in(t, j.Lab, "", "mount", "-o", "remount,bind,"+atime, j.Instances[0].SpoolDir)
				j.age()
				w.seen()
				for _, args := range j.readings() {
					j.unharmed(w, atime+": "+strings.Join(args, " "), func() {
						if res := holdfastAs(t, j.Lab, lab.ExecOptions{}, args...); res.Code != 0 {
							t.Errorf("%q: exit %d: %s", args, res.Code, res.Stderr)
						}
					})
				}
				j.unharmed(w, atime+": watch", func() { j.watchTwice(held) })
				j.witnessesAreAwake(w)
			}
		})
	}
}

// readings are command lines of every read verb.
func (j *jam) readings() [][]string {
	j.Helper()
	all := [][]string{
		{"queue"},
		{"queue", "-o", "json"},
		{"queue", "--ages"},
		{"queue", "--header", "Subject:lab", "-o", "json"},
		{"queue", "--where", "recipient_count > 1"},
		{"queue", "--sort", "size", "--limit", "3"},
		{"triage"},
	}
	for _, by := range []string{"destination", "next-hop", "cause", "text", "sender", "client", "sasl", "queue", "age", "size"} {
		all = append(all, []string{"queue", "--by", by})
	}
	// In maildrop all, since they belong to different users.
	ids := slices.Concat(j.files("maildrop"), j.files("hold")[:1], j.files("active")[:1], j.files("deferred")[:2])
	for _, id := range ids {
		all = append(all, []string{"show", id}, []string{"show", "--body", "--reason", "test", "-o", "json", id})
	}
	return all
}

// unharmed runs something and compares the whole spool before and after.
func (j *jam) unharmed(w *witness, what string, run func()) {
	j.Helper()
	before := standing(j.T, j.spool)
	if changed, _ := w.seen(); len(changed) > 0 {
		j.Errorf("before %q: %v", what, changed)
	}
	run()
	changed, openings := w.seen()
	if strings.HasSuffix(what, " triage") {
		changed = slices.DeleteFunc(changed, func(c string) bool { return trial.MatchString(c) })
	}
	after := standing(j.T, j.spool)
	if diff := cmp.Diff(before, after); diff != "" {
		j.Errorf("%s: the spool changed:\n%s", what, clip(diff))
	}
	if len(changed) > 0 {
		j.Errorf("%s: the kernel saw %v", what, changed)
	}
	if openings == 0 {
		j.Errorf("%s: the kernel saw nothing opened: the witness sleeps", what)
	}
}

// trial is what the kernel tells of the one file that looking makes: the trial
// of the disk, which never has a name, and which no directory shows. Triage
// alone may.
var trial = regexp.MustCompile(`^[a-z, ]+ of "#\d+" by process \d+$`)

// watchTwice lets the command look at one message again and again, at least
// twice by the incremental way, and looks for locks meanwhile.
func (j *jam) watchTwice(held string) {
	j.Helper()
	ctx, stop := context.WithCancel(j.ctx)
	defer stop()
	rounds := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		n := 0
		o := lab.ExecOptions{Stdout: writer(func(p []byte) (int, error) {
			// Selected by ID, a look is one line of one write.
			if n++; n == 3 {
				close(rounds)
			}
			return len(p), nil
		})}
		_, _ = j.ExecWith(ctx, o, program, "queue", "--watch=100ms", "-o", "json", held) // its end is ours
	})
	select {
	case <-rounds:
	case <-j.ctx.Done():
		j.Error("holdfast queue --watch did not look three times")
	}
	if locks := j.locks(); len(locks) > 0 {
		j.Errorf("locks in the spool: %v", locks)
	}
	stop()
	done.Wait()
}

var lockLine = regexp.MustCompile(`(?m)^\d+: .* (\d+) \w+:\w+:(\d+) .*$`)

// locks lists the kernel's locks on files of the spool.
func (j *jam) locks() []string {
	j.Helper()
	inodes := make(map[string]bool)
	var top unix.Stat_t
	check(j.T, unix.Stat(j.spool, &top))
	for _, s := range standing(j.T, j.spool) {
		inodes[formatUint(s.Inode)] = true
	}
	text, err := os.ReadFile("/proc/locks")
	check(j.T, err)
	device := formatDevice(top.Dev)
	var found []string
	for _, m := range lockLine.FindAllStringSubmatch(string(text), -1) {
		if inodes[m[2]] && strings.Contains(m[0], device) {
			found = append(found, m[0])
		}
	}
	return found
}

// witnessesAreAwake does by hand what no reader may do, and expects each to be
// seen.
func (j *jam) witnessesAreAwake(w *witness) {
	j.Helper()
	path := j.path("hold", j.files("hold")[0])
	name := filepath.Base(path)

	before := standing(j.T, j.spool)
	_, err := os.ReadFile(path)
	check(j.T, err)
	if cmp.Equal(before, standing(j.T, j.spool)) {
		j.Error("an ordinary reading left no trace: comparing times proves nothing")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(j.T, err)
	check(j.T, unix.Flock(int(f.Fd()), unix.LOCK_SH))
	if len(j.locks()) == 0 {
		j.Error("a lock was not found: looking for them proves nothing")
	}
	w.seen()
	check(j.T, f.Chmod(0o700))
	_, err = f.WriteAt([]byte("C"), 0)
	check(j.T, err)
	check(j.T, f.Close())
	check(j.T, os.Rename(path, path+"0"))
	check(j.T, os.Rename(path+"0", path))
	check(j.T, os.WriteFile(path+"1", nil, 0o600))
	check(j.T, os.Remove(path+"1"))
	changed, _ := w.seen()
	for _, want := range [][2]string{
		{"attributes", name},
		{"modify", name},
		{"close after writing", name},
		{"move from", name},
		{"move to", name + "0"},
		{"create", name + "1"},
		{"delete", name + "1"},
	} {
		if !saw(changed, want[0], want[1]) {
			j.Errorf("the kernel did not tell of %s of %s, only of %v", want[0], want[1], changed)
		}
	}
}

// everyVerbIsKnown fails when the command has learnt a verb that these tests
// have not.
func (j *jam) everyVerbIsKnown() {
	j.Helper()
	res := holdfastAs(j.T, j.Lab, lab.ExecOptions{}, "__complete", "")
	for line := range strings.SplitSeq(strings.TrimSpace(res.Stdout), "\n") {
		verb, _, ok := strings.Cut(line, "\t")
		if ok && !slices.Contains(slices.Concat(readVerbs, changingVerbs, otherVerbs), verb) {
			j.Errorf("holdfast %s is a verb that no test holds to leaving no trace", verb)
		}
	}
}
