package host

// The file system of the spool in every state that stops mail.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/observe"
	"holdfast/observe/opener"
)

// The kinds of file systems that a lab can break.
func kinds() map[string]lab.Storage {
	return map[string]lab.Storage{
		"ext4":  {Kind: "ext4", Bytes: 64 << 20, Inodes: 2000},
		"xfs":   {Kind: "xfs", Bytes: 300 << 20},
		"tmpfs": {Kind: "tmpfs", Bytes: 64 << 20, Inodes: 2000},
	}
}

// whole expects a file system on which mail can be written.
func (r *relay) whole(s observe.Storage, kind string) {
	r.Helper()
	if !s.Known || s.Type != kind || s.Mount != r.Instances[0].SpoolDir || !s.WriteTried || !s.Written || s.WriteError != "" || s.ReadOnly || s.Free < 16<<20 || s.Latency <= 0 {
		r.Errorf("a whole %s is %+v", kind, s)
	}
}

func TestFullSpool(t *testing.T) {
	for kind, storage := range kinds() {
		t.Run(kind, func(t *testing.T) {
			r := up(t, storage)
			r.whole(r.ask().Storage, kind)
			r.check(r.Fault("storage.fill", nil))
			// XFS has a little left, which one more small message would find.
			ballast := filepath.Join(r.Dir, "volumes/postfix/ballast")
			res, err := r.Exec(t.Context(), "dd", "if=/dev/zero", "of="+ballast+"/1-0", "bs=4k", "oflag=append", "conv=notrunc")
			if err != nil || !strings.Contains(res.Stderr, "No space") {
				t.Fatalf("use up the rest: %v, %+v", err, res)
			}
			h := r.ask()
			s := h.Storage
			if !s.WriteTried || s.Written || !strings.Contains(s.WriteError, "no space left") || s.ReadOnly || s.Free > 1<<20 {
				t.Errorf("a full %s is %+v", kind, s)
			}
			if kind != "xfs" && s.FreeFiles < 1000 {
				t.Errorf("a %s without bytes has inodes, not %d", kind, s.FreeFiles)
			}
			// The ballast is root's alone: it is not in the sums, and said to be missing.
			if text := gaps(h, "storage"); !strings.Contains(text, "may not be read") || !strings.Contains(text, "du -x -d 2 "+filepath.Dir(ballast)) || len(s.Fillers) != 0 {
				t.Errorf("gaps %q, fillers %+v", text, s.Fillers)
			}
			r.run("chmod", "755", ballast)
			h = r.ask()
			if f := h.Storage.Fillers; len(f) == 0 || filepath.Base(f[0].Path) != "ballast" || f[0].Bytes < s.Bytes/2 {
				t.Errorf("fillers %+v, gaps %q", f, gaps(h, "storage"))
			}
			r.check(r.Cure("storage.fill"))
			r.whole(r.ask().Storage, kind)
		})
	}
}

func TestNoInodes(t *testing.T) {
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			r := up(t, kinds()[kind])
			r.check(r.Fault("storage.fill-inodes", nil))
			r.run("chmod", "755", filepath.Join(r.Dir, "volumes/postfix/ballast"))
			h := r.ask()
			s := h.Storage
			if s.Written || !strings.HasPrefix(s.WriteError, "open: no space left") || s.FreeFiles != 0 || s.Inodes < 1000 || s.Free < 16<<20 {
				t.Errorf("a %s without inodes is %+v", kind, s)
			}
			if len(s.Fillers) == 0 || filepath.Base(s.Fillers[0].Path) != "ballast" || s.Fillers[0].Files < 500 {
				t.Errorf("fillers %+v", s.Fillers)
			}
		})
	}
}

