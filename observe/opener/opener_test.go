package opener

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) {
	if Serve(os.Args) {
		return
	}
	os.Exit(m.Run())
}

// TestStateOpensOnlyWhatIsGranted starts a real opener on a directory of state
// in which somebody has been busy.
func TestStateOpensOnlyWhatIsGranted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the opener is root's: run the tests as root")
	}
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{
		"audit/audit.log", "audit/checkpoints", "audit/key", "plans/abc", "vault/one.pack", "plans/foreign", "plans/.hidden", "plans/twice", "outside",
	} {
		check(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700))
		check(os.WriteFile(filepath.Join(dir, path), []byte(path), 0o600))
	}
	check(os.Chown(filepath.Join(dir, "plans/foreign"), 65534, 65534))
	check(os.Symlink("/etc/shadow", filepath.Join(dir, "plans/link")))
	check(os.Link(filepath.Join(dir, "plans/twice"), filepath.Join(dir, "plans/again")))
	o, err := Start(Grants{StateDir: dir})
	check(err)
	defer func() { check(o.Close()) }()
	for _, path := range []string{"audit/audit.log", "audit/checkpoints", "plans/abc"} {
		f, err := o.State(filepath.Dir(path), filepath.Base(path))
		check(err)
		text, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil || string(text) != path {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	for _, c := range [][2]string{
		{"audit", "key"},
		{"vault", "one.pack"},
		{"plans", "foreign"},
		{"plans", "link"},
		{"plans", "twice"},
		{"plans", ".hidden"},
		{"plans", "../outside"},
		{"plans", ".."},
		{"plans", ""},
		{"", "outside"},
		{"..", "outside"},
		{"plans/../vault", "one.pack"},
	} {
		if f, err := o.State(c[0], c[1]); err == nil {
			t.Errorf("%q of %q was opened", c[1], c[0])
			check(f.Close())
		}
	}
	if _, err := o.State("targets", "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	none, err := Start(Grants{})
	check(err)
	defer func() { check(none.Close()) }()
	if _, err := none.State("audit", "audit.log"); err == nil {
		t.Error("an opener without a grant opens state")
	}
}
