package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processFaults stop and kill Postfix's processes, or spoil its configuration.
func processFaults() []FaultKind {
	name := FaultParam{Name: "name", Type: "text", Required: true, Help: "program: master, qmgr, smtpd, cleanup, postlogd, …"}
	return []FaultKind{
		{
			Name: "process.stop", Summary: "processes that run now hang (SIGSTOP); new ones of the name do not", Cure: "continues those that still live",
			Params:  []FaultParam{name, instanceParam},
			prepare: func(ctx context.Context, l *Lab, a args) (any, error) { return l.needProcesses(ctx, a) },
			act: func(ctx context.Context, _ *Lab, _ args, raw json.RawMessage) error {
				return errors.Join(signalAll(raw, unix.SIGSTOP), awaitState(ctx, raw, "Tt"))
			},
			cure: func(_ context.Context, _ *Lab, _ args, raw json.RawMessage) error {
				return signalAll(raw, unix.SIGCONT)
			},
		},
		{
			Name: "process.kill", Summary: "processes that run now are killed (SIGKILL)", Cure: "starts Postfix if its master is gone; it restarts the others itself",
			Params:  []FaultParam{name, instanceParam},
			prepare: func(ctx context.Context, l *Lab, a args) (any, error) { return l.needProcesses(ctx, a) },
			act: func(ctx context.Context, _ *Lab, _ args, raw json.RawMessage) error {
				return errors.Join(signalAll(raw, unix.SIGKILL), awaitState(ctx, raw, ""))
			},
			cure: startIfStopped,
		},
		{
			Name: "postfix.stop", Summary: "Postfix is stopped", Cure: "starts it",
			Params:  []FaultParam{instanceParam},
			prepare: nothingToUndo,
			act: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
				return l.stopIfRunning(ctx, a.Params["instance"])
			},
			cure: startIfStopped,
		},
		{
			Name: "postfix.config", Summary: "a main.cf parameter is changed and Postfix reloaded", Cure: "puts the old main.cf back, byte for byte, and reloads",
			Params: []FaultParam{
				{Name: "set", Type: "text", Required: true, Help: "NAME=VALUE"},
				instanceParam,
			},
			prepare: prepareConfig,
			act: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
				return l.SetParams(ctx, a.Params["instance"], a.Params["set"])
			},
			cure: restoreConfig,
		},
	}
}

func startIfStopped(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
	if running, err := l.Running(ctx, a.Params["instance"]); err != nil || running {
		return err
	}
	return l.Postfix(ctx, a.Params["instance"], "start")
}

func prepareConfig(_ context.Context, l *Lab, a args) (any, error) {
	in, err := l.instance(a.Params["instance"])
	if err != nil {
		return nil, err
	}
	if !strings.Contains(a.Params["set"], "=") {
		return nil, fmt.Errorf("%q is not NAME=VALUE", a.Params["set"])
	}
	before, err := os.ReadFile(l.HostPath(filepath.Join(in.configDir(), "main.cf")))
	if err != nil {
		return nil, fmt.Errorf("read main.cf: %w", err)
	}
	return string(before), nil
}

func restoreConfig(ctx context.Context, l *Lab, a args, raw json.RawMessage) error {
	before, err := undoAs[string](raw)
	if err != nil {
		return err
	}
	in, err := l.instance(a.Params["instance"])
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.HostPath(filepath.Join(in.configDir(), "main.cf")), []byte(before), 0o644); err != nil {
		return fmt.Errorf("restore main.cf: %w", err)
	}
	if running, err := l.Running(ctx, in.Name); err != nil || !running {
		return err
	}
	return l.Postfix(ctx, in.Name, "reload")
}

// Process is a process of a lab, by its pid on the host.
type Process struct {
	PID   int    `json:"pid"`
	Inner int    `json:"inner"` // pid inside the lab
	PPID  int    `json:"ppid"`  // on the host
	Name  string `json:"name"`  // as in /proc/PID/comm: at most 15 bytes
	State string `json:"state"` // one letter, as ps shows it
	Start string `json:"start"` // start time in ticks since boot: tells a pid's owners apart
}

