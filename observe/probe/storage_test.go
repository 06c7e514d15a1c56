package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

func TestMountsOfEveryForm(t *testing.T) {
	list := parseMounts("36 35 98:0 / / rw,noatime master:1 shared:7 - ext4 /dev/root rw,errors=continue\n" +
		"40 36 0:44 /@spool /var/spool/with\\040blank ro - btrfs /dev/sdb rw,subvol=/@spool\n" +
		"41 36 8:17 / /var rw - xfs /dev/sdc1 rw,emergency_ro\n" +
		"garbage\n1 2 x:y / / rw - ext4 a b\n")
	if len(list) != 3 {
		t.Fatalf("%+v", list)
	}
	m := list[1]
	if m.point != "/var/spool/with blank" || m.kind != "btrfs" || m.root != "/@spool" || m.device != (device{0, 44}) || !m.has("ro") {
		t.Errorf("%+v", m)
	}
	if !list[2].has("emergency_ro") || list[0].has("ro") {
		t.Error("options of the file system are not those of the mount")
	}
	// By names where the kernel gives no number for the path.
	for path, want := range map[string]string{"/var/spool/postfix-x": "/var", "/variable/x": "/", "/var": "/var"} {
		if m, ok := mountOf(list, path); !ok || m.point != want {
			t.Errorf("%q is on %q", path, m.point)
		}
	}
	if _, ok := mountOf(nil, "/"); ok {
		t.Error("a mount of no list")
	}
}

func TestWhoElseSeesTheFileSystem(t *testing.T) {
	at := func(root, point string) mount { return mount{device: device{8, 1}, root: root, point: point} }
	spool := at("/", "/var/spool/postfix")
	other := mount{device: device{8, 2}, root: "/", point: "/"}
	if !showsAll([]mount{other, spool, at("/dev", "/x")}, spool) {
		t.Error("a part of it elsewhere is still all the spool's")
	}
	part := at("/postfix", "/var/spool/postfix")
	if showsAll([]mount{other, part, at("/", "/data")}, part) {
		t.Error("the whole is mounted elsewhere")
	}
	if top := widest([]mount{other, part, at("/", "/data")}, part); top != "/data" {
		t.Errorf("most of it is seen at %q", top)
	}
}

func TestStorageWithoutProc(t *testing.T) {
	dir := t.TempDir()
	s, gaps := askStorage(t.Context(), procfs(t.TempDir()), postfix.Instance{QueueDir: dir}, "", nil)
	if !s.Known || s.Free <= 0 || len(gaps) != 1 || !strings.Contains(gaps[0].Text, "mounted") || !s.Written {
		t.Errorf("%+v, gaps %v", s, gaps)
	}
	s, gaps = askStorage(t.Context(), procRoot, postfix.Instance{QueueDir: dir + "/none"}, "", nil)
	if s.Known || s.WriteTried || len(gaps) != 1 {
		t.Errorf("no spool: %+v, gaps %v", s, gaps)
	}
}

