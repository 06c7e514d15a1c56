package replay

import (
	"cmp"
	"container/heap"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	howMany = flag.Int("providers", 600, "how many generated providers to replay against")
	first   = flag.Uint64("seed", 1, "the first seed")
	list    = flag.Int("list", 0, "how many of the slowest to list")
)

// provider is a receiving side in virtual time.
type provider struct {
	kind    string
	dice    *rand.Rand
	latency time.Duration
	conns   int // 0: no limit

	rate  float64 // 0: no limit
	burst float64
	per   time.Duration // fixed and sliding windows: burst in this span
	slide bool
	grow  time.Duration // the rate doubles in this time
	turns time.Duration // when the limit changes, by factor
	turn  float64

	boxAfter          int
	boxWindow, boxFor time.Duration
	quota             int // a day
	grey              time.Duration
	greyTold          bool
	noise             float64
	others            float64 // share of the limit that others use
	dead, bounces     bool
	slowHost          float64 // share of connections that meet a dead host first,
	slowBy            time.Duration

	tokens   float64
	at       time.Time
	began    time.Time
	windowAt time.Time
	inWindow int
	stamps   []time.Time
	open     int
	refusals []time.Time
	boxed    time.Time
	today    int
	seen     map[int]time.Time

	boxes, refused, greyed, attempts int
}

func (p *provider) start(now time.Time) {
	p.at, p.began, p.windowAt, p.tokens = now, now, now, p.burst
	p.seen = make(map[int]time.Time)
	if p.dice == nil {
		p.dice = rand.New(rand.NewPCG(1, 1))
	}
}

func (p *provider) factor(now time.Time) float64 {
	f := 1.0
	if p.grow > 0 {
		f *= math.Exp2(float64(now.Sub(p.began)) / float64(p.grow))
	}
	if p.turns > 0 && now.Sub(p.began) > p.turns {
		f *= p.turn
	}
	return f
}

// room says whether the limit on rate lets one more through, and take spends it.
func (p *provider) room(now time.Time) bool {
	if now.Before(p.boxed) || p.quota > 0 && p.today >= p.quota && now.Sub(p.began) < 24*time.Hour {
		return false
	}
	switch {
	case p.rate == 0 && p.per == 0:
		return true
	case p.per == 0:
		gained := now.Sub(p.at).Seconds() * p.rate * p.factor(now)
		if p.others > 0 && gained > 0 {
			gained *= max(0, 1-p.others*2*p.dice.Float64())
		}
		p.tokens = math.Min(p.burst, p.tokens+gained)
		p.at = now
		return p.tokens >= 1
	case p.slide:
		old := now.Add(-p.per)
		for len(p.stamps) > 0 && !p.stamps[0].After(old) {
			p.stamps = p.stamps[1:]
		}
		return float64(len(p.stamps)) < p.burst
	default:
		for now.Sub(p.windowAt) >= p.per {
			p.windowAt, p.inWindow = p.windowAt.Add(p.per), 0
		}
		return float64(p.inWindow) < p.burst
	}
}

func (p *provider) take(now time.Time) {
	p.tokens--
	p.inWindow++
	p.today++
	if p.slide {
		p.stamps = append(p.stamps, now)
	}
}

func (p *provider) refuse(now time.Time) {
	p.refused++
	if p.boxAfter == 0 || now.Before(p.boxed) {
		return
	}
	old := now.Add(-p.boxWindow)
	p.refusals = append(slices.DeleteFunc(p.refusals, func(t time.Time) bool { return t.Before(old) }), now)
	if len(p.refusals) >= p.boxAfter {
		p.boxes++
		p.boxed, p.refusals = now.Add(p.boxFor), nil
	}
}

// attempt answers one transaction: what, and how long the connection is open.
func (p *provider) attempt(now time.Time, n int) (Result, time.Duration) {
	p.attempts++
	switch {
	case p.dead:
		return Result{Kind: Unreachable}, p.latency
	case p.bounces:
		p.refused++
		return Result{Kind: Bounced}, p.latency
	}
	hello := p.latency / 4
	if p.slowHost > 0 && p.dice.Float64() < p.slowHost {
		hello += p.slowBy
	}
	if p.conns > 0 && p.open >= p.conns {
		p.refuse(now)
		return Result{Kind: Crowded}, hello
	}
	if p.grey > 0 {
		at, known := p.seen[n]
		if !known {
			p.seen[n] = now
			at = now
		}
		if left := p.grey - now.Sub(at); left > 0 {
			r := Result{Kind: Greylisted}
			if p.greyTold {
				r.Asked = left
			}
			if !known {
				p.greyed++
			} else {
				p.refused++
			}
			return r, hello
		}
	}
	if p.noise > 0 && p.dice.Float64() < p.noise {
		return Result{Kind: Deferred}, hello
	}
	if !p.room(now) {
		p.refuse(now)
		return Result{Kind: Throttled}, hello
	}
	p.take(now)
	return Result{Kind: Accepted}, hello + time.Duration(float64(p.latency)*(0.5+0.5*p.dice.Float64()))
}

