package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/account"
	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
	"holdfast/record"
)

// archive is a host with snapshots, and the account of what happened since.
type archive struct {
	book     *account.Book
	saved    []record.SavedBody
	snapshot *account.Snapshot
	note     string
	asked    []string
	settings Settings
	// keeperErr is why no keeper could be started.
	keeperErr error
}

func (a *archive) Account(_ context.Context, from, to string) (*account.Book, error) {
	a.asked = append(a.asked, "account "+from+" "+to)
	return a.book, nil
}

func (a *archive) Snapshots(context.Context) ([]record.SavedBody, error) { return a.saved, nil }

func (a *archive) Snapshot(_ context.Context, ref string) (*account.Snapshot, error) {
	a.asked = append(a.asked, "snapshot "+ref)
	return a.snapshot, nil
}

func (a *archive) CompareSnapshots(_ context.Context, from, to string) (*operate.Comparison, error) {
	a.asked = append(a.asked, "compare "+from+" "+to)
	later := *a.snapshot
	later.Head.Name, later.All = to, slices.Clone(later.All[1:])
	later.All[0].Queue = postfix.Hold
	later.Head.Messages, later.Head.Recipients = len(later.All), 3
	return &operate.Comparison{From: a.snapshot.Head, To: later.Head, Diff: account.Compare(a.snapshot, &later)}, nil
}

func (a *archive) SaveSnapshot(_ context.Context, o operate.SnapshotOptions) (operate.SavedSnapshot, error) {
	a.note = o.Note
	saved := operate.SavedSnapshot{Head: a.snapshot.Head}
	saved.Note = o.Note
	if o.Again > 0 {
		saved.Again = &operate.Duty{Entry: 9, DueBody: record.DueBody{What: "snapshot", When: at.Add(o.Again)}}
		saved.KeeperErr = a.keeperErr
	}
	return saved, nil
}

func (a *archive) Close() error { return nil }

// run runs a command line that ends in one of the verbs of account.
func (a *archive) run(t *testing.T, columns int, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := Env{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(string) string { return "" },
		Terminal: Terminal{Columns: columns, Rows: 24}, Now: func() time.Time { return at },
	}
	args = append(args, "--color=never")
	p := &program{env: env, screen: &Screen{out: bufio.NewWriter(&stdout), talk: &stderr, term: env.Terminal, json: asksForJSON(args)}}
	root := p.root()
	p.addAccounts(root, accounts{
		look: func(_ context.Context, s Settings) (Accountant, error) { a.settings = s; return a, nil },
		save: func(_ context.Context, s Settings) (Saver, error) { a.settings = s; return a, nil },
	})
	root.SetArgs(args)
	code := exitDone
	if err := root.ExecuteContext(t.Context()); err != nil {
		code = p.screen.fail(err)
	}
	if err := p.screen.Flush(); err != nil {
		t.Fatal(err)
	}
	return result{code, stdout.String(), stderr.String()}
}

// bookOf is a book of one recipient for each fate.
func bookOf(t *testing.T, hostile string, fates ...account.Fate) *account.Book {
	t.Helper()
	b := &account.Book{
		Instance: "postfix", From: account.Side{Name: "20260314-030000", From: at.Add(-13 * time.Minute), To: at.Add(-12 * time.Minute), Messages: 40, Recipients: len(fates)},
		To: account.Side{From: at.Add(-time.Second), To: at, Messages: 31, Recipients: 31}, Fates: map[account.Fate]int{}, Grades: map[account.Grade]int{},
		Balanced: true, Seen: true, Problems: []account.Problem{}, Holes: []maillog.Hole{}, Gaps: []observe.Gap{},
		Sources: []observe.LogSource{{Name: "/var/log/mail.log", Trust: observe.TrustGuarded, Bytes: 4711}},
	}
	for i, f := range fates {
		target := account.Target{
			ID: postfix.QueueID(fmt.Sprintf("%010X", 0x3F2A01B2C4+i)), Recipient: fmt.Sprintf("u%d@example.net%s", i, hostile), Fate: f,
			Evidence: account.Evidence{Grade: account.Proved, Source: "/var/log/mail.log", Text: "status=sent (250 ok)" + hostile, At: at.Add(-time.Minute)},
		}
		if f == account.Moved {
			target.Successor = "4F2A01B2C4"
		}
		if f == account.Unproven {
			target.Evidence = account.Evidence{Grade: account.Unshown, Source: "log", Text: "the queue manager removed it, and no line tells of a delivery"}
			b.Balanced = false
		}
		b.Fates[f]++
		b.Grades[target.Evidence.Grade]++
		b.Targets = append(b.Targets, target)
	}
	for _, f := range []account.Fate{account.Unproven, account.DeletedByOther} {
		p := account.Problem{Kind: string(f), Text: "the queue manager removed it, and no line tells of a delivery"}
		for _, target := range b.Targets {
			if target.Fate == f {
				p.Count++
				p.Targets = append(p.Targets, target)
			}
		}
		if p.Count > 0 {
			b.Problems = append(b.Problems, p)
		}
	}
	return b
}

