package act

import (
	"context"
	"fmt"
	"time"

	"holdfast/act/hand"
	"holdfast/postfix"
	"holdfast/record"
)

// trying has one message tried now, and waits for what becomes of it: let go
// where it is on hold, asked for where it waits.
type trying struct{}

func (trying) act(ctx context.Context, b *batch) error {
	if err := b.spareUnsafe(ctx); err != nil {
		return err
	}
	for _, k := range b.pick(func(k *task) bool { return !k.in(postfix.Hold, postfix.Deferred) }) {
		switch {
		case k.seen != nil:
			k.spare(record.Already, "it is on its way")
		case k.other != nil:
			k.spare(record.Changed, textReused)
		default:
			k.spare(record.Gone, "")
		}
	}
	if err := b.postsuper(ctx, hand.Release, b.pick(func(k *task) bool { return k.in(postfix.Hold) })); err != nil {
		return err
	}
	if err := b.look(ctx, b.tasks); err != nil {
		return err
	}
	waiting := b.pick(func(k *task) bool { return k.in(postfix.Deferred) })
	for _, k := range waiting {
		k.before = b.e.standing(k)
		if err := b.e.flush(ctx, k.ID); err != nil {
			b.e.report.Why = append(b.e.report.Why, fmt.Sprintf("%s waits for the next queue run: %v", k.ID, err))
		}
	}
	verdicts, err := b.e.verdicts(ctx, b, waiting)
	if err != nil {
		return err
	}
	for _, k := range waiting {
		k.verdict = verdicts[k.ID]
	}
	return nil
}

func (trying) judge(b *batch, k *task) {
	switch {
	case k.in(postfix.Hold):
		b.stayed(k, "it is still on hold")
	case k.other != nil:
		k.settleAs(record.Changed, textReused)
	case k.seen == nil && b.recovered:
		k.settleAs(record.Unknown, "it is in no queue, and whether it was tried was not seen")
	case k.seen == nil:
		k.settleAs(record.Done, "it has left the queue")
	case b.recovered:
		k.settleAs(record.Unknown, "the run was cut off, and whether it was tried was not seen")
	case k.verdict == deferred:
		k.settleAs(record.Done, "it was tried and put off again")
	case k.verdict == moved:
		k.settleAs(record.Done, "some of its recipients are done")
	default:
		k.settleAs(record.Unknown, "it was asked for, and had not been tried when patience ended")
	}
}

// standing is how a message stood before something was asked for: what is seen
// later is news only where it differs.
type standing struct {
	done    int
	changed time.Time
}

func (*engine) standing(k *task) standing {
	if k.seen == nil {
		return standing{}
	}
	return standing{k.seen.Done, k.seen.Changed}
}
