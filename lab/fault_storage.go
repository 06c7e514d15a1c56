package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// storageFaults break the file system of a spool. All but read-only need one of its own: filling or freezing the
// host's would break more than the lab.
func storageFaults() []FaultKind {
	free := func(def, help string) FaultParam {
		return FaultParam{Name: "free", Type: "size", Default: def, Help: help}
	}
	return []FaultKind{
		{
			Name: "storage.fill", Summary: "the spool's file system is full", Cure: "removes the ballast",
			Params:  []FaultParam{free("0", "bytes to leave, such as 512K"), instanceParam},
			prepare: needVolume("tmpfs", "ext4", "xfs"),
			act:     onVolume(fill), cure: onVolume(empty),
		},
		{
			Name: "storage.fill-inodes", Summary: "the spool's file system has no inodes left", Cure: "removes the ballast",
			Params:  []FaultParam{free("0", "inodes to leave"), instanceParam},
			prepare: needVolume("tmpfs", "ext4"),
			act:     onVolume(fillInodes), cure: onVolume(empty),
		},
		{
			Name: "storage.freeze", Summary: "every write to the spool hangs", Cure: "thaws the file system",
			Params:  []FaultParam{instanceParam},
			prepare: needVolume("ext4", "xfs"),
			act:     onVolume(func(v volume, _ args) error { return freeze(v.root) }),
			cure:    onVolume(func(v volume, _ args) error { return thaw(v.root) }),
		},
		{
			Name: "storage.emergency", Summary: "ext4 met an error and has made itself read-only, under a running Postfix",
			Cure:    "stops Postfix, checks and mounts the file system anew, starts Postfix if it ran",
			Params:  []FaultParam{instanceParam},
			prepare: prepareRemount("ext4"), act: shutWrites, cure: remountFresh,
		},
		{
			Name: "storage.read-only", Summary: "the spool is mounted read-only, as after a boot that found errors: Postfix is stopped, and cannot start again",
			Cure:    "mounts it writable, starts Postfix if it ran",
			Params:  []FaultParam{instanceParam},
			prepare: prepareRemount("plain", "tmpfs", "ext4", "xfs"), act: mountReadOnly, cure: mountWritable,
		},
	}
}

func (l *Lab) volume(a args) (instance, volume, error) {
	in, err := l.instance(a.Params["instance"])
	return in, volumeFor(l.Dir, in.Name, in.Spool), err
}

func needVolume(kinds ...string) func(context.Context, *Lab, args) (any, error) {
	return func(_ context.Context, l *Lab, a args) (any, error) {
		in, v, err := l.volume(a)
		if err != nil {
			return nil, err
		}
		kind := v.Kind
		if kind == "" {
			kind = "plain"
		}
		for _, k := range kinds {
			if k == kind {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("the spool of %q is on %s; start the lab with --spool %s:300M or another of %s", in.Name, kind, kinds[len(kinds)-1], strings.Join(kinds, ", "))
	}
}

// onVolume runs f inside the lab, where the volume is mounted.
func onVolume(f func(volume, args) error) func(context.Context, *Lab, args, json.RawMessage) error {
	return func(_ context.Context, l *Lab, a args, _ json.RawMessage) error {
		_, v, err := l.volume(a)
		if err != nil {
			return err
		}
		return l.inside(RelaySide, true, func() error { return f(v, a) })
	}
}

// fill takes space until only so much is left. It goes in steps, because the file system needs some for its own tables.
func fill(v volume, a args) error {
	if err := os.MkdirAll(v.ballast(), 0o700); err != nil {
		return fmt.Errorf("create ballast: %w", err)
	}
	for step := range 200 {
		var st unix.Statfs_t
		if err := unix.Statfs(v.root, &st); err != nil {
			return fmt.Errorf("look at file system: %w", err)
		}
		excess := int64(st.Bavail)*st.Bsize - a.size("free")
		if excess < st.Bsize {
			return nil
		}
		if err := ballastFile(filepath.Join(v.ballast(), fmt.Sprintf("%d-%d", a.id, step)), excess, st.Bsize); err != nil {
			if errors.Is(err, unix.ENOSPC) && a.size("free") == 0 {
				return nil // full is what was wanted, whatever statfs still counts
			}
			return err
		}
	}
	return errors.New("space does not shrink although ballast was written")
}

// ballastFile makes a file of up to size bytes that are really allocated, and takes less when less is to be had.
func ballastFile(path string, size, block int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create ballast: %w", err)
	}
	defer f.Close()
	for ; size >= block; size /= 2 {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, size); err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENOSPC) {
			break
		}
	}
	return fmt.Errorf("allocate ballast: %w", err)
}

