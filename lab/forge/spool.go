package forge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// Owner is the account that the files are given to.
type Owner struct{ UID, GID int }

// Spool is a queue directory to write into. Its methods may be called from
// several goroutines.
type Spool struct {
	// Dir is queue_directory.
	Dir string
	// Owner is the mail owner; nil leaves files to the caller's account.
	Owner *Owner
	// LongIDs and HashDepth are enable_long_queue_ids and hash_queue_depth.
	LongIDs   bool
	HashDepth int
	// Hashed is hash_queue_names; nil means "deferred" and "defer".
	Hashed []string

	temporary atomic.Uint64
}

// Make creates the directories of an empty spool with the modes of Postfix's
// own list (conf/postfix-files). Those that are there are left alone.
func (s *Spool) Make() error {
	modes := map[string]fs.FileMode{"maildrop": 0o730, "public": 0o710, "pid": 0o755}
	for _, name := range []string{
		"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming",
		"maildrop", "pid", "private", "public", "saved", "trace",
	} {
		mode, ok := modes[name]
		if !ok {
			mode = 0o700
		}
		if err := s.mkdir(filepath.Join(s.Dir, name), mode); err != nil {
			return err
		}
	}
	return nil
}

// Write puts m and its logs into the spool and returns its queue ID. The logs
// come first: a message that is there without its reasons would be a moment
// that no real queue shows.
func (s *Spool) Write(m *Message) (postfix.QueueID, error) {
	files := Lay(m)
	next := m.NextTry
	if next.IsZero() {
		next = m.Arrival
	}
	named := time.Unix(m.created().Unix(), int64(m.Arrival.Nanosecond()))
	file, err := s.create(m.queue().String(), files.Queue)
	if err != nil {
		return "", err
	}
	id := m.ID
	if id == "" {
		id = s.newID(named, file.inode)
	}
	if err := s.writeLogs(id, files); err != nil {
		return "", errors.Join(err, os.Remove(file.path))
	}
	return id, s.finish(file, m.queue().String(), id, m.mode(), next)
}

// WriteRaw puts arbitrary bytes where a ready message would lie, under a name
// that follows the inode rule: for damaged files.
func (s *Spool) WriteRaw(queue postfix.Queue, at time.Time, data []byte) (postfix.QueueID, error) {
	file, err := s.create(queue.String(), data)
	if err != nil {
		return "", err
	}
	id := s.newID(at, file.inode)
	return id, s.finish(file, queue.String(), id, (&Message{Queue: queue}).mode(), at)
}

// Path returns where the file of a message, or one of its logs ("defer",
// "bounce", "trace"), belongs.
func (s *Spool) Path(dir string, id postfix.QueueID) string {
	return filepath.Join(s.Dir, dir, id.HashPath(s.depth(dir)), string(id))
}

func (s *Spool) depth(dir string) int {
	hashed := s.Hashed
	if hashed == nil {
		hashed = []string{"deferred", "defer"}
	}
	if !slices.Contains(hashed, dir) {
		return 0
	}
	return s.HashDepth
}

func (s *Spool) newID(at time.Time, inode uint64) postfix.QueueID {
	if s.LongIDs {
		return postfix.NewLongID(at, inode)
	}
	return postfix.NewShortID(at, inode)
}

// mode returns the permission bits that carry the state of a queue file.
func (m *Message) mode() fs.FileMode {
	mode := fs.FileMode(0o700)
	switch {
	case m.Unfinished && m.queue() == postfix.Maildrop:
		return 0o644
	case m.Unfinished:
		return 0o600
	case m.queue() == postfix.Maildrop:
		mode = 0o744
	}
	if m.ForceExpire {
		mode |= 0o010
	}
	if m.FlushRequested {
		mode |= 0o040
	}
	return mode
}

// tempFile is a file under a name that Postfix ignores (it has a dot).
type tempFile struct {
	path  string
	inode uint64
}

// create writes the data under a temporary name in the top of the directory,
// as mail_queue_enter does: the name needs the inode, so the file comes first.
func (s *Spool) create(dir string, data []byte) (tempFile, error) {
	name := fmt.Sprintf("%d.%d", s.temporary.Add(1), os.Getpid())
	path := filepath.Join(s.Dir, dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return tempFile{}, fmt.Errorf("create queue file: %w", err)
	}
	var st unix.Stat_t
	_, err = f.Write(data)
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err == nil && s.Owner != nil {
		err = f.Chown(s.Owner.UID, s.Owner.GID)
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return tempFile{}, errors.Join(fmt.Errorf("write queue file %q: %w", path, err), os.Remove(path))
	}
	return tempFile{path: path, inode: st.Ino}, nil
}

// finish gives a file its name, its time and last its mode. It never replaces
// another file: two messages under one ID would be one lost.
func (s *Spool) finish(file tempFile, dir string, id postfix.QueueID, mode fs.FileMode, at time.Time) error {
	target := s.Path(dir, id)
	err := unix.Renameat2(unix.AT_FDCWD, file.path, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.hashDirs(dir, id); err == nil {
			err = unix.Renameat2(unix.AT_FDCWD, file.path, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("name queue file %q: %w", target, err), os.Remove(file.path))
	}
	if err := os.Chtimes(target, at, at); err != nil {
		return fmt.Errorf("set next attempt of %q: %w", target, err)
	}
	if err := os.Chmod(target, mode); err != nil {
		return fmt.Errorf("finish queue file %q: %w", target, err)
	}
	return nil
}

func (s *Spool) writeLogs(id postfix.QueueID, files Files) error {
	for _, log := range []struct {
		dir  string
		data []byte
	}{{"defer", files.Defer}, {"bounce", files.Bounce}} {
		if log.data == nil {
			continue
		}
		file, err := s.create(log.dir, log.data)
		if err != nil {
			return err
		}
		if err := s.finish(file, log.dir, id, 0o600, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// hashDirs makes the hash directories of an ID, owned by the mail owner:
// postsuper dies on one that belongs to somebody else.
func (s *Spool) hashDirs(dir string, id postfix.QueueID) error {
	path := filepath.Join(s.Dir, dir)
	for _, c := range id.HashPath(s.depth(dir)) {
		if c == '/' {
			continue
		}
		path = filepath.Join(path, string(c))
		if err := s.mkdir(path, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spool) mkdir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return fmt.Errorf("make spool directory: %w", err)
	}
	// Mkdir is subject to the umask, and the mode here is part of the format.
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("set mode of spool directory: %w", err)
	}
	if s.Owner != nil && filepath.Base(path) != "pid" {
		if err := os.Chown(path, s.Owner.UID, s.Owner.GID); err != nil {
			return fmt.Errorf("give spool directory to the mail owner: %w", err)
		}
	}
	return nil
}
