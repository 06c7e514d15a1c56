package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
	"holdfast/record"
)

// bench is a host on which a plan is made and run as the test says. It keeps
// what it was asked for.
type bench struct {
	plan    *plan.Plan
	made    error
	become  func(plan.Target) record.Outcome // done where it is nil
	left    int
	failed  error
	request Request
	ran     int
	closed  int
	// during is called while the plan runs.
	during func()
}

func (b *bench) Prepare(_ context.Context, r Request) (*plan.Plan, []plan.Target, error) {
	b.request = r
	if b.made != nil {
		return nil, nil, b.made
	}
	b.plan.Reason, b.plan.Ticket, b.plan.Options, b.plan.Selector = r.Reason, r.Ticket, r.Options, r.Selector
	return b.plan, targets(b.plan.Count), nil
}

func (b *bench) Run(_ context.Context, _ *plan.Plan, list []plan.Target, tell func(Step)) (Report, error) {
	b.ran++
	if b.during != nil {
		b.during()
	}
	r := Report{Left: b.left}
	for _, t := range list[:len(list)-b.left] {
		o := record.Outcome{ID: t.ID, Inode: t.Inode, State: record.Done, Now: "hold", Held: true}
		if b.become != nil {
			o = b.become(t)
		}
		r.Outcomes = append(r.Outcomes, o)
	}
	// Some are told as they come; none must be told twice.
	tell(Step{Targets: len(list), Settled: len(r.Outcomes), Outcomes: r.Outcomes[:len(r.Outcomes)/2]})
	return r, b.failed
}

func (b *bench) Close() error { b.closed++; return nil }

func targets(n int) []plan.Target {
	list := make([]plan.Target, n)
	for i := range list {
		m := message(fmt.Sprintf("%05X1F4E2", 0xA0000+i*977), time.Duration(i+1)*time.Hour, int64(1500+i*811), "newsletter@shop.example",
			to(fmt.Sprintf("customer.%d@bigmail.example", i), "4.7.0", "busy"))
		list[i] = plan.TargetOf("postfix", m)
	}
	return list
}

// sealed is a plan with something under every heading.
func sealed(v plan.Verb, count int) *plan.Plan {
	p := &plan.Plan{
		Schema: plan.PlanSchema, Verb: v, Instance: "postfix", Config: "/etc/postfix", Made: at, Expires: at.Add(time.Hour),
		By: plan.Who{User: "root", SudoUser: "carol"}, Policy: strings.Repeat("ab", 32), Count: count, Targets: strings.Repeat("cd", 32),
	}
	if count == 0 {
		return p
	}
	p.Effects = plan.Effects{
		Bytes: 48_211_004, Oldest: at.Add(-50 * time.Hour), Newest: at.Add(-3 * time.Minute), Recipients: count + 7, Elsewhere: 2,
		Senders:      []plan.Tally{{Name: "newsletter@shop.example", Count: count - 1}, {Name: "", Count: 1}},
		Destinations: []plan.Tally{{Name: "bigmail.example", Count: count}, {Name: "partner.example", Count: 3}, {Name: "typo.example", Count: 2}, {Name: "x.example", Count: 1}},
		Sample:       targets(min(count, 3)),
		Skipped: []plan.Skip{
			{Why: plan.SkipActive, Count: 12, IDs: []postfix.QueueID{"A0B731F4E2", "A0C731F4E2", "A0D731F4E2", "A0E731F4E2"}, Hint: "--active takes them, until another queue manager runs"},
			{Why: plan.SkipForeign, Count: 1, IDs: []postfix.QueueID{"B0B731F4E2"}, Hint: "--foreign takes it"},
		},
		Risks: []plan.Risk{{Kind: "expires", Count: 4, Text: "their time ends within an hour; on hold it goes on running", Next: []string{"holdfast", "queue", "--older-than", "4d"}}},
		Back:  []string{"holdfast", "undo"}, BackWhy: "releases them at the policy's pace",
	}
	return p
}

// answer runs a changing verb with somebody at a terminal who types the lines,
// or with nobody there where there are none.
func answer(ctx context.Context, t *testing.T, b *bench, columns int, typed string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(ctx, append(args, "--color=never"), Env{
		Stdin: strings.NewReader(typed), Stdout: &stdout, Stderr: &stderr, Asks: typed != "",
		Terminal: Terminal{Columns: columns, Rows: 24}, Now: func() time.Time { return at },
		Change: func(context.Context, Settings) (Changer, error) { return b, nil },
	})
	return result{code, stdout.String(), stderr.String()}
}

