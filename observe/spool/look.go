package spool

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// look is one Look of a Reader: its descriptors, its workers, what it met.
type look struct {
	r     *Reader
	ctx   context.Context
	from  time.Time
	root  int
	logs  *logDirs
	gaps  gapSet
	known [8]bool
	depth [8]int // hash levels of each queue

	workers []*worker
	// index finds the message that has an ID. It is built only once a
	// directory changed while or since it was read: on a quiet queue, never.
	index map[postfix.QueueID]known
	// reused keeps the further messages of an ID that more than one has.
	reused map[postfix.QueueID][]known

	gone   map[postfix.QueueID]bool // listed, but not there when opened
	probes map[postfix.QueueID]bool
	failed map[string]bool // paths whose gap is already counted
}

// place is where a message is kept: which part, which row of it.
type place struct{ part, row int }

// known is what a worker may ask of a message that another worker's part keeps:
// that part is being appended to meanwhile.
type known struct {
	at  place
	dir *directory
}

// metAgain is a file that was read although a message with its ID was known
// from another directory: the same one that moved, or another with the same ID.
type metAgain struct {
	old, new place
}

// worker reads files on one goroutine and appends to its own part. What it
// finds out besides is taken over by collect when all workers are done.
type worker struct {
	look    *look
	part    int
	dec     decoder
	found   []finding
	gone    []postfix.QueueID
	probes  []postfix.QueueID
	outdate []place // messages that changed or left
	again   []metAgain
	path    []byte
	lastDir [2]lastDir // of defer logs and of bounce logs
}

// lastDir is the log directory that a worker used last.
type lastDir struct {
	known bool
	hash  string
	fd    int
	err   error
}

// finding is something in a directory that is not a message, or could not be
// read. Its directory is listed again at the next look: such a file can become
// a message without the directory changing, since the last step of writing one
// is a chmod.
type finding struct {
	dir    *directory
	name   string
	kind   observe.StrayKind // "" for what could not be read
	source string
	err    error
}

func (r *Reader) newLook(ctx context.Context, root int) *look {
	l := &look{
		r: r, ctx: ctx, from: r.opts.Now(), root: root, logs: openLogs(root, r.in),
		gone: make(map[postfix.QueueID]bool), probes: make(map[postfix.QueueID]bool), failed: make(map[string]bool),
	}
	l.gaps.merge(&l.logs.gaps)
	for _, q := range postfix.Queues() {
		l.depth[q] = r.in.DepthOf(q.String())
	}
	for i := range r.parts {
		l.workers = append(l.workers, &worker{look: l, part: i})
	}
	return l
}

func (l *look) close() {
	for _, d := range l.r.dirs {
		d.close()
	}
	l.logs.close()
}

// each runs f once for every worker at the same time.
func (l *look) each(f func(*worker)) {
	var wg sync.WaitGroup
	for _, w := range l.workers {
		wg.Go(func() { f(w) })
	}
	wg.Wait()
	l.collect()
}

// collect takes over what the workers found.
func (l *look) collect() {
	var outdated []place
	for _, w := range l.workers {
		for _, f := range w.found {
			l.note(f)
		}
		for _, id := range w.gone {
			l.gone[id] = true
		}
		for _, id := range w.probes {
			l.probes[id] = true
		}
		outdated = append(outdated, w.outdate...)
		for _, m := range w.again {
			if l.same(m.old, m.new) {
				outdated = append(outdated, m.old)
			}
		}
		w.found, w.gone, w.probes, w.outdate, w.again = nil, nil, nil, nil, nil
	}
	l.forget(outdated)
}

func (l *look) note(f finding) {
	f.dir.settled = false
	path := f.dir.path + "/" + f.name
	switch {
	case f.name == "":
	case f.kind != "":
		if list := l.r.strays[f.dir.path]; len(list) < maxStrays {
			l.r.strays[f.dir.path] = append(list, describeStray(f.dir, f.name, f.kind))
		}
	case !l.failed[path]:
		l.failed[path] = true
		l.gaps.add(f.source, path, f.err, "")
	}
}

// forget removes messages, the last of each part first, because removing one
// moves the last into its place.
func (l *look) forget(places []place) {
	if len(places) == 0 {
		return
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.part != b.part {
			return a.part - b.part
		}
		return b.row - a.row
	})
	for _, at := range slices.Compact(places) {
		p := l.r.parts[at.part]
		p.own()
		p.shard.Remove(at.row)
		last := len(p.origin) - 1
		p.origin[at.row] = p.origin[last]
		p.origin = p.origin[:last]
	}
	l.index = nil
}

// own makes the part changeable: its shard may belong to a finished Snapshot.
func (p *part) own() {
	if !p.shared {
		return
	}
	if p.shard.Waste() > p.shard.Len() {
		p.shard = p.shard.Compact()
	} else {
		p.shard = p.shard.Fork()
	}
	p.shared = false
}

