package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAppendGrowsAndSaysWhere(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "log")
	for i := range 3 { // the first makes the file, the others find it
		a, err := OpenAppend(path, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if offset, err := a.Append([]byte("line\n")); err != nil || offset != int64(5*i) || a.Size() != offset+5 {
			t.Errorf("at %d, size %d, %v", offset, a.Size(), err)
		}
		if err := a.Reserve(1 << 20); err != nil {
			t.Error(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Size != int64(5*i+5) || st.Blocks*512 < 1<<20 || st.Mode&0o7777 != 0o640 {
			t.Errorf("size %d, %d blocks, mode %o, %v", st.Size, st.Blocks, st.Mode, err)
		}
		got := make([]byte, 5)
		if _, err := a.ReadAt(got, int64(5*i)); err != nil || string(got) != "line\n" {
			t.Errorf("read %q, %v", got, err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAppendDiesOfAForeignWrite: and of every other failure, for good.
func TestAppendDiesOfAForeignWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	a, err := OpenAppend(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Append([]byte("x")); !errors.Is(err, ErrForeignWrite) || errors.Is(err, ErrDead) {
		t.Errorf("first: %v", err)
	}
	if err := os.Truncate(path, 0); err != nil { // as if nothing had been
		t.Fatal(err)
	}
	if _, err := a.Append([]byte("x")); !errors.Is(err, ErrDead) || !errors.Is(err, ErrForeignWrite) {
		t.Errorf("second: %v", err)
	}
	if err := a.Reserve(1); !errors.Is(err, ErrDead) {
		t.Errorf("reserve: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != 0 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestAppendRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(at("target"), nil, 0o600), os.Symlink(at("target"), at("link")), os.Symlink(at("nowhere"), at("dangling")),
		os.WriteFile(at("one"), nil, 0o600), os.Link(at("one"), at("two")), unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("dir"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	names := []string{"link", "dangling", "two", "fifo", "dir", "missing/log"}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.WriteFile(at("foreign"), nil, 0o600), os.Chown(at("foreign"), 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		names = append(names, "foreign")
	}
	for _, name := range names {
		if a, err := OpenAppend(at(name), 0o600); err == nil {
			t.Errorf("%s was opened", name)
			_ = a.Close()
		}
	}
	if _, err := os.Lstat(at("nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link was followed: %v", err)
	}
}

func TestCreateGivesTheNameLast(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "pack")
	f, err := Create(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := f.Write([]byte(strings.Repeat("x", 100_000))); err != nil {
			t.Fatal(err)
		}
	}
	names := list(t, dir)
	if len(names) != 1 || !strings.HasSuffix(names[0], unfinished) {
		t.Errorf("while it is written: %v", names)
	}
	if st, err := os.Stat(filepath.Join(dir, names[0])); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("while it is written: %v, %v", st.Mode(), err)
	}
	got := make([]byte, 2)
	if _, err := f.ReadAt(got, 299_998); err != nil || string(got) != "xx" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := f.Discard(); err != nil { // as when deferred
		t.Error(err)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a second time: %v", err)
	}
	st, err := os.Stat(path)
	if names := list(t, dir); err != nil || st.Size() != 300_000 || st.Mode().Perm() != 0o640 || !slices.Equal(names, []string{"pack"}) {
		t.Errorf("%v, %v, %v", st, names, err)
	}
}

// TestCreateReplacesNothing: whatever has the name keeps it.
func TestCreateReplacesNothing(t *testing.T) {
	for kind, lay := range map[string]func(path string) error{
		"file":      func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"link":      func(p string) error { return os.Symlink("nowhere", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "pack")
		f, err := Create(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		if err := lay(path); err != nil { // while it is being written
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Commit(); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", kind, err)
		}
		after, err := os.Lstat(path)
		if names := list(t, dir); err != nil || !os.SameFile(before, after) || len(names) != 1 {
			t.Errorf("%s: %v, %v", kind, names, err)
		}
	}
}

func TestCreateCanBeDiscarded(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "pack"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Discard(); err != nil {
			t.Error(err)
		}
	}
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	for _, path := range []string{dir + "/..", "/", filepath.Join(dir, "missing", "x"), filepath.Join(dir, "x"+unfinished)} {
		if f, err := Create(path, 0o600); err == nil {
			t.Errorf("%q was begun", path)
			_ = f.Discard()
		}
	}
}
