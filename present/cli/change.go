package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

// changeVerb is what one verb that changes mail differs in: the flow is the
// same for all of them.
type changeVerb struct {
	verb    plan.Verb // "" of undo
	name    string
	use     string
	short   string
	long    string
	example string
	flags   []string // of Options, by name
	selects bool     // by the language of selections; otherwise one argument
	anyway  string   // what --anyway means, where it is not the usual
}

// changeVerbs are the verbs, in the order in which one reaches for them.
func changeVerbs() []changeVerb {
	return []changeVerb{
		{
			verb: plan.Hold, name: "hold", selects: true, short: "put mail aside: Postfix leaves it alone and nothing is lost",
			long: "Puts messages on hold: Postfix neither delivers nor returns them until they are\n" +
				"released. Waiting mail is taken from deferred and incoming. Mail that is being\n" +
				"delivered is left to finish; with --active it is taken too, and may then not be\n" +
				"released before the queue manager has been restarted.",
			example: "  holdfast hold --sender spam@example.net --reason 'flood from web3'\n" +
				"  holdfast hold --domain example.com --older-than 2h --dry-run",
			flags: []string{"active", "review"},
		},
		{
			verb: plan.Release, name: "release", selects: true, short: "let held mail go again, at a pace",
			long: "Lets mail that Holdfast put on hold go again: one message for each next hop\n" +
				"first, the others only after that one's result, a few with each queue run. What\n" +
				"somebody else put on hold stays there without --foreign.",
			example: "  holdfast release --domain example.com --reason 'provider takes mail again'\n" +
				"  holdfast release --all --per-run 50 --reason 'end of incident'",
			flags: []string{"per-run", "foreign", "anyway"},
		},
		{
			verb: plan.Try, name: "try", use: "try [flags] ID", short: "send one message now and say how it went",
			long:    "Lets one message be tried at once and waits for the result: the test of whether\nthe cause is gone, before anything is released.",
			example: "  holdfast try 3F2A01B2C4 --reason 'is the provider back?'",
			flags:   []string{"foreign", "anyway"},
		},
		{
			verb: plan.Requeue, name: "requeue", selects: true, short: "let Postfix take mail in anew, with what that changes",
			long: "Lets Postfix take messages in anew, under new queue IDs: after a change of\n" +
				"aliases, transports or rewriting. It has effects beside its purpose; the plan\n" +
				"names them, and --effects accepts them.",
			example: "  holdfast requeue --domain old.example --effects --reason 'transport was wrong'",
			flags:   []string{"effects", "per-run", "foreign", "anyway"},
		},
		{
			verb: plan.Expire, name: "expire", selects: true, short: "give mail up: its senders get it back",
			long: "Gives messages up as if their time had ended: they are copied to the vault, and\n" +
				"Postfix returns them to their senders at a pace.",
			example: "  holdfast expire --domain typo.example --reason 'no such domain'",
			flags:   []string{"per-run", "active", "foreign"},
		},
		{
			verb: plan.Delete, name: "delete", selects: true, short: "remove mail, with a copy in the vault",
			long: "Removes messages without telling anybody. Each is put on hold, compared, copied\n" +
				"to the vault and only then removed: holdfast restore brings it back until the\n" +
				"vault is purged.",
			example: "  holdfast delete --sender spam@example.net --reason 'flood, ticket OPS-7'\n" +
				"  holdfast delete --sender spam@example.net --reason flood --yes --expect 412",
			flags: []string{"active", "foreign"},
		},
		{
			verb: plan.Restore, name: "restore", selects: true, short: "bring deleted mail back from the vault, on hold",
			long: "Brings messages back from the vault. They are on hold then; holdfast release\n" +
				"lets them go. The selection is over the vault. What Postfix took in anew after a\n" +
				"requeue lives on under another queue ID: with --anyway its copy comes back too,\n" +
				"for the case that the mail log says it was thrown away.",
			example: "  holdfast restore 3F2A01B2C4 --reason 'deleted by mistake'",
			flags:   []string{"anyway"}, anyway: "restore too what Postfix took in anew: it may then be sent twice",
		},
		{
			name: "undo", use: "undo [flags] PLAN", short: "take back what a plan has done",
			long: "Takes back what a plan has done, as far as it can be: it releases what a hold\n" +
				"held, at a pace, holds what a release let go and is still there, and restores\n" +
				"what a delete removed.",
			example: "  holdfast undo 3f2a9c11d0ab --reason 'wrong selection'",
			flags:   []string{"per-run", "anyway"},
		},
	}
}

// addChanges adds the verbs that change something, behind those that look.
func (p *program) addChanges(root *cobra.Command) {
	root.AddGroup(&cobra.Group{ID: groupAct, Title: "Act"})
	for _, v := range changeVerbs() {
		root.AddCommand(p.changeCommand(v))
	}
}

