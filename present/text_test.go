package present

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"pgregory.net/rapid"
)

// attacks are texts of strangers that want something from a terminal.
var attacks = []string{
	"\x1b[2J\x1b]0;owned\x07", "\x1b]8;;http://x.example\x1b\\click\x1b]8;;\x1b\\", "\x1b]52;c;cm0gLXJm\x07",
	"\u009b31m", "a\u202egpj.exe", "\u2066x\u2069", "\u200b\u200d\ufeff", "\U000e0041\U000e007f",
	"line\rover", "a\bb\x7f", "a\nholdfast: done\n# ", "\u2028\u2029", "\x00", "\x9b1A", "\xc0\xaf", "\xed\xa0\x80", "\xff\xfe",
	"e" + strings.Repeat("\u0301", 400), "\ue000\U000f0000", "\u3164\u115f\u2800\u00a0", "❤\ufe0f", `\x{1b} \u{202e} \n C:\x`,
	"\u0378", strings.Repeat("10 kB ", 1700), strings.Repeat("漢", 900), "\u034f\u17b4\u180e",
}

func TestTerminal(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"alice@example.com", "alice@example.com"},
		{`"odd \ local"@x`, `"odd \ local"@x`},
		{"grüße@例え.jp", "grüße@例え.jp"},
		{"\x1b[31mred", `\u{1b}[31mred`},
		{"\u009b31m", `\u{9b}31m`},
		{"\x9b31m", `\x{9b}31m`},
		{"a\u202eb", `a\u{202e}b`},
		{"a\tb\r\n", `a\u{9}b\u{d}\u{a}`},
		{"\xed\xa0\x80", `\x{ed}\x{a0}\x{80}`},
		{`\x{1b}`, `\u{5c}x{1b}`},
		{`\u{1b}`, `\u{5c}u{1b}`},
		{"cafe\u0301", "cafe\u0301"},
		{"\u0301x", `\u{301}x`},
		{"a" + strings.Repeat("\u0301", 6), "a" + strings.Repeat("\u0301", 4) + `\u{301}\u{301}`},
		{"\U000e0041", `\u{e0041}`},
		{"全角\u3000空白", "全角\u3000空白"},
		{"a\u00a0b", `a\u{a0}b`},
	} {
		if got := Hostile(c.in).Terminal(0); got != c.want {
			t.Errorf("%+q is shown as %+q, want %+q", c.in, got, c.want)
		}
	}
}

func TestTerminalCut(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"0123456789", 10, "0123456789"},
		{"0123456789a", 10, "0123456…+4"},
		{strings.Repeat("漢", 10), 20, strings.Repeat("漢", 10)},
		{strings.Repeat("漢", 11), 20, strings.Repeat("漢", 8) + "…+3"},
		{"012345\x1b", 10, "012345…+1"},
		{strings.Repeat("x", 1000), 0, strings.Repeat("x", LongestText-5) + "…+525"},
	} {
		got := Hostile(c.in).Terminal(c.limit)
		if got != c.want {
			t.Errorf("%+q in %d columns is %q, want %q", c.in, c.limit, got, c.want)
		}
		if limit := max(c.limit, 1); c.limit > 0 && runewidth.StringWidth(got) > limit {
			t.Errorf("%q is wider than %d", got, limit)
		}
	}
}

// shown fails the test if s could do anything to a terminal but be seen.
func shown(t interface{ Errorf(string, ...any) }, s string) {
	for i, r := range s {
		if r == utf8.RuneError && strings.HasPrefix(s[i:], "\ufffd") {
			continue
		}
		if r == utf8.RuneError || Unseen(r) {
			t.Errorf("%+q has %+q at %d", s, r, i)
			return
		}
	}
}

var escape = regexp.MustCompile(`\\([ux])\{([0-9a-f]+)\}`)

// unescape undoes Terminal for a text that was not cut.
func unescape(s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		m := escape.FindStringSubmatch(e)
		v, err := strconv.ParseUint(m[2], 16, 32)
		if err != nil {
			return "?"
		}
		if m[1] == "x" {
			return string([]byte{byte(v)})
		}
		return string(rune(v))
	})
}

func checkText(t interface{ Errorf(string, ...any) }, s string, limit int) {
	whole := Hostile(s).Terminal(1 << 20)
	shown(t, whole)
	if back := unescape(whole); back != s {
		t.Errorf("%+q is shown as %+q, which reads back as %+q", s, whole, back)
	}
	cut := Hostile(s).Terminal(limit)
	shown(t, cut)
	if w := runewidth.StringWidth(cut); w > limit {
		t.Errorf("%+q takes %d columns of %d: %+q", s, w, limit, cut)
	}
}

