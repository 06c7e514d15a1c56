package showq

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"holdfast/postfix"
)

// The names in the stream (global/mail_proto.h). original_recipient and
// log_class came with 3.11, forced_expire with 3.5, the greeting with 3.6.
const (
	attrProtocol   = "protocol"
	attrQueueName  = "queue_name"
	attrQueueID    = "queue_id"
	attrTime       = "time"
	attrSize       = "size"
	attrExpire     = "forced_expire"
	attrSender     = "sender"
	attrOriginal   = "original_recipient"
	attrRecipient  = "recipient"
	attrLogClass   = "log_class"
	attrReason     = "reason"
	protocolName   = "mail_queue_list_protocol"
	classBounce    = "bounce"
	nullAddress    = "MAILER-DAEMON" // how showq prints an empty address
	bufferSize     = 64 << 10
	maxNameBytes   = 256
	maxNumberBytes = 20
	latestTime     = 1 << 40 // seconds; far beyond anything that a clock gives
)

// ErrTruncated is a stream that ended before its final NUL: showq died, timed
// out or was stopped. What was decoded until then is real, what is missing is
// unknown.
var ErrTruncated = errors.New("the listing ends before its end mark")

// SyntaxError is a stream that no showq writes.
type SyntaxError struct {
	Offset int64 // bytes from the start of the stream
	Text   string
}

// Error implements error.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("byte %d of the listing: %s", e.Offset, e.Text)
}

// Limits bounds what a stream can make the decoder and its caller hold. A zero
// field means the default.
type Limits struct {
	// Text is the number of bytes that are kept of one value, 16 KiB: no
	// record of a queue file holds a longer address. At least 256 are kept, so
	// that a queue ID is either whole or refused.
	Text int
	// Recipients is the number of recipients that are kept of one message,
	// 100,000; more are counted in Listing.Left.
	Recipients int
	// Messages is the number of messages after which the reading stops as if
	// the stream ended there, four million.
	Messages int
}

func (l Limits) orDefault() Limits {
	if l.Text <= 0 {
		l.Text = 16 << 10
	}
	l.Text = max(l.Text, maxNameBytes)
	if l.Recipients <= 0 {
		l.Recipients = 100_000
	}
	if l.Messages <= 0 {
		l.Messages = 4 << 20
	}
	return l
}

// Listing is what Decode met.
type Listing struct {
	// Greeted is set where the stream began with the greeting of 3.6 and later.
	Greeted bool
	// Messages is how many were passed on.
	Messages int
	// Left counts recipients beyond Limits.Recipients, Cut values beyond
	// Limits.Text.
	Left, Cut int
}

// Decode reads one listing and passes each message to visit, which must not
// keep it: the next one overwrites it. An error of visit ends the reading.
//
// The error is nil only if the listing was read to its end mark and nothing
// stood behind it. It wraps ErrTruncated where the stream ended too early, or
// could not be read further, and is a *SyntaxError where the stream makes no
// sense. The Listing is valid in each case.
func Decode(r io.Reader, limits Limits, visit func(*postfix.Message) error) (Listing, error) {
	d := decoder{in: bufio.NewReaderSize(r, bufferSize), limits: limits.orDefault()}
	err := d.greeting()
	for err == nil {
		var more bool
		if more, err = d.item(); !more {
			break
		}
		if d.list.Messages == d.limits.Messages {
			err = fmt.Errorf("stopped after %d messages: %w", d.list.Messages, ErrTruncated)
			break
		}
		d.list.Messages++
		err = visit(&d.m)
	}
	return d.list, err
}

type decoder struct {
	in     *bufio.Reader
	at     int64 // offset of the next byte
	limits Limits
	list   Listing

	name, value []byte // the last attribute; reused
	m           postfix.Message
	rcpt        pending
	seen        seen
}

// pending is the recipient whose attributes are being read.
type pending struct {
	open, addressed    bool
	address, original  string
	reason             string
	bounced            bool
	classed, explained bool
}

// seen notes which attributes of a message were met.
type seen uint8

const (
	seenQueue seen = 1 << iota
	seenID
	seenTime
	seenSize
	seenSender
	seenExpire
	seenNeeded = seenQueue | seenID | seenTime | seenSize | seenSender
)

func (d *decoder) malformed(at int64, format string, args ...any) error {
	return &SyntaxError{Offset: at, Text: fmt.Sprintf(format, args...)}
}