// changeOptions is what the flags of such a verb say.
type changeOptions struct {
	sel    plan.Selector
	opts   plan.Options
	review time.Duration
	reason string
	ticket string
	expect int
	dryRun bool
	yes    bool
}

const expectNotGiven = -1

func (p *program) changeCommand(v changeVerb) *cobra.Command {
	o := &changeOptions{}
	use := v.use
	if use == "" {
		use = v.name + " [flags] [ID... | -]"
	}
	cmd := &cobra.Command{
		Use: use, Short: v.short, GroupID: groupAct, Long: v.long, Example: v.example,
		RunE: p.run(func(ctx context.Context, args []string) error { return p.change(ctx, v, *o, args) }),
	}
	sections := []section{{"How it is done", changeFlags(o, &v)}}
	if v.selects {
		which := section{"Which messages (holdfast help where lists the fields of --where)", selectionFlags(&o.sel)}
		sections = append([]section{which}, sections...)
	}
	p.describe(cmd, verb{
		sections: sections,
		exits: []int{
			exitDone, exitFailed, exitUsage, exitNeedsConfirmation, exitRefused, exitPartial, exitCannotTell, exitInterrupted,
		},
	})
	if v.selects {
		// It fails only for a flag that does not exist; tests see the words.
		_ = completeSelection(cmd)
	}
	return cmd
}

// changeFlags are the flags that every such verb has, and those of its own.
func changeFlags(o *changeOptions, v *changeVerb) *pflag.FlagSet {
	f := pflag.NewFlagSet("change", pflag.ContinueOnError)
	f.StringVar(&o.reason, "reason", "", "why it is done, in your `WORDS`; asked for at a terminal")
	f.StringVar(&o.ticket, "ticket", "", "`NUMBER` of the ticket or incident that it belongs to")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the plan and change nothing")
	f.BoolVar(&o.yes, "yes", false, "do not ask; above 1,000 messages it needs --expect too")
	f.IntVar(&o.expect, "expect", expectNotGiven, "do it only if the plan has exactly `N` messages")
	f.Lookup("expect").DefValue = "0" // hides the mark of "not given" from the help text
	all := pflag.NewFlagSet("own", pflag.ContinueOnError)
	all.BoolVar(&o.opts.Active, "active", false, "take mail that is being delivered too; it then waits for another queue manager")
	all.BoolVar(&o.opts.Foreign, "foreign", false, "take mail that somebody else put on hold too")
	all.BoolVar(&o.opts.Anyway, "anyway", false, "go on although the cause still stands")
	all.BoolVar(&o.opts.Effects, "effects", false, "accept the side effects that the plan names")
	all.IntVar(&o.opts.PerRun, "per-run", 0, "let at most `N` messages go with each queue run (default: the policy's)")
	all.DurationVar(&o.review, "review", 0, "look at the hold again after this `TIME` (default: the policy's)")
	if v.anyway != "" {
		all.Lookup("anyway").Usage = v.anyway
	}
	for _, name := range v.flags {
		f.AddFlag(all.Lookup(name))
	}
	return f
}

func (o *changeOptions) check(v changeVerb, args []string) error {
	switch {
	case o.opts.PerRun < 0:
		return usageError("leave it out for the policy's pace", "--per-run %d is negative", o.opts.PerRun)
	case o.review < 0:
		return usageError("give a time such as 24h", "--review %s is negative", o.review)
	case o.expect < expectNotGiven:
		return usageError("give the number that the plan shows", "--expect %d is negative", o.expect)
	case o.dryRun && o.yes:
		return usageError("give one of the two", "--dry-run changes nothing and --yes wants it done")
	case !v.selects && len(args) != 1:
		return usageError(present.Shell("holdfast", v.name, "--help").String()+" has an example",
			"%s takes exactly one argument and got %d", v.name, len(args))
	case v.verb == plan.Try && len(o.sel.IDs) != 1:
		return usageError("give one ID; release lets more than one message go, at a pace", "try takes exactly one message and got %d", len(o.sel.IDs))
	}
	if !v.selects {
		return nil
	}
	if o.sel.IsZero() {
		return usageError("--all selects every message", "nothing is selected")
	}
	// A mistake in the selection is told before anything is opened.
	_, err := o.sel.Compile(time.Time{})
	return err
}

// request is what the host is asked to prepare.
func (o *changeOptions) request(v changeVerb, args []string) Request {
	r := Request{Verb: v.verb, Selector: o.sel, Options: o.opts, Reason: o.reason, Ticket: o.ticket}
	r.Options.Review = plan.Duration(o.review)
	if v.verb == "" {
		r.Undoes = args[0]
	}
	return r
}

