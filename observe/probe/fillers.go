package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// scarce is what a file system is short of.
type scarce uint8

const (
	notShort scarce = iota
	shortOfBytes
	shortOfInodes
)

const (
	fillersPatience = 1500 * time.Millisecond
	fillersMost     = 400_000 // entries that are looked at
	fillersListed   = 5
	// fillersShare: a directory is worth a line from a twentieth of all on.
	fillersShare = 20
)

// shortage says what the file system is short of, so far that it matters who
// has it.
func shortage(s observe.Storage) scarce {
	const full, quota = unix.ENOSPC, unix.EDQUOT
	failed := strings.HasSuffix(s.WriteError, full.Error()) || strings.HasSuffix(s.WriteError, quota.Error())
	bytes := s.Free < s.Bytes/shortOf
	// XFS makes inodes of free space: without bytes it has no inodes either, and
	// the bytes are what is missing.
	inodes := s.Inodes > 0 && s.FreeFiles < s.Inodes/shortOf
	switch {
	case inodes && !bytes:
		return shortOfInodes
	case bytes || failed:
		return shortOfBytes
	}
	return notShort
}

// folder is a directory and what lies in it. Its sums are of its own entries
// until total has added those of the folders below.
type folder struct {
	path         string
	bytes, files int64
	below        []*folder
	// whole is set for a queue: its hash directories say nothing.
	whole bool
	// top is where a walk began; its name alone says nothing either.
	top bool
}

func (f *folder) weigh(s scarce) int64 {
	if s == shortOfInodes {
		return f.files
	}
	return f.bytes
}

// walk looks through one file system, breadth first, so that what time does
// not suffice for is the depth of it.
type walk struct {
	device  uint64
	seen    map[uint64]bool // inodes with several names, and directories
	entries int
	closed  int // directories that may not be read
	first   string
	cut     bool // by time or number
}

// usage is what is used of a file system, by its own account.
type usage struct{ bytes, files int64 }

func (u usage) of(s scarce) int64 {
	if s == shortOfInodes {
		return u.files
	}
	return u.bytes
}

// fillers finds the directories that hold most of what is scarce.
func fillers(ctx context.Context, in postfix.Instance, mounts []mount, m mount, s scarce, taken usage) ([]observe.Filler, []observe.Gap) {
	ctx, cancel := context.WithTimeout(ctx, fillersPatience)
	defer cancel()
	var st unix.Stat_t
	if err := unix.Stat(in.QueueDir, &st); err != nil {
		return nil, []observe.Gap{{Source: "storage", Object: in.QueueDir, Text: err.Error()}}
	}
	w := walk{device: st.Dev, seen: make(map[uint64]bool)}
	// The spool first: whether it is the mail itself is the first question.
	spool := &folder{path: in.QueueDir, top: true}
	tops := []*folder{spool}
	top := widest(mounts, m)
	if top != "" && top != in.QueueDir {
		tops = append(tops, &folder{path: top, top: true})
	}
	w.queues(ctx, spool)
	for _, top := range tops[1:] {
		w.run(ctx, []*folder{top})
	}
	all := &folder{below: tops}
	all.total()
	var found []observe.Filler
	// A share of all that is used, not of what could be seen: the largest of a
	// few crumbs fills nothing.
	all.heavy(s, max(all.weigh(s)/fillersShare, taken.of(s)/fillersShare, 1), func(f *folder) {
		found = append(found, observe.Filler{Path: f.path, Bytes: f.bytes, Files: f.files})
	})
	slices.SortStableFunc(found, func(a, b observe.Filler) int {
		if s == shortOfInodes {
			return int(min(max(b.Files-a.Files, -1), 1))
		}
		return int(min(max(b.Bytes-a.Bytes, -1), 1))
	})
	return found[:min(len(found), fillersListed)], w.gaps(top, s, all.bytes, taken.bytes)
}

// widest returns where most of the file system is mounted.
func widest(mounts []mount, m mount) string {
	for _, o := range mounts {
		if o.device == m.device && below(m.root, o.root) {
			m = o
		}
	}
	return m.point
}

