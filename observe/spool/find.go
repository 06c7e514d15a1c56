package spool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// Found is a place where a queue ID was met.
type Found struct {
	postfix.Fingerprint
	Queue postfix.Queue
	// Changed is the file's ctime: a rename sets it.
	Changed time.Time
	// NextTry is the file's mtime.
	NextTry time.Time
	// Open and Done count recipients that are still to do, and that are not.
	Open, Done int
	// Expired is set where it was given up before its time: postsuper -e marks
	// the file's mode.
	Expired bool
	// Damage says why it is no complete message. The fingerprint is then what
	// could be read of it.
	Damage string
}

// Sought is a queue ID to look for, and where it probably is. A file of Inode in
// Queue settles the question, since a queue file has one name; an Inode of 0
// says that nothing is known.
type Sought struct {
	ID    postfix.QueueID
	Queue postfix.Queue
	Inode uint64
}

// Find looks where each ID is now, in all queues.
func (r *Reader) Find(ctx context.Context, ids []postfix.QueueID) (map[postfix.QueueID][]Found, error) {
	list := make([]Sought, len(ids))
	for i, id := range ids {
		list[i].ID = id
	}
	return r.FindAt(ctx, list)
}

// FindAt looks where each ID is now: first where it probably is, and where that
// does not settle it in all queues. An ID that is not in the
// result was in none of them in two looks of different kinds: at the places
// where Postfix would look for it, and in a listing of every directory. The
// second one also meets files that lie in a wrong hash directory.
//
// The error is a *postfix.Error: a place that could not be looked at is never
// taken for an empty one.
func (r *Reader) FindAt(ctx context.Context, ids []Sought) (map[postfix.QueueID][]Found, error) {
	parts := 1
	if len(ids) >= manyIDs {
		parts = runtime.GOMAXPROCS(0)
	}
	found := make(map[postfix.QueueID][]Found, len(ids))
	searches, failed := make([]*search, parts), make([]error, parts)
	defer func() {
		for _, s := range searches {
			if s != nil {
				s.close()
			}
		}
	}()
	var all sync.WaitGroup
	for i := range parts {
		s, err := r.newSearch(len(ids) / parts)
		if err != nil {
			failed[i] = err
			continue
		}
		searches[i] = s
		part := ids[i*len(ids)/parts : (i+1)*len(ids)/parts]
		all.Go(func() { failed[i] = s.expectedAll(ctx, part) })
	}
	all.Wait()
	for i, s := range searches {
		if failed[i] != nil {
			return nil, failed[i]
		}
		maps.Copy(found, s.found)
	}
	last := searches[0]
	last.found = found
	missing := make(map[postfix.QueueID]bool)
	for i := range ids {
		if id := ids[i].ID; len(found[id]) == 0 {
			missing[id] = true
		}
	}
	if len(missing) > 0 {
		if err := last.everywhere(ctx, missing); err != nil {
			return nil, cannotRead(r.in.QueueDir, err)
		}
	}
	return found, nil
}

// manyIDs is from how many on they are looked for on all processors.
const manyIDs = 256

func (r *Reader) newSearch(n int) (*search, error) {
	root, err := openAt(unix.AT_FDCWD, r.in.QueueDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, cannotRead(r.in.QueueDir, err)
	}
	return &search{r: r, root: root, private: -1, open: make(map[string]*directory), found: make(map[postfix.QueueID][]Found, n)}, nil
}

// expectedAll looks for each where it probably is, or else where Postfix would.
func (s *search) expectedAll(ctx context.Context, ids []Sought) error {
	for i := range ids {
		if err := ctx.Err(); err != nil {
			return &postfix.Error{Kind: postfix.Interrupted, Op: "look for messages", Err: err}
		}
		there, err := s.probable(&ids[i])
		if err == nil && !there {
			err = s.expected(ids[i].ID)
		}
		if err != nil {
			return cannotRead(s.r.in.QueueDir, err)
		}
	}
	return nil
}

// probable looks in one place. What it finds there and was not sought is left
// for expected to find.
func (s *search) probable(want *Sought) (bool, error) {
	if want.Inode == 0 {
		return false, nil
	}
	d, err := s.directory(want.Queue, want.ID)
	if err != nil || d == nil {
		return false, err
	}
	if err := s.read(d, want.ID); err != nil {
		return false, err
	}
	if met := s.found[want.ID]; len(met) == 1 && met[0].Inode == want.Inode && met[0].Damage == "" {
		return true, nil
	}
	delete(s.found, want.ID)
	return false, nil
}

