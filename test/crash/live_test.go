package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/record"
)

// Mail that moves while a verb is at work. Each ends with the books: what the
// command calls delivered the providers have, once.

// balances has the command account for everything since a snapshot, and holds
// that against what the providers have: nothing is called delivered that is not
// there, nothing that is there is called anything else, and nothing is unproven.
func (r *relay) balances() {
	r.Helper()
	res := r.run("account", "-o", "json", "--each")
	if res.Code != 0 {
		r.Errorf("account: exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	there := make(map[string]int)
	ledger, err := r.Ledger()
	r.check(err)
	for _, e := range ledger {
		there[e.Rcpt]++
	}
	delivered, told := 0, 0
	for line := range strings.Lines(res.Stdout) {
		var fate struct {
			Schema, Recipient, Fate, Grade string
		}
		r.check(json.Unmarshal([]byte(line), &fate))
		if fate.Schema != "holdfast.fate/1" {
			continue
		}
		told++
		switch n := there[fate.Recipient]; {
		case fate.Fate == "delivered" && n == 0:
			r.Errorf("%s is called delivered, %s, and no provider has it", fate.Recipient, fate.Grade)
		case fate.Fate == "delivered":
			delivered++
		case fate.Fate == "moved": // its successor has a line of its own
		case n > 0:
			r.Errorf("%s is called %s, and a provider has it", fate.Recipient, fate.Fate)
		}
		if fate.Fate == "unproven" || fate.Fate == "deleted_by_other" {
			r.Errorf("%s is %s", fate.Recipient, fate.Fate)
		}
	}
	if delivered != len(there) || told < delivered {
		r.Errorf("%d of %d recipients are called delivered, and the providers have %d", delivered, told, len(there))
	}
}

// inject submits messages and waits until so many are active.
func (r *relay) inject(n, active int, load lab.Load) {
	r.Helper()
	load.Count = n
	_, err := r.Inject(r.ctx, load)
	r.check(err)
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	r.check(r.WaitQueue(ctx, func(list []lab.Queued) bool {
		c := lab.Counts(list)
		return c["active"] >= active && c["incoming"]+c["maildrop"] == 0
	}))
}

// TestHoldWhileDelivering: of mail that is being delivered a hold takes only
// what it is told to, and what was taken comes back under another queue manager
// only: the one that knows it would end it undelivered.
func TestHoldWhileDelivering(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.check(r.SetParams(r.ctx, "", "smtp_destination_concurrency_limit=2", "initial_destination_concurrency=2"))
	r.check(r.Postfix(r.ctx, "", "reload"))
	r.must("snapshot", "save")
	// Two are under way, the others wait in the memory of the queue manager.
	r.inject(30, 20, lab.Load{Domains: []string{leisurely}})
	if res := r.run("hold", "--all", "--yes", "--reason", "x"); res.Code != 4 || !strings.Contains(res.Stdout, "being delivered") || len(r.places("hold")) > 0 {
		t.Fatalf("without being told: exit %d, %d on hold\n%s%s", res.Code, len(r.places("hold")), res.Stdout, res.Stderr)
	}
	res := r.run("hold", "--all", "--active", "--yes", "--reason", "x")
	if res.Code != 0 && res.Code != 5 {
		t.Fatalf("exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	held := r.places("hold")
	if len(held) < 10 {
		t.Fatalf("only %d are on hold\n%s", len(held), res.Stdout)
	}
	for _, args := range [][]string{{"release", "--all", "--anyway"}, {"expire", "--all"}, {"requeue", "--all", "--anyway", "--effects"}, {"try", held[0]}} {
		if res := r.run(append(args, "--yes", "--reason", "x")...); res.Code != 4 || len(r.places("hold")) != len(held) {
			t.Fatalf("%q under the same queue manager: exit %d, %d of %d on hold\n%s%s", args, res.Code, len(r.places("hold")), len(held), res.Stdout, res.Stderr)
		}
	}
	// What it has in memory it works off; the files are not where it knows them.
	time.Sleep(5 * time.Second)
	if now := len(r.places("hold")); now != len(held) {
		t.Fatalf("%d were on hold, %d are", len(held), now)
	}
	r.check(r.Postfix(r.ctx, "", "reload"))
	time.Sleep(time.Second)
	r.must("release", "--all", "--anyway", "--yes", "--reason", "x")
	r.check(r.WaitQueue(r.ctx, lab.Empty))
	r.balances()
	r.allArrive()
}

// TestQueueManagerMovesMeanwhile: plans are made and carried out while the
// queue manager takes the same messages from deferred and sends them.
func TestQueueManagerMovesMeanwhile(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.deferred(60)
	r.must("snapshot", "save")
	r.check(r.Cure("all"))
	for i := range 6 {
		_, err := r.Exec(r.ctx, "postqueue", "-f")
		r.check(err)
		for _, args := range [][]string{{"hold", "--all"}, {"release", "--all", "--anyway"}, {"requeue", "--all", "--anyway", "--effects"}} {
			if i%2 == 0 && args[0] == "requeue" {
				continue
			}
			if res := r.run(append(args, "--yes", "--reason", "x")...); !slices.Contains([]int{0, 1, 4, 5}, res.Code) {
				t.Errorf("%q: exit %d\n%s%s", args, res.Code, res.Stdout, res.Stderr)
			}
		}
	}
	r.must("recover")
	if n := len(r.ledger().Open); n > 0 {
		t.Errorf("%d intents are open", n)
	}
	r.allArrive()
	r.balances()
}

// TestIDsComeAgain: somebody deletes what Holdfast holds, another message gets
// the inode and the queue ID, and is put on hold by that somebody. It is not
// ours, however it is called; a copy of the old one brings nobody back under
// its name.
func TestIDsComeAgain(t *testing.T) {
	t.Parallel()
	r := upOn(t, lab.Storage{Kind: "ext4", Bytes: 64 << 20})
	r.must("snapshot", "save")
	id := r.deferred(1)[0]
	r.must("hold", "--id", id, "--yes", "--reason", "x")
	inode := r.inode(filepath.Join("hold", id))
	r.sh("postsuper -d " + id + " hold")
	// ext4 gives the inode out again at once, or nearly.
	other := ""
	for range 40 {
		if other = r.deferred(1)[0]; r.inode(filepath.Join("deferred", other[:1], other)) == inode {
			break
		}
	}
	if got := r.inode(filepath.Join("deferred", other[:1], other)); got != inode {
		t.Fatalf("inode %d never came again", inode)
	}
	// The microsecond of its birth comes again once in a million; not waited for.
	dir := r.spoolInside()
	r.check(r.Postfix(r.ctx, "", "stop"))
	r.sh(fmt.Sprintf("cd %s && mkdir -p hold && mv deferred/%s/%s hold/%s && { mkdir -p defer/%[5]s; chown postfix defer/%[5]s; mv defer/%[2]s/%[3]s defer/%[5]s/%[4]s; }",
		dir, other[:1], other, id, id[:1]))
	r.check(r.Postfix(r.ctx, "", "start"))
	for _, args := range [][]string{{"release", "--anyway"}, {"delete"}, {"requeue", "--anyway", "--effects"}, {"expire"}} {
		res := r.run(append(args, "--queue", "hold", "--yes", "--reason", "x")...)
		if held := r.places("hold"); !slices.Equal(held, []string{id}) || res.Code != 4 {
			t.Fatalf("%q: exit %d, on hold are %v\n%s%s", args, res.Code, held, res.Stdout, res.Stderr)
		}
	}
	// Told so, it is let go, by a queue manager that cannot have it in memory: it
	// began later, by more than the clock of a process can be wrong.
	time.Sleep(3 * time.Second)
	r.check(r.Postfix(r.ctx, "", "reload"))
	time.Sleep(time.Second)
	r.must("release", "--id", id, "--foreign", "--anyway", "--yes", "--reason", "x")
	if got := r.where(id); !slices.Equal(got, []string{"deferred"}) && !slices.Equal(got, []string{"active"}) {
		t.Errorf("it is in %v", got)
	}
	r.must("audit", "verify")
}

func (r *relay) inode(path string) uint64 {
	r.Helper()
	st, err := os.Stat(filepath.Join(r.spool, path))
	r.check(err)
	return st.Sys().(*syscall.Stat_t).Ino
}

// TestHoldOfAMilterIsLeftAlone: a milter's quarantine is somebody's decision.
func TestHoldOfAMilterIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.must("snapshot", "save")
	mine := r.deferred(3)
	r.check(r.SetParams(r.ctx, "", "smtpd_milters=inet:"+milterAddress))
	r.check(r.Postfix(r.ctx, "", "reload"))
	time.Sleep(time.Second)
	_, err := r.Inject(r.ctx, lab.Load{Count: 4, Domains: []string{destination}, Sender: "quarantines@customer.example"})
	r.check(err)
	quarantined := r.places("hold")
	if len(quarantined) != 4 {
		t.Fatalf("%d are in quarantine", len(quarantined))
	}
	r.many("hold", mine)
	res := r.must("release", "--all", "--anyway", "--yes", "--reason", "x")
	if !strings.Contains(res.Stdout, "milter") {
		t.Errorf("nothing is said of the milter:\n%s", res.Stdout)
	}
	held := r.places("hold")
	slices.Sort(held)
	slices.Sort(quarantined)
	if !slices.Equal(held, quarantined) {
		t.Errorf("on hold are %v, in quarantine were %v", held, quarantined)
	}
	r.must("release", "--all", "--foreign", "--anyway", "--yes", "--reason", "the scanner was wrong")
	r.allArrive()
	r.balances()
}

// TestInterruptedAndHungUp: Ctrl-C ends a run after the batch in hand and says
// how to go on; a hang-up ends nothing.
func TestInterruptedAndHungUp(t *testing.T) {
	t.Parallel()
	r := up(t)
	r.must("snapshot", "save")
	const n = 400
	ids := r.deferred(n)
	r.many("hold", ids)
	r.check(r.Cure("all"))
	// Released by sevens it takes a while.
	run := func(signal string) lab.Result {
		script := `"$@" & pid=$!; sleep 3; kill -` + signal + ` $pid; wait $pid`
		res, err := r.ExecWith(r.ctx, lab.ExecOptions{}, "bash", "-c", "set -m; "+script, "bash", program, "release", "--all", "--anyway", "--per-run", "10", "--yes", "--reason", "x")
		r.check(err)
		return res
	}
	res := run("INT")
	left := len(r.places("hold"))
	if res.Code != 130 || left == 0 || left == n {
		t.Errorf("Ctrl-C: exit %d, %d of %d are on hold\n%s%s", res.Code, left, n, res.Stdout, res.Stderr)
	}
	if !strings.Contains(res.Stdout+res.Stderr, "not begun") {
		t.Errorf("nothing is said of what is left:\n%s%s", res.Stdout, res.Stderr)
	}
	if open := len(r.ledger().Open); open > 0 {
		t.Errorf("%d intents are open", open)
	}
	if res = run("HUP"); res.Code != 0 {
		t.Errorf("hang-up: exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	if left = len(r.places("hold")); left > 0 {
		t.Errorf("after a hang-up %d are on hold", left)
	}
	r.allArrive()
	r.balances()
}

// TestPolicyOfAFile: what holdfast.toml asks for is asked for: a ticket, a hold
// before, another person; and what a plan was sealed under does not change
// under it.
func TestPolicyOfAFile(t *testing.T) {
	t.Parallel()
	r := up(t)
	ids := r.deferred(6)
	policy := "/etc/holdfast-of-" + r.Lab.Name + ".toml"
	write := func(text string) { r.sh("cat >" + policy + " <<'END'\n" + text + "END\nchmod 600 " + policy) }
	write("[policy.delete]\nneeds_ticket = true\nneeds_hold = true\nsecond_person = true\nceiling = 3\n[policy.inspect]\nneeds_ticket = true\n[policy.hold]\nallow = [\"carol\", \"@wheelwrights\"]\n")
	as := func(who string, code int, args ...string) lab.Result {
		t.Helper()
		var env []string
		if who != "" {
			env = []string{"SUDO_USER=" + who}
		}
		res, err := r.ExecWith(r.ctx, lab.ExecOptions{Env: env}, append([]string{program, "--config", policy}, args...)...)
		r.check(err)
		if res.Code != code {
			t.Errorf("%s: %q: exit %d, not %d\n%s%s", who, args, res.Code, code, res.Stdout, res.Stderr)
		}
		return res
	}
	id := "--id=" + ids[0]
	as("mallory", 4, "hold", id, "--yes", "--reason", "x")
	as("carol", 4, "delete", id, "--yes", "--reason", "x")                   // no ticket
	as("carol", 4, "delete", id, "--yes", "--reason", "x", "--ticket", "T1") // not held
	if held := r.places("hold"); len(held) > 0 {
		t.Fatalf("on hold are %v", held)
	}
	as("carol", 0, "hold", "--all", "--yes", "--reason", "x")
	as("carol", 4, "delete", "--all", "--yes", "--reason", "x", "--ticket", "T1") // six are over the ceiling
	as("carol", 4, "delete", id, "--yes", "--reason", "x", "--ticket", "T1")      // stored, and wants somebody else
	var sealed string
	for name, run := range r.ledger().Plans {
		if run.Plan.Verb == "delete" && run.Plan.Count == 1 && run.Started.IsZero() {
			sealed = name
		}
	}
	if sealed == "" {
		t.Fatal("the plan was not stored")
	}
	as("carol", 4, "plan", "approve", sealed, "--yes")
	as("carol", 4, "plan", "apply", sealed, "--yes")
	as("dave", 0, "plan", "approve", sealed, "--yes")
	before := r.sh("cat " + policy)
	write("[policy.delete]\nsecond_person = true\n")
	as("carol", 4, "plan", "apply", sealed, "--yes") // sealed under another policy
	write(before)
	if held := r.places("hold"); len(held) != len(ids) {
		t.Fatalf("%d are on hold", len(held))
	}
	as("carol", 0, "plan", "apply", sealed, "--yes")
	as("carol", 4, "plan", "apply", sealed, "--yes")
	if held := r.places("hold"); len(held) != len(ids)-1 || slices.Contains(held, ids[0]) {
		t.Errorf("on hold are %v", held)
	}
	// Content is shown for a reason, with a ticket, and that is on record.
	as("carol", 3, "show", ids[1], "--body", "--ticket", "T2")
	as("carol", 4, "show", ids[1], "--body", "--reason", "is it spam")
	as("carol", 0, "show", ids[1], "--body", "--reason", "is it spam", "--ticket", "T2")
	var item string
	for name := range r.ledger().Items {
		item = name
	}
	as("carol", 4, "vault", "show", item, "--reason", "was it spam")
	as("carol", 0, "vault", "show", item, "--reason", "was it spam", "--ticket", "T2")
	if got := r.inspections(); !slices.Equal(got, []string{"carol body T2", "carol vault T2"}) {
		t.Errorf("on record are %q", got)
	}
	// A file that others can write says nothing.
	r.sh("chmod 666 " + policy)
	as("carol", 2, "hold", "--all", "--yes", "--reason", "x")
	r.allArrive()
}

// inspections are the entries of who was shown content.
func (r *relay) inspections() []string {
	r.Helper()
	var seen []string
	for line := range strings.Lines(r.must("audit", "list", "-o", "json").Stdout) {
		var e struct {
			Kind   record.Kind
			Detail record.InspectBody
		}
		r.check(json.Unmarshal([]byte(line), &e))
		if e.Kind == record.Looked {
			seen = append(seen, e.Detail.By.Name()+" "+e.Detail.What+" "+e.Detail.Ticket)
		}
	}
	return seen
}
