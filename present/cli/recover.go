package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"holdfast/plan"
	"holdfast/present"
)

func (p *program) recoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "recover", Short: "settle what a crash left open, by looking", GroupID: groupProve, Args: cobra.NoArgs,
		Long: "Settles by looking what an earlier command left open when it was killed: each\n" +
			"message is then recorded as done or as not done. It changes no mail and finishes\n" +
			"nothing. The next command that changes something does the same first.",
		Example: "  holdfast recover",
		RunE:    p.run(func(ctx context.Context, _ []string) error { return p.recover(ctx) }),
	}
	p.describe(cmd, verb{exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitCannotTell, exitInterrupted}})
	return cmd
}

func (p *program) recover(ctx context.Context) (err error) {
	host, err := p.env.Keep(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	r, err := host.Recover(ctx)
	if err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.Record(&present.RecoveryRecord{
			Envelope: present.Envelope{Schema: present.SchemaRecovery},
			Settled:  r.Settled, Counts: present.CountsOf(r.Outcomes), Ended: r.Ended,
		})
	}
	s := &page{screen: p.screen}
	if len(r.Settled) == 0 && len(r.Ended) == 0 {
		s.line(present.Say("Nothing was open."))
	}
	if len(r.Settled) > 0 {
		s.labelled(present.Say("SETTLED"), present.Say("%s: %s", present.Plural(len(r.Settled), "batch", "batches"), counted(present.CountsOf(r.Outcomes))), 0)
	}
	for _, id := range r.Ended {
		s.labelled(present.Say("ENDED"), present.Say("plan %s", text(plan.Short(id))), 0)
	}
	s.write()
	return nil
}
