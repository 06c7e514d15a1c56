// Package replay lets a backlog go at the pace that each next hop allows, and
// learns that pace without being told.
//
// A Controller is pure: it is told the time and what became of each message,
// and says which ones may go now. It neither reads nor changes anything, so
// that thousands of providers can be simulated in seconds.
//
// Invariants: nothing exceeds a Ceiling; after a refusal nothing goes faster
// than before it; one message at a time goes to a next hop of which nothing is
// known; what is not let go stays where it is.
package replay

import (
	"math"
	"slices"
	"time"
)

// Share is what a message costs in one lane.
type Share struct {
	Lane int
	// Cost is in transactions, at least 1.
	Cost int
}

// Item is a message that is to be let go.
type Item struct {
	// Shares are its lanes; the first is the one in whose line it waits.
	Shares []Share
}

// Fate is where an item stands.
type Fate uint8

// The fates. What is Left was tried or not, did not get through, and stays on
// hold.
const (
	Waiting Fate = iota
	Flying
	Gone // delivered or bounced: it is no longer in the queue
	Left
)

// waiting are the items of a lane that are not on their way.
type waiting struct {
	line  []int // not tried, or refused for the pace
	grey  []int // greylisted, by their first try
	later []int // with a time of their own, by it
}

func (w *waiting) count() int { return len(w.line) + len(w.grey) + len(w.later) }

type item struct {
	Item
	fate  Fate
	sent  time.Time
	first time.Time // of its first try
	open  int       // shares without a result
	again time.Time // not before; zero: any time
	tries int
	grey  int
	stuck bool // a share is to be tried again
}

const (
	// tries is how often a message is tried that the next hop puts off for
	// reasons of its own.
	tries = 4
	// lookahead is how far into a line is looked for one that can go, where
	// the first cannot because of another lane or of its own pause.
	lookahead = 64
	// blocked is when to ask again where another lane stands in the way: its
	// own time is not worth the search.
	blocked = 100 * time.Millisecond
)

// greyRetries are the ages at which a greylisted message is tried while the
// delay is not known: just past the usual ones.
var greyRetries = []time.Duration{
	5500 * time.Millisecond, 10500 * time.Millisecond, 15500 * time.Millisecond, 20500 * time.Millisecond,
	30500 * time.Millisecond, 61 * time.Second, 121 * time.Second, 301 * time.Second, 601 * time.Second,
	901 * time.Second, 1801 * time.Second, 3601 * time.Second,
}

// Controller holds the lanes of a job and their lines.
type Controller struct {
	ceiling Ceiling // over all lanes together
	lanes   []*lane
	waiting []waiting // of each lane
	items   []item
	turn    int
	flying  int
	left    int // items neither gone nor left

	credit   float64
	creditAt time.Time
}

// New makes a controller without items. all bounds the lanes together.
func New(now time.Time, all Ceiling) *Controller {
	return &Controller{ceiling: all, credit: 1, creditAt: now}
}

// AddLane adds a next hop, or several that share their hosts, and returns its
// number.
func (c *Controller) AddLane(now time.Time, name string, ceiling Ceiling) int {
	c.lanes = append(c.lanes, newLane(name, ceiling, now))
	c.waiting = append(c.waiting, waiting{})
	return len(c.lanes) - 1
}

// Add puts an item at the end of the line of its first lane and returns its
// number. Narrow and young ones are best added first: they are the canaries.
func (c *Controller) Add(it Item) int {
	c.items = append(c.items, item{Item: it})
	n := len(c.items) - 1
	home := it.Shares[0].Lane
	c.waiting[home].line = append(c.waiting[home].line, n)
	c.left++
	return n
}

// Next appends to dst the items that are to be let go now, and says when to
// ask again at the latest; the zero time is after the next result. Ended says
// that nothing is left to do.
func (c *Controller) Next(now time.Time, dst []int) (release []int, again time.Time, ended bool) {
	release = dst
	soon := func(t time.Time) {
		if !t.IsZero() && (again.IsZero() || t.Before(again)) {
			again = t
		}
	}
	if r := c.ceiling.Rate; r > 0 && now.After(c.creditAt) {
		c.credit = math.Min(c.credit+now.Sub(c.creditAt).Seconds()*r, math.Max(1, r/20))
		c.creditAt = now
	}
	// One message a lane and turn, so that no lane eats what all share.
	for idle := 0; idle < len(c.lanes); {
		if c.ceiling.Window > 0 && c.flying >= c.ceiling.Window {
			return release, again, false
		}
		if r := c.ceiling.Rate; r > 0 && c.credit < 1-1e-9 {
			soon(now.Add(time.Duration((1-c.credit)/r*float64(time.Second)) + time.Microsecond))
			return release, again, false
		}
		n, wait := c.pick(now, c.turn)
		soon(wait)
		c.turn = (c.turn + 1) % len(c.lanes)
		if idle++; n >= 0 {
			release = append(release, n)
			idle = 0
		}
	}
	return release, again, c.left == 0
}

