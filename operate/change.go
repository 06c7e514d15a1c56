package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"holdfast/act"
	"holdfast/act/hand"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/audit"
	"holdfast/record/vault"
)

// What a run tells is named here for screens, which have no door to package act.
type (
	// Step tells of progress.
	Step = act.Step
	// Report is what became of a plan.
	Report = act.Report
	// Recovery is what settling what was left open found.
	Recovery = act.Recovery
)

// stateFiles opens root's files of state for who is not root: *opener.Opener.
type stateFiles interface {
	State(shelf, name string) (*os.File, error)
}

// The shelves as the opener knows them.
const (
	shelfAudit   = "audit"
	shelfPlans   = "plans"
	shelfTargets = "targets"
)

// mostPlan bounds the file of a plan, whose lists are bounded but for the IDs
// of a selection.
const mostPlan = 512 << 20

// Entries reads the audit log. An end that is not whole, as it is while another
// process writes, is the end.
func (o *Operator) Entries(context.Context) iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		log, _, err := o.Audit()
		if errors.Is(err, fs.ErrNotExist) {
			return // nothing was ever changed
		}
		if err != nil {
			yield(record.Entry{}, err)
			return
		}
		defer func() { _ = log.Close() }() // only read
		for e, err := range audit.Read(log) {
			if errors.Is(err, audit.ErrCut) || !yield(e, err) {
				return
			}
		}
	}
}

// Audit opens the audit log, with the checkpoints beside it, nil where there
// are none.
func (o *Operator) Audit() (log io.ReadCloser, checkpoints []byte, err error) {
	if o.state == nil {
		return nil, nil, needsRoot("read the audit log")
	}
	if checkpoints, err = o.readState(shelfAudit, audit.CheckpointsName, mostPlan); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	log, err = o.state.State(shelfAudit, audit.LogName)
	if err != nil {
		return nil, nil, fmt.Errorf("open the audit log: %w", err)
	}
	return log, checkpoints, nil
}

// Ledger computes what follows from the audit log as it is now.
func (o *Operator) Ledger(ctx context.Context) (*record.Ledger, error) {
	return record.Fold(o.Entries(ctx))
}

func (o *Operator) readState(shelf, name string, limit int64) ([]byte, error) {
	file, err := o.state.State(shelf, name)
	if err != nil {
		return nil, fmt.Errorf("open %q of the state: %w", shelf+"/"+name, err)
	}
	text, err := io.ReadAll(io.LimitReader(file, limit))
	return text, errors.Join(err, file.Close())
}

// Plan reads a sealed plan and its targets, and checks both against the digests
// that name them. ref is its ID or the first digits of it.
func (o *Operator) Plan(ctx context.Context, ref string) (*plan.Plan, []plan.Target, error) {
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, nil, err
	}
	run, err := ledger.Resolve(ref)
	if err != nil {
		return nil, nil, err
	}
	id := run.Plan.Plan
	text, err := o.readState(shelfPlans, id, mostPlan)
	if err != nil {
		return nil, nil, err
	}
	p, err := plan.Decode(id, text)
	if err != nil {
		return nil, nil, err
	}
	list, err := o.state.State(shelfTargets, p.Targets)
	if err != nil {
		return nil, nil, fmt.Errorf("open the targets of plan %q: %w", plan.Short(id), err)
	}
	targets, err := p.DecodeTargets(list)
	return p, targets, errors.Join(err, list.Close())
}

// Run carries a plan out, once, after it has settled what an earlier run left
// open. A cancelled context ends it after the batch in hand, which is no error.
func (o *Operator) Run(ctx context.Context, p *plan.Plan, targets []plan.Target, tell func(act.Step)) (act.Report, error) {
	in, err := o.fit(p, targets)
	if err != nil {
		return act.Report{}, err
	}
	job := o.job(in, tell)
	job.Plan, job.Targets = p, targets
	ledger, err := o.settled(ctx, job)
	if err != nil {
		return act.Report{}, err
	}
	if err := o.keep(ctx, ledger, p, targets); err != nil {
		return act.Report{}, err
	}
	if err := barred(p, ledger); err != nil {
		return act.Report{}, err
	}
	if p.Verb == plan.Try {
		told, end := o.witness(ctx, in, targets, tell)
		job.Tell = told
		defer end()
	}
	return act.Execute(ctx, job)
}

// Recover settles what an earlier command left open, by looking.
func (o *Operator) Recover(ctx context.Context) (act.Recovery, error) {
	in, err := o.only()
	if err != nil {
		return act.Recovery{}, err
	}
	if o.hand == nil {
		return act.Recovery{}, needsRoot("recover")
	}
	return act.Recover(ctx, o.job(in, nil))
}

// Approve records that whoever runs this agrees to a plan of somebody else.
func (o *Operator) Approve(ctx context.Context, p *plan.Plan) error {
	if o.hand == nil {
		return needsRoot("approve a plan")
	}
	id := p.ID()
	if err := o.hand.Begin(ctx); err != nil {
		return err
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return err
	}
	run, err := ledger.Resolve(id)
	if err != nil {
		return err
	}
	state := run.State(time.Now())
	switch {
	case state != "sealed":
		return refused(p, "make the plan again", "it is %s", state)
	case o.policy.May != nil && !o.policy.May(string(p.Verb), o.who.Name()):
		return refused(p, "", "the policy does not let %s %s mail, and so not agree to it", o.who.Name(), p.Verb)
	case o.who.Name() == p.By.Name():
		return refused(p, "somebody else has to", "%s made it, and a second person has to agree", p.By.Name())
	case agreed(p, run):
		return nil
	}
	body := planBody(p)
	body.By = o.who
	_, err = o.hand.Append(ctx, record.Approved, 0, nil, body)
	return err
}

