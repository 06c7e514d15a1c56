package act

import (
	"context"

	"holdfast/record"
	"holdfast/record/vault"
)

// purge removes copies from the vault for good. The queue is not touched.
type purge struct{}

func (purge) act(ctx context.Context, b *batch) error {
	var items []string
	for _, k := range b.tasks {
		if c := b.e.past.Items[k.Item]; c == nil || c.Legal {
			k.spare(record.Refused, "it is under legal hold, or the audit log does not know it")
			continue
		}
		items = append(items, k.Item)
	}
	if len(items) == 0 {
		return nil
	}
	return b.e.Hand.Purge(ctx, b.intent.Seq, items)
}

// judge looks whether the copy's bytes are gone.
func (purge) judge(b *batch, k *task) {
	k.out.Item = k.Item
	c := b.e.past.Items[k.Item]
	if c == nil {
		k.settleAs(record.Unknown, "the audit log does not know it")
		return
	}
	states, err := b.e.Hand.Items(context.Background(), []record.Item{c.Item})
	switch {
	case err != nil:
		k.settleAs(record.Unknown, err.Error())
	case states[0] == vault.Purged, states[0] == vault.Missing:
		k.settleAs(record.Done, "")
	default:
		k.settleAs(record.Failed, "it is still in the vault")
	}
	k.out.Now = ""
}
