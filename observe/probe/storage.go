package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/postfix"
)

const (
	// trialPatience is how long a file of 64 kB may take before it counts as
	// hanging; a disk that is merely slow takes a second.
	trialPatience = 4 * time.Second
	// logReserve is the least that a log needs to go on.
	logReserve = 64 << 10
	// trialName is what the kernel calls a process started as /proc/self/exe.
	trialName = "exe"
	// shortOf: below a tenth, who fills the file system is of interest.
	shortOf = 10
)

// askStorage looks at the file system of the spool, by its numbers and by
// writing to it: each tells what the other does not. A file system can have
// bytes and no inodes, can be mounted for writing and refuse it, or can take a
// file and never say that it is on disk.
func askStorage(ctx context.Context, proc procfs, in postfix.Instance, logPath string, op *opener.Opener) (observe.Storage, []observe.Gap) {
	s := observe.Storage{Path: in.QueueDir}
	var fs unix.Statfs_t
	if err := unix.Statfs(in.QueueDir, &fs); err != nil {
		return s, []observe.Gap{{Source: "storage", Object: in.QueueDir, Text: "look at the file system: " + err.Error()}}
	}
	s.Known = true
	measure(&s, &fs)
	mounts, err := proc.mounts()
	m, found := mountOf(mounts, in.QueueDir)
	var gaps []observe.Gap
	if err != nil || !found {
		gaps = append(gaps, observe.Gap{Source: "storage", Object: in.QueueDir, Text: "where it is mounted cannot be told", Hint: "see: findmnt -T " + in.QueueDir})
	} else {
		s.Mount, s.Type, s.Own = m.point, m.kind, m.point == realPath(in.QueueDir) && showsAll(mounts, m)
		// ext4 that has met an error since Linux 6.15 keeps its flags and says so
		// in an option of its own.
		s.ReadOnly = s.ReadOnly || m.has("ro") || m.has("emergency_ro")
	}
	gaps = append(gaps, lookAtLog(&s, logPath)...)
	gaps = append(gaps, try(ctx, proc, &s, op)...)
	if wanted := shortage(s); wanted != notShort {
		var more []observe.Gap
		s.Fillers, more = fillers(ctx, in, mounts, m, wanted, usage{used(&fs), s.Inodes - s.FreeFiles})
		gaps = append(gaps, more...)
	}
	return s, gaps
}

// measure counts as an ordinary user does: what is reserved for root is
// neither free nor part of the whole, as in df(1).
func measure(s *observe.Storage, fs *unix.Statfs_t) {
	s.Free = bytesOf(fs, fs.Bavail)
	s.Bytes = used(fs) + s.Free
	s.Inodes, s.FreeFiles = count(fs.Files), count(fs.Ffree)
	s.ReadOnly = fs.Flags&unix.ST_RDONLY != 0
}

func used(fs *unix.Statfs_t) int64 { return bytesOf(fs, fs.Blocks-min(fs.Bfree, fs.Blocks)) }

func bytesOf(fs *unix.Statfs_t, blocks uint64) int64 {
	// Some file systems leave the unit of their counts out.
	unit := fs.Frsize
	if unit == 0 {
		unit = fs.Bsize
	}
	return count(blocks) * unit
}

// count keeps a figure that a file system makes up ("no limit") from turning
// negative, also when it is multiplied by a block size.
func count(n uint64) int64 { return int64(min(n, 1<<42)) }

