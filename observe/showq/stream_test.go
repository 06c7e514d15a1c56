package showq

import (
	"strconv"
	"time"

	"holdfast/lab/forge"
	"holdfast/postfix"
)

// release is what the showq of a Postfix release puts into its stream. The
// streams made here are constructed from the source of these releases; the one
// in testdata was recorded from a real showq 3.7.11.
type release struct {
	name                     string
	greets, expires, classes bool
}

func releases() []release {
	return []release{
		{"3.4", false, false, false},
		{"3.5", false, true, false},
		{"3.7", true, true, false},
		{"3.11", true, true, true},
	}
}

type stream []byte

func (s *stream) attr(name, value string) {
	*s = append(append(append(append(*s, name...), 0), value...), 0)
}

func (s *stream) end() { *s = append(*s, 0) }

// construct writes the listing that a showq of the release would send.
func construct(r release, messages []*postfix.Message) []byte {
	var s stream
	if r.greets {
		s.attr("protocol", "mail_queue_list_protocol")
		s.end()
	}
	for _, m := range messages {
		s.attr("queue_name", m.Queue.String())
		s.attr("queue_id", string(m.ID))
		s.attr("time", strconv.FormatInt(m.Arrival.Unix(), 10))
		s.attr("size", strconv.FormatInt(m.Size, 10))
		if r.expires {
			s.attr("forced_expire", map[bool]string{false: "0", true: "1"}[m.ForceExpire])
		}
		s.attr("sender", printed(m.Sender))
		for _, rcpt := range m.Recipients {
			s.recipient(r, rcpt.Original, rcpt.Address, rcpt.Reason, map[bool]string{true: "defer"}[rcpt.Reason != ""])
		}
		for _, f := range m.Bounces {
			s.recipient(r, "", f.Address, f.Reason, "bounce")
		}
		s.end()
	}
	s.end()
	return s
}

func (s *stream) recipient(r release, original, address, reason, class string) {
	if r.classes {
		s.attr("original_recipient", forge.Quote(original))
	}
	s.attr("recipient", printed(address))
	if r.classes {
		s.attr("log_class", class)
	}
	s.attr("reason", reason)
}

func printed(address string) string {
	if address == "" {
		return "MAILER-DAEMON"
	}
	return forge.Quote(address)
}

// sample is a small queue with something of everything.
func sample() []*postfix.Message {
	at := time.Unix(1767225600, 0).UTC()
	return []*postfix.Message{
		{Queue: postfix.Maildrop, ID: "9FBF1140142", Arrival: at, Size: 310, Sender: "root", Recipients: []postfix.Recipient{{Address: "ops@x.example"}}},
		{Queue: postfix.Active, ID: "4dhRlh4dz5z9s2h", Arrival: at, Size: 1, Sender: "", Recipients: []postfix.Recipient{{Address: ""}}},
		{Queue: postfix.Deferred, ID: "9FBF1140143", Arrival: at.Add(time.Hour), Size: 20480, ForceExpire: true, Sender: `two "words"@x.example`, Recipients: []postfix.Recipient{
			{Address: "b@y.example", Original: "alias@x.example", Reason: "host mx.y.example[192.0.2.1] said: 450 4.2.0 greylisted (in reply to RCPT TO command)"},
			{Address: `a\b@y.example`, Reason: "connect to mx.y.example[192.0.2.1]:25: Connection refused"},
			{Address: "jörg@y.example"},
		}},
		{Queue: postfix.Hold, ID: "9FBF1140144", Arrival: at, Size: 900, Sender: "a@x.example", Recipients: []postfix.Recipient{}, Bounces: []postfix.Failure{{Address: "gone@y.example", Reason: "user unknown"}}},
	}
}
