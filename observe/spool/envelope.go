package spool

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"time"
	"unsafe"

	"holdfast/postfix"
)

const (
	// maxRecipients bounds what is kept of one message. qmgr itself works
	// through larger ones in parts (qmgr_message_recipient_limit).
	maxRecipients = 200_000
	// Trace flags of messages that are probes and not mail
	// (global/deliver_request.h: DEL_REQ_FLAG_MTA_VRFY, _USR_VRFY).
	probeFlags = 256 | 512
	// qmgr options that field 4 of SIZE may carry (global/qmgr_user.h).
	qmgrOptions = 0x1f
	// maxFile is more than any file system stores, and two of them do not
	// overflow when they are added.
	maxFile = 1 << 60
	// SMTPUTF8 bits of field 6 (global/smtputf8.h).
	smtputf8Bits = 1 | 2 | 4 | 8
)

// decoder turns queue files and their logs into messages. It is used by one
// goroutine and lends what it returns: the message, its slices and its strings
// are overwritten by the next decode.
type decoder struct {
	win  window
	log  []byte // a whole defer or bounce log
	text []byte // the strings of the current message
	msg  postfix.Message
	// all also keeps the recipients that are done, for a look at one message.
	all      bool
	finished []postfix.Recipient

	byOffset map[int64]int
	sizeSeen bool
	fromSeen bool
	timeSeen bool
	probe    bool
	options  int64
	original string
	overflow int // recipients beyond maxRecipients
}

// str keeps a payload for as long as the message is lent. Appending to a full
// buffer moves it; the strings made before keep the old one alive.
func (d *decoder) str(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	at := len(d.text)
	d.text = append(d.text, b...)
	return unsafe.String(&d.text[at], len(b)) //nolint:gosec // lent until the next decode
}

// lend views bytes as a string for the length of one call.
func lend(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b)) //nolint:gosec // lent for one call
}

// decode reads the queue file behind fd into d.msg. What the bytes forbid ends
// up in msg.Damage with everything that stood before it; only an error of the
// system is returned.
func (d *decoder) decode(fd int, size int64, queue postfix.Queue) error {
	rcpts, fails := d.msg.Recipients[:0], d.msg.Bounces[:0]
	d.msg = postfix.Message{Queue: queue, FileSize: size, Recipients: rcpts, Bounces: fails}
	d.text, d.finished = d.text[:0], d.finished[:0]
	d.sizeSeen, d.fromSeen, d.timeSeen, d.probe, d.options, d.original, d.overflow = false, false, false, false, 0, "", 0
	err := d.win.open(fd, size)
	if err == nil {
		err = d.segments()
	}
	if errors.Is(err, errDamaged) {
		d.msg.Damage = strings.TrimPrefix(err.Error(), errDamaged.Error()+": ")
		err = nil
		if d.msg.DataOffset+d.msg.Size > size {
			// A file that was cut short keeps its sender and recipients, but
			// what it weighs is what is left of it.
			d.msg.Size, d.msg.ContentLength = 0, 0
		}
	}
	if d.msg.Created.IsZero() {
		d.msg.Created = d.msg.Arrival.Truncate(time.Second)
	}
	return err
}

func (d *decoder) segments() error {
	next, err := d.walk(0, envelopeTypes, recMessage)
	if err != nil {
		return err
	}
	next, err = d.skipContent(next)
	if err != nil {
		return err
	}
	if _, err = d.walk(next, extractedTypes, recEnd); err != nil {
		return err
	}
	return d.complete()
}

// complete applies the tests that qmgr applies before it takes a message
// (qmgr_message_read): a file that fails them goes to the corrupt queue.
func (d *decoder) complete() error {
	switch {
	case !d.timeSeen:
		return damaged("no arrival time record")
	case !d.fromSeen:
		return damaged("no sender record")
	case d.msg.Queue != postfix.Maildrop && !d.sizeSeen:
		return damaged("no size record")
	case d.options&^qmgrOptions != 0:
		return damaged("unknown options %d in the size record", d.options)
	}
	return nil
}

// walk reads one segment up to its terminator and returns the offset behind it.
func (d *decoder) walk(off int64, allowed *typeSet, terminator byte) (int64, error) {
	for {
		r, err := d.win.read(off)
		if err != nil {
			return 0, err
		}
		if r.kind == terminator {
			return r.next, nil
		}
		if r.kind == recPointer {
			if off, err = d.win.follow(r); err != nil {
				return 0, err
			}
			continue
		}
		if !allowed[r.kind] {
			return 0, damaged("record type %q at offset %d does not belong there", r.kind, r.at)
		}
		if err := d.take(r); err != nil {
			return 0, err
		}
		off = r.next
	}
}

// skipContent returns the offset behind the X record. With a SIZE record the
// content is jumped over, as every Postfix program does; a maildrop file has
// no size that can be relied on and is walked through.
func (d *decoder) skipContent(data int64) (int64, error) {
	if d.sizeSeen && d.msg.Queue != postfix.Maildrop {
		r, err := d.win.read(d.msg.DataOffset + d.msg.Size)
		if err != nil {
			return 0, err
		}
		if r.kind != recExtra {
			return 0, damaged("the size record leads to record type %q at offset %d, not to the end of the content", r.kind, r.at)
		}
		return r.next, nil
	}
	for off := data; ; {
		r, err := d.win.read(off)
		if err != nil {
			return 0, err
		}
		switch r.kind {
		case recExtra:
			return r.next, nil
		case recPointer:
			if off, err = d.win.follow(r); err != nil {
				return 0, err
			}
		case recLine, recPart, recPadding:
			off = r.next
		default:
			return 0, damaged("record type %q at offset %d in the content", r.kind, r.at)
		}
	}
}

