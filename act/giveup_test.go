package act

import (
	"context"
	"os"
	"testing"
	"time"

	"holdfast/act/hand"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// pickup takes in what lies in maildrop, as the daemon does, until the test
// ends. What it takes comes back under no ID here: that it is gone is enough.
func (w *world) servePickup() *int {
	taken := new(int)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			list, err := os.ReadDir(w.spool.Path("maildrop", "x")[:len(w.spool.Path("maildrop", "x"))-2])
			if err != nil {
				w.Error(err)
				return
			}
			for _, d := range list {
				w.remove("maildrop", postfix.QueueID(d.Name()))
				*taken++
			}
			pause(ctx, 5*time.Millisecond)
		}
	}()
	w.Cleanup(func() { cancel(); <-done })
	return taken
}

func TestRequeueGoesInRounds(t *testing.T) {
	w := newWorld(t, false)
	var targets []plan.Target
	for _, name := range []string{"m1", "m2", "m3", "m4"} {
		targets = append(targets, w.message(postfix.Deferred, name, "one.example"))
	}
	var rounds int
	w.before = func(op hand.Op) {
		if op == hand.Requeue {
			rounds++
		}
	}
	w.servePickup()
	r := w.do(plan.Requeue, plan.Options{PerRun: 2}, targets...)
	if r.Counts[record.Done] != 4 || r.Left != 0 || rounds != 3 {
		t.Errorf("%d rounds, %+v", rounds, r)
	}
	for _, c := range w.ledger().Items {
		if !c.Requeued || c.Removed {
			t.Errorf("copy %+v", c)
		}
	}
	if n := len(w.ledger().Items); n != 4 {
		t.Errorf("%d copies", n)
	}
}

// TestRequeueStopsWithoutPickup: the first message waits in maildrop, where
// nothing takes it, and no other follows it there.
func TestRequeueStopsWithoutPickup(t *testing.T) {
	w := newWorld(t, false)
	a, b := w.message(postfix.Deferred, "m1", "one.example"), w.message(postfix.Deferred, "m2", "one.example")
	r := w.do(plan.Requeue, plan.Options{}, a, b)
	if r.Counts[record.Done] != 1 || r.Left != 1 || len(r.Why) != 1 {
		t.Errorf("%+v", r)
	}
	if w.queueOf(a.ID) != "maildrop" || w.queueOf(b.ID) != "deferred" {
		t.Errorf("they are in %q and %q", w.queueOf(a.ID), w.queueOf(b.ID))
	}
}

// TestRequeueRefuses: pickup deletes what it cannot read, and takes a message in
// twice whose recipients were done in part.
func TestRequeueRefuses(t *testing.T) {
	for name, disturb := range map[string]func(w *world, k *plan.Target){
		"cut short": func(w *world, k *plan.Target) {
			path := w.spool.Path("deferred", k.ID)
			info, err := os.Stat(path)
			if err == nil {
				err = os.Truncate(path, info.Size()-3)
			}
			if err != nil {
				w.Fatal(err)
			}
		},
		"a notice pending": func(w *world, k *plan.Target) {
			if err := os.WriteFile(w.spool.Path("bounce", k.ID), []byte("recipient=a@b\n"), 0o600); err != nil {
				w.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			k := w.message(postfix.Deferred, "m1", "one.example")
			disturb(w, &k)
			o := one(t, w.do(plan.Requeue, plan.Options{}, k))
			if o.State != record.Refused || !o.Held || w.queueOf(k.ID) != "hold" {
				t.Errorf("outcome %+v, it is in %q", o, w.queueOf(k.ID))
			}
		})
	}
}

func TestExpireMarksAndLetsGo(t *testing.T) {
	for name, c := range map[string]struct {
		queue   postfix.Queue
		options plan.Options
		before  func(w *world, k plan.Target)
		state   record.State
		now     string
		expired bool
	}{
		"deferred":          {queue: postfix.Deferred, state: record.Done, now: "deferred", expired: true},
		"held by Holdfast":  {queue: postfix.Deferred, before: func(w *world, k plan.Target) { w.do(plan.Hold, plan.Options{}, k) }, state: record.Done, now: "deferred", expired: true},
		"held by another":   {queue: postfix.Hold, state: record.Refused, now: "hold"},
		"active":            {queue: postfix.Active, state: record.Refused, now: "active"},
		"active, allowed":   {queue: postfix.Active, options: plan.Options{Active: true}, state: record.Failed, now: "hold", expired: true},
		"active, held once": {queue: postfix.Active, options: plan.Options{Active: true}, before: func(w *world, k plan.Target) { w.do(plan.Hold, plan.Options{Active: true}, k) }, state: record.Refused, now: "hold", expired: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			w.qmgr = &record.Process{PID: 7, Started: time.Now().Add(-time.Hour)}
			k := w.message(c.queue, "m1", "one.example")
			if c.before != nil {
				c.before(w, k)
			}
			o := one(t, w.do(plan.Expire, c.options, k))
			if o.State != c.state || o.Now != c.now || w.queueOf(k.ID) != c.now {
				t.Errorf("outcome %+v, it is in %q", o, w.queueOf(k.ID))
			}
			if got := w.places(k.ID)[0].Expired; got != c.expired {
				t.Errorf("marked as expired: %v", got)
			}
			if _, held := w.ledger().Holds[record.HoldKey{Instance: w.in.Name, File: record.File{ID: k.ID, Inode: k.Inode}}]; held != (c.now == "hold" && name != "held by another") {
				t.Errorf("the ledger has it on hold: %v", held)
			}
		})
	}
}
