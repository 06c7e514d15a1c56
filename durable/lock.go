package durable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is a lock that this process holds. The kernel lets go of it when the
// process ends, however it ends; a lock file that is merely there says nothing.
type Lock struct{ file *os.File }

// HeldError says that somebody else holds a lock.
type HeldError struct {
	Path string
	// Holder is what the holder wrote about itself, "" where nothing is to be
	// read yet. It is a hint for people and no proof.
	Holder string
}

// Error implements error.
func (e *HeldError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("lock %q: another process holds it", e.Path)
	}
	return fmt.Sprintf("lock %q: %s holds it", e.Path, e.Holder)
}

// TryLock takes the lock on a file, which is made where it is missing, or
// returns a HeldError at once. The file is never removed: two processes could
// otherwise hold a lock each, one on the file that was and one on the file that
// is.
func TryLock(path string) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		l := &Lock{f}
		again, err := l.take(path)
		if err == nil && !again {
			return l, nil
		}
		_ = f.Close() // the lock, if there is one, goes with it
		if err != nil {
			return nil, err
		}
	}
}

// take locks the open file, and asks to try again where it is no longer the
// file of that name.
func (l *Lock) take(path string) (again bool, err error) {
	err = unix.Flock(fdOf(l.file), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EINTR):
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, &HeldError{Path: path, Holder: l.holder()}
	case err != nil:
		return false, fmt.Errorf("lock %q: %w", path, err)
	}
	ours, err := l.file.Stat()
	if err != nil {
		return false, fmt.Errorf("lock %q: %w", path, err)
	}
	there, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !os.SameFile(ours, there):
		return true, nil // somebody cleared the directory between open and lock
	case err != nil:
		return false, fmt.Errorf("lock %q: %w", path, err)
	}
	l.sign()
	return false, nil
}

// AcquireLock waits for the lock until the context ends; the error is then a
// HeldError too. It asks again and again rather than wait in the kernel, where
// no context reaches.
func AcquireLock(ctx context.Context, path string) (*Lock, error) {
	pause := time.Millisecond
	for {
		l, err := TryLock(path)
		var held *HeldError
		if !errors.As(err, &held) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}

// Held reports whether some process holds the lock on an open lock file. It does
// not wait, and it keeps nobody from taking the lock for longer than it takes to
// look.
func Held(f *os.File) (bool, error) {
	for {
		err := unix.Flock(fdOf(f), unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return true, nil
		case err == nil:
			err = unix.Flock(fdOf(f), unix.LOCK_UN)
		}
		if err != nil {
			return false, fmt.Errorf("look at lock %q: %w", f.Name(), err)
		}
		return false, nil
	}
}

// Unlock lets go.
func (l *Lock) Unlock() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}

// sign writes who holds the lock into it, for others to name. A full disk must
// not keep anybody from taking a lock, so a failure is nobody's.
func (l *Lock) sign() {
	text := fmt.Sprintf("process %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0]))
	if err := l.file.Truncate(0); err == nil {
		_, _ = l.file.WriteAt([]byte(text), 0)
	}
}

// holder reads what the holder wrote: its first line, if it is one.
func (l *Lock) holder() string {
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 200))
	line, _, whole := strings.Cut(string(text), "\n")
	if err != nil || !whole {
		return "" // just being written
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, line)
}

// File returns the open file of the lock. A child that inherits it holds the
// lock too, until it ends.
func (l *Lock) File() *os.File { return l.file }
