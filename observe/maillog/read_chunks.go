package maillog

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// chunkSize is how much of a stream one job takes.
const chunkSize = 4 << 20

// eachChunk cuts a stream that can only be read in order into chunks of whole
// lines, and hands the results of their jobs to take in order. The last line
// may lack its newline; a line longer than a chunk is cut there.
func eachChunk(ctx context.Context, r io.Reader, job func(lines []byte) func() part, take func(part) bool) error {
	var failed error
	var rest []byte
	ended := false
	next := func() (func() part, bool) {
		if ended || ctx.Err() != nil {
			failed = errors.Join(failed, ctx.Err())
			return nil, false
		}
		chunk := make([]byte, chunkSize)
		have := copy(chunk, rest)
		have, err := fill(r, chunk, have)
		if err != nil {
			ended = true
			if !errors.Is(err, io.EOF) {
				failed = err
			}
			return job(chunk[:have]), have > 0
		}
		whole := bytes.LastIndexByte(chunk, '\n') + 1
		if whole == 0 {
			whole = have
		}
		rest = chunk[whole:]
		return job(chunk[:whole]), true
	}
	inOrder(next, take)
	return failed
}

// fill reads until a chunk is full. io.ReadFull does as much, but has one error
// for a stream that ends and for a compressed one that was cut off.
func fill(r io.Reader, chunk []byte, have int) (int, error) {
	for have < len(chunk) {
		n, err := r.Read(chunk[have:])
		have += n
		if err != nil {
			return have, err
		}
	}
	return have, nil
}
