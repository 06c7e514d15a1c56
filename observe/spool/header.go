package spool

import (
	"bytes"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
)

// Header is one header field of a queued message, as far as it is one.
type Header struct {
	// Name is the field name as it stands, "" for a line that has none.
	Name string `json:"name,omitempty"`
	// Value is the unfolded value, undecoded: raw bytes of a stranger.
	Value string `json:"value"`
	// Raw is the whole field with its folds, without the last line end.
	Raw string `json:"-"`
	// Malformed is set for what RFC 5322 does not allow; Problem says what.
	Malformed bool   `json:"malformed,omitempty"`
	Problem   string `json:"problem,omitempty"`
}

// The problems of a header field. Where there are several, the first of this
// list that applies is named: what a filter or a remote server most likely
// stumbled over.
const (
	NoColon        = "no colon"
	MailboxLine    = "separator line of a mailbox file"
	NoFieldBefore  = "continues a field that is not there"
	OddName        = "blank, control or 8-bit character in the name"
	NullByte       = "null byte"
	BareReturn     = "carriage return without line feed"
	ControlByte    = "control character in the value"
	UnknownCharset = "8-bit text that is not UTF-8"
	TooLongLine    = "line of more than 998 bytes"
)

// HeaderEnd says where and how the headers end.
type HeaderEnd struct {
	// Body is the offset of the first byte behind the headers and their blank line.
	Body int
	// Blank is set where a blank line ended them, as it should.
	Blank bool
	// Cut is set where the limits ended the scan and not the text.
	Cut bool
}

const (
	maxHeaders     = 1000
	maxHeaderBytes = 256 << 10
	// maxLineBytes is the limit of RFC 5322, 2.1.1, without the line end.
	maxLineBytes = 998
)

// ScanHeaders reads the headers at the beginning of a message. Parsers for
// well-formed mail stop at the first line that is none; the mail that is stuck
// is often just that mail, and an operator must see it. So this one never
// stops: a line that is no header is kept and marked, and only a blank line,
// the end of the text or the limits (1,000 fields, 256 KiB) end the scan.
//
// Where no blank line ends the headers, nameless lines at their end are taken
// for the body: "headers only" must not show the text of a message that has no
// headers at all, which is what a careless sendmail(1) call leaves in maildrop.
func ScanHeaders(text []byte) ([]Header, HeaderEnd) {
	cut := len(text) > maxHeaderBytes
	// One copy for all fields: each is a part of it.
	all := string(text[:min(len(text), maxHeaderBytes)])
	s := headerScan{all: all}
	at := 0
	for at < len(all) {
		line, next := cutLine(all, at)
		// Where the limit cuts, what looks empty may go on behind it.
		if line == "" && (!cut || all[next-1] == '\n') {
			s.close(at)
			return s.headers, HeaderEnd{Body: next, Blank: true}
		}
		if !s.open || line != "" && !isBlank(line[0]) {
			s.close(at)
			if len(s.headers) == maxHeaders {
				cut = true
				break
			}
			s.start, s.open = at, true
		}
		at = next
	}
	s.close(at)
	return s.withoutBody(HeaderEnd{Body: at, Cut: cut})
}

// headerScan collects fields: a field is closed when the next one begins.
type headerScan struct {
	all     string
	headers []Header
	starts  []int // where each field begins
	start   int
	open    bool
}

func (s *headerScan) close(end int) {
	if !s.open {
		return
	}
	s.open = false
	field := s.all[s.start:end]
	if strings.Trim(field, "\r\n") == "" {
		return // what the limit left of a line end
	}
	s.headers, s.starts = append(s.headers, parseHeader(field)), append(s.starts, s.start)
}

// withoutBody gives nameless lines at the end back to the body.
func (s *headerScan) withoutBody(end HeaderEnd) ([]Header, HeaderEnd) {
	n := len(s.headers)
	for n > 0 && s.headers[n-1].Name == "" {
		n--
		end.Body = s.starts[n]
	}
	return s.headers[:n], end
}