// generate makes a provider and a backlog by seed.
func generate(seed uint64) (*provider, int, Ceiling) {
	d := rand.New(rand.NewPCG(seed, 7))
	between := func(lo, hi float64) float64 { return lo * math.Pow(hi/lo, d.Float64()) }
	p := &provider{dice: rand.New(rand.NewPCG(seed, 11)), latency: time.Duration(between(0.01, 2) * float64(time.Second))}
	n := int(between(50, 5000))
	var kinds []string
	limit := func() {
		p.rate = between(0.5, 200)
		p.burst = math.Ceil(between(1, 100))
	}
	switch d.IntN(10) {
	case 0:
		kinds = append(kinds, "unlimited")
	case 1, 2, 3:
		kinds = append(kinds, "bucket")
		limit()
	case 4, 5:
		kinds = append(kinds, "fixed")
		p.per = time.Duration(between(1, 120)) * time.Second
		p.burst = math.Ceil(between(5, 500))
	case 6, 7:
		kinds = append(kinds, "sliding")
		p.per, p.slide = time.Duration(between(1, 120))*time.Second, true
		p.burst = math.Ceil(between(5, 500))
	case 8:
		kinds = append(kinds, "warm-up")
		limit()
		p.grow = time.Duration(between(60, 1800)) * time.Second
	case 9:
		kinds = append(kinds, "changing")
		limit()
		p.turn = between(0.1, 4)
		p.turns = time.Duration(0.5 * float64(n) / p.rate * float64(time.Second))
	}
	add := func(chance float64, kind string, f func()) {
		if d.Float64() < chance {
			kinds = append(kinds, kind)
			f()
		}
	}
	add(0.4, "connections", func() { p.conns = int(between(1, 20)) })
	add(0.3, "box", func() {
		p.boxAfter, p.boxWindow, p.boxFor = 20+d.IntN(60), 10*time.Second, time.Duration(between(10, 300))*time.Second
	})
	add(0.1, "greylist", func() { p.grey, p.greyTold = time.Duration(between(5, 600))*time.Second, d.IntN(2) == 0 })
	add(0.2, "noise", func() { p.noise = between(0.001, 0.05) })
	add(0.1, "two-hosts", func() { p.slowHost, p.slowBy = 0.5, time.Second })
	if p.rate > 0 {
		add(0.2, "shared", func() { p.others = between(0.05, 0.4) })
	}
	add(0.03, "quota", func() { p.quota = n / 2 })
	p.kind = strings.Join(kinds, "+")
	ceiling := Ceiling{Window: 20}
	if d.IntN(10) == 0 {
		ceiling = Ceiling{Window: 1 + d.IntN(20), Rate: between(1, 100)}
	}
	return p, n, ceiling
}

type event struct {
	at    time.Time
	item  int
	what  int // 0 arrives at the provider, 1 its connection ends, 2 the result is seen
	lane  int
	r     Result
	order int
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if c := e[i].at.Compare(e[j].at); c != 0 {
		return c < 0
	}
	return e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

const (
	reach = 15 * time.Millisecond // from the decision to the connection
	news  = 15 * time.Millisecond // from the reply to its line in the log
)

var zero = time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)

// world drives a controller against providers, one a lane, in virtual time.
type world struct {
	c         *Controller
	providers []*provider
	items     []int // the lane of each
	now       time.Time
	queue     events
	order     int
	gone      []int       // by lane
	ended     []time.Time // the last acceptance of each lane
	twice     int
	done      []bool
	check     func(w *world, e event) // before a result is told
	after     func(w *world, e event)
	flew      func(w *world, n int)
}

func (w *world) push(e event) {
	w.order++
	e.order = w.order
	heap.Push(&w.queue, e)
}

