package hand

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/audit"
)

func TestMain(m *testing.M) {
	if Serve(os.Args) || serveTick(os.Args) {
		return
	}
	os.Exit(m.Run())
}

// obeys is a postsuper that does what it is asked, one rename or unlink an ID.
const obeys = `while read -r id; do
case $3 in
-h) [ -e "$Q/deferred/$id" ] && mv "$Q/deferred/$id" "$Q/hold/$id" && echo "postsuper: $id: placed on hold" >&2 ;;
-H) mv "$Q/hold/$id" "$Q/deferred/$id" && echo "postsuper: $id: released from hold" >&2 ;;
-d) rm "$Q/hold/$id" && echo "postsuper: $id: removed" >&2 ;;
esac
echo "$@ $id" >>"$Q/ran"
done
`

// bench is a spool with a few messages, and a hand that has the lock.
type bench struct {
	*testing.T
	*Client
	Options
	ctx context.Context
}

func ids(n int) []postfix.QueueID {
	list := make([]postfix.QueueID, n)
	for i := range list {
		list[i] = postfix.QueueID(fmt.Sprintf("4F2A01B2C%d", i))
	}
	return list
}

func newBench(t *testing.T, script string) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the hand is root's: run the tests as root")
	}
	top := t.TempDir()
	b := &bench{T: t, ctx: t.Context(), Options: Options{
		StateDir: filepath.Join(top, "state"), ConfigDir: filepath.Join(top, "etc"), QueueDir: filepath.Join(top, "spool"),
		CommandDir: filepath.Join(top, "sbin"), Patience: 20 * time.Second,
	}}
	for _, dir := range []string{"etc", "sbin", "spool/deferred", "spool/hold", "spool/defer", "spool/bounce"} {
		b.check(os.MkdirAll(filepath.Join(top, dir), 0o700))
	}
	b.check(os.WriteFile(filepath.Join(top, "sbin/postsuper"), []byte("#!/bin/sh\nPATH=/bin:/usr/bin Q="+b.QueueDir+"\n"+script), 0o700))
	for _, id := range ids(5) {
		b.check(os.WriteFile(b.at("deferred", id), []byte("message "+id), 0o700))
	}
	b.Client = b.start()
	b.check(b.Begin(b.ctx))
	return b
}

// start starts one more hand on the same state.
func (b *bench) start() *Client {
	b.Helper()
	c, err := Start(b.Options)
	b.check(err)
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) at(dir string, id postfix.QueueID) string {
	return filepath.Join(b.QueueDir, dir, string(id))
}

func (b *bench) inode(dir string, id postfix.QueueID) uint64 {
	b.Helper()
	var st unix.Stat_t
	b.check(unix.Lstat(b.at(dir, id), &st))
	return st.Ino
}

// intend records an intent for messages that are in a queue.
func (b *bench) intend(v plan.Verb, dir string, of ...postfix.QueueID) record.Entry {
	b.Helper()
	files := make([]record.File, 0, len(of))
	for _, id := range of {
		files = append(files, record.File{ID: id, Inode: b.inode(dir, id)})
	}
	e, err := b.Append(b.ctx, record.Intended, 0, files, record.IntentBody{Plan: strings.Repeat("ab", 32), Verb: v, Batch: 1, Targets: []plan.Target{}})
	b.check(err)
	return e
}

// ran returns the operations that were run.
func (b *bench) ran() string {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.QueueDir, "ran"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.Fatal(err)
	}
	return string(text)
}

// refused fails the test where something was not refused, or was run.
func (b *bench) refused(what string, err error) {
	b.Helper()
	var e *postfix.Error
	if !errors.As(err, &e) || e.Kind != postfix.Refused {
		b.Errorf("%s: %v", what, err)
	}
}

func (b *bench) copyOf(id postfix.QueueID) Copy {
	b.Helper()
	text, err := os.ReadFile(b.at("hold", id))
	b.check(err)
	sum := sha256.Sum256(text)
	return Copy{id, b.inode("hold", id), hex.EncodeToString(sum[:])}
}

