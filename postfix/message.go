package postfix

import (
	"strings"
	"time"
)

// Message is one queued message as it was seen: its envelope, the recipients
// that are still to do, and why they wait. All times are UTC.
//
// Addresses are in Postfix's internal form (unquoted, raw bytes, perhaps not
// UTF-8) and every text field is hostile: it is shown only through the
// escaping of package present.
type Message struct {
	Queue Queue   `json:"queue"`
	ID    QueueID `json:"id"`
	// Inode is the inode number of the queue file, 0 where only showq was asked.
	Inode uint64 `json:"inode,omitempty"`
	// Arrival is the T record: first arrival, kept by requeue, microseconds.
	Arrival time.Time `json:"arrival,omitzero"`
	// Created is create_time, the clock of expiry and back-off, whole seconds.
	Created time.Time `json:"created,omitzero"`
	// Changed is the file's ctime: the last time its state changed.
	Changed time.Time `json:"changed,omitzero"`
	// NextTry is the file's mtime in incoming and deferred: the earliest next
	// attempt. The real one waits for the next queue run after it.
	NextTry time.Time `json:"next_try,omitzero"`
	// Expires is when the next failed attempt returns the message.
	Expires time.Time `json:"expires,omitzero"`

	// Size is field 1 of the SIZE record: raw bytes of the content segment,
	// what postqueue calls message_size.
	Size int64 `json:"size"`
	// ContentLength is field 5, which differs where a milter replaced the body.
	ContentLength int64 `json:"content_length,omitempty"`
	// DataOffset is field 2, the file offset of the first content record.
	DataOffset int64 `json:"data_offset,omitempty"`
	// FileSize is the size of the queue file in bytes.
	FileSize int64 `json:"file_size,omitempty"`

	// Sender is the envelope sender, "" for the null sender.
	Sender string `json:"sender"`
	// Recipients are those still to do (R records), in file order.
	Recipients []Recipient `json:"recipients"`
	// TotalRecipients is field 3 of SIZE: how many there were at creation.
	TotalRecipients int `json:"total_recipients,omitempty"`
	// Done counts recipients that were delivered or bounced (D records);
	// Postfix does not note which of the two.
	Done int `json:"done,omitempty"`
	// Bounces are failed recipients whose notification is not yet sent.
	Bounces []Failure `json:"bounces,omitempty"`

	// ForceExpire is set by postsuper -e: the message returns at its next try.
	ForceExpire bool `json:"force_expire,omitempty"`
	// FlushRequested is set by postqueue -i and cleared when qmgr reads it.
	FlushRequested bool `json:"flush_requested,omitempty"`
	// SMTPUTF8 is set where the message needs the extension of RFC 6531.
	SMTPUTF8 bool `json:"smtputf8,omitempty"`

	Client Client `json:"client,omitzero"`
	// SASLUser is the login name of the submitting client, if it logged in.
	SASLUser string `json:"sasl_user,omitempty"`
	// Filter is the content filter "transport:nexthop" of this message.
	Filter string `json:"filter,omitempty"`
	// Redirect replaces all recipients when the message is delivered.
	Redirect string `json:"redirect,omitempty"`
	// MessageID is the Message-ID header where it is known.
	MessageID string `json:"message_id,omitempty"`

	// Damage says why the file is not a complete queue file, "" if it is. What
	// could be read of a damaged file is still here.
	Damage string `json:"damage,omitempty"`
}

// Recipient is one recipient that is still to do.
type Recipient struct {
	// Address is the envelope recipient, Original the one before rewriting
	// where it differs.
	Address  string `json:"address"`
	Original string `json:"original,omitempty"`
	// Offset is the position of the R record in the queue file, in bytes. It
	// joins the recipient with its defer log entry and tells two recipients
	// with equal addresses apart. 0 where only showq was asked.
	Offset int64 `json:"offset,omitempty"`
	// NextHop is where Postfix hands this recipient to, as far as the message
	// and the configuration tell: the destination that pacing counts by.
	NextHop string `json:"next_hop,omitempty"`
	// Reason is the text of the last attempt, "" where there was none yet or
	// the attempt is running.
	Reason string `json:"reason,omitempty"`
	// Status is the enhanced status code of the last attempt (RFC 3463).
	Status string `json:"status,omitempty"`
	// Host is the name of the remote server that answered.
	Host string `json:"host,omitempty"`
	// Cause is the class of Reason.
	Cause Cause `json:"cause,omitempty"`
}

// Domain returns the recipient's domain in lower case, "" where the address
// has none.
func (r Recipient) Domain() string { return DomainOf(r.Address) }

// DomainOf returns what follows the last "@" in lower case, "" without one.
func DomainOf(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return ""
	}
	return strings.ToLower(address[at+1:])
}

// DestinationOf returns the domain that a recipient of m goes to: that of the
// redirect target where the message has one.
func (m *Message) DestinationOf(r *Recipient) string {
	if m.Redirect != "" {
		return DomainOf(m.Redirect)
	}
	return r.Domain()
}

// Failure is one entry of a bounce log: a recipient that failed for good and
// whose non-delivery notification is still to be sent.
type Failure struct {
	Address string `json:"address"`
	Offset  int64  `json:"offset,omitempty"`
	Status  string `json:"status,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Client is where the message came from, as Postfix logs it (log_client_*
// attributes: an XFORWARD-ing filter's word is taken for the original client).
type Client struct {
	Name     string `json:"name,omitempty"`
	Address  string `json:"address,omitempty"`
	Helo     string `json:"helo,omitempty"`
	Protocol string `json:"protocol,omitempty"`
}

// Clone returns a copy that shares no slice with m, for a caller that wants to
// keep a message beyond the iteration that lent it.
func (m *Message) Clone() *Message {
	c := *m
	c.Recipients = append([]Recipient(nil), m.Recipients...)
	c.Bounces = append([]Failure(nil), m.Bounces...)
	return &c
}
