package cli

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

// attacks are what mail and servers have tried on screens: terminal commands,
// links, the clipboard, C1 controls, bidirectional and invisible characters,
// overprinting, a faked line of our own, broken UTF-8, towers of marks, markup
// and floods.
var attacks = []string{
	"\x1b[2J\x1b]0;owned\x07\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\\x1b]52;c;cm0gLXJm\x07",
	"\u009b31m\u202egpj.exe\u202c\u2066\u200b\u200d\ufeff\U000e0041",
	"over\rwritten\b\b\x7f\v\f\t",
	"x\nholdfast: done, the queue is empty\n# rm -rf /",
	"\xc0\xaf\xed\xa0\x80\xff\x00\x9b2J",
	"e" + strings.Repeat("\u0301", 400),
	"<img src=x onerror=alert(1)></script>{{.}}${x}",
	strings.Repeat("A very long reply. ", 600),
	"\u2028\u2029\u0085\ue000\u3164",
}

// poison puts an attack into every text that v has, however deep.
func poison(v reflect.Value, attack string) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			v.SetString(attack)
		}
	case reflect.Pointer:
		poison(v.Elem(), attack)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			poison(v.Field(i), attack)
		}
	case reflect.Slice:
		for i := range v.Len() {
			poison(v.Index(i), attack)
		}
	}
}

// poisoned is a relay on which everything that somebody else can write says
// the same attack: also names of files, of instances and of directories.
func poisoned(attack string) *still {
	m := message("x", time.Hour, 5000, "s",
		postfix.Recipient{Reason: "r", Offset: 1}, postfix.Recipient{Reason: "r", Original: "o"}, postfix.Recipient{})
	m.Bounces = []postfix.Failure{{Address: "b"}}
	m.SMTPUTF8, m.ForceExpire, m.FlushRequested = true, true, true
	poison(reflect.ValueOf(m), attack)
	held := m.Clone()
	held.Queue, held.Damage, held.ForceExpire = postfix.Hold, "", false
	plainDamage := m.Clone()
	plainDamage.Damage = ""
	plainDamage.ID = "4F1A2B3C4D" // so that it can be asked for

	in := instance("x")
	poison(reflect.ValueOf(&in), attack)
	snap := snapshot(in, m, held, plainDamage)
	snap.Gaps = []observe.Gap{{Source: "s", Object: "o", Text: "t", Hint: "h", Count: 3}}
	snap.Strays = []observe.Stray{{Path: "p", Kind: "k", Size: 1}}
	snap.Probes, snap.Vanished = 2, 3
	poison(reflect.ValueOf(&snap.Gaps), attack)
	poison(reflect.ValueOf(snap.Gaps), attack)
	poison(reflect.ValueOf(snap.Strays), attack)
	headers := []spool.Header{{Name: "n", Value: "v"}, {Value: "v", Malformed: true}, {Name: "n", Value: "=?utf-8?q?=1B[2J?="}}
	poison(reflect.ValueOf(headers[:2]), attack)
	return &still{
		snaps: []*observe.Snapshot{snap, snap},
		judge: func(t *operate.Triage) { condemn(t, attack) }, sum: poisonedSummary(attack), sumGaps: snap.Gaps,
		detail: func(d *spool.Detail, want spool.Want) {
			d.Finished = m.Recipients
			d.Path, d.Misplaced, d.HeadersCut, d.BodyCut = attack, true, true, true
			d.Headers, d.Gaps = headers, snap.Gaps
			if want.Body > 0 {
				d.Body = []byte(attack + "\r\n\tsecond line\n" + attack)
			}
		},
		headers: map[postfix.QueueID][]plan.Header{},
	}
}

// condemn makes a verdict in which every text says the attack, commands
// included.
func condemn(t *operate.Triage, attack string) {
	log := readLog()
	log.UnreadSamples, log.SuspectSamples = []string{"u"}, []string{"s"}
	poison(reflect.ValueOf(log), attack)
	f := throttled()
	poison(reflect.ValueOf(&f), attack)
	f.Scope, f.Confidence = diagnose.Destination, diagnose.High
	f.Next = append(f.Next, diagnose.Step{Argv: []string{"holdfast", "queue", "--sender", attack}, Why: attack})
	var all []diagnose.Finding
	for _, scope := range []diagnose.Scope{diagnose.Destination, diagnose.Sender, diagnose.HostScope, diagnose.Global, diagnose.Scope(attack)} {
		f.Scope = scope
		all = append(all, f)
	}
	t.Host = surroundings()
	poison(reflect.ValueOf(t.Host), attack)
	t.Log, t.Verdict = log, diagnose.Verdict{State: diagnose.NotFlowing, Sentence: attack, Findings: all}
}

func poisonedSummary(attack string) *maillog.Summary {
	s := &maillog.Summary{
		Lines: 5, Unread: 1, Suspect: 1, UnreadSamples: []string{"u"}, SuspectSamples: []string{"s"}, First: at, Last: at, Dropped: 1,
		Reasons: []maillog.SummaryReason{{}}, Destinations: []maillog.SummaryDestination{{}}, Senders: []maillog.SummarySender{{}},
	}
	poison(reflect.ValueOf(s), attack)
	return s
}