// TestScreensOfChanges holds plans, questions and outcomes against files that
// people have looked at.
func TestScreensOfChanges(t *testing.T) {
	why := []string{"--reason", "flood from web3", "--ticket", "OPS-7"}
	with := func(p *plan.Plan, change func(*plan.Plan)) *plan.Plan { change(p); return p }
	mixed := func(o plan.Target) record.Outcome {
		i := slices.IndexFunc(targets(7), func(t plan.Target) bool { return t.ID == o.ID })
		return record.Outcome{ID: o.ID, State: record.States()[i], Now: []string{"hold", "hold", "", "deferred", "active", "deferred", ""}[i], Text: "what was seen"}
	}
	again := func(o plan.Target) record.Outcome {
		return record.Outcome{ID: o.ID, State: record.Done, Now: "hold", Successor: "F" + o.ID, Item: "pack.1"}
	}
	for name, c := range map[string]struct {
		columns int
		b       *bench
		typed   string
		args    []string
	}{
		"hold-asked":     {80, &bench{plan: sealed(plan.Hold, 40)}, "y\n", append([]string{"hold", "--sender", "newsletter@shop.example"}, why...)},
		"hold-dry":       {120, &bench{plan: sealed(plan.Hold, 40)}, "", []string{"hold", "--all", "--dry-run"}},
		"hold-script":    {0, &bench{plan: sealed(plan.Hold, 7), become: mixed}, "", append([]string{"hold", "--all", "--yes"}, why...)},
		"json-hold":      {0, &bench{plan: sealed(plan.Hold, 2)}, "", append([]string{"hold", "--all", "--yes", "-o", "json"}, why...)},
		"hold-nobody":    {80, &bench{plan: sealed(plan.Hold, 40)}, "", append([]string{"hold", "--all"}, why...)},
		"hold-nothing":   {80, &bench{plan: sealed(plan.Hold, 0)}, "", append([]string{"hold", "--domain", "nobody.example", "--yes"}, why...)},
		"delete-asked":   {80, &bench{plan: sealed(plan.Delete, 3)}, "spam\n3\n", []string{"delete", "--all"}},
		"restore-script": {80, &bench{plan: sealed(plan.Restore, 2), become: again}, "", append([]string{"restore", "--all", "--yes"}, why...)},
		"release-barred": {80, &bench{plan: with(sealed(plan.Release, 5), func(p *plan.Plan) {
			p.Effects.Bars = []plan.Bar{{Kind: "finding", Text: "bigmail.example still refuses mail", Lift: "--anyway goes on in spite of it"}, {Kind: "policy", Text: "a ticket is wanted", Lift: "--ticket NUMBER"}}
		})}, "", append([]string{"release", "--all", "--yes"}, why...)},
		"expire-no-back": {80, &bench{plan: with(sealed(plan.Expire, 2), func(p *plan.Plan) { p.Effects.Back, p.Effects.BackWhy = nil, "what was returned is with its sender" })}, "", append([]string{"expire", "--all", "--dry-run"}, why...)},
		"help-hold":      {80, &bench{}, "", []string{"hold", "--help"}},
		"help-changing":  {80, &bench{}, "", []string{"--help"}},
	} {
		golden(t, "change-"+name, c.columns, answer(t.Context(), t, c.b, c.columns, c.typed, c.args...))
		if opened := c.b.plan != nil; (c.b.closed > 0) != opened {
			t.Errorf("%s: closed %d times", name, c.b.closed)
		}
	}
}

