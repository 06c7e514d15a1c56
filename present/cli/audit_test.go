package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/plan"
	"holdfast/present"
	"holdfast/record"
	"holdfast/record/audit"
)

// shelf is a host with an audit log and a sealed plan. It counts what it is
// asked to do.
type shelf struct {
	bench
	log, checkpoints []byte
	approved         int
	recovered        Recovery
}

func (s *shelf) Audit(_ context.Context, path string) (io.ReadCloser, []byte, error) {
	if path != "" {
		log, err := os.Open(path)
		return log, nil, err
	}
	return io.NopCloser(bytes.NewReader(s.log)), s.checkpoints, nil
}

func (s *shelf) Plan(context.Context, string) (*plan.Plan, []plan.Target, error) {
	return s.plan, targets(s.plan.Count), nil
}

func (s *shelf) Approve(context.Context, *plan.Plan) error { s.approved++; return nil }

func (s *shelf) Recover(context.Context) (Recovery, error) { return s.recovered, nil }

func (s *shelf) run(t *testing.T, columns int, typed string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), append(args, "--color=never"), Env{
		Stdin: strings.NewReader(typed), Stdout: &stdout, Stderr: &stderr, Asks: typed != "",
		Terminal: Terminal{Columns: columns, Rows: 24}, Now: func() time.Time { return at },
		Change: func(context.Context, Settings) (Changer, error) { return s, nil },
		Keep:   func(context.Context, Settings) (Keeper, error) { return s, nil },
		Record: func(context.Context, Settings) (Recorder, error) { return s, nil },
	})
	return result{code, stdout.String(), stderr.String()}
}

// entryOf is a kind with its body.
type entryOf struct {
	kind  record.Kind
	ref   uint64
	files []record.File
	body  any
}

// logOf writes a log as the hand does, with times that do not change.
func logOf(t *testing.T, entries ...entryOf) []byte {
	t.Helper()
	var log []byte
	prev := record.NoHash
	for i, e := range entries {
		detail, err := record.Encode(e.body)
		if err != nil {
			t.Fatal(err)
		}
		entry := record.Entry{Seq: uint64(i + 1), At: at.Add(time.Duration(i-30) * time.Minute), Kind: e.kind, Ref: e.ref, Prev: prev, Files: e.files, Detail: detail}
		if log, err = record.AppendLine(log, &entry); err != nil {
			t.Fatal(err)
		}
		prev = entry.Hash
	}
	return log
}

// verifierKey is a public key, as the first entry of a log names its own.
const verifierKey = "holdfast-audit+b2da84ed+AbTPbHWkR/ynshcxYqAX0hmNXXbgmUuyNwzyMTIkXbw2"

// history is a log of two plans: one that ended, and one that a crash left.
func history(reason string) []entryOf {
	first, second := strings.Repeat("1a", 32), strings.Repeat("2b", 32)
	list := targets(3)
	files := []record.File{{ID: list[0].ID, Inode: list[0].Inode}, {ID: list[1].ID, Inode: list[1].Inode}, {ID: list[2].ID, Inode: list[2].Inode}}
	body := record.PlanBody{Plan: first, Verb: plan.Delete, Instance: "postfix", Count: 3, Reason: reason, Ticket: "OPS-7", By: plan.Who{User: "root", SudoUser: "carol"}, Expires: at.Add(time.Hour)}
	other := body
	other.Plan, other.Verb, other.Count = second, plan.Hold, 2
	outcomes := []record.Outcome{{ID: list[0].ID, State: record.Done, Item: "p.1"}, {ID: list[1].ID, State: record.Done, Item: "p.2"}, {ID: list[2].ID, State: record.Gone, Text: reason}}
	return []entryOf{
		{record.Begin, 0, nil, record.BeginBody{Host: "relay.example", Zone: "UTC", Key: verifierKey}},
		{record.Planned, 0, nil, body},
		{record.Approved, 0, nil, body},
		{record.Started, 0, nil, body},
		{record.Intended, 0, files, record.IntentBody{Plan: first, Verb: plan.Delete, Batch: 1, Targets: list}},
		{record.Kept, 5, nil, record.KeptBody{Plan: first, Pack: "p", Items: []record.Item{{Name: "p.1", ID: list[0].ID}, {Name: "p.2", ID: list[1].ID}}}},
		{record.Settled, 5, nil, record.OutcomeBody{Plan: first, Verb: plan.Delete, Batch: 1, Outcomes: outcomes}},
		{record.Ended, 4, nil, record.EndBody{Plan: first, Counts: map[record.State]int{record.Done: 2, record.Gone: 1}, Left: 4}},
		{record.Planned, 0, nil, other},
		{record.Started, 0, nil, other},
		{record.Intended, 10, files[:2], record.IntentBody{Plan: second, Verb: plan.Hold, Batch: 1, Targets: list[:2]}},
		{record.Looked, 0, nil, record.InspectBody{ID: list[0].ID, What: "body", Reason: reason}},
	}
}