func TestTextIsOnlyEverSeen(t *testing.T) {
	for _, a := range attacks {
		checkText(t, a, 40)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
		checkText(t, s, rapid.IntRange(12, 90).Draw(t, "limit"))
	})
}

func FuzzText(f *testing.F) {
	for _, a := range attacks {
		f.Add(a)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkText(t, s, 60)
		checkJSON(t, s)
	})
}

type sample struct {
	Envelope
	A    string   `json:"a"`
	List []string `json:"list"`
	In   struct {
		B Text `json:"b"`
	} `json:"in"`
}

// checkJSON demands that JSON gives back exactly the bytes that went in.
func checkJSON(t interface {
	Errorf(string, ...any)
	Fatalf(string, ...any)
}, s string,
) {
	in := &sample{A: s, List: []string{"plain", s}}
	in.In.B = Hostile(s)
	out, err := AppendJSON(nil, in)
	if err != nil {
		t.Fatalf("%+q: %v", s, err)
	}
	shown(t, string(out))
	var back struct {
		A    string
		List []string
		Raw  map[string][]byte
		In   struct {
			B   string
			Raw map[string][]byte
		}
	}
	if err := json.Unmarshal(out, &back); err != nil {
		t.Fatalf("%+q gives %s: %v", s, out, err)
	}
	exact := func(value string, raw map[string][]byte, name string) string {
		if b, ok := raw[name]; ok {
			return string(b)
		}
		return value
	}
	if a, l, b := exact(back.A, back.Raw, "a"), exact(back.List[1], back.Raw, "list.1"), exact(back.In.B, back.In.Raw, "b"); a != s || l != s || b != s {
		t.Errorf("%+q comes back as %+q, %+q, %+q from %s", s, a, l, b, out)
	}
	if utf8.ValidString(s) && strings.Contains(string(out), `"raw":{`) {
		t.Errorf("%+q is valid UTF-8 and has raw bytes: %s", s, out)
	}
}

func TestJSONGivesBackEveryByte(t *testing.T) {
	for _, a := range attacks {
		checkJSON(t, a)
	}
	rapid.Check(t, func(t *rapid.T) {
		checkJSON(t, string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")))
		checkJSON(t, rapid.String().Draw(t, "text"))
	})
}

// TestShell asks a real shell what it makes of the words.
func TestShell(t *testing.T) {
	words := append([]string{"", "plain", "a b", "it's", "$(reboot)", "`x`", "-rf", "~root", "a;b|c&d", "*", "{a,b}", "!1", "#c", "=x", "\"q\""}, attacks...)
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, "\x00", "\ufffd") // no argument can hold it
	}
	line := Shell(append([]string{"printf", `%s\0`}, words...)...).String()
	shown(t, line)
	out, err := exec.CommandContext(t.Context(), "bash", "-c", line).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if len(got) != len(words) {
		t.Fatalf("%d words became %d", len(words), len(got))
	}
	for i := range words {
		if got[i] != words[i] {
			t.Errorf("%+q became %+q", words[i], got[i])
		}
	}
	if got := Shell("a\x00b").String(); got != `$'a\xef\xbf\xbdb'` {
		t.Errorf("a NUL is written %s", got)
	}
}

func TestSayKeepsTextHarmless(t *testing.T) {
	for _, a := range attacks {
		shown(t, Say("from %s to %s", Hostile(a), Hostile(a).Words(20)).String())
		shown(t, Address(a+"@"+a).String())
		for width := 1; width < 60; width += 7 {
			fit := Address(a + "@" + a).Fit(width)
			shown(t, fit.String())
			if fit.Width() > width {
				t.Errorf("%+q does not fit %d columns", fit, width)
			}
		}
		shown(t, Hostile(a).GoString())
	}
}

func TestAddressKeepsItsDomain(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{
		{"", 10, "<>"},
		{"bob@example.com", 15, "bob@example.com"},
		{"customer.number.5@example.com", 20, "custome…@example.com"},
		{"customer.number.5@mail.example.com", 15, "cust…@mail.exa…"},
		{"nodomain-at-all-here", 10, "nodomain-…"},
	} {
		if got := Address(c.in).Fit(c.width).String(); got != c.want {
			t.Errorf("%q in %d columns is %q, want %q", c.in, c.width, got, c.want)
		}
	}
}
