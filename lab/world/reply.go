package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reply is one answer of an SMTP server. In JSON it is an object, or in short
// a string as it goes over the wire: "450 4.2.0 come back later".
type Reply struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"` // such as "4.7.1"; none if empty
	// Text may hold any UTF-8, also escape characters, a lone CR and marks that
	// turn the writing round. A line feed starts a further line of the reply.
	Text string `json:"text,omitempty"`
	// Lines repeats the text on so many lines, Width pads each line to so many
	// bytes: replies that no log can hold.
	Lines int `json:"lines,omitempty"`
	Width int `json:"width,omitempty"`
	// Raw, if not empty, is sent instead of all the above, byte for byte; Code
	// then only says how it is counted. In JSON it is base64, as it is meant for
	// what is not text.
	Raw []byte `json:"raw,omitempty"`
}

var replyForm = regexp.MustCompile(`(?s)^([2-5][0-9][0-9])(?: ([245]\.[0-9]{1,3}\.[0-9]{1,3}))?(?: (.*))?$`)

// ParseReply reads the short form.
func ParseReply(s string) (Reply, error) {
	m := replyForm.FindStringSubmatch(s)
	if m == nil {
		return Reply{}, fmt.Errorf("parse reply %q: want a code, an optional enhanced code and a text", s)
	}
	code, err := strconv.Atoi(m[1])
	if err != nil {
		return Reply{}, fmt.Errorf("parse reply %q: %w", s, err)
	}
	return Reply{Code: code, Enhanced: m[2], Text: m[3]}, nil
}

// UnmarshalJSON reads either form, strictly.
func (r *Reply) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		v, err := ParseReply(s)
		if err != nil {
			return err
		}
		*r = v
		return nil
	}
	type plain Reply
	var v plain
	if err := decodeStrict(bytes.NewReader(data), &v); err != nil {
		return fmt.Errorf("parse reply: %w", err)
	}
	*r = Reply(v)
	return nil
}

func (r *Reply) check() error {
	switch {
	case r == nil || len(r.Raw) > 0:
		return nil
	case !utf8.ValidString(r.Text):
		// JSON would silently put something else in its place.
		return fmt.Errorf("reply text %q is not UTF-8; give it as raw", r.Text)
	case r.Code < 200 || r.Code > 599:
		return fmt.Errorf("reply code %d is not between 200 and 599", r.Code)
	case r.Lines < 0 || r.Lines > 10000 || r.Width < 0 || r.Width > 1<<20:
		return fmt.Errorf("reply of %d lines of %d bytes is out of bounds", r.Lines, r.Width)
	}
	return nil
}

func (r Reply) refusal() bool { return r.Code >= 400 }

// wire is the reply as bytes.
func (r Reply) wire() []byte {
	if len(r.Raw) > 0 {
		return r.Raw
	}
	lines := strings.Split(r.Text, "\n")
	for n := len(lines); n < r.Lines; n++ {
		lines = append(lines, lines[n%max(1, len(lines))])
	}
	var b bytes.Buffer
	for i, line := range lines {
		sep := byte('-')
		if i == len(lines)-1 {
			sep = ' '
		}
		fmt.Fprintf(&b, "%03d%c", r.Code, sep)
		if r.Enhanced != "" {
			b.WriteString(r.Enhanced)
			b.WriteByte(' ')
		}
		b.WriteString(line)
		if pad := r.Width - len(line); pad > 0 {
			b.WriteString(strings.Repeat("x", pad))
		}
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func (r *Reply) or(fallback Reply) Reply {
	if r == nil {
		return fallback
	}
	return *r
}
