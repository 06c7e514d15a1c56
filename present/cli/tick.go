package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/operate"
	"holdfast/postfix"
	"holdfast/present"
)

// Ticker does what is due.
type Ticker interface {
	Tick(ctx context.Context) (operate.Ticks, error)
	Close() error
}

func (p *program) tickCommand() *cobra.Command {
	var next bool
	cmd := &cobra.Command{
		Use: "tick [flags]", Short: "do what is due, once", GroupID: groupKeep, Args: cobra.NoArgs,
		Long: "Some things happen later: the second snapshot of snapshot save --again. A keeper\n" +
			"that the first command left behind does them; it goes with a reboot. A tick does\n" +
			"what is due by now, each thing once, whoever else keeps time. To be called by a\n" +
			"timer, or by hand where a command says that something is overdue.",
		Example: "  holdfast tick\n  holdfast tick --next",
		RunE:    p.run(func(ctx context.Context, _ []string) error { return p.tick(ctx, next) }),
	}
	f := pflag.NewFlagSet("tick", pflag.ContinueOnError)
	f.BoolVar(&next, "next", false, "print only when the next thing is due, in seconds since 1970; nothing where nothing is")
	p.describe(cmd, verb{sections: []section{{"What is printed", f}}, exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitPartial, exitCannotTell, exitInterrupted}})
	return cmd
}

func (p *program) tick(ctx context.Context, next bool) (err error) {
	host, err := p.env.Tick(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	t, err := host.Tick(ctx)
	if err != nil {
		return err
	}
	switch {
	case p.screen.json:
		err = p.screen.Record(present.TickRecordOf(ticksOf(&t)))
	case next && !t.Next.IsZero():
		_, err = fmt.Fprintln(p.screen.out, t.Next.Unix())
	case !next:
		p.showTicks(&t)
	}
	if err != nil {
		return err
	}
	return failedTicks(&t)
}

// failedTicks is the error of what could not be done.
func failedTicks(t *operate.Ticks) error {
	var failed []error
	for i := range t.Ticked {
		if t.Ticked[i].Err != nil {
			failed = append(failed, t.Ticked[i].Err)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	kind := postfix.Failed
	if len(failed) < len(t.Ticked) {
		kind = postfix.Partial
	}
	return &postfix.Error{Kind: kind, Op: "tick", Err: errors.Join(failed...), Hint: "it stays due, and the next tick tries again"}
}

// ticksOf is what a tick came to, as its record has it.
func ticksOf(t *operate.Ticks) (done []present.DutyRecord, waiting int, next time.Time) {
	for i := range t.Ticked {
		d := &t.Ticked[i]
		r := present.DutyRecord{Entry: d.Entry, What: d.What, Object: d.Object, When: d.When, Done: d.Err == nil, Text: d.Text}
		if d.Err != nil {
			r.Text = d.Err.Error()
		}
		done = append(done, r)
	}
	return done, t.Waiting, t.Next
}

func (p *program) showTicks(t *operate.Ticks) {
	s, at := &page{screen: p.screen}, p.env.Now()
	for i := range t.Ticked {
		d := &t.Ticked[i]
		what := present.Say("%s, due %s", dutyWords(&d.Duty), present.When(d.When, at))
		if d.Err != nil {
			s.labelled(present.Say("FAILED"), what, 0)
			continue
		}
		s.labelled(present.Say("DONE"), present.Say("%s: %s", what, present.Hostile(d.Text)), 0)
	}
	switch {
	case len(t.Ticked) == 0 && t.Waiting == 0:
		s.line(present.Say("Nothing is due."))
	case t.Waiting > 0:
		s.labelled(present.Say("NEXT"), present.Say("%s to come, the first %s", present.Count(t.Waiting), present.When(t.Next, at)), 0)
	}
	s.write()
}

// dutyWords names what is to be done.
func dutyWords(d *operate.Duty) present.Words {
	if d.Object == "" {
		return text(d.What)
	}
	return present.Say("%s after %s", text(d.What), present.Hostile(d.Object))
}

// sayLate says first of all what nobody has done in time. A host that cannot
// tell says nothing: what it was opened for will fail by itself.
func (p *program) sayLate(ctx context.Context, host any) {
	teller, ok := host.(interface {
		Late(ctx context.Context) ([]operate.Late, error)
	})
	if !ok {
		return
	}
	late, err := teller.Late(ctx)
	if err != nil || len(late) == 0 {
		return
	}
	first := &late[0]
	command := present.Shell("holdfast", "tick")
	if many := p.settings.ConfigDirs; len(many) != 1 || many[0] != first.Config {
		command = present.Shell("holdfast", "-c", first.Config, "tick")
	}
	why := present.Say("no keeper lives")
	if first.Keeper {
		why = present.Say("the keeper lives and could not do it")
	}
	p.screen.Note(present.Say("overdue since %s: %s (%s in all); %s; do it now: %s",
		present.When(first.When, p.env.Now()), dutyWords(&first.Duty), present.Count(len(late)), why, command))
}

// announced makes a way to reach a host one that says what is overdue there.
func announced[T any](p *program, reach func(context.Context, Settings) (T, error)) func(context.Context, Settings) (T, error) {
	if reach == nil {
		return nil
	}
	return func(ctx context.Context, s Settings) (T, error) {
		host, err := reach(ctx, s)
		if err == nil {
			p.sayLate(ctx, host)
		}
		return host, err
	}
}
