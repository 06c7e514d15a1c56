package maillog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/postfix"
)

// ReadOptions say where a log is read and how much of it.
type ReadOptions struct {
	// Opener opens what this process may not; nil where there is none.
	Opener *opener.Opener
	// Since is the start of the window; zero takes all there is.
	Since time.Time
	// MaxBytes bounds what Read reads; 0 is 256 MiB. The newest lines are read
	// first.
	MaxBytes int64
	// Location is the zone of stamps that name none; nil is this host's.
	Location *time.Location
	// Detail is that of Options.
	Detail bool
	// Missed, where it is not nil, hears of what Follow could not see.
	Missed func(observe.Gap)

	// root is put before the usual places, and journal is a directory of
	// journal files in place of the system's: for tests.
	root, journal string
}

const defaultMaxBytes = 256 << 20

func (o ReadOptions) maxBytes() int64 {
	if o.MaxBytes <= 0 {
		return defaultMaxBytes
	}
	return o.MaxBytes
}

func (o ReadOptions) tally(in postfix.Instance) Options {
	return Options{SyslogName: in.SyslogName, Location: o.Location, Since: o.Since, Detail: o.Detail}
}

// Where says where an instance logs: a file, or else the journal, or else
// nowhere that can be seen.
type Where struct {
	// Path is the file that is being written; its rotated siblings lie beside it.
	Path string
	// Configured is set where maillog_file names the file, so that postlogd
	// writes it and syslog does not.
	Configured bool
	Journal    bool
}

// usualPlaces are where syslog daemons put mail, the particular file before the
// one for everything: Debian, Red Hat, SUSE, and hosts with a folder for it.
var usualPlaces = [...]string{
	"/var/log/mail.log", "/var/log/maillog", "/var/log/mail", "/var/log/mail.info", "/var/log/mail/mail.log",
	"/var/log/mail/*.log", "/var/log/syslog", "/var/log/messages",
}

// Candidates returns the log files that an instance with that maillog_file may
// write: what an opener must be granted, since it is started before anything is
// read.
func Candidates(mailLogFile string) []string { return candidates("", mailLogFile) }

func candidates(root, mailLogFile string) []string {
	if mailLogFile != "" {
		if !isFile(mailLogFile) {
			return nil // /dev/stdout, or not there
		}
		return []string{mailLogFile}
	}
	var found []string
	for _, place := range usualPlaces {
		// The only error is a bad pattern, and these are ours.
		matches, _ := filepath.Glob(filepath.Join("/", root, place))
		for _, path := range matches {
			if isFile(path) && !slices.Contains(found, path) {
				found = append(found, path)
			}
		}
	}
	return found
}

// isFile takes a file between two rotations for one: it is there if one of its
// older parts is.
func isFile(path string) bool {
	st, err := os.Stat(path)
	if err == nil {
		return st.Mode().IsRegular()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return true // there, and not ours to see
	}
	older, err := siblings(path)
	return err == nil && len(older) > 0
}

// Find says where an instance logs now. maillog_file decides where it is set.
// Else Postfix speaks to syslog, and there is no asking where that writes: of
// the journal and the usual files it is the first that has a line in the
// instance's name. The journal comes first, since it alone knows who wrote.
func Find(in postfix.Instance, o ReadOptions) (Where, []observe.Gap) {
	if in.MailLogFile != "" {
		return Where{Path: in.MailLogFile, Configured: true}, nil
	}
	journal, gaps := journalHas(in, o)
	if journal {
		return Where{Journal: true}, nil
	}
	var first string
	for _, path := range candidates(o.root, "") {
		named, err := namesInstance(path, in, o)
		if err != nil {
			gaps = append(gaps, fileGap(path, err))
			continue
		}
		if named {
			return Where{Path: path}, gaps
		}
		if first == "" {
			first = path
		}
	}
	if first == "" {
		return Where{}, append(gaps, observe.Gap{
			Source: gapSource, Text: "no log was found where syslog usually writes one, and none in the journal",
			Hint: "set maillog_file, or let the syslog service write the facility mail to /var/log/mail.log",
		})
	}
	return Where{Path: first}, append(gaps, observe.Gap{
		Source: gapSource, Object: first, Text: fmt.Sprintf("no recent line in the name of %q was found, here or elsewhere", in.SyslogName),
		Hint: "look whether the syslog service runs, and where it writes the facility mail",
	})
}

const gapSource = "log"

// recent is how much of a file's end is searched for the instance's name.
const recent = 4 << 20

// namesInstance looks for the instance's name at the end of a file, or of the
// one before where the file has just been begun.
func namesInstance(path string, in postfix.Instance, o ReadOptions) (bool, error) {
	f, err := openLog(path, "", o.Opener)
	older, _ := siblings(path)
	if errors.Is(err, fs.ErrNotExist) && len(older) > 0 {
		err = nil
	}
	if err != nil {
		return false, err
	}
	files := []*logFile{f}
	if len(older) > 0 && (f == nil || f.size < recent) {
		if before, err := openLog(path, older[0].name, o.Opener); err == nil {
			files = append(files, before)
		}
	}
	found := false
	for _, f := range files {
		if f == nil {
			continue
		}
		found = found || f.mentions(in.SyslogName)
		f.close()
	}
	return found, nil
}

// mentions looks for a tag in the last lines of a file. A compressed file tells
// nothing.
func (f *logFile) mentions(name string) bool {
	if name == "" {
		name = "postfix"
	}
	end := make([]byte, min(f.size, recent))
	n, err := f.ReadAt(end, f.size-int64(len(end)))
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return bytes.Contains(end[:n], []byte(" "+name+"/"))
}
