package act

import (
	"context"

	"holdfast/act/hand"
	"holdfast/postfix"
	"holdfast/record"
)

// deletion removes messages of which a copy is in the vault: hold, compare,
// copy, remove, look.
type deletion struct{}

func (deletion) act(ctx context.Context, b *batch) error {
	safe, err := b.secure(ctx)
	if err != nil {
		return err
	}
	return b.postsuper(ctx, hand.Delete, safe)
}

func (deletion) judge(b *batch, k *task) {
	switch {
	case k.in(postfix.Hold):
		_, before := b.ours(k)
		text := "it is still there"
		if b.recovered {
			text = "the run was cut off before it was removed"
		}
		k.settleAs(record.Failed, text)
		k.out.Held, k.out.FromActive = before || b.fresh(k.seen), k.fromActive
	case k.seen != nil:
		k.settleAs(record.Failed, textMoved)
	case k.item != "":
		k.settleAs(record.Done, "")
		if !k.named && !b.recovered {
			k.out.Text = textUnnamed
		}
	case k.other != nil:
		k.settleAs(record.Changed, textReused)
		k.out.Held = k.other.Queue == postfix.Hold && b.fresh(k.other)
	default:
		// Without a copy the hand removes nothing, so it was not us.
		k.settleAs(record.Gone, "")
	}
	k.out.Item = k.item
}
