package crash

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"holdfast/lab"
	"holdfast/record"
)

// What a stranger, a local user or a careless shell can put in the way of a verb
// that changes something.

// traced replaces postsuper in the lab's own view of the file system by a
// script, and returns the file in which that notes how it was called. The real
// one is $REAL there.
func (r *relay) traced(script string) (log string) {
	r.Helper()
	dir := "/tmp/attack-" + r.Lab.Name
	r.sh("mkdir -p " + dir + " && cp /usr/sbin/postsuper " + dir + "/real && touch " + dir + "/log && chmod 755 " + dir)
	r.T.Cleanup(func() { _ = os.RemoveAll(dir) })
	r.check(os.WriteFile(filepath.Join(dir, "fake"), []byte("#!/bin/sh\nREAL="+dir+"/real LOG="+dir+"/log\n"+
		`{ echo "args $*"; env | sort | sed 's/^/env /'; echo "cwd $(pwd)"; } >>$LOG`+"\n"+script), 0o755))
	r.sh("mount --bind " + dir + "/fake /usr/sbin/postsuper")
	return filepath.Join(dir, "log")
}

// sh runs a shell command in the lab that has to work.
func (r *relay) sh(command string) string {
	r.Helper()
	res, err := r.Exec(r.ctx, "sh", "-c", command)
	r.check(err)
	if res.Code != 0 {
		r.Fatalf("%s: exit %d\n%s", command, res.Code, res.Stderr)
	}
	return res.Stdout
}

const passOn = "exec $REAL \"$@\"\n"

// TestNamesThatAreNone: what is no queue ID reaches no command, and neither does
// a selection of nothing (cases of the threat list).
func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	r := up(t)
	ids := r.deferred(3)
	if res := r.run("hold", "--id", ids[0], "--yes", "--reason", "x"); res.Code != 0 {
		t.Fatal(res.Stderr)
	}
	log := r.traced(passOn)
	for _, id := range []string{
		"ALL", "all", "-", "-d", "../" + ids[1], "deferred/" + ids[1], ids[1] + ";rm", ids[1] + "\nALL", ids[1] + "\x00", "", "_",
		strings.Repeat("4", 300), "*", "$(id)", ids[1] + " " + ids[2], "\u202e" + ids[1],
	} {
		for _, verb := range []string{"hold", "release", "try", "requeue", "expire", "delete", "restore"} {
			args := []string{verb, "--yes", "--reason", "x", "--id=" + id}
			if verb == "try" {
				args = []string{verb, "--yes", "--reason", "x", "--", id}
			}
			if strings.ContainsRune(id, 0) {
				continue // no program can be given that
			}
			if res := r.run(args...); res.Code != 1 && res.Code != 2 {
				t.Errorf("%q: exit %d\n%s%s", args, res.Code, res.Stdout, res.Stderr)
			}
		}
	}
	for _, verb := range []string{"hold", "release", "requeue", "expire", "delete"} {
		for name, stdin := range map[string]string{"nothing": "", "lines of nothing": "\n\n", "what is none": "ALL\n", "one that is none among others": ids[1] + "\nALL\n"} {
			res, err := r.ExecWith(r.ctx, lab.ExecOptions{Stdin: strings.NewReader(stdin)}, program, verb, "-", "--yes", "--reason", "x")
			r.check(err)
			if res.Code == 0 && !strings.HasPrefix(name, "nothing") && !strings.HasPrefix(name, "lines") {
				t.Errorf("%s of %s: exit %d\n%s%s", verb, name, res.Code, res.Stdout, res.Stderr)
			}
		}
		// Nothing says what it is about.
		if res := r.run(verb, "--yes", "--reason", "x"); res.Code != 2 {
			t.Errorf("%s without a selection: exit %d\n%s%s", verb, res.Code, res.Stdout, res.Stderr)
		}
		if res := r.run(verb, "--sender", "nobody@nowhere.example", "--yes", "--reason", "x"); res.Code != 0 {
			t.Errorf("%s of what is not there: exit %d\n%s%s", verb, res.Code, res.Stdout, res.Stderr)
		}
	}
	if said := r.sh("cat " + log); said != "" {
		t.Errorf("postsuper was called:\n%s", said)
	}
	if held := r.places("hold"); !slices.Equal(held, ids[:1]) {
		t.Errorf("on hold are %v", held)
	}
	r.allArrive()
}

