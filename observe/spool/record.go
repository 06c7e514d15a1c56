package spool

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Record types of a queue file (global/rec_type.h). Only those that a reader
// acts upon have a name here.
const (
	recSize     = 'C'
	recTime     = 'T'
	recFilter   = 'L' // in the envelope; in the content the same byte is a line without end
	recFrom     = 'S'
	recRcpt     = 'R'
	recDone     = 'D'
	recDropped  = '/'
	recOrig     = 'O'
	recAttr     = 'A'
	recRedirect = '>'
	recMessage  = 'M'
	recExtra    = 'X'
	recEnd      = 'E'
	recPointer  = 'p'
	recPadding  = 'w'
	recLine     = 'N'
	recPart     = 'L'
)

// Which types may stand in which segment. qmgr moves a file with any other to
// the corrupt queue (rec_type.h, qmgr_message.c).
var (
	envelopeTypes  = typesOf("MCTcFILSDRO/WVA>K<ionpw")
	extractedTypes = typesOf("EDRO/PreAFIL>Konpw")
)

// typeSet has the record types of a segment.
type typeSet [256]bool

func typesOf(letters string) *typeSet {
	var set typeSet
	for _, c := range []byte(letters) {
		set[c] = true
	}
	return &set
}

const (
	// windowSize is the first read of a file: the whole of most messages' envelope.
	windowSize = 4096
	// wholeSize is up to where a file is read whole at once: copying a page more
	// costs less than the second call for what stands behind the content.
	wholeSize = 8192
	// refillSize is each later read, when an envelope is longer than that.
	refillSize = 64 << 10
	// maxPayload bounds what is looked at of one record. Postfix writes records
	// of line_length_limit (2048) bytes; a longer one is cut here, not trusted.
	maxPayload = 64 << 10
	// maxLength is the longest record that Postfix since 3.8.20 reads: four
	// length bytes. Older releases read five; nothing writes that.
	maxLength = 1 << 28
	// maxBackwards is the limit of rec_goto in global/record.c.
	maxBackwards = 10000
)

// errDamaged is the class of every error that the bytes of a file cause, as
// against an error of reading them.
var errDamaged = errors.New("damaged queue file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// window is a view of a queue file that never holds more of it than one
// refill. It reads by position, so that pointer records cost nothing, and by
// descriptor, so that the runtime's poller is not asked about 100,000 files.
type window struct {
	fd    int
	size  int64
	start int64 // file offset of buf[0]
	buf   []byte
	back  []byte // backing store, refillSize long

	visited int64 // payload and header bytes walked over so far
	jumps   int   // pointers followed backwards
}

// open points the window at a file and reads its beginning.
func (w *window) open(fd int, size int64) error {
	w.fd, w.size, w.start, w.visited, w.jumps = fd, size, 0, 0, 0
	if w.back == nil {
		w.back = make([]byte, refillSize)
	}
	first := min(windowSize, size)
	if size <= wholeSize {
		first = size
	}
	n, err := preadFull(fd, w.back[:first], 0)
	w.buf = w.back[:n]
	return err
}

// bytes returns up to want bytes at off; fewer only at the end of the file.
func (w *window) bytes(off int64, want int) ([]byte, error) {
	if off < 0 || off > w.size {
		return nil, damaged("offset %d outside the file", off)
	}
	want = int(min(int64(want), w.size-off))
	if at := off - w.start; at >= 0 && at+int64(want) <= int64(len(w.buf)) {
		return w.buf[at : at+int64(want)], nil
	}
	n, err := preadFull(w.fd, w.back[:min(int64(len(w.back)), w.size-off)], off)
	if err != nil {
		return nil, err
	}
	w.start, w.buf = off, w.back[:n]
	return w.buf[:min(want, n)], nil
}

// record is one record: its type, its payload (cut at maxPayload, and valid
// only until the next one is read) and where the next one starts.
type record struct {
	kind    byte
	payload []byte
	at      int64 // offset of the type byte
	next    int64
}

// read decodes the record at off. The end of the file where a record should
// be, or inside one, is damage.
func (w *window) read(off int64) (record, error) {
	// Nearly every record is shorter than 128 bytes and lies in the window.
	if at := off - w.start; at >= 0 && at+2 <= int64(len(w.buf)) {
		if n := int64(w.buf[at+1]); n < 0x80 && at+2+n <= int64(len(w.buf)) && w.visited <= w.size {
			w.visited += 2 + n
			return record{kind: w.buf[at], payload: w.buf[at+2 : at+2+n], at: off, next: off + 2 + n}, nil
		}
	}
	head, err := w.bytes(off, 6)
	if err != nil {
		return record{}, err
	}
	if len(head) < 2 {
		return record{}, damaged("end of file at offset %d where a record should be", off)
	}
	length, used := 0, 1
	for shift := 0; ; shift += 7 {
		if used >= len(head) || shift > 28 {
			return record{}, damaged("bad record length at offset %d", off)
		}
		b := head[used]
		used++
		length |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
	}
	start := off + int64(used)
	if length >= maxLength || start+int64(length) > w.size {
		return record{}, damaged("record at offset %d runs past the end of the file", off)
	}
	kind := head[0]
	payload, err := w.bytes(start, min(length, maxPayload))
	if err != nil {
		return record{}, err
	}
	if len(payload) < min(length, maxPayload) {
		return record{}, damaged("record at offset %d is cut short", off)
	}
	w.visited += int64(used + length)
	// No byte of a sound file is walked over twice: what does that is a loop.
	if w.visited > w.size+refillSize {
		return record{}, damaged("pointer records loop")
	}
	return record{kind: kind, payload: payload, at: off, next: start + int64(length)}, nil
}

// follow returns where a pointer record leads. Zero is a place holder that was
// never filled in: the next record is the next record.
func (w *window) follow(r record) (int64, error) {
	target, ok := parseNumber(r.payload)
	if !ok || target < 0 || target >= w.size {
		return 0, damaged("pointer at offset %d leads outside the file", r.at)
	}
	if target == 0 {
		return r.next, nil
	}
	if target <= r.at {
		if w.jumps++; w.jumps > maxBackwards {
			return 0, damaged("pointer records loop")
		}
	}
	return target, nil
}

// parseNumber reads a blank-padded decimal number.
func parseNumber(b []byte) (int64, bool) {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	for len(b) > 0 && b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	n, err := strconv.ParseInt(lend(b), 10, 64)
	return n, err == nil
}

func preadFull(fd int, buf []byte, off int64) (int, error) {
	n := 0
	for n < len(buf) {
		k, err := unix.Pread(fd, buf[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if k == 0 {
			break // shorter than fstat said: the file is being replaced
		}
		n += k
	}
	return n, nil
}