func fillInodes(v volume, a args) error {
	if err := os.MkdirAll(v.ballast(), 0o700); err != nil {
		return fmt.Errorf("create ballast: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.root, &st); err != nil {
		return fmt.Errorf("look at file system: %w", err)
	}
	const most = 500_000
	excess := int64(st.Ffree) - a.size("free")
	if excess > most {
		return fmt.Errorf("the file system has %d inodes, too many to use up; start the lab with a limit, such as --spool ext4:64M:2000", st.Ffree)
	}
	for i := range excess {
		f, err := os.OpenFile(filepath.Join(v.ballast(), fmt.Sprintf("%d-i%d", a.id, i)), os.O_CREATE|os.O_WRONLY, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("create ballast: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("close ballast: %w", err)
		}
	}
	return nil
}

// empty removes the ballast of one fault and leaves that of others.
func empty(v volume, a args) error {
	files, err := filepath.Glob(filepath.Join(v.ballast(), strconv.Itoa(a.id)+"-*"))
	if err != nil {
		return fmt.Errorf("list ballast: %w", err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove ballast: %w", err)
		}
	}
	return nil
}

// remountUndo is whether Postfix ran before the fault stopped it.
type remountUndo struct {
	Running bool `json:"running"`
}

func prepareRemount(kinds ...string) func(context.Context, *Lab, args) (any, error) {
	return func(ctx context.Context, l *Lab, a args) (any, error) {
		if _, err := needVolume(kinds...)(ctx, l, a); err != nil {
			return nil, err
		}
		running, err := l.Running(ctx, a.Params["instance"])
		return remountUndo{running}, err
	}
}

// shutWrites makes ext4 believe that it found an error, which is what a dying disk does. An ordinary remount would be
// refused while Postfix has files open for writing.
func shutWrites(_ context.Context, l *Lab, a args, _ json.RawMessage) error {
	_, v, err := l.volume(a)
	if err != nil {
		return err
	}
	dev, err := loopOf(v.image)
	if err != nil {
		return err
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(dev), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1"), 0o600); err != nil {
		return fmt.Errorf("trigger file system error: %w", err)
	}
	return nil
}

func loopOf(image string) (string, error) {
	devices, err := loopsOf(filepath.Dir(image))
	if err != nil {
		return "", err
	}
	for _, dev := range devices {
		data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), "loop/backing_file"))
		if err == nil && strings.TrimSpace(string(data)) == image {
			return dev, nil
		}
	}
	return "", fmt.Errorf("no loop device has the image %q", image)
}

// stopIfRunning counts what is seen afterwards, not the exit status: "postfix stop" fails when it has to use force, as
// it must where daemons hang on a broken spool.
func (l *Lab) stopIfRunning(ctx context.Context, name string) error {
	running, err := l.Running(ctx, name)
	if err != nil || !running {
		return err
	}
	stopErr := l.Postfix(ctx, name, "stop")
	for running {
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("wait for Postfix to end: %w", ctx.Err()), stopErr)
		}
		time.Sleep(20 * time.Millisecond)
		if running, err = l.Running(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) startAgain(ctx context.Context, name string, raw json.RawMessage) error {
	undo, err := undoAs[remountUndo](raw)
	if err != nil || !undo.Running {
		return err
	}
	if running, err := l.Running(ctx, name); err != nil || running {
		return err
	}
	return l.Postfix(ctx, name, "start")
}

