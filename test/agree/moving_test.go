package agree

// A listing is not a moment: mail moves while one looks. On a relay under load,
// with short back-offs, flushes and holds, a message that was there before a
// look began and is still there afterwards is never missing from it, and none
// is in it twice.

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/observe"
	"holdfast/observe/spool"
	"holdfast/postfix"
)

// restless keeps a relay moving until it is stopped, and knows which messages
// are in its queue for sure: those that were accepted for a provider that takes
// none.
type restless struct {
	*jam
	mu   sync.Mutex
	stay map[string]bool // queue IDs
	errs []error
	stop func()
	wait sync.WaitGroup
}

func startRestless(t *testing.T) *restless {
	t.Helper()
	l := lab.Up(t, lab.Options{World: stubbornWorld(t), Params: map[string]string{
		"minimal_backoff_time": "2s", "maximal_backoff_time": "4s", "queue_run_delay": "2s",
	}})
	r := &restless{jam: &jam{T: t, Lab: l, ctx: within(t, 3*time.Minute), spool: l.SpoolDir("")}, stay: make(map[string]bool)}
	ctx, stop := context.WithCancel(r.ctx)
	r.stop = stop
	r.every(ctx, 500*time.Millisecond, func() error {
		// Half of it leaves, or comes back as a bounce; the inodes are used again.
		injected, err := l.Inject(ctx, lab.Load{Count: 50, Domains: []string{deferred, half}, Connections: 4})
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, m := range injected {
			if m.Fate == lab.Accepted && postfix.DomainOf(m.Rcpt) == deferred {
				r.stay[m.QueueID] = true
			}
		}
		return err
	})
	r.every(ctx, 1500*time.Millisecond, func() error {
		_, err := l.Exec(ctx, "sh", "-c", "postqueue -f; sleep 0.3; postsuper -h ALL deferred; sleep 0.3; postsuper -H ALL")
		return err
	})
	return r
}

func (r *restless) every(ctx context.Context, pause time.Duration, do func() error) {
	r.wait.Go(func() {
		for ctx.Err() == nil {
			if err := do(); err != nil && ctx.Err() == nil {
				r.mu.Lock()
				r.errs = append(r.errs, err)
				r.mu.Unlock()
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	})
}

// surely returns the messages that are in the queue now and will stay.
func (r *restless) surely() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]string, 0, len(r.stay))
	for id := range r.stay {
		ids = append(ids, id)
	}
	return ids
}

func TestMovingMailIsNeitherMissedNorDoubled(t *testing.T) {
	r := startRestless(t)
	in := instanceOf(t, r.Lab)
	again, err := spool.NewReader(in, spool.Options{})
	check(t, err)
	for len(r.surely()) < 100 && r.ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	seenIn := make(map[string]string)
	moves, queues := 0, make(map[string]int)
	for look := range 24 {
		surely := r.surely()
		var found []*postfix.Message
		switch look % 3 {
		case 0: // the first look of a new reader
			once, err := spool.NewReader(in, spool.Options{})
			check(t, err)
			found = r.look(once)
		case 1: // one more look of the same reader
			found = r.look(again)
		case 2:
			res := holdfastAs(t, r.Lab, lab.ExecOptions{}, "queue", "-o", "json")
			if res.Code != 0 {
				t.Fatalf("exit %d: %s", res.Code, res.Stderr)
			}
			for _, l := range jsonLines[line](t, res.Stdout) {
				if l.Schema == "holdfast.message/1" {
					found = append(found, &l.Message)
				}
			}
		}
		there, recipients := make(map[string]*postfix.Message), make(map[string]bool)
		for _, m := range found {
			if other := there[string(m.ID)]; other != nil && other.Inode == m.Inode && other.Arrival.Equal(m.Arrival) {
				t.Errorf("look %d: %s is in %s and in %s", look, m.ID, other.Queue, m.Queue)
			}
			there[string(m.ID)] = m
			queues[m.Queue.String()]++
			for _, rcpt := range m.Recipients {
				if postfix.DomainOf(rcpt.Address) == deferred && recipients[rcpt.Address] {
					t.Errorf("look %d: %s is a recipient twice", look, rcpt.Address)
				}
				recipients[rcpt.Address] = true
			}
		}
		for _, id := range surely {
			m := there[id]
			if m == nil {
				t.Errorf("look %d of %d messages: %s is missing, last seen in %q", look, len(found), id, seenIn[id])
				continue
			}
			if was := seenIn[id]; was != "" && was != m.Queue.String() {
				moves++
			}
			seenIn[id] = m.Queue.String()
		}
		time.Sleep(200 * time.Millisecond) // lets mail move; nothing depends on it
	}
	r.stop()
	r.wait.Wait()
	check(t, errors.Join(r.errs...))
	t.Logf("%d messages stayed; %d moves between looks; seen in %v", len(r.stay), moves, queues)
	for _, queue := range []string{"active", "deferred", "hold"} {
		if queues[queue] == 0 {
			t.Errorf("no message was ever seen in %s: this relay was too quiet", queue)
		}
	}
	if moves < 100 {
		t.Errorf("%d moves: this relay was too quiet", moves)
	}
}

func (r *restless) look(reader *spool.Reader) []*postfix.Message {
	r.Helper()
	snap, err := reader.Look(r.ctx)
	check(r.T, err)
	for _, g := range snap.Gaps {
		r.Errorf("gap: %v", g)
	}
	for _, s := range snap.Strays {
		if s.Kind != observe.Unfinished {
			r.Errorf("stray: %+v", s)
		}
	}
	return messages(snap)
}