// Processes lists all processes of the lab.
func (l *Lab) Processes() ([]Process, error) {
	home, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", l.Init))
	if err != nil {
		return nil, fmt.Errorf("look at lab %q: %w", l.Name, err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []Process
	for _, dir := range dirs {
		if ns, err := os.Readlink(dir + "/ns/pid"); err != nil || ns != home {
			continue // another's, or gone
		}
		if p, err := readProcess(dir); err == nil {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Process) int { return a.Inner - b.Inner })
	return list, nil
}

func readProcess(dir string) (Process, error) {
	var p Process
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, fmt.Errorf("read process: %w", err)
	}
	// PID (COMM) STATE PPID …: the name may hold blanks and parentheses, so the last one ends it (proc(5)).
	open, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	fields := strings.Fields(string(stat[end+1:]))
	if open < 0 || end < open || len(fields) < 20 {
		return p, fmt.Errorf("read process: %q has an unknown form", dir+"/stat")
	}
	p.Name, p.State, p.Start = string(stat[open+1:end]), fields[0], fields[19]
	p.PPID, _ = strconv.Atoi(fields[1])
	if p.PID, err = strconv.Atoi(filepath.Base(dir)); err != nil {
		return p, fmt.Errorf("read process: %w", err)
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, fmt.Errorf("read process: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if pids := strings.Fields(line); len(pids) > 1 && pids[0] == "NSpid:" {
			p.Inner, _ = strconv.Atoi(pids[len(pids)-1])
		}
	}
	return p, nil
}

// PostfixProcesses lists the running processes of one program of an instance; "" lists them all.
func (l *Lab) PostfixProcesses(name, program string) ([]Process, error) {
	in, err := l.instance(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(l.SpoolDir(in.Name), "pid/master.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // never started
	}
	if err != nil {
		return nil, fmt.Errorf("read master.pid: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return nil, nil // a master that is just starting, or a file whose content a crash of the file system took
	}
	inner, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("read master.pid: %w", err)
	}
	all, err := l.Processes()
	if err != nil {
		return nil, err
	}
	// The file outlives its master, so the pid must also be called so.
	i := slices.IndexFunc(all, func(p Process) bool { return p.Inner == inner && p.Name == "master" && p.State != "Z" })
	if i < 0 {
		return nil, nil
	}
	master := all[i]
	return slices.DeleteFunc(all, func(p Process) bool {
		// A child that is still called master has not become anything yet.
		ours := p.PID == master.PID || (p.PPID == master.PID && p.Name != "master")
		return !ours || p.State == "Z" || (program != "" && p.Name != program[:min(len(program), 15)])
	}), nil
}

// needProcesses waits a little: master starts qmgr and pickup a moment after "postfix start" has returned.
func (l *Lab) needProcesses(ctx context.Context, a args) ([]Process, error) {
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		found, err := l.PostfixProcesses(a.Params["instance"], a.Params["name"])
		if err != nil || len(found) > 0 {
			return found, err
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return nil, fmt.Errorf("no process %q of Postfix runs", a.Params["name"])
		}
	}
}

// signalAll signals processes that are still the ones that were found; a pid may have gone to another since.
func signalAll(raw json.RawMessage, sig unix.Signal) error {
	list, err := undoAs[[]Process](raw)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range list {
		fd, err := unix.PidfdOpen(p.PID, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("open process %d: %w", p.PID, err))
			continue
		}
		if now, err := readProcess(fmt.Sprintf("/proc/%d", p.PID)); err == nil && now.Start == p.Start {
			if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("signal process %d: %w", p.PID, err))
			}
		}
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// awaitState returns when every process has one of the states or has ended. One that waits for a disk (D) is let be: it
// obeys the signal when it wakes.
func awaitState(ctx context.Context, raw json.RawMessage, states string) error {
	list, err := undoAs[[]Process](raw)
	if err != nil {
		return err
	}
	for _, p := range list {
		for {
			now, err := readProcess(fmt.Sprintf("/proc/%d", p.PID))
			if err != nil || now.Start != p.Start || strings.Contains(states+"DZX", now.State) {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("wait for process %d to obey: %w", p.PID, ctx.Err())
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}
