package act

import (
	"context"
	"fmt"
	"slices"
	"time"

	"holdfast/act/hand"
	"holdfast/observe/spool"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// letting takes messages off hold.
type letting struct{}

func (letting) act(ctx context.Context, b *batch) error {
	if b.verb == b.e.Plan.Verb { // amends are of what this run held itself
		if err := b.spareUnsafe(ctx); err != nil {
			return err
		}
	}
	for _, k := range b.pick(func(k *task) bool { return !k.in(postfix.Hold) }) {
		switch {
		case k.seen != nil:
			k.spare(record.Already, "")
		case k.other != nil:
			k.spare(record.Changed, textReused)
		default:
			k.spare(record.Gone, "")
		}
	}
	return b.postsuper(ctx, hand.Release, b.pick(func(*task) bool { return true }))
}

// spareUnsafe leaves on hold what the queue manager may still have in memory:
// on reading its ID again it would remove the file undelivered, with no bounce
// and no line of a delivery in the log.
func (b *batch) spareUnsafe(ctx context.Context) error {
	b.spareForeign()
	held := b.pick(func(k *task) bool { return k.in(postfix.Hold) })
	if len(held) == 0 {
		return nil
	}
	qmgr, qerr := b.e.Qmgr(ctx)
	locked, err := spool.Locked()
	if err != nil {
		return err
	}
	for _, k := range held {
		past, ours := b.ours(k)
		switch {
		case locked[k.seen.Inode]:
			k.spare(record.Refused, "a delivery of it is still running")
		case k.taken && !k.fromActive, ours && !past.FromActive:
		case qerr != nil:
			k.spare(record.Refused, "which queue manager runs cannot be told, and it may have the message in memory: "+qerr.Error())
		case qmgr == nil: // what none has in memory none can remove
		case ours && (past.Qmgr == nil || sameProcess(*past.Qmgr, *qmgr)),
			!ours && k.seen.Changed.After(qmgr.Started.Add(-bootSlack)) && !b.heldOnArrival(k):
			k.spare(record.Refused, "it may have been active when it was held, and the same queue manager still runs: postfix reload makes it forget")
		}
	}
	return nil
}

// heldOnArrival reports whether what the plan knows of somebody else's hold is
// about the hold that it is in now.
func (b *batch) heldOnArrival(k *task) bool {
	return k.HeldOnArrival && k.seen.Changed.Before(b.e.Plan.Made)
}

// bootSlack: the kernel tells the time of the boot by the second, and not always
// the same one.
const bootSlack = 2 * time.Second

func sameProcess(a, b record.Process) bool {
	return a.PID == b.PID && a.Started.Sub(b.Started).Abs() <= bootSlack
}

func (letting) judge(b *batch, k *task) {
	switch {
	case k.in(postfix.Hold):
		past, ours := b.ours(k)
		k.settleAs(record.Failed, "it is still on hold")
		k.out.Held, k.out.FromActive = ours, past.FromActive
	case k.seen != nil:
		k.settleAs(record.Done, "")
	case k.named:
		k.settleAs(record.Done, "it has left the queue since")
	case k.other != nil:
		k.settleAs(record.Changed, textReused)
	default:
		// It lay on hold and now is nowhere, and nothing that was seen says
		// whether it was delivered or somebody removed it.
		k.settleAs(record.Unknown, "it is in no queue, and whether it was let go first was not seen")
	}
}

// defaultPerRun is how many are let go at once where the plan does not say.
const defaultPerRun = 20

// hop is a next hop and what is known of it in this run.
type hop struct {
	name   string
	rest   []plan.Target
	proven bool // one message got through, or at least moved on
	closed bool
}

// letGo releases at a pace. One message of each next hop goes alone; what
// becomes of it decides about the others of that hop. A round has at most
// PerRun messages, and the next one waits for its results: to let all go at
// once is a flush, and a provider answers that with a block.
func (e *engine) letGo(ctx context.Context) error {
	hops := hopsOf(e.Targets)
	per := e.Plan.Options.PerRun
	if per <= 0 {
		per = defaultPerRun
	}
	for ctx.Err() == nil {
		round := nextRound(hops, per)
		if len(round) == 0 {
			break
		}
		b, err := e.settle(ctx, e.Plan.Verb, round, letting{})
		if err != nil {
			return err
		}
		if e.idle {
			for _, h := range hops {
				h.proven = true // there is nobody to try it, and so nothing to learn
			}
			continue
		}
		if err := e.prove(ctx, b, hops); err != nil {
			return err
		}
	}
	return nil
}

func hopsOf(targets []plan.Target) []*hop {
	byName := make(map[string]*hop)
	var list []*hop
	for _, t := range targets {
		h := byName[t.NextHop]
		if h == nil {
			h = &hop{name: t.NextHop}
			byName[t.NextHop] = h
			list = append(list, h)
		}
		h.rest = append(h.rest, t)
	}
	return list
}

// nextRound takes one message of each hop that is not proven, and of the proven
// ones as many as there is room for, turn by turn.
func nextRound(hops []*hop, per int) []plan.Target {
	var round []plan.Target
	for turn := 0; len(round) < per; turn++ {
		before := len(round)
		for _, h := range hops {
			if len(round) < per && !h.closed && len(h.rest) > 0 && (h.proven || turn == 0) {
				round = append(round, h.rest[0])
				h.rest = h.rest[1:]
			}
		}
		if len(round) == before {
			break
		}
	}
	return round
}

// verdict is what was seen of a message after it was let go.
type verdict uint8

const (
	pending verdict = iota
	moved           // it left the queue, or one of its recipients did
	deferred
)

// prove asks Postfix to try a round's messages now, waits for what becomes of
// them, and closes each hop of which none moved on.
func (e *engine) prove(ctx context.Context, b *batch, hops []*hop) error {
	var out []*task
	for _, k := range b.tasks {
		if k.out.State != record.Done {
			continue
		}
		k.before = e.standing(k)
		if err := e.flush(ctx, k.ID); err != nil {
			e.report.Why = append(e.report.Why, fmt.Sprintf("%s waits for the next queue run: %v", k.ID, err))
		}
		out = append(out, k)
	}
	verdicts, err := e.verdicts(ctx, b, out)
	if err != nil {
		return err
	}
	for _, h := range hops {
		tried, good, put := 0, 0, 0
		for _, k := range out {
			if k.NextHop != h.name {
				continue
			}
			tried++
			switch verdicts[k.ID] {
			case moved:
				good++
			case deferred:
				put++
			case pending:
			}
		}
		switch {
		case tried == 0: // its canary was refused or had gone: the next one is tried
		case good > 0 || e.Plan.Options.Anyway:
			h.proven = true
		default:
			h.closed = true
			if len(h.rest) > 0 {
				e.report.Why = append(e.report.Why, fmt.Sprintf("%s: of %d let go none got through (%d put off again), so %d stay on hold",
					h.name, tried, put, len(h.rest)))
			}
		}
	}
	return nil
}

// verdicts watches messages until each has one or patience ends.
func (e *engine) verdicts(ctx context.Context, b *batch, tasks []*task) (map[postfix.QueueID]verdict, error) {
	out := make(map[postfix.QueueID]verdict, len(tasks))
	open := slices.Clone(tasks)
	for until := time.Now().Add(e.Patience); len(open) > 0; {
		if err := b.look(context.WithoutCancel(ctx), open); err != nil {
			return nil, err
		}
		open = slices.DeleteFunc(open, func(k *task) bool {
			out[k.ID] = verdictOf(k)
			return out[k.ID] != pending
		})
		if len(open) == 0 || interrupted(ctx) || time.Now().After(until) {
			break
		}
		e.wait("the result of %d that were let go", len(open))
		pause(ctx, glance)
	}
	return out, nil
}

// interrupted says whether the operator wants an end. That is no error: what
// was seen until then counts.
func interrupted(ctx context.Context) bool { return ctx.Err() != nil }

func verdictOf(k *task) verdict {
	switch {
	case k.seen == nil, k.seen.Done > k.before.done, k.seen.Open == 0:
		return moved
	case k.in(postfix.Deferred) && !k.seen.Changed.Equal(k.before.changed) && k.seen.NextTry.After(k.seen.Changed):
		// qmgr sets the time of the next attempt when one has failed; before that
		// the file has the one of the failure before, which says nothing. A flush
		// sets it to now and moves the file to incoming.
		return deferred
	}
	return pending
}
