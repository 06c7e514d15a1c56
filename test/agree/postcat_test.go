package agree

// What postcat says about a queue file.

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"holdfast/postfix"
)

// file is a queue file as postcat prints it.
type file struct {
	path     string // below the queue directory
	sizes    []int64
	arrival  time.Time // to the second; postcat prints no more
	timeAt   int64     // offset of the record that has the microseconds
	created  time.Time
	sender   *string
	attrs    map[string]string
	rcpts    []rcptRecord
	filter   string
	redirect string
	head     string // the headers, as postcat -h takes them
	warned   string // when the sender is to be told of the delay; -1, as a time, when he was
	ended    bool   // the end record was reached
}

// rcptRecord is one R, D or / record with what stands before it.
type rcptRecord struct {
	kind     byte
	original string
	address  string
	at       int64
}

const postcatTime = "Mon Jan _2 15:04:05 2006"

// postcat prints many files by one process. It ends at the first damaged one,
// so those must not be among the names.
func (j *jam) postcat(args []string, names []string) []*file {
	j.Helper()
	const batch = 100
	var files []*file
	for len(names) > 0 {
		n := min(batch, len(names))
		argv := append([]string{"postcat", "-e", "-h", "-o", "-d", "-v"}, args...)
		files = append(files, j.parsePostcat(in(j.T, j.Lab, "", append(argv, names[:n]...)...))...)
		names = names[n:]
	}
	return files
}

func (j *jam) parsePostcat(text string) []*file {
	j.Helper()
	var files []*file
	var f *file
	original := ""
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if path, ok := strings.CutPrefix(line, "*** ENVELOPE RECORDS "); ok {
			f = &file{path: strings.TrimSuffix(path, " ***"), attrs: make(map[string]string)}
			files = append(files, f)
			continue
		}
		at, kind, rest, err := cutRecord(line)
		if err != nil || f == nil {
			j.Fatalf("postcat printed %q: %v", line, err)
		}
		_, value, _ := strings.Cut(rest, ": ")
		switch kind {
		case 'O':
			original = value
		case 'R', 'D', '/':
			f.rcpts = append(f.rcpts, rcptRecord{kind, original, value, at})
			original = ""
		default:
			check(j.T, f.take(at, kind, rest, value))
		}
	}
	return files
}

// cutRecord splits "   97  84 message_arrival_time: ...": offset, record type,
// and what the record says.
func cutRecord(line string) (at int64, kind byte, rest string, err error) {
	number, line, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
	code, rest, ok := strings.Cut(strings.TrimLeft(line, " "), " ")
	if !ok {
		return 0, 0, "", fmt.Errorf("no record")
	}
	if at, err = strconv.ParseInt(number, 10, 64); err != nil {
		return 0, 0, "", err
	}
	k, err := strconv.ParseUint(code, 10, 8)
	return at, byte(k), rest, err
}

func (f *file) take(at int64, kind byte, rest, value string) (err error) {
	switch kind {
	case 'C':
		for _, word := range strings.Fields(value) {
			n, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				return err
			}
			f.sizes = append(f.sizes, n)
		}
	case 'T':
		f.timeAt = at
		f.arrival, err = time.Parse(postcatTime, value)
	case 'S':
		f.sender = &value
	case '>':
		f.redirect = value
	case 'A':
		if strings.HasPrefix(rest, "create_time: ") {
			f.created, err = time.Parse(postcatTime, value)
			return err
		}
		name, v, _ := strings.Cut(value, "=")
		f.attrs[name] = v
	case 'N':
		f.head += value + "\n"
	case 'L':
		// In the envelope a filter, in the content a line without its end.
		if strings.HasPrefix(rest, "content_filter: ") {
			f.filter = value
		} else {
			f.head += value
		}
	case 'W':
		f.warned = value
	case 'E':
		f.ended = true
	}
	return err
}

// exactArrival reads the time record at the offset that postcat gives: type,
// one byte of length, seconds, blank, microseconds.
func (j *jam) exactArrival(f *file) time.Time {
	j.Helper()
	data, err := os.ReadFile(filepath.Join(j.spool, f.path))
	check(j.T, err)
	record := data[f.timeAt:]
	if record[0] != 'T' || record[1] >= 0x80 {
		j.Fatalf("%s: no time record at %d", f.path, f.timeAt)
	}
	var sec, usec int64
	_, err = fmt.Sscanf(string(record[2:2+record[1]]), "%d %d", &sec, &usec)
	check(j.T, err)
	return time.Unix(sec, usec*1000).UTC()
}

// message is what the reader should have made of the file: what postcat cannot
// know, and what only maildrop lacks, is left out.
func (j *jam) message(f *file) *postfix.Message {
	j.Helper()
	m := &postfix.Message{
		ID: postfix.QueueID(filepath.Base(f.path)), Arrival: j.exactArrival(f), Created: f.created,
		Filter: f.filter, Redirect: f.redirect, SASLUser: f.attrs["sasl_username"], MessageID: f.attrs["message_id"],
		Client: postfix.Client{
			Name: f.attrs["log_client_name"], Address: f.attrs["log_client_address"],
			Helo: f.attrs["log_helo_name"], Protocol: f.attrs["log_protocol_name"],
		},
	}
	queue, _, _ := strings.Cut(f.path, "/")
	var err error
	m.Queue, err = postfix.ParseQueue(queue)
	check(j.T, err)
	if f.sender != nil {
		m.Sender = *f.sender
	}
	if m.Created.IsZero() {
		m.Created = f.arrival
	}
	if len(f.sizes) == 6 && m.Queue != postfix.Maildrop {
		m.Size, m.DataOffset, m.TotalRecipients, m.ContentLength = f.sizes[0], f.sizes[1], int(f.sizes[2]), f.sizes[4]
		m.SMTPUTF8 = f.sizes[5]&15 != 0
	}
	for _, r := range f.rcpts {
		switch r.kind {
		case 'R':
			m.Recipients = append(m.Recipients, r.recipient())
		case 'D':
			m.Done++
		}
	}
	return m
}

func (r rcptRecord) recipient() postfix.Recipient {
	out := postfix.Recipient{Address: r.address, Offset: r.at}
	if r.original != r.address {
		out.Original = r.original
	}
	return out
}
