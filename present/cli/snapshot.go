package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/account"
	"holdfast/operate"
	"holdfast/present"
)

func (p *program) snapshotCommand(a accounts) *cobra.Command {
	below := []*cobra.Command{p.snapshotListCommand(a), p.snapshotShowCommand(a), p.snapshotDiffCommand(a)}
	short := "saved looks at the queue: list, show, diff"
	if a.save != nil {
		short = "saved looks at the queue: save, list, show, diff"
		below = append(below, p.snapshotSaveCommand(a))
	}
	return parent("snapshot", groupProve, short,
		"A snapshot has every queued message with the recipients that are still to do,\n"+
			"and what triage found at that time. An account begins with one.", below...)
}

func (p *program) snapshotSaveCommand(a accounts) *cobra.Command {
	var o operate.SnapshotOptions
	cmd := &cobra.Command{
		Use: "save [flags]", Short: "look at queue, log and host, and keep what was seen", Args: cobra.NoArgs,
		Long: "Looks as triage does and keeps what was seen: every message with its recipients,\n" +
			"shape, causes, and what asking the host and the servers gave. It changes no mail\n" +
			"and leaves an entry in the audit log. It has no content of any message.",
		Example: "  holdfast snapshot save\n  holdfast snapshot save --again 15m --note 'before the resolver is changed'",
		RunE: p.run(func(ctx context.Context, _ []string) (err error) {
			if o.Again < 0 {
				return usageError("for example --again 15m", "--again %s is no span of time", o.Again)
			}
			host, err := a.save(ctx, p.everything())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, host.Close()) }()
			saved, err := host.SaveSnapshot(ctx, o)
			if err != nil {
				return err
			}
			return p.showSaved(&saved)
		}),
	}
	f := pflag.NewFlagSet("save", pflag.ContinueOnError)
	f.StringVar(&o.Note, "note", "", "`TEXT` to remember it by")
	f.DurationVar(&o.Again, "again", 0, "save a second one after this `TIME`, whoever is logged in then; see tick")
	p.describe(cmd, verb{sections: []section{{"What is kept with it", f}}, exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitCannotTell, exitInterrupted}})
	return cmd
}

// withAccounts reaches the host to read what was saved.
func (p *program) withAccounts(ctx context.Context, a accounts, read func(Accountant) error) (err error) {
	host, err := a.look(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	return read(host)
}

func (p *program) snapshotListCommand(a accounts) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "the snapshots, the newest last", Args: cobra.NoArgs,
		Long: "Lists the snapshots that the audit log knows.", Example: "  holdfast snapshot list",
		RunE: p.run(func(ctx context.Context, _ []string) error {
			return p.withAccounts(ctx, a, func(host Accountant) error {
				saved, err := host.Snapshots(ctx)
				if err != nil {
					return err
				}
				return p.listSnapshots(saved)
			})
		}),
	}
	p.describe(cmd, verb{exits: readExits})
	return cmd
}

func (p *program) snapshotShowCommand(a accounts) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show [NAME]", Short: "what was seen then; without a name the newest", Args: cobra.MaximumNArgs(1),
		Long:    "Shows what a snapshot has, and holds it against its digest in the audit log.",
		Example: "  holdfast snapshot show\n  holdfast snapshot show 20260314-0300 -o json",
		RunE: p.run(func(ctx context.Context, args []string) error {
			return p.withAccounts(ctx, a, func(host Accountant) error {
				s, err := host.Snapshot(ctx, first(args))
				if err != nil {
					return err
				}
				return p.showHead(&s.Head, false, nil)
			})
		}),
	}
	p.describe(cmd, verb{exits: readExits})
	return cmd
}

// first is the first argument, "" where there is none.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func (p *program) snapshotDiffCommand(a accounts) *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff [FROM [TO]]", Short: "what came, left and moved on since a snapshot", Args: cobra.MaximumNArgs(2),
		Long: "Compares a snapshot, or without a name the newest, with another one or with the\n" +
			"queue as it is now. What became of the mail that left is for account to say.",
		Example: "  holdfast snapshot diff\n  holdfast snapshot diff 20260314-0300 20260314-0315",
		RunE: p.run(func(ctx context.Context, args []string) error {
			to := ""
			if len(args) == 2 {
				to = args[1]
			}
			return p.withAccounts(ctx, a, func(host Accountant) error {
				d, err := host.CompareSnapshots(ctx, first(args), to)
				if err != nil {
					return err
				}
				return p.showDiff(d)
			})
		}),
	}
	p.describe(cmd, verb{exits: readExits})
	return cmd
}

// totalOf is what a snapshot has of all queues.
func totalOf(h *account.Head) present.Words {
	return present.Say("%s with %s still to do", present.Plural(h.Messages, "message", "messages"), present.Plural(h.Recipients, "recipient", "recipients"))
}
