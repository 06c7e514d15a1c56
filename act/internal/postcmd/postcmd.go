// Package postcmd runs the commands of Postfix that change mail, and is the
// only package that does.
//
// Invariants: the program is named by its full path, its arguments are fixed
// for each operation, queue IDs go to it on standard input and never as an
// argument, its environment is empty, and no shell is near. An empty list of
// IDs runs nothing at all: postsuper without arguments repairs and purges the
// live queue.
//
// What a command says and how it exits is returned and believed by nobody:
// postsuper exits 0 whatever it did (postsuper.c). The package decodes no mail.
package postcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// Op is an operation of postsuper.
type Op uint8

// The operations. Each names the queues that it may touch, so that a message
// which moved meanwhile is left alone.
const (
	HoldWaiting Op = iota + 1
	HoldAny
	Release
	Requeue
	Expire
	Delete
)

// operation is how an Op is asked for, and what postsuper says of each ID that
// it did it to.
type operation struct {
	args []string
	says string
}

func operationOf(op Op) (operation, bool) {
	switch op {
	case HoldWaiting:
		return operation{[]string{"-h", "-", "deferred", "incoming"}, "placed on hold"}, true
	case HoldAny:
		return operation{[]string{"-h", "-", "deferred", "incoming", "active"}, "placed on hold"}, true
	case Release:
		return operation{[]string{"-H", "-", "hold"}, "released from hold"}, true
	case Requeue:
		return operation{[]string{"-r", "-", "hold"}, "requeued"}, true
	case Expire:
		return operation{[]string{"-e", "-", "hold"}, "expired"}, true
	case Delete:
		return operation{[]string{"-d", "-", "hold"}, "removed"}, true
	}
	return operation{}, false
}

// Call is one run of postsuper.
type Call struct {
	CommandDir string // where postsuper is
	ConfigDir  string // of the instance
	Op         Op
	IDs        []postfix.QueueID
	// Inherit is handed to the command and not used by it: a lock that must not
	// be free while the command still runs.
	Inherit []*os.File
	// Patience is how long it may take.
	Patience time.Duration
}

// Said is what it said.
type Said struct {
	IDs      []postfix.QueueID // of the call, in the order in which they were named
	Exit     int               // -1 where a signal ended it
	Signal   string
	TimedOut bool
	Warnings []string // the first other lines, cut
	Took     time.Duration
}

const (
	mostWarnings   = 20
	longestWarning = 300
	mostSaid       = 64 << 20
)

// ErrNothing says that there are no IDs, so that nothing was run.
var ErrNothing = errors.New("no message was named")

// Run runs postsuper once. An error means that it did not run; whatever it did
// is found out by looking.
func Run(ctx context.Context, c Call) (Said, error) {
	op, known := operationOf(c.Op)
	if !known || !filepath.IsAbs(c.CommandDir) || !filepath.IsAbs(c.ConfigDir) {
		return Said{}, fmt.Errorf("run postsuper: %w", unix.EINVAL)
	}
	var input bytes.Buffer
	for _, id := range c.IDs {
		// postsuper takes no word on standard input for ALL (operate_stream); no
		// ID is that short anyway: five digits of time, and the inode.
		if !postfix.ValidQueueID(string(id)) || len(id) < 6 {
			return Said{}, fmt.Errorf("run postsuper: %q is no queue ID", id)
		}
		input.WriteString(string(id))
		input.WriteByte('\n')
	}
	if input.Len() == 0 {
		return Said{}, fmt.Errorf("run postsuper: %w", ErrNothing)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.CommandDir, "postsuper"), append([]string{"-c", c.ConfigDir}, op.args...)...)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.ExtraFiles = c.Inherit
	// A group of its own: the operator's Ctrl-C is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	said := &limited{most: mostSaid}
	cmd.Stdin, cmd.Stderr = &input, said
	began := time.Now()
	err := cmd.Run()
	out := Said{Took: time.Since(began), TimedOut: ctx.Err() != nil}
	var exit *exec.ExitError
	switch {
	case cmd.ProcessState == nil:
		return Said{}, fmt.Errorf("run postsuper: %w", err)
	case errors.As(err, &exit):
		out.Exit = exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			out.Signal = status.Signal().String()
		}
	}
	out.read(said.text.String(), op.says, c.IDs)
	return out, nil
}

// sums is how postsuper ends: with a number for each thing that it did
// (postsuper.c, main).
var sums = regexp.MustCompile(`^(Deleted|Requeued|Placed on hold|Released from hold|Force-expired|Renamed to match inode number): [0-9]+ messages?$`)

// read finds the lines that name an ID of the call. Others are kept for people.
func (s *Said) read(text, says string, ids []postfix.QueueID) {
	asked := make(map[string]bool, len(ids))
	for _, id := range ids {
		asked[string(id)] = true
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		rest, ours := strings.CutPrefix(line, "postsuper: ")
		id, what, _ := strings.Cut(rest, ": ")
		switch {
		case ours && what == says && asked[id]:
			delete(asked, id) // said twice is said once
			s.IDs = append(s.IDs, postfix.QueueID(id))
		case ours && sums.MatchString(rest): // what it counts is seen afterwards
		case len(s.Warnings) < mostWarnings && line != "":
			s.Warnings = append(s.Warnings, line[:min(len(line), longestWarning)])
		}
	}
}

// limited keeps the beginning of what is written to it.
type limited struct {
	text bytes.Buffer
	most int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	l.text.Write(p[:min(len(p), l.most-l.text.Len())])
	return len(p), nil
}
