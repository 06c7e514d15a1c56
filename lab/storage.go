package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Storage says what a spool lies on: a plain directory of the host's file system, a tmpfs, or a file system of its own
// in an image file on a loop device.
type Storage struct {
	Kind   string `json:"kind,omitempty"`   // plain (or empty), tmpfs, ext4, xfs
	Bytes  int64  `json:"bytes,omitempty"`  // size; required except for plain
	Inodes int64  `json:"inodes,omitempty"` // inode limit for tmpfs and ext4; 0 leaves it to the file system
}

// spoolMin leaves room for the chroot and for 1.5 times message_size_limit, 15 MB by default: with less free Postfix
// refuses all mail from the first moment (smtpd/smtpd_check.c).
const spoolMin = 32 << 20

// xfsMin is the smallest size that mkfs.xfs accepts since xfsprogs 5.19.
const xfsMin = 300 << 20

// ParseStorage reads KIND[:SIZE[:INODES]], for example plain, tmpfs:64M, ext4:64M:2000.
func ParseStorage(text string) (Storage, error) {
	kind, rest, _ := strings.Cut(text, ":")
	s := Storage{Kind: kind}
	size, inodes, _ := strings.Cut(rest, ":")
	var err error
	if size != "" {
		if s.Bytes, err = parseBytes(size); err != nil {
			return Storage{}, fmt.Errorf("parse spool storage %q: %w", text, err)
		}
	}
	if inodes != "" {
		if s.Inodes, err = strconv.ParseInt(inodes, 10, 64); err != nil {
			return Storage{}, fmt.Errorf("parse spool storage %q: inode count: %w", text, err)
		}
	}
	return s, s.check()
}

func (s Storage) check() error {
	switch s.Kind {
	case "", "plain":
		if s.Bytes != 0 || s.Inodes != 0 {
			return errors.New("a plain spool lies on the host's file system and has no size of its own; use tmpfs, ext4 or xfs")
		}
		return nil
	case "tmpfs", "ext4":
		if s.Bytes < spoolMin {
			return fmt.Errorf("a spool on %s needs a size of 32M or more, for example %s:64M", s.Kind, s.Kind)
		}
		return nil
	case "xfs":
		if s.Bytes < xfsMin {
			return errors.New("a spool on xfs needs a size of 300M or more, for example xfs:300M")
		}
		if s.Inodes != 0 {
			return errors.New("xfs makes inodes as it needs them and cannot be limited to a count; use ext4 or tmpfs")
		}
		return nil
	}
	return fmt.Errorf("spool storage %q is unknown; use plain, tmpfs, ext4 or xfs", s.Kind)
}

// dedicated tells whether the spool has a file system of its own, which alone may be filled, frozen or broken.
func (s Storage) dedicated() bool { return s.Kind != "" && s.Kind != "plain" }

func (s Storage) String() string {
	if !s.dedicated() {
		return "plain"
	}
	text := s.Kind + ":" + formatBytes(s.Bytes)
	if s.Inodes > 0 {
		text += ":" + strconv.FormatInt(s.Inodes, 10)
	}
	return text
}

// parseBytes reads a number with an optional K, M or G.
func parseBytes(text string) (int64, error) {
	factor := int64(1)
	switch {
	case strings.HasSuffix(text, "K"):
		factor = 1 << 10
	case strings.HasSuffix(text, "M"):
		factor = 1 << 20
	case strings.HasSuffix(text, "G"):
		factor = 1 << 30
	}
	if factor > 1 {
		text = text[:len(text)-1]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return 0, fmt.Errorf("%q is not a size such as 512K, 64M or 1G", text)
	}
	return n * factor, nil
}

func formatBytes(n int64) string {
	for _, unit := range []struct {
		letter string
		size   int64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}} {
		if n >= unit.size && n%unit.size == 0 {
			return strconv.FormatInt(n/unit.size, 10) + unit.letter
		}
	}
	return strconv.FormatInt(n, 10)
}

// A volume is the place of one spool: the root of its storage, and the spool directory within. The spool is a
// subdirectory, so that ballast that fills the volume, and ext4's lost+found, never lie among the queues.
type volume struct {
	Storage
	root  string // storage root, below the lab's directory
	image string // image file of ext4 and xfs
}

func volumeFor(dir, instance string, s Storage) volume {
	return volume{Storage: s, root: filepath.Join(dir, "volumes", instance), image: filepath.Join(dir, instance+".img")}
}

func (v volume) spool() string   { return filepath.Join(v.root, "spool") }
func (v volume) ballast() string { return filepath.Join(v.root, "ballast") }

