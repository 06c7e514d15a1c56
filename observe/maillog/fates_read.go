package maillog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// Trace is what of a log was read for an account.
type Trace struct {
	Sources []observe.LogSource
	Lines   int64
	// Suspect counts lines in Postfix's name that it did not write.
	Suspect int64
	// Holes are the times from which lines are missing, as far as the log
	// itself shows it. A line that was dropped without a trace is in none.
	Holes []Hole
	Gaps  []observe.Gap
}

// Steps calls each with the lines that tell of messages, the oldest first, from
// a position on, or where that is gone, or zero, from o.Since. It reads to the
// end of the log; o.MaxBytes does not bound it, since an account over half a
// log is none.
func Steps(ctx context.Context, in postfix.Instance, o ReadOptions, from Position, each func(*Step)) Trace {
	where, gaps := Find(in, o)
	t := &tracing{in: in, o: o, each: each, head: head{name: in.SyslogName}}
	t.Gaps = gaps
	switch {
	case where.Journal:
		t.journal(ctx, from)
	case where.Path == "" || where.Configured && isStream(where.Path):
		t.Gaps = append(t.Gaps, observe.Gap{Source: gapSource, Object: where.Path, Text: "there is no log that could be read", Hint: "set maillog_file to a file below /var"})
		t.hole(o.Since, time.Time{}, "there is no log")
	default:
		t.file(ctx, where, from)
	}
	t.closeHole(time.Time{})
	return t.Trace
}

// slackBefore is how much earlier lines are taken from where only a time is
// known. Stamps are of whole seconds, and step back by one.
const slackBefore = 2 * time.Second

// tracing is one Steps.
type tracing struct {
	Trace
	in   postfix.Instance
	o    ReadOptions
	each func(*Step)
	head head
	rec  record

	since  int64 // lines before are left out; 0 where the place is known
	last   int64 // stamp of the last line that could be read
	open   bool  // the last hole ends with the next line
	strict bool  // a line that cannot be read is one of Postfix
}

// mostHoles bounds what a damaged log makes: the last one then reaches on.
const mostHoles = 1000

func (t *tracing) hole(from, to time.Time, text string) {
	if n := len(t.Holes); n >= mostHoles {
		t.Holes[n-1].To = to
		return
	}
	t.Holes = append(t.Holes, Hole{From: from, To: to, Text: text})
}

// missing begins a hole at the last line that could be read.
func (t *tracing) missing(text string) {
	if t.open {
		return
	}
	var from time.Time
	if t.last != 0 {
		from = timeOf(t.last)
	}
	t.hole(from, time.Time{}, text)
	t.open = true
}

func (t *tracing) closeHole(at time.Time) {
	if t.open && len(t.Holes) > 0 {
		t.Holes[len(t.Holes)-1].To = at
	}
	t.open = false
}

// file reads a log and its older parts, the oldest first.
func (t *tracing) file(ctx context.Context, where Where, from Position) {
	files, err := openRotation(where.Path, t.o.Since, t.o.Opener)
	if err != nil {
		t.Gaps = append(t.Gaps, missingGap(where, err))
		t.hole(t.o.Since, time.Time{}, "the log could not be opened")
		return
	}
	defer files.close()
	for _, err := range files.errs {
		t.Gaps = append(t.Gaps, fileGap(where.Path, err))
		t.hole(t.o.Since, time.Time{}, "a part of the log could not be opened")
	}
	if files.missing != nil {
		t.Gaps = append(t.Gaps, missingGap(where, files.missing))
	}
	t.strict = where.Configured
	first, offset, exact := files.place(from)
	if !exact {
		// Agents log a delivery before they mark it in the file: a line from just
		// before the look can be of a recipient that was still to do in it.
		t.since = t.o.Since.Truncate(time.Second).Add(-slackBefore).UnixNano()
		first, offset = len(files.files)-1, 0
		t.reaches(files)
	}
	for i := first; i >= 0 && ctx.Err() == nil; i-- {
		f := files.files[i]
		trust := f.trust(where.Configured, readsAs(t.in))
		if trust == observe.TrustGuarded && anybodyMayLog(t.in) {
			trust = observe.TrustPlain
		}
		zone, gaps := zoneOf(f, t.o.Location)
		t.Gaps = append(t.Gaps, gaps...)
		t.head.set(zone, f.written)
		n, err := t.lines(ctx, f, offset, i == 0 && files.missing == nil, trust)
		if err != nil {
			t.Gaps = append(t.Gaps, fileGap(f.name, err))
			t.missing("the rest of " + filepath.Base(f.name) + " could not be read")
		}
		t.Sources = append(t.Sources, observe.LogSource{Name: f.name, Trust: trust, Bytes: n, Modified: f.written})
		offset = 0
	}
	if ctx.Err() != nil {
		t.Gaps = append(t.Gaps, observe.Gap{Source: gapSource, Object: where.Path, Text: "there was no time to read all of it"})
		t.missing("there was no time to read on")
	}
}

