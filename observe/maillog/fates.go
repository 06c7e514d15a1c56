package maillog

import (
	"bytes"
	"strconv"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// Step is a line that tells of the way of one message, with no more than an
// account of it needs. Steps come in the order of the log, never of the clock.
type Step struct {
	At      time.Time
	Event   Event
	Program string
	Trust   observe.Trust
	// Source is the file that the line stands in, or "journal". Text is the
	// line behind its tag: evidence, and hostile.
	Source, Text string

	// ID, NewID and OldID are those of Line. NewID is also set where a server
	// on this host says what it queued a message as: a content filter does, and
	// anybody may say so, which is why the one who follows it looks whether
	// that ID came in.
	ID, NewID, OldID postfix.QueueID

	// Of a Delivery: recipient, status, and how long before the line the
	// message arrived, which tells two messages with one ID apart. Known says
	// whether the line had it.
	Recipient, Original, Status string
	Delay                       time.Duration
	Known                       bool
	// Of an Active.
	Sender     string
	Size       int64
	Recipients int
	// Of an Action.
	Action string
}

// Hole is a time from which lines are missing. Zero times are not known.
type Hole struct {
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	Text string    `json:"text"`
}

// step copies out of a record what an account needs, and reports false for a
// line that tells nothing of a message's way.
func (r *record) step(source string, trust observe.Trust) (Step, bool) {
	switch r.event {
	case Arrival, Named, Active, Delivery, Expired, Finished, Notice, Action, PlacedOnHold, Released, Requeued, Deleted:
	default:
		return Step{}, false
	}
	if len(r.id) == 0 || r.event == Named && bytes.Contains(r.text, []byte(": resent-message-id=")) {
		return Step{}, false // NOQUEUE is no message; a second name is none that begins
	}
	s := Step{At: timeOf(r.at), Event: r.event, Trust: trust, Source: source, Text: string(r.text), Program: string(r.program)}
	s.ID = postfix.QueueID(s.Text[:len(r.id)]) // shares the memory of Text
	switch r.event {
	case Delivery:
		r.delivery(&s)
	case Active:
		s.Sender, s.Size, s.Recipients = string(r.sender), r.size, r.recipients
	case Arrival:
		s.OldID = postfix.QueueID(r.otherID)
	case Notice:
		s.NewID = postfix.QueueID(r.otherID)
	case Action:
		s.Action = string(r.action)
		s.Recipient = string(envelopeRecipient(r.reason))
	}
	return s, true
}

// delivery copies what a delivery line says.
func (r *record) delivery(s *Step) {
	s.Recipient, s.Original, s.Status = string(r.address), string(r.original), statusWord(r.status)
	s.Delay, s.Known = r.delay()
	after, forwarded := cut(r.reason, forwardedAs)
	switch {
	case s.Status != statusSent:
	case forwarded && postfix.ValidQueueID(after):
		s.NewID = postfix.QueueID(after)
	case onThisHost(r.relay):
		if at := bytes.LastIndex(r.reason, []byte("queued as ")); at >= 0 {
			id := r.reason[at+len("queued as "):]
			if n := bytes.IndexAny(id, " )"); n >= 0 {
				id = id[:n]
			}
			if postfix.ValidQueueID(id) {
				s.NewID = postfix.QueueID(id)
			}
		}
	}
}

const statusSent = "sent"

// statusWord saves a copy for each of a million lines.
func statusWord(b []byte) string {
	switch string(b) {
	case "sent":
		return statusSent
	case "deferred":
		return "deferred"
	case "bounced":
		return "bounced"
	}
	return string(b)
}

// onThisHost says whether a relay is "name[127.0.0.1]:10025" or its like:
// Postfix writes the address itself.
func onThisHost(relay []byte) bool {
	return bytes.Contains(relay, []byte("[127.")) || bytes.Contains(relay, []byte("[::1]"))
}

// delay reads "delay=4.6" of a delivery line. It stands between the address and
// the status, which both lie in the text: what they have in front of them tells
// where. An address that was rewritten may itself hold ", delay=", so that the
// last one counts.
func (r *record) delay() (time.Duration, bool) {
	from, to := cap(r.text)-cap(r.address), cap(r.text)-cap(r.status)
	if from < 0 || to < from || to > len(r.text) {
		return 0, false
	}
	fields := r.text[from:to]
	at := bytes.LastIndex(fields, []byte(", delay="))
	if at < 0 {
		return 0, false
	}
	seconds, err := strconv.ParseFloat(string(field(fields[at+len(", delay="):])), 64)
	if err != nil || seconds < 0 || seconds > 1e9 {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// envelopeRecipient finds "; from=<S> to=<R> proto=" in what smtpd and cleanup
// write of an action. A header that imitates it comes before, so the last
// counts.
func envelopeRecipient(reason []byte) []byte {
	at := bytes.LastIndex(reason, []byte("; from=<"))
	if at < 0 {
		return nil
	}
	_, after, ok := bytes.Cut(reason[at:], []byte("> to=<"))
	if !ok {
		return nil
	}
	if n := addressEnd(after); n >= 0 {
		return after[:n]
	}
	return nil
}

// lost reads what says that lines were thrown away: the journal's and
// rsyslog's limits of a rate. Anybody may write such a line; believing it makes
// an account more careful and nothing else.
func lost(line []byte) bool {
	at := bytes.Index(line, []byte("]: "))
	if at < 0 {
		return false
	}
	head, text := line[:at], line[at+3:]
	switch {
	case bytes.Contains(head, []byte("systemd-journald[")), bytes.Contains(head, []byte("journal[")):
		return hasPrefix(text, "Suppressed ")
	case bytes.Contains(head, []byte("rsyslogd[")), bytes.Contains(head, []byte("imuxsock[")):
		return bytes.Contains(text, []byte("lost due to rate-limiting"))
	}
	return false
}
