package operate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/account"
	"holdfast/act/hand"
	"holdfast/durable"
	"holdfast/postfix"
)

// snapshotHand keeps snapshots as the hand does, and can be told to fail.
type snapshotHand struct {
	handOnDisk
	full bool
}

func (h *snapshotHand) Keep(_ context.Context, shelf hand.Shelf, name string, content io.Reader) error {
	text, err := io.ReadAll(content)
	if err != nil || shelf != hand.Snapshots {
		return fmt.Errorf("keep %q on shelf %d: %w", name, shelf, err)
	}
	if h.full {
		return errors.New("no space left on device")
	}
	dir := filepath.Join(h.host.state, shelfSnapshots)
	return errors.Join(durable.MkdirAll(dir, 0o700), durable.Replace(filepath.Join(dir, name), text, 0o600))
}

// accounting is an operator on a host that logs into a file.
func accounting(t *testing.T) (*host, *Operator, func(format string, args ...any)) {
	t.Helper()
	h := newHost(t)
	log := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(log, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	h.in.MailLogFile, h.in.SyslogName = log, "postfix"
	o := h.as("carol")
	o.hand = &snapshotHand{handOnDisk: handOnDisk{host: h}}
	return h, o, func(format string, args ...any) {
		t.Helper()
		f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprintf(f, time.Now().Format(time.RFC3339Nano)+" relay1 postfix/"+format+"\n", args...)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAccountFollowsTheMailSinceTheSnapshot saves a snapshot of a spool, lets
// one message be delivered, one be lost and one come, and accounts.
func TestAccountFollowsTheMailSinceTheSnapshot(t *testing.T) {
	h, o, say := accounting(t)
	stays, goes, lost := h.message(postfix.Deferred, "a@shop.example", "x.example"), h.message(postfix.Deferred, "a@shop.example", "y.example"), h.message(postfix.Deferred, "a@shop.example", "z.example")
	say("smtp[7]: %s: to=<lee@y.example>, relay=none, delay=1, dsn=4.0.0, status=deferred (before)", goes)
	head, err := o.SaveSnapshot(t.Context(), SnapshotOptions{Note: "before the fix"})
	if err != nil {
		t.Fatal(err)
	}
	if head.Messages != 3 || head.Note != "before the fix" || head.Log.Offset == 0 {
		t.Errorf("%+v", head)
	}
	say("smtp[7]: %s: to=<lee@y.example>, relay=mx.y.example[192.0.2.1]:25, delay=3600, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)", goes)
	say("qmgr[8]: %s: removed", goes)
	say("qmgr[8]: %s: removed", lost)
	for _, id := range []postfix.QueueID{goes, lost} {
		if err := os.Remove(h.spool.Path("deferred", id)); err != nil {
			t.Fatal(err)
		}
	}
	came := h.message(postfix.Incoming, "b@shop.example", "x.example")
	book, err := o.Account(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	got := map[postfix.QueueID]string{}
	for _, target := range book.Targets {
		got[target.ID] = fmt.Sprint(target.Fate, target.Arrived)
	}
	want := map[postfix.QueueID]string{stays: "pendingfalse", goes: "deliveredfalse", lost: "unprovenfalse", came: "pendingtrue"}
	if fmt.Sprint(got) != fmt.Sprint(want) || book.Balanced {
		t.Errorf("%v, not %v: %+v", got, want, book.Problems)
	}
	// The first snapshot to the second says the same as the first to now.
	second, err := o.SaveSnapshot(t.Context(), SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	between, err := o.Account(t.Context(), head.Name, second.Name)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(between.Fates) != fmt.Sprint(book.Fates) {
		t.Errorf("%v, not %v", between.Fates, book.Fates)
	}
	if _, err := o.Account(t.Context(), second.Name, head.Name); err == nil || kindOf(t, err) != postfix.Usage {
		t.Errorf("accounting backwards: %v", err)
	}
}

// TestSnapshotInPartsIsWhole keeps more than one file has room for.
func TestSnapshotInPartsIsWhole(t *testing.T) {
	h, o, _ := accounting(t)
	s := &account.Snapshot{Head: account.Head{Schema: "holdfast.snapshot-file/1", Name: "big", Instance: h.in.Name}}
	for i := range 2000 {
		m := account.Message{Fingerprint: postfix.Fingerprint{Instance: "postfix", ID: postfix.QueueID(fmt.Sprintf("%010X", i)), Digest: noise(i)}}
		s.All = append(s.All, m)
	}
	s.Messages = len(s.All)
	write := &partWriter{ctx: t.Context(), hand: o.hand, name: "big", size: 4 << 10, sum: newSum()}
	if err := errors.Join(account.Encode(write, s), write.finish()); err != nil {
		t.Fatal(err)
	}
	if write.n < 3 {
		t.Fatalf("%d parts test nothing", write.n)
	}
	read := &parts{state: o.state, name: "big", sum: newSum()}
	back, err := account.Decode(read)
	if err != nil || back.Messages != s.Messages || back.All[s.Messages-1].Digest != s.All[s.Messages-1].Digest {
		t.Fatalf("%v", err)
	}
	if err := os.Remove(filepath.Join(h.state, shelfSnapshots, "big.part1")); err != nil {
		t.Fatal(err)
	}
	if _, err := account.Decode(&parts{state: o.state, name: "big", sum: newSum()}); !errors.Is(err, account.ErrSnapshot) {
		t.Errorf("a part is missing, and the error is %v", err)
	}
}

// TestSnapshotIsHeldAgainstTheRecord: a file that was exchanged, also for
// another true snapshot, is not the one that was saved.
func TestSnapshotIsHeldAgainstTheRecord(t *testing.T) {
	h, o, _ := accounting(t)
	if _, err := o.Snapshot(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "none was saved") {
		t.Errorf("there is none, and the error is %v", err)
	}
	h.message(postfix.Deferred, "a@shop.example", "x.example")
	first, err := o.SaveSnapshot(t.Context(), SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := o.SaveSnapshot(t.Context(), SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.state, shelfSnapshots)
	if err := os.Rename(filepath.Join(dir, second.Name), filepath.Join(dir, first.Name)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Snapshot(t.Context(), first.Name); !errors.Is(err, account.ErrSnapshot) {
		t.Errorf("it was exchanged, and the error is %v", err)
	}
	if _, err := o.Snapshot(t.Context(), second.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is gone, and the error is %v", err)
	}
}

// TestSnapshotThatCouldNotBeKeptIsNotRecorded: the entry comes last.
func TestSnapshotThatCouldNotBeKeptIsNotRecorded(t *testing.T) {
	h, o, _ := accounting(t)
	h.message(postfix.Deferred, "a@shop.example", "x.example")
	o.hand = &snapshotHand{handOnDisk: handOnDisk{host: h}, full: true}
	if _, err := o.SaveSnapshot(t.Context(), SnapshotOptions{}); err == nil {
		t.Fatal("nothing could be written, and it says that it was saved")
	}
	saved, err := o.Snapshots(t.Context())
	if err != nil || len(saved) != 0 {
		t.Errorf("%v, %v", saved, err)
	}
}

func newSum() hash.Hash { return sha256.New() }

// noise is text that cannot be packed.
func noise(i int) string {
	sum := sha256.Sum256(fmt.Append(nil, i))
	return hex.EncodeToString(sum[:])
}
