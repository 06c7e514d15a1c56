package maillog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	// bufferSize is how much is read at a time, and the longest line that is
	// read whole. Postfix cuts its own at 2,000 bytes.
	bufferSize = 1 << 20
	// spanSize is how much of a file one tally takes.
	spanSize = 16 << 20
	// readers is how many goroutines read one log: decoding is what takes the
	// time, and triage looks at the queue meanwhile.
	readers = 2
)

// errShrunk says that a file ended before the end that it had: it was emptied
// by copytruncate, or by hand.
var errShrunk = errors.New("it was emptied while it was being read")

// span is a part of a file. It owns the lines that begin in it, so that spans
// that are read side by side take each line once.
type span struct {
	file     *logFile
	from, to int64
}

// each calls take with the lines of a span, many at a time, and returns the
// line at its end that has no newline. A line that does not fit into the
// buffer is passed as far as it does; the rest of it is skipped.
func (s span) each(ctx context.Context, buffer []byte, take func([]byte)) (fragment []byte, err error) {
	pos, have := s.from, 0
	skipping := s.from > 0
	if skipping {
		pos-- // a newline there means that a line begins at from
	}
	for ctx.Err() == nil {
		n, err := s.file.ReadAt(buffer[have:], pos+int64(have))
		have += n
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return nil, err
		}
		if ended && pos+int64(have) < s.to {
			return nil, errShrunk
		}
		block := buffer[:have]
		if skipping {
			end := bytes.IndexByte(block, '\n')
			if end < 0 {
				end = have - 1
			} else {
				skipping = false
			}
			pos, have = pos+int64(end)+1, copy(buffer, block[end+1:])
			if pos >= s.to {
				return nil, nil // the line that reaches into this span is all there is of it
			}
			block = buffer[:have]
		}
		whole, last := s.cut(block, pos)
		take(block[:whole])
		pos, have = pos+int64(whole), copy(buffer, block[whole:])
		switch {
		case last:
			return nil, nil
		case ended:
			return buffer[:have:have], nil
		case have == len(buffer):
			take(buffer)
			pos, have, skipping = pos+int64(have), 0, true
		}
	}
	return nil, ctx.Err()
}

// cut says how much of a block at pos is whole lines of the span, and whether
// these are its last.
func (s span) cut(block []byte, pos int64) (whole int, last bool) {
	if enough := s.to - 1 - pos; enough < int64(len(block)) {
		enough = max(enough, 0)
		if end := bytes.IndexByte(block[enough:], '\n'); end >= 0 {
			return int(enough) + end + 1, true
		}
	}
	return bytes.LastIndexByte(block, '\n') + 1, false
}

// sampler tells where in time a span lies by several of its lines: one that
// somebody forged, or a clock that was set, must not decide what is not read.
type sampler struct {
	clock
	stamps []int64
}

func newSampler(zone *time.Location, newest time.Time) *sampler {
	s := &sampler{}
	s.set(zone, newest)
	return s
}

// look reads the stamps of a few lines of a block.
func (s *sampler) look(block []byte) {
	const few = 4
	for i := range few {
		line := block[len(block)/few*i:]
		if i > 0 {
			line = line[bytes.IndexByte(line, '\n')+1:]
		}
		if at, _, ok := s.read(line); ok {
			s.stamps = append(s.stamps, at)
		}
	}
}

// before says whether more than half of the span lies before a time.
func (s *sampler) before(since time.Time) bool {
	if since.IsZero() || len(s.stamps) < 3 {
		return false
	}
	slices.Sort(s.stamps)
	return s.stamps[len(s.stamps)/2] < since.UnixNano()
}

// part is what became of one piece of a log.
type part struct {
	tally *Tally
	bytes int64
	// before is set where most of it lies before the window.
	before bool
	err    error
}

// inOrder runs the jobs that next gives, a few at once, and hands their results
// to take in the order of the jobs until one of the two has enough. It returns
// when no job runs any more.
func inOrder(next func() (job func() part, ok bool), take func(part) bool) {
	queue := make(chan chan part, readers-1)
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		defer close(queue)
		for {
			job, ok := next()
			if !ok {
				return
			}
			result := make(chan part, 1)
			select {
			case queue <- result:
				running.Go(func() { result <- job() })
			case <-stop:
				return
			}
		}
	})
	for result := range queue {
		if !take(<-result) {
			close(stop)
			break
		}
	}
	running.Wait()
}

// buffers lends each job the room to read in.
type buffers struct{ sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any {
		b := make([]byte, bufferSize)
		return &b
	}}}
}

func (p *buffers) lend() *[]byte {
	b, ok := p.Get().(*[]byte)
	if !ok {
		b = new([]byte)
		*b = make([]byte, bufferSize)
	}
	return b
}
