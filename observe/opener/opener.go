// Package opener is the one part of a reader that stays root: it opens what
// only root may open, and hands over descriptors.
//
// Invariants: it opens nothing but what its start named (the maildrop
// directories, the log files and their rotated siblings, an unnamed file on
// the file systems of the spools), refuses links, pipes and hard-linked files,
// and never reads what it opens. A request is a few bytes from the reader, so
// a reader that was taken over gets no more than the reader may have.
//
// It is the program itself, started once more with a socket pair for standard
// input; see Serve. The journal is the exception that proves the rule: its
// files are systemd's own format, so journalctl reads them, as root, and its
// output is what is handed over.
package opener

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// argument makes a start of this program an opener. It is no verb: the command
// line does not know it. Start spells it out once more, for the test that reads
// what observe runs.
const argument = "__opener"

// The kinds of requests, and how grants are told apart in the arguments.
const (
	askMaildrop = 'm' // spool, file name
	askScratch  = 's' // spool
	askLog      = 'l' // log, file name
	askJournal  = 'j' // -, eight bytes of seconds, one byte: follow
	askState    = 'd' // -, shelf and file name

	grantSpool = "spool="
	grantLog   = "log="
	grantState = "state="
)

// Grants are what an opener may open.
type Grants struct {
	// QueueDirs are queue directories: their maildrop, and an unnamed file on
	// their file system.
	QueueDirs []string
	// Logs are paths of log files: each, and the files beside it whose names
	// begin with its name, which is how logrotate names older ones.
	Logs []string
	// StateDir is where Holdfast keeps its own records; "" is none. What is
	// granted are the files of some of its directories: not the vault, and not
	// the key that signs checkpoints.
	StateDir string
}

// Opener is a running opener. A nil Opener refuses everything.
type Opener struct {
	mu     sync.Mutex
	conn   int
	cmd    *exec.Cmd
	grants Grants
}

// ErrNone is the answer of a nil Opener: there was no root to keep.
var ErrNone = errors.New("only root may")

// Start starts an opener where there is root to give up, and returns nil where
// there is not. It must be called before root is given up.
func Start(g Grants) (*Opener, error) {
	if os.Geteuid() != 0 || len(g.QueueDirs) > 255 || len(g.Logs) > 255 {
		return nil, nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start the opener: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "opener")
	defer func() { _ = theirs.Close() }()
	var granted []string
	for _, dir := range g.QueueDirs {
		granted = append(granted, grantSpool+dir)
	}
	for _, path := range g.Logs {
		granted = append(granted, grantLog+path)
	}
	if g.StateDir != "" {
		granted = append(granted, grantState+g.StateDir)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"__opener"}, granted...)...) //nolint:noctx // this program itself, until Close
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdin = theirs
	if err := cmd.Start(); err != nil {
		_ = unix.Close(pair[0])
		return nil, fmt.Errorf("start the opener: %w", err)
	}
	// A stopped or dead opener must not stop the reader.
	patience := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, option, &patience); err != nil {
			return nil, errors.Join(err, unix.Close(pair[0]), cmd.Wait())
		}
	}
	return &Opener{conn: pair[0], cmd: cmd, grants: g}, nil
}

// Close ends the opener. It may be called on nil.
func (o *Opener) Close() error {
	if o == nil {
		return nil
	}
	err := unix.Close(o.conn)
	return errors.Join(err, o.cmd.Wait())
}

// Maildrop opens one file of maildrop for reading, without touching its access
// time. Such files belong to whoever submitted them, and the kernel lets only
// the owner, or root, do that.
func (o *Opener) Maildrop(queueDir, name string) (int, error) {
	if o == nil {
		return -1, unix.EPERM
	}
	return o.ask(askMaildrop, slices.Index(o.grants.QueueDirs, queueDir), name)
}

// trial starts a trial of the file system of a queue directory and returns
// the pipe with its report; see Try, which reads it.
func (o *Opener) trial(queueDir string) (*os.File, error) {
	if o == nil {
		return nil, ErrNone
	}
	fd, err := o.ask(askScratch, slices.Index(o.grants.QueueDirs, queueDir), "")
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), queueDir+" (unnamed)"), nil
}

// Log opens a granted log file, or with name that file beside it.
func (o *Opener) Log(path, name string) (*os.File, error) {
	if o == nil {
		return nil, ErrNone
	}
	fd, err := o.ask(askLog, slices.Index(o.grants.Logs, path), name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(filepath.Dir(path), name)), nil
}

