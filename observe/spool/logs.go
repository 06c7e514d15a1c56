package spool

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// logDirs are the directories of the defer and bounce logs, open for one look.
type logDirs struct {
	defers logTree
	// bouncing lists the IDs that have a bounce log. There are few, since such
	// a log lives only until its notification is sent, and asking the list is
	// cheaper than asking the file system for every message.
	bounces  logTree
	bouncing map[postfix.QueueID]bool
	gaps     gapSet
}

var errLongLog = errors.New("it is longer than 64 MiB and was not read")

// logTree is one directory of logs, hashed or not.
type logTree struct {
	root  int
	name  string
	slot  int // in worker.lastDir
	depth int
	mu    sync.RWMutex
	open  map[string]int // by hash path; -1 where there is no such directory
}

func openLogs(root int, in postfix.Instance) *logDirs {
	l := &logDirs{
		defers:   logTree{root: root, name: "defer", depth: in.DepthOf("defer"), open: make(map[string]int)},
		bounces:  logTree{root: root, name: "bounce", slot: 1, depth: in.DepthOf("bounce"), open: make(map[string]int)},
		bouncing: make(map[postfix.QueueID]bool),
	}
	if _, err := l.defers.dir(nil); err != nil {
		l.gaps.add("defer logs", "defer", err, "")
	}
	// Listed as a queue is: hash directories are found, not computed.
	lst := &lister{
		root: root, known: make(map[string]*directory), gaps: &l.gaps, strays: nil,
		now: func() int64 { return 0 },
	}
	lst.emit = func(batch *names) error {
		for i := range batch.len() {
			l.bouncing[postfix.QueueID(string([]byte(batch.at(i))))] = true
		}
		return nil
	}
	_, _ = lst.walkTree(postfix.NoQueue, "bounce")
	for _, d := range lst.known {
		d.close()
	}
	return l
}

func (l *logDirs) close() {
	for _, t := range []*logTree{&l.defers, &l.bounces} {
		for _, fd := range t.open {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}
}

// dir returns the descriptor of the directory with the given hash path, opening
// it level by level so that no planted link is followed.
func (t *logTree) dir(hash []byte) (int, error) {
	t.mu.RLock()
	fd, ok := t.open[string(hash)]
	t.mu.RUnlock()
	if ok {
		if fd < 0 {
			return -1, unix.ENOENT
		}
		return fd, nil
	}
	parent, name := t.root, t.name
	if len(hash) > 0 {
		var err error
		if parent, err = t.dir(hash[:len(hash)-2]); err != nil {
			return -1, err
		}
		name = string(hash[len(hash)-2 : len(hash)-1])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if fd, ok := t.open[string(hash)]; ok && fd >= 0 {
		return fd, nil
	}
	fd, err := openAt(parent, name, dirFlags)
	if err != nil {
		fd = -1
	}
	t.open[string(hash)] = fd
	return fd, err
}

// dirOf returns the directory of one message's log. The workers take whole
// directories of the queue, so it is nearly always the one of the message
// before, and that is known without a lock.
func (t *logTree) dirOf(w *worker, id postfix.QueueID) (int, error) {
	w.path = id.AppendHashPath(w.path[:0], t.depth)
	last := &w.lastDir[t.slot]
	if last.known && string(w.path) == last.hash {
		return last.fd, last.err
	}
	fd, err := t.dir(w.path)
	*last = lastDir{known: true, hash: string(w.path), fd: fd, err: err}
	return fd, err
}

// stat returns the state of the log of one message: its size and one, 0 where
// there is none. The size is enough. While the queue file stays as it is, its
// log can only grow; whatever starts a log anew opens the message first, and
// that shows in the queue file's ctime.
func (t *logTree) stat(w *worker, id postfix.QueueID, st *unix.Stat_t) uint32 {
	dir, err := t.dirOf(w, id)
	if err != nil || statAt(dir, string(id), st) != 0 {
		return 0
	}
	return logState(st.Size)
}

func logState(size int64) uint32 { return uint32(min(size, maxLog)) + 1 } //nolint:gosec // bounded by maxLog

// unchanged reports whether a message's logs are as they were when it was read.
// A message whose recipients all have their reason, and which nobody delivers
// since it waits in deferred, cannot get another entry: that is nearly the
// whole of a large queue, and it is not asked for.
func (l *logDirs) unchanged(w *worker, id postfix.QueueID, o origin) bool {
	if o.defers&complete != 0 && w.look.r.dirAt[o.dir].queue == postfix.Deferred {
		return true
	}
	var st unix.Stat_t
	bounces := o.bounces &^ elsewhere
	return l.defers.stat(w, id, &st) == o.defers&^complete && (!l.bouncing[id] && bounces == 0 || l.bounces.stat(w, id, &st) == bounces)
}

// read joins the message in w.dec.msg with its defer and bounce logs and
// returns their state. A message without a log was not tried yet, is being
// tried, or its attempt was cut off: Postfix removes the log when it opens the
// message again (qmgr_message_alloc).
func (l *logDirs) read(w *worker, d *directory, id postfix.QueueID) origin {
	o := origin{dir: d.number}
	log, state := l.defers.read(w, d, id)
	o.defers = state
	if len(log) > 0 && w.dec.join(log) {
		o.defers |= complete
	}
	if l.bouncing[id] {
		log, o.bounces = l.bounces.read(w, d, id)
		w.dec.bounces(log)
	}
	if misplaced(d.hash, id, w.look.depth[d.queue]) {
		o.bounces |= elsewhere
	}
	return o
}

// read returns a whole log. It asks for no size first: nearly every log is
// shorter than the buffer, and then one call tells both.
func (t *logTree) read(w *worker, d *directory, id postfix.QueueID) ([]byte, uint32) {
	dir, err := t.dirOf(w, id)
	if err != nil {
		return nil, 0
	}
	fd, err := openAt(dir, string(id), fileFlags)
	if errors.Is(err, unix.ENOENT) {
		return nil, 0
	}
	n := 0
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		n, err = w.dec.readLog(fd)
	}
	if err != nil {
		w.found = append(w.found, finding{dir: d, name: string([]byte(id)), source: t.name + " log of", err: err})
		return nil, 0
	}
	return w.dec.log[:n], logState(int64(n))
}

// readLog reads a log into d.log. Reading by position fails on a pipe, so that
// one planted in place of a log is an error and not an endless wait.
func (d *decoder) readLog(fd int) (int, error) {
	n := 0
	for {
		if n == len(d.log) {
			if n >= maxLog {
				return n, errLongLog
			}
			grown := make([]byte, max(windowSize, 4*len(d.log)))
			copy(grown, d.log)
			d.log = grown
		}
		k, err := unix.Pread(fd, d.log[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if n += k; n < len(d.log) {
			return n, nil
		}
	}
}
