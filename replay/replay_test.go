package replay

import (
	"testing"
	"time"
)

func narrow(lane int) Item { return Item{Shares: []Share{{lane, 1}}} }

// one makes a controller with one lane and n messages.
func one(n int, c Ceiling) *Controller {
	ctl := New(zero, Ceiling{})
	ctl.AddLane(zero, "x", c)
	for range n {
		ctl.Add(narrow(0))
	}
	return ctl
}

// expect asks for what may go now and wants so many.
func expect(t *testing.T, c *Controller, now time.Time, want int) []int {
	t.Helper()
	got, _, _ := c.Next(now, nil)
	if len(got) != want {
		t.Fatalf("after %v: %d may go, want %d", now.Sub(zero), len(got), want)
	}
	return got
}

func TestOneCanaryGoesFirst(t *testing.T) {
	c := one(100, Ceiling{})
	first := expect(t, c, zero, 1)
	expect(t, c, zero.Add(time.Hour), 0) // whatever the time, its verdict is waited for
	c.Result(zero.Add(time.Hour), first[0], 0, Result{Kind: Accepted})
	expect(t, c, zero.Add(time.Hour), 2)
}

func TestWhatWasAskedIsWaitedFor(t *testing.T) {
	for _, kind := range []Kind{Throttled, Crowded} {
		c := one(10, Ceiling{})
		n := expect(t, c, zero, 1)[0]
		c.Result(zero.Add(time.Second), n, 0, Result{Kind: kind, Asked: 5 * time.Minute})
		_, again, _ := c.Next(zero.Add(2*time.Second), nil)
		if want := zero.Add(time.Second + 5*time.Minute); !again.Equal(want) {
			t.Errorf("kind %d: asks again after %v, want %v", kind, again.Sub(zero), want.Sub(zero))
		}
		expect(t, c, zero.Add(5*time.Minute), 0)
		expect(t, c, zero.Add(time.Second+5*time.Minute), 1)
	}
}

func TestSuspendedIsNoTry(t *testing.T) {
	c := one(3, Ceiling{})
	n := expect(t, c, zero, 1)[0]
	now := zero
	for range 100 { // however often: it spends neither a try nor the lane
		c.Result(now, n, 0, Result{Kind: Suspended})
		now = now.Add(time.Minute)
		n = expect(t, c, now, 1)[0]
	}
	if s := c.State(0); s.Phase == Broken || s.Refused != 0 {
		t.Errorf("the lane is %v with %d refused", s.Phase, s.Refused)
	}
}

func TestBouncesBreakTheLane(t *testing.T) {
	p := &provider{bounces: true, latency: 100 * time.Millisecond}
	w := &world{c: one(1000, Ceiling{Window: 20}), providers: []*provider{p}, now: zero, items: make([]int, 1000)}
	if err := w.run(time.Hour); err != nil {
		t.Fatal(err)
	}
	if p.refused > 2 {
		t.Errorf("%d bounced before it stopped", p.refused)
	}
	left := 0
	for i := range w.items {
		if w.c.Fate(i) == Left {
			left++
		}
	}
	if left != 1000-p.refused || w.c.State(0).Why == "" {
		t.Errorf("%d left, state %+v", left, w.c.State(0))
	}
}

// TestLateBouncesBreakTheLane: it went well for long, and then a rule of the
// other side changed.
func TestLateBouncesBreakTheLane(t *testing.T) {
	c := one(2000, Ceiling{Window: 5})
	now, bounced := zero, 0
	for seen := 0; ; {
		batch, again, ended := c.Next(now, nil)
		if ended {
			break
		}
		for _, n := range batch {
			kind := Accepted
			if seen++; seen > 500 {
				kind = Bounced
				bounced++
			}
			c.Result(now, n, 0, Result{Kind: kind})
		}
		now = now.Add(10 * time.Millisecond)
		if again.After(now) {
			now = again
		}
	}
	if bounced > 4+5 {
		t.Errorf("%d bounced before it stopped", bounced)
	}
}