// try writes a file of our own.
func try(ctx context.Context, proc procfs, s *observe.Storage, op *opener.Opener) []observe.Gap {
	if since := proc.hangingSince(s.Path); !since.IsZero() {
		s.WriteTried = true
		s.Latency = time.Since(since)
		s.WriteError = fmt.Sprintf("an earlier write hangs since %v", s.Latency.Round(time.Second))
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	t, err := op.Try(ctx, s.Path)
	gap := func(text, hint string) []observe.Gap {
		return []observe.Gap{{Source: "storage", Object: s.Path, Text: "no file of our own could be tried: " + text, Hint: hint}}
	}
	switch {
	case err != nil:
		return gap(err.Error(), "")
	case t.Errno == unix.EACCES || t.Errno == unix.EPERM:
		return gap(t.Errno.Error(), "run holdfast as root")
	case t.Errno == unix.EOPNOTSUPP || t.Errno == unix.EISDIR || t.Errno == unix.EINVAL:
		return gap("the file system takes no file without a name", "")
	}
	s.WriteTried, s.Written, s.Latency = true, t.Done, t.Took
	switch {
	case t.Done:
	case t.Errno != 0:
		s.WriteError = t.Stage + ": " + t.Errno.Error()
		s.ReadOnly = s.ReadOnly || t.Errno == unix.EROFS
	default:
		s.WriteError = fmt.Sprintf("%s hangs since %v", t.Stage, t.Took.Round(100*time.Millisecond))
	}
	return nil
}

// hangingSince finds a trial of an earlier look that never came back. Another
// one would join it, and an operator who asks again and again would fill the
// process table. A process that is neither root's nor ours proves nothing: its
// arguments are whatever its user wrote.
func (p procfs) hangingSince(queueDir string) time.Time {
	list, err := p.processes()
	if err != nil {
		return time.Time{}
	}
	for _, one := range list {
		// Started by that name. Of others the arguments are not read: where a
		// process hangs in a page fault, reading them would hang too.
		if one.name != trialName {
			continue
		}
		name := strconv.Itoa(one.pid)
		cmdline, err := p.read(filepath.Join(name, "cmdline"))
		if dir, ok := opener.TrialOf(cmdline); err != nil || !ok || dir != queueDir {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(string(p), name), &st); err != nil || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			continue
		}
		if since := p.started(one); !since.IsZero() && time.Since(since) > trialPatience {
			return since
		}
	}
	return time.Time{}
}

// lookAtLog looks at the file system of the log where it is another one.
func lookAtLog(s *observe.Storage, path string) []observe.Gap {
	if path == "" {
		return nil
	}
	var fs unix.Statfs_t
	var log, spool unix.Stat_t
	dir := filepath.Dir(path) // the log itself may be missing
	if err := errors.Join(unix.Stat(dir, &log), unix.Statfs(dir, &fs), unix.Stat(s.Path, &spool)); err != nil {
		return []observe.Gap{{Source: "storage", Object: path, Text: "look at the file system of the log: " + err.Error()}}
	}
	if log.Dev == spool.Dev {
		return nil
	}
	s.LogPath, s.LogFree = path, bytesOf(&fs, fs.Bavail)
	s.LogFull = s.LogFree < logReserve || fs.Files > 0 && fs.Ffree == 0
	return nil
}

// mount is one line of mountinfo.
type mount struct {
	id     uint64
	device device
	// root is what of the file system is seen at point.
	root, point, kind string
	options           []string // of the mount and of the file system
}

func (m mount) has(option string) bool { return slices.Contains(m.options, option) }

func (p procfs) mounts() ([]mount, error) {
	text, err := p.read("self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(text), nil
}

// parseMounts reads lines such as "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 -
// ext4 /dev/root rw,errors=continue" (proc(5)). Blanks in paths are octal.
func parseMounts(text string) []mount {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var list []mount
	for line := range strings.Lines(text) {
		head, tail, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		major, minor, _ := strings.Cut(f[2], ":")
		var m mount
		var errs [3]error
		m.id, errs[0] = strconv.ParseUint(f[0], 10, 64)
		m.device.major, errs[1] = strconv.ParseUint(major, 10, 64)
		m.device.minor, errs[2] = strconv.ParseUint(minor, 10, 64)
		if errors.Join(errs[:]...) != nil {
			continue
		}
		m.root, m.point, m.kind = unescape.Replace(f[3]), unescape.Replace(f[4]), g[0]
		m.options = slices.Concat(strings.Split(f[5], ","), strings.Split(g[2], ","))
		list = append(list, m)
	}
	return list
}

func (p procfs) mountOf(path string) (mount, bool) {
	mounts, err := p.mounts()
	if err != nil {
		return mount{}, false
	}
	return mountOf(mounts, path)
}

// mountOf finds the mount that a path lies on: by the number that the kernel
// gives for it, since 5.8, else as the last one with the longest fitting point.
func mountOf(mounts []mount, path string) (mount, bool) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st); err == nil && st.Mask&unix.STATX_MNT_ID != 0 {
		if i := slices.IndexFunc(mounts, func(m mount) bool { return m.id == st.Mnt_id }); i >= 0 {
			return mounts[i], true
		}
	}
	var best mount
	path = realPath(path)
	for _, m := range mounts {
		if below(path, m.point) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best, best.point != ""
}

// showsAll says whether nothing of the file system is mounted elsewhere that
// is not seen in m.
func showsAll(mounts []mount, m mount) bool {
	return !slices.ContainsFunc(mounts, func(o mount) bool { return o.device == m.device && !below(o.root, m.root) })
}

// below says whether path is dir or lies in it.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

func realPath(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return filepath.Clean(path)
}
