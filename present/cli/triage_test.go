package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/operate"
	"holdfast/postfix"
	"holdfast/present"
)

// throttled is a finding as a rule writes it.
func throttled() diagnose.Finding {
	return diagnose.Finding{
		Cause: postfix.RemoteThrottling, Subject: "bigmail.example", Scope: diagnose.Destination, Confidence: diagnose.High,
		Summary: "bigmail.example takes mail, but more slowly than it is sent: it answers 421 to most attempts and accepted 40 in the last hour.",
		Waiting: 23, Since: at.Add(-95 * time.Minute),
		Evidence: []diagnose.Evidence{
			{Source: "spool", At: at, Text: "23 of 24 recipients there wait with one text: 421 4.7.0 Too many connections from your IP, try again later"},
			{Source: "log /var/log/mail.log", At: at.Add(-20 * time.Second), Text: "2,900 deferrals and 40 deliveries there within the last hour; the last delivery 20s ago by mx1.bigmail.example[192.0.2.10]:25"},
			{Source: "probe egress", At: at.Add(-time.Second), Text: "mx.other.example[198.51.100.25]:25, which took mail today, greets within 12ms"},
		},
		RuledOut: []diagnose.Rejected{
			{Cause: postfix.DNS, Text: "both name servers answer for bigmail.example"},
			{Cause: postfix.Egress, Text: "other destinations are reached"},
			{Cause: postfix.RemoteDown, Text: "it answers and takes mail"},
		},
		Next: []diagnose.Step{
			{Argv: []string{"holdfast", "queue", "--domain", "bigmail.example", "--by", "text"}, Why: "see whether all of it is told the same, before anything is changed"},
			{Argv: []string{"postconf", "-n", "smtp_destination_concurrency_limit"}, Why: "how many connections at once this relay opens to one destination"},
		},
		Avoid: []diagnose.Step{
			{Argv: []string{"postqueue", "-f"}, Why: "a flush sends all 23 at once, and each refusal makes the provider slower"},
			{Argv: []string{"postsuper", "-r", "ALL"}, Why: "a requeue runs filters again and loses what is bounced meanwhile"},
		},
	}
}

func unresolved() diagnose.Finding {
	return diagnose.Finding{
		Cause: postfix.DNS, Subject: "typo.example", Scope: diagnose.Destination, Confidence: diagnose.Medium,
		Summary: "The name servers of typo.example do not answer; every other name resolves.", Waiting: 1,
		Evidence: []diagnose.Evidence{{Source: "probe dns", At: at, Text: "192.0.2.53 answers SERVFAIL for MX typo.example after 4ms"}},
		Next:     []diagnose.Step{{Why: "wait: Postfix tries again by itself"}},
	}
}

func forgotten() diagnose.Finding {
	return diagnose.Finding{
		Cause: postfix.HeldForgotten, Scope: diagnose.HostScope, Confidence: diagnose.Low,
		Summary: "1 message is on hold for more than a day and nobody has said why.", Waiting: 1,
		Next:  []diagnose.Step{{Argv: []string{"holdfast", "queue", "--queue", "hold"}, Why: "see what is held"}},
		Avoid: []diagnose.Step{{Argv: []string{"postsuper", "-H", "ALL"}, Why: "it would be tried at once"}},
	}
}

// readLog is a log that was read well.
func readLog() *observe.Log {
	return &observe.Log{
		Sources: []observe.LogSource{{Name: "/var/log/mail.log", Trust: observe.TrustPlain, Bytes: 1 << 20, Modified: at}},
		Trust:   observe.TrustPlain, From: at.Add(-time.Hour), To: at, Lines: 14210, Other: 12, Unread: 2, Suspect: 3,
		Total: observe.Flow{Arrived: 1204, Delivered: 311, Deferred: 2900, Suspended: 1100, Bounced: 2, Rejected: 17},
	}
}