// harmless fails if a terminal would do anything with s but show it. Lines end
// in "\n"; where colour is allowed, our own colours are.
func harmless(t *testing.T, what, s string, colour bool) {
	t.Helper()
	if colour {
		for _, code := range []string{"0", "1", "2", "31", "32", "33"} {
			s = strings.ReplaceAll(s, "\x1b["+code+"m", "")
		}
	}
	if !utf8.ValidString(s) {
		t.Errorf("%s is not UTF-8", what)
	}
	for i, r := range s {
		if r != '\n' && present.Unseen(r) {
			t.Errorf("%s has %+q in %+q", what, r, s[max(0, i-40):min(len(s), i+20)])
			return
		}
	}
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "# rm -rf") || strings.HasPrefix(line, "holdfast: done") {
			t.Errorf("%s has the faked line %q", what, line)
		}
	}
}

func TestHostileTextReachesNoScreen(t *testing.T) {
	var verbs [][]string
	for _, by := range present.AllBy() {
		verbs = append(verbs, []string{"queue", "--by", string(by)})
	}
	for _, order := range present.Orders() {
		verbs = append(verbs, []string{"queue", "--sort", string(order)})
	}
	verbs = append(verbs, []string{"queue", "--ages"}, []string{"queue", "--ages=sender"}, []string{"queue", "-v"}, []string{"queue", "--limit", "0"},
		[]string{"queue", "--header", "subject: x"},
		[]string{"triage", "-q"}, []string{"triage", "-v"}, []string{"logs", "summary", "f"}, []string{"logs", "summary", "f", "-v"},
		[]string{"show", "4F1A2B3C4D"}, []string{"show", "4F1A2B3C4D", "--body", "-v"})
	for _, attack := range attacks {
		op := poisoned(attack)
		for _, verb := range verbs {
			for _, columns := range []int{0, 40, 80, 200} {
				r := run(t, op, columns, append(verb, "--color=always")...)
				what := fmt.Sprintf("%v in %d columns with %+.20q", verb, columns, attack)
				if r.stdout == "" || r.code != exitDone && verb[1] != "--header" {
					t.Fatalf("%s: %d, %q, %q", what, r.code, r.stdout, r.stderr)
				}
				harmless(t, "stdout of "+what, r.stdout, true)
				harmless(t, "stderr of "+what, r.stderr, false)
			}
			r := run(t, op, 0, append(verb, "-o", "json")...)
			what := fmt.Sprintf("%v -o json with %+.20q", verb, attack)
			harmless(t, "stdout of "+what, r.stdout, false)
			harmless(t, "stderr of "+what, r.stderr, false)
			for line := range strings.Lines(r.stdout) {
				if !json.Valid([]byte(line)) {
					t.Errorf("%s: not JSON: %s", what, line)
				}
			}
		}
		for _, args := range [][]string{
			{attack},
			{"queue", attack},
			{"queue", "--" + attack},
			{"queue", "--by", attack},
			{"queue", "--where", attack},
			{"queue", "--sender", attack},
			{"show", attack},
			{"queue", "--limit", attack},
			{"explain", attack},
			{"explain", "host mx.x.example[192.0.2.1] said: 550 5.1.1 " + attack},
			{"triage", attack},
			{"logs", attack},
			{"logs", "summary", "--" + attack},
		} {
			if slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "\x00") }) {
				continue // no shell can pass it
			}
			for _, form := range []string{"text", "json"} {
				r := run(t, op, 80, append([]string{"-o", form, "--color=never"}, args...)...)
				harmless(t, fmt.Sprintf("stdout of %+.30q", args), r.stdout, false)
				harmless(t, fmt.Sprintf("stderr of %+.30q", args), r.stderr, false)
			}
		}
	}
}

// TestHostileTextIsStillThere: what is escaped is not lost. JSON gives back
// the sender to the byte.
func TestHostileTextIsStillThere(t *testing.T) {
	for _, attack := range attacks {
		r := run(t, poisoned(attack), 0, "queue", "-o", "json", "--limit", "1")
		var record struct {
			Sender     string
			Recipients []struct {
				Address string
				Raw     map[string][]byte
			}
			Raw map[string][]byte
		}
		line, _, _ := strings.Cut(r.stdout, "\n")
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		sender, address := record.Sender, record.Recipients[0].Address
		if raw, ok := record.Raw["sender"]; ok {
			sender = string(raw)
		}
		if raw, ok := record.Recipients[0].Raw["address"]; ok {
			address = string(raw)
		}
		if sender != attack || address != attack {
			t.Errorf("%+.40q came back as %+.40q and %+.40q", attack, sender, address)
		}
	}
}

// TestCommandsOfATriageArePlainWords: what is printed to be pasted is split by
// a shell into exactly the words that were meant, whatever mail put into them.
func TestCommandsOfATriageArePlainWords(t *testing.T) {
	for _, attack := range attacks {
		attack = strings.ReplaceAll(attack, "\x00", "") // no argument can hold one
		op := jam()
		op.judge = func(t *operate.Triage) {
			f := throttled()
			f.Next = []diagnose.Step{{Argv: []string{"printf", "%s", attack}, Why: "x"}}
			t.Verdict = diagnose.Verdict{State: diagnose.NotFlowing, Findings: []diagnose.Finding{f}}
		}
		for _, columns := range []int{0, 80} {
			r := run(t, op, columns, "triage", "--color=never")
			_, rest, ok := strings.Cut(r.stdout, "NEXT    ")
			if !ok {
				t.Fatalf("no command for %+.30q: %s", attack, r.stdout)
			}
			line, _, _ := strings.Cut(rest, "\n")
			out, err := exec.CommandContext(t.Context(), "bash", "-c", line).Output()
			if err != nil || string(out) != attack {
				t.Errorf("%+.60q is pasted as %+.60q (%v)", attack, out, err)
			}
		}
	}
}
