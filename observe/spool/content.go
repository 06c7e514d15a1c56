package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
)

// content reads a message as it will be sent: the lines of the content segment
// with pointers followed, so that headers and bodies which a milter replaced
// are read in their new form. It is what postcat -bh prints.
type content struct {
	win  window
	next int64
	rest []byte
	copy []byte // the payload's own memory: the window moves on
	line bool   // the record in rest ends a line
	done bool
}

func openContent(fd int, size, data int64) (*content, error) {
	c := &content{next: data}
	if err := c.win.open(fd, size); err != nil {
		return nil, err
	}
	return c, nil
}

// Read implements io.Reader. Damage ends the text with an error.
func (c *content) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(c.rest) > 0 {
			k := copy(p[n:], c.rest)
			c.rest = c.rest[k:]
			n += k
			continue
		}
		if c.line {
			p[n] = '\n'
			n++
			c.line = false
			continue
		}
		if c.done {
			break
		}
		if err := c.advance(); err != nil {
			return n, err
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *content) advance() error {
	r, err := c.win.read(c.next)
	if err != nil {
		return err
	}
	switch r.kind {
	case recExtra:
		c.done = true
	case recPointer:
		c.next, err = c.win.follow(r)
		return err
	case recLine, recPart:
		c.copy = append(c.copy[:0], r.payload...)
		c.rest, c.line = c.copy, r.kind == recLine
	case recPadding:
	default:
		return damaged("record type %q at offset %d in the content", r.kind, r.at)
	}
	c.next = r.next
	return nil
}

// digest returns the SHA-256 of a message's content: what `postcat -qbh ID |
// sha256sum` prints. It does not change while the message waits; the envelope
// around it does.
func digest(fd int, size, data int64) (string, error) {
	c, err := openContent(fd, size, data)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// errNoContent is returned where a damaged file does not say where its content
// is.
var errNoContent = errors.New("the file does not say where its content begins")

// contentStart returns where the content begins: from the SIZE record, or by
// walking the envelope of a file that has none.
func (d *decoder) contentStart() (int64, error) {
	if d.msg.DataOffset > 0 {
		return d.msg.DataOffset, nil
	}
	scan := decoder{win: window{fd: d.win.fd, size: d.win.size, back: d.win.back}}
	scan.win.buf, scan.win.start = nil, 0
	next, err := scan.walk(0, envelopeTypes, recMessage)
	if errors.Is(err, errDamaged) {
		return 0, errNoContent
	}
	return next, err
}
