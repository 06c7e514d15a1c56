// Package spool reads Postfix's queue as it lies on disk: queue files, defer
// and bounce logs, in parallel, and again incrementally.
//
// It reads what showq cannot tell: the next attempt, the inode, the exact
// recipients that are still to do, who submitted the message, damaged and
// misplaced files, the corrupt and saved queues.
//
// Invariant: reading leaves no trace. Files are opened read-only without
// touching their access time, no lock is taken, nothing is created. A lock
// would be felt: qmgr puts a locked message off by a minute, and a delivery
// agent that meets a foreign exclusive lock dies.
//
// Every byte of a queue file is hostile: envelope and content come from
// strangers, maildrop files from any local user. The package is meant to run
// as the owner of the spool; Drop gives up root for good.
//
// # Diagnostics
//
// A file that is no complete queue file is still reported, with
// Message.Damage saying what is wrong; what is not a message at all is a
// Stray; what could not be opened or read is a Gap.
//
// # Bugs
//
// A change within 50 ms of reading a directory costs one listing more, because
// file systems stamp with a coarse clock. Recipients beyond 200,000 in one
// message are counted and not listed.
package spool

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/postfix"
)

// Options says how to read. The zero value is right for a command.
type Options struct {
	// Workers is how many files are read at once; 0 means four, or one for
	// each processor where there are more. The work is system calls: on a cold
	// cache more of them at once is faster even on one processor.
	Workers int
	// Opener opens maildrop files for a reader that is not root. Without it,
	// files that belong to other users are a gap.
	Opener *opener.Opener
	// Now is the wall clock, for tests; nil means time.Now.
	Now func() time.Time
}

// Reader reads the spool of one instance, and knows what it read before.
type Reader struct {
	in    postfix.Instance
	opts  Options
	owner int // user ID of the mail owner, -1 if not known

	dirs   map[string]*directory
	dirAt  []*directory // by their number
	strays map[string][]observe.Stray
	parts  []*part
}

// part is what one worker read: a shard, and for each message what tells
// whether it must be read again.
type part struct {
	shard  *observe.Shard
	origin []origin
	shared bool // the shard belongs to a finished Snapshot
}

// origin is where a message was read from, and the state of its logs then:
// their size and one, 0 where there was none.
type origin struct {
	dir             uint32 // index in Reader.dirs
	defers, bounces uint32
}

// complete marks a state of a defer log that gave every recipient its reason.
const complete = 1 << 31

// elsewhere marks, beside the state of a bounce log, a message that Postfix
// would look for in another directory.
const elsewhere = 1 << 31

// NewReader prepares to read an instance's spool. It opens nothing yet.
func NewReader(in postfix.Instance, opts Options) (*Reader, error) {
	if in.QueueDir == "" {
		return nil, &postfix.Error{Kind: postfix.CannotTell, Op: "read the spool", Err: errors.New("the instance has no queue directory")}
	}
	if opts.Workers <= 0 {
		opts.Workers = max(4, runtime.GOMAXPROCS(0))
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := &Reader{in: in, opts: opts, owner: -1, dirs: make(map[string]*directory), strays: make(map[string][]observe.Stray)}
	if uid, _, err := LookupOwner(in.MailOwner); err == nil {
		r.owner = uid
	}
	for range opts.Workers {
		r.parts = append(r.parts, &part{shard: observe.NewShard()})
	}
	return r, nil
}

// LookupOwner returns the user and group ID of an account, the mail owner.
func LookupOwner(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, err
	}
	return uid, gid, nil
}

// Look takes a Snapshot. The first look reads every file; a later one reads
// directories and file times, and only those files that changed. The error is
// a *postfix.Error: of kind CannotTell where the spool cannot be read at all,
// Interrupted where ctx was cancelled. A deadline that passes leaves a Gap.
func (r *Reader) Look(ctx context.Context) (*observe.Snapshot, error) {
	root, err := openAt(unix.AT_FDCWD, r.in.QueueDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, cannotRead(r.in.QueueDir, err)
	}
	defer func() { _ = unix.Close(root) }()
	l := r.newLook(ctx, root)
	defer l.close()

	l.verify()
	l.pass()
	if l.known[postfix.Deferred] || l.known[postfix.Incoming] || l.known[postfix.Active] || l.known[postfix.Hold] {
		// The second look: a message that moved from a directory that was still
		// to be read into one that had been would otherwise be in neither.
		l.pass()
	}
	switch err := ctx.Err(); {
	case errors.Is(err, context.Canceled):
		return nil, &postfix.Error{Kind: postfix.Interrupted, Op: "read the spool", Object: r.in.QueueDir, Err: err}
	case err != nil:
		l.gaps.add("spool", r.in.QueueDir, fmt.Errorf("stopped at the time limit: what was not read by then is missing here"), "give more time with --timeout")
	}
	if !l.sawAny() {
		return nil, cannotRead(r.in.QueueDir, l.firstError())
	}
	return l.finish(), nil
}

func cannotRead(dir string, err error) error {
	e := &postfix.Error{Kind: postfix.CannotTell, Op: "read the spool", Object: dir, Err: err}
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Hint = "run holdfast as root: it then reads as the owner of the spool"
	case errors.Is(err, unix.ENOENT):
		e.Hint = "check queue_directory with: postconf queue_directory"
	}
	return e
}

func timeOf(ts unix.Timespec) time.Time {
	return time.Unix(ts.Unix()).UTC().Truncate(time.Microsecond)
}