// text reads up to the next NUL and returns at most limit bytes of it. The
// rest is read and dropped, so a long value costs time and no memory.
func (d *decoder) text(dst []byte, limit int) (text []byte, whole bool, err error) {
	text, whole = dst[:0], true
	for {
		part, err := d.in.ReadSlice(0)
		d.at += int64(len(part))
		ended := err == nil
		if ended {
			part = part[:len(part)-1]
		}
		if room := limit - len(text); len(part) > room {
			part, whole = part[:room], false
		}
		text = append(text, part...)
		switch {
		case ended:
			return text, whole, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return text, false, fmt.Errorf("byte %d: %w", d.at, ErrTruncated)
		default:
			return text, false, fmt.Errorf("byte %d: %w (%w)", d.at, ErrTruncated, err)
		}
	}
}

// attribute reads a name and its value. An empty name is the end of the list
// that is being read: it returns false.
func (d *decoder) attribute() (bool, error) {
	at := d.at
	var whole bool
	var err error
	if d.name, whole, err = d.text(d.name, maxNameBytes); err != nil {
		return false, err
	}
	if len(d.name) == 0 {
		return false, nil
	}
	if !whole || !isName(d.name) {
		return false, d.malformed(at, "no attribute name: %q", clip(d.name))
	}
	if d.value, whole, err = d.text(d.value, d.limits.Text); err != nil {
		return false, err
	}
	if !whole {
		d.list.Cut++
	}
	return true, nil
}

// isName accepts what every attribute name of Postfix is made of. It is what
// tells a stream that slipped by one value from a newer Postfix.
func isName(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// greeting reads the list that 3.6 and later send first. Before 3.6 the stream
// starts with a message or with the end mark.
func (d *decoder) greeting() error {
	head, err := d.in.Peek(len(attrProtocol) + 1)
	if err != nil && len(head) == 0 {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("byte 0: %w", ErrTruncated)
		}
		return fmt.Errorf("byte 0: %w (%w)", ErrTruncated, err)
	}
	if !bytes.Equal(head, []byte(attrProtocol+"\x00")) {
		return nil // an error of Peek stays in the reader and comes again
	}
	for first := true; ; first = false {
		at := d.at
		more, err := d.attribute()
		if err != nil {
			return err
		}
		if !more {
			d.list.Greeted = true
			return nil
		}
		if first && string(d.value) != protocolName {
			return d.malformed(at, "the server speaks %q, which is no listing of the queue", clip(d.value))
		}
	}
}

// item reads one message into d.m, or the end mark: it returns false then.
func (d *decoder) item() (bool, error) {
	start := d.at
	d.m = postfix.Message{Recipients: d.m.Recipients[:0], Bounces: d.m.Bounces[:0]}
	d.rcpt, d.seen = pending{}, 0
	for first := true; ; first = false {
		at := d.at
		more, err := d.attribute()
		if err != nil {
			return false, err
		}
		if !more {
			if first {
				return false, d.end()
			}
			break
		}
		if err := d.take(at); err != nil {
			return false, err
		}
	}
	if d.seen&seenNeeded != seenNeeded {
		return false, d.malformed(start, "a message without %s", d.missing())
	}
	if err := d.closeRecipient(d.at); err != nil {
		return false, err
	}
	return true, nil
}

// end makes sure that nothing follows the end mark. A NUL too many in the
// middle of a listing would otherwise pass for its end, and a large queue for
// a small one.
func (d *decoder) end() error {
	_, err := d.in.ReadByte()
	switch {
	case err == nil:
		return d.malformed(d.at, "more data behind the end mark")
	case errors.Is(err, io.EOF):
		return nil
	}
	return fmt.Errorf("byte %d: %w (%w)", d.at, ErrTruncated, err)
}

func (d *decoder) missing() string {
	for i, name := range []string{attrQueueName, attrQueueID, attrTime, attrSize, attrSender} {
		if d.seen&(1<<i) == 0 {
			return name
		}
	}
	return "nothing"
}