func TestHeldCopiedDeletedAndRevealed(t *testing.T) {
	b := newBench(t, obeys)
	id := ids(1)[0]
	b.check(os.WriteFile(b.at("defer", id), []byte("why it waits"), 0o600))
	e := b.intend(plan.Delete, "deferred", id)
	said, err := b.Postsuper(b.ctx, e.Seq, HoldWaiting, []postfix.QueueID{id})
	b.check(err)
	if !slices.Equal(said.IDs, []postfix.QueueID{id}) || said.Exit != 0 {
		t.Fatalf("said %+v", said)
	}
	_, err = b.Postsuper(b.ctx, e.Seq, Delete, []postfix.QueueID{id})
	b.refused("deletion of what is not in the vault", err)
	kept, failed, err := b.Vault(b.ctx, e.Seq, []Copy{b.copyOf(id)})
	if err != nil || len(failed) > 0 || len(kept.Items) != 1 {
		t.Fatalf("kept %+v, %v, %v", kept, failed, err)
	}
	_, err = b.Postsuper(b.ctx, e.Seq, Delete, []postfix.QueueID{id})
	b.check(err)
	if _, err := os.Lstat(b.at("hold", id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	_, err = b.Append(b.ctx, record.Settled, e.Seq, nil, record.OutcomeBody{})
	b.check(err)

	item := kept.Items[0].Name
	_, err = b.Reveal(b.ctx, e.Seq, item)
	b.refused("an item without authority", err)
	look, err := b.Append(b.ctx, record.Looked, 0, nil, record.InspectBody{Item: item, What: "vault", Reason: "test"})
	b.check(err)
	_, err = b.Reveal(b.ctx, look.Seq, strings.TrimSuffix(item, "1")+"2")
	b.refused("another item", err)
	f, err := b.Reveal(b.ctx, look.Seq, item)
	b.check(err)
	text, err := io.ReadAll(f)
	b.check(errors.Join(err, f.Close()))
	if string(text) != "message "+string(id) {
		t.Errorf("revealed %q", text)
	}
	if _, err := b.Checkpoint(b.ctx); err != nil {
		t.Error(err)
	}
	b.verified()
}

// verified reads the audit log as anybody can.
func (b *bench) verified() {
	b.Helper()
	f, err := os.Open(filepath.Join(b.StateDir, "audit", audit.LogName))
	b.check(err)
	defer f.Close()
	report, err := audit.Verify(f, nil, "")
	if err != nil || !report.Whole() {
		b.Errorf("the audit log: %+v, %v", report.Bad, err)
	}
}

func TestNoActWithoutItsIntent(t *testing.T) {
	b := newBench(t, obeys)
	all := ids(5)
	hold := b.intend(plan.Hold, "deferred", all[0], all[1])
	restore := b.intend(plan.Restore, "deferred")
	release := b.intend(plan.Release, "deferred", all[0])
	for what, run := range map[string]func() error{
		"no such intent":  func() error { _, err := b.Postsuper(b.ctx, 99, HoldWaiting, all[:1]); return err },
		"another message": func() error { _, err := b.Postsuper(b.ctx, hold.Seq, HoldWaiting, all[:3]); return err },
		"another verb":    func() error { _, err := b.Postsuper(b.ctx, hold.Seq, Delete, all[:1]); return err },
		"requeue":         func() error { _, err := b.Postsuper(b.ctx, release.Seq, Requeue, all[:1]); return err },
		"a restore":       func() error { _, err := b.Postsuper(b.ctx, restore.Seq, HoldWaiting, all[:1]); return err },
		"no operation":    func() error { _, err := b.Postsuper(b.ctx, hold.Seq, 0, all[:1]); return err },
		"nothing":         func() error { _, err := b.Postsuper(b.ctx, hold.Seq, HoldWaiting, nil); return err },
		"ALL": func() error {
			_, err := b.Postsuper(b.ctx, hold.Seq, HoldWaiting, []postfix.QueueID{"ALL"})
			return err
		},
		"a copy of a hold": func() error {
			_, _, err := b.Vault(b.ctx, hold.Seq, []Copy{{all[0], b.inode("deferred", all[0]), ""}})
			return err
		},
	} {
		b.refused(what, run())
	}
	_, err := b.Append(b.ctx, record.Settled, hold.Seq, nil, record.OutcomeBody{})
	b.check(err)
	_, err = b.Postsuper(b.ctx, hold.Seq, HoldWaiting, all[:1])
	b.refused("an intent that is settled", err)
	_, err = b.Append(b.ctx, record.Settled, hold.Seq, nil, record.OutcomeBody{})
	b.refused("a second outcome", err)
	_, err = b.Append(b.ctx, record.Kept, hold.Seq, nil, record.KeptBody{})
	b.refused("a forged record of a copy", err)
	_, err = b.Append(b.ctx, record.Intended, 0, nil, map[string]string{"verb": "hold"})
	b.refused("an intent without a plan", err)
	if ran := b.ran(); ran != "" {
		t.Errorf("ran %q", ran)
	}
	b.verified()
}

// TestIntentIsReadBack: what stands on the disk counts, not what was once
// written there.
func TestIntentIsReadBack(t *testing.T) {
	b := newBench(t, obeys)
	all := ids(2)
	e := b.intend(plan.Hold, "deferred", all...)
	path := filepath.Join(b.StateDir, "audit", audit.LogName)
	text, err := os.ReadFile(path)
	b.check(err)
	text[e.Offset+int64(e.Length)/2] ^= 1
	b.check(os.WriteFile(path, text, 0o600)) // in place: the hand has the same file open
	if _, err := b.Postsuper(b.ctx, e.Seq, HoldWaiting, all); err == nil {
		t.Error("it acted upon an intent that is not on the disk")
	}
	if ran := b.ran(); ran != "" {
		t.Errorf("ran %q", ran)
	}
}

func TestWhatIsOnHoldIsComparedBeforeItIsCopiedAndDeleted(t *testing.T) {
	b := newBench(t, obeys)
	all := ids(5)
	e := b.intend(plan.Delete, "deferred", all...)
	_, err := b.Postsuper(b.ctx, e.Seq, HoldWaiting, all)
	b.check(err)
	var copies []Copy
	for _, id := range all {
		copies = append(copies, b.copyOf(id))
	}
	copies[0].Sum = strings.Repeat("0", 64)                              // not what the reader compared
	b.check(os.Rename(b.at("hold", all[1]), b.at("defer", "elsewhere"))) // gone
	b.check(os.Symlink("/etc/shadow", b.at("hold", all[1])))             // and a link in its place
	b.check(os.Link(b.at("hold", all[2]), b.at("hold", "second")))       // a second name
	kept, failed, err := b.Vault(b.ctx, e.Seq, copies)
	if err != nil || len(kept.Items) != 2 || len(failed) != 3 {
		t.Fatalf("kept %+v, failed %v, %v", kept.Items, failed, err)
	}
	// Another process of Postfix's marks a recipient after the copy was made.
	b.check(os.WriteFile(b.at("hold", all[3]), []byte("MESSAGE "+all[3]), 0o700))
	for i, id := range all[:4] {
		_, err := b.Postsuper(b.ctx, e.Seq, Delete, []postfix.QueueID{id})
		b.refused(fmt.Sprintf("message %d", i), err)
	}
	if strings.Contains(b.ran(), "-d") {
		t.Errorf("ran %s", b.ran())
	}
	_, err = b.Postsuper(b.ctx, e.Seq, Delete, all[4:])
	b.check(err)
}

func TestOneHandAtATimeAlsoWhileACommandOutlivesIt(t *testing.T) {
	b := newBench(t, "cat >/dev/null\n: >$Q/started\nexec sleep 3\n")
	e := b.intend(plan.Hold, "deferred", ids(1)...)
	second := b.start()
	b.refused("a second hand", second.Begin(b.ctx))
	failed := make(chan error)
	go func() {
		_, err := b.Postsuper(b.ctx, e.Seq, HoldWaiting, ids(1))
		failed <- err
	}()
	b.sleeps()
	b.check(b.cmd.Process.Kill())
	var gone *postfix.Error
	if err := <-failed; !errors.As(err, &gone) || !strings.Contains(gone.Hint, "recover") {
		t.Errorf("the hand is gone, and that is %v", err)
	}
	if err := b.Reserve(b.ctx, 1); err == nil {
		t.Error("a dead hand answers")
	}
	b.refused("beside a command that still runs", second.Begin(b.ctx))
	for deadline := time.Now().Add(time.Minute); second.Begin(b.ctx) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the lock is never let go")
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.check(second.Adopt(b.ctx, e))
	_, err := second.Append(b.ctx, record.Settled, e.Seq, nil, record.OutcomeBody{Recovered: true})
	b.check(err)
	b.verified()
}

// sleeps waits until the command of this test runs.
func (b *bench) sleeps() {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(b.QueueDir, "started")); err == nil {
			return
		}
	}
	b.Fatal("the command was not started")
}

