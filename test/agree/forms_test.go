package agree

// The forms in which Postfix's programs print what the reader returns raw. They
// are written down here once more, from the source of quote_822_local.c and
// printable.c, so that the comparison does not lean on the reader.

import (
	"strings"
	"unicode/utf8"
)

// external is how showq prints an address: the local part quoted where RFC 822
// wants it, everything unprintable replaced.
func external(address string) string {
	if address == "" {
		return "MAILER-DAEMON"
	}
	at := strings.LastIndexByte(address, '@')
	local, domain := address, ""
	if at >= 0 {
		local, domain = address[:at], address[at:]
	}
	if !dotString(local) {
		local = `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`, "\r", "\\\r").Replace(local) + `"`
	}
	return printable(local + domain)
}

// dotString reports whether a local part needs no quotes.
func dotString(local string) bool {
	if local == "" || local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return false
	}
	for i := range len(local) {
		if c := local[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`()<>@,;:\"[]`, c) >= 0 {
			return false
		}
	}
	return true
}

// printable puts a question mark in place of every control character and of
// every byte that is not part of a character.
func printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n <= 1 || r < ' ' || r == 0x7f {
			b.WriteByte('?')
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}
