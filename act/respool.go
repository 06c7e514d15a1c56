package act

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// restore puts copies of the vault back into the hold queue, each under a new
// queue ID. Postfix has no program for it: this file is the one place in which
// Holdfast writes into the spool, as the mail owner.
//
// Order: a temporary file, whose name no program of Postfix takes for a
// message; content, fsync; the note with the new ID; mode 0700; rename. The
// rename alone makes it a message, whole and at once. cleanup renames first and
// sets the mode last, because it gives the ID to its client before it has the
// content; here the content comes first.
type restore struct{}

func (restore) act(ctx context.Context, b *batch) error {
	for _, k := range b.tasks {
		switch {
		case k.seen != nil:
			k.spare(record.Refused, "the message itself is still queued")
		case k.Item == "":
			k.spare(record.Refused, "there is no copy of it")
		default:
			if err := b.respool(ctx, k); err != nil {
				return err
			}
		}
	}
	return nil
}

// respool restores one message. Only an error of the hand is returned: then the
// record can no longer be kept.
func (b *batch) respool(ctx context.Context, k *task) error {
	plain, err := b.e.Hand.Reveal(ctx, b.intent.Seq, k.Item)
	if err != nil {
		k.spare(record.Failed, err.Error())
		return nil
	}
	defer func() { _ = plain.Close() }()
	dir, err := openHold(b.e.Instance)
	if err != nil {
		k.spare(record.Failed, err.Error())
		return nil
	}
	defer func() { _ = unix.Close(dir) }()
	temp, inode, sum, err := writeTemporary(dir, plain)
	// What lies in the vault now is the message only if it is what the audit log
	// has the digest of: age tells nobody who encrypted, and root's files can be
	// exchanged by whoever becomes root.
	if c := b.e.past.Items[k.Item]; err == nil && (c == nil || c.Sum != sum) {
		_ = unix.Unlinkat(dir, temp, 0)
		err = errors.New("its copy is not what the audit log has the digest of")
	}
	if err != nil {
		k.spare(record.Failed, err.Error())
		return nil
	}
	note := record.NoteBody{ID: k.ID, Item: k.Item, Inode: inode, Temporary: filepath.Join(postfix.Hold.String(), temp)}
	if note.Successor, err = b.freeID(ctx, inode); err != nil {
		_ = unix.Unlinkat(dir, temp, 0)
		k.spare(record.Failed, err.Error())
		return nil
	}
	if _, err := b.e.Hand.Append(ctx, record.Noted, b.intent.Seq, nil, note); err != nil {
		_ = unix.Unlinkat(dir, temp, 0)
		return err
	}
	// From here on looking decides: a sync that fails after the rename leaves a
	// message that is there, and calling it not restored would restore it twice.
	k.note = &note
	if err := publish(dir, temp, b.e.Instance, note.Successor); err != nil {
		k.out.Text = err.Error()
	}
	return nil
}

// openHold opens the hold queue by its descriptor, so that what follows stays
// in this directory whatever happens to its name.
func openHold(in postfix.Instance) (int, error) {
	path := filepath.Join(in.QueueDir, postfix.Hold.String())
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", path, err)
	}
	return fd, nil
}

// writeTemporary writes the content under a name as mail_queue_enter makes it,
// and returns when it is on disk, with the digest of what was written.
func writeTemporary(dir int, content io.Reader) (name string, inode uint64, sum string, err error) {
	name = fmt.Sprintf("%d.%d", time.Now().UnixNano()/1000%1e9, os.Getpid())
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", 0, "", fmt.Errorf("make %q in the hold queue: %w", name, err)
	}
	f, digest := os.NewFile(uintptr(fd), name), sha256.New()
	_, err = io.Copy(io.MultiWriter(f, digest), content)
	if err == nil {
		err = f.Sync()
	}
	var st unix.Stat_t
	err = errors.Join(err, unix.Fstat(fd, &st), f.Close())
	if err != nil {
		_ = unix.Unlinkat(dir, name, 0)
		return "", 0, "", fmt.Errorf("write %q in the hold queue: %w", name, err)
	}
	return name, st.Ino, hex.EncodeToString(digest.Sum(nil)), nil
}

