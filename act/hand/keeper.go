package hand

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/durable"
)

// The keeper keeps time and does nothing else: a process of root's that outlives
// the command, the login and the terminal, and starts "holdfast tick" when
// something is due. A tick is a whole command with a hand of its own, so that
// between two of them nothing is held: no lock, no log, no memory of the queue.
// It learns one number from each, when the next thing is due, and reads nothing
// else that any process wrote. One lives for each instance and directory of
// state; it ends when nothing is due any more.

// keeperArgument makes a start of this program a keeper.
const keeperArgument = "__keeper"

const (
	// lookEvery is how often a keeper looks whether the audit log has grown:
	// something may be due now that is due before what it waits for. The clock
	// may have been set, too, or the host may have slept.
	lookEvery = 10 * time.Second
	// lastKeeper is how long a keeper waits for one before it to end, which it
	// may be about to do.
	lastKeeper = 15 * time.Second
	// leastPause and mostPause bound how long a keeper waits after a tick that
	// failed: another command may have the lock.
	leastPause = time.Second
	mostPause  = time.Minute
)

// KeeperShelf is the directory of locks below the directory of state.
const KeeperShelf = "keeper"

// KeeperLock names the file that the keeper of an instance holds locked.
func KeeperLock(configDir string) string {
	sum := sha256.Sum256([]byte(configDir))
	return hex.EncodeToString(sum[:8]) + ".lock"
}

// StartKeeper starts a keeper for the instance of this hand. Where one lives the
// new one ends by itself.
func (c *Client) StartKeeper(ctx context.Context) error {
	return c.plain(ctx, requestOf(askKeeper))
}

func (s *server) startKeeper() error {
	if err := durable.MkdirAll(filepath.Join(s.StateDir, KeeperShelf), 0o700); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", keeperArgument, s.StateDir, s.ConfigDir, s.Settings) //nolint:noctx // it outlives whoever starts it
	cmd.Args[0] = "holdfast"
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	go func() { _ = cmd.Wait() }() // only so that it is no zombie where this hand lives longer
	return nil
}

// keeper is one at work.
type keeper struct {
	stateDir, configDir, settings string
	lock                          *durable.Lock
}

// serveKeeper is a keeper's whole life where args are those of one.
func serveKeeper(args []string) bool {
	if len(args) != 5 || args[1] != keeperArgument {
		return false
	}
	// SIGTERM ends it, as a shutdown must be able to: what is due stays due.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	unix.Umask(0o077)
	k := &keeper{stateDir: args[2], configDir: args[3], settings: args[4]}
	ctx, cancel := context.WithTimeout(context.Background(), lastKeeper)
	defer cancel()
	var err error
	if k.lock, err = durable.AcquireLock(ctx, filepath.Join(k.stateDir, KeeperShelf, KeeperLock(k.configDir))); err == nil {
		k.run()
	}
	return true
}

func (k *keeper) run() {
	pause := time.Duration(0)
	for {
		// Before the tick: what is written while it reads is then seen.
		seen := k.look()
		next, err := k.tick()
		if err == nil && next.IsZero() {
			return
		}
		if err == nil && next.After(time.Now()) {
			pause = 0
		} else {
			pause = min(max(2*pause, leastPause), mostPause)
			next, seen = time.Now().Add(pause), nil
		}
		if !k.sleep(next, seen) {
			return
		}
	}
}

// sleep waits until a time, or until the log is not as it was seen, where that
// is not nil. It is false where the directory of state is not there any more.
func (k *keeper) sleep(until time.Time, seen *logState) bool {
	// The wall clock decides, and that can be set.
	for until = until.Round(0); ; {
		left := time.Until(until)
		if left <= 0 {
			return true
		}
		time.Sleep(min(left, lookEvery))
		if !k.mine() {
			return false
		}
		if seen != nil && *k.look() != *seen {
			return true
		}
	}
}

// mine reports whether the locked file still is the one of its name.
func (k *keeper) mine() bool {
	ours, err := k.lock.File().Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(filepath.Join(k.stateDir, KeeperShelf, KeeperLock(k.configDir)))
	return err == nil && os.SameFile(ours, there)
}

// logState tells whether the audit log was written to.
type logState struct {
	size  int64
	mtime unix.Timespec
}

func (k *keeper) look() *logState {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(k.stateDir, "audit", "audit.log"), &st); err != nil {
		return &logState{}
	}
	return &logState{st.Size, st.Mtim}
}

// tick starts a tick, waits for it, and returns when the next thing is due, the
// zero time where nothing is.
func (k *keeper) tick() (time.Time, error) {
	args := []string{"tick", "--next", "--quiet", "--state-dir", k.stateDir, "--config-dir", k.configDir}
	if k.settings != "" {
		args = append(args, "--config", k.settings)
	}
	cmd := exec.Command("/proc/self/exe", args...) //nolint:noctx // what has begun is finished
	cmd.Args[0] = "holdfast"
	cmd.Env, cmd.Dir = []string{}, "/"
	// A signal to the keeper's group is not for an act that has begun.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return time.Time{}, fmt.Errorf("start a tick: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return time.Time{}, fmt.Errorf("start a tick: %w", err)
	}
	said, readErr := io.ReadAll(io.LimitReader(out, 32))
	if err := cmd.Wait(); err != nil {
		return time.Time{}, fmt.Errorf("tick: %w", err)
	}
	text := strings.TrimSpace(string(said))
	if readErr != nil || text == "" {
		return time.Time{}, readErr
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("tick: it said %q", text)
	}
	return time.Unix(seconds, 0), nil
}
