package present

import (
	"slices"
	"time"

	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/operate"
	"holdfast/postfix"
)

// TriageRecord is the verdict about one instance and what it rests on.
type TriageRecord struct {
	Envelope
	At           time.Time           `json:"at"`
	State        diagnose.State      `json:"state"`
	Sentence     string              `json:"sentence"`
	Queues       QueuesRecord        `json:"queues"`
	Flow         FlowRecord          `json:"flow"`
	Reasons      []ReasonRecord      `json:"reasons"`
	Destinations []DestinationRecord `json:"destinations"`
	Senders      []SenderRecord      `json:"senders"`
	Findings     []diagnose.Finding  `json:"findings"`
	Forecast     ForecastRecord      `json:"forecast"`
	Log          LogRecord           `json:"log"`
	// Host is nil where nothing was asked.
	Host *HostRecord   `json:"host"`
	Gaps []observe.Gap `json:"gaps"`
	// More counts what the lists above leave out.
	More MoreRecord `json:"more"`
}

// QueuesRecord has the queues; nil is one that could not be looked at.
type QueuesRecord struct {
	Maildrop *QueueRecord `json:"maildrop"`
	Incoming *QueueRecord `json:"incoming"`
	Active   *QueueRecord `json:"active"`
	Deferred *QueueRecord `json:"deferred"`
	Hold     *QueueRecord `json:"hold"`
	Corrupt  *QueueRecord `json:"corrupt"`
	Saved    *QueueRecord `json:"saved"`
}

// QueueRecord is the size of one queue.
type QueueRecord struct {
	Messages      int   `json:"messages"`
	Bytes         int64 `json:"bytes"`
	OldestSeconds int64 `json:"oldest_seconds"`
}

// FlowRecord is what the log tells about the window; its numbers are nil where
// no log was read.
type FlowRecord struct {
	WindowSeconds int64           `json:"window_seconds"`
	Arrived       *int64          `json:"arrived"`
	Delivered     *int64          `json:"delivered"`
	Deferred      *int64          `json:"deferred"`
	Suspended     *int64          `json:"suspended"`
	Bounced       *int64          `json:"bounced"`
	Expired       *int64          `json:"expired"`
	Rejected      *int64          `json:"rejected"`
	Held          *int64          `json:"held"`
	Direction     Direction       `json:"direction"`
	SinceLastLook *TurnoverRecord `json:"since_last_look,omitempty"`
}

// TurnoverRecord is what happened to the queue since the look before.
type TurnoverRecord struct {
	Seconds int64 `json:"seconds"`
	Came    int   `json:"came"`
	Left    int   `json:"left"`
}

// ReasonRecord is why mail waits, put together by what the texts have in
// common.
type ReasonRecord struct {
	Class        postfix.Cause `json:"class"`
	Text         string        `json:"text"`
	Count        int           `json:"count"`
	Destinations int           `json:"destinations"`
}

// DestinationRecord is a recipient domain.
type DestinationRecord struct {
	Domain string `json:"domain"`
	Count  int    `json:"count"`
}

// SenderRecord is an envelope sender.
type SenderRecord struct {
	Sender string `json:"sender"`
	Count  int    `json:"count"`
}

// ForecastRecord is a Forecast.
type ForecastRecord struct {
	FirstBounce time.Time `json:"first_bounce,omitzero"`
	WithinHour  int       `json:"within_hour"`
	WithinDay   int       `json:"within_day"`
	Silent      int       `json:"silent"`
	HeldOverdue int       `json:"held_overdue"`
}

// LogRecord tells what was read of the log, and what was not.
type LogRecord struct {
	Sources []observe.LogSource `json:"sources"`
	Trust   observe.Trust       `json:"trust"`
	From    time.Time           `json:"from,omitzero"`
	To      time.Time           `json:"to,omitzero"`
	Lines   int64               `json:"lines"`
	Unread  int64               `json:"unread"`
	Suspect int64               `json:"suspect"`
}

// MoreRecord counts entries that are not in a list.
type MoreRecord struct {
	Reasons      int `json:"reasons"`
	Destinations int `json:"destinations"`
	Senders      int `json:"senders"`
}

// mostListed bounds the lists of a triage. Mail from or to a hundred thousand
// invented domains would otherwise make a record that no program wants;
// holdfast queue --by has them all.
const mostListed = 100

