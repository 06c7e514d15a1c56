package act

import (
	"context"

	"holdfast/act/hand"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// Texts of outcomes that more than one verb gives.
const (
	textActive   = "the queue manager has it"
	textUnnamed  = "postsuper did not name it"
	textForeign  = "somebody else put it on hold"
	textReused   = "another message has this queue ID now"
	textMoved    = "it moved on before it could be held"
	textFinished = "no recipient is left to do"
)

// hold puts messages on hold.
type hold struct{}

func (hold) act(ctx context.Context, b *batch) error {
	for _, k := range b.pick(func(k *task) bool { return k.in(postfix.Hold) }) {
		// Who put it there is answered by the ledger alone.
		_, ours := b.ours(k)
		k.spare(record.Already, "")
		k.out.Held = ours
	}
	return b.holdAll(ctx)
}

func (hold) judge(b *batch, k *task) { b.judgeHeld(k) }

// holdAll takes the tasks out of the queue manager's reach, twice: a message
// that was active at the first time can be deferred by the second. Active mail
// is taken only where the plan says so.
func (b *batch) holdAll(ctx context.Context) error {
	for _, k := range b.pick(func(*task) bool { return true }) {
		switch active := b.e.Plan.Options.Active; {
		case k.seen == nil && k.other != nil:
			k.spare(record.Changed, textReused)
		case k.in(postfix.Active) && !active:
			k.spare(record.Refused, textActive)
		case k.in(postfix.Maildrop, postfix.Corrupt, postfix.Saved):
			k.spare(record.Refused, "Postfix holds nothing that is in this queue")
		}
	}
	waiting := func(k *task) bool { return k.in(postfix.Deferred, postfix.Incoming) }
	for range 2 {
		rest := b.pick(waiting)
		if len(rest) == 0 {
			break
		}
		if err := b.postsuper(ctx, hand.HoldWaiting, rest); err != nil {
			return err
		}
		if err := b.look(ctx, b.tasks); err != nil {
			return err
		}
	}
	if !b.e.Plan.Options.Active {
		return nil
	}
	rest := b.pick(func(k *task) bool { return k.in(postfix.Active, postfix.Deferred, postfix.Incoming) })
	for _, k := range rest {
		k.fromActive = true // until it is known better, which it never is
	}
	if err := b.postsuper(ctx, hand.HoldAny, rest); err != nil {
		return err
	}
	return b.look(ctx, b.tasks)
}

// postsuper runs one operation on some tasks, never on none.
func (b *batch) postsuper(ctx context.Context, op hand.Op, tasks []*task) error {
	if len(tasks) == 0 {
		return nil
	}
	ids, byID := make([]postfix.QueueID, len(tasks)), make(map[postfix.QueueID]*task, len(tasks))
	for i, k := range tasks {
		ids[i], byID[k.ID] = k.ID, k
		k.named = false
	}
	b.current = false
	printed, err := b.e.Hand.Postsuper(ctx, b.intent.Seq, op, ids)
	for _, id := range printed.IDs {
		if k := byID[id]; k != nil {
			k.named = true
			if op == hand.HoldWaiting || op == hand.HoldAny {
				k.probably = postfix.Hold
			}
		}
	}
	for _, w := range printed.Warnings {
		b.e.report.Why = append(b.e.report.Why, "postsuper: "+w)
	}
	return err
}

// judgeHeld says whether a hold took.
func (b *batch) judgeHeld(k *task) {
	_, before := b.ours(k)
	switch {
	case k.in(postfix.Hold) && !k.named && !b.fresh(k.seen):
		// A rename sets the ctime: this one lay there before the intent.
		k.settleAs(record.Already, "")
		k.out.Held = before
	case k.in(postfix.Hold):
		k.settleAs(record.Done, "")
		k.out.Held, k.out.FromActive = true, k.fromActive
		if !k.named && !b.recovered {
			// A postsuper that is killed has held one message more than it printed.
			k.out.Text = textUnnamed
		}
	case k.seen != nil:
		k.settleAs(record.Failed, textMoved)
	case k.other != nil:
		k.settleAs(record.Changed, textReused)
		k.out.Held = k.other.Queue == postfix.Hold && b.fresh(k.other)
	default:
		k.settleAs(record.Gone, "")
	}
}

// amend lets go at once what was put on hold by mistake: another message that
// had come to bear the ID of a target, or a target of which nothing is left to
// do. It is a batch of its own, of verb release: the intent of the first one
// allows no release, and its outcome says by then what is on hold and why.
func (e *engine) amend(ctx context.Context, b *batch) error {
	var wrong []plan.Target
	for _, k := range b.tasks {
		f := k.other
		if k.finished {
			f = k.seen
		}
		if f == nil || f.Queue != postfix.Hold || !b.fresh(f) || k.out.State == record.Done {
			continue
		}
		t := plan.Target{Fingerprint: f.Fingerprint, Queue: postfix.Hold}
		t.Sender = plan.Canonical(t.Sender)
		wrong = append(wrong, t)
	}
	if len(wrong) == 0 {
		return nil
	}
	_, err := e.settle(ctx, plan.Release, wrong, letting{})
	return err
}