// State opens a file of Holdfast's own records: shelf is the directory below the
// granted one, name the file.
func (o *Opener) State(shelf, name string) (*os.File, error) {
	if o == nil {
		return nil, ErrNone
	}
	fd, err := o.ask(askState, 0, shelf+"/"+name)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", name, shelf, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(o.grants.StateDir, shelf, name)), nil
}

// Journal starts journalctl on the mail facility from a time on, and returns
// its output: one JSON object a line. With follow it does not end before the
// file is closed.
func (o *Opener) Journal(since time.Time, follow bool) (*os.File, error) {
	if o == nil {
		return nil, ErrNone
	}
	request := binary.BigEndian.AppendUint64(nil, uint64(max(since.Unix(), 0)))
	request = append(request, 0)
	if follow {
		request[8] = 1
	}
	fd, err := o.ask(askJournal, 0, string(request))
	if err != nil {
		return nil, err
	}
	// Its reader must be able to give up waiting, which Go can only do for
	// descriptors that do not block.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("read the journal: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "journalctl"), nil
}

// uninterrupted repeats a call that a signal cut off. The runtime restarts most
// calls by SA_RESTART, but not those of a process that is being stopped and
// continued, and its own signals come often.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// ask asks for one descriptor.
func (o *Opener) ask(kind byte, number int, name string) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if number < 0 || number > 255 {
		return -1, unix.EPERM
	}
	request := append([]byte{kind, byte(number)}, name...)
	err := uninterrupted(func() error { return unix.Sendmsg(o.conn, request, nil, nil, unix.MSG_NOSIGNAL) })
	if err != nil {
		return -1, fmt.Errorf("ask the opener: %w", err)
	}
	answer, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	var n, cn int
	err = uninterrupted(func() (err error) {
		n, cn, _, _, err = unix.Recvmsg(o.conn, answer, control, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err == nil && n != 1 {
		err = errors.New("it ended")
	}
	if err != nil {
		return -1, fmt.Errorf("ask the opener: %w", err)
	}
	if answer[0] != 0 {
		return -1, unix.Errno(answer[0])
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(errors.New("the opener sent no descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(errors.New("the opener sent no descriptor"), err)
	}
	return fds[0], nil
}

// Serve is the opener's whole life where args is what Start started, or that of
// a trial, and reports whether it was. The main function calls it before anything else.
func Serve(args []string) bool {
	if serveTrial(args) {
		return true
	}
	if len(args) < 2 || args[1] != argument {
		return false
	}
	var g Grants
	for _, a := range args[2:] {
		if dir, ok := strings.CutPrefix(a, grantSpool); ok {
			g.QueueDirs = append(g.QueueDirs, dir)
		}
		if path, ok := strings.CutPrefix(a, grantLog); ok {
			g.Logs = append(g.Logs, path)
		}
		if dir, ok := strings.CutPrefix(a, grantState); ok {
			g.StateDir = dir
		}
	}
	request := make([]byte, 512)
	for {
		n, _, _, _, err := unix.Recvmsg(0, request, nil, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < 2 {
			return true // the reader is done, or gone
		}
		if !answer(g, request[0], int(request[1]), string(request[2:n])) {
			return true
		}
	}
}

func answer(g Grants, kind byte, number int, name string) bool {
	fd, errno := -1, unix.EINVAL
	switch {
	case kind == askMaildrop && number < len(g.QueueDirs):
		fd, errno = openMaildrop(g.QueueDirs[number], name)
	case kind == askScratch && number < len(g.QueueDirs):
		fd, errno = openScratch(g.QueueDirs[number])
	case kind == askLog && number < len(g.Logs):
		fd, errno = openLog(g.Logs[number], name)
	case kind == askState && g.StateDir != "":
		fd, errno = openState(g.StateDir, name)
	case kind == askJournal && len(name) == 9:
		fd, errno = startJournal(int64(binary.BigEndian.Uint64([]byte(name))&(1<<62-1)), name[8] == 1)
	}
	var rights []byte
	if errno == 0 {
		rights = unix.UnixRights(fd)
	}
	said := []byte{byte(errno)}
	err := uninterrupted(func() error { return unix.Sendmsg(0, said, rights, nil, unix.MSG_NOSIGNAL) })
	if errno == 0 {
		_ = unix.Close(fd)
	}
	return err == nil
}

// How files and directories of strangers are opened: O_NOATIME leaves the
// access time alone, O_NOFOLLOW refuses a planted link, O_NONBLOCK keeps a
// planted pipe from stopping the reader for ever.
const (
	FileFlags = unix.O_RDONLY | unix.O_NOATIME | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	DirFlags  = unix.O_RDONLY | unix.O_NOATIME | unix.O_NOFOLLOW | unix.O_DIRECTORY | unix.O_CLOEXEC
)

func openMaildrop(queueDir, name string) (int, unix.Errno) {
	if !filepath.IsAbs(queueDir) || !postfix.ValidQueueID(name) {
		return -1, unix.EINVAL
	}
	return openRegular(filepath.Join(queueDir, "maildrop"), name)
}

// openLog opens the log or a file beside it that is named after it. /var/log
// is root's on most hosts; where others may write there, a link or a second
// name could be one for any file, and is refused.
func openLog(path, name string) (int, unix.Errno) {
	base := filepath.Base(path)
	if name == "" {
		name = base
	}
	if !filepath.IsAbs(path) || !strings.HasPrefix(name, base) || strings.ContainsRune(name, '/') {
		return -1, unix.EINVAL
	}
	return openRegular(filepath.Dir(path), name)
}

// shelves are the directories of state that a reader may read; those of the
// audit log hold what is listed, and its key beside.
func shelves() map[string][]string {
	return map[string][]string{
		"audit": {"audit.log", "checkpoints"}, "plans": nil, "targets": nil, "snapshots": nil, "ledger": nil, "keeper": nil,
	}
}

// openState opens a file of a shelf. Only root's files are state: what another
// user could lay there is none.
func openState(stateDir, what string) (int, unix.Errno) {
	shelf, name, _ := strings.Cut(what, "/")
	names, known := shelves()[shelf]
	if !filepath.IsAbs(stateDir) || !known || name == "" || strings.HasPrefix(name, ".") || strings.ContainsRune(name, '/') ||
		names != nil && !slices.Contains(names, name) {
		return -1, unix.EINVAL
	}
	fd, errno := openRegular(filepath.Join(stateDir, shelf), name)
	if errno != 0 {
		return -1, errno
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != 0 {
		_ = unix.Close(fd)
		return -1, unix.EPERM
	}
	return fd, 0
}

// openRegular opens a regular file that has one name only. A hard link can be a
// name for any file of its file system; Postfix deletes such a file in
// maildrop, here it is merely not opened.
func openRegular(dirPath, name string) (int, unix.Errno) {
	dir, err := unix.Openat(unix.AT_FDCWD, dirPath, DirFlags, 0)
	if err != nil {
		return -1, errnoOf(err)
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat(dir, name, FileFlags, 0)
	if err != nil {
		return -1, errnoOf(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		_ = unix.Close(fd)
		return -1, unix.EMLINK
	}
	return fd, 0
}

// startJournal runs journalctl and returns the reading end of its output. The
// child is not waited for: it ends when nobody reads any more, or with the
// opener, whose children init inherits.
func startJournal(since int64, follow bool) (int, unix.Errno) {
	read, write, err := os.Pipe()
	if err != nil {
		return -1, errnoOf(err)
	}
	defer func() { _ = write.Close() }()
	// An absolute name: the opener has no PATH to find another by.
	cmd := exec.Command("/usr/bin/journalctl", "--no-pager", "-q", "-o", "json", "-S", "@"+strconv.FormatInt(since, 10), //nolint:noctx // ends with its reader
		"--output-fields=MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,PRIORITY,_PID,_UID,_EXE,_COMM,_SYSTEMD_UNIT,_SOURCE_REALTIME_TIMESTAMP",
		"SYSLOG_FACILITY=2")
	if follow {
		cmd.Args = append(cmd.Args, "-f", "-n", "all")
	}
	cmd.Env, cmd.Dir, cmd.Stdout = []string{}, "/", write
	if err := cmd.Start(); err != nil {
		_ = read.Close()
		return -1, errnoOf(err)
	}
	go func() { _ = cmd.Wait() }()
	fd, err := unix.FcntlInt(read.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	_ = read.Close()
	if err != nil {
		return -1, errnoOf(err)
	}
	return fd, 0
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) && errno > 0 && errno < 256 {
		return errno
	}
	return unix.EIO
}