// create makes the storage and leaves it mounted at root. It runs inside the lab's mount namespace, so that the mount
// dies with the lab.
func (v volume) create() error {
	if err := os.MkdirAll(v.root, 0o755); err != nil {
		return fmt.Errorf("create spool volume: %w", err)
	}
	if v.Kind == "ext4" || v.Kind == "xfs" {
		if err := v.format(); err != nil {
			return err
		}
	}
	if err := v.mount(); err != nil {
		return err
	}
	return os.MkdirAll(v.spool(), 0o755)
}

func (v volume) format() error {
	f, err := os.OpenFile(v.image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create spool image: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(v.Bytes); err != nil {
		return fmt.Errorf("size spool image: %w", err)
	}
	argv := []string{"mkfs.xfs", "-q", "-f", v.image}
	if v.Kind == "ext4" {
		// No reserved blocks: whether root may use them depends on a capability that not every machine gives, and a
		// test that says "leave N bytes" must mean it.
		argv = []string{"mkfs.ext4", "-q", "-F", "-m", "0"}
		if v.Inodes > 0 {
			argv = append(argv, "-N", strconv.FormatInt(v.Inodes, 10))
		}
		argv = append(argv, v.image)
	}
	return tool(argv...)
}

// mount attaches the storage at root. mount(8) marks the loop device autoclear, so that it goes with the last mount.
func (v volume) mount() error {
	switch v.Kind {
	case "tmpfs":
		opts := fmt.Sprintf("size=%d,mode=0755", v.Bytes)
		if v.Inodes > 0 {
			opts += fmt.Sprintf(",nr_inodes=%d", v.Inodes)
		}
		return tool("mount", "-t", "tmpfs", "-o", opts, "holdfast-spool", v.root)
	case "ext4":
		return tool("mount", "-t", "ext4", "-o", "loop,errors=remount-ro", v.image, v.root)
	case "xfs":
		return tool("mount", "-t", "xfs", "-o", "loop", v.image, v.root)
	}
	return nil
}

// tool runs a system program and puts what it said into the error.
func tool(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %q: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// loopsOf lists the loop devices whose backing file lies below dir.
func loopsOf(dir string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var devices []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // detached since the listing
		}
		// The kernel appends " (deleted)" when the image is unlinked; the prefix still says whose it was.
		if strings.HasPrefix(string(data), dir+"/") {
			devices = append(devices, "/dev/"+strings.Split(file, "/")[3])
		}
	}
	return devices, nil
}

// releaseLoops waits until the kernel has let go of the loop devices of a lab that is being removed. A file system
// that was frozen and never thawed is kept alive by the freeze itself, without any mount, and its writers cannot even
// be killed. Mounting its device once more reaches the same superblock, and there the thaw works.
func releaseLoops(dir string) error {
	const grace = 300 * time.Millisecond // an ordinary unmount by the kernel takes a few ms and needs no thaw
	thawed := map[string]bool{}
	start := time.Now()
	for deadline := start.Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		devices, err := loopsOf(dir)
		if err != nil || len(devices) == 0 {
			return err
		}
		for _, dev := range devices {
			if !thawed[dev] && time.Since(start) > grace {
				thawed[dev] = true
				if err := thawDevice(dev); err != nil {
					fmt.Fprintf(os.Stderr, "thaw %s: %v\n", dev, err) // it may just have gone; the deadline decides
				}
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("loop devices %s of lab %q are still attached", strings.Join(devices, " "), filepath.Base(dir))
		}
	}
}

// thawDevice thaws the file system on a block device, from a mount namespace of its own that vanishes with the thread.
func thawDevice(dev string) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare mounts: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		for _, kind := range []string{"ext4", "xfs"} {
			if err := unix.Mount(dev, "/mnt", kind, 0, ""); err != nil {
				continue
			}
			return errors.Join(thaw("/mnt"), unix.Unmount("/mnt", unix.MNT_DETACH))
		}
		return fmt.Errorf("no mountable file system on %q", dev)
	})
}

// From linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
const (
	ioctlFreeze = 0xc0045877
	ioctlThaw   = 0xc0045878
)

func freeze(dir string) error { return freezeCall(dir, ioctlFreeze) }

// thaw does nothing to a file system that is not frozen, for which the kernel answers EINVAL.
func thaw(dir string) error {
	if err := freezeCall(dir, ioctlThaw); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

func freezeCall(dir string, request uint) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open file system: %w", err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), request, 0); err != nil {
		return fmt.Errorf("change freeze state of %q: %w", dir, err)
	}
	return nil
}
