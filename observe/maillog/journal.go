package maillog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/postfix"
)

// journalLine is one object of `journalctl -o json`. A field is a string, null
// where it was too long to be shown, an array of numbers where it is not
// UTF-8, or an array of these where the entry has the field more than once.
type journalLine struct {
	Message    journalField `json:"MESSAGE"`
	Identifier journalField `json:"SYSLOG_IDENTIFIER"`
	SyslogPID  journalField `json:"SYSLOG_PID"`
	Received   journalField `json:"__REALTIME_TIMESTAMP"`
	Cursor     journalField `json:"__CURSOR"`
	// What journald itself noted of the sender; systemd.journal-fields(7) calls
	// fields with this prefix trusted.
	PID  journalField `json:"_PID"`
	UID  journalField `json:"_UID"`
	Exe  journalField `json:"_EXE"`
	Comm journalField `json:"_COMM"`
	Sent journalField `json:"_SOURCE_REALTIME_TIMESTAMP"`
}

type journalField []byte

// UnmarshalJSON implements json.Unmarshaler.
func (f *journalField) UnmarshalJSON(b []byte) error {
	*f = nil
	switch {
	case len(b) == 0 || string(b) == "null":
		return nil
	case b[0] == '"':
		var s string
		err := json.Unmarshal(b, &s)
		*f = []byte(s)
		return err
	case b[0] != '[':
		*f = bytes.Clone(b) // a number
		return nil
	}
	var numbers []uint8
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	for _, one := range list {
		n, err := strconv.ParseUint(string(one), 10, 8)
		if err != nil {
			return f.UnmarshalJSON(list[0]) // several values: the first
		}
		numbers = append(numbers, uint8(n))
	}
	*f = numbers
	return nil
}

func (f journalField) number() int64 {
	n, err := strconv.ParseInt(string(f), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// at is when the line was sent, or else when journald had it.
func (l *journalLine) at() time.Time {
	micro := l.Sent.number()
	if micro <= 0 {
		micro = l.Received.number()
	}
	return time.UnixMicro(micro)
}

// author knows the programs and users that write in an instance's name.
type author struct {
	daemons, commands string // folders, with a slash at the end
	owner             string // the mail owner's UID
}

func authorOf(in postfix.Instance) author {
	folder := func(dir, usual string) string {
		if dir == "" {
			dir = usual
		}
		return path.Clean(dir) + "/"
	}
	a := author{daemons: folder(in.DaemonDir, "/usr/lib/postfix/sbin"), commands: folder(in.CommandDir, "/usr/sbin")}
	if u, err := user.Lookup(readsAs(in)); err == nil {
		a.owner = u.Uid
	}
	return a
}

// wrote says whether an entry was written by Postfix. Its daemons are told by
// their folder. command_directory is often /usr/sbin, where others live too, so
// commands are told by name. All of them run as root or the mail owner, save
// those that users start, which speak only for themselves: anybody can start
// sendmail(1) or postlog(1) under another name.
func (a author) wrote(l *journalLine) bool {
	exe, comm, uid := strings.TrimSuffix(string(l.Exe), " (deleted)"), string(l.Comm), string(l.UID)
	program := path.Base(exe)
	ours := false
	switch {
	case exe == "":
		// The process had ended before journald looked: postsuper is that
		// quick. The user comes with the message and is always known.
		ours = comm == "" || slices.Contains(postfixPrograms[:], comm)
	case strings.HasPrefix(exe, a.daemons):
		ours = true
	case strings.HasPrefix(exe, a.commands):
		ours = slices.Contains(postfixPrograms[:], program)
	}
	if !ours || uid == "" {
		return false
	}
	if uid == "0" || uid == a.owner {
		return true
	}
	tag := string(l.Identifier)
	return slices.Contains(usersPrograms[:], program) && tag[strings.LastIndexByte(tag, '/')+1:] == program
}

// usersPrograms are what ordinary users start.
var usersPrograms = [...]string{"sendmail", "postdrop", "postqueue"}

// postfixPrograms are the names of Postfix's processes, as _COMM has them, and
// of its commands.
var postfixPrograms = [...]string{
	"anvil", "bounce", "cleanup", "discard", "dnsblog", "error", "flush", "lmtp", "local", "master", "nqmgr", "oqmgr",
	"pickup", "pipe", "postlogd", "postscreen", "proxymap", "qmgr", "qmqpd", "scache", "showq", "smtp", "smtpd", "spawn",
	"tlsmgr", "tlsproxy", "trivial-rewrite", "verify", "virtual",
	"postalias", "postcat", "postconf", "postdrop", "postfix", "postkick", "postlock", "postlog", "postmap", "postmulti",
	"postqueue", "postsuper", "sendmail", "postfix-script", "post-install",
}

// by names the writer of an entry.
func (l *journalLine) by() string {
	who := string(l.Exe)
	if who == "" {
		who = string(l.Comm)
	}
	if who == "" {
		who = "a program that had ended"
	}
	return fmt.Sprintf("%s, user %s", who, l.UID)
}

// entry turns a line of the journal into one for a Tally.
func (l *journalLine) entry(a author) Entry {
	pid := l.SyslogPID
	if len(pid) == 0 {
		pid = l.PID
	}
	e := Entry{At: l.at(), Tag: string(l.Identifier), PID: int(pid.number()), Message: l.Message, Trusted: a.wrote(l)}
	if !e.Trusted {
		e.By = l.by()
	}
	return e
}

// errNoEntry is what journalctl says that is no entry.
var errNoEntry = errors.New("the journal gave a line that is no entry")

// journalReader reads entries one by one.
type journalReader struct {
	in    *bufio.Reader
	bytes int64
}

func newJournalReader(r io.Reader) *journalReader {
	return &journalReader{in: bufio.NewReaderSize(r, bufferSize)}
}

// next returns the next entry; io.EOF is the end. An entry that cannot be
// decoded, or is longer than any that could be mail's, is errNoEntry and does
// not end the reading.
func (j *journalReader) next() (journalLine, error) {
	var l journalLine
	line, err := j.in.ReadSlice('\n')
	j.bytes += int64(len(line))
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = j.in.ReadSlice('\n')
			j.bytes += int64(len(line))
		}
		if err == nil {
			err = errNoEntry
		}
		return l, err
	}
	if err != nil {
		return l, err
	}
	if wrong := json.Unmarshal(line, &l); wrong != nil || l.Sent.number() <= 0 && l.Received.number() <= 0 {
		return l, errNoEntry
	}
	return l, nil
}
