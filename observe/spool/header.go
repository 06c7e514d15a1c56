package spool

import (
	"bytes"
	"mime"
	"strings"
)

// Header is one header field of a queued message, as far as it is one.
type Header struct {
	// Name is the field name as it stands, "" for a line that has none.
	Name string `json:"name,omitempty"`
	// Value is the unfolded value, undecoded: raw bytes of a stranger.
	Value string `json:"value"`
	// Malformed is set for what RFC 5322 does not allow: a line without a
	// colon, a name with blanks or control characters, a continuation of nothing.
	Malformed bool `json:"malformed,omitempty"`
}

// HeaderEnd says where and how the headers end.
type HeaderEnd struct {
	// Body is the offset of the first byte behind the headers and their blank line.
	Body int
	// Cut is set where the limits ended the scan and not the text.
	Cut bool
}

const (
	maxHeaders     = 1000
	maxHeaderBytes = 256 << 10
)

// ScanHeaders reads the headers at the beginning of a message. Parsers for
// well-formed mail stop at the first line that is none; the mail that is stuck
// is often just that mail, and an operator must see it. So this one never
// stops: a line that is no header is kept and marked, and only a blank line,
// the end of the text or the limits (1,000 fields, 256 KiB) end the scan.
func ScanHeaders(text []byte) ([]Header, HeaderEnd) {
	var headers []Header
	at := 0
	for at < len(text) {
		line, next := cutLine(text, at)
		if len(line) == 0 {
			return headers, HeaderEnd{Body: next}
		}
		if len(headers) >= maxHeaders || next > maxHeaderBytes {
			return headers, HeaderEnd{Body: at, Cut: true}
		}
		if (line[0] == ' ' || line[0] == '\t') && len(headers) > 0 {
			last := &headers[len(headers)-1]
			last.Value = strings.TrimRight(last.Value, " \t") + " " + string(bytes.Trim(line, " \t"))
		} else {
			headers = append(headers, parseHeader(line))
		}
		at = next
	}
	return headers, HeaderEnd{Body: len(text)}
}

// cutLine returns the line at off without its end, and where the next starts.
// A carriage return before the line feed is part of the end.
func cutLine(text []byte, off int) ([]byte, int) {
	end := bytes.IndexByte(text[off:], '\n')
	if end < 0 {
		return bytes.TrimSuffix(text[off:], []byte{'\r'}), len(text)
	}
	return bytes.TrimSuffix(text[off:off+end], []byte{'\r'}), off + end + 1
}

func parseHeader(line []byte) Header {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || bytes.HasPrefix(line, []byte("From ")) || line[0] == ' ' || line[0] == '\t' {
		return Header{Value: string(line), Malformed: true}
	}
	name := line[:colon]
	h := Header{Name: string(bytes.TrimRight(name, " \t")), Value: string(bytes.Trim(line[colon+1:], " \t"))}
	for _, c := range name {
		// RFC 5322, 2.2: printable US-ASCII but the colon.
		if c <= ' ' || c > '~' {
			h.Malformed = true
		}
	}
	return h
}

// MessageID returns the value of the first Message-ID field, "" without one.
func MessageID(headers []Header) string {
	for _, h := range headers {
		if strings.EqualFold(h.Name, "Message-ID") {
			return h.Value
		}
	}
	return ""
}

// DecodeWords decodes the encoded words of RFC 2047 in a value. What cannot be
// decoded stays as it is: the text of a broken subject is evidence too.
func DecodeWords(value string) string {
	var d mime.WordDecoder
	if out, err := d.DecodeHeader(value); err == nil {
		return out
	}
	return value
}
