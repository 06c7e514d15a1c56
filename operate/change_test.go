package operate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/act"
	"holdfast/act/hand"
	"holdfast/lab/forge"
	"holdfast/observe/spool"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/audit"
)

// host is a spool and a directory of state on disk. Operators come and go.
type host struct {
	*testing.T
	spool  *forge.Spool
	in     postfix.Instance
	state  string
	policy Policy
	// log is the audit log that stays open between commands of one test.
	log *audit.Log
}

func newHost(t *testing.T) *host {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &forge.Spool{Dir: t.TempDir(), LongIDs: true, HashDepth: 1}
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	h := &host{T: t, spool: s, state: t.TempDir(), policy: UsualPolicy(), in: postfix.Instance{
		Name: "mx", ConfigDir: "/etc/postfix-of-a-test", QueueDir: s.Dir, MailOwner: me.Username, LongIDs: true,
		HashedQueues: []string{"deferred", "defer"}, HashDepth: 1,
		MaxLifetime: 120 * time.Hour, BounceLifetime: 120 * time.Hour, QueueRunDelay: time.Minute,
	}}
	if h.log, err = audit.Open(filepath.Join(h.state, shelfAudit)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.log.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// as is an operator on somebody's word.
func (h *host) as(name string) *Operator {
	h.Helper()
	reader, err := spool.NewReader(h.in, spool.Options{})
	if err != nil {
		h.Fatal(err)
	}
	return &Operator{
		instances: []*instance{{Instance: h.in, reader: reader}}, who: plan.Who{User: name, UID: 1000},
		policy: h.policy, stateDir: h.state, state: folder(h.state), hand: &handOnDisk{host: h},
	}
}

func (h *host) message(q postfix.Queue, sender, domain string) postfix.QueueID {
	h.Helper()
	at := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	id, err := h.spool.Write(&forge.Message{
		Queue: q, Sender: sender, Arrival: at, NextTry: at, Content: []byte("Subject: x\n\nbody\n"),
		Recipients: []forge.Recipient{{Address: "lee@" + domain}},
	})
	if err != nil {
		h.Fatal(err)
	}
	return id
}

func (h *host) prepare(o *Operator, r Request) (*plan.Plan, []plan.Target) {
	h.Helper()
	p, targets, err := o.Prepare(context.Background(), r)
	if err != nil {
		h.Fatal(err)
	}
	return p, targets
}

func (h *host) do(o *Operator, r Request) (*plan.Plan, act.Report) {
	h.Helper()
	p, targets := h.prepare(o, r)
	report, err := o.Run(context.Background(), p, targets, nil)
	if err != nil {
		h.Fatal(err)
	}
	return p, report
}

// lying says which of the messages lie in a queue.
func (h *host) lying(q postfix.Queue, ids ...postfix.QueueID) []postfix.QueueID {
	h.Helper()
	var there []postfix.QueueID
	for _, id := range ids {
		if _, err := os.Lstat(h.spool.Path(q.String(), id)); err == nil {
			there = append(there, id)
		}
	}
	return there
}

// folder is a directory of state that this process may read itself.
type folder string

func (f folder) State(shelf, name string) (*os.File, error) {
	return os.Open(filepath.Join(string(f), shelf, name))
}

// handOnDisk does what these tests need of the hand, in this process: entries
// and files are real, and a hold is the rename that postsuper does.
type handOnDisk struct {
	act.Hand // what is not here is not called
	host     *host
}

func (h *handOnDisk) Begin(context.Context) error { return nil }

func (h *handOnDisk) Reserve(_ context.Context, n int64) error { return h.host.log.Reserve(n) }

func (h *handOnDisk) Checkpoint(context.Context) (string, error) { return h.host.log.Checkpoint() }

func (h *handOnDisk) Adopt(_ context.Context, e record.Entry) error { return h.host.log.Adopt(e) }

func (h *handOnDisk) Append(_ context.Context, kind record.Kind, ref uint64, files []record.File, detail any) (record.Entry, error) {
	text, err := record.Encode(detail)
	if err != nil {
		return record.Entry{}, err
	}
	return h.host.log.Append(kind, ref, files, text)
}

func (h *handOnDisk) Keep(_ context.Context, shelf hand.Shelf, name string, content io.Reader) error {
	text, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != name {
		return fmt.Errorf("%q is not the digest of its content", name)
	}
	dir := filepath.Join(h.host.state, map[hand.Shelf]string{hand.Plans: shelfPlans, hand.Targets: shelfTargets}[shelf])
	return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), text, 0o600))
}

func (h *handOnDisk) Postsuper(_ context.Context, _ uint64, op hand.Op, ids []postfix.QueueID) (hand.Printed, error) {
	var out hand.Printed
	if op != hand.HoldWaiting {
		return out, fmt.Errorf("operation %d is not what this test is about", op)
	}
	for _, id := range ids {
		err := os.Rename(h.host.spool.Path("deferred", id), h.host.spool.Path("hold", id))
		if err == nil {
			out.IDs = append(out.IDs, id)
		}
	}
	return out, nil
}

