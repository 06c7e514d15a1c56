package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
	"holdfast/record"
	"holdfast/record/audit"
)

// Viewer is what the verbs need that look at content, or at the vault itself.
// Each look at content is on record before anything is shown.
type Viewer interface {
	Operator
	// Viewed records a look at content of queued messages; an error forbids it.
	Viewed(ctx context.Context, ids []postfix.QueueID, why operate.Viewing) error
	// ShowCopy reads a copy in the vault, named by item or queue ID.
	ShowCopy(ctx context.Context, ref string, want spool.Want, why operate.Viewing) (*operate.Detail, error)
	// VerifyVault compares every pack with the audit log.
	VerifyVault(ctx context.Context) ([]operate.Checked, error)
	// LegalHold keeps copies from being purged, or lets them be again.
	LegalHold(ctx context.Context, refs []string, on bool, why operate.Viewing) ([]string, error)
}

func (p *program) vaultCommand() *cobra.Command {
	below := []*cobra.Command{p.vaultListCommand()}
	if p.env.View != nil {
		below = append(below, p.vaultShowCommand(), p.vaultVerifyCommand(), p.vaultLegalHoldCommand())
	}
	if p.env.Change != nil {
		below = append(below, p.vaultPurgeCommand())
	}
	return parent("vault", groupProve, "copies of what was deleted: list, show, verify, purge",
		"Before a message is deleted, expired or requeued, its queue file and its logs are\ncopied to the vault. holdfast restore brings it back.", below...)
}

type vaultOptions struct {
	sender string
	plan   string
	every  bool
	limit  int
}

func (p *program) vaultListCommand() *cobra.Command {
	o := &vaultOptions{}
	cmd := &cobra.Command{
		Use: "list [flags] [ID...]", Short: "the copies, the newest last",
		Long: "Lists the copies in the vault as the audit log tells of them: those that are the\n" +
			"last of their message. With --every it lists those too that came back, went on\n" +
			"under another queue ID, or were purged.",
		Example: "  holdfast vault list\n  holdfast vault list --sender spam@example.net --every",
		RunE:    p.run(func(ctx context.Context, args []string) error { return p.vaultList(ctx, o, args) }),
	}
	f := pflag.NewFlagSet("list", pflag.ContinueOnError)
	f.StringVar(&o.sender, "sender", "", "only messages of this sender `ADDRESS`")
	f.StringVar(&o.plan, "plan", "", "only copies that the plan made whose `ID` begins so")
	f.BoolVar(&o.every, "every", false, "list copies too that are not the last of their message")
	f.IntVar(&o.limit, "limit", limitNotGiven, "only the newest `N`; 0 is all (text shows 20, json all)")
	f.Lookup("limit").DefValue = "0" // hides the mark of "not given" from the help text
	p.describe(cmd, verb{sections: []section{{"Which copies", f}}, exits: readExits})
	return cmd
}

func (o *vaultOptions) takes(c *record.Copy, ids []string) bool {
	switch {
	case len(ids) > 0 && !slices.Contains(ids, string(c.ID)) && !slices.Contains(ids, c.Name):
		return false
	case o.sender != "" && o.sender != c.Target.Sender:
		return false
	case o.plan != "" && (len(o.plan) > len(c.Plan) || c.Plan[:len(o.plan)] != o.plan):
		return false
	}
	return o.every || len(ids) > 0 || present.CopyState(c) == "last"
}

func (p *program) vaultList(ctx context.Context, o *vaultOptions, ids []string) error {
	if o.limit < limitNotGiven {
		return usageError("--limit 0 shows everything", "--limit %d is negative", o.limit)
	}
	return p.withLog(ctx, "", func(log io.Reader, _ []byte) error {
		ledger, err := record.Fold(until(ctx, audit.Read(log)))
		if err != nil {
			return damaged(err)
		}
		var copies []*record.Copy
		for _, c := range ledger.Items {
			if o.takes(c, ids) {
				copies = append(copies, c)
			}
		}
		slices.SortFunc(copies, func(a, b *record.Copy) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Name, b.Name)) })
		limit := o.limit
		if limit == limitNotGiven && !p.screen.json {
			limit = limitOfText
		}
		if limit > 0 && len(copies) > limit {
			p.screen.Note(present.Say("%s before these; --limit 0 shows them all", present.Plural(len(copies)-limit, "copy", "copies")))
			copies = copies[len(copies)-limit:]
		}
		return p.showCopies(ledger, copies)
	})
}

func (p *program) showCopies(ledger *record.Ledger, copies []*record.Copy) error {
	at := p.env.Now()
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("ID")},
		{Title: present.Say("SIZE"), Right: true},
		{Title: present.Say("SENDER"), Least: 12},
		{Title: present.Say("KEPT")},
		{Title: present.Say("BY")},
		{Title: present.Say("NOW")},
		{Title: present.Say("ITEM"), Spare: 1},
		{Title: present.Say("REASON"), Spare: 2, Least: 12},
	}}
	for _, c := range copies {
		r := present.CopyRecordOf(c, ledger.Plans[c.Plan])
		if p.screen.json {
			if err := p.screen.Record(r); err != nil {
				return err
			}
			continue
		}
		now := text(r.State)
		if r.Restored != "" {
			now = present.Say("back as %s", text(r.Restored))
		}
		if r.LegalHold {
			now = present.Say("%s, legal hold", now)
		}
		t.Row(text(r.ID), present.Size(r.Size), present.Address(c.Target.Sender), present.Clock(c.At, at), text(r.Verb), now, text(r.Item), r.Reason.Words(0))
	}
	switch {
	case p.screen.json:
	case len(copies) == 0:
		p.screen.Note(present.Say("no copy fits"))
	default:
		p.screen.Table(t)
	}
	return nil
}

