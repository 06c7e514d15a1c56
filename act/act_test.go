package act

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/act/hand"
	"holdfast/lab/forge"
	"holdfast/observe/spool"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/vault"
)

// errBroken is what a hand that was killed answers.
var errBroken = errors.New("the hand was killed")

// world is a spool on disk, a vault and a log. It outlives the hands that act
// upon it, as they outlive a kill.
type world struct {
	*testing.T
	spool   *forge.Spool
	in      postfix.Instance
	reader  *spool.Reader
	vault   string
	entries []record.Entry
	qmgr    *record.Process
	plans   int // no two may be equal: a plan runs once
	// before is called before a hand runs postsuper.
	before func(hand.Op)
}

func newWorld(t *testing.T, long bool) *world {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &forge.Spool{Dir: t.TempDir(), LongIDs: long, HashDepth: 1}
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, spool: s, vault: t.TempDir(), before: func(hand.Op) {}, in: postfix.Instance{
		Name: "postfix", QueueDir: s.Dir, MailOwner: u.Username, LongIDs: long,
		HashedQueues: []string{"deferred", "defer"}, HashDepth: 1,
	}}
	if w.reader, err = spool.NewReader(w.in, spool.Options{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// message puts one message into a queue.
func (w *world) message(q postfix.Queue, name, domain string) plan.Target {
	w.Helper()
	at := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	id, err := w.spool.Write(&forge.Message{
		Queue: q, Sender: name + "@sender.example", Arrival: at, NextTry: at,
		Content: []byte("Subject: " + name + "\n\nbody of " + name + "\n"), Recipients: []forge.Recipient{{Address: "r@" + domain}},
	})
	if err != nil {
		w.Fatal(err)
	}
	return w.target(id, domain)
}

func (w *world) target(id postfix.QueueID, hop string) plan.Target {
	w.Helper()
	for _, f := range w.places(id) {
		return plan.Target{Fingerprint: f.Fingerprint, Queue: f.Queue, NextHop: hop, Recipients: f.Open}
	}
	w.Fatalf("%s is in no queue", id)
	return plan.Target{}
}

func (w *world) places(id postfix.QueueID) []spool.Found {
	w.Helper()
	found, err := w.reader.Find(context.Background(), []postfix.QueueID{id})
	if err != nil {
		w.Fatal(err)
	}
	return found[id]
}

func (w *world) queueOf(id postfix.QueueID) string {
	w.Helper()
	var names []string
	for _, f := range w.places(id) {
		names = append(names, f.Queue.String())
	}
	return strings.Join(names, " ")
}

func (w *world) seq() iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		for _, e := range w.entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (w *world) ledger() *record.Ledger {
	w.Helper()
	l, err := record.Fold(w.seq())
	if err != nil {
		w.Fatal(err)
	}
	return l
}

func (w *world) job(h Hand, v plan.Verb, o plan.Options, targets ...plan.Target) Job {
	w.plans++
	return Job{
		Hand: h, Reader: w.reader, Instance: w.in, Targets: targets, Patience: 2 * time.Second,
		Plan: &plan.Plan{
			Schema: plan.PlanSchema, Verb: v, Instance: w.in.Name, Count: len(targets), Options: o,
			Reason: fmt.Sprint("test ", w.plans),
		},
		Past: func(context.Context) (*record.Ledger, error) { return record.Fold(w.seq()) },
		Qmgr: func(context.Context) (*record.Process, error) { return w.qmgr, nil },
	}
}

// do runs a plan that must run to its end.
func (w *world) do(v plan.Verb, o plan.Options, targets ...plan.Target) Report {
	w.Helper()
	r, err := Execute(context.Background(), w.job(w.hand(), v, o, targets...))
	if err != nil {
		w.Fatalf("%s: %v", v, err)
	}
	return r
}

// breakAt says how a call of the hand is cut off.
type breakAt uint8

const (
	whole       breakAt = iota
	beforeCall          // nothing of it was done
	inTheMiddle         // part of it was done, and nobody was told
	afterCall           // all of it was done, and nobody was told
)

// testHand does what the hand does to spool, vault and log, and can be killed
// at any of its calls. From then on it answers nothing.
type testHand struct {
	w      *world
	calls  int
	at     int // the call that is cut off, from 1; 0 never
	how    breakAt
	broken bool
}

func (w *world) hand() *testHand { return &testHand{w: w} }

// call counts one call and says how far it gets.
func (h *testHand) call() (breakAt, error) {
	h.calls++
	switch {
	case h.broken:
		return beforeCall, errBroken
	case h.calls != h.at:
		return whole, nil
	}
	h.broken = true
	if h.how == beforeCall {
		return beforeCall, errBroken
	}
	return h.how, errBroken
}

func (h *testHand) Begin(context.Context) error { _, err := h.call(); return err }

func (h *testHand) Reserve(context.Context, int64) error { _, err := h.call(); return err }

func (h *testHand) Checkpoint(context.Context) (string, error) {
	_, err := h.call()
	return "note", err
}

func (h *testHand) Keep(context.Context, hand.Shelf, string, io.Reader) error { return nil }

func (h *testHand) Adopt(_ context.Context, e record.Entry) error {
	if _, err := h.call(); err != nil {
		return err
	}
	if h.w.ledger().Open[e.Seq] == nil {
		return fmt.Errorf("adopt entry %d: it is no open intent", e.Seq)
	}
	return nil
}

func (h *testHand) Append(_ context.Context, kind record.Kind, ref uint64, files []record.File, detail any) (record.Entry, error) {
	how, err := h.call()
	if how == beforeCall || how == inTheMiddle {
		return record.Entry{}, err // a line is there whole or not at all
	}
	e, encodeErr := h.add(kind, ref, files, detail)
	return e, errors.Join(err, encodeErr)
}

func (h *testHand) add(kind record.Kind, ref uint64, files []record.File, detail any) (record.Entry, error) {
	text, err := record.Encode(detail)
	e := record.Entry{Seq: uint64(len(h.w.entries)) + 1, At: time.Now().UTC(), Kind: kind, Ref: ref, Files: files, Detail: text}
	h.w.entries = append(h.w.entries, e)
	return e, err
}

func (h *testHand) intent(seq uint64) (record.IntentBody, map[postfix.QueueID]uint64, error) {
	var body record.IntentBody
	if seq == 0 || seq > uint64(len(h.w.entries)) || h.w.ledger().Open[seq] == nil {
		return body, nil, fmt.Errorf("entry %d is no open intent", seq)
	}
	e := h.w.entries[seq-1]
	named := make(map[postfix.QueueID]uint64)
	for _, f := range e.Files {
		named[f.ID] = f.Inode
	}
	err := json.Unmarshal(e.Detail, &body)
	return body, named, err
}

// allowed is the hand's own list: which operations an intent of a verb allows.
var allowed = map[plan.Verb][]hand.Op{
	plan.Hold:    {hand.HoldWaiting, hand.HoldAny, hand.Release},
	plan.Release: {hand.Release, hand.HoldWaiting},
	plan.Try:     {hand.Release},
	plan.Delete:  {hand.HoldWaiting, hand.HoldAny, hand.Delete},
	plan.Requeue: {hand.HoldWaiting, hand.Requeue},
	plan.Expire:  {hand.HoldWaiting, hand.HoldAny, hand.Expire, hand.Release},
}

func (h *testHand) Postsuper(_ context.Context, intent uint64, op hand.Op, ids []postfix.QueueID) (hand.Printed, error) {
	how, broke := h.call()
	if how == beforeCall {
		return hand.Printed{}, broke
	}
	body, named, err := h.intent(intent)
	if err != nil {
		return hand.Printed{}, err
	}
	ok := false
	for _, o := range allowed[body.Verb] {
		ok = ok || o == op
	}
	if !ok || len(ids) == 0 {
		return hand.Printed{}, fmt.Errorf("operation %d of %d messages is not allowed to %q", op, len(ids), body.Verb)
	}
	h.w.before(op)
	if how == inTheMiddle {
		ids = ids[:(len(ids)+1)/2]
	}
	var out hand.Printed
	for _, id := range ids {
		if _, ok := named[id]; !ok {
			return out, fmt.Errorf("the intent does not name %s", id)
		}
		done, err := h.apply(op, id)
		if err != nil {
			return out, err
		}
		if done {
			out.IDs = append(out.IDs, id)
		}
	}
	if broke != nil {
		return hand.Printed{}, broke
	}
	return out, nil
}

// apply is what postsuper does to one message: the first queue that has it.
func (h *testHand) apply(op hand.Op, id postfix.QueueID) (bool, error) {
	from, to := []string{"hold"}, ""
	switch op {
	case hand.HoldWaiting:
		from, to = []string{"deferred", "incoming"}, "hold"
	case hand.HoldAny:
		from, to = []string{"deferred", "incoming", "active"}, "hold"
	case hand.Release:
		to = "deferred"
	case hand.Requeue:
		to = "maildrop"
	case hand.Expire:
		err := os.Chmod(h.w.spool.Path("hold", id), 0o710)
		return err == nil, ignoreMissing(err)
	}
	for _, q := range from {
		path := h.w.spool.Path(q, id)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if to == "" {
			return true, os.Remove(path)
		}
		target := h.w.spool.Path(to, id)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return false, err
		}
		return true, os.Rename(path, target)
	}
	return false, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (h *testHand) Vault(_ context.Context, intent uint64, copies []hand.Copy) (record.KeptBody, map[postfix.QueueID]string, error) {
	how, broke := h.call()
	if how == beforeCall {
		return record.KeptBody{}, nil, broke
	}
	body, _, err := h.intent(intent)
	if err != nil {
		return record.KeptBody{}, nil, err
	}
	kept := record.KeptBody{Plan: body.Plan, Pack: fmt.Sprint("pack", intent)}
	for i, c := range copies {
		data, err := os.ReadFile(h.w.spool.Path("hold", c.ID))
		if err != nil {
			return kept, nil, err
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != c.Sum {
			return kept, nil, fmt.Errorf("%s is not what was compared", c.ID)
		}
		item := record.Item{Name: fmt.Sprintf("%s.%d", kept.Pack, i), ID: c.ID, Sum: c.Sum, Size: int64(len(data))}
		if err := os.WriteFile(filepath.Join(h.w.vault, item.Name), data, 0o600); err != nil {
			return kept, nil, err
		}
		kept.Items = append(kept.Items, item)
	}
	if how == inTheMiddle {
		return record.KeptBody{}, nil, broke // copied, and not recorded
	}
	_, err = h.add(record.Kept, intent, nil, kept)
	if err == nil {
		err = broke
	}
	return kept, nil, err
}

func (h *testHand) Reveal(_ context.Context, authority uint64, item string) (*os.File, error) {
	if _, err := h.call(); err != nil {
		return nil, err
	}
	if _, _, err := h.intent(authority); err != nil {
		return nil, err
	}
	return os.Open(filepath.Join(h.w.vault, item))
}

// Purge takes the bytes away, and leaves the file as the vault does.
func (h *testHand) Purge(_ context.Context, intent uint64, items []string) error {
	how, broke := h.call()
	if how == beforeCall {
		return broke
	}
	if body, _, err := h.intent(intent); err != nil || body.Verb != plan.Purge {
		return fmt.Errorf("%q purges nothing: %w", body.Verb, err)
	}
	if how == inTheMiddle {
		items = items[:(len(items)+1)/2]
	}
	for _, item := range items {
		if err := os.Truncate(filepath.Join(h.w.vault, item), 0); err != nil {
			return err
		}
	}
	return broke
}

func (h *testHand) Items(_ context.Context, items []record.Item) ([]vault.State, error) {
	if _, err := h.call(); err != nil {
		return nil, err
	}
	var states []vault.State
	for _, item := range items {
		data, err := os.ReadFile(filepath.Join(h.w.vault, item.Name))
		sum := sha256.Sum256(data)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			states = append(states, vault.Missing)
		case err != nil:
			return nil, err
		case len(data) == 0:
			states = append(states, vault.Purged)
		case hex.EncodeToString(sum[:]) != item.Sum:
			states = append(states, vault.Damaged)
		default:
			states = append(states, vault.Good)
		}
	}
	return states, nil
}

// TestEveryBreakIsSettled kills the hand before, in the middle of and after
// each of its calls, recovers twice, and then counts every message: none is
// lost, none is there twice, and no intent stays open.
func TestEveryBreakIsSettled(t *testing.T) {
	for _, verb := range []plan.Verb{plan.Hold, plan.Release, plan.Requeue, plan.Expire, plan.Delete, plan.Restore, plan.Purge} {
		for _, long := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s long=%v", verb, long), func(t *testing.T) {
				for _, how := range []breakAt{beforeCall, inTheMiddle, afterCall} {
					for at := 1; ; at++ {
						if at > 60 {
							t.Fatal("the plan never ran to its end")
						}
						if !sweepOne(t, verb, long, at, how) {
							break
						}
					}
				}
			})
		}
	}
}

