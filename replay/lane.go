package replay

import (
	"fmt"
	"math"
	"time"
)

// Kind is what became of one transaction at a next hop.
type Kind uint8

// The kinds. They are about the next hop, not about the message: whether the
// reason is a limit on rate or on connections is read from the reply's text.
const (
	// Accepted: the next hop took the message over.
	Accepted Kind = iota
	// Throttled: refused for now because too much came in a time.
	Throttled
	// Crowded: refused for now because of too many connections at once.
	Crowded
	// Greylisted: refused for now because it was never seen before.
	Greylisted
	// Deferred: refused for now, for a reason of this message or recipient.
	Deferred
	// Bounced: refused for good.
	Bounced
	// Unreachable: no conversation came about.
	Unreachable
	// Suspended: the queue manager holds the destination dead and did not try,
	// so nothing was learnt and nothing was spent.
	Suspended
)

// Result is what became of a message in one lane.
type Result struct {
	Kind Kind
	// Asked is how long the reply asked to be left alone, 0 where it did not.
	Asked time.Duration
}

// Ceiling bounds a lane, whatever it learns. 0 is no bound.
type Ceiling struct {
	// Window is how many transactions may be open at once; more than the
	// transport's own concurrency limit only waits in the active queue.
	Window int
	// Rate is in transactions a second.
	Rate float64
}

// Phase is where a lane stands.
type Phase uint8

// The phases.
const (
	// Canary: one message at a time, and its verdict is waited for.
	Canary Phase = iota
	// Growing: no limit on rate was met yet; each success widens the window.
	Growing
	// Paced: the limit on rate is known, and approached from below.
	Paced
	// Broken: nothing more is tried; the rest stays on hold.
	Broken
)

func (p Phase) String() string {
	return [...]string{"canary", "growing", "paced", "broken"}[p]
}

const (
	// firstPause follows a refusal that says nothing of time: long enough for a
	// bucket to fill by something that can be counted.
	firstPause = time.Second
	// longestPause bounds the doubling of pauses while nothing is taken.
	longestPause = 10 * time.Minute
	// silence is after how long without a message taken a lane is given up.
	silence = 6 * time.Hour
	// outage is the first pause after a connection failure, and outages how many
	// in a row break the lane: a host that is down is a case for triage.
	outage  = 5 * time.Second
	outages = 6
	// below is the part of the measured limit that is used: a provider's clock
	// and the pace of Postfix are not exact to a percent.
	below = 0.98
	// firstStep is by how much the pace is raised to learn whether more is
	// allowed. Steps grow while they are not refused.
	firstStep, lastStep = 0.05, 0.25
	firstQuiet          = 2 * time.Second
	// budget is the share of refusals beyond which a limit that is known for
	// sure is not tried again.
	budget       = 0.006
	longestQuiet = 5 * time.Minute
	// recent is how many verdicts the breaker looks at.
	recent = 20
)

// lane is the controller of one next hop. It knows two limits of a provider:
// how many connections at once, and how many transactions in a time. Both are
// unknown at first, and met by small overshoot: the first refusal of a rate
// tells that the burst is spent, and what is taken between two refusals, over
// the time between them, is the rate itself, for a provider that counts by
// bucket as for one that counts by window.
type lane struct {
	name    string
	ceiling Ceiling
	phase   Phase
	why     string // of Broken

	window float64
	top    float64 // more than this at once were refused; 0: not known
	floor  float64 // as far as the echoes of one refusal lower top
	flying int
	alone  bool // a message wider than the window is on its way

	pace     float64 // transactions a second; 0: not known
	credit   float64
	creditAt time.Time
	let      int       // let go since the pace was last set,
	letAt    time.Time // at that time

	until    time.Time // nothing is let go before
	reacted  time.Time // refusals of what was let go before are echoes
	epoch    time.Time // of the last refusal, or of the start
	measured bool      // epoch is a refusal, so the burst was spent then
	bounded  bool      // pace is only a bound: burst and rate together made it
	spent    int       // what was taken before the first refusal,
	from     time.Time // and since when
	closed   time.Time // when it was refused after something had been taken
	shut     time.Duration
	echo     int       // how many refusals the last one was
	met      int       // refused when it came
	rise     time.Time // when the pace was first raised since epoch,
	before   int       // and what had been taken until then
	sure     bool      // the limit was met where it was thought to be
	taken    int       // since epoch
	patience time.Duration

	quiet  time.Duration // how long not to raise after a refusal
	calm   time.Time     // when the pace may be raised next
	step   float64
	widen  time.Time // when the window may be tried wider than top
	narrow time.Duration

	lastTaken time.Time
	failures  int
	verdicts  [recent]Kind
	judged    int

	accepted, refused int
	heard             int // accepted or greylisted

	grey     time.Duration // the age at which greylisted messages get through; 0: not known
	explorer int           // the item that finds it out, -1: none
}

