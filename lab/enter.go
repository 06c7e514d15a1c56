package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Result is what a command inside the lab left.
type Result struct {
	Code   int    `json:"code"` // exit status; 128 and the signal if a signal ended it
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

// Side is one end of a lab's cable.
type Side string

// The two sides.
const (
	RelaySide Side = "relay"
	WorldSide Side = "world"
)

// ExecOptions say how a command runs inside a lab. The zero value is what Exec does.
type ExecOptions struct {
	Side   Side      // network namespace; the relay's if empty
	Dir    string    // working directory inside; / if empty
	Env    []string  // added to the lab's own environment
	UID    int       // run as this user and group; 0 is root
	GID    int       //
	Stdin  io.Reader // nothing if nil
	Stdout io.Writer // if set, Result.Stdout stays empty
	Stderr io.Writer // if set, Result.Stderr stays empty
	// Foreground keeps the command in the caller's process group, for a person at a terminal.
	Foreground bool
}

// Exec runs a command as root inside the lab's namespaces, on the relay's side. A command that ran and failed is not
// an error: look at Result.Code.
func (l *Lab) Exec(ctx context.Context, argv ...string) (Result, error) {
	return l.ExecWith(ctx, ExecOptions{}, argv...)
}

// ExecWith is Exec with options. When the context ends, the command and its process group are killed.
func (l *Lab) ExecWith(ctx context.Context, o ExecOptions, argv ...string) (Result, error) {
	if len(argv) == 0 {
		return Result{}, errors.New("run in lab: no command given")
	}
	var res Result
	err := l.inside(o.Side, true, func() error {
		var stdout, stderr bytes.Buffer
		cmd := o.command(ctx, argv)
		if cmd.Stdout == nil {
			cmd.Stdout = &stdout
		}
		if cmd.Stderr == nil {
			cmd.Stderr = &stderr
		}
		err := cmd.Run()
		res = Result{Stdout: stdout.String(), Stderr: stderr.String()}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			res.Code = exit.ExitCode()
			if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				res.Code = 128 + int(status.Signal())
			}
			return nil
		}
		return err
	})
	if err != nil {
		return res, fmt.Errorf("run %q in lab %q: %w", strings.Join(argv, " "), l.Name, err)
	}
	return res, nil
}

// command is called on a thread that is inside already, so that even the look-up of the program happens there.
func (o ExecOptions) command(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.Stdin, o.Stdout, o.Stderr
	cmd.Env = append(baseEnv(), o.Env...)
	if cmd.Dir = o.Dir; cmd.Dir == "" {
		cmd.Dir = "/"
	}
	// No Pdeathsig: the Go runtime compares the child's getppid with its own pid, which differ across a PID namespace,
	// and would have the child kill itself. The command ends with the lab at the latest.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !o.Foreground}
	if o.UID != 0 || o.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.UID), Gid: uint32(o.GID)}
	}
	cmd.Cancel = func() error {
		if o.Foreground {
			return cmd.Process.Kill()
		}
		return unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	cmd.WaitDelay = 5 * time.Second // a daemon that it left behind may hold the pipes for ever
	return cmd
}

// inside runs f on a thread of its own that has entered the lab: only its network, or everything.
func (l *Lab) inside(side Side, everything bool, f func() error) error {
	return onThread(func() error {
		if err := l.enter(side, everything); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it, so that f may change the thread's namespaces for good. The Go runtime
// starts other threads from a clean template, so nothing else of this process moves.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end: the runtime would park it where f led it, where it would keep mounts and
			// network of a dead lab alive, and stand for the whole process in /proc. While this goroutine sits on it,
			// the next one must get another thread.
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		done <- f() // never unlocked: the thread goes with the goroutine
	}()
	return <-done
}

func (l *Lab) enter(side Side, everything bool) error {
	netPath := fmt.Sprintf("/proc/%d/ns/net", l.Init)
	switch side {
	case "", RelaySide:
	case WorldSide:
		netPath = l.HostPath(worldNet)
	default:
		return fmt.Errorf("side %q is unknown; use relay or world", side)
	}
	type space struct {
		path string
		kind int
	}
	spaces := []space{{netPath, unix.CLONE_NEWNET}}
	if everything {
		for name, kind := range map[string]int{"uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC, "pid": unix.CLONE_NEWPID} {
			spaces = append(spaces, space{fmt.Sprintf("/proc/%d/ns/%s", l.Init, name), kind})
		}
		// Mounts last: after them the paths above mean something else.
		spaces = append(spaces, space{fmt.Sprintf("/proc/%d/ns/mnt", l.Init), unix.CLONE_NEWNS})
		// A thread can change its mounts only if it shares neither root nor working directory with others.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare file system context: %w", err)
		}
	}
	files := make([]*os.File, 0, len(spaces))
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, s := range spaces {
		f, err := os.Open(s.path)
		if err != nil {
			return fmt.Errorf("open namespace of lab %q: %w", l.Name, err)
		}
		files = append(files, f)
	}
	// The keeper reaps PID 1 only on its own way out: while it holds the lock, the pid cannot be another process's.
	if !alive(l.Dir) {
		return fmt.Errorf("lab %q is down", l.Name)
	}
	for i, s := range spaces {
		if err := unix.Setns(int(files[i].Fd()), s.kind); err != nil {
			return fmt.Errorf("enter namespace %q of lab %q: %w", filepath.Base(s.path), l.Name, err)
		}
	}
	return nil
}

// Dial opens a TCP connection from one side of the lab to an address inside it. The address must be numeric. From the
// world, connections come from 192.0.2.100, a customer of the relay.
func (l *Lab) Dial(ctx context.Context, side Side, address string) (net.Conn, error) {
	var conn net.Conn
	err := l.inside(side, false, func() error {
		d := net.Dialer{Timeout: 10 * time.Second}
		if host, _, _ := net.SplitHostPort(address); side == WorldSide && !strings.Contains(host, ":") {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(customerAddress)}
		}
		var err error
		conn, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect inside lab %q: %w", l.Name, err)
	}
	return conn, nil
}
