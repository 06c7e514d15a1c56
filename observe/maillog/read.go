package maillog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// Read reads what an instance logged, newest first, as far as the window and
// MaxBytes allow. The log is never nil; what of it could not be had is in the
// gaps, and what was left unread in its sources as well.
func Read(ctx context.Context, in postfix.Instance, o ReadOptions) (*observe.Log, []observe.Gap) {
	where, gaps := Find(in, o)
	switch {
	case where.Journal:
		log, more := readJournal(ctx, in, o)
		return log, append(gaps, more...)
	case where.Path == "":
		return NewTally(o.tally(in)).Log(), gaps
	}
	if where.Configured && isStream(where.Path) {
		return NewTally(o.tally(in)).Log(), append(gaps, observe.Gap{
			Source: gapSource, Object: where.Path, Text: "maillog_file sends the log to the output of postfix start-fg, which nobody can read again",
			Hint: "set maillog_file to a file below /var",
		})
	}
	log, more := readFile(ctx, where, in, o)
	return log, append(gaps, more...)
}

// isStream knows the one place that is no file and that maillog_file may name.
func isStream(path string) bool { return path == "/dev/stdout" || path == "/dev/stderr" }

// readFile reads a log file and its older parts. It starts again where the file
// was emptied meanwhile: what it held is then in the newest older part.
func readFile(ctx context.Context, where Where, in postfix.Instance, o ReadOptions) (*observe.Log, []observe.Gap) {
	var r *reading
	for range attempts {
		files, err := openRotation(where.Path, o.Since, o.Opener)
		if err != nil {
			return NewTally(o.tally(in)).Log(), []observe.Gap{missingGap(where, err)}
		}
		r = newReading(where, in, o, files)
		err = r.all(ctx)
		files.close()
		if !errors.Is(err, errShrunk) {
			return r.result(err)
		}
	}
	return r.result(errShrunk)
}

func missingGap(where Where, err error) observe.Gap {
	g := fileGap(where.Path, err)
	if where.Configured && errors.Is(err, fs.ErrNotExist) {
		g.Hint = "maillog_file names it and postlogd makes it: run postfix reload, and postfix check for what is wrong with its folder"
	}
	return g
}

// reading is one attempt at a log and its older parts.
type reading struct {
	where Where
	in    postfix.Instance
	files *rotation
	o     ReadOptions
	tally Options
	left  int64 // of MaxBytes

	sum     pile
	sources []observe.LogSource // newest first
	gaps    []observe.Gap
	room    *buffers
	done    bool // what follows is older than the window, or beyond MaxBytes
}

func newReading(where Where, in postfix.Instance, o ReadOptions, files *rotation) *reading {
	r := &reading{where: where, in: in, files: files, o: o, tally: o.tally(in), left: o.maxBytes(), room: newBuffers()}
	if files.missing != nil {
		r.gaps = append(r.gaps, missingGap(where, files.missing))
	}
	for _, err := range files.errs {
		r.gaps = append(r.gaps, fileGap(where.Path, err))
	}
	if len(files.files) > 0 {
		zone, gaps := zoneOf(files.files[0], o.Location)
		r.tally.Location = zone
		r.gaps = append(r.gaps, gaps...)
	}
	return r
}

// all reads the files, newest first.
func (r *reading) all(ctx context.Context) error {
	var unread int64
	for i, f := range r.files.files {
		if r.done {
			unread += f.size
			continue
		}
		beginning, err := f.beginning()
		if err != nil {
			r.gaps = append(r.gaps, fileGap(f.name, err))
			continue
		}
		source := observe.LogSource{Name: f.name, Trust: f.trust(r.where.Configured, readsAs(r.in)), Modified: f.written}
		if packingOf(beginning) == plain {
			err = r.plain(ctx, f, &source, i == 0 && r.files.missing == nil)
			if err == nil {
				err = f.unchanged(beginning)
			}
		} else {
			err = r.packed(ctx, f, &source)
		}
		if errors.Is(err, errShrunk) || ctx.Err() != nil {
			r.sources = append(r.sources, source)
			return errors.Join(err, ctx.Err())
		}
		if err != nil {
			r.gaps = append(r.gaps, fileGap(f.name, err))
		}
		r.sources = append(r.sources, source)
	}
	for _, s := range r.files.unopened {
		unread += s.size
	}
	if n := len(r.sources); n > 0 {
		r.sources[n-1].Left += unread
	}
	return nil
}

// unchanged says whether a file still begins as it did: one that was emptied
// and has grown again is another, whatever its inode says.
func (f *logFile) unchanged(beginning []byte) error {
	now, err := f.beginning()
	if err == nil && (len(now) < len(beginning) || !bytes.Equal(now[:len(beginning)], beginning)) {
		err = errShrunk
	}
	return err
}

