package forge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"holdfast/postfix"
)

// Private is a forged spool with a Postfix configuration of its own, which
// Postfix's reading programs are pointed at. No daemon runs: asked by root,
// postqueue finds the mail system down and starts showq by itself.
type Private struct {
	Spool     *Spool
	ConfigDir string
	// DaemonDir holds showq.
	DaemonDir string

	setgid uint32
}

// NewPrivate makes a spool and a configuration below dir, which the mail owner
// must be able to enter: a temporary directory of mode 0700 will not do. s says
// how the spool is to be; its Dir and Owner are set.
func NewPrivate(dir string, s *Spool) (*Private, error) {
	owner, err := user.Lookup("postfix")
	if err != nil {
		return nil, fmt.Errorf("find the mail owner: %w", err)
	}
	drop, err := user.LookupGroup("postdrop")
	if err != nil {
		return nil, fmt.Errorf("find the set-gid group: %w", err)
	}
	uid, err1 := strconv.Atoi(owner.Uid)
	gid, err2 := strconv.Atoi(owner.Gid)
	setgid, err3 := strconv.ParseUint(drop.Gid, 10, 32)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("read the numbers of the mail owner: %w", err)
	}
	s.Dir, s.Owner = filepath.Join(dir, "spool"), &Owner{UID: uid, GID: gid}
	p := &Private{Spool: s, ConfigDir: filepath.Join(dir, "config"), DaemonDir: "/usr/lib/postfix/sbin", setgid: uint32(setgid)}
	for _, path := range []string{s.Dir, p.ConfigDir, p.dataDir()} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, fmt.Errorf("make private Postfix: %w", err)
		}
	}
	if err := errors.Join(p.configure(), s.Make()); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Private) dataDir() string { return filepath.Join(filepath.Dir(p.ConfigDir), "data") }

func (p *Private) configure() error {
	hashed, long := "deferred, defer", "no"
	if p.Spool.Hashed != nil {
		hashed = strings.Join(p.Spool.Hashed, ", ")
	}
	if p.Spool.HashDepth == 0 || hashed == "" {
		hashed = "flush" // Postfix knows neither a depth of zero nor an empty list
	}
	if p.Spool.LongIDs {
		long = "yes"
	}
	parameters := []string{
		"queue_directory = " + p.Spool.Dir,
		"data_directory = " + p.dataDir(),
		"daemon_directory = " + p.DaemonDir,
		"myhostname = relay.example",
		"compatibility_level = 3.6",
		"maillog_file =",
		"hash_queue_names = " + hashed,
		"hash_queue_depth = " + strconv.Itoa(max(1, p.Spool.HashDepth)),
		"enable_long_queue_ids = " + long,
	}
	for name, text := range map[string]string{"main.cf": strings.Join(parameters, "\n") + "\n", "master.cf": ""} {
		path := filepath.Join(p.ConfigDir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure private Postfix: %w", err)
		}
		// Every Postfix program waits until main.cf has not changed for two
		// seconds: somebody might be editing it (global/mail_conf.c).
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			return fmt.Errorf("configure private Postfix: %w", err)
		}
	}
	return nil
}

// Command prepares one of Postfix's programs for this configuration: postqueue,
// postcat, postsuper. The group is set as the set-gid bit would: with two
// different groups Postfix distrusts a configuration directory that the
// system's own main.cf does not name. The caller must be root.
func (p *Private) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, append([]string{"-c", p.ConfigDir}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0, Gid: p.setgid}}
	return cmd
}

// Showq prepares the real showq to write one listing to its standard output.
func (p *Private) Showq(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.DaemonDir, "showq"), "-u", "-S")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG=" + p.ConfigDir}
	return cmd
}

// ServeShowq answers on the spool's showq socket with the real showq, one
// process a connection as master does it, until the context ends. It returns
// when the socket is there.
func (p *Private) ServeShowq(ctx context.Context) error {
	socket := filepath.Join(p.Spool.Dir, "public", "showq")
	// A socket's address has 108 bytes and a queue directory may be deeper:
	// master binds by a relative name, this by the directory's descriptor.
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return fmt.Errorf("listen for showq: %w", err)
	}
	defer dir.Close()
	name := fmt.Sprintf("/proc/self/fd/%d/showq", dir.Fd())
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for showq: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the name ends with the descriptor; the file stays, as master leaves it
	context.AfterFunc(ctx, func() { listener.Close() })
	// The directory decides who may ask (public/ is 0710), as in a real spool.
	if err := os.Chmod(socket, 0o666); err != nil {
		return fmt.Errorf("open the showq socket: %w", err)
	}
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			go p.answer(ctx, conn)
		}
	}()
	return nil
}

func (p *Private) answer(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		return // the client sees a listing without its end mark
	}
	defer file.Close()
	cmd := p.Showq(ctx)
	cmd.Stdout = file
	if err := cmd.Run(); err != nil {
		return // likewise
	}
}

// Instance describes the private Postfix as Holdfast sees it.
func (p *Private) Instance() postfix.Instance {
	hashed := p.Spool.Hashed
	if hashed == nil {
		hashed = []string{"deferred", "defer"}
	}
	return postfix.Instance{
		Name: "private", ConfigDir: p.ConfigDir, QueueDir: p.Spool.Dir, DataDir: p.dataDir(), Version: "3.7.11",
		Hostname: "relay.example", Enabled: true, MailOwner: "postfix", SetgidGroup: "postdrop",
		LongIDs: p.Spool.LongIDs, HashedQueues: hashed, HashDepth: p.Spool.HashDepth, DaemonDir: p.DaemonDir, CommandDir: "/usr/sbin",
		MaxLifetime: 5 * 24 * time.Hour, BounceLifetime: 5 * 24 * time.Hour,
		MinBackoff: 5 * time.Minute, MaxBackoff: 4000 * time.Second, QueueRunDelay: 5 * time.Minute,
	}
}
