package operate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// choose turns an undo into the verb that takes the plan back, and into exactly
// the messages that the plan has changed, by the record and by no selection.
func (d *drafting) choose(ctx context.Context) error {
	if d.r.Undoes == "" {
		return nil
	}
	if !d.r.Selector.IsZero() || d.r.Verb != "" {
		return &postfix.Error{Kind: postfix.Usage, Op: "undo", Object: d.r.Undoes, Err: errors.New("it takes back what one plan did and no selection"), Hint: "name the plan alone"}
	}
	run, err := d.ledger.Resolve(d.r.Undoes)
	if err != nil {
		return err
	}
	id := run.Plan.Plan
	d.r.Undoes = id
	if run.Plan.Instance != d.in.Name {
		return &postfix.Error{Kind: postfix.Usage, Op: "undo", Object: plan.Short(id), Err: fmt.Errorf("it was a plan of instance %q", run.Plan.Instance), Hint: "-c names the configuration directory of that instance"}
	}
	switch run.Plan.Verb {
	case plan.Hold:
		d.r.Verb, d.chosen = plan.Release, map[record.File]*plan.Target{}
		for key, hold := range d.ledger.Holds {
			if hold.Plan == id && key.Instance == d.in.Name {
				d.chosen[key.File] = nil // whether it is that message is for holding to say
			}
		}
		return nil
	case plan.Release, plan.Try:
		return d.chooseReleased(ctx, id)
	case plan.Delete:
		d.r.Verb, d.chosen = plan.Restore, map[record.File]*plan.Target{}
		return nil
	}
	return &postfix.Error{
		Kind: postfix.Refused, Op: "undo", Object: plan.Short(id), Err: fmt.Errorf("nothing takes back what %s does", run.Plan.Verb),
		Hint: "holdfast plan show " + plan.Short(id) + " says what can be done",
	}
}

// chooseReleased chooses what a release let go. What is still queued is the
// same file: Postfix renames it.
func (d *drafting) chooseReleased(ctx context.Context, id string) error {
	outcomes, err := record.OutcomesOf(d.o.Entries(ctx), id)
	if err != nil {
		return err
	}
	_, targets, err := d.o.Plan(ctx, id)
	if err != nil {
		return err
	}
	of := make(map[postfix.QueueID]*plan.Target, len(targets))
	for i := range targets {
		of[targets[i].ID] = &targets[i]
	}
	d.r.Verb, d.chosen = plan.Hold, map[record.File]*plan.Target{}
	for _, o := range outcomes {
		if t := of[o.ID]; t != nil && o.State == record.Done {
			d.chosen[record.File{ID: o.ID, Inode: o.Inode}] = t
		}
	}
	return nil
}

// fromVault shows the draft the copies in the vault, as far as the record tells
// what they are of.
func (d *drafting) fromVault() error {
	if d.chosen == nil {
		if err := vaultKnows(d.r.Selector); err != nil {
			return err
		}
	}
	queued := make(map[record.File]bool)
	ids := make(map[postfix.QueueID]bool)
	d.snap.Each(func(m *postfix.Message) bool {
		queued[record.File{ID: m.ID, Inode: m.Inode}] = true
		ids[m.ID] = true
		return true
	})
	for _, name := range slices.Sorted(maps.Keys(d.ledger.Items)) {
		c := d.ledger.Items[name]
		if c.Target.Instance != d.in.Name {
			continue
		}
		delete(d.unmet, c.ID)
		if d.chosen != nil {
			if c.Plan != d.r.Undoes {
				continue
			}
		} else if selected, err := d.match.Match(messageOf(c), nil); err != nil {
			return err
		} else if !selected {
			continue
		}
		if why, hint := d.sparedCopy(c, queued, ids); why != "" {
			d.draft.Skip(why, hint, c.ID)
			continue
		}
		t := c.Target
		t.Item = c.Name
		d.draft.TakeTarget(t, c.Size)
	}
	return nil
}

// sparedCopy says why a copy is left alone, "" where it is not. Mail that is
// there twice is delivered twice.
func (d *drafting) sparedCopy(c *record.Copy, queued map[record.File]bool, ids map[postfix.QueueID]bool) (why, hint string) {
	switch {
	case c.Purged:
		return plan.SkipPurged, ""
	case d.r.Verb == plan.Purge && c.Legal:
		return plan.SkipLegalHold, "holdfast vault legal-hold --lift ends it"
	case d.r.Verb == plan.Purge && !d.r.Options.Anyway && d.now.Before(c.At.Add(d.o.policy.Retention)):
		return plan.SkipRetention, "--anyway purges what is kept less than its time"
	case d.r.Verb == plan.Purge:
		return "", ""
	case queued[record.File{ID: c.ID, Inode: c.Target.Inode}]:
		return plan.SkipQueued, ""
	case c.Restored != "" && ids[c.Restored]:
		return plan.SkipQueued, "it came back before, as " + string(c.Restored)
	case c.Requeued && c.Restored == "" && d.r.Options.Anyway:
	case c.Requeued && c.Restored == "":
		return plan.SkipRequeued, "--anyway restores it too: for when the mail log says that it was thrown away"
	case c.Restored != "" || !c.Removed:
		// It was in the queue after it was copied, and is not any more.
		return plan.SkipDelivered, ""
	}
	return "", ""
}

// vaultKnows refuses a selection by what the record does not keep of a message:
// it would find nothing, which is not the same as that there is nothing.
func vaultKnows(s plan.Selector) error {
	for flag, given := range map[string]bool{
		"--queue": s.Queues != nil, "--recipient": s.Recipients != nil, "--domain": s.Domains != nil, "--cause": s.Causes != nil,
		"--text": s.Texts != nil, "--client": s.Clients != nil, "--sasl-user": s.SASLUsers != nil,
		"--message-id": s.MessageIDs != nil, "--header": s.Headers != nil, "--where": s.Where != "",
	} {
		if given {
			return &postfix.Error{
				Kind: postfix.Usage, Op: "select from the vault by", Object: flag, Err: errors.New("the record does not keep that"),
				Hint: "select by ID, --sender, --next-hop, age or size; or holdfast undo with the plan that deleted them",
			}
		}
	}
	return nil
}

// messageOf is what the record tells of a message that is gone.
func messageOf(c *record.Copy) *postfix.Message {
	t := &c.Target
	return &postfix.Message{
		ID: t.ID, Inode: t.Inode, Queue: t.Queue, Arrival: t.Arrival, Size: t.Size, Sender: t.Sender,
		Recipients: []postfix.Recipient{{NextHop: t.NextHop}},
	}
}
