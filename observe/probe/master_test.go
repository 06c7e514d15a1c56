package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// tree writes files, for the kernel's or for Postfix's.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// statLine is /proc/PID/stat of a process that was started so many seconds
// after the boot.
func statLine(pid int, name, state string, parent, seconds int) string {
	return fmt.Sprintf("%d (%s) %s %d %d %d 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d00 4096 100", pid, name, state, parent, pid, pid, seconds)
}

func TestProcessesWithOddNames(t *testing.T) {
	p := procfs(tree(t, map[string]string{
		"1/stat":   statLine(1, "init", "S", 0, 1),
		"17/stat":  statLine(17, ") R 1 (x) y", "T", 1, 90),
		"18/stat":  statLine(18, "dead", "Z", 1, 90),
		"19/stat":  "19 (cut",
		"20/stat":  "20 (short) S 1 2",
		"self":     "no directory",
		"stat":     "cpu 1 2 3\nbtime 1700000000\n",
		"21/other": "",
	}))
	list, err := p.processes()
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	odd, err := p.process(17)
	if err != nil || odd.name != ") R 1 (x) y" || odd.state != 'T' || odd.parent != 1 {
		t.Errorf("%+v, %v", odd, err)
	}
	if at := p.started(odd); !at.Equal(time.Unix(1700000090, 0)) {
		t.Errorf("started at %v", at)
	}
}

// masterTree is a host on which the locks are as told; %P and %D stand for the
// lock of the queue directory and that of the data directory.
func masterTree(t *testing.T, locks string, processes map[string]string) (procfs, postfix.Instance) {
	t.Helper()
	in := postfix.Instance{
		QueueDir: tree(t, map[string]string{"pid/master.pid": "", "public/other": ""}),
		DataDir:  tree(t, map[string]string{"master.lock": ""}),
	}
	for mark, path := range map[string]string{"%P": in.QueueDir + "/pid/master.pid", "%D": in.DataDir + "/master.lock"} {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		locks = strings.ReplaceAll(locks, mark, fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino))
		locks = strings.ReplaceAll(locks, strings.ToLower(mark), fmt.Sprintf("00:ff:%d", st.Ino)) // on another device
	}
	files := map[string]string{"locks": locks, "stat": "btime 1700000000\n"}
	for name, text := range processes {
		files[name] = text
	}
	return procfs(tree(t, files)), in
}

func TestMasterByItsLocks(t *testing.T) {
	const lock = ": FLOCK  ADVISORY  WRITE 812 "
	master := map[string]string{"812/stat": statLine(812, "master", "S", 1, 60)}
	mounts := "1 0 9:9 / / rw - ext4 /dev/x rw\n" // of some other device
	for name, c := range map[string]struct {
		locks          string
		processes      map[string]string
		known, running bool
		pid            int
	}{
		"runs":                        {"1" + lock + "%P 0 EOF\n2" + lock + "%D 0 EOF\n", master, true, true, 812},
		"stopped":                     {"1: POSIX  ADVISORY  WRITE 4 %P 0 EOF\n2: FLOCK ADVISORY READ 5 %D 0 EOF\n", master, true, false, 0},
		"who waits has no lock":       {"1: -> FLOCK  ADVISORY  WRITE 812 %P 0 EOF\n", master, true, false, 0},
		"only asked for (master -t)":  {"1" + lock + "%P 0 EOF\n", master, false, false, 0},
		"only starting":               {"1" + lock + "%D 0 EOF\n", master, false, false, 0},
		"numbers of another host":     {"1" + lock + "%P 0 EOF\n2" + lock + "%D 0 EOF\n", nil, true, true, 0},
		"number of another program":   {"1" + lock + "%P 0 EOF\n2" + lock + "%D 0 EOF\n", map[string]string{"812/stat": statLine(812, "bash", "S", 1, 60)}, true, true, 0},
		"devices of another kind":     {"1" + lock + "%p 0 EOF\n2" + lock + "%d 0 EOF\n", master, true, true, 812},
		"inodes of other devices":     {"1" + lock + "%p 0 EOF\n2" + lock + "%d 0 EOF\n", map[string]string{"812/stat": statLine(812, "master", "S", 1, 60), "self/mountinfo": mounts}, true, false, 0},
		"another device, no master's": {"1" + lock + "%p 0 EOF\n2" + lock + "%d 0 EOF\n", nil, true, false, 0},
		"garbage":                     {"\x00\xff\n1: FLOCK\n2: FLOCK ADVISORY WRITE x y:z 0 EOF\n3: FLOCK ADVISORY WRITE 812 1:2 0 EOF x\n", master, true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p, in := masterTree(t, c.locks, c.processes)
			m, gaps := askMaster(t.Context(), p, in)
			if m.Known != c.known || m.Running != c.running || m.PID != c.pid || m.Known == (len(gaps) > 0) {
				t.Errorf("%+v, gaps %v", m, gaps)
			}
			if c.pid != 0 && !m.Started.Equal(time.Unix(1700000060, 0)) {
				t.Errorf("started at %v", m.Started)
			}
		})
	}
}

func TestMasterWithoutProc(t *testing.T) {
	_, in := masterTree(t, "", nil)
	m, gaps := askMaster(t.Context(), procfs(t.TempDir()), in)
	if m.Known || len(gaps) != 1 || gaps[0].Hint == "" {
		t.Errorf("%+v, gaps %v", m, gaps)
	}
}

// A master that no lock shows, in a PID namespace of its own, still answers.
func TestMasterOutOfSight(t *testing.T) {
	p, in := masterTree(t, "", nil)
	listen(t, filepath.Join(in.QueueDir, "public", "qmgr"))
	m, gaps := askMaster(t.Context(), p, in)
	if m.Known || len(gaps) != 1 || !strings.Contains(gaps[0].Text, "out of sight") {
		t.Errorf("%+v, gaps %v", m, gaps)
	}
}

func TestMasterThatNeverRan(t *testing.T) {
	p := procfs(tree(t, map[string]string{"locks": ""}))
	m, gaps := askMaster(t.Context(), p, postfix.Instance{QueueDir: t.TempDir(), DataDir: t.TempDir()})
	if !m.Known || m.Running || len(gaps) != 0 {
		t.Errorf("%+v, gaps %v", m, gaps)
	}
}
