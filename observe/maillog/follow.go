package maillog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// Position is a place in a log, behind the last line that was taken. It can be
// kept and followed from later, when the file may have another name.
type Position struct {
	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	// Sum is of the bytes before Offset: an inode is given to new files, and a
	// file can be emptied and filled again.
	Sum uint32 `json:"sum,omitempty"`
	// Absent says that there was no log: all that will be in it is new.
	Absent bool `json:"absent,omitempty"`
	// Cursor is the place in the journal, At when its entry was received.
	Cursor string    `json:"cursor,omitempty"`
	At     time.Time `json:"at,omitzero"`
}

// End returns the place behind the last line of now. Who wants to see what an
// act makes Postfix log asks for it before the act.
func End(in postfix.Instance, o ReadOptions) (Position, error) {
	where, _ := Find(in, o)
	switch {
	case where.Journal:
		return Position{At: time.Now()}, nil
	case where.Path == "":
		return Position{}, fmt.Errorf("find the log of %q: %w", in.Name, fs.ErrNotExist)
	}
	f, err := openLog(where.Path, "", o.Opener)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{Absent: true}, nil
	}
	if err != nil {
		return Position{}, err
	}
	defer f.close()
	t, err := growFromEnd(f)
	if err != nil {
		return Position{}, err
	}
	return t.position(), nil
}

