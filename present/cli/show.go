package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/observe"
	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

type showOptions struct {
	body bool
	why  *operate.Viewing
	// copied is set for a copy in the vault.
	copied bool
}

// longestBody is how much of a body is shown: enough to know what it is.
const longestBody = 1 << 20

func (p *program) showCommand() *cobra.Command {
	o := &showOptions{why: &operate.Viewing{}}
	cmd := &cobra.Command{
		Use: "show [flags] ID... | -", Short: "everything about a message: recipients, reasons, next try, headers",
		GroupID: groupLook,
		Long: "Shows all that the queue knows about a message: where it came from, whom it has\n" +
			"still to reach and why it did not, when it is tried next, when it is given up,\n" +
			"and its headers. The body is private: it is shown only with --body and a reason,\n" +
			"and who looked is in the audit log.",
		Example: "  holdfast show 3F2A01B2C4\n" +
			"  holdfast show 3F2A01B2C4 --body --reason 'is this the flood?'\n" +
			"  holdfast queue --sender '<>' -o json | jq -r .id | holdfast show -",
		RunE: p.run(func(ctx context.Context, args []string) error { return p.show(ctx, *o, args) }),
	}
	f := pflag.NewFlagSet("show", pflag.ContinueOnError)
	if p.env.View != nil {
		f = whyFlags(o.why)
		f.Lookup("reason").Usage = "why a body is looked at, in your `WORDS`; asked for at a terminal"
	}
	f.BoolVar(&o.body, "body", false, "show the body too, at most its first megabyte; that is recorded")
	p.describe(cmd, verb{
		sections: []section{{"What is shown", f}},
		exits:    []int{exitDone, exitFailed, exitUsage, exitCannotTell, exitInterrupted},
	})
	return cmd
}

// show runs the verb. An ID that is not there does not keep the others from
// being shown.
func (p *program) show(ctx context.Context, o showOptions, args []string) (err error) {
	var sel plan.Selector
	if err := addIDs(&sel, args, p.env.Stdin); err != nil {
		return err
	}
	if sel.IDs == nil {
		return usageError(present.Shell("holdfast", "queue").String()+" lists the messages with their IDs", "no ID is given")
	}
	op, err := p.openToShow(ctx, o, sel.IDs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, op.Close()) }()
	want := spool.Want{Headers: true}
	if o.body {
		want.Body = longestBody
	}
	var lost []postfix.QueueID
	shown := 0
	for _, id := range sel.IDs {
		details, err := op.Show(ctx, id, want)
		if errors.Is(err, spool.ErrNoMessage) {
			lost = append(lost, id)
			continue
		}
		for i := range details {
			if !p.screen.json && shown > 0 {
				p.screen.Line()
			}
			if err := p.showOne(&details[i], o); err != nil {
				return err
			}
			shown++
		}
		if err != nil {
			return err
		}
	}
	if len(lost) > 0 {
		return notThere(lost, len(lost), "queue", true)
	}
	return nil
}

// openToShow reaches the host. Whoever wants bodies is on record first.
func (p *program) openToShow(ctx context.Context, o showOptions, ids []postfix.QueueID) (op Operator, err error) {
	if !o.body || p.env.View == nil {
		return p.env.Open(ctx, p.settings)
	}
	if o.why.Reason == "" {
		if o.why.Reason, err = p.askReason(ctx); err != nil {
			return nil, err
		}
	}
	host, err := p.env.View(ctx, p.settings)
	if err != nil {
		return nil, err
	}
	if err := host.Viewed(ctx, ids, *o.why); err != nil {
		return nil, errors.Join(err, host.Close())
	}
	return host, nil
}

func (p *program) showOne(d *operate.Detail, o showOptions) error {
	for _, g := range d.Gaps {
		p.screen.gap(g)
	}
	if p.screen.json {
		return p.screen.Record(showRecord(d, o))
	}
	s := &sheet{screen: p.screen, d: d, m: d.Message, at: p.env.Now(), copied: o.copied}
	s.envelope()
	s.recipients()
	s.finished()
	s.bounces()
	s.headers()
	if o.body {
		s.body()
	}
	return nil
}

func showRecord(d *operate.Detail, o showOptions) *present.ShowRecord {
	r := &present.ShowRecord{
		Envelope: present.Envelope{Schema: present.SchemaShow, Instance: d.Instance.Name},
		Message:  d.Message, DoneRecipients: d.Finished, Source: observe.FromSpool,
		Path: d.Path, Misplaced: d.Misplaced, HeadersCut: d.HeadersCut, Gaps: d.Gaps,
	}
	if d.FromShowq {
		r.Source = observe.FromShowq
	}
	for _, h := range d.Headers {
		header := present.HeaderRecord{Name: h.Name, Value: h.Value, Malformed: h.Malformed}
		if decoded := spool.DecodeWords(h.Value); decoded != h.Value {
			header.Decoded = decoded
		}
		r.Headers = append(r.Headers, header)
	}
	if o.body && !d.FromShowq {
		body := present.Hostile(d.Body)
		r.Body, r.BodyCut = &body, d.BodyCut
	}
	return r
}
