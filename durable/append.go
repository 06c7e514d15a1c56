package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrDead is what every call on an Appender returns after a write or a sync
// of it has failed.
var ErrDead = errors.New("nothing is written any more after a failed write")

// ErrForeignWrite says that a file is not as this process left it.
var ErrForeignWrite = errors.New("another process wrote to the file")

// Appender is a file that only grows. After the first failure of a write or
// a sync it writes nothing any more: since Linux 4.13 a failed fsync is told
// once, the pages are then clean, and the next one succeeds without the data
// being on disk. Who needs the file again opens it again and reads what is there.
//
// One process at a time may have it open; that is for the caller's Lock.
type Appender struct {
	file *os.File
	size int64
	dead error
}

// OpenAppend opens a file to append to, and makes it, with these permissions
// whatever the umask is, where it is missing. It refuses what is no regular
// file, has a second name, or belongs to another user: whoever can lay such a
// thing in the way could also write to it.
func OpenAppend(path string, perm fs.FileMode) (*Appender, error) {
	const flags = os.O_RDWR | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = newAppend(path, flags, perm)
	}
	if err != nil {
		return nil, fmt.Errorf("open %q to append: %w", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fdOf(f), &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || int(st.Uid) != os.Geteuid()) {
		err = fmt.Errorf("it is no plain file of ours: %w", unix.EPERM)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("open %q to append: %w", path, err)
	}
	return &Appender{file: f, size: st.Size}, nil
}

// newAppend makes an empty file whose name survives a power cut.
func newAppend(path string, flags int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err = f.Chmod(perm.Perm()); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = f.Close() // it is empty
		return nil, err
	}
	return f, nil
}

// Append writes data at the end and returns where it lies, when it is on disk.
// After an error a part of data may be there, or all of it.
func (a *Appender) Append(data []byte) (offset int64, err error) {
	if a.dead != nil {
		return 0, fmt.Errorf("append to %q: %w, which was: %w", a.file.Name(), ErrDead, a.dead)
	}
	if err := a.write(data); err != nil {
		a.dead = err
		return 0, fmt.Errorf("append to %q: %w", a.file.Name(), err)
	}
	offset = a.size
	a.size += int64(len(data))
	return offset, nil
}

func (a *Appender) write(data []byte) error {
	// A lock is advice. Where it was not heeded, the offsets that this process
	// remembers are wrong, and it must not go on by them.
	st, err := a.file.Stat()
	if err != nil {
		return err
	}
	if st.Size() != a.size {
		return fmt.Errorf("%w: %d bytes, not %d", ErrForeignWrite, st.Size(), a.size)
	}
	if _, err := a.file.Write(data); err != nil {
		return err
	}
	return a.file.Sync()
}

// Size returns how long the file is.
func (a *Appender) Size() int64 { return a.size }

// ReadAt implements io.ReaderAt.
func (a *Appender) ReadAt(p []byte, offset int64) (int, error) { return a.file.ReadAt(p, offset) }

// Reserve sets aside disk space for so many bytes more, without a change of
// the file's length, so that they can be written when the disk is full. The
// space stays with the file when it is closed.
//
// A failed reservation leaves the file as it was, and alive.
func (a *Appender) Reserve(bytes int64) error {
	if a.dead != nil {
		return fmt.Errorf("reserve space for %q: %w, which was: %w", a.file.Name(), ErrDead, a.dead)
	}
	for {
		err := unix.Fallocate(fdOf(a.file), unix.FALLOC_FL_KEEP_SIZE, a.size, bytes)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reserve %d bytes for %q: %w", bytes, a.file.Name(), err)
		}
		return nil
	}
}

// Close lets go of the file. All that was appended is on disk before.
func (a *Appender) Close() error {
	if err := a.file.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
