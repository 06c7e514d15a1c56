package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/lab/world"
)

// Options say what a lab is to be. The zero value is one Postfix as Debian installs it (chroot on, short queue IDs, a
// plain spool) with a world in which nobody lives.
type Options struct {
	Name      string            `json:"name,omitempty"`       // lower-case letters, digits, hyphens; made up if empty
	World     world.Config      `json:"world,omitzero"`       // who lives at the other end of the cable
	Params    map[string]string `json:"params,omitempty"`     // main.cf parameters of the primary instance
	Services  []string          `json:"services,omitempty"`   // further master.cf entries of the primary instance
	Spool     Storage           `json:"spool,omitzero"`       // storage of the primary instance's spool
	NoChroot  bool              `json:"no_chroot,omitempty"`  // run daemons outside the chroot, in all instances
	LongIDs   bool              `json:"long_ids,omitempty"`   // enable_long_queue_ids, in all instances
	Hostname  string            `json:"hostname,omitempty"`   // relay.example.net if empty
	Resolver  string            `json:"resolver,omitempty"`   // nameserver; the first DNS address of the world if empty
	NoStart   bool              `json:"no_start,omitempty"`   // leave Postfix stopped
	Instances []InstanceOptions `json:"instances,omitempty"`  // further Postfix instances
	TimeScale float64           `json:"time_scale,omitempty"` // overrides the world's, if not 0
}

// InstanceOptions describe a further Postfix instance: configuration in /etc/postfix-NAME, spool in
// /var/spool/postfix-NAME, as postmulti(1) lays them out.
type InstanceOptions struct {
	Name     string            `json:"name"` // without the prefix "postfix-"
	Params   map[string]string `json:"params,omitempty"`
	Services []string          `json:"services,omitempty"`
	Spool    Storage           `json:"spool,omitzero"`
}

// spec is Options made definite, as the lab's processes read it.
type spec struct {
	Name      string       `json:"name"`
	Hostname  string       `json:"hostname"`
	Resolver  string       `json:"resolver"`
	NoChroot  bool         `json:"no_chroot"`
	LongIDs   bool         `json:"long_ids"`
	NoStart   bool         `json:"no_start"`
	Instances []instance   `json:"instances"` // the primary first
	World     world.Config `json:"world"`
}

// Host is the machine name inside the lab.
func (s spec) Host() string { return s.Hostname }

func (o Options) spec(dir string) (spec, error) {
	s := spec{Name: o.Name, Hostname: o.Hostname, Resolver: o.Resolver, NoChroot: o.NoChroot, LongIDs: o.LongIDs, NoStart: o.NoStart, World: o.World}
	if s.Hostname == "" {
		s.Hostname = "relay.example.net"
	}
	if s.Resolver == "" {
		s.Resolver = defaultResolver
	}
	if _, err := netip.ParseAddr(s.Resolver); err != nil {
		return spec{}, fmt.Errorf("resolver %q is not an IP address", s.Resolver)
	}
	s.World.LedgerDir = filepath.Join(dir, ledgerName)
	if o.TimeScale != 0 {
		s.World.TimeScale = o.TimeScale
	}
	if len(o.Instances) >= maxInstances {
		return spec{}, fmt.Errorf("a lab has room for %d Postfix instances", maxInstances)
	}
	s.Instances = []instance{{Name: primaryName, Address: instanceAddress(0), Params: o.Params, Services: o.Services, Spool: o.Spool}}
	for i, in := range o.Instances {
		if !labName.MatchString(in.Name) {
			return spec{}, fmt.Errorf("instance name %q: use up to 24 lower-case letters, digits and hyphens", in.Name)
		}
		s.Instances = append(s.Instances, instance{
			Name: primaryName + "-" + in.Name, Number: i + 1, Address: instanceAddress(i + 1),
			Params: in.Params, Services: in.Services, Spool: in.Spool,
		})
	}
	for i, in := range s.Instances {
		if err := in.Spool.check(); err != nil {
			return spec{}, fmt.Errorf("instance %q: %w", in.Name, err)
		}
		if slices.ContainsFunc(s.Instances[:i], func(other instance) bool { return other.Name == in.Name }) {
			return spec{}, fmt.Errorf("instance name %q is given twice", in.Name)
		}
	}
	return s, nil
}

// Lab is a handle on a lab that is up. Any process of the same user may have one; see Open.
type Lab struct {
	Info
	spec     spec
	lifeline *os.File // nil if this process does not own the lab
}

// T is what Up needs of a *testing.T, *testing.B or *testing.F.
type T interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
	Errorf(format string, args ...any)
}

// Up starts a lab that is taken down at the end of the test. A lab that cannot be started fails the test: what cannot
// be tested here is not known to work, and a skip would hide that.
func Up(t T, o Options) *Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	l, err := Start(ctx, o)
	if err != nil {
		t.Fatalf("start lab: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of lab %s:\n%s", l.Name, tail(l.HostPath(l.Instances[0].LogFile), 4000))
		}
		if err := l.Down(); err != nil {
			t.Errorf("take lab down: %v", err)
		}
	})
	return l
}

