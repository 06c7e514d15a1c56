package act

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/act/hand"
	"holdfast/lab/forge"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

func one(t *testing.T, r Report) record.Outcome {
	t.Helper()
	if len(r.Outcomes) != 1 {
		t.Fatalf("%d outcomes, want 1: %+v", len(r.Outcomes), r)
	}
	return r.Outcomes[0]
}

func TestHoldTellsWhatItFinds(t *testing.T) {
	for name, c := range map[string]struct {
		queue   postfix.Queue
		options plan.Options
		disturb func(w *world, k *plan.Target)
		state   record.State
		held    bool
		active  bool
		now     string
	}{
		"deferred": {queue: postfix.Deferred, state: record.Done, held: true, now: "hold"},
		"incoming": {queue: postfix.Incoming, state: record.Done, held: true, now: "hold"},
		"active":   {queue: postfix.Active, state: record.Refused, now: "active"},
		"active, allowed": {
			queue: postfix.Active, options: plan.Options{Active: true},
			state: record.Done, held: true, active: true, now: "hold",
		},
		"on hold by another": {queue: postfix.Hold, state: record.Already, now: "hold"},
		"corrupt":            {queue: postfix.Corrupt, state: record.Refused, now: "corrupt"},
		"left": {queue: postfix.Deferred, state: record.Gone, disturb: func(w *world, k *plan.Target) {
			w.remove("deferred", k.ID)
		}},
		"another inode": {queue: postfix.Deferred, state: record.Changed, now: "deferred", disturb: func(_ *world, k *plan.Target) { k.Inode++ }},
		"another size":  {queue: postfix.Deferred, state: record.Changed, now: "deferred", disturb: func(_ *world, k *plan.Target) { k.Size++ }},
		"another sender": {queue: postfix.Deferred, state: record.Changed, now: "deferred", disturb: func(_ *world, k *plan.Target) {
			k.Sender = "x" + k.Sender
		}},
		"another arrival": {queue: postfix.Deferred, state: record.Changed, now: "deferred", disturb: func(_ *world, k *plan.Target) {
			k.Arrival = k.Arrival.Add(time.Microsecond)
		}},
		"taken meanwhile": {queue: postfix.Deferred, state: record.Failed, now: "active", disturb: func(w *world, k *plan.Target) {
			w.before = func(hand.Op) { w.move(k.ID, "deferred", "active") }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			w.qmgr = &record.Process{PID: 7, Started: time.Now().Add(-time.Hour)}
			k := w.message(c.queue, "m1", "one.example")
			if c.disturb != nil {
				c.disturb(w, &k)
			}
			o := one(t, w.do(plan.Hold, c.options, k))
			if o.State != c.state || o.Held != c.held || o.FromActive != c.active || o.Now != c.now {
				t.Errorf("outcome %+v", o)
			}
			if got := w.queueOf(k.ID); got != c.now {
				t.Errorf("it is in %q, want %q", got, c.now)
			}
		})
	}
}

func (w *world) remove(queue string, id postfix.QueueID) {
	if err := os.Remove(w.spool.Path(queue, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Error(err)
	}
}

func (w *world) move(id postfix.QueueID, from, to string) {
	err := os.Rename(w.spool.Path(from, id), w.spool.Path(to, id))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Error(err)
	}
}

// TestReusedIDIsLetGo: between look and hold the message leaves, and a new one
// gets its ID. It must be let go at once, and nobody may call it held.
func TestReusedIDIsLetGo(t *testing.T) {
	for _, verb := range []plan.Verb{plan.Hold, plan.Delete} {
		t.Run(string(verb), func(t *testing.T) {
			w := newWorld(t, false)
			k := w.message(postfix.Deferred, "m1", "one.example")
			w.before = func(op hand.Op) {
				if op != hand.HoldWaiting {
					return
				}
				w.before = func(hand.Op) {}
				w.remove("deferred", k.ID)
				_, err := w.spool.Write(&forge.Message{
					ID: k.ID, Sender: "m2@sender.example", Arrival: time.Now(), Size: 900,
					Recipients: []forge.Recipient{{Address: "r@two.example"}},
				})
				if err != nil {
					t.Error(err)
				}
			}
			o := one(t, w.do(verb, plan.Options{}, k))
			if o.State != record.Changed {
				t.Errorf("outcome %+v", o)
			}
			if got := w.queueOf(k.ID); got != "deferred" {
				t.Errorf("the other message is in %q", got)
			}
			if l := w.ledger(); len(l.Open) > 0 || len(l.Items) > 0 {
				t.Errorf("open %v, items %v", l.Open, l.Items)
			}
		})
	}
}

