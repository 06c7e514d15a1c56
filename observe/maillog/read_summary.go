package maillog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"holdfast/observe"
	"holdfast/observe/opener"
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

// errNothingRead is the error of a summary that has no file to be about.
var errNothingRead = errors.New("none of the logs could be read")

// Summarize reads whole log files, compressed or not, and standard input where
// a path is Stdin, and returns their figures. Files may be named in any order:
// the one with the oldest first line is read first. The memory that it takes
// does not depend on their size.
//
// root opens what this process may not, and may be nil; it must have been
// granted the files by their absolute paths.
func Summarize(ctx context.Context, paths []string, o Options, root *opener.Opener) (*Summary, []observe.Gap, error) {
	s := &summing{options: o, root: root, room: newBuffers()}
	defer s.close()
	var missed error
	for _, path := range paths {
		if err := s.open(path); err != nil {
			missed = errors.Join(missed, err)
			s.gaps = append(s.gaps, fileGap(path, err))
		}
	}
	if len(s.inputs) == 0 {
		return nil, s.gaps, errors.Join(errNothingRead, missed)
	}
	slices.SortStableFunc(s.inputs, func(a, b *input) int { return a.first.Compare(b.first) })
	for _, in := range s.inputs {
		if err := s.read(ctx, in); err != nil {
			if ctx.Err() != nil {
				return nil, s.gaps, fmt.Errorf("read %q: %w", in.name, ctx.Err())
			}
			s.gaps = append(s.gaps, fileGap(in.name, err))
		}
	}
	if s.total == nil {
		s.total = NewTally(s.options)
	}
	return s.total.Summary(), s.gaps, nil
}

// input is one log to be summed up.
type input struct {
	name    string
	file    *logFile  // nil of a stream
	stream  io.Reader // of lines, uncompressed
	end     func()
	first   time.Time // of its first line; streams cannot be asked and come last
	written time.Time
}

// summing is one Summarize.
type summing struct {
	options Options
	root    *opener.Opener
	inputs  []*input
	gaps    []observe.Gap
	total   *Tally
	room    *buffers
}

func (s *summing) close() {
	for _, in := range s.inputs {
		in.end()
	}
}

// open opens a path and finds out where in time it begins.
func (s *summing) open(path string) error {
	if path == Stdin {
		return s.openStream("standard input", os.Stdin, func() {})
	}
	if st, err := os.Stat(path); err == nil && st.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0 {
		// A shell's <(command) is a pipe, to be waited for.
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return s.openStream(path, f, func() { _ = f.Close() })
	}
	f, err := openLog(path, "", s.root)
	if err != nil {
		return err
	}
	for _, known := range s.inputs {
		if known.file != nil && known.file.inode == f.inode {
			s.gaps = append(s.gaps, observe.Gap{
				Source: gapSource, Object: path, Text: fmt.Sprintf("it is the same file as %q, and was read once", known.name),
			})
			f.close()
			return nil
		}
	}
	in := &input{name: path, file: f, end: f.close, written: f.written}
	begin, err := f.firstLines()
	if err != nil {
		s.gaps = append(s.gaps, fileGap(path, err))
	}
	var c clock
	c.set(s.options.Location, f.written)
	for len(begin) > 0 && in.first.IsZero() {
		if at, _, ok := c.read(begin); ok {
			in.first = time.Unix(0, at)
		}
		_, begin, _ = bytes.Cut(begin, []byte("\n"))
	}
	if in.first.IsZero() {
		in.first = f.written
	}
	s.inputs = append(s.inputs, in)
	return nil
}

func (s *summing) openStream(name string, r io.Reader, end func()) error {
	now := time.Now()
	unpacked, unpackEnd, err := unpack(r)
	if err != nil {
		end()
		return fmt.Errorf("read %s: %w", name, err)
	}
	s.inputs = append(s.inputs, &input{
		name: name, stream: unpacked, first: now, written: now,
		end: func() { unpackEnd(); end() },
	})
	return nil
}

// firstLines returns the beginning of what a file holds, uncompressed.
func (f *logFile) firstLines() ([]byte, error) {
	unpacked, end, err := unpack(io.NewSectionReader(f, 0, f.size))
	if err != nil {
		return nil, err
	}
	defer end()
	begin := make([]byte, 16<<10)
	n, err := fill(unpacked, begin, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return begin[:n], err
}

// read adds one input to the whole.
func (s *summing) read(ctx context.Context, in *input) error {
	if in.stream != nil {
		return s.chunks(ctx, in, in.stream)
	}
	beginning, err := in.file.beginning()
	if err != nil {
		return err
	}
	if packingOf(beginning) == plain {
		return s.spans(ctx, in)
	}
	unpacked, end, err := unpack(io.NewSectionReader(in.file, 0, in.file.size))
	if err != nil {
		return err
	}
	defer end()
	// Text packs to a twentieth, a log of one line that repeats to less. What
	// is beyond this was made to unpack for ever.
	const most = 2000
	return s.chunks(ctx, in, &bounded{r: unpacked, left: max(in.file.size*most, defaultMaxBytes)})
}

func (s *summing) add(p part) { s.total = appendTally(s.total, p.tally) }

// chunks reads a stream.
func (s *summing) chunks(ctx context.Context, in *input, r io.Reader) error {
	return eachChunk(ctx, r, func(lines []byte) func() part {
		return func() part {
			t := NewTally(s.options)
			t.Text(lines, observe.TrustPlain, in.written)
			return part{tally: t}
		}
	}, func(p part) bool {
		s.add(p)
		return true
	})
}

// spans reads a file, several of its parts at a time.
func (s *summing) spans(ctx context.Context, in *input) error {
	var next int64
	jobs := func() (func() part, bool) {
		if next >= in.file.size {
			return nil, false
		}
		at := span{file: in.file, from: next, to: min(next+spanSize, in.file.size)}
		next = at.to
		return func() part {
			t, room := NewTally(s.options), s.room.lend()
			defer s.room.Put(room)
			fragment, err := at.each(ctx, *room, func(lines []byte) { t.Text(lines, observe.TrustPlain, in.written) })
			if len(fragment) > 0 {
				t.Text(fragment, observe.TrustPlain, in.written)
			}
			return part{tally: t, err: err}
		}, true
	}
	var failed error
	inOrder(jobs, func(p part) bool {
		s.add(p)
		failed = p.err
		return failed == nil
	})
	return failed
}
