package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/act/hand"
	"holdfast/durable"
	"holdfast/record"
)

// lateAfter is how long after its time something is overdue. A keeper asks at
// least once in ten seconds, so this is no matter of luck.
const lateAfter = 2 * time.Minute

// The kinds of things that can be due.
const dueSnapshot = "snapshot"

// duties are how each kind is done. It runs under the lock and says how it went.
// It may be done again where a crash kept the entry that it is done from being
// written, and has to find that out by itself.
func duties() map[string]func(*Operator, context.Context, Duty) (string, error) {
	return map[string]func(*Operator, context.Context, Duty) (string, error){dueSnapshot: (*Operator).snapshotAgain}
}

// Duty is something that must happen at a later time.
type Duty struct {
	// Entry is where it stands in the audit log.
	Entry uint64
	record.DueBody
}

// Late is a duty that was to be done minutes ago.
type Late struct {
	Duty
	// Keeper is set where the keeper that is to do it lives.
	Keeper bool
}

// Ticked is a duty that a tick has done, or has tried to do.
type Ticked struct {
	Duty
	// Text says how it went, Err why it could not be done: it is still due then.
	Text string
	Err  error
}

// Ticks is what a tick came to.
type Ticks struct {
	Ticked []Ticked
	// Waiting is how much is still to come, Next the first of it; the zero time
	// where nothing is.
	Waiting int
	Next    time.Time
}

// dutiesOf are those of one instance, or of all for "", the first that is due first.
func dutiesOf(dues map[uint64]record.DueBody, config string) []Duty {
	var list []Duty
	for seq, body := range dues {
		if config == "" || body.Config == config {
			list = append(list, Duty{seq, body})
		}
	}
	slices.SortFunc(list, func(a, b Duty) int { return cmp.Or(a.When.Compare(b.When), cmp.Compare(a.Entry, b.Entry)) })
	return list
}

// due reads what is due from the audit log as it is now.
func (o *Operator) due(ctx context.Context, config string) ([]Duty, error) {
	dues, err := record.Dues(o.Entries(ctx))
	return dutiesOf(dues, config), err
}

// Tick does what is due for the instance, each thing once. Where nothing is it
// takes no lock. What cannot be done stays due, and keeps nothing else from
// being done.
func (o *Operator) Tick(ctx context.Context) (Ticks, error) {
	in, err := o.only()
	if err != nil {
		return Ticks{}, err
	}
	if o.hand == nil {
		return Ticks{}, needsRoot("do what is due")
	}
	list, err := o.due(ctx, in.ConfigDir)
	if err != nil {
		return Ticks{}, err
	}
	now := time.Now()
	var done []Ticked
	if len(list) > 0 && !list[0].When.After(now) {
		if done, list, err = o.doDue(ctx, in.ConfigDir, now); err != nil {
			return Ticks{Ticked: done}, err
		}
	}
	t := Ticks{Ticked: done, Waiting: len(list)}
	if len(list) > 0 {
		t.Next = list[0].When
	}
	return t, nil
}

// doDue does what was due at a time, and returns what is left. Another tick may
// have been faster, so it reads again once it has the lock.
func (o *Operator) doDue(ctx context.Context, config string, now time.Time) (done []Ticked, left []Duty, err error) {
	if err := o.hand.Begin(ctx); err != nil {
		return nil, nil, err
	}
	list, err := o.due(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range list {
		if d.When.After(now) {
			left = append(left, d)
			continue
		}
		if err := ctx.Err(); err != nil {
			return done, nil, err
		}
		t := Ticked{Duty: d}
		if t.Text, t.Err = o.do(ctx, d); t.Err != nil {
			left = append(left, d)
		}
		done = append(done, t)
	}
	return done, left, nil
}

func (o *Operator) do(ctx context.Context, d Duty) (string, error) {
	duty, known := duties()[d.What]
	if !known {
		return "", fmt.Errorf("this release does not know how to do %q", d.What)
	}
	said, err := duty(o, ctx, d)
	if err != nil {
		return "", err
	}
	body := d.DueBody
	body.Text = said
	_, err = o.hand.Append(ctx, record.DueDone, d.Entry, nil, body)
	return said, err
}

// later records that something must happen, and sees to it that somebody keeps
// time. A keeper that cannot be started is an error beside the duty: it stands.
func (o *Operator) later(ctx context.Context, in *instance, what, object string, when time.Time) (Duty, error) {
	body := record.DueBody{
		What: what, When: when.UTC().Truncate(time.Second), By: o.who, Instance: in.Name, Config: in.ConfigDir, Object: object,
	}
	e, err := o.hand.Append(ctx, record.Due, 0, nil, body)
	if err != nil {
		return Duty{}, err
	}
	return Duty{e.Seq, body}, o.keepTime(ctx, in.ConfigDir)
}

// keepTime sees to it that a keeper lives.
func (o *Operator) keepTime(ctx context.Context, config string) error {
	if o.client == nil || o.keeperLives(config) {
		return nil
	}
	if err := o.client.StartKeeper(ctx); err != nil {
		return err
	}
	for range 100 {
		if o.keeperLives(config) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.New("the keeper was started, and does not live")
}

// keeperLives reports whether the keeper of an instance lives.
func (o *Operator) keeperLives(config string) bool {
	file, err := o.state.State(hand.KeeperShelf, hand.KeeperLock(config))
	if err != nil {
		return false
	}
	held, err := durable.Held(file)
	return errors.Join(err, file.Close()) == nil && held
}

// Late are the duties, of any instance, that should have been done minutes ago.
// Who may not read the record is told of none.
func (o *Operator) Late(ctx context.Context) ([]Late, error) {
	if o.state == nil {
		return nil, nil
	}
	list, err := o.due(ctx, "")
	if err != nil {
		return nil, err
	}
	var late []Late
	for _, d := range list {
		if time.Since(d.When) >= lateAfter {
			late = append(late, Late{d, o.keeperLives(d.Config)})
		}
	}
	return late, nil
}

// snapshotAgain saves the second snapshot of a first one.
func (o *Operator) snapshotAgain(ctx context.Context, d Duty) (string, error) {
	saved, err := o.Snapshots(ctx)
	if err != nil {
		return "", err
	}
	for i := range saved {
		if saved[i].Due == d.Entry {
			return saved[i].Name, nil
		}
	}
	head, err := o.saveSnapshot(ctx, "again, after "+d.Object, d.Entry)
	return head.Name, err
}