// sweepOne plays one break and says whether it happened.
func sweepOne(t *testing.T, verb plan.Verb, long bool, at int, how breakAt) bool {
	t.Helper()
	w := newWorld(t, long)
	var targets []plan.Target
	for i := range 5 {
		targets = append(targets, w.message(postfix.Deferred, fmt.Sprint("m", i), "one.example"))
	}
	messages := targets
	switch verb {
	case plan.Release:
		w.do(plan.Hold, plan.Options{}, targets...)
	case plan.Restore, plan.Purge:
		targets = nil
		for _, o := range w.do(plan.Delete, plan.Options{}, messages...).Outcomes {
			k := messages[len(targets)]
			k.Item = o.Item
			targets = append(targets, k)
		}
	}
	h := w.hand()
	h.at, h.how = at, how
	job := w.job(h, verb, plan.Options{PerRun: 2}, targets...)
	if verb == plan.Requeue || verb == plan.Expire {
		job.Patience = 20 * time.Millisecond // no Postfix runs that takes them
	}
	_, err := Execute(context.Background(), job)
	switch {
	case !h.broken && err != nil:
		t.Fatalf("%s: %v", verb, err)
	case h.broken && err != nil && !errors.Is(err, errBroken):
		t.Errorf("break %d/%d: %v", at, how, err)
	}
	w.settleAndCount(messages, fmt.Sprintf("%s, break %d/%d", verb, at, how))
	return h.broken
}

