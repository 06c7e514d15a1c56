package postfix

import (
	"encoding/json"
	"strings"
)

// paste is a reason taken out of what somebody pasted.
type paste struct {
	reason  string
	status  string // from beside the reason
	bounced bool   // the line says that it is over
}

// longestPaste bounds what is looked at. Postfix cuts a log line at 2000
// bytes, and no reply is a book.
const longestPaste = 64 << 10

// unwrap finds the reason in a bare reply, in a line of the log, of mailq,
// postqueue -j or a bounce, over one or several lines. A text that is none of
// these is its own reason.
func unwrap(text string) paste {
	if len(text) > longestPaste {
		text = text[:longestPaste]
	}
	p := paste{}
	if reason, ok := delayReason(text); ok {
		p.reason = FirstReason(reason)
		return p
	}
	text = p.pick(strings.Split(strings.ReplaceAll(text, "\r", ""), "\n"))
	text = p.logLine(text)
	text = peel(text)
	p.reason = FirstReason(text)
	return p
}

// delayReason reads an object of "postqueue -j".
func delayReason(text string) (string, bool) {
	_, rest, ok := strings.Cut(text, `"delay_reason":`)
	if !ok {
		return "", false
	}
	var reason string
	if err := json.NewDecoder(strings.NewReader(rest)).Decode(&reason); err != nil {
		return "", false // not JSON after all: judge it as it stands
	}
	return strings.TrimSpace(reason), reason != ""
}

// pick joins the lines that matter: those of a diagnostic code where there is
// one, the last log line that tells a result, and otherwise all.
func (p *paste) pick(lines []string) string {
	var all, diagnostic []string
	logged := ""
	in := false
	for _, line := range lines {
		body := strings.TrimSpace(strings.TrimLeft(line, "> \t"))
		lower := strings.ToLower(body)
		if value, ok := strings.CutPrefix(lower, "status:"); ok {
			if found := statusAt(strings.TrimSpace(value)); found != "" {
				p.status = found
				in = false
				continue
			}
		}
		switch {
		case strings.HasPrefix(lower, "diagnostic-code:"):
			diagnostic, in = []string{strings.TrimSpace(body[len("diagnostic-code:"):])}, true
		case in && body != "" && (line[0] == ' ' || line[0] == '\t'):
			diagnostic = append(diagnostic, body)
		default:
			in = false
		}
		if strings.Contains(lower, "status=") && strings.HasSuffix(body, ")") {
			logged = body
		}
		if body != "" {
			all = append(all, body)
		}
	}
	switch {
	case len(diagnostic) > 0:
		return strings.Join(diagnostic, " ")
	case logged != "":
		return logged
	}
	return strings.Join(all, " ")
}

// logLine takes the reason out of a line of the log: "dsn=4.4.1,
// status=deferred (REASON)" of a delivery, or "reject: RCPT from HOST: REPLY;
// from=<...>" of Postfix's own refusal (smtpd/smtpd_check.c).
func (p *paste) logLine(text string) string {
	if _, rest, ok := strings.Cut(text, "dsn="); ok {
		if found := statusAt(strings.SplitN(rest, ",", 2)[0]); found != "" {
			p.status = found
		}
	}
	if _, rest, ok := strings.Cut(text, "status="); ok {
		result, reason, ok := strings.Cut(rest, " (")
		if ok && !strings.ContainsAny(result, " ()") {
			p.bounced = result == "bounced" || result == "expired"
			return strings.TrimSuffix(reason, ")")
		}
	}
	if _, rest, ok := strings.Cut(text, "reject: "); ok {
		if _, reply, ok := strings.Cut(rest, "]: "); ok && startsWithCode(reply) {
			reply, _, _ = strings.Cut(reply, "; from=")
			return reply
		}
	}
	return text
}

// leads are words that stand before the reason in bounces and listings of
// Postfix, Sendmail, qmail and Exim.
var leads = []string{
	"smtp;", "x-postfix;", "x-unix;", "x-outbound-mail-relay;", "lmtp;", "dns;", "reason:", "remote host said:", "response:", "<<<", "said:",
}

// peel takes away, layer by layer, what stands around a reason.
func peel(text string) string {
	// Nobody's mail is wrapped deeper; a text of parentheses alone would be
	// looked through once for each.
	const layers = 8
	for range layers {
		before := len(text)
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "(") && strings.HasSuffix(text, ")") {
			text = text[1 : len(text)-1] // mailq, and Sendmail's "(reason: ...)"
		}
		text = strings.TrimSpace(text)
		for _, lead := range leads {
			if len(text) >= len(lead) && strings.EqualFold(text[:len(lead)], lead) {
				text = strings.TrimSpace(text[len(lead):])
			}
		}
		text = peelRecipient(text)
		if _, rest, ok := strings.Cut(text, "SMTP error from remote mail server"); ok {
			// Exim: "... after RCPT TO:<a@b.example>: 550 no"
			if at := replyIn(rest); at >= 0 {
				text = rest[at:]
			}
		}
		if len(text) == before {
			break
		}
	}
	return text
}

// peelRecipient takes "<kim@shop.example>: " of a bounce of Postfix away.
func peelRecipient(text string) string {
	if !strings.HasPrefix(text, "<") {
		return text
	}
	address, rest, ok := strings.Cut(text, ">: ")
	if !ok || strings.ContainsAny(address, " ") {
		return text
	}
	return rest
}

// replyIn finds where a reply begins behind a colon.
func replyIn(text string) int {
	for from := 0; ; {
		at := strings.Index(text[from:], ": ")
		if at < 0 {
			return -1
		}
		from += at + 2
		if startsWithCode(text[from:]) {
			return from
		}
	}
}