func newLane(name string, c Ceiling, now time.Time) *lane {
	l := &lane{
		name: name, ceiling: c, window: 1, creditAt: now, epoch: now, lastTaken: now,
		patience: firstPause, quiet: firstQuiet, step: firstStep, narrow: firstQuiet, explorer: -1,
	}
	l.reacted = now.Add(-1)
	if c.Rate > 0 {
		l.credit = 1
	}
	return l
}

// rate is the pace in force, 0 where none is.
func (l *lane) rate() float64 {
	switch {
	case l.pace == 0:
		return l.ceiling.Rate
	case l.ceiling.Rate == 0:
		return l.pace
	}
	return math.Min(l.pace, l.ceiling.Rate)
}

// earn adds what time has brought to the credit. Credit does not pile up: what
// was not used cannot be made good by a burst.
func (l *lane) earn(now time.Time) {
	r := l.rate()
	if r > 0 && now.After(l.creditAt) {
		l.credit = math.Min(l.credit+now.Sub(l.creditAt).Seconds()*r, math.Max(1, r/20))
	}
	if now.After(l.creditAt) {
		l.creditAt = now
	}
}

// never is returned by admit where only a result can change anything.
var never time.Time

// admit says whether a message of so many transactions may go now, and if not,
// when to ask again; never is after the next result.
func (l *lane) admit(now time.Time, cost int) (bool, time.Time) {
	switch {
	case l.phase == Broken:
		return false, never
	case now.Before(l.until):
		return false, l.until
	case l.alone:
		return false, never
	case l.flying > 0 && (l.phase == Canary || l.flying+cost > int(l.window)):
		return false, never
	}
	l.raise(now)
	l.earn(now)
	if r := l.rate(); r > 0 && l.credit < 1-1e-9 {
		return false, now.Add(time.Duration((1-l.credit)/r*float64(time.Second)) + time.Microsecond)
	}
	return true, never
}

// spend books a message that goes. The credit may become a debt: a wide message
// is paid for afterwards.
func (l *lane) spend(now time.Time, cost int) {
	l.earn(now)
	l.alone = cost > int(l.window)
	l.flying += cost
	l.let += cost
	if l.rate() > 0 {
		l.credit -= float64(cost)
	}
}

// other books a transaction at the next hop that is not the job's own: new mail
// has its right, and the provider counts both.
func (l *lane) other(now time.Time, taken bool) {
	l.earn(now)
	if r := l.rate(); r > 0 {
		// New mail goes first, but what it took long ago is not owed for ever.
		l.credit = math.Max(l.credit-1, -math.Max(1, r))
	}
	if taken {
		l.taken++
	}
}

// raise goes nearer to the limit when there was quiet long enough.
func (l *lane) raise(now time.Time) {
	if l.phase == Paced && now.After(l.calm) && l.taken > 0 && l.affords(now) {
		l.earn(now)
		// A pace that the window or the work does not let it reach was not tried,
		// and says nothing of a higher one.
		if reached := float64(l.let) >= 0.75*l.pace*now.Sub(l.letAt).Seconds(); reached {
			if l.step == firstStep {
				l.rise, l.before = now, l.taken
			}
			l.pace *= 1 + l.step
			l.step = math.Min(l.step*1.5, lastStep)
		}
		l.let, l.letAt = 0, now
		l.calm = now.Add(max(500*time.Millisecond, l.span(5)))
	}
	if l.top > 0 && now.After(l.widen) && float64(l.refused+1) <= math.Max(3, budget*float64(l.accepted)) && l.window >= l.top && (l.ceiling.Window == 0 || l.top < float64(l.ceiling.Window)) {
		l.top++
		l.window = l.top
		l.widen = now.Add(l.narrow)
	}
}

