package forge

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func forgedLog(t *testing.T, o MailLogOptions) (string, MailLogTotals) {
	t.Helper()
	var b bytes.Buffer
	totals, err := MailLog(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), totals
}

func TestMailLogIsWhatItsTotalsSay(t *testing.T) {
	from := time.Date(2026, 2, 28, 22, 0, 0, 0, time.UTC)
	o := MailLogOptions{Bytes: 3 << 20, Seed: 5, From: from, To: from.Add(26 * time.Hour)}
	log, totals := forgedLog(t, o)
	if again, _ := forgedLog(t, o); again != log {
		t.Error("the same seed gives another log")
	}
	o.Seed++
	if other, _ := forgedLog(t, o); other == log {
		t.Error("another seed gives the same log")
	}
	// One event of many recipients is all that may come beyond the size.
	if totals.Bytes != int64(len(log)) || totals.Bytes < o.Bytes || totals.Bytes > o.Bytes+10_000 {
		t.Errorf("%d bytes, counted %d, wanted %d", len(log), totals.Bytes, o.Bytes)
	}
	for _, c := range []struct {
		mark string
		want int64
	}{
		{"\n", totals.Lines},
		{": client=", totals.Received - int64(strings.Count(log, ": uid="))},
		{"status=sent (", totals.Delivered},
		{"status=bounced (", totals.Bounced},
		{"status=deferred (", totals.Deferrals + totals.Suspended},
		{"delivery temporarily suspended: ", totals.Suspended},
		{"status=expired, returned", totals.Expired},
		{"sender non-delivery notification: ", totals.Notifications},
		{"NOQUEUE: reject: ", totals.Rejected},
		{"NOQUEUE: reject_warning: ", totals.RejectWarnings},
		{"NOQUEUE: hold: ", totals.HeldByRule},
		{": placed on hold\n", totals.HeldByHand},
	} {
		if got := int64(strings.Count(log, c.mark)); got != c.want || got == 0 {
			t.Errorf("the log has %q %d times, its totals say %d", c.mark, got, c.want)
		}
	}
	if totals.DeferredMessages == 0 || totals.DeferredMessages >= totals.Deferrals+totals.Suspended || totals.BytesReceived < 1000*totals.Received/2 {
		t.Errorf("implausible totals: %+v", totals)
	}
	last := log[strings.LastIndexByte(strings.TrimSuffix(log, "\n"), '\n')+1:]
	if !strings.HasPrefix(log, "Feb 28 22:00:00 relay1 postfix/") || !strings.HasPrefix(last, "Mar  1 23:59:5") && !strings.HasPrefix(last, "Mar  2 00:00:0") {
		t.Errorf("the log is not of the time that was asked for; its first line is %.40q, its last %.40q", log, last)
	}
}

// TestMailLogHasEachIDOnce is what the number of messages relies on.
func TestMailLogHasEachIDOnce(t *testing.T) {
	from := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	log, _ := forgedLog(t, MailLogOptions{Bytes: 2 << 20, Seed: 1, From: from, To: from.Add(time.Hour), Instance: "postfix-out", Domains: 3})
	seen := make(map[string]bool)
	for line := range strings.Lines(log) {
		if !strings.Contains(line, " relay1 postfix-out/") {
			t.Fatalf("a line of another instance: %q", line)
		}
		if head, _, ok := strings.Cut(line, ": message-id=<"); ok {
			id := head[strings.LastIndexByte(head, ' ')+1:]
			if seen[id] {
				t.Errorf("two messages are called %s", id)
			}
			seen[id] = true
		}
	}
	if len(seen) < 1000 || strings.Contains(log, "dest3.example") || !strings.Contains(log, "dest2.example") {
		t.Errorf("%d messages, and not all of the three domains or others", len(seen))
	}
}

type fullDisk struct{ left int }

var errNoSpace = errors.New("no space left on device")

func (f *fullDisk) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errNoSpace
	}
	return len(b), nil
}

func TestMailLogThatCannotBe(t *testing.T) {
	from := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, o := range []MailLogOptions{{}, {Bytes: 100}, {Bytes: 100, From: from, To: from}, {From: from, To: from.Add(1)}} {
		if _, err := MailLog(&bytes.Buffer{}, o); err == nil {
			t.Errorf("%+v gives no error", o)
		}
	}
	if _, err := MailLog(&fullDisk{1 << 20}, MailLogOptions{Bytes: 1 << 30, From: from, To: from.Add(time.Hour)}); !errors.Is(err, errNoSpace) {
		t.Errorf("error %v, want %v", err, errNoSpace)
	}
}
