package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"holdfast/record"
)

// roleVar makes the test binary the writer whose calls strace lets fail.
const roleVar = "AUDIT_TEST_WRITER"

func TestMain(m *testing.M) {
	if os.Getenv(roleVar) != "" {
		os.Exit(writeTwice())
	}
	os.Exit(m.Run())
}

// writeTwice appends to the log in its working directory, twice, on one thread, and ends with
// 0 where both went well, 10 where the first failed and the second was refused.
func writeTwice() int {
	runtime.LockOSThread()
	l, err := Open(".")
	if err != nil {
		return 3
	}
	_, first := l.Append(record.Looked, 0, nil, []byte(`"first"`))
	_, second := l.Append(record.Looked, 0, nil, []byte(`"second"`))
	switch {
	case first == nil && second == nil:
		return 0
	case first != nil && errors.Is(second, ErrDead) && l.Reserve(1) != nil:
		return 10
	}
	return 4
}

func open(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t *testing.T, l *Log, kind record.Kind, ref uint64, text string) record.Entry {
	t.Helper()
	detail, err := record.Encode(map[string]string{"text": text})
	if err != nil {
		t.Fatal(err)
	}
	var files []record.File
	if kind == record.Intended {
		files = []record.File{{ID: "4XyZ", Inode: 17}, {ID: "3gz8Fx0bCdzAb", Inode: 18}}
	}
	e, err := l.Append(kind, ref, files, detail)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.ReadBack(e); err != nil {
		t.Fatal(err)
	}
	return e
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// sample is a log of five entries and the directory it is in; text is the file.
func sample(t *testing.T) (dir string, text []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "audit")
	l := open(t, dir)
	i := add(t, l, record.Intended, 0, "caf\u00e9 \U0001F4EC \x1b[2J\n{\"}")
	add(t, l, record.Settled, i.Seq, "]")
	add(t, l, record.Intended, 0, "")
	add(t, l, record.Looked, 0, "x")
	shut(t, l)
	return dir, read(t, dir, LogName)
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, dir, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func verify(t *testing.T, text, checkpoints []byte, key string) Report {
	t.Helper()
	r, err := Verify(bytes.NewReader(text), checkpoints, key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// entries reads a log whole.
func entries(t *testing.T, text []byte) []record.Entry {
	t.Helper()
	var all []record.Entry
	for e, err := range Read(bytes.NewReader(text)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func TestWhatIsAppendedIsRead(t *testing.T) {
	_, text := sample(t)
	all := entries(t, text)
	if len(all) != 5 || all[0].Kind != record.Begin || len(all[1].Files) != 2 || all[1].Files[0].Inode != 17 || all[2].Ref != 2 {
		t.Fatalf("read %+v", all)
	}
	if want := `{"text":"caf\u00e9 \ud83d\udcec \u001b[2J\n{\"}"}`; string(all[1].Detail) != want {
		t.Errorf("detail %s, want %s", all[1].Detail, want)
	}
	r := verify(t, text, nil, "")
	if !r.Whole() || r.Entries != 5 || r.Head != all[4].Hash || !r.FromLog || r.Covered != 0 {
		t.Errorf("report %+v", r)
	}
}

// TestEveryFlippedBitIsFound: each bit of the file, and the entry named is the
// one that has it.
func TestEveryFlippedBitIsFound(t *testing.T) {
	_, text := sample(t)
	seq := uint64(1)
	for i := range text {
		for bit := range 8 {
			text[i] ^= 1 << bit
			if r := verify(t, text, nil, ""); r.Bad == nil || r.Bad.Seq != seq || r.Whole() {
				t.Fatalf("byte %d, bit %d: %+v, want entry %d", i, bit, r.Bad, seq)
			}
			text[i] ^= 1 << bit
		}
		if text[i] == '\n' {
			seq++
		}
	}
}

// TestEveryTruncationIsFound: in a line by the line, between lines by the
// checkpoint alone.
func TestEveryTruncationIsFound(t *testing.T) {
	dir, text := sample(t)
	l := open(t, dir)
	if _, err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	checkpoints := read(t, dir, CheckpointsName)
	if r := verify(t, text, checkpoints, ""); !r.Whole() || r.Covered != 5 || r.Checkpoints != 1 {
		t.Fatalf("the log as it is: %+v", r)
	}
	for n := range text {
		r := verify(t, text[:n], checkpoints, keyOf(t, text))
		lines := uint64(bytes.Count(text[:n], []byte("\n")))
		if r.Bad == nil || r.Bad.Seq != lines+1 {
			t.Fatalf("cut at %d: %+v, want entry %d", n, r.Bad, lines+1)
		}
		between := n == 0 || text[n-1] == '\n'
		if bare := verify(t, text[:n], nil, ""); (bare.Bad == nil) != between || !between && !errors.Is(bare.Bad, ErrCut) {
			t.Fatalf("cut at %d, no checkpoint: %+v", n, bare.Bad)
		}
	}
}

// keyOf is the key that a log says verifies its checkpoints.
func keyOf(t *testing.T, text []byte) string {
	t.Helper()
	return verify(t, text, nil, "").Key
}

func TestDroppedSwappedAndSplicedLinesAreFound(t *testing.T) {
	_, text := sample(t)
	_, other := sample(t)
	lines, foreign := bytes.SplitAfter(text, []byte("\n"))[:5], bytes.SplitAfter(other, []byte("\n"))[:5]
	check := func(name string, with [][]byte, seq int) {
		t.Helper()
		r := verify(t, bytes.Join(with, nil), nil, "")
		if r.Bad == nil || r.Bad.Seq != uint64(seq) || errors.Is(r.Bad, ErrCut) && seq < len(with) {
			t.Errorf("%s: %+v, want entry %d", name, r.Bad, seq)
		}
	}
	for i := range 4 {
		check(fmt.Sprintf("drop %d", i), slices.Delete(slices.Clone(lines), i, i+1), i+1)
		swapped := slices.Clone(lines)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		check(fmt.Sprintf("swap %d", i), swapped, i+1)
		check(fmt.Sprintf("double %d", i), slices.Insert(slices.Clone(lines), i, lines[i]), i+2)
		check(fmt.Sprintf("insert %d", i), slices.Insert(slices.Clone(lines), i+1, []byte("\n")), i+2)
		check(fmt.Sprintf("splice %d", i), slices.Concat(lines[:i+1], foreign[i+1:]), i+2)
	}
}

// TestRewrittenLogIsFound: with hashes that fit, only a signature tells.
func TestRewrittenLogIsFound(t *testing.T) {
	dir, text := sample(t)
	l := open(t, dir)
	outside, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	add(t, l, record.Looked, 0, "more")
	if _, err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	now, key := read(t, dir, LogName), keyOf(t, text)
	checkpoints := read(t, dir, CheckpointsName)
	if r := verify(t, now, checkpoints, key); !r.Whole() || r.Checkpoints != 2 || r.Covered != 6 {
		t.Fatalf("the log as it is: %+v", r)
	}
	forged := rewrite(t, now, 4)
	if r := verify(t, forged, nil, key); r.Bad != nil {
		t.Fatalf("the forgery is not good enough to test with: %v", r.Bad)
	}
	if r := verify(t, forged, checkpoints, key); r.Bad == nil || r.Bad.Seq != 1 || r.Whole() {
		t.Errorf("rewritten: %+v", r)
	}
	// Log and checkpoints go back to an old state together.
	early := bytes.Join(bytes.SplitAfter(text, []byte("\n"))[:3], nil)
	if r := verify(t, early, nil, key); r.Bad != nil {
		t.Fatalf("the roll-back is not good enough to test with: %v", r.Bad)
	}
	if r := verify(t, early, []byte(outside), key); r.Bad == nil || r.Bad.Seq != 4 {
		t.Errorf("rolled back: %+v", r)
	}
	// The forger has a key, but not this one; and a checkpoint is no text of anybody's.
	secret, _, err := note.GenerateKey(strings.NewReader(strings.Repeat("k", 64)), signerName)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	n := outside[:strings.Index(outside, "\n\n")+1]
	signed, err := note.Sign(&note.Note{Text: n}, signer)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"other key": string(signed), "other text": strings.Replace(outside, "\n5\n", "\n4\n", 1)} {
		if r := verify(t, now, []byte(text), key); len(r.BadCheckpoints) != 1 || r.Whole() {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := verify(t, now, checkpoints[:len(checkpoints)-20], key); r.CutCheckpoints != 1 || r.Covered != 5 || !r.Whole() {
		t.Errorf("cut checkpoint: %+v", r)
	}
	// The log itself signs nothing on top of what does not fit.
	write(t, dir, LogName, forged)
	l = open(t, dir)
	if _, err := l.Checkpoint(); !errors.Is(err, ErrDamaged) {
		t.Errorf("it signed a log that is another: %v", err)
	}
	shut(t, l)
}

// rewrite changes one entry and makes all hashes fit again.
func rewrite(t *testing.T, text []byte, seq uint64) []byte {
	t.Helper()
	var out []byte
	prev := record.NoHash
	for _, e := range entries(t, text) {
		e.Prev = prev
		if e.Seq == seq {
			e.Detail = []byte(`"nothing happened"`)
		}
		var err error
		if out, err = record.AppendLine(out, &e); err != nil {
			t.Fatal(err)
		}
		prev = e.Hash
	}
	return out
}

// TestTornEndIsHealed: at every cut, and again in the middle of the heal.
func TestTornEndIsHealed(t *testing.T) {
	dir, text := sample(t)
	last := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
	for n := last + 1; n < len(text); n++ {
		write(t, dir, LogName, text[:n])
		l := open(t, dir)
		add(t, l, record.Looked, 0, "after")
		shut(t, l)
		healed := read(t, dir, LogName)
		if !bytes.HasPrefix(healed, text[:n]) {
			t.Fatalf("cut at %d: what was there is not there any more", n)
		}
		r := verify(t, healed, nil, "")
		torn := 1
		if n == len(text)-1 { // only the line end was missing: it is an entry
			torn = 0
		}
		if !r.Whole() || r.Torn != torn || r.Entries != 6 {
			t.Fatalf("cut at %d: %+v", n, r)
		}
		all := entries(t, healed)
		if (all[4].Kind == record.Torn) != (torn == 1) {
			t.Fatalf("cut at %d: entry 5 is of kind %q", n, all[4].Kind)
		}
	}
	// A heal that is itself cut, anywhere.
	write(t, dir, LogName, text[:len(text)-9])
	shut(t, open(t, dir))
	once := read(t, dir, LogName)
	for n := len(text) - 8; n < len(once); n++ {
		write(t, dir, LogName, once[:n])
		shut(t, open(t, dir))
		if r := verify(t, read(t, dir, LogName), nil, ""); !r.Whole() || r.Torn != 1 || r.Entries != 5 {
			t.Fatalf("heal cut at %d: %+v", n, r)
		}
	}
}

// TestTornBeginIsHealed: the very first line, cut anywhere.
func TestTornBeginIsHealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	shut(t, open(t, dir))
	text := read(t, dir, LogName)
	for n := range text {
		write(t, dir, LogName, text[:n])
		l := open(t, dir)
		if _, err := l.Checkpoint(); err != nil && n == 0 {
			t.Fatal(err)
		}
		shut(t, l)
		healed := read(t, dir, LogName)
		if r := verify(t, healed, nil, ""); !r.Whole() {
			t.Fatalf("cut at %d: %+v", n, r.Bad)
		}
		if err := os.Remove(filepath.Join(dir, CheckpointsName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// TestDamageIsNotHealed: what no crash does stays damage, for good.
func TestDamageIsNotHealed(t *testing.T) {
	dir, text := sample(t)
	middle := bytes.IndexByte(text, '\n') + 100
	text[middle] ^= 1
	write(t, dir, LogName, text)
	l := open(t, dir)
	add(t, l, record.Looked, 0, "after")
	if _, err := l.Checkpoint(); !errors.Is(err, ErrDamaged) {
		t.Errorf("it signed a damaged log: %v", err)
	}
	shut(t, l)
	if r := verify(t, read(t, dir, LogName), nil, ""); r.Bad == nil || r.Bad.Seq != 2 || r.Torn != 0 {
		t.Errorf("report %+v", r)
	}
	write(t, dir, LogName, bytes.Repeat([]byte("garbage\n"), 4000))
	if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file that is no log was opened: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	dir, text := sample(t)
	all := entries(t, text)
	l := open(t, dir)
	if err := l.Adopt(all[3]); err != nil {
		t.Errorf("an open intent: %v", err)
	}
	if err := l.Adopt(all[1]); !errors.Is(err, ErrSettled) {
		t.Errorf("a settled intent: %v", err)
	}
	if err := l.Adopt(all[4]); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("what is no intent: %v", err)
	}
	for name, change := range map[string]func(*record.Entry){
		"file":   func(e *record.Entry) { e.Files = []record.File{{ID: "4XyZ", Inode: 99}} },
		"detail": func(e *record.Entry) { e.Detail = []byte(`"other"`) },
		"number": func(e *record.Entry) { e.Seq++ },
		"place":  func(e *record.Entry) { e.Offset = all[1].Offset },
		"behind": func(e *record.Entry) { e.Offset = 1 << 40 },
	} {
		e := all[3]
		change(&e)
		if err := l.Adopt(e); !errors.Is(err, ErrDiffers) {
			t.Errorf("another %s: %v", name, err)
		}
		if _, err := record.AppendLine(nil, &e); err != nil {
			t.Fatal(err)
		}
		if err := l.Adopt(e); !errors.Is(err, ErrDiffers) && name != "place" && name != "behind" {
			t.Errorf("another %s, with the hash that fits: %v", name, err)
		}
	}
	add(t, l, record.Settled, all[3].Seq, "done")
	if err := l.Adopt(all[3]); !errors.Is(err, ErrSettled) {
		t.Errorf("settled meanwhile: %v", err)
	}
	shut(t, l)
}

func TestAppendRefuses(t *testing.T) {
	dir, text := sample(t)
	l := open(t, dir)
	for name, err := range map[string]error{
		"begin":      second(l.Append(record.Begin, 0, nil, []byte("1"))),
		"torn":       second(l.Append(record.Torn, 0, nil, []byte("1"))),
		"kind":       second(l.Append("In tent", 0, nil, []byte("1"))),
		"ref":        second(l.Append(record.Settled, 6, nil, []byte("1"))),
		"id":         second(l.Append(record.Intended, 0, []record.File{{ID: `A"],"detail":1}`}}, []byte("1"))),
		"line end":   second(l.Append(record.Noted, 0, nil, []byte("1\n2"))),
		"not ASCII":  second(l.Append(record.Noted, 0, nil, []byte("\"\u00e9\""))),
		"no detail":  second(l.Append(record.Noted, 0, nil, nil)),
		"too long":   second(l.Append(record.Noted, 0, nil, bytes.Repeat([]byte("1"), record.MaxDetail+1))),
		"files long": second(l.Append(record.Noted, 0, slices.Repeat([]record.File{{ID: "AAAAAAAAAAAAAAAAAAAA", Inode: 1}}, 1_100_000), []byte("1"))),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if now := read(t, dir, LogName); !bytes.Equal(now, text) {
		t.Error("a refused entry left something behind")
	}
	add(t, l, record.Looked, 0, "still alive")
	// Another writer, in spite of the lock: this one stops.
	write(t, dir, LogName, append(read(t, dir, LogName), "x"...))
	for range 2 {
		if _, err := l.Append(record.Looked, 0, nil, []byte("1")); err == nil {
			t.Error("it wrote behind what another wrote")
		}
	}
	shut(t, l)
}

func second(_ record.Entry, err error) error { return err }

// TestFailedWriteIsTheLast: the kernel tells a failed sync once; the log must
// not believe the next one.
func TestFailedWriteIsTheLast(t *testing.T) {
	for _, c := range []struct {
		call, error string
		whole       bool // the line is there nevertheless
	}{{"fsync", "EIO", true}, {"fsync", "ENOSPC", true}, {"write", "ENOSPC", false}, {"write", "EIO", false}} {
		t.Run(c.call+" "+c.error, func(t *testing.T) {
			dir, text := sample(t)
			trace := filepath.Join(t.TempDir(), "trace")
			cmd := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-o", trace, "-P", filepath.Join(dir, LogName),
				"-e", "trace="+c.call, "-e", "inject="+c.call+":error="+c.error+":when=1", os.Args[0])
			cmd.Env, cmd.Dir = append(os.Environ(), roleVar+"=yes"), dir
			said, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 10 {
				t.Fatalf("%v: %s", err, said)
			}
			now := read(t, dir, LogName)
			if bytes.Contains(now, []byte("second")) || bytes.Contains(now, []byte("first")) != c.whole || !bytes.HasPrefix(now, text) {
				t.Errorf("the file holds %s", now[len(text):])
			}
		})
	}
}

// TestFullDisk: what was reserved can be written when nothing else can.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a small file system, which needs root")
	}
	root := t.TempDir()
	if err := unix.Mount("none", root, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(root, "audit")
	l := open(t, dir)
	if err := l.Reserve(4 << 20); err != nil {
		t.Fatal(err)
	}
	if err := l.Reserve(1 << 30); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("space that is not there was reserved: %v", err)
	}
	err := os.WriteFile(filepath.Join(root, "filler"), make([]byte, 48<<20), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	text := strings.Repeat("x", 1<<20)
	for range 4 {
		add(t, l, record.Looked, 0, text)
	}
	shut(t, l)
	l = open(t, dir) // the reserve outlives its process
	add(t, l, record.Looked, 0, text)
	failed := false
	for range 48 {
		if _, err := l.Append(record.Looked, 0, nil, []byte(`"`+text+`"`)); err != nil {
			failed = errors.Is(err, unix.ENOSPC)
			break
		}
	}
	if !failed {
		t.Error("more was written than the disk holds")
	}
	shut(t, l)
	for e, err := range Read(bytes.NewReader(read(t, dir, LogName))) {
		if err != nil && !errors.Is(err, ErrCut) {
			t.Errorf("after entry %d: %v", e.Seq, err)
		}
	}
}

func TestModesAndLinks(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "state", "audit")
	l := open(t, dir)
	if _, err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	for name, mode := range map[string]fs.FileMode{"": 0o700, LogName: 0o600, CheckpointsName: 0o600, KeyName: 0o600} {
		if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v", name, st.Mode(), err)
		}
	}
	for _, name := range []string{LogName, CheckpointsName, KeyName} {
		path := filepath.Join(dir, name)
		for kind, lay := range map[string]func() error{
			"link": func() error { return os.Symlink(path+".away", path) },
			"hard": func() error { return os.Link(path+".away", path) },
			"fifo": func() error { return unix.Mkfifo(path, 0o600) },
		} {
			if name == KeyName && kind == "hard" {
				continue // it is only read, in a directory that is ours alone
			}
			if err := errors.Join(os.Rename(path, path+".away"), lay()); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir)
			if err == nil {
				_, err = l.Checkpoint()
				shut(t, l)
			}
			if err == nil {
				t.Errorf("a %s in place of %s was used", kind, name)
			}
			if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := errors.Join(os.Symlink(dir, link), os.Chmod(dir, 0o750)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dir} {
		if _, err := Open(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestTreeIsThatOfTheStandard compares our edge of the tree with the whole
// tree of the library.
func TestTreeIsThatOfTheStandard(t *testing.T) {
	var ours tree
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var got []tlog.Hash
		for _, i := range indexes {
			got = append(got, stored[i])
		}
		return got, nil
	})
	for i := range int64(300) {
		line := fmt.Appendf(nil, "line %d", i)
		ours.add(line)
		more, err := tlog.StoredHashes(i, line, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		want, err := tlog.TreeHash(i+1, reader)
		if err != nil || ours.root() != want {
			t.Fatalf("%d leaves: %v, want %v, %v", i+1, ours.root(), want, err)
		}
	}
}
