package maillog

import (
	"bytes"

	"holdfast/postfix"
)

// record is one line cut into its parts, which lie in the line itself. Fields
// below event hold leftovers of earlier lines unless the event sets them: a
// record is used again for the next line, and clearing it all would cost as
// much as reading.
type record struct {
	at        int64
	host, tag []byte
	program   []byte // last part of tag
	pid       int
	severity  string
	text      []byte
	id        []byte // nil for none and for NOQUEUE
	event     Event

	address, original, relay, dsn, status, reason []byte // Delivery, Probe
	sender                                        []byte // Active, Expired
	size                                          int64
	recipients                                    int
	action                                        []byte // Action
	client                                        []byte // Arrival
	otherID                                       []byte // Notice: the new one; Arrival: the old one
}

// parseText reads what stands behind the tag. It reports false for a text that
// begins as one of Postfix's and does not go on as one.
func (r *record) parseText() bool {
	r.severity, r.id, r.event = "", nil, Talk
	text := r.text
	if len(text) < 2 {
		return false
	}
	if r.severity = severityOf(text); r.severity != "" {
		r.text = text[len(r.severity)+2:]
		r.event = Trouble
		return true
	}
	if rest, ok := bytes.CutPrefix(text, []byte("NOQUEUE: ")); ok {
		r.parseAction(rest)
		return true
	}
	n := idLength(text)
	if n == 0 {
		return true
	}
	r.id = text[:n]
	return r.parseMessage(text[n+2:])
}

// severityOf finds the mark that msg_warn and its kin put first (util/msg_output.c).
func severityOf(text []byte) string {
	var severity string
	switch text[0] {
	case 'w':
		severity = "warning"
	case 'e':
		severity = "error"
	case 'f':
		severity = "fatal"
	case 'p':
		severity = "panic"
	default:
		return ""
	}
	n := len(severity)
	if len(text) < n+2 || string(text[:n]) != severity || text[n] != ':' || text[n+1] != ' ' {
		return ""
	}
	return severity
}

// Classes of bytes in queue IDs.
const (
	inShort = 1 << iota // upper-case hexadecimal
	inLong              // base 52
)

var idBytes = func() (class [256]uint8) {
	for _, c := range "0123456789ABCDEF" {
		class[c] |= inShort
	}
	for _, c := range "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz" {
		class[c] |= inLong
	}
	return class
}()

// idLength returns the length of the queue ID that a text begins with and that
// ": " ends, or 0. Words of other texts ("statistics: ") are none: they have
// vowels.
func idLength(text []byte) int {
	all := uint8(inShort | inLong)
	for i, c := range text {
		if class := idBytes[c]; class != 0 {
			all &= class
			continue
		}
		isID := c == ':' && i+1 < len(text) && text[i+1] == ' ' &&
			(i > 5 && all&inShort != 0 || i > 10 && all&inLong != 0 && bytes.LastIndexByte(text[:i], 'z') >= 10)
		if isID {
			return i
		}
		return 0
	}
	return 0
}

// parseMessage reads what is said of a message with a queue ID.
func (r *record) parseMessage(rest []byte) bool {
	if len(rest) == 0 {
		return false
	}
	switch rest[0] {
	case 't':
		if after, ok := cut(rest, "to=<"); ok {
			return r.parseDelivery(after)
		}
	case 'f':
		if after, ok := cut(rest, "from=<"); ok {
			return r.parseFrom(after)
		}
	case 'm':
		if hasPrefix(rest, "message-id=") {
			r.event = Named
			return true
		}
	case 'c':
		if after, ok := cut(rest, "client="); ok {
			r.event, r.client, r.otherID = Arrival, field(after), nil
			return true
		}
	case 'u':
		if hasPrefix(rest, "uid=") {
			r.parsePickup(rest)
			return true
		}
	case 'r':
		if done := r.parseRemoved(rest); done {
			return true
		}
	case 's', 'p':
		if done := r.parseStep(rest); done {
			return true
		}
	}
	r.parseAction(rest)
	return true
}