func (d *decoder) take(r record) error {
	switch r.kind {
	case recSize:
		return d.takeSize(r)
	case recTime:
		d.takeTime(r.payload)
	case recFrom:
		if d.fromSeen {
			return damaged("second sender record at offset %d", r.at)
		}
		d.fromSeen = true
		d.msg.Sender = d.str(r.payload)
	case recOrig:
		d.original = d.str(r.payload)
	case recRcpt, recDone, recDropped:
		d.takeRecipient(r)
	case recFilter:
		d.msg.Filter = d.str(r.payload)
	case recRedirect:
		d.msg.Redirect = d.str(r.payload)
	case recAttr:
		return d.takeAttribute(r)
	}
	return nil
}

// takeSize reads the fixed-width fields of the SIZE record (cleanup_final.c).
// Files from before Postfix 1.0 have one field; nothing has queued such a file
// for twenty years and it is treated as damage.
func (d *decoder) takeSize(r record) error {
	if d.sizeSeen || d.msg.Queue == postfix.Maildrop {
		// 3.11 writes a preliminary one into maildrop, and postsuper -r leaves
		// the old one there; Postfix ignores both.
		return nil
	}
	var field [6]int64
	n := 0
	for rest := r.payload; n < len(field); n++ {
		rest = bytes.TrimLeft(rest, " ")
		if len(rest) == 0 {
			break
		}
		end := bytes.IndexByte(rest, ' ')
		if end < 0 {
			end = len(rest)
		}
		v, ok := parseNumber(rest[:end])
		if !ok {
			return damaged("unreadable size record")
		}
		field[n], rest = v, rest[end:]
	}
	size, data, total, options, content, flags := field[0], field[1], field[2], field[3], field[4], field[5]
	// Numbers that lead behind the end of the file are left for skipContent to
	// stumble over: the envelope of a file that was cut short is still there.
	if n < 3 || size <= 0 || data <= 0 || total < 0 || content < 0 || total > math.MaxInt32 || size > maxFile || data > maxFile {
		return damaged("impossible numbers in the size record")
	}
	d.sizeSeen = true
	d.msg.Size, d.msg.DataOffset, d.msg.TotalRecipients, d.msg.ContentLength = size, data, int(total), content
	d.msg.SMTPUTF8 = flags&smtputf8Bits != 0
	d.options = options
	return nil
}

// takeTime reads "seconds microseconds"; old files have only seconds. The
// first record counts: it survives requeue.
func (d *decoder) takeTime(payload []byte) {
	if d.timeSeen {
		return
	}
	secText, usecText, _ := bytes.Cut(payload, []byte{' '})
	sec, ok := parseNumber(secText)
	if !ok || sec < 0 || sec > math.MaxInt32*4 {
		return
	}
	usec, ok := parseNumber(usecText)
	if !ok || usec < 0 || usec > 999_999 {
		usec = 0
	}
	d.timeSeen = true
	d.msg.Arrival = time.Unix(sec, usec*1000).UTC()
}

// takeRecipient applies the state rule: R is to do, D was delivered or
// bounced, "/" was withdrawn by a milter. Modifiers belong to the next of the
// three, whichever it is.
func (d *decoder) takeRecipient(r record) {
	original := d.original
	d.original = ""
	if r.kind == recDone {
		d.msg.Done++
	}
	if r.kind != recRcpt && !(d.all && r.kind == recDone) {
		return
	}
	if len(d.msg.Recipients) >= maxRecipients {
		d.overflow++
		return
	}
	out := postfix.Recipient{Address: d.str(r.payload), Offset: r.at}
	if original != out.Address {
		out.Original = original
	}
	if r.kind == recRcpt {
		d.msg.Recipients = append(d.msg.Recipients, out)
	} else {
		d.finished = append(d.finished, out)
	}
}

func (d *decoder) takeAttribute(r record) error {
	eq := bytes.IndexByte(r.payload, '=')
	name := []byte(nil)
	if eq > 0 {
		name = bytes.TrimSpace(r.payload[:eq])
	}
	if len(name) == 0 {
		return damaged("malformed attribute at offset %d", r.at)
	}
	value := bytes.TrimSpace(r.payload[eq+1:])
	switch lend(name) {
	case "create_time":
		if sec, ok := parseNumber(value); ok && sec > 0 && sec < math.MaxInt32*4 {
			d.msg.Created = time.Unix(sec, 0).UTC()
		}
	case "log_client_name":
		d.msg.Client.Name = d.str(value)
	case "log_client_address":
		d.msg.Client.Address = d.str(value)
	case "log_helo_name":
		d.msg.Client.Helo = d.str(value)
	case "log_protocol_name":
		d.msg.Client.Protocol = d.str(value)
	case "sasl_username":
		d.msg.SASLUser = d.str(value)
	case "message_id":
		d.msg.MessageID = d.str(value)
	case "trace_flags":
		if flags, ok := parseNumber(value); ok && flags&probeFlags != 0 {
			d.probe = true
		}
	}
	return nil
}
