package maillog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

func openForTest(t *testing.T, path string) *logFile {
	t.Helper()
	f, err := openLog(path, "", nil)
	check(t, err)
	t.Cleanup(f.close)
	return f
}

// Spans of any size take each line once, and give the line without an end to
// whoever reads the end.
func TestSpansTakeEachLineOnce(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"plain":        "one\ntwo\n\n\nfive is longer\nsix\n",
		"without end":  "one\ntwo\nthr",
		"one line":     "all of it\n",
		"only a part":  "all of it",
		"newlines":     "\n\n\n",
		"a long first": strings.Repeat("x", 40) + "\nb\nc\n",
	} {
		path := write(t, dir+"/log", text)
		f := openForTest(t, path)
		for size := int64(1); size <= f.size; size++ {
			var got []string
			for from := int64(0); from < f.size; from += size {
				s := span{file: f, from: from, to: min(from+size, f.size)}
				fragment, err := s.each(t.Context(), make([]byte, 64), func(b []byte) { got = append(got, string(b)) })
				check(t, err)
				got = append(got, string(fragment))
			}
			if joined := strings.Join(got, ""); joined != text {
				t.Errorf("%s in spans of %d: %q", name, size, got)
			}
		}
	}
}

func TestLongLinesAreSkippedAndBounded(t *testing.T) {
	long := strings.Repeat("y", 1000)
	f := openForTest(t, write(t, t.TempDir()+"/log", "a\n"+long+"\nb\n"+long))
	for _, size := range []int64{50, 300, 5000} {
		var got []string
		for from := int64(0); from < f.size; from += size {
			s := span{file: f, from: from, to: min(from+size, f.size)}
			fragment, err := s.each(t.Context(), make([]byte, 64), func(b []byte) {
				if len(b) > 64 {
					t.Errorf("%d bytes at once", len(b))
				}
				got = append(got, strings.Split(string(b), "\n")...)
			})
			check(t, err)
			got = append(got, string(fragment))
		}
		if !slices.Contains(got, "a") || !slices.Contains(got, "b") || len(strings.Join(got, "")) > 300 {
			t.Errorf("in spans of %d: %q", size, got)
		}
	}
}

// bigLog is more than one span: lines of two hours, ten in a second.
func bigLog(t *testing.T, from time.Time) (path string, lines int) {
	t.Helper()
	path = t.TempDir() + "/mail.log"
	var b bytes.Buffer
	for b.Len() < 3*spanSize {
		b.WriteString(sent(lines, from.Add(time.Duration(lines)*30*time.Millisecond)))
		lines++
	}
	check(t, os.WriteFile(path, b.Bytes(), 0o644))
	return path, lines
}

func TestWindowIsReadFromTheEnd(t *testing.T) {
	path, lines := bigLog(t, morning())
	write(t, path+".1", sentFrom(1<<20, 5, morning().Add(-time.Hour)))
	written(t, path+".1", morning())
	st, err := os.Stat(path)
	check(t, err)
	since := morning().Add(time.Duration(lines-1000) * 30 * time.Millisecond)
	got, gaps := Read(t.Context(), logsTo(path), ReadOptions{Since: since, Detail: true})
	if got.Total.Delivered != 1000 || len(gaps) != 0 || len(got.Sources) != 1 {
		t.Fatalf("%d delivered of %+v; %s", got.Total.Delivered, got.Sources, gapTexts(gaps))
	}
	older := int64(len(sentFrom(1<<20, 5, morning())))
	s := got.Sources[0]
	if s.Bytes >= st.Size() || s.Bytes < 100_000 || s.Bytes+s.Left != st.Size()+older {
		t.Errorf("%d bytes of %d were read, %d left", s.Bytes, st.Size()+older, s.Left)
	}
	// The whole, in parts, is the whole.
	got, gaps = Read(t.Context(), logsTo(path), ReadOptions{})
	if got.Total.Delivered != int64(lines)+5 || len(gaps) != 0 || got.Sources[1].Left != 0 {
		t.Errorf("%d delivered of %d, %+v; %s", got.Total.Delivered, lines+5, got.Sources, gapTexts(gaps))
	}
}