// TestReleaseSparesWhatQmgrHasInMemory: letting such a message go under the same
// queue manager removes it undelivered.
func TestReleaseSparesWhatQmgrHasInMemory(t *testing.T) {
	started := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		foreign bool // put on hold by another
		options plan.Options
		qmgr    *record.Process // when it is let go
		state   record.State
	}{
		"same":                      {qmgr: &record.Process{PID: 7, Started: started}, state: record.Refused},
		"same, boot time read late": {qmgr: &record.Process{PID: 7, Started: started.Add(time.Second)}, state: record.Refused},
		"another":                   {qmgr: &record.Process{PID: 8, Started: time.Now()}, state: record.Done},
		"PID come again":            {qmgr: &record.Process{PID: 7, Started: time.Now()}, state: record.Done},
		"none":                      {state: record.Done},
		"foreign":                   {foreign: true, state: record.Refused},
		"foreign, allowed, fresh":   {foreign: true, options: plan.Options{Foreign: true}, qmgr: &record.Process{PID: 7, Started: started}, state: record.Refused},
		"foreign, allowed, new qmgr": {
			foreign: true, options: plan.Options{Foreign: true},
			qmgr: &record.Process{PID: 9, Started: time.Now().Add(time.Hour)}, state: record.Done,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, true)
			queue := postfix.Active
			if c.foreign {
				queue = postfix.Hold
			}
			k := w.message(queue, "m1", "one.example")
			if !c.foreign {
				w.qmgr = &record.Process{PID: 7, Started: started}
				if o := one(t, w.do(plan.Hold, plan.Options{Active: true}, k)); !o.FromActive {
					t.Fatalf("outcome of hold %+v", o)
				}
			}
			w.qmgr = c.qmgr
			c.options.PerRun = 1
			job := w.job(w.hand(), plan.Release, c.options, k)
			job.Patience = 10 * time.Millisecond
			r, err := Execute(context.Background(), job)
			if err != nil {
				t.Fatal(err)
			}
			if o := one(t, r); o.State != c.state {
				t.Errorf("outcome %+v", o)
			}
			if want := map[bool]string{true: "deferred", false: "hold"}[c.state == record.Done]; w.queueOf(k.ID) != want {
				t.Errorf("it is in %q, want %q", w.queueOf(k.ID), want)
			}
		})
	}
}

// flusher is the flush service with a queue manager behind it: mail to
// "good..." is delivered at once, other mail is put off again.
type flusher struct {
	mu    sync.Mutex
	asked []postfix.QueueID
}

func (w *world) serveFlush(good map[postfix.QueueID]bool) *flusher {
	w.Helper()
	path := filepath.Join(w.spool.Dir, "public", "flush")
	l, err := net.Listen("unix", path)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = l.Close() })
	f := &flusher{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.serve(w, c, good)
		}
	}()
	return f
}

func (f *flusher) serve(w *world, c net.Conn, good map[postfix.QueueID]bool) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	var words []string
	for {
		word, err := r.ReadString(0)
		if err != nil {
			w.Error(err)
			return
		}
		if word = strings.TrimSuffix(word, "\x00"); word == "" {
			break
		}
		words = append(words, word)
	}
	if len(words) != 4 || words[1] != "send_file" || words[2] != "queue_id" {
		w.Errorf("request %q", words)
		return
	}
	id := postfix.QueueID(words[3])
	f.mu.Lock()
	f.asked = append(f.asked, id)
	f.mu.Unlock()
	path := w.spool.Path("deferred", id)
	var err error
	if good[id] {
		err = os.Remove(path)
	} else {
		next := time.Now().Add(10 * time.Minute)
		err = os.Chtimes(path, next, next)
	}
	if err != nil {
		w.Error(err)
	}
	_, _ = c.Write([]byte("status\x000\x00\x00"))
}

