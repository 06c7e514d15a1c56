package present

import (
	"fmt"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// BenchmarkTally is what counting adds to reading: a queue of 100,000 by cause,
// and by text, which has to reduce each reason.
func BenchmarkTally(b *testing.B) {
	shard := observe.NewShard()
	for i := range 100_000 {
		address := fmt.Sprintf("user%d@dest%d.example", i, i%200)
		shard.Add(&postfix.Message{
			Queue: postfix.Deferred, ID: postfix.NewShortID(at, uint64(i)), Arrival: at.Add(-time.Duration(i) * time.Second), Size: int64(i), Sender: "news@shop.example",
			Recipients: []postfix.Recipient{{Address: address, Status: "4.2.0", Reason: fmt.Sprintf("host mx%d.example[192.0.2.1] said: 450 4.2.0 <%s>: Greylisted", i%30, address)}},
		})
	}
	snap := observe.Build(postfix.Instance{}, observe.FromSpool, at, at, postfix.Queues(), []*observe.Shard{shard})
	for _, by := range []By{ByCause, ByText, ByDestination, BySender} {
		b.Run(string(by), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				parts, err := Scan(b.Context(), snap, func(int) (*Tally, error) { return NewTally(by, at), nil },
					func(t *Tally, _ int, m *postfix.Message) error { t.Add(m); return nil })
				if err != nil {
					b.Fatal(err)
				}
				for _, p := range parts[1:] {
					parts[0].Merge(p)
				}
			}
		})
	}
	b.Run("shape", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ShapeOf(b.Context(), snap, true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		var m postfix.Message
		record := &MessageRecord{Envelope{SchemaMessage, "postfix"}, &m}
		var e Encoder
		var line []byte
		for b.Loop() {
			for i := range snap.Len() {
				snap.At(i, &m)
				var err error
				if line, err = e.Append(line[:0], record); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