// Follow calls each with the lines that Postfix writes from a position on, and
// the position behind each, until the context ends, whose error it returns. The
// zero Position is now. It stays with a log that is rotated, emptied, or taken
// away and put back. Lines that cannot be read, or that Postfix did not write
// as far as the journal knows, are left out.
func Follow(ctx context.Context, in postfix.Instance, o ReadOptions, from Position, each func(Line, Position)) error {
	if from == (Position{}) {
		now, err := End(in, o)
		if err != nil {
			return err
		}
		from = now
	}
	if from.Cursor != "" || !from.At.IsZero() {
		return followJournal(ctx, in, o, from, each)
	}
	where, _ := Find(in, o)
	if where.Path == "" {
		return fmt.Errorf("find the log of %q: %w", in.Name, fs.ErrNotExist)
	}
	f := &follower{path: where.Path, o: o, each: each, grammar: Grammar{SyslogName: in.SyslogName, Location: o.Location}}
	defer f.close()
	if err := f.resume(from); err != nil {
		return err
	}
	w := watch(where.Path)
	defer w.close()
	for {
		if err := f.step(ctx); err != nil {
			f.missed(fileGap(f.path, err))
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

// follower follows a file by its path.
type follower struct {
	path    string
	o       ReadOptions
	each    func(Line, Position)
	grammar Grammar
	at      *growing // nil where there is no log
	said    string
}

func (f *follower) close() {
	if f.at != nil {
		f.at.close()
	}
}

// missed passes a gap on, once as long as it stays the same.
func (f *follower) missed(g observe.Gap) {
	if f.o.Missed != nil && f.said != g.String() {
		f.o.Missed(g)
	}
	f.said = g.String()
}

// resume finds the file that a position is in.
func (f *follower) resume(from Position) error {
	if from.Absent {
		return nil
	}
	want := inode{device: from.Device, number: from.Inode}
	names := []string{""}
	older, _ := siblings(f.path)
	for _, s := range older {
		if s.inode == want {
			names = []string{s.name, ""}
		}
	}
	for _, name := range names {
		file, err := openLog(f.path, name, f.o.Opener)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if t, ok := growFrom(file, from.Offset); ok && file.inode == want && t.position() == from {
			f.at = t
			return nil
		}
		file.close()
	}
	f.missed(observe.Gap{
		Source: gapSource, Object: f.path, Text: "the place where it was left is gone: what was logged between that and the beginning of this file was not seen",
		Hint: "read the older parts of the log",
	})
	return nil // step begins with the file that is there
}

// step reads what is new, and goes on to the next file where there is one.
func (f *follower) step(ctx context.Context) error {
	for ctx.Err() == nil {
		if f.at == nil {
			file, err := openLog(f.path, "", f.o.Opener)
			if err != nil {
				return err
			}
			f.take(file)
		}
		if err := f.drain(ctx); err != nil {
			return err
		}
		next, err := f.next()
		if next == nil || err != nil {
			return err
		}
		// Who writes has gone on to the next file: nothing more comes here.
		if err := f.drain(ctx); err != nil {
			next.close()
			return err
		}
		f.at.close()
		f.take(next)
	}
	return nil
}

func (f *follower) take(file *logFile) {
	f.at = &growing{logFile: file}
	if f.grammar.Location == f.o.Location {
		f.grammar.Location, _ = zoneOf(file, f.o.Location)
	}
}

// next opens the file that follows the one that is read, nil where there is
// none yet. A file that was renamed is written to until its writer is told, so
// an empty new one is no reason to leave it.
func (f *follower) next() (*logFile, error) {
	if !f.goneOn() {
		return nil, nil
	}
	name := ""
	older, _ := siblings(f.path)
	place := slices.IndexFunc(older, func(s sibling) bool { return s.inode == f.at.inode })
	if place > 0 {
		name = older[place-1].name // rotated twice since the last look
	}
	file, err := openLog(f.path, name, f.o.Opener)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return file, err
}

// goneOn says whether there is another file under the path, and lines in it.
func (f *follower) goneOn() bool {
	var st unix.Stat_t
	err := unix.Stat(f.path, &st)
	return err == nil && inodeOf(&st) != f.at.inode && st.Size > 0
}

// drain reads to the end of the file.
func (f *follower) drain(ctx context.Context) error {
	emptied, err := f.at.emptied()
	if err != nil {
		return err
	}
	if emptied {
		f.missed(observe.Gap{
			Source: gapSource, Object: f.path, Text: "it was emptied: lines written just before may not have been seen",
			Hint: "let logrotate create a new file instead of copytruncate",
		})
		f.at.restart()
	}
	f.grammar.Newest = time.Now()
	return f.at.read(ctx, func(line []byte) {
		if l, ok := f.grammar.Parse(line); ok {
			f.each(l, f.at.position())
		}
	})
}

// growing is a file that is read as it grows.
type growing struct {
	*logFile
	offset int64  // behind the last whole line
	rest   []byte // the beginning of the next one
	long   bool   // rest was too long, and its line is skipped
	before []byte // the bytes before offset, as many as tellsApart
}

// growFrom reads a file from an offset on; false where the file is not as long.
func growFrom(f *logFile, offset int64) (*growing, bool) {
	offset = max(offset, 0) // what was kept may be damaged
	t := &growing{logFile: f, offset: offset, before: make([]byte, min(offset, tellsApart))}
	n, err := f.ReadAt(t.before, offset-int64(len(t.before)))
	return t, n == len(t.before) && (err == nil || errors.Is(err, io.EOF))
}

// growFromEnd reads a file from behind the last whole line.
func growFromEnd(f *logFile) (*growing, error) {
	end := make([]byte, min(f.size, 64<<10))
	n, err := f.ReadAt(end, f.size-int64(len(end)))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	at := f.size - int64(len(end)) + int64(bytes.LastIndexByte(end[:n], '\n')+1)
	if t, ok := growFrom(f, at); ok {
		return t, nil
	}
	return nil, &fs.PathError{Op: "read", Path: f.name, Err: errShrunk}
}

func (t *growing) position() Position {
	return Position{Device: t.inode.device, Inode: t.inode.number, Offset: t.offset, Sum: crc32.ChecksumIEEE(t.before)}
}

// emptied says whether the file is not the one any more that was read so far.
func (t *growing) emptied() (bool, error) {
	if err := t.look(); err != nil || t.size < t.offset+int64(len(t.rest)) {
		return err == nil, err
	}
	now := make([]byte, len(t.before))
	n, err := t.ReadAt(now, t.offset-int64(len(now)))
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return !bytes.Equal(now[:n], t.before), nil
}

func (t *growing) restart() { t.offset, t.rest, t.before, t.long = 0, nil, nil, false }

// read takes the whole lines that are there.
func (t *growing) read(ctx context.Context, take func([]byte)) error {
	buffer := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := t.ReadAt(buffer, t.offset+int64(len(t.rest)))
		t.rest = append(t.rest, buffer[:n]...)
		t.lines(take)
		if len(t.rest) > bufferSize {
			t.advance(len(t.rest))
			t.long = true
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *growing) lines(take func([]byte)) {
	for {
		end := bytes.IndexByte(t.rest, '\n')
		if end < 0 {
			return
		}
		line := t.rest[:end]
		whole := !t.long
		t.long = false
		t.advance(end + 1)
		if whole {
			take(line)
		}
	}
}

// advance moves the position over the first bytes of rest.
func (t *growing) advance(n int) {
	seen := t.rest[:n]
	t.offset, t.rest = t.offset+int64(n), t.rest[n:]
	if len(seen) < tellsApart {
		seen = append(slices.Clone(t.before), seen...)
	}
	t.before = bytes.Clone(seen[max(len(seen)-tellsApart, 0):])
}
