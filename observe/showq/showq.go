// Package showq asks Postfix's own listing service for the queue, for those
// who may not read the spool: members of the set-gid group and, on a host
// where nothing runs as root, everybody who may enter the public directory.
//
// Invariant: a listing is complete only if its end mark was read and nothing
// came behind it. Anything less is a Gap of the Snapshot, and then no queue of
// it counts as known: a listing that broke off must never look like a small
// queue.
//
// It never runs a program, never writes to the socket and reads no file of
// the spool.
//
// Diagnostics: permission denied, connection refused and a missing socket are
// told apart, each with what to do. A malformed stream is reported with the
// offset of the offending byte.
//
// Bugs, all of them showq's own (showq/showq.c): corrupt and saved mail is not
// listed; there is no next attempt, client or expiry; control characters in
// addresses were replaced by "?"; a recipient that is done is listed as long
// as its entry stands in the defer log; the null address and a local user
// "MAILER-DAEMON" without domain look alike and are taken for the former.
package showq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

const (
	// silence is how long showq may say nothing. It reads one small file per
	// message and flushes every few kilobytes, so even a slow disk lets it
	// speak more often; a stopped showq, or one that master throttles, never
	// does, and ipc_timeout (an hour) is no wait for an operator.
	silence = time.Minute
	// maxSocketPath is what the kernel takes as the address of a socket.
	maxSocketPath = 107
	source        = "showq"
)

// listed are the queues that showq reads, in its order.
func listed() []postfix.Queue {
	return []postfix.Queue{postfix.Maildrop, postfix.Active, postfix.Incoming, postfix.Deferred, postfix.Hold}
}

// Look asks the instance's showq for its queue. A listing that breaks off
// still gives a Snapshot, with a Gap that says so. An error means that nothing
// could be asked; it is a *postfix.Error whose hint says who may ask, or how.
func Look(ctx context.Context, in postfix.Instance) (*observe.Snapshot, error) {
	return look(ctx, in, silence, Limits{})
}

func look(ctx context.Context, in postfix.Instance, patience time.Duration, limits Limits) (*observe.Snapshot, error) {
	from := time.Now()
	socket := filepath.Join(in.QueueDir, "public", "showq")
	conn, err := dial(ctx, socket, patience)
	if err != nil {
		return nil, unreachable(in, socket, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // a closed connection needs no deadline
	defer stop()

	c := newCollection()
	list, err := Decode(&patientReader{ctx: ctx, conn: conn, patience: patience}, limits, c.add)
	// A deadline leaves what came until then; an interrupt leaves nobody who
	// would want it.
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, &postfix.Error{Kind: postfix.Interrupted, Op: "list the queue by", Object: socket, Err: context.Cause(ctx)}
	}
	known := listed()
	gaps := []observe.Gap{{
		Source: source, Object: "corrupt, saved", Text: "showq lists neither queue",
		Hint: "read the spool: run as root or as " + owner(in),
	}}
	if err != nil {
		known = nil
		gaps = append(gaps, observe.Gap{Source: source, Object: socket, Text: "the list is incomplete: " + err.Error(), Hint: hintOf(err, in)})
	}
	if list.Left > 0 {
		gaps = append(gaps, observe.Gap{Source: source, Object: socket, Text: "recipients of very wide messages were left out", Count: list.Left})
	}
	if list.Cut > 0 {
		gaps = append(gaps, observe.Gap{Source: source, Object: socket, Text: "overlong texts were cut", Count: list.Cut})
	}
	s := observe.Build(in, observe.FromShowq, from, time.Now(), known, c.shards)
	s.Gaps = gaps
	return s, nil
}

// dial connects to the socket. The kernel's limit on the length of its name is
// no limit on queue_directory: Postfix works in that directory and never sees
// the whole path. A descriptor of the directory gives a short name.
func dial(ctx context.Context, socket string, patience time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	if len(socket) <= maxSocketPath {
		return dialer.DialContext(ctx, "unix", socket)
	}
	dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(socket), Err: err}
	}
	defer unix.Close(dir)
	return dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket)))
}