// anybodyMayLog says whether postlog(1) lends everybody the right to write by
// postlogd, under any name: it does where it is installed set-gid, as Postfix
// allows since 3.7.
func anybodyMayLog(in postfix.Instance) bool {
	dir := in.CommandDir
	if dir == "" {
		dir = "/usr/sbin"
	}
	st, err := os.Stat(filepath.Join(dir, "postlog"))
	return err == nil && st.Mode()&(os.ModeSetgid|os.ModeSetuid) != 0
}

// place finds the file that a position is in, and the offset in it.
func (p *rotation) place(from Position) (index int, offset int64, exact bool) {
	if from.Absent {
		return len(p.files) - 1, 0, true
	}
	want := inode{device: from.Device, number: from.Inode}
	for i, f := range p.files {
		if f.inode != want || want.number == 0 {
			continue
		}
		if t, ok := growFrom(f, from.Offset); ok && t.position() == from {
			return i, from.Offset, true
		}
	}
	return 0, 0, false
}

// reaches adds a hole where the oldest part that is left begins after the time
// from which the log is wanted. A log of which no line is older could have
// begun then, or have been cut: that is not told apart.
func (t *tracing) reaches(files *rotation) {
	if len(files.unopened) > 0 || t.o.Since.IsZero() {
		return // the parts before are older than the window
	}
	var begin time.Time
	if n := len(files.files); n > 0 {
		f := files.files[n-1]
		lines, err := f.firstLines()
		if err != nil {
			t.Gaps = append(t.Gaps, fileGap(f.name, err))
		}
		var c clock
		zone, _ := zoneOf(f, t.o.Location)
		c.set(zone, f.written)
		for len(lines) > 0 && begin.IsZero() {
			if at, _, ok := c.read(lines); ok {
				begin = timeOf(at)
			}
			_, lines, _ = bytes.Cut(lines, []byte("\n"))
		}
	}
	if begin.IsZero() || begin.After(t.o.Since) {
		t.hole(t.o.Since, begin, "the log does not reach back as far")
	}
}

// lines reads the lines of one file from an offset on. The rest of a line that
// is being written is left out.
func (t *tracing) lines(ctx context.Context, f *logFile, offset int64, live bool, trust observe.Trust) (int64, error) {
	take := func(block []byte) {
		for len(block) > 0 {
			line, rest, _ := bytes.Cut(block, []byte("\n"))
			block = rest
			t.Lines++
			t.line(bytes.TrimSuffix(line, []byte("\r")), f.name, trust)
		}
	}
	beginning, err := f.beginning()
	if err != nil {
		return 0, err
	}
	if packingOf(beginning) != plain {
		return t.packed(ctx, f, take)
	}
	fragment, err := span{file: f, from: offset, to: f.size}.each(ctx, make([]byte, bufferSize), take)
	if len(fragment) > 0 && !(live && beingWritten(f.written)) {
		take(fragment)
	}
	if err == nil {
		err = f.unchanged(beginning)
	}
	return f.size - offset, err
}

