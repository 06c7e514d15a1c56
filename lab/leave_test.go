package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// traces lists everything of a lab that can still be found on the host: processes by their arguments and namespaces,
// mounts of any process, loop devices, the directory.
func traces(t *testing.T, name string, pidNS string) []string {
	t.Helper()
	dir := filepath.Join(Root(), name)
	var found []string
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range procs {
		args, _ := os.ReadFile(proc + "/cmdline")
		// Only roles: a shell or grep that happens to name the directory is nobody's leftover.
		if strings.HasPrefix(string(args), "holdfast-lab-") && strings.Contains(string(args), dir) {
			found = append(found, "process "+proc+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
		if ns, err := os.Readlink(proc + "/ns/pid"); err == nil && ns == pidNS {
			found = append(found, "process in the lab's PID namespace: "+proc)
		}
		mounts, _ := os.ReadFile(proc + "/mountinfo")
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, dir) {
				found = append(found, "mount in "+proc+": "+strings.TrimSpace(line))
			}
		}
	}
	loops, err := loopsOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	found = append(found, loops...)
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		found = append(found, "directory "+dir)
	}
	return found
}

// expectNothing gives the keeper and the kernel time to finish; no lab goes down in zero time.
func expectNothing(t *testing.T, name, pidNS string) {
	t.Helper()
	var found []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if found = traces(t, name, pidNS); len(found) == 0 {
			return
		}
	}
	t.Errorf("left behind:\n%s", strings.Join(found, "\n"))
}

func pidNamespace(t *testing.T, initPID int) string {
	t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", initPID))
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// startElsewhere starts a lab from another process, which can then be killed.
func startElsewhere(t *testing.T, name string) (*exec.Cmd, *Lab) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), labForOthers+"="+name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "up ") {
		t.Fatalf("starter said %q, %v", line, err)
	}
	l, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(traces(t, name, pidNamespace(t, l.Init))) < 10 {
		t.Fatal("the search for traces does not even find a lab that is up")
	}
	return cmd, l
}

// kills are all the ways in which a part of a lab can be torn out. Each must take the whole lab along.
func TestNothingIsLeftAfterAKill(t *testing.T) {
	cases := []struct {
		name  string
		kill  func(*testing.T, *exec.Cmd, *Lab)
		sweep bool // the directory may stay until the next look
	}{
		{"starter", func(t *testing.T, starter *exec.Cmd, _ *Lab) { kill(t, starter.Process.Pid) }, false},
		{"init", func(t *testing.T, _ *exec.Cmd, l *Lab) { kill(t, l.Init) }, false},
		{"keeper", func(t *testing.T, _ *exec.Cmd, l *Lab) { kill(t, l.Keeper) }, true},
		{"starter-frozen", func(t *testing.T, starter *exec.Cmd, l *Lab) {
			freezeBusy(t, l)
			kill(t, starter.Process.Pid)
		}, false},
		{"init-frozen", func(t *testing.T, _ *exec.Cmd, l *Lab) {
			freezeBusy(t, l)
			kill(t, l.Init)
		}, false},
		{"keeper-frozen", func(t *testing.T, _ *exec.Cmd, l *Lab) {
			freezeBusy(t, l)
			kill(t, l.Keeper)
		}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			name := "kill-" + c.name
			starter, l := startElsewhere(t, name)
			ns := pidNamespace(t, l.Init)
			c.kill(t, starter, l)
			if c.sweep {
				for alive(l.Dir) {
					time.Sleep(time.Millisecond)
				}
				infos, err := List()
				if err != nil {
					t.Fatal(err)
				}
				for _, info := range infos {
					if info.Name == name {
						t.Errorf("a lab without a keeper is still listed: %+v", info)
					}
				}
			}
			expectNothing(t, name, ns)
		})
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// freezeBusy freezes the spool with a process in the middle of a write, which nothing but a thaw can end.
func freezeBusy(t *testing.T, l *Lab) {
	t.Helper()
	if err := l.Fault("storage.freeze", nil); err != nil {
		t.Fatal(err)
	}
	go l.Exec(t.Context(), "sh", "-c", ": > /var/spool/postfix/stuck")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		procs, err := l.Processes()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range procs {
			if p.Name == "sh" && p.State == "D" {
				return
			}
		}
	}
	t.Fatal("no process hangs on the frozen spool")
}

func TestNothingIsLeftAfterDown(t *testing.T) {
	for _, storage := range []string{"plain", "tmpfs:32M", "ext4:32M", "xfs:300M"} {
		t.Run(strings.ReplaceAll(storage, ":", "-"), func(t *testing.T) {
			s, err := ParseStorage(storage)
			if err != nil {
				t.Fatal(err)
			}
			l := Up(t, Options{Spool: s})
			ns := pidNamespace(t, l.Init)
			if err := l.Down(); err != nil {
				t.Fatal(err)
			}
			if found := traces(t, l.Name, ns); len(found) > 0 { // Down promises that it is over when it returns
				t.Errorf("left behind:\n%s", strings.Join(found, "\n"))
			}
		})
	}
}
