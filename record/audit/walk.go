package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"holdfast/record"
)

const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

// BadEntry is where a log stops being what was written.
type BadEntry struct {
	// Seq is the number that the entry has or should have.
	Seq uint64 `json:"seq"`
	// Line counts from 1, torn ones included; 0 where a checkpoint tells, and
	// not a line.
	Line   int64  `json:"line,omitempty"`
	Offset int64  `json:"offset"`
	Why    string `json:"why"`
	// Cut is set where it is the end of the log, as a crash leaves it.
	Cut bool `json:"cut,omitempty"`
}

// Error implements error.
func (b *BadEntry) Error() string {
	return fmt.Sprintf("entry %d of the audit log (line %d, byte %d): %s", b.Seq, b.Line, b.Offset, b.Why)
}

// Is makes every BadEntry an ErrDamaged, but for one that is cut: that may
// just be what another process is writing.
func (b *BadEntry) Is(target error) bool {
	return target == ErrDamaged && !b.Cut || target == ErrCut && b.Cut
}

// ErrCut says that the end of a log is not whole, as where a crash cut it or
// another process is writing. All that was read before is.
var ErrCut = errors.New("the end of the audit log is not whole")

// walk goes over the lines of a log, entry by entry, and stops at the first
// that is not what was written.
type walk struct {
	lines *bufio.Reader
	parse func([]byte) (record.Entry, error)

	entry record.Entry // the one that next found
	text  []byte       // its line without the line end; valid until the next next
	last  record.Entry // head of the newest good entry
	torn  int          // torn lines on the way
	begun bool         // the first entry was seen
	bad   *BadEntry
	err   error // of reading

	offset, line int64
}

// head parses the columns in front and leaves the rest alone.
func head(line []byte) (record.Entry, error) {
	e, _, err := record.ParseHead(line)
	return e, err
}

// newWalk begins behind an entry, or at the start of a log for the zero Entry.
func newWalk(r io.Reader, parse func([]byte) (record.Entry, error), behind record.Entry) *walk {
	w := &walk{lines: bufio.NewReaderSize(r, 1<<20), parse: parse, last: behind, begun: behind.Seq > 0}
	w.offset = behind.Offset + int64(behind.Length)
	return w
}

// next finds the next entry.
func (w *walk) next() bool {
	if w.bad != nil || w.err != nil {
		return false
	}
	at := w.offset
	var region []byte // a bad line and what follows it up to an entry that accounts for it
	var first *BadEntry
	for {
		start := w.offset
		text, whole := w.readLine()
		switch {
		case w.err != nil:
			return false
		case len(text) == 0 && !whole && first == nil:
			return false // the end
		case len(text) == 0 && !whole:
			first.Cut = true
			w.bad = first
			return false
		}
		w.line++
		e, why, sound := w.check(text, whole)
		switch {
		case why == "" && first == nil && e.Kind == record.Torn:
			why = "it accounts for a torn line, and there is none before it"
		case why == "" && first == nil:
			w.accept(e, start, text)
			return true
		case why == "" && accounts(e, text, at, region):
			w.torn++
			w.accept(e, start, text)
			return true
		}
		if first == nil {
			first = &BadEntry{Seq: w.last.Seq + 1, Line: w.line, Offset: start, Why: why}
		}
		if sound { // a whole line in the wrong place, or behind a bad one: no crash does that
			w.bad = first
			return false
		}
		region = append(region, text...)
		if whole {
			region = append(region, '\n')
		}
		if len(region) > 2*record.MaxLine {
			w.bad = first
			return false
		}
	}
}

// accept makes an entry the newest.
func (w *walk) accept(e record.Entry, start int64, text []byte) {
	e.Offset, e.Length = start, len(text)+1
	w.entry, w.text, w.last = e, text, e
	w.last.Files, w.last.Detail = nil, nil
	w.begun = w.begun || e.Kind == record.Begin
}

// check says what is wrong with a line, "" where nothing is. It is sound where
// it is a line as somebody once wrote it, in its place or not.
func (w *walk) check(text []byte, whole bool) (e record.Entry, why string, sound bool) {
	e, err := w.parse(text)
	if err != nil {
		return e, err.Error(), false
	}
	return e, w.misfit(e, whole), whole
}

