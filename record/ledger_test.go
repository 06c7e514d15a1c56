package record_test

import (
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// book writes entries as the engine does.
type book struct {
	t       *testing.T
	entries []record.Entry
}

var start = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

func (b *book) add(kind record.Kind, ref uint64, body any) uint64 {
	b.t.Helper()
	detail, err := record.Encode(body)
	if err != nil {
		b.t.Fatal(err)
	}
	seq := uint64(len(b.entries) + 1)
	b.entries = append(b.entries, record.Entry{
		Seq: seq, At: start.Add(time.Duration(seq) * time.Second), Kind: kind, Ref: ref, Detail: detail,
		Hash: strings.Repeat("0", 63) + string('a'+rune(seq%6)),
	})
	return seq
}

// run writes one batch of a plan, with what stands between intent and outcome.
func (b *book) run(id string, v plan.Verb, targets []plan.Target, outcomes []record.Outcome, between ...func(intent uint64)) {
	b.t.Helper()
	s := b.add(record.Started, 0, record.PlanBody{Plan: id, Verb: v, Instance: "mx", Count: len(targets)})
	intent := b.add(record.Intended, 0, record.IntentBody{Plan: id, Verb: v, Batch: 1, Targets: targets, Qmgr: oldQmgr})
	for _, f := range between {
		f(intent)
	}
	b.add(record.Settled, intent, record.OutcomeBody{Plan: id, Verb: v, Batch: 1, Outcomes: outcomes})
	b.add(record.Ended, s, record.EndBody{Plan: id})
}

func (b *book) all() iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		for _, e := range b.entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (b *book) ledger() *record.Ledger {
	b.t.Helper()
	l, err := record.Fold(b.all())
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

var (
	oldQmgr = &record.Process{PID: 77, Started: start.Add(-time.Hour)}
	newQmgr = &record.Process{PID: 78, Started: start.Add(time.Hour)}
)

func target(id postfix.QueueID, inode uint64) plan.Target {
	return plan.Target{Fingerprint: postfix.Fingerprint{Instance: "mx", ID: id, Inode: inode, Sender: "kim@shop.example"}}
}

func held(instance string, id postfix.QueueID, inode uint64) record.HoldKey {
	return record.HoldKey{Instance: instance, File: record.File{ID: id, Inode: inode}}
}

func TestHoldsAreOursUntilSeenElsewhere(t *testing.T) {
	b := &book{t: t}
	hold := []plan.Target{target("A1", 1), target("A2", 2), target("A3", 3), target("A4", 4), target("A5", 5)}
	b.run("h", plan.Hold, hold, []record.Outcome{
		{ID: "A1", Inode: 1, State: record.Done, Now: "hold", Held: true},
		{ID: "A2", Inode: 2, State: record.Done, Now: "hold", Held: true, FromActive: true},
		{ID: "A3", Inode: 3, State: record.Already, Now: "hold"}, // somebody else held it
		{ID: "A4", Inode: 4, State: record.Done, Now: "hold", Held: true},
		{ID: "A5", Inode: 5, State: record.Done, Now: "hold", Held: true},
	})
	l := b.ledger()
	if len(l.Holds) != 4 || l.Holds[held("mx", "A1", 1)].Plan != "h" {
		t.Fatalf("holds %v", l.Holds)
	}
	if _, ours := l.Holds[held("other", "A1", 1)]; ours {
		t.Error("the same ID of another instance is ours too")
	}
	if _, ours := l.Holds[held("mx", "A1", 9)]; ours {
		t.Error("another file with the same ID is ours too")
	}
	b.run("r", plan.Release, hold, []record.Outcome{
		{ID: "A1", Inode: 1, State: record.Done, Now: "deferred"},
		{ID: "A2", Inode: 2, State: record.Refused, Now: "hold", Held: true, FromActive: true},
		{ID: "A4", Inode: 4, State: record.Unknown},
		{ID: "A5", Inode: 5, State: record.Gone},
	})
	l = b.ledger()
	for key, want := range map[record.HoldKey]bool{
		held("mx", "A1", 1): false, held("mx", "A2", 2): true, held("mx", "A4", 4): true, held("mx", "A5", 5): false,
	} {
		if _, ours := l.Holds[key]; ours != want {
			t.Errorf("%v is ours: %v, want %v", key, ours, want)
		}
	}
	if h := l.Holds[held("mx", "A2", 2)]; h.Plan != "h" || !h.Under(oldQmgr) || !h.Under(nil) || h.Under(newQmgr) {
		t.Errorf("A2 is %+v", h)
	}
	if l.Holds[held("mx", "A4", 4)].Under(oldQmgr) {
		t.Error("what was held from deferred counts as active")
	}
}

// TestReusedFileIsNotOurs: queue ID and inode come again, and then the hold of
// old is about nobody; a new one by us is about the new message.
func TestReusedFileIsNotOurs(t *testing.T) {
	b := &book{t: t}
	old, next := target("A1", 1), target("A1", 1)
	old.Arrival, next.Arrival = start.Add(-time.Hour), start
	done := []record.Outcome{{ID: "A1", Inode: 1, State: record.Done, Now: "hold", Held: true}}
	b.run("h", plan.Hold, []plan.Target{old}, done)
	l := b.ledger()
	if _, ours := l.HoldOf(old.Fingerprint); !ours {
		t.Error("what was held is not ours")
	}
	if _, ours := l.HoldOf(next.Fingerprint); ours {
		t.Error("another message is ours")
	}
	b.run("h2", plan.Hold, []plan.Target{next}, done)
	l = b.ledger()
	if h, ours := l.HoldOf(next.Fingerprint); !ours || h.Plan != "h2" {
		t.Errorf("held anew: %+v, %v", h, ours)
	}
	if _, ours := l.HoldOf(old.Fingerprint); ours {
		t.Error("the old message is ours")
	}
}

func TestOpenIntentsKeepWhatWasRecordedUnderThem(t *testing.T) {
	b := &book{t: t}
	b.add(record.Started, 0, record.PlanBody{Plan: "d", Verb: plan.Delete, Count: 3})
	intent := b.add(record.Intended, 0, record.IntentBody{Plan: "d", Verb: plan.Delete, Targets: []plan.Target{target("A1", 1)}})
	b.add(record.Kept, intent, record.KeptBody{Plan: "d", Pack: "p", Items: []record.Item{{Name: "p.0", ID: "A1", Size: 9}}})
	b.add(record.Noted, intent, record.NoteBody{ID: "A1", Successor: "B1"})
	l := b.ledger()
	open := l.Intents()
	if len(open) != 1 || open[0].Entry.Seq != intent || len(open[0].Kept) != 1 || len(open[0].Notes) != 1 {
		t.Fatalf("open are %+v", open)
	}
	if r := l.Plans["d"]; r.State(start) != "running" || r.Left() != 3 {
		t.Errorf("the plan is %s with %d left", r.State(start), r.Left())
	}
	b.add(record.Settled, intent, record.OutcomeBody{Plan: "d", Verb: plan.Delete, Outcomes: []record.Outcome{{ID: "A1", Inode: 1, State: record.Done, Item: "p.0"}}})
	// A second outcome changes nothing.
	b.add(record.Settled, intent, record.OutcomeBody{Plan: "d", Verb: plan.Delete, Outcomes: []record.Outcome{{ID: "A1", Inode: 1, State: record.Failed, Now: "hold", Held: true}}})
	l = b.ledger()
	if r := l.Plans["d"]; len(l.Open) != 0 || r.Counts[record.Done] != 1 || r.Settled() != 1 || r.Left() != 2 || len(l.Holds) != 0 {
		t.Errorf("after it: %+v, %+v", r, l.Holds)
	}
	if c := l.Items["p.0"]; !c.Removed || c.Purged || c.Target.Sender != "kim@shop.example" || c.Plan != "d" {
		t.Errorf("the copy is %+v", c)
	}
	outcomes, err := record.OutcomesOf(b.all(), "d")
	if err != nil || len(outcomes) != 1 || outcomes[0].State != record.Done {
		t.Errorf("outcomes %v, %v", outcomes, err)
	}
}

func TestCopiesComeBackAndGo(t *testing.T) {
	b := &book{t: t}
	gone := []plan.Target{target("A1", 1), target("A2", 2)}
	b.run("d", plan.Delete, gone, []record.Outcome{
		{ID: "A1", Inode: 1, State: record.Done, Item: "p.0"}, {ID: "A2", Inode: 2, State: record.Done, Item: "p.1"},
	}, func(intent uint64) {
		b.add(record.Kept, intent, record.KeptBody{Plan: "d", Pack: "p", Items: []record.Item{{Name: "p.0", ID: "A1"}, {Name: "p.1", ID: "A2"}}})
	})
	back := target("A1", 1)
	back.Item = "p.0"
	b.run("u", plan.Restore, []plan.Target{back}, []record.Outcome{
		{ID: "A1", Inode: 50, State: record.Done, Now: "hold", Held: true, Item: "p.0", Successor: "B1"},
	})
	purge := target("A2", 2)
	purge.Item = "p.1"
	b.run("x", plan.Purge, []plan.Target{purge}, []record.Outcome{{ID: "A2", State: record.Done, Item: "p.1"}})
	l := b.ledger()
	if c := l.Items["p.0"]; c.Restored != "B1" || c.Purged {
		t.Errorf("the restored copy is %+v", c)
	}
	if c := l.Items["p.1"]; c.Restored != "" || !c.Purged {
		t.Errorf("the purged copy is %+v", c)
	}
	if h, ours := l.Holds[held("mx", "B1", 50)]; !ours || h.Plan != "u" || len(l.Holds) != 1 {
		t.Errorf("holds %v", l.Holds)
	}
}

func TestDuesPlansAndApprovals(t *testing.T) {
	b := &book{t: t}
	b.add(record.Planned, 0, record.PlanBody{Plan: "abcdef", Verb: plan.Hold, Count: 1, By: plan.Who{User: "kim"}, Expires: start.Add(time.Hour)})
	b.add(record.Planned, 0, record.PlanBody{Plan: "abcd99", Verb: plan.Hold})
	b.add(record.Approved, 0, record.PlanBody{Plan: "abcdef", By: plan.Who{User: "lee"}})
	first := b.add(record.Due, 0, record.DueBody{What: "snapshot", Object: "s1"})
	second := b.add(record.Due, 0, record.DueBody{What: "purge"})
	b.add(record.DueDone, first, record.DueBody{What: "snapshot"})
	l := b.ledger()
	if _, open := l.Dues[second]; len(l.Dues) != 1 || !open {
		t.Errorf("due are %v", l.Dues)
	}
	r, err := l.Resolve("abcde")
	if err != nil || r.Plan.By.User != "kim" || len(r.Approved) != 1 || r.Approved[0].User != "lee" {
		t.Fatalf("found %+v, %v", r, err)
	}
	if r.State(start) != "sealed" || r.State(start.Add(2*time.Hour)) != "expired" {
		t.Errorf("it is %s, then %s", r.State(start), r.State(start.Add(2*time.Hour)))
	}
	for ref, kind := range map[string]postfix.Kind{"abcd": postfix.Usage, "abc": postfix.Failed, "ffff": postfix.Failed, "": postfix.Failed} {
		var e *postfix.Error
		if _, err := l.Resolve(ref); !errors.As(err, &e) || e.Kind != kind {
			t.Errorf("%q gives %v", ref, err)
		}
	}
}

// TestHalfALogIsNoLedger shows that nothing is concluded from what cannot be
// read, or understood.
func TestHalfALogIsNoLedger(t *testing.T) {
	b := &book{t: t}
	b.add(record.Due, 0, record.DueBody{What: "purge"})
	broken := errors.New("the disk is on fire")
	_, err := record.Fold(func(yield func(record.Entry, error) bool) {
		_ = yield(b.entries[0], nil) && yield(record.Entry{}, broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("half a log gives %v", err)
	}
	b.add("from-the-future", 0, struct{}{})
	if _, err := record.Fold(b.all()); !errors.Is(err, record.ErrEntry) {
		t.Errorf("an unknown kind gives %v", err)
	}
	wrong := &book{t: t}
	wrong.add(record.Intended, 0, []string{"no intent"})
	if _, err := record.Fold(wrong.all()); err == nil {
		t.Error("a body of another form is taken")
	}
}
