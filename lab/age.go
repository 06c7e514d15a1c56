package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Age makes deferred messages older than they are, since a lab has no days to wait.
type Age struct {
	Sender string `json:"sender,omitempty"` // only messages whose envelope sender contains this
	Every  int    `json:"every,omitempty"`  // only each so-manieth message; all if 0
	// By is how much older, such as 26h. With Spread, ages are spread evenly between nothing and By.
	By     string `json:"by"`
	Spread bool   `json:"spread,omitempty"`
}

// GrowOld changes the arrival time in queue files of the primary instance, with Postfix stopped, as nothing in Postfix
// itself can do. The schedule (the file's mtime) stays: the messages are as old as if they had been tried all the time.
func (l *Lab) GrowOld(ctx context.Context, a Age) error {
	by, err := time.ParseDuration(a.By)
	if err != nil {
		return fmt.Errorf("let messages grow old: %w", err)
	}
	list, err := l.Queue(ctx, "")
	if err != nil {
		return err
	}
	var chosen []string
	for _, m := range list {
		if m.Queue == "deferred" && strings.Contains(m.Sender, a.Sender) {
			chosen = append(chosen, m.ID)
		}
	}
	every := max(a.Every, 1)
	if err := l.stopIfRunning(ctx, ""); err != nil {
		return err
	}
	files := map[string]string{}
	root := filepath.Join(l.SpoolDir(""), "deferred")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[d.Name()] = path
		}
		return err
	})
	for i, id := range chosen {
		if i%every != 0 || files[id] == "" || err != nil {
			continue
		}
		span := by
		if a.Spread {
			span = by * time.Duration(i) / time.Duration(len(chosen))
		}
		err = backdate(files[id], span)
	}
	return errors.Join(err, l.Postfix(ctx, "", "start"))
}

// backdate rewrites the T record and create_time, seconds and microseconds since the epoch in a text of fixed length for the next
// centuries, in place; mtime and inode must not change. Every queue file has it right after the size record
// (postfix/src/cleanup/cleanup_envelope.c).
func backdate(path string, by time.Duration) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("age queue file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("age queue file: %w", err)
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := f.ReadAt(head, 0)
	if n < 4 {
		return fmt.Errorf("age queue file %q: %w", path, err)
	}
	head = head[:n]
	// Records: type, length (one byte below 128), data. The first is C, of 60 to 100 bytes.
	at := 2 + int(head[1])
	if head[0] != 'C' || head[1] >= 128 || at+2 > n || head[at] != 'T' || at+2+int(head[at+1]) > n {
		return fmt.Errorf("age queue file %q: no time record after the size record", path)
	}
	stamp := string(head[at+2 : at+2+int(head[at+1])])
	seconds, rest, _ := strings.Cut(stamp, " ")
	then, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("age queue file %q: %w", path, err)
	}
	aged := bytes.Clone(head)
	copy(aged[at+2:], strconv.FormatInt(then-int64(by/time.Second), 10))
	// The clock of expiry and back-off stands behind it, as an attribute, and is the same second.
	if created := []byte("create_time=" + seconds); bytes.Contains(aged, created) {
		older := "create_time=" + string(aged[at+2:at+2+len(seconds)])
		aged = bytes.Replace(aged, created, []byte(older), 1)
	}
	if len(aged) != len(head) || rest != "" && aged[at+2+len(seconds)] != ' ' {
		return fmt.Errorf("age queue file %q: %q cannot be that much older", path, stamp)
	}
	if _, err := f.WriteAt(aged, 0); err != nil {
		return fmt.Errorf("age queue file: %w", err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		return fmt.Errorf("age queue file: %w", err)
	}
	return nil
}