// parseRemoved reads the words of qmgr, cleanup and postsuper that begin with r.
func (r *record) parseRemoved(rest []byte) bool {
	switch string(rest) {
	case "removed":
		r.event = Finished
		if string(r.program) == "postsuper" {
			r.event = Deleted
		}
	case "removed (canceled)", "removed (discarded)": // cleanup, since 3.10
		r.event = Finished
	case "released from hold":
		r.event = Released
	case "requeued":
		r.event = Requeued
	default:
		if !hasPrefix(rest, "resent-message-id=") {
			return false
		}
		r.event = Named
	}
	return true
}

// parseStep reads the other words of qmgr, bounce and postsuper.
func (r *record) parseStep(rest []byte) bool {
	switch {
	case string(rest) == "placed on hold":
		r.event = PlacedOnHold
	case hasPrefix(rest, "skipped, still being delivered"), hasPrefix(rest, "status=deferred ("):
		r.event = Skipped
	case string(r.program) != "bounce":
		return false
	default:
		// "sender non-delivery notification: NEW", and seven more like it.
		at := bytes.Index(rest, []byte(" notification: "))
		if at < 0 {
			return false
		}
		r.event, r.otherID = Notice, rest[at+len(" notification: "):]
	}
	return true
}

// parsePickup reads "uid=0 from=<root> orig_id=OLD"; the last only after a requeue.
func (r *record) parsePickup(rest []byte) {
	r.event, r.client, r.otherID = Arrival, nil, nil
	if at := bytes.LastIndex(rest, []byte("> orig_id=")); at >= 0 {
		if id := rest[at+len("> orig_id="):]; postfix.ValidQueueID(id) {
			r.otherID = id
		}
	}
}

// parseFrom reads "S>, size=N, nrcpt=N (queue active)" and "S>, status=expired,
// returned to sender".
func (r *record) parseFrom(rest []byte) bool {
	n := addressEnd(rest)
	if n < 0 {
		return false
	}
	r.sender, rest = rest[:n], rest[n+1:]
	if hasPrefix(rest, ", status=expired") || hasPrefix(rest, ", status=force-expired") {
		r.event = Expired
		return true
	}
	rest, ok := cut(rest, ", size=")
	if !ok {
		return false
	}
	size, n := number(rest)
	rest, ok = cut(rest[n:], ", nrcpt=")
	if !ok || n == 0 {
		return false
	}
	recipients, n := number(rest)
	if n == 0 || string(rest[n:]) != " (queue active)" {
		return false
	}
	r.event, r.size, r.recipients = Active, size, int(recipients)
	return true
}

// parseDelivery reads the record of log_adhoc.c from left to right. Names are
// in a fixed order with more of them in later versions; the first value that
// anybody but Postfix wrote freely is behind status=, so that is where it ends.
func (r *record) parseDelivery(rest []byte) bool {
	n := addressEnd(rest)
	if n < 0 {
		return false
	}
	r.address, rest = rest[:n], rest[n+1:]
	r.original, r.relay, r.dsn = nil, nil, nil
	if after, ok := cut(rest, ", orig_to=<"); ok {
		if n = addressEnd(after); n < 0 {
			return false
		}
		r.original, rest = after[:n], after[n+1:]
	}
	for {
		after, ok := cut(rest, ", ")
		if !ok {
			return false
		}
		name := bytes.IndexByte(after, '=')
		if name < 0 {
			return false
		}
		value := after[name+1:]
		if string(after[:name]) == "status" {
			return r.parseStatus(value)
		}
		if n = bytes.IndexByte(value, ','); n < 0 {
			return false // cut short: what became of it is not there
		}
		switch string(after[:name]) {
		case "relay":
			r.relay = value[:n]
		case "dsn":
			r.dsn = value[:n]
		case "conn_use", "delay", "delays", "tls":
		default:
			if !isName(after[:name]) {
				return false
			}
		}
		rest = value[n:]
	}
}