func (w *world) run(limit time.Duration) error {
	w.gone, w.ended, w.done = make([]int, len(w.providers)), make([]time.Time, len(w.providers)), make([]bool, len(w.items))
	for _, p := range w.providers {
		p.start(w.now)
	}
	var release []int
	for end := w.now.Add(limit); ; {
		if w.now.After(end) {
			return fmt.Errorf("it has not ended after %v", limit)
		}
		var again time.Time
		var ended bool
		release, again, ended = w.c.Next(w.now, release[:0])
		for _, n := range release {
			if w.flew != nil {
				w.flew(w, n)
			}
			w.push(event{at: w.now.Add(reach), item: n, lane: w.items[n]})
		}
		if ended {
			return nil
		}
		if len(w.queue) == 0 && again.IsZero() {
			return fmt.Errorf("it waits for nothing: %+v", w.c.State(0))
		}
		if len(w.queue) == 0 || !again.IsZero() && again.Before(w.queue[0].at) {
			if !again.After(w.now) {
				return fmt.Errorf("it asks for a time that is over: %v", w.now.Sub(again))
			}
			w.now = again
			continue
		}
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		p := w.providers[e.lane]
		switch e.what {
		case 0:
			r, busy := p.attempt(w.now, e.item)
			p.open++
			w.push(event{at: w.now.Add(busy), item: e.item, lane: e.lane, what: 1})
			w.push(event{at: w.now.Add(busy + news), item: e.item, lane: e.lane, what: 2, r: r})
			if r.Kind == Accepted {
				if w.done[e.item] {
					w.twice++
				}
				w.done[e.item] = true
				w.gone[e.lane]++
				w.ended[e.lane] = w.now.Add(busy)
			}
		case 1:
			p.open--
		case 2:
			if w.check != nil {
				w.check(w, e)
			}
			w.c.Result(w.now, e.item, e.lane, e.r)
			if w.after != nil {
				w.after(w, e)
			}
		}
	}
}

// optimum is how long somebody needs who sees into the provider and asks only
// when it takes.
func optimum(p *provider, n int, c Ceiling) time.Duration {
	p.start(zero)
	var own time.Duration
	if p.noise > 0 {
		own = 10 * time.Second // one that is put off for its own reasons comes again
	}
	now := zero
	var busy []time.Time
	most := cmp.Or(p.conns, 20)
	most = min(most, c.Window)
	step := 10 * time.Millisecond
	var last time.Time
	next := zero
	for sent := 0; sent < n; {
		busy = slices.DeleteFunc(busy, func(t time.Time) bool { return !t.After(now) })
		if len(busy) < most && !now.Before(next) && p.room(now) {
			p.take(now)
			sent++
			end := now.Add(p.latency/4 + time.Duration(float64(p.latency)*0.75))
			if p.slowHost > 0 && p.dice.Float64() < p.slowHost {
				end = end.Add(p.slowBy)
			}
			busy = append(busy, end)
			if end.After(last) {
				last = end
			}
			if c.Rate > 0 {
				next = next.Add(time.Duration(float64(time.Second) / c.Rate))
			}
			continue
		}
		now = now.Add(step)
	}
	return last.Sub(zero) + p.grey + own + 2*time.Second
}

type figure struct {
	seed           uint64
	kind           string
	n              int
	ratio          float64
	refused, boxes int
	share          float64
	took, best     time.Duration
	left           int
	err            error
}

