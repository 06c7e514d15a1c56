package account

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// schema names the form: a line of JSON that is the head, the messages as lines
// of JSON packed by zstd, and a last line with the SHA-256 of all before it. The
// digest is at the end so that a million messages need not be kept to be
// written, and covers the head, so that the place in the log cannot be changed
// under the messages.
const schema = "holdfast.snapshot-file/1"

// ErrSnapshot says that a file is no snapshot, or not as it was written.
var ErrSnapshot = errors.New("not a whole snapshot")

const trailerSize = 1 + 2*sha256.Size + 1 // newline, digest, newline

// Limits of what is decoded: a snapshot is root's file, and still not to be
// believed by its size.
const (
	mostHead = 64 << 20
	mostLine = 256 << 20 // of one message: a million recipients
)

// Encode writes a snapshot.
func Encode(w io.Writer, s *Snapshot) error {
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	head, err := json.Marshal(s.Head)
	if err != nil {
		return fmt.Errorf("encode the head of a snapshot: %w", err)
	}
	if _, err := out.Write(append(head, '\n')); err != nil {
		return err
	}
	packer, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	lines := bufio.NewWriterSize(packer, 1<<20)
	encoder := json.NewEncoder(lines)
	encoder.SetEscapeHTML(false)
	for i := range s.All {
		if err := encoder.Encode(&s.All[i]); err != nil {
			return errors.Join(fmt.Errorf("encode message %q: %w", s.All[i].ID, err), packer.Close())
		}
	}
	if err := errors.Join(lines.Flush(), packer.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%x\n", sum.Sum(nil))
	return err
}

// Decode reads a snapshot and checks its digest.
func Decode(r io.Reader) (*Snapshot, error) {
	body := &summed{in: bufio.NewReaderSize(r, 1<<20), sum: sha256.New()}
	s, err := decode(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return s, nil
}

// DecodeHead reads the head alone. Nothing shows that it is as it was written.
func DecodeHead(r io.Reader) (Head, error) {
	h, err := readHead(bufio.NewReader(r))
	if err != nil {
		return h, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return h, nil
}

func decode(body *summed) (*Snapshot, error) {
	in := bufio.NewReaderSize(body, 64<<10)
	s := &Snapshot{}
	var err error
	if s.Head, err = readHead(in); err != nil {
		return nil, err
	}
	packed, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(mostLine))
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	lines := json.NewDecoder(bufio.NewReaderSize(packed, 1<<20))
	for {
		var m Message
		if err = lines.Decode(&m); errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", len(s.All)+1, err)
		}
		s.All = append(s.All, m)
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // to the digest, whatever lies before it
		return nil, err
	}
	if len(s.All) != s.Messages {
		return nil, fmt.Errorf("its head has %d messages and it has %d", s.Messages, len(s.All))
	}
	return s, body.verify()
}

func readHead(in *bufio.Reader) (Head, error) {
	var h Head
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > mostHead {
			return h, fmt.Errorf("it has no head: %w", err)
		}
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return h, fmt.Errorf("decode its head: %w", err)
	}
	if h.Schema != schema {
		return h, fmt.Errorf("it has the form %q, not %q", h.Schema, schema)
	}
	return h, nil
}

// summed reads all but the trailer, and sums up what it gives.
type summed struct {
	in      *bufio.Reader
	sum     hash.Hash
	trailer []byte // what may be it, and was not given yet
	ended   bool
}

func (s *summed) Read(p []byte) (int, error) {
	if s.ended || len(p) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		return 0, nil
	}
	ahead, err := s.in.Peek(trailerSize + 1)
	if len(ahead) <= trailerSize {
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		s.trailer, s.ended = bytes.Clone(ahead), true
		return 0, io.EOF
	}
	n, err := s.in.Read(p[:min(len(p), s.in.Buffered()-trailerSize)])
	s.sum.Write(p[:n])
	return n, err
}

func (s *summed) verify() error {
	want := append(append([]byte("\n"), hex.EncodeToString(s.sum.Sum(nil))...), '\n')
	if !bytes.Equal(s.trailer, want) {
		return errors.New("its digest is not that of what it holds")
	}
	return nil
}