// cutLine returns the line at off without its end, and where the next starts.
// A carriage return before the line feed is part of the end.
func cutLine(text string, off int) (line string, next int) {
	end := strings.IndexByte(text[off:], '\n')
	if end < 0 {
		return strings.TrimSuffix(text[off:], "\r"), len(text)
	}
	return strings.TrimSuffix(text[off:off+end], "\r"), off + end + 1
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// parseHeader reads one field, given with its line ends.
func parseHeader(raw string) Header {
	h := Header{Raw: strings.TrimSuffix(strings.TrimSuffix(raw, "\n"), "\r")}
	first, _ := cutLine(raw, 0)
	colon := strings.IndexByte(first, ':')
	switch {
	case isBlank(raw[0]):
		h.Problem = NoFieldBefore
	case strings.HasPrefix(first, "From "), strings.HasPrefix(first, ">From "):
		// "From a@x Mon Jan 1 00:00:00" has a colon as well, in the time.
		h.Problem = MailboxLine
	case colon <= 0:
		h.Problem = NoColon
	default:
		h.Name = strings.TrimRight(raw[:colon], " \t")
		h.Value = unfold(raw[colon+1:])
		h.Problem = problemOf(raw, raw[:colon])
	}
	if h.Name == "" {
		h.Value = unfold(raw)
	}
	h.Malformed = h.Problem != ""
	return h
}

// problemOf says what is wrong with a field that has a name.
func problemOf(raw, name string) string {
	for i := range len(name) {
		// RFC 5322, 2.2: printable US-ASCII but the colon.
		if name[i] <= ' ' || name[i] > '~' {
			return OddName
		}
	}
	if strings.IndexByte(raw, 0) >= 0 {
		return NullByte
	}
	control, long := false, false
	for at := 0; at < len(raw); {
		line, next := cutLine(raw, at)
		if strings.IndexByte(line, '\r') >= 0 {
			return BareReturn
		}
		control = control || hasControl(line)
		long = long || len(line) > maxLineBytes
		at = next
	}
	switch {
	case control:
		return ControlByte
	case !utf8.ValidString(raw):
		return UnknownCharset
	case long:
		return TooLongLine
	}
	return ""
}

func hasControl(line string) bool {
	for i := range len(line) {
		if c := line[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// unfold joins the lines of a value by single blanks.
func unfold(raw string) string {
	if line, next := cutLine(raw, 0); next == len(raw) {
		return strings.Trim(line, " \t")
	}
	var b strings.Builder
	for at := 0; at < len(raw); {
		line, next := cutLine(raw, at)
		if line = strings.Trim(line, " \t"); line != "" {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(line)
		}
		at = next
	}
	return b.String()
}

// MessageID returns the identifier in the first Message-ID field: the part in
// angle brackets where there is one, with them. "" means that there is none.
func MessageID(headers []Header) string {
	for _, h := range headers {
		if !strings.EqualFold(h.Name, "Message-ID") {
			continue
		}
		from := strings.IndexByte(h.Value, '<')
		if from >= 0 {
			if to := strings.IndexByte(h.Value[from:], '>'); to > 1 {
				return h.Value[from : from+to+1]
			}
		}
		return h.Value
	}
	return ""
}

// maxWordsBytes is how much of a value is decoded at once. The decoder of
// package mime looks for the end of a word from every beginning, so its cost
// grows with the square of a value that is made to hurt.
const maxWordsBytes = 4 << 10

// DecodeWords decodes the encoded words of RFC 2047 in a value. What cannot be
// decoded stays as it is: the text of a broken subject is evidence too. The
// result is as hostile as the value, and may hold control characters that the
// encoding had hidden.
func DecodeWords(value string) string {
	if !strings.Contains(value, "=?") {
		return value
	}
	d := mime.WordDecoder{CharsetReader: charsetReader}
	var b strings.Builder
	for value != "" {
		part := value
		if len(part) > maxWordsBytes {
			// An encoded word has no blank in it (RFC 2047, 2).
			part = part[:maxWordsBytes]
			if blank := strings.LastIndexAny(part, " \t"); blank > 0 {
				part = part[:blank]
			}
		}
		value = value[len(part):]
		if out, err := d.DecodeHeader(part); err == nil {
			if utf8.ValidString(part) {
				// A word that says it is UTF-8 is taken at its word by package mime.
				out = strings.ToValidUTF8(out, "\uFFFD")
			}
			part = out
		}
		b.WriteString(part)
	}
	return b.String()
}

// charsetReader knows the charsets that browsers know. Of any other one the
// ASCII is kept, for names and numbers in a subject are mostly that.
func charsetReader(charset string, in io.Reader) (io.Reader, error) {
	if enc, err := htmlindex.Get(charset); err == nil {
		return enc.NewDecoder().Reader(in), nil
	}
	raw, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	if utf8.Valid(raw) {
		return bytes.NewReader(raw), nil
	}
	for i, c := range raw {
		if c > '~' {
			raw[i] = '?'
		}
	}
	return bytes.NewReader(raw), nil
}