func (w *world) settleAndCount(messages []plan.Target, what string) {
	w.Helper()
	for round := range 2 {
		got, err := Recover(context.Background(), w.job(w.hand(), plan.Hold, plan.Options{}))
		if err != nil {
			w.Fatalf("%s: recover: %v", what, err)
		}
		if round == 1 && (len(got.Settled) > 0 || len(got.Ended) > 0) {
			w.Errorf("%s: the second recovery settled %v and ended %v", what, got.Settled, got.Ended)
		}
	}
	l := w.ledger()
	if len(l.Open) > 0 {
		w.Errorf("%s: %d intents are open", what, len(l.Open))
	}
	copies := w.copies()
	for _, m := range messages {
		places, item := copies[m.Sender], ""
		for name, c := range l.Items {
			if c.ID == m.ID && c.Removed {
				item = name
			}
		}
		switch {
		case len(places) > 1:
			w.Errorf("%s: %s is there %d times: %v", what, m.Sender, len(places), places)
		case len(places) == 0 && item == "":
			w.Errorf("%s: %s is lost", what, m.Sender)
		case len(places) == 0:
			if info, err := os.Stat(filepath.Join(w.vault, item)); err != nil || (info.Size() == 0) != l.Items[item].Purged {
				w.Errorf("%s: %s: purged %v, %v", what, m.Sender, l.Items[item].Purged, err)
			}
		}
	}
	for _, e := range w.entries {
		var note record.NoteBody
		if e.Kind != record.Noted {
			continue
		}
		if err := json.Unmarshal(e.Detail, &note); err != nil {
			w.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(w.spool.Dir, note.Temporary)); err == nil {
			w.Errorf("%s: %s is left", what, note.Temporary)
		}
	}
	for key := range l.Holds {
		if w.queueOf(key.ID) != "hold" {
			w.Errorf("%s: the ledger has %s on hold, and it is in %q", what, key.ID, w.queueOf(key.ID))
		}
	}
}

// copies finds every ready file of the message queues by its sender, without
// the reader under test. What has a dot in its name is no message to Postfix.
func (w *world) copies() map[string][]string {
	w.Helper()
	out := make(map[string][]string)
	for _, q := range postfix.Queues() {
		err := filepath.WalkDir(filepath.Join(w.spool.Dir, q.String()), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if strings.Contains(d.Name(), ".") {
				if info, err := d.Info(); err == nil && info.Mode().Perm()&0o700 == 0o700 {
					w.Errorf("a temporary file is left: %s", path)
				}
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for i := range 100 {
				if sender := fmt.Sprintf("m%d@sender.example", i); bytes.Contains(data, []byte(sender)) {
					out[sender] = append(out[sender], path)
				}
			}
			return nil
		})
		if err != nil {
			w.Fatal(err)
		}
	}
	return out
}
