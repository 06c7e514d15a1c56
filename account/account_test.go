package account

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"holdfast/postfix"
)

// who is a recipient of what had one queue ID.
type who struct {
	id        postfix.QueueID
	recipient string
}

// what is the fate of one, as far as the model and the account must agree.
type what struct {
	who
	fate Fate
	next postfix.QueueID
}

func (w what) String() string { return fmt.Sprintf("%s %s %s %s", w.id, w.recipient, w.fate, w.next) }

func sortWhat(list []what) []what {
	slices.SortFunc(list, func(a, b what) int { return cmp.Compare(a.String(), b.String()) })
	return list
}

// play lets mail flow, takes a snapshot, goes on, takes another, and accounts.
func play(t *testing.T, seed uint64, drops bool) (*model, *Snapshot, *Book) {
	t.Helper()
	m := newModel(t, seed, drops)
	for range 30 {
		m.turn()
	}
	for _, x := range m.all { // what was before is not what this is about
		x.harmed = false
		x.unseen, x.twice = map[string]bool{}, false
		x.all = slices.DeleteFunc(x.all, func(r string) bool { return x.fate[r] != "" })
	}
	m.vault = nil
	from := m.snapshot()
	m.begin = m.now
	for range 120 {
		m.turn()
	}
	to := m.snapshot()
	facts, err := FactsOf(m.record(), m.in.Name, from.Head.From)
	m.check(err)
	book := Balance(from, to, m.steps(from), facts)
	m.check(m.log.Close())
	return m, from, book
}

// TestAccountAgreesWithTheWorld lets whole logs be read: nothing is unproven,
// and every fate is the true one.
func TestAccountAgreesWithTheWorld(t *testing.T) {
	for seed := range uint64(80) {
		m, _, book := play(t, seed, false)
		for i := range book.Targets {
			if book.Targets[i].Evidence.Grade != Proved {
				t.Errorf("seed %d: %+v is not proved", seed, book.Targets[i])
			}
		}
		want, got := m.truth(book)
		if diff := gocmp.Diff(texts(sortWhat(want)), texts(sortWhat(got))); diff != "" {
			t.Fatalf("seed %d: the account differs from what happened (-happened +account):\n%s", seed, diff)
		}
		if !book.Balanced || !book.Seen {
			t.Errorf("seed %d: %+v", seed, book.Problems)
		}
	}
}

// truth is what the model knows and what the account says, in the same words.
// What went before a line named its recipients is compared by number.
func (m *model) truth(book *Book) (want, got []what) {
	unnamed := map[postfix.QueueID]bool{}
	for i := range book.Targets {
		if b := &book.Targets[i]; b.Recipient == "" {
			unnamed[b.ID] = true
		}
	}
	name := func(id postfix.QueueID, recipient string) who {
		if unnamed[id] {
			recipient = ""
		}
		return who{id, recipient}
	}
	for i := range book.Targets {
		b := &book.Targets[i]
		got = append(got, what{name(b.ID, b.Recipient), b.Fate, b.Successor})
	}
	for _, x := range m.all {
		for _, r := range x.all {
			want = append(want, what{name(x.ID, r), cmp.Or(x.fate[r], Pending), x.next[r]})
		}
	}
	return want, got
}

func texts(list []what) string {
	var b strings.Builder
	for _, w := range list {
		b.WriteString(w.String() + "\n")
	}
	return b.String()
}

// TestEncodedSnapshotIsWhole writes and reads snapshots, and damages each byte
// of one.
func TestEncodedSnapshotIsWhole(t *testing.T) {
	m := newModel(t, 7, false)
	for range 40 {
		m.turn()
	}
	s := m.snapshot()
	s.All[0].Sender = "a\"b<\u202e>@example.org"
	var b bytes.Buffer
	m.check(Encode(&b, s))
	back, err := Decode(bytes.NewReader(b.Bytes()))
	m.check(err)
	if diff := gocmp.Diff(s, back); diff != "" {
		t.Fatal(diff)
	}
	head, err := DecodeHead(bytes.NewReader(b.Bytes()))
	m.check(err)
	if diff := gocmp.Diff(s.Head, head); diff != "" {
		t.Fatal(diff)
	}
	for i := range b.Len() {
		bad := bytes.Clone(b.Bytes())
		bad[i] ^= 1
		if _, err := Decode(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d of %d was changed, and nothing was noticed", i, b.Len())
		}
		if _, err := Decode(bytes.NewReader(b.Bytes()[:i])); err == nil {
			t.Fatalf("cut to %d of %d bytes, and nothing was noticed", i, b.Len())
		}
	}
}

// TestAccountOfLossyLogSaysSo lets lines get lost without a trace. What the
// account says is true or "unproven", and unproven is what a lost line told and
// nothing else.
func TestAccountOfLossyLogSaysSo(t *testing.T) {
	lost, unproven := 0, 0
	for seed := range uint64(150) {
		m, _, book := play(t, 1000+seed, true)
		lost += m.lost
		unproven += book.Fates[Unproven]
		hidden := map[postfix.QueueID]int{} // recipients of which nobody can tell more
		truth := map[who][]*mail{}
		for _, x := range m.all {
			for _, r := range x.all {
				truth[who{x.ID, r}] = append(truth[who{x.ID, r}], x)
			}
			if x.harmed || x.twice {
				hidden[x.ID] += len(x.all)
			}
		}
		m.missed(book)
		for i := range book.Targets {
			b := &book.Targets[i]
			if b.Recipient == "" {
				if b.Fate == Unproven && hidden[b.ID] == 0 {
					t.Errorf("seed %d: nothing was lost of %+v", seed, *b)
				}
				continue
			}
			m.judged(b, truth[who{b.ID, b.Recipient}])
		}
	}
	if lost < 300 || unproven < 60 {
		t.Errorf("%d lines were lost and %d recipients are unproven: that tests nothing", lost, unproven)
	}
}

// judged compares the account of one recipient with the truth.
func (m *model) judged(b *Target, may []*mail) {
	m.Helper()
	if len(may) == 0 {
		m.Errorf("%+v never was", *b)
		return
	}
	for _, x := range may {
		fate := cmp.Or(x.fate[b.Recipient], Pending)
		switch {
		case b.Fate == fate && b.Successor == x.next[b.Recipient]:
			return
		case b.Fate == Moved && fate == Moved && b.Evidence.Grade == Witnessed && x.unseen[b.Recipient]:
			return // the queue shows where it is, not by what ways it went there
		case b.Fate == Unproven && (x.unseen[b.Recipient] || x.harmed):
			return
		case x.unseen[b.Recipient] && x.twice:
			return // it is counted with the rest of its message: see Bugs
		}
	}
	m.Errorf("seed %d: the account says %+v; in truth it is %q", m.seed, *b, may[0].fate[b.Recipient])
}

// missed checks the other direction: a delivery whose line was lost is counted
// as none.
func (m *model) missed(book *Book) {
	m.Helper()
	told := map[what]int{}
	for i := range book.Targets {
		b := &book.Targets[i]
		if b.Evidence.Grade == Witnessed {
			continue // the queue shows it, without a line
		}
		told[what{who{b.ID, b.Recipient}, b.Fate, b.Successor}]++
	}
	for _, x := range m.all {
		for r := range x.unseen {
			if x.unseen[r] && told[what{who{x.ID, r}, x.fate[r], x.next[r]}] > 0 && x.fate[r] != Deleted {
				m.Errorf("seed %d: no line tells of %s to %q, and the account says it was %s", m.seed, x.ID, r, x.fate[r])
			}
		}
	}
}
