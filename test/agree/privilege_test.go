package agree

// Root is gone, from every thread and for good, before the first byte of mail
// is read; the one process that stays root opens and never reads; and those
// who are not root see what they may see, and are told what is missing.

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"holdfast/lab"
	"holdfast/postfix"
)

// mailDirs hold what strangers wrote: messages, and logs with their words.
func mailDirs() []string {
	dirs := []string{"defer", "bounce", "trace", "flush"}
	for _, q := range postfix.Queues() {
		dirs = append(dirs, q.String())
	}
	return dirs
}

func TestRootIsGoneBeforeMailIsRead(t *testing.T) {
	j := still(t, lab.Storage{})
	held, dropped := j.files("hold")[0], j.files("maildrop")
	owner := j.account("postfix")
	for _, args := range [][]string{
		{"queue"},
		{"queue", "--by", "cause", "-o", "json"},
		{"queue", "--header", "Subject:", "-o", "json"},
		{"show", held, "--body", "--reason", "test"},
		{"triage", "-o", "json"},
		{"show", dropped[0], dropped[1], dropped[2], "--body", "--reason", "test", "-o", "json"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			k := *j
			k.T = t
			calls, _ := k.trace(args...)
			spool := j.Instances[0].SpoolDir
			k.checkReader(calls, spool, owner)
			k.checkOpener(calls, spool, args[0] != "show" || args[1] == dropped[0])
		})
	}
}

// account returns user and group ID of an account.
func (j *jam) account(name string) (ids [2]int) {
	j.Helper()
	_, err := fmt.Sscanf(in(j.T, j.Lab, "", "id", "-u", name), "%d", &ids[0])
	check(j.T, err)
	_, err = fmt.Sscanf(in(j.T, j.Lab, "", "id", "-g", name), "%d", &ids[1])
	check(j.T, err)
	return ids
}

// dropped is what a thread has given up.
type dropped struct{ groups, group, user bool }

func (d dropped) all() bool { return d.groups && d.group && d.user }

// checkReader follows who each thread of the command is. Threads are born with
// the identity of the thread that made them.
func (j *jam) checkReader(calls []call, spool string, owner [2]int) {
	j.Helper()
	main := calls[0].process
	threads := map[int]dropped{main: {}}
	group, user := fmt.Sprintf("(%d, %d, %d)", owner[1], owner[1], owner[1]), fmt.Sprintf("(%d, %d, %d)", owner[0], owner[0], owner[0])
	reads := 0
	for _, c := range calls {
		if c.process != main {
			if c.within(spool, mailDirs()...) && !strings.Contains(executed(calls, c.process), "__opener") {
				j.Errorf("a process of its own touches mail: %s(%s", c.name, c.text)
			}
			continue
		}
		switch d := threads[c.thread]; {
		case c.name == "setgroups" && !c.failed:
			d.groups = strings.HasPrefix(c.text, fmt.Sprintf("1, [%d])", owner[1]))
			threads[c.thread] = d
		case c.name == "setresgid" && !c.failed:
			d.group = strings.HasPrefix("("+c.text, group)
			threads[c.thread] = d
		case c.name == "setresuid" && !c.failed:
			d.user = strings.HasPrefix("("+c.text, user)
			threads[c.thread] = d
		case strings.HasPrefix(c.name, "set") && !c.failed:
			j.Errorf("another change of identity: %s(%s", c.name, c.text)
		case strings.Contains(c.text, "CLONE_THREAD") && !c.failed:
			threads[c.result] = d
		case c.name == "exit":
			delete(threads, c.thread)
		case (c.reads() || c.opens()) && c.within(spool, mailDirs()...):
			reads++
			for thread, d := range threads {
				if !d.all() {
					j.Fatalf("%s(%s\nwhile thread %d had only %+v", c.name, c.text, thread, d)
				}
			}
		case c.name == "flock" && c.within(spool, mailDirs()...), c.name == "fcntl" && strings.Contains(c.text, "SETLK"):
			j.Errorf("a lock: %s(%s", c.name, c.text)
		}
	}
	if reads < 5 {
		j.Errorf("the trace shows %d reads of mail: it proves nothing", reads)
	}
}

// checkOpener: it opens in maildrop, and reads nothing there or anywhere else
// in the spool.
func (j *jam) checkOpener(calls []call, spool string, wanted bool) {
	j.Helper()
	opened := 0
	for _, c := range calls {
		if !strings.Contains(executed(calls, c.process), "__opener") || c.failed {
			continue
		}
		switch others := slices.DeleteFunc(mailDirs(), func(d string) bool { return d == "maildrop" }); {
		case c.reads() && c.within(spool, mailDirs()...):
			j.Errorf("the opener reads: %s(%s", c.name, c.text)
		case c.within(spool, others...):
			j.Errorf("the opener leaves maildrop: %s(%s", c.name, c.text)
		case c.opens() && c.within(spool, "maildrop"):
			opened++
		}
	}
	if wanted && opened == 0 {
		j.Error("the opener opened nothing: the trace proves nothing")
	}
}