// TestScreensOfTheRecord holds what the log tells against files that people
// have looked at.
func TestScreensOfTheRecord(t *testing.T) {
	log := logOf(t, history("flood from web3")...)
	settled := Recovery{Settled: []uint64{11}, Outcomes: []record.Outcome{{State: record.Done}, {State: record.Unknown}}, Ended: []string{strings.Repeat("2b", 32)}}
	bad := bytes.Replace(log, []byte("web3"), []byte("web4"), 1)
	for name, c := range map[string]struct {
		columns int
		log     []byte
		args    []string
	}{
		"audit-list":       {80, log, []string{"audit", "list"}},
		"audit-newest":     {120, log, []string{"audit", "list", "--limit", "2"}},
		"audit-plan":       {0, log, []string{"audit", "list", "--plan", "2b2b"}},
		"audit-show":       {80, log, []string{"audit", "show", "7"}},
		"audit-verify":     {80, log, []string{"audit", "verify"}},
		"audit-bad":        {80, bad, []string{"audit", "verify"}},
		"audit-list-bad":   {80, bad, []string{"audit", "list"}},
		"audit-cut":        {80, log[:len(log)-20], []string{"audit", "verify"}},
		"audit-empty":      {80, nil, []string{"audit", "verify"}},
		"json-audit-list":  {0, log, []string{"audit", "list", "-o", "json", "--kind", "outcome"}},
		"json-audit-check": {0, bad, []string{"audit", "verify", "-o", "json"}},
		"plan-list":        {80, log, []string{"plan", "list"}},
		"plan-list-wide":   {160, log, []string{"plan", "list"}},
		"json-plan-list":   {0, log, []string{"plan", "list", "-o", "json"}},
		"plan-show":        {80, log, []string{"plan", "show", "1a1a"}},
		"recover":          {80, log, []string{"recover"}},
		"vault-list":       {120, log, []string{"vault", "list", "--every"}},
		"json-vault-list":  {0, log, []string{"vault", "list", "-o", "json", "--every"}},
		"json-recover":     {0, log, []string{"recover", "-o", "json"}},
		"help-audit":       {80, log, []string{"audit", "--help"}},
		"help-proving":     {80, log, []string{"--help"}},
	} {
		s := &shelf{bench: bench{plan: sealed(plan.Hold, 2)}, log: c.log, recovered: settled}
		s.plan.Reason = "flood from web3"
		golden(t, "record-"+name, c.columns, s.run(t, c.columns, "", c.args...))
	}
	s := &shelf{log: log}
	if r := s.run(t, 0, "", "audit", "export"); r.stdout != string(log) || r.code != exitDone {
		t.Errorf("export gave %d bytes of %d, exit %d: %s", len(r.stdout), len(log), r.code, r.stderr)
	}
	if r := s.run(t, 0, string(log), "audit", "verify", "-"); r.code != exitDone || s.closed != 1 {
		t.Errorf("verify of stdin: exit %d, the host was reached %d times: %s", r.code, s.closed-1, r.stderr)
	}
	if r := s.run(t, 80, "", "recover"); r.stdout != "Nothing was open.\n" || r.code != exitDone {
		t.Errorf("nothing to recover: exit %d, %q", r.code, r.stdout)
	}
}

