package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
	"holdfast/record"
	"holdfast/record/audit"
)

func (p *program) planCommand() *cobra.Command {
	below := []*cobra.Command{p.planListCommand(), p.planShowCommand()}
	if p.env.Keep != nil {
		below = append(below, p.planApplyCommand(), p.planApproveCommand())
	}
	short, long := "sealed plans: list, show", "A plan is sealed: what was shown is what runs, once."
	if p.env.Keep != nil {
		short = "sealed plans: list, show, apply, approve"
	}
	return parent("plan", groupProve, short, long, below...)
}

func (p *program) planListCommand() *cobra.Command {
	limit := limitNotGiven
	cmd := &cobra.Command{
		Use: "list [flags]", Short: "the plans, the newest last, and how far each has come", Args: cobra.NoArgs,
		Long: "Lists the plans that the audit log knows, with what became of each.", Example: "  holdfast plan list",
		RunE: p.run(func(ctx context.Context, _ []string) error { return p.planList(ctx, limit) }),
	}
	f := pflag.NewFlagSet("list", pflag.ContinueOnError)
	f.IntVar(&limit, "limit", limitNotGiven, "only the newest `N`; 0 is all (text shows 20, json all)")
	f.Lookup("limit").DefValue = "0" // hides the mark of "not given" from the help text
	p.describe(cmd, verb{sections: []section{{"Which plans", f}}, exits: readExits})
	return cmd
}

func (p *program) planList(ctx context.Context, limit int) error {
	if limit < limitNotGiven {
		return usageError("--limit 0 shows everything", "--limit %d is negative", limit)
	}
	return p.withLog(ctx, "", func(log io.Reader, _ []byte) error {
		ledger, err := record.Fold(until(ctx, audit.Read(log)))
		if err != nil {
			return damaged(err)
		}
		runs := make([]*record.Run, 0, len(ledger.Plans))
		for _, r := range ledger.Plans {
			runs = append(runs, r)
		}
		slices.SortFunc(runs, byTime)
		if limit == limitNotGiven && !p.screen.json {
			limit = limitOfText
		}
		if limit > 0 && len(runs) > limit {
			p.screen.Note(present.Say("%s before these; --limit 0 shows them all", present.Plural(len(runs)-limit, "plan", "plans")))
			runs = runs[len(runs)-limit:]
		}
		return p.showRuns(runs)
	})
}

// byTime orders plans by when they were sealed, or else started.
func byTime(a, b *record.Run) int {
	when := func(r *record.Run) int64 {
		if r.Planned.IsZero() {
			return r.Started.UnixMicro()
		}
		return r.Planned.UnixMicro()
	}
	if c := when(a) - when(b); c != 0 {
		return int(c)
	}
	return slices.Compare([]byte(a.Plan.Plan), []byte(b.Plan.Plan))
}

func (p *program) showRuns(runs []*record.Run) error {
	at := p.env.Now()
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("PLAN")},
		{Title: present.Say("WHEN")},
		{Title: present.Say("VERB")},
		{Title: present.Say("COUNT"), Right: true},
		{Title: present.Say("STATE")},
		{Title: present.Say("OUTCOME"), Least: 12},
		{Title: present.Say("BY"), Spare: 1, Least: 6},
		{Title: present.Say("REASON"), Least: 12},
	}}
	for _, r := range runs {
		s := present.PlanStateRecordOf(r, at)
		if p.screen.json {
			if err := p.screen.Record(s); err != nil {
				return err
			}
			continue
		}
		when := r.Planned
		if when.IsZero() {
			when = r.Started
		}
		t.Row(text(plan.Short(s.Plan)), present.Clock(when, at), text(string(s.Verb)), present.Count(s.Count), text(s.State), counted(s.Counts), text(s.By), text(s.Reason))
	}
	switch {
	case p.screen.json:
	case len(runs) == 0:
		p.screen.Note(present.Say("there is no plan yet"))
	default:
		p.screen.Table(t)
	}
	return nil
}

