package maillog

import (
	"encoding/binary"
	"maps"
	"math"
	"math/rand/v2"
	"testing"

	"holdfast/postfix"
)

// TestTableIsAMap does the same to a table and to Go's map.
func TestTableIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab := table[int]{limit: 300}
	ref := make(map[uint64]int)
	for i := range 200_000 {
		key := 1 + r.Uint64N(500) // few, so that they displace each other
		switch r.IntN(3) {
		case 0:
			tab.remove(key)
			delete(ref, key)
		case 1:
			_, known := ref[key]
			v, added := tab.put(key)
			if full := !known && len(ref) == 300; (v == nil) != full || added != (!known && !full) {
				t.Fatalf("step %d: put gives %v, %v with %d keys", i, v, added, len(ref))
			}
			if v != nil {
				*v, ref[key] = i, i
			}
		default:
			v, want := tab.find(key), ref[key]
			if _, known := ref[key]; (v != nil) != known || known && *v != want {
				t.Fatalf("step %d: find gives %v, want %d", i, v, want)
			}
		}
	}
	all := make(map[uint64]int)
	tab.each(func(key uint64, v *int) { all[key] = *v })
	if !maps.Equal(all, ref) || tab.used != len(ref) {
		t.Errorf("%d keys, want %d", len(all), len(ref))
	}
}

func TestRankingKeepsTheHeaviest(t *testing.T) {
	r := newRanking(100, func(v *int64) int64 { return *v })
	total := int64(0)
	for i := range 10_000 {
		key, weight := uint64(i+1), int64(1)
		if i%500 == 0 {
			weight = 50
		}
		*r.add(key, 0) = weight
		total += weight
	}
	sum := r.lost
	for i := range 10_000 {
		v := r.find(uint64(i + 1))
		if v != nil {
			sum += *v
		}
		if i%500 == 0 && (v == nil || *v != 50) {
			t.Errorf("item %d of weight 50 is not there", i)
		}
	}
	if sum != total {
		t.Errorf("%d of %d are accounted for", sum, total)
	}
	if len(r.items) > 200 {
		t.Errorf("%d items are kept", len(r.items))
	}
}

// TestDistinct is exact while it can be, and near enough from then on: five
// standard errors, so that the test fails once in two million seeds.
func TestDistinct(t *testing.T) {
	key := func(i int) uint64 { return hashOf(binary.LittleEndian.AppendUint64(nil, uint64(i))) }
	var a, b distinct
	for i := range distinctMost {
		a.add(key(i))
		a.add(key(i))
	}
	if n, estimated := a.count(); n != distinctMost || estimated {
		t.Errorf("%d, estimated %v: want exactly %d", n, estimated, distinctMost)
	}
	for i := range distinctMost / 2 {
		b.add(key(i + 3*distinctMost/4)) // half of these are new
	}
	a.merge(&b)
	want := distinctMost * 5 / 4
	if n, estimated := a.count(); !estimated || math.Abs(float64(n)/float64(want)-1) > 5*0.0082 {
		t.Errorf("%d, estimated %v: want about %d", n, estimated, want)
	}
	for i := range 3 * distinctMost {
		a.add(key(i))
	}
	if n, _ := a.count(); math.Abs(float64(n)/(3*distinctMost)-1) > 5*0.0082 {
		t.Errorf("%d: want about %d", n, 3*distinctMost)
	}
}

// TestMaskedReasonsKeepTheirMeaning: many texts become one, and what the one is
// called is what each of them would have been.
func TestMaskedReasonsKeepTheirMeaning(t *testing.T) {
	traffic := newTraffic(false)
	for name, c := range map[string]struct {
		dsn   string
		texts []string
	}{
		"tickets": {"4.7.0", []string{
			"host mx1.b.example[192.0.2.1] said: 421-4.7.0 Try again later, closing connection. (EHLO) d2e1a72fcca58-7c0e01a1si1234567b3a.123 - gsmtp (in reply to EHLO command)",
			"host alt.mx.b.example[192.0.2.99] said: 421-4.7.0 Try again later, closing connection. (EHLO) 00721157ae682-6e1c4a5si7654321b3a.99 - gsmtp (in reply to EHLO command)",
		}},
		"addresses": {"5.1.1", []string{
			"host mx[192.0.2.1] said: 550 5.1.1 <ann@b.example>: Recipient address rejected: User unknown",
			"host mx[192.0.2.1] said: 550 5.1.1 <\"rate limit\"@b.example>: Recipient address rejected: User unknown",
		}},
		"links": {"4.7.0", []string{
			"host mx[192.0.2.1] said: 451 4.7.0 Temporarily deferred; see https://p.example/r?id=1234567",
			"host mx[192.0.2.2] said: 451 4.7.0 Temporarily deferred; see https://p.example/r?id=9876543",
		}},
		"suspended": {"4.4.1", []string{
			"connect to mx.b.example[192.0.2.1]:25: Connection timed out",
			"delivery temporarily suspended: connect to mx9.c.example[192.0.2.9]:25: Connection timed out",
		}},
	} {
		first := traffic.classify([]byte(c.dsn), []byte(c.texts[0]))
		for _, text := range c.texts {
			got := traffic.classify([]byte(c.dsn), []byte(text))
			if got != first {
				t.Errorf("%s: %+v and %+v", name, first, got)
			}
		}
		if want := postfix.Classify(c.dsn, c.texts[0]); first.cause != want {
			t.Errorf("%s: class %s, by its text %s", name, first.cause, want)
		}
	}
	// What differs in its cause stays apart.
	local := traffic.classify([]byte("4.4.1"), []byte("connect to 127.0.0.1[127.0.0.1]:10025: Connection refused"))
	remote := traffic.classify([]byte("4.4.1"), []byte("connect to mx.b.example[192.0.2.1]:25: Connection refused"))
	if local.cause != postfix.ContentFilter || remote.cause != postfix.RemoteDown {
		t.Errorf("local %s, remote %s", local.cause, remote.cause)
	}
	list := traffic.classify([]byte("5.7.1"), []byte("host mx[192.0.2.1] said: 550 5.7.1 blocked using zen.spamhaus.org"))
	if list.cause != postfix.Reputation || list.group != "host *[*] said: 550 5.7.1 blocked using zen.spamhaus.org" {
		t.Errorf("%+v", list)
	}
}
