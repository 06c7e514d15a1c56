// Package account proves where each message went: it keeps snapshots of a
// queue, compares two of them, and balances what was in the first one and what
// arrived since against what is in the second one and what the log and
// Holdfast's own record tell of the rest.
//
// Invariant: every message and recipient has exactly one fate, and one that
// nothing shows is [Unproven], which is neither delivered nor lost. A line of
// the log is a claim: what it says counts as proved only where nobody but
// Postfix could have written it, no line is missing from the time of the
// message, and the file was looked for and not found. That the queue manager
// removed a file is no delivery of it.
//
// Lines go by their place, never by their time. A queue ID is no name: a
// message is told from another one that had its ID by inode and arrival, by
// where its lines begin and end, by sender and size, and by how long before a
// delivery it arrived, which Postfix logs.
//
// The package opens nothing and decides nothing; who calls it reads snapshots
// and log, as whoever may.
//
// # Diagnostics
//
// Problems say where the books do not balance, and why it cannot be told.
//
// # Bugs
//
// A message that left maildrop has no line that names its new ID; it is found
// by its arrival while it is queued, and unproven if it has gone on by then.
//
// Two messages that came within seconds of each other, had the same ID, sender
// and size and went to the same recipient are one where the lines in which the
// first ended were lost.
//
// A delivery whose line was lost without a trace, of a message of which the rest
// was then deleted or expired, is counted with the rest.
//
// An alias that local(8) expands has a line for each of its members under one
// queue ID, and these stand for the alias; of a message that came since the
// first snapshot they can hide that the line of another recipient is missing.
//
// A message that came since the first snapshot and was removed before the queue
// manager first took it up counts as one recipient: no line says how many.
//
// What a remote server did with a message after it had taken it cannot be seen
// from here.
package account

import (
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/postfix"
)

// Fate is what became of one recipient of one message.
type Fate string

// The fates, as screens and JSON name them.
const (
	Pending        Fate = "pending"             // in the queue
	Delivered      Fate = "delivered"           // an agent handed it over
	Bounced        Fate = "bounced"             // refused for good; the notification is a message of its own
	Expired        Fate = "expired"             // given up for its age, or by order
	Discarded      Fate = "discarded"           // a rule, a milter or a transport threw it away
	Deleted        Fate = "deleted_with_reason" // by Holdfast, with a copy in the vault
	DeletedByOther Fate = "deleted_by_other"    // by postsuper, and not by Holdfast
	Moved          Fate = "moved"               // it goes on under another queue ID
	Unproven       Fate = "unproven"            // nothing shows it
)

// Fates lists them in the order in which they are counted.
func Fates() []Fate {
	return []Fate{Pending, Delivered, Bounced, Expired, Discarded, Deleted, DeletedByOther, Moved, Unproven}
}

// Grade says what a fate rests on.
type Grade string

// The grades, best first.
const (
	// Proved: seen in the queue, or recorded by Holdfast, or logged where
	// nobody but Postfix writes, with no line missing, of a file that is gone.
	Proved Grade = "proved"
	// Witnessed: the queue itself shows it, though no line does.
	Witnessed Grade = "witnessed"
	// Claimed: logged, where others may write or lines are missing.
	Claimed Grade = "claimed"
	// Unshown is the grade of what is unproven.
	Unshown Grade = "unproven"
)

// Grades lists them, best first.
func Grades() []Grade { return []Grade{Proved, Witnessed, Claimed, Unshown} }

// Evidence is what a fate rests on.
type Evidence struct {
	Grade Grade `json:"grade"`
	// Source is the log file, "journal", "queue" or "record".
	Source string `json:"source"`
	// Text is the line, or what was seen. It may be hostile.
	Text string    `json:"text"`
	At   time.Time `json:"at,omitzero"`
}

// Target is one recipient of one message, with its fate.
type Target struct {
	ID postfix.QueueID `json:"id"`
	// Recipient is the address, "" where a message is known to have had one
	// more of which no line tells.
	Recipient string `json:"recipient"`
	Fate      Fate   `json:"fate"`
	// Arrived is set where it was not in the first snapshot.
	Arrived bool `json:"arrived,omitempty"`
	// Queue is where it is pending.
	Queue string `json:"queue,omitempty"`
	// Successor is the queue ID under which it goes on.
	Successor postfix.QueueID `json:"successor,omitempty"`
	// Notice is the queue ID of the notification of a bounce.
	Notice   postfix.QueueID `json:"notice,omitempty"`
	Evidence Evidence        `json:"evidence"`
}

// Side is one end of an account.
type Side struct {
	Name       string    `json:"name,omitempty"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Messages   int       `json:"messages"`
	Recipients int       `json:"recipients"`
}

// Problem is a reason why the books do not balance, or not as well as they
// could.
type Problem struct {
	// Kind is "unproven", "deleted_by_other", "log", "queue" or "sum".
	Kind string `json:"kind"`
	Text string `json:"text"`
	// Count is how many recipients it concerns, 0 where that is not known, and
	// Targets are a few of them.
	Count   int      `json:"count,omitempty"`
	Targets []Target `json:"targets,omitempty"`
}

// Book is an account of one instance over an interval.
type Book struct {
	Instance string `json:"instance"`
	From     Side   `json:"from"`
	To       Side   `json:"to"`
	// Arrived is how many recipients came between the two.
	Arrived int          `json:"arrived"`
	Fates   map[Fate]int `json:"fates"`
	// Grades counts the same recipients by what their fates rest on.
	Grades map[Grade]int `json:"grades"`
	// Balanced says that everything is accounted for: nothing is unproven, and
	// the fates are as many as there were and came.
	Balanced bool `json:"balanced"`
	// Seen says that queue and log were seen well enough to tell. Where it is
	// false, unproven says nothing about the mail.
	Seen     bool                `json:"seen"`
	Problems []Problem           `json:"problems"`
	Holes    []maillog.Hole      `json:"holes"`
	Gaps     []observe.Gap       `json:"gaps"`
	Sources  []observe.LogSource `json:"sources"`
	// Targets are all recipients, those of one message together.
	Targets []Target `json:"-"`
}