// TestWhatRunsAPlan: a plan runs where somebody said yes to it, as it stands,
// and nowhere else.
func TestWhatRunsAPlan(t *testing.T) {
	hold := func(n int) *plan.Plan { return sealed(plan.Hold, n) }
	reason := "--reason=x"
	for _, c := range []struct {
		plan  *plan.Plan
		typed string
		args  []string
		code  int
		runs  int
	}{
		{hold(40), "y\n", []string{reason}, exitDone, 1},
		{hold(40), "YES\n", []string{reason}, exitDone, 1},
		{hold(40), "\n", []string{reason}, exitNeedsConfirmation, 0},
		{hold(40), "yep\n", []string{reason}, exitNeedsConfirmation, 0},
		{hold(40), "40\n", []string{reason}, exitNeedsConfirmation, 0},
		{hold(40), "because\ny\n", nil, exitDone, 1},
		{hold(40), "\ny\n", nil, exitNeedsConfirmation, 0},
		{hold(40), "y", []string{reason}, exitDone, 1},
		{hold(40), "", []string{reason}, exitNeedsConfirmation, 0},
		{hold(40), "", []string{"--yes"}, exitNeedsConfirmation, 0},
		{hold(40), "", []string{reason, "--yes"}, exitDone, 1},
		{hold(40), "", []string{reason, "--yes", "--expect=40"}, exitDone, 1},
		{hold(40), "", []string{reason, "--yes", "--expect=41"}, exitNeedsConfirmation, 0},
		{hold(40), "", []string{reason, "--yes", "--expect=0"}, exitNeedsConfirmation, 0},
		{hold(40), "", []string{reason, "--expect=40"}, exitNeedsConfirmation, 0},
		{hold(40), "y\n", []string{reason, "--yes", "--dry-run"}, exitUsage, 0},
		{hold(40), "y\n", []string{reason, "--dry-run"}, exitDone, 0},
		{hold(40), "y\n", []string{reason, "-o", "json"}, exitNeedsConfirmation, 0},
		{hold(wide), "y\n", []string{reason}, exitDone, 1},
		{hold(wide + 1), "y\n", []string{reason}, exitNeedsConfirmation, 0},
		{hold(wide + 1), "1,001\n", []string{reason}, exitDone, 1},
		{hold(wide), "", []string{reason, "--yes"}, exitDone, 1},
		{hold(wide + 1), "", []string{reason, "--yes"}, exitNeedsConfirmation, 0},
		{hold(wide + 1), "", []string{reason, "--yes", "--expect=1001"}, exitDone, 1},
		{hold(0), "", []string{reason, "--yes"}, exitDone, 0},
		{sealed(plan.Delete, 3), "y\n", []string{reason}, exitNeedsConfirmation, 0},
		{sealed(plan.Delete, 3), "3\n", []string{reason}, exitDone, 1},
		{hold(40), strings.Repeat("y", longestAnswer) + "\ny\n", []string{reason}, exitFailed, 0},
	} {
		b := &bench{plan: c.plan}
		r := answer(t.Context(), t, b, 80, c.typed, append([]string{"hold", "--all"}, c.args...)...)
		if r.code != c.code || b.ran != c.runs {
			t.Errorf("%d %ss, %q typed %.20q: exit %d, ran %d times, want %d and %d: %s", c.plan.Count, c.plan.Verb, c.args, c.typed, r.code, b.ran, c.code, c.runs, r.stderr)
		}
		if r.code != exitDone && r.stderr == "" {
			t.Errorf("%q typed %.20q: exit %d without a word", c.args, c.typed, r.code)
		}
	}
}

// TestNothingIsPreparedOfAMistake: what cannot be meant is refused before the
// host is reached.
func TestNothingIsPreparedOfAMistake(t *testing.T) {
	for _, args := range [][]string{
		{"hold"},
		{"delete", "--reason", "x", "--yes"},
		{"hold", "--all", "--per-run", "3"},
		{"release", "--all", "--per-run=-1"},
		{"hold", "--all", "--review=-1h"},
		{"hold", "--all", "--expect=-2"},
		{"hold", "not/an/id"},
		{"hold", "--where", "size >"},
		{"undo"},
		{"undo", "a", "b"},
		{"try"},
		{"try", "not/an/id"},
		{"hold", "--all", "--effects"},
		{"restore", "--all", "--foreign"},
	} {
		b := &bench{plan: sealed(plan.Hold, 1)}
		if r := answer(t.Context(), t, b, 80, "", args...); r.code != exitUsage || b.closed > 0 {
			t.Errorf("%q: exit %d, opened %d times: %s", args, r.code, b.closed, r.stderr)
		}
	}
	// Not even from stdin does try take more than one message, or none.
	for _, ids := range []string{"\n", "ABCDEF1\nABCDEF2\n"} {
		b := &bench{plan: sealed(plan.Try, 1)}
		if r := answer(t.Context(), t, b, 80, ids, "try", "-", "--yes", "--reason=x"); r.code != exitUsage || b.closed > 0 {
			t.Errorf("try of %q: exit %d: %s", ids, r.code, r.stderr)
		}
	}
	// A list on stdin that is empty selects nothing and is no mistake.
	b := &bench{plan: sealed(plan.Delete, 0)}
	if r := answer(t.Context(), t, b, 80, "", "delete", "-", "--yes", "--reason=x"); r.code != exitDone || b.request.Selector.IDs == nil {
		t.Errorf("an empty list of IDs: exit %d, selector %+v: %s", r.code, b.request.Selector, r.stderr)
	}
}

