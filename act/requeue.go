package act

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"time"

	"holdfast/act/hand"
	"holdfast/postfix"
	"holdfast/record"
)

// requeueing gives messages back to pickup, which takes them in under other
// queue IDs: hold, compare, copy, requeue, look. The copy is what is left if
// pickup throws the file away, which it does with all that it cannot read.
type requeueing struct{}

func (requeueing) act(ctx context.Context, b *batch) error {
	safe, err := b.secure(ctx)
	if err != nil {
		return err
	}
	return b.postsuper(ctx, hand.Requeue, safe)
}

func (requeueing) judge(b *batch, k *task) {
	switch {
	case k.in(postfix.Hold):
		b.stayed(k, "it was not requeued")
	case k.in(postfix.Maildrop):
		k.settleAs(record.Done, "pickup has it next")
	case k.seen != nil:
		k.settleAs(record.Failed, textMoved)
	case k.item != "":
		k.settleAs(record.Done, "pickup took it in; the mail log has its new queue ID, as orig_id="+string(k.ID))
	case k.other != nil:
		k.settleAs(record.Changed, textReused)
		k.out.Held = k.other.Queue == postfix.Hold && b.fresh(k.other)
	default:
		// Without a copy the hand requeues nothing, so it was not us.
		k.settleAs(record.Gone, "")
	}
	k.out.Item = k.item
}

// stayed settles a task whose message is on hold still, by this batch or from
// before.
func (b *batch) stayed(k *task, text string) {
	if b.recovered {
		text += ": the run was cut off before that"
	}
	_, before := b.ours(k)
	k.settleAs(record.Failed, text)
	k.out.Held, k.out.FromActive = before || b.fresh(k.seen), k.fromActive
}

// takeIn requeues at a pace: one message first, and a round only when pickup
// has taken the one before and the queue manager has few left to try. All at
// once would be a flush, and a pickup that is not there would be met by all.
func (e *engine) takeIn(ctx context.Context) error {
	per := e.Plan.Options.PerRun
	if per <= 0 {
		per = defaultPerRun
	}
	size := 1
	for rest := e.Targets; len(rest) > 0 && ctx.Err() == nil; size = per {
		n := min(size, len(rest))
		b, err := e.settle(ctx, e.Plan.Verb, rest[:n], requeueing{})
		if err != nil {
			return err
		}
		if rest = rest[n:]; len(rest) == 0 {
			break
		}
		taken, err := e.pickedUp(ctx, b)
		if err != nil {
			return err
		}
		if !taken {
			e.report.Why = append(e.report.Why, fmt.Sprintf("pickup did not take in what was requeued, so %d stay as they are", len(rest)))
			return nil
		}
		if err := e.settledDown(ctx, per); err != nil {
			return err
		}
	}
	return nil
}

// pickedUp waits until no message of a round is in maildrop any more, and says
// whether it came to that.
func (e *engine) pickedUp(ctx context.Context, b *batch) (bool, error) {
	var open []*task
	for _, k := range b.tasks {
		if k.out.State == record.Done && k.in(postfix.Maildrop) {
			open = append(open, k)
		}
	}
	if len(open) > 0 {
		e.wakePickup(ctx)
	}
	for until := time.Now().Add(e.Patience); len(open) > 0; {
		if err := b.look(context.WithoutCancel(ctx), open); err != nil {
			return false, err
		}
		var still []*task
		for _, k := range open {
			if k.in(postfix.Maildrop) {
				still = append(still, k)
			}
		}
		if open = still; len(open) == 0 {
			break
		}
		if interrupted(ctx) || time.Now().After(until) {
			return false, nil
		}
		e.wait("pickup to take in %d", len(open))
		pause(ctx, glance)
	}
	return true, nil
}

// wakePickup tells pickup to look now and not within a minute, as postdrop does
// when it has queued something (postdrop.c, mail_trigger). Where that fails
// pickup looks by itself.
func (e *engine) wakePickup(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(e.Instance.QueueDir, "public", "pickup"))
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte{'W'})
	_ = conn.Close()
}

// settledDown waits until the queue manager has few messages to try, or patience
// ends: a slow destination must not stop the others for ever.
func (e *engine) settledDown(ctx context.Context, few int) error {
	for until := time.Now().Add(e.Patience); ; {
		n, err := e.underWay()
		if err != nil || n <= few || interrupted(ctx) || time.Now().After(until) {
			return err
		}
		e.wait("the queue manager, which has %d to try", n)
		pause(ctx, glance)
	}
}

// underWay counts the messages that the queue manager has or takes next.
func (e *engine) underWay() (int, error) {
	n := 0
	for _, q := range []postfix.Queue{postfix.Incoming, postfix.Active} {
		err := filepath.WalkDir(filepath.Join(e.Instance.QueueDir, q.String()), func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a hash directory, or a message, that was there a moment ago
			}
			if err == nil && !d.IsDir() && !strings.Contains(d.Name(), ".") {
				n++
			}
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("count the messages under way: %w", err)
		}
	}
	return n, nil
}
