package cli

import (
	"context"
	"io"

	"holdfast/observe/maillog"
	"holdfast/plan"
	"holdfast/record"
)

// Changer is what the verbs that change mail need of the host. It is apart
// from Operator: what looks is never given the means to change anything.
type Changer interface {
	// Prepare selects, looks and seals a plan. It changes nothing. Where
	// nothing is to be done the plan has no targets and says what was left
	// alone and why.
	Prepare(ctx context.Context, r Request) (*plan.Plan, []plan.Target, error)
	// Run carries a plan out, once. A cancelled context ends it after the
	// batch in hand, which is no error: the report says how much is left.
	Run(ctx context.Context, p *plan.Plan, targets []plan.Target, tell func(Step)) (Report, error)
	// Close ends what reaching the host has started.
	Close() error
}

// Request is what a plan is asked for with.
type Request struct {
	Verb     plan.Verb // "" where Undoes says what is to be taken back
	Selector plan.Selector
	Options  plan.Options
	Reason   string
	Ticket   string
	// Undoes is the plan whose outcome is taken back, as it was typed.
	Undoes string
}

// Step is told of progress.
type Step struct {
	// Targets are how many there are, Settled how many have an outcome.
	Targets, Settled int
	// Outcomes are those that are new, in the order of the report.
	Outcomes []record.Outcome
	// Waiting is set while nothing is done until something is seen; hostile.
	Waiting string
	// Log is a line of the mail log about a message that is tried; hostile. Such
	// a step tells of nothing else.
	Log *maillog.Line
}

// Report is what became of a plan.
type Report struct {
	Outcomes []record.Outcome
	// Left is how many targets were not begun, Why the reason, which may be
	// hostile.
	Left int
	Why  []string
	// CheckpointErr is why the audit log could not be signed; nothing is lost
	// by it.
	CheckpointErr error
}

// Keeper is what the verbs need that go on with plans of earlier commands.
type Keeper interface {
	Changer
	// Plan reads a sealed plan and its targets, and checks both against the
	// digests that name them.
	Plan(ctx context.Context, ref string) (*plan.Plan, []plan.Target, error)
	// Approve records that whoever runs this agrees to a plan.
	Approve(ctx context.Context, p *plan.Plan) error
	// Recover settles by looking what an earlier command left open.
	Recover(ctx context.Context) (Recovery, error)
}

// Recovery is what settling found.
type Recovery struct {
	// Settled are the intents that have an outcome now, by their entries.
	Settled  []uint64
	Outcomes []record.Outcome
	// Ended are the plans whose end was recorded.
	Ended []string
}

// Recorder reads what Holdfast has recorded, without the means to change it.
type Recorder interface {
	// Audit opens an audit log: that of this host for "", a file otherwise.
	// What lies beside it as checkpoints comes along, nil where there are none.
	Audit(ctx context.Context, path string) (log io.ReadCloser, checkpoints []byte, err error)
	// Plan reads a sealed plan, as in Keeper.
	Plan(ctx context.Context, ref string) (*plan.Plan, []plan.Target, error)
	Close() error
}
