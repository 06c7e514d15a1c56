package vault_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/record"
	"holdfast/record/vault"
)

func TestPurgeTakesBytesAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	s := open(t, dir)
	secret := strings.Repeat("a secret line\n", 1<<16)
	kept := write(t, s, "p1", message("4F2A01B2C4", secret, "the reason, secret"), message("4F2A01B2C5", "the other one", "its log"))
	path := filepath.Join(dir, "p1.pack")
	blocks := func() int64 {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Blocks
	}
	before := blocks()
	for range 2 { // the second time finds it done
		if err := s.Purge([]string{"p1.1"}); err != nil {
			t.Fatal(err)
		}
	}
	if after := blocks(); after > before/2 {
		t.Errorf("%d blocks before, %d after", before, after)
	}
	if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "secret") {
		t.Errorf("the bytes are still there, %v", err)
	}
	if got, err := content(s, "p1.2", vault.QueueFile); err != nil || got != "the other one" {
		t.Errorf("the other one: %q, %v", got, err)
	}
	if _, err := content(s, "p1.1", vault.QueueFile); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("the purged one comes back: %v", err)
	}
	states := func(purged ...string) (item1, item2, pack vault.State) {
		t.Helper()
		of := make(map[string]bool)
		for _, p := range purged {
			of[p] = true
		}
		item1, err1 := s.Item("p1.1", kept.Items[0].Sum)
		item2, err2 := s.Item("p1.2", kept.Items[1].Sum)
		checked, err3 := s.Verify([]record.KeptBody{kept}, of)
		if err := errors.Join(err1, err2, err3); err != nil || len(checked) != 1 {
			t.Fatal(checked, err)
		}
		return item1, item2, checked[0].State
	}
	if a, b, p := states("p1.1"); a != vault.Purged || b != vault.Good || p != vault.Good {
		t.Errorf("%s %s %s", a, b, p)
	}
	if _, _, p := states(); p != vault.Damaged {
		t.Errorf("purged, and the log does not say so: %s", p)
	}
	if _, _, p := states("p1.1", "p1.2"); p != vault.Damaged {
		t.Errorf("the log says purged, and it is there: %s", p)
	}
	if err := s.Purge([]string{"p1.2", "gone.1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty pack is left: %v", err)
	}
	if a, b, p := states("p1.1", "p1.2"); a != vault.Missing || b != vault.Missing || p != vault.Purged {
		t.Errorf("%s %s %s", a, b, p)
	}
	if _, _, p := states("p1.1"); p != vault.Missing {
		t.Errorf("a pack that was stolen: %s", p)
	}
}

// TestItemKnowsAnotherOne: a pack that was exchanged for one that is whole in
// itself is no proof.
func TestItemKnowsAnotherOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	s := open(t, dir)
	kept := write(t, s, "p1", message("4F2A01B2C4", "the message", ""))
	if err := os.Remove(filepath.Join(dir, "p1.pack")); err != nil {
		t.Fatal(err)
	}
	write(t, s, "p1", message("4F2A01B2C4", "a forgery", ""))
	if state, err := s.Item("p1.1", kept.Items[0].Sum); err != nil || state != vault.Damaged {
		t.Errorf("%s, %v", state, err)
	}
}