// TestVerifyOfARealLog: a log that the hand writes verifies, with its
// checkpoint; one entry less than was signed does not.
func TestVerifyOfARealLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	log, err := audit.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range history("why")[1:4] {
		detail, err := record.Encode(e.body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.Append(e.kind, e.ref, e.files, detail); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := log.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.TrimRight(text, "\x00")
	}
	s := &shelf{log: read(audit.LogName), checkpoints: read(audit.CheckpointsName)}
	r := s.run(t, 80, "", "audit", "verify")
	if r.code != exitDone || !strings.Contains(r.stdout, "good entries: 4") || !strings.Contains(r.stdout, "1 checkpoint fits, up to entry 4") {
		t.Errorf("a good log: exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	whole := s.log
	lines := bytes.SplitAfter(whole, []byte("\n"))
	s.log = bytes.Join(lines[:3], nil)
	if r := s.run(t, 80, "", "audit", "verify"); r.code != exitFailed || !strings.Contains(r.stdout, "entry 4") {
		t.Errorf("a log without its end: exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	s.log = whole
	if r := s.run(t, 80, "", "audit", "verify", "--key", verifierKey); r.code != exitFailed {
		t.Errorf("the key of another log: exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	file := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run(t, 80, "", "audit", "verify", file); r.code != exitDone {
		t.Errorf("a copy: exit %d: %s", r.code, r.stderr)
	}
	// Log and checkpoints are put back together: one that was kept elsewhere,
	// as export writes it, finds that.
	kept := filepath.Join(t.TempDir(), "kept")
	if r := s.run(t, 80, "", "audit", "export", "--checkpoint"); r.code != exitDone {
		t.Errorf("export of the checkpoint: exit %d: %s", r.code, r.stderr)
	} else if err := os.WriteFile(kept, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run(t, 80, "", "audit", "verify", "--checkpoint", kept); r.code != exitDone || !strings.Contains(r.stdout, "2 checkpoints fit") {
		t.Errorf("with the kept checkpoint: exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	now := *s
	s.log, s.checkpoints = bytes.Join(lines[:3], nil), nil
	if r := s.run(t, 80, "", "audit", "verify"); r.code != exitDone {
		t.Errorf("the roll-back is not good enough to test with: %s", r.stdout)
	}
	if r := s.run(t, 80, "", "audit", "verify", "--checkpoint", kept); r.code != exitFailed || !strings.Contains(r.stdout, "entry 4") {
		t.Errorf("a log that was put back: exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if r := s.run(t, 80, "", "audit", "export", "--checkpoint"); r.code != exitFailed {
		t.Errorf("without a checkpoint: exit %d: %s", r.code, r.stdout)
	}
	*s = now
	for _, path := range []string{file, filepath.Join(t.TempDir(), "none")} {
		if r := s.run(t, 80, "", "audit", "verify", "--checkpoint", path); r.code != exitUsage {
			t.Errorf("no checkpoint in %s: exit %d: %s", path, r.code, r.stderr)
		}
	}
	if r := s.run(t, 80, "", "audit", "show", "9"); r.code != exitFailed {
		t.Errorf("an entry that is not there: exit %d", r.code)
	}
}

// TestKeptPlans: apply runs what was sealed where somebody says yes, with an
// approval that came meanwhile; approve runs nothing.
func TestKeptPlans(t *testing.T) {
	for _, c := range []struct {
		verb     []string
		bar      string
		reason   string
		typed    string
		code     int
		runs     int
		approved int
	}{
		{[]string{"apply"}, "", "x", "y\n", exitDone, 1, 0},
		{[]string{"apply"}, "", "x", "n\n", exitNeedsConfirmation, 0, 0},
		{[]string{"apply"}, "", "x", "", exitNeedsConfirmation, 0, 0},
		{[]string{"apply", "--yes"}, "", "x", "", exitDone, 1, 0},
		{[]string{"apply", "--yes", "--expect=9"}, "", "x", "", exitNeedsConfirmation, 0, 0},
		{[]string{"apply", "--yes"}, "", "", "", exitNeedsConfirmation, 0, 0},
		{[]string{"apply", "--yes"}, "approval", "x", "", exitDone, 1, 0},
		{[]string{"apply", "--yes"}, "policy", "x", "", exitRefused, 0, 0},
		{[]string{"approve"}, "approval", "x", "y\n", exitDone, 0, 1},
		{[]string{"approve"}, "approval", "x", "\n", exitNeedsConfirmation, 0, 0},
		{[]string{"approve"}, "approval", "x", "", exitNeedsConfirmation, 0, 0},
		{[]string{"approve", "--yes"}, "approval", "x", "", exitDone, 0, 1},
	} {
		s := &shelf{bench: bench{plan: sealed(plan.Hold, 2)}}
		s.plan.Reason = c.reason
		if c.bar != "" {
			s.plan.Effects.Bars = []plan.Bar{{Kind: c.bar, Text: "no"}}
		}
		id := s.plan.ID()
		r := s.run(t, 80, c.typed, slices.Concat([]string{"plan"}, c.verb, []string{id})...)
		if r.code != c.code || s.ran != c.runs || s.approved != c.approved || s.plan.ID() != id {
			t.Errorf("%q with bar %q, typed %q: exit %d, ran %d, approved %d, want %d, %d, %d: %s", c.verb, c.bar, c.typed, r.code, s.ran, s.approved, c.code, c.runs, c.approved, r.stderr)
		}
	}
}

// TestHostileTextReachesNoRecord: what strangers wrote stands in the log, and
// comes to no screen as it is; export has it as the log has it.
func TestHostileTextReachesNoRecord(t *testing.T) {
	for _, attack := range attacks {
		entries := history(attack)
		entries = append(entries, entryOf{record.Saved, 0, nil, record.SavedBody{Name: attack}},
			entryOf{record.Due, 0, nil, record.DueBody{What: attack, Object: attack, When: at, By: plan.Who{User: attack}}},
			entryOf{record.DueDone, 9, nil, record.DueBody{What: attack, Object: attack, Text: attack}})
		entries[3].body = map[string]any{"plan": 7, "verb": attack} // a body that does not decode
		s := &shelf{bench: bench{plan: sealed(plan.Hold, 2)}, log: logOf(t, entries...)}
		poison(reflect.ValueOf(&s.plan.Effects), attack)
		s.recovered = Recovery{Settled: []uint64{1}, Ended: []string{attack}, Outcomes: []record.Outcome{{State: record.State(attack)}}}
		for _, args := range [][]string{
			{"audit", "list"},
			{"audit", "list", "--limit", "0"},
			{"audit", "show", "2"},
			{"audit", "show", "7"},
			{"audit", "verify"},
			{"audit", "export"},
			{"audit", "show", attack},
			{"plan", "list"},
			{"plan", "show", "1a1a"},
			{"recover"},
			{"audit", attack},
			{"plan", attack},
		} {
			if strings.Contains(strings.Join(args, ""), "\x00") {
				continue // no shell can pass it
			}
			for _, form := range []string{"text", "json"} {
				for _, columns := range []int{0, 40, 80} {
					r := s.run(t, columns, "", append(args, "-o", form)...)
					what := fmt.Sprintf("%+.30q -o %s in %d columns", args, form, columns)
					harmless(t, "stdout of "+what, r.stdout, false)
					harmless(t, "stderr of "+what, r.stderr, false)
					for line := range strings.Lines(r.stdout) {
						if form == "json" && args[len(args)-1] != "export" && !json.Valid([]byte(line)) {
							t.Errorf("%s: not JSON: %s", what, line)
						}
					}
				}
			}
		}
	}
	s := &shelf{log: []byte("abc\x1b[2J\n")}
	if r := s.run(t, 0, "", "audit", "export"); r.code != exitFailed || r.stdout != "" {
		t.Errorf("a log with a control character is exported: exit %d, %q", r.code, r.stdout)
	}
}

// TestEntriesKeepTheirNumbers: an inode number is larger than a float can hold.
func TestEntriesKeepTheirNumbers(t *testing.T) {
	e := record.Entry{Seq: 1, Kind: record.Settled, Detail: []byte(`{"a":9007199254740993,"b":18446744073709551615,"c":-0.5,"d":[null,true,1e400]}`)}
	r, err := present.AuditEntryRecordOf(&e)
	if err != nil {
		t.Fatal(err)
	}
	line, err := present.AppendJSON(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"detail":{"a":9007199254740993,"b":18446744073709551615,"c":-0.5,"d":[null,true,"1e400"]}`; !strings.Contains(string(line), want) {
		t.Errorf("%s has no %s", line, want)
	}
	e.Detail = []byte(`{`)
	if _, err := present.AuditEntryRecordOf(&e); err == nil {
		t.Error("a detail that is cut is taken")
	}
}
