package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names inside a lab's directory. The directory is the lab's whole presence on the host: everything else lives in
// namespaces that the kernel takes away with the last process.
const (
	lockName   = "lock"          // flock held by the keeper for as long as the lab exists
	specName   = "spec.json"     // what was asked for; written once, before the keeper starts
	stateName  = "state.json"    // what the keeper made of it
	keeperLog  = "keeper.log"    // stderr of the keeper and of PID 1: the place to look when a lab does not come up
	worldSock  = "world.sock"    // control API of the world
	ledgerName = "ledger"        // directory of the world's delivery ledger
	injectName = "injected.json" // journal of everything injected, one JSON object a line
	faultsName = "faults.json"   // faults that are active, in the order in which they were started
)

// labName limits names to what is safe in a path, in a host name, in a local part and in a UNIX socket path (108 bytes).
var labName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,23}$`)

// Root is the directory that holds all labs of this machine. HOLDFAST_LAB_ROOT moves it; the path must be short, since
// a UNIX socket path has only 108 bytes, and on a real file system, since inode numbers make short queue IDs.
func Root() string {
	if dir := os.Getenv("HOLDFAST_LAB_ROOT"); dir != "" {
		return dir
	}
	return "/tmp/holdfast-lab"
}

// openRoot makes the root directory and takes its lock, which serialises creating and sweeping: between mkdir and
// flock a new lab looks exactly like a dead one.
func openRoot() (*os.File, error) {
	dir := Root()
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create lab root %q: %w", dir, err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at lab root %q: %w", dir, err)
	}
	// /tmp is everybody's: a directory or link that another user planted there would let him choose what root deletes.
	if st, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("lab root %q is not a directory of this user; remove it or set HOLDFAST_LAB_ROOT", dir)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of lab root: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock lab root %q: %w", dir, err)
	}
	return lock, nil
}

// claim makes the directory of a new lab and returns it with its lock held.
func claim(name string) (dir string, lock *os.File, err error) {
	root, err := openRoot()
	if err != nil {
		return "", nil, err
	}
	defer root.Close()
	if err := sweepLocked(); err != nil {
		return "", nil, err
	}
	dir = filepath.Join(Root(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return "", nil, fmt.Errorf("lab %q is already up; take it down with: holdfast-lab down %s", name, name)
		}
		return "", nil, fmt.Errorf("create directory of lab %q: %w", name, err)
	}
	lock, err = os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("create lock of lab %q: %w", name, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return "", nil, fmt.Errorf("lock lab %q: %w", name, err)
	}
	return dir, lock, nil
}

// alive tells whether a keeper holds the lab's lock. A pid file could lie, the lock cannot.
func alive(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Sweep removes what is left of labs whose keeper was killed. The kernel has taken their processes and mounts already;
// the directory, and a frozen file system that nobody thawed, are all that can remain.
func Sweep() error {
	root, err := openRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	return sweepLocked()
}

func sweepLocked() error {
	names, err := labDirs()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if dir := filepath.Join(Root(), name); !alive(dir) {
			errs = append(errs, removeLab(dir))
		}
	}
	return errors.Join(errs...)
}

func labDirs() ([]string, error) {
	entries, err := os.ReadDir(Root())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && labName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// removeLab thaws and releases what the kernel still holds of a dead lab, then removes its directory.
func removeLab(dir string) error {
	if err := releaseLoops(dir); err != nil {
		return err
	}
	// A process that was stuck on a frozen file system dies only now; until then the directory may be busy.
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
	}
	return fmt.Errorf("remove directory of a dead lab: %w", err)
}

// Info describes a lab that is up.
type Info struct {
	Name      string         `json:"name"`
	Dir       string         `json:"dir"`
	Keeper    int            `json:"keeper"` // host pid of the keeper
	Init      int            `json:"init"`   // host pid of the lab's PID 1; /proc/INIT/root is the lab's file tree
	Since     time.Time      `json:"since"`
	Instances []InstanceInfo `json:"instances"`
}

// InstanceInfo describes one Postfix instance of a lab.
type InstanceInfo struct {
	Name      string `json:"name"`       // "postfix" for the primary, else "postfix-NAME"
	ConfigDir string `json:"config_dir"` // inside the lab
	SpoolDir  string `json:"spool_dir"`  // inside the lab
	LogFile   string `json:"log_file"`   // inside the lab
	Address   string `json:"address"`    // where its smtpd listens, and where its mail comes from
	Storage   string `json:"storage"`
}

// List returns the labs that are up, by name, after sweeping away the dead ones.
func List() ([]Info, error) {
	if err := Sweep(); err != nil {
		return nil, err
	}
	names, err := labDirs()
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, name := range names {
		info, err := readInfo(filepath.Join(Root(), name))
		if errors.Is(err, os.ErrNotExist) {
			continue // still coming up, or gone since
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

func readInfo(dir string) (Info, error) {
	var info Info
	err := readJSON(filepath.Join(dir, stateName), &info)
	return info, err
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read lab file: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %q: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file as one step, so that a reader in another process never sees half of it. No fsync: a lab
// does not outlive the machine.
func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %q: %w", path, err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write lab file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace lab file: %w", err)
	}
	return nil
}