// pick takes the first of a lane's messages that may go, or says when one may.
func (c *Controller) pick(now time.Time, home int) (int, time.Time) {
	l, w := c.lanes[home], &c.waiting[home]
	if l.phase == Broken {
		for _, n := range slices.Concat(w.line, w.grey, w.later) {
			c.settle(n, Left)
		}
		*w = waiting{}
		return -1, never
	}
	if w.count() == 0 {
		return -1, never
	}
	ok, wait := l.admit(now, 1)
	if !ok {
		return -1, wait
	}
	soon := func(t time.Time) {
		if !t.IsZero() && (wait.IsZero() || t.Before(wait)) {
			wait = t
		}
	}
	if len(w.later) > 0 {
		if t := c.items[w.later[0]].again; t.After(now) {
			soon(t)
		} else if n := c.take(now, &w.later, 1, false); n >= 0 {
			return n, never
		}
	}
	if len(w.grey) > 0 && l.grey > 0 {
		if t := c.items[w.grey[0]].first.Add(l.grey); t.After(now) {
			soon(t)
		} else if n := c.take(now, &w.grey, 1, false); n >= 0 {
			return n, never
		}
	}
	if l.phase == Canary {
		if n := c.take(now, &w.line, lookahead, true); n >= 0 {
			return n, never
		}
	}
	if n := c.take(now, &w.line, lookahead, false); n >= 0 {
		return n, never
	}
	if len(w.line) > 0 {
		soon(now.Add(blocked))
	}
	return -1, wait
}

// take sends the first of the foremost messages of a line that all its lanes
// admit; narrow wants one of a single transaction.
func (c *Controller) take(now time.Time, line *[]int, depth int, narrow bool) int {
	for at := 0; at < min(len(*line), depth); {
		n := (*line)[at]
		it := &c.items[n]
		switch {
		case c.hopeless(it):
			c.settle(n, Left)
			cut(line, at)
		case narrow && it.width() > 1 || !c.admitted(now, it):
			at++
		default:
			cut(line, at)
			c.send(now, n)
			return n
		}
	}
	return -1
}

func cut(line *[]int, at int) {
	if at == 0 { // the usual case, in lines of a hundred thousand
		*line = (*line)[1:]
		return
	}
	*line = slices.Delete(*line, at, at+1)
}

func (c *Controller) admitted(now time.Time, it *item) bool {
	return !slices.ContainsFunc(it.Shares, func(s Share) bool {
		ok, _ := c.lanes[s.Lane].admit(now, s.Cost)
		return !ok
	})
}

func (it *item) width() int {
	w := 0
	for _, s := range it.Shares {
		w += s.Cost
	}
	return w
}

// hopeless is a message one of whose lanes is broken: letting it go for the
// others would spend a try where it must not be tried.
func (c *Controller) hopeless(it *item) bool {
	return slices.ContainsFunc(it.Shares, func(s Share) bool { return c.lanes[s.Lane].phase == Broken })
}

func (c *Controller) send(now time.Time, n int) {
	it := &c.items[n]
	it.fate, it.sent, it.open, it.stuck, it.again = Flying, now, len(it.Shares), false, never
	if it.first.IsZero() {
		it.first = now
	}
	for _, s := range it.Shares {
		c.lanes[s.Lane].spend(now, s.Cost)
	}
	c.flying++
	if c.ceiling.Rate > 0 {
		c.credit -= float64(it.width())
	}
}

func (c *Controller) settle(n int, f Fate) {
	c.items[n].fate = f
	c.left--
}

