package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// roleVar tells a copy of this program which part of a lab it is. See Main.
const roleVar = "HOLDFAST_LAB_ROLE"

const (
	roleKeeper = "keeper"
	roleInit   = "init"
	roleWorld  = "world"
)

// Main must be the first call in the main function of a program, or in the TestMain of a test binary, that uses labs.
// A lab's processes are copies of the program that started it; in such a copy Main does its part and never returns.
// In any other process it does nothing.
func Main() {
	var err error
	switch role := os.Getenv(roleVar); role {
	case "":
		return
	case roleKeeper:
		err = keep(os.Args[1])
	case roleInit:
		err = runInit(os.Args[1])
	case roleWorld:
		err = runWorld(os.Args[1])
	default:
		err = fmt.Errorf("%s=%q is not a role", roleVar, role)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s holdfast lab %s: %v\n", time.Now().Format(time.TimeOnly), os.Getenv(roleVar), err)
		os.Exit(1)
	}
	os.Exit(0)
}

// roleCommand prepares a copy of this program. /proc/self/exe works where os.Executable does not: go test unlinks its
// binary while a keeper may still run.
func roleCommand(role, dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Args[0] = "holdfast-lab-" + role
	cmd.Dir = "/"
	cmd.Env = append(baseEnv(), roleVar+"="+role, "HOLDFAST_LAB_ROOT="+Root())
	return cmd
}

// baseEnv is the whole environment inside a lab. Nothing of the caller's leaks in: MAIL_CONFIG alone would turn every
// Postfix command away from the lab.
func baseEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM")}
}

// report is what a part of the lab tells the one that started it: once, when it is ready or has failed.
type report struct {
	Err  string `json:"err,omitempty"`
	Info Info   `json:"info,omitzero"`
}

func sendReport(w io.Writer, err error, info Info) error {
	r := report{Info: info}
	if err != nil {
		r.Err = err.Error()
	}
	if encErr := json.NewEncoder(w).Encode(r); encErr != nil {
		return fmt.Errorf("report: %w", encErr)
	}
	return nil
}

// awaitReport reads the one report of a child. A child that dies without a word leaves only its log to explain it.
func awaitReport(r io.Reader, dir, who string) (Info, error) {
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil {
		return Info{}, fmt.Errorf("%s ended without a report (is lab.Main called first?): %s", who, tail(filepath.Join(dir, keeperLog), 2000))
	}
	var rep report
	if err := json.Unmarshal(line, &rep); err != nil {
		return Info{}, fmt.Errorf("decode report of %s: %w", who, err)
	}
	if rep.Err != "" {
		return Info{}, errors.New(rep.Err)
	}
	return rep.Info, nil
}

func tail(path string, limit int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(data) > limit {
		data = data[len(data)-limit:]
	}
	return strings.TrimSpace(string(data))
}

// startKeeper starts the keeper of a lab whose directory and lock exist, and waits until the lab is up. The returned
// pipe is the lifeline: when its last copy is closed, for whatever reason, the keeper takes the lab down.
func startKeeper(dir string, lock *os.File) (lifeline *os.File, info Info, err error) {
	lifeR, lifeW, err := os.Pipe()
	if err != nil {
		return nil, Info{}, fmt.Errorf("make lifeline: %w", err)
	}
	defer lifeR.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		lifeW.Close()
		return nil, Info{}, fmt.Errorf("make ready pipe: %w", err)
	}
	defer readyR.Close()
	logFile, err := os.OpenFile(filepath.Join(dir, keeperLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, Info{}, errors.Join(fmt.Errorf("create keeper log: %w", err), lifeW.Close(), readyW.Close())
	}
	defer logFile.Close()
	cmd := roleCommand(roleKeeper, dir)
	// Neither the caller's terminal (Setsid) nor its output: go test waits for everybody who holds its stdout.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = lifeR, logFile, logFile
	cmd.ExtraFiles = []*os.File{lock, readyW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	readyW.Close()
	if err != nil {
		lifeW.Close()
		return nil, Info{}, fmt.Errorf("start keeper: %w", err)
	}
	go func() { _ = cmd.Wait() }() // only to reap it; the lock says when it has gone
	info, err = awaitReport(readyR, dir, "the lab's keeper")
	if err != nil {
		lifeW.Close()
		return nil, Info{}, err
	}
	return lifeW, info, nil
}

// keep is the keeper: the one process of a lab outside its namespaces. It starts PID 1, waits for a reason to end
// (lifeline closed, signal, PID 1 dead), and removes what the kernel does not.
func keep(dir string) error {
	// PDEATHSIG fires when the *thread* that forked ends, so the thread that starts PID 1 must be the one that stays.
	runtime.LockOSThread()
	ready := os.NewFile(4, "ready")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	ends := make(chan os.Signal, 4)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	life := watchLifeline(os.Stdin)

	child, childReady, err := startInit(dir)
	if err != nil {
		return errors.Join(sendReport(ready, err, Info{}), err, removeLab(dir))
	}
	reported, gone := make(chan error, 1), make(chan struct{})
	go func() {
		reported <- keeperReport(dir, child.Process.Pid, childReady, ready)
		// PID 1 keeps its end open for life. Its end of file comes before its end: with a frozen spool PID 1 cannot
		// finish dying until the thaw, so waiting for it here would wait for ever.
		_, _ = io.Copy(io.Discard, childReady)
		close(gone)
	}()
	for up := true; up; {
		select {
		case err := <-reported:
			if reported = nil; err != nil {
				fmt.Fprintln(os.Stderr, err)
				up = false
			}
		case <-gone:
			fmt.Fprintln(os.Stderr, "PID 1 of the lab is dead")
			up = false
		case <-life:
			up = false
		case <-ends:
			up = false
		}
	}
	if err := child.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintln(os.Stderr, "kill PID 1 of the lab:", err)
	}
	err = removeLab(dir)
	_ = child.Wait() // killed, so its status says nothing; when it is reaped the PID namespace is empty
	return err
}

// watchLifeline closes the returned channel at the end of the pipe. One byte before the end means that the lab is to
// outlive its starter; then the channel is never closed.
func watchLifeline(r io.Reader) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		var b [1]byte
		if n, _ := r.Read(b[:]); n == 0 {
			close(over)
		}
	}()
	return over
}

func startInit(dir string) (*exec.Cmd, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make ready pipe: %w", err)
	}
	defer w.Close()
	cmd := roleCommand(roleInit, dir)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, nil, fmt.Errorf("start PID 1 in new namespaces (this needs root): %w", err)
	}
	return cmd, r, nil
}

// keeperReport passes PID 1's report on, with what only the keeper knows, after it is on disk for other programs.
func keeperReport(dir string, initPID int, from, to *os.File) error {
	defer to.Close()
	info, err := awaitReport(from, dir, "PID 1 of the lab")
	if err == nil {
		info.Dir, info.Keeper, info.Init = dir, os.Getpid(), initPID
		info.Since = time.Now().UTC().Truncate(time.Second)
		err = writeJSON(filepath.Join(dir, stateName), info)
	}
	return errors.Join(err, sendReport(to, err, info))
}