func TestADeadHostBreaksTheLane(t *testing.T) {
	p := &provider{dead: true, latency: 30 * time.Second}
	w := &world{c: one(500, Ceiling{Window: 20}), providers: []*provider{p}, now: zero, items: make([]int, 500)}
	if err := w.run(24 * time.Hour); err != nil {
		t.Fatal(err)
	}
	if p.attempts != outages {
		t.Errorf("tried %d times, want %d", p.attempts, outages)
	}
}

func TestWideMessagesGoAlone(t *testing.T) {
	c := New(zero, Ceiling{})
	c.AddLane(zero, "x", Ceiling{Window: 10})
	wide := c.Add(Item{Shares: []Share{{0, 900}}})
	for range 50 {
		c.Add(narrow(0))
	}
	now, flying := zero, 0
	for {
		batch, _, ended := c.Next(now, nil)
		if ended {
			break
		}
		flying += len(batch)
		for _, n := range batch {
			if n == wide && flying != 1 {
				t.Fatalf("the wide one goes with %d others", flying-1)
			}
			if n == wide && c.State(0).Accepted == 0 {
				t.Fatal("the wide one is the canary")
			}
		}
		now = now.Add(time.Second)
		for _, n := range batch {
			flying--
			c.Result(now, n, 0, Result{Kind: Accepted})
		}
	}
	if c.Fate(wide) != Gone {
		t.Errorf("the wide one is %d", c.Fate(wide))
	}
}

func TestAMessageCostsInEachLane(t *testing.T) {
	c := New(zero, Ceiling{})
	a, b := c.AddLane(zero, "a", Ceiling{}), c.AddLane(zero, "b", Ceiling{})
	both := c.Add(Item{Shares: []Share{{a, 1}, {b, 1}}})
	other := c.Add(narrow(b))
	// The message for both is the canary of both, so b's own has to wait.
	if got := expect(t, c, zero, 1); got[0] != both {
		t.Fatalf("%d goes, want %d", got[0], both)
	}
	c.Result(zero, both, a, Result{Kind: Accepted})
	if c.Fate(both) != Flying {
		t.Fatal("one of two lanes has answered, and it counts as ended")
	}
	now := zero.Add(time.Second)
	c.Result(now, both, b, Result{Kind: Throttled})
	for c.Fate(both) != Gone || c.Fate(other) != Gone {
		now = now.Add(time.Second)
		batch, _, _ := c.Next(now, nil)
		for _, n := range batch {
			c.Result(now, n, a, Result{Kind: Bounced}) // a had its part: it must not be asked again
			c.Result(now, n, b, Result{Kind: Accepted})
		}
		if now.Sub(zero) > time.Hour {
			t.Fatal("it does not end")
		}
	}
	if s := c.State(a); s.Accepted != 1 || s.Phase == Broken {
		t.Errorf("lane a: %+v", s)
	}
}

func TestABrokenLaneKeepsWhatItShares(t *testing.T) {
	c := New(zero, Ceiling{})
	a, b := c.AddLane(zero, "a", Ceiling{}), c.AddLane(zero, "b", Ceiling{})
	c.lanes[b].breakOff("test")
	shared, own := c.Add(Item{Shares: []Share{{a, 1}, {b, 1}}}), c.Add(narrow(a))
	if got := expect(t, c, zero, 1); got[0] != own || c.Fate(shared) != Left {
		t.Errorf("%v goes, and the shared one is %d", got, c.Fate(shared))
	}
}

// TestGreylisting: one message finds out how long it takes, all others are
// refused once.
func TestGreylisting(t *testing.T) {
	for _, told := range []bool{false, true} {
		p := &provider{grey: 15 * time.Second, greyTold: told, latency: 50 * time.Millisecond}
		w := &world{c: one(500, Ceiling{Window: 20}), providers: []*provider{p}, now: zero, items: make([]int, 500)}
		if err := w.run(time.Hour); err != nil {
			t.Fatal(err)
		}
		if p.refused > 3 || w.gone[0] != 500 {
			t.Errorf("told %v: %d refused more than once, %d taken", told, p.refused, w.gone[0])
		}
		if took := w.ended[0].Sub(zero); took > 25*time.Second {
			t.Errorf("told %v: it took %v", told, took)
		}
	}
}

