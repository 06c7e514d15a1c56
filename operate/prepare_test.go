package operate

import (
	"context"
	"slices"
	"testing"

	"holdfast/diagnose"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// vaulted writes what a deletion leaves behind in the record.
func (h *host) vaulted(o *Operator, state record.State, names ...string) string {
	h.Helper()
	var targets []plan.Target
	var items []record.Item
	var outcomes []record.Outcome
	for i, name := range names {
		id := postfix.QueueID(name)
		targets = append(targets, plan.Target{Fingerprint: postfix.Fingerprint{
			Instance: "mx", ID: id, Inode: uint64(900 + i), Sender: name + "@shop.example", Size: 70,
		}, NextHop: "corp.example", Recipients: 1})
		items = append(items, record.Item{Name: "pack." + name, ID: id, Size: 100})
		outcomes = append(outcomes, record.Outcome{ID: id, Inode: uint64(900 + i), State: state, Item: "pack." + name})
	}
	id := "d" + names[0] + "0000000000"
	h.enter(o, record.Started, 0, record.PlanBody{Plan: id, Verb: plan.Delete, Instance: "mx", Count: len(targets)})
	intent := h.enter(o, record.Intended, 0, record.IntentBody{Plan: id, Verb: plan.Delete, Targets: targets})
	h.enter(o, record.Kept, intent, record.KeptBody{Plan: id, Pack: "pack", Items: items})
	h.enter(o, record.Settled, intent, record.OutcomeBody{Plan: id, Verb: plan.Delete, Outcomes: outcomes})
	return id
}

func (h *host) enter(o *Operator, kind record.Kind, ref uint64, body any) uint64 {
	h.Helper()
	e, err := o.hand.Append(context.Background(), kind, ref, nil, body)
	if err != nil {
		h.Fatal(err)
	}
	return e.Seq
}

func TestRestoreTakesOnlyWhatIsNowhereElse(t *testing.T) {
	h := newHost(t)
	o := h.as("kim")
	deleted := h.vaulted(o, record.Done, "A1", "A2", "A3")
	h.vaulted(o, record.Failed, "B1") // it was copied, and then the deletion failed
	purge := plan.Target{Fingerprint: postfix.Fingerprint{Instance: "mx", ID: "A2", Inode: 901}, Item: "pack.A2"}
	intent := h.enter(o, record.Intended, 0, record.IntentBody{Plan: "p", Verb: plan.Purge, Targets: []plan.Target{purge}})
	h.enter(o, record.Settled, intent, record.OutcomeBody{Plan: "p", Verb: plan.Purge, Outcomes: []record.Outcome{{ID: "A2", State: record.Done, Item: "pack.A2"}}})
	back := plan.Target{Fingerprint: postfix.Fingerprint{Instance: "mx", ID: "A3", Inode: 902}, Item: "pack.A3"}
	intent = h.enter(o, record.Intended, 0, record.IntentBody{Plan: "r", Verb: plan.Restore, Targets: []plan.Target{back}})
	h.enter(o, record.Settled, intent, record.OutcomeBody{
		Plan: "r", Verb: plan.Restore, Outcomes: []record.Outcome{{ID: "A3", State: record.Done, Item: "pack.A3", Successor: "C3", Inode: 77}},
	})

	p, targets := h.prepare(o, Request{Verb: plan.Restore, Selector: plan.Selector{All: true}, Reason: "mistake"})
	if len(targets) != 1 || targets[0].Item != "pack.A1" || targets[0].Sender != "A1@shop.example" || p.Effects.Bytes != 100 {
		t.Errorf("restore takes %+v", targets)
	}
	why := map[string]int{}
	for _, s := range p.Effects.Skipped {
		why[s.Why] = s.Count
	}
	if why[plan.SkipPurged] != 1 || why[plan.SkipDelivered] != 2 {
		t.Errorf("skipped %v", why)
	}
	undo, targets := h.prepare(o, Request{Undoes: deleted, Reason: "mistake"})
	if undo.Verb != plan.Restore || len(targets) != 1 || targets[0].Item != "pack.A1" {
		t.Errorf("undo takes %+v", targets)
	}
	_, targets = h.prepare(o, Request{Verb: plan.Restore, Selector: plan.Selector{Senders: []string{"b1@shop.example"}}, Reason: "x"})
	if len(targets) != 0 {
		t.Errorf("restore of what was not removed takes %+v", targets)
	}
	_, _, err := o.Prepare(context.Background(), Request{Verb: plan.Restore, Selector: plan.Selector{Domains: []string{"corp.example"}}})
	if kindOf(t, err) != postfix.Usage {
		t.Errorf("a selection by what is not kept: %v", err)
	}
}

func TestCauseThatStandsBarsWhatItConcerns(t *testing.T) {
	here := diagnose.Finding{Cause: postfix.RemoteDown, Subject: "Corp.example", Scope: diagnose.Destination, Confidence: diagnose.High, Summary: "corp.example is down"}
	with := func(change func(*diagnose.Finding)) diagnose.Finding {
		f := here
		change(&f)
		return f
	}
	cases := map[string]struct {
		finding     diagnose.Finding
		anyway      bool
		risks, bars int
	}{
		"its destination":     {here, false, 1, 1},
		"anyway":              {here, true, 1, 0},
		"another destination": {with(func(f *diagnose.Finding) { f.Subject = "other.example" }), false, 0, 0},
		"everywhere":          {with(func(f *diagnose.Finding) { f.Scope, f.Cause = diagnose.Global, postfix.DNS }), false, 1, 1},
		"a guess":             {with(func(f *diagnose.Finding) { f.Confidence = diagnose.Low }), false, 1, 0},
		"no cause of waiting": {with(func(f *diagnose.Finding) { f.Scope, f.Cause = diagnose.Global, postfix.HeldForgotten }), false, 0, 0},
	}
	for name, c := range cases {
		d := &drafting{
			r: Request{Options: plan.Options{Anyway: c.anyway}}, verdict: &diagnose.Verdict{Findings: []diagnose.Finding{c.finding}},
			draft: plan.NewDraft(plan.Release, plan.Options{}, plan.Circumstances{
				Held: func(*postfix.Message) plan.Holding { return plan.Holding{Ours: true} },
			}, nil),
		}
		d.draft.Take(&postfix.Message{ID: "A1", Inode: 1, Queue: postfix.Hold, Recipients: []postfix.Recipient{{Address: "lee@corp.example"}}})
		var e plan.Effects
		d.addFindings(&e)
		if len(e.Risks) != c.risks || len(e.Bars) != c.bars {
			t.Errorf("%s: risks %v, bars %v", name, e.Risks, e.Bars)
		}
	}
}

// TestNamedAndNotThere: an ID that was named and is in no queue is said, and
// what is there is taken all the same.
func TestNamedAndNotThere(t *testing.T) {
	h := newHost(t)
	id, other := h.message(postfix.Deferred, "kim@shop.example", "corp.example"), h.message(postfix.Active, "kim@shop.example", "corp.example")
	o := h.as("kim")
	for _, verb := range []plan.Verb{plan.Hold, plan.Delete, plan.Restore} {
		named := plan.Selector{IDs: []postfix.QueueID{id, "4ABSENT00A", "4ABSENT00B", other}}
		missing, count := []postfix.QueueID{"4ABSENT00A", "4ABSENT00B"}, 1
		if verb == plan.Restore {
			named.IDs = named.IDs[1:3]
			count = 0
		}
		p, _ := h.prepare(o, Request{Verb: verb, Selector: named, Reason: "x"})
		if p.Count != count {
			t.Errorf("%s takes %d", verb, p.Count)
		}
		found := slices.ContainsFunc(p.Effects.Skipped, func(s plan.Skip) bool {
			return s.Why == plan.SkipMissing && s.Count == 2 && slices.Equal(s.IDs, missing)
		})
		if !found {
			t.Errorf("%s leaves alone %+v", verb, p.Effects.Skipped)
		}
	}
	if p, _ := h.prepare(o, Request{Verb: plan.Hold, Selector: shop(), Reason: "x"}); slices.ContainsFunc(p.Effects.Skipped, func(s plan.Skip) bool { return s.Why == plan.SkipMissing }) {
		t.Error("something is missing although nothing was named")
	}
}
