package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/observe"
	"holdfast/observe/spool"
	"holdfast/postfix"
	"holdfast/present"
)

// jam is a relay in trouble, small enough to be read.
func jam() *still {
	const (
		throttled = "host mx1.bigmail.example[192.0.2.10] said: 421 4.7.0 Too many connections from your IP, try again later (in reply to RCPT TO command)"
		timeout   = "connect to mail.partner.example[198.51.100.7]:25: Connection timed out"
		nodns     = "Host or domain name not found. Name service error for name=typo.example type=MX: Host not found, try again"
	)
	var ms []*postfix.Message
	for i := range 26 {
		ms = append(ms, message(fmt.Sprintf("%05X1F4E2", 0xA0000+i*977), time.Duration(i*i*7)*time.Minute, int64(1500+i*i*811), "newsletter@shop.example",
			to(fmt.Sprintf("customer.%d@bigmail.example", 100+i), "4.7.0", throttled)))
	}
	ms[3].Recipients = append(ms[3].Recipients, to("sales@partner.example", "4.4.1", timeout), to("ceo@partner.example", "4.4.1", timeout))
	ms[3].TotalRecipients, ms[3].Done = 4, 1
	ms[8].Recipients = []postfix.Recipient{to("info@typo.example", "4.4.3", nodns)}
	ms[11].Queue, ms[11].Sender = postfix.Hold, ""
	ms[12].Queue, ms[12].Recipients[0].Reason, ms[12].Recipients[0].Status = postfix.Active, "", ""
	ms[13].Damage = "no end record"
	ms[3].Client = postfix.Client{Name: "app1.shop.example", Address: "10.1.2.3", Helo: "app1", Protocol: "ESMTP"}
	ms[3].SASLUser = "carol"
	ms[3].Bounces = []postfix.Failure{{Address: "gone@partner.example", Status: "5.1.1", Reason: "host mail.partner.example said: 550 5.1.1 User unknown"}}
	return &still{
		snaps: []*observe.Snapshot{snapshot(instance("postfix"), ms...)},
		detail: func(d *spool.Detail, want spool.Want) {
			d.Path = "deferred/" + string(d.Message.ID[0]) + "/" + string(d.Message.ID)
			d.Finished = []postfix.Recipient{{Address: "done@bigmail.example", Offset: 99}}
			d.Headers = []spool.Header{
				{Name: "Received", Value: "from app1.shop.example (app1.shop.example [10.1.2.3]) by relay.example (Postfix) with ESMTPA id " + string(d.Message.ID)},
				{Name: "Subject", Value: "=?utf-8?q?Gr=C3=BC=C3=9Fe?= from the shop"},
				{Value: "this line is no header", Malformed: true},
			}
			if want.Body > 0 {
				d.Body = []byte("Hello,\n\tyour invoice\nis late.\n")
			}
		},
	}
}

// screen is a command line and the relay that it looks at, jam where it is nil.
type screen struct {
	columns int
	args    []string
	op      *still
}

