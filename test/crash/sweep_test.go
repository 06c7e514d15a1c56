package crash

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/lab"
	"holdfast/lab/strike"
	"holdfast/plan"
	"holdfast/record"
	"holdfast/record/audit"
)

// kinds are the calls that leave something behind, start something, or ask
// another process for something. What only reads is struck elsewhere.
func kinds() []string {
	return []string{
		"write", "pwrite", "fsync", "fdatasync", "rename", "unlink", "link", "mkdir", "chmod", "connect", "send", "execve", "wait",
	}
}

// parts are the processes of a changing verb that are killed.
func parts() []string {
	return []string{"holdfast", "holdfast __hand", "holdfast __opener", "postsuper"}
}

// verb is one way to change something, and how messages get to where it starts
// from.
type verb struct {
	name  string
	ready func(r *relay, ids []string) // prepares all messages
	args  []string                     // of the change; IDs come on stdin
	// cured lets the destination take mail, so that what is let go leaves.
	cured bool
	// each is how many messages one point is played with: a verb can be cut off
	// between two of them.
	each int
	// exits are the exit codes of a run that is left alone.
	exits []int
}

func verbs() []verb {
	nothing := func(*relay, []string) {}
	hold := func(r *relay, ids []string) { r.many("hold", ids) }
	change := func(name string, more ...string) []string {
		return slices.Concat([]string{name, "-", "--yes", "--reason", "crash test"}, more)
	}
	return []verb{
		{"hold", nothing, change("hold"), false, 2, []int{0}},
		{"release", hold, change("release"), true, 2, []int{0}},
		{"put-off", hold, change("release", "--anyway"), false, 2, []int{0, 5}},
		{"try", nothing, change("try"), true, 1, []int{0}},
		{"requeue", nothing, change("requeue", "--effects", "--anyway"), true, 2, []int{0}},
		{"expire", nothing, change("expire"), false, 2, []int{0}},
		{"delete", nothing, change("delete"), false, 2, []int{0}},
		{"restore", func(r *relay, ids []string) { r.many("delete", ids) }, change("restore"), false, 2, []int{0}},
		{"purge", func(r *relay, ids []string) { r.many("delete", ids) }, slices.Concat([]string{"vault"}, change("purge", "--anyway")), false, 2, []int{0}},
	}
}

// many changes all messages with one plan.
func (r *relay) many(name string, ids []string) {
	r.Helper()
	res, err := r.ExecWith(r.ctx, lab.ExecOptions{Stdin: lines(ids)}, program, name, "-", "--yes", "--expect", fmt.Sprint(len(ids)), "--reason", "crash test")
	r.check(err)
	if res.Code != 0 {
		r.Fatalf("holdfast %s of %d messages: exit %d\n%s%s", name, len(ids), res.Code, res.Stdout, res.Stderr)
	}
}

func TestKilledAtEveryCall(t *testing.T) {
	for _, v := range verbs() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			sweep(t, v, func(r *relay) {
				// The first run makes what later ones find; TestKilledInTheFirstRun
				// is about that.
				r.whole(v)
			}, func(*relay) {})
		})
	}
}

// TestKilledInTheFirstRun strikes while the state directory, the audit log, its
// key and the vault are made.
func TestKilledInTheFirstRun(t *testing.T) {
	t.Parallel()
	for _, v := range verbs() {
		if v.name == "hold" {
			sweep(t, v, func(*relay) {}, func(r *relay) {
				r.check(os.RemoveAll(r.HostPath(stateDir)))
			})
		}
	}
}

const stateDir = "/var/lib/holdfast"

// whole plays a verb without a strike.
func (r *relay) whole(v verb) strike.Report {
	r.Helper()
	ids := r.stage(v, v.each)
	whole, res := r.struck(strike.Point{}, ids, v.args...)
	if !slices.Contains(v.exits, whole.Code) {
		r.Fatalf("holdfast %q: exit %d\n%s%s", v.args, whole.Code, res.Stdout, res.Stderr)
	}
	r.settled(v.name+", not struck", v, ids)
	return whole
}

// sweep plays a verb once for each point, after before. How many calls there
// are is learnt from a run that is not struck.
func sweep(t *testing.T, v verb, warm, before func(*relay)) {
	r := up(t)
	warm(r)
	list := points(r.whole(v))
	pool := r.stage(v, len(list)*v.each)
	reached := make(map[string]int)
	for _, p := range list {
		before(r)
		var ids []string
		ids, pool = pool[:v.each], pool[v.each:]
		got, res := r.struck(p, ids, v.args...)
		switch {
		case got.Struck:
			reached[p.Part+", "+p.Kind]++
		case !slices.Contains(v.exits, got.Code): // this run made fewer such calls
			t.Errorf("%s: %s: not struck, and yet exit %d\n%s%s", v.name, p, got.Code, res.Stdout, res.Stderr)
		}
		r.settled(v.name+", "+p.String(), v, ids)
	}
	r.report(v.name, reached, len(list))
	r.allArrive()
}