// TestReleaseIsPaced: one message of each next hop goes first. Where it is put
// off again the others of that hop stay on hold; where it gets through they
// follow, never more than PerRun at once.
func TestReleaseIsPaced(t *testing.T) {
	w := newWorld(t, false)
	var all []plan.Target
	good := make(map[postfix.QueueID]bool)
	for i := range 10 {
		hop := []string{"good.example", "bad.example"}[i%2]
		k := w.message(postfix.Deferred, fmt.Sprint("m", i), hop)
		good[k.ID] = hop == "good.example"
		all = append(all, k)
	}
	w.do(plan.Hold, plan.Options{}, all...)
	w.qmgr = &record.Process{PID: 7, Started: time.Now()}
	f := w.serveFlush(good)
	var rounds []int
	job := w.job(w.hand(), plan.Release, plan.Options{PerRun: 3}, all...)
	job.Tell = func(s Step) {
		if s.Waiting == "" {
			rounds = append(rounds, len(s.Outcomes))
		}
	}
	r, err := Execute(context.Background(), job)
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{2, 3, 1}; !slices.Equal(rounds, want) {
		t.Errorf("rounds of %v, want %v", rounds, want)
	}
	if r.Counts[record.Done] != 6 || r.Left != 4 || len(r.Why) != 1 || !strings.Contains(r.Why[0], "bad.example") {
		t.Errorf("report %+v", r)
	}
	for i, k := range all {
		want := ""
		switch {
		case i == 1:
			want = "deferred"
		case i%2 == 1:
			want = "hold"
		}
		if got := w.queueOf(k.ID); got != want {
			t.Errorf("message %d is in %q, want %q", i, got, want)
		}
	}
	if f.mu.Lock(); len(f.asked) != 6 {
		t.Errorf("asked to try %v", f.asked)
	}
	f.mu.Unlock()
}

