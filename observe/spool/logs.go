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

var errLongLog = errors.New("only the first 64 MiB were read")

// logTree is one directory of logs, hashed or not.
type logTree struct {
	root  int
	name  string
	depth int
	mu    sync.RWMutex
	open  map[string]int // by hash path; -1 where there is no such directory
}

func openLogs(root int, in postfix.Instance) *logDirs {
	l := &logDirs{
		defers:   logTree{root: root, name: "defer", depth: in.DepthOf("defer"), open: make(map[string]int)},
		bounces:  logTree{root: root, name: "bounce", depth: in.DepthOf("bounce"), open: make(map[string]int)},
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

// stat returns the state of the log of one message as a number that differs
// when the log does; 0 where there is none.
func (t *logTree) stat(w *worker, id postfix.QueueID, st *unix.Stat_t) uint64 {
	w.path = id.AppendHashPath(w.path[:0], t.depth)
	dir, err := t.dir(w.path)
	if err != nil || statAt(dir, string(id), st) != 0 {
		return 0
	}
	return logState(st)
}

func logState(st *unix.Stat_t) uint64 {
	h := st.Ino
	for _, v := range []uint64{uint64(st.Size), uint64(st.Mtim.Nano())} { //nolint:gosec // mixed, not counted
		h = (h ^ v) * 0x9E3779B97F4A7C15
	}
	return h | 1
}

// stamp returns the state of a message's logs as read did.
func (l *logDirs) stamp(w *worker, id postfix.QueueID) uint64 {
	var st unix.Stat_t
	state := l.defers.stat(w, id, &st)
	if l.bouncing[id] {
		state ^= l.bounces.stat(w, id, &st)
	}
	return state
}

// read joins the message in w.dec.msg with its defer and bounce logs and
// returns their state. A message without a log was not tried yet, is being
// tried, or its attempt was cut off: Postfix removes the log when it opens the
// message again (qmgr_message_alloc).
func (l *logDirs) read(w *worker, d *directory, id postfix.QueueID) uint64 {
	log, state := l.defers.read(w, d, id)
	if len(log) > 0 {
		w.dec.join(log)
	}
	if l.bouncing[id] {
		log, more := l.bounces.read(w, d, id)
		w.dec.bounces(log)
		state ^= more
	}
	return state
}

func (t *logTree) read(w *worker, d *directory, id postfix.QueueID) ([]byte, uint64) {
	w.path = id.AppendHashPath(w.path[:0], t.depth)
	dir, err := t.dir(w.path)
	if err != nil {
		return nil, 0
	}
	fd, err := openAt(dir, string(id), fileFlags)
	if err == unix.ENOENT {
		return nil, 0
	}
	var st unix.Stat_t
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		err = unix.Fstat(fd, &st)
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EINVAL
	}
	var n int
	if err == nil {
		if size := int(min(st.Size, maxLog)); cap(w.dec.log) < size {
			w.dec.log = make([]byte, max(size, windowSize))
		}
		n, err = preadFull(fd, w.dec.log[:min(st.Size, maxLog)], 0)
	}
	if err != nil {
		w.found = append(w.found, finding{dir: d, name: string([]byte(id)), source: t.name + " log of", err: err})
		return nil, 0
	}
	if st.Size > maxLog {
		w.found = append(w.found, finding{dir: d, name: string([]byte(id)), source: t.name + " log of", err: errLongLog})
	}
	return w.dec.log[:n], logState(&st)
}