// remountFresh is the way back from emergency read-only, which no remount lifts: unmount, fsck, mount.
func remountFresh(ctx context.Context, l *Lab, a args, raw json.RawMessage) error {
	in, v, err := l.volume(a)
	if err != nil {
		return err
	}
	if err := l.stopIfRunning(ctx, in.Name); err != nil {
		return err
	}
	if err := l.detach(ctx, v, in); err != nil {
		return err
	}
	res, err := l.Exec(ctx, "e2fsck", "-fy", v.image)
	if err != nil {
		return err
	}
	if res.Code > 1 { // 1: errors were found and corrected, as they should have been
		return fmt.Errorf("check file system: exit %d: %s", res.Code, strings.TrimSpace(res.Stdout))
	}
	if err := l.mountAgain(v, in); err != nil {
		return err
	}
	return l.startAgain(ctx, in.Name, raw)
}

func (l *Lab) mountAgain(v volume, in instance) error {
	return l.inside(RelaySide, true, func() error { return errors.Join(v.mount(), bindSpool(v, in)) })
}

// detach unmounts a volume and waits until its loop device has gone, a moment after its last mount.
func (l *Lab) detach(ctx context.Context, v volume, in instance) error {
	for _, mountPoint := range []string{in.spoolDir(), v.root} {
		if err := l.unmount(ctx, mountPoint); err != nil {
			return err
		}
	}
	for {
		devices, err := loopsOf(filepath.Dir(v.image))
		if err != nil || len(devices) == 0 {
			return err
		}
		if _, err := loopOf(v.image); err != nil {
			return nil //nolint:nilerr // none has it any more, which is what is waited for
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for loop device of %q: %w", v.image, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// VolumeRoot is the root of the file system that the spool of an instance has for itself: beside the spool there is
// room for other things that must share its fate.
func (l *Lab) VolumeRoot(instance string) (string, error) {
	in, v, err := l.volume(args{Params: Params{"instance": instance}})
	if err == nil && !in.Spool.dedicated() {
		err = errors.New("its spool has no file system of its own")
	}
	return v.root, err
}

// PowerCut takes the power away from the file system of an instance's spool, which is ext4 or XFS: whatever was not
// synced is gone. Postfix must not run. The file system is mounted again, as at the next boot.
func (l *Lab) PowerCut(ctx context.Context, instance string) error {
	in, v, err := l.volume(args{Params: Params{"instance": instance}})
	if err != nil {
		return err
	}
	// Without -f the journal is not flushed either.
	if _, err := l.must(ctx, "xfs_io", "-x", "-c", "shutdown", v.root); err != nil {
		return err
	}
	if err := l.detach(ctx, v, in); err != nil {
		return err
	}
	return l.mountAgain(v, in)
}

// unmount waits for daemons that were killed a moment ago and still count as users.
func (l *Lab) unmount(ctx context.Context, mountPoint string) error {
	for {
		res, err := l.Exec(ctx, "umount", mountPoint)
		if err != nil {
			return err
		}
		if res.Code == 0 || strings.Contains(res.Stderr, "not mounted") {
			return nil
		}
		if !strings.Contains(res.Stderr, "busy") {
			return fmt.Errorf("unmount %q: %s", mountPoint, strings.TrimSpace(res.Stderr))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// remountArgs name the mount whose read-only flag counts. A plain spool is part of the host's file system, so only its
// bind mount, which is the lab's, may be touched.
func remountArgs(in instance, v volume, flag string) []string {
	if !v.dedicated() {
		return []string{"mount", "-o", "remount,bind," + flag, in.spoolDir()}
	}
	return []string{"mount", "-o", "remount," + flag, v.root}
}

func mountReadOnly(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
	in, v, err := l.volume(a)
	if err != nil {
		return err
	}
	if err := l.stopIfRunning(ctx, in.Name); err != nil {
		return err
	}
	if _, err := l.must(ctx, remountArgs(in, v, "ro")...); err != nil {
		return err
	}
	// Somebody will have tried. It fails, and leaves the lines in the log that such an attempt leaves.
	_, err = l.Exec(ctx, "postfix", "-c", in.configDir(), "start")
	return err
}

func mountWritable(ctx context.Context, l *Lab, a args, raw json.RawMessage) error {
	in, v, err := l.volume(a)
	if err != nil {
		return err
	}
	if _, err := l.must(ctx, remountArgs(in, v, "rw")...); err != nil {
		return err
	}
	return l.startAgain(ctx, in.Name, raw)
}
