package maillog

import (
	"bytes"
)

// origin says whose a line is.
type origin uint8

const (
	ours    origin = iota
	other          // another program or instance
	suspect        // in our name, but Postfix did not write it
	broken         // no syslog line
)

// head reads stamps and tags.
type head struct {
	clock
	name string // Options.SyslogName
}

// parse cuts a line of a text log up to its text.
func (h *head) parse(line []byte, r *record) origin {
	at, n, ok := h.read(line)
	if !ok {
		return broken
	}
	rest := line[n:]
	if n = bytes.IndexByte(rest, ' '); n <= 0 {
		return broken
	}
	r.at, r.host, rest = at, rest[:n], rest[n+1:]
	return h.parseTag(rest, r)
}

// parseTag reads "postfix/smtpd[123]: " and leaves the text in the record.
func (h *head) parseTag(rest []byte, r *record) origin {
	n := 0
	for n < len(rest) && rest[n] != '[' && rest[n] != ':' && rest[n] != ' ' {
		n++
	}
	r.tag, rest = rest[:n], rest[n:]
	who := h.owner(r)
	if who == other {
		if n == 0 || len(rest) == 0 || rest[0] == ' ' {
			return broken // "Nov 23 17:37:10 relay1 postfNov 23 ...": no tag at all
		}
		return other
	}
	if len(rest) == 0 || rest[0] == ' ' {
		return broken
	}
	if rest[0] == '[' {
		pid, digits := number(rest[1:])
		if after := rest[1+digits:]; digits > 0 && hasPrefix(after, "]: ") {
			r.pid, r.text = int(pid), after[3:]
			return ours
		}
	}
	// logger(1) and others write no process ID; Postfix always does.
	return suspect
}

// owner tells whose a tag is, and finds the program in it. An instance's name
// may itself hold slashes, and services log below it: "postfix/relay/smtp".
func (h *head) owner(r *record) origin {
	n := bytes.LastIndexByte(r.tag, '/')
	if n <= 0 {
		return other
	}
	r.program = r.tag[n+1:]
	if h.name != "" {
		if len(r.tag) > len(h.name) && r.tag[len(h.name)] == '/' && string(r.tag[:len(h.name)]) == h.name {
			return ours
		}
		return other
	}
	if hasPrefix(r.tag, "postfix/") || hasPrefix(r.tag, "postfix-") || isProgram(r.program) {
		return ours
	}
	return other
}

// isProgram knows Postfix's daemons and commands, for instances whose name has
// nothing of "postfix".
func isProgram(name []byte) bool {
	switch string(name) {
	case "anvil", "bounce", "cleanup", "discard", "dnsblog", "error", "flush", "lmtp", "local", "master", "oqmgr", "nqmgr", "pickup", "pipe",
		"postscreen", "proxymap", "qmgr", "qmqpd", "scache", "showq", "smtp", "smtpd", "spawn", "tlsmgr", "tlsproxy", "trivial-rewrite", "verify", "virtual",
		"postfix-script", "postlogd", "postsuper", "postqueue", "postdrop", "sendmail", "postmap", "postalias", "postmulti", "postlog":
		return true
	}
	return false
}

// glued finds the second line in one whose first was cut before its tag ended:
// "Nov 23 17:37:1Nov 23 17:37:24 relay1 postfix/...". That is what postlogd
// leaves when its disk was full, and what follows zeroes after a power failure.
//
// Only a fragment of a line's head is looked through. Once a line has its tag,
// all that follows may be the words of strangers, who could otherwise have a
// line of their own in the middle of a reply.
func (h *head) glued(line []byte, r *record) (fragment int, who origin) {
	const longestHead = 160 // stamp, host name and tag
	for i := 1; i < len(line) && i < longestHead; i++ {
		if line[i-1] == ':' && line[i] == ' ' {
			break // behind a tag
		}
		if !beginsStamp(line[i:]) || !beginsLine(line[:i]) {
			continue
		}
		if who = h.parse(line[i:], r); who == ours {
			return i, who
		}
	}
	return 0, broken
}

// beginsLine says whether a fragment could be what is left of a line.
func beginsLine(b []byte) bool {
	return len(b) < 3 || monthOf(b) != 0 || b[0] == '2' || b[0] == 0
}

func beginsStamp(b []byte) bool {
	return len(b) > sizeISO && (b[3] == ' ' && monthOf(b) != 0 || b[4] == '-' && b[0] == '2')
}
