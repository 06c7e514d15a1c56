package agree

// A small queue with Postfix stopped: mail in every queue that a reader opens
// in a way of its own, and nobody else who would touch it.

import (
	"errors"
	"io/fs"
	"os"
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

// age puts the time of the last reading of everything back by an hour. Under
// relatime the kernel notes a reading only if the one before is older than the
// last change, which it now is for every file and directory.
func (j *jam) age() {
	j.Helper()
	at := []unix.Timespec{unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano()), {Nsec: unix.UTIME_OMIT}}
	for path := range standing(j.T, j.spool) {
		check(j.T, unix.UtimesNanoAt(unix.AT_FDCWD, path, at, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// state is everything about a file that a reader must leave alone.
type state struct {
	Inode, Links        uint64
	Mode, UID, GID      uint32
	Size                int64
	Read, Wrote, Change int64 // atime, mtime, ctime in nanoseconds
}

// standing lists every file and directory below a path with its state, and
// reads directories without leaving a trace itself.
func standing(t *testing.T, top string) map[string]state {
	t.Helper()
	found := make(map[string]state)
	var visit func(path string)
	visit = func(path string) {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatalf("stat %s: %v", path, err)
		}
		found[path] = state{st.Ino, st.Nlink, st.Mode, st.Uid, st.Gid, st.Size, st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano()}
		if path == filepath.Join(top, "etc/resolv.conf") {
			// Configuration in the jail, root's, which triage reads as any
			// process of Postfix does: its access time is nobody's evidence.
			s := found[path]
			s.Read = 0
			found[path] = s
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
		check(t, err)
		dir := os.NewFile(uintptr(fd), path)
		names, err := dir.Readdirnames(-1)
		check(t, errors.Join(err, dir.Close()))
		for _, name := range names {
			visit(filepath.Join(path, name))
		}
	}
	visit(top)
	return found
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