// Start starts a lab that lives until Down, or until this process ends in whatever way.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if err := checkHost(); err != nil {
		return nil, err
	}
	if o.Name == "" {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("make up a lab name: %w", err)
		}
		o.Name = "lab-" + hex.EncodeToString(b[:])
	}
	if !labName.MatchString(o.Name) {
		return nil, fmt.Errorf("lab name %q: use up to 24 lower-case letters, digits and hyphens", o.Name)
	}
	s, err := o.spec(filepath.Join(Root(), o.Name))
	if err != nil {
		return nil, err
	}
	dir, lock, err := claim(o.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the keeper has its own copy; when both are closed the directory is anybody's to sweep
	if err := writeJSON(filepath.Join(dir, specName), s); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	lifeline, info, err := startKeeper(dir, lock)
	if err != nil {
		return nil, err
	}
	l := &Lab{Info: info, spec: s, lifeline: lifeline}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

// checkHost says in one sentence what is missing, before anything is made.
func checkHost() error {
	if os.Getenv(roleVar) != "" {
		return errors.New("this process is part of a lab: call lab.Main first in main or TestMain")
	}
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root: it makes namespaces and mounts; run this with sudo")
	}
	for _, p := range []string{"/usr/sbin/postfix", "/usr/lib/postfix/sbin/master", "/usr/share/postfix/master.cf.dist"} {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("no Postfix on this machine (%w); install what the lab needs with: make setup", err)
		}
	}
	for _, p := range []string{"ip", "nft", "mount", "mkfs.ext4"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("program %q is missing; install what the lab needs with: make setup", p)
		}
	}
	return nil
}

// Detach lets the lab outlive this process; it then ends by Down, from any process.
func (l *Lab) Detach() error {
	if l.lifeline == nil {
		return nil
	}
	_, err := l.lifeline.Write([]byte{1})
	err = errors.Join(err, l.lifeline.Close())
	l.lifeline = nil
	if err != nil {
		return fmt.Errorf("detach lab %q: %w", l.Name, err)
	}
	return nil
}

// Open returns a handle on a lab that another process started.
func Open(name string) (*Lab, error) {
	dir := filepath.Join(Root(), name)
	if !labName.MatchString(name) || !alive(dir) {
		return nil, fmt.Errorf("no lab %q is up; see: holdfast-lab list", name)
	}
	info, err := readInfo(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab %q is still coming up", name)
	}
	if err != nil {
		return nil, err
	}
	l := &Lab{Info: info}
	err = readJSON(filepath.Join(dir, specName), &l.spec)
	return l, err
}

// Down takes the lab down and returns when nothing of it is left: no process, mount, namespace, loop device, directory.
// It may be called twice.
func (l *Lab) Down() error {
	if !alive(l.Dir) {
		return Sweep()
	}
	// A lock that is held belongs to the keeper that wrote its pid into the directory, so the pid is not another's.
	keeper, err := unix.PidfdOpen(l.Keeper, 0)
	if errors.Is(err, unix.ESRCH) {
		return Sweep()
	}
	if err != nil {
		return fmt.Errorf("open keeper of lab %q: %w", l.Name, err)
	}
	defer unix.Close(keeper)
	if err := unix.PidfdSendSignal(keeper, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end keeper of lab %q: %w", l.Name, err)
	}
	if l.lifeline != nil {
		l.lifeline.Close() // read end and keeper are going; nothing hangs on this any more
		l.lifeline = nil
	}
	for deadline := time.Now().Add(45 * time.Second); time.Now().Before(deadline); {
		// A pidfd becomes readable when its process has ended.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(keeper), Events: unix.POLLIN}}, 1000); err == nil && n > 0 {
			return Sweep()
		}
	}
	return fmt.Errorf("lab %q did not go down: %s", l.Name, tail(filepath.Join(l.Dir, keeperLog), 1000))
}

// HostPath is how a path of the lab's file tree is reached from outside, as root and while the lab is up.
func (l *Lab) HostPath(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", l.Init), path)
}

// SpoolDir is the queue directory of an instance ("" or "postfix" is the primary) as seen from outside the lab. For a
// plain spool it is a path that every user of the host may follow as far as the modes allow; a spool on a file system
// of its own is mounted only inside, so its path leads through /proc and needs root.
func (l *Lab) SpoolDir(name string) string {
	in, err := l.instance(name)
	if err != nil {
		return ""
	}
	if v := volumeFor(l.Dir, in.Name, in.Spool); !v.dedicated() {
		return v.spool()
	}
	return l.HostPath(in.spoolDir())
}

// instance finds an instance by its name, with or without the prefix that postmulti wants.
func (l *Lab) instance(name string) (instance, error) {
	if name == "" {
		name = primaryName
	}
	for _, in := range l.spec.Instances {
		if in.Name == name || in.Name == primaryName+"-"+name {
			return in, nil
		}
	}
	var names []string
	for _, in := range l.spec.Instances {
		names = append(names, in.Name)
	}
	return instance{}, fmt.Errorf("lab %q has no instance %q, only %s", l.Name, name, strings.Join(names, " "))
}

// World is a client of the world's control API.
func (l *Lab) World() *world.Client { return world.Dial(filepath.Join(l.Dir, worldSock)) }

// Ledger returns everything that the world's providers have accepted so far.
func (l *Lab) Ledger() ([]world.LedgerEntry, error) {
	return world.ReadLedger(filepath.Join(l.Dir, ledgerName))
}