// TestSurroundingsOfAStranger: environment, working directory, umask and links
// that were laid beforehand change nothing.
func TestSurroundingsOfAStranger(t *testing.T) {
	t.Parallel()
	r := up(t)
	ids := r.deferred(4)
	log := r.traced(passOn)
	trap := "/tmp/trap-" + r.Lab.Name
	r.T.Cleanup(func() { _ = os.RemoveAll(trap) })
	r.sh("mkdir " + trap + " && cd " + trap + ` && for tool in postsuper postconf postqueue postmulti postkick postlog sh env; do
		printf '#!/bin/sh\ntouch ` + trap + `/sprung\n' >$tool; chmod 755 $tool; done; cp -r /etc/postfix etc`)
	hostile := []string{
		"PATH=" + trap + ":.:/usr/bin:/bin", "MAIL_CONFIG=" + trap + "/etc", "POSTLOG_SERVICE=x", "POSTLOG_HOSTNAME=x", "LD_PRELOAD=" + trap + "/none.so",
		"LD_LIBRARY_PATH=" + trap, "BASH_ENV=" + trap + "/sh", "ENV=" + trap + "/sh", "GODEBUG=netdns=cgo", "GOTRACEBACK=crash", "IFS=o", "TMPDIR=" + trap,
		"HOLDFAST_SECRET=hunter2",
	}
	for _, args := range [][]string{
		{"hold", "--id", ids[0], "--id", ids[1]}, {"delete", "--id", ids[0]}, {"release", "--anyway", "--id", ids[1]}, {"requeue", "--anyway", "--effects", "--id", ids[2]},
	} {
		argv := append([]string{"/bin/sh", "-c", "umask 000; exec \"$@\"", "sh", program}, append(args, "--yes", "--reason", "x")...)
		res, err := r.ExecWith(r.ctx, lab.ExecOptions{Dir: trap, Env: hostile}, argv...)
		r.check(err)
		if res.Code != 0 && res.Code != 5 {
			t.Errorf("%q: exit %d\n%s%s", args, res.Code, res.Stdout, res.Stderr)
		}
	}
	if res, err := r.Exec(r.ctx, "ls", trap+"/sprung"); err != nil || res.Code == 0 {
		t.Errorf("something from a hostile directory ran (%v)", err)
	}
	said := r.sh("cat " + log)
	if !strings.Contains(said, "args -c /etc/postfix -h - ") {
		t.Errorf("postsuper was called so:\n%s", said)
	}
	for line := range strings.Lines(said) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "env "), "="); ok && strings.HasPrefix(line, "env ") && !slices.Contains([]string{"PWD", "OLDPWD", "SHLVL", "_", "LOG", "REAL"}, name) {
			t.Errorf("postsuper has %s", line)
		}
		if dir, ok := strings.CutPrefix(line, "cwd "); ok && dir != "/\n" {
			t.Errorf("postsuper runs in %s", dir)
		}
	}
	r.modes()
	r.allArrive()
}

// modes holds every file of the state against what it may be.
func (r *relay) modes() {
	r.Helper()
	n := 0
	for line := range strings.Lines(r.sh("find " + stateDir + " -printf '%y %m %U %p\\n'")) {
		f := strings.Fields(line)
		mode, err := strconv.ParseUint(f[1], 8, 32)
		r.check(err)
		path := strings.TrimPrefix(f[3], stateDir)
		most := fs.FileMode(0o700)
		if path == "" {
			most = 0o711
		}
		owner := f[2] == "0" || strings.HasPrefix(path, "/probes")
		if fs.FileMode(mode)&^most != 0 || !owner || f[0] != "d" && f[0] != "f" {
			r.Errorf("%s has type %s, mode %s, owner %s", f[3], f[0], f[1], f[2])
		}
		n++
	}
	if n < 10 {
		r.Errorf("there are only %d files of state", n)
	}
}

// TestLinksInTheState: what somebody laid where Holdfast keeps its records is
// followed nowhere; the verb is refused and nothing is done.
func TestLinksInTheState(t *testing.T) {
	t.Parallel()
	r := up(t)
	ids := r.deferred(2)
	victim := "/tmp/victim-" + r.Lab.Name
	r.T.Cleanup(func() { _ = os.RemoveAll(victim) })
	for _, c := range []string{
		"mkdir -p S && ln -s V/lock S/lock",
		"mkdir -p S && ln -s V S/audit",
		"mkdir -p S/audit && chmod 700 S/audit && ln -s V/file S/audit/audit.log",
		"mkdir -p S && ln -s V S/vault",
		"mkdir -p S && ln -s V S/plans",
		"mkdir -p S && ln -s V S/targets",
		"mkdir -p S && chown nobody S",
		"mkdir -p S/audit && chown nobody S/audit",
	} {
		r.sh("rm -rf " + stateDir + " " + victim + " && mkdir -p " + victim + " && echo precious >" + victim + "/file && chmod 600 " + victim + "/file")
		r.sh(strings.NewReplacer("S", stateDir, "V", victim).Replace(c))
		before := r.sh("cd " + victim + " && find . -type f | sort | xargs sha256sum")
		res := r.run("delete", "--all", "--yes", "--reason", "x")
		if after := r.sh("cd " + victim + " && find . -type f | sort | xargs sha256sum"); after != before {
			t.Errorf("%s: what the link led to was written to:\n%s%s", c, before, after)
		}
		if left := len(r.places("deferred")) + len(r.places("hold")); res.Code == 0 || left != len(ids) {
			t.Fatalf("%s: exit %d, and %d messages are left of %d\n%s%s", c, res.Code, left, len(ids), res.Stdout, res.Stderr)
		}
		t.Logf("%s: exit %d %s", c, res.Code, strings.TrimSpace(res.Stderr))
	}
	r.sh("rm -rf " + stateDir)
	r.allArrive()
}

