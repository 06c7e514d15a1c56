package spool

import (
	"context"
	"fmt"
	"os/user"
	"testing"
	"time"

	"holdfast/lab/forge"
	"holdfast/observe"
	"holdfast/postfix"
)

// testSpool forges an empty spool that belongs to whoever runs the test.
func testSpool(t testing.TB, long bool, depth int) (*forge.Spool, postfix.Instance) {
	t.Helper()
	s := &forge.Spool{Dir: t.TempDir(), LongIDs: long, HashDepth: depth}
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	in := postfix.Instance{
		Name: "postfix", QueueDir: s.Dir, MailOwner: currentUser(t), LongIDs: long,
		HashedQueues: []string{"deferred", "defer"}, HashDepth: depth,
		MaxLifetime: 120 * time.Hour, BounceLifetime: 120 * time.Hour,
	}
	return s, in
}

func currentUser(t testing.TB) string {
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

func lookAt(t testing.TB, r *Reader) *observe.Snapshot {
	t.Helper()
	snap, err := r.Look(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range snap.Gaps {
		t.Errorf("unexpected gap: %s", g)
	}
	return snap
}

func TestLookReadsWhatWasWritten(t *testing.T) {
	for _, long := range []bool{false, true} {
		t.Run(fmt.Sprintf("long=%v", long), func(t *testing.T) {
			s, in := testSpool(t, long, 1)
			arrival := time.Date(2026, 11, 20, 3, 14, 15, 926535000, time.UTC)
			id, err := s.Write(&forge.Message{
				Sender: "a@sender.example", Arrival: arrival, NextTry: arrival.Add(time.Hour), Size: 3000,
				SASLUser: "alice", Client: postfix.Client{Name: "c.example", Address: "192.0.2.7", Helo: "h", Protocol: "ESMTP"},
				Recipients: []forge.Recipient{
					{Address: "one@dest.example", Done: true},
					{Address: "two@Dest.example", Original: "alias@dest.example", Deferred: &forge.Reason{Status: "4.4.1", Text: "connect to mx.dest.example[192.0.2.1]:25: Connection timed out", Host: "mx.dest.example"}},
					{Address: "heap@dest.example", Place: forge.InHeap},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			r, err := NewReader(in, Options{})
			if err != nil {
				t.Fatal(err)
			}
			snap := lookAt(t, r)
			if snap.Len() != 1 {
				t.Fatalf("met %d messages, want 1", snap.Len())
			}
			m := snap.Find(id)[0]
			if m.Damage != "" || m.Queue != postfix.Deferred || !m.Arrival.Equal(arrival) || !m.NextTry.Equal(arrival.Add(time.Hour)) {
				t.Errorf("read %+v", m)
			}
			if len(m.Recipients) != 2 || m.Done != 1 {
				t.Fatalf("recipients %+v, done %d", m.Recipients, m.Done)
			}
			two := m.Recipients[0]
			if two.Address != "two@Dest.example" || two.Original != "alias@dest.example" || two.NextHop != "dest.example" ||
				two.Cause != postfix.RemoteDown || two.Host != "mx.dest.example" || two.Status != "4.4.1" || two.Offset == 0 {
				t.Errorf("second recipient %+v", two)
			}
			if m.Client.Address != "192.0.2.7" || m.SASLUser != "alice" {
				t.Errorf("origin %+v %q", m.Client, m.SASLUser)
			}
			again := lookAt(t, r)
			if again.Len() != 1 {
				t.Errorf("second look met %d messages", again.Len())
			}
		})
	}
}
