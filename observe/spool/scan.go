package spool

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

const (
	// direntBuffer is the size of one getdents call.
	direntBuffer = 64 << 10
	// maxHashDepth is deeper than Postfix hashes (MAIL_QUEUE maximum is 3);
	// a tree that goes on is not its work.
	maxHashDepth = 8
	// batchSize is how many names a worker takes at a time.
	batchSize = 128
)

// names is a batch of directory entries, packed: a hundred thousand strings
// would be the largest thing in the reader.
type names struct {
	dir  *directory
	text []byte
	ends []int
}

func (n *names) len() int { return len(n.ends) }

func (n *names) at(i int) string {
	start := 0
	if i > 0 {
		start = n.ends[i-1]
	}
	return lend(n.text[start:n.ends[i]])
}

func (n *names) add(name []byte) {
	n.text = append(n.text, name...)
	n.ends = append(n.ends, len(n.text))
}

// lister walks the directories of the spool and hands out the names in those
// that changed since it walked them last.
type lister struct {
	root   int
	known  map[string]*directory // by path; kept between walks
	buf    []byte
	gaps   *gapSet
	strays map[string][]observe.Stray // by directory: those of an unchanged one still stand
	emit   func(*names) error
	met    func(*directory) // told of each directory that was not known
	now    func() int64
}

// walk visits one queue's directory and every one-character directory below
// it. Postfix descends into those at any depth whatever hash_queue_depth says
// now (mail_scan_dir.c), so a changed setting hides nothing; maildrop is flat.
// It reports whether the queue could be listed.
func (l *lister) walk(q postfix.Queue) (bool, error) { return l.walkTree(q, q.String()) }

// walkTree visits the directory with the given name below the root; q is the
// queue that it is, NoQueue for a directory of logs.
func (l *lister) walkTree(q postfix.Queue, name string) (bool, error) {
	top, err := l.enter(l.root, name, q, name, "")
	if err != nil {
		if errors.Is(err, unix.ENOENT) && q == postfix.Saved {
			return true, nil // a directory of old; Postfix makes it, nothing needs it
		}
		l.gaps.add("spool", name, err, "")
		return false, nil
	}
	seen := true
	for todo := []*directory{top}; len(todo) > 0; todo = todo[1:] {
		d := todo[0]
		listed, err := l.list(d)
		if err != nil {
			return false, err
		}
		seen = seen && listed
		if q == postfix.Maildrop || len(d.hash) >= maxHashDepth {
			continue
		}
		for i := range len(d.children) {
			c := d.children[i : i+1]
			sub, err := l.enter(d.fd, c, q, d.path+"/"+c, d.hash+c)
			if err == nil {
				todo = append(todo, sub)
			} else if !errors.Is(err, unix.ENOENT) {
				l.gaps.add("spool", d.path+"/"+c, err, "")
				seen = false
			}
		}
	}
	return seen, nil
}

// enter opens a directory, or opens it anew: it may be another one by now.
func (l *lister) enter(parent int, name string, q postfix.Queue, path, hash string) (*directory, error) {
	d := l.known[path]
	if d == nil {
		d = &directory{queue: q, number: uint32(len(l.known)), path: path, hash: hash, fd: -1} //nolint:gosec // no more than hash directories
		l.known[path] = d
		if l.met != nil {
			l.met(d)
		}
	}
	d.close()
	fd, err := openAt(parent, name, dirFlags)
	if err != nil {
		return nil, err
	}
	d.fd = fd
	return d, nil
}

// list emits the message names of one directory and notes what is odd in it;
// it does neither where nothing was added, removed or renamed since the last
// time. The stamp is taken before the names are read: what changes in between
// is listed, or shows as a change in the next walk.
func (l *lister) list(d *directory) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		l.gaps.add("spool", d.path, err, "")
		return false, nil
	}
	stamp := stampOf(&st)
	if stamp == d.stamp && d.settled {
		return true, nil
	}
	d.changed = true
	d.stamp, d.settled = stamp, stamp.settled(l.now())
	d.children = ""
	delete(l.strays, d.path)
	batch := &names{dir: d}
	var emitErr error
	err := l.entries(d, func(name []byte, kind byte) error {
		if !l.message(d, name, kind) {
			return nil
		}
		batch.add(name)
		if batch.len() < batchSize {
			return nil
		}
		full := batch
		batch = &names{dir: d}
		emitErr = l.emit(full)
		return emitErr
	})
	if emitErr == nil && batch.len() > 0 {
		emitErr = l.emit(batch)
	}
	if err != nil && emitErr == nil {
		l.gaps.add("spool", d.path, err, "")
		d.stamp = dirStamp{}
		return false, nil
	}
	return true, emitErr
}