// TriageRecordOf puts together what was seen. earlier is the look before, nil
// for the first one; window is how far back the log was to be read.
func TriageRecordOf(t *operate.Triage, shape, earlier *Shape, window time.Duration) *TriageRecord {
	r := &TriageRecord{
		Envelope: Envelope{Schema: SchemaTriage, Instance: t.Snapshot.Instance.Name},
		At:       t.At, State: t.Verdict.State, Sentence: t.Verdict.Sentence, Queues: queuesOf(t.Snapshot, t.At),
		Flow: FlowOf(t, shape, earlier, window), Findings: slices.Clone(t.Verdict.Findings),
		Forecast: ForecastRecord{
			FirstBounce: shape.Forecast.First, WithinHour: shape.Forecast.Hour, WithinDay: shape.Forecast.Day,
			Silent: shape.Forecast.Silent, HeldOverdue: shape.Forecast.HeldOverdue,
		},
		Host: HostRecordOf(t.Host), Gaps: t.Gaps,
	}
	if t.Log != nil {
		r.Log = LogRecord{
			Sources: t.Log.Sources, Trust: t.Log.Trust, From: t.Log.From, To: t.Log.To,
			Lines: t.Log.Lines, Unread: t.Log.Unread, Suspect: t.Log.Suspect,
		}
	}
	var groups []Group
	groups, r.More.Reasons = Top(shape.Texts, mostListed)
	for _, g := range groups {
		r.Reasons = append(r.Reasons, ReasonRecord{Class: g.Cause, Text: g.Key, Count: g.Messages, Destinations: g.Destinations()})
	}
	groups, r.More.Destinations = Top(shape.Destinations, mostListed)
	for _, g := range groups {
		r.Destinations = append(r.Destinations, DestinationRecord{Domain: g.Key, Count: g.Messages})
	}
	groups, r.More.Senders = Top(shape.Senders, mostListed)
	for _, g := range groups {
		r.Senders = append(r.Senders, SenderRecord{Sender: g.Key, Count: g.Messages})
	}
	return r
}

// Top returns the first n groups and how many there are beyond them. Of texts
// it leaves out the one of mail that has no reason yet: it is no reason.
func Top(t *Tally, n int) (top []Group, more int) {
	groups := t.Groups()
	if t.by == ByText || t.by == ByCause {
		groups = slices.DeleteFunc(groups, func(g Group) bool { return g.Key == "" })
	}
	n = min(n, len(groups))
	return groups[:n], len(groups) - n
}

func queuesOf(snap *observe.Snapshot, at time.Time) QueuesRecord {
	of := func(q postfix.Queue) *QueueRecord {
		shape := snap.Shape(q)
		if !shape.Known {
			return nil
		}
		return &QueueRecord{Messages: shape.Messages, Bytes: shape.Bytes, OldestSeconds: Seconds(shape.Oldest, at)}
	}
	return QueuesRecord{
		Maildrop: of(postfix.Maildrop), Incoming: of(postfix.Incoming), Active: of(postfix.Active),
		Deferred: of(postfix.Deferred), Hold: of(postfix.Hold), Corrupt: of(postfix.Corrupt), Saved: of(postfix.Saved),
	}
}

// FlowOf says what went in and out. Two looks at the queue know better than a
// log whether it grows.
func FlowOf(t *operate.Triage, shape, earlier *Shape, window time.Duration) FlowRecord {
	f := FlowRecord{WindowSeconds: int64(covered(t, window) / time.Second), Direction: Unknown}
	if LogRead(t) {
		n := t.Log.Total
		f.Arrived, f.Delivered, f.Deferred, f.Suspended = &n.Arrived, &n.Delivered, &n.Deferred, &n.Suspended
		f.Bounced, f.Expired, f.Rejected, f.Held = &n.Bounced, &n.Expired, &n.Rejected, &n.Held
		f.Direction = DirectionOf(n)
	}
	if earlier != nil {
		between := shape.Since(earlier)
		f.Direction = between.Direction()
		f.SinceLastLook = &TurnoverRecord{Seconds: between.Seconds, Came: between.Came, Left: between.Left}
	}
	return f
}

// LogRead says whether there is a log behind the numbers: where none was found
// or none could be opened, zeroes are no counts.
func LogRead(t *operate.Triage) bool { return t.Log != nil && len(t.Log.Sources) > 0 }

// covered is how much of the window the log that was read reaches back. A log
// that is too large is read from its end, as far as there is time for.
func covered(t *operate.Triage, window time.Duration) time.Duration {
	if !LogRead(t) || t.Log.From.IsZero() {
		return window
	}
	left := slices.ContainsFunc(t.Log.Sources, func(s observe.LogSource) bool { return s.Left > 0 })
	if back := t.At.Sub(t.Log.From); left && back > 0 && back < window {
		return back
	}
	return window
}