// whyFlags are the flags of whoever looks at content.
func whyFlags(why *operate.Viewing) *pflag.FlagSet {
	f := pflag.NewFlagSet("why", pflag.ContinueOnError)
	f.StringVar(&why.Reason, "reason", "", "why it is done, in your `WORDS`; asked for at a terminal")
	f.StringVar(&why.Ticket, "ticket", "", "`NUMBER` of the ticket or incident that it belongs to")
	return f
}

func (p *program) vaultShowCommand() *cobra.Command {
	body, why := false, &operate.Viewing{}
	cmd := &cobra.Command{
		Use: "show [flags] ITEM | ID", Short: "what a copy is of: envelope and headers", Args: cobra.ExactArgs(1),
		Long:    "Shows a copy as holdfast show shows a queued message. That somebody looked, who\nand why, is in the audit log before anything is read.",
		Example: "  holdfast vault show 3F2A01B2C4 --reason 'is this the flood?'",
		RunE: p.run(func(ctx context.Context, args []string) error {
			return p.view(ctx, why, func(host Viewer) error {
				want := spool.Want{Headers: true}
				if body {
					want.Body = longestBody
				}
				d, err := host.ShowCopy(ctx, args[0], want, *why)
				if err != nil {
					return err
				}
				return p.showOne(d, showOptions{body: body, copied: true})
			})
		}),
	}
	f := whyFlags(why)
	f.BoolVar(&body, "body", false, "show the body too, at most its first megabyte")
	p.describe(cmd, verb{sections: []section{{"How it is done", f}}, exits: []int{exitDone, exitFailed, exitUsage, exitNeedsConfirmation, exitRefused, exitCannotTell, exitInterrupted}})
	return cmd
}

// view reaches the host for somebody who says why.
func (p *program) view(ctx context.Context, why *operate.Viewing, do func(Viewer) error) (err error) {
	if why.Reason == "" {
		if why.Reason, err = p.askReason(ctx); err != nil {
			return err
		}
	}
	host, err := p.env.View(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	return do(host)
}

func (p *program) vaultVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify", Short: "read every copy and compare it with the audit log", Args: cobra.NoArgs,
		Long: "Reads the vault from end to end and compares each file with the digest that the\n" +
			"audit log has: damaged, missing and planted ones are named.",
		Example: "  holdfast vault verify",
		RunE:    p.run(p.vaultVerify),
	}
	p.describe(cmd, verb{exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitCannotTell, exitInterrupted}})
	return cmd
}

func (p *program) vaultVerify(ctx context.Context, _ []string) (err error) {
	host, err := p.env.View(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	checked, err := host.VerifyVault(ctx)
	if err != nil {
		return err
	}
	bad := 0
	for _, c := range checked {
		fine := c.State == "good" || c.State == "purged"
		if !fine {
			bad++
		}
		switch {
		case p.screen.json:
			err := p.screen.Record(&present.VaultPackRecord{
				Envelope: present.Envelope{Schema: present.SchemaVaultPack}, Pack: c.Pack, State: string(c.State), Why: present.Hostile(c.Why),
			})
			if err != nil {
				return err
			}
		case !fine:
			p.screen.Line(present.Say("%s is %s: %s", text(c.Pack), text(string(c.State)), text(c.Why)).In(present.Warn))
		}
	}
	if bad > 0 {
		return &postfix.Error{
			Kind: postfix.Failed, Op: "verify the vault", Err: errors.New("not all of it is what the audit log says"),
			Hint: "restore refuses what is damaged; look who can become root here",
		}
	}
	if !p.screen.json {
		p.screen.Line(present.Say("%s, all as the audit log says.", present.Plural(len(checked), "pack", "packs")))
	}
	return nil
}

func (p *program) vaultLegalHoldCommand() *cobra.Command {
	lift, why := false, &operate.Viewing{}
	cmd := &cobra.Command{
		Use: "legal-hold [flags] ITEM | ID ...", Short: "keep copies from being purged", Args: cobra.MinimumNArgs(1),
		Long:    "Keeps copies from being purged until the legal hold is lifted. Both are in the\naudit log, with who and why.",
		Example: "  holdfast vault legal-hold 3F2A01B2C4 --reason 'letter of the court'\n  holdfast vault legal-hold --lift 3F2A01B2C4 --reason 'case closed'",
		RunE: p.run(func(ctx context.Context, args []string) error {
			return p.view(ctx, why, func(host Viewer) error {
				names, err := host.LegalHold(ctx, args, !lift, *why)
				if err != nil {
					return err
				}
				words := present.Say("%s under legal hold.", present.Plural(len(names), "copy is", "copies are"))
				if lift {
					words = present.Say("%s not under legal hold any more.", present.Plural(len(names), "copy is", "copies are"))
				}
				p.screen.Note(words)
				return nil
			})
		}),
	}
	f := whyFlags(why)
	f.BoolVar(&lift, "lift", false, "end it")
	p.describe(cmd, verb{sections: []section{{"How it is done", f}}, exits: []int{exitDone, exitFailed, exitUsage, exitNeedsConfirmation, exitRefused, exitInterrupted}})
	return cmd
}

func (p *program) vaultPurgeCommand() *cobra.Command {
	cmd := p.changeCommand(changeVerb{
		verb: plan.Purge, name: "purge", selects: true, short: "remove copies for good",
		long: "Removes copies from the vault for good: what was deleted cannot be restored\n" +
			"afterwards. Copies that were kept less than their time stay without --anyway, and\n" +
			"those under legal hold always.",
		example: "  holdfast vault purge --older-than 90d --reason 'end of retention'",
		flags:   []string{"anyway"}, anyway: "purge too what was kept less than its time",
	})
	cmd.GroupID = ""
	return cmd
}