func snapshotOf() *account.Snapshot {
	s := account.Take(jam().snaps[0], maillog.Position{})
	s.Name, s.Note = "20260314-031200", "before the resolver is changed"
	s.Triage = &account.Triage{
		State: diagnose.NotFlowing, Sentence: "Mail for bigmail.example does not flow.",
		Findings: []diagnose.Finding{{Cause: "remote-throttling", Subject: "bigmail.example", Summary: "bigmail.example refuses more than it takes."}},
		Host:     &observe.Host{Pressure: observe.Pressure{Known: true, CPU: 3, Memory: 1, IO: 22.5, IOWait: -1, Load: 0.7}},
	}
	return s
}

// TestScreensOfAccounts holds what account and snapshot tell against files that
// people have looked at.
func TestScreensOfAccounts(t *testing.T) {
	whole := bookOf(t, "", account.Pending, account.Pending, account.Delivered, account.Bounced, account.Moved, account.Deleted)
	missing := bookOf(t, "", account.Pending, account.Delivered, account.Unproven, account.Unproven, account.Unproven, account.Unproven, account.Unproven, account.DeletedByOther)
	dim := bookOf(t, "", account.Pending, account.Unproven)
	dim.Seen = false
	dim.Holes = []maillog.Hole{{From: at.Add(-10 * time.Minute), To: at.Add(-9 * time.Minute), Text: "the log itself says that lines were thrown away"}}
	dim.Gaps = []observe.Gap{{Source: "log", Object: "/var/log/mail.log", Text: "permission denied"}}
	dim.Sources[0].Trust = observe.TrustPlain
	robbed := bookOf(t, "", account.Pending, account.DeletedByOther)
	for name, c := range map[string]struct {
		columns, code int
		args          []string
		book          *account.Book
	}{
		"account-whole":   {80, exitDone, []string{"account"}, whole},
		"account-missing": {80, exitFailed, []string{"account"}, missing},
		"account-dim":     {80, exitCannotTell, []string{"account"}, dim},
		"account-robbed":  {80, exitDone, []string{"account"}, robbed},
		"account-each":    {100, exitDone, []string{"account", "--each"}, whole},
		"account-json":    {0, exitFailed, []string{"account", "--each", "-o", "json"}, missing},
		"snapshot-save":   {80, exitDone, []string{"snapshot", "save", "--note", "before the resolver is changed"}, nil},
		"snapshot-show":   {80, exitDone, []string{"snapshot", "show"}, nil},
		"snapshot-json":   {0, exitDone, []string{"snapshot", "show", "-o", "json"}, nil},
		"snapshot-list":   {80, exitDone, []string{"snapshot", "list"}, nil},
		"snapshot-diff":   {80, exitDone, []string{"snapshot", "diff"}, nil},
	} {
		a := &archive{book: c.book, snapshot: snapshotOf(), saved: []record.SavedBody{
			{Name: "20260314-030000", Sum: strings.Repeat("ab", 32), Instance: "postfix", Messages: 40, By: plan.Who{User: "root", SudoUser: "carol"}},
			{Name: "20260314-031200", Sum: strings.Repeat("cd", 32), Instance: "postfix", Messages: 26, By: plan.Who{User: "root"}},
		}}
		r := a.run(t, c.columns, c.args...)
		if r.code != c.code {
			t.Errorf("%s: exit %d, not %d: %s", name, r.code, c.code, r.stderr)
		}
		golden(t, name, c.columns, r)
	}
}

