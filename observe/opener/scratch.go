package opener

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Trial is what became of a file of our own on the file system of a spool:
// made without a name, written as mail comes, and synced as Postfix does before
// it says "250".
type Trial struct {
	// Stage is how far it came: "open", "write", "sync".
	Stage string
	// Done says that all of it worked; else Errno says why Stage failed, and
	// without an Errno it did not come back.
	Done  bool
	Errno unix.Errno
	// Took is the time of all stages, or how long was waited for the last.
	Took time.Duration
}

// The stages of a trial, in their order.
var stages = [...]string{"open", "write", "sync"}

const (
	scratchMode = "scratch"
	// scratchSize is that of a usual message, written in pieces of scratchPiece
	// as cleanup writes what arrives.
	scratchSize  = 64 << 10
	scratchPiece = 4 << 10
	// nobody is who writes where the spool does not tell its owner: not root,
	// for whom file systems keep a reserve that no mail may use.
	nobody = 65534
)

// Try makes a trial on the file system of a queue directory. What writes is a
// process of its own: a write to a frozen file system or a dead disk cannot be
// interrupted or killed, and whoever makes it cannot even end. Such a process
// is left to itself; it ends when the disk wakes, and leaves nothing.
//
// A nil Opener tries it as the present user.
func (o *Opener) Try(ctx context.Context, queueDir string) (Trial, error) {
	start := time.Now()
	report, err := o.startTrial(queueDir)
	if err != nil {
		return Trial{}, fmt.Errorf("start a trial: %w", err)
	}
	defer func() { _ = report.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := report.SetReadDeadline(deadline); err != nil {
			return Trial{}, fmt.Errorf("wait for a trial: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = report.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return follow(bufio.NewScanner(report), start)
}

func (o *Opener) startTrial(queueDir string) (*os.File, error) {
	if o != nil {
		return o.trial(queueDir)
	}
	fd, errno := openScratch(queueDir)
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(uintptr(fd), queueDir+" (trial)"), nil
}

// follow reads one line for each stage that ended: errno and nanoseconds.
func follow(lines *bufio.Scanner, start time.Time) (Trial, error) {
	var t Trial
	for _, t.Stage = range stages {
		if !lines.Scan() {
			t.Took = time.Since(start)
			return t, silence(lines.Err())
		}
		var errno uint8
		var took int64
		if _, err := fmt.Sscanf(lines.Text(), "%d %d", &errno, &took); err != nil {
			return t, fmt.Errorf("read what the trial said, %q: %w", lines.Text(), err)
		}
		t.Took += time.Duration(took)
		t.Errno = unix.Errno(errno)
		if errno != 0 {
			return t, nil
		}
	}
	t.Done = true
	return t, nil
}

// silence is no error where the time was over: that is a finding.
func silence(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return errors.Join(errors.New("the trial ended without a word"), err)
}

// TrialOf returns the queue directory that a process tries, if the arguments
// of /proc/PID/cmdline are those of a trial: one that is still there after
// seconds is a write that hangs.
func TrialOf(cmdline string) (queueDir string, ok bool) {
	args := strings.Split(strings.TrimSuffix(cmdline, "\x00"), "\x00")
	if !isTrial(args) {
		return "", false
	}
	return args[3], true
}

func isTrial(args []string) bool {
	return len(args) == 4 && args[1] == argument && args[2] == scratchMode
}

// openScratch starts a trial and returns the end of the pipe that its report
// comes from.
func openScratch(queueDir string) (int, unix.Errno) {
	// A program that does not call Serve would do its work once more in
	// the child, and start the next.
	if !filepath.IsAbs(queueDir) || isTrial(os.Args) {
		return -1, unix.EINVAL
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, errnoOf(err)
	}
	write := os.NewFile(uintptr(pipe[1]), "trial")
	defer func() { _ = write.Close() }()
	cmd := exec.Command("/proc/self/exe", "__opener", scratchMode, queueDir) //nolint:noctx // it may not be waited for, see Try
	cmd.Env, cmd.Dir, cmd.Stdout = []string{}, "/", write
	err := unix.SetNonblock(pipe[0], true) // so that its reader can give up
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = unix.Close(pipe[0])
		return -1, errnoOf(err)
	}
	go func() { _ = cmd.Wait() }()
	return pipe[0], 0
}

// serveTrial is the whole life of a process that a trial runs in, and reports
// whether this is one.
func serveTrial(args []string) bool {
	if !isTrial(args) {
		return false
	}
	dir, fd := args[3], -1
	for _, stage := range stages {
		start := time.Now()
		var err error
		switch stage {
		case "open":
			fd, err = openUnnamed(dir)
		case "write":
			err = fillScratch(fd)
		case "sync":
			err = unix.Fsync(fd)
		}
		errno := unix.Errno(0)
		if err != nil {
			errno = errnoOf(err)
		}
		if _, err := fmt.Printf("%d %d\n", errno, time.Since(start)); err != nil || errno != 0 {
			return true
		}
	}
	return true
}

// openUnnamed makes the file: no directory shows it, and it is gone with its
// holder, where a name would be left behind by a crash. It is made outside of
// the queues, and it is the one thing that looking creates. Then it becomes the
// mail owner's, and so does this process, for whom what is reserved for root
// does not count, and quotas do.
func openUnnamed(queueDir string) (int, error) {
	const flags = unix.O_TMPFILE | unix.O_WRONLY | unix.O_CLOEXEC
	fd, err := unix.Open(queueDir, flags, 0o600)
	if errors.Is(err, unix.EACCES) {
		// Not root: what the mail owner may write to, and is no queue.
		fd, err = unix.Open(filepath.Join(queueDir, "private"), flags, 0o600)
	}
	if err != nil || os.Geteuid() != 0 {
		return fd, err
	}
	uid, gid := nobody, nobody
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(queueDir, "incoming"), &st); err == nil && st.Uid != 0 {
		uid = int(st.Uid)
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return -1, err
	}
	// Package syscall, since it changes every thread.
	return fd, errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid))
}

func fillScratch(fd int) error {
	piece := make([]byte, scratchPiece)
	for written := 0; written < scratchSize; {
		n, err := unix.Write(fd, piece)
		if err != nil {
			return err
		}
		written += n
	}
	return nil
}
