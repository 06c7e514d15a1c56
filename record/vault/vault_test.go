package vault_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/vault"
)

func open(t testing.TB, dir string, recipients ...string) *vault.Store {
	t.Helper()
	s, err := vault.Open(dir, recipients)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// message has a queue file and, where it is not empty, a defer log.
func message(id postfix.QueueID, queue, deferLog string) vault.Source {
	src := vault.Source{ID: id, Members: []vault.Part{{Member: vault.QueueFile, From: strings.NewReader(queue)}}}
	if deferLog != "" {
		src.Members = append(src.Members, vault.Part{Member: vault.DeferLog, From: strings.NewReader(deferLog)})
	}
	return src
}

func write(t testing.TB, s *vault.Store, pack string, sources ...vault.Source) record.KeptBody {
	t.Helper()
	kept, failed, err := s.Write(pack, sources)
	if err != nil || len(failed) > 0 {
		t.Fatalf("write %s: %v, %v", pack, failed, err)
	}
	return kept
}

func content(s *vault.Store, item string, m vault.Member, ids ...age.Identity) (string, error) {
	var b bytes.Buffer
	err := s.Copy(&b, item, m, ids...)
	return b.String(), err
}

func TestWhatIsKeptComesBack(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "state", "vault")
	s := open(t, dir)
	big := strings.Repeat("a line of a long message\n", 50_000)
	kept := write(t, s, "4d2f-1", message("4F2A01B2C4", "queue\x00file\xff", "why"), message("4F2A01B2C5", big, ""))
	if len(kept.Items) != 2 || kept.Items[1].Size != int64(len(big)) || kept.Items[0].Name != "4d2f-1.1" {
		t.Fatalf("kept %+v", kept)
	}
	sum := sha256.Sum256([]byte(big))
	if kept.Items[1].Sum != hex.EncodeToString(sum[:]) {
		t.Error("the digest is not that of the queue file")
	}
	again := open(t, dir)
	for _, c := range []struct {
		item string
		m    vault.Member
		want string
	}{{"4d2f-1.1", vault.QueueFile, "queue\x00file\xff"}, {"4d2f-1.1", vault.DeferLog, "why"}, {"4d2f-1.2", vault.QueueFile, big}} {
		if got, err := content(again, c.item, c.m); err != nil || got != c.want {
			t.Errorf("%s %s: %d bytes, %v", c.item, c.m, len(got), err)
		}
	}
	for _, item := range []string{"4d2f-1.3", "4d2f-1.0", "4d2f-1", "nothere.1", "../4d2f-1.1", "", "."} {
		if _, err := content(again, item, vault.QueueFile); !errors.Is(err, vault.ErrNoItem) {
			t.Errorf("item %q: %v", item, err)
		}
	}
	if _, err := content(again, "4d2f-1.2", vault.DeferLog); !errors.Is(err, vault.ErrNoItem) {
		t.Errorf("a log that was not kept: %v", err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "4d2f-1.pack"): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

func TestPacksAreNeverOverwritten(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "vault"))
	write(t, s, "one", message("4F2A01B2C4", "first", ""))
	if _, _, err := s.Write("one", []vault.Source{message("4F2A01B2C5", "second", "")}); err == nil {
		t.Error("a pack was written over")
	}
	if got, err := content(s, "one.1", vault.QueueFile); err != nil || got != "first" {
		t.Errorf("it holds %q now, %v", got, err)
	}
	for _, name := range []string{"", "../up", "A", "a.b", "a/b", strings.Repeat("a", 100)} {
		if _, _, err := s.Write(name, []vault.Source{message("4F2A01B2C4", "x", "")}); err == nil {
			t.Errorf("%q is taken for the name of a pack", name)
		}
	}
}

func TestWhatCannotBeReadIsNamedAndNotKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	s := open(t, dir)
	broken := vault.Source{ID: "4F2A01B2C5", Members: []vault.Part{
		{Member: vault.QueueFile, From: io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("I/O error")))},
	}}
	kept, failed, err := s.Write("two", []vault.Source{message("4F2A01B2C4", "whole", ""), broken, message("4F2A01B2C6", "last", "")})
	if err != nil || len(kept.Items) != 2 || !strings.Contains(failed["4F2A01B2C5"], "I/O error") {
		t.Fatalf("kept %+v, failed %v, %v", kept, failed, err)
	}
	if got, err := content(s, "two.2", vault.QueueFile); err != nil || got != "last" {
		t.Errorf("behind the broken one: %q, %v", got, err)
	}
	broken.Members[0].From = iotest.ErrReader(errors.New("I/O error"))
	if kept, failed, err = s.Write("three", []vault.Source{broken}); err != nil || len(kept.Items) != 0 || len(failed) != 1 {
		t.Errorf("nothing to keep: %+v, %v, %v", kept, failed, err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("it left %v behind", names)
	}
}

func TestEveryFlippedByteAndCutIsFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	s := open(t, dir)
	kept := []record.KeptBody{write(t, s, "one", message("4F2A01B2C4", "the queue file", "the log"), message("4F2A01B2C5", "another", ""))}
	path := filepath.Join(dir, "one.pack")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(what string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		checked, err := s.Verify(kept, nil)
		if err != nil || len(checked) != 1 || checked[0].State != vault.Damaged || checked[0].Why == "" {
			t.Fatalf("%s: %+v, %v", what, checked, err)
		}
		for item, want := range map[string]string{"one.1": "the queue file", "one.2": "another"} {
			if got, err := content(s, item, vault.QueueFile); err == nil && got != want {
				t.Fatalf("%s: %s is handed out as %q", what, item, got)
			}
		}
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1 << (i % 8)
		bad("flipped", flipped)
		bad("cut", good[:i])
	}
	bad("longer", append(bytes.Clone(good), '\n'))
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if checked, err := s.Verify(kept, nil); err != nil || checked[0].State != vault.Good {
		t.Errorf("the good one: %+v, %v", checked, err)
	}
}

