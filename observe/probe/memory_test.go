package probe

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

func server(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 25)
}

func claimOne(t *testing.T, m memory, now time.Time, from string) (observe.Reach, bool) {
	t.Helper()
	known, gaps, err := m.claim(t.Context(), now, map[netip.AddrPort]string{server(1): from})
	if err != nil || len(gaps) != 0 {
		t.Fatalf("gaps %v, error %v", gaps, err)
	}
	reach, ok := known[server(1)]
	return reach, ok
}

func TestOneConnectionAMinute(t *testing.T) {
	m, now := memory{t.TempDir()}, time.Now()
	if _, known := claimOne(t, m, now, ""); known {
		t.Fatal("a new server is known")
	}
	if r, known := claimOne(t, m, now.Add(time.Second), ""); !known || r.Refused == "" || !r.At.Equal(now) {
		t.Errorf("a server that is being asked: %+v, %v", r, known)
	}
	want := observe.Reach{Stage: stageDone, Banner: "220 mx\xff", TLS: "TLS 1.3", Latency: time.Millisecond, Text: strings.Repeat("x", 3000)}
	if err := m.settle(t.Context(), now, map[netip.AddrPort]observe.Reach{server(1): want, server(2): want}); err != nil {
		t.Fatal(err)
	}
	r, known := claimOne(t, m, now.Add(59*time.Second), "")
	if !known || r.Refused != "" || !r.At.Equal(now) || r.Stage != stageDone || r.TLS != want.TLS || r.Latency != want.Latency || len(r.Text) != memoryText {
		t.Errorf("within the minute: %+v, %v", r, known)
	}
	if r, known := claimOne(t, m, now.Add(59*time.Second), "192.0.2.1"); !known || r.Refused == "" || r.Stage != "" {
		t.Errorf("from another address: %+v, %v", r, known)
	}
	if r, known := claimOne(t, m, now.Add(60*time.Second), ""); known {
		t.Errorf("after the minute: %+v", r)
	}
	st, err := os.Stat(m.path())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestWhoAskedForPeaceIsLeftInPeace(t *testing.T) {
	for _, c := range []struct {
		cause postfix.Cause
		after time.Duration
		known bool
	}{
		{postfix.RemoteThrottling, 9 * time.Minute, true},
		{postfix.Reputation, 599 * time.Second, true},
		{postfix.Greylisting, 2 * time.Minute, true},
		{postfix.RemoteThrottling, 10 * time.Minute, false},
		{postfix.RemoteDown, 2 * time.Minute, false},
		{postfix.RemoteRejecting, 2 * time.Minute, false},
	} {
		m, now := memory{t.TempDir()}, time.Now()
		claimOne(t, m, now, "")
		if err := m.settle(t.Context(), now, map[netip.AddrPort]observe.Reach{server(1): {Stage: stageBanner, Failed: true, Text: "421", Cause: c.cause}}); err != nil {
			t.Fatal(err)
		}
		r, known := claimOne(t, m, now.Add(c.after), "")
		if known != c.known || known && (r.Refused == "" || !r.Failed || r.Cause != c.cause || r.Well()) {
			t.Errorf("%s after %v: %+v, %v", c.cause, c.after, r, known)
		}
	}
}

// TestManyLooksOneConnection: of many looks at once each server goes to one.
func TestManyLooksOneConnection(t *testing.T) {
	noLeak(t)
	dir, now := t.TempDir(), time.Now()
	wanted := map[netip.AddrPort]string{}
	for i := range 5 {
		wanted[server(i)] = ""
	}
	var claimed atomic.Int64
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			known, _, err := memory{dir}.claim(t.Context(), now, wanted)
			if err != nil {
				t.Error(err)
			}
			claimed.Add(int64(len(wanted) - len(known)))
		})
	}
	wg.Wait()
	if claimed.Load() != 5 {
		t.Errorf("5 servers were claimed %d times", claimed.Load())
	}
}

func TestDamagedMemoryIsBegunAnew(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "half": `{"schema":"holdfast.probe-memory/1","servers":{"203.0.113.1:25":{"at":"20`, "garbage": "\x00\xff", "list": "[]",
		"another schema": `{"schema":"holdfast.probe-memory/9","servers":{}}`, "no servers": `{"schema":"holdfast.probe-memory/1"}`,
		"a field too many": `{"schema":"holdfast.probe-memory/1","servers":{},"x":1}`, "a bad address": `{"schema":"holdfast.probe-memory/1","servers":{"nobody:25":{}}}`,
		"a monster": strings.Repeat(" ", memoryBytes+1),
	} {
		m := memory{t.TempDir()}
		writeFile(t, m.path(), text)
		known, gaps, err := m.claim(t.Context(), time.Now(), map[netip.AddrPort]string{server(1): ""})
		if err != nil || len(known) != 0 || len(gaps) != 1 || gaps[0].Object != m.path() {
			t.Errorf("%s: %v, gaps %v, error %v", name, known, gaps, err)
		}
		if _, known := claimOne(t, m, time.Now(), ""); !known {
			t.Errorf("%s: the claim was not kept", name)
		}
	}
}

func TestMemoryForgetsWithinBounds(t *testing.T) {
	m, now := memory{t.TempDir()}, time.Now()
	claim := func(at time.Time, from, to int) {
		wanted := map[netip.AddrPort]string{}
		for i := from; i < to; i++ {
			wanted[server(i)] = ""
		}
		if _, _, err := m.claim(t.Context(), at, wanted); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		f, damage, err := m.read()
		if damage != nil || err != nil {
			t.Fatal(damage, err)
		}
		return len(f.Servers)
	}
	claim(now.Add(-2*time.Minute), 0, memoryRoom)
	claim(now, memoryRoom, memoryRoom+10)
	f, _, err := m.read()
	if _, kept := f.Servers[server(memoryRoom+9)]; err != nil || !kept || len(f.Servers) != memoryRoom {
		t.Errorf("%d servers are remembered, the newest %v, %v", len(f.Servers), kept, err)
	}
	claim(now.Add(memoryLife-time.Minute), 60_000, 60_001)
	if n := count(); n != 11 {
		t.Errorf("after most of an hour %d servers are remembered", n)
	}
	// The clock is set back by a day: what seems to come from the future must
	// not keep servers from being asked until then.
	claim(now.Add(-24*time.Hour), 60_002, 60_003)
	if n := count(); n != 1 {
		t.Errorf("after a step of the clock %d servers are remembered", n)
	}
}

func TestMemoryThatCannotBeWritten(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "file"), "")
	linked := t.TempDir()
	target := writeFile(t, filepath.Join(t.TempDir(), "target"), "precious")
	if err := errors.Join(os.Symlink(target, filepath.Join(linked, "egress.json")), os.Symlink(target, filepath.Join(linked, "egress.lock"))); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, filepath.Join(t.TempDir(), "missing"), linked} {
		_, _, err := memory{dir}.claim(t.Context(), time.Now(), map[netip.AddrPort]string{server(1): ""})
		if err == nil {
			t.Errorf("%q: it was claimed", dir)
		}
	}
	if text, err := os.ReadFile(target); err != nil || string(text) != "precious" {
		t.Errorf("through a link: %q, %v", text, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := (memory{filepath.Join(t.TempDir(), "x")}).claim(ended, time.Now(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
