package forge

import (
	"bytes"
	"fmt"
	"strconv"

	"holdfast/postfix"
)

// The record types that are written here (global/rec_type.h).
const (
	recSize     = 'C'
	recTime     = 'T'
	recFullName = 'F'
	recFrom     = 'S'
	recFilter   = 'L'
	recRcpt     = 'R'
	recDone     = 'D'
	recCancel   = '/'
	recOriginal = 'O'
	recWarn     = 'W'
	recAttr     = 'A'
	recRedirect = '>'
	recMessage  = 'M'
	recLine     = 'N'
	recPart     = 'L' // the same byte as recFilter: the segment tells them apart
	recExtract  = 'X'
	recPointer  = 'p'
	recEnd      = 'E'
)

const (
	// sizeFields are written 15 wide so that cleanup can rewrite them in place.
	sizeFormat = "%15d %15d %15d %15d %15d %15d"
	// pointerWidth is REC_TYPE_PTR_PAYL_SIZE, pointerRecord the whole record.
	pointerWidth  = 15
	pointerRecord = pointerWidth + 2
	// lineLimit is line_length_limit: smtpd cuts longer lines into parts.
	lineLimit = 2048
)

// Files are the bytes of one message's files. Defer and Bounce are nil where
// no recipient has such an entry.
type Files struct {
	Queue, Defer, Bounce []byte
	// Offsets holds the file offset of each recipient's R record, in the order
	// of Message.Recipients.
	Offsets []int64
}

// Encode returns the queue file of m.
func Encode(m *Message) []byte { return Lay(m).Queue }

// Lay returns all files of m with the recipients' offsets.
func Lay(m *Message) Files {
	e := &encoder{m: m, milter: m.usesMilter(), offsets: make([]int64, len(m.Recipients))}
	e.envelope()
	e.body()
	e.extracted()
	e.heap()
	files := Files{Queue: e.buf, Offsets: e.offsets}
	files.Defer, files.Bounce = logs(m, e.offsets)
	return files
}

// AppendRecord appends one record: type, length in base 128 with the low bits
// first, payload (rec_put in global/record.c). It is exported for tests that
// build damaged files out of sound records.
func AppendRecord(dst []byte, kind byte, payload string) []byte {
	dst = append(dst, kind)
	n := len(payload)
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	dst = append(dst, byte(n))
	return append(dst, payload...)
}

type encoder struct {
	m       *Message
	buf     []byte
	milter  bool
	offsets []int64

	data             int // offset behind the M record: field 2 of SIZE
	rcptHook         int // dummy pointers that lead into the heap where needed
	headerHook       int
	rcptBack, hdBack int // where the heap leads back to
}

func (e *encoder) put(kind byte, payload string) { e.buf = AppendRecord(e.buf, kind, payload) }

func (e *encoder) attr(name, value string) {
	if value != "" {
		e.put(recAttr, name+"="+value)
	}
}

// dummy writes a pointer to nowhere if a milter is about, and returns where.
func (e *encoder) dummy() int {
	at := len(e.buf)
	if e.milter {
		e.put(recPointer, fmt.Sprintf("%*d", pointerWidth, 0))
	}
	return at
}

// aim rewrites the dummy pointer at hook to lead to target.
func (e *encoder) aim(hook, target int) {
	copy(e.buf[hook+2:], fmt.Sprintf("%*d", pointerWidth, target))
}

// envelope writes the records in the order in which smtpd and cleanup do.
func (e *encoder) envelope() {
	m := e.m
	spooled := m.queue() != postfix.Maildrop // postdrop(1) writes no SIZE
	if spooled {
		e.put(recSize, fmt.Sprintf(sizeFormat, 0, 0, 0, 0, 0, 0))
	}
	e.put(recTime, fmt.Sprintf("%d %d", m.Arrival.Unix(), m.Arrival.Nanosecond()/1000))
	if spooled {
		e.attr("create_time", strconv.FormatInt(m.created().Unix(), 10))
		if m.Filter != "" {
			e.put(recFilter, m.Filter)
		}
	}
	remote := m.Client.Address != ""
	if remote {
		e.attr("rewrite_context", "remote")
	} else {
		e.attr("rewrite_context", "local")
	}
	if m.SASLUser != "" {
		e.attr("sasl_method", orElse(m.SASLMethod, "PLAIN"))
		e.attr("sasl_username", m.SASLUser)
	}
	if m.TraceFlags != 0 {
		e.attr("trace_flags", strconv.Itoa(m.TraceFlags))
	}
	if m.FullName != "" {
		e.put(recFullName, m.FullName)
	}
	e.sender()
	if remote {
		e.client()
	}
	e.warning()
	e.recipients(InEnvelope)
	e.rcptHook = e.dummy()
	e.rcptBack = len(e.buf)
	e.put(recMessage, "")
	e.data = len(e.buf)
}

