package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/diagnose"
	"holdfast/operate"
	"holdfast/present"
)

// triageOptions is what the flags of the verb say.
type triageOptions struct {
	window   time.Duration
	watch    time.Duration
	exitCode bool
}

const usualWindow = time.Hour

const triageLong = "Says why mail does not flow: what is stuck and where, the cause with its proof,\n" +
	"what is safe to do next and what would make it worse; below that the shape of\n" +
	"the queue. It looks at the queue, the log and the surroundings (name servers,\n" +
	"mail servers, disk, Postfix's own programs) and changes nothing."

var triageExits = []int{exitDone, exitFailed, exitUsage, exitCannotTell, exitFindings, exitInterrupted}

func (p *program) triageCommand() *cobra.Command {
	o := &triageOptions{}
	cmd := &cobra.Command{
		Use: "triage [flags]", Short: "what is stuck, why, and the next safe step; also holdfast alone",
		GroupID: groupLook, Args: cobra.NoArgs, Long: triageLong,
		Example: "  holdfast\n" +
			"  holdfast triage -v\n" +
			"  holdfast triage --watch=10s\n" +
			"  holdfast triage --window 6h -o json | jq '.findings[] | .cause, .next'\n" +
			"  holdfast triage --exit-code -q >/dev/null || echo look at the mail",
		RunE: p.run(func(ctx context.Context, _ []string) error { return p.triage(ctx, *o) }),
	}
	p.describe(cmd, verb{sections: []section{{"How it looks", triageFlags(o)}}, exits: triageExits})
	return cmd
}

func triageFlags(o *triageOptions) *pflag.FlagSet {
	f := pflag.NewFlagSet("triage", pflag.ContinueOnError)
	f.DurationVar(&o.window, "window", usualWindow, "read the log this `TIME` back, for example 6h")
	f.Lookup("window").DefValue = "1h"
	f.DurationVar(&o.watch, "watch", 0, "look again every `INTERVAL` until interrupted (2s where none is given)")
	f.Lookup("watch").NoOptDefVal = usualWatch
	f.BoolVar(&o.exitCode, "exit-code", false, "end with 10 where there is a finding")
	return f
}

func (o *triageOptions) check() error {
	if o.window <= 0 {
		return usageError("the usual window is 1h", "--window %s is no span of time", o.window)
	}
	return checkWatch(o.watch)
}

// triage runs the verb.
func (p *program) triage(ctx context.Context, o triageOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	settings := p.settings
	settings.Surroundings = true
	op, err := p.env.Open(ctx, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, op.Close()) }()
	t := &triageRun{program: p, triageOptions: o, op: op, earlier: make(map[string]*present.Shape)}
	if o.watch > 0 {
		return p.screen.again(ctx, o.watch, t.once)
	}
	return t.once(ctx)
}

// triageRun is one run of the verb.
type triageRun struct {
	*program
	triageOptions
	op Operator
	// earlier is the shape at the look before, by configuration directory.
	earlier map[string]*present.Shape
}

// sight is one instance as the screen needs it.
type sight struct {
	*operate.Triage
	shape   *present.Shape
	earlier *present.Shape
	flow    present.FlowRecord
	now     time.Time
}

// once looks and tells.
func (t *triageRun) once(ctx context.Context) error {
	progress := t.screen.watchProgress(0, present.Say("looking at the queue, the log and the surroundings"))
	all, failed := t.op.Triage(ctx, operate.TriageOptions{Window: t.window})
	progress.end()
	sights := make([]*sight, 0, len(all))
	for _, one := range all {
		shape, err := present.ShapeOf(ctx, one.Snapshot, t.watch > 0)
		if err != nil {
			return err
		}
		dir := one.Snapshot.Instance.ConfigDir
		s := &sight{Triage: one, shape: shape, earlier: t.earlier[dir], now: one.At.In(t.env.Now().Location())}
		s.flow = present.FlowOf(one, shape, s.earlier, t.window)
		t.earlier[dir] = shape
		sights = append(sights, s)
	}
	slices.SortStableFunc(sights, func(a, b *sight) int { return cmp.Compare(urgency(a), urgency(b)) })
	for i, s := range sights {
		if err := t.render(s, len(sights) > 1, i == 0); err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	t.exit = t.verdict(sights)
	return nil
}

// urgency orders instances: first what a person has to look at first.
func urgency(s *sight) int {
	switch {
	case s.Verdict.State == diagnose.NotFlowing:
		return 0
	case s.Verdict.State == diagnose.CannotTell:
		return 1
	case len(s.Verdict.Findings) > 0:
		return 2
	}
	return 3
}

// verdict is the exit code. A finding that was asked for by --exit-code
// outranks what could not be seen: it is the more certain news.
func (t *triageRun) verdict(sights []*sight) int {
	code := exitDone
	for _, s := range sights {
		switch {
		case t.exitCode && len(s.Verdict.Findings) > 0:
			return exitFindings
		case s.Verdict.State == diagnose.CannotTell:
			code = exitCannotTell
		}
	}
	return code
}

func (t *triageRun) render(s *sight, several, first bool) error {
	if t.screen.json {
		return t.screen.Record(present.TriageRecordOf(s.Triage, s.shape, s.earlier, t.window))
	}
	if !first {
		t.screen.Line()
	}
	t.pageOf(s, several).write()
	return nil
}
