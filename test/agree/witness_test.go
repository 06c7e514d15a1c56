package agree

// A witness that belongs to nobody: the kernel tells it (fanotify) of every
// change in a file system, by whomever.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// changes are the events that a reader must not cause; an opening is seen as
// well, to show that the witness is awake.
var changes = []struct {
	mask uint64
	name string
}{
	{unix.FAN_CREATE, "create"},
	{unix.FAN_DELETE, "delete"},
	{unix.FAN_MOVED_FROM, "move from"},
	{unix.FAN_MOVED_TO, "move to"},
	{unix.FAN_MODIFY, "modify"},
	{unix.FAN_ATTRIB, "attributes"},
	{unix.FAN_CLOSE_WRITE, "close after writing"},
}

// witness watches one file system.
type witness struct {
	t  *testing.T
	fd int
}

// watch starts to watch the file system that path is on. It must be one of its
// own: others write to the host's.
func watch(t *testing.T, path string) *witness {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME|unix.FAN_UNLIMITED_QUEUE|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		t.Fatalf("start fanotify (as root, on Linux 5.9 or later): %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	mask := uint64(unix.FAN_OPEN | unix.FAN_ONDIR)
	for _, c := range changes {
		mask |= c.mask
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask, unix.AT_FDCWD, path); err != nil {
		t.Fatalf("watch the file system of %s: %v", path, err)
	}
	return &witness{t, fd}
}

// seen returns what happened since it was asked last: the changes, and how
// many openings.
func (w *witness) seen() (changed []string, openings int) {
	w.t.Helper()
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(w.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return changed, openings
		case err != nil:
			w.t.Fatalf("read events: %v", err)
		}
		for b := buf[:n]; len(b) > 0; {
			length := binary.NativeEndian.Uint32(b)
			mask, pid := binary.NativeEndian.Uint64(b[8:]), int32(binary.NativeEndian.Uint32(b[20:]))
			if mask&unix.FAN_Q_OVERFLOW != 0 {
				w.t.Fatal("events were lost")
			}
			if mask&unix.FAN_OPEN != 0 {
				openings++
			}
			var what []string
			for _, c := range changes {
				if mask&c.mask != 0 {
					what = append(what, c.name)
				}
			}
			if len(what) > 0 {
				changed = append(changed, fmt.Sprintf("%s of %q by process %d", strings.Join(what, ", "), entryName(b[24:length]), pid))
			}
			b = b[length:]
		}
	}
}

// entryName finds the name in the information behind an event: a header of
// four bytes, a file system ID of eight, a file handle with its length, and the
// name of the entry in the directory that the handle means.
func entryName(info []byte) string {
	const handleAt = 12
	if len(info) < handleAt+8 {
		return ""
	}
	name := handleAt + 8 + int(binary.NativeEndian.Uint32(info[handleAt:]))
	if name >= len(info) {
		return ""
	}
	text, _, _ := strings.Cut(string(info[name:]), "\x00")
	return text
}

// saw tells whether a change of this kind to this name is among those seen.
func saw(changed []string, kind, name string) bool {
	return slices.ContainsFunc(changed, func(c string) bool {
		return strings.Contains(c, kind) && strings.Contains(c, fmt.Sprintf("%q", name))
	})
}

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }

// formatDevice writes a device as /proc/locks does.
func formatDevice(dev uint64) string {
	return fmt.Sprintf("%02x:%02x:", unix.Major(dev), unix.Minor(dev))
}
