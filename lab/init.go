package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// runInit is PID 1 of a lab. It furnishes the namespaces it was born into, starts the world and Postfix, reports, and
// from then on only reaps. It starts no further child after the report: reaping everything with wait4(-1) and waiting
// for a child of one's own do not go together. When it dies the kernel kills every process of the lab.
func runInit(dir string) error {
	ready := os.NewFile(3, "ready")
	unix.CloseOnExec(3)
	var s spec
	if err := readJSON(filepath.Join(dir, specName), &s); err != nil {
		return errors.Join(err, sendReport(ready, err, Info{}))
	}
	info, err := furnish(dir, s)
	if sendErr := sendReport(ready, err, info); err != nil || sendErr != nil {
		return errors.Join(err, sendErr)
	}
	// ready stays open: its end of file tells the keeper that this process is dying.
	defer runtime.KeepAlive(ready)
	for {
		var status syscall.WaitStatus
		switch _, err := syscall.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			select {} // the world and Postfix were both killed on purpose; the lab itself ends only by its keeper
		case err != nil:
			return fmt.Errorf("reap: %w", err)
		}
	}
}

func furnish(dir string, s spec) (Info, error) {
	info := Info{Name: s.Name, Instances: instanceInfos(s)}
	steps := []struct {
		what string
		do   func() error
	}{
		{"set up mounts", func() error { return mountTree(dir, s) }},
		{"set up network", func() error { return wireNetwork(s) }},
		{"start world", func() error { return startWorld(dir) }},
		{"set up Postfix", func() error { return installPostfix(s) }},
		{"start Postfix", func() error { return startPostfix(s) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return info, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return info, nil
}

// mountTree gives the lab its own /proc, /etc, /run, /var/spool, /var/lib and /var/log. Everything else is the host's,
// and /tmp stays shared, so that a program under test can be run inside from where it was built.
func mountTree(dir string, s spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Sethostname([]byte(s.Host())); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := overlayEtc(dir, s); err != nil {
		return err
	}
	if err := unix.Mount("holdfast-run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	// The host's syslog must not hear the lab's Postfix: with maillog_file nobody needs the socket.
	if _, err := os.Lstat("/dev/log"); err == nil {
		if err := unix.Mount("/dev/null", "/dev/log", "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cover /dev/log: %w", err)
		}
	}
	for _, name := range []string{"spool", "lib", "log"} {
		from := filepath.Join(dir, "var", name)
		if err := os.MkdirAll(from, 0o755); err != nil {
			return fmt.Errorf("create lab directory: %w", err)
		}
		if err := unix.Mount(from, "/var/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /var/%s: %w", name, err)
		}
	}
	for _, in := range s.Instances {
		if err := mountSpool(volumeFor(dir, in.Name, in.Spool), in); err != nil {
			return err
		}
	}
	return nil
}

// overlayEtc lays a writable tmpfs over the host's /etc. An overlay is right here and wrong for a spool: it changes
// inode numbers at the first write, and short queue IDs are made of them.
func overlayEtc(dir string, s spec) error {
	base := filepath.Join(dir, "etc")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return fmt.Errorf("create lab directory: %w", err)
	}
	if err := unix.Mount("holdfast-etc", base, "tmpfs", unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs for /etc: %w", err)
	}
	upper, work := filepath.Join(base, "upper"), filepath.Join(base, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return fmt.Errorf("create overlay directories: %w", err)
	}
	opts := "lowerdir=/etc,upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("holdfast-etc", "/etc", "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount overlay over /etc: %w", err)
	}
	short, _, _ := strings.Cut(s.Host(), ".")
	files := map[string]string{
		"resolv.conf":   "nameserver " + s.Resolver + "\noptions timeout:1 attempts:2\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"hosts":         "127.0.0.1 localhost\n::1 localhost\n" + s.Instances[0].Address + " " + s.Host() + " " + short + "\n",
		"hostname":      short + "\n",
		"mailname":      s.Host() + "\n",
	}
	for name, text := range files {
		path := filepath.Join("/etc", name)
		// resolv.conf is a symbolic link on many hosts; writing through it would reach outside /etc.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("replace %q: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write lab's /etc: %w", err)
		}
	}
	return nil
}

func mountSpool(v volume, in instance) error {
	if err := v.create(); err != nil {
		return err
	}
	if err := os.MkdirAll(in.spoolDir(), 0o755); err != nil {
		return fmt.Errorf("create mount point of spool: %w", err)
	}
	return bindSpool(v, in)
}

func bindSpool(v volume, in instance) error {
	if err := unix.Mount(v.spool(), in.spoolDir(), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount spool of %q: %w", in.Name, err)
	}
	return nil
}

// startWorld starts the world process in its own network namespace and waits until every listener is open.
func startWorld(dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make ready pipe: %w", err)
	}
	defer r.Close()
	cmd := roleCommand(roleWorld, dir)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	err = onThread(func() error {
		if err := joinNet(worldNet); err != nil {
			return err
		}
		return cmd.Start()
	})
	w.Close()
	if err != nil {
		return fmt.Errorf("start process: %w", err)
	}
	_, err = awaitReport(r, dir, "the world")
	return err
}
