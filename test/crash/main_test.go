// Package crash kills holdfast in the middle of everything that it changes, and
// then counts every message.
//
// Each point is one system call of the program, of its hand, of its opener, or
// of a Postfix program that they started: that process is killed at the entry of
// the call, which is not made; or the call fails, with what a full, broken or
// read-only disk says. Then recover runs, twice, as an operator would, and the
// queue, the vault and the audit log must agree: each message is in one place,
// no intent is open, the chain is whole. At the end all mail is let go, and the
// ledger that the lab's provider keeps says whether any was lost or came twice.
//
// Invariant: places are found by walking the spool, and the truth about
// deliveries is the provider's; nothing that the program says of itself is
// taken for proof.
//
// Usually a few points of each kind are played; HOLDFAST_CRASH=all plays every
// one, which takes a while.
package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/lab/strike"
	"holdfast/lab/world"
)

// program is the holdfast command, built from this tree. It lies below /tmp,
// which labs share with the host.
var program string

func TestMain(m *testing.M) {
	strike.Main()
	lab.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "holdfast-crash-")
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "holdfast")
		build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "holdfast/cmd/holdfast")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it ships
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err = errors.Join(build.Run(), os.Chmod(dir, 0o755), copySelf(filepath.Join(dir, "striker")))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build holdfast:", err)
		return 1
	}
	return m.Run()
}

// copySelf puts this program where labs can run it: go test removes its own.
func copySelf(to string) error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

const (
	destination = "patient.example"
	// leisurely takes everything, a second after the final dot.
	leisurely = "leisurely.example"
	leisure   = time.Second
	// milterAddress is that of a milter that puts mail of quarantines@ on hold.
	milterAddress = "192.0.2.61:10025"
)

// relay is a lab whose only destination is down, so that mail waits.
type relay struct {
	*testing.T
	*lab.Lab
	ctx   context.Context
	spool string
}

func up(t *testing.T) *relay {
	t.Helper()
	return upOn(t, lab.Storage{})
}

func upOn(t *testing.T, storage lab.Storage) *relay {
	t.Helper()
	l := lab.Up(t, lab.Options{
		Spool: storage,
		World: world.Config{
			DNS: world.DNSConfig{Listen: []string{"192.0.2.53"}},
			Providers: []world.ProviderConfig{
				{Name: "patient", Domains: []string{destination}, Hosts: []world.Host{{Addr: "198.51.100.10"}}},
				{
					Name: "leisurely", Domains: []string{leisurely}, Hosts: []world.Host{{Addr: "198.51.100.20"}},
					Traffic: world.Traffic{Latency: world.Duration(leisure)},
				},
			},
			Milters: []world.MilterConfig{{Name: "editor", Listen: milterAddress, Rules: []world.MilterRule{
				{Stage: world.MilterEnd, Sender: "quarantines@*", Action: world.MilterQuarantine, Value: "smells"},
			}}},
		},
		Params: map[string]string{
			"queue_run_delay": "2s", "minimal_backoff_time": "300s", "maximal_backoff_time": "600s",
			"smtp_connect_timeout": "2s",
		},
	})
	r := &relay{t, l, t.Context(), l.SpoolDir("")}
	r.check(r.Fault("world.down", lab.Params{"name": "patient"}))
	return r
}

func (r *relay) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// deferred injects messages and returns their IDs when they wait.
func (r *relay) deferred(n int) []string {
	r.Helper()
	old := r.places("deferred")
	before := len(old)
	_, err := r.Inject(r.ctx, lab.Load{Count: n, Domains: []string{destination}})
	r.check(err)
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Minute)
	defer cancel()
	r.check(r.WaitQueue(ctx, func(list []lab.Queued) bool {
		c := lab.Counts(list)
		return c["deferred"] >= before+n && c["active"] == 0 && c["incoming"] == 0
	}))
	return slices.DeleteFunc(r.places("deferred"), func(id string) bool { return slices.Contains(old, id) })
}

// places lists the messages of one queue by walking its directory.
func (r *relay) places(queue string) []string {
	r.Helper()
	var ids []string
	err := filepath.WalkDir(filepath.Join(r.spool, queue), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			ids = append(ids, filepath.Base(path))
		}
		return err
	})
	r.check(err)
	return ids
}

// where lists the queues in which an ID lies. A message that moves while one
// looks can be missed once, not twice.
func (r *relay) where(id string) []string {
	r.Helper()
	var found []string
	for range 2 {
		found = found[:0]
		for _, queue := range []string{"maildrop", "incoming", "active", "deferred", "hold", "corrupt"} {
			if slices.Contains(r.places(queue), id) {
				found = append(found, queue)
			}
		}
		if len(found) == 1 {
			break
		}
	}
	return found
}

// run runs holdfast and returns what it said, whatever the exit code.
func (r *relay) run(args ...string) lab.Result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Minute)
	defer cancel()
	res, err := r.ExecWith(ctx, lab.ExecOptions{}, append([]string{program}, args...)...)
	r.check(err)
	return res
}

// must is run that fails the test if the command does not end well.
func (r *relay) must(args ...string) lab.Result {
	r.Helper()
	res := r.run(args...)
	if res.Code != 0 {
		r.Fatalf("holdfast %q: exit %d\n%s%s", args, res.Code, res.Stdout, res.Stderr)
	}
	return res
}

// struck runs holdfast with a point at which a process is killed or a call
// fails, and returns when every process that it started has ended.
func (r *relay) struck(p strike.Point, ids []string, args ...string) (strike.Report, lab.Result) {
	r.Helper()
	report := "/tmp/strike-report-" + r.Lab.Name
	env, err := strike.Env(p, report)
	r.check(err)
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Minute)
	defer cancel()
	argv := slices.Concat([]string{filepath.Join(filepath.Dir(program), "striker"), program}, args)
	res, err := r.ExecWith(ctx, lab.ExecOptions{Stdin: lines(ids), Env: env}, argv...)
	if err != nil {
		r.Fatalf("%s: %v", p, err)
	}
	if res.Code != 0 {
		r.Fatalf("%s: the striker failed: exit %d\n%s", p, res.Code, res.Stderr)
	}
	got, err := strike.ReadReport(r.HostPath(report))
	r.check(err)
	return got, res
}

func lines(ids []string) *strings.Reader { return strings.NewReader(strings.Join(ids, "\n") + "\n") }
