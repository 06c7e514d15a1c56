package postfix

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// QueueID is the name of a queue file. It identifies a message only together
// with a Fingerprint: while enable_long_queue_ids is off, Postfix gives the
// same ID to different messages within seconds on a busy relay.
type QueueID string

// IDForm tells the two forms of a queue ID apart (global/mail_queue.h).
type IDForm uint8

const (
	// InvalidID is not a queue ID at all.
	InvalidID IDForm = iota
	// ShortID is five hexadecimal digits of microseconds and the inode number.
	ShortID
	// LongID is seconds and microseconds in base 52, "z", and the inode in base 51.
	LongID
)

// maxIDLength is the longest file name that mail_queue_id_ok accepts
// (VALID_HOSTNAME_LEN in global/mail_queue.c).
const maxIDLength = 255

// idAlphabet is the base-52 alphabet of global/mail_queue.h: digits and
// letters without vowels, so that no ID spells a word.
const idAlphabet = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

var errNotDecodable = errors.New("not in the form that Postfix generates")

// ParseQueueID accepts what Postfix itself accepts as the name of a queue
// file: 1 to 255 letters, digits and underscores (mail_queue_id_ok). The name
// may still be in neither of the two generated forms; see Form.
func ParseQueueID(s string) (QueueID, error) {
	if !ValidQueueID(s) {
		return "", fmt.Errorf("invalid queue ID %s: a queue ID is 1 to %d letters, digits or underscores", strconv.QuoteToASCII(clip(s)), maxIDLength)
	}
	return QueueID(s), nil
}

// ValidQueueID is the test of ParseQueueID without building an error. The
// directory scan calls it for every name that it meets.
func ValidQueueID[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > maxIDLength {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return true
}

// Form tells which form the ID has. The rule is Postfix's own: a "z" at
// position ten or later makes it long (MQID_FIND_LG_INUM_SEPARATOR).
func (id QueueID) Form() IDForm {
	if !ValidQueueID(string(id)) {
		return InvalidID
	}
	if hasLongForm(string(id)) {
		return LongID
	}
	return ShortID
}

func hasLongForm(id string) bool { return strings.LastIndexByte(id, 'z') >= 10 }

// Inode returns the inode number that is part of the ID.
func (id QueueID) Inode() (uint64, error) {
	switch id.Form() {
	case LongID:
		sep := strings.LastIndexByte(string(id), 'z')
		return decodeBase(string(id[sep+1:]), 51)
	case ShortID:
		if len(id) <= 5 {
			return 0, fmt.Errorf("decode queue ID %q: %w", string(id), errNotDecodable)
		}
		return decodeHex(string(id[5:]))
	}
	return 0, fmt.Errorf("decode queue ID %q: %w", clip(string(id)), errNotDecodable)
}

// Microseconds returns the sub-second part of the file's creation time, 0 to
// 999999, which both forms carry.
func (id QueueID) Microseconds() (int, error) {
	var usec uint64
	var err error
	switch id.Form() {
	case LongID:
		sep := strings.LastIndexByte(string(id), 'z')
		usec, err = decodeBase(string(id[sep-4:sep]), 52)
	case ShortID:
		if len(id) <= 5 {
			err = errNotDecodable
			break
		}
		usec, err = decodeHex(string(id[:5]))
	default:
		err = errNotDecodable
	}
	if err == nil && usec > 999999 {
		err = errNotDecodable
	}
	if err != nil {
		return 0, fmt.Errorf("decode queue ID %q: %w", clip(string(id)), err)
	}
	return int(usec), nil
}

// Time returns the creation time of the queue file to the microsecond. Only a
// long ID carries it whole; a short one gives an error.
func (id QueueID) Time() (time.Time, error) {
	if id.Form() != LongID {
		return time.Time{}, fmt.Errorf("decode queue ID %q: only a long queue ID carries the time", clip(string(id)))
	}
	sep := strings.LastIndexByte(string(id), 'z')
	sec, err := decodeBase(string(id[:sep-4]), 52)
	if err != nil {
		return time.Time{}, fmt.Errorf("decode queue ID %q: %w", string(id), err)
	}
	usec, err := id.Microseconds()
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(sec), int64(usec)*1000).UTC(), nil //nolint:gosec // six base-52 digits fit easily
}

// NewShortID builds the short form (MQID_SH_ENCODE in global/mail_queue.h).
func NewShortID(t time.Time, inode uint64) QueueID {
	return QueueID(fmt.Sprintf("%05X%X", t.Nanosecond()/1000, inode))
}

// NewLongID builds the long form (MQID_LG_ENCODE in global/mail_queue.h).
func NewLongID(t time.Time, inode uint64) QueueID {
	sec := encodeBase(uint64(t.Unix()), 52, 6)             //nolint:gosec // queue files are not older than 1970
	usec := encodeBase(uint64(t.Nanosecond()/1000), 52, 4) //nolint:gosec // not negative
	return QueueID(sec + usec + "z" + encodeBase(inode, 51, 1))
}

// HashPath returns the sub-directories, each with its slash, between the queue
// directory and the file, for a queue that is hashed depth levels deep. Long
// IDs are hashed by their microseconds in hexadecimal, short ones by their
// first characters (mail_queue_dir in global/mail_queue.c).
func (id QueueID) HashPath(depth int) string {
	return string(id.AppendHashPath(nil, depth))
}

// AppendHashPath appends HashPath(depth) to dst: the scan calls it once for
// every file and allocates nothing.
func (id QueueID) AppendHashPath(dst []byte, depth int) []byte {
	key := string(id)
	var digits [5]byte
	if depth > 0 && hasLongForm(key) {
		usec, err := id.Microseconds()
		if err != nil {
			usec = 0
		}
		for i := len(digits) - 1; i >= 0; i-- {
			digits[i] = "0123456789ABCDEF"[usec&15]
			usec >>= 4
		}
		key = string(digits[:])
	}
	for i := range depth {
		c := byte('_')
		if i < len(key) {
			c = key[i]
		}
		dst = append(dst, c, '/')
	}
	return dst
}

func decodeHex(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || strings.ToUpper(s) != s {
		return 0, errNotDecodable
	}
	return v, nil
}

func decodeBase(s string, base uint64) (uint64, error) {
	if s == "" {
		return 0, errNotDecodable
	}
	var v uint64
	for i := 0; i < len(s); i++ {
		d := strings.IndexByte(idAlphabet, s[i])
		if d < 0 || uint64(d) >= base || v > (1<<63)/base {
			return 0, errNotDecodable
		}
		v = v*base + uint64(d)
	}
	return v, nil
}

func encodeBase(v, base uint64, width int) string {
	var digits [16]byte
	i := len(digits)
	for v > 0 || i == len(digits) {
		i--
		digits[i] = idAlphabet[v%base]
		v /= base
	}
	for len(digits)-i < width {
		i--
		digits[i] = idAlphabet[0]
	}
	return string(digits[i:])
}

// clip shortens what is echoed in an error message: names can come from
// anywhere and be of any length.
func clip(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
