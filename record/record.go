// Package record holds what Holdfast remembers: the entries of the audit log,
// what each means, and the ledger that follows from them.
//
// Invariant: the audit log is the only truth. The ledger (which holds are ours,
// which intents are open, what is due) is computed from it, and a copy that is
// kept to save time names the entry up to which it was computed.
//
// The package reads and computes; package audit writes the log, package vault
// keeps evidence. What stands in an entry was partly written by strangers, so
// entries are decoded by processes without rights, never by root.
package record

import (
	"encoding/json"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
)

// Kind says what an entry of the audit log is.
type Kind string

// The kinds of entries.
const (
	Begin     Kind = "begin"      // the first of a log: host, time zone, key
	Planned   Kind = "plan"       // a plan was sealed (PlanBody)
	Approved  Kind = "approve"    // a second person agreed (PlanBody)
	Started   Kind = "start"      // a plan begins to run (PlanBody)
	Intended  Kind = "intent"     // a batch is about to be acted upon (IntentBody); Files are its messages
	Kept      Kind = "vaulted"    // copies are in the vault (KeptBody); Ref is the intent
	Noted     Kind = "note"       // something learnt in the middle (NoteBody); Ref is the intent
	Settled   Kind = "outcome"    // what was seen afterwards (OutcomeBody); Ref is the intent
	Ended     Kind = "end"        // a plan ended (EndBody); Ref is its start
	Looked    Kind = "inspect"    // somebody was shown content (InspectBody)
	LegalHold Kind = "legal-hold" // copies must not be purged, or may again (LegalBody)
	Due       Kind = "due"        // something must happen later (DueBody)
	DueDone   Kind = "due-done"   // it happened (DueBody); Ref is the due entry
	Saved     Kind = "snapshot"   // a snapshot was saved (SavedBody)
	Torn      Kind = "torn"       // the line before was cut by a crash (TornBody)
)

// Entry is one line of the audit log.
type Entry struct {
	Seq  uint64    `json:"seq"` // from 1, without gaps
	At   time.Time `json:"at"`  // UTC, microseconds
	Kind Kind      `json:"kind"`
	// Ref is the entry that this one belongs to, 0 where there is none.
	Ref uint64 `json:"ref,omitempty"`
	// Hash is the SHA-256 of the rest of the line, hexadecimal; Prev is that
	// of the line before.
	Hash string `json:"hash"`
	Prev string `json:"prev"`
	// Files are the messages that may be acted upon: of an intent.
	Files []File `json:"files,omitempty"`
	// Detail is the body of the kind.
	Detail json.RawMessage `json:"detail"`
	// Offset and Length are where the line lies in the file.
	Offset int64 `json:"-"`
	Length int   `json:"-"`
}

// File is a queue file, as far as the hand compares it: it decodes nothing.
type File struct {
	ID    postfix.QueueID
	Inode uint64
}

// PlanBody is the detail of Planned, Approved and Started.
type PlanBody struct {
	Plan     string    `json:"plan"`
	Verb     plan.Verb `json:"verb"`
	Instance string    `json:"instance"`
	Count    int       `json:"count"`
	Reason   string    `json:"reason"`
	Ticket   string    `json:"ticket,omitempty"`
	By       plan.Who  `json:"by"`
	Expires  time.Time `json:"expires"`
	Undoes   string    `json:"undoes,omitempty"`
	// Review is when what it holds is to be looked at again.
	Review time.Time `json:"review,omitzero"`
	// Before is what was seen of the queue before: messages by queue.
	Before map[string]int `json:"before,omitempty"`
	// Qmgr is the queue manager that runs while the plan does.
	Qmgr *Process `json:"qmgr,omitempty"`
}

// Process is a process that cannot be mistaken for a later one.
type Process struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// IntentBody is the detail of Intended.
type IntentBody struct {
	Plan    string        `json:"plan"`
	Verb    plan.Verb     `json:"verb"`
	Batch   int           `json:"batch"` // from 1
	Targets []plan.Target `json:"targets"`
	// Qmgr is the queue manager under which messages may be held from active.
	Qmgr *Process `json:"qmgr,omitempty"`
}

// State is what became of a target.
type State string

// The states, as screens and JSON name them.
const (
	Done    State = "done"    // seen to be so
	Already State = "already" // was so before
	Gone    State = "gone"    // left the queue by itself, or by another hand, before it was acted upon
	Changed State = "changed" // another message has the ID now; it was left alone
	Refused State = "refused" // a guard said no
	Failed  State = "failed"  // was tried, or was to be tried, and is not so
	Unknown State = "unknown" // what was seen does not tell
)