// packed reads a compressed file.
func (t *tracing) packed(ctx context.Context, f *logFile, take func([]byte)) (int64, error) {
	unpacked, end, err := unpack(io.NewSectionReader(f, 0, f.size))
	if err != nil {
		return 0, err
	}
	defer end()
	const most = 2000 // as for a summary: what unpacks to more was made to
	in := &bounded{r: unpacked, left: max(f.size*most, defaultMaxBytes)}
	chunk, have, n := make([]byte, chunkSize), 0, int64(0)
	for ctx.Err() == nil {
		got, err := fill(in, chunk, have)
		n += int64(got - have)
		whole := bytes.LastIndexByte(chunk[:got], '\n') + 1
		if whole == 0 || err != nil {
			whole = got // the end, or a line that fills it all
		}
		take(chunk[:whole])
		have = copy(chunk, chunk[whole:got])
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

// line takes one line of a text log.
func (t *tracing) line(line []byte, source string, trust observe.Trust) {
	r := &t.rec
	who := t.head.parse(line, r)
	if who == broken {
		if _, who = t.head.glued(line, r); who == ours {
			t.missing("a line was cut, as by a full disk")
		}
	}
	switch {
	case who == suspect:
		t.Suspect++
		return
	case who == broken:
		if t.strict && len(line) > 0 {
			t.missing("a line could not be read")
		}
		return
	case who == other:
		if lost(line) {
			t.missing("the log itself says that lines were thrown away")
		}
		return
	case t.since != 0 && r.at < t.since:
		t.last = r.at
		return
	case !r.parseText():
		t.missing("a line could not be read")
		return
	}
	t.tell(source, trust)
}

// tell hands a line on.
func (t *tracing) tell(source string, trust observe.Trust) {
	if t.open {
		t.closeHole(timeOf(t.rec.at))
	}
	t.last = t.rec.at
	if s, ok := t.rec.step(source, trust); ok {
		t.each(&s)
	}
}

// journal reads the journal. Its entries were written by whom journald saw
// writing them: those of others than Postfix are no evidence at all.
func (t *tracing) journal(ctx context.Context, from Position) {
	since := t.o.Since
	if !from.At.IsZero() {
		since = from.At
	}
	t.journalReaches(ctx, since)
	// journalctl is asked from the second before: stamps are not in its order.
	out, err := openJournal(ctx, since.Add(-time.Second), false, t.o)
	if err != nil {
		t.Gaps = append(t.Gaps, observe.Gap{Source: gapSource, Object: journalName, Text: err.Error()})
		t.hole(since, time.Time{}, "the journal could not be read")
		return
	}
	entries, by := newJournalReader(out), authorOf(t.in)
	damaged := 0
	source := observe.LogSource{Name: journalName, Trust: observe.TrustJournal}
	for {
		l, err := entries.next()
		if errors.Is(err, errNoEntry) {
			damaged++
			t.missing("an entry of the journal could not be read")
			continue
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Gaps = append(t.Gaps, observe.Gap{Source: gapSource, Object: journalName, Text: err.Error()})
			}
			break
		}
		e := l.entry(by)
		t.Lines++
		source.Modified = e.At
		t.entry(&e, since)
	}
	source.Bytes = entries.bytes
	t.Sources = append(t.Sources, source)
	err = out.close()
	if ctx.Err() != nil {
		err = errors.New("there was no time to read all of it")
	}
	if damaged > 0 {
		err = errors.Join(err, fmt.Errorf("%d of its entries could not be read", damaged))
	}
	if err != nil {
		t.Gaps = append(t.Gaps, observe.Gap{Source: gapSource, Object: journalName, Text: err.Error(), Hint: "run journalctl --verify and look at what it says"})
		t.missing("the journal was not read to its end")
	}
}

// journalReaches adds a hole where the oldest entry that is left came after the
// time from which the journal is wanted: it throws old ones away for room.
func (t *tracing) journalReaches(ctx context.Context, since time.Time) {
	out, err := openJournal(ctx, time.Unix(0, 0), false, t.o)
	if err != nil {
		return // who reads it next says so
	}
	oldest, err := newJournalReader(out).next()
	_ = out.close() // it was stopped in the middle, and says so
	switch {
	case err != nil:
		t.hole(since, time.Time{}, "the journal has no entry that could be read")
	case oldest.at().After(since):
		t.hole(since, oldest.at(), "the journal does not reach back as far")
	}
}

// entry takes one entry of the journal.
func (t *tracing) entry(e *Entry, since time.Time) {
	r := &t.rec
	r.at, r.host, r.tag, r.pid, r.text = e.At.UnixNano(), nil, []byte(e.Tag), e.PID, e.Message
	if t.head.owner(r) != ours || e.At.Before(since) {
		return
	}
	if !e.Trusted {
		t.Suspect++
		return
	}
	if !r.parseText() {
		t.missing("an entry of the journal could not be read")
		return
	}
	t.tell(journalName, observe.TrustJournal)
}
