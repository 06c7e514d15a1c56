package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/observe"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

// one is a queue with a single message.
func one() *still {
	return &still{snaps: []*observe.Snapshot{snapshot(instance("postfix"),
		message("4F1A2B3C4D", time.Hour, 1000, "a@x.example", to("b@y.example", "4.4.1", "connect to y.example[192.0.2.1]:25: Connection timed out")))}}
}

// TestExitCodesAreThoseOfTheManual reads docs/exit-codes.md.
func TestExitCodesAreThoseOfTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[int]string)
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| ([a-z-]+) \|`).FindAllStringSubmatch(string(manual), -1) {
		code, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		documented[code] = m[2]
	}
	ours := map[int]string{exitDone: "done", exitFindings: "findings"}
	for kind := postfix.Failed; kind <= postfix.Interrupted; kind++ {
		code, word := outcome(fmt.Errorf("wrapped: %w", &postfix.Error{Kind: kind}))
		ours[code] = word
	}
	if diff := cmp.Diff(documented, ours); diff != "" {
		t.Errorf("docs/exit-codes.md and the program differ:\n%s", diff)
	}
	if code, _ := outcome(errors.New("plain")); code != exitFailed {
		t.Errorf("an error without a kind ends in %d", code)
	}
	if code, _ := outcome(fmt.Errorf("read: %w", context.Canceled)); code != exitInterrupted {
		t.Errorf("a cancelled context ends in %d", code)
	}
}

// lastRecord decodes the last line of JSON output.
func lastRecord(t *testing.T, out string) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var record map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &record); err != nil {
		t.Fatalf("%q is not JSON: %v", lines[len(lines)-1], err)
	}
	return record
}

func TestMistakesOfTheCommandLine(t *testing.T) {
	for _, c := range []struct {
		args  string
		stdin string
		says  string
		hint  string
	}{
		{args: "nope", says: "there is no command nope", hint: "--help"},
		{args: "queu", says: "there is no command queu", hint: "holdfast queue?"},
		{args: "queue --nope", says: "unknown flag", hint: "holdfast queue --help"},
		{args: "queue -o yaml", says: "text, json", hint: "--help"},
		{args: "queue --by nope", says: "destination", hint: "--help"},
		{args: "queue --by cause --ages", says: "--by and --ages", hint: "one of the two"},
		{args: "queue --limit -3", says: "negative", hint: "--limit 0"},
		{args: "queue --limit many", says: "many", hint: "--help"},
		{args: "queue --watch=1ms", says: "shorter", hint: "2s"},
		{args: "queue --timeout -1s", says: "negative", hint: "leave"},
		{args: "queue --queue nope", says: `--queue "nope"`, hint: "deferred"},
		{args: "queue --cause dsn", says: `--cause "dsn"`, hint: "remote-throttling"},
		{args: "queue --older-than 5", says: "--older-than", hint: "2h"},
		{args: "queue --where size>", says: "--where", hint: "write"},
		{args: "queue --id 1@2", says: "--id", hint: "postqueue -p"},
		{args: "queue 1@2", says: "--id", hint: "postqueue -p"},
		{args: "queue -", stdin: "4F1A2B3C4D\nnot an id\n", says: "line 2 of stdin", hint: "one queue ID a line"},
		{args: "queue -", stdin: strings.Repeat("A", 5000), says: "stdin", hint: "one queue ID a line"},
		{args: "show", says: "no ID", hint: "holdfast queue"},
		{args: "triage now", says: "now", hint: "--help"},
		{args: "triage --window 0s", says: "--window", hint: "1h"},
		{args: "--window 5", says: "5", hint: "--help"},
		{args: "explain", says: "no text", hint: "explain -"},
		{args: "logs", says: "no command", hint: "logs summary"},
		{args: "logs nope x", says: "no command nope", hint: "logs --help"},
		{args: "logs summary", says: "no log file", hint: "/var/log/mail.log"},
		{args: "logs summary --limit -1 x", says: "negative", hint: "--limit 0"},
		{args: "logs summary --window -1h x", says: "negative", hint: "--window"},
		{args: "version more", says: "more", hint: "--help"},
	} {
		opened := false
		for _, form := range []string{"text", "json"} {
			var stdout, stderr bytes.Buffer
			args := append(strings.Fields(c.args), "-o", form)
			if strings.Contains(c.args, "-o ") {
				args = strings.Fields(c.args)
			}
			code := Run(t.Context(), args, Env{
				Stdin: strings.NewReader(c.stdin), Stdout: &stdout, Stderr: &stderr,
				Open: func(context.Context, Settings) (Operator, error) { opened = true; return one(), nil },
			})
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			if code != exitUsage || len(lines) != 2 || !strings.HasPrefix(lines[0], "holdfast: ") || !strings.HasPrefix(lines[1], "hint: ") {
				t.Errorf("%q ends in %d and says %q", c.args, code, stderr.String())
				continue
			}
			if !strings.Contains(lines[0], c.says) || !strings.Contains(lines[1], c.hint) {
				t.Errorf("%q says %q, not %q and %q", c.args, lines, c.says, c.hint)
			}
			if form == "json" && !strings.Contains(c.args, "-o ") {
				record := lastRecord(t, stdout.String())
				if record["schema"] != present.SchemaError || record["kind"] != "usage" || record["exit_code"] != 2.0 ||
					record["instance"] != "" || !strings.Contains(lines[0], record["message"].(string)) {
					t.Errorf("%q writes %v", c.args, record)
				}
			} else if stdout.Len() > 0 {
				t.Errorf("%q writes %q to stdout", c.args, stdout.String())
			}
		}
		if opened {
			t.Errorf("%q was noticed only after the queue was opened", c.args)
		}
	}
}

func TestFlagsStandBeforeAndAfterTheVerb(t *testing.T) {
	var got Settings
	for _, args := range []string{"-c /a --config-dir /b -o json queue --by queue", "queue --by queue -o json -c /a --config-dir=/b", "-c /a queue -o json --by=queue -c /b"} {
		var stdout, stderr bytes.Buffer
		code := Run(t.Context(), strings.Fields(args), Env{
			Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
			Open: func(_ context.Context, s Settings) (Operator, error) { got = s; return one(), nil },
		})
		if code != exitDone || stderr.Len() > 0 {
			t.Errorf("%q ends in %d: %s", args, code, stderr.String())
		}
		if diff := cmp.Diff([]string{"/a", "/b"}, got.ConfigDirs); diff != "" {
			t.Errorf("%q: %s", args, diff)
		}
		if r := lastRecord(t, stdout.String()); r["by"] != "queue" || r["total"] != 1.0 {
			t.Errorf("%q writes %v", args, r)
		}
	}
}

func TestFailures(t *testing.T) {
	broken := &postfix.Error{Kind: postfix.CannotTell, Op: "read", Object: `"/var/spool/postfix"`, Err: errors.New("permission denied"), Hint: "run it as root"}
	part := one()
	part.err = broken
	several := &still{err: errors.Join(broken, &postfix.Error{Kind: postfix.CannotTell, Err: errors.New("other"), Hint: "second hint"})}
	for _, c := range []struct {
		name   string
		op     Operator
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"cannot look", &still{err: broken}, []string{"queue"}, 6, "", "holdfast: read \"/var/spool/postfix\": permission denied\nhint: run it as root\n"},
		{"cannot look at one of two", part, []string{"queue", "--limit", "1"}, 6, "1 message, 1 recipient to do, 1000, oldest 1h", "permission denied\nhint: run it as root\n"},
		{"several", several, []string{"queue"}, 6, "", "permission denied\nhint: run it as root\nholdfast: other\nhint: second hint\n"},
		{"plain error", &still{err: errors.New("boom")}, []string{"queue"}, 1, "", "holdfast: boom\n"},
		{"unknown ID to show", one(), []string{"show", "ABCDEF"}, 1, "", "holdfast: ABCDEF is in no queue\nhint: it may have been delivered"},
		{"unknown ID beside a known one", one(), []string{"show", "ABCDEF", "4F1A2B3C4D"}, 1, "4F1A2B3C4D  deferred queue, remote-down", "ABCDEF is in no queue"},
		{"unknown ID to select", one(), []string{"queue", "--id", "ABCDEF,4F1A2B3C4D"}, 1, "1 message,", "holdfast: ABCDEF is in no queue"},
		{"known ID that the rest excludes", one(), []string{"queue", "4F1A2B3C4D", "--queue", "hold"}, 0, "Nothing matches; the queue has 1 message.", ""},
	} {
		r := run(t, c.op, 80, append(c.args, "--color", "never")...)
		if r.code != c.code || !strings.Contains(r.stdout, c.stdout) || !strings.Contains(r.stderr, c.stderr) || c.stderr == "" && r.stderr != "" {
			t.Errorf("%s: %d\n%s--\n%s", c.name, r.code, r.stdout, r.stderr)
		}
		j := run(t, c.op, 0, append(c.args, "-o", "json")...)
		if j.code != c.code {
			t.Errorf("%s: %d with JSON", c.name, j.code)
		}
		if c.code != 0 {
			if rec := lastRecord(t, j.stdout); rec["schema"] != present.SchemaError || rec["exit_code"] != float64(c.code) {
				t.Errorf("%s: %v", c.name, rec)
			}
		}
		if s, ok := c.op.(*still); ok && !s.closed {
			t.Errorf("%s: the host is not let go", c.name)
		}
	}
}

// noSpace is a full disk.
type noSpace struct{}

func (noSpace) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputThatCannotBeWritten(t *testing.T) {
	for _, args := range []string{"", "triage -o json", "explain 421", "explain 421 -o json", "queue", "queue -o json", "queue --by cause -o json", "show 4F1A2B3C4D", "version", "queue --help"} {
		var stderr bytes.Buffer
		code := Run(t.Context(), strings.Fields(args), Env{
			Stdin: strings.NewReader(""), Stdout: noSpace{}, Stderr: &stderr,
			Open: func(context.Context, Settings) (Operator, error) { return one(), nil },
		})
		if code != exitFailed || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%s: %d, %q", args, code, stderr.String())
		}
	}
}

func TestGapsAreSaid(t *testing.T) {
	snap := snapshot(instance("postfix"), message("4F1A2B3C4D", time.Hour, 1000, "a@x.example"))
	snap.Gaps = []observe.Gap{{Source: "spool", Object: "hold", Text: "permission denied", Hint: "run it as root"}}
	snap.Strays = []observe.Stray{{Path: "deferred/A/x", Kind: observe.Misplaced, Size: 5}}
	op := &still{snaps: []*observe.Snapshot{snap}}
	for _, args := range [][]string{{"queue"}, {"queue", "--by", "cause"}, {"queue", "--ages"}} {
		r := run(t, op, 80, args...)
		if r.code != exitDone || !strings.Contains(r.stderr, "holdfast: cannot tell: spool hold: permission denied\nhint: run it as root\n") ||
			!strings.Contains(r.stderr, "1 file in the queue directories that Postfix does not take for mail; -v lists them") {
			t.Errorf("%v: %d %q", args, r.code, r.stderr)
		}
		j := run(t, op, 0, append(args, "-o", "json")...)
		rec := lastRecord(t, j.stdout)
		if len(rec["gaps"].([]any)) != 1 || len(rec["strays"].([]any)) != 1 {
			t.Errorf("%v: %v", args, rec)
		}
	}
	if r := run(t, op, 80, "queue", "-v"); !strings.Contains(r.stderr, "deferred/A/x: misplaced, 5") || !strings.Contains(r.stderr, "looked at /var/spool/postfix by spool from 03:11:59 to 03:12:00") {
		t.Errorf("-v says %q", r.stderr)
	}
	if r := run(t, op, 80, "queue", "-q"); r.stderr != "" {
		t.Errorf("-q says %q", r.stderr)
	}
}

func TestQueuesThatCannotBeSeen(t *testing.T) {
	shard := observe.NewShard()
	shard.Add(message("4F1A2B3C4D", time.Hour, 1000, "a@x.example"))
	seen := observe.Build(instance("postfix"), observe.FromShowq, at, at, []postfix.Queue{postfix.Deferred}, []*observe.Shard{shard})
	blind := observe.Build(instance("postfix"), observe.FromShowq, at, at, nil, nil)
	for _, c := range []struct {
		snap *observe.Snapshot
		args []string
		code int
		says string
	}{
		{seen, []string{"queue"}, 0, "holdfast: cannot tell what is in incoming, active, hold, maildrop, corrupt, saved\n"},
		{seen, []string{"queue", "--queue", "hold"}, 6, "queue hold could not be looked at"},
		{seen, []string{"queue", "--queue", "hold,deferred"}, 0, ""},
		{seen, []string{"queue", "--id", "ABCDEF"}, 6, "ABCDEF is in no queue that could be seen"},
		{seen, []string{"queue", "--client", "10.0.0.1"}, 6, "only queue files tell"},
		{seen, []string{"queue", "--where", "inode > 1"}, 2, "inode"},
		{seen, []string{"queue", "--where", `client_name == "x"`}, 6, "only queue files tell"},
		{blind, []string{"queue"}, 6, "no queue could be looked at"},
		{blind, []string{"queue", "--by", "cause", "-o", "json"}, 6, "no queue could be looked at"},
	} {
		r := run(t, &still{snaps: []*observe.Snapshot{c.snap}}, 80, c.args...)
		if r.code != c.code || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%v: %d %q", c.args, r.code, r.stderr)
		}
	}
}

// TestUnseenQueuesAreANoteOfTheirOwn: also where no gap came with them.
func TestUnseenQueuesAreANoteOfTheirOwn(t *testing.T) {
	snap := observe.Build(instance("postfix"), observe.FromShowq, at, at, []postfix.Queue{postfix.Deferred}, nil)
	r := run(t, &still{snaps: []*observe.Snapshot{snap}}, 0, "queue", "-o", "json")
	if rec := lastRecord(t, r.stdout); r.code != exitDone || rec["schema"] != present.SchemaNotes || len(rec["unseen"].([]any)) != 6 {
		t.Errorf("%d %v", r.code, rec)
	}
}

func TestEmptyQueue(t *testing.T) {
	op := &still{snaps: []*observe.Snapshot{snapshot(instance("postfix"))}}
	for _, args := range []string{"queue", "queue --by cause", "queue --ages"} {
		if r := run(t, op, 80, append(strings.Fields(args), "--color=never")...); r.code != 0 || r.stdout != "The queue is empty.\n" || r.stderr != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if r := run(t, op, 0, "queue", "-o", "json"); r.code != 0 || r.stdout != "" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

func TestIDsFromStdin(t *testing.T) {
	op := &still{snaps: []*observe.Snapshot{snapshot(instance("postfix"),
		message("4F1A2B3C4D", time.Hour, 1, "a@x.example"), message("4F1A2B3C4E", time.Hour, 2, "b@x.example"), message("4F1A2B3C4F", time.Hour, 3, "c@x.example"))}}
	for _, c := range []struct {
		stdin string
		args  string
		lines int
		code  int
	}{
		{"4F1A2B3C4D\r\n\n 4F1A2B3C4F \n", "queue -", 2, 0},
		{"4F1A2B3C4D\n", "queue - 4F1A2B3C4E", 2, 0},
		{"", "queue -", 0, 0},
		{"", "queue - --all", 0, 0},
		{"4F1A2B3C4D\nABCDEF\n", "queue -", 1, 1},
		{"4F1A2B3C4D\n4F1A2B3C4E", "show -", 2, 0},
		{"", "show -", 0, 0},
	} {
		r := runWith(t.Context(), t, op, 0, c.stdin, append(strings.Fields(c.args), "-o", "json")...)
		if n := strings.Count(r.stdout, `"id":`); n != c.lines || r.code != c.code {
			t.Errorf("%q to %s: %d lines, exit %d: %s", c.stdin, c.args, n, r.code, r.stderr)
		}
	}
}

func TestHeadersAreReadOnlyWhenAsked(t *testing.T) {
	op := &still{
		snaps: []*observe.Snapshot{snapshot(instance("postfix"), message("4F1A2B3C4D", time.Hour, 1, "a@x.example"), message("4F1A2B3C4E", time.Hour, 2, "b@x.example"))},
		headers: map[postfix.QueueID][]plan.Header{
			"4F1A2B3C4D": {{Name: "Subject", Value: "Invoice 17"}},
		},
	}
	r := run(t, op, 0, "queue", "-o", "json", "--header", "subject: invoice")
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if r.code != 0 || len(lines) != 2 || !strings.Contains(lines[0], `"id":"4F1A2B3C4D"`) {
		t.Fatalf("%+v", r)
	}
	rec := lastRecord(t, r.stdout)
	gaps, ok := rec["gaps"].([]any)
	if !ok || len(gaps) != 1 || rec["schema"] != present.SchemaNotes {
		t.Fatalf("a message that cannot be judged is no gap: %v", rec)
	}
	if r := run(t, op, 0, "queue", "--header", "subject: other"); r.code != exitCannotTell || !strings.Contains(r.stderr, "1 message could not be judged") {
		t.Errorf("nothing was found and one message could not be judged: %+v", r)
	}
}

func TestWatch(t *testing.T) {
	for _, columns := range []int{0, 80} {
		ctx, cancel := context.WithCancel(t.Context())
		op := one()
		op.onLook = func(n int) {
			if n == 3 {
				cancel()
			}
		}
		r := runWith(ctx, t, op, columns, "", "queue", "--watch=100ms", "--color=never")
		if r.code != exitInterrupted || r.stderr != "holdfast: interrupted\n" {
			t.Errorf("ends in %d: %q", r.code, r.stderr)
		}
		if n := strings.Count(r.stdout, "1 message, 1 recipient"); n != 2 {
			t.Errorf("%d pictures: %q", n, r.stdout)
		}
		if n := strings.Count(r.stdout, "\x1b[H\x1b[J"); (columns > 0) != (n == 2) {
			t.Errorf("%d times home in %d columns", n, columns)
		}
		cancel()
	}
}

func TestPictureFitsTheTerminal(t *testing.T) {
	var many []*postfix.Message
	for i := range 100 {
		many = append(many, message(fmt.Sprintf("4F%08X", i), time.Hour, 1, "a@x.example", to("b@y.example", "", "")))
	}
	snap := snapshot(instance("postfix"), many...)
	snap.Gaps = []observe.Gap{{Source: "spool", Text: "x"}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	op := &still{snaps: []*observe.Snapshot{snap}, onLook: func(n int) {
		if n == 2 {
			cancel()
		}
	}}
	r := runWith(ctx, t, op, 80, "", "queue", "--watch", "--watch=100ms", "--limit", "0")
	if n := strings.Count(r.stdout, "\n"); n != 23 {
		t.Errorf("%d lines on a terminal of 24", n)
	}
}

func TestTimeout(t *testing.T) {
	op := one()
	op.onLook = func(int) { time.Sleep(50 * time.Millisecond) }
	if r := run(t, op, 0, "queue", "--timeout", "1ms"); r.code != exitCannotTell || !strings.Contains(r.stderr, "not finished within 1ms\nhint: ") {
		t.Errorf("%+v", r)
	}
}

func TestInstancesAreNamed(t *testing.T) {
	op := &still{snaps: []*observe.Snapshot{
		snapshot(instance("postfix"), message("4F1A2B3C4D", time.Hour, 1, "a@x.example")),
		snapshot(instance("postfix-out"), message("4F1A2B3C4D", time.Hour, 1, "b@x.example")),
	}}
	r := run(t, op, 0, "queue", "--by", "sender")
	if !strings.Contains(r.stdout, "Postfix instance postfix (/etc/postfix)\n") || !strings.Contains(r.stdout, "\n\nPostfix instance postfix-out (/etc/postfix-out)\n") {
		t.Error(r.stdout)
	}
	for _, args := range []string{"queue", "queue --by sender", "queue --ages", "show 4F1A2B3C4D"} {
		r := run(t, op, 0, append(strings.Fields(args), "-o", "json")...)
		if strings.Count(r.stdout, `"instance":"postfix",`) != 1 || strings.Count(r.stdout, `"instance":"postfix-out",`) != 1 {
			t.Errorf("%s: %s", args, r.stdout)
		}
	}
}

func TestColour(t *testing.T) {
	env := map[string]string{}
	paint := func(columns int, args ...string) bool {
		var stdout bytes.Buffer
		Run(t.Context(), append([]string{"queue"}, args...), Env{
			Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: io.Discard, Terminal: Terminal{Columns: columns, Rows: 24},
			Getenv: func(name string) string { return env[name] },
			Open:   func(context.Context, Settings) (Operator, error) { return one(), nil },
		})
		return strings.Contains(stdout.String(), "\x1b[")
	}
	if !paint(80) || paint(0) || paint(80, "--color=never") || !paint(0, "--color=always") || paint(80, "-o", "json") {
		t.Error("colour does not follow the terminal and --color")
	}
	env["NO_COLOR"] = "1"
	if paint(80) || !paint(80, "--color=always") {
		t.Error("NO_COLOR is not honoured, or overrules --color")
	}
	env = map[string]string{"TERM": "dumb"}
	if paint(80) {
		t.Error("a dumb terminal is painted")
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"--help", "triage --help", "explain --help", "logs --help", "logs summary --help", "queue --help", "show --help", "version --help", "help queue", "help where", "completion bash --help"} {
		r := run(t, nil, 80, append(strings.Fields(args), "--color=never")...)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%q: %d %q", args, r.code, r.stderr)
		}
		for line := range strings.Lines(r.stdout) {
			if w := present.Hostile(strings.TrimSuffix(line, "\n")).Words(0).Width(); w > 80 && !strings.HasPrefix(args, "completion") {
				t.Errorf("%q: %d columns: %q", args, w, line)
			}
		}
		needs := []string{"Examples", "Global flags"}
		if args == "logs --help" {
			needs = []string{"Commands", "summary", "Global flags"}
		}
		if verb := strings.TrimPrefix(strings.TrimSuffix(args, " --help"), "help "); verb == "triage" || verb == "explain" || verb == "logs summary" || verb == "queue" || verb == "show" || verb == "version" {
			needs = append(needs, "Exit codes", "  0     done", "Usage", "holdfast "+verb)
		}
		for _, need := range needs {
			if !strings.Contains(r.stdout, need) && !strings.HasPrefix(args, "completion") && args != "help where" {
				t.Errorf("%q does not have %q", args, need)
			}
		}
	}
	where := run(t, nil, 80, "help", "where").stdout
	for _, f := range plan.WhereFields() {
		if !strings.Contains(where, "  "+f.Name+" ") {
			t.Errorf("help where does not tell about %s", f.Name)
		}
	}
	for _, f := range plan.WhereFunctions() {
		if !strings.Contains(where, "  "+f.Type+" ") {
			t.Errorf("help where does not tell about %s", f.Type)
		}
	}
	queue := run(t, nil, 80, "queue", "--help").stdout
	for _, f := range plan.Flags() {
		if !strings.Contains(queue, "--"+f.Name+" ") {
			t.Errorf("queue --help does not tell about --%s", f.Name)
		}
	}
}

func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"__complete queue --by ca":      "cause\n",
		"__complete queue --sort next":  "next-try\n",
		"__complete queue --queue ho":   "hold\n",
		"__complete queue --cause grey": "greylisting\n",
		"__complete qu":                 "queue\t",
	} {
		if r := run(t, nil, 0, strings.Fields(args)...); !strings.Contains("\n"+r.stdout, "\n"+want) {
			t.Errorf("%s: %q", args, r.stdout)
		}
	}
	if r := run(t, nil, 0, "completion", "bash"); r.code != 0 || !strings.Contains(r.stdout, "holdfast") {
		t.Errorf("%+v", r)
	}
}

func TestVersion(t *testing.T) {
	for _, args := range []string{"version", "--version"} {
		if r := run(t, nil, 80, args); r.code != 0 || !strings.HasPrefix(r.stdout, "holdfast ") || !strings.Contains(r.stdout, "go1.") {
			t.Errorf("%+v", r)
		}
		if rec := lastRecord(t, run(t, nil, 80, args, "-o", "json").stdout); rec["schema"] != present.SchemaVersion {
			t.Errorf("%v", rec)
		}
	}
}
