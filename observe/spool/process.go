package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// Locked returns the inodes on which some process holds or wants a flock(2).
// A delivery agent locks the queue file as long as it delivers from it; that
// there is no lock does not prove that the queue manager has forgotten it.
//
// Files are told by inode alone. The device in /proc/locks is another one than
// stat's on btrfs and overlays, and a lock too many only means to wait.
func Locked() (map[uint64]bool, error) {
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil, fmt.Errorf("read locks: %w", err)
	}
	inodes := make(map[uint64]bool)
	for _, l := range parseFlocks(string(text)) {
		inodes[l.inode] = true
	}
	return inodes, nil
}

type flock struct {
	pid   int
	inode uint64
}

// parseFlocks reads lines such as "3: FLOCK  ADVISORY  READ 812 fe:00:4711 0
// EOF"; whoever waits for the lock has "->" before the kind.
func parseFlocks(text string) []flock {
	var list []flock
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 1 && f[1] == "->" {
			f = slices.Delete(f, 1, 2)
		}
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		pid, err := strconv.Atoi(f[4])
		inode, err2 := strconv.ParseUint(f[5][strings.LastIndexByte(f[5], ':')+1:], 10, 64)
		if errors.Join(err, err2) == nil {
			list = append(list, flock{pid, inode})
		}
	}
	return list
}

// Manager is a queue manager's process. PID and start together cannot be
// mistaken for a later one; PID 0 means that none runs.
type Manager struct {
	PID     int
	Started time.Time
}

// QueueManager finds the queue manager of an instance: the child of the master
// that holds the lock on the instance's pid file. An error means that it cannot
// be told whether one runs.
func QueueManager(in postfix.Instance) (Manager, error) {
	var st unix.Stat_t
	pidFile := filepath.Join(in.QueueDir, "pid", "master.pid")
	err := unix.Lstat(pidFile, &st)
	if errors.Is(err, unix.ENOENT) {
		return Manager{}, nil // never started
	}
	if err != nil {
		return Manager{}, fmt.Errorf("look at %q: %w", pidFile, err)
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return Manager{}, fmt.Errorf("read locks: %w", err)
	}
	for _, l := range parseFlocks(string(text)) {
		if l.inode != st.Ino {
			continue
		}
		p, err := readProcess(l.pid)
		switch {
		case l.pid <= 0 || errors.Is(err, os.ErrNotExist):
			return Manager{}, fmt.Errorf("find queue manager: the master of %q belongs to another PID namespace", in.Name)
		case err != nil:
			return Manager{}, err
		case p.name == "master":
			return childManager(l.pid)
		}
	}
	return Manager{}, nil
}

func childManager(master int) (Manager, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Manager{}, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		if err == nil && p.parent == master && !p.dead && (p.name == "qmgr" || p.name == "oqmgr" || p.name == "nqmgr") {
			started, err := bootTime()
			return Manager{PID: pid, Started: started.Add(p.sinceBoot)}, err
		}
	}
	return Manager{}, nil
}

type processStat struct {
	name      string
	parent    int
	dead      bool
	sinceBoot time.Duration
}

func readProcess(pid int) (processStat, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return processStat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	// PID (NAME) STATE PARENT ...: the last parenthesis ends the name (proc(5)).
	open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if open < 0 || end < open {
		return processStat{}, fmt.Errorf("read process %d: unexpected form", pid)
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 20 {
		return processStat{}, fmt.Errorf("read process %d: unexpected form", pid)
	}
	parent, err := strconv.Atoi(f[1])
	ticks, err2 := strconv.ParseInt(f[19], 10, 64)
	return processStat{
		name: string(text[open+1 : end]), parent: parent, dead: f[0] == "Z",
		sinceBoot: time.Duration(ticks) * (time.Second / 100), // USER_HZ
	}, errors.Join(err, err2)
}

// bootTime is what the kernel says, to the second; it can differ by one second
// between two readings.
func bootTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, fmt.Errorf("read time of boot: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "btime "); ok {
			boot, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return time.Unix(boot, 0).UTC(), err
		}
	}
	return time.Time{}, errors.New("read time of boot: /proc/stat has no btime")
}