// TestAccountAsksForWhatWasNamed: names go to the host as they were typed, and
// the log is opened.
func TestAccountAsksForWhatWasNamed(t *testing.T) {
	a := &archive{book: bookOf(t, "", account.Pending), snapshot: snapshotOf()}
	for _, args := range [][]string{
		{"account", "--from", "A", "--to", "B"}, {"snapshot", "show", "A"}, {"snapshot", "diff", "A", "B"}, {"snapshot", "diff"},
	} {
		if r := a.run(t, 80, args...); r.code != exitDone {
			t.Errorf("%q: %s", args, r.stderr)
		}
		if a.settings.Surroundings != (args[0] == "account") {
			t.Errorf("%q: the log is opened: %t", args, a.settings.Surroundings)
		}
	}
	if got := fmt.Sprint(a.asked); got != "[account A B snapshot A compare A B compare  ]" {
		t.Error(got)
	}
}

// TestHostileFatesReachNoTerminal: addresses and lines are those of strangers.
func TestHostileFatesReachNoTerminal(t *testing.T) {
	const evil = "\x1b[2J\x9b\u202e\r\nholdfast: done"
	a := &archive{book: bookOf(t, evil, account.Pending, account.Unproven, account.Moved, account.DeletedByOther), snapshot: snapshotOf()}
	a.book.Problems[0].Text += evil
	a.book.Gaps = []observe.Gap{{Source: "log", Text: evil}}
	a.book.Holes = []maillog.Hole{{Text: evil}}
	a.snapshot.Note, a.snapshot.Triage.Sentence, a.snapshot.Gaps = evil, evil, a.book.Gaps
	for _, args := range [][]string{{"account", "--each"}, {"account", "--each", "-o", "json"}, {"snapshot", "show"}, {"snapshot", "show", "-o", "json"}, {"snapshot", "diff", evil}} {
		r := a.run(t, 80, args...)
		for _, out := range []string{r.stdout, r.stderr} {
			if strings.ContainsAny(out, "\x1b\u009b\u202e\r") || strings.Contains(out, "\x9b") {
				t.Errorf("%q: %q", args, out)
			}
		}
	}
}

// manualOfAccounts reads the tables of fields of the records of this file, with
// those that the page describes with another record.
func manualOfAccounts(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	field := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
	for _, part := range strings.Split(string(page), "\n## ")[1:] {
		title, rest, _ := strings.Cut(part, "\n")
		schema := strings.Trim(title, "`")
		for _, m := range field.FindAllStringSubmatch(rest, -1) {
			out[schema] = append(out[schema], m[1])
		}
	}
	for to, from := range map[string]struct{ schema, prefix string }{
		schemaAccount + " gaps":                  {present.SchemaNotes, "gaps"},
		schemaAccount + " problems[].targets[].": {schemaFate, ""},
		schemaSnapshot + " gaps":                 {present.SchemaNotes, "gaps"},
		schemaSnapshot + " findings[].":          {present.SchemaTriage, "findings[]."},
		schemaSnapshot + " surroundings.":        {present.SchemaTriage, "host."},
		schemaSnapshotDiff + " from.":            {schemaAccount, "from."},
		schemaSnapshotDiff + " to.":              {schemaAccount, "to."},
		schemaSnapshotDiff + " left[].":          {schemaSnapshotDiff, "came[]."},
	} {
		schema, prefix, _ := strings.Cut(to, " ")
		for _, f := range out[from.schema] {
			rest, ok := strings.CutPrefix(f, from.prefix)
			if ok && rest != "" && f != "schema" && f != "instance" {
				out[schema] = append(out[schema], prefix+rest)
			}
		}
	}
	return out
}

// TestManualOfAccountsIsComplete holds docs/json.md against records in which no
// field is empty, as for all others.
func TestManualOfAccountsIsComplete(t *testing.T) {
	documented := manualOfAccounts(t)
	for schema, form := range map[string]any{
		schemaAccount: &accountRecord{}, schemaFate: &fateRecord{}, schemaSnapshot: &snapshotRecord{},
		schemaSavedSnapshot: &savedRecord{}, schemaSnapshotDiff: &diffRecord{},
	} {
		full(reflect.ValueOf(form).Elem())
		line, err := present.AppendJSON(nil, form)
		if err != nil {
			t.Fatal(err)
		}
		var decoded any
		if err := json.Unmarshal(line, &decoded); err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		paths("", decoded, have)
		if diff := cmp.Diff(slices.Sorted(slices.Values(documented[schema])), slices.Sorted(maps.Keys(have))); diff != "" {
			t.Errorf("%s: docs/json.md and the program differ:\n%s", schema, diff)
		}
	}
}