// verify looks at every message that is known from an earlier look: whether
// its file and its logs are still as they were.
func (l *look) verify() {
	if l.r.length() == 0 {
		return
	}
	for _, d := range l.r.dirs {
		d.close()
		if fd, err := openAt(l.root, d.path, dirFlags); err == nil {
			d.fd = fd
		}
	}
	l.each(func(w *worker) { w.verify(l.r.parts[w.part]) })
}

func (r *Reader) length() int {
	n := 0
	for _, p := range r.parts {
		n += p.shard.Len()
	}
	return n
}

func (w *worker) verify(p *part) {
	var st unix.Stat_t
	for i := range p.shard.Len() {
		if i%1024 == 0 && w.look.ctx.Err() != nil {
			return
		}
		d, id := w.look.r.dirAt[p.origin[i].dir], p.shard.ID(i)
		errno := unix.ENOENT
		if d.fd >= 0 {
			errno = statAt(d.fd, string(id), &st)
		}
		if errno == 0 && p.shard.SameFile(i, st.Ino, st.Size, timeOf(st.Ctim)) && w.look.logs.unchanged(w, id, p.origin[i]) {
			continue
		}
		// A changed file is read as a new one, a file that left is looked for
		// elsewhere: both by forgetting it and listing its directory again.
		w.outdate = append(w.outdate, place{w.part, i})
		w.found = append(w.found, finding{dir: d})
	}
}

func statAt(dir int, name string, st *unix.Stat_t) unix.Errno {
	for {
		err := unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return 0
		}
		var errno unix.Errno
		if errors.As(err, &errno) && errno == unix.EINTR {
			continue
		}
		return errno
	}
}