func TestAdoptsOnlyWhatIsOnRecordAndOpen(t *testing.T) {
	b := newBench(t, obeys)
	e := b.intend(plan.Hold, "deferred", ids(2)...)
	b.check(b.Close())
	next := b.start()
	b.check(next.Begin(b.ctx))
	forged := e
	forged.Files = append(slices.Clone(e.Files), record.File{ID: ids(3)[2], Inode: 1})
	if err := next.Adopt(b.ctx, forged); err == nil {
		t.Error("an intent with one more message is adopted")
	}
	b.check(next.Adopt(b.ctx, e))
	_, err := next.Postsuper(b.ctx, e.Seq, HoldWaiting, ids(2))
	b.check(err)
	_, err = next.Append(b.ctx, record.Settled, e.Seq, nil, record.OutcomeBody{})
	b.check(err)
	if err := next.Adopt(b.ctx, e); err == nil {
		t.Error("a settled intent is adopted")
	}
}

func TestKeepsFilesUnderTheirDigest(t *testing.T) {
	b := newBench(t, obeys)
	sum := sha256.Sum256([]byte("targets"))
	name := hex.EncodeToString(sum[:])
	b.check(b.Keep(b.ctx, Targets, name, strings.NewReader("targets")))
	path := filepath.Join(b.StateDir, "targets", name)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	b.refused("another content", b.Keep(b.ctx, Plans, name, strings.NewReader("other")))
	for _, bad := range []string{"", "..", "../x", "a/b", ".hidden", "A"} {
		b.refused(bad, b.Keep(b.ctx, Ledger, bad, strings.NewReader("x")))
	}
	b.refused("no shelf", b.Keep(b.ctx, 9, "x", strings.NewReader("x")))
}