// A process that looks again and again is looked at from outside.
func TestReaderHasNoPrivileges(t *testing.T) {
	j := still(t, lab.Storage{})
	owner := j.account("postfix")
	ctx, stop := context.WithCancel(j.ctx)
	printed := make(chan struct{})
	var once sync.Once
	var done sync.WaitGroup
	done.Go(func() {
		o := lab.ExecOptions{Stdout: writer(func(p []byte) (int, error) {
			once.Do(func() { close(printed) })
			return len(p), nil
		})}
		_, _ = j.ExecWith(ctx, o, program, "queue", "--watch=100ms") // its end is ours
	})
	defer done.Wait()
	defer stop()
	select {
	case <-printed:
	case <-j.ctx.Done():
		t.Fatal("holdfast queue --watch printed nothing")
	}
	tasks := in(t, j.Lab, "", "sh", "-c", `for p in $(pgrep -f "^$1 queue --watch"); do cat /proc/$p/task/*/status; done`, "sh", program)
	n := 0
	for _, task := range strings.Split(tasks, "Name:")[1:] {
		n++
		for _, want := range []string{
			fmt.Sprintf("\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", owner[0]), fmt.Sprintf("\nGid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", owner[1]),
			"\nCapInh:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n",
			"\nCapEff:\t0000000000000000\n", "\nCapAmb:\t0000000000000000\n",
		} {
			if !strings.Contains(task, want) {
				t.Errorf("a thread has no line %q:\n%s", strings.TrimSpace(want), task)
			}
		}
		_, groups, _ := strings.Cut(task, "\nGroups:")
		groups, _, _ = strings.Cut(groups, "\n")
		if groups = strings.TrimSpace(groups); groups != strconv.Itoa(owner[1]) {
			t.Errorf("a thread is in the groups %q", groups)
		}
	}
	if n < 2 {
		t.Errorf("there are %d threads to look at, not several", n)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestWhatOthersSee(t *testing.T) {
	j := still(t, lab.Storage{})
	owner := j.account("postfix")
	type listing struct {
		Schema string
		ID     string
		Queue  string
		Gaps   []struct {
			Source, Object, Text, Hint string
			Count                      int
		}
	}
	look := func(o lab.ExecOptions) (ids map[string]int, gaps string) {
		t.Helper()
		res := holdfastAs(t, j.Lab, o, "queue", "-o", "json")
		if res.Code != 0 {
			t.Fatalf("exit %d: %s", res.Code, res.Stderr)
		}
		ids = make(map[string]int)
		for _, l := range jsonLines[listing](t, res.Stdout) {
			if l.Queue != "" {
				ids[l.Queue]++
			}
			for _, g := range l.Gaps {
				gaps += fmt.Sprintf("%s %s: %s (%d). ", g.Source, g.Object, g.Text, g.Count)
			}
		}
		return ids, gaps
	}
	all, gaps := look(lab.ExecOptions{})
	if gaps != "" || all["maildrop"] != 3 || all["hold"] != 5 || all["active"] != 3 || all["deferred"] == 0 {
		t.Errorf("root sees %v with gaps %q", all, gaps)
	}
	// The owner of the spool may read all of it but what others submitted.
	seen, gaps := look(lab.ExecOptions{UID: owner[0], GID: owner[1]})
	if seen["maildrop"] != 0 || !strings.Contains(gaps, "maildrop") || !strings.Contains(gaps, "(3)") {
		t.Errorf("the mail owner sees %v with gaps %q", seen, gaps)
	}
	delete(all, "maildrop")
	for queue, n := range all {
		if seen[queue] != n {
			t.Errorf("the mail owner sees %d in %s, root %d", seen[queue], queue, n)
		}
	}
	check(t, j.Postfix(j.ctx, "", "start"))
	group := j.account("nobody")
	_, err := fmt.Sscanf(in(t, j.Lab, "", "getent", "group", "postdrop"), "postdrop:x:%d:", &group[1])
	check(t, err)
	seen, gaps = look(lab.ExecOptions{UID: nobody, GID: group[1]})
	if seen["hold"] != 5 || !strings.Contains(gaps, "spool "+j.Instances[0].SpoolDir) || !strings.Contains(gaps, "showq") {
		t.Errorf("a member of postdrop sees %v with gaps %q", seen, gaps)
	}
	res := holdfastAs(t, j.Lab, lab.ExecOptions{UID: nobody, GID: nobody}, "queue")
	if res.Code != 6 || res.Stdout != "" || !strings.Contains(res.Stderr, "permission denied") || !strings.Contains(res.Stderr, "\nhint: ") || !strings.Contains(res.Stderr, "sudo") {
		t.Errorf("nobody: exit %d, stdout %q, stderr %q", res.Code, res.Stdout, res.Stderr)
	}
}
