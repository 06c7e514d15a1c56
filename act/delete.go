package act

import (
	"context"
	"time"

	"holdfast/act/hand"
	"holdfast/observe/spool"
	"holdfast/postfix"
	"holdfast/record"
)

// deletion removes messages of which a copy is in the vault: hold, compare,
// copy, remove, look.
type deletion struct{}

func (deletion) act(ctx context.Context, b *batch) error {
	b.spareForeign()
	if err := b.holdAll(ctx); err != nil {
		return err
	}
	if err := b.waitUnlocked(ctx); err != nil {
		return err
	}
	copies := b.compare(ctx)
	if len(copies) == 0 {
		return nil
	}
	kept, failed, err := b.e.Hand.Vault(ctx, b.intent.Seq, copies)
	if err != nil {
		return err
	}
	items := make(map[postfix.QueueID]string, len(kept.Items))
	for _, item := range kept.Items {
		items[item.ID] = item.Name
	}
	for _, c := range copies {
		k := b.task(c.ID)
		if k.item = items[c.ID]; k.item == "" {
			b.leaveHeld(k, "it was not copied to the vault: "+failed[c.ID])
		}
	}
	return b.postsuper(ctx, hand.Delete, b.pick(func(k *task) bool { return k.item != "" }))
}

func (b *batch) task(id postfix.QueueID) *task {
	for _, k := range b.tasks {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// spareForeign leaves alone what others put on hold, but where the plan takes
// that too: a hold belongs to whoever made it.
func (b *batch) spareForeign() {
	if b.e.Plan.Options.Foreign {
		return
	}
	for _, k := range b.pick(func(k *task) bool { return k.in(postfix.Hold) }) {
		if _, ours := b.ours(k); !ours {
			k.spare(record.Refused, textForeign)
		}
	}
}

// leaveHeld gives a task up that is on hold now, and stays there.
func (b *batch) leaveHeld(k *task, text string) {
	k.spare(record.Failed, text)
	k.out.Held, k.out.FromActive = k.in(postfix.Hold), k.fromActive
}

// waitUnlocked waits until no delivery agent works on the held files. What one
// began before the hold goes on, and its marks go into the held file.
func (b *batch) waitUnlocked(ctx context.Context) error {
	held := func(k *task) bool { return k.in(postfix.Hold) }
	for until := time.Now().Add(b.e.Patience); ; {
		locked, err := spool.Locked()
		if err != nil {
			return err
		}
		busy := b.pick(func(k *task) bool { return held(k) && locked[k.seen.Inode] })
		if len(busy) == 0 {
			return nil
		}
		if time.Now().After(until) {
			for _, k := range busy {
				b.leaveHeld(k, "a delivery of it was still running")
			}
			return nil
		}
		b.e.wait("a delivery of %s to end", busy[0].ID)
		pause(ctx, glance)
	}
}

// glance is the time between two looks while something is waited for.
const glance = 200 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// compare reads every held message once more, whole. Only what is byte for
// byte the message that was planned for, with somebody still to deliver it to,
// goes on to the vault.
func (b *batch) compare(ctx context.Context) []hand.Copy {
	var copies []hand.Copy
	for _, k := range b.pick(func(k *task) bool { return k.in(postfix.Hold) }) {
		s, err := b.e.Reader.Sum(ctx, k.ID, postfix.Hold)
		switch {
		case err != nil:
			b.leaveHeld(k, err.Error())
		case !k.Matches(s.Fingerprint):
			k.seen, k.other = nil, &s.Found
			k.spare(record.Changed, "its content is not the one that was planned for")
		case s.Damage == "" && s.Open == 0 && s.Done > 0:
			// Deleting it would say of delivered mail that it was deleted.
			k.finished = true
			k.spare(record.Gone, textFinished)
		default:
			copies = append(copies, hand.Copy{ID: k.ID, Inode: s.Inode, Sum: s.File})
		}
	}
	return copies
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