// search is one Find: the directories that it has open, and what it met.
type search struct {
	r     *Reader
	root  int
	open  map[string]*directory
	dec   decoder
	found map[postfix.QueueID][]Found
	// private is memory of this process alone, -1 until it is needed, and buf
	// what fills it.
	private int
	buf     []byte
}

func (s *search) close() {
	if s.private >= 0 {
		_ = unix.Close(s.private)
	}
	for _, d := range s.open {
		d.close()
	}
	_ = unix.Close(s.root)
}

// expected looks where Postfix would, queue by queue in the direction in which
// mail moves.
func (s *search) expected(id postfix.QueueID) error {
	for _, q := range postfix.Queues() {
		d, err := s.directory(q, id)
		if err == nil && d != nil {
			err = s.read(d, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// directory opens the directory in which Postfix would look, level by level,
// so that no planted link is followed; nil where there is none.
func (s *search) directory(q postfix.Queue, id postfix.QueueID) (*directory, error) {
	hash := id.HashPath(s.r.in.DepthOf(q.String()))
	path := strings.TrimSuffix(q.String()+"/"+hash, "/")
	if d, ok := s.open[path]; ok {
		return d, nil
	}
	d := &directory{queue: q, path: path, hash: strings.ReplaceAll(hash, "/", ""), fd: -1}
	parent := s.root
	for name := range strings.SplitSeq(path, "/") {
		fd, err := openAt(parent, name, dirFlags)
		d.close()
		if errors.Is(err, unix.ENOENT) {
			return nil, nil // not remembered: Postfix makes hash directories as it needs them
		}
		if err != nil {
			return nil, fmt.Errorf("open %q: %w", path, err)
		}
		d.fd, parent = fd, fd
	}
	s.open[path] = d
	return d, nil
}

// read adds the message of that name, if the directory has it.
func (s *search) read(d *directory, id postfix.QueueID) error {
	var st unix.Stat_t
	fd, kind, err := s.r.openQueueFile(d, string(id), &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("open %q: %w", d.path+"/"+string(id), err)
	}
	m := &s.dec.msg
	if kind == "" {
		err = s.dec.decode(fd, st.Size, d.queue)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("read %q: %w", d.path+"/"+string(id), err)
		}
	} else {
		*m = postfix.Message{Damage: string(kind)}
	}
	finishFound(m, id, &st)
	f := Found{
		Fingerprint: m.Fingerprint(s.r.in.Name), Queue: d.queue, Changed: timeOf(st.Ctim), NextTry: timeOf(st.Mtim),
		Open: len(m.Recipients) + s.dec.overflow, Done: m.Done, Expired: st.Mode&unix.S_IXGRP != 0, Damage: m.Damage,
	}
	f.Sender = strings.Clone(f.Sender) // lent by the decoder
	s.found[id] = append(s.found[id], f)
	return nil
}

// finishFound fills what a Fingerprint needs as finishMessage does, so that one
// made from a Snapshot is equal to one made here.
func finishFound(m *postfix.Message, id postfix.QueueID, st *unix.Stat_t) {
	m.ID, m.Inode = id, st.Ino
	if m.Arrival.IsZero() {
		m.Arrival = timeOf(st.Mtim)
	}
	if m.Size == 0 {
		m.Size = st.Size
	}
}

// everywhere lists every directory of every queue for names that were not
// where they belong.
func (s *search) everywhere(ctx context.Context, missing map[postfix.QueueID]bool) error {
	type hit struct {
		dir *directory
		id  postfix.QueueID
	}
	var gaps gapSet
	var hits []hit
	lst := &lister{root: s.root, known: make(map[string]*directory), gaps: &gaps, now: func() int64 { return 0 }}
	defer func() {
		for _, d := range lst.known {
			d.close()
		}
	}()
	lst.emit = func(batch *names) error {
		for i := range batch.len() {
			if id := postfix.QueueID(batch.at(i)); missing[id] {
				hits = append(hits, hit{batch.dir, postfix.QueueID(strings.Clone(string(id)))})
			}
		}
		return ctx.Err()
	}
	for _, q := range postfix.Queues() {
		if _, err := lst.walk(q); err != nil {
			return err
		}
	}
	if len(gaps.gaps) > 0 {
		return errors.New(gaps.gaps[0].String())
	}
	for _, h := range hits {
		if err := s.read(h.dir, h.id); err != nil {
			return err
		}
	}
	// Between the listing and here a message can have moved once more, out of
	// a queue that was listed late into one that was listed early.
	for id := range maps.Keys(missing) {
		if len(s.found[id]) == 0 {
			if err := s.expected(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Summed is a message whose every byte was read once: what was parsed is what
// the sums are of.
type Summed struct {
	Found
	// File is the SHA-256 of the whole queue file, hexadecimal.
	File string
}

// Sum reads a message of one queue whole. ErrNoMessage means that the queue
// does not have it.
//
// The bytes are read into a private unnamed copy first. Parsing and summing
// are then of the same bytes, however the file is changed meanwhile.
func (r *Reader) Sum(ctx context.Context, id postfix.QueueID, queue postfix.Queue) (Summed, error) {
	one, err := r.SumAll(ctx, []Sought{{ID: id, Queue: queue}})
	if err != nil {
		return Summed{}, err
	}
	return one[0].Summed, one[0].Err
}

// Sum is what SumAll has of one message.
type Sum struct {
	Summed
	Err error
}

// SumAll is Sum for many, on all processors. What could not be read has an
// error of its own; the error is that of the queue as a whole.
func (r *Reader) SumAll(ctx context.Context, want []Sought) ([]Sum, error) {
	sums := make([]Sum, len(want))
	parts := max(1, min(runtime.GOMAXPROCS(0), len(want)))
	var all sync.WaitGroup
	failed := make([]error, parts)
	for i := range parts {
		all.Go(func() {
			s, err := r.newSearch(1)
			if err != nil {
				failed[i] = err
				return
			}
			defer s.close()
			for k := i; k < len(want); k += parts {
				sums[k].Summed, sums[k].Err = s.sumOf(ctx, &want[k])
			}
		})
	}
	all.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return sums, nil
}

func (s *search) sumOf(ctx context.Context, want *Sought) (Summed, error) {
	d, err := s.directory(want.Queue, want.ID)
	switch {
	case err != nil:
		return Summed{}, cannotRead(s.r.in.QueueDir, err)
	case d == nil:
		return Summed{}, ErrNoMessage
	}
	out, err := s.sum(ctx, d, want.ID)
	if errors.Is(err, unix.ENOENT) {
		return Summed{}, ErrNoMessage
	}
	return out, err
}

func (s *search) sum(ctx context.Context, d *directory, id postfix.QueueID) (Summed, error) {
	var st unix.Stat_t
	fd, kind, err := s.r.openQueueFile(d, string(id), &st)
	if err != nil {
		return Summed{}, fmt.Errorf("open %q: %w", d.path+"/"+string(id), err)
	}
	if kind != "" {
		return Summed{}, fmt.Errorf("read %q: it is no message: %s", d.path+"/"+string(id), kind)
	}
	defer func() { _ = unix.Close(fd) }()
	file, err := s.copyOf(ctx, fd, st.Size)
	if err != nil {
		return Summed{}, fmt.Errorf("read %q: %w", d.path+"/"+string(id), err)
	}
	if err := s.dec.decode(s.private, st.Size, d.queue); err != nil {
		return Summed{}, fmt.Errorf("read %q: %w", d.path+"/"+string(id), err)
	}
	m := &s.dec.msg
	finishFound(m, id, &st)
	out := Summed{File: file, Found: Found{
		Fingerprint: m.Fingerprint(s.r.in.Name), Queue: d.queue, Changed: timeOf(st.Ctim), NextTry: timeOf(st.Mtim),
		Open: len(m.Recipients) + s.dec.overflow, Done: m.Done, Expired: st.Mode&unix.S_IXGRP != 0, Damage: m.Damage,
	}}
	out.Sender = strings.Clone(out.Sender)
	if out.Damage != "" {
		return out, nil // it may not say where its content begins
	}
	start, err := s.dec.contentStart()
	if err == nil {
		out.Digest, err = digest(s.private, st.Size, start)
	}
	return out, err
}

// copyOf copies a file into memory that only this process has, over what was
// there before, and sums it. Beyond the size that is given there may be a rest
// of another message, which nobody reads.
func (s *search) copyOf(ctx context.Context, fd int, size int64) (sum string, err error) {
	if s.private < 0 {
		s.private, err = unix.MemfdCreate("holdfast-message", unix.MFD_CLOEXEC)
	} else {
		_, err = unix.Seek(s.private, 0, io.SeekStart)
	}
	if err != nil {
		return "", fmt.Errorf("make private copy: %w", err)
	}
	h := sha256.New()
	if s.buf == nil {
		s.buf = make([]byte, refillSize)
	}
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := preadFull(fd, s.buf[:min(int64(len(s.buf)), size-off)], off)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			_, _ = h.Write(s.buf[:n]) // a hash never fails
			err = writeFull(s.private, s.buf[:n])
		}
		if err != nil {
			return "", err
		}
		off += int64(n)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func writeFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("write private copy: %w", err)
		}
		b = b[max(n, 0):]
	}
	return nil
}