func TestOneForgedStampHidesNothing(t *testing.T) {
	path := t.TempDir() + "/mail.log"
	var b strings.Builder
	for b.Len() < 2*spanSize {
		if b.Len()%97 == 0 {
			b.WriteString(sent(1, morning().AddDate(0, 0, -2)))
		}
		b.WriteString(sent(2, morning()))
	}
	text := sent(1, morning().AddDate(0, 0, -2)) + b.String()
	write(t, path, text)
	want := int64(strings.Count(text, "u2@"))
	got, _ := Read(t.Context(), logsTo(path), ReadOptions{Since: morning().Add(-time.Hour)})
	if got.Total.Delivered != want {
		t.Errorf("%d delivered, want %d", got.Total.Delivered, want)
	}
}

func TestMoreThanMayBeReadIsSaid(t *testing.T) {
	path, lines := bigLog(t, morning())
	got, gaps := Read(t.Context(), logsTo(path), ReadOptions{MaxBytes: 1 << 20})
	s := got.Sources[0]
	if s.Bytes != 1<<20 || s.Left == 0 || len(gaps) != 1 || !strings.Contains(gaps[0].Text, "left unread") {
		t.Errorf("%+v; %s", s, gapTexts(gaps))
	}
	// The newest lines, and only whole ones.
	if want := morning().Add(time.Duration(lines-1) * 30 * time.Millisecond); !got.To.Equal(want) || got.Unread != 0 || got.Total.Delivered < 5000 {
		t.Errorf("up to %v, want %v; %d lines, %d unread", got.To, want, got.Total.Delivered, got.Unread)
	}
}

func TestRestOfALine(t *testing.T) {
	whole := sentFrom(0, 10, morning())
	path := write(t, t.TempDir()+"/mail.log", whole+sent(10, morning())[:80])
	// Written just now: the rest of it is on its way.
	if got, _ := Read(t.Context(), logsTo(path), ReadOptions{}); got.Lines != 10 || got.Unread != 0 {
		t.Errorf("while it is written: %d lines, %d unread", got.Lines, got.Unread)
	}
	// Written long ago: a full disk cut it.
	written(t, path, morning())
	if got, _ := Read(t.Context(), logsTo(path), ReadOptions{}); got.Lines != 11 || got.Unread != 1 {
		t.Errorf("left behind: %d lines, %d unread", got.Lines, got.Unread)
	}
}

// A file that another one took the place of, byte for byte under its inode, is
// noticed while it is read.
func TestEmptiedWhileItIsRead(t *testing.T) {
	path := write(t, t.TempDir()+"/mail.log", sentFrom(0, 100, morning()))
	f := openForTest(t, path)
	beginning, err := f.beginning()
	check(t, err)
	check(t, os.Truncate(path, 0))
	s := span{file: f, from: 0, to: f.size}
	if _, err := s.each(t.Context(), make([]byte, 4096), func([]byte) {}); err != errShrunk { //nolint:errorlint // this very one
		t.Errorf("read of an emptied file: %v", err)
	}
	write(t, path, sentFrom(1000, 500, morning()))
	if err := f.unchanged(beginning); err != errShrunk { //nolint:errorlint // this very one
		t.Errorf("a file that was filled again: %v", err)
	}
}

// busyLog is a log that is written and rotated without pause.
type busyLog struct {
	t       *testing.T
	path    string
	rotate  func(l *busyLog)
	f       *os.File
	count   atomic.Int64
	failed  error
	stop    chan struct{}
	stopped chan struct{}
}

func (l *busyLog) do(err error) {
	if l.failed == nil {
		l.failed = err
	}
}

func (l *busyLog) open() {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	l.do(err)
	l.f = f
}

// age moves the older parts one further.
func (l *busyLog) age() {
	for i := 40; i > 0; i-- {
		err := os.Rename(fmt.Sprintf("%s.%d", l.path, i), fmt.Sprintf("%s.%d", l.path, i+1))
		if err != nil && !os.IsNotExist(err) {
			l.do(err)
		}
	}
}

