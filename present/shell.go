package present

import (
	"strings"
	"unicode/utf8"
)

// Shell returns a command line that a shell splits into exactly these words.
// People paste what is printed, and it carries names from hostile mail: what
// is not plainly visible is written as an escape inside $'...', which bash,
// zsh, ksh and busybox read. Nothing is ever cut: a command that was shortened
// would be another command.
func Shell(argv ...string) Words {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = quote(a)
	}
	return Words{s: strings.Join(quoted, " ")}
}

func quote(s string) string {
	bare, visible := s != "", true
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || Unseen(r) {
			visible = false
		}
		if r >= utf8.RuneSelf || !bareByte(s[i]) {
			bare = false
		}
		i += size
	}
	switch {
	case bare:
		return s
	case visible:
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return "$'" + escapeBytes(s) + "'"
}

func bareByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_./:@%+,-", c) >= 0
}

// escapeBytes writes the bytes of everything that is not ASCII in hexadecimal.
// Always two digits, so that a digit behind the escape cannot join it.
func escapeBytes(s string) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0:
			// No argument can hold a NUL, and a shell would end the word
			// there: it would name something else. This names nothing.
			out.WriteString(`\xef\xbf\xbd`)
		case c == '\'' || c == '\\':
			out.WriteByte('\\')
			out.WriteByte(c)
		case c < ' ' || c > '~':
			out.WriteString(`\x`)
			out.WriteByte(digits[c>>4])
			out.WriteByte(digits[c&15])
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}