// misfit says why an entry cannot follow the one before it.
func (w *walk) misfit(e record.Entry, whole bool) string {
	prev := record.NoHash
	if w.last.Seq > 0 {
		prev = w.last.Hash
	}
	switch {
	case !whole:
		return "the line has no end"
	case e.Prev != prev:
		return "it does not follow the entry before it: something was taken out, put in, or moved"
	case e.Seq != w.last.Seq+1:
		return fmt.Sprintf("it has the number %d", e.Seq)
	case e.Ref >= e.Seq:
		return fmt.Sprintf("it refers to entry %d, which is not before it", e.Ref)
	case w.begun == (e.Kind == record.Begin) && e.Kind != record.Torn:
		return fmt.Sprintf("it is of kind %q: a log has one beginning", e.Kind)
	}
	return ""
}

// readLine returns the next line without its end, and whether it has one. No
// bytes and no end mean the end of the log.
func (w *walk) readLine() (text []byte, whole bool) {
	text, err := w.lines.ReadSlice('\n')
	w.offset += int64(len(text))
	if errors.Is(err, bufio.ErrBufferFull) {
		text, err = w.readLong(text)
	}
	switch {
	case err == nil:
		return text[:len(text)-1], true
	case errors.Is(err, io.EOF):
		return text, false
	}
	w.err = fmt.Errorf("read the audit log: %w", err)
	return nil, false
}

// readLong reads the rest of a line that is longer than the buffer, up to what
// no entry exceeds.
func (w *walk) readLong(begun []byte) ([]byte, error) {
	text := bytes.Clone(begun)
	for {
		more, err := w.lines.ReadSlice('\n')
		w.offset += int64(len(more))
		text = append(text, more...)
		if !errors.Is(err, bufio.ErrBufferFull) || len(text) > record.MaxLine {
			if errors.Is(err, bufio.ErrBufferFull) {
				err = io.EOF // too long for a line: as good as without an end
			}
			return text, err
		}
	}
}

// failure is why the walk ended before the end, nil where it did not.
func (w *walk) failure() error {
	if w.err != nil {
		return w.err
	}
	if w.bad != nil {
		return w.bad
	}
	return nil
}

// tornDetail is what the entry behind a torn line says of it.
func tornDetail(offset int64, torn []byte) ([]byte, error) {
	sum := sha256.Sum256(torn)
	return record.Encode(record.TornBody{Offset: offset, Length: int64(len(torn)), Sum: hex.EncodeToString(sum[:])})
}

// accounts says whether an entry is the one that heal wrote for these bytes.
// The line is compared as text: it has one spelling, and root decodes nothing.
func accounts(e record.Entry, text []byte, offset int64, torn []byte) bool {
	if e.Kind != record.Torn || e.Ref != 0 {
		return false
	}
	e.Detail, _ = tornDetail(offset, torn) // of numbers and digits, which always encode
	e.Files = nil
	want, err := record.AppendLine(nil, &e)
	return err == nil && bytes.Equal(bytes.TrimSuffix(want, []byte("\n")), text)
}

// newest finds the last good entry of a log of this size, from its end, and
// where the line behind it begins. What lies there is torn. It fails where
// more is bad than a crash in the middle of a write, or of a heal, leaves.
func newest(r io.ReaderAt, size int64) (last record.Entry, end int64, err error) {
	from := max(0, size-64<<10)
	for {
		tail := make([]byte, size-from)
		if _, err := io.ReadFull(io.NewSectionReader(r, from, int64(len(tail))), tail); err != nil {
			return last, 0, fmt.Errorf("read the end of the audit log: %w", err)
		}
		if e, ok := newestIn(tail, from); ok {
			return e, e.Offset + int64(e.Length), nil
		}
		switch {
		case from == 0 && size > maxFirst:
			return last, 0, fmt.Errorf("no entry is good: %w", ErrDamaged)
		case from == 0:
			return last, 0, nil // the first entry itself was torn
		case len(tail) > 2*record.MaxLine:
			return last, 0, fmt.Errorf("the last %d bytes hold no good entry: %w", len(tail), ErrDamaged)
		}
		from = max(0, size-4*int64(len(tail)))
	}
}

// maxFirst bounds what a crash in the first entry leaves behind.
const maxFirst = 16 << 10

// newestIn looks for the last good line that begins in a part of a log.
func newestIn(tail []byte, from int64) (record.Entry, bool) {
	stop := len(tail)
	for stop > 0 {
		begin := bytes.LastIndexByte(tail[:stop-1], '\n') + 1
		if begin == 0 && from > 0 {
			return record.Entry{}, false // the line begins further in front
		}
		if tail[stop-1] == '\n' {
			if e, _, err := record.ParseHead(tail[begin : stop-1]); err == nil {
				e.Offset, e.Length = from+int64(begin), stop-begin
				return e, true
			}
		}
		stop = begin
	}
	return record.Entry{}, false
}
