package act

import (
	"context"
	"fmt"
	"time"

	"holdfast/act/hand"
	"holdfast/postfix"
	"holdfast/record"
)

// expiry gives messages up: hold, compare, copy, mark as expired, let go, look.
// Postfix then returns each to its sender, without another attempt where one
// has failed before (qmgr_active.c).
type expiry struct{}

func (expiry) act(ctx context.Context, b *batch) error {
	for _, k := range b.pick(func(k *task) bool { return !k.in(postfix.Hold) }) {
		k.taken = true
	}
	safe, err := b.secure(ctx)
	if err != nil {
		return err
	}
	if err := b.postsuper(ctx, hand.Expire, safe); err != nil {
		return err
	}
	if err := b.look(ctx, b.tasks); err != nil {
		return err
	}
	// Released without the mark it would only be tried again.
	for _, k := range b.pick(func(k *task) bool { return k.item != "" && k.in(postfix.Hold) }) {
		switch {
		case !k.seen.Expired:
			b.leaveHeld(k, record.Failed, "it could not be marked as expired")
		case k.fromActive:
			b.leaveHeld(k, record.Failed, "it is marked as expired and stays on hold: the queue manager may have it in memory; postfix reload makes it forget, then release it")
		}
	}
	if err := b.spareUnsafe(ctx); err != nil {
		return err
	}
	return b.postsuper(ctx, hand.Release, b.pick(func(k *task) bool { return k.item != "" && k.in(postfix.Hold) }))
}

func (expiry) judge(b *batch, k *task) {
	switch {
	case k.in(postfix.Hold):
		text := "it is still on hold"
		if k.seen.Expired {
			text = "it is marked as expired and still on hold"
		}
		b.stayed(k, text)
	case k.seen != nil && k.seen.Expired:
		k.settleAs(record.Done, "its sender gets it back with the next attempt")
	case k.seen != nil:
		k.settleAs(record.Failed, textMoved)
	case k.item != "" && k.named:
		k.settleAs(record.Done, "it has left the queue since")
	case k.other != nil:
		k.settleAs(record.Changed, textReused)
		k.out.Held = k.other.Queue == postfix.Hold && b.fresh(k.other)
	case k.item != "":
		k.settleAs(record.Unknown, "it is in no queue, and whether it was let go first was not seen; the vault has a copy")
	default:
		k.settleAs(record.Gone, "")
	}
	k.out.Item = k.item
}

// giveUp expires at a pace, since each message sends a notice: one first, and a
// round only when the messages of the one before have left or patience ends.
func (e *engine) giveUp(ctx context.Context) error {
	per := e.Plan.Options.PerRun
	if per <= 0 {
		per = defaultPerRun
	}
	size := 1
	for rest := e.Targets; len(rest) > 0 && ctx.Err() == nil; size = per {
		n := min(size, len(rest))
		b, err := e.settle(ctx, e.Plan.Verb, rest[:n], expiry{})
		if err != nil {
			return err
		}
		if rest = rest[n:]; len(rest) == 0 {
			break
		}
		left, err := e.returned(ctx, b)
		if err != nil {
			return err
		}
		if left > 0 && n == 1 {
			e.report.Why = append(e.report.Why, fmt.Sprintf("the first message was not returned in time, so %d stay as they are", len(rest)))
			return nil
		}
	}
	return nil
}

// returned asks Postfix to look at what was let go, waits until it has left the
// queue, and counts what has not.
func (e *engine) returned(ctx context.Context, b *batch) (int, error) {
	var open []*task
	for _, k := range b.tasks {
		if k.out.State != record.Done || k.seen == nil {
			continue
		}
		if err := e.flush(ctx, k.ID); err != nil {
			e.report.Why = append(e.report.Why, fmt.Sprintf("%s waits for the next queue run: %v", k.ID, err))
		}
		open = append(open, k)
	}
	for until := time.Now().Add(e.Patience); len(open) > 0 && !interrupted(ctx) && time.Now().Before(until); {
		if err := b.look(context.WithoutCancel(ctx), open); err != nil {
			return 0, err
		}
		var still []*task
		for _, k := range open {
			if k.seen != nil {
				still = append(still, k)
			}
		}
		if open = still; len(open) > 0 {
			e.wait("%d to be returned", len(open))
			pause(ctx, glance)
		}
	}
	return len(open), nil
}