// triaged is a relay that was judged.
func triaged(findings ...diagnose.Finding) *still {
	op := jam()
	op.judge = func(t *operate.Triage) {
		t.Log, t.Host = readLog(), surroundings()
		t.Verdict = diagnose.Verdict{
			State: diagnose.NotFlowing, Findings: findings,
			Sentence: "Mail to bigmail.example does not flow: the provider slows this relay down. Other mail flows.",
		}
	}
	return op
}

// calm is a healthy relay.
func calm() *still {
	op := &still{snaps: []*observe.Snapshot{snapshot(instance("postfix"),
		message("4F1A2B3C4D", 4*time.Minute, 2000, "a@x.example", to("b@y.example", "4.7.1", "host mx.y.example[192.0.2.1] said: 450 4.7.1 Greylisted")))}}
	op.judge = func(t *operate.Triage) {
		t.Log, t.Host = readLog(), &observe.Host{}
		t.Log.Total = observe.Flow{Arrived: 5000, Delivered: 5120, Deferred: 12, Rejected: 200}
		t.Log.Suspect = 0
		t.Verdict = diagnose.Verdict{State: diagnose.Flowing, Sentence: "Mail flows: 5,120 recipients were delivered to in the last hour, and nothing waits that should not."}
	}
	return op
}

// blind is a relay of which hardly anything could be seen.
func blind() *still {
	snap := observe.Build(instance("postfix"), observe.FromShowq, at, at, []postfix.Queue{postfix.Deferred, postfix.Active, postfix.Incoming, postfix.Hold}, nil)
	snap.Gaps = []observe.Gap{{Source: "spool", Object: "/var/spool/postfix", Text: "permission denied; listed by showq instead", Hint: "run it as root"}}
	return &still{snaps: []*observe.Snapshot{snap}, judge: func(t *operate.Triage) {
		t.Gaps = append(t.Gaps,
			observe.Gap{Source: "log", Object: "/var/log/mail.log", Text: "permission denied", Hint: "run it as root, or as a member of group adm"},
			observe.Gap{Source: "probe egress", Text: "not asked: without a log there is no destination to compare with"})
		t.Verdict = diagnose.Verdict{State: diagnose.CannotTell, Sentence: "Cannot tell whether mail flows: nothing waits in the queues that could be seen, and the log could not be read."}
	}}
}

// relays are two instances, the healthy one first.
func relays() *still {
	good, bad := calm(), triaged(throttled())
	op := &still{snaps: []*observe.Snapshot{good.snaps[0], snapshot(instance("postfix-out"),
		message("4F1A2B3C4D", time.Hour, 1000, "a@x.example", to("b@bigmail.example", "4.7.0", "421 too many")))}}
	op.judge = func(t *operate.Triage) {
		if t.Snapshot.Instance.Name == "postfix" {
			good.judge(t)
		} else {
			bad.judge(t)
		}
	}
	return op
}

func TestFirstScreenFits(t *testing.T) {
	many := []diagnose.Finding{throttled(), unresolved(), forgotten()}
	for i := range 9 {
		f := unresolved()
		f.Subject = fmt.Sprintf("d%d.example", i)
		many = append(many, f)
	}
	long := throttled()
	long.Summary = strings.Repeat(long.Summary+" ", 4)
	for i := range long.Evidence {
		long.Evidence[i].Text = strings.Repeat(long.Evidence[i].Text+" ", 4)
	}
	long.Next[0].Argv = append(long.Next[0].Argv, "--sender", strings.Repeat("x", 100)+"@shop.example")
	for i, findings := range [][]diagnose.Finding{{throttled()}, {throttled(), unresolved()}, many, {long, unresolved(), forgotten()}} {
		for _, columns := range []int{80, 100, 200} {
			r := run(t, triaged(findings...), columns, "triage", "--color=never")
			rows := 0
			for line := range strings.Lines(r.stdout) {
				w := present.Hostile(strings.TrimSuffix(line, "\n")).Words(1 << 20).Width()
				rows += max(1, (w+columns-1)/columns)
			}
			if rows > 23 || r.stderr != "" || r.code != exitDone {
				t.Errorf("case %d takes %d rows of 24 in %d columns (exit %d, %q):\n%s", i, rows, columns, r.code, r.stderr, r.stdout)
			}
			for _, need := range []string{"Mail to bigmail.example does not flow", "STUCK", "WHY", "PROOF", "DO NOT  postqueue -f\n", "deferred", "FLOW"} {
				if !strings.Contains(r.stdout, need) {
					t.Errorf("case %d in %d columns lacks %q:\n%s", i, columns, need, r.stdout)
				}
			}
			if next := "NEXT    " + present.Shell(findings[0].Next[0].Argv...).String() + "\n"; !strings.Contains(r.stdout, next) {
				t.Errorf("case %d in %d columns lacks the whole of %q:\n%s", i, columns, next, r.stdout)
			}
		}
	}
}

