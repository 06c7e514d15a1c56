package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

const (
	// managerPatience: a queue manager answered after 22 ms under a thousand
	// messages a second, and after 5 ms when it had to be started; a host of two
	// busy cores has taken more than a second.
	managerPatience = 2 * time.Second
	// maxSocketPath is the longest name that a socket address has room for.
	maxSocketPath = 107
)

// managerNames are the programs that can be behind the service "qmgr".
var managerNames = [...]string{"qmgr", "oqmgr", "nqmgr"}

// The states of a queue manager, see observe.Manager.
const (
	managerWell    = "well"
	managerStopped = "stopped"
	managerSilent  = "silent"
	managerAbsent  = "absent"
)

// askManager finds out whether the queue manager's event loop turns. It sends
// one byte that stands for no request ("request ignored"), and waits for the
// manager to close the connection, which it does as soon as it gets to it
// (master/trigger_server.c). That the connection succeeds says nothing: master
// holds the socket, also for a manager that is dead.
//
// Byte and terminator would be two writes, and the second may meet a closed
// socket; one NUL in one write is enough.
func askManager(ctx context.Context, proc procfs, in postfix.Instance, master observe.Master) (observe.Manager, []observe.Gap) {
	if master.Known && !master.Running {
		return observe.Manager{Known: true, State: managerAbsent}, nil
	}
	socket := filepath.Join(in.QueueDir, "public", "qmgr")
	gap := func(err error, hint string) (observe.Manager, []observe.Gap) {
		return observe.Manager{}, []observe.Gap{{Source: "queue manager", Object: socket, Text: err.Error(), Hint: hint}}
	}
	if st, err := os.Lstat(socket); err == nil && st.Mode()&fs.ModeNamedPipe != 0 {
		return gap(errors.New("it is a named pipe, which gives no answer"),
			`in master.cf the type of "qmgr" can be unix since Postfix 2.10`)
	}
	took, err := knock(ctx, socket, true)
	m := observe.Manager{Known: true, State: managerWell, Latency: took}
	switch {
	case err == nil:
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		m.State = managerAbsent
	case errors.Is(err, unix.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		m.State = managerSilent // EAGAIN: as many wait already as the socket takes
	case errors.Is(err, fs.ErrPermission):
		return gap(err, "run holdfast as root, or as "+in.MailOwner)
	default:
		return gap(err, "")
	}
	var gaps []observe.Gap
	one, err := proc.managerOf(master.PID)
	if err != nil {
		gaps = []observe.Gap{{Source: "queue manager", Object: "process", Text: err.Error(), Hint: "run holdfast as root, where Postfix runs"}}
	}
	if one.pid != 0 {
		m.PID, m.Started = one.pid, proc.started(one)
		if m.State == managerSilent && (one.state == 'T' || one.state == 't') {
			m.State = managerStopped
		}
	}
	return m, gaps
}

// managerOf finds the queue manager among the children of a master; none is no
// error, since master waits a minute before it restarts one that fails at once.
func (p procfs) managerOf(master int) (process, error) {
	if master == 0 {
		return process{}, errors.New("master's process is not to be seen, so its queue manager cannot be told from another's")
	}
	list, err := p.processes()
	if err != nil {
		return process{}, err
	}
	for _, one := range list {
		if one.parent == master && slices.Contains(managerNames[:], one.name) {
			return one, nil
		}
	}
	return process{}, nil
}

// listens says whether somebody accepts connections for the queue manager.
func listens(ctx context.Context, in postfix.Instance) bool {
	_, err := knock(ctx, filepath.Join(in.QueueDir, "public", "qmgr"), false)
	return err == nil || errors.Is(err, unix.EAGAIN)
}

// knock connects, and where an answer is wanted sends the byte that asks for
// nothing and waits for the end of the connection.
func knock(ctx context.Context, socket string, answer bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, managerPatience)
	defer cancel()
	start := time.Now()
	conn, err := dialUnix(ctx, socket)
	if err != nil {
		if ctx.Err() != nil {
			err = os.ErrDeadlineExceeded
		}
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if !answer {
		return 0, nil
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, fmt.Errorf("set deadline: %w", err)
	}
	// Closed without reading is an answer too.
	if _, err := conn.Write([]byte{0}); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return 0, err
	}
	_, err = conn.Read(make([]byte, 1))
	switch {
	case err == nil:
		return 0, errors.New("it answers with data, as no queue manager does")
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return time.Since(start), nil
	}
	return 0, err
}

// dialUnix connects to a socket. Its name may be longer than an address has
// room for, since Postfix works inside the queue directory and never sees the
// whole of it; a descriptor of the directory gives a short name.
func dialUnix(ctx context.Context, socket string) (net.Conn, error) {
	var dialer net.Dialer
	if len(socket) <= maxSocketPath {
		return dialer.DialContext(ctx, "unix", socket)
	}
	dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Dir(socket), Err: err}
	}
	defer func() { _ = unix.Close(dir) }()
	return dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket)))
}
