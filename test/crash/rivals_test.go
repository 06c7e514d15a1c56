package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/record"
)

// Others who act at the same time, and mail that is not what it seems. The
// count at the end is the same as after a kill.

// TestEightAtOnce: of eight that want the same at once each does it, finds it
// done, or is refused; no message is acted upon twice.
func TestEightAtOnce(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.must("snapshot", "save")
	ids := r.deferred(40)
	var all sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		all.Go(func() {
			res, err := r.ExecWith(r.ctx, lab.ExecOptions{}, program, "hold", "--all", "--yes", "--reason", fmt.Sprint("number ", i))
			if err != nil {
				t.Error(err)
				return
			}
			if codes[i] = res.Code; res.Code != 0 && res.Code != 4 {
				t.Errorf("exit %d\n%s", res.Code, res.Stderr)
			}
		})
	}
	all.Wait()
	if !slices.Contains(codes, 0) {
		t.Errorf("none of them did it: %v", codes)
	}
	if held := r.places("hold"); len(held) != len(ids) {
		t.Errorf("%d of %d are on hold", len(held), len(ids))
	}
	done := 0
	for _, run := range r.ledger().Plans {
		done += run.Counts[record.Done]
	}
	if done != len(ids) {
		t.Errorf("%d holds are on record for %d messages", done, len(ids))
	}
	r.must("audit", "verify")
	r.allArrive()
	r.balances()
}

// TestRivalAdministrator: somebody else holds, releases and deletes the same
// messages meanwhile. What is recorded as done is done, and only what the rival
// deleted is missing.
func TestRivalAdministrator(t *testing.T) {
	t.Parallel()
	r := up(t)
	ids := r.deferred(60)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			option := []string{"-h", "-H"}[i%2]
			part := ids[i*7%50 : i*7%50+10]
			if _, err := r.ExecWith(r.ctx, lab.ExecOptions{Stdin: lines(part)}, "postsuper", option, "-"); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 4 {
		for _, args := range [][]string{
			{"hold", "--all", "--yes", "--reason", "x"},
			{"release", "--all", "--anyway", "--yes", "--reason", "x"},
			{"delete", "--id", ids[0], "--yes", "--reason", "x"},
			{"recover"},
		} {
			if res := r.run(args...); res.Code != 0 && res.Code != 1 && res.Code != 4 && res.Code != 5 {
				t.Errorf("holdfast %q: exit %d\n%s", args, res.Code, res.Stderr)
			}
		}
	}
	close(stop)
	<-ended
	if n := len(r.ledger().Open); n > 0 {
		t.Errorf("%d intents are open", n)
	}
	r.must("audit", "verify")
	r.allArrive()
}