// fit refuses a plan that is not for this host as it is now.
func (o *Operator) fit(p *plan.Plan, targets []plan.Target) (*instance, error) {
	in, err := o.only()
	if err != nil {
		return nil, err
	}
	switch {
	case o.hand == nil:
		return nil, needsRoot(string(p.Verb))
	case p.Config != in.ConfigDir || p.Instance != in.Name:
		return nil, refused(p, "-c "+p.Config, "it was made for instance %q in %q", p.Instance, p.Config)
	case p.Policy != o.policy.Digest:
		return nil, refused(p, "make the plan again", "it was sealed under another policy")
	case !time.Now().Before(p.Expires):
		return nil, refused(p, "make the plan again", "it expired at %s", p.Expires.Format(time.RFC3339))
	}
	if err := p.Check(targets); err != nil {
		return nil, refused(p, "make the plan again", "%w", err)
	}
	return in, nil
}

func (o *Operator) job(in *instance, tell func(act.Step)) act.Job {
	return act.Job{Hand: o.hand, Reader: in.reader, Instance: in.Instance, Past: o.Ledger, Tell: tell}
}

// settled takes the lock and settles what was left open. What was done before
// is known only then.
func (o *Operator) settled(ctx context.Context, job act.Job) (*record.Ledger, error) {
	if err := o.hand.Begin(ctx); err != nil {
		return nil, err
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, err
	}
	if len(dutiesOf(ledger.Dues, job.Instance.ConfigDir)) > 0 {
		_ = o.keepTime(ctx, job.Instance.ConfigDir) // what nobody does in time is told as overdue
	}
	open := len(ledger.Open) > 0
	for _, run := range ledger.Plans {
		open = open || run.Start != 0 && run.Ended.IsZero()
	}
	if !open {
		return ledger, nil
	}
	if _, err := act.Recover(ctx, job); err != nil {
		return nil, err
	}
	return o.Ledger(ctx)
}

// keep stores a plan that is not stored yet, its targets first: what the log
// names must be there.
func (o *Operator) keep(ctx context.Context, ledger *record.Ledger, p *plan.Plan, targets []plan.Target) error {
	id := p.ID()
	if run := ledger.Plans[id]; run != nil {
		if run.Start != 0 {
			return refused(p, "make a new plan", "it ran before, and a plan runs once")
		}
		return nil
	}
	text, err := p.Encode()
	if err != nil {
		return err
	}
	read, write := io.Pipe()
	go func() {
		_, err := plan.EncodeTargets(write, targets)
		_ = write.CloseWithError(err)
	}()
	err = o.hand.Keep(ctx, hand.Targets, p.Targets, read)
	_ = read.Close() // ends the writer where the hand did not read it all
	if err != nil {
		return err
	}
	if err := o.hand.Keep(ctx, hand.Plans, id, bytes.NewReader(text)); err != nil {
		return err
	}
	body := planBody(p)
	body.Before = o.before
	_, err = o.hand.Append(ctx, record.Planned, 0, nil, body)
	return err
}

func planBody(p *plan.Plan) record.PlanBody {
	body := record.PlanBody{
		Plan: p.ID(), Verb: p.Verb, Instance: p.Instance, Count: p.Count, Reason: p.Reason, Ticket: p.Ticket,
		By: p.By, Expires: p.Expires, Undoes: p.Undoes,
	}
	if p.Options.Review > 0 {
		body.Review = p.Made.Add(time.Duration(p.Options.Review))
	}
	return body
}

// barred refuses a plan with a reason against it that nothing has lifted.
func barred(p *plan.Plan, ledger *record.Ledger) error {
	for _, bar := range p.Effects.Bars {
		if bar.Kind != "approval" {
			return refused(p, bar.Lift, "%s", bar.Text)
		}
		if run := ledger.Plans[p.ID()]; run == nil || !agreed(p, run) {
			short := plan.Short(p.ID())
			return refused(p, "somebody else runs: holdfast plan approve "+short+"; then: holdfast plan apply "+short, "%s", bar.Text)
		}
	}
	return nil
}

// agreed says whether somebody else than its maker agreed to a plan.
func agreed(p *plan.Plan, run *record.Run) bool {
	for _, who := range run.Approved {
		if who.Name() != p.By.Name() {
			return true
		}
	}
	return false
}

func refused(p *plan.Plan, hint, format string, args ...any) error {
	return &postfix.Error{Kind: postfix.Refused, Op: "run plan", Object: plan.Short(p.ID()), Err: fmt.Errorf(format, args...), Hint: hint}
}

func needsRoot(op string) error {
	return &postfix.Error{Kind: postfix.Refused, Op: op, Err: fs.ErrPermission, Hint: "run it as root: only root may keep the record and change the queue"}
}

// vaultOnSpool reports whether copies would take the space that they are to
// free. Where it cannot be told nothing is said.
func (o *Operator) vaultOnSpool(queueDir string) bool {
	same, err := vault.SameFilesystem(o.stateDir, queueDir)
	return err == nil && same
}