// sender writes the S record and, for a milter that may replace it in place,
// fills it up to the size of a pointer record (cleanup/cleanup_addr.c).
func (e *encoder) sender() {
	at := len(e.buf)
	e.put(recFrom, e.m.Sender)
	if short := pointerRecord - (len(e.buf) - at); e.milter && short > 0 {
		e.put(recPointer, fmt.Sprintf("%*d", max(1, short-2), 0))
	}
}

func (e *encoder) client() {
	c := e.m.Client
	name := orElse(c.Name, "unknown")
	e.attr("log_client_name", name)
	e.attr("log_client_address", c.Address)
	e.attr("log_client_port", "40000")
	e.attr("log_message_origin", name+"["+c.Address+"]")
	e.attr("log_helo_name", c.Helo)
	e.attr("log_protocol_name", orElse(c.Protocol, "ESMTP"))
	e.attr("client_name", name)
	e.attr("reverse_client_name", name)
	e.attr("client_address", c.Address)
	e.attr("client_port", "40000")
	e.attr("client_address_type", "2")
	e.attr("server_address", "192.0.2.1")
	e.attr("server_port", "25")
	e.attr("helo_name", c.Helo)
	e.attr("protocol_name", orElse(c.Protocol, "ESMTP"))
}

func (e *encoder) warning() {
	switch {
	case e.m.WarningSent:
		e.put(recWarn, fmt.Sprintf("%15d", -1))
	case !e.m.Warned.IsZero():
		e.put(recWarn, fmt.Sprintf("%15d", e.m.Warned.Unix()))
	}
}

func (e *encoder) recipients(where Place) {
	for i := range e.m.Recipients {
		r := &e.m.Recipients[i]
		if r.Place != where {
			continue
		}
		if e.m.queue() != postfix.Maildrop {
			if r.Notify != 0 {
				e.attr("notify_flags", strconv.Itoa(r.Notify))
			}
			original := orElse(r.Original, r.Address)
			if where != InHeap {
				e.attr("dsn_orig_rcpt", "rfc822;"+original)
			}
			e.put(recOriginal, original)
		}
		e.offsets[i] = int64(len(e.buf))
		e.put(r.kind(), r.Address)
	}
}

func (r *Recipient) kind() byte {
	switch {
	case r.Done:
		return recDone
	case r.Cancelled:
		return recCancel
	}
	return recRcpt
}

// body writes the content segment. A line that is longer than smtpd's limit
// becomes parts that a last N record ends.
func (e *encoder) body() {
	text := e.m.content()
	inHeader := true
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		if inHeader && len(line) == 0 {
			inHeader = false
			e.headerEnd()
		}
		for len(line) > lineLimit {
			e.put(recPart, string(line[:lineLimit]))
			line = line[lineLimit:]
		}
		e.put(recLine, string(line))
	}
	if inHeader {
		e.headerEnd()
	}
	e.dummy()
	if e.m.queue() != postfix.Maildrop {
		utf8 := 0
		if e.m.SMTPUTF8 {
			utf8 = 1
		}
		size := len(e.buf) - e.data
		copy(e.buf[2:], fmt.Sprintf(sizeFormat, size, e.data, len(e.m.Recipients), 0, size, utf8))
	}
	e.put(recExtract, "")
}

func (e *encoder) headerEnd() {
	e.headerHook = e.dummy()
	e.hdBack = len(e.buf)
}

func (e *encoder) extracted() {
	if e.m.Redirect != "" {
		e.put(recRedirect, e.m.Redirect)
	}
	e.attr("message_id", e.m.MessageID)
	if e.m.queue() != postfix.Maildrop && e.m.Client.Address != "" {
		e.attr("encoding", "7bit")
	}
	e.dummy()
	e.recipients(InExtracted)
	e.dummy()
	e.put(recEnd, "")
}

// heap writes what a milter added behind the end record and leads the dummies
// there and back.
func (e *encoder) heap() {
	at := len(e.buf)
	e.recipients(InHeap)
	if len(e.buf) > at {
		e.aim(e.rcptHook, at)
		e.put(recPointer, fmt.Sprintf("%*d", pointerWidth, e.rcptBack))
	}
	if len(e.m.AddedHeaders) == 0 {
		return
	}
	at = len(e.buf)
	for _, line := range e.m.AddedHeaders {
		e.put(recLine, line)
	}
	e.aim(e.headerHook, at)
	e.put(recPointer, fmt.Sprintf("%*d", pointerWidth, e.hdBack))
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