// plain reads a file from its end backwards, a span at a time.
func (r *reading) plain(ctx context.Context, f *logFile, source *observe.LogSource, live bool) error {
	floor := max(f.size-r.left, 0)
	next := f.size
	var failed error
	jobs := func() (func() part, bool) {
		if next <= floor {
			return nil, false
		}
		s := span{file: f, from: max(next-spanSize, floor), to: next}
		next = s.from
		newest := f.written
		return func() part { return r.tallySpan(ctx, s, source.Trust, newest, live) }, true
	}
	reached := f.size
	inOrder(jobs, func(p part) bool {
		if p.err != nil {
			failed = p.err
			return false
		}
		reached -= p.bytes
		r.sum.older(p.tally)
		r.done = r.done || p.before
		return !p.before
	})
	source.Bytes, source.Left = f.size-reached, reached
	r.left -= source.Bytes
	if failed == nil && reached > 0 && !r.done {
		r.done = true
		r.overflow(f.name, reached)
	}
	return failed
}

func (r *reading) overflow(name string, left int64) {
	r.gaps = append(r.gaps, observe.Gap{
		Source: gapSource, Object: name,
		Text: fmt.Sprintf("%d MiB before that were left unread: no more than %d MiB are read", (left+1<<20-1)>>20, r.o.maxBytes()>>20),
		Hint: "logs summary reads all of it",
	})
}

// tallySpan reads one span.
func (r *reading) tallySpan(ctx context.Context, s span, trust observe.Trust, newest time.Time, live bool) part {
	t, room := NewTally(r.tally), r.room.lend()
	defer r.room.Put(room)
	sample := newSampler(r.tally.Location, newest)
	fragment, err := s.each(ctx, *room, func(lines []byte) {
		sample.look(lines)
		t.Text(lines, trust, newest)
	})
	if len(fragment) > 0 && !(live && beingWritten(newest)) {
		t.Text(fragment, trust, newest)
	}
	return part{tally: t, bytes: s.to - s.from, before: sample.before(r.o.Since), err: err}
}

// beingWritten says that the rest of a line may be on its way. A line that has
// no end for longer than that is one that Postfix, or a full disk, cut.
func beingWritten(written time.Time) bool { return time.Since(written).Abs() < 30*time.Second }

// packed reads a compressed file, which can only be read from its beginning:
// all of it, or where that is more than allowed nothing.
func (r *reading) packed(ctx context.Context, f *logFile, source *observe.LogSource) error {
	t, n, err := r.unpackInto(ctx, f, source.Trust)
	if errors.Is(err, errBomb) {
		r.done, source.Left = true, f.size
		r.gaps = append(r.gaps, observe.Gap{
			Source: gapSource, Object: f.name, Hint: "logs summary reads all of it",
			Text: fmt.Sprintf("it was left unread: it unpacks to more than the %d MiB that may still be read", r.left>>20),
		})
		return nil
	}
	if t != nil {
		r.sum.older(t)
	}
	source.Bytes = n
	r.left -= n
	return err
}

func (r *reading) unpackInto(ctx context.Context, f *logFile, trust observe.Trust) (*Tally, int64, error) {
	unpacked, end, err := unpack(io.NewSectionReader(f, 0, f.size))
	if err != nil {
		return nil, 0, err
	}
	defer end()
	var total *Tally
	var n int64
	err = eachChunk(ctx, &bounded{r: unpacked, left: r.left}, func(lines []byte) func() part {
		return func() part {
			t := NewTally(r.tally)
			t.Text(lines, trust, f.written)
			return part{tally: t, bytes: int64(len(lines))}
		}
	}, func(p part) bool {
		n += p.bytes
		total = appendTally(total, p.tally)
		return true
	})
	return total, n, err
}

func appendTally(t, later *Tally) *Tally {
	if t == nil {
		return later
	}
	t.Merge(later)
	return t
}

// result is what was read, for whatever reason it ended.
func (r *reading) result(err error) (*observe.Log, []observe.Gap) {
	if err != nil {
		g := fileGap(r.where.Path, err)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			g.Text, g.Hint = "there was no time to read all of it", "give it more time, or look again when the host is less busy"
		}
		r.gaps = append(r.gaps, g)
	}
	t := r.sum.all()
	if t == nil {
		t = NewTally(r.tally)
	}
	log := t.Log()
	for i := len(r.sources) - 1; i >= 0; i-- {
		log.Sources = append(log.Sources, r.sources[i])
	}
	return log, r.gaps
}

// pile puts tallies together that come newest first. Merging is cheapest where
// the later one is no larger, so neighbours of one size are merged, as in a
// binary counter.
type pile struct {
	tallies []*Tally // newest first
	weights []int
}

func (p *pile) older(t *Tally) {
	p.tallies, p.weights = append(p.tallies, t), append(p.weights, 1)
	for n := len(p.tallies); n > 1 && p.weights[n-1] >= p.weights[n-2]; n-- {
		p.fold()
	}
}

func (p *pile) fold() {
	n := len(p.tallies)
	p.tallies[n-1].Merge(p.tallies[n-2])
	p.tallies[n-2] = p.tallies[n-1]
	p.weights[n-2] += p.weights[n-1]
	p.tallies, p.weights = p.tallies[:n-1], p.weights[:n-1]
}

// all returns the whole, nil of nothing.
func (p *pile) all() *Tally {
	for len(p.tallies) > 1 {
		p.fold()
	}
	if len(p.tallies) == 0 {
		return nil
	}
	return p.tallies[0]
}
