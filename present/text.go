package present

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// Text is a text that somebody else wrote: an address, a reply, a header, a
// host name, a file name. It cannot be printed as it is. The field is not
// exported so that no conversion makes a Text, or a string of one, by accident.
type Text struct{ raw string }

// LongestText is the width, in columns, at which [Text.Terminal] cuts unless it
// is told otherwise: more than any address and any usual reply, far less than
// what fills a screen. Postfix keeps replies of several kilobytes.
const LongestText = 480

// longestMarks is how many combining marks one character may carry. Vietnamese
// and Hebrew need up to three, no script that is written needs more than four;
// towers of marks cover the lines above.
const longestMarks = 4

// Hostile takes a text as it came.
func Hostile[T ~string | ~[]byte](s T) Text { return Text{string(s)} }

// String returns the text as a terminal may show it, so that even a careless
// %v of a Text is safe. It is never the raw text.
func (t Text) String() string { return t.Terminal(0) }

// GoString does for %#v what String does for %v.
func (t Text) GoString() string { return "present.Hostile(" + Shell(t.raw).s + ")" }

// Empty reports whether there is no text at all.
func (t Text) Empty() bool { return t.raw == "" }

// Words returns the text as words for a terminal, cut at limit columns.
func (t Text) Words(limit int) Words { return Words{s: t.Terminal(limit)} }

// Terminal returns the text so that a terminal shows it and does nothing else.
//
// A code point that is not plainly visible is written \u{202e}, a byte that is
// not part of valid UTF-8 is written \x{9b}, and a backslash in front of such
// an escape is itself escaped, so that no text can pretend to be another. A
// text wider than limit columns (LongestText where limit is 0) is cut and ends
// in "…+N", N being the number of characters that are not shown.
func (t Text) Terminal(limit int) string {
	if limit <= 0 {
		limit = LongestText
	}
	if len(t.raw) <= limit && plain(t.raw) {
		return t.raw
	}
	return cut(t.raw, limit)
}

// plain reports that s is printable ASCII without anything that looks like one
// of our escapes: by far the most common case, and then nothing is copied.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// cut escapes s up to limit columns.
func cut(s string, limit int) string {
	var out strings.Builder
	width, marks := 0, longestMarks // a mark in front of everything has nothing to stand on
	fit, rest := 0, s               // output and input up to where the mark of a cut still fits
	for i := 0; i < len(s); {
		token, columns, size := nextToken(s[i:], &marks)
		if width+columns > limit {
			return out.String()[:fit] + "…+" + Digits(utf8.RuneCountInString(rest))
		}
		out.WriteString(token)
		width += columns
		i += size
		if width+markWidth(len(s)-i) <= limit {
			fit, rest = out.Len(), s[i:]
		}
	}
	return out.String()
}

// markWidth is the most that "…+N" can take for n bytes that are left.
func markWidth(n int) int { return 2 + len(Digits(n)) }

// nextToken returns how the first character of s is shown, how wide that is
// and how many bytes it stands for. marks counts the combining marks so far.
func nextToken(s string, marks *int) (token string, columns, size int) {
	r, size := utf8.DecodeRuneInString(s)
	switch {
	case r == utf8.RuneError && size == 1:
		*marks = longestMarks
		token = `\x{` + hex(rune(s[0])) + "}"
	case r == '\\' && looksEscaped(s):
		*marks = 0
		token = `\u{5c}`
	case unicode.Is(unicode.M, r) && *marks < longestMarks && !Unseen(r):
		*marks++
		return s[:size], runewidth.RuneWidth(r), size
	case unicode.Is(unicode.M, r) || Unseen(r):
		if !unicode.Is(unicode.M, r) {
			*marks = longestMarks
		}
		token = `\u{` + hex(r) + "}"
	default:
		*marks = 0
		return s[:size], runewidth.RuneWidth(r), size
	}
	return token, len(token), size
}

func looksEscaped(s string) bool {
	return len(s) > 2 && (s[1] == 'u' || s[1] == 'x') && s[2] == '{'
}

func hex(r rune) string { return strconv.FormatInt(int64(r), 16) }

// Unseen reports whether a terminal would show nothing for r, or something
// else than r: control characters (C0, DEL, C1), format characters (bidi
// controls, zero width, tags, byte order mark), line and paragraph separators,
// private use, surrogates, unassigned code points, every blank but the plain
// and the ideographic one, and the letters that are blank by design.
func Unseen(r rune) bool {
	switch {
	case r < 0x7f:
		return r < ' '
	case r == 0x3000:
		return false
	case r == 0x2800: // braille without dots
		return true
	case !unicode.IsGraphic(r) || unicode.Is(unicode.Zs, r):
		return true
	}
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