func TestVerboseTellsAll(t *testing.T) {
	findings := []diagnose.Finding{throttled(), unresolved(), forgotten()}
	r := run(t, triaged(findings...), 80, "-v", "--color=never")
	flat := strings.Join(strings.Fields(r.stdout), " ")
	for _, f := range findings {
		needs := []string{f.Summary}
		for _, e := range f.Evidence {
			needs = append(needs, e.Text)
		}
		for _, o := range f.RuledOut {
			needs = append(needs, string(o.Cause)+": "+o.Text)
		}
		for _, s := range append(f.Next, f.Avoid...) {
			needs = append(needs, s.Why)
		}
		for _, need := range needs {
			if !strings.Contains(flat, need) {
				t.Errorf("-v does not say %q:\n%s", need, r.stdout)
			}
		}
	}
}

func TestTriageExitCodes(t *testing.T) {
	broken := triaged(throttled())
	broken.err = &postfix.Error{Kind: postfix.CannotTell, Err: errors.New("the other instance"), Hint: "run it as root"}
	guess := blind()
	judge := guess.judge
	guess.judge = func(t *operate.Triage) {
		judge(t)
		t.Verdict.Findings = []diagnose.Finding{forgotten()}
	}
	for _, c := range []struct {
		name string
		op   *still
		args string
		code int
	}{
		{"healthy", calm(), "triage --exit-code", exitDone},
		{"a finding", triaged(throttled()), "triage", exitDone},
		{"a finding that is asked for", triaged(throttled()), "triage --exit-code", exitFindings},
		{"the same without a verb", triaged(throttled()), "--exit-code", exitFindings},
		{"blind", blind(), "triage", exitCannotTell},
		{"blind and asked", blind(), "triage --exit-code", exitCannotTell},
		{"blind with a finding", guess, "triage", exitCannotTell},
		{"blind with a finding, and asked", guess, "triage --exit-code", exitFindings},
		{"one of two", relays(), "triage --exit-code", exitFindings},
		{"one that failed", broken, "triage --exit-code", exitCannotTell},
		{"no window", calm(), "triage --window 0s", exitUsage},
		{"too fast", calm(), "triage --watch=1ms", exitUsage},
		{"an argument", calm(), "triage now", exitUsage},
	} {
		for _, form := range []string{"text", "json"} {
			if r := run(t, c.op, 80, append(strings.Fields(c.args), "-o", form)...); r.code != c.code {
				t.Errorf("%s (%s, %s): exit %d, not %d: %s", c.name, c.args, form, r.code, c.code, r.stderr)
			}
		}
	}
}

// TestTriageShowsWhatItGot: an instance that failed does not hide the others.
func TestTriageShowsWhatItGot(t *testing.T) {
	op := triaged(throttled())
	op.err = &postfix.Error{Kind: postfix.CannotTell, Err: errors.New("the other instance"), Hint: "run it as root"}
	r := run(t, op, 80, "triage")
	if !strings.Contains(r.stdout, "bigmail.example") || !strings.Contains(r.stderr, "the other instance\nhint: run it as root") {
		t.Errorf("%+v", r)
	}
}

