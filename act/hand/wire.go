package hand

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"holdfast/postfix"
	"holdfast/record"
)

// A frame is four bytes of length and that many bytes: numbers as varints,
// texts and lists with their length in front. It has no types and no nesting,
// so that reading one, as root, is a page of code.

// maxFrame bounds a frame: a detail, and the files of a large batch.
const maxFrame = record.MaxLine

// ErrFrame is what every error of a frame that makes no sense wraps.
var ErrFrame = errors.New("not a request of the hand")

// frame is one that is written or read, field by field.
type frame struct {
	buf []byte
	bad bool // a field that was read was not there
}

func (f *frame) putNumber(n uint64) { f.buf = binary.AppendUvarint(f.buf, n) }

// putInt puts a number that can be negative, or is one of Go's own.
func (f *frame) putInt(n int64) { f.buf = binary.AppendVarint(f.buf, n) }

func (f *frame) putText(s string) {
	f.putNumber(uint64(len(s)))
	f.buf = append(f.buf, s...)
}

func (f *frame) putBytes(b []byte) {
	f.putNumber(uint64(len(b)))
	f.buf = append(f.buf, b...)
}

func (f *frame) putIDs(ids []postfix.QueueID) {
	f.putInt(int64(len(ids)))
	for _, id := range ids {
		f.putText(string(id))
	}
}

func (f *frame) putFiles(files []record.File) {
	f.putInt(int64(len(files)))
	for _, file := range files {
		f.putText(string(file.ID))
		f.putNumber(file.Inode)
	}
}

func (f *frame) number() uint64 {
	n, size := binary.Uvarint(f.buf)
	if size <= 0 || f.bad {
		f.bad = true
		return 0
	}
	f.buf = f.buf[size:]
	return n
}

func (f *frame) int() int64 {
	n, size := binary.Varint(f.buf)
	if size <= 0 || f.bad {
		f.bad = true
		return 0
	}
	f.buf = f.buf[size:]
	return n
}

// octet reads a number of one byte, 0 where it is larger, which means nothing.
func (f *frame) octet() uint8 {
	if n := f.number(); n < 256 {
		return uint8(n)
	}
	f.bad = true
	return 0
}

// bytes returns a field; it shares the memory of the frame.
func (f *frame) bytes() []byte {
	n := f.number()
	if f.bad || n > uint64(len(f.buf)) {
		f.bad = true
		return nil
	}
	b := f.buf[:n:n]
	f.buf = f.buf[n:]
	return b
}

func (f *frame) text() string { return string(f.bytes()) }

// count reads the length of a list whose elements have at least so many bytes.
func (f *frame) count(least int) int {
	n := f.int()
	if f.bad || n < 0 || n > int64(len(f.buf)/least) {
		f.bad = true
		return 0
	}
	return int(n)
}

func (f *frame) ids() []postfix.QueueID {
	ids := make([]postfix.QueueID, f.count(1))
	for i := range ids {
		ids[i] = postfix.QueueID(f.text())
	}
	return ids
}

func (f *frame) files() []record.File {
	files := make([]record.File, f.count(2))
	for i := range files {
		files[i].ID = postfix.QueueID(f.text())
		files[i].Inode = f.number()
	}
	return files
}

// done says whether all fields were there, and no more.
func (f *frame) done() error {
	if f.bad || len(f.buf) > 0 {
		return ErrFrame
	}
	return nil
}

func (f *frame) putEntry(e record.Entry) {
	f.putNumber(e.Seq)
	f.putInt(e.At.UnixMicro())
	f.putText(string(e.Kind))
	f.putNumber(e.Ref)
	f.putText(e.Hash)
	f.putText(e.Prev)
	f.putFiles(e.Files)
	f.putBytes(e.Detail)
	f.putInt(e.Offset)
	f.putInt(int64(e.Length))
}

func (f *frame) entry() record.Entry {
	e := record.Entry{Seq: f.number(), At: time.UnixMicro(f.int()).UTC(), Kind: record.Kind(f.text()), Ref: f.number()}
	e.Hash, e.Prev = f.text(), f.text()
	e.Files = f.files()
	e.Detail = f.bytes()
	e.Offset, e.Length = f.int(), int(f.int())
	return e
}

// send writes one frame.
func send(w io.Writer, body []byte) error {
	n := len(body)
	if n > maxFrame || n > math.MaxUint32 {
		return fmt.Errorf("send %d bytes: %w", n, ErrFrame)
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+n), uint32(n))
	_, err := w.Write(append(out, body...))
	return err
}

// receive reads one frame. io.EOF means that the other side has ended.
func receive(r io.Reader) (*frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("receive %d bytes: %w", n, ErrFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return &frame{buf: body}, nil
}