// TestRequestIsWhatWasTyped holds the flags to what they ask for.
func TestRequestIsWhatWasTyped(t *testing.T) {
	for _, c := range []struct {
		args []string
		want Request
	}{
		{[]string{"hold", "ABCDEF1", "--active", "--review=36h"}, Request{Verb: plan.Hold, Selector: plan.Selector{IDs: []postfix.QueueID{"ABCDEF1"}}, Options: plan.Options{Active: true, Review: plan.Duration(36 * time.Hour)}}},
		{[]string{"release", "--all", "--per-run=7", "--foreign", "--anyway"}, Request{Verb: plan.Release, Selector: plan.Selector{All: true}, Options: plan.Options{PerRun: 7, Foreign: true, Anyway: true}}},
		{[]string{"requeue", "--all", "--effects"}, Request{Verb: plan.Requeue, Selector: plan.Selector{All: true}, Options: plan.Options{Effects: true}}},
		{[]string{"try", "ABCDEF1"}, Request{Verb: plan.Try, Selector: plan.Selector{IDs: []postfix.QueueID{"ABCDEF1"}}}},
		{[]string{"undo", "3f2a9c11d0ab"}, Request{Undoes: "3f2a9c11d0ab"}},
	} {
		b := &bench{plan: sealed(plan.Hold, 0)}
		r := answer(t.Context(), t, b, 80, "", append(c.args, "--reason=why", "--ticket=T1", "--yes")...)
		c.want.Reason, c.want.Ticket = "why", "T1"
		if diff := cmp.Diff(c.want, b.request); diff != "" || r.code != exitDone {
			t.Errorf("%q: exit %d %s\n%s", c.args, r.code, r.stderr, diff)
		}
	}
}

// TestOutcomesDecideTheExitCode, and not that the run came to its end.
func TestOutcomesDecideTheExitCode(t *testing.T) {
	all := func(s record.State) func(plan.Target) record.Outcome {
		return func(t plan.Target) record.Outcome { return record.Outcome{ID: t.ID, State: s} }
	}
	first := targets(1)[0].ID
	one := func(s record.State) func(plan.Target) record.Outcome {
		return func(t plan.Target) record.Outcome {
			if t.ID == first {
				return record.Outcome{ID: t.ID, State: record.Done}
			}
			return record.Outcome{ID: t.ID, State: s}
		}
	}
	for i, c := range []struct {
		b    bench
		code int
	}{
		{bench{become: all(record.Already)}, exitDone},
		{bench{become: one(record.Already)}, exitDone},
		{bench{become: one(record.Gone)}, exitPartial},
		{bench{become: one(record.Unknown)}, exitPartial},
		{bench{become: all(record.Gone)}, exitFailed},
		{bench{become: all(record.Failed)}, exitFailed},
		{bench{become: all(record.Refused)}, exitRefused},
		{bench{become: all(record.Unknown)}, exitCannotTell},
		{bench{become: all("new")}, exitCannotTell},
		{bench{left: 1}, exitPartial},
		{bench{left: 4}, exitFailed},
		{bench{failed: errors.New("the audit log cannot be written")}, exitFailed},
		{bench{failed: &postfix.Error{Kind: postfix.Refused, Err: errors.New("another one runs")}, left: 4}, exitRefused},
	} {
		c.b.plan = sealed(plan.Hold, 4)
		r := answer(t.Context(), t, &c.b, 80, "", "hold", "--all", "--yes", "--reason=x")
		if r.code != c.code || c.b.ran != 1 {
			t.Errorf("case %d: exit %d, want %d: %s%s", i, r.code, c.code, r.stdout, r.stderr)
		}
	}
	// What a guard left alone was asked for and is not done.
	for why, code := range map[string]int{
		plan.SkipHeld: exitDone, plan.SkipNotHeld: exitDone, plan.SkipForeign: exitRefused, plan.SkipActive: exitRefused,
		plan.SkipHeldActive: exitRefused, plan.SkipLegalHold: exitRefused, plan.SkipDelivered: exitRefused,
	} {
		b := &bench{plan: sealed(plan.Release, 0)}
		b.plan.Effects.Skipped = []plan.Skip{{Why: why, Count: 2, Hint: "a way"}}
		if r := answer(t.Context(), t, b, 80, "", "release", "--all", "--yes", "--reason=x"); r.code != code || b.ran > 0 {
			t.Errorf("all are %s: exit %d, want %d", why, r.code, code)
		}
	}
}