// queues walks the spool by the names that Postfix gives: to read the queue
// directory itself would leave a time of reading that we could not spare it.
func (w *walk) queues(ctx context.Context, spool *folder) {
	var st unix.Stat_t
	if err := unix.Lstat(spool.path, &st); err == nil {
		w.seen[st.Ino] = true
	}
	for _, q := range postfix.Queues() {
		spool.below = append(spool.below, &folder{path: filepath.Join(spool.path, q.String()), whole: true})
	}
	for _, name := range []string{"defer", "bounce", "trace", "flush"} {
		spool.below = append(spool.below, &folder{path: filepath.Join(spool.path, name), whole: true})
	}
	w.run(ctx, spool.below)
}

func (w *walk) run(ctx context.Context, level []*folder) {
	for len(level) > 0 {
		var next []*folder
		for _, f := range level {
			if w.cut = w.cut || ctx.Err() != nil || w.entries > fillersMost; w.cut {
				return
			}
			w.read(ctx, f)
			next = append(next, f.below...)
		}
		level = next
	}
}

// read adds up the entries of one directory.
func (w *walk) read(ctx context.Context, f *folder) {
	dir, err := openQuietly(f.path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			if w.closed++; w.closed == 1 {
				w.first = f.path
			}
		}
		return // a queue that is not there is none
	}
	defer func() { _ = unix.Close(dir) }()
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil || st.Dev != w.device || w.seen[st.Ino] {
		return
	}
	w.seen[st.Ino] = true
	buffer := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(dir, buffer)
		if n <= 0 || err != nil {
			return
		}
		_, _, names := unix.ParseDirent(buffer[:n], -1, nil)
		for _, name := range names {
			if w.entries++; w.entries > fillersMost || ctx.Err() != nil {
				w.cut = true
				return
			}
			w.add(dir, f, name)
		}
	}
}

// add counts one entry, and notes a directory for later.
func (w *walk) add(dir int, f *folder, name string) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil || st.Dev != w.device {
		return
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir {
		f.below = append(f.below, &folder{path: filepath.Join(f.path, name)})
		if w.seen[st.Ino] {
			f.below = f.below[:len(f.below)-1]
			return
		}
	} else if st.Nlink > 1 {
		if w.seen[st.Ino] {
			return
		}
		w.seen[st.Ino] = true
	}
	f.files++
	f.bytes += st.Blocks * 512 // the unit of st_blocks, whatever the file system's
}

// openQuietly opens a directory, without touching its access time where that
// is allowed.
func openQuietly(path string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(path, flags, 0)
	}
	return fd, err
}

func (f *folder) total() {
	for _, b := range f.below {
		b.total()
		f.bytes += b.bytes
		f.files += b.files
	}
}

// heavy names the folders that hold at least so much: the deepest ones, unless
// what they hold is spread over too many to be named.
func (f *folder) heavy(s scarce, least int64, name func(*folder)) {
	var big []*folder
	var sum int64
	for _, b := range f.below {
		if b.weigh(s) >= least {
			big = append(big, b)
			sum += b.weigh(s)
		}
	}
	if f.path != "" && (f.whole || len(big) > fillersListed && !f.top || sum < f.weigh(s)/2) {
		name(f)
		return
	}
	for _, b := range big {
		b.heavy(s, least, name)
	}
}

// gaps says what was not seen.
func (w *walk) gaps(top string, s scarce, bytes, used int64) []observe.Gap {
	var gaps []observe.Gap
	if w.closed > 0 {
		gaps = append(gaps, observe.Gap{
			Source: "storage", Object: w.first, Count: w.closed, Text: "directories that may not be read are not in the sums",
			Hint: "as root: du -x -d 2 " + top,
		})
	}
	if w.cut {
		gaps = append(gaps, observe.Gap{
			Source: "storage", Object: top, Text: fmt.Sprintf("only %d entries were looked at", w.entries),
			Hint: "as root: du -x -d 2 " + top,
		})
	}
	if len(gaps) == 0 && s == shortOfBytes && bytes < used/2 {
		gaps = append(gaps, observe.Gap{
			Source: "storage", Object: top, Text: "more than half of what is used lies in no file that has a name: some program holds deleted files open",
			Hint: "as root: lsof +L1 " + top,
		})
	}
	return gaps
}
