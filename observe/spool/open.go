package spool

import (
	"errors"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/postfix"
)

// The spool is opened as the opener opens what it opens.
const (
	fileFlags = opener.FileFlags
	dirFlags  = opener.DirFlags
)

// openAt opens one name below a directory descriptor. It is unix.Openat without
// the copy of the name on the heap, which a hundred thousand files would leave
// behind.
func openAt(dir int, name string, flags int) (int, error) {
	var path [256]byte
	if len(name) >= len(path) || strings.IndexByte(name, 0) >= 0 {
		return unix.Openat(dir, name, flags, 0)
	}
	copy(path[:], name)
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&path[0])), uintptr(flags), 0, 0, 0) //nolint:gosec // a name with its zero
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

// ready is Postfix's own test for a finished queue file: all owner bits are
// set (mail_open_ok.c). The other bits carry requests and are not looked at.
func ready(mode uint32) bool { return mode&0o700 == 0o700 }

// refuse says why the file behind st is not read as a message, "" if it is.
// corrupt and saved hold what Postfix gave up on; files there need not be ready.
func refuse(st *unix.Stat_t, queue postfix.Queue, owner int) observe.StrayKind {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return observe.NotRegular
	case !ready(st.Mode) && queue != postfix.Corrupt && queue != postfix.Saved:
		return observe.Unfinished
	case st.Nlink > 1:
		return observe.HardLinked
	case queue != postfix.Maildrop && owner >= 0 && int(st.Uid) != owner:
		return observe.ForeignOwner
	}
	return ""
}

// openQueueFile opens and checks one queue file. kind is not empty where the
// file is there but is none; err is the system's word, unix.ENOENT for a name
// that has gone.
func (r *Reader) openQueueFile(d *directory, name string, st *unix.Stat_t) (fd int, kind observe.StrayKind, err error) {
	fd, err = r.openMail(d, name)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EISDIR):
		return -1, observe.NotRegular, nil
	case errors.Is(err, unix.EMLINK):
		return -1, observe.HardLinked, nil
	}
	if err != nil {
		return -1, "", err
	}
	if err = unix.Fstat(fd, st); err == nil {
		kind = refuse(st, d.queue, r.owner)
	}
	if err != nil || kind != "" {
		_ = unix.Close(fd)
		return -1, kind, err
	}
	return fd, "", nil
}

// openMail opens a queue file without touching its access time. In maildrop
// files belong to whoever submitted them, and only their owner may say
// O_NOATIME; there the opener, if root started one, does it.
func (r *Reader) openMail(d *directory, name string) (int, error) {
	fd, err := openAt(d.fd, name, fileFlags)
	if errors.Is(err, unix.EPERM) && d.queue == postfix.Maildrop && r.opts.Opener != nil {
		return r.opts.Opener.Maildrop(r.in.QueueDir, name)
	}
	return fd, err
}

// directory is one directory of a queue. It is remembered between looks; the
// descriptor is opened anew for each.
type directory struct {
	queue  postfix.Queue
	number uint32
	path   string // below the queue directory, without a trailing slash
	hash   string // the hash characters that lead here, "" at the top
	fd     int

	stamp    dirStamp
	settled  bool   // the stamp would show any later change
	changed  bool   // listed in the current look
	children string // names of its hash directories, one character each
}

func (d *directory) close() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
		d.fd = -1
	}
}

// dirStamp is what changes when an entry is added to a directory, removed or
// renamed.
type dirStamp struct {
	inode        uint64
	mtime, ctime int64 // nanoseconds
}

func stampOf(st *unix.Stat_t) dirStamp {
	return dirStamp{inode: st.Ino, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// settled reports whether a change after the stamp was taken is sure to show in
// a new stamp. File systems stamp with the kernel's coarse clock, a few
// milliseconds wide: two changes within one tick look like one.
func (s dirStamp) settled(now int64) bool {
	return now-s.mtime > coarseClock && now-s.ctime > coarseClock
}

// coarseClock is well above the 10 ms tick of a 100 Hz kernel.
const coarseClock = 50_000_000

// misplaced reports whether Postfix would look for this ID in another hash
// directory than the one where it lies (mail_queue_dir in mail_queue.c).
func misplaced(hash string, id postfix.QueueID, depth int) bool {
	if len(hash) != depth {
		return true
	}
	if depth == 0 {
		return false
	}
	var want [2 * maxHashDepth]byte
	path := id.AppendHashPath(want[:0], depth)
	for i := range len(hash) {
		if path[2*i] != hash[i] {
			return true
		}
	}
	return false
}
