package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrDead is the answer of an Appender whose file failed once. The kernel
// reports a failed write-back one time and then drops the pages, so a second
// fsync that succeeds proves nothing; only a new look at the file does.
var ErrDead = errors.New("an earlier write to this file failed")

// Appender is a file that only grows. What Append has returned is on disk.
type Appender struct {
	file *os.File
	path string
	size int64
	dead error
}

// OpenAppend opens a file for appending, and makes it with these permissions
// where it is missing. A link in its place is refused, and so is a file with a
// second name. Who appends must hold a Lock: the file knows of one writer.
func OpenAppend(path string, perm fs.FileMode) (*Appender, error) {
	flags := os.O_RDWR | os.O_APPEND | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err = Replace(path, nil, perm); err == nil {
			f, err = os.OpenFile(path, flags, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %q to append: %w", path, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fdOf(f), &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1) {
		err = unix.EMLINK
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %q to append: %w", path, err), f.Close())
	}
	return &Appender{file: f, path: path, size: st.Size}, nil
}

// Size is the size of the file in bytes.
func (a *Appender) Size() int64 { return a.size }

// ReadAt implements io.ReaderAt.
func (a *Appender) ReadAt(p []byte, offset int64) (int, error) { return a.file.ReadAt(p, offset) }

// Append writes data at the end and returns where it lies, when it is on disk.
// After an error nothing is known about the end of the file, and the Appender
// takes no more.
func (a *Appender) Append(data []byte) (int64, error) {
	if a.dead != nil {
		return 0, fmt.Errorf("append to %q: %w: %w", a.path, ErrDead, a.dead)
	}
	offset := a.size
	_, err := a.file.Write(data)
	if err == nil {
		err = a.file.Sync()
	}
	if err != nil {
		a.dead = err
		return 0, fmt.Errorf("append to %q: %w", a.path, err)
	}
	a.size += int64(len(data))
	return offset, nil
}

// Reserve sets space aside behind the end of the file, so that this many bytes
// can be appended when the disk is full. The size of the file does not change.
func (a *Appender) Reserve(bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	for {
		err := unix.Fallocate(fdOf(a.file), unix.FALLOC_FL_KEEP_SIZE, a.size, bytes)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("reserve %d bytes for %q: %w", bytes, filepath.Base(a.path), err)
		}
	}
}

// Close closes the file; all that was appended is on disk already.
func (a *Appender) Close() error {
	if err := a.file.Close(); err != nil {
		return fmt.Errorf("close %q: %w", a.path, err)
	}
	return nil
}

var _ io.ReaderAt = (*Appender)(nil)
