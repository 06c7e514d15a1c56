package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Floor is the least that any program can do which looks into every file of
// the queue: open, read the first four kilobytes, close. It uses the same
// flags, the same number of workers and descriptors of the directories, and
// nothing is decoded or kept.
type Floor struct {
	dirs  []*os.File
	files []floorFile
}

// floorFile is one file by its directory's descriptor.
type floorFile struct {
	dir  int
	name string
}

const (
	floorFlags = unix.O_RDONLY | unix.O_NOATIME | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	floorBytes = 4096
	floorBatch = 64
)

// NewFloor lists the queue files and defer logs of a corpus, each log behind
// its message as a reader would take them.
func NewFloor(c *Corpus) (*Floor, error) {
	f := &Floor{}
	top := filepath.Join(c.Private.Spool.Dir, "deferred")
	hashes, err := os.ReadDir(top)
	if err != nil {
		return nil, fmt.Errorf("list corpus: %w", err)
	}
	for _, hash := range hashes {
		queue, err := f.open(filepath.Join(top, hash.Name()))
		if err != nil {
			return nil, err
		}
		logs, err := f.open(filepath.Join(c.Private.Spool.Dir, "defer", hash.Name()))
		if err != nil {
			return nil, err
		}
		names, err := queue.Readdirnames(-1)
		if err != nil {
			return nil, fmt.Errorf("list corpus: %w", err)
		}
		for _, name := range names {
			// Cloned, lest each name keep a directory's whole listing alive.
			name = strings.Clone(name)
			f.files = append(f.files, floorFile{int(queue.Fd()), name}, floorFile{int(logs.Fd()), name})
		}
	}
	return f, nil
}

func (f *Floor) open(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open directory of corpus: %w", err)
	}
	f.dirs = append(f.dirs, dir)
	return dir, nil
}

// Close closes the directories.
func (f *Floor) Close() {
	for _, dir := range f.dirs {
		dir.Close()
	}
}

// Read reads the beginning of every file with so many workers, and returns how
// many files it read.
func (f *Floor) Read(workers int) (int, error) {
	var next, read atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, workers)
	for range workers {
		wg.Go(func() {
			var buf [floorBytes]byte
			for {
				end := int(next.Add(floorBatch))
				if end-floorBatch >= len(f.files) {
					return
				}
				for _, file := range f.files[end-floorBatch : min(end, len(f.files))] {
					if err := readStart(file, buf[:]); err != nil {
						failed <- err
						return
					}
					read.Add(1)
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return int(read.Load()), <-failed
}

func readStart(file floorFile, buf []byte) error {
	fd, err := unix.Openat(file.dir, file.name, floorFlags, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", file.name, err)
	}
	if _, err := unix.Pread(fd, buf, 0); err != nil {
		unix.Close(fd)
		return fmt.Errorf("read %q: %w", file.name, err)
	}
	return unix.Close(fd)
}