func (p *program) planShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "a plan as it was sealed", Args: cobra.ExactArgs(1),
		Long: "Shows a sealed plan: which messages, why, and what it causes beside its purpose.", Example: "  holdfast plan show 3f2a9c11d0ab",
		RunE: p.run(func(ctx context.Context, args []string) (err error) {
			host, err := p.env.Record(ctx, p.settings)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, host.Close()) }()
			made, _, err := host.Plan(ctx, args[0])
			if err != nil {
				return err
			}
			return p.showPlan(made)
		}),
	}
	p.describe(cmd, verb{exits: readExits})
	return cmd
}

// kept runs something with a plan of an earlier command, after it was shown.
func (p *program) kept(ctx context.Context, ref string, do func(Keeper, *plan.Plan, []plan.Target) error) (err error) {
	host, err := p.env.Keep(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	made, targets, err := host.Plan(ctx, ref)
	if err != nil {
		return err
	}
	if err := p.showPlan(made); err != nil {
		return err
	}
	return do(host, made, targets)
}

var keptExits = []int{exitDone, exitFailed, exitUsage, exitNeedsConfirmation, exitRefused, exitPartial, exitCannotTell, exitInterrupted}

func (p *program) planApplyCommand() *cobra.Command {
	o := &changeOptions{}
	cmd := &cobra.Command{
		Use: "apply [flags] ID", Short: "run a plan that was sealed before", Args: cobra.ExactArgs(1),
		Long:    "Runs a sealed plan: exactly the messages that it names, once, before it expires\nand only under the policy under which it was sealed.",
		Example: "  holdfast plan apply 3f2a9c11d0ab",
		RunE: p.run(func(ctx context.Context, args []string) error {
			return p.kept(ctx, args[0], func(host Keeper, made *plan.Plan, targets []plan.Target) error {
				if err := p.confirm(ctx, approvedLater(made), o); err != nil {
					return err
				}
				return p.carryOut(ctx, host, made, targets)
			})
		}),
	}
	f := pflag.NewFlagSet("apply", pflag.ContinueOnError)
	f.BoolVar(&o.yes, "yes", false, "do not ask; above 1,000 messages it needs --expect too")
	f.IntVar(&o.expect, "expect", expectNotGiven, "do it only if the plan has exactly `N` messages")
	f.Lookup("expect").DefValue = "0" // hides the mark of "not given" from the help text
	p.describe(cmd, verb{sections: []section{{"How it is done", f}}, exits: keptExits})
	return cmd
}

// approvedLater is the plan without the bars that an approval lifts. Whether
// somebody has agreed meanwhile is in the audit log, and is looked up there
// when it runs.
func approvedLater(made *plan.Plan) *plan.Plan {
	out := *made
	out.Effects.Bars = slices.DeleteFunc(slices.Clone(made.Effects.Bars), func(b plan.Bar) bool { return b.Kind == "approval" })
	return &out
}

func (p *program) planApproveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "approve [flags] ID", Short: "agree to somebody else's plan, where policy wants two", Args: cobra.ExactArgs(1),
		Long:    "Records that you agree to a plan. It runs nothing.",
		Example: "  holdfast plan approve 3f2a9c11d0ab",
		RunE: p.run(func(ctx context.Context, args []string) error {
			return p.kept(ctx, args[0], func(host Keeper, made *plan.Plan, _ []plan.Target) error {
				if err := p.agree(ctx, made, yes); err != nil {
					return err
				}
				return host.Approve(ctx, made)
			})
		}),
	}
	f := pflag.NewFlagSet("approve", pflag.ContinueOnError)
	f.BoolVar(&yes, "yes", false, "do not ask")
	p.describe(cmd, verb{sections: []section{{"How it is done", f}}, exits: keptExits})
	return cmd
}

// agree asks whether the plan that was shown is agreed to.
func (p *program) agree(ctx context.Context, made *plan.Plan, yes bool) error {
	e := &postfix.Error{Kind: postfix.NeedsConfirmation, Err: fmt.Errorf("plan %s was not agreed to", plan.Short(made.ID()))}
	switch {
	case yes:
		return nil
	case !p.asks():
		e.Hint = "there is no terminal to ask at: look at the plan, then add --yes"
		return e
	}
	answer, err := p.ask(ctx, present.Say("Agree to this plan? [y/N]"))
	if err == nil && answer != "y" && answer != "yes" {
		err = e
	}
	return err
}