// take uses the attribute that was just read. Unknown ones are skipped: each
// release may add some.
func (d *decoder) take(at int64) error {
	switch string(d.name) {
	case attrQueueName:
		return d.once(seenQueue, at, d.takeQueue)
	case attrQueueID:
		return d.once(seenID, at, d.takeID)
	case attrTime:
		return d.once(seenTime, at, func(at int64) error {
			sec, err := d.number(at, latestTime)
			d.m.Arrival = time.Unix(sec, 0).UTC()
			return err
		})
	case attrSize:
		return d.once(seenSize, at, func(at int64) (err error) {
			d.m.Size, err = d.number(at, 1<<62)
			return err
		})
	case attrExpire:
		return d.once(seenExpire, at, func(at int64) error {
			flag, err := d.number(at, 1)
			d.m.ForceExpire = flag == 1
			return err
		})
	case attrSender:
		return d.once(seenSender, at, func(int64) error {
			d.m.Sender = internalForm(d.value)
			return nil
		})
	case attrOriginal, attrRecipient, attrLogClass, attrReason:
		return d.takeRecipient(at)
	}
	return nil
}

// once holds a message to one value of each kind: two mean that the mark
// between two messages was lost.
func (d *decoder) once(bit seen, at int64, take func(int64) error) error {
	if d.seen&bit != 0 {
		return d.malformed(at, "a second %s in one message", d.name)
	}
	d.seen |= bit
	return take(at)
}

func (d *decoder) takeQueue(at int64) error {
	q, err := postfix.ParseQueue(string(clip(d.value)))
	if err != nil {
		return d.malformed(at, "%v", err)
	}
	d.m.Queue = q
	return nil
}

func (d *decoder) takeID(at int64) error {
	if !postfix.ValidQueueID(d.value) {
		return d.malformed(at, "%q is no queue ID", clip(d.value))
	}
	d.m.ID = postfix.QueueID(d.value)
	return nil
}

func (d *decoder) number(at, most int64) (int64, error) {
	if len(d.value) <= maxNumberBytes {
		if v, err := strconv.ParseInt(string(d.value), 10, 64); err == nil && v >= 0 && v <= most {
			return v, nil
		}
	}
	return 0, d.malformed(at, "%s has the value %q", d.name, clip(d.value))
}

// takeRecipient collects the attributes of one recipient. A recipient begins
// with original_recipient or, before 3.11, with recipient; the order of the
// others does not matter.
func (d *decoder) takeRecipient(at int64) error {
	p := &d.rcpt
	switch string(d.name) {
	case attrOriginal:
		if err := d.closeRecipient(at); err != nil {
			return err
		}
		p.open, p.original = true, internalForm(d.value)
		return nil
	case attrRecipient:
		if p.addressed {
			if err := d.closeRecipient(at); err != nil {
				return err
			}
		}
		p.open, p.addressed, p.address = true, true, internalForm(d.value)
		return nil
	}
	if !p.open {
		return d.malformed(at, "%s of no recipient", d.name)
	}
	known := &p.explained
	if string(d.name) == attrLogClass {
		known = &p.classed
		p.bounced = string(d.value) == classBounce
	} else {
		p.reason = string(d.value)
	}
	if *known {
		return d.malformed(at, "a second %s of one recipient", d.name)
	}
	*known = true
	return nil
}

// closeRecipient moves the pending recipient into the message.
func (d *decoder) closeRecipient(at int64) error {
	p := d.rcpt
	d.rcpt = pending{}
	switch {
	case !p.open:
		return nil
	case !p.addressed || !p.explained:
		return d.malformed(at, "a recipient without address or reason ends here")
	case len(d.m.Recipients)+len(d.m.Bounces) >= d.limits.Recipients:
		d.list.Left++
	case p.bounced:
		d.m.Bounces = append(d.m.Bounces, postfix.Failure{Address: p.address, Reason: p.reason})
	default:
		if p.original == p.address {
			p.original = ""
		}
		d.m.Recipients = append(d.m.Recipients, postfix.Recipient{Address: p.address, Original: p.original, Reason: p.reason})
	}
	return nil
}

// internalForm turns the quoted form in which showq prints an address into
// the form of the envelope. What showq replaced by "?" stays so.
func internalForm(b []byte) string {
	if string(b) == nullAddress {
		return ""
	}
	if len(b) == 0 || b[0] != '"' {
		return string(b)
	}
	local := make([]byte, 0, len(b))
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == '\\' && i+1 < len(b):
			i++
			local = append(local, b[i])
		case b[i] == '"':
			if rest := b[i+1:]; len(rest) == 0 || rest[0] == '@' {
				return string(append(local, rest...))
			}
			return string(b)
		default:
			local = append(local, b[i])
		}
	}
	return string(b) // the quote is never closed: cut, or not an address
}

func clip(b []byte) []byte { return b[:min(len(b), 40)] }