// TestLyingPostsuper: what a command prints and how it exits is no outcome. What
// is seen afterwards is.
func TestLyingPostsuper(t *testing.T) {
	t.Parallel()
	r := up(t)
	for name, c := range map[string]struct {
		script string
		code   int
		state  record.State
	}{
		"does nothing and is content": {`cat >/dev/null; echo "postsuper: Placed on hold: 2 messages" >&2; exit 0` + "\n", 1, record.Failed},
		"names IDs and does nothing":  {`while read -r id; do echo "postsuper: $id: placed on hold" >&2; done; exit 0` + "\n", 1, record.Failed},
		"does it and fails":           {"$REAL \"$@\"; exit 1\n", 0, record.Done},
		"does it and is killed":       {"$REAL \"$@\"; kill -9 $$\n", 0, record.Done},
		"does it and says otherwise":  {"$REAL \"$@\" 2>/dev/null; echo 'postsuper: fatal: nothing was done' >&2; exit 75\n", 0, record.Done},
		"is killed before":            {"kill -9 $$\n", 1, record.Failed},
	} {
		ids := r.deferred(2)
		r.traced(c.script)
		args := []string{"hold", "--yes", "--reason", name}
		for _, id := range ids {
			args = append(args, "--id", id)
		}
		res := r.run(args...)
		r.sh("umount /usr/sbin/postsuper")
		if res.Code != c.code {
			t.Errorf("%s: exit %d\n%s%s", name, res.Code, res.Stdout, res.Stderr)
		}
		held := 0
		for _, id := range r.places("hold") {
			if slices.Contains(ids, id) {
				held++
			}
		}
		if held != len(ids) != (c.state == record.Failed) {
			t.Errorf("%s: %d of %d are on hold", name, held, len(ids))
		}
		found := false
		for _, run := range r.ledger().Plans {
			if run.Plan.Reason == name {
				found = run.Counts[c.state] == len(ids)
			}
		}
		if !found {
			t.Errorf("%s: the outcomes on record are others than %s", name, c.state)
		}
	}
	r.allArrive()
}

// TestPlantedInTheSpool: whoever is the mail owner lays links, pipes and
// directories where held mail was. A verb touches none of them.
func TestPlantedInTheSpool(t *testing.T) {
	t.Parallel()
	r := up(t)
	ids := r.deferred(6)
	r.many("hold", ids[:5])
	victim := "/tmp/spool-victim-" + r.Lab.Name
	r.T.Cleanup(func() { _ = os.RemoveAll(victim) })
	r.sh("mkdir " + victim + " && echo precious >" + victim + "/file && cd " + r.spoolInside() + "/hold && mkdir ../away && mv " + strings.Join(ids[:4], " ") + " ../away")
	r.sh(fmt.Sprintf("cd %s/hold && ln -s %s/file %s && mkfifo -m 700 %s && mkdir %s && ln ../deferred/*/%s %s && chown -h postfix %[3]s %[4]s",
		r.spoolInside(), victim, ids[0], ids[1], ids[2], ids[5], ids[3]))
	for _, args := range [][]string{{"delete"}, {"requeue", "--anyway", "--effects"}, {"expire"}, {"release", "--anyway"}} {
		verb := args[0]
		args = append(args, "--yes", "--reason", "x")
		for _, id := range ids[:4] {
			args = append(args, "--id", id)
		}
		res := r.run(args...)
		t.Logf("%s: exit %d %s", verb, res.Code, strings.TrimSpace(res.Stderr))
		if got := r.sh("cat " + victim + "/file"); got != "precious\n" {
			t.Fatalf("%s wrote through a link", verb)
		}
		for _, id := range ids[:4] {
			if res, err := r.Exec(r.ctx, "ls", "-d", r.spoolInside()+"/hold/"+id); err != nil || res.Code != 0 {
				t.Errorf("%s took %s away (%v)", verb, id, err)
			}
		}
	}
	r.sh(fmt.Sprintf("cd %s/hold && rm -rf %s && mv ../away/* . && rmdir ../away", r.spoolInside(), strings.Join(ids[:4], " ")))
	r.must("delete", "--id", ids[4], "--yes", "--reason", "x")
	r.must("audit", "verify")
	r.allArrive()
}

// spoolInside is the spool as the lab sees it.
func (r *relay) spoolInside() string {
	r.Helper()
	dir, err := r.Postconf(r.ctx, "", "queue_directory")
	r.check(err)
	return dir
}
