// Package maillog reads what Postfix logged: where the lines are, what they
// say, and how much of it. Log lines come in as blocks of a text log or as
// entries of the journal, and go out as an observe.Log for triage, as a
// Summary for people, or as single Lines for whoever follows one message.
//
// Invariant: every line is counted somewhere. One that bears the instance's
// name and cannot be read is in Unread with a sample, one that Postfix did not
// write is in Suspect, one of somebody else in Other. A log in several blocks
// that are read side by side gives what reading it from front to back would
// give, as long as nothing had to be dropped for room.
//
// It never takes words of a remote server for words of Postfix: fields are read
// from left to right up to the reason, and nothing is looked for inside that.
// It never orders lines by their time, which steps back, but by their place.
// Its memory has a bound that no log, however long or hostile, can move.
//
// Diagnostics: Dropped in both results says how much did not fit.
//
// Bugs: with info_log_address_format=internal an address that holds ">" is read
// to that sign only. A service that logs under a name which is not below the
// instance's ("-o syslog_name=submission") is another program's. postsuper -H
// ALL logs no queue IDs, so holds that it ended are still listed; the queue
// itself tells.
package maillog

import (
	"time"

	"holdfast/observe"
)

// Options say which lines count, and how much of them is kept.
type Options struct {
	// SyslogName is the instance's name in tags, "postfix" or "postfix-out".
	// Empty takes every tag that looks like one of Postfix.
	SyslogName string
	// Location is the zone of stamps that name none; nil is time.Local.
	Location *time.Location
	// Since skips older lines: they are in Lines and in nothing else. The zero
	// time takes all.
	Since time.Time
	// Detail keeps what triage needs: the flow of each minute, Domains,
	// Servers, Troubles, Holds. Without it there is only what Summary needs.
	Detail bool
}

// Entry is one line of the journal.
type Entry struct {
	At      time.Time
	Tag     string // SYSLOG_IDENTIFIER, "postfix/smtpd"
	PID     int
	Message []byte
	// Trusted says that by the journal's own fields Postfix wrote it; By names
	// the writer for the sample where it did not.
	Trusted bool
	By      string
}

// Tally counts the lines of one part of a log. It is for one goroutine;
// several parts are read by several tallies and put together by Merge.
type Tally struct {
	o Options
}

// NewTally returns an empty tally.
func NewTally(o Options) *Tally { return &Tally{o: o} }

// Text tallies whole lines of a text log, in their order. The last line may
// lack its newline. newest is when the file was last written, which gives
// stamps without a year theirs: a stamp more than a day later than that is of
// the year before.
func (t *Tally) Text(block []byte, trust observe.Trust, newest time.Time) {}

// Entry tallies one line of the journal.
func (t *Tally) Entry(e Entry) {}

// Merge adds a tally of the lines that follow those of t. later must not be
// used afterwards. Both must have the same Options.
func (t *Tally) Merge(later *Tally) {}

// Log returns what triage needs. Sources are the caller's to add.
func (t *Tally) Log() *observe.Log { return &observe.Log{} }

// Summary returns the figures of the whole.
func (t *Tally) Summary() *Summary { return &Summary{} }
