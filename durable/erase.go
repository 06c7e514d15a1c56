package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Range is a part of a file, in bytes.
type Range struct{ Offset, Length int64 }

// Erase takes parts of a file away and returns when that is on disk. They read
// as zeros afterwards and, where the file system knows holes, take no space; the
// file is as long as before.
func Erase(path string, parts []Range) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("erase in %q: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, r := range parts {
		if r.Length == 0 {
			continue
		}
		err := unix.Fallocate(fdOf(f), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r.Offset, r.Length)
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = overwrite(f, r)
		}
		if err != nil {
			return fmt.Errorf("erase in %q: %w", path, err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("erase in %q: %w", path, err)
	}
	return nil
}

func overwrite(f *os.File, r Range) error {
	zeros := make([]byte, 1<<16)
	for at := int64(0); at < r.Length; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), r.Length-at)], r.Offset+at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