// TestReloadInTheMiddleOfARelease: another queue manager takes over while mail
// is let go.
func TestReloadInTheMiddleOfARelease(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.must("snapshot", "save")
	ids := r.deferred(60)
	r.many("hold", ids)
	r.check(r.Cure("all"))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(300 * time.Millisecond):
				if err := r.Postfix(r.ctx, "", "reload"); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	res, err := r.ExecWith(r.ctx, lab.ExecOptions{Stdin: lines(ids)}, program, "release", "-", "--per-run", "7", "--yes", "--reason", "x")
	r.check(err)
	close(stop)
	<-ended
	if res.Code != 0 && res.Code != 5 {
		t.Errorf("exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	r.allArrive()
	r.balances()
}

// TestDamagedMailIsNotRequeued: pickup deletes what it cannot read.
func TestDamagedMailIsNotRequeued(t *testing.T) {
	t.Parallel()
	r := up(t)
	id := r.deferred(1)[0]
	path := filepath.Join(r.spool, "deferred", id[:1], id)
	whole, err := os.ReadFile(path)
	r.check(err)
	r.check(os.Truncate(path, int64(len(whole))-20))
	if res := r.run("requeue", id, "--effects", "--anyway", "--yes", "--reason", "x"); res.Code != 4 || !strings.Contains(res.Stdout, "damaged") {
		t.Errorf("exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	if found := r.where(id); !slices.Equal(found, []string{"deferred"}) {
		t.Errorf("it is in %v", found)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	r.check(err)
	_, err = f.Write(whole[len(whole)-20:])
	r.check(err)
	r.check(f.Close())
	r.allArrive()
}

// TestHoldOfARuleIsLeftAlone: what a HOLD rule put there is somebody's, and
// where it puts all mail there, hold is somebody's work queue.
func TestHoldOfARuleIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.must("snapshot", "save")
	_, err := r.Exec(r.ctx, "postconf", "-e", "smtpd_sender_restrictions=check_sender_access static:HOLD")
	r.check(err)
	r.check(r.Postfix(r.ctx, "", "reload"))
	time.Sleep(time.Second)
	for _, n := range []int{3, 12} {
		_, err := r.Inject(r.ctx, lab.Load{Count: n, Domains: []string{destination}})
		r.check(err)
		r.check(r.WaitQueue(r.ctx, func(list []lab.Queued) bool { c := lab.Counts(list); return c["active"]+c["incoming"] == 0 }))
		before := r.places("hold")
		res := r.run("release", "--all", "--yes", "--reason", "x")
		if res.Code != 4 || !strings.Contains(res.Stdout, "by a HOLD rule") {
			t.Errorf("%d: exit %d\n%s%s", n, res.Code, res.Stdout, res.Stderr)
		}
		if after := r.places("hold"); !slices.Equal(before, after) || len(after) < n {
			t.Errorf("on hold were %d and are %d", len(before), len(after))
		}
	}
	res := r.run("release", "--all", "--foreign", "--anyway", "--yes", "--reason", "x")
	if res.Code != 4 || !strings.Contains(res.Stdout+res.Stderr, "work queue") {
		t.Errorf("exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	r.allArrive()
	r.balances()
}

// TestFullDisk: the record has space set aside, so that a hold works on a disk
// that is full; a deletion, which needs room for copies, is refused and removes
// nothing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	r := up(t)
	ids := r.deferred(6)
	for _, argv := range [][]string{{"mkdir", "-p", stateDir}, {"mount", "-t", "tmpfs", "-o", "size=80M", "none", stateDir}} {
		_, err := r.Exec(r.ctx, argv...)
		r.check(err)
	}
	r.many("hold", ids[:2])
	_, err := r.Exec(r.ctx, "dd", "if=/dev/zero", "of="+stateDir+"/ballast", "bs=64k")
	r.check(err)
	r.many("hold", ids[2:4])
	if held := r.places("hold"); len(held) != 4 {
		t.Errorf("%d are on hold, want 4", len(held))
	}
	// What was set aside is used up now.
	_, err = r.Exec(r.ctx, "dd", "if=/dev/zero", "of="+stateDir+"/more", "bs=4k")
	r.check(err)
	res := r.run("delete", "--all", "--yes", "--reason", "x")
	if res.Code == 0 {
		t.Errorf("a deletion without copies: %s", res.Stdout)
	}
	if left := len(r.places("hold")) + len(r.places("deferred")); left != len(ids) {
		t.Errorf("%d messages are left of %d\n%s%s", left, len(ids), res.Stdout, res.Stderr)
	}
	_, err = r.Exec(r.ctx, "rm", stateDir+"/ballast", stateDir+"/more")
	r.check(err)
	r.must("recover")
	r.must("audit", "verify")
	_, err = r.Exec(r.ctx, "postsuper", "-H", "ALL")
	r.check(err)
	r.check(r.Cure("all"))
	_, err = r.Exec(r.ctx, "postqueue", "-f")
	r.check(err)
	r.check(r.WaitQueue(r.ctx, lab.Empty))
	account, err := r.Account(r.ctx)
	r.check(err)
	if !account.Whole() {
		t.Errorf("%v", account)
	}
}
