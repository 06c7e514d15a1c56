package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestEraseLeavesTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	whole := bytes.Repeat([]byte("0123456789"), 30_000)
	for name, erase := range map[string]func([]Range) error{
		"holes": func(r []Range) error { return Erase(path, r) },
		"zeros": func(r []Range) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			for _, one := range r {
				if err := overwrite(f, one); err != nil {
					return err
				}
			}
			return f.Close()
		},
	} {
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := erase([]Range{{7, 0}, {10, 150_000}, {200_000, 3}}); err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(whole)
		clear(want[10:150_010])
		clear(want[200_000:200_003])
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := Erase(link, []Range{{0, 1}}); err == nil {
		t.Error("a link was followed")
	}
}
