package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// File is a new file that is written bit by bit and has its name only when it
// is whole. It ends by Commit or by Discard; a process that dies in between
// leaves an unfinished file, which Sweep removes.
type File struct {
	path, temporary string
	perm            fs.FileMode
	dir, file       *os.File
	failed          error
}

// Create begins a file that does not exist yet.
func Create(path string, perm fs.FileMode) (*File, error) {
	base := filepath.Base(path)
	if base == "." || base == ".." || base == "/" || strings.HasSuffix(base, unfinished) {
		return nil, fmt.Errorf("create %q: %w", path, unix.EINVAL)
	}
	dir, err := openDir(filepath.Dir(path), 0)
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", path, err)
	}
	c := &File{path: path, temporary: "." + base + "." + rand.Text() + unfinished, perm: perm, dir: dir}
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(fdOf(dir), c.temporary, flags, 0o600)
	if err != nil {
		_ = dir.Close() // only ever synced
		return nil, fmt.Errorf("create %q: %w", path, err)
	}
	c.file = os.NewFile(uintptr(fd), path)
	return c, nil
}

// Write implements io.Writer. After an error Commit fails.
func (c *File) Write(p []byte) (int, error) {
	if c.failed != nil {
		return 0, c.failed
	}
	n, err := c.file.Write(p)
	if err != nil {
		c.failed = fmt.Errorf("write the new file: %w", err)
		return n, c.failed
	}
	return n, nil
}

// ReadAt implements io.ReaderAt: what was written can be compared before it
// gets its name.
func (c *File) ReadAt(p []byte, offset int64) (int, error) { return c.file.ReadAt(p, offset) }

// Commit makes the file last and gives it its name. Where something has that
// name already, a link too, it fails with fs.ErrExist and what is there stays.
// After any error but one of the last sync the file is gone; after that one it
// is there, and a power cut can still undo it.
func (c *File) Commit() error {
	if c.file == nil {
		return fmt.Errorf("create %q: %w", c.path, fs.ErrClosed)
	}
	err := c.failed
	if err == nil {
		err = c.file.Chmod(c.perm.Perm())
	}
	if err == nil {
		err = c.file.Sync()
	}
	if closeErr := c.file.Close(); err == nil {
		err = closeErr // a network file system reports a failed write only here
	}
	c.file = nil
	defer func() { _ = c.dir.Close() }() // only ever synced
	if err == nil {
		err = unix.Renameat2(fdOf(c.dir), c.temporary, fdOf(c.dir), filepath.Base(c.path), unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create %q: %w", c.path, err), discard(c.dir, c.temporary))
	}
	if err := c.dir.Sync(); err != nil {
		return fmt.Errorf("create %q: sync its directory: %w", c.path, err)
	}
	return nil
}

// Discard drops the file. After Commit it does nothing, so that it can be
// deferred.
func (c *File) Discard() error {
	if c.file == nil {
		return nil
	}
	_ = c.file.Close() // its content is not wanted
	c.file = nil
	err := discard(c.dir, c.temporary)
	_ = c.dir.Close() // only ever synced
	if err != nil {
		return fmt.Errorf("discard %q: %w", c.path, err)
	}
	return nil
}
