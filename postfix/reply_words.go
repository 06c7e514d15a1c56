package postfix

import (
	"net/netip"
	"strings"
)

// reply is what a server answered, and which.
type reply struct {
	host   string // the address between brackets: IP or path of a socket, "" where there is none
	code   string // "450", "" where there is none
	status string // "4.2.0", "" where there is none
	kind   byte   // '4' for now, '5' for good, 0 where nothing tells
	text   string // code and all that follows, in one line
}

// cutReply takes a text in lower case apart.
func cutReply(text string) (reply, bool) {
	var r reply
	if host, words, ok := cutRemote(text); ok {
		r.host, r.text = host, words
	} else if r.text = strings.TrimPrefix(text, "said: "); !startsWithCode(r.text) && statusAt(r.text) == "" {
		return reply{}, false // not even a reply by itself, as people paste it
	}
	if startsWithCode(r.text) {
		r.code = r.text[:3]
		r.status = statusAt(strings.TrimLeft(r.text[3:], "-:# '"))
		r.text = oneLine(r.text)
	} else {
		r.status = statusAt(r.text)
	}
	r.kind = kindOf(r.code)
	if r.kind == 0 {
		r.kind = kindOf(r.status)
	}
	return r, true
}

// cutRemote finds the words of smtp/smtp_proto.c and smtp_sasl_glue.c before a
// reply: "host NAME[ADDRESS]:PORT said: ". They stand at the start, perhaps
// behind an explanation; what follows is the server's and may hold the same
// words.
func cutRemote(text string) (host, words string, ok bool) {
	text = strings.TrimPrefix(text, "protocol error: ")
	if head, _, found := strings.Cut(text, ":"); found {
		if at := strings.LastIndex(head, "; "); at >= 0 {
			text = text[at+2:]
		}
	}
	verb, host, rest, ok := cutServer(text)
	if !ok || verb == "connect to " {
		return "", "", false
	}
	rest = skipPort(rest)
	for _, verb := range []string{" said:", " refused to talk to me:"} {
		if words, ok := strings.CutPrefix(rest, verb); ok {
			return host, strings.TrimPrefix(words, " "), true
		}
	}
	return "", "", false
}

// cutServer takes "host NAME[ADDRESS]" or the like from the start of a text;
// the address is empty where none is given.
func cutServer(text string) (verb, host, rest string, ok bool) {
	for _, verb = range []string{"host ", "server ", "connect to "} {
		name, found := strings.CutPrefix(text, verb)
		if !found {
			continue
		}
		end := strings.IndexAny(name, " [")
		if end < 0 {
			return "", "", "", false
		}
		if rest = name[end:]; rest[0] == '[' {
			if host, rest, found = strings.Cut(rest[1:], "]"); !found {
				return "", "", "", false
			}
		}
		return verb, host, rest, true
	}
	return "", "", "", false
}

// skipPort takes ":25" from the start of a text that goes on behind it.
func skipPort(text string) string {
	port, ok := strings.CutPrefix(text, ":")
	if !ok || port == "" || !isDigit(port[0]) {
		return text
	}
	return strings.TrimLeft(port, "0123456789")
}

// oneLine takes the codes out that begin the further lines of a reply: they
// tear the sentences in which phrases are looked for. smtp/smtp_chat.c joins
// the lines with blanks and leaves the codes in.
func oneLine(text string) string {
	if len(text) < 4 || text[3] != '-' && !strings.Contains(text[3:], text[:3]+"-") {
		return text
	}
	head, rest := text[:4], text[4:]
	status := statusAt(strings.TrimLeft(rest, "#"))
	var b strings.Builder
	b.Grow(len(text))
	b.WriteString(head)
	for first := true; ; first = false {
		at := nextLine(rest, text[:3])
		line := rest[:at]
		if !first && status != "" {
			line = strings.TrimLeft(strings.TrimPrefix(strings.TrimLeft(line, "#"), status), " ")
		}
		b.WriteString(line)
		if at == len(rest) {
			return b.String()
		}
		rest = rest[at+len("NNN-"):]
	}
}

// nextLine returns where the code stands that begins another line: behind a
// blank, and with its hyphen, or before an enhanced code or the last words.
func nextLine(text, code string) int {
	for from := 0; ; {
		at := strings.Index(text[from:], " "+code)
		if at < 0 {
			return len(text)
		}
		at += from + 1
		if end := at + len(code); end < len(text) && (text[end] == '-' || text[end] == ' ') {
			return at
		}
		from = at
	}
}

// startsWithCode reports whether a text begins with an SMTP reply code.
func startsWithCode(text string) bool {
	if len(text) < 3 || text[0] != '2' && text[0] != '4' && text[0] != '5' || !isDigit(text[1]) || !isDigit(text[2]) {
		return false
	}
	return len(text) == 3 || text[3] == ' ' || text[3] == '-' || text[3] == ':'
}

// statusAt returns the enhanced status code (RFC 3463) that a text begins with.
func statusAt(text string) string {
	if len(text) < 5 || text[0] != '2' && text[0] != '4' && text[0] != '5' || text[1] != '.' {
		return ""
	}
	subject := digitsAt(text, 2)
	if subject == 2 || subject >= len(text) || text[subject] != '.' {
		return ""
	}
	end := digitsAt(text, subject+1)
	if end == subject+1 || end < len(text) && (isWordByte(text[end]) || text[end] == '.' && end+1 < len(text) && isDigit(text[end+1])) {
		return "" // a version or an address
	}
	return text[:end]
}

// digitsAt returns the end of at most three digits.
func digitsAt(text string, from int) int {
	end := from
	for end < len(text) && end < from+3 && isDigit(text[end]) {
		end++
	}
	return end
}

// kindOf tells from a code whether it is for now ('4') or for good ('5').
func kindOf(code string) byte {
	if code != "" && (code[0] == '4' || code[0] == '5') {
		return code[0]
	}
	return 0
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWordByte(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'z' }

// isLocal reports whether a server is on this host: a loopback address, or the
// path of a socket below the queue directory ("private/dovecot-lmtp").
func isLocal(host string) bool {
	if strings.Contains(host, "/") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
