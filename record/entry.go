package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"holdfast/postfix"
)

// The form of a line of the audit log:
//
//	HASH PREV SEQ TIME KIND REF {"files":["ID:INODE",...],"detail":DETAIL}
//
// What Holdfast itself says stands in front, in columns that need no decoding;
// what strangers may have written stands in DETAIL, at the end, where it can
// reach nothing. HASH covers all of the line behind it.

const (
	// MaxDetail bounds the detail of one entry, in bytes.
	MaxDetail = 16 << 20
	// MaxLine bounds a line.
	MaxLine = MaxDetail + 8<<20

	hashLength = 64
	timeForm   = "2006-01-02T15:04:05.000000Z"
)

// NoHash stands for the line before the first one.
var NoHash = strings.Repeat("0", hashLength)

// ErrEntry is what every error of a line that does not parse wraps.
var ErrEntry = errors.New("not an entry of an audit log")

// Encode encodes a detail as JSON in printable ASCII: the hand, which stores
// it, can then check that it holds no line end without decoding it.
func Encode(v any) ([]byte, error) {
	var raw bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode an entry: %w", err)
	}
	text := bytes.TrimSuffix(raw.Bytes(), []byte("\n"))
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			i++
			if c == 0x7f {
				out = append(out, `\u007f`...)
				continue
			}
			out = append(out, c)
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		i += n
		if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
			out = fmt.Appendf(out, `\u%04x\u%04x`, r1, r2)
			continue
		}
		out = fmt.Appendf(out, `\u%04x`, r)
	}
	return out, nil
}

// Storable reports whether bytes may be a detail: printable ASCII, not too many.
func Storable(detail []byte) bool {
	if len(detail) == 0 || len(detail) > MaxDetail {
		return false
	}
	for _, c := range detail {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// AppendLine appends the line of an entry, with its line end, and sets the
// entry's Hash. Seq, At, Kind, Ref, Prev, Files and Detail must be set.
func AppendLine(dst []byte, e *Entry) ([]byte, error) {
	if !Storable(e.Detail) || e.Seq == 0 || len(e.Prev) != hashLength || !hexOnly(e.Prev) || !wordOf(string(e.Kind)) {
		return dst, fmt.Errorf("write an entry of kind %q: %w", e.Kind, ErrEntry)
	}
	start := len(dst)
	dst = append(dst, NoHash...)
	dst = append(dst, ' ')
	covered := len(dst)
	dst = append(dst, e.Prev...)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, e.Seq, 10)
	dst = append(dst, ' ')
	dst = e.At.UTC().AppendFormat(dst, timeForm)
	dst = append(dst, ' ')
	dst = append(dst, e.Kind...)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, e.Ref, 10)
	dst = append(dst, filesPrefix...)
	for i, f := range e.Files {
		if !postfix.ValidQueueID(string(f.ID)) {
			return dst[:start], fmt.Errorf("write an entry: %q is no queue ID: %w", f.ID, ErrEntry)
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, f.ID...)
		dst = append(dst, ':')
		dst = strconv.AppendUint(dst, f.Inode, 10)
		dst = append(dst, '"')
	}
	dst = append(dst, detailPrefix...)
	dst = append(dst, e.Detail...)
	dst = append(dst, '}')
	sum := sha256.Sum256(dst[covered:])
	hex.Encode(dst[start:], sum[:])
	e.Hash = string(dst[start : start+hashLength])
	return append(dst, '\n'), nil
}

const (
	filesPrefix  = ` {"files":[`
	detailPrefix = `],"detail":`
)