// TestScreens holds what people see against files that people have looked at.
// UPDATE_GOLDEN=1 writes them anew; the diff is then to be read.
func TestScreens(t *testing.T) {
	id := string(jam().snaps[0].Find("A0B731F4E2")[0].ID)
	for name, c := range map[string]screen{
		"triage-80":       {80, []string{"triage"}, triaged(throttled())},
		"triage-several":  {80, []string{}, triaged(throttled(), unresolved(), forgotten())},
		"triage-120":      {120, []string{"triage"}, triaged(throttled(), unresolved())},
		"triage-verbose":  {80, []string{"triage", "-v"}, triaged(throttled(), unresolved(), forgotten())},
		"triage-piped":    {0, []string{"triage"}, triaged(throttled(), unresolved())},
		"triage-calm":     {80, []string{"triage"}, calm()},
		"triage-blind":    {80, []string{"triage"}, blind()},
		"triage-relays":   {80, []string{"triage"}, relays()},
		"json-triage":     {0, []string{"triage", "-o", "json"}, triaged(throttled())},
		"summary-80":      {80, []string{"logs", "summary", "mail.log"}, summed()},
		"summary-verbose": {120, []string{"logs", "summary", "mail.log", "-v"}, summed()},
		"summary-piped":   {0, []string{"logs", "summary", "mail.log"}, summed()},
		"json-summary":    {0, []string{"logs", "summary", "mail.log", "-o", "json"}, summed()},
		"help-triage":     {80, []string{"triage", "--help"}, nil},
		"queue-80":        {80, []string{"queue"}, nil},
		"queue-120":       {120, []string{"queue"}, nil},
		"queue-piped":     {0, []string{"queue", "--limit", "5"}, nil},
		"queue-size":      {80, []string{"queue", "--sort", "size", "--limit", "3"}, nil},
		"queue-selected":  {80, []string{"queue", "--domain", "partner.example"}, nil},
		"by-destination":  {80, []string{"queue", "--by", "destination"}, nil},
		"by-text":         {80, []string{"queue", "--by", "text"}, nil},
		"by-age":          {80, []string{"queue", "--by", "age"}, nil},
		"ages-sender":     {80, []string{"queue", "--ages=sender"}, nil},
		"show-80":         {80, []string{"show", id}, nil},
		"show-body":       {0, []string{"show", id, "--body"}, nil},
		"json-messages":   {0, []string{"queue", "-o", "json", "--limit", "2"}, nil},
		"json-groups":     {0, []string{"queue", "-o", "json", "--by", "cause"}, nil},
		"json-ages":       {0, []string{"queue", "-o", "json", "--ages", "--limit", "2"}, nil},
		"json-show":       {0, []string{"show", id, "-o", "json", "--body"}, nil},
		"json-error":      {0, []string{"show", "ABCDEF", "-o", "json"}, nil},
		"json-by-age":     {0, []string{"queue", "-o", "json", "--by", "age"}, nil},
		"help-root":       {80, []string{"--help"}, nil},
		"nothing-matches": {80, []string{"queue", "--domain", "nobody.example"}, nil},
	} {
		if c.op == nil {
			c.op = jam()
		}
		r := run(t, c.op, c.columns, append(c.args, "--color=never")...)
		golden(t, name, c.columns, r)
	}
}

// golden compares what a command left behind with its file.
func golden(t *testing.T, name string, columns int, r result) {
	t.Helper()
	got := r.stdout
	if r.stderr != "" {
		got += "-- stderr --\n" + r.stderr
	}
	path := filepath.Join("testdata", "screens", name+".txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s:\n%s", name, diff)
	}
	for line := range strings.Lines(r.stdout) {
		if w := present.Hostile(strings.TrimSuffix(line, "\n")).Words(0).Width(); columns > 0 && w > max(columns, 80) && !strings.Contains(name, "help") {
			t.Errorf("%s: %d columns: %q", name, w, line)
		}
	}
}

// manual reads the tables of fields in docs/json.md, by schema.
func manual(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]string)
	field := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		schema, rest, _ := strings.Cut(part, "\n")
		if !strings.HasPrefix(schema, "holdfast.") {
			continue
		}
		for _, m := range field.FindAllStringSubmatch(rest, -1) {
			out[schema] = append(out[schema], m[1])
		}
	}
	// The counts of targets by state are the same wherever they stand.
	for _, s := range []string{present.SchemaPlanState, present.SchemaRecovery} {
		for _, f := range out[present.SchemaSummary] {
			if strings.HasPrefix(f, "counts.") {
				out[s] = append(out[s], f)
			}
		}
	}
	// What the prose says: fields that are those of another record.
	seen := out[present.SchemaNotes][2:]
	for _, s := range []string{present.SchemaGroups, present.SchemaAges} {
		out[s] = append(out[s], seen...)
	}
	recipient := func(name string) []string {
		var fields []string
		for _, f := range out[present.SchemaMessage] {
			if rest, ok := strings.CutPrefix(f, "recipients[]."); ok {
				fields = append(fields, name+"[]."+rest)
			}
		}
		return fields
	}
	out[present.SchemaShow] = slices.Concat(out[present.SchemaShow], out[present.SchemaMessage], recipient("done_recipients"))
	for _, f := range seen {
		if strings.HasPrefix(f, "gaps[]") {
			for _, s := range []string{present.SchemaShow, present.SchemaTriage, present.SchemaLogSummary} {
				out[s] = append(out[s], f)
			}
		}
	}
	return out
}