// change runs a verb: it has a plan made, shows it, asks, has it carried out
// and tells what was seen.
func (p *program) change(ctx context.Context, v changeVerb, o changeOptions, args []string) (err error) {
	if v.verb != "" {
		if err := addIDs(&o.sel, args, p.env.Stdin); err != nil {
			return err
		}
	}
	if err := o.check(v, args); err != nil {
		return err
	}
	if o.reason == "" && !o.dryRun {
		if o.reason, err = p.askReason(ctx); err != nil {
			return err
		}
	}
	host, err := p.env.Change(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	made, targets, err := host.Prepare(ctx, o.request(v, args))
	if err != nil {
		return err
	}
	if err := p.showPlan(made); err != nil {
		return err
	}
	if made.Count == 0 {
		return nothingToDo(made)
	}
	if o.dryRun {
		return nil
	}
	if err := p.confirm(ctx, made, &o); err != nil {
		return err
	}
	return p.carryOut(ctx, host, made, targets)
}

// carryOut has a plan run and tells what became of it.
func (p *program) carryOut(ctx context.Context, host Changer, made *plan.Plan, targets []plan.Target) error {
	_ = p.screen.Flush() // its error is kept; the plan stands on the screen before it runs
	progress := p.screen.watchProgress(made.Count, present.Say("messages"))
	var tries []present.TryRecord
	streamed, id := 0, made.ID()
	report, failed := host.Run(ctx, made, targets, func(s Step) {
		if s.Log != nil {
			tries = append(tries, p.showLog(s.Log)...)
			return
		}
		progress.done.Store(int64(s.Settled))
		progress.waiting.Store(&s.Waiting)
		if p.screen.json && len(s.Outcomes) > 0 {
			// What cannot be written now is found at the end: it is kept.
			_ = p.outcomesJSON(made, id, s.Outcomes)
			_ = p.screen.Flush()
			streamed += len(s.Outcomes)
		}
	})
	progress.end()
	// What was done is told even where the run failed: the outcomes were seen.
	if failed == nil || len(report.Outcomes) > 0 {
		if err := p.showReport(made, &report, streamed, tries); err != nil {
			return errors.Join(failed, err)
		}
	}
	if failed != nil {
		return failed
	}
	return verdictOf(made, &report)
}

// nothingToDo is the end of a plan without targets. An empty selection is no
// error. Where a guard left alone all that was selected it is one, since what
// was asked for was not done; mail that already is as it was wanted is not.
func nothingToDo(made *plan.Plan) error {
	harmless := []string{plan.SkipHeld, plan.SkipNotHeld, plan.SkipFinished, plan.SkipQueue}
	if err := notMet(made); err != nil {
		return err
	}
	hint := ""
	guarded := 0
	for _, s := range made.Effects.Skipped {
		if slices.Contains(harmless, s.Why) {
			continue
		}
		guarded += s.Count
		if hint == "" {
			hint = s.Hint
		}
	}
	if guarded == 0 {
		return nil
	}
	return &postfix.Error{
		Kind: postfix.Refused, Op: string(made.Verb), Hint: hint,
		Err: fmt.Errorf("%s left alone and nothing else selected", present.Plural(guarded, "message was", "messages were")),
	}
}

// notMet is the error of IDs that were named and are not there, nil where all
// are.
func notMet(made *plan.Plan) *postfix.Error {
	for _, s := range made.Effects.Skipped {
		if s.Why != plan.SkipMissing {
			continue
		}
		seen := !slices.ContainsFunc(made.Effects.Risks, func(r plan.Risk) bool { return r.Kind == "unseen" })
		place := "queue"
		if made.Verb == plan.Restore || made.Verb == plan.Purge {
			place = "vault"
		}
		return notThere(s.IDs, s.Count, place, seen)
	}
	return nil
}

// verdictOf is what the outcomes mean for the exit code. Only what was seen to
// be so counts as done.
func verdictOf(made *plan.Plan, r *Report) error {
	c := present.CountsOf(r.Outcomes)
	good, bad := c.Done+c.Already, made.Count-c.Done-c.Already
	if bad <= 0 {
		e := notMet(made)
		if e == nil {
			return nil
		}
		e.Kind = postfix.Partial
		return e
	}
	e := &postfix.Error{Kind: postfix.Failed, Op: string(made.Verb)}
	switch {
	case good > 0:
		e.Kind = postfix.Partial
	case c.Refused == made.Count:
		e.Kind = postfix.Refused
	case c.Unknown == made.Count:
		e.Kind = postfix.CannotTell
	}
	var parts []string
	for _, s := range notDone() {
		if n := c.Of(s); n > 0 {
			parts = append(parts, present.Count(n).String()+" "+string(s))
		}
	}
	if r.Left > 0 {
		parts = append(parts, present.Count(r.Left).String()+" not begun")
	}
	e.Err = fmt.Errorf("%s of %s not done: %s", present.Count(bad), present.Plural(made.Count, "message", "messages"), strings.Join(parts, ", "))
	e.Hint = "holdfast audit list --plan " + plan.Short(made.ID()) + " lists what was recorded"
	return e
}
