package observe

import (
	"time"

	"holdfast/postfix"
)

// Log is what the mail log says about one instance, tallied over the part of
// it that was read. A log line is a claim: Trust says whose, and a missing line
// proves nothing.
type Log struct {
	// Sources are what was read, oldest first.
	Sources []LogSource
	// Trust is that of the least trusted source that lines were taken from.
	Trust Trust
	// From and To are the times of the first and the last line that was read.
	From, To time.Time
	// Lines is how many lines were read, Other how many of them were of other
	// programs or other instances.
	Lines, Other int64
	// Unread is how many lines carry this instance's name and could not be
	// read; UnreadSamples are a few of them, hostile text.
	Unread        int64
	UnreadSamples []string
	// Suspect is how many lines bear Postfix's name and were not written by it
	// as far as the source can tell: the journal names another program or
	// user, or the tag has no process ID. They are in no other number here.
	Suspect        int64
	SuspectSamples []string

	Total   Flow
	Minutes []FlowMinute // oldest first, only minutes in which something happened

	// Domains tallies deliveries by recipient domain, Servers by the server
	// that answered. Where there were more than could be kept, the rarest are
	// not there, and Dropped counts their lines.
	Domains map[string]*LogDomain
	Servers map[string]*LogServer
	Dropped int64

	// Troubles are warnings and errors of Postfix itself, put together by
	// their text with what varies taken out; most frequent first.
	Troubles []Trouble
	// Holds are the messages that were put on hold, by ID; the last hold of an
	// ID counts, and one that was released or requeued since is not there.
	Holds map[postfix.QueueID]Hold
}

// LogSource is one file or journal that lines were taken from.
type LogSource struct {
	Name  string `json:"name"` // path, or "journal"
	Trust Trust  `json:"trust"`
	// Bytes is how much was read, Left how much there is that was not: older
	// lines, before the window or beyond what was allowed to read.
	Bytes    int64     `json:"bytes"`
	Left     int64     `json:"left,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
}

// Trust says who could have written a log line.
type Trust string

// The grades, best first.
const (
	// TrustJournal: systemd-journald noted the program and user of each line by
	// itself; lines of others than Postfix were left out.
	TrustJournal Trust = "journal"
	// TrustGuarded: a file that only Postfix's own postlogd writes.
	TrustGuarded Trust = "postlogd"
	// TrustPlain: a syslog file. Any local user can write a line into it.
	TrustPlain Trust = "syslog"
)

// Flow counts what happened to mail. Arrived counts messages; the others count
// recipients, one for each line that says so.
type Flow struct {
	Arrived   int64 `json:"arrived"`
	Delivered int64 `json:"delivered"`
	// Deferred are attempts that failed for now. Suspended are recipients that
	// were put off without an attempt, because qmgr held their destination
	// dead; they are not in Deferred.
	Deferred  int64 `json:"deferred"`
	Suspended int64 `json:"suspended"`
	// Bounced includes Expired.
	Bounced  int64 `json:"bounced"`
	Expired  int64 `json:"expired"`
	Rejected int64 `json:"rejected"`
	Held     int64 `json:"held"`
}

// FlowMinute is the flow of one minute.
type FlowMinute struct {
	Start time.Time
	Flow
}

// LogDomain is what the log says about the mail for one recipient domain.
type LogDomain struct {
	Flow
	FirstDelivered, LastDelivered time.Time
	FirstDeferred, LastDeferred   time.Time
	// DeliveredAfter counts the deliveries that were logged after the last
	// attempt that failed, in the order of the log, which times cannot tell.
	// Only those count whose message the log shows to have been taken up by
	// qmgr: a single line that claims a delivery is worth nothing here.
	DeliveredAfter int64
	// Reasons are why attempts failed, for now or for good, by cause:
	// "temporarily suspended" is counted for the cause behind it.
	Reasons map[postfix.Cause]*LogReason
	// Relay is the server of the last delivery, "name[address]:port".
	Relay string
}

// LogReason is one cause of failed attempts.
type LogReason struct {
	Attempts    int64
	First, Last time.Time
	// Text is the last one, as it was logged, hostile. Relay is what the line
	// names as the server, "none" where there was none.
	Text, Relay string
}

// LogServer is what the log says about one server, "name[address]:port".
type LogServer struct {
	Delivered, Deferred, Bounced int64
	LastDelivered, LastFailed    time.Time
	// LastCause is that of the last failure.
	LastCause postfix.Cause
	// Domain is one recipient domain that it serves.
	Domain string
}

// Trouble is a complaint of Postfix about itself or its surroundings.
type Trouble struct {
	// Program is the part of the tag behind the last slash: "master", "qmgr".
	Program string
	// Severity is "warning", "error", "fatal" or "panic".
	Severity string
	// Cause is what the text is a signature of, UnknownCause where it is none.
	Cause postfix.Cause
	// Group is the text with what varies taken out, Text the last one.
	Group, Text string
	Count       int64
	First, Last time.Time
}

// Hold is how a message came on hold, as the log tells.
type Hold struct {
	At time.Time
	By HoldOrigin
	// FromActive is set where the last that the log says of the message before
	// the hold is that the queue manager took it up: it may still have it in
	// memory, and then releasing it loses it.
	FromActive bool
	// Rule is the text of the rule or milter that asked for it.
	Rule string
}

// HoldOrigin says who held a message.
type HoldOrigin string

// The origins of holds.
const (
	HeldByPostsuper HoldOrigin = "postsuper"
	HeldByRule      HoldOrigin = "rule" // access table, header check
	HeldByMilter    HoldOrigin = "milter"
)
