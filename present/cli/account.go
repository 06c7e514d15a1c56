package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/account"
	"holdfast/operate"
	"holdfast/postfix"
	"holdfast/record"
)

// Accountant is what the verbs that prove where mail went need of the host. It
// has no means to change anything.
type Accountant interface {
	// Account accounts from a saved snapshot, the newest for "", to another
	// one, or to the queue as it is for "".
	Account(ctx context.Context, from, to string) (*account.Book, error)
	// Snapshots are those that were saved, the oldest first.
	Snapshots(ctx context.Context) ([]record.SavedBody, error)
	Snapshot(ctx context.Context, ref string) (*account.Snapshot, error)
	CompareSnapshots(ctx context.Context, from, to string) (*operate.Comparison, error)
	Close() error
}

// Saver saves snapshots.
type Saver interface {
	SaveSnapshot(ctx context.Context, o operate.SnapshotOptions) (operate.SavedSnapshot, error)
	Close() error
}

// accounts is how the verbs of this file reach the host; either may be nil.
type accounts struct {
	look func(context.Context, Settings) (Accountant, error)
	save func(context.Context, Settings) (Saver, error)
}

// addAccounts adds the verbs that prove where mail went.
func (p *program) addAccounts(root *cobra.Command, a accounts) {
	if a.look == nil {
		return
	}
	if !root.ContainsGroup(groupProve) {
		root.AddGroup(&cobra.Group{ID: groupProve, Title: "Prove"})
	}
	root.AddCommand(p.accountCommand(a), p.snapshotCommand(a))
}

// everything is where to look when the log counts, too.
func (p *program) everything() Settings {
	s := p.settings
	s.Surroundings = true
	return s
}

// accountOptions is what the flags of account say.
type accountOptions struct {
	from, to string
	each     bool
}

func (p *program) accountCommand(a accounts) *cobra.Command {
	o := &accountOptions{}
	cmd := &cobra.Command{
		Use: "account [flags]", Short: "where each message went since a snapshot, and what is not proved", GroupID: groupProve, Args: cobra.NoArgs,
		Long: "Accounts for every recipient of every message that was queued when a snapshot\n" +
			"was saved, or came since: it is pending, delivered, bounced, expired, discarded,\n" +
			"deleted, moved to another queue ID, or unproven. It reads the queue, the log and\n" +
			"the audit log, and says what each verdict rests on. A line that anybody could\n" +
			"have written proves nothing, and neither does one that is missing.",
		Example: "  holdfast snapshot save\n  holdfast account\n  holdfast account --from 20260314-0300 --to 20260314-0315 -o json",
		RunE:    p.run(func(ctx context.Context, _ []string) error { return p.account(ctx, a, o) }),
	}
	f := pflag.NewFlagSet("account", pflag.ContinueOnError)
	f.StringVar(&o.from, "from", "", "from this `SNAPSHOT`, or the only one whose name begins so; else the newest")
	f.StringVar(&o.to, "to", "", "to this `SNAPSHOT`; else to the queue as it is now")
	f.BoolVar(&o.each, "each", false, "also each recipient with its fate and what that rests on")
	p.describe(cmd, verb{sections: []section{{"Over what time", f}}, exits: readExits})
	return cmd
}

func (p *program) account(ctx context.Context, a accounts, o *accountOptions) (err error) {
	host, err := a.look(ctx, p.everything())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	book, err := host.Account(ctx, o.from, o.to)
	if err != nil {
		return err
	}
	if err := p.showBook(book, o.each); err != nil {
		return err
	}
	return endOfBook(book)
}

// endOfBook is the end of an account that does not balance: with all that there
// was to see, mail is missing; without that it cannot be told.
func endOfBook(b *account.Book) error {
	e := &postfix.Error{Op: "account", Object: b.From.Name, Err: errors.New("the books do not balance"), Hint: "its problems name messages, and holdfast account --each all of them"}
	switch {
	case b.Balanced:
		return nil
	case b.Seen:
		e.Kind = postfix.Failed
	default:
		e.Kind, e.Err = postfix.CannotTell, errors.New("not enough of queue and log could be seen to account for all of it")
	}
	return e
}
