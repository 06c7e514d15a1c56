// These tests hold what holdfast account says against what a real Postfix did:
// the lab's providers keep a ledger of what they took, and the spool is walked.
// Postfix is made to lose mail, too, as it does when active mail is held and
// released, and each lost recipient must be found. Nothing that the program
// says of itself is taken for the truth.

package account_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/lab/world"
)

func TestMain(m *testing.M) {
	lab.Main()
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir) // it is below /tmp
	}
	os.Exit(code)
}

// built is the holdfast command of this tree, below /tmp, which labs share with
// the host. Tests without a lab do without it.
var built struct {
	sync.Once
	dir string
	err error
}

func program(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("/tmp", "holdfast-account-"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(built.dir, "holdfast"), "holdfast/cmd/holdfast")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it ships
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if built.err = build.Run(); built.err == nil {
			built.err = os.Chmod(built.dir, 0o755)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "holdfast")
}

// relay is a lab with one destination, and a domain of which nobody knows.
type relay struct {
	*testing.T
	*lab.Lab
	ctx     context.Context
	program string
}

const (
	destination = "patient.example"
	provider    = "patient"
)

func up(t *testing.T, params map[string]string) *relay {
	t.Helper()
	l := lab.Up(t, lab.Options{
		World: world.Config{
			DNS: world.DNSConfig{Listen: []string{"192.0.2.53"}},
			Providers: []world.ProviderConfig{
				{Name: provider, Domains: []string{destination}, Hosts: []world.Host{{Addr: "198.51.100.10"}}},
			},
		},
		Params: params,
	})
	return &relay{t, l, t.Context(), program(t)}
}

func (r *relay) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// do runs a command on the relay, with an exit code that is expected.
func (r *relay) do(code int, argv ...string) string {
	r.Helper()
	res, err := r.Exec(r.ctx, argv...)
	r.check(err)
	if res.Code != code {
		r.Fatalf("%q: exit %d, not %d\n%s%s", argv, res.Code, code, res.Stdout, res.Stderr)
	}
	return res.Stdout
}

func (r *relay) inject(n int, domains ...string) {
	r.Helper()
	_, err := r.Inject(r.ctx, lab.Load{Count: n, Domains: domains})
	r.check(err)
}

// wait waits until the queues are as wanted.
func (r *relay) wait(wanted func(map[string]int) bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Minute)
	defer cancel()
	r.check(r.WaitQueue(ctx, func(list []lab.Queued) bool { return wanted(lab.Counts(list)) }))
}

// flush asks for a queue run until the queues are as wanted: the queue manager
// holds a destination dead for a while that has just failed.
func (r *relay) flush(wanted func(map[string]int) bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 3*time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		r.do(0, "postqueue", "-f")
		soon, stop := context.WithTimeout(ctx, 3*time.Second)
		err := r.WaitQueue(soon, func(list []lab.Queued) bool { return wanted(lab.Counts(list)) })
		stop()
		if err == nil {
			return
		}
	}
	r.Fatal("the queues did not become what the test wants")
}

