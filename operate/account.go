package operate

import (
	"context"
	"errors"
	"time"

	"holdfast/account"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/postfix"
)

var errBackwards = errors.New("it was taken before the one to account from")

// settle is how long a line may be on its way to the log when the file of its
// message is gone already.
const settle = time.Second

// Account proves where the mail of one instance went: from a saved snapshot,
// the newest for "", to another one, or to the queue as it is now for "". It
// needs Options.Surroundings for the log and Options.Record for the snapshots.
func (o *Operator) Account(ctx context.Context, from, to string) (*account.Book, error) {
	in, err := o.only()
	if err != nil {
		return nil, err
	}
	begin, err := o.Snapshot(ctx, from)
	if err != nil {
		return nil, err
	}
	if to != "" {
		end, err := o.Snapshot(ctx, to)
		if err != nil {
			return nil, err
		}
		if end.Head.From.Before(begin.Head.From) {
			return nil, &postfix.Error{
				Kind: postfix.Usage, Op: "account", Object: to, Err: errBackwards,
				Hint: "holdfast account --from " + end.Name + " --to " + begin.Name,
			}
		}
		return o.balance(ctx, in, begin, end)
	}
	return o.accountNow(ctx, in, begin)
}

// accountNow accounts for the queue as it is. What cannot be explained may be
// on its way: between two directories when one looked, or from an agent to the
// log. So it is looked for again before it is called unproven.
func (o *Operator) accountNow(ctx context.Context, in *instance, begin *account.Snapshot) (*account.Book, error) {
	const looks = 3
	for n := 1; ; n++ {
		seen, err := in.look(ctx)
		if err != nil {
			return nil, err
		}
		book, err := o.balance(ctx, in, begin, account.Take(seen, maillog.Position{}))
		if err != nil || book.Balanced || n == looks {
			return book, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settle):
		}
	}
}

func (o *Operator) balance(ctx context.Context, in *instance, begin, end *account.Snapshot) (*account.Book, error) {
	facts, err := account.FactsOf(o.Entries(ctx), in.Name, begin.Head.From)
	if err != nil {
		return nil, err
	}
	book := account.Balance(begin, end, func(each func(*maillog.Step)) maillog.Trace {
		return maillog.Steps(ctx, in.Instance, maillog.ReadOptions{Opener: o.opener, Since: begin.Head.From}, begin.Log, each)
	}, facts)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	book.Gaps = append(append([]observe.Gap{}, o.gaps...), book.Gaps...)
	return book, nil
}
