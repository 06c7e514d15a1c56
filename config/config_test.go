package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/postfix"
)

func parse(t *testing.T, text string) *Loaded {
	t.Helper()
	l, err := Parse("holdfast.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestSampleSetsNothing: the sample as it is printed is Default, and so it is
// with every comment sign before a setting taken away.
func TestSampleSetsNothing(t *testing.T) {
	sample := Sample()
	all := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAllString(sample, "$1")
	for name, text := range map[string]string{"as printed": sample, "with all settings": all} {
		l := parse(t, text)
		want := Default()
		if l.Digest() != want.Digest() {
			t.Errorf("%s: %+v", name, l.Config)
		}
	}
	l := parse(t, all)
	for _, f := range l.Fields() {
		if f.Line == 0 || !strings.Contains(strings.Split(all, "\n")[f.Line-1], f.Name()+" = ") {
			t.Errorf("%s is said to stand in line %d", f.Key, f.Line)
		}
		if f.Value != f.Default || f.Doc == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestValues(t *testing.T) {
	l := parse(t, `
[policy]
plan_lifetime = "1d12h"
delete = { needs_ticket = true, ceiling = 500 }
[policy.expire]
allow = ["anna", "@mailops"]
second_person = true
[vault]
retention = "7d"
`)
	want := Default()
	want.Policy.PlanLifetime = Duration(36 * time.Hour)
	want.Policy.Delete = Rule{NeedsTicket: true, Ceiling: 500}
	want.Policy.Expire = Rule{Allow: []string{"anna", "@mailops"}, SecondPerson: true}
	want.Vault.Retention = Duration(7 * 24 * time.Hour)
	if !reflect.DeepEqual(l.Config, want) {
		t.Errorf("got %+v", l.Config)
	}
	lines := map[string]int{
		"policy.plan_lifetime": 3, "policy.delete.needs_ticket": 4, "policy.delete.ceiling": 4,
		"policy.expire.allow": 6, "policy.expire.second_person": 7, "vault.retention": 9,
	}
	if !reflect.DeepEqual(l.Lines, lines) {
		t.Errorf("lines %v", l.Lines)
	}
	usual := Default()
	if l.Digest() == usual.Digest() {
		t.Error("another policy has the same digest")
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string][]string{
		"[policy.delete]\nneeds_tickets = true": {"holdfast.toml:2:1", `no setting "policy.delete.needs_tickets"`, "policy.delete.needs_ticket;"},
		"[polcy]\nplan_lifetime = '1h'":         {"holdfast.toml:1:2", `"polcy"`, "sample"},
		"[policy.delete]\nneeds_ticket = 1":     {"holdfast.toml:2:", "needs_ticket = false"},
		"[release]\nper_run = 0":                {"holdfast.toml:2", "release.per_run: 0 is not between 1 and 20000", "per_run = 100"},
		"[vault]\nretention = '3 weeks'":        {"holdfast.toml:2:", "3 weeks", "90d"},
		"[policy]\nhold_review = '1s'":          {"holdfast.toml:2", "not between 1m and 365d"},
		"[policy.hold]\nallow = ['a', 'a']":     {"holdfast.toml:2", "twice"},
		"[policy.hold]\nallow = ['']":           {"holdfast.toml:2", "no name"},
		"[vault]\nrecipients = ['age1xyz']":     {"holdfast.toml:2", "no age public key"},
		"[policy\n":                             {"holdfast.toml:1:"},
		"[policy]\n[policy]\n":                  {"holdfast.toml:2:"},
	} {
		_, err := Parse("holdfast.toml", []byte(text))
		var e *postfix.Error
		if !errors.As(err, &e) || e.Kind != postfix.Usage {
			t.Errorf("%q: %v", text, err)
			continue
		}
		said := e.Error() + " " + e.Hint
		for _, part := range want {
			if !strings.Contains(said, part) {
				t.Errorf("%q: %q does not say %q", text, said, part)
			}
		}
	}
}

func TestFileOfOthersIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "holdfast.toml")
	write := func(mode os.FileMode, uid int, dirMode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte("[policy]\n"), 0o600), os.Chmod(path, mode), os.Chown(path, uid, 0), os.Chmod(dir, dirMode)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		mode, dir os.FileMode
		uid       int
		good      bool
	}{
		"root's":            {0o644, 0o755, 0, true},
		"group may write":   {0o664, 0o755, 0, false},
		"all may write":     {0o646, 0o755, 0, false},
		"of somebody else":  {0o600, 0o755, 1234, false},
		"directory of all":  {0o600, 0o777, 0, false},
		"directory of some": {0o600, 0o775, 0, false},
	} {
		write(c.mode, c.uid, c.dir)
		if _, err := Load(path, true); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.toml")
	l, err := Load(path, false)
	def := Default()
	if err != nil || l.Path != "" || l.Digest() != def.Digest() {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := Load(path, true); err == nil {
		t.Error("a file that was named and is not there is no mistake")
	}
	if _, err := Load(filepath.Dir(path), true); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{"90d": "90d", "24h": "24h", "1d": "24h", "36h": "36h", "1d12h": "36h", "48h": "2d", "90m": "1h30m", "0s": "0s", "0d": "0s", "30s": "30s"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%q: %s, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "d", "-1h", "1w", "1", "99999999d", "1dd"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for %s", text, d)
		}
	}
}

func TestManualIsWrittenAnew(t *testing.T) {
	page, err := os.ReadFile("../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Manual() {
		t.Error("docs/config.md is not what go generate writes")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Sample())
	f.Add("[policy]\ndelete={needs_ticket=true}")
	f.Add("policy.hold.allow=['a']")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse("f", []byte(text))
		var e *postfix.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%v", err)
		}
		if err == nil && len(l.Fields()) == 0 {
			t.Fatal("no settings")
		}
	})
}