func (r *relay) ids(queue string) []string {
	r.Helper()
	list, err := r.Queue(r.ctx, "")
	r.check(err)
	var ids []string
	for _, m := range list {
		if m.Queue == queue {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// fate is a line of account --each.
type fate struct {
	Schema    string
	Recipient string
	Fate      string
	Evidence  struct{ Grade string }
	Balanced  bool
	Fates     map[string]int
}

// account compares what holdfast says with the truth, and returns its figures.
func (r *relay) account(code int) map[string]int {
	r.Helper()
	truth, err := r.Account(r.ctx)
	r.check(err)
	said := map[string][]string{}
	var sum fate
	for line := range strings.Lines(r.do(code, r.program, "account", "--each", "-o", "json")) {
		var f fate
		r.check(json.Unmarshal([]byte(line), &f))
		switch {
		case f.Schema == "holdfast.account/1":
			sum = f
		case f.Fate != "moved" && strings.HasPrefix(f.Recipient, "t-"):
			token, _, _ := strings.Cut(f.Recipient, "@")
			said[token] = append(said[token], f.Fate)
			if f.Fate == "delivered" && f.Evidence.Grade == "proved" && !slices.Contains(truth.Delivered, token) {
				r.Errorf("%s was not delivered, and the account calls it proved", token)
			}
		}
	}
	for want, tokens := range map[string][]string{"delivered": truth.Delivered, "pending": truth.Queued, "bounced": truth.Bounced} {
		for _, token := range tokens {
			if got := said[token]; !slices.Equal(got, []string{want}) {
				r.Errorf("%s is %s, and the account says %q", token, want, got)
			}
		}
	}
	for _, token := range truth.Missing {
		if got := said[token]; len(got) != 1 || got[0] == "delivered" || got[0] == "pending" || got[0] == "bounced" {
			r.Errorf("%s is lost, and the account says %q", token, got)
		}
	}
	if (code == 0) != sum.Balanced {
		r.Errorf("exit %d, and balanced is %t", code, sum.Balanced)
	}
	return sum.Fates
}

// TestAccountAgreesWithPostfix lets everything happen to mail that may: each
// recipient's fate is what the ledger and the spool say.
func TestAccountAgreesWithPostfix(t *testing.T) {
	t.Parallel()
	r := up(t, map[string]string{"queue_run_delay": "2s", "minimal_backoff_time": "300s", "maximal_backoff_time": "600s", "smtp_connect_timeout": "2s"})
	r.check(r.Fault("world.down", lab.Params{"name": provider}))
	r.inject(20, destination)
	r.wait(func(c map[string]int) bool { return c["deferred"] == 20 && c["active"] == 0 })
	r.do(0, r.program, "snapshot", "save", "--note", "start")
	if got := r.account(0); got["pending"] != 20 {
		t.Errorf("%v", got)
	}
	ids := r.ids("deferred")
	r.do(0, r.program, "delete", "--yes", "--reason", "test", ids[0], ids[1], ids[2])
	r.do(0, r.program, "restore", "--yes", "--reason", "test", ids[2])
	r.do(0, r.program, "hold", "--yes", "--reason", "test", ids[3])
	r.do(0, r.program, "requeue", "--yes", "--effects", "--anyway", "--reason", "test", ids[4])
	r.do(0, "postsuper", "-r", ids[5])
	r.do(0, "postsuper", "-d", ids[6])
	r.do(0, r.program, "snapshot", "diff")
	r.check(r.Cure("world.down"))
	r.inject(10, destination)
	r.inject(3, "nobody.example")
	r.flush(func(c map[string]int) bool { return c["deferred"]+c["active"]+c["incoming"]+c["maildrop"] == 0 })
	got := r.account(0)
	for fate, want := range map[string]int{"pending": 2, "deleted_with_reason": 2, "deleted_by_other": 1, "moved": 3, "unproven": 0} {
		if got[fate] != want {
			t.Errorf("%d are %s, not %d: %v", got[fate], fate, want, got)
		}
	}
	// A second snapshot ends the same account.
	r.do(0, r.program, "snapshot", "save")
	var names []string
	for line := range strings.Lines(r.do(0, r.program, "snapshot", "list", "-o", "json")) {
		var s struct{ Name string }
		r.check(json.Unmarshal([]byte(line), &s))
		names = append(names, s.Name)
	}
	r.do(0, r.program, "account", "--from", names[0], "--to", names[1])
}

// TestMailThatPostfixLosesIsFound holds and releases active mail under one
// queue manager, which then removes it undelivered and calls it removed.
func TestMailThatPostfixLosesIsFound(t *testing.T) {
	t.Parallel()
	r := up(t, map[string]string{"default_destination_rate_delay": "3s"})
	r.check(r.Fault("world.down", lab.Params{"name": provider}))
	r.inject(20, destination)
	r.do(0, "postqueue", "-f")
	r.wait(func(c map[string]int) bool { return c["incoming"] == 0 && c["active"]+c["deferred"] == 20 })
	r.do(0, r.program, "snapshot", "save")
	r.check(r.Cure("world.down"))
	r.flush(func(c map[string]int) bool { return c["active"] > 5 })
	r.do(0, "sh", "-c", "postsuper -h ALL active; sleep 1; postsuper -H ALL; postqueue -f")
	r.check(r.SetParams(r.ctx, "", "default_destination_rate_delay=0s"))
	r.do(0, "postfix", "reload")
	r.flush(func(c map[string]int) bool { return c["deferred"]+c["hold"]+c["active"]+c["incoming"] == 0 })
	truth, err := r.Account(r.ctx)
	r.check(err)
	if len(truth.Missing) == 0 {
		t.Fatal("nothing was lost: that tests nothing")
	}
	if got := r.account(1); got["unproven"] != len(truth.Missing) {
		t.Errorf("%d are lost, and %d unproven", len(truth.Missing), got["unproven"])
	}
}