// Result tells what became of an item in one of its lanes.
func (c *Controller) Result(now time.Time, n, laneNo int, r Result) {
	it := &c.items[n]
	at := slices.IndexFunc(it.Shares, func(s Share) bool { return s.Lane == laneNo })
	if it.fate != Flying || at < 0 {
		return
	}
	share, l := it.Shares[at], c.lanes[laneNo]
	age := it.sent.Sub(it.first)
	l.result(now, it.sent, share.Cost, r)
	switch r.Kind {
	case Accepted:
		if it.grey > 0 && (l.grey == 0 || age < l.grey) {
			l.grey = age
		}
		it.finish(at)
	case Bounced:
		it.finish(at)
	case Greylisted:
		it.stuck = true
		c.greylisted(now, n, l, r.Asked)
	case Deferred:
		it.stuck = true
		it.tries++
		it.again = now.Add(max(r.Asked, 5*time.Second<<min(it.tries, 6)))
	case Throttled, Crowded, Unreachable, Suspended:
		it.stuck = true
	}
	if l.explorer == n && r.Kind != Greylisted && r.Kind != Throttled && r.Kind != Crowded && r.Kind != Suspended {
		c.relieve(l, laneNo)
	}
	if it.open--; it.open > 0 {
		return
	}
	c.flying--
	switch {
	case !it.stuck:
		c.settle(n, Gone)
	case it.tries >= tries:
		c.settle(n, Left)
	default:
		it.fate = Waiting
		c.back(n)
	}
}

// relieve ends the exploring of a lane's explorer. Where it learnt nothing, the
// next message takes its place.
func (c *Controller) relieve(l *lane, laneNo int) {
	l.explorer = -1
	w := &c.waiting[laneNo]
	if l.grey > 0 || len(w.grey) == 0 {
		return
	}
	n := w.grey[0]
	cut(&w.grey, 0)
	l.explorer = n
	c.items[n].again = c.items[n].first.Add(greyRetries[0])
	c.back(n)
}

// finish takes a share out that needs no other try. The shares are copied: the
// caller's are not ours.
func (it *item) finish(at int) {
	if len(it.Shares) > 1 {
		it.Shares = slices.Concat(it.Shares[:at], it.Shares[at+1:])
	}
}

// greylisted decides when a message comes again: when it was asked to, or when
// another one of the lane got through at that age. While nothing is known, one
// message finds it out for all, at the usual ages.
func (c *Controller) greylisted(now time.Time, n int, l *lane, asked time.Duration) {
	it := &c.items[n]
	it.grey++
	age := now.Sub(it.first)
	it.again = never
	if it.grey > len(greyRetries) {
		it.tries = tries
	}
	switch {
	case asked > 0:
		it.again = now.Add(asked)
	case l.grey > 0 && age < l.grey:
	case l.grey > 0: // what was learnt was too short
		l.grey = nextGrey(age)
	case l.explorer < 0 || l.explorer == n:
		l.explorer = n
		it.again = it.first.Add(nextGrey(age))
	}
}

func nextGrey(age time.Duration) time.Duration {
	for _, g := range greyRetries {
		if g > age {
			return g
		}
	}
	return age + greyRetries[len(greyRetries)-1]
}

// back puts an item where it waits for its next try. What was refused for the
// pace keeps its place.
func (c *Controller) back(n int) {
	it := &c.items[n]
	w := &c.waiting[it.Shares[0].Lane]
	switch {
	case !it.again.IsZero():
		at, _ := slices.BinarySearchFunc(w.later, it.again, func(m int, t time.Time) int { return c.items[m].again.Compare(t) })
		w.later = slices.Insert(w.later, at, n)
	case it.grey > 0:
		at, _ := slices.BinarySearchFunc(w.grey, it.first, func(m int, t time.Time) int { return c.items[m].first.Compare(t) })
		w.grey = slices.Insert(w.grey, at, n)
	default:
		w.line = slices.Insert(w.line, 0, n)
	}
}

// Other tells of a transaction at a lane's next hop that is not the job's own.
func (c *Controller) Other(now time.Time, laneNo int, taken bool) {
	c.lanes[laneNo].other(now, taken)
}

// Fate says where an item stands.
func (c *Controller) Fate(n int) Fate { return c.items[n].fate }

// State is what a screen shows of a lane.
type State struct {
	Name   string
	Phase  Phase
	Why    string // of Broken
	Window int
	// Rate is in transactions a second, 0 where only the window bounds it.
	Rate              float64
	Paused            time.Time // until when, where that is to come
	Waiting, Flying   int
	Accepted, Refused int
}

// State describes a lane.
func (c *Controller) State(laneNo int) State {
	l := c.lanes[laneNo]
	return State{
		Name: l.name, Phase: l.phase, Why: l.why, Window: int(l.window), Rate: l.rate(), Paused: l.until,
		Waiting: c.waiting[laneNo].count(), Flying: l.flying, Accepted: l.accepted, Refused: l.refused,
	}
}