func replayOne(seed uint64) figure {
	p, n, ceiling := generate(seed)
	f := figure{seed: seed, kind: p.kind, n: n}
	q, _, _ := generate(seed)
	if p.quota == 0 {
		f.best = optimum(q, n, ceiling)
	}
	w := &world{c: New(zero, Ceiling{}), providers: []*provider{p}, now: zero, items: make([]int, n)}
	w.c.AddLane(zero, "x", ceiling)
	for range n {
		w.c.Add(Item{Shares: []Share{{0, 1}}})
	}
	fail := func(format string, args ...any) {
		if f.err == nil {
			f.err = fmt.Errorf(format, args...)
		}
	}
	let, letAt := 0, zero
	w.flew = func(w *world, _ int) {
		let++
		if s := w.c.State(0); s.Flying > ceiling.Window {
			fail("%d on their way, and the ceiling is %d", s.Flying, ceiling.Window)
		}
		if r := ceiling.Rate; r > 0 {
			if most := w.now.Sub(letAt).Seconds()*r + math.Max(1, r/20) + 1e-6; float64(let) > most {
				fail("%d let go in %v, and the ceiling is %.1f a second", let, w.now.Sub(letAt), r)
			}
		}
	}
	var before State
	w.check = func(w *world, _ event) { before = w.c.State(0) }
	w.after = func(w *world, e event) {
		s := w.c.State(0)
		if e.r.Kind != Throttled && e.r.Kind != Crowded {
			return
		}
		if s.Window > before.Window || before.Rate > 0 && (s.Rate == 0 || s.Rate > before.Rate) {
			fail("a refusal made it faster: %+v, then %+v", before, s)
		}
	}
	if err := w.run(60 * 24 * time.Hour); err != nil {
		fail("%w", err)
	}
	for i := range n {
		switch fate := w.c.Fate(i); {
		case fate == Gone && !w.done[i]:
			fail("%d counts as gone and was not taken", i)
		case fate != Gone && w.done[i]:
			fail("%d was taken and counts as %d", i, fate)
		case fate == Left:
			f.left++
		}
	}
	if w.twice > 0 {
		fail("%d were let go again after they were taken", w.twice)
	}
	f.took = w.ended[0].Sub(zero)
	f.refused, f.boxes = p.refused, p.boxes
	f.share = float64(p.refused) / float64(max(1, p.attempts-p.greyed))
	if f.best > 0 {
		f.ratio = f.took.Seconds() / f.best.Seconds()
	}
	return f
}

// TestProviders replays against generated providers, and says how near it came
// to what each would have allowed.
func TestProviders(t *testing.T) {
	figures := make([]figure, *howMany)
	var group sync.WaitGroup
	turn := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := range turn {
				figures[i] = replayOne(*first + uint64(i))
			}
		})
	}
	for i := range figures {
		turn <- i
	}
	close(turn)
	group.Wait()
	for _, f := range figures {
		if f.err != nil {
			t.Errorf("seed %d (%s, %d messages): %v", f.seed, f.kind, f.n, f.err)
		}
	}
	// These are no goals but a floor: the same seeds give the same figures, so
	// what falls through it was changed for the worse.
	median, few, boxed := table(t, "all", figures, func(figure) bool { return true })
	if median > 1.2 || few < 0.5 || boxed > len(figures)/500 {
		t.Errorf("time over optimum %.2f in the median, few refusals at %.0f%%, boxed by %d", median, 100*few, boxed)
	}
	for _, k := range []string{
		"unlimited", "bucket", "fixed", "sliding", "warm-up", "changing", "connections", "box", "greylist",
		"noise", "two-hosts", "shared", "quota",
	} {
		table(t, k, figures, func(f figure) bool { return strings.Contains(f.kind, k) })
	}
	slices.SortFunc(figures, func(a, b figure) int { return cmp.Compare(b.ratio, a.ratio) })
	for _, f := range figures[:min(*list, len(figures))] {
		t.Logf("seed %d %s: %d messages, %v, best %v, %.2f; refused %d, boxes %d, left %d",
			f.seed, f.kind, f.n, f.took.Round(time.Second/10), f.best.Round(time.Second/10), f.ratio, f.refused, f.boxes, f.left)
	}
}

func table(t *testing.T, name string, all []figure, which func(figure) bool) (median, few float64, boxed int) {
	t.Helper()
	var ratios, shares []float64
	boxes, good, left := 0, 0, 0
	for _, f := range all {
		if !which(f) {
			continue
		}
		if f.ratio > 0 {
			ratios = append(ratios, f.ratio)
		}
		shares = append(shares, f.share)
		boxes += f.boxes
		if f.boxes > 0 {
			boxed++
		}
		if f.refused <= 3 || f.share <= 0.01 {
			good++
		}
		left += f.left
	}
	if len(shares) == 0 {
		return 0, 1, 0
	}
	slices.Sort(ratios)
	slices.Sort(shares)
	at := func(s []float64, q float64) float64 {
		if len(s) == 0 {
			return math.NaN()
		}
		return s[int(q*float64(len(s)-1))]
	}
	median, few = at(ratios, 0.5), float64(good)/float64(len(shares))
	t.Logf("%-12s %5d  time/optimum median %5.2f  95th %6.2f  worst %7.2f   refusals median %5.2f%% 95th %5.2f%% few enough %5.1f%%   boxes %d at %d  left %d",
		name, len(shares), median, at(ratios, 0.95), at(ratios, 1),
		100*at(shares, 0.5), 100*at(shares, 0.95), 100*few, boxes, boxed, left)
	return median, few, boxed
}
