package act

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// recoverOpen settles the open intents in their order, then the plans.
func recoverOpen(ctx context.Context, job Job) (Recovery, error) {
	var out Recovery
	job.complete()
	if err := job.Hand.Begin(ctx); err != nil {
		return out, err
	}
	past, err := job.Past(ctx)
	if err != nil {
		return out, err
	}
	ended := make(map[string]map[record.State]int)
	for _, open := range past.Intents() {
		if err := ctx.Err(); err != nil {
			return out, &postfix.Error{Kind: postfix.Interrupted, Op: "recover", Err: err}
		}
		outcomes, err := job.settleOpen(context.WithoutCancel(ctx), past, open)
		if err != nil {
			return out, fmt.Errorf("settle intent %d: %w", open.Entry.Seq, err)
		}
		out.Settled = append(out.Settled, open.Entry.Seq)
		out.Outcomes = append(out.Outcomes, outcomes...)
		counts := ended[open.Body.Plan]
		if counts == nil {
			counts = make(map[record.State]int)
			ended[open.Body.Plan] = counts
		}
		for _, o := range outcomes {
			counts[o.State]++
		}
	}
	err = job.endAll(context.WithoutCancel(ctx), past, ended, &out)
	return out, err
}

// endAll records the end of the plans that were cut off, with what all their
// outcomes count up to.
func (job *Job) endAll(ctx context.Context, past *record.Ledger, now map[string]map[record.State]int, out *Recovery) error {
	for _, id := range slices.Sorted(maps.Keys(past.Plans)) {
		r := past.Plans[id]
		if r.Start == 0 || !r.Ended.IsZero() {
			continue
		}
		counts, settled := maps.Clone(r.Counts), 0
		for s, n := range now[id] {
			counts[s] += n
		}
		for _, n := range counts {
			settled += n
		}
		body := record.EndBody{Plan: id, Counts: counts, Left: max(r.Plan.Count-settled, 0)}
		if _, err := job.Hand.Append(ctx, record.Ended, r.Start, nil, body); err != nil {
			return err
		}
		out.Ended = append(out.Ended, id)
	}
	return nil
}

// middleOf is driveOf for what an intent says of itself.
func middleOf(v plan.Verb) middle {
	switch v {
	case plan.Hold:
		return hold{}
	case plan.Delete:
		return deletion{}
	case plan.Requeue:
		return requeueing{}
	case plan.Expire:
		return expiry{}
	case plan.Release:
		return letting{}
	case plan.Try:
		return trying{}
	case plan.Restore:
		return restore{}
	case plan.Purge:
		return purge{}
	}
	return nil
}

// settleOpen judges the targets of one intent by what is in the spool now. A
// postsuper that outlived its parent would still be moving files; it holds the
// lock under which this runs, so there is none.
func (job *Job) settleOpen(ctx context.Context, past *record.Ledger, open *record.Intent) ([]record.Outcome, error) {
	m := middleOf(open.Body.Verb)
	if m == nil {
		return nil, fmt.Errorf("there is no way to settle the verb %q", open.Body.Verb)
	}
	if err := job.Hand.Adopt(ctx, open.Entry); err != nil {
		return nil, err
	}
	e := &engine{Job: *job, id: open.Body.Plan, past: past}
	b := newBatch(e, open.Body.Verb, open.Body.Targets)
	b.intent, b.recovered = open.Entry, true
	items, notes := make(map[postfix.QueueID]string), make(map[string]*record.NoteBody)
	for _, item := range open.Kept {
		items[item.ID] = item.Name
	}
	for i := range open.Notes {
		notes[open.Notes[i].Item] = &open.Notes[i]
	}
	for _, k := range b.tasks {
		k.item, k.note = items[k.ID], notes[k.Item]
		// Active mail was allowed, and how far the hold had come is not known.
		k.fromActive = open.Body.Qmgr != nil
	}
	if err := b.finish(ctx, m, open.Body.Batch); err != nil {
		return nil, err
	}
	out := make([]record.Outcome, len(b.tasks))
	for i, k := range b.tasks {
		out[i] = k.out
	}
	return out, nil
}

// idAt is the queue ID that a file made at that time has under the instance's
// settings.
func idAt(in postfix.Instance, t time.Time, inode uint64) postfix.QueueID {
	if in.LongIDs {
		return postfix.NewLongID(t, inode)
	}
	return postfix.NewShortID(t, inode)
}