// TestCancelledRunIsSettled: the batch in hand is finished, the rest is left.
func TestCancelledRunIsSettled(t *testing.T) {
	w := newWorld(t, false)
	var all []plan.Target
	for i := range 5 {
		all = append(all, w.message(postfix.Deferred, fmt.Sprint("m", i), "one.example"))
	}
	w.do(plan.Hold, plan.Options{}, all...)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	job := w.job(w.hand(), plan.Release, plan.Options{PerRun: 2}, all...)
	job.Tell = func(Step) { cancel() }
	r, err := Execute(ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	if r.Counts[record.Done] != 1 || r.Left != 4 || len(r.Why) == 0 {
		t.Errorf("report %+v", r)
	}
	if l := w.ledger(); len(l.Open) != 0 || len(l.Holds) != 4 || l.Plans[r.Plan].Ended.IsZero() {
		t.Errorf("ledger: %d open, %d holds, plan %+v", len(l.Open), len(l.Holds), l.Plans[r.Plan])
	}
}

func TestPlanRunsOnce(t *testing.T) {
	w := newWorld(t, false)
	k := w.message(postfix.Deferred, "m1", "one.example")
	job := w.job(w.hand(), plan.Hold, plan.Options{}, k)
	if _, err := Execute(context.Background(), job); err != nil {
		t.Fatal(err)
	}
	job.Hand = w.hand()
	_, err := Execute(context.Background(), job)
	var refused *postfix.Error
	if !errors.As(err, &refused) || refused.Kind != postfix.Refused {
		t.Errorf("the second run: %v", err)
	}
}

// TestDeleteAndRestore: what comes back is the message itself, under a new ID
// that follows the inode rule, on hold, and may be let go.
func TestDeleteAndRestore(t *testing.T) {
	w := newWorld(t, false)
	k := w.message(postfix.Deferred, "m1", "one.example")
	before, err := os.ReadFile(w.spool.Path("deferred", k.ID))
	if err != nil {
		t.Fatal(err)
	}
	o := one(t, w.do(plan.Delete, plan.Options{}, k))
	if o.State != record.Done || o.Item == "" || w.queueOf(k.ID) != "" {
		t.Fatalf("delete: %+v, in %q", o, w.queueOf(k.ID))
	}
	k.Item = o.Item
	o = one(t, w.do(plan.Restore, plan.Options{}, k))
	if o.State != record.Done || !o.Held || o.Now != "hold" {
		t.Fatalf("restore: %+v", o)
	}
	after, err := os.ReadFile(w.spool.Path("hold", o.Successor))
	if err != nil || !bytes.Equal(after, before) {
		t.Errorf("it came back changed: %v", err)
	}
	back := w.target(o.Successor, "one.example")
	if inode, err := back.ID.Inode(); err != nil || inode != back.Inode {
		t.Errorf("ID %s of inode %d: %v", back.ID, back.Inode, err)
	}
	if o := one(t, w.do(plan.Release, plan.Options{}, back)); o.State != record.Done || w.queueOf(back.ID) != "deferred" {
		t.Errorf("release: %+v", o)
	}
}

// TestDeleteLeavesDeliveredMail: what was delivered meanwhile is not deleted,
// and goes back to the queue manager, which finishes it.
func TestDeleteLeavesDeliveredMail(t *testing.T) {
	w := newWorld(t, false)
	id, err := w.spool.Write(&forge.Message{
		Sender: "m1@sender.example", Arrival: time.Now(), Size: 500,
		Recipients: []forge.Recipient{{Address: "r@one.example", Done: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	o := one(t, w.do(plan.Delete, plan.Options{}, w.target(id, "one.example")))
	if o.State != record.Gone || w.queueOf(id) != "deferred" {
		t.Errorf("outcome %+v, in %q", o, w.queueOf(id))
	}
	if l := w.ledger(); len(l.Holds) != 0 || len(l.Items) != 0 {
		t.Errorf("ledger: holds %v, items %v", l.Holds, l.Items)
	}
}

// TestRestoreSparesWhatIsQueued: a second copy would be a duplicate.
// TestRestoreRefusesAnotherCopy: what lies in the vault is not what was put
// there, and sends somebody else's words if it is let go.
func TestRestoreRefusesAnotherCopy(t *testing.T) {
	w := newWorld(t, false)
	k, other := w.message(postfix.Deferred, "m1", "one.example"), w.message(postfix.Deferred, "m2", "one.example")
	for i, o := range w.do(plan.Delete, plan.Options{}, k, other).Outcomes {
		[]*plan.Target{&k, &other}[i].Item = o.Item
	}
	data, err := os.ReadFile(filepath.Join(w.vault, other.Item))
	if err == nil {
		err = os.WriteFile(filepath.Join(w.vault, k.Item), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	o := one(t, w.do(plan.Restore, plan.Options{}, k))
	if o.State != record.Failed || !strings.Contains(o.Text, "digest") || len(w.copies()) > 0 {
		t.Errorf("outcome %+v, in the queue %v", o, w.copies())
	}
	if o := one(t, w.do(plan.Restore, plan.Options{}, other)); o.State != record.Done {
		t.Errorf("the one that is as it was: %+v", o)
	}
}

func TestPurgeSparesLegalHold(t *testing.T) {
	w := newWorld(t, false)
	k := w.message(postfix.Deferred, "m1", "one.example")
	k.Item = one(t, w.do(plan.Delete, plan.Options{}, k)).Item
	for _, on := range []bool{true, false} {
		if _, err := w.hand().Append(t.Context(), record.LegalHold, 0, nil, record.LegalBody{Items: []string{k.Item}, On: on}); err != nil {
			t.Fatal(err)
		}
		want := record.Done
		if on {
			want = record.Refused
		}
		if o := one(t, w.do(plan.Purge, plan.Options{}, k)); o.State != want || w.ledger().Items[k.Item].Purged == on {
			t.Errorf("legal hold %v: %+v", on, o)
		}
	}
	if o := one(t, w.do(plan.Restore, plan.Options{}, k)); o.State != record.Failed {
		t.Errorf("restore of what was purged: %+v", o)
	}
}

func TestRestoreSparesWhatIsQueued(t *testing.T) {
	w := newWorld(t, false)
	k := w.message(postfix.Deferred, "m1", "one.example")
	data, err := os.ReadFile(w.spool.Path("deferred", k.ID))
	if err != nil {
		t.Fatal(err)
	}
	k.Item = "pack.0"
	if err := os.WriteFile(filepath.Join(w.vault, k.Item), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := one(t, w.do(plan.Restore, plan.Options{}, k)); o.State != record.Refused {
		t.Errorf("outcome %+v", o)
	}
	if places := w.copies()[k.Sender]; len(places) != 1 {
		t.Errorf("it is in %v", places)
	}
}

// TestDeleteWaitsForDelivery: an agent that has the file open may yet deliver
// it, and so it is neither copied nor removed.
func TestDeleteWaitsForDelivery(t *testing.T) {
	w := newWorld(t, false)
	k := w.message(postfix.Incoming, "m1", "one.example")
	f, err := os.Open(w.spool.Path("incoming", k.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	job := w.job(w.hand(), plan.Delete, plan.Options{}, k)
	job.Patience = time.Millisecond
	r, err := Execute(context.Background(), job)
	if err != nil {
		t.Fatal(err)
	}
	if o := one(t, r); o.State != record.Failed || !o.Held || w.queueOf(k.ID) != "hold" || len(w.ledger().Items) > 0 {
		t.Errorf("outcome %+v, in %q", o, w.queueOf(k.ID))
	}
	w.settleAndCount([]plan.Target{k}, "delete")
	// When the agent is done, the same is tried again.
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	k.Queue = postfix.Hold
	if o := one(t, w.do(plan.Delete, plan.Options{}, k)); o.State != record.Done {
		t.Errorf("outcome %+v", o)
	}
}

// TestRecoveryClaimsNoHoldOfOthers: what lay on hold before the intent is not
// ours, whatever the intent was.
func TestRecoveryClaimsNoHoldOfOthers(t *testing.T) {
	w := newWorld(t, false)
	theirs := w.message(postfix.Hold, "m1", "one.example")
	ours := w.message(postfix.Deferred, "m2", "one.example")
	time.Sleep(2 * clockSlack) // the hold of another is older than any entry
	h := w.hand()
	h.at, h.how = 5, afterCall // Begin, Reserve, start, Reserve, intent
	if _, err := Execute(context.Background(), w.job(h, plan.Hold, plan.Options{}, theirs, ours)); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if n := len(w.ledger().Open); n != 1 {
		t.Fatalf("%d intents are open, want 1", n)
	}
	if ok, err := w.hand().apply(hand.HoldWaiting, ours.ID); !ok || err != nil {
		t.Fatal(ok, err)
	}
	got, err := Recover(context.Background(), w.job(w.hand(), plan.Hold, plan.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Outcomes) != 2 || got.Outcomes[0].State != record.Already || got.Outcomes[0].Held ||
		got.Outcomes[1].State != record.Done || !got.Outcomes[1].Held || len(got.Ended) != 1 {
		t.Errorf("recovery %+v", got)
	}
}

// TestReleaseIsPacedWhereQmgrIsNotKnown: that it cannot be told which queue
// manager runs is no reason to let all go at once.
func TestReleaseIsPacedWhereQmgrIsNotKnown(t *testing.T) {
	w := newWorld(t, false)
	var all []plan.Target
	for i := range 4 {
		all = append(all, w.message(postfix.Deferred, fmt.Sprint("m", i), "bad.example"))
	}
	w.do(plan.Hold, plan.Options{}, all...)
	w.serveFlush(nil)
	job := w.job(w.hand(), plan.Release, plan.Options{}, all...)
	job.Qmgr = func(context.Context) (*record.Process, error) { return nil, errors.New("cannot tell") }
	r, err := Execute(context.Background(), job)
	if err != nil {
		t.Fatal(err)
	}
	if r.Counts[record.Done] != 1 || r.Left != 3 {
		t.Errorf("report %+v", r)
	}
}
