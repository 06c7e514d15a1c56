package agree

// A small queue with Postfix stopped: mail in every queue that a reader opens
// in a way of its own, and nobody else who would touch it.

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/lab"
)

const nobody = 65534

// still starts a lab, puts some mail into each queue and stops Postfix.
func still(t *testing.T, storage lab.Storage) *jam {
	t.Helper()
	l := lab.Up(t, lab.Options{World: stubbornWorld(t), Params: stubbornParams(), Spool: storage})
	j := &jam{T: t, Lab: l, ctx: within(t, 3*time.Minute), spool: l.SpoolDir("")}
	j.inject(lab.Load{Count: 24, Domains: []string{deferred, half}, Recipients: 3, Shapes: []string{"plain", "quoted", "null-sender", "long-lines"}})
	for i := range 3 {
		n := strconv.Itoa(i)
		j.submit(envelope{rcpts: []string{"waits" + n + "@" + slow, "gone" + n + "@" + bounce}})
	}
	check(t, j.WaitQueue(j.ctx, func(list []lab.Queued) bool {
		n := lab.Counts(list)
		return n["active"] == 3 && n["incoming"] == 0
	}))
	in(t, l, strings.Join(j.ids("deferred", 5, nil), "\n")+"\n", "postsuper", "-h", "-", "deferred")
	check(t, j.Postfix(j.ctx, "", "abort"))
	for _, uid := range []int{0, nobody, nobody} {
		o := lab.ExecOptions{UID: uid, GID: uid, Stdin: strings.NewReader("Subject: from here\n\nHello.\n")}
		res, err := l.ExecWith(j.ctx, o, "sendmail", "local@"+deferred)
		check(t, err)
		if res.Code != 0 {
			t.Fatalf("sendmail as %d: %s", uid, res.Stderr)
		}
	}
	j.age()
	return j
}

// age makes the spool an hour old. A file that was read after it was written
// last keeps its access time under relatime, and would prove nothing; and a
// reader that lists what changed a moment ago twice would hide one that
// lists everything twice.
func (j *jam) age() {
	j.Helper()
	old := unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano())
	err := filepath.WalkDir(j.spool, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&(fs.ModeSocket|fs.ModeNamedPipe|fs.ModeSymlink) != 0 {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		// The reading time must be older than the writing time, as it is for
		// every message that waits (its mtime is its next try).
		written := unix.NsecToTimespec(max(st.Mtim.Nano()-time.Hour.Nanoseconds(), old.Nano()+1))
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{old, written}, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.Fatal(err)
	}
}

// files lists the messages that lie in a queue, by walking its directory.
func (j *jam) files(queue string) []string {
	j.Helper()
	var ids []string
	err := filepath.WalkDir(filepath.Join(j.spool, queue), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			ids = append(ids, filepath.Base(path))
		}
		return err
	})
	check(j.T, err)
	if len(ids) == 0 {
		j.Fatalf("there is nothing in %s", queue)
	}
	return ids
}
