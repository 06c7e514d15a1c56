package observe

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"holdfast/postfix"
)

func build(shards ...*Shard) *Snapshot {
	return Build(postfix.Instance{Name: "postfix"}, FromSpool, time.Unix(1, 0), time.Unix(2, 0), postfix.Queues(), shards)
}

func all(s *Snapshot) []*postfix.Message {
	var out []*postfix.Message
	s.Each(func(m *postfix.Message) bool {
		out = append(out, m.Clone())
		return true
	})
	return out
}

// drawMessage makes any message that a reader could hand over.
func drawMessage(t *rapid.T) *postfix.Message {
	text := rapid.OneOf(rapid.Just(""), rapid.StringN(0, 40, 200), rapid.SampledFrom([]string{"a@b.example", "\x00", "\xff\xfe", "ESMTP"}))
	at := func(label string) time.Time {
		us := rapid.Int64Range(0, 4e15).Draw(t, label)
		if us == 0 {
			return time.Time{}
		}
		return time.UnixMicro(us).UTC()
	}
	m := &postfix.Message{
		Queue: rapid.SampledFrom(postfix.Queues()).Draw(t, "queue"), ID: postfix.QueueID(rapid.StringMatching(`[0-9A-F]{10}`).Draw(t, "id")),
		Inode: rapid.Uint64().Draw(t, "inode"), Arrival: at("arrival"), Changed: at("changed"), NextTry: at("try"),
		Size: rapid.Int64Min(0).Draw(t, "size"), ContentLength: rapid.Int64Min(0).Draw(t, "content"), DataOffset: rapid.Int64Range(0, 1<<32-1).Draw(t, "data"), FileSize: rapid.Int64Min(0).Draw(t, "file"),
		Sender: text.Draw(t, "sender"), TotalRecipients: rapid.IntRange(0, 1<<30).Draw(t, "total"), Done: rapid.IntRange(0, 1<<30).Draw(t, "done"),
		ForceExpire: rapid.Bool().Draw(t, "expire"), FlushRequested: rapid.Bool().Draw(t, "flush"), SMTPUTF8: rapid.Bool().Draw(t, "utf8"),
		Client:   postfix.Client{Name: text.Draw(t, "name"), Address: text.Draw(t, "address"), Helo: text.Draw(t, "helo"), Protocol: text.Draw(t, "protocol")},
		SASLUser: text.Draw(t, "sasl"), Filter: text.Draw(t, "filter"), Redirect: text.Draw(t, "redirect"), MessageID: text.Draw(t, "mid"), Damage: text.Draw(t, "damage"),
		Recipients: []postfix.Recipient{}, Bounces: []postfix.Failure{},
	}
	if sec := rapid.Int64Range(0, 4e9).Draw(t, "created"); sec > 0 {
		m.Created = time.Unix(sec, 0).UTC()
	}
	for range rapid.IntRange(0, 4).Draw(t, "recipients") {
		r := postfix.Recipient{Address: text.Draw(t, "rcpt"), Original: text.Draw(t, "orig"), Offset: rapid.Int64Min(0).Draw(t, "offset"), NextHop: text.Draw(t, "hop"), Status: text.Draw(t, "status"), Host: text.Draw(t, "host")}
		if r.Reason = text.Draw(t, "reason"); r.Reason != "" && rapid.Bool().Draw(t, "quoted") {
			r.Reason += " <" + r.Address + ">: refused"
		}
		r.Cause = postfix.Classify(r.Status, r.Reason)
		m.Recipients = append(m.Recipients, r)
	}
	for range rapid.IntRange(0, 2).Draw(t, "bounces") {
		m.Bounces = append(m.Bounces, postfix.Failure{Address: text.Draw(t, "failed"), Offset: rapid.Int64Min(0).Draw(t, "offset"), Status: text.Draw(t, "status"), Reason: text.Draw(t, "why")})
	}
	return m
}

// TestPackingLosesNothing: what goes into a shard comes out of a snapshot.
func TestPackingLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := NewShard(), NewShard()
		var want []*postfix.Message
		for range rapid.IntRange(0, 8).Draw(t, "messages") {
			want = append(want, drawMessage(t))
		}
		for i, m := range want {
			if i < len(want)/2 {
				a.Add(m)
			} else {
				b.Add(m)
			}
		}
		if diff := cmp.Diff(want, all(build(a, b)), cmp.Transformer("empty", func(r []postfix.Recipient) map[int]postfix.Recipient {
			out := make(map[int]postfix.Recipient)
			for i := range r {
				out[i] = r[i]
			}
			return out
		}), cmp.Transformer("none", func(f []postfix.Failure) map[int]postfix.Failure {
			out := make(map[int]postfix.Failure)
			for i := range f {
				out[i] = f[i]
			}
			return out
		})); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestForkLeavesTheOldAlone changes a forked shard in every way, against a
// plain slice as the model, while the first snapshot must stay as it was.
func TestForkLeavesTheOldAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shard := NewShard()
		var model []string
		add := func() {
			id := fmt.Sprintf("%010X", rapid.Uint32().Draw(t, "id"))
			shard.Add(&postfix.Message{ID: postfix.QueueID(id), Queue: postfix.Hold, Sender: id})
			model = append(model, id)
		}
		for range rapid.IntRange(1, 2*rowsPerBlock/100).Draw(t, "before") {
			add()
		}
		old, before := build(shard), append([]string(nil), model...)
		shard = shard.Fork()
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			if len(model) > 0 && rapid.Bool().Draw(t, "remove") {
				i := rapid.IntRange(0, len(model)-1).Draw(t, "at")
				shard.Remove(i)
				model[i] = model[len(model)-1]
				model = model[:len(model)-1]
			} else {
				add()
			}
		}
		same(t, before, old)
		same(t, model, build(shard))
		same(t, model, build(shard.Compact()))
	})
}