// TestLanesAreIndependent: what happens in one lane changes nothing in another.
func TestLanesAreIndependent(t *testing.T) {
	build := func(lanes int) (*world, int) {
		w := &world{c: New(zero, Ceiling{}), now: zero}
		for i := range lanes {
			p := &provider{latency: 50 * time.Millisecond, rate: float64(1 + i), burst: 5}
			switch i {
			case 1:
				p = &provider{dead: true, latency: 30 * time.Second}
			case 2:
				p = &provider{bounces: true, latency: 10 * time.Millisecond}
			}
			w.providers = append(w.providers, p)
			w.c.AddLane(zero, "", Ceiling{Window: 20})
		}
		for range 100 {
			for i := range lanes {
				w.c.Add(narrow(i))
				w.items = append(w.items, i)
			}
		}
		return w, lanes
	}
	few, _ := build(4)
	many, lanes := build(40)
	for _, w := range []*world{few, many} {
		if err := w.run(24 * time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := few.ended[0].Sub(zero), many.ended[0].Sub(zero); (a - b).Abs() > a/100 {
		t.Errorf("lane 0 ends after %v beside 3 others, and after %v beside %d", a, b, lanes-1)
	}
	for i := range lanes {
		if want := 100; i != 1 && i != 2 && many.gone[i] != want {
			t.Errorf("lane %d: %d of %d taken", i, many.gone[i], want)
		}
	}
}

// TestCeilingsOverAll bounds the lanes together, and shares what there is.
func TestCeilingsOverAll(t *testing.T) {
	c := New(zero, Ceiling{Window: 8, Rate: 10})
	const lanes = 5
	items := make(map[int]int)
	for i := range lanes {
		c.AddLane(zero, "", Ceiling{})
		for range 100 {
			items[c.Add(narrow(i))] = i
		}
	}
	now, let := zero, 0
	gone := make([]int, lanes)
	for now.Sub(zero) < 30*time.Second {
		batch, _, _ := c.Next(now, nil)
		let += len(batch)
		if most := 10*now.Sub(zero).Seconds() + 2; float64(let) > most {
			t.Fatalf("%d let go in %v", let, now.Sub(zero))
		}
		now = now.Add(20 * time.Millisecond)
		for _, n := range batch {
			c.Result(now, n, items[n], Result{Kind: Accepted})
			gone[items[n]]++
		}
	}
	for i, n := range gone {
		if n < 50 || n > 70 {
			t.Errorf("lane %d had %d of %d", i, n, let)
		}
	}
}

// TestNewMailCounts: what others send to the next hop is part of its pace.
func TestNewMailCounts(t *testing.T) {
	gone := func(others int) int {
		c := one(1000, Ceiling{Rate: 20})
		n := 0
		for now := zero; now.Sub(zero) < 20*time.Second; now = now.Add(10 * time.Millisecond) {
			if now.Sub(zero)%(100*time.Millisecond) == 0 {
				for range others {
					c.Other(now, 0, true)
				}
			}
			batch, _, _ := c.Next(now, nil)
			for _, i := range batch {
				c.Result(now, i, 0, Result{Kind: Accepted})
				n++
			}
		}
		return n
	}
	alone, beside := gone(0), gone(1)
	if beside > alone*6/10 || beside < alone*4/10 {
		t.Errorf("%d beside new mail that takes half of the pace, %d without", beside, alone)
	}
}

// BenchmarkNext: a job of 100,000 over many next hops is decided quickly.
func BenchmarkNext(b *testing.B) {
	const lanes, each = 50, 2000
	for b.Loop() {
		c := New(zero, Ceiling{})
		items := make([]int, 0, lanes*each)
		for i := range lanes {
			c.AddLane(zero, "", Ceiling{Window: 20})
			for range each {
				c.Add(narrow(i))
				items = append(items, i)
			}
		}
		var batch []int
		for now, ended := zero, false; !ended; now = now.Add(50 * time.Millisecond) {
			batch, _, ended = c.Next(now, batch[:0])
			for _, n := range batch {
				c.Result(now, n, items[n], Result{Kind: Accepted})
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lanes*each), "ns/message")
}