// States lists them in the order in which they are counted.
func States() []State { return []State{Done, Already, Gone, Changed, Refused, Failed, Unknown} }

// Outcome is what was seen of one target afterwards.
type Outcome struct {
	ID    postfix.QueueID `json:"id"`
	Inode uint64          `json:"inode,omitempty"`
	State State           `json:"state"`
	// Now is the queue in which it was seen, "" where it was in none.
	Now string `json:"now,omitempty"`
	// Held is set where the target is on hold now and Holdfast put it there;
	// FromActive where it was taken from the active queue.
	Held       bool `json:"held,omitempty"`
	FromActive bool `json:"from_active,omitempty"`
	// Item is the copy in the vault, Successor the queue ID that a requeue or
	// restore gave.
	Item      string          `json:"item,omitempty"`
	Successor postfix.QueueID `json:"successor,omitempty"`
	// Text is evidence or reason: a log line, what a command printed, what was
	// seen. It may be hostile.
	Text string `json:"text,omitempty"`
}

// OutcomeBody is the detail of Settled: one outcome for each target of the
// intent.
type OutcomeBody struct {
	Plan     string    `json:"plan"`
	Verb     plan.Verb `json:"verb"`
	Batch    int       `json:"batch"`
	Outcomes []Outcome `json:"outcomes"`
	// Recovered is set where a later run found out by looking.
	Recovered bool `json:"recovered,omitempty"`
}

// KeptBody is the detail of Kept.
type KeptBody struct {
	Plan  string `json:"plan"`
	Pack  string `json:"pack"`   // name of the file in the vault
	Sum   string `json:"sha256"` // of the whole pack file
	Items []Item `json:"items"`
}

// Item is the copy of one message in the vault.
type Item struct {
	// Name is unique for ever: pack and number.
	Name string          `json:"name"`
	ID   postfix.QueueID `json:"id"`
	// Sum is the SHA-256 of the queue file as it lay on hold.
	Sum string `json:"sha256"`
	// Size is that of the queue file in bytes.
	Size int64 `json:"size"`
}

// NoteBody is the detail of Noted: a requeue or restore knows its new ID before
// the act that makes it final.
type NoteBody struct {
	ID        postfix.QueueID `json:"id"`
	Item      string          `json:"item,omitempty"`
	Successor postfix.QueueID `json:"successor"`
	Inode     uint64          `json:"inode,omitempty"`
	Temporary string          `json:"temporary,omitempty"` // path below the queue directory
}

// EndBody is the detail of Ended.
type EndBody struct {
	Plan string `json:"plan"`
	// Counts are targets by state.
	Counts map[State]int `json:"counts"`
	// Left is how many targets were not begun: it was interrupted.
	Left int `json:"left,omitempty"`
	// After is what was seen of the queue afterwards: messages by queue.
	After map[string]int `json:"after,omitempty"`
}

// InspectBody is the detail of Looked.
type InspectBody struct {
	By     plan.Who        `json:"by"`
	ID     postfix.QueueID `json:"id,omitempty"`
	Item   string          `json:"item,omitempty"`
	What   string          `json:"what"` // "body", "vault"
	Reason string          `json:"reason"`
	Ticket string          `json:"ticket,omitempty"`
}

// LegalBody is the detail of LegalHold.
type LegalBody struct {
	By     plan.Who `json:"by"`
	Items  []string `json:"items"`
	On     bool     `json:"on"`
	Reason string   `json:"reason"`
	Ticket string   `json:"ticket,omitempty"`
}

// DueBody is the detail of Due and DueDone.
type DueBody struct {
	// What is to be done; package operate knows how.
	What string    `json:"what"`
	When time.Time `json:"when"`
	By   plan.Who  `json:"by,omitzero"`
	// Instance and Config are the name of the instance and its configuration
	// directory.
	Instance string `json:"instance"`
	Config   string `json:"config"`
	// Object is what it concerns: the snapshot that the second one belongs to.
	Object string `json:"object,omitempty"`
	// Text says how it went: of DueDone.
	Text string `json:"text,omitempty"`
}

// SavedBody is the detail of Saved.
type SavedBody struct {
	Name     string   `json:"name"`
	Sum      string   `json:"sha256"`
	Instance string   `json:"instance"`
	Messages int      `json:"messages"`
	By       plan.Who `json:"by"`
	// Due is the due entry that asked for it, 0 where somebody did.
	Due uint64 `json:"due,omitempty"`
}
