package crash

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/act/hand"
	"holdfast/lab"
)

// keeper is the process that keeps time, "" where none does.
func (r *relay) keeper() string {
	r.Helper()
	path := filepath.Join(stateDir, hand.KeeperShelf, hand.KeeperLock("/etc/postfix"))
	if res, err := r.ExecWith(r.ctx, lab.ExecOptions{}, "flock", "--nonblock", "--shared", path, "true"); err != nil || res.Code == 0 {
		r.check(err)
		return ""
	}
	text, err := os.ReadFile(r.HostPath(path))
	r.check(err)
	pid, found := strings.CutPrefix(string(text), "process ")
	if !found {
		r.Fatalf("the lock of the keeper says %q", text)
	}
	return strings.Fields(pid)[0]
}

// due counts what is due and what was saved.
func (r *relay) due() (due, saved int) {
	r.Helper()
	l := r.ledger()
	return len(l.Dues), len(l.Saved)
}

func (r *relay) eventually(what string, so func() bool) {
	r.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			due, saved := r.due()
			r.Fatalf("it never was so: %s; %d due, %d saved, the keeper is %q", what, due, saved, r.keeper())
		}
	}
}

// TestKeeper: what must happen later happens once: when the command has long
// ended, when the keeper was killed and somebody else ticks, and when eight
// ticks and the keeper want it at once.
func TestKeeper(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.deferred(5)
	if res := r.must("tick"); res.Stdout != "Nothing is due.\n" {
		t.Errorf("with no record: %q", res.Stdout)
	}
	if _, err := os.Stat(r.HostPath(stateDir)); err == nil {
		if _, err = os.Stat(r.HostPath(filepath.Join(stateDir, "audit"))); !errors.Is(err, fs.ErrNotExist) {
			t.Error("a tick with nothing to do began a record")
		}
	}

	r.must("snapshot", "save", "--again", "2s")
	if r.keeper() == "" {
		t.Fatal("no keeper stayed behind")
	}
	r.eventually("the keeper has done it", func() bool { due, saved := r.due(); return due == 0 && saved == 2 })
	r.eventually("the keeper has ended", func() bool { return r.keeper() == "" })

	r.must("snapshot", "save", "--again", "4s")
	r.kill(r.keeper())
	r.eventually("no keeper", func() bool { return r.keeper() == "" })
	time.Sleep(4 * time.Second)
	if due, saved := r.due(); due != 1 || saved != 3 {
		t.Fatalf("with nobody to do it: %d due, %d saved", due, saved)
	}
	r.tickAtOnce(8)
	if due, saved := r.due(); due != 0 || saved != 4 {
		t.Errorf("after eight ticks: %d due, %d saved", due, saved)
	}

	r.must("snapshot", "save", "--again", "2s")
	for range 3 {
		r.tickAtOnce(4)
	}
	r.eventually("one of them has done it", func() bool { due, _ := r.due(); return due == 0 })
	r.eventually("the keeper has ended", func() bool { return r.keeper() == "" })
	if _, saved := r.due(); saved != 6 {
		t.Errorf("%d snapshots were saved, not 6", saved)
	}
	r.must("audit", "verify")
	r.must("account")
	r.allArrive()
}

func (r *relay) kill(pid string) {
	r.Helper()
	res, err := r.ExecWith(r.ctx, lab.ExecOptions{}, "kill", "-KILL", pid)
	r.check(err)
	if res.Code != 0 {
		r.Fatalf("kill %s: %s", pid, res.Stderr)
	}
}

// tickAtOnce starts so many ticks; who has not the lock is refused.
func (r *relay) tickAtOnce(n int) {
	r.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			res, err := r.ExecWith(r.ctx, lab.ExecOptions{}, program, "tick")
			if err != nil {
				r.Error(err)
				return
			}
			if res.Code != 0 && res.Code != 4 {
				r.Errorf("tick: exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
			}
		})
	}
	all.Wait()
}
