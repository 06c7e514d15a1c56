package maillog

import (
	"time"

	"holdfast/postfix"
)

// Summary is what a log says in figures, as `logs summary` prints it. Messages
// are counted where the text says so, else recipients: one for each line.
type Summary struct {
	Lines   int64 `json:"lines"`
	Other   int64 `json:"other"`   // of other programs or instances
	Unread  int64 `json:"unread"`  // of this instance, and not to be read
	Suspect int64 `json:"suspect"` // in Postfix's name, but not by it
	// Samples of lines that could not be read or are suspect: hostile text.
	UnreadSamples  []string `json:"unread_samples"`
	SuspectSamples []string `json:"suspect_samples"`

	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`

	Received      int64 `json:"received"` // messages, from the network and from this host
	BytesReceived int64 `json:"bytes_received"`
	// Delivered counts all that was sent on, stored or passed to a program;
	// Forwarded are those of them that went on under another queue ID.
	Delivered int64 `json:"delivered"`
	Forwarded int64 `json:"forwarded"`
	// Deferrals counts recipients that were put off, once for each time it was
	// logged; Suspended are those of them that were put off without an attempt.
	// DeferredMessages are distinct queue IDs, an estimate to about one percent
	// where Estimated says so.
	Deferrals        int64 `json:"deferrals"`
	Suspended        int64 `json:"suspended"`
	DeferredMessages int64 `json:"deferred_messages"`
	Estimated        bool  `json:"deferred_messages_estimated"`
	// Bounced includes Expired, of which the log has one line a message.
	Bounced        int64 `json:"bounced"`
	Expired        int64 `json:"expired"`
	Rejected       int64 `json:"rejected"`
	RejectWarnings int64 `json:"reject_warnings"`
	Held           int64 `json:"held"`
	Discarded      int64 `json:"discarded"`
	Notifications  int64 `json:"notifications"` // bounces and delay warnings that were mailed

	// The most frequent first. Dropped counts lines whose reason, destination
	// or sender was too rare to be kept.
	Reasons      []SummaryReason      `json:"reasons"`
	Destinations []SummaryDestination `json:"destinations"`
	Senders      []SummarySender      `json:"senders"`
	Dropped      int64                `json:"dropped"`
}

// SummaryReason is why attempts failed, put together by wording.
type SummaryReason struct {
	Class postfix.Cause `json:"class"`
	// Text is the wording with what varies taken out.
	Text     string `json:"text"`
	Count    int64  `json:"count"`
	Deferred int64  `json:"deferred"` // of Count; with those that were suspended for it
	Bounced  int64  `json:"bounced"`
}

// SummaryDestination is a recipient domain.
type SummaryDestination struct {
	Domain    string `json:"domain"`
	Delivered int64  `json:"delivered"`
	Deferred  int64  `json:"deferred"` // with those that were suspended
	Bounced   int64  `json:"bounced"`
}

// SummarySender is an envelope sender; "" is the null sender.
type SummarySender struct {
	Sender   string `json:"sender"`
	Messages int64  `json:"messages"`
	Bytes    int64  `json:"bytes"`
}
