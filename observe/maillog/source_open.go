package maillog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/postfix"
)

// logFile is a log file as it was when it was opened.
type logFile struct {
	*os.File
	name  string // with its folder
	inode inode
	size  int64
	// written is when it was last changed, which is the time of its last line.
	written time.Time
	owner   uint32
	group   uint32
	mode    uint32
}

// inode names a file whatever its name is.
type inode struct{ device, number uint64 }

// How logs are opened: O_NONBLOCK so that a pipe in place of a log does not
// hang, O_NOATIME so that looking leaves no trace.
const openFlags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK

var errNotRegular = errors.New("it is no regular file")

// openLog opens a log, or with name the file of that name beside it. It does so
// with its own rights where they suffice, since those can do least harm; the
// opener is root and refuses links. The access time is touched only where the
// file is another user's and nobody else can open it.
func openLog(path, name string, root *opener.Opener) (*logFile, error) {
	full := path
	if name != "" {
		full = filepath.Join(filepath.Dir(path), name)
	}
	fd, err := openRetrying(full, openFlags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		absolute, wrong := filepath.Abs(path)
		f, refused := root.Log(absolute, name)
		switch {
		case wrong == nil && refused == nil:
			return newLogFile(f, full)
		case errors.Is(refused, unix.ENOENT): // the folder is not ours to look into
			err = unix.ENOENT
		case errors.Is(err, unix.EPERM): // only of O_NOATIME
			fd, err = openRetrying(full, openFlags)
		case !errors.Is(refused, opener.ErrNone):
			err = fmt.Errorf("%w, and root opens no link and no file with two names (%w)", err, refused)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: full, Err: err}
	}
	return newLogFile(os.NewFile(uintptr(fd), full), full)
}

func openRetrying(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func newLogFile(f *os.File, name string) (*logFile, error) {
	l := &logFile{File: f, name: name}
	if err := l.look(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if l.mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.Join(errNotRegular, f.Close())}
	}
	return l, nil
}

// look takes what the file system says of the file now.
func (f *logFile) look() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.name, Err: err}
	}
	f.inode, f.size, f.written = inodeOf(&st), st.Size, time.Unix(st.Mtim.Unix())
	f.owner, f.group, f.mode = st.Uid, st.Gid, st.Mode
	return nil
}

func inodeOf(st *unix.Stat_t) inode {
	return inode{device: st.Dev, number: st.Ino}
}

// close forgets a file that was only read: there is nothing to be told.
func (f *logFile) close() { _ = f.Close() }

// trust grades a file. postlogd's file is as good as the rights around it:
// whoever may write into a folder above it may put another file in its place.
func (f *logFile) trust(configured bool, mailOwner string) observe.Trust {
	if !configured {
		return observe.TrustPlain
	}
	owner := uint32(0)
	if u, err := user.Lookup(mailOwner); err == nil {
		if id, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
			owner = uint32(id)
		}
	}
	guarded := func(uid, gid, mode uint32) bool {
		const sticky = unix.S_ISVTX
		folder := mode&unix.S_IFMT == unix.S_IFDIR
		open := mode&unix.S_IWOTH != 0 || mode&unix.S_IWGRP != 0 && gid != 0
		return (uid == 0 || uid == owner) && (!open || folder && mode&sticky != 0)
	}
	if !guarded(f.owner, f.group, f.mode) {
		return observe.TrustPlain
	}
	path, err := filepath.Abs(f.name)
	if err != nil {
		return observe.TrustPlain
	}
	for path != "/" {
		path = filepath.Dir(path)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || !guarded(st.Uid, st.Gid, st.Mode) {
			return observe.TrustPlain
		}
	}
	return observe.TrustGuarded
}

// fileGap says that a file could not be read and what would let it.
func fileGap(path string, err error) observe.Gap {
	g := observe.Gap{Source: gapSource, Object: path, Text: err.Error()}
	var wrong *fs.PathError
	if errors.As(err, &wrong) {
		g.Object, g.Text = wrong.Path, wrong.Err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		g.Hint = "run as root" + groupHint(g.Object)
	case errors.Is(err, fs.ErrNotExist):
		g.Hint = "it is made when the first line is written; look whether Postfix, or the syslog service, was told of the last rotation"
	case errors.Is(err, errNotRegular):
		g.Hint = "name a file"
	}
	return g
}

// groupHint names the group that may read a file, which is adm on Debian.
func groupHint(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IRGRP == 0 {
		return ""
	}
	group, err := user.LookupGroupId(strconv.FormatUint(uint64(st.Gid), 10))
	if err != nil || st.Gid == 0 {
		return ""
	}
	return fmt.Sprintf(", or as a member of the group %q", group.Name)
}

// readsAs names the account that the trust of a file depends on.
func readsAs(in postfix.Instance) string {
	if in.MailOwner == "" {
		return "postfix"
	}
	return in.MailOwner
}
