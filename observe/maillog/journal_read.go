package maillog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/postfix"
)

// journalBytes is how much of journalctl's output is read unless more is asked
// for. It formats some 30,000 entries a second, 700 bytes each: about three
// seconds.
const journalBytes = 64 << 20

const journalName = "journal"

// journalOutput is the output of one journalctl.
type journalOutput struct {
	io.Reader
	close func() error
}

// openJournal starts journalctl, by the opener where there is one.
func openJournal(ctx context.Context, since time.Time, follow bool, o ReadOptions) (*journalOutput, error) {
	if o.journal == "" {
		f, err := o.Opener.Journal(since, follow)
		if err == nil {
			// A read must end with the context, also where nothing comes.
			release := context.AfterFunc(ctx, func() { _ = f.Close() })
			return &journalOutput{Reader: f, close: func() error {
				release()
				_ = f.Close()
				return nil
			}}, nil
		}
		if !errors.Is(err, opener.ErrNone) {
			return nil, fmt.Errorf("start journalctl: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, "/usr/bin/journalctl", "--no-pager", "-q", "-o", "json",
		"-S", "@"+strconv.FormatInt(max(since.Unix(), 0), 10),
		"--output-fields=MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_UID,_EXE,_COMM,_SOURCE_REALTIME_TIMESTAMP",
		"SYSLOG_FACILITY=2")
	if follow {
		cmd.Args = append(cmd.Args, "-f", "-n", "all")
	}
	if o.journal != "" {
		cmd.Args = append(cmd.Args, "-D", o.journal)
	}
	var said bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start journalctl: %w", err)
	}
	return &journalOutput{Reader: out, close: func() error {
		cancel() // it may still be writing what nobody wants
		err := cmd.Wait()
		if text := strings.TrimSpace(said.String()); err != nil && text != "" {
			return fmt.Errorf("journalctl: %s", text)
		}
		return nil
	}}, nil
}

// journalFiles are the files of the system's journal, persistent or not.
func journalFiles() []string {
	var files []string
	for _, place := range [...]string{"/var/log/journal/*/system*.journal", "/run/log/journal/*/system*.journal"} {
		matches, _ := filepath.Glob(place)
		files = append(files, matches...)
	}
	return files
}

// journalHas says whether the journal has an entry in the instance's name of
// the last day.
func journalHas(in postfix.Instance, o ReadOptions) (bool, []observe.Gap) {
	if o.journal == "" {
		files := journalFiles()
		if len(files) == 0 {
			return false, nil
		}
		if o.Opener == nil && unix.Access(files[0], unix.R_OK) != nil {
			// journalctl would show this user's own entries and call it the journal.
			return false, []observe.Gap{{
				Source: gapSource, Object: journalName, Text: "permission denied",
				Hint: "run as root, or as a member of the group systemd-journal",
			}}
		}
	}
	since := o.Since
	if day := time.Now().AddDate(0, 0, -1); since.After(day) {
		since = day
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := openJournal(ctx, since, false, o)
	if err != nil {
		return false, []observe.Gap{{Source: gapSource, Object: journalName, Text: err.Error()}}
	}
	grammar := head{name: in.SyslogName}
	entries := newJournalReader(out)
	for entries.bytes < recent {
		l, err := entries.next()
		if errors.Is(err, errNoEntry) {
			continue
		}
		if err != nil {
			break
		}
		r := record{tag: l.Identifier}
		if grammar.owner(&r) == ours {
			_ = out.close()
			return true, nil
		}
	}
	if err := out.close(); err != nil && !errors.Is(err, os.ErrClosed) && entries.bytes == 0 {
		return false, []observe.Gap{{Source: gapSource, Object: journalName, Text: err.Error()}}
	}
	return false, nil
}

// readJournal reads the journal. journalctl begins with the oldest, and it is
// the newest that counts: where the window is more than may be read, a shorter
// one is tried.
func readJournal(ctx context.Context, in postfix.Instance, o ReadOptions) (*observe.Log, []observe.Gap) {
	limit := o.MaxBytes
	if limit <= 0 {
		limit = journalBytes
	}
	since := o.Since
	look := lookAtJournal(ctx, since, limit, in, o)
	for try := 1; look.full && look.last.After(look.first) && try < attempts; try++ {
		// What fitted, and a little less: the newest hour may be a busy one.
		shorter := time.Now().Add(-look.last.Sub(look.first) * 2 / 3)
		next := lookAtJournal(ctx, shorter, limit, in, o)
		if next.last.IsZero() {
			break // the journal ended before that: the older lines are better than none
		}
		since, look = shorter, next
	}
	log := look.tally.Log()
	log.Sources = []observe.LogSource{{Name: journalName, Trust: observe.TrustJournal, Bytes: look.bytes, Modified: look.last}}
	var gaps []observe.Gap
	switch {
	case look.err != nil:
		gaps = append(gaps, observe.Gap{
			Source: gapSource, Object: journalName, Text: look.err.Error(),
			Hint: "run journalctl --verify and look at what it says of the newest file",
		})
	case look.full:
		gaps = append(gaps, observe.Gap{
			Source: gapSource, Object: journalName,
			Text: fmt.Sprintf("what came after %s was left unread: no more than %d MiB are read", look.last.Format(time.DateTime), limit>>20),
			Hint: "ask for a shorter window",
		})
	case !since.Equal(o.Since):
		gaps = append(gaps, observe.Gap{
			Source: gapSource, Object: journalName,
			Text: fmt.Sprintf("what came before %s was left unread: no more than %d MiB are read", since.Format(time.DateTime), limit>>20),
		})
	}
	return log, gaps
}

// journalLook is one reading of the journal.
type journalLook struct {
	tally       *Tally
	bytes       int64
	first, last time.Time
	full        bool // there was more than the limit
	err         error
}

func lookAtJournal(ctx context.Context, since time.Time, limit int64, in postfix.Instance, o ReadOptions) journalLook {
	options := o.tally(in)
	options.Since = since
	look := journalLook{tally: NewTally(options)}
	out, err := openJournal(ctx, since, false, o)
	if err != nil {
		look.err = err
		return look
	}
	entries, by := newJournalReader(out), authorOf(in)
	broken := 0
	for !look.full {
		l, err := entries.next()
		if errors.Is(err, errNoEntry) {
			broken++
			continue
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				look.err = err
			}
			break
		}
		e := l.entry(by)
		if look.first.IsZero() {
			look.first = e.At
		}
		look.last = e.At
		look.tally.Entry(e)
		look.full = entries.bytes > limit
	}
	look.bytes = entries.bytes
	if err := out.close(); err != nil && !look.full {
		look.err = errors.Join(look.err, err)
	}
	if ctx.Err() != nil {
		look.err = errors.New("there was no time to read all of it")
	}
	if broken > 0 && look.err == nil {
		look.err = fmt.Errorf("%d of its lines could not be read", broken)
	}
	return look
}