func same(t *rapid.T, want []string, s *Snapshot) {
	t.Helper()
	if s.Len() != len(want) {
		t.Fatalf("%d messages, want %d", s.Len(), len(want))
	}
	for i, m := range all(s) {
		if string(m.ID) != want[i] || m.Sender != want[i] {
			t.Fatalf("message %d is %s from %s, want %s", i, m.ID, m.Sender, want[i])
		}
	}
}

func TestRemoveAcrossBlocks(t *testing.T) {
	shard := NewShard()
	const n = 3*rowsPerBlock + 7
	for i := range n {
		shard.Add(&postfix.Message{ID: postfix.QueueID(fmt.Sprintf("%010X", i)), Queue: postfix.Hold})
	}
	for shard.Len() > 0 {
		shard.Remove(shard.Len() / 2)
	}
	shard.Add(&postfix.Message{ID: "LAST00", Queue: postfix.Hold})
	if got := all(build(shard)); len(got) != 1 || got[0].ID != "LAST00" {
		t.Errorf("after removing all and adding one: %v", got)
	}
}

// TestHostileTextsStayBounded: a text that is longer than any Postfix writes is
// cut, and texts that never repeat fill no table without end.
func TestHostileTextsStayBounded(t *testing.T) {
	shard := NewShard()
	shard.Add(&postfix.Message{ID: "A1", Queue: postfix.Hold, Sender: strings.Repeat("x", 1<<20)})
	if got := len(all(build(shard))[0].Sender); got != maxTextBytes {
		t.Errorf("a sender of a megabyte is kept as %d bytes", got)
	}
	for i := range 2 * maxInterned {
		text := fmt.Sprintf("reason %d", i)
		shard.Add(&postfix.Message{ID: "A2", Queue: postfix.Hold, Sender: text, Client: postfix.Client{Helo: text}, Recipients: []postfix.Recipient{{Address: "a", Reason: text}}})
	}
	if len(shard.intern) > maxInterned || len(shard.origins.index) > maxInterned || len(shard.reasons.index) > maxInterned {
		t.Errorf("tables of %d, %d and %d entries", len(shard.intern), len(shard.origins.index), len(shard.reasons.index))
	}
	s := build(shard)
	var m postfix.Message
	s.At(s.Len()-1, &m)
	if want := fmt.Sprintf("reason %d", 2*maxInterned-1); m.Sender != want || m.Client.Helo != want || m.Recipients[0].Reason != want {
		t.Errorf("the last message reads %+v", m)
	}
}

func TestUnknownQueueIsNotEmpty(t *testing.T) {
	s := Build(postfix.Instance{}, FromShowq, time.Unix(1, 0), time.Unix(2, 0), []postfix.Queue{postfix.Deferred}, nil)
	if !s.Shape(postfix.Deferred).Known || s.Shape(postfix.Corrupt).Known || s.Len() != 0 {
		t.Errorf("deferred %+v, corrupt %+v", s.Shape(postfix.Deferred), s.Shape(postfix.Corrupt))
	}
}

func TestRoutesComeBeforeTheDomain(t *testing.T) {
	shard := NewShard()
	shard.Add(&postfix.Message{ID: "A1", Queue: postfix.Deferred, Recipients: []postfix.Recipient{{Address: "a@One.example", NextHop: "one.example"}, {Address: "b@two.example", NextHop: "two.example"}}})
	shard.Add(&postfix.Message{ID: "A2", Queue: postfix.Deferred, Filter: "scan:[127.0.0.1]", Recipients: []postfix.Recipient{{Address: "a@one.example", NextHop: "[127.0.0.1]"}}})
	shard.Add(&postfix.Message{ID: "A3", Queue: postfix.Deferred, Redirect: "x@one.example", Recipients: []postfix.Recipient{{Address: "b@two.example", NextHop: "one.example"}}})
	s := build(shard)
	if got := s.Domains(); !cmp.Equal(got, []string{"one.example", "two.example"}) {
		t.Errorf("domains %v", got)
	}
	s.Route(map[string]string{"one.example": "[hub]"})
	var hops []string
	for _, m := range all(s) {
		for _, r := range m.Recipients {
			hops = append(hops, r.NextHop)
		}
	}
	if want := []string{"[hub]", "two.example", "[127.0.0.1]", "[hub]"}; !cmp.Equal(want, hops) {
		t.Errorf("next hops %v, want %v", hops, want)
	}
}

// TestCostOfAMessage holds the packing to its purpose. The figure is live heap,
// not time: it does not vary with the machine.
func TestCostOfAMessage(t *testing.T) {
	const n = 50_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	shard := NewShard()
	for i := range n {
		shard.Add(&postfix.Message{
			ID: postfix.QueueID(fmt.Sprintf("%011X", i)), Queue: postfix.Deferred, Sender: fmt.Sprintf("s%d@x.example", i%50),
			Recipients: []postfix.Recipient{{
				Address: fmt.Sprintf("user%d@dest%d.example", i, i%200), NextHop: fmt.Sprintf("dest%d.example", i%200), Status: "4.7.1",
				Reason: fmt.Sprintf("host mx[192.0.2.1] said: 450 4.7.1 <user%d@dest%d.example>: Greylisted", i, i%200),
			}},
		})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (after.HeapAlloc - before.HeapAlloc) / n; each > 250 {
		t.Errorf("a message with one recipient takes %d bytes", each)
	}
	runtime.KeepAlive(shard)
}
