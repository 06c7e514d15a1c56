package present

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"holdfast/observe"
	"holdfast/postfix"
)

var at = time.Date(2026, 3, 14, 3, 12, 0, 0, time.UTC)

// drawMessage makes a message of few different values, so that groups form.
func drawMessage(t *rapid.T) *postfix.Message {
	m := &postfix.Message{
		Queue:    rapid.SampledFrom(postfix.Queues()).Draw(t, "queue"),
		ID:       postfix.NewShortID(at, rapid.Uint64Range(1, 1<<40).Draw(t, "inode")),
		Size:     rapid.Int64Range(0, 1<<28).Draw(t, "size"),
		Sender:   rapid.SampledFrom([]string{"", "a@x.example", "b@x.example", "c@Y.example"}).Draw(t, "sender"),
		SASLUser: rapid.SampledFrom([]string{"", "carol"}).Draw(t, "sasl"),
		Client:   postfix.Client{Name: rapid.SampledFrom([]string{"", "unknown", "mx.example"}).Draw(t, "client")},
	}
	if rapid.Bool().Draw(t, "arrived") {
		m.Arrival = at.Add(-time.Duration(rapid.Int64Range(0, int64(40*time.Hour)).Draw(t, "age")))
	}
	for range rapid.IntRange(0, 5).Draw(t, "recipients") {
		reason := rapid.SampledFrom([]string{"", "connect to mx[192.0.2.1]:25: Connection timed out", "host mx said: 450 4.2.0 <%s>: greylisted"}).Draw(t, "reason")
		address := rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "local") + rapid.SampledFrom([]string{"", "@a.example", "@A.example", "@b.example"}).Draw(t, "domain")
		m.Recipients = append(m.Recipients, postfix.Recipient{
			Address: address, NextHop: "smtp:" + postfix.DomainOf(address), Reason: strings.ReplaceAll(reason, "%s", address),
		})
	}
	return m
}

func build(messages []*postfix.Message) *observe.Snapshot {
	shard := observe.NewShard()
	for _, m := range messages {
		shard.Add(m)
	}
	return observe.Build(postfix.Instance{Name: "postfix"}, observe.FromSpool, at, at, postfix.Queues(), []*observe.Shard{shard})
}

// slowGroups counts in the plainest way there is.
func slowGroups(by By, messages []*postfix.Message) map[string]Group {
	out := make(map[string]Group)
	for _, m := range messages {
		keys := map[string]int{}
		for _, r := range m.Recipients {
			switch by {
			case ByDestination:
				_, domain, _ := strings.Cut(r.Address, "@")
				keys[strings.ToLower(domain)]++
			case ByNextHop:
				keys[r.NextHop]++
			case ByCause:
				keys[string(postfix.Classify(r.Status, r.Reason))]++
			case ByText:
				keys[postfix.ReasonGroup(strings.ReplaceAll(r.Reason, r.Address, "*"))]++
			}
		}
		switch by {
		case BySender:
			keys[m.Sender] = len(m.Recipients)
		case ByClient:
			keys[m.Client.Name] = len(m.Recipients)
		case BySASL:
			keys[m.SASLUser] = len(m.Recipients)
		case ByQueue:
			keys[m.Queue.String()] = len(m.Recipients)
		}
		for key, n := range keys {
			g := out[key]
			g.Key, g.Messages, g.Recipients, g.Bytes = key, g.Messages+1, g.Recipients+n, g.Bytes+m.Size
			if !m.Arrival.IsZero() && (g.Oldest.IsZero() || m.Arrival.Before(g.Oldest)) {
				g.Oldest = m.Arrival.Truncate(time.Microsecond)
			}
			out[key] = g
		}
	}
	return out
}

