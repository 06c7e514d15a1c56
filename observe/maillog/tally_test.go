package maillog

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/observe"
)

var newest = time.Date(2026, 11, 23, 23, 0, 0, 0, time.UTC)

func options(detail bool) Options {
	return Options{SyslogName: "postfix", Location: time.UTC, Detail: detail}
}

func tallied(o Options, blocks ...[]byte) *Tally {
	all := NewTally(o)
	for i, b := range blocks {
		t := all
		if i > 0 {
			t = NewTally(o)
		}
		t.Text(b, observe.TrustPlain, newest)
		if i > 0 {
			all.Merge(t)
		}
	}
	return all
}

// both is everything that a tally tells.
type both struct {
	Log     *observe.Log
	Summary *Summary
}

func told(t *Tally) both { return both{t.Log(), t.Summary()} }

// TestFiguresAreThoseOfTheLog holds a tally against what the generator knows
// that it wrote.
func TestFiguresAreThoseOfTheLog(t *testing.T) {
	for seed := range uint64(4) {
		g := generate(seed, 300_000)
		got := tallied(options(true), g.Bytes()).Summary()
		want := Summary{
			Lines: g.lines, Received: g.arrived, BytesReceived: g.bytes, Delivered: g.delivered, Deferrals: g.deferred,
			Suspended: g.suspended, DeferredMessages: int64(len(g.deferredIDs)), Bounced: g.bounced, Rejected: g.rejected, Held: g.held,
		}
		ignored := cmpopts.IgnoreFields(Summary{}, "First", "Last", "Reasons", "Destinations", "Senders", "UnreadSamples", "SuspectSamples")
		if diff := cmp.Diff(want, *got, ignored); diff != "" {
			t.Errorf("seed %d (-want +got):\n%s", seed, diff)
		}
		var sum SummaryDestination
		for _, d := range got.Destinations {
			sum.Delivered += d.Delivered
			sum.Deferred += d.Deferred
			sum.Bounced += d.Bounced
		}
		if sum != (SummaryDestination{Delivered: g.delivered, Deferred: g.deferred + g.suspended, Bounced: g.bounced}) {
			t.Errorf("seed %d: destinations together are %+v", seed, sum)
		}
	}
}

// TestPartsGiveTheWhole cuts a log at every line, and into many parts at once.
func TestPartsGiveTheWhole(t *testing.T) {
	for seed := range uint64(6) {
		log := generate(100+seed, 40_000).Bytes()
		want := told(tallied(options(true), log))
		for at := 0; at < len(log); at += bytes.IndexByte(log[at:], '\n') + 1 {
			if diff := cmp.Diff(want, told(tallied(options(true), log[:at], log[at:]))); diff != "" {
				t.Fatalf("seed %d cut at byte %d (-whole +parts):\n%s", seed, at, diff)
			}
		}
		for _, size := range []int{200, 1000, 7000} {
			if diff := cmp.Diff(want, told(tallied(options(true), parts(log, size)...))); diff != "" {
				t.Fatalf("seed %d in parts of %d bytes (-whole +parts):\n%s", seed, size, diff)
			}
		}
	}
}

// parts cuts a log at newlines into parts of about a size.
func parts(log []byte, size int) (blocks [][]byte) {
	for len(log) > size {
		n := size + bytes.IndexByte(log[size:], '\n') + 1
		if n == size {
			break
		}
		blocks, log = append(blocks, log[:n]), log[n:]
	}
	return append(blocks, log)
}

func BenchmarkTally(b *testing.B) {
	for _, c := range []struct {
		name        string
		detail, iso bool
	}{{"summary", false, false}, {"triage", true, false}, {"triage-rfc3339", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			g := newGenerator(1)
			g.iso, g.domains = c.iso, 3000
			for g.Len() < 32<<20 {
				g.step()
			}
			b.SetBytes(int64(g.Len()))
			b.ReportMetric(float64(g.Len())/float64(g.lines), "B/line")
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				NewTally(options(c.detail)).Text(g.Bytes(), observe.TrustPlain, newest)
			}
		})
	}
}