func TestPlantedSwappedAndMissingPacksAreNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	s := open(t, dir)
	kept := []record.KeptBody{
		write(t, s, "one", message("4F2A01B2C4", "first", "")),
		write(t, s, "two", message("4F2A01B2C5", "other", "")),
		write(t, s, "six", message("4F2A01B2C6", "gone", "")),
	}
	planted := open(t, filepath.Join(t.TempDir(), "vault"))
	write(t, planted, "one", message("4F2A01B2C4", "forged", ""))
	states := func() map[string]vault.State {
		t.Helper()
		checked, err := s.Verify(kept, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := make(map[string]vault.State)
		for _, c := range checked {
			m[c.Pack] = c.State
		}
		return m
	}
	in := func(name string) string { return filepath.Join(dir, name+".pack") }
	swap := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	swap(in("one"), in("unknown"))
	if err := os.Remove(in("six")); err != nil {
		t.Fatal(err)
	}
	if got := states(); got["one"] != vault.Good || got["unknown"] != vault.Planted || got["six"] != vault.Missing {
		t.Errorf("%v", got)
	}
	swap(in("two"), in("one")) // a whole pack of another name
	if got := states(); got["one"] != vault.Damaged {
		t.Errorf("swapped: %v", got)
	}
	if _, err := content(s, "one.1", vault.QueueFile); err == nil {
		t.Error("the item of a swapped pack is handed out")
	}
	// Whole, of the right name, and another one: only the audit log can tell.
	if err := os.WriteFile(in("one"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := states(); got["one"] != vault.Damaged {
		t.Errorf("empty: %v", got)
	}
	names, err := planted.Packs()
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
}

func TestForgedPackOfTheRightNameIsDamaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	kept := write(t, open(t, dir), "one", message("4F2A01B2C4", "first", ""))
	if err := os.Remove(filepath.Join(dir, "one.pack")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	write(t, s, "one", message("4F2A01B2C4", "forged", ""))
	checked, err := s.Verify([]record.KeptBody{kept}, nil)
	if err != nil || checked[0].State != vault.Damaged {
		t.Errorf("%+v, %v", checked, err)
	}
}

func TestLinksAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	s := open(t, dir)
	write(t, s, "one", message("4F2A01B2C4", "first", ""))
	if err := os.Symlink("one.pack", filepath.Join(dir, "soft.pack")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "one.pack"), filepath.Join(dir, "hard.pack")); err != nil {
		t.Fatal(err)
	}
	for _, item := range []string{"soft.1", "hard.1", "one.1"} {
		if _, err := content(s, item, vault.QueueFile); err == nil {
			t.Errorf("%s is handed out", item)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(dir, nil); err == nil {
		t.Error("a vault that others can look into is taken")
	}
}

func TestEncryptedItemsOpenWithTheirKeyAlone(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "vault")
	s := open(t, dir, key.Recipient().String())
	secret := strings.Repeat("a secret line\n", 10)
	kept := write(t, s, "one", message("4F2A01B2C4", secret, secret))
	text, err := os.ReadFile(filepath.Join(dir, "one.pack"))
	if err != nil || bytes.Contains(text, []byte("secret")) {
		t.Errorf("the pack can be read: %v", err)
	}
	if got, err := content(s, "one.1", vault.DeferLog, key); err != nil || got != secret {
		t.Errorf("with its key: %q, %v", got, err)
	}
	for _, keys := range [][]age.Identity{nil, {other}} {
		if got, err := content(s, "one.1", vault.QueueFile, keys...); !errors.Is(err, vault.ErrSealed) || got != "" {
			t.Errorf("without its key: %q, %v", got, err)
		}
	}
	if checked, err := s.Verify([]record.KeptBody{kept}, nil); err != nil || checked[0].State != vault.Good {
		t.Errorf("verified without the key: %+v, %v", checked, err)
	}
	if _, err := vault.Open(dir, []string{"age1nonsense"}); err == nil {
		t.Error("nonsense is taken for a key")
	}
}

// TestFullDiskLeavesNothingBehind fills a file system of its own.
func TestFullDiskLeavesNothingBehind(t *testing.T) {
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small file system, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(at, "vault")
	s := open(t, dir)
	small := write(t, s, "small", message("4F2A01B2C4", "fits", ""))
	if _, _, err := s.Write("large", []vault.Source{message("4F2A01B2C5", strings.Repeat("x", 1<<20), "")}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a pack larger than the disk: %v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("it left %v behind, %v", names, err)
	}
	if checked, err := s.Verify([]record.KeptBody{small}, nil); err != nil || checked[0].State != vault.Good {
		t.Errorf("%+v, %v", checked, err)
	}
}

func FuzzPack(f *testing.F) {
	seed := filepath.Join(f.TempDir(), "vault")
	write(f, open(f, seed), "one", message("4F2A01B2C4", "queue", "log"))
	text, err := os.ReadFile(filepath.Join(seed, "one.pack"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	dir := filepath.Join(f.TempDir(), "fuzzed")
	s := open(f, dir)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, "one.pack"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := content(s, "one.1", vault.QueueFile); err == nil && !bytes.Contains(text, []byte(got)) {
			t.Errorf("%q is handed out, and the pack does not hold it", got)
		}
	})
}
