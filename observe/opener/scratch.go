package opener

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openScratch makes the unnamed file that a storage probe writes. It is the one
// thing that looking creates: a name would be left behind by a crash, an
// unnamed file cannot be.
func openScratch(queueDir string) (int, unix.Errno) {
	if !filepath.IsAbs(queueDir) {
		return -1, unix.EINVAL
	}
	fd, err := unix.Open(queueDir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, errnoOf(err)
	}
	return fd, 0
}
