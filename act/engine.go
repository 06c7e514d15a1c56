package act

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/observe/spool"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

const (
	// holdBatch and deleteBatch are how many messages one intent names. A batch
	// is what an interruption has to wait for, and a deletion copies each
	// message first.
	holdBatch   = 5000
	deleteBatch = 500
	// entryBytes is what a target takes in an intent and in its outcome together,
	// amply; a batch reserves it before it begins.
	entryBytes = 2048
	entryBase  = 64 << 10
	// clockSlack: files are stamped with the kernel's coarse clock, which is up
	// to a tick behind the one that entries are stamped with.
	clockSlack      = 50 * time.Millisecond
	defaultPatience = 2 * time.Minute
)

// engine is one run of one plan.
type engine struct {
	Job
	id     string
	past   *record.Ledger
	start  record.Entry
	qmgr   *record.Process
	idle   bool // it is known that no queue manager runs
	batch  int
	report Report
}

func newEngine(ctx context.Context, job Job) (*engine, error) {
	if err := job.check(time.Now()); err != nil {
		return nil, err
	}
	if driveOf(job.Plan.Verb) == nil {
		return nil, refuse(plan.Short(job.Plan.ID()), "", "there is no way to run the verb %q", job.Plan.Verb)
	}
	e := &engine{Job: job, id: job.Plan.ID()}
	e.complete()
	e.report = Report{Plan: e.id, Counts: make(map[record.State]int), Left: len(job.Targets)}
	if err := e.begin(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

type drive func(*engine, context.Context) error

// driveOf says how a verb goes through its targets, nil for a verb of which the
// engine knows nothing.
func driveOf(v plan.Verb) drive {
	switch v {
	case plan.Hold:
		return func(e *engine, ctx context.Context) error { return e.inBatches(ctx, holdBatch, hold{}) }
	case plan.Delete:
		return func(e *engine, ctx context.Context) error { return e.inBatches(ctx, deleteBatch, deletion{}) }
	case plan.Restore:
		return func(e *engine, ctx context.Context) error { return e.inBatches(ctx, deleteBatch, restore{}) }
	case plan.Purge:
		return func(e *engine, ctx context.Context) error { return e.inBatches(ctx, deleteBatch, purge{}) }
	case plan.Requeue:
		return (*engine).takeIn
	case plan.Expire:
		return (*engine).giveUp
	case plan.Try:
		return func(e *engine, ctx context.Context) error { return e.inBatches(ctx, 1, trying{}) }
	case plan.Release:
		return (*engine).letGo
	}
	return nil
}

// complete fills what a job may leave out.
func (job *Job) complete() {
	if job.Patience <= 0 {
		job.Patience = defaultPatience
	}
	if job.Tell == nil {
		job.Tell = func(Step) {}
	}
	if job.Qmgr == nil {
		in := job.Instance
		job.Qmgr = func(context.Context) (*record.Process, error) {
			m, err := spool.QueueManager(in)
			if err != nil || m.PID == 0 {
				return nil, err
			}
			return &record.Process{PID: m.PID, Started: m.Started}, nil
		}
	}
}

// begin takes the lock, and only then reads what happened before: what another
// run did is thereby known or has not begun.
func (e *engine) begin(ctx context.Context) error {
	if err := e.Hand.Begin(ctx); err != nil {
		return err
	}
	past, err := e.Past(ctx)
	if err != nil {
		return err
	}
	e.past = past
	short := plan.Short(e.id)
	switch {
	case past.Plans[e.id] != nil && past.Plans[e.id].Start != 0:
		return refuse(short, "make a new plan", "it ran before, and a plan runs once")
	case len(past.Open) > 0:
		return refuse(short, "holdfast recover", "an earlier run was cut off: %d of its batches have no outcome", len(past.Open))
	}
	// Where it cannot be told which queue manager runs, nothing that was active
	// is let go; see mayRelease.
	if e.qmgr, err = e.Qmgr(ctx); err != nil {
		e.report.Why = append(e.report.Why, err.Error())
		e.qmgr = nil
	}
	e.idle = err == nil && e.qmgr == nil
	if e.Plan.Options.Active && err != nil && e.Plan.Verb != plan.Restore {
		return refuse(short, "", "which queue manager runs cannot be told, so active mail cannot be held: %w", err)
	}
	return e.reserve(ctx, 0)
}

func (e *engine) reserve(ctx context.Context, targets int) error {
	return e.Hand.Reserve(ctx, entryBase+int64(targets)*entryBytes)
}

// run is the whole of a plan between its start and its end. Entries are written
// under a context that is not cancelled: what was done must be recorded.
func (e *engine) run(ctx context.Context) (Report, error) {
	keep := context.WithoutCancel(ctx)
	p := e.Plan
	var err error
	body := record.PlanBody{
		Plan: e.id, Verb: p.Verb, Instance: p.Instance, Count: p.Count, Reason: p.Reason, Ticket: p.Ticket,
		By: p.By, Expires: p.Expires, Undoes: p.Undoes, Qmgr: e.qmgr,
	}
	if p.Options.Review > 0 {
		body.Review = p.Made.Add(time.Duration(p.Options.Review))
	}
	e.start, err = e.Hand.Append(keep, record.Started, 0, nil, body)
	if err != nil {
		return e.report, err
	}
	if err := driveOf(p.Verb)(e, ctx); err != nil {
		return e.report, err
	}
	if ctx.Err() != nil && e.report.Left > 0 {
		e.report.Why = append(e.report.Why, "it was interrupted")
	}
	_, err = e.Hand.Append(keep, record.Ended, e.start.Seq, nil,
		record.EndBody{Plan: e.id, Counts: e.report.Counts, Left: e.report.Left})
	if err != nil {
		return e.report, err
	}
	e.report.Checkpoint, e.report.CheckpointErr = e.Hand.Checkpoint(keep)
	return e.report, nil
}

// inBatches runs a middle over all targets in their order.
func (e *engine) inBatches(ctx context.Context, size int, m middle) error {
	for rest := e.Targets; len(rest) > 0 && ctx.Err() == nil; {
		n := distinct(rest[:min(size, len(rest))])
		if _, err := e.settle(ctx, e.Plan.Verb, rest[:n], m); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// distinct is how many targets from the first one on have queue IDs of their
// own: the vault can have copies of several messages that bore the same one,
// and an intent names each once.
func distinct(targets []plan.Target) int {
	seen := make(map[postfix.QueueID]bool, len(targets))
	for i := range targets {
		if seen[targets[i].ID] {
			return i
		}
		seen[targets[i].ID] = true
	}
	return len(targets)
}

// middle is what a verb does between intent and outcome.
type middle interface {
	// act acts on the tasks that it finds fit. The error of a hand that failed
	// ends the run, after what can be seen was settled.
	act(ctx context.Context, b *batch) error
	// judge says what became of a task, from what is seen now. It is also what
	// recovery asks, when nothing is known but the entries.
	judge(b *batch, k *task)
}

// task is one target of a batch.
type task struct {
	plan.Target
	// seen is the message where it is now, other another message that has its
	// ID; both nil: it is nowhere.
	seen, other *spool.Found
	// probably is the queue in which it is looked for first.
	probably postfix.Queue
	// named is set where the last operation named it.
	named bool
	// spared is set where it is left alone: out says why.
	spared bool
	// fromActive is set where it may have been taken from the active queue.
	fromActive bool
	// taken is set where this batch put it on hold, so that fromActive is known.
	taken bool
	// finished is set where no recipient was left to do when it was compared.
	finished bool
	// before is how it stood before it was asked for, verdict what came of that.
	before  standing
	verdict verdict
	item    string
	note    *record.NoteBody
	out     record.Outcome
}

// spare leaves the task alone, with its outcome.
func (k *task) spare(s record.State, text string) {
	k.spared = true
	k.settleAs(s, text)
}

func (k *task) settleAs(s record.State, text string) {
	k.out.State, k.out.Text = s, text
	k.out.Now = ""
	if k.seen != nil {
		k.out.Now = k.seen.Queue.String()
	} else if k.other != nil && s == record.Changed {
		k.out.Now = k.other.Queue.String()
	}
}

// in says whether the message is in one of the queues.
func (k *task) in(queues ...postfix.Queue) bool {
	for _, q := range queues {
		if k.seen != nil && k.seen.Queue == q {
			return true
		}
	}
	return false
}

func (k *task) file() record.File {
	inode := k.Inode
	if k.seen != nil {
		inode = k.seen.Inode
	}
	return record.File{ID: k.ID, Inode: inode}
}

// batch is one intent and its tasks.
type batch struct {
	e         *engine
	verb      plan.Verb
	intent    record.Entry
	tasks     []*task
	recovered bool
	// current is set while nothing was done since all tasks were looked at.
	current bool
}

func newBatch(e *engine, v plan.Verb, targets []plan.Target) *batch {
	b := &batch{e: e, verb: v}
	for _, t := range targets {
		b.tasks = append(b.tasks, &task{Target: t, probably: t.Queue, out: record.Outcome{ID: t.ID, Inode: t.Inode}})
	}
	return b
}

// settle is the one way in which anything is done: look, intent on disk, act,
// look again, outcome on disk.
func (e *engine) settle(ctx context.Context, v plan.Verb, targets []plan.Target, m middle) (*batch, error) {
	ctx = context.WithoutCancel(ctx)
	b := newBatch(e, v, targets)
	if err := b.look(ctx, b.tasks); err != nil {
		return b, err
	}
	if err := e.reserve(ctx, len(targets)); err != nil {
		return b, err
	}
	e.batch++
	body := record.IntentBody{Plan: e.id, Verb: v, Batch: e.batch, Targets: targets}
	if e.Plan.Options.Active {
		body.Qmgr = e.qmgr
	}
	files := make([]record.File, len(targets))
	for i, t := range targets {
		files[i] = record.File{ID: t.ID, Inode: t.Inode}
	}
	var err error
	if b.intent, err = e.Hand.Append(ctx, record.Intended, 0, files, body); err != nil {
		return b, err
	}
	b.current = false // the outcome is of what is seen after the act, also where nothing was done
	acted := m.act(ctx, b)
	if err := b.finish(ctx, m, e.batch); err != nil {
		return b, errors.Join(acted, err)
	}
	e.count(b)
	if acted != nil || v == plan.Release || v == plan.Try || v == plan.Restore || v == plan.Purge {
		return b, acted
	}
	return b, e.amend(ctx, b)
}

// finish looks, judges and records. After an error of looking the intent stays
// open, and recovery looks again.
func (b *batch) finish(ctx context.Context, m middle, number int) error {
	if !b.current {
		if err := b.look(ctx, b.tasks); err != nil {
			return err
		}
	}
	body := record.OutcomeBody{Plan: b.e.id, Verb: b.verb, Batch: number, Recovered: b.recovered}
	for _, k := range b.tasks {
		if !k.spared {
			m.judge(b, k)
		}
		body.Outcomes = append(body.Outcomes, k.out)
	}
	_, err := b.e.Hand.Append(ctx, record.Settled, b.intent.Seq, nil, body)
	return err
}

// wait tells what is waited for.
func (e *engine) wait(format string, args ...any) {
	e.Tell(Step{
		Plan: e.Plan, Batch: e.batch, Targets: len(e.Targets), Settled: len(e.Targets) - e.report.Left,
		Waiting: fmt.Sprintf(format, args...),
	})
}

// count adds a batch to the report. What was let go to make amends is no target
// of the plan.
func (e *engine) count(b *batch) {
	step := Step{Plan: e.Plan, Batch: e.batch, Targets: len(e.Targets)}
	if b.verb == e.Plan.Verb {
		for _, k := range b.tasks {
			step.Outcomes = append(step.Outcomes, k.out)
			e.report.Counts[k.out.State]++
		}
		e.report.Outcomes = append(e.report.Outcomes, step.Outcomes...)
		e.report.Left -= len(b.tasks)
	}
	step.Settled = len(e.Targets) - e.report.Left
	e.Tell(step)
}

// look sees where the tasks' messages are now. A spared task is looked at no
// more: its outcome is what was seen when it was spared.
func (b *batch) look(ctx context.Context, tasks []*task) error {
	ids := make([]spool.Sought, 0, len(tasks))
	for _, k := range tasks {
		if !k.spared {
			ids = append(ids, spool.Sought{ID: k.ID, Queue: k.probably, Inode: k.Inode})
		}
	}
	found, err := b.e.Reader.FindAt(ctx, ids)
	if err != nil {
		return err
	}
	b.current = len(tasks) == len(b.tasks)
	for _, k := range tasks {
		if k.spared {
			continue
		}
		k.seen, k.other = nil, nil
		for i := range found[k.ID] {
			f := &found[k.ID][i]
			// In maildrop a file has no size of its own record, and pickup reads it
			// so; the inode says that it is the one that was requeued.
			requeued := b.verb == plan.Requeue && f.Queue == postfix.Maildrop && f.Inode == k.Inode
			if requeued || k.Matches(f.Fingerprint) {
				k.seen, k.probably = f, f.Queue
			} else {
				k.other = f
			}
		}
	}
	return nil
}

// pick returns the tasks that are not spared and that the test lets through.
func (b *batch) pick(test func(*task) bool) []*task {
	var out []*task
	for _, k := range b.tasks {
		if !k.spared && test(k) {
			out = append(out, k)
		}
	}
	return out
}

// ours is the hold that the ledger knows of a task's message.
func (b *batch) ours(k *task) (record.Hold, bool) {
	message := k.Fingerprint
	message.Inode, message.Digest = k.file().Inode, ""
	return b.e.past.HoldOf(message)
}

// fresh says whether a file was last changed under this batch's intent.
func (b *batch) fresh(f *spool.Found) bool {
	return !f.Changed.Before(b.intent.At.Add(-clockSlack))
}