func TestReadOnlySpool(t *testing.T) {
	for kind, storage := range kinds() {
		t.Run(kind, func(t *testing.T) {
			r := up(t, storage)
			r.check(r.Fault("storage.read-only", nil))
			h := r.ask()
			if s := h.Storage; !s.ReadOnly || !s.WriteTried || s.Written || !strings.Contains(s.WriteError, "read-only") {
				t.Errorf("a read-only %s is %+v: %s", kind, s, gaps(h, "storage"))
			}
			if !h.Master.Known || h.Master.Running {
				t.Errorf("master %+v: %s", h.Master, gaps(h, "master"))
			}
			r.check(r.Cure("storage.read-only"))
			r.whole(r.ask().Storage, kind)
		})
	}
	t.Run("emergency", func(t *testing.T) {
		r := up(t, kinds()["ext4"])
		r.check(r.Fault("storage.emergency", nil))
		h := r.ask()
		if s := h.Storage; !s.ReadOnly || s.Written || !h.Master.Running {
			t.Errorf("storage %+v, master %+v: %s", s, h.Master, gaps(h, "storage"))
		}
	})
}

func TestFrozenSpool(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			r := up(t, kinds()[kind])
			r.check(r.Fault("storage.freeze", nil))
			s := r.ask().Storage
			if !s.WriteTried || s.Written || !strings.Contains(s.WriteError, "open hangs since") || s.ReadOnly || s.Latency < time.Second {
				t.Errorf("a frozen %s is %+v", kind, s)
			}
			// Asked again, it does not hang another process.
			again := r.ask().Storage
			if again.Written || !strings.Contains(again.WriteError, "an earlier write hangs") || again.Latency <= s.Latency {
				t.Errorf("asked again, it is %+v", again)
			}
			if n := len(r.trials()); n != 1 {
				t.Errorf("%d processes hang, not one", n)
			}
			r.check(r.Cure("storage.freeze"))
			for deadline := time.Now().Add(20 * time.Second); len(r.trials()) > 0; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the process that hung is still there")
				}
			}
			r.whole(r.ask().Storage, kind)
		})
	}
}

// trials are the processes that a look has left behind.
func (r *relay) trials() []lab.Process {
	r.Helper()
	list, err := r.Processes()
	r.check(err)
	var found []lab.Process
	for _, p := range list {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if _, ok := opener.TrialOf(string(cmdline)); ok && err == nil {
			found = append(found, p)
		}
	}
	return found
}

func TestFullLogDisk(t *testing.T) {
	r := up(t, lab.Storage{})
	r.LogPath = "/mnt/mail.log"
	if s := r.ask().Storage; s.LogPath != "" {
		t.Errorf("a log beside the spool has a file system of its own: %+v", s)
	}
	r.run("mount", "-t", "tmpfs", "-o", "size=1M", "holdfast-log", "/mnt")
	if s := r.ask().Storage; s.LogPath != r.LogPath || s.LogFull || s.LogFree != 1<<20 {
		t.Errorf("an empty disk for the log: %+v", s)
	}
	res, err := r.Exec(t.Context(), "dd", "if=/dev/zero", "of=/mnt/mail.log", "bs=4k")
	if err != nil || !strings.Contains(res.Stderr, "No space") {
		t.Fatalf("fill the disk: %v, %+v", err, res)
	}
	if s := r.ask().Storage; !s.LogFull || s.LogFree != 0 || !s.Written {
		t.Errorf("a full disk for the log: %+v", s)
	}
}

// A spool that is alone on its file system, and one that shares it.
func TestOwnFileSystem(t *testing.T) {
	r := up(t, lab.Storage{})
	spool := r.Instances[0].SpoolDir
	if r.ask().Storage.Own {
		t.Error("a directory of the host's file system is called one of its own")
	}
	r.check(r.Postfix(t.Context(), "", "stop"))
	r.run("mount", "-t", "tmpfs", "-o", "size=64M", "holdfast-own", spool)
	if s := r.ask().Storage; !s.Own || s.Mount != spool || s.Type != "tmpfs" || !s.Written {
		t.Errorf("a file system of its own: %+v", s)
	}
	r.check(os.MkdirAll(r.HostPath(spool+"/deferred/A"), 0o755))
	r.run("dd", "if=/dev/zero", "of="+spool+"/deferred/A/ballast", "bs=1M", "count=60")
	h := r.ask()
	if f := h.Storage.Fillers; len(f) != 1 || f[0].Path != spool+"/deferred" || f[0].Files != 2 {
		t.Errorf("fillers %+v, gaps %q", f, gaps(h, "storage"))
	}
}
