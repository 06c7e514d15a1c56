package operate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/observe/spool"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// Request is what a plan is asked for with.
type Request struct {
	Verb     plan.Verb // "" where Undoes says what is to be taken back
	Selector plan.Selector
	Options  plan.Options
	Reason   string
	Ticket   string
	// Undoes is the plan whose outcome is taken back: its ID, or as many of its
	// first digits as tell it apart.
	Undoes string
}

// drafting is the making of one plan.
type drafting struct {
	o      *Operator
	in     *instance
	r      Request
	ledger *record.Ledger
	now    time.Time
	snap   *observe.Snapshot
	// verdict is what stands in the way of mail, of verbs that send some.
	verdict *diagnose.Verdict
	draft   *plan.Draft
	match   *plan.Matcher
	// chosen are the messages that an undo is about, as their plan had them, nil
	// for one that the record knows by itself; nil where a selection says.
	chosen map[record.File]*plan.Target
	// sums are the contents of what is selected, for a verb that ends messages.
	sums map[record.File]*spool.Sum
	// unmet are the IDs that the selection names and that were not met yet.
	unmet map[postfix.QueueID]bool
	// qmgr is the queue manager that runs; unsure is set where it cannot be told.
	qmgr   *record.Process
	unsure bool
	held   bool
	// others is what somebody else has on hold, nil where there is nothing.
	others *foreign
}