// patientReader gives up when nothing comes for a while, or when the context
// ends.
type patientReader struct {
	ctx      context.Context //nolint:containedctx // it lives for one listing only
	conn     net.Conn
	patience time.Duration
}

func (r *patientReader) Read(p []byte) (int, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(r.patience)); err != nil {
		return 0, err
	}
	// The line above may have overwritten the deadline that the end of the
	// context has set in this moment.
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.conn.Read(p)
	switch {
	case r.ctx.Err() != nil:
		err = r.ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("showq has sent nothing for %v", r.patience)
	}
	return n, err
}

// collection keeps the messages of a listing. A message that moves while showq
// goes from queue to queue is listed twice: the later place is the true one.
type collection struct {
	shards []*observe.Shard
	places map[postfix.QueueID]place
}

type place struct{ shard, index int32 }

func newCollection() *collection {
	return &collection{shards: []*observe.Shard{observe.NewShard()}, places: make(map[postfix.QueueID]place)}
}

func (c *collection) add(m *postfix.Message) error {
	if at, ok := c.places[m.ID]; ok {
		// A full shard, four gigabytes of text, keeps the earlier place.
		if shard := c.shards[at.shard]; !shard.Full() {
			shard.Replace(int(at.index), m)
		}
		return nil
	}
	last := len(c.shards) - 1
	if c.shards[last].Full() {
		c.shards = append(c.shards, observe.NewShard())
		last++
	}
	index := c.shards[last].Add(m)
	// The key is the shard's own text: m is overwritten by the next message.
	c.places[c.shards[last].ID(index)] = place{int32(last), int32(index)} //nolint:gosec // bounded by Limits.Messages
	return nil
}

// unreachable says why nothing could be asked, and who could ask or what would
// help.
func unreachable(in postfix.Instance, socket string, err error) error {
	e := &postfix.Error{Kind: postfix.CannotTell, Op: "ask showq at", Object: socket, Err: err}
	var op *net.OpError
	if errors.As(err, &op) {
		e.Err = op.Err // the rest would say the path again
	}
	switch {
	case errors.Is(err, context.Canceled):
		e.Kind = postfix.Interrupted
	case errors.Is(err, fs.ErrPermission):
		e.Hint = fmt.Sprintf("only root, %s and members of the group %s may ask; try again with sudo", owner(in), group(in))
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "the mail system is down, and this account does not read the spool itself: start it with " + start(in) + ", or run as root or as " + owner(in)
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = "no mail system has run on this queue directory, or its service showq is not in master.cf: start it with " + start(in) + ", or run as root or as " + owner(in)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		e.Hint = "showq does not take calls: look whether master(8) is stopped or throttles it; as root or as " + owner(in) + " the spool can be read without it"
	default:
		e.Hint = "as root or as " + owner(in) + " the spool can be read without showq"
	}
	return e
}

func hintOf(err error, in postfix.Instance) string {
	if errors.Is(err, ErrTruncated) {
		return "showq died or was stopped; its reason is in the mail log. As root or as " + owner(in) + " the spool can be read without it"
	}
	return "Postfix was perhaps upgraded without a restart. As root or as " + owner(in) + " the spool can be read without showq"
}

func owner(in postfix.Instance) string {
	if in.MailOwner == "" {
		return "the mail owner"
	}
	return in.MailOwner
}

func group(in postfix.Instance) string {
	if in.SetgidGroup == "" {
		return "of setgid_group"
	}
	return in.SetgidGroup
}

// start is the command that starts the instance, ready to be pasted.
func start(in postfix.Instance) string {
	if in.ConfigDir == "" {
		return `"postfix start"`
	}
	return `"postfix -c '` + strings.ReplaceAll(in.ConfigDir, "'", `'\''`) + `' start"`
}
