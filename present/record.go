package present

import (
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/postfix"
)

// The names of the JSON records. A number is raised when a field changes its
// meaning or goes; docs/json.md describes them.
const (
	SchemaMessage = "holdfast.message/1"
	SchemaNotes   = "holdfast.queue-notes/1"
	SchemaGroups  = "holdfast.groups/1"
	SchemaAges    = "holdfast.ages/1"
	SchemaShow    = "holdfast.show/1"
	SchemaTriage  = "holdfast.triage/1"
	SchemaError   = "holdfast.error/1"

	SchemaExplanation = "holdfast.explanation/1"
	SchemaLogSummary  = "holdfast.log-summary/1"

	SchemaVersion = "holdfast.version/1"
)

// Envelope opens every record that Holdfast writes. Instance is the name of
// the Postfix instance, "" for a record that is not about one.
type Envelope struct {
	Schema   string `json:"schema"`
	Instance string `json:"instance"`
}

// MessageRecord is one message.
type MessageRecord struct {
	Envelope
	*postfix.Message
}

// Seen tells how the queue was looked at, and what could not be seen.
type Seen struct {
	From   time.Time      `json:"from"`
	To     time.Time      `json:"to"`
	Source observe.Source `json:"source"`
	// Unseen are queues that could not be looked at. What is said about the
	// others does not hold for them.
	Unseen []postfix.Queue `json:"unseen"`
	Gaps   []observe.Gap   `json:"gaps"`
	Strays []observe.Stray `json:"strays"`
	// Probes counts address probes, which are no mail and are left out.
	Probes int `json:"probes"`
	// Vanished counts messages that were gone before they could be read.
	Vanished int `json:"vanished"`
}

// NotesRecord follows the messages of an instance where there is something
// about the look itself that a reader has to know.
type NotesRecord struct {
	Envelope
	Seen
}

// GroupRecord is one group.
type GroupRecord struct {
	Key           string `json:"key"`
	Count         int    `json:"count"`
	Recipients    int    `json:"recipients"`
	Bytes         int64  `json:"bytes"`
	OldestSeconds int64  `json:"oldest_seconds"`
}

// GroupsRecord is a queue by one of its properties.
type GroupsRecord struct {
	Envelope
	By            By            `json:"by"`
	Groups        []GroupRecord `json:"groups"`
	More          int           `json:"more"`
	Total         int           `json:"total"`
	Recipients    int           `json:"recipients"`
	Bytes         int64         `json:"bytes"`
	OldestSeconds int64         `json:"oldest_seconds"`
	Seen
}

// AgeRowRecord is one line of the age table.
type AgeRowRecord struct {
	Key    string          `json:"key"`
	Total  int             `json:"total"`
	Counts [AgeBuckets]int `json:"counts"`
}

// AgesRecord is the age table. Minutes are the upper bounds of the columns;
// the last column has none.
type AgesRecord struct {
	Envelope
	Of      string              `json:"of"`
	Minutes [AgeBuckets - 1]int `json:"minutes"`
	Rows    []AgeRowRecord      `json:"rows"`
	More    int                 `json:"more"`
	Total   AgeRowRecord        `json:"total"`
	Unknown int                 `json:"unknown"`
	Seen
}

// ShowRecord is one message looked at closely.
type ShowRecord struct {
	Envelope
	*postfix.Message
	// DoneRecipients were delivered or bounced; Postfix does not note which.
	DoneRecipients []postfix.Recipient `json:"done_recipients"`
	Source         observe.Source      `json:"source"`
	// Path is below the queue directory.
	Path       string         `json:"path,omitempty"`
	Misplaced  bool           `json:"misplaced,omitempty"`
	Headers    []HeaderRecord `json:"headers"`
	HeadersCut bool           `json:"headers_cut,omitempty"`
	// Body is there only if it was asked for.
	Body    *Text         `json:"body,omitempty"`
	BodyCut bool          `json:"body_cut,omitempty"`
	Gaps    []observe.Gap `json:"gaps"`
}

// HeaderRecord is one header. Decoded is there where the value has encoded
// words (RFC 2047).
type HeaderRecord struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	Decoded   string `json:"decoded,omitempty"`
	Malformed bool   `json:"malformed,omitempty"`
}

// ErrorRecord is a failure.
type ErrorRecord struct {
	Envelope
	Kind     string `json:"kind"`
	Message  string `json:"message"`
	Hint     string `json:"hint"`
	ExitCode int    `json:"exit_code"`
}

// VersionRecord tells which build this is.
type VersionRecord struct {
	Envelope
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
}

// LogSummaryRecord is the sums of mail logs.
type LogSummaryRecord struct {
	Envelope
	*maillog.Summary
	Gaps []observe.Gap `json:"gaps"`
}

// ExplanationRecord is what one reply means.
type ExplanationRecord struct {
	Envelope
	// Text is what was asked, Reply the part of it that was judged.
	Text      string        `json:"text"`
	Reply     string        `json:"reply"`
	Status    string        `json:"status,omitempty"`
	Class     postfix.Cause `json:"class"`
	Permanent bool          `json:"permanent"`
	Meaning   string        `json:"meaning"`
	Who       postfix.Actor `json:"who"`
	Next      string        `json:"next"`
	// Step is a command that goes with Next, as words.
	Step     []string `json:"step"`
	Source   string   `json:"source"`
	Provider string   `json:"provider"`
}

// SeenOf describes how a snapshot was taken. more are gaps that only showed
// afterwards.
func SeenOf(snap *observe.Snapshot, more []observe.Gap) Seen {
	return Seen{
		From: snap.From, To: snap.To, Source: snap.Source, Unseen: Unseeable(snap),
		Gaps: append(append([]observe.Gap(nil), snap.Gaps...), more...), Strays: snap.Strays,
		Probes: snap.Probes, Vanished: snap.Vanished,
	}
}

// Unseeable lists the queues that a snapshot knows nothing about.
func Unseeable(snap *observe.Snapshot) []postfix.Queue {
	var out []postfix.Queue
	for _, q := range postfix.Queues() {
		if !snap.Shape(q).Known {
			out = append(out, q)
		}
	}
	return out
}

// Record returns the group as it stands in JSON.
func (g Group) Record(at time.Time) GroupRecord {
	return GroupRecord{Key: g.Key, Count: g.Messages, Recipients: g.Recipients, Bytes: g.Bytes, OldestSeconds: Seconds(g.Oldest, at)}
}

// Seconds returns the age of something in whole seconds, 0 where its time is
// not known or lies ahead.
func Seconds(t, at time.Time) int64 {
	if t.IsZero() || t.After(at) {
		return 0
	}
	return int64(at.Sub(t) / time.Second)
}

// Record returns the row as it stands in JSON.
func (r AgeRow) Record() AgeRowRecord {
	return AgeRowRecord(r)
}

// AgeMinutes returns the upper bounds of the columns of the age table.
func AgeMinutes() [AgeBuckets - 1]int {
	var out [AgeBuckets - 1]int
	for i, m := 0, 5; i < len(out); i, m = i+1, m*2 {
		out[i] = m
	}
	return out
}