// TestTallyCountsAsTheSlowWay compares with the plain count, for a queue that
// was packed and read back, cut into parts at any place.
func TestTallyCountsAsTheSlowWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := rapid.SliceOfN(rapid.Custom(drawMessage), 0, 40).Draw(t, "messages")
		by := rapid.SampledFrom([]By{ByDestination, ByNextHop, ByCause, ByText, BySender, ByClient, BySASL, ByQueue}).Draw(t, "by")
		cut := rapid.IntRange(0, len(messages)).Draw(t, "cut")
		first, second := NewTally(by, at), NewTally(by, at)
		snap := build(messages)
		var m postfix.Message
		for i := range snap.Len() {
			snap.At(i, &m)
			if i < cut {
				first.Add(&m)
			} else {
				second.Add(&m)
			}
		}
		first.Merge(second)
		got := make(map[string]Group)
		for _, g := range first.Groups() {
			got[g.Key] = Group{Key: g.Key, Messages: g.Messages, Recipients: g.Recipients, Bytes: g.Bytes, Oldest: g.Oldest}
		}
		if diff := cmp.Diff(slowGroups(by, messages), got, cmp.AllowUnexported(Group{})); diff != "" {
			t.Fatalf("by %s:\n%s", by, diff)
		}
		if total := first.Total(); total.Messages != len(messages) {
			t.Fatalf("total is %d of %d", total.Messages, len(messages))
		}
	})
}

func TestGroupsAreInOrder(t *testing.T) {
	tally := NewTally(ByAge, at)
	for _, age := range []time.Duration{50 * time.Hour, time.Minute, time.Minute, 7 * time.Minute, 21 * time.Hour} {
		tally.Add(&postfix.Message{Arrival: at.Add(-age)})
	}
	tally.Add(&postfix.Message{})
	var keys []string
	for _, g := range tally.Groups() {
		keys = append(keys, fmt.Sprint(g.Key, "=", g.Messages))
	}
	want := []string{"under 5m=2", "5m to 10m=1", "640m to 1280m=1", "1280m and more=1", "not known=1"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	sizes := NewTally(BySize, at)
	for _, size := range []int64{0, 1023, 1024, 10<<10 - 1, 10 << 10, 1<<20 - 1, 1 << 20, 100<<20 - 1, 100 << 20, math.MaxInt32} {
		sizes.Add(&postfix.Message{Size: size})
	}
	keys = nil
	for _, g := range sizes.Groups() {
		keys = append(keys, fmt.Sprint(g.Key, "=", g.Messages))
	}
	want = []string{"under 1k=2", "1k to 10k=2", "10k to 100k=1", "100k to 1M=1", "1M to 10M=1", "10M to 100M=1", "100M and more=2"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	counts := NewTally(BySender, at)
	for _, s := range []string{"b", "b", "a", "c", "c"} {
		counts.Add(&postfix.Message{Sender: s})
	}
	keys = nil
	for _, g := range counts.Groups() {
		keys = append(keys, g.Key)
	}
	if diff := cmp.Diff([]string{"b", "c", "a"}, keys); diff != "" {
		t.Error(diff)
	}
}

// TestAgesAreThoseOfQshape holds the buckets against the formula of qshape:
// the column is one more than the binary logarithm of the age in units of five
// minutes.
func TestAgesAreThoseOfQshape(t *testing.T) {
	for minutes := range 5000 {
		age := time.Duration(minutes) * time.Minute
		want := 0
		if m := float64(minutes) / 5; m >= 1 {
			want = min(1+int(math.Log2(m)), AgeBuckets-1)
		}
		if got := bucket(age); got != want {
			t.Fatalf("%d minutes fall into column %d, with qshape into %d", minutes, got, want)
		}
	}
	if bucket(-time.Hour) != 0 {
		t.Error("a message from the future is not young")
	}
}

func TestAgeTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := rapid.SliceOfN(rapid.Custom(drawMessage), 0, 30).Draw(t, "messages")
		senders := rapid.Bool().Draw(t, "senders")
		cut := rapid.IntRange(0, len(messages)).Draw(t, "cut")
		first, second := NewAgeTable(senders, at), NewAgeTable(senders, at)
		unknown, total := 0, 0
		for i, m := range messages {
			switch {
			case m.Arrival.IsZero():
				unknown++
			case senders:
				total++
			default:
				total += len(m.Recipients)
			}
			if i < cut {
				first.Add(m)
			} else {
				second.Add(m)
			}
		}
		first.Merge(second)
		if first.Total().Total != total || first.Unknown() != unknown {
			t.Fatalf("total %d, unknown %d; want %d, %d", first.Total().Total, first.Unknown(), total, unknown)
		}
		var sum AgeRow
		for i, r := range first.Rows() {
			columns := 0
			for _, n := range r.Counts {
				columns += n
			}
			if columns != r.Total {
				t.Fatalf("row %q adds up to %d, not %d", r.Key, columns, r.Total)
			}
			if i > 0 && r.Total > first.Rows()[i-1].Total {
				t.Fatalf("row %q stands too low", r.Key)
			}
			sum.merge(&r)
		}
		if sum.Counts != first.Total().Counts {
			t.Fatalf("rows add up to %v, the total is %v", sum.Counts, first.Total().Counts)
		}
	})
}

