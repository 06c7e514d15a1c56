package spool

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// openerArgument makes a start of this program an opener. It is no verb: the
// command line does not know it. The start below spells it out once more, for
// the test that reads what observe runs.
const openerArgument = "__opener"

// Opener opens maildrop files for a reader that gave up root. Such files
// belong to the user who submitted the message, and the kernel lets only the
// owner, or root, open a file without touching its access time.
//
// It is this program once more, as root, with a socket pair for standard
// input: a request names one of the spools that it was started for and a file,
// the answer is a descriptor for reading. It opens nothing but regular files
// with a queue ID for a name in the maildrop directories of those spools, and
// it never reads what it opens.
type Opener struct {
	mu     sync.Mutex
	conn   int
	cmd    *exec.Cmd
	spools []string
}

// StartOpener starts the opener for the given queue directories where there is
// root to give up, and returns nil where there is not. It must be called before
// Drop.
func StartOpener(queueDirs []string) (*Opener, error) {
	if os.Geteuid() != 0 || len(queueDirs) > 255 {
		return nil, nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start the maildrop opener: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "opener")
	defer func() { _ = theirs.Close() }()
	cmd := exec.Command("/proc/self/exe", append([]string{"__opener"}, queueDirs...)...) //nolint:noctx // this program itself, until Close
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdin = theirs
	if err := cmd.Start(); err != nil {
		_ = unix.Close(pair[0])
		return nil, fmt.Errorf("start the maildrop opener: %w", err)
	}
	// A stopped or dead opener must not stop the reader.
	patience := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, option, &patience); err != nil {
			return nil, errors.Join(err, unix.Close(pair[0]), cmd.Wait())
		}
	}
	return &Opener{conn: pair[0], cmd: cmd, spools: queueDirs}, nil
}

// Close ends the opener. It may be called on nil.
func (o *Opener) Close() error {
	if o == nil {
		return nil
	}
	err := unix.Close(o.conn)
	return errors.Join(err, o.cmd.Wait())
}

// open asks for one file.
func (o *Opener) open(queueDir, name string) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	number := slices.Index(o.spools, queueDir)
	if number < 0 || number > 255 {
		return -1, unix.EPERM
	}
	if err := unix.Sendmsg(o.conn, append([]byte{byte(number)}, name...), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return -1, fmt.Errorf("ask the maildrop opener: %w", err)
	}
	answer, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, cn, _, _, err := unix.Recvmsg(o.conn, answer, control, unix.MSG_CMSG_CLOEXEC)
	if err == nil && n != 1 {
		err = errors.New("it ended")
	}
	if err != nil {
		return -1, fmt.Errorf("ask the maildrop opener: %w", err)
	}
	if answer[0] != 0 {
		return -1, unix.Errno(answer[0])
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(errors.New("the maildrop opener sent no descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(errors.New("the maildrop opener sent no descriptor"), err)
	}
	return fds[0], nil
}

// ServeOpener is the opener's whole life where args is what StartOpener
// started, and reports whether it was. The main function calls it before
// anything else.
func ServeOpener(args []string) bool {
	if len(args) < 2 || args[1] != openerArgument {
		return false
	}
	spools := args[2:]
	request := make([]byte, 512)
	for {
		n, _, _, _, err := unix.Recvmsg(0, request, nil, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return true // the reader is done, or gone
		}
		if !answerRequest(spools, request[:n]) {
			return true
		}
	}
}

func answerRequest(spools []string, request []byte) bool {
	fd, errno := -1, unix.EINVAL
	if number := int(request[0]); number < len(spools) {
		fd, errno = openMaildrop(spools[number], string(request[1:]))
	}
	var rights []byte
	if errno == 0 {
		rights = unix.UnixRights(fd)
	}
	err := unix.Sendmsg(0, []byte{byte(errno)}, rights, nil, unix.MSG_NOSIGNAL)
	if errno == 0 {
		_ = unix.Close(fd)
	}
	return err == nil
}

func openMaildrop(queueDir, name string) (int, unix.Errno) {
	if !filepath.IsAbs(queueDir) || !postfix.ValidQueueID(name) {
		return -1, unix.EINVAL
	}
	dir, err := openAt(unix.AT_FDCWD, filepath.Join(queueDir, "maildrop"), dirFlags)
	if err != nil {
		return -1, errnoOf(err)
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := openAt(dir, name, fileFlags)
	if err != nil {
		return -1, errnoOf(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		// A hard link in maildrop can be a name for any file of that file
		// system. Postfix deletes such a file; here it is merely not opened.
		_ = unix.Close(fd)
		return -1, unix.EMLINK
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