func TestTheInstanceThatIsStuckComesFirst(t *testing.T) {
	r := run(t, relays(), 80, "triage", "--color=never")
	first, second := strings.Index(r.stdout, "postfix-out: Mail to bigmail"), strings.Index(r.stdout, "postfix: Mail flows")
	if first != 0 || second < first {
		t.Errorf("%s", r.stdout)
	}
	r = run(t, relays(), 0, "triage", "-o", "json")
	if strings.Count(r.stdout, "\n") != 2 || strings.Count(r.stdout, `"schema":"holdfast.triage/1"`) != 2 {
		t.Errorf("not one object a line for each instance: %s", r.stdout)
	}
}

func TestTriageRecord(t *testing.T) {
	var record struct {
		State, Sentence string
		Queues          map[string]*struct {
			Messages, Bytes int64
			Oldest          int64 `json:"oldest_seconds"`
		}
		Flow    map[string]any
		Reasons []struct {
			Class, Text         string
			Count, Destinations int
		}
		Destinations []struct {
			Domain string
			Count  int
		}
		Senders []struct {
			Sender string
			Count  int
		}
		Findings []map[string]any
		Forecast struct {
			First       time.Time `json:"first_bounce"`
			Day         int       `json:"within_day"`
			HeldOverdue int       `json:"held_overdue"`
		}
		Log  map[string]any
		Gaps []any
	}
	decode := func(op *still) {
		t.Helper()
		r := run(t, op, 0, "triage", "-o", "json")
		if err := json.Unmarshal([]byte(r.stdout), &record); err != nil {
			t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
		}
	}
	decode(triaged(throttled(), unresolved()))
	if q := record.Queues; q["deferred"].Messages != 24 || q["hold"].Messages != 1 || q["saved"] == nil || q["saved"].Messages != 0 {
		t.Errorf("queues %+v", q)
	}
	if f := record.Flow; f["window_seconds"] != 3600.0 || f["arrived"] != 1204.0 || f["direction"] != "growing" || f["since_last_look"] != nil {
		t.Errorf("flow %v", f)
	}
	if r := record.Reasons; len(r) != 3 || r[0].Class != "remote-throttling" || r[0].Count != 24 || r[0].Destinations != 1 {
		t.Errorf("reasons %+v", r)
	}
	if d := record.Destinations; d[0].Domain != "bigmail.example" || d[0].Count != 25 {
		t.Errorf("destinations %+v", d)
	}
	if s := record.Senders; s[0].Sender != "newsletter@shop.example" || s[0].Count != 25 || s[1].Sender != "" {
		t.Errorf("senders %+v", s)
	}
	if f := record.Findings; len(f) != 2 || f[0]["cause"] != "remote-throttling" || f[1]["ruled_out"] == nil || f[1]["avoid"] == nil {
		t.Errorf("findings %v", f)
	}
	if step, ok := record.Findings[1]["next"].([]any)[0].(map[string]any); !ok || step["argv"] == nil {
		t.Errorf("a step without a command has %v for argv", step)
	}
	if want := at.Add(48*time.Hour - 5*time.Minute); !record.Forecast.First.Equal(want) && record.Forecast.First.Before(at) {
		t.Errorf("forecast %+v", record.Forecast)
	}
	record.Flow, record.Log, record.Queues = nil, nil, nil
	decode(blind())
	if q := record.Queues; q["saved"] != nil || q["deferred"] == nil {
		t.Errorf("a queue that was not seen is %+v", q)
	}
	if f := record.Flow; f["arrived"] != nil || f["delivered"] != nil || f["direction"] != "unknown" || f["window_seconds"] != 3600.0 {
		t.Errorf("without a log the flow is %v", f)
	}
	if len(record.Gaps) != 3 || record.Log["sources"] == nil {
		t.Errorf("gaps %v, log %v", record.Gaps, record.Log)
	}
}