// message reports whether a directory entry can be a message. Sub-directories
// and what is odd are noted on the way.
func (l *lister) message(d *directory, name []byte, kind byte) bool {
	valid := postfix.ValidQueueID(name)
	if valid && len(name) == 1 && d.queue != postfix.Maildrop && (kind == unix.DT_DIR || kind == unix.DT_UNKNOWN) {
		d.children += string(name)
		return false
	}
	if !valid {
		l.odd(d, string(name), kind)
		return false
	}
	if kind != unix.DT_REG && kind != unix.DT_UNKNOWN {
		// Not opened at all: opening a device can do something.
		l.stray(d, string(name), observe.NotRegular)
		return false
	}
	return true
}

// odd classifies a name that is no queue ID. Postfix's own temporary files have
// a dot (mail_queue_enter: microseconds, dot, process ID).
func (l *lister) odd(d *directory, name string, kind byte) {
	switch {
	case kind != unix.DT_REG && kind != unix.DT_UNKNOWN:
		l.stray(d, name, observe.NotRegular)
	case strings.HasSuffix(name, "#FIX"):
		l.stray(d, name, observe.Repair)
	case isTemporary(name):
		l.stray(d, name, observe.Unfinished)
	default:
		l.stray(d, name, observe.ForeignName)
	}
}

func isTemporary(name string) bool {
	usec, pid, ok := strings.Cut(name, ".")
	return ok && usec != "" && pid != "" && strings.Trim(usec+pid, "0123456789") == ""
}

// maxStrays bounds the list of one directory: a directory full of foreign
// files is one problem, not a million.
const maxStrays = 10_000

func (l *lister) stray(d *directory, name string, kind observe.StrayKind) {
	if list := l.strays[d.path]; l.strays != nil && len(list) < maxStrays {
		l.strays[d.path] = append(list, describeStray(d, name, kind))
	}
}

func describeStray(d *directory, name string, kind observe.StrayKind) observe.Stray {
	s := observe.Stray{Path: d.path + "/" + name, Kind: kind}
	var st unix.Stat_t
	if unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		s.Size, s.Modified = st.Size, timeOf(st.Mtim)
	}
	return s
}

// entries calls f for every entry of the directory but "." and "..".
func (l *lister) entries(d *directory, f func(name []byte, kind byte) error) error {
	if l.buf == nil {
		l.buf = make([]byte, direntBuffer)
	}
	buf := l.buf
	l.buf = nil // f may list another directory meanwhile
	defer func() { l.buf = buf }()
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	for {
		n, err := unix.Getdents(d.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		if err := eachDirent(buf[:n], f); err != nil {
			return err
		}
	}
}

var errDirent = errors.New("the kernel returned a malformed directory entry")

// eachDirent decodes struct linux_dirent64: inode, offset, record length, type,
// name with a terminating zero.
func eachDirent(b []byte, f func(name []byte, kind byte) error) error {
	const nameAt = 19
	for len(b) > 0 {
		if len(b) < nameAt {
			return errDirent
		}
		length := int(binary.NativeEndian.Uint16(b[16:]))
		if length <= nameAt || length > len(b) {
			return errDirent
		}
		name := b[nameAt:length]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		kind := b[18]
		b = b[length:]
		if string(name) == "." || string(name) == ".." {
			continue
		}
		if err := f(name, kind); err != nil {
			return err
		}
	}
	return nil
}

// gapSet collects gaps and counts those of one kind as one.
type gapSet struct {
	index map[string]int
	gaps  []observe.Gap
}

func (g *gapSet) add(source, object string, err error, hint string) {
	if hint == "" && errors.Is(err, os.ErrPermission) {
		hint = "run holdfast as root: it then reads as the owner of the spool"
	}
	g.put(observe.Gap{Source: source, Object: object, Text: err.Error(), Hint: hint, Count: 1})
}

func (g *gapSet) merge(other *gapSet) {
	for _, gap := range other.gaps {
		g.put(gap)
	}
}

func (g *gapSet) put(gap observe.Gap) {
	key := gap.Source + "\x00" + gap.Text
	if i, ok := g.index[key]; ok {
		g.gaps[i].Count += gap.Count
		return
	}
	if g.index == nil {
		g.index = make(map[string]int)
	}
	g.index[key] = len(g.gaps)
	g.gaps = append(g.gaps, gap)
}