func shop() plan.Selector { return plan.Selector{Senders: []string{"@shop.example"}} }

// kindOf is what an operator is to conclude.
func kindOf(t *testing.T, err error) postfix.Kind {
	t.Helper()
	var e *postfix.Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is %v", err)
	}
	return e.Kind
}

func TestPlanIsShownRunOnceAndKept(t *testing.T) {
	h := newHost(t)
	a, b := h.message(postfix.Deferred, "kim@shop.example", "corp.example"), h.message(postfix.Deferred, "kim@shop.example", "corp.example")
	other := h.message(postfix.Deferred, "kim@else.example", "corp.example")
	active := h.message(postfix.Active, "kim@shop.example", "corp.example")
	o := h.as("kim")
	p, targets := h.prepare(o, Request{Verb: plan.Hold, Selector: shop(), Reason: "flood"})
	if p.Count != 2 || len(targets) != 2 || p.By.User != "kim" || time.Duration(p.Options.Review) != 24*time.Hour {
		t.Fatalf("the plan is %+v", p)
	}
	if s := p.Effects.Skipped; len(s) != 1 || s[0].Why != plan.SkipActive || s[0].IDs[0] != active {
		t.Errorf("skipped %v", s)
	}
	if moved := h.lying(postfix.Hold, a, b, other, active); moved != nil {
		t.Fatalf("making a plan held %v", moved)
	}
	report, err := o.Run(context.Background(), p, targets, nil)
	if err != nil || report.Counts[record.Done] != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	if moved := h.lying(postfix.Hold, a, b, other, active); !slices.Equal(moved, []postfix.QueueID{a, b}) {
		t.Errorf("on hold are %v", moved)
	}
	// Another process, later.
	o = h.as("lee")
	kept, list, err := o.Plan(context.Background(), plan.Short(p.ID()))
	if err != nil || kept.ID() != p.ID() || len(list) != 2 {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	if _, err := o.Run(context.Background(), kept, list, nil); kindOf(t, err) != postfix.Refused {
		t.Errorf("a second run: %v", err)
	}
	ledger, err := o.Ledger(context.Background())
	if err != nil || len(ledger.Holds) != 2 || ledger.Plans[p.ID()].State(time.Now()) != "ended" || ledger.Plans[p.ID()].Plan.Reason != "flood" {
		t.Errorf("the ledger is %+v, %v", ledger, err)
	}
}

func TestPlanThatDoesNotFitIsRefused(t *testing.T) {
	h := newHost(t)
	id := h.message(postfix.Deferred, "kim@shop.example", "corp.example")
	cases := map[string]func(o *Operator, p *plan.Plan, targets []plan.Target) []plan.Target{
		"other policy":   func(o *Operator, _ *plan.Plan, ts []plan.Target) []plan.Target { o.policy.Digest = "newer"; return ts },
		"expired":        func(_ *Operator, p *plan.Plan, ts []plan.Target) []plan.Target { p.Expires = time.Now(); return ts },
		"other instance": func(_ *Operator, p *plan.Plan, ts []plan.Target) []plan.Target { p.Config = "/etc/other"; return ts },
		"fewer targets":  func(_ *Operator, _ *plan.Plan, _ []plan.Target) []plan.Target { return nil },
		"another target": func(_ *Operator, _ *plan.Plan, ts []plan.Target) []plan.Target { ts[0].Inode++; return ts },
		"barred": func(_ *Operator, p *plan.Plan, ts []plan.Target) []plan.Target {
			p.Effects.Bars = []plan.Bar{{Kind: "policy", Text: "no"}}
			return ts
		},
		"not root": func(o *Operator, _ *plan.Plan, ts []plan.Target) []plan.Target { o.hand = nil; return ts },
	}
	for name, change := range cases {
		o := h.as("kim")
		p, targets := h.prepare(o, Request{Verb: plan.Hold, Selector: shop(), Reason: name})
		if _, err := o.Run(context.Background(), p, change(o, p, targets), nil); kindOf(t, err) != postfix.Refused {
			t.Errorf("%s: %v", name, err)
		}
		if moved := h.lying(postfix.Hold, id); moved != nil {
			t.Fatalf("%s: it was held", name)
		}
	}
}

func TestZeroSelectorSelectsNothing(t *testing.T) {
	h := newHost(t)
	h.message(postfix.Deferred, "kim@shop.example", "corp.example")
	o := h.as("kim")
	p, targets := h.prepare(o, Request{Verb: plan.Hold, Reason: "mistake"})
	if p.Count != 0 || len(targets) != 0 || len(p.Effects.Skipped) != 0 {
		t.Fatalf("the plan is %+v", p)
	}
	if _, err := o.Run(context.Background(), p, targets, nil); kindOf(t, err) != postfix.Refused {
		t.Errorf("running nothing: %v", err)
	}
}

func TestTwoInstancesAreNoneToChange(t *testing.T) {
	h := newHost(t)
	o := h.as("kim")
	o.instances = append(o.instances, o.instances[0])
	if _, _, err := o.Prepare(context.Background(), Request{Verb: plan.Hold, Selector: shop()}); kindOf(t, err) != postfix.Usage {
		t.Errorf("two instances: %v", err)
	}
}

func TestReleaseTakesOurHoldsOnly(t *testing.T) {
	h := newHost(t)
	ours := h.message(postfix.Deferred, "kim@shop.example", "corp.example")
	theirs := h.message(postfix.Hold, "kim@shop.example", "corp.example")
	o := h.as("kim")
	held, _ := h.do(o, Request{Verb: plan.Hold, Selector: shop(), Reason: "flood"})
	p, targets := h.prepare(o, Request{Verb: plan.Release, Selector: shop(), Reason: "over"})
	if len(targets) != 1 || targets[0].ID != ours || p.Options.PerRun != 100 {
		t.Errorf("a release takes %v", targets)
	}
	if s := p.Effects.Skipped; len(s) != 1 || s[0].Why != plan.SkipForeign || s[0].IDs[0] != theirs {
		t.Errorf("skipped %v", s)
	}
	undo, targets := h.prepare(o, Request{Undoes: plan.Short(held.ID()), Reason: "wrong"})
	if undo.Verb != plan.Release || undo.Undoes != held.ID() || len(targets) != 1 || targets[0].ID != ours {
		t.Errorf("undo is %+v with %v", undo, targets)
	}
	if _, _, err := o.Prepare(context.Background(), Request{Undoes: held.ID(), Selector: shop()}); kindOf(t, err) != postfix.Usage {
		t.Errorf("undo of a selection: %v", err)
	}
}

func TestSecondPersonMustBeAnother(t *testing.T) {
	h := newHost(t)
	id := h.message(postfix.Deferred, "kim@shop.example", "corp.example")
	h.policy.Judge = func(_ plan.Verb, f Facts) []plan.Bar {
		return []plan.Bar{{Kind: "approval", Text: "a second person has to agree to what " + f.Login + " does"}}
	}
	kim, lee, ctx := h.as("kim"), h.as("lee"), context.Background()
	p, targets := h.prepare(kim, Request{Verb: plan.Hold, Selector: shop(), Reason: "flood"})
	_, err := kim.Run(ctx, p, targets, nil)
	var e *postfix.Error
	if !errors.As(err, &e) || e.Kind != postfix.Refused || !strings.Contains(e.Hint, "approve "+plan.Short(p.ID())) {
		t.Fatalf("alone: %v", err)
	}
	// The plan is kept, so that the second person sees the same.
	seen, list, err := lee.Plan(ctx, p.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := kim.Approve(ctx, p); kindOf(t, err) != postfix.Refused {
		t.Errorf("kim agrees with kim: %v", err)
	}
	if _, err := kim.Run(ctx, p, targets, nil); kindOf(t, err) != postfix.Refused {
		t.Errorf("after that: %v", err)
	}
	if err := lee.Approve(ctx, seen); err != nil {
		t.Fatal(err)
	}
	if _, err := kim.Run(ctx, seen, list, nil); err != nil {
		t.Fatal(err)
	}
	if moved := h.lying(postfix.Hold, id); len(moved) != 1 {
		t.Error("it is not on hold")
	}
}

// TestWhatWasLeftOpenIsSettledFirst begins like a run that was cut off between
// intent and act.
func TestWhatWasLeftOpenIsSettledFirst(t *testing.T) {
	h := newHost(t)
	h.message(postfix.Deferred, "kim@shop.example", "corp.example")
	o, ctx := h.as("kim"), context.Background()
	p, targets := h.prepare(o, Request{Verb: plan.Hold, Selector: shop(), Reason: "flood"})
	body := planBody(p)
	if _, err := o.hand.Append(ctx, record.Started, 0, nil, body); err != nil {
		t.Fatal(err)
	}
	files := []record.File{{ID: targets[0].ID, Inode: targets[0].Inode}}
	intent, err := o.hand.Append(ctx, record.Intended, 0, files, record.IntentBody{Plan: p.ID(), Verb: plan.Hold, Batch: 1, Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	if ledger, err := o.Ledger(ctx); err != nil || len(ledger.Open) != 1 {
		t.Fatalf("looking settles: %+v, %v", ledger, err)
	}
	_, report := h.do(o, Request{Verb: plan.Hold, Selector: shop(), Reason: "again"})
	if report.Counts[record.Done] != 1 {
		t.Errorf("the second plan gives %+v", report)
	}
	ledger, err := o.Ledger(ctx)
	if err != nil || len(ledger.Open) != 0 {
		t.Fatalf("open are %+v, %v", ledger, err)
	}
	if r := ledger.Plans[p.ID()]; r.State(time.Now()) != "ended" || r.Counts[record.Done] != 0 || r.Settled() != 1 {
		t.Errorf("the plan that was cut off is %+v (intent %d)", r, intent.Seq)
	}
	again, err := o.Recover(ctx)
	if err != nil || len(again.Settled) != 0 {
		t.Errorf("recovering again: %+v, %v", again, err)
	}
}
