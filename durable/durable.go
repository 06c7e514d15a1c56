// Package durable writes state to disk, and is the only package that does: it
// replaces a file as a whole, makes one piece by piece that gets its name at the
// end, appends to one, erases parts of one, makes directories, and takes locks.
//
// Invariant: after a crash at any moment, of this program or of the machine, a
// file that Replace writes holds either all of the old content or all of the
// new, and once Replace has returned nil it holds the new. That takes the order
// write, fsync, rename, fsync of the directory, and no step may be left out:
// rename without the first sync can show an empty file after a power cut, and
// without the last one the old file can come back.
//
// It never follows a link in place of what it writes, never tries a failed
// fsync again (the kernel may have dropped the pages and then reports success),
// and never reads state: those who own a format read it.
//
// Diagnostics: errors name the step and the path. After any error of Replace
// the old content is in place, but for a failed sync of the directory, where
// the new content is in place and a power cut can still undo it.
//
// Bugs: a process that is killed while it writes leaves its unfinished file
// behind under a name of its own; Sweep removes such files. What a network file
// system or a disk cache makes of fsync is out of reach.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unfinished ends the names of files that are still being written.
const unfinished = ".unfinished"

// Replace gives the file at path this content and these permissions, whatever
// the umask is. The file gets a new inode: who has the old one open keeps the
// old content, and hard links to it stay with it.
//
// Writers that replace the same file side by side do not mix, and the last
// rename wins; who reads before writing needs a Lock around both.
func Replace(path string, data []byte, perm fs.FileMode) error {
	dir, err := openDir(filepath.Dir(path), 0)
	if err != nil {
		return fmt.Errorf("replace %q: %w", path, err)
	}
	defer func() { _ = dir.Close() }() // only ever synced; nothing is left to fail
	base := filepath.Base(path)
	if base == "." || base == ".." || base == "/" || strings.HasSuffix(base, unfinished) {
		return fmt.Errorf("replace %q: %w", path, unix.EINVAL)
	}
	temporary := "." + base + "." + rand.Text() + unfinished
	if err := writeNew(dir, temporary, data, perm); err != nil {
		return errors.Join(fmt.Errorf("replace %q: %w", path, err), discard(dir, temporary))
	}
	if err := unix.Renameat(fdOf(dir), temporary, fdOf(dir), base); err != nil {
		return errors.Join(fmt.Errorf("replace %q: rename the new file: %w", path, err), discard(dir, temporary))
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("replace %q: sync its directory: %w", path, err)
	}
	return nil
}

// writeNew makes a file that is complete and on disk when it returns nil.
func writeNew(dir *os.File, name string, data []byte, perm fs.FileMode) error {
	// The mode is given in full only when the content is: until then nobody
	// else can read a part.
	fd, err := unix.Openat(fdOf(dir), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create the new file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm.Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	// A network file system reports a failed write only here.
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write the new file: %w", err)
	}
	return nil
}

// discard removes a file that did not become the new one.
func discard(dir *os.File, name string) error {
	if err := unix.Unlinkat(fdOf(dir), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the unfinished file %q: %w", filepath.Join(dir.Name(), name), err)
	}
	return nil
}

// Remove removes a file and returns when that is on disk. A file that is not
// there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Sweep removes files from a directory that killed writers left unfinished.
// A younger one may still be written; one that is removed under its writer's
// hands costs that writer an error at its rename, and nobody a content.
func Sweep(path string, olderThan time.Duration) error {
	dir, err := openDir(path, 0)
	if err != nil {
		return fmt.Errorf("sweep %q: %w", path, err)
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("sweep %q: %w", path, err)
	}
	var failed error
	for _, name := range names {
		if !strings.HasPrefix(name, ".") || !strings.HasSuffix(name, unfinished) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fdOf(dir), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue // renamed or swept meanwhile, as it should be
		}
		if time.Since(time.Unix(st.Mtim.Unix())) >= olderThan && st.Mode&unix.S_IFMT == unix.S_IFREG {
			failed = errors.Join(failed, discard(dir, name))
		}
	}
	return failed
}

// MkdirAll makes a directory and those above it that are missing, each with
// these permissions whatever the umask is, and syncs the directory in which
// each was made. What exists is left as it is.
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	st, err := os.Stat(path)
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("make directory %q: %w", path, unix.ENOTDIR)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make directory: %w", err)
	}
	if parent := filepath.Dir(path); parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		if st, statErr := os.Stat(path); statErr == nil && st.IsDir() {
			return nil // somebody else was first
		}
		return fmt.Errorf("make directory: %w", err)
	}
	return finishDir(path, perm)
}

// finishDir gives a new directory its permissions and makes both last.
func finishDir(path string, perm fs.FileMode) error {
	dir, err := openDir(path, unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("make directory %q: %w", path, err)
	}
	defer func() { _ = dir.Close() }()
	if err := dir.Chmod(perm.Perm()); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// MkdirFor makes a directory as MkdirAll does and gives it to a user and
// group, also where it exists already. The directory above it must be one that
// nobody but the caller can write to: else another could put one in its place.
func MkdirFor(path string, perm fs.FileMode, uid, gid int) error {
	if err := MkdirAll(filepath.Dir(filepath.Clean(path)), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	dir, err := openDir(path, unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("make directory %q: %w", path, err)
	}
	err = dir.Chown(uid, gid)
	if closeErr := dir.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return finishDir(path, perm)
}

// openDir opens a directory. A link above what is written is the caller's
// choice, as where /var/lib is one; one in place of a directory that was just
// made is not.
func openDir(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
}

func syncDir(path string) error {
	dir, err := openDir(path, 0)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = dir.Close() }()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// fdOf returns the descriptor of an open file.
func fdOf(f *os.File) int { return int(f.Fd()) }
