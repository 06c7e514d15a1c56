package present

import (
	"context"
	"slices"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// Shape is a queue from far away: what it waits for, where it goes, who sent
// it, and when the first of it goes back. The sizes of the queues themselves
// are the Snapshot's.
type Shape struct {
	Causes, Texts, Destinations, Senders *Tally
	Forecast                             Forecast
	keys                                 []uint64 // one a message, sorted; only where it was asked for
	seconds                              int64    // when it was taken, for the rate of a turnover
}

// Forecast says what goes back to its senders if every attempt fails from now
// on. Postfix looks at the age only after a failed attempt, so a message goes
// back with the first one behind its expiry, not at its expiry.
type Forecast struct {
	// First is the earliest return, zero where nothing can go back.
	First time.Time
	// Hour and Day count messages that go back within that time.
	Hour, Day int
	// Silent are those of Day that have no sender: they are dropped, and
	// nobody is told.
	Silent int
	// HeldOverdue are messages on hold that have outlived their time: the
	// first failure after a release returns them.
	HeldOverdue int
}

// ShapeOf goes through a snapshot once. With watched it also notes which
// messages there are, so that the next look can tell what came and what left.
func ShapeOf(ctx context.Context, snap *observe.Snapshot, watched bool) (*Shape, error) {
	all, err := Scan(ctx, snap,
		func(int) (*Shape, error) { return newShape(snap.To), nil },
		func(s *Shape, _ int, m *postfix.Message) error {
			for _, t := range s.tallies() {
				t.Add(m)
			}
			s.Forecast.add(m, snap.To)
			if watched {
				s.keys = append(s.keys, identity(m))
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	first := all[0]
	for _, other := range all[1:] {
		mine := first.tallies()
		for i, t := range other.tallies() {
			mine[i].Merge(t)
		}
		first.Forecast.merge(other.Forecast)
		first.keys = append(first.keys, other.keys...)
	}
	slices.Sort(first.keys)
	return first, nil
}

func newShape(at time.Time) *Shape {
	return &Shape{
		Causes: NewTally(ByCause, at), Texts: NewTally(ByText, at),
		Destinations: NewTally(ByDestination, at), Senders: NewTally(BySender, at),
		seconds: at.Unix(),
	}
}

func (s *Shape) tallies() [4]*Tally {
	return [...]*Tally{s.Causes, s.Texts, s.Destinations, s.Senders}
}

func (f *Forecast) add(m *postfix.Message, at time.Time) {
	switch {
	case m.Expires.IsZero() && !m.ForceExpire:
		return
	case m.Queue == postfix.Hold:
		if m.ForceExpire || m.Expires.Before(at) {
			f.HeldOverdue++
		}
		return
	case m.Queue != postfix.Deferred && m.Queue != postfix.Incoming && m.Queue != postfix.Active:
		return
	}
	returns := at
	if m.Expires.After(returns) && !m.ForceExpire {
		returns = m.Expires
	}
	if m.NextTry.After(returns) {
		returns = m.NextTry
	}
	if f.First.IsZero() || returns.Before(f.First) {
		f.First = returns
	}
	const day = 24 * time.Hour
	in := returns.Sub(at)
	if in <= time.Hour {
		f.Hour++
	}
	if in <= day {
		f.Day++
		if m.Sender == "" {
			f.Silent++
		}
	}
}

func (f *Forecast) merge(other Forecast) {
	if f.First.IsZero() || !other.First.IsZero() && other.First.Before(f.First) {
		f.First = other.First
	}
	f.Hour += other.Hour
	f.Day += other.Day
	f.Silent += other.Silent
	f.HeldOverdue += other.HeldOverdue
}

// identity is a number for a message that stays the same while it moves from
// queue to queue. The arrival is in it because short IDs are used again within
// seconds. It is FNV-1a: what a collision costs is a message that seems to have
// stayed.
func identity(m *postfix.Message) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(m.ID) {
		h = (h ^ uint64(m.ID[i])) * prime
	}
	for arrived := uint64(Arrived(m).UnixMicro()); arrived != 0; arrived >>= 8 {
		h = (h ^ arrived&0xff) * prime
	}
	return h
}

// Turnover is what happened to a queue between two looks.
type Turnover struct {
	Seconds    int64
	Came, Left int
}

// Since compares with an earlier look, both taken with watched. A message that
// came and left in between is in neither, and not counted.
func (s *Shape) Since(earlier *Shape) Turnover {
	t := Turnover{Seconds: s.seconds - earlier.seconds}
	now, then := s.keys, earlier.keys
	for len(now) > 0 && len(then) > 0 {
		switch {
		case now[0] == then[0]:
			now, then = now[1:], then[1:]
		case now[0] < then[0]:
			t.Came++
			now = now[1:]
		default:
			t.Left++
			then = then[1:]
		}
	}
	t.Came += len(now)
	t.Left += len(then)
	return t
}

// Direction says whether a queue grows.
type Direction string

// The directions.
const (
	Growing   Direction = "growing"
	Shrinking Direction = "shrinking"
	Steady    Direction = "steady"
	Unknown   Direction = "unknown"
)

// Direction of what happened between two looks.
func (t Turnover) Direction() Direction {
	switch {
	case t.Came > t.Left:
		return Growing
	case t.Left > t.Came:
		return Shrinking
	}
	return Steady
}

// DirectionOf says what a log tells about the queue. Arrivals are messages and
// deliveries recipients, of which a message has one or more: where more
// arrived than was finished the queue grows for certain. The reverse says only
// that it keeps up; that it shrinks takes two looks to tell.
func DirectionOf(f observe.Flow) Direction {
	switch {
	case f.Arrived > f.Delivered+f.Bounced:
		return Growing
	case f.Arrived+f.Delivered+f.Bounced+f.Deferred == 0:
		return Unknown
	}
	return Steady
}
