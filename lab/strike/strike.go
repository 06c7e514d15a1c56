// Package strike kills a process, or lets a call of it fail, at one system call.
//
// A command runs under ptrace(2) together with every process that it starts.
// Each has a part: the name of its program, with the hidden argument of a copy
// that a program makes of itself. A Point is the n-th call of a kind in a part,
// counted over all threads of all processes of the part; the call itself is not
// made. So the same point means the same moment in every run, as far as the
// program itself is the same, and "the program, and separately its children" is
// a loop over the parts. strace counts for each thread, and whichever process
// comes first is hit.
//
// Only the calls of the kinds below stop the command (a seccomp filter says
// which), so that it runs nearly as fast as without.
//
// Invariants: at most one process is killed; nobody else is disturbed, and Run
// returns when all of them have ended.
//
// Bugs: x86-64 alone, since it reads registers.
package strike

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kinds are the calls that can be struck, grouped by what they are for.
var kinds = map[string][]uintptr{
	"write":     {unix.SYS_WRITE, unix.SYS_WRITEV},
	"pwrite":    {unix.SYS_PWRITE64, unix.SYS_PWRITEV, unix.SYS_PWRITEV2},
	"fsync":     {unix.SYS_FSYNC},
	"fdatasync": {unix.SYS_FDATASYNC},
	"rename":    {unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2},
	"unlink":    {unix.SYS_UNLINK, unix.SYS_UNLINKAT},
	"link":      {unix.SYS_LINK, unix.SYS_LINKAT},
	"mkdir":     {unix.SYS_MKDIR, unix.SYS_MKDIRAT},
	"chmod":     {unix.SYS_CHMOD, unix.SYS_FCHMOD, unix.SYS_FCHMODAT},
	"connect":   {unix.SYS_CONNECT},
	"send":      {unix.SYS_SENDTO, unix.SYS_SENDMSG},
	"execve":    {unix.SYS_EXECVE, unix.SYS_EXECVEAT},
	"wait":      {unix.SYS_WAIT4, unix.SYS_WAITID},
	"open":      {unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2},
	"fallocate": {unix.SYS_FALLOCATE, unix.SYS_FTRUNCATE},
	"utimes":    {unix.SYS_UTIMENSAT},
}

// Kinds lists the kinds of calls, those first that leave something behind.
func Kinds() []string {
	return []string{
		"write", "pwrite", "fsync", "fdatasync", "rename", "unlink", "link", "mkdir", "chmod",
		"connect", "send", "execve", "wait", "open", "fallocate", "utimes",
	}
}

// Point says where to strike. The zero Point strikes nowhere: the calls are
// counted.
type Point struct {
	Part string `json:"part,omitempty"` // "holdfast", "holdfast __hand", "postsuper"
	Kind string `json:"kind,omitempty"`
	N    int    `json:"n,omitempty"` // the first call is 1
	// Errno is what the call fails with; 0 kills the process instead.
	Errno syscall.Errno `json:"errno,omitempty"`
	// All kills every process of the command and not only the one, as the death
	// of the machine does.
	All bool `json:"all,omitempty"`
	// Onwards lets every later call of the kind fail, too, as a full disk does.
	Onwards bool `json:"onwards,omitempty"`
}

func (p Point) String() string {
	what := "killed"
	if p.All {
		what = "all killed"
	}
	if p.Errno != 0 {
		what = unix.ErrnoName(p.Errno)
		if p.Onwards {
			what += " from then on"
		}
	}
	return fmt.Sprintf("%s, %s %d: %s", p.Part, p.Kind, p.N, what)
}

// Report is what a run came to.
type Report struct {
	Struck bool `json:"struck"`
	// Calls counts the calls by part and kind.
	Calls map[string]map[string]int `json:"calls"`
	// Code is the exit code of the command itself, 128 and the signal's number
	// where one ended it.
	Code int `json:"code"`
}

const (
	roleVar   = "HOLDFAST_STRIKE"
	pointVar  = "HOLDFAST_STRIKE_POINT"
	reportVar = "HOLDFAST_STRIKE_REPORT"
)

// Main must be the first call in the TestMain of a test that uses this package:
// the process that watches a command is a copy of the test's program. In any
// other process it does nothing.
func Main() {
	role := os.Getenv(roleVar)
	if role == "" {
		return
	}
	err := watch()
	if role == "begin" {
		err = begin()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "strike:", err)
		os.Exit(125)
	}
	os.Exit(0)
}

// Env is the environment with which a copy of this test's program, given a
// command as its arguments, runs the command and writes the report to a file.
func Env(p Point, report string) ([]string, error) {
	text, err := json.Marshal(p)
	return []string{roleVar + "=watch", pointVar + "=" + string(text), reportVar + "=" + report}, err
}

// ReadReport reads what a run wrote.
func ReadReport(path string) (Report, error) {
	var r Report
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// begin becomes the command, with the filter that every process it starts
// inherits.
func begin() error {
	runtime.LockOSThread()
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return err
	}
	for _, name := range []string{roleVar, pointVar, reportVar} {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	env := os.Environ()
	filter := filterOf()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("set filter: %w", errno)
	}
	return unix.Exec(path, os.Args[1:], env)
}