// affords says whether another refusal, with its echoes, is worth what may be
// learnt by it.
func (l *lane) affords(now time.Time) bool {
	b := budget
	if !l.sure {
		if now.Sub(l.epoch) > max(l.quiet, 5*firstQuiet) {
			return true
		}
		b *= 3
	}
	return float64(l.refused+max(1, l.echo)) <= max(3, b*float64(l.accepted))
}

// span is how long n transactions take at the pace.
func (l *lane) span(n float64) time.Duration {
	return time.Duration(n / l.pace * float64(time.Second))
}

// result takes what became of cost transactions that were let go at sent.
func (l *lane) result(now, sent time.Time, cost int, r Result) {
	inFlight := l.flying
	l.flying = max(0, l.flying-cost)
	if l.flying == 0 {
		l.alone = false
	}
	if r.Kind != Suspended {
		l.verdicts[l.judged%recent] = r.Kind
		l.judged++
	}
	switch r.Kind {
	case Accepted:
		l.accepted += cost
		l.success(now, sent, cost)
	case Greylisted:
		l.success(now, sent, cost) // it was heard; when to come again is the message's affair
	case Throttled:
		l.refused += cost
		l.throttled(now, sent, r.Asked)
	case Crowded:
		l.refused += cost
		l.crowded(now, sent, inFlight, r.Asked)
	case Deferred:
		if l.share(Deferred, 10) > 0.5 {
			l.throttled(now, sent, r.Asked)
		}
	case Unreachable:
		l.unreachable(now, sent, r.Asked)
	case Bounced:
		l.bounced()
	case Suspended:
		l.phase = min(l.phase, Canary)
		l.pause(now, firstPause)
	}
	if l.phase != Broken && now.Sub(l.lastTaken) > silence && r.Kind != Accepted {
		l.breakOff("nothing was taken for " + silence.String())
	}
}

func (l *lane) breakOff(why string) { l.phase, l.why = Broken, why }

func (l *lane) pause(now time.Time, d time.Duration) {
	if u := now.Add(d); u.After(l.until) {
		l.until = u
	}
}

// wait pauses for longer than the last time.
func (l *lane) wait(now time.Time) {
	l.pause(now, l.patience)
	l.patience = min(2*l.patience, longestPause)
}

// share of a kind among the last n verdicts, 0 while there are fewer.
func (l *lane) share(k Kind, n int) float64 {
	if l.judged < n {
		return 0
	}
	c := 0
	for i := l.judged - n; i < l.judged; i++ {
		if l.verdicts[i%recent] == k {
			c++
		}
	}
	return float64(c) / float64(n)
}

func (l *lane) success(now, sent time.Time, cost int) {
	l.heard += cost
	l.lastTaken = now
	l.failures = 0
	if !sent.After(l.reacted) {
		return // it belongs to what was before the refusal
	}
	l.taken += cost
	l.reopened(now)
	switch l.phase {
	case Broken:
		return
	case Canary:
		l.phase = Growing
		if l.pace > 0 {
			l.phase = Paced
		}
	case Growing, Paced:
	}
	// The window is as many refusals as one overshoot can cost, so it is earned:
	// a tenth of what was taken.
	bound := 2 + float64(l.heard)/10
	if l.top > 0 {
		bound = math.Min(bound, l.top)
	}
	if l.ceiling.Window > 0 {
		bound = math.Min(bound, float64(l.ceiling.Window))
	}
	if l.window < bound {
		l.window = math.Min(l.window+1, bound)
	}
}

// reopened learns from how long the next hop was closed.
func (l *lane) reopened(now time.Time) {
	if l.closed.IsZero() {
		l.patience = firstPause
		return
	}
	l.shut = now.Sub(l.closed)
	l.closed = never
	// Who was closed for a minute is asked no more often than a few times in one.
	l.patience = max(firstPause, l.shut/4)
	if l.bounded && l.spent > 0 && l.shut > 3*firstPause {
		// It counts by window: what it took before it closed is the window's, and
		// there is no need to spend the next one at once too.
		l.pace, l.bounded = math.Min(l.pace, below*float64(l.spent)/now.Sub(l.from).Seconds()), false
		l.calm = now.Add(max(l.quiet, 2*l.shut))
	}
}

