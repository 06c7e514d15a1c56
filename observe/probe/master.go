package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// procfs is where the kernel tells of itself: "/proc", or a directory of
// fixtures.
type procfs string

const procRoot procfs = "/proc"

func (p procfs) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(string(p), name))
	return string(data), err
}

// process is what /proc/PID/stat says, in part.
type process struct {
	pid, parent int
	name        string // at most 15 bytes
	state       byte   // 'T' stopped, 't' traced, 'D' in a system call that nothing ends, 'Z' dead
	ticks       int64  // start, in hundredths of a second since boot
}

// ticksPerSecond is USER_HZ, which is 100 wherever Linux runs today.
const ticksPerSecond = 100

func (p procfs) process(pid int) (process, error) {
	text, err := p.read(filepath.Join(strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	// PID (NAME) STATE PARENT ...: a name may hold blanks and parentheses, so
	// the last one ends it (proc(5)).
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("read process %d: unexpected form", pid)
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 20 {
		return process{}, fmt.Errorf("read process %d: unexpected form", pid)
	}
	out := process{pid: pid, name: text[open+1 : end], state: fields[0][0]}
	var errs [2]error
	out.parent, errs[0] = strconv.Atoi(fields[1])
	out.ticks, errs[1] = strconv.ParseInt(fields[19], 10, 64)
	return out, errors.Join(errs[:]...)
}

// processes lists all processes that can be seen; one that ends meanwhile is
// not there.
func (p procfs) processes() ([]process, error) {
	entries, err := os.ReadDir(string(p))
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if one, err := p.process(pid); err == nil && one.state != 'Z' {
			list = append(list, one)
		}
	}
	return list, nil
}

// started is when a process was started, to the second: the kernel tells the
// time of the boot no better.
func (p procfs) started(one process) time.Time {
	text, err := p.read("stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "btime "); ok {
			boot, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return time.Time{}
			}
			return time.Unix(boot, 0).Add(time.Duration(one.ticks) * (time.Second / ticksPerSecond))
		}
	}
	return time.Time{}
}

// fileLock is one exclusive flock(2) of /proc/locks.
type fileLock struct {
	pid    int
	device device
	inode  uint64
}

// device is a device number as /proc writes it.
type device struct{ major, minor uint64 }

// parseLocks reads lines such as "3: FLOCK  ADVISORY  WRITE 812 fe:00:4711 0 EOF".
// Who waits for a lock ("3: -> FLOCK ...") does not have it.
func parseLocks(text string) []fileLock {
	var list []fileLock
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "FLOCK" || f[3] != "WRITE" {
			continue
		}
		where := strings.Split(f[5], ":")
		if len(where) != 3 {
			continue
		}
		var l fileLock
		var errs [4]error
		l.pid, errs[0] = strconv.Atoi(f[4])
		l.device.major, errs[1] = strconv.ParseUint(where[0], 16, 64)
		l.device.minor, errs[2] = strconv.ParseUint(where[1], 16, 64)
		l.inode, errs[3] = strconv.ParseUint(where[2], 10, 64)
		if errors.Join(errs[:]...) == nil {
			list = append(list, l)
		}
	}
	return list
}

// held is what can be said of one of master's lock files.
type held struct {
	locked bool
	pid    int // 0 where the kernel does not tell
}

// holder looks for the lock on a file without opening it: the file is root's
// alone, and whoever took the lock to see whether it is free would, for that
// moment, keep a master from starting.
func (p procfs) holder(path string, locks []fileLock) (held, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return held{}, nil // never started
		}
		return held{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	// A lock is shown with the device of the file system. What stat tells is
	// another one on btrfs and on overlays, whose subvolumes and layers have
	// devices of their own; mountinfo tells the former.
	devices := []device{{uint64(unix.Major(st.Dev)), uint64(unix.Minor(st.Dev))}}
	m, mounted := p.mountOf(path)
	if mounted {
		devices = append(devices, m.device)
	}
	for _, l := range locks {
		if l.inode != st.Ino {
			continue
		}
		one, err := p.process(l.pid)
		isMaster := err == nil && one.name == "master"
		if slices.Contains(devices, l.device) || !mounted && isMaster {
			h := held{locked: true}
			if isMaster {
				h.pid = l.pid // else the number is of another PID namespace
			}
			return h, nil
		}
	}
	return held{}, nil
}

// askMaster looks for the locks that a master holds for life: that of the
// queue directory, and that of the data directory as the second witness. The
// files themselves outlive every master, and their content proves nothing.
func askMaster(ctx context.Context, proc procfs, in postfix.Instance) (observe.Master, []observe.Gap) {
	pidFile, dataLock := filepath.Join(in.QueueDir, "pid", "master.pid"), filepath.Join(in.DataDir, "master.lock")
	gap := func(object, text, hint string) (observe.Master, []observe.Gap) {
		return observe.Master{}, []observe.Gap{{Source: "master", Object: object, Text: text, Hint: hint}}
	}
	var first, second held
	for try := 0; ; try++ {
		text, err := proc.read("locks")
		if err != nil {
			return gap("/proc/locks", err.Error(), "mount /proc, or run holdfast outside of the sandbox")
		}
		locks := parseLocks(text)
		if first, err = proc.holder(pidFile, locks); err != nil {
			return gap(pidFile, err.Error(), "run holdfast as root")
		}
		// Who is not the mail owner may not look into the data directory: the
		// first witness stands alone then.
		if second, err = proc.holder(dataLock, locks); err != nil || in.DataDir == "" {
			second = first
		}
		if first.locked == second.locked {
			break
		}
		// A master that is starting has one lock; "master -t", which is what
		// "postfix status" runs, has the first for a moment.
		if try == 3 || !pause(ctx, 100*time.Millisecond) {
			return gap(pidFile, fmt.Sprintf("of master's two locks one is held and the other is free (%s, %s)", pidFile, dataLock),
				"see whether master runs: ps -C master -o pid,lstart,args")
		}
	}
	if !first.locked && listens(ctx, in) {
		// The kernel does not show locks of processes outside this PID namespace.
		return gap(pidFile, "its lock is not to be seen, but somebody listens on public/qmgr: Postfix runs out of sight, in another container",
			"run holdfast where Postfix runs")
	}
	m := observe.Master{Known: true, Running: first.locked, PID: first.pid}
	if m.PID == 0 {
		m.PID = second.pid
	}
	if one, err := proc.process(m.PID); m.PID != 0 && err == nil {
		m.Started = proc.started(one)
	}
	return m, nil
}

// pause waits, and says whether there is time left.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
