package forge

import (
	"fmt"
	"strings"
	"time"

	"holdfast/postfix"
)

// Message describes one queue file. The zero value of a field leaves out the
// record that would carry it.
type Message struct {
	// Queue is where Write puts it; NoQueue means deferred.
	Queue postfix.Queue
	// ID is normally empty and made from time and inode. A test of names that
	// break the inode rule sets it.
	ID postfix.QueueID

	Sender     string
	FullName   string
	Recipients []Recipient
	// Arrival is the T record, Created is create_time (Arrival where zero),
	// NextTry the mtime (Arrival where zero). Warned is the time of the delay
	// warning, WarningSent says that it went out.
	Arrival, Created, NextTry, Warned time.Time
	WarningSent                       bool

	// Content is the message as it came in, lines ended by "\n". Where it is
	// nil, a plausible text of about Size bytes is made up.
	Content []byte
	Size    int

	Client     postfix.Client
	SASLUser   string
	SASLMethod string
	// Filter is "transport:nexthop", Redirect the one address that replaces
	// all recipients.
	Filter, Redirect string
	// MessageID is written as the attribute that Postfix has since 3.10.
	MessageID string
	// TraceFlags marks what is no mail: ProbeMTA, ProbeUser.
	TraceFlags int
	SMTPUTF8   bool

	// Milter writes the dummy pointers that cleanup leaves where a milter is
	// configured. It is implied by AddedHeaders and by recipients in the heap.
	Milter bool
	// AddedHeaders are header lines that a milter appended: they lie in the
	// heap behind the end record.
	AddedHeaders []string

	// ForceExpire and FlushRequested are the mode bits of postsuper -e and of
	// postqueue -i; Unfinished leaves the file as it is while being written.
	ForceExpire, FlushRequested, Unfinished bool
}

// Values of TraceFlags (global/deliver_request.h).
const (
	ProbeMTA  = 256
	ProbeUser = 512
)

// Place says in which part of the queue file a recipient's records lie.
type Place uint8

// The places of a recipient.
const (
	// InEnvelope is where cleanup writes what the client gave.
	InEnvelope Place = iota
	// InExtracted is where recipients from headers go (sendmail -t).
	InExtracted
	// InHeap is where cleanup puts what a milter added: behind the end record
	// and reachable only through a pointer.
	InHeap
)

// Recipient is one recipient with its state.
type Recipient struct {
	Address string
	// Original is the O record; Address where it is empty.
	Original string
	// Notify is the DSN mask of notify_flags, 0 for none.
	Notify int
	// Done is delivered or bounced (a D record), Cancelled is removed by a
	// milter (a "/" record); otherwise the recipient is still to do.
	Done, Cancelled bool
	Place           Place
	// Deferred adds an entry to the defer log, Bounced to the bounce log.
	Deferred, Bounced *Reason
}

// Reason is one entry of a defer or bounce log.
type Reason struct {
	Status string // enhanced status code, "4.0.0" (or "5.0.0") where empty
	Text   string // what Postfix logs as the reason
	Host   string // the remote server that answered, "" for a local reason
	// Reply is the server's own reply, Text where empty.
	Reply string
	// NewFormOnly leaves out the "<address>: text" line that Postfix writes
	// while backwards_bounce_logfile_compatibility is on.
	NewFormOnly bool
}

// content returns the message text, made up where none is given.
func (m *Message) content() []byte {
	if m.Content != nil {
		return m.Content
	}
	to := "undisclosed-recipients:;"
	if len(m.Recipients) > 0 {
		to = m.Recipients[0].Address
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from client.example (client.example [192.0.2.25])\n\tby relay.example (Postfix) with ESMTP\n\tfor <%s>; %s\n", to, m.Arrival.Format(time.RFC1123Z))
	fmt.Fprintf(&b, "From: Accounts <%s>\nTo: <%s>\nSubject: Statement of %s\n", m.Sender, to, m.Arrival.Format(time.DateOnly))
	fmt.Fprintf(&b, "Date: %s\nMessage-ID: <%d.%s@relay.example>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n", m.Arrival.Format(time.RFC1123Z), m.Arrival.UnixMicro(), strings.ReplaceAll(m.Sender, "@", "."))
	const line = "The balance of the account is unchanged since the last statement; no reply.\n"
	for b.Len()+len(line) < m.Size {
		b.WriteString(line)
	}
	b.WriteString("End.\n")
	return []byte(b.String())
}

// usesMilter reports whether dummy pointers are written.
func (m *Message) usesMilter() bool {
	if m.Milter || len(m.AddedHeaders) > 0 {
		return true
	}
	for i := range m.Recipients {
		if m.Recipients[i].Place == InHeap {
			return true
		}
	}
	return false
}

func (m *Message) created() time.Time {
	if m.Created.IsZero() {
		return m.Arrival
	}
	return m.Created
}

func (m *Message) queue() postfix.Queue {
	if m.Queue == postfix.NoQueue {
		return postfix.Deferred
	}
	return m.Queue
}