// TestScanMeetsEachMessageOnce uses more messages than one worker gets.
func TestScanMeetsEachMessageOnce(t *testing.T) {
	messages := make([]*postfix.Message, 3*fewMessages+17)
	for i := range messages {
		messages[i] = &postfix.Message{Queue: postfix.Deferred, ID: "ABC123", Size: int64(i)}
	}
	snap := build(messages)
	states, err := Scan(t.Context(), snap, func(int) (*[]int64, error) { return new([]int64), nil },
		func(seen *[]int64, i int, m *postfix.Message) error {
			if m.Size != int64(i) {
				return fmt.Errorf("message %d is at %d", m.Size, i)
			}
			*seen = append(*seen, m.Size)
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	var all []int64
	for _, s := range states {
		all = append(all, *s...)
	}
	if len(all) != len(messages) || !slices.IsSorted(all) {
		t.Errorf("met %d of %d, in order: %v", len(all), len(messages), slices.IsSorted(all))
	}
	stop := errors.New("stop")
	if _, err := Scan(t.Context(), snap, func(int) (int, error) { return 0, nil }, func(int, int, *postfix.Message) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the error of a visit is lost: %v", err)
	}
	if _, err := Scan(t.Context(), snap, func(int) (int, error) { return 0, stop }, func(int, int, *postfix.Message) error { return nil }); !errors.Is(err, stop) {
		t.Errorf("the error of begin is lost: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, snap, func(int) (int, error) { return 0, nil }, func(int, int, *postfix.Message) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled scan ends in %v", err)
	}
}

func TestOrders(t *testing.T) {
	ms := []*postfix.Message{
		{ID: "C3", Queue: postfix.Deferred, Size: 10, Sender: "m@x", Arrival: at.Add(-3 * time.Hour), NextTry: at.Add(time.Hour), Recipients: []postfix.Recipient{{Address: "a@z.example"}}},
		{ID: "A1", Queue: postfix.Hold, Size: 30, Sender: "", Arrival: at.Add(-time.Hour), NextTry: at, Recipients: []postfix.Recipient{{Address: "z@a.example"}, {Address: "y@a.example"}}},
		{ID: "B2", Queue: postfix.Deferred, Size: 20, Sender: "a@x", Arrival: at.Add(-5 * time.Hour), NextTry: at.Add(time.Minute)},
	}
	for order, want := range map[Order]string{
		OldestFirst: "B2 C3 A1", LargestFirst: "A1 B2 C3", OrderQueue: "B2 C3 A1", OrderSender: "A1 B2 C3", OrderDest: "B2 A1 C3",
		SoonestFirst: "B2 C3 A1", MostRecipients: "A1 C3 B2", OrderID: "A1 B2 C3",
	} {
		for _, reverse := range []bool{false, true} {
			first, second := NewListing(order, reverse, 0, 1), NewListing(order, reverse, 0, 2)
			first.Add(0, ms[0])
			second.Add(1, ms[1])
			second.Add(2, ms[2])
			var got []string
			for i := range Sorted([]*Listing{first, second}, 3) {
				got = append(got, string(ms[i].ID))
			}
			if reverse {
				slices.Reverse(got)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("by %s (reverse %v): %v, want %s", order, reverse, got, want)
			}
		}
	}
	if len(Orders()) != 8 {
		t.Errorf("%d orders are offered, 8 are tested", len(Orders()))
	}
}

// TestListingKeepsTheFirst compares a listing that lets go with one that sorts
// everything.
func TestListingKeepsTheFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.SampledFrom(Orders()).Draw(t, "order")
		reverse := rapid.Bool().Draw(t, "reverse")
		keep := rapid.IntRange(1, 40).Draw(t, "keep")
		seed := rapid.Uint64().Draw(t, "seed")
		r := rand.New(rand.NewPCG(seed, 1))
		const n = 5000
		first, second := NewListing(order, reverse, keep, n), NewListing(order, reverse, keep, n)
		all := NewListing(order, reverse, 0, n)
		for i := range n {
			m := &postfix.Message{
				Queue: postfix.Queues()[r.IntN(7)], ID: postfix.QueueID(Digits(r.IntN(900))), Size: r.Int64N(300), Sender: Digits(r.IntN(300)),
				Arrival: at.Add(time.Duration(r.IntN(300)) * time.Second), NextTry: at.Add(time.Duration(r.IntN(300)) * time.Second),
				Recipients: make([]postfix.Recipient, r.IntN(9)),
			}
			for k := range m.Recipients {
				m.Recipients[k].Address = "a@" + Digits(r.IntN(50))
			}
			all.Add(i, m)
			if i < n/3 {
				first.Add(i, m)
			} else {
				second.Add(i, m)
			}
		}
		got, want := slices.Collect(Sorted([]*Listing{first, second}, keep)), slices.Collect(Sorted([]*Listing{all}, keep))
		if !slices.Equal(got, want) {
			t.Fatalf("by %s: %v, want %v", order, got, want)
		}
		if Listed([]*Listing{first, second}) != n {
			t.Fatal("messages that were let go are not counted")
		}
		if len(first.rows)+len(second.rows) > 2*keep {
			t.Fatalf("%d rows are kept for %d", len(first.rows)+len(second.rows), keep)
		}
	})
}

