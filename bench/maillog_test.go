package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/observe/maillog"
)

// logOf returns a log of a share of the largest one's size.
func logOf(b *testing.B, share int64, span time.Duration) *Log {
	b.Helper()
	size := int64(50_000_000)
	if s := os.Getenv(logBytesEnv); s != "" {
		var err error
		if size, err = strconv.ParseInt(s, 10, 64); err != nil {
			b.Fatalf("%s: %v", logBytesEnv, err)
		}
	}
	size /= share
	l, err := OpenLog(filepath.Join(corpora(b).dir, fmt.Sprintf("mail-%d-%s.log", size, span)), size, span)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// benchReader measures a command that reads a whole log.
func benchReader(b *testing.B, l *Log, argv ...string) {
	b.Helper()
	took := benchProcess(b, exec.CommandContext(b.Context(), argv[0], append(argv[1:], l.Path)...), true)
	b.ReportMetric(float64(l.Totals.Bytes)/1e6/took.Seconds(), "MB/s")
}

const aDay = 24 * time.Hour

func BenchmarkLogSummary(b *testing.B) {
	benchReader(b, logOf(b, 5, aDay), product(), "logs", "summary", "-o", "json")
}

func BenchmarkPflogsumm(b *testing.B) {
	benchReader(b, logOf(b, 5, aDay), "pflogsumm")
}

// BenchmarkPflogsummLeast is pflogsumm told to keep and print as little as it can.
func BenchmarkPflogsummLeast(b *testing.B) {
	benchReader(b, logOf(b, 5, aDay), "pflogsumm", "--detail", "0", "-h", "0", "-u", "0", "--no-no-msg-size")
}

func BenchmarkLogSummarySmall(b *testing.B) {
	benchReader(b, logOf(b, 10, aDay), product(), "logs", "summary", "-o", "json")
}

func BenchmarkLogSummaryGiant(b *testing.B) {
	benchReader(b, logOf(b, 1, aDay), product(), "logs", "summary", "-o", "json")
}

// Networks for triage, in a namespace of its own: what it asks must reach
// nobody. In the first every connection fails at once. In the other one all
// that is sent is lost, as behind a firewall that drops: it must wait.
const (
	cutOff = `ip link set lo up && exec "$@"`
	deaf   = `ip link set lo up &&
ip link add near type veth peer name far && ip link set far up && ip link set near up &&
ip addr add 10.255.0.1/16 dev near && ip neigh add 10.255.0.2 lladdr 02:00:00:00:00:02 nud permanent dev near &&
ip route add default via 10.255.0.2 && exec "$@"`
)

// benchTriage measures a triage of the whole corpus with a log, and holds it to
// saying what of the log it left unread.
func benchTriage(b *testing.B, l *Log, network string) {
	b.Helper()
	c := corpora(b)
	config, err := c.full.WithLog(l)
	if err != nil {
		b.Fatal(err)
	}
	// Its memory of whom it asked would spare the second one the asking.
	state, err := os.MkdirTemp(c.dir, "state-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(state)
	if err := os.Chmod(state, 0o755); err != nil { // the mail owner has a directory below it
		b.Fatal(err)
	}
	triage := exec.CommandContext(b.Context(), "unshare", "-n", "sh", "-c",
		`rm -rf "$1"/* && shift && `+network, "sh", state, product(), "-c", config, "--state-dir", state, "triage", "-o", "json")
	again := *triage
	benchProcess(b, triage, true)
	b.StopTimer()
	checkTriage(b, &again, c.full, l)
}

// checkTriage runs a triage once more and looks at what it says.
func checkTriage(b *testing.B, triage *exec.Cmd, c *Corpus, l *Log) {
	b.Helper()
	out, err := triage.Output()
	if err != nil {
		b.Fatalf("triage: %v", err)
	}
	var said struct {
		Queues map[string]struct {
			Messages int `json:"messages"`
		} `json:"queues"`
		Log struct {
			Lines   int64 `json:"lines"`
			Sources []struct {
				Bytes int64 `json:"bytes"`
				Left  int64 `json:"left"`
			} `json:"sources"`
		} `json:"log"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		b.Fatalf("read what triage says: %v", err)
	}
	if n := said.Queues["deferred"].Messages; n != c.Messages {
		b.Errorf("triage saw %d messages of %d", n, c.Messages)
	}
	if len(said.Log.Sources) != 1 || said.Log.Lines == 0 {
		b.Fatalf("triage read %d lines of %d logs", said.Log.Lines, len(said.Log.Sources))
	}
	if s := said.Log.Sources[0]; s.Bytes+s.Left != l.Totals.Bytes || s.Left == 0 && s.Bytes > 400<<20 {
		b.Errorf("triage says that it read %d bytes of the log and left %d; it has %d", s.Bytes, s.Left, l.Totals.Bytes)
	}
}

func BenchmarkTriage(b *testing.B) { benchTriage(b, logOf(b, 1, aDay), cutOff) }

func BenchmarkTriageDeaf(b *testing.B) { benchTriage(b, logOf(b, 1, aDay), deaf) }

// BenchmarkTriageFlood has all of the log in the hour that triage is about.
func BenchmarkTriageFlood(b *testing.B) { benchTriage(b, logOf(b, 1, 55*time.Minute), cutOff) }

// TestSummaryAgreesWithPflogsumm holds the summary to what the log was made of,
// and to what an independent reader makes of it.
func TestSummaryAgreesWithPflogsumm(t *testing.T) {
	l, err := OpenLog(filepath.Join(t.TempDir(), "mail.log"), 12_000_000, aDay)
	if err != nil {
		t.Fatal(err)
	}
	sum, gaps, err := maillog.Summarize(t.Context(), []string{l.Path}, maillog.Options{}, nil)
	if err != nil || len(gaps) > 0 {
		t.Fatal(err, gaps)
	}
	out, err := exec.CommandContext(t.Context(), "pflogsumm", l.Path).Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := grandTotals(t, out)
	x := l.Totals
	for _, c := range []struct {
		name              string
		ours, truth, both int64 // both is what pflogsumm counts of ours
	}{
		{"received", sum.Received, x.Received, sum.Received},
		{"bytes received", sum.BytesReceived, x.BytesReceived, sum.BytesReceived},
		{"delivered", sum.Delivered, x.Delivered, sum.Delivered},
		{"forwarded", sum.Forwarded, 0, sum.Forwarded},
		{"deferred", sum.DeferredMessages, x.DeferredMessages, sum.DeferredMessages},
		{"deferrals", sum.Deferrals, x.Deferrals + x.Suspended, sum.Deferrals},
		// What qmgr returns because it is too old has no delivery record of its
		// own; pflogsumm counts none.
		{"bounced", sum.Bounced, x.Bounced + x.Expired, sum.Bounced - sum.Expired},
		{"rejected", sum.Rejected, x.Rejected, sum.Rejected},
		{"reject warnings", sum.RejectWarnings, x.RejectWarnings, sum.RejectWarnings},
		// It knows only holds of rules, not those of postsuper.
		{"held", sum.Held, x.HeldByRule + x.HeldByHand, sum.Held - x.HeldByHand},
		{"discarded", sum.Discarded, 0, sum.Discarded},
	} {
		if c.ours != c.truth {
			t.Errorf("%s: the summary has %d, the log was made of %d", c.name, c.ours, c.truth)
		}
		if got, ok := theirs[c.name]; !ok || got != pflogsummPrints(c.both) {
			t.Errorf("%s: pflogsumm prints %q, the summary makes it %q", c.name, got, pflogsummPrints(c.both))
		}
	}
	if sum.Lines != x.Lines || sum.Suspended != x.Suspended || sum.Expired != x.Expired || sum.Notifications != x.Notifications || sum.Unread+sum.Other+sum.Suspect != 0 {
		t.Errorf("lines, suspended, expired, notifications, not read: %d %d %d %d %d; the log was made of %+v",
			sum.Lines, sum.Suspended, sum.Expired, sum.Notifications, sum.Unread+sum.Other+sum.Suspect, x)
	}
}

// grandTotals reads the first table of pflogsumm: "  22392   deferred  (47499  deferrals)".
func grandTotals(t *testing.T, out []byte) map[string]string {
	t.Helper()
	_, table, ok := bytes.Cut(out, []byte("Grand Totals"))
	table, _, ok2 := bytes.Cut(table, []byte("Per-"))
	if !ok || !ok2 {
		t.Fatalf("pflogsumm prints no totals:\n%.2000s", out)
	}
	totals := make(map[string]string)
	for line := range strings.Lines(string(table)) {
		value, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		name, more, _ := strings.Cut(strings.TrimSpace(name), "(")
		totals[strings.TrimSpace(name)] = value
		if value, name, ok := strings.Cut(more, " "); ok {
			totals[strings.Trim(name, " )\n")] = value
		}
	}
	return totals
}

// pflogsummPrints rounds as pflogsumm does: down, to k from half a mega on and
// to m from half a giga on.
func pflogsummPrints(n int64) string {
	switch {
	case n > 512<<20:
		return strconv.FormatInt(n>>20, 10) + "m"
	case n > 512<<10:
		return strconv.FormatInt(n>>10, 10) + "k"
	}
	return strconv.FormatInt(n, 10)
}

// TestLogOfAnotherTimeIsMadeAnew keeps triage from being measured on a log
// whose last hour is over.
func TestLogOfAnotherTimeIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.log")
	first, err := OpenLog(path, 10_000, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := OpenLog(path, 10_000, time.Hour); err != nil || !again.To.Equal(first.To) || again.Totals != first.Totals {
		t.Errorf("open it again: %+v, %v; want %+v", again, err, first)
	}
	first.To = first.To.Add(-2 * fresh)
	text, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".json", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := OpenLog(path, 10_000, time.Hour); err != nil || time.Since(again.To) > fresh {
		t.Errorf("an old log was used again: %v, %v", again, err)
	}
}