// Prepare selects, looks and seals. It changes nothing. Where nothing is to be
// done the plan has no targets and says what was left alone, and why.
func (o *Operator) Prepare(ctx context.Context, r Request) (*plan.Plan, []plan.Target, error) {
	in, err := o.only()
	if err != nil {
		return nil, nil, err
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, nil, err
	}
	d := &drafting{o: o, in: in, r: r, ledger: ledger, now: time.Now().UTC(), held: true}
	if err := d.choose(ctx); err != nil {
		return nil, nil, err
	}
	if d.match, err = d.r.Selector.Compile(d.now); err != nil {
		return nil, nil, err
	}
	d.unmet = make(map[postfix.QueueID]bool, len(d.r.Selector.IDs))
	for _, id := range d.r.Selector.IDs {
		d.unmet[id] = true
	}
	if err := d.look(ctx); err != nil {
		return nil, nil, err
	}
	d.others = d.strangers(ctx)
	d.draft = plan.NewDraft(d.r.Verb, d.r.Options, d.circumstances(), d.match)
	if d.r.Verb == plan.Restore || d.r.Verb == plan.Purge {
		err = d.fromVault()
	} else {
		err = d.fromQueue(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return d.seal()
}

// only returns the instance that is to be changed: there must be no doubt about
// which one it is.
func (o *Operator) only() (*instance, error) {
	if len(o.instances) == 1 {
		return o.instances[0], nil
	}
	dirs := make([]string, 0, len(o.instances))
	for _, in := range o.instances {
		dirs = append(dirs, in.ConfigDir)
	}
	return nil, &postfix.Error{
		Kind: postfix.Usage, Op: "choose the instance", Err: fmt.Errorf("a change concerns exactly one, and there are %d", len(dirs)),
		Hint: "name it by its configuration directory: -c " + strings.Join(dirs, ", or -c "),
	}
}

// look takes the snapshot, and where mail is to be sent finds out what stands
// in its way.
func (d *drafting) look(ctx context.Context) error {
	var err error
	if (d.r.Verb == plan.Release || d.r.Verb == plan.Requeue) && d.o.surroundings {
		var t *Triage
		if t, err = d.o.triage(ctx, d.in, TriageOptions{Window: usualWindow}); err == nil {
			d.snap, d.verdict = t.Snapshot, &t.Verdict
		}
	} else {
		d.snap, err = d.in.look(ctx)
	}
	if err != nil {
		return err
	}
	if d.snap.Source != observe.FromSpool {
		// Without inodes two messages with one ID cannot be told apart.
		return &postfix.Error{
			Kind: postfix.CannotTell, Op: "select messages of", Object: fmt.Sprintf("%q", d.in.Name),
			Err: errors.New("the spool cannot be read, and what showq lists is not enough to tell messages apart"), Hint: "run it as root",
		}
	}
	m, err := spool.QueueManager(d.in.Instance)
	d.unsure = err != nil
	if err == nil && m.PID != 0 {
		d.qmgr = &record.Process{PID: m.PID, Started: m.Started}
	}
	d.o.before = shapeOf(d.snap)
	return nil
}

// shapeOf counts messages by queue, those queues that could be seen.
func shapeOf(snap *observe.Snapshot) map[string]int {
	shape := make(map[string]int)
	for _, q := range postfix.Queues() {
		if s := snap.Shape(q); s.Known {
			shape[q.String()] = s.Messages
		}
	}
	return shape
}

func (d *drafting) circumstances() plan.Circumstances {
	return plan.Circumstances{
		Instance: d.in.Instance, Now: d.now, Held: d.holding, VaultOnSpool: d.o.vaultOnSpool(d.in.QueueDir),
		Digest: func(m *postfix.Message) (string, error) {
			s, read := d.sums[record.File{ID: m.ID, Inode: m.Inode}]
			switch {
			case !read:
				return "", errors.New("it was not read")
			case s.Err != nil:
				return "", s.Err
			case !s.Same(m.Fingerprint(d.in.Name)) || s.Digest == "":
				return "", errors.New("it is another message now, or cannot be read")
			}
			return s.Digest, nil
		},
	}
}

// holding says what is recorded of a message on hold. One that somebody else
// holds counts as taken from active where it came to be held while the queue
// manager ran that runs now, unless a log that no stranger writes to proves
// otherwise.
func (d *drafting) holding(m *postfix.Message) plan.Holding {
	h, ours := d.ledger.HoldOf(m.Fingerprint(d.in.Name))
	if ours {
		return plan.Holding{Ours: true, Remembered: h.Under(d.qmgr)}
	}
	if d.others.neverActive(m) {
		return plan.Holding{OnArrival: true}
	}
	return plan.Holding{Remembered: d.unsure || d.qmgr != nil && m.Changed.After(d.qmgr.Started)}
}

// digests reads, whole, what will be taken by a verb that ends messages: what
// is ended must be what was planned for, to the byte.
func (d *drafting) digests(ctx context.Context) error {
	if !d.r.Verb.Destructive() {
		return nil
	}
	var want []spool.Sought
	d.snap.Each(func(m *postfix.Message) bool {
		if selected, err := d.selects(ctx, m); err == nil && selected {
			want = append(want, spool.Sought{ID: m.ID, Queue: m.Queue, Inode: m.Inode})
		}
		return ctx.Err() == nil
	})
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	sums, err := d.in.reader.SumAll(ctx, want)
	if err != nil {
		return err
	}
	d.sums = make(map[record.File]*spool.Sum, len(sums))
	for i := range sums {
		d.sums[record.File{ID: want[i].ID, Inode: want[i].Inode}] = &sums[i]
	}
	return nil
}

// fromQueue shows the draft every message of the snapshot.
func (d *drafting) fromQueue(ctx context.Context) error {
	if err := d.digests(ctx); err != nil {
		return err
	}
	var failed error
	d.snap.Each(func(m *postfix.Message) bool {
		if failed = ctx.Err(); failed != nil {
			failed = &postfix.Error{Kind: postfix.Interrupted, Op: "select messages", Err: failed}
			return false
		}
		delete(d.unmet, m.ID)
		selected, err := d.selects(ctx, m)
		var e *postfix.Error
		switch {
		case errors.As(err, &e) && e.Kind == postfix.CannotTell:
			d.draft.Skip(plan.SkipDigest, "what the selection asks for could not be read", m.ID)
		case err != nil:
			failed = err
			return false
		case !selected:
			d.draft.See(m)
		default:
			d.held = d.held && m.Queue == postfix.Hold
			d.draft.Take(m)
		}
		return true
	})
	return failed
}

func (d *drafting) selects(ctx context.Context, m *postfix.Message) (bool, error) {
	if d.chosen != nil {
		t, is := d.chosen[record.File{ID: m.ID, Inode: m.Inode}]
		return is && (t == nil || t.Matches(m.Fingerprint(d.in.Name))), nil
	}
	return d.match.Match(m, func() ([]plan.Header, error) { return d.o.Headers(ctx, d.snap, m) })
}

// seal makes the plan.
func (d *drafting) seal() (*plan.Plan, []plan.Target, error) {
	policy := d.o.policy
	if d.r.Options.PerRun == 0 && (d.r.Verb == plan.Release || d.r.Verb == plan.Expire || d.r.Verb == plan.Requeue) {
		d.r.Options.PerRun = policy.PerRun
	}
	if d.r.Options.Review == 0 && d.r.Verb == plan.Hold {
		d.r.Options.Review = plan.Duration(policy.Review)
	}
	for _, id := range slices.Sorted(maps.Keys(d.unmet)) {
		d.draft.Skip(plan.SkipMissing, "the mail log tells what became of it", id)
	}
	targets, effects := d.draft.Targets(), d.draft.Effects()
	d.addStrangers(&effects)
	p := &plan.Plan{
		Verb: d.r.Verb, Instance: d.in.Name, Config: d.in.ConfigDir, Selector: d.r.Selector, Options: d.r.Options,
		Reason: d.r.Reason, Ticket: d.r.Ticket, By: d.o.who, Made: d.now, Expires: d.now.Add(policy.Lifetime),
		Policy: policy.Digest, Undoes: d.r.Undoes,
	}
	if len(targets)+len(d.unmet) > 0 {
		effects.Risks = append(effects.Risks, unseen(d.snap)...)
	}
	if len(targets) > 0 {
		d.addFindings(&effects)
		if policy.Judge != nil {
			effects.Bars = append(effects.Bars, policy.Judge(p.Verb, Facts{Login: d.o.who.Name(), Count: len(targets), Held: d.held, Ticket: p.Ticket})...)
		}
	}
	p.Effects = effects
	if err := p.Seal(targets); err != nil {
		return nil, nil, err
	}
	return p, targets, nil
}

// unseen says that there may be more that was meant: what could not be read is
// not selected.
func unseen(snap *observe.Snapshot) []plan.Risk {
	for _, g := range snap.Gaps {
		if g.Source == "spool" {
			return []plan.Risk{{Kind: "unseen", Count: len(snap.Gaps), Text: "there may be more that is meant; a part of the queue could not be read: " + plan.Canonical(g.String())}}
		}
	}
	return nil
}
