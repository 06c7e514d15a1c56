package maillog

import (
	"strings"
	"time"

	"holdfast/postfix"
)

// Line is one line of Postfix in readable form. Texts are as they were logged:
// hostile.
type Line struct {
	At      time.Time
	Host    string
	Tag     string // "postfix/submission/smtpd"
	Program string // "smtpd"
	PID     int
	// Severity is "warning", "error", "fatal", "panic", or empty.
	Severity string
	Event    Event
	// ID is the queue ID that the text begins with. NewID is the one that a
	// Notice or a forwarding Delivery leads to, OldID the one that an Arrival
	// had before postsuper -r.
	ID, NewID, OldID postfix.QueueID
	// Text is all behind the tag and the severity.
	Text string

	// Of a Delivery: the recipient and its domain in lower case, the server or
	// service, status and code, and the reason; the words in Status are
	// Postfix's, those in Reason may be anybody's. Of an Active: Sender, Size,
	// Recipients. Of an Action: Action, and in Reason what it was for.
	Recipient, Original, Domain string
	Relay, DSN, Status, Reason  string
	Sender, Client, Action      string
	Size                        int64
	Recipients                  int
}

// Event says what a line reports.
type Event uint8

// The events.
const (
	Talk         Event = iota // anything else
	Arrival                   // client= of smtpd, uid= of pickup: a message comes in
	Named                     // message-id= of cleanup
	Active                    // qmgr takes a message up
	Delivery                  // status= of one recipient
	Probe                     // a delivery record of an address verification, which is no mail
	Expired                   // qmgr gives a message up
	Finished                  // removed by qmgr or cleanup
	Skipped                   // qmgr lets go of a message that is still being delivered
	Notice                    // bounce mails a notification
	Action                    // reject, hold, discard, ... by smtpd, cleanup, a milter
	PlacedOnHold              // by postsuper, as the next three
	Released                  //
	Requeued                  //
	Deleted                   //
	Trouble                   // with a severity
)

// Parse reads one line of a text log, its newline left away, with stamps in
// this host's zone and the current time as the newest. It reports false for a
// line that is not Postfix's or cannot be read.
func Parse(line []byte) (Line, bool) {
	return Grammar{Newest: time.Now()}.Parse(line)
}

// Grammar reads single lines.
type Grammar struct {
	SyslogName string         // as in Options
	Location   *time.Location // as in Options
	Newest     time.Time      // as for Tally.Text
}

// Parse reads one line of a text log, its newline left away.
func (g Grammar) Parse(line []byte) (Line, bool) {
	h := head{name: g.SyslogName}
	h.set(g.Location, g.Newest)
	var r record
	who := h.parse(line, &r)
	if who == broken {
		_, who = h.glued(line, &r)
	}
	if who != ours || !r.parseText() {
		return Line{}, false
	}
	return r.line(), true
}

// Entry reads one line of the journal, whoever wrote it: whether to believe it
// is the caller's to say.
func (g Grammar) Entry(e Entry) (Line, bool) {
	h := head{name: g.SyslogName}
	r := record{at: e.At.UnixNano(), tag: []byte(e.Tag), pid: e.PID, text: e.Message}
	if h.owner(&r) != ours || !r.parseText() {
		return Line{}, false
	}
	return r.line(), true
}

// line copies a record out of the log.
func (r *record) line() Line {
	l := Line{
		At: timeOf(r.at), Host: string(r.host), Tag: string(r.tag), Program: string(r.program), PID: r.pid,
		Severity: r.severity, Event: r.event, ID: postfix.QueueID(r.id), Text: string(r.text),
	}
	switch r.event {
	case Delivery, Probe:
		l.Recipient, l.Original, l.Domain = string(r.address), string(r.original), strings.ToLower(string(domainOf(r.address)))
		l.Relay, l.DSN, l.Status, l.Reason = string(r.relay), string(r.dsn), string(r.status), string(r.reason)
		if after, ok := cut(r.reason, forwardedAs); ok && l.Status == "sent" && postfix.ValidQueueID(after) {
			l.NewID = postfix.QueueID(after)
		}
	case Active:
		l.Sender, l.Size, l.Recipients = string(r.sender), r.size, r.recipients
	case Expired:
		l.Sender = string(r.sender)
	case Arrival:
		l.Client, l.OldID = string(r.client), postfix.QueueID(r.otherID)
	case Notice:
		l.NewID = postfix.QueueID(r.otherID)
	case Action:
		l.Action, l.Reason = string(r.action), string(r.reason)
	}
	return l
}

// forwardedAs is what local(8) writes of mail that went on to other addresses.
const forwardedAs = "forwarded as "