// TestInterruptionIsTold: Ctrl-C ends a run after the batch in hand, and what
// was done by then is told.
func TestInterruptionIsTold(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	b := &bench{plan: sealed(plan.Hold, 5), left: 3, during: stop}
	r := answer(ctx, t, b, 80, "", "hold", "--all", "--yes", "--reason=x")
	if r.code != exitInterrupted || !strings.Contains(r.stdout, "2 of 5 messages done") || !strings.Contains(r.stdout, "3 not begun") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	// One that came when all was done interrupts nothing.
	ctx, stop = context.WithCancel(t.Context())
	b = &bench{plan: sealed(plan.Hold, 5), during: stop}
	if r := answer(ctx, t, b, 80, "", "hold", "--all", "--yes", "--reason=x"); r.code != exitDone {
		t.Errorf("exit %d though all is done: %s", r.code, r.stderr)
	}
}

// TestHostileTextReachesNoPlan: every text of a plan and of its outcomes is an
// attack, on the screen and in JSON.
func TestHostileTextReachesNoPlan(t *testing.T) {
	for _, attack := range attacks {
		for _, columns := range []int{0, 40, 80} {
			for _, form := range []string{"text", "json"} {
				p := sealed(plan.Restore, 3)
				p.Effects.Bars = nil
				p.Undoes = "x"
				poison(reflect.ValueOf(&p.Effects), attack)
				poison(reflect.ValueOf(&p.Undoes), attack)
				poison(reflect.ValueOf(&p.Verb), attack)
				p.Effects.Back = []string{"holdfast", attack}
				b := &bench{plan: p, become: func(plan.Target) record.Outcome {
					o := record.Outcome{}
					poison(reflect.ValueOf(&o), attack)
					return o
				}}
				r := answer(t.Context(), t, b, columns, "", "restore", "--all", "--yes", "--reason", strings.ReplaceAll(attack, "\x00", ""), "-o", form)
				what := fmt.Sprintf("%s in %d columns with %+.20q", form, columns, attack)
				if b.ran != 1 || r.code != exitCannotTell {
					t.Fatalf("%s: exit %d: %s", what, r.code, r.stderr)
				}
				harmless(t, "stdout of "+what, r.stdout, false)
				harmless(t, "stderr of "+what, r.stderr, false)
				for line := range strings.Lines(r.stdout) {
					if form == "json" && !json.Valid([]byte(line)) {
						t.Errorf("%s: not JSON: %s", what, line)
					}
				}
			}
		}
	}
}

// TestCountsLoseNothing: whatever the states are, the sum is the number of
// outcomes.
func TestCountsLoseNothing(t *testing.T) {
	var all []record.Outcome
	for i, s := range append(record.States(), "new", "") {
		for range i + 1 {
			all = append(all, record.Outcome{State: s})
		}
	}
	c := present.CountsOf(all)
	if c.Total() != len(all) {
		t.Errorf("%d outcomes are counted as %d", len(all), c.Total())
	}
	for i, s := range record.States() {
		want := i + 1
		if s == record.Unknown {
			want += 8 + 9
		}
		if c.Of(s) != want {
			t.Errorf("%d are %s, want %d", c.Of(s), s, want)
		}
	}
}

// TestNamedAndNotThere: the exit code says that an ID is not there, also where
// the rest is done.
func TestNamedAndNotThere(t *testing.T) {
	for _, c := range []struct {
		verb   plan.Verb
		count  int
		unseen bool
		code   int
		says   string
	}{
		{plan.Hold, 0, false, exitFailed, "4ABSENT00A and 8 more are in no queue\n"},
		{plan.Hold, 3, false, exitPartial, "4ABSENT00A and 8 more are in no queue\n"},
		{plan.Hold, 0, true, exitCannotTell, "are in no queue that could be seen\n"},
		{plan.Restore, 0, false, exitFailed, "are not in the vault\n"},
	} {
		b := &bench{plan: sealed(c.verb, c.count)}
		b.plan.Effects.Skipped = []plan.Skip{{Why: plan.SkipMissing, Count: 9, IDs: []postfix.QueueID{"4ABSENT00A"}}}
		if c.unseen {
			b.plan.Effects.Risks = []plan.Risk{{Kind: "unseen", Count: 1, Text: "there may be more"}}
		}
		r := answer(t.Context(), t, b, 80, "", string(c.verb), "4ABSENT00A", "--yes", "--reason=x")
		if r.code != c.code || !strings.Contains(r.stderr, c.says) || !strings.Contains(r.stdout, "not there, although named") || b.ran != min(c.count, 1) {
			t.Errorf("%s of %d: exit %d, ran %d times\n%s%s", c.verb, c.count, r.code, b.ran, r.stdout, r.stderr)
		}
	}
}