// stage brings messages to where the verb starts from.
func (r *relay) stage(v verb, n int) []string {
	r.Helper()
	r.check(r.Cure("all"))
	r.check(r.Fault("world.down", lab.Params{"name": "patient"}))
	ids := r.deferred(n)
	v.ready(r, ids)
	if v.cured {
		r.check(r.Cure("all"))
	}
	return ids
}

// report says how many points were reached; a run that differs much from the
// one which it learnt from tests something else than it says.
func (r *relay) report(name string, reached map[string]int, asked int) {
	r.Helper()
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(reached)) {
		total += reached[kind]
		r.Logf("%-8s %4d points of %s", name, reached[kind], kind)
	}
	r.Logf("%-8s %4d points of %d asked for", name, total, asked)
	if total < asked*9/10 || total < 20 {
		r.Errorf("only %d of %d points of %s were reached", total, asked, name)
	}
}

func all() bool { return os.Getenv("HOLDFAST_CRASH") == "all" }

// points are the places to strike, by the calls of a whole run: every one, or
// the first, the last and one between them of each kind.
func points(whole strike.Report) []strike.Point {
	var list []strike.Point
	for _, part := range parts() {
		for _, kind := range kinds() {
			n := whole.Calls[part][kind]
			if !all() && (part == "holdfast __opener" || part == "holdfast" && kind == "write") {
				continue
			}
			for i := 1; i <= n; i++ {
				if all() || i == 1 || i == (n+1)/2 || i == n {
					list = append(list, strike.Point{Part: part, Kind: kind, N: i})
				}
			}
		}
	}
	return list
}

// settled runs recover twice and checks that each message is in one place.
func (r *relay) settled(point string, v verb, ids []string) {
	r.Helper()
	if res := r.run("recover"); res.Code != 0 {
		r.Errorf("%s: recover: exit %d\n%s%s", point, res.Code, res.Stdout, res.Stderr)
	}
	if res := r.run("recover", "-o", "json"); res.Code != 0 || !strings.Contains(res.Stdout, `"settled":[]`) {
		r.Errorf("%s: a second recover: exit %d\n%s%s", point, res.Code, res.Stdout, res.Stderr)
	}
	r.must("audit", "verify")
	ledger := r.ledger()
	if len(ledger.Open) > 0 {
		r.Errorf("%s: %d intents are open", point, len(ledger.Open))
	}
	for _, id := range ids {
		found := r.where(id)
		switch {
		case len(found) > 1:
			r.Errorf("%s: %s is in %v", point, id, found)
		case len(found) == 0 && !v.cured && !kept(ledger, id):
			r.Errorf("%s: %s is in no queue and not in the vault", point, id)
		}
	}
}

// ledger computes what the audit log says, without the program.
func (r *relay) ledger() *record.Ledger {
	r.Helper()
	return r.ledgerAt(filepath.Join(stateDir, "audit"))
}

func (r *relay) ledgerAt(dir string) *record.Ledger {
	r.Helper()
	f, err := os.Open(r.HostPath(filepath.Join(dir, audit.LogName)))
	if errors.Is(err, fs.ErrNotExist) {
		return &record.Ledger{} // nothing was ever changed
	}
	r.check(err)
	ledger, err := record.Fold(audit.Read(f))
	r.check(errors.Join(err, f.Close()))
	return ledger
}

func kept(ledger *record.Ledger, id string) bool {
	for _, c := range ledger.Items {
		if string(c.ID) == id {
			return true
		}
	}
	return false
}

// allArrive brings everything back, mends the destination, and counts.
func (r *relay) allArrive() {
	r.Helper()
	var lost []string
	ledger := r.ledger()
	purged := 0
	for _, c := range ledger.Items {
		if c.Purged {
			purged++ // for good, as it was wanted
			continue
		}
		// What was given up went back to its sender, which the account sees.
		if c.Removed && c.Restored == "" && ledger.Plans[c.Plan].Plan.Verb == plan.Delete {
			lost = append(lost, string(c.ID))
		}
	}
	slices.SortFunc(lost, cmp.Compare[string])
	if len(lost) > 0 {
		r.many("restore", lost)
	}
	r.check(r.Cure("all"))
	for _, argv := range [][]string{{"postsuper", "-H", "ALL"}, {"postqueue", "-f"}} {
		res, err := r.Exec(r.ctx, argv...)
		r.check(err)
		if res.Code != 0 {
			r.Fatalf("%q: %s", argv, res.Stderr)
		}
	}
	r.check(r.WaitQueue(r.ctx, lab.Empty))
	account, err := r.Account(r.ctx)
	r.check(err)
	if len(account.Missing) != purged || len(account.Twice)+len(account.Strays)+len(account.Queued) > 0 {
		r.Errorf("after all points, %d purged: %v", purged, account)
	}
}
