package replay

import (
	"cmp"
	"testing"
	"time"
)

// TestKnownProviders replays against providers of the kinds that operators
// meet, and holds it to a bound: 1.15 times what the provider needs by its own
// limits and two seconds for finding them out, and refusals for one attempt in
// a hundred. Where a limit changes, or counts by window, it is not there yet:
// these have bounds of their own, which only keep it from getting worse.
func TestKnownProviders(t *testing.T) {
	const second, ms = time.Second, time.Millisecond
	for _, c := range []struct {
		name         string
		n            int
		p            provider
		best         time.Duration
		ratio, share float64 // 1.15 and 0.01 unless set
	}{
		{
			"20/s burst 20, 5 connections, box", 1000,
			provider{rate: 20, burst: 20, conns: 5, latency: 50 * ms, boxAfter: 60, boxWindow: 10 * second, boxFor: 30 * second},
			49 * second, 0, 0,
		},
		{
			"7/s burst 3, 3 connections, box", 1000,
			provider{rate: 7, burst: 3, conns: 3, latency: 50 * ms, boxAfter: 25, boxWindow: 10 * second, boxFor: 30 * second},
			142429 * ms, 0, 0,
		},
		{"2 connections of 400 ms", 500, provider{conns: 2, latency: 400 * ms}, 100 * second, 0, 0},
		{"50/s, greylisting 15 s", 1000, provider{rate: 50, burst: 50, latency: 50 * ms, grey: 15 * second}, 34 * second, 0, 0},
		{"100/s, then 10/s", 2000, provider{rate: 100, burst: 100, latency: 50 * ms, turns: 10 * second, turn: 0.1}, 10*second + 90*second, 0, 0.0125},
		{"two hosts, one dead", 1000, provider{rate: 20, burst: 20, latency: 50 * ms, slowHost: 0.5, slowBy: 100 * ms}, 49 * second, 0, 0},
		{"no limit", 3000, provider{latency: 20 * ms}, 6400 * ms, 0, 0},
		{"300 a minute, counted by the minute", 1500, provider{per: time.Minute, burst: 300, latency: 50 * ms}, 240 * second, 1.4, 0.025},
		{"5 in any second", 500, provider{per: second, burst: 5, slide: true, latency: 50 * ms}, 99 * second, 1.25, 0.02},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.p
			w := &world{c: one(c.n, Ceiling{Window: 20}), providers: []*provider{&p}, now: zero, items: make([]int, c.n)}
			if testing.Verbose() {
				w.after = func(w *world, e event) {
					if e.r.Kind == Throttled || e.r.Kind == Crowded {
						s, l := w.c.State(0), w.c.lanes[0]
						t.Logf("%8.2f kind %d window %d rate %.2f flying %d accepted %d refused %d pause %v sure %v", w.now.Sub(zero).Seconds(),
							e.r.Kind, s.Window, s.Rate, s.Flying, s.Accepted, s.Refused, l.until.Sub(w.now).Round(time.Millisecond), l.sure)
					}
				}
			}
			if err := w.run(24 * time.Hour); err != nil {
				t.Fatal(err)
			}
			took, few := w.ended[0].Sub(zero), max(3, int(float64(p.attempts-p.greyed)*cmp.Or(c.share, 0.01)))
			ratio := took.Seconds() / (c.best + 2*second).Seconds()
			t.Logf("%v, best %v: %.2f; refused %d of %d, boxes %d", took.Round(100*ms), c.best+2*second, ratio, p.refused, p.attempts-p.greyed, p.boxes)
			if w.gone[0] != c.n || ratio > cmp.Or(c.ratio, 1.15) || p.refused > few || p.boxes > 0 {
				t.Errorf("%d of %d taken, in %.2f of the time it needs, refused %d (at most %d), boxes %d", w.gone[0], c.n, ratio, p.refused, few, p.boxes)
			}
		})
	}
}
