package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/lab/forge"
	"holdfast/observe"
	"holdfast/postfix"
)

func newReader(t testing.TB, in postfix.Instance) *Reader {
	t.Helper()
	r, err := NewReader(in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t testing.TB, s *forge.Spool, m *forge.Message) postfix.QueueID {
	t.Helper()
	id, err := s.Write(m)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var epoch = time.Date(2026, 11, 20, 3, 14, 15, 0, time.UTC)

// simple is a message of its own microsecond, so that no two share an ID.
func simple(i int) *forge.Message {
	return &forge.Message{
		Sender: "a@sender.example", Arrival: epoch.Add(time.Duration(i) * 37 * time.Millisecond), NextTry: epoch.Add(time.Hour), Size: 800,
		Recipients: []forge.Recipient{{Address: fmt.Sprintf("u%d@dest.example", i), Deferred: &forge.Reason{Text: "connect to mx[192.0.2.1]:25: Connection refused"}}},
	}
}

// settle makes the directories look untouched for longer than the coarse clock
// of the file system is wide, as they are on a quiet queue.
func settle() { time.Sleep(2 * coarseClock) }

// TestPlantedFiles has what a compromised Postfix process could put in the
// spool (cases ): none of it is followed, opened for ever or
// taken for mail, and each is named.
func TestPlantedFiles(t *testing.T) {
	s, in := testSpool(t, false, 1)
	id := write(t, s, simple(0))
	sound := s.Path("deferred", id)
	hash := filepath.Dir(sound)
	must(t, os.Symlink("/etc/passwd", filepath.Join(hash, "ABCDE1")))
	must(t, os.Symlink(sound, filepath.Join(hash, "ABCDE2")))
	must(t, unix.Mkfifo(filepath.Join(hash, "ABCDE3"), 0o700))
	must(t, os.Mkdir(filepath.Join(hash, "ABCDE4"), 0o700))
	must(t, unix.Mknod(filepath.Join(hash, "ABCDE5"), unix.S_IFCHR|0o700, int(unix.Mkdev(1, 5))))
	must(t, os.WriteFile(filepath.Join(hash, "ABCDE6"), []byte("C"), 0o600))
	must(t, os.WriteFile(filepath.Join(hash, "ABCDE7#FIX"), []byte("C"), 0o700))
	must(t, os.WriteFile(filepath.Join(in.QueueDir, "incoming", "123456.789"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(in.QueueDir, "hold", "core.dump"), nil, 0o700))
	other := write(t, s, simple(1))
	must(t, os.Link(s.Path("deferred", other), filepath.Join(in.QueueDir, "hold", string(other))))
	must(t, os.Symlink(hash, filepath.Join(in.QueueDir, "deferred", "Z")))
	moved := write(t, s, simple(2))
	wrong := filepath.Join(in.QueueDir, "deferred", "Q", string(moved))
	must(t, os.Mkdir(filepath.Dir(wrong), 0o700))
	must(t, os.Rename(s.Path("deferred", moved), wrong))

	r := newReader(t, in)
	for round := range 2 {
		snap, err := r.Look(context.Background())
		must(t, err)
		if snap.Len() != 2 || len(snap.Find(id)) != 1 || len(snap.Find(moved)) != 1 {
			t.Errorf("round %d: %d messages, want the sound one and the misplaced one", round, snap.Len())
		}
		got := make(map[string]observe.StrayKind)
		for _, stray := range snap.Strays {
			got[filepath.Base(stray.Path)] = stray.Kind
		}
		for name, kind := range map[string]observe.StrayKind{
			"ABCDE1": observe.NotRegular, "ABCDE2": observe.NotRegular, "ABCDE3": observe.NotRegular,
			"ABCDE4": observe.NotRegular, "ABCDE5": observe.NotRegular, "ABCDE6": observe.Unfinished,
			"ABCDE7#FIX": observe.Repair, "123456.789": observe.Unfinished, "core.dump": observe.ForeignName,
			string(other): observe.HardLinked, string(moved): observe.Misplaced,
		} {
			if got[name] != kind {
				t.Errorf("round %d: %s is reported as %q, want %q", round, name, got[name], kind)
			}
		}
	}
	if _, err := r.Inspect(context.Background(), "ABCDE2", Want{Headers: true, Body: 100}); err == nil {
		t.Error("a planted link was inspected")
	}
	d, err := r.Inspect(context.Background(), moved, Want{})
	if err != nil || !d.Misplaced {
		t.Errorf("the misplaced message: %+v, %v", d, err)
	}
}

func TestEveryQueueIsRead(t *testing.T) {
	s, in := testSpool(t, true, 2)
	for i, q := range postfix.Queues() {
		m := simple(i)
		m.Queue = q
		write(t, s, m)
	}
	probe := simple(20)
	probe.TraceFlags = forge.ProbeUser
	write(t, s, probe)
	snap := lookAt(t, newReader(t, in))
	for _, q := range postfix.Queues() {
		if shape := snap.Shape(q); !shape.Known || shape.Messages != 1 || shape.Oldest.IsZero() {
			t.Errorf("%s: %+v", q, shape)
		}
	}
	if snap.Probes != 1 || snap.Len() != 7 {
		t.Errorf("%d probes, %d messages", snap.Probes, snap.Len())
	}
}

// TestSecondLookReadsNoFiles counts the read calls of this process: looking
// again at a queue in which nothing happened reads directories and times only.
func TestSecondLookReadsNoFiles(t *testing.T) {
	s, in := testSpool(t, false, 1)
	for i := range 500 {
		write(t, s, simple(i))
	}
	settle()
	r := newReader(t, in)
	first := lookAt(t, r)
	before := readCalls(t)
	second := lookAt(t, r)
	if n := readCalls(t) - before; n > 50 {
		t.Errorf("the second look at 500 messages made %d read calls", n)
	}
	if first.Len() != 500 || second.Len() != 500 {
		t.Fatalf("%d, then %d messages", first.Len(), second.Len())
	}
}

func readCalls(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	must(t, err)
	for line := range strings.SplitSeq(string(b), "\n") {
		if n, ok := strings.CutPrefix(line, "syscr: "); ok {
			count, err := strconv.Atoi(n)
			must(t, err)
			return count
		}
	}
	t.Fatal("/proc/self/io has no count of read calls")
	return 0
}

// TestLaterLooksSeeEveryChange makes each kind of change that Postfix makes
// between two looks, and keeps the earlier Snapshot as it was.
func TestLaterLooksSeeEveryChange(t *testing.T) {
	s, in := testSpool(t, false, 1)
	var ids []postfix.QueueID
	for i := range 10 {
		ids = append(ids, write(t, s, simple(i)))
	}
	settle()
	r := newReader(t, in)
	first := lookAt(t, r)
	path := func(i int) string { return s.Path("deferred", ids[i]) }

	must(t, os.Remove(path(0)))                                                     // delivered
	must(t, os.Rename(path(1), filepath.Join(in.QueueDir, "hold", string(ids[1])))) // postsuper -h
	must(t, os.Chmod(path(2), 0o710))                                               // postsuper -e
	must(t, os.Chtimes(path(3), epoch.Add(2*time.Hour), epoch.Add(2*time.Hour)))    // deferred again
	fd, err := os.OpenFile(path(4), os.O_RDWR, 0)                                   // delivered, one byte
	must(t, err)
	offset := first.Find(ids[4])[0].Recipients[0].Offset
	_, err = fd.WriteAt([]byte{'D'}, offset)
	must(t, err)
	must(t, fd.Close())
	fresh := write(t, s, simple(11))

	second := lookAt(t, r)
	find := func(snap *observe.Snapshot, id postfix.QueueID) *postfix.Message {
		t.Helper()
		found := snap.Find(id)
		if len(found) != 1 {
			t.Fatalf("message %s is there %d times", id, len(found))
		}
		return found[0]
	}
	if len(second.Find(ids[0])) != 0 || second.Len() != 10 {
		t.Errorf("%d messages after one left and one came", second.Len())
	}
	if m := find(second, ids[1]); m.Queue != postfix.Hold || !m.NextTry.IsZero() {
		t.Errorf("held message: %+v", m)
	}
	if m := find(second, ids[2]); !m.ForceExpire {
		t.Error("forced expiry is not seen")
	}
	if m := find(second, ids[3]); !m.NextTry.Equal(epoch.Add(2 * time.Hour)) {
		t.Errorf("next try %s", m.NextTry)
	}
	if m := find(second, ids[4]); len(m.Recipients) != 0 || m.Done != 1 {
		t.Errorf("delivered recipient: %+v", m)
	}
	find(second, fresh)

	if first.Len() != 10 || first.Find(ids[1])[0].Queue != postfix.Deferred || first.Find(ids[2])[0].ForceExpire || len(first.Find(ids[4])[0].Recipients) != 1 {
		t.Error("the first snapshot changed")
	}
	if n := first.Shape(postfix.Deferred).Messages; n != 10 {
		t.Errorf("the first snapshot counts %d deferred messages", n)
	}
}

// TestLogThatGrowsIsReadAgain has a message that was held while a delivery was
// running: its queue file stays as it is, and its defer log appears later.
func TestLogThatGrowsIsReadAgain(t *testing.T) {
	s, in := testSpool(t, false, 1)
	m := simple(0)
	m.Queue = postfix.Hold
	m.Recipients = append(m.Recipients, forge.Recipient{Address: "second@dest.example", Deferred: &forge.Reason{Text: "still to come"}})
	id := write(t, s, m)
	log := s.Path("defer", id)
	whole, err := os.ReadFile(log)
	must(t, err)
	half := bytes.Index(whole, []byte("<second@"))
	must(t, os.WriteFile(log, whole[:half], 0o600))
	settle()
	r := newReader(t, in)
	if got := lookAt(t, r).Find(id)[0].Recipients[1].Reason; got != "" {
		t.Fatalf("a reason %q before it was written", got)
	}
	must(t, os.WriteFile(log, whole, 0o600))
	if got := lookAt(t, r).Find(id)[0].Recipients[1].Reason; got != "still to come" {
		t.Errorf("reason %q after the log grew", got)
	}
}

// TestFinishedFileIsSeen has a file that was being written in the first look:
// the last step is a chmod, which no directory shows.
func TestFinishedFileIsSeen(t *testing.T) {
	s, in := testSpool(t, false, 1)
	m := simple(0)
	m.Queue, m.Unfinished = postfix.Incoming, true
	id := write(t, s, m)
	settle()
	r := newReader(t, in)
	if snap := lookAt(t, r); snap.Len() != 0 || len(snap.Strays) != 1 {
		t.Fatalf("%d messages, strays %v", snap.Len(), snap.Strays)
	}
	must(t, os.Chmod(s.Path("incoming", id), 0o700))
	if snap := lookAt(t, r); snap.Len() != 1 || len(snap.Strays) != 0 {
		t.Errorf("%d messages, strays %v", snap.Len(), snap.Strays)
	}
}

// TestMessageThatMovesWhileWeLook takes the two passes of one look apart: what
// moves behind the first pass, or ahead of it, is met once.
func TestMessageThatMovesWhileWeLook(t *testing.T) {
	s, in := testSpool(t, false, 1)
	var ids []postfix.QueueID
	for i := range 40 {
		ids = append(ids, write(t, s, simple(i)))
	}
	settle()
	r := newReader(t, in)
	root, err := openAt(unix.AT_FDCWD, in.QueueDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	must(t, err)
	defer func() { _ = unix.Close(root) }()
	l := r.newLook(context.Background(), root)
	defer l.close()
	l.pass()
	for i, id := range ids {
		to := []string{"incoming", "active", "hold"}[i%3]
		must(t, os.Rename(s.Path("deferred", id), filepath.Join(in.QueueDir, to, string(id))))
	}
	late := write(t, s, simple(50))
	l.pass()
	snap := l.finish()
	if snap.Len() != 41 || len(snap.Find(late)) != 1 {
		t.Errorf("%d messages, want 41", snap.Len())
	}
	for i, id := range ids {
		found := snap.Find(id)
		if len(found) != 1 || found[0].Queue == postfix.Deferred {
			t.Errorf("message %d: met %d times, last in %v", i, len(found), found)
		}
	}
	if snap.Vanished != 0 {
		t.Errorf("%d messages are said to have vanished", snap.Vanished)
	}
}

// TestReusedIDIsTwoMessages has a short ID that was given to a new message
// while the old one with it was still in another queue's listing.
func TestReusedIDIsTwoMessages(t *testing.T) {
	s, in := testSpool(t, false, 0)
	in.HashDepth = 0
	a, b := simple(0), simple(1)
	a.Queue, b.Queue = postfix.Hold, postfix.Incoming
	id := write(t, s, a)
	b.ID, b.Recipients[0].Deferred = id, nil
	write(t, s, b)
	snap := lookAt(t, newReader(t, in))
	if found := snap.Find(id); len(found) != 2 {
		t.Errorf("met %d messages with the ID, want both", len(found))
	}
}

func TestUnreadableSpool(t *testing.T) {
	_, in := testSpool(t, false, 1)
	in.QueueDir = filepath.Join(in.QueueDir, "nowhere")
	_, err := newReader(t, in).Look(context.Background())
	var e *postfix.Error
	if !errors.As(err, &e) || e.Kind != postfix.CannotTell || e.Hint == "" || !strings.Contains(err.Error(), in.QueueDir) {
		t.Errorf("error %v", err)
	}
}

func TestQueueThatCannotBeListedIsNotEmpty(t *testing.T) {
	s, in := testSpool(t, false, 1)
	write(t, s, simple(0))
	must(t, os.RemoveAll(filepath.Join(in.QueueDir, "active")))
	must(t, os.WriteFile(filepath.Join(in.QueueDir, "active"), nil, 0o600))
	r := newReader(t, in)
	for range 2 {
		snap, err := r.Look(context.Background())
		must(t, err)
		if snap.Shape(postfix.Active).Known || len(snap.Gaps) != 1 || !snap.Shape(postfix.Hold).Known {
			t.Errorf("active: %+v, gaps %v", snap.Shape(postfix.Active), snap.Gaps)
		}
	}
}

func TestCancelledLook(t *testing.T) {
	s, in := testSpool(t, false, 1)
	for i := range 300 {
		write(t, s, simple(i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := newReader(t, in).Look(ctx)
	var e *postfix.Error
	if !errors.As(err, &e) || e.Kind != postfix.Interrupted {
		t.Errorf("error %v", err)
	}
	ctx, cancel = context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	snap, err := newReader(t, in).Look(ctx)
	if err == nil && len(snap.Gaps) == 0 {
		t.Error("a look without time left no gap")
	}
}

// TestInspectReadsContent compares headers, body and digest with the message
// that was written.
func TestInspectReadsContent(t *testing.T) {
	s, in := testSpool(t, false, 1)
	m := specimen()
	m.Content = []byte("Subject: one\n two\nX-Bad header: here\nFrom: a@b\n\nbody line\n" + strings.Repeat("x", 5000) + "\nend\n")
	m.Filter, m.AddedHeaders = "", nil
	id := write(t, s, m)
	d, err := newReader(t, in).Inspect(context.Background(), id, Want{Headers: true, Body: 1 << 20, Digest: true})
	must(t, err)
	_, body, _ := strings.Cut(string(m.Content), "\n\n")
	if string(d.Body) != body || d.BodyCut || len(d.Finished) != 1 || len(d.Message.Bounces) != 1 {
		t.Errorf("body of %d bytes, want %d; finished %v; bounces %v", len(d.Body), len(body), d.Finished, d.Message.Bounces)
	}
	if len(d.Headers) < 3 || d.Headers[0].Value != "one two" && !strings.Contains(d.Headers[0].Value, "two") {
		t.Errorf("headers %+v", d.Headers)
	}
	if !strings.HasPrefix(d.Digest, "sha256:") || len(d.Digest) != 71 {
		t.Errorf("digest %q", d.Digest)
	}
	if _, err := newReader(t, in).Inspect(context.Background(), "FFFFF1234", Want{}); !errors.Is(err, ErrNoMessage) {
		t.Errorf("an unknown ID gives %v", err)
	}
}