// TestNonsenseEndsTheHand sends what no client sends.
func TestNonsenseEndsTheHand(t *testing.T) {
	for name, raw := range map[string][]byte{
		"too long": {0xff, 0xff, 0xff, 0xff}, "cut": {0, 0, 0, 9, 1},
	} {
		b := newBench(t, obeys)
		if _, err := b.conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		b.check(b.conn.CloseWrite())
		if err := b.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := newBench(t, obeys)
	for _, body := range [][]byte{{}, {0}, {200}, {askPostsuper}, {askPostsuper, 1, 1, 255, 255, 255, 255, 15}, {askVault, 1, 200, 1}} {
		if _, err := b.ask(b.ctx, frame{buf: body}); err == nil {
			t.Errorf("%v is answered", body)
		}
	}
	b.intend(plan.Hold, "deferred", ids(1)...) // and it still works
}

// TestDescriptorsAreNotTaken: what comes with a request besides bytes stays with
// nobody (attack A-59).
func TestDescriptorsAreNotTaken(t *testing.T) {
	b := newBench(t, obeys)
	open := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.cmd.Process.Pid))
		b.check(err)
		return len(list)
	}
	before := open()
	secret, err := os.Open("/etc/shadow")
	b.check(err)
	t.Cleanup(func() { _ = secret.Close() })
	rights := unix.UnixRights(slices.Repeat([]int{int(secret.Fd())}, 100)...)
	for range 50 {
		f := requestOf(askReserve)
		f.putInt(1)
		body := append(binary.BigEndian.AppendUint32(nil, uint32(len(f.buf))), f.buf...)
		_, _, err := b.conn.WriteMsgUnix(body, rights, nil)
		b.check(err)
		if _, err := receive(b.conn); err != nil {
			t.Fatal(err)
		}
	}
	if after := open(); after > before {
		t.Errorf("the hand had %d descriptors and has %d", before, after)
	}
}

func FuzzFrame(f *testing.F) {
	var seed frame
	seed.putEntry(record.Entry{Seq: 1, Kind: record.Intended, Files: []record.File{{ID: "4F2A01B2C4", Inode: 7}}, Detail: []byte("{}")})
	f.Add(seed.buf)
	f.Fuzz(func(t *testing.T, body []byte) {
		in := &frame{buf: slices.Clone(body)}
		e := in.entry()
		if in.done() != nil {
			return
		}
		var out frame
		out.putEntry(e)
		again := &frame{buf: out.buf}
		if got := again.entry(); again.done() != nil || got.Seq != e.Seq || len(got.Files) != len(e.Files) || string(got.Detail) != string(e.Detail) {
			t.Errorf("%+v comes back as %+v", e, got)
		}
	})
}
