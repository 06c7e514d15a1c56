package maillog

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// packing is how a file is compressed, told by its first bytes: names lie.
type packing uint8

const (
	plain packing = iota
	gzipped
	bzipped
	xzipped
	zstandard
)

// magicSize is how many bytes tell the packing.
const magicSize = 6

func packingOf(beginning []byte) packing {
	for p, magic := range map[packing]string{
		gzipped: "\x1f\x8b", bzipped: "BZh", xzipped: "\xfd7zXZ\x00", zstandard: "\x28\xb5\x2f\xfd",
	} {
		if bytes.HasPrefix(beginning, []byte(magic)) {
			return p
		}
	}
	return plain
}

// unpack returns what a stream holds, uncompressed, and what to close.
func unpack(r io.Reader) (io.Reader, func(), error) {
	const window = 64 << 20 // of zstd --ultra; nobody's logrotate asks for more
	in := bufio.NewReaderSize(r, 1<<16)
	beginning, err := in.Peek(magicSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	nothing := func() {}
	switch packingOf(beginning) {
	case gzipped:
		z, err := gzip.NewReader(in)
		return z, nothing, err
	case bzipped:
		return bzip2.NewReader(in), nothing, nil
	case xzipped:
		z, err := xz.NewReader(in)
		return z, nothing, err
	case zstandard:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return in, nothing, nil
}

// errBomb says that a compressed file holds more than is believed.
var errBomb = errors.New("it unpacks to more than may be read")

// bounded is a reader that ends with errBomb behind so many bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// One byte more tells whether it was just the end.
		if n, err := io.ReadFull(b.r, make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, errBomb
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