// wordOf reports whether s can stand as a column: lower-case letters and "-".
func wordOf(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// ParseHead reads the columns in front of a line without its line end, and
// checks the hash. It looks at nothing behind them, which is what the hand,
// being root, may do. rest is what follows the columns.
func ParseHead(line []byte) (e Entry, rest []byte, err error) {
	bad := func(what string) (Entry, []byte, error) {
		return Entry{}, nil, fmt.Errorf("%w: %s", ErrEntry, what)
	}
	if len(line) < 2*hashLength+10 || line[hashLength] != ' ' || line[2*hashLength+1] != ' ' {
		return bad("too short, or without its hashes")
	}
	sum := sha256.Sum256(line[hashLength+1:])
	if hex.EncodeToString(sum[:]) != string(line[:hashLength]) {
		return bad("the hash does not fit the line")
	}
	e.Hash, e.Prev = string(line[:hashLength]), string(line[hashLength+1:2*hashLength+1])
	if !hexOnly(e.Prev) {
		return bad("the hash of the line before is none")
	}
	var columns [4]string
	rest = line[2*hashLength+2:]
	for i := range columns {
		end := bytes.IndexByte(rest, ' ')
		if end < 0 || end > 40 {
			return bad("a column is missing")
		}
		columns[i], rest = string(rest[:end]), rest[end+1:]
	}
	if e.Seq, err = number(columns[0]); err != nil || e.Seq == 0 {
		return bad("the number of the entry is none")
	}
	if e.At, err = time.Parse(timeForm, columns[1]); err != nil || e.At.Format(timeForm) != columns[1] {
		return bad("the time is none")
	}
	if !wordOf(columns[2]) {
		return bad("the kind is none")
	}
	e.Kind = Kind(columns[2])
	if e.Ref, err = number(columns[3]); err != nil {
		return bad("the reference is none")
	}
	e.Length = len(line) + 1
	return e, rest, nil
}

// ParseLine reads a whole line without its line end.
func ParseLine(line []byte) (Entry, error) {
	e, rest, err := ParseHead(line)
	if err != nil {
		return Entry{}, err
	}
	bad := func(what string) (Entry, error) { return Entry{}, fmt.Errorf("%w: %s", ErrEntry, what) }
	rest, ok := bytes.CutPrefix(rest, []byte(filesPrefix[1:]))
	if !ok {
		return bad("it names no files")
	}
	end := bytes.IndexByte(rest, ']')
	if end < 0 {
		return bad("its files do not end")
	}
	if e.Files, ok = parseFiles(string(rest[:end])); !ok {
		return bad("its files are none")
	}
	rest, ok = bytes.CutPrefix(rest[end:], []byte(detailPrefix))
	detail, closed := bytes.CutSuffix(rest, []byte("}"))
	// One value, whole: else the detail could close the object and say more.
	if !ok || !closed || !Storable(detail) || !json.Valid(detail) {
		return bad("its detail is none")
	}
	e.Detail = json.RawMessage(detail)
	return e, nil
}

func parseFiles(text string) ([]File, bool) {
	if text == "" {
		return nil, true
	}
	words := strings.Split(text, ",")
	files := make([]File, 0, len(words))
	for _, word := range words {
		if len(word) < 2 || word[0] != '"' || word[len(word)-1] != '"' {
			return nil, false
		}
		id, inode, ok := strings.Cut(word[1:len(word)-1], ":")
		n, err := number(inode)
		if !ok || err != nil || !postfix.ValidQueueID(id) {
			return nil, false
		}
		files = append(files, File{postfix.QueueID(id), n})
	}
	return files, true
}

// number reads decimal digits in their shortest form: two spellings of one
// entry would be two lines with one meaning.
func number(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, ErrEntry
	}
	return n, nil
}

func hexOnly(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// TornBody is the detail of Torn: the line before was cut short by a crash, so
// nothing was done on its word. It stays where it is.
type TornBody struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"` // with the line end that was added
	Sum    string `json:"sha256"` // of these bytes
}

// BeginBody is the detail of Begin.
type BeginBody struct {
	Host string `json:"host"`
	Zone string `json:"zone"`
	// Key verifies the signature on checkpoints of the log.
	Key string `json:"key"`
}