// full sets every field that v has, so that none is left out.
func full(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		full(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		full(v.Index(0))
	case reflect.Array:
		for i := range v.Len() {
			full(v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(at))
			return
		}
		if v.Type() == reflect.TypeFor[present.Text]() {
			v.Set(reflect.ValueOf(present.Hostile("x")))
			return
		}
		for i := range v.NumField() {
			full(v.Field(i))
		}
	}
}

// paths lists the members of decoded JSON as docs/json.md writes them.
func paths(prefix string, v any, out map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, member := range v {
			name := strings.TrimPrefix(prefix+"."+k, ".")
			out[name] = true
			paths(name, member, out)
		}
	case []any:
		for _, element := range v {
			paths(prefix+"[]", element, out)
		}
	}
}

// TestManualOfJSONIsComplete holds docs/json.md against records in which no
// field is empty: each field is documented, and nothing else is.
func TestManualOfJSONIsComplete(t *testing.T) {
	documented := manual(t)
	for _, record := range []any{
		&present.MessageRecord{}, &present.NotesRecord{}, &present.GroupsRecord{}, &present.AgesRecord{},
		&present.ShowRecord{}, &present.ErrorRecord{}, &present.VersionRecord{},
		&present.TriageRecord{}, &present.ExplanationRecord{}, &present.LogSummaryRecord{},
		&present.PlanRecord{}, &present.OutcomeRecord{}, &present.SummaryRecord{},
		&present.AuditEntryRecord{}, &present.AuditReportRecord{}, &present.PlanStateRecord{}, &present.RecoveryRecord{}, &present.ConfigRecord{}, &present.CopyRecord{}, &present.VaultPackRecord{}, &present.TickRecord{},
	} {
		full(reflect.ValueOf(record).Elem())
		line, err := present.AppendJSON(nil, record)
		if err != nil {
			t.Fatal(err)
		}
		var decoded any
		if err := json.Unmarshal(line, &decoded); err != nil {
			t.Fatal(err)
		}
		have := make(map[string]bool)
		paths("", decoded, have)
		name := strings.TrimSuffix(reflect.TypeOf(record).Elem().Name(), "Record")
		schema := map[string]string{
			"Message": present.SchemaMessage, "Notes": present.SchemaNotes, "Groups": present.SchemaGroups, "Ages": present.SchemaAges,
			"Show": present.SchemaShow, "Error": present.SchemaError, "Version": present.SchemaVersion,
			"Triage": present.SchemaTriage, "Explanation": present.SchemaExplanation, "LogSummary": present.SchemaLogSummary,
			"Plan": present.SchemaPlan, "Outcome": present.SchemaOutcome, "Summary": present.SchemaSummary,
			"AuditEntry": present.SchemaAuditEntry, "AuditReport": present.SchemaAuditReport,
			"PlanState": present.SchemaPlanState, "Recovery": present.SchemaRecovery, "Config": present.SchemaConfig, "Copy": present.SchemaCopy, "VaultPack": present.SchemaVaultPack, "Tick": present.SchemaTick,
		}[name]
		want := slices.Sorted(slices.Values(documented[schema]))
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(have))); diff != "" {
			t.Errorf("%s: docs/json.md and the program differ:\n%s", schema, diff)
		}
		delete(documented, schema)
	}
	if len(documented) > 0 {
		t.Errorf("docs/json.md tells about records that do not exist: %v", documented)
	}
}