// What an earlier look left hanging is found by its arguments, and only where
// they can be believed.
func TestEarlierTrialThatHangs(t *testing.T) {
	const spool = "/var/spool/postfix"
	trial := func(name, dir string) procfs {
		return procfs(tree(t, map[string]string{
			"stat":        "btime 1700000000\n",
			"71/stat":     statLine(71, name, "D", 1, 10),
			"71/cmdline":  "/proc/self/exe\x00__opener\x00scratch\x00" + dir + "\x00",
			"72/stat":     statLine(72, "exe", "S", 1, 10),
			"72/cmdline":  "/proc/self/exe\x00__opener\x00spool=" + spool + "\x00",
			"73/stat":     statLine(73, "exe", "S", 1, 10),
			"other/thing": "",
		}))
	}
	p := trial("exe", spool)
	if since := p.hangingSince(spool); since.Unix() != 1700000010 {
		t.Errorf("it hangs since %v", since)
	}
	s := observe.Storage{Path: spool}
	if gaps := try(t.Context(), p, &s, nil); !s.WriteTried || s.Written || !strings.Contains(s.WriteError, "hangs since") || len(gaps) != 0 {
		t.Errorf("%+v, gaps %v", s, gaps)
	}
	for name, p := range map[string]procfs{"of another spool": trial("exe", "/srv/spool"), "of another program": trial("sleep", spool)} {
		if since := p.hangingSince(spool); !since.IsZero() {
			t.Errorf("%s: it hangs since %v", name, since)
		}
	}
	if err := os.Chown(filepath.Join(string(p), "71"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if since := p.hangingSince(spool); !since.IsZero() {
		t.Errorf("of a user that is not ours: it hangs since %v", since)
	}
}

func TestShortage(t *testing.T) {
	ok := observe.Storage{Bytes: 1000, Free: 500, Inodes: 100, FreeFiles: 50}
	for name, c := range map[string]struct {
		change func(*observe.Storage)
		want   scarce
	}{
		"none":                  {func(*observe.Storage) {}, notShort},
		"bytes":                 {func(s *observe.Storage) { s.Free = 99 }, shortOfBytes},
		"inodes":                {func(s *observe.Storage) { s.FreeFiles = 9 }, shortOfInodes},
		"both, as on xfs":       {func(s *observe.Storage) { s.Free, s.FreeFiles = 0, 0 }, shortOfBytes},
		"no limit of inodes":    {func(s *observe.Storage) { s.Inodes, s.FreeFiles = 0, 0 }, notShort},
		"a write without space": {func(s *observe.Storage) { s.WriteError = "write: no space left on device" }, shortOfBytes},
		"a quota":               {func(s *observe.Storage) { s.WriteError = "sync: disk quota exceeded" }, shortOfBytes},
		"another failure":       {func(s *observe.Storage) { s.WriteError = "sync: input/output error" }, notShort},
	} {
		s := ok
		if c.change(&s); shortage(s) != c.want {
			t.Errorf("%s: %v", name, shortage(s))
		}
	}
}

// A tree on a file system that others use as well, of which only one folder is
// made known.
func TestFillersNameWhatIsHeavy(t *testing.T) {
	spool := t.TempDir()
	write := func(name string, size int) {
		path := filepath.Join(spool, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("active/one", 1<<10)
	write("incoming/big", 6<<20)
	for i := range 300 { // spread over many folders: the parent is what to name
		write(fmt.Sprintf("deferred/%X/%X/m%d", i%16, i/16, i), 8<<10)
	}
	if err := os.Link(filepath.Join(spool, "incoming/big"), filepath.Join(spool, "incoming/again")); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Stat_t
	if err := unix.Lstat(spool, &before); err != nil {
		t.Fatal(err)
	}
	list := fillersOf(t, spool, shortOfBytes)
	if len(list) != 2 || list[0].Path != spool+"/incoming" || list[1].Path != spool+"/deferred" {
		t.Fatalf("%+v", list)
	}
	if list[0].Bytes < 6<<20 || list[0].Bytes > 7<<20 || list[0].Files != 1 {
		t.Errorf("a file with two names counts once: %+v", list[0])
	}
	if list[1].Files < 300 || list[1].Bytes < 300*(8<<10) {
		t.Errorf("%+v", list[1])
	}
	if list = fillersOf(t, spool, shortOfInodes); len(list) != 1 || list[0].Path != spool+"/deferred" {
		t.Errorf("by number: %+v", list)
	}
	// The largest of what can be seen is not named where all of it is little.
	crumbs, _ := fillers(t.Context(), postfix.Instance{QueueDir: spool}, nil, mount{}, shortOfBytes, usage{bytes: 1 << 40})
	if len(crumbs) != 0 {
		t.Errorf("%+v fill a terabyte", crumbs)
	}
	if err := unix.Lstat(spool, &after); err != nil || after.Atim != before.Atim {
		t.Errorf("the queue directory was read: %v, %v", before.Atim, after.Atim)
	}
}

func fillersOf(t *testing.T, spool string, s scarce) []observe.Filler {
	t.Helper()
	// No mount is known, so the spool is all that is looked at.
	list, gaps := fillers(t.Context(), postfix.Instance{QueueDir: spool}, nil, mount{}, s, usage{})
	if len(gaps) != 0 {
		t.Errorf("gaps %v", gaps)
	}
	return list
}

func TestFillersSayWhatTheyMiss(t *testing.T) {
	w := walk{closed: 3, first: "/a", cut: true, entries: 7}
	var text []string
	for _, g := range w.gaps("/var", shortOfBytes, 0, 1<<30) {
		text = append(text, fmt.Sprint(g.Object, " ", g.Count, " ", g.Text))
	}
	if len(text) != 2 || !strings.HasPrefix(text[0], "/a 3 ") || !strings.Contains(text[1], "7 entries") {
		t.Errorf("%q", text)
	}
	// Only who has seen everything may conclude from what is not there.
	if g := new(walk).gaps("/", shortOfBytes, 1<<20, 1<<30); len(g) != 1 || !strings.Contains(g[0].Text, "deleted files") {
		t.Errorf("%v", g)
	}
	if g := new(walk).gaps("/", shortOfBytes, 1<<20, 1<<20); !slices.Equal(g, nil) {
		t.Errorf("%v", g)
	}
}
