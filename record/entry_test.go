package record_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/postfix"
	"holdfast/record"
)

func entry(detail string) record.Entry {
	return record.Entry{
		Seq: 7, At: time.Date(2026, 11, 24, 2, 3, 4, 56000, time.UTC), Kind: record.Intended, Ref: 3, Prev: record.NoHash,
		Files: []record.File{{ID: "4F2A1B3C", Inode: 1}, {ID: "3gz8Fx0bCdzAb", Inode: math.MaxUint64}}, Detail: json.RawMessage(detail),
	}
}

// line renders an entry without its line end.
func line(t *testing.T, e *record.Entry) []byte {
	t.Helper()
	text, err := record.AppendLine(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(text, []byte("\n"))
}

func TestLineComesBack(t *testing.T) {
	for _, detail := range []string{`{}`, `"x"`, `{"a":"]}\"","b":[1,2]}`, `"\n\u001b"`} {
		e := entry(detail)
		text := line(t, &e)
		got, err := record.ParseLine(text)
		e.Length = len(text) + 1
		if err != nil || cmp.Diff(e, got) != "" {
			t.Errorf("%s: %v\n%s", detail, err, cmp.Diff(e, got))
		}
		head, rest, err := record.ParseHead(text)
		if err != nil || head.Hash != e.Hash || head.Ref != 3 || len(head.Files) > 0 || !bytes.HasPrefix(rest, []byte(`{"files":[`)) {
			t.Errorf("head %+v, rest %s, %v", head, rest, err)
		}
		if !json.Valid(rest) {
			t.Errorf("what stands behind the columns is no JSON: %s", rest)
		}
	}
}

// TestDetailCannotBreakOut: bytes that the hand stores unread, and that would
// say more than a detail may if they were pasted into the object.
func TestDetailCannotBreakOut(t *testing.T) {
	for _, detail := range []string{
		`1},"files":["4F2A1B3C:9"]`, `1},{"x":2`, `1}`, `{"a":1},"detail":2`, `1 2`, `{`, `nul`, `1,"files":[]`,
	} {
		e := entry(detail)
		if got, err := record.ParseLine(line(t, &e)); !errors.Is(err, record.ErrEntry) {
			t.Errorf("detail %s was read as %+v", detail, got)
		}
	}
}

func TestAppendLineRefuses(t *testing.T) {
	for name, change := range map[string]func(*record.Entry){
		"line end": func(e *record.Entry) { e.Detail = []byte("1\n") }, "NUL": func(e *record.Entry) { e.Detail = []byte("\x00") },
		"no detail": func(e *record.Entry) { e.Detail = nil }, "number": func(e *record.Entry) { e.Seq = 0 },
		"kind": func(e *record.Entry) { e.Kind = "a b" }, "no kind": func(e *record.Entry) { e.Kind = "" },
		"hash": func(e *record.Entry) { e.Prev = "0" }, "hash text": func(e *record.Entry) { e.Prev = strings.Repeat("\n", 64) },
		"ID": func(e *record.Entry) { e.Files[1].ID = `"` },
	} {
		e := entry("1")
		change(&e)
		if got, err := record.AppendLine([]byte("kept"), &e); !errors.Is(err, record.ErrEntry) || string(got) != "kept" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestOneSpelling: a line that says the same in other words is none, although
// its hash fits.
func TestOneSpelling(t *testing.T) {
	e := entry("1")
	text := string(line(t, &e))
	for old, other := range map[string]string{
		" 7 2026": " 07 2026", "02:03:04.000056Z": "02:03:04.00006Z", ".000056Z": ".000056+00:00", " intent ": " Intent ",
		" 3 {": " +3 {", `{"files"`: `{ "files"`, `:1"`: `:01"`, `],"detail"`: `], "detail"`, "2026-11-24T": "2026-11-31T",
		" 7 ": " 0 ", `"4F2A1B3C:1"`: `"4F2A-B3C:1"`, `1",`: `1", `, "0000 7": "000g 7", `"detail":1}`: `"detail":1} `,
	} {
		changed := strings.Replace(text[65:], old, other, 1)
		if changed == text[65:] {
			t.Fatalf("%q is not in the line", old)
		}
		if got, err := record.ParseLine([]byte(hashed(changed))); !errors.Is(err, record.ErrEntry) {
			t.Errorf("%q was read as %+v", changed, got)
		}
	}
	if _, err := record.ParseLine([]byte(hashed(text[65:]))); err != nil {
		t.Errorf("the line itself: %v", err)
	}
}

func TestEncodeIsPrintableASCII(t *testing.T) {
	for _, text := range []string{
		"caf\u00e9", "\U0001F4EC", "\u2028\u2029\u202e\ufeff", "\x00\x1b\x7f\u0080\u009f", "<&>", "\xff\xfe", "\ufffd", "\U0010FFFF",
	} {
		got, err := record.Encode(text)
		if err != nil || !record.Storable(got) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		var back string
		if err := json.Unmarshal(got, &back); err != nil || back != strings.ToValidUTF8(text, "\ufffd") && back != strings.Repeat("\ufffd", len(text)) {
			t.Errorf("%q came back as %q, %v", text, back, err)
		}
	}
	if _, err := record.Encode(math.Inf(1)); err == nil {
		t.Error("what is no JSON was encoded")
	}
}

// FuzzLine: what parses renders to the same bytes, and a head never says
// anything else than the whole line.
func FuzzLine(f *testing.F) {
	e := entry(`{"a":"]}"}`)
	text, err := record.AppendLine(nil, &e)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text[65 : len(text)-1]))
	f.Add(strings.Repeat("0", 64) + ` 1 2026-11-24T02:03:04.000056Z begin 0 {"files":[],"detail":{}}`)
	f.Fuzz(func(t *testing.T, covered string) {
		text := []byte(hashed(covered))
		e, err := record.ParseLine(text)
		if err != nil {
			return
		}
		head, _, err := record.ParseHead(text)
		if err != nil || head.Seq != e.Seq || head.Kind != e.Kind || head.Ref != e.Ref || head.Prev != e.Prev {
			t.Fatalf("head %+v of %+v, %v", head, e, err)
		}
		for _, file := range e.Files {
			if !postfix.ValidQueueID(string(file.ID)) {
				t.Fatalf("file %q", file.ID)
			}
		}
		again, err := record.AppendLine(nil, &e)
		if err != nil || string(again) != string(text)+"\n" {
			t.Fatalf("%q\nbecame\n%q, %v", text, again, err)
		}
	})
}

// hashed puts the hash that fits in front.
func hashed(covered string) string {
	sum := sha256.Sum256([]byte(covered))
	return hex.EncodeToString(sum[:]) + " " + covered
}
