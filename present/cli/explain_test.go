package cli

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/postfix"
	"holdfast/present"
)

func TestExplain(t *testing.T) {
	const reply = "421 4.7.0 Too many connections from your IP, try again later"
	want := postfix.Explain("", reply)
	for _, args := range [][]string{{"explain", reply}, append([]string{"explain"}, strings.Fields(reply)...)} {
		r := run(t, nil, 80, append(args, "--color=never")...)
		if r.code != exitDone || !strings.HasPrefix(r.stdout, string(want.Class)+", for now") || !strings.Contains(r.stdout, "TEXT    421 4.7.0 Too many") {
			t.Errorf("%q: %+v", args, r)
		}
		rec := lastRecord(t, run(t, nil, 0, append(args, "-o", "json")...).stdout)
		if rec["schema"] != present.SchemaExplanation || rec["text"] != reply || rec["class"] != string(want.Class) || rec["permanent"] != false ||
			rec["meaning"] != want.Meaning || rec["next"] != want.Next || rec["source"] != want.Source {
			t.Errorf("%q: %v, not %+v", args, rec, want)
		}
	}
	lasting := map[bool]string{true: "for good", false: "for now"}[postfix.Explain("", "550 5.1.1 User unknown").Permanent]
	if r := run(t, nil, 80, "explain", "550 5.1.1 User unknown", "--color=never"); !strings.HasPrefix(r.stdout, "recipient-unknown, "+lasting) {
		t.Errorf("%+v", r)
	}
}

// TestExplainLines: one answer for each line, in its place.
func TestExplainLines(t *testing.T) {
	const texts = "550 5.1.1 User unknown\r\n\nconnect to mx.x.example[192.0.2.1]:25: Connection timed out\nzzz"
	r := runWith(t.Context(), t, nil, 0, texts, "explain", "-", "-o", "json")
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	want := []string{"recipient-unknown", "unknown", "remote-down", "unknown"}
	if len(lines) != len(want) || r.code != exitDone {
		t.Fatalf("%+v", r)
	}
	for i, line := range lines {
		var rec struct{ Text, Class string }
		if err := json.Unmarshal([]byte(line), &rec); err != nil || rec.Class != want[i] || i == 1 && rec.Text != "" {
			t.Errorf("line %d: %s (%v)", i, line, err)
		}
	}
	if r := runWith(t.Context(), t, nil, 80, texts, "explain", "-"); strings.Count(r.stdout, "\n\n") != 2 {
		t.Errorf("three texts in %q", r.stdout)
	}
	if r := runWith(t.Context(), t, nil, 0, strings.Repeat("x", longestReply+1), "explain", "-"); r.code != exitUsage {
		t.Errorf("a line without end: %+v", r)
	}
	if r := runWith(t.Context(), t, nil, 0, "", "explain", "-", "-o", "json"); r.code != exitDone || r.stdout != "" {
		t.Errorf("nothing on stdin: %+v", r)
	}
	for _, args := range [][]string{{"explain"}, {"explain", ""}, {"explain", " ", ""}} {
		if r := run(t, nil, 80, args...); r.code != exitUsage || !strings.Contains(r.stderr, "no text") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// summed is what a log of a morning comes to.
func summed() *still {
	return &still{sum: &maillog.Summary{
		Lines: 720_112, Other: 12, Unread: 2, Suspect: 3, UnreadSamples: []string{"Mar 14 03:1Mar 14 03:11:09 relay"},
		SuspectSamples: []string{"Mar 14 03:11:10 relay postfix/smtp: forged"},
		First:          at.Add(-6 * time.Hour), Last: at,
		Received: 120_412, BytesReceived: 2_400_000_000, Delivered: 118_002, Forwarded: 12,
		Deferrals: 29_114, Suspended: 5_100, DeferredMessages: 913, Bounced: 204, Expired: 3, Rejected: 4_711, RejectWarnings: 1, Held: 9, Notifications: 201,
		Reasons: []maillog.SummaryReason{
			{Class: postfix.RemoteThrottling, Text: "host *[*] said: 421 4.7.0 Too many connections from your IP, try again later", Count: 28_000, Deferred: 28_000},
			{Class: postfix.RecipientUnknown, Text: "host *[*] said: 550 5.1.1 User unknown", Count: 200, Bounced: 200},
		},
		Destinations: []maillog.SummaryDestination{{Domain: "bigmail.example", Delivered: 90_000, Deferred: 28_000, Bounced: 150}, {Domain: "partner.example", Delivered: 28_002}},
		Senders:      []maillog.SummarySender{{Sender: "newsletter@shop.example", Messages: 100_000, Bytes: 2_000_000_000}, {Messages: 201, Bytes: 500_000}},
		Dropped:      44,
	}}
}

func TestSummaryOfNothing(t *testing.T) {
	gap := observe.Gap{Source: "log", Object: "/var/log/mail.log", Text: "permission denied", Hint: "run it as root"}
	for _, c := range []struct {
		name string
		op   *still
		code int
		says string
	}{
		{"empty", &still{sum: &maillog.Summary{}}, exitDone, ""},
		{"unreadable", &still{sum: &maillog.Summary{}, sumGaps: []observe.Gap{gap}}, exitCannotTell, "permission denied\nhint: run it as root\nholdfast: no line"},
		{"one of two unreadable", &still{sum: &maillog.Summary{Lines: 1}, sumGaps: []observe.Gap{gap}}, exitDone, "permission denied\nhint: run it as root\n"},
		{"failed", &still{sumErr: &postfix.Error{Kind: postfix.Failed, Err: errors.New("no such file")}}, exitFailed, "no such file"},
	} {
		for _, form := range []string{"text", "json"} {
			r := run(t, c.op, 80, "logs", "summary", "/var/log/mail.log", "-o", form)
			if r.code != c.code || !strings.Contains(r.stderr, c.says) || c.says == "" && r.stderr != "" {
				t.Errorf("%s: %+v", c.name, r)
			}
		}
	}
}

func TestSummaryAsksFor(t *testing.T) {
	op := summed()
	if r := run(t, op, 80, "logs", "summary", "x", "--window", "24h", "--syslog-name", "postfix-out", "--limit", "1"); r.code != exitDone ||
		!op.asked.Since.Equal(at.Add(-24*time.Hour)) || op.asked.SyslogName != "postfix-out" || op.asked.Location != time.UTC ||
		strings.Contains(r.stdout, "partner.example") || !strings.Contains(r.stdout, "Destinations (1 of 2, --limit 0 shows all)") {
		t.Errorf("%+v %+v", op.asked, r)
	}
	if run(t, op, 80, "logs", "summary", "x"); !op.asked.Since.IsZero() {
		t.Errorf("%+v", op.asked)
	}
}

// TestStepsAreCommands runs what the explanations of real replies tell people
// to run: a command that is printed to be pasted must be one.
func TestStepsAreCommands(t *testing.T) {
	replies, err := os.ReadFile("../../postfix/testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	tried := make(map[string]bool)
	for line := range strings.Lines(string(replies)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		step := postfix.Explain("", fields[len(fields)-1]).Step
		if len(step) == 0 || step[0] != "holdfast" || tried[strings.Join(step, " ")] {
			continue
		}
		tried[strings.Join(step, " ")] = true
		if r := run(t, one(), 80, step[1:]...); r.code == exitUsage {
			t.Errorf("%q is told to run %q, which says %q", fields[len(fields)-1], step, r.stderr)
		}
	}
	if len(tried) == 0 {
		t.Error("no explanation has a step")
	}
}