// parseStatus reads "deferred (reason)". The last parenthesis is missing where
// a line of more than 2000 bytes was cut (util/msg_output.c).
func (r *record) parseStatus(rest []byte) bool {
	n := bytes.IndexByte(rest, ' ')
	if n < 0 {
		n = len(rest)
	}
	r.status, r.reason = rest[:n], nil
	switch string(r.status) {
	case "sent", "deferred", "bounced", "SOFTBOUNCE":
		r.event = Delivery
	case "deliverable", "undeliverable", "undeliverable-but-not-cached":
		r.event = Probe
	default:
		return false
	}
	if reason, ok := cut(rest[n:], " ("); ok {
		r.reason = bytes.TrimSuffix(reason, []byte(")"))
	}
	return true
}

// parseAction reads "reject: RCPT from name[addr]: 450 ...; from=<> ..." of
// smtpd (log_whatsup), cleanup and postscreen. Anything else stays talk.
func (r *record) parseAction(rest []byte) {
	n := bytes.IndexByte(rest, ':')
	if n < 0 || n > len("milter-discard") || n+2 > len(rest) || rest[n+1] != ' ' {
		return
	}
	switch string(rest[:n]) {
	case "reject", "milter-reject", "proxy-reject", "reject_warning", "hold", "milter-hold", "discard", "milter-discard",
		"warn", "warning", "filter", "redirect", "bcc", "prepend", "replace", "strip", "info", "delay", "permit", "proxy-accept":
		r.event, r.action, r.reason = Action, rest[:n], rest[n+2:]
	}
}

// rule returns what an access table, a header check or a milter gave as its
// text: smtpd writes it between the client and "; from=<", cleanup behind the
// last of its attributes.
func rule(reason []byte) []byte {
	attributes := bytes.Index(reason, []byte("; from=<"))
	if attributes < 0 {
		return reason
	}
	if hasPrefix(reason, "header ") || hasPrefix(reason, "body ") {
		_, given, ok := bytes.Cut(reason[attributes:], []byte(">: "))
		if ok {
			return given
		}
		return reason[:attributes]
	}
	reason = reason[:attributes]
	if at := bytes.Index(reason, []byte("]: ")); at >= 0 {
		return reason[at+3:]
	}
	return reason
}

// addressEnd returns where the ">" is that ends an address. Since 3.5 addresses
// are logged in their external form: a local part that needs quotes has them
// around the whole of it, and a ">" within these ends nothing.
func addressEnd(b []byte) int {
	from := 0
	if len(b) > 0 && b[0] == '"' {
		for from = 1; from < len(b) && b[from] != '"'; from++ {
			if b[from] == '\\' {
				from++
			}
		}
		if from >= len(b) {
			return -1
		}
	}
	n := bytes.IndexByte(b[from:], '>')
	if n < 0 {
		return -1
	}
	return from + n
}

// domainOf returns what stands behind the last @, nothing where there is none.
func domainOf(address []byte) []byte {
	if at := bytes.LastIndexByte(address, '@'); at >= 0 {
		return address[at+1:]
	}
	return nil
}

// field returns a value up to its comma.
func field(b []byte) []byte {
	if n := bytes.IndexByte(b, ','); n >= 0 {
		return b[:n]
	}
	return b
}

// number reads digits; n is how many there were.
func number(b []byte) (v int64, n int) {
	for n < len(b) && n < 18 && b[n] >= '0' && b[n] <= '9' {
		v = v*10 + int64(b[n]-'0')
		n++
	}
	return v, n
}

func isName(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return len(b) > 0
}

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

func cut(b []byte, prefix string) ([]byte, bool) {
	if !hasPrefix(b, prefix) {
		return b, false
	}
	return b[len(prefix):], true
}
