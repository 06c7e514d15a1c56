package maillog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe/opener"
)

// sibling is an older part of a log, by its name in the same folder.
type sibling struct {
	name    string
	inode   inode
	size    int64
	written time.Time
	// number is what rotation counts or dates by; dated says which.
	number int64
	dated  bool
	packed bool // by its name: compressed
}

// siblings lists the older parts of a log, newest first.
func siblings(path string) ([]sibling, error) {
	dir, base := filepath.Dir(path), filepath.Base(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []sibling
	for _, e := range entries {
		s, ok := rotated(base, e.Name())
		if !ok {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, s.name), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue // gone again, or no part of a log
		}
		s.inode, s.size, s.written = inodeOf(&st), st.Size, time.Unix(st.Mtim.Unix())
		found = append(found, s)
	}
	return newestFirst(found), nil
}

// rotated reads a name such as mail.log.1, mail.log.0.bz2, maillog-20261123.gz
// or mail.log.20261123-173724, which is what postfix(1) logrotate makes.
func rotated(base, name string) (sibling, bool) {
	rest, ok := strings.CutPrefix(name, base)
	if !ok || len(rest) < 2 || rest[0] != '.' && rest[0] != '-' && rest[0] != '_' {
		return sibling{}, false
	}
	s := sibling{name: name}
	for _, ending := range [...]string{".gz", ".xz", ".bz2", ".zst", ".zstd", ".Z"} {
		if bare, ok := strings.CutSuffix(rest, ending); ok {
			rest, s.packed = bare, true
			break
		}
	}
	digits := strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9':
			return r
		case strings.ContainsRune("-_.:T", r):
			return -1
		}
		return 'x'
	}, rest)
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return sibling{}, false // mail.log.offset, mail.log.save~
	}
	s.number, s.dated = number, len(digits) >= 6
	return s, true
}

// newestFirst orders by what the names say, and by time where some are counted
// and some dated. While a file is being compressed there are two of it, and the
// one that is not compressed is whole.
func newestFirst(list []sibling) []sibling {
	dated := 0
	for _, s := range list {
		if s.dated {
			dated++
		}
	}
	slices.SortFunc(list, func(a, b sibling) int {
		switch {
		case dated == 0 && a.number != b.number:
			return cmp.Compare(a.number, b.number)
		case dated == len(list) && a.number != b.number:
			// 20261123 and 20261123-173724 are compared as written, not as numbers.
			return strings.Compare(strconv.FormatInt(b.number, 10), strconv.FormatInt(a.number, 10))
		case a.number != b.number:
			return b.written.Compare(a.written)
		case a.packed != b.packed:
			if a.packed {
				return 1
			}
			return -1
		}
		return strings.Compare(a.name, b.name)
	})
	return slices.CompactFunc(list, func(a, b sibling) bool {
		return a.number == b.number && a.dated == b.dated && a.packed != b.packed
	})
}

// rotation is a log with its older parts, each file once: open, newest first.
type rotation struct {
	files []*logFile
	// unopened are older parts that lie before the window, or could not be
	// opened; errs say which of them could not.
	unopened []sibling
	errs     []error
	// missing is why the log itself is not there.
	missing error
}

func (p *rotation) close() {
	for _, f := range p.files {
		f.close()
	}
}

// attempts is how often a log is opened anew because it was being rotated.
const attempts = 5

var errRestless = errors.New("it was rotated again and again while it was being opened")

// openRotation opens a log and those of its older parts that were written to since
// a time. A rotation between two of its steps is noticed by inodes, and then it
// starts again.
func openRotation(path string, since time.Time, root *opener.Opener) (*rotation, error) {
	for range attempts {
		p, settled, err := tryRotation(path, since, root)
		if settled || err != nil {
			return p, err
		}
		p.close()
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: errRestless}
}

func tryRotation(path string, since time.Time, root *opener.Opener) (p *rotation, settled bool, err error) {
	p = &rotation{}
	var live inode
	switch f, err := openLog(path, "", root); {
	case err == nil:
		live = f.inode
		p.files = append(p.files, f)
	case errors.Is(err, fs.ErrNotExist):
		p.missing = err
	default:
		return nil, false, err
	}
	older, err := siblings(path)
	if err != nil {
		older, p.errs = guess(path, root), append(p.errs, fmt.Errorf("list the parts named otherwise than NAME.1, NAME.2.gz and so on: %w", err))
	}
	for _, s := range older {
		if s.inode == live {
			return p, false, nil // renamed since it was opened
		}
		if s.written.Before(since) {
			p.unopened = append(p.unopened, s)
			continue
		}
		f, err := openLog(path, s.name, root)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return p, false, nil
		case err != nil:
			p.unopened, p.errs = append(p.unopened, s), append(p.errs, err)
		case f.inode != s.inode:
			f.close()
			return p, false, nil
		default:
			p.files = append(p.files, f)
		}
	}
	p.dropCopy()
	return p, stillThere(path, live, root), nil
}

// stillThere says whether a path leads to that file, or where that is none, to
// none. A folder that only root may enter is asked by opening.
func stillThere(path string, live inode, root *opener.Opener) bool {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, fs.ErrPermission) {
		f, err := openLog(path, "", root)
		if err != nil {
			return live == inode{} && errors.Is(err, fs.ErrNotExist)
		}
		defer f.close()
		return f.inode == live
	}
	if err != nil {
		return live == inode{}
	}
	return inodeOf(&st) == live
}

// guess finds older parts in a folder that cannot be listed, by the names that
// logrotate and newsyslog count with.
func guess(path string, root *opener.Opener) []sibling {
	const most = 9
	var found []sibling
	base := filepath.Base(path)
	for i := range most {
		for _, ending := range [...]string{"", ".gz", ".xz", ".bz2", ".zst"} {
			s, ok := rotated(base, fmt.Sprintf("%s.%d%s", base, i, ending))
			if f, err := openLog(path, s.name, root); ok && err == nil {
				s.inode, s.size, s.written = f.inode, f.size, f.written
				found = append(found, s)
				f.close()
			}
		}
	}
	return newestFirst(found)
}

// dropCopy leaves out the newest older part where it is a copy of the log:
// logrotate's copytruncate copies first, and empties the log then.
func (p *rotation) dropCopy() {
	if p.missing != nil || len(p.files) < 2 {
		return
	}
	log, older := p.files[0], p.files[1]
	a, err1 := log.beginning()
	b, err2 := older.beginning()
	n := min(len(a), len(b))
	if err1 == nil && err2 == nil && n >= tellsApart && bytes.Equal(a[:n], b[:n]) {
		older.close()
		p.files = slices.Delete(p.files, 1, 2)
	}
}

// tellsApart is how much of a beginning cannot be another file's: more than the
// stamp, and the name of the host.
const tellsApart = 64

// beginning is what tells a file from what is in it after it was emptied.
func (f *logFile) beginning() ([]byte, error) {
	b := make([]byte, 512)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}