// throttled learns the rate from what was taken since the last refusal.
func (l *lane) throttled(now, sent time.Time, asked time.Duration) {
	if l.phase == Broken {
		return
	}
	if asked > 0 {
		l.pause(now, asked)
	}
	if !sent.After(l.reacted) {
		l.echo = l.refused - l.met
		return
	}
	l.met, l.echo = l.refused-1, 1
	elapsed := now.Sub(l.epoch)
	// One message asks whether it is open again, not a window full.
	l.phase = Canary
	lower := float64(l.taken) / math.Max(elapsed.Seconds(), 1e-3)
	if l.closed.IsZero() {
		l.closed = now
	}
	switch {
	case l.taken == 0:
		// It is still closed: ask less and less often.
		l.wait(now)
		// The time of waiting belongs to what was spent before it, so the epoch
		// stays.
		l.reacted = now
		return
	case !l.measured:
		// The burst is spent. How large it was does not matter; what comes in
		// from now on is the rate.
		l.pause(now, firstPause)
		l.spent, l.from = l.taken, l.epoch
		// Rate and burst together gave this much, so the rate alone is less: to
		// come at it from above spends what is left, and then measures.
		l.pace, l.bounded = lower, true
	case l.bounded:
		l.bounded, l.sure = false, l.taken >= recent
		l.pace = math.Min(lower, l.pace) * below
		l.pause(now, min(firstPause, l.span(3)))
	case elapsed < 2*time.Second:
		// So soon again means that the limit is another one now, or that the
		// measure was wrong: measure again.
		l.pace = math.Min(math.Max(lower, l.pace/2), l.pace*0.8)
		l.sure = false
		l.pause(now, firstPause)
	default:
		l.sure = lower > 0.85*l.pace
		if up := now.Sub(l.rise).Seconds(); lower < 0.7*l.pace && !l.rise.IsZero() && up > 1 {
			// The time before the rise says only what was asked for.
			lower = math.Max(lower, float64(l.taken-l.before)/up)
		}
		l.pace = math.Min(math.Max(lower, l.pace/3)*below, l.pace*0.95)
		l.pause(now, min(firstPause, l.span(3)))
	}
	// Who met a limit where it was thought to be learns nothing by asking again
	// soon; who met it elsewhere does.
	if l.measured && elapsed >= l.quiet {
		l.quiet = min(2*l.quiet, longestQuiet)
	}
	l.calm = l.until.Add(max(l.quiet, 2*l.shut))
	l.step = firstStep
	l.credit, l.let, l.letAt = math.Min(l.credit, 0), 0, l.until
	l.measured, l.epoch, l.taken, l.reacted, l.rise = true, now, 0, now, never
}

// crowded learns how many connections are allowed.
func (l *lane) crowded(now, sent time.Time, inFlight int, asked time.Duration) {
	if l.phase == Broken {
		return
	}
	if asked > 0 {
		l.pause(now, asked)
	}
	if !sent.After(l.reacted) {
		if l.top > l.floor {
			l.top-- // each that was refused of those that went together
			l.window = math.Min(l.window, l.top)
		}
		return
	}
	l.reacted = now
	if inFlight <= 1 {
		// Even one is too many: it is no matter of the window.
		l.wait(now)
		l.window = 1
		return
	}
	known := l.top > 0
	l.top = math.Max(1, math.Min(math.Floor(l.window), float64(inFlight))-1)
	if l.floor = l.top; !known {
		l.floor = math.Ceil(l.top / 2)
	}
	l.window = l.top
	l.narrow = min(2*l.narrow, longestQuiet)
	l.widen = now.Add(l.narrow)
	l.pause(now, 200*time.Millisecond)
}

func (l *lane) unreachable(now, sent time.Time, asked time.Duration) {
	if l.phase == Broken || !sent.After(l.reacted) {
		return
	}
	l.failures++
	l.reacted = now
	if l.failures >= outages {
		l.breakOff(fmt.Sprintf("no connection came about, %d times in a row", l.failures))
		return
	}
	l.phase, l.window = Canary, 1
	l.pause(now, max(asked, outage<<(l.failures-1)))
}

// bounced stops the lane before the backlog is returned to its senders: that
// cannot be taken back.
func (l *lane) bounced() {
	bounces := 0
	for i := max(0, l.judged-recent); i < l.judged; i++ {
		if l.verdicts[i%recent] == Bounced {
			bounces++
		}
	}
	switch seen := min(l.judged, recent); {
	case bounces >= 2 && bounces == seen, bounces >= 3 && bounces*5 >= seen:
		l.breakOff(fmt.Sprintf("%d of the last %d bounced", bounces, seen))
	}
}