// freeID makes a queue ID that nothing bears: no message, and no log of one,
// which would be taken for a log of this message.
func (b *batch) freeID(ctx context.Context, inode uint64) (postfix.QueueID, error) {
	in := b.e.Instance
	for range 100 {
		id := idAt(in, time.Now(), inode)
		found, err := b.e.Reader.Find(ctx, []postfix.QueueID{id})
		if err != nil {
			return "", err
		}
		taken := len(found[id]) > 0
		for _, log := range []string{"defer", "bounce", "trace"} {
			size, err := b.e.logSize(log, id)
			if err != nil {
				return "", err
			}
			taken = taken || size >= 0
		}
		if !taken {
			return id, nil
		}
		pause(ctx, time.Millisecond)
	}
	return "", errors.New("find a free queue ID: a hundred were taken")
}

// publish gives the file its mode, its time and its name, the name last and
// never over another file.
func publish(dir int, temp string, in postfix.Instance, id postfix.QueueID) error {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	if err := unix.UtimesNanoAt(dir, temp, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time of %q: %w", temp, err)
	}
	if err := unix.Fchmodat(dir, temp, 0o700, 0); err != nil {
		return fmt.Errorf("set mode of %q: %w", temp, err)
	}
	hash := id.HashPath(in.DepthOf(postfix.Hold.String()))
	for at := range strings.Count(hash, "/") {
		sub := strings.Join(strings.Split(hash, "/")[:at+1], "/")
		if err := unix.Mkdirat(dir, sub, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %q in the hold queue: %w", sub, err)
		}
	}
	if err := unix.Renameat2(dir, temp, dir, hash+string(id), unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("give the restored message its name %q: %w", id, err)
	}
	return syncPath(dir, hash)
}

// syncPath makes a rename durable: of the directories that lead to the name.
func syncPath(dir int, hash string) error {
	if hash != "" {
		sub, err := unix.Openat(dir, hash, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %q in the hold queue: %w", hash, err)
		}
		defer func() { _ = unix.Close(sub) }()
		if err := unix.Fsync(sub); err != nil {
			return fmt.Errorf("sync %q in the hold queue: %w", hash, err)
		}
	}
	if err := unix.Fsync(dir); err != nil {
		return fmt.Errorf("sync the hold queue: %w", err)
	}
	return nil
}

// judge looks for the message under its new ID. It is the same message where
// arrival, size and sender are; only ID and inode are new.
func (restore) judge(b *batch, k *task) {
	if k.note == nil {
		k.settleAs(record.Failed, "it was not restored")
		return
	}
	k.out.Item, k.out.Successor, k.out.Inode = k.Item, k.note.Successor, k.note.Inode
	want := plan.Target{Fingerprint: k.Fingerprint}
	want.ID, want.Inode, want.Digest = k.note.Successor, k.note.Inode, ""
	found, err := b.e.Reader.Find(context.Background(), []postfix.QueueID{want.ID})
	if err != nil {
		k.settleAs(record.Unknown, err.Error())
		return
	}
	for i := range found[want.ID] {
		if f := &found[want.ID][i]; want.Matches(f.Fingerprint) {
			k.seen = f
			k.settleAs(record.Done, k.out.Text)
			k.out.Held = f.Queue == postfix.Hold
			return
		}
	}
	b.e.dropTemporary(k.note)
	k.settleAs(record.Failed, cmp.Or(k.out.Text, "it was not restored"))
	k.out.Successor, k.out.Inode = "", k.Inode
}

// dropTemporary removes what a restore left unfinished. The name stands in the
// log, which is ours; still only a file of that inode is removed, for names of
// this form come again.
func (e *engine) dropTemporary(n *record.NoteBody) {
	dir, err := openHold(e.Instance)
	if err != nil {
		return // postsuper purges such files after a week
	}
	defer func() { _ = unix.Close(dir) }()
	name := filepath.Base(n.Temporary)
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Ino == n.Inode && strings.Contains(name, ".") {
		_ = unix.Unlinkat(dir, name, 0)
	}
}