// filterOf tells the kernel which calls are to stop.
func filterOf() []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
	)
	var numbers []uintptr
	for _, k := range Kinds() {
		numbers = append(numbers, kinds[k]...)
	}
	f := []unix.SockFilter{{Code: load, K: 0}} // seccomp_data.nr
	for i, n := range numbers {
		f = append(f, unix.SockFilter{Code: equal, K: uint32(n), Jt: uint8(len(numbers) - i)})
	}
	return append(f, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_TRACE})
}

// watcher follows a command and all that it starts.
type watcher struct {
	point  Point
	kindOf map[uintptr]string
	parts  map[int]string // by process
	groups map[int]int    // process by thread
	report Report
}

// watch runs the command and writes the report.
func watch() error {
	w := &watcher{kindOf: make(map[uintptr]string), parts: make(map[int]string), groups: make(map[int]int)}
	w.report.Calls = make(map[string]map[string]int)
	if err := json.Unmarshal([]byte(os.Getenv(pointVar)), &w.point); err != nil {
		return err
	}
	for k, numbers := range kinds {
		for _, n := range numbers {
			w.kindOf[n] = k
		}
	}
	if _, known := kinds[w.point.Kind]; !known && w.point != (Point{}) {
		return fmt.Errorf("there is no kind of call %q", w.point.Kind)
	}
	runtime.LockOSThread() // the thread that traces must be the one that waits
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVar+"=") }), roleVar+"=begin")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	first := cmd.Process.Pid
	if err := w.follow(first); err != nil {
		_ = unix.Kill(first, unix.SIGKILL)
		return err
	}
	text, err := json.Marshal(w.report)
	if err != nil {
		return err
	}
	return os.WriteFile(os.Getenv(reportVar), text, 0o600)
}

const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC |
	unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL

func (w *watcher) follow(first int) error {
	var status unix.WaitStatus
	if _, err := unix.Wait4(first, &status, 0, nil); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(first, options); err != nil {
		return err
	}
	w.groups[first] = first
	if err := unix.PtraceCont(first, 0); err != nil {
		return err
	}
	for {
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil // all have ended
		case err != nil:
			return err
		}
		if status.Exited() || status.Signaled() {
			if tid == first {
				w.report.Code = status.ExitStatus()
				if status.Signaled() {
					w.report.Code = 128 + int(status.Signal())
				}
			}
			delete(w.groups, tid)
			continue
		}
		if !status.Stopped() {
			continue
		}
		// ESRCH: it was killed while it was stopped, and the next wait says so.
		if err := unix.PtraceCont(tid, w.stopped(tid, status)); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}

// stopped serves a stop and returns the signal to go on with.
func (w *watcher) stopped(tid int, status unix.WaitStatus) int {
	_, known := w.groups[tid]
	if !known {
		w.meet(tid)
	}
	sig := status.StopSignal()
	if sig != unix.SIGTRAP {
		if !known && sig == unix.SIGSTOP {
			return 0 // how a new thread or process begins
		}
		return int(sig)
	}
	switch status.TrapCause() {
	case unix.PTRACE_EVENT_EXEC:
		w.parts[w.groups[tid]] = partOf(w.groups[tid])
	case unix.PTRACE_EVENT_SECCOMP:
		w.call(tid)
	}
	return 0
}

// meet learns which process a thread is of. A new process has the part of its
// parent until it becomes another program.
func (w *watcher) meet(tid int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return
	}
	var group, parent int
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "Tgid":
			_, _ = fmt.Sscan(value, &group)
		case "PPid":
			_, _ = fmt.Sscan(value, &parent)
		}
	}
	w.groups[tid] = group
	if _, known := w.parts[group]; !known {
		w.parts[group] = w.parts[parent]
	}
}

// partOf names what a process is now.
func partOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	argv := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		exe = argv[0]
	}
	name := filepath.Base(exe)
	if len(argv) > 1 && strings.HasPrefix(argv[1], "__") {
		name += " " + argv[1]
	}
	return name
}

// call counts a call, and strikes where it is the one.
func (w *watcher) call(tid int) {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return
	}
	part, kind := w.parts[w.groups[tid]], w.kindOf[uintptr(regs.Orig_rax)]
	if part == "" {
		return // not the command yet
	}
	if w.report.Calls[part] == nil {
		w.report.Calls[part] = make(map[string]int)
	}
	w.report.Calls[part][kind]++
	n := w.report.Calls[part][kind]
	if part != w.point.Part || kind != w.point.Kind || n != w.point.N && (n < w.point.N || !w.point.Onwards) {
		return
	}
	if w.point.All {
		for pid := range w.parts {
			if pid != w.groups[tid] {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
	}
	if w.point.Errno == 0 {
		w.report.Struck = unix.Kill(w.groups[tid], unix.SIGKILL) == nil
		return
	}
	regs.Orig_rax = ^uint64(0) // no call at all
	regs.Rax = uint64(-int64(w.point.Errno))
	w.report.Struck = unix.PtraceSetRegs(tid, &regs) == nil
}
