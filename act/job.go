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

// Job is a sealed plan with what it takes to carry it out.
type Job struct {
	Hand     Hand
	Reader   *spool.Reader
	Instance postfix.Instance
	Plan     *plan.Plan
	Targets  []plan.Target
	// Past computes the ledger from the audit log. It is called when the lock is
	// held, so that no other run can add to the log afterwards.
	Past func(context.Context) (*record.Ledger, error)
	// Tell is told of progress; nil is nobody.
	Tell func(Step)
	// Patience bounds each wait for a delivery agent to let go of a file and
	// for the verdict on messages that were let go; 0 means two minutes.
	Patience time.Duration
	// Qmgr finds the queue manager that runs, nil where none does; a nil
	// function is spool.QueueManager.
	Qmgr func(context.Context) (*record.Process, error)
}

// Report is what became of a job.
type Report struct {
	Plan     string
	Outcomes []record.Outcome
	Counts   map[record.State]int
	// Left is how many targets were not begun, Why the reason; what it says of
	// a server's answer is hostile.
	Left int
	Why  []string
	// Checkpoint is the signed note over the log as it is now, "" where it
	// could not be signed: CheckpointErr says why, and nothing is lost by it.
	Checkpoint    string
	CheckpointErr error
}

// Execute carries out a plan, once. Where the context is cancelled, the batch
// in hand is finished and settled and the rest is left; that is no error. An
// error means that the record could not be kept, or that the plan was not begun
// at all: nothing was then done that Recover would not find.
func Execute(ctx context.Context, job Job) (Report, error) {
	e, err := newEngine(ctx, job)
	if err != nil {
		return Report{}, err
	}
	return e.run(ctx)
}

// Recovery is what Recover did.
type Recovery struct {
	// Settled are the intents that have an outcome now, by their entries.
	Settled  []uint64
	Outcomes []record.Outcome
	// Ended are the plans whose end was recorded.
	Ended []string
}

// Recover settles every open intent by looking at the spool. It finishes
// nothing that was not done and takes nothing back: what it finds on hold stays
// there. Of the job it needs no plan and no targets. Called again it finds
// nothing to do.
func Recover(ctx context.Context, job Job) (Recovery, error) {
	return recoverOpen(ctx, job)
}

func refuse(object string, hint, format string, args ...any) error {
	return &postfix.Error{Kind: postfix.Refused, Op: "run plan", Object: object, Err: fmt.Errorf(format, args...), Hint: hint}
}

// check refuses a job that does not fit together. What the plan shows is in
// its own ID; that the targets are the ones of the plan was checked by whoever
// read them.
func (job *Job) check(now time.Time) error {
	p := job.Plan
	if p == nil || job.Hand == nil || job.Reader == nil || job.Past == nil {
		return errors.New("run plan: plan, hand, reader or past is missing")
	}
	short := plan.Short(p.ID())
	switch {
	case len(job.Targets) == 0:
		return refuse(short, "", "it has no targets")
	case len(job.Targets) != p.Count:
		return refuse(short, "make the plan again", "it was sealed with %d targets and there are %d", p.Count, len(job.Targets))
	case p.Instance != job.Instance.Name:
		return refuse(short, "", "it was made for instance %q", p.Instance)
	case !p.Expires.IsZero() && !now.Before(p.Expires):
		return refuse(short, "make the plan again", "it expired at %s", p.Expires.Format(time.RFC3339))
	}
	seen := make(map[postfix.QueueID]bool, len(job.Targets))
	for i := range job.Targets {
		t := &job.Targets[i]
		if !postfix.ValidQueueID(string(t.ID)) || seen[t.ID] && t.Item == "" {
			return refuse(short, "", "target %q is invalid or named twice", t.ID)
		}
		seen[t.ID] = true
	}
	return nil
}
