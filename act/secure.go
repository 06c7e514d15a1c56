package act

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/act/hand"
	"holdfast/observe/spool"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// secure does what comes before any act that ends a message's life under its
// queue ID: hold, wait for deliveries, compare, copy to the vault. It returns
// the tasks of which a copy is on disk and recorded.
func (b *batch) secure(ctx context.Context) ([]*task, error) {
	b.spareForeign()
	if err := b.holdAll(ctx); err != nil {
		return nil, err
	}
	if err := b.waitUnlocked(ctx); err != nil {
		return nil, err
	}
	copies := b.compare(ctx)
	if len(copies) == 0 {
		return nil, nil
	}
	kept, failed, err := b.e.Hand.Vault(ctx, b.intent.Seq, copies)
	if err != nil {
		return nil, err
	}
	items := make(map[postfix.QueueID]string, len(kept.Items))
	for _, item := range kept.Items {
		items[item.ID] = item.Name
	}
	for _, c := range copies {
		k := b.task(c.ID)
		if k.item = items[c.ID]; k.item == "" {
			b.leaveHeld(k, record.Failed, "it was not copied to the vault: "+failed[c.ID])
		}
	}
	return b.pick(func(k *task) bool { return k.item != "" }), nil
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
		if _, ours := b.ours(k); !ours && !k.taken {
			k.spare(record.Refused, textForeign)
		}
	}
}

// leaveHeld gives a task up that is on hold now, and stays there.
func (b *batch) leaveHeld(k *task, s record.State, text string) {
	k.spare(s, text)
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
				b.leaveHeld(k, record.Failed, "a delivery of it was still running")
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
	held := b.pick(func(k *task) bool { return k.in(postfix.Hold) })
	want := make([]spool.Sought, len(held))
	for i, k := range held {
		want[i] = spool.Sought{ID: k.ID, Queue: postfix.Hold}
	}
	sums, err := b.e.Reader.SumAll(ctx, want)
	for i, k := range held {
		if err != nil {
			b.leaveHeld(k, record.Failed, err.Error())
			continue
		}
		s := &sums[i]
		switch {
		case s.Err != nil:
			b.leaveHeld(k, record.Failed, s.Err.Error())
		case !k.Matches(s.Fingerprint):
			k.seen, k.other = nil, &s.Found
			k.spare(record.Changed, "its content is not the one that was planned for")
		case s.Damage == "" && s.Open == 0 && s.Done > 0:
			// Deleting it would say of delivered mail that it was deleted.
			k.finished = true
			k.spare(record.Gone, textFinished)
		default:
			if why := b.unfit(k, &s.Summed); why != "" {
				b.leaveHeld(k, record.Refused, why)
				continue
			}
			copies = append(copies, hand.Copy{ID: k.ID, Inode: s.Inode, Sum: s.File})
		}
	}
	return copies
}

// unfit says why Postfix must not be given a message: pickup deletes what it
// cannot read whole (pickup.c), and a notice that waits in the bounce log would
// never be sent. A deletion takes anything.
func (b *batch) unfit(k *task, s *spool.Summed) string {
	switch {
	case b.verb == plan.Delete:
		return ""
	case s.Damage != "":
		return "it is not whole, and Postfix would throw it away: " + s.Damage
	case s.Open == 0:
		return "it has no recipient"
	case b.verb == plan.Requeue:
		size, err := b.e.logSize("bounce", k.ID)
		if err != nil {
			return "whether a notice waits to be sent cannot be told: " + err.Error()
		}
		if size > 0 {
			return "a notice that some of its recipients failed is still to be sent, and would be lost"
		}
	}
	return ""
}

// logSize is the size of a message's defer, bounce or trace log, -1 where there
// is none.
func (e *engine) logSize(kind string, id postfix.QueueID) (int64, error) {
	var st unix.Stat_t
	path := filepath.Join(e.Instance.QueueDir, kind, id.HashPath(e.Instance.DepthOf(kind)), string(id))
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return -1, nil
	case err != nil:
		return 0, fmt.Errorf("look at %q: %w", path, err)
	}
	return st.Size, nil
}
