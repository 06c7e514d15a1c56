package agree

// A program's system calls, as strace saw them.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"holdfast/lab"
)

// call is one system call of one thread.
type call struct {
	thread, process int
	name            string
	text            string // arguments and result, descriptors with their paths
	failed          bool
	result          int
}

// traced are the calls that open, read, pass on descriptors, or change who a
// process is.
const traced = "trace=open,openat,openat2,read,pread64,readv,preadv,preadv2,mmap,sendfile,splice,copy_file_range,getdents64," +
	"setuid,setgid,setreuid,setregid,setresuid,setresgid,setgroups,setfsuid,setfsgid,capset,execve,clone,clone3,fork,vfork," +
	"flock,fcntl,exit,exit_group"

// trace runs holdfast as root under strace and returns its calls in the order
// in which they began, and what it printed.
func (j *jam) trace(args ...string) ([]call, lab.Result) {
	j.Helper()
	out := filepath.Join(filepath.Dir(program), j.Lab.Name+".strace")
	defer os.Remove(out)
	argv := append([]string{"strace", "-f", "-y", "-qq", "-s", "64", "-o", out, "-e", traced, "-e", "signal=none", program}, args...)
	res, err := j.Exec(j.ctx, argv...)
	check(j.T, err)
	if res.Code != 0 {
		j.Fatalf("%q: exit %d: %s", argv, res.Code, res.Stderr)
	}
	text, err := os.ReadFile(out)
	check(j.T, err)
	calls, err := parseTrace(string(text))
	check(j.T, err)
	return calls, res
}

var (
	tracedCall   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedCall  = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	tracedResult = regexp.MustCompile(`\) += (-?\d+|\?)`)
)

// parseTrace joins the halves of calls that another thread interrupted, and
// finds the process of each thread.
func parseTrace(text string) ([]call, error) {
	var calls []call
	open := map[int]int{} // by thread: index of the call that has not returned
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if strings.Contains(line, " ???(") {
			continue // a thread that ended before strace knew it
		}
		if m := resumedCall.FindStringSubmatch(line); m != nil {
			thread, err := strconv.Atoi(m[1])
			i, ok := open[thread]
			if err != nil || !ok || calls[i].name != m[2] {
				return nil, fmt.Errorf("a call returns that was not begun: %q", line)
			}
			delete(open, thread)
			calls[i].text += m[3]
			continue
		}
		m := tracedCall.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("not a system call: %q", line)
		}
		thread, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		rest, unfinished := strings.CutSuffix(m[3], " <unfinished ...>")
		if unfinished {
			open[thread] = len(calls)
		}
		calls = append(calls, call{thread: thread, name: m[2], text: rest})
	}
	for i := range calls {
		c := &calls[i]
		all := tracedResult.FindAllStringSubmatch(c.text, -1)
		if len(all) == 0 || all[len(all)-1][1] == "?" {
			c.failed = true // it never returned
			continue
		}
		var err error
		if c.result, err = strconv.Atoi(all[len(all)-1][1]); err != nil {
			return nil, err
		}
		c.failed = c.result < 0
	}
	return withProcesses(calls), nil
}

// withProcesses fills in which process each thread belongs to.
func withProcesses(calls []call) []call {
	process := map[int]int{}
	for _, c := range calls {
		if process[c.thread] == 0 && len(process) == 0 {
			process[c.thread] = c.thread
		}
		if c.failed || !strings.Contains(c.name, "clone") && !strings.Contains(c.name, "fork") {
			continue
		}
		process[c.result] = c.result
		if strings.Contains(c.text, "CLONE_THREAD") {
			process[c.result] = process[c.thread]
		}
	}
	for i := range calls {
		if calls[i].process = process[calls[i].thread]; calls[i].process == 0 {
			calls[i].process = calls[i].thread
		}
	}
	return calls
}

// program returns what a process executed last, with its arguments.
func executed(calls []call, process int) string {
	last := ""
	for _, c := range calls {
		if c.process == process && c.name == "execve" && !c.failed {
			last = c.text
		}
	}
	return last
}

// within tells whether the call is about something in one of these directories
// of the spool: by descriptor, by path, or by what it returned.
func (c call) within(spool string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		path := spool + "/" + dir
		for _, end := range []string{">", "/", `"`} {
			if strings.Contains(c.text, path+end) {
				return true
			}
		}
		// Relative to the descriptor of the spool itself.
		return strings.Contains(c.text, "<"+spool+`>, "`+dir+`"`) || strings.Contains(c.text, "<"+spool+`>, "`+dir+`/`)
	})
}

// reads tells whether the call takes bytes out of a file.
func (c call) reads() bool {
	return slices.Contains([]string{"read", "pread64", "readv", "preadv", "preadv2", "mmap", "sendfile", "splice", "copy_file_range"}, c.name)
}

// opens tells whether the call opens a file or lists a directory.
func (c call) opens() bool {
	return slices.Contains([]string{"open", "openat", "openat2", "getdents64"}, c.name)
}
