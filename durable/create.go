package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is a new file that is being written under a name of its own. It has its
// final name only after Commit, whole and on disk.
type File struct {
	file *os.File
	dir  *os.File
	name string // for the time being
	base string
	perm fs.FileMode
	err  error // of the first write that failed
}

// Create begins a file that is too large to be held in memory. Nobody sees it
// under its path before Commit. A process that ends before leaves it to Sweep.
func Create(path string, perm fs.FileMode) (*File, error) {
	dir, err := openDir(filepath.Dir(path), 0)
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", path, err)
	}
	f := &File{dir: dir, base: filepath.Base(path), perm: perm}
	f.name = "." + f.base + "." + rand.Text() + unfinished
	fd, err := unix.Openat(fdOf(dir), f.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %q: %w", path, err), dir.Close())
	}
	f.file = os.NewFile(uintptr(fd), path)
	return f, nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.file.Write(p)
	f.err = err
	return n, err
}

// ReadAt implements io.ReaderAt: what was written can be compared before it is
// committed.
func (f *File) ReadAt(p []byte, offset int64) (int, error) { return f.file.ReadAt(p, offset) }

// Commit gives the file its name. Where there is a file of that name already,
// it fails and that one stays. After an error other than that of the last sync,
// of the directory, there is no file of ours.
func (f *File) Commit() error {
	err := f.err
	if err == nil {
		err = f.file.Chmod(f.perm.Perm())
	}
	if err == nil {
		err = f.file.Sync()
	}
	if closeErr := f.file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = unix.Renameat2(fdOf(f.dir), f.name, fdOf(f.dir), f.base, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create %q: %w", f.base, err), discard(f.dir, f.name), f.dir.Close())
	}
	if err := f.dir.Sync(); err != nil {
		return errors.Join(fmt.Errorf("create %q: sync its directory: %w", f.base, err), f.dir.Close())
	}
	return f.dir.Close()
}

// Discard gives the file up. After Commit it must not be called.
func (f *File) Discard() error {
	return errors.Join(f.file.Close(), discard(f.dir, f.name), f.dir.Close())
}

var _ interface {
	io.Writer
	io.ReaderAt
} = (*File)(nil)
