package postfix

import (
	"net/netip"
	"strings"
)

// ReasonGroup reduces a reason to what it has in common with others of its
// kind, so that counting them shows one line and not thousands. Addresses,
// host names that Postfix wrote, queue IDs, tickets of remote servers and
// numbers become "*"; reply codes stay, and so do names in the words of a
// remote server, which often are the point ("blocked using bl.example").
func ReasonGroup(reason string) string {
	text := FirstReason(reason)
	var b strings.Builder
	b.Grow(len(text))
	g := grouper{out: &b}
	for text != "" {
		n := tokenLength(text)
		g.token(text[:n], text[n:])
		text = text[n:]
	}
	return b.String()
}

// tokenLength cuts a text into blanks, addresses between angle brackets, and
// words.
func tokenLength(s string) int {
	const breaks = " \t,;()<>\"'"
	if s[0] == '<' {
		if end := strings.IndexAny(s[1:], "<>"); end >= 0 && s[1+end] == '>' {
			return end + 2
		}
	}
	if strings.IndexByte(breaks, s[0]) >= 0 {
		return 1
	}
	if end := strings.IndexAny(s, breaks); end >= 0 {
		return end
	}
	return len(s)
}

// grouper writes one token after the other.
type grouper struct {
	out *strings.Builder
	// words counts words; codes says that a reply may start here.
	started bool
	codes   bool
}

func (g *grouper) token(token, rest string) {
	if strings.Trim(token, " \t,;()<>\"'") == "" {
		g.out.WriteString(token)
		return
	}
	// Punctuation behind a word is not part of it.
	word := strings.TrimRight(token, ".:!?")
	tail := token[len(word):]
	g.out.WriteString(g.reduce(word, rest))
	g.out.WriteString(tail)
	g.started = true
	g.codes = tail == ":"
}

func (g *grouper) reduce(word, rest string) string {
	switch {
	case word == "":
		return ""
	case word[0] == '<':
		return "<*>"
	case isReplyCode(word):
		// Seconds look the same: 450 is a code only where one can stand.
		if !g.started || g.codes || isEnhancedCode(firstWord(rest)) {
			return word
		}
		return "*"
	case isEnhancedCode(word), len(word) > 4 && word[3] == '-' && isReplyCode(word[:3]):
		// "450-4.2.1", or "450-text" in a reply of several lines.
		if len(word) > 4 && word[3] == '-' && !isEnhancedCode(word[4:]) {
			return word[:4] + g.reduce(word[4:], rest)
		}
		return word
	}
	if name, ok := strings.CutPrefix(word, "name="); ok && name != "" {
		return "name=*" // Name service error for name=NAME
	}
	if reduced, ok := reduceHost(word); ok {
		return reduced
	}
	if isVolatile(word) {
		return "*"
	}
	return word
}

// reduceHost reads NAME[ADDRESS]:PORT, as Postfix writes servers, and
// addresses between brackets. Ports stay, they tell services apart.
func reduceHost(word string) (string, bool) {
	open := strings.IndexByte(word, '[')
	end := strings.LastIndexByte(word, ']')
	if open < 0 || end < open {
		return "", false
	}
	inside := word[open+1 : end]
	if _, err := netip.ParseAddr(strings.TrimPrefix(strings.ToLower(inside), "ipv6:")); err != nil {
		return "", false
	}
	name := ""
	if open > 0 {
		name = "*"
	}
	return name + "[*]" + word[end+1:], true
}

// isVolatile tells words that hardly two messages share: addresses, numbers,
// queue IDs and tickets.
func isVolatile(word string) bool {
	if strings.Contains(word, "@") {
		return true
	}
	digits, letters, hex, others := 0, 0, 0, 0
	for i := range len(word) {
		switch c := word[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F':
			hex++
		case c >= 'g' && c <= 'z' || c >= 'G' && c <= 'Z':
			letters++
		case c == '/' || c == '=' || c == '&':
			return false // paths and links name a help page
		default:
			others++
		}
	}
	switch {
	case digits == 0:
		return false
	case hex+letters == 0: // 300, 192.0.2.1, 4.16.55.1, 12:30:01
		return true
	case letters == 0 && others == 0 && digits+hex >= 7: // 9FBF1140142
		return true
	}
	if _, err := netip.ParseAddr(word); err == nil {
		return true
	}
	return len(word) >= 10 && digits >= 3 && others <= len(word)/4 && ValidQueueID(strings.NewReplacer("-", "", ".", "", "_", "").Replace(word))
}

func isReplyCode(s string) bool {
	return len(s) == 3 && strings.IndexByte("245", s[0]) >= 0 && isDigits(s)
}

func isEnhancedCode(s string) bool {
	if len(s) < 5 || len(s) > 9 || s[1] != '.' || strings.IndexByte("245", s[0]) < 0 {
		return false
	}
	subject, detail, ok := strings.Cut(s[2:], ".")
	return ok && isDigits(subject) && isDigits(detail)
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func firstWord(s string) string {
	s = strings.TrimLeft(s, " ")
	if end := strings.IndexByte(s, ' '); end >= 0 {
		return s[:end]
	}
	return s
}