func (l *busyLog) run() {
	defer close(l.stopped)
	l.open()
	for n := 0; l.failed == nil; n++ {
		select {
		case <-l.stop:
			l.do(l.f.Close())
			return
		default:
		}
		_, err := l.f.WriteString(sent(n, morning().Add(time.Duration(n)*time.Millisecond)))
		l.do(err)
		l.count.Add(1)
		if n%4000 == 3999 && n < 4000*40 {
			l.rotate(l)
		}
		if n > 4000*40 {
			time.Sleep(time.Millisecond)
		}
	}
}

func byRename(l *busyLog) {
	l.age()
	l.do(os.Rename(l.path, l.path+".1"))
	// The writer goes on in the renamed file until it is told.
	for range 3 {
		_, err := l.f.WriteString(sent(int(l.count.Load()), morning()))
		l.do(err)
		l.count.Add(1)
	}
	l.do(l.f.Close())
	l.open()
}

func byCopy(l *busyLog) {
	l.age()
	from, err := os.Open(l.path)
	l.do(err)
	to, err := os.Create(l.path + ".1")
	l.do(err)
	_, err = io.Copy(to, from)
	l.do(err)
	l.do(from.Close())
	l.do(to.Close())
	l.do(os.Truncate(l.path, 0))
}

// While a log is rotated under the reader no line is read twice and none is
// lost: there are never fewer than had been written before, nor more than after.
func TestRotationUnderTheReader(t *testing.T) {
	for name, rotate := range map[string]func(*busyLog){"rename": byRename, "copytruncate": byCopy} {
		t.Run(name, func(t *testing.T) {
			l := &busyLog{t: t, path: t.TempDir() + "/mail.log", rotate: rotate, stop: make(chan struct{}), stopped: make(chan struct{})}
			go l.run()
			rotations, settled := 0, 0
			for i := 0; rotations < 12 && i < 5000; i++ {
				before := l.count.Load()
				got, gaps := Read(t.Context(), logsTo(l.path), ReadOptions{})
				after := l.count.Load()
				if len(got.Sources) > 0 {
					rotations = len(got.Sources) - 1
				}
				if len(gaps) > 0 {
					continue // between rename and creation there is no log, and that was said
				}
				settled++
				// A line that was written when its file had been read, and counted
				// before the next was, is neither before nor after.
				if n := got.Total.Delivered; n < before || n > after+1 {
					t.Fatalf("%d delivered, with %d written before and %d after", n, before, after)
				}
			}
			close(l.stop)
			<-l.stopped
			check(t, l.failed)
			if rotations < 12 || settled < 5 {
				t.Fatalf("%d rotations, %d whole looks", rotations, settled)
			}
			got, gaps := Read(t.Context(), logsTo(l.path), ReadOptions{})
			if got.Total.Delivered != l.count.Load() || len(gaps) != 0 {
				t.Errorf("at rest %d of %d; %s", got.Total.Delivered, l.count.Load(), gapTexts(gaps))
			}
		})
	}
}