// pass lists the directories that changed and reads what is new in them.
func (l *look) pass() {
	first := l.r.length() == 0
	l.index = nil // of the pass before: it lacks what that one read
	work := make(chan *names, 2*len(l.workers))
	lst := &lister{
		root: l.root, known: l.r.dirs, gaps: &l.gaps, strays: l.r.strays,
		now: func() int64 { return l.r.opts.Now().UnixNano() },
	}
	lst.met = func(d *directory) { l.r.dirAt = append(l.r.dirAt, d) }
	lst.emit = func(batch *names) error {
		// Built before the first batch is handed out; workers only read it.
		if !first && l.index == nil {
			l.buildIndex()
		}
		select {
		case work <- batch:
			return nil
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	var wg sync.WaitGroup
	for _, w := range l.workers {
		wg.Go(func() {
			for batch := range work {
				w.readBatch(batch)
			}
		})
	}
	for _, q := range postfix.Queues() {
		seen, err := lst.walk(q)
		l.known[q] = l.known[q] || seen
		if err != nil {
			break // cancelled, or out of time: Look says which
		}
	}
	close(work)
	wg.Wait()
	l.collect()
}

// buildIndex also settles what was met twice: a message that moved between two
// directories while they were read counts where it was changed last. Two
// different messages with one ID both stay: Postfix uses short IDs again.
func (l *look) buildIndex() {
	l.index, l.reused = make(map[postfix.QueueID]known, l.r.length()), make(map[postfix.QueueID][]known)
	var twice []place
	for pi, p := range l.r.parts {
		for i := range p.shard.Len() {
			here := known{place{pi, i}, l.r.dirAt[p.origin[i].dir]}
			id := p.shard.ID(i)
			other, ok := l.index[id]
			switch {
			case ok && l.same(other.at, here.at) && l.changedAfter(other.at, here.at):
				twice = append(twice, here.at)
				continue
			case ok && l.same(other.at, here.at):
				twice = append(twice, other.at)
			case ok:
				l.reused[id] = append(l.reused[id], other)
			}
			l.index[id] = here
		}
	}
	if len(twice) > 0 {
		l.forget(twice)
		l.buildIndex()
	}
}

// same reports whether two places keep the same message.
func (l *look) same(a, b place) bool {
	var m postfix.Message
	l.r.parts[b.part].shard.Get(b.row, &m)
	return l.r.parts[a.part].shard.SameMessage(a.row, &m)
}

// changedAfter reports whether what is at a changed after what is at b.
func (l *look) changedAfter(a, b place) bool {
	var x, y postfix.Message
	l.r.parts[a.part].shard.Get(a.row, &x)
	l.r.parts[b.part].shard.Get(b.row, &y)
	return x.Changed.After(y.Changed)
}

func (w *worker) readBatch(batch *names) {
	if w.look.ctx.Err() != nil {
		return
	}
	p := w.look.r.parts[w.part]
	for i := range batch.len() {
		name := batch.at(i)
		met := w.look.metIn(postfix.QueueID(name))
		if slices.ContainsFunc(met, func(k known) bool { return k.dir == batch.dir }) {
			continue
		}
		from, ok := w.read(batch.dir, name)
		if !ok {
			continue
		}
		p.own()
		if p.shard.Full() {
			w.found = append(w.found, finding{dir: batch.dir, name: name, source: "spool", err: errFull})
			continue
		}
		row := p.shard.Add(&w.dec.msg)
		p.origin = append(p.origin, from)
		for _, old := range met {
			w.again = append(w.again, metAgain{old: old.at, new: place{w.part, row}})
		}
	}
}

// metIn returns where messages with this ID were met before.
func (l *look) metIn(id postfix.QueueID) []known {
	first, ok := l.index[id]
	if !ok {
		return nil
	}
	return append(slices.Clip(l.reused[id]), first)
}

var errFull = errors.New("the snapshot is full: 4 GiB of addresses and reasons")

// read decodes one queue file with its logs into w.dec.msg.
func (w *worker) read(d *directory, name string) (from origin, ok bool) {
	var st unix.Stat_t
	fd, kind, err := w.look.r.openQueueFile(d, name, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		w.gone = append(w.gone, postfix.QueueID(string([]byte(name))))
		return origin{}, false
	case err != nil || kind != "":
		w.found = append(w.found, finding{dir: d, name: string([]byte(name)), kind: kind, source: "spool", err: err})
		return origin{}, false
	}
	err = w.dec.decode(fd, st.Size, d.queue)
	_ = unix.Close(fd)
	if err != nil {
		w.found = append(w.found, finding{dir: d, name: string([]byte(name)), source: "spool", err: err})
		return origin{}, false
	}
	id := postfix.QueueID(name)
	if w.dec.probe {
		w.probes = append(w.probes, postfix.QueueID(string([]byte(name))))
		w.found = append(w.found, finding{dir: d})
		return origin{}, false
	}
	w.finishMessage(d, id, &st)
	if w.dec.overflow > 0 {
		w.found = append(w.found, finding{dir: d, name: string([]byte(name)), source: "recipients beyond 200,000 of one message", err: errOverflow})
	}
	return w.look.logs.read(w, d, id), true
}

var errOverflow = errors.New("they are counted and not listed")

// finishMessage adds what the file's attributes tell.
func (w *worker) finishMessage(d *directory, id postfix.QueueID, st *unix.Stat_t) {
	m := &w.dec.msg
	m.ID, m.Inode, m.Changed = id, st.Ino, timeOf(st.Ctim)
	if d.queue == postfix.Incoming || d.queue == postfix.Deferred {
		m.NextTry = timeOf(st.Mtim)
	}
	if m.Arrival.IsZero() {
		m.Arrival = timeOf(st.Mtim) // as showq does; Damage says that there was none
	}
	if m.Size == 0 {
		m.Size = st.Size // as showq does, for maildrop and damaged files
	}
	m.ForceExpire = st.Mode&unix.S_IXGRP != 0
	m.FlushRequested = st.Mode&unix.S_IRGRP != 0 && d.queue != postfix.Maildrop
	for i := range m.Recipients {
		r := &m.Recipients[i]
		r.NextHop = w.look.r.in.NextHop(m, r.Address)
	}
}

// sawAny reports whether at least one queue that carries mail could be listed.
func (l *look) sawAny() bool {
	for _, q := range postfix.Queues() {
		if q != postfix.Saved && q != postfix.Corrupt && l.known[q] {
			return true
		}
	}
	return false
}

func (l *look) firstError() error {
	if len(l.gaps.gaps) == 0 {
		return errors.New("none of its queues could be listed")
	}
	return errors.New(l.gaps.gaps[0].Object + ": " + l.gaps.gaps[0].Text)
}

// finish makes the Snapshot.
func (l *look) finish() *observe.Snapshot {
	vanished := 0
	if len(l.gone) > 0 {
		l.buildIndex()
		for id := range l.gone {
			if _, ok := l.index[id]; !ok {
				vanished++
			}
		}
	}
	var known []postfix.Queue
	for _, q := range postfix.Queues() {
		if l.known[q] {
			known = append(known, q)
		}
	}
	var shards []*observe.Shard
	for _, p := range l.r.parts {
		p.shared = true
		shards = append(shards, p.shard)
	}
	s := observe.Build(l.r.in, observe.FromSpool, l.from, l.r.opts.Now(), known, shards)
	s.Gaps, s.Probes, s.Vanished = l.gaps.gaps, len(l.probes), vanished
	for _, d := range l.r.dirs {
		s.Strays = append(s.Strays, l.r.strays[d.path]...)
	}
	s.Strays = append(s.Strays, l.misplaced()...)
	slices.SortFunc(s.Strays, func(a, b observe.Stray) int { return strings.Compare(a.Path, b.Path) })
	return s
}

// misplaced lists the messages that Postfix would look for elsewhere.
func (l *look) misplaced() []observe.Stray {
	var found []observe.Stray
	for _, p := range l.r.parts {
		for i := range p.origin {
			if p.origin[i].bounces&elsewhere != 0 && len(found) < maxStrays {
				found = append(found, describeStray(l.r.dirAt[p.origin[i].dir], string(p.shard.ID(i)), observe.Misplaced))
			}
		}
	}
	return found
}