// TestWatchTellsWhatCameAndLeft: three looks, between which one message comes
// and two leave.
func TestWatchTellsWhatCameAndLeft(t *testing.T) {
	letter := func(n int) *postfix.Message {
		return message(fmt.Sprintf("4F1A2B3C%02X", n), time.Duration(n)*time.Minute, 10, "a@x.example")
	}
	looks := []*observe.Snapshot{
		snapshot(instance("postfix"), letter(1), letter(2), letter(3)),
		snapshot(instance("postfix"), letter(3), letter(4)),
		snapshot(instance("postfix"), letter(3), letter(4)),
	}
	for _, form := range []string{"text", "json"} {
		ctx, cancel := context.WithCancel(t.Context())
		op := &still{}
		op.onLook = func(n int) {
			op.snaps = looks[min(n-1, 2):][:1]
			if n > 3 {
				cancel()
			}
		}
		r := runWith(ctx, t, op, 0, "", "triage", "--watch=100ms", "-o", form)
		cancel()
		if r.code != exitInterrupted {
			t.Fatalf("%+v", r)
		}
		needs := []string{"the queue shrinks: +1 -2 since", "the queue does not grow: +0 -0 since"}
		if form == "json" {
			needs = []string{`"direction":"unknown"}`, `"direction":"shrinking","since_last_look":{"seconds":0,"came":1,"left":2}`, `"direction":"steady"`}
		}
		for _, need := range needs {
			if !strings.Contains(r.stdout, need) {
				t.Errorf("%s lacks %q:\n%s", form, need, r.stdout)
			}
		}
	}
}

func TestTriageAsksForTheWindow(t *testing.T) {
	var asked operate.TriageOptions
	op := &windowed{still: calm(), asked: &asked}
	for args, want := range map[string]time.Duration{"": time.Hour, "--window 6h": 6 * time.Hour, "triage --window=15m": 15 * time.Minute} {
		var stdout, stderr bytes.Buffer
		code := Run(t.Context(), append(strings.Fields(args), "-o", "json"), Env{
			Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
			Open: func(context.Context, Settings) (Operator, error) { return op, nil },
		})
		if code != exitDone || asked.Window != want || !strings.Contains(stdout.String(), fmt.Sprintf(`"window_seconds":%d,`, int(want.Seconds()))) {
			t.Errorf("%q asks for %s, ends in %d: %s%s", args, asked.Window, code, stdout.String(), stderr.String())
		}
	}
}

// TestWindowIsWhatWasRead: of a log that is too large only the end is read, and
// the numbers are not said to be those of more.
func TestWindowIsWhatWasRead(t *testing.T) {
	op := calm()
	judge := op.judge
	op.judge = func(t *operate.Triage) {
		judge(t)
		t.Log.From, t.Log.Sources[0].Left = at.Add(-10*time.Minute), 1<<30
	}
	if r := run(t, op, 80, "triage"); !strings.Contains(r.stdout, "last 10m 5,000 in") {
		t.Error(r.stdout)
	}
	if rec := lastRecord(t, run(t, op, 0, "triage", "-o", "json").stdout); rec["flow"].(map[string]any)["window_seconds"] != 600.0 {
		t.Error(rec["flow"])
	}
}

// TestLogWithoutASourceIsNoLog: zeroes are counts only where something was
// counted.
func TestLogWithoutASourceIsNoLog(t *testing.T) {
	op := calm()
	op.judge = func(t *operate.Triage) {
		t.Log = &observe.Log{}
		t.Verdict = diagnose.Verdict{State: diagnose.CannotTell, Sentence: "Cannot tell."}
	}
	if r := run(t, op, 80, "triage"); !strings.Contains(r.stdout, "not known: no log was read") {
		t.Error(r.stdout)
	}
	if rec := lastRecord(t, run(t, op, 0, "triage", "-o", "json").stdout); rec["flow"].(map[string]any)["arrived"] != nil {
		t.Error(rec["flow"])
	}
}

// windowed notes what it was asked.
type windowed struct {
	*still
	asked *operate.TriageOptions
}

func (w *windowed) Triage(ctx context.Context, o operate.TriageOptions) ([]*operate.Triage, error) {
	*w.asked = o
	return w.still.Triage(ctx, o)
}
