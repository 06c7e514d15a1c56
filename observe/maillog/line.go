package maillog

import (
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
	// ID is the queue ID that the text begins with, NewID the one that an
	// event leads to: a notification's, a forwarded copy's, a requeued message's.
	ID, NewID postfix.QueueID
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
	Talk        Event = iota // anything else
	Arrival                  // client= of smtpd, uid= of pickup: a message comes in
	Named                    // message-id= of cleanup
	Active                   // qmgr takes a message up
	Delivery                 // status= of one recipient
	Probe                    // a delivery record of an address verification, which is no mail
	Expired                  // qmgr gives a message up
	Finished                 // removed by qmgr or cleanup
	Skipped                  // qmgr lets go of a message that is still being delivered
	Notice                   // bounce mails a notification
	Action                   // reject, hold, discard, ... by smtpd, cleanup, a milter
	PlacedOnHold             // by postsuper, as the next three
	Released                 //
	Requeued                 //
	Deleted                  //
	Trouble                  // with a severity
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
func (g Grammar) Parse(line []byte) (Line, bool) { return Line{}, false }

// Entry reads one line of the journal, whoever wrote it.
func (g Grammar) Entry(e Entry) (Line, bool) { return Line{}, false }
