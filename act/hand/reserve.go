package hand

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"holdfast/durable"
)

// reserveName is a file that only takes space: plans and the lists of their
// targets must be stored before anything is done, also on a disk that is full
// by then. The audit log has a reserve of its own.
const (
	reserveName  = "reserve"
	reserveBytes = 16 << 20
)

// setAside makes the reserve where it is missing and there is room for it.
func (s *server) setAside() {
	path := filepath.Join(s.StateDir, reserveName)
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
		return
	}
	a, err := durable.OpenAppend(path, 0o600)
	if err != nil {
		return // it is wanted on a bad day; today there is none
	}
	if errors.Join(a.Reserve(reserveBytes), a.Close()) != nil {
		_ = durable.Remove(path)
	}
}

// replace stores a file of state. A full disk gets the reserve back first.
func (s *server) replace(path string, content []byte) error {
	err := durable.Replace(path, content, 0o600)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	if gone := durable.Remove(filepath.Join(s.StateDir, reserveName)); gone != nil {
		return errors.Join(err, gone)
	}
	return durable.Replace(path, content, 0o600)
}