func TestSummaryOfSeveralFilesInAnyOrder(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	stamped := func(from time.Time, first, count int) string {
		var b strings.Builder
		for i := range count {
			b.WriteString(from.Add(time.Duration(i)*time.Minute).Format(time.Stamp) + sentBody(first+i))
		}
		return b.String()
	}
	// Without a year: December is before January, which the files' times tell.
	oldest := write(t, dir+"/z.log", stamped(at.AddDate(0, -1, 0), 0, 10))
	written(t, oldest, at.AddDate(0, -1, 0).Add(time.Hour))
	middle := write(t, dir+"/a.log.xz", packed(t, ".xz", stamped(at.AddDate(0, 0, -4), 10, 10)))
	written(t, middle, at.AddDate(0, 0, -4).Add(time.Hour))
	newest := write(t, dir+"/m.log", "a line of nobody\n"+stamped(at, 20, 10))
	written(t, newest, at.Add(time.Hour))
	check(t, os.Link(newest, dir+"/same.log"))
	sum, gaps, err := Summarize(t.Context(), []string{newest, dir + "/same.log", middle, dir + "/none.log", oldest}, Options{Location: time.UTC}, nil)
	check(t, err)
	if sum.Delivered != 30 || sum.Lines != 31 || len(gaps) != 2 || !strings.Contains(gapTexts(gaps), "same file") {
		t.Errorf("%+v; %s", sum, gapTexts(gaps))
	}
	if !sum.First.Equal(at.AddDate(0, -1, 0)) || !sum.Last.Equal(at.Add(9*time.Minute)) {
		t.Errorf("from %v to %v", sum.First, sum.Last)
	}
	if _, gaps, err := Summarize(t.Context(), []string{dir + "/none.log", dir}, Options{}, nil); err == nil || len(gaps) != 2 {
		t.Errorf("of nothing: %v; %s", err, gapTexts(gaps))
	}
}

func TestSummaryOfALargeFileIsThatOfItsTally(t *testing.T) {
	log := generate(5, 2*spanSize+1000)
	path := write(t, t.TempDir()+"/log", log.String())
	o := Options{Location: time.UTC, SyslogName: "postfix"}
	want := NewTally(o)
	want.Text(log.Bytes(), observe.TrustPlain, time.Now())
	sum, gaps, err := Summarize(t.Context(), []string{path}, o, nil)
	check(t, err)
	w := want.Summary()
	if len(gaps) != 0 || sum.Lines != w.Lines || sum.Delivered != log.delivered || sum.Deferrals != w.Deferrals ||
		sum.Received != w.Received || sum.BytesReceived != w.BytesReceived || sum.Bounced != log.bounced {
		t.Errorf("%+v\nwant %+v", sum, w)
	}
}

func TestSummaryOfStreams(t *testing.T) {
	text := sentFrom(0, 50_000, morning())
	for name, content := range map[string]string{"plain": text, "zstd": packed(t, ".zst", text), "without end": strings.TrimSuffix(text, "\n")} {
		pipe := t.TempDir() + "/pipe"
		check(t, unix.Mkfifo(pipe, 0o600))
		go func() {
			if f, err := os.OpenFile(pipe, os.O_WRONLY, 0); err == nil {
				_, _ = f.WriteString(content)
				_ = f.Close()
			}
		}()
		sum, gaps, err := Summarize(t.Context(), []string{pipe}, Options{}, nil)
		if err != nil || sum.Delivered != 50_000 || len(gaps) != 0 {
			t.Errorf("%s: %+v, %v; %s", name, sum, err, gapTexts(gaps))
		}
	}
	in, out, err := os.Pipe()
	check(t, err)
	keep := os.Stdin
	os.Stdin = in
	defer func() { os.Stdin = keep }()
	go func() {
		_, _ = out.WriteString(text)
		_ = out.Close()
	}()
	sum, _, err := Summarize(t.Context(), []string{Stdin}, Options{}, nil)
	if err != nil || sum.Delivered != 50_000 {
		t.Errorf("standard input: %+v, %v", sum, err)
	}
}

// A file of one line without end costs its reading and no more.
func TestFileWithoutNewlines(t *testing.T) {
	path := t.TempDir() + "/mail.log"
	f, err := os.Create(path)
	check(t, err)
	// As copytruncate leaves it under a writer that does not append: a hole.
	check(t, f.Truncate(600<<20))
	_, err = f.WriteAt([]byte("\n"+sentFrom(0, 10, morning())), 600<<20)
	check(t, err)
	check(t, f.Close())
	got, _ := Read(t.Context(), postfix.Instance{SyslogName: "postfix", MailLogFile: path}, ReadOptions{})
	if got.Total.Delivered != 10 || got.Sources[0].Left == 0 {
		t.Errorf("%d delivered, %+v", got.Total.Delivered, got.Sources)
	}
}
