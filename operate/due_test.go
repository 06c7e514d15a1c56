package operate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/act/hand"
	"holdfast/durable"
	"holdfast/record"
)

// cutHand is a hand that dies before an entry of one kind.
type cutHand struct {
	snapshotHand
	before record.Kind
}

func (h *cutHand) Append(ctx context.Context, kind record.Kind, ref uint64, files []record.File, detail any) (record.Entry, error) {
	if kind == h.before {
		return record.Entry{}, errors.New("killed here")
	}
	return h.snapshotHand.Append(ctx, kind, ref, files, detail)
}

// dues counts what is due, and the snapshots that were saved.
func (h *host) dues(o *Operator) (due, saved int) {
	h.Helper()
	l, err := o.Ledger(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	return len(l.Dues), len(l.Saved)
}

func TestTickDoesWhatIsDueOnce(t *testing.T) {
	h, o, _ := accounting(t)
	if ticks, err := o.Tick(t.Context()); err != nil || len(ticks.Ticked) > 0 || !ticks.Next.IsZero() {
		t.Fatalf("with no record: %+v, %v", ticks, err)
	}
	first, err := o.SaveSnapshot(t.Context(), SnapshotOptions{Again: time.Nanosecond})
	if err != nil || first.Again == nil {
		t.Fatalf("%+v, %v", first, err)
	}
	if _, err := o.SaveSnapshot(t.Context(), SnapshotOptions{Again: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 0} {
		ticks, err := o.Tick(t.Context())
		if err != nil || len(ticks.Ticked) != want || ticks.Waiting != 1 || time.Until(ticks.Next) < 50*time.Minute {
			t.Fatalf("tick %d: %+v, %v", i+1, ticks, err)
		}
		if want == 1 && (ticks.Ticked[0].Err != nil || ticks.Ticked[0].Object != first.Name) {
			t.Errorf("%+v", ticks.Ticked[0])
		}
	}
	if due, saved := h.dues(o); due != 1 || saved != 3 {
		t.Errorf("%d due, %d saved", due, saved)
	}
}

// TestTickThatWasKilled kills a tick before each entry that it writes. What it
// had done by then is not done again.
func TestTickThatWasKilled(t *testing.T) {
	for _, before := range []record.Kind{record.Saved, record.DueDone} {
		t.Run(string(before), func(t *testing.T) {
			h, o, _ := accounting(t)
			if _, err := o.SaveSnapshot(t.Context(), SnapshotOptions{Again: time.Nanosecond}); err != nil {
				t.Fatal(err)
			}
			whole := o.hand
			o.hand = &cutHand{snapshotHand{handOnDisk: handOnDisk{host: h}}, before}
			ticks, err := o.Tick(t.Context())
			if err != nil || len(ticks.Ticked) != 1 || ticks.Ticked[0].Err == nil || ticks.Waiting != 1 {
				t.Fatalf("cut: %+v, %v", ticks, err)
			}
			o.hand = whole
			if ticks, err = o.Tick(t.Context()); err != nil || len(ticks.Ticked) != 1 || ticks.Ticked[0].Err != nil {
				t.Fatalf("again: %+v, %v", ticks, err)
			}
			if due, saved := h.dues(o); due != 0 || saved != 2 {
				t.Errorf("%d due, %d saved", due, saved)
			}
		})
	}
}

func TestTickLeavesWhatItCannotDo(t *testing.T) {
	h, o, _ := accounting(t)
	for _, body := range []record.DueBody{
		{What: "of a later release", When: time.Now().Add(-time.Hour), Instance: "mx", Config: h.in.ConfigDir},
		{What: dueSnapshot, When: time.Now().Add(-3 * time.Minute), Instance: "mx", Config: h.in.ConfigDir},
		{What: dueSnapshot, When: time.Now().Add(-3 * time.Minute), Instance: "other", Config: "/etc/of-another"},
	} {
		if _, err := o.hand.Append(t.Context(), record.Due, 0, nil, body); err != nil {
			t.Fatal(err)
		}
	}
	late, err := o.Late(t.Context())
	if err != nil || len(late) != 3 || late[0].Keeper || late[0].What != "of a later release" {
		t.Fatalf("late: %+v, %v", late, err)
	}
	ticks, err := o.Tick(t.Context())
	if err != nil || len(ticks.Ticked) != 2 || ticks.Ticked[0].Err == nil || ticks.Ticked[1].Err != nil || ticks.Waiting != 1 {
		t.Fatalf("%+v, %v", ticks, err)
	}
	if due, saved := h.dues(o); due != 2 || saved != 1 {
		t.Errorf("%d due, %d saved", due, saved)
	}
	dir := filepath.Join(h.state, hand.KeeperShelf)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := durable.TryLock(filepath.Join(dir, hand.KeeperLock(h.in.ConfigDir)))
	if err != nil {
		t.Fatal(err)
	}
	if late, err = o.Late(t.Context()); err != nil || len(late) != 2 || !late[0].Keeper || late[1].Keeper {
		t.Errorf("with a keeper: %+v, %v", late, err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if late, err = o.Late(t.Context()); err != nil || late[0].Keeper {
		t.Errorf("the keeper went: %+v, %v", late, err)
	}
}