func TestRecords(t *testing.T) {
	snap := observe.Build(postfix.Instance{Name: "out"}, observe.FromShowq, at.Add(-time.Second), at, []postfix.Queue{postfix.Deferred, postfix.Active}, nil)
	snap.Gaps = []observe.Gap{{Source: "showq", Text: "cut short"}}
	seen := SeenOf(snap, []observe.Gap{{Source: "selection", Text: "x", Count: 2}})
	out, err := AppendJSON(nil, &NotesRecord{Envelope{SchemaNotes, "out"}, seen})
	want := `{"schema":"holdfast.queue-notes/1","instance":"out","from":"2026-03-14T03:11:59Z","to":"2026-03-14T03:12:00Z","source":"showq",` +
		`"unseen":["incoming","hold","maildrop","corrupt","saved"],"gaps":[{"source":"showq","text":"cut short"},{"source":"selection","text":"x","count":2}],` +
		`"strays":[],"probes":0,"vanished":0}`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	if len(snap.Gaps) != 1 {
		t.Error("the snapshot was changed")
	}
	for v, want := range map[any]string{1.5: "1.5", true: "true", nil: "null", uint8(7): "7"} {
		if out, err := AppendJSON(nil, v); err != nil || string(out) != want {
			t.Errorf("%v is %s, %v", v, out, err)
		}
	}
	out, err = AppendJSON(nil, map[string]any{"b": []string(nil), "a": &struct{}{}, "c\x9b": "\x9b"})
	if want := `{"a":{},"b":[],"c\\x{9b}":"\\x{9b}","raw":{"c\\x{9b}":"mw=="}}`; err != nil || string(out) != want {
		t.Errorf("%v %s", err, out)
	}
	for _, v := range []any{math.NaN(), make(chan int), map[int]int{}, struct{ F func() }{}} {
		if out, err := AppendJSON(nil, v); !errors.Is(err, errNoForm) {
			t.Errorf("%T is %s, %v", v, out, err)
		}
	}
}
