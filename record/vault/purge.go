package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"holdfast/durable"
	"holdfast/record"
)

// Purged is the state of an item whose bytes are gone for good.
const Purged State = "purged"

// Purge takes the bytes of items out of their packs for good, and returns when
// that is on disk. The other items of a pack stay as they are; a pack of which
// nothing is left is removed. What was purged before is no error.
//
// Bugs: a file system that copies on write, a snapshot or a backup may still
// have the bytes.
func (s *Store) Purge(items []string) error {
	for _, name := range packsOf(items) {
		if err := s.purge(name, items); err != nil && !errors.Is(err, ErrNoItem) {
			return fmt.Errorf("purge the vault: %w", err)
		}
	}
	return nil
}

func packsOf(items []string) []string {
	var names []string
	for _, item := range items {
		name, _, _ := strings.Cut(item, ".")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *Store) purge(name string, items []string) (err error) {
	p, err := s.open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.file.Close()) }()
	var gone []durable.Range
	left := 0
	for i := range p.items {
		it := &p.items[i]
		if slices.Contains(items, it.Name) {
			for _, m := range it.Members {
				gone = append(gone, durable.Range{Offset: m.Offset, Length: m.Length})
			}
			continue
		}
		blank, err := p.blank(it)
		if err != nil {
			return err
		}
		if !blank {
			left++
		}
	}
	// Erased first in any case: a name that is removed leaves the bytes on disk.
	if err := durable.Erase(s.path(name), gone); err != nil || left > 0 {
		return err
	}
	return durable.Remove(s.path(name))
}

// blank says whether nothing of an item is left. A queue file is never empty,
// and never all zeros.
func (p *pack) blank(it *indexItem) (bool, error) {
	zeros, buf := make([]byte, 1<<15), make([]byte, 1<<15)
	for _, m := range it.Members {
		r := io.NewSectionReader(p.file, m.Offset, m.Length)
		for {
			n, err := io.ReadFull(r, buf)
			if !bytes.Equal(buf[:n], zeros[:n]) {
				return false, nil
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// Item looks at one item, which was recorded with the digest sum of its queue
// file: Good, Damaged, Purged or Missing. A pack that is gone as a whole is
// missing: only the record can say that it was purged.
func (s *Store) Item(item, sum string) (State, error) {
	p, it, err := s.find(item, os.O_RDONLY)
	switch {
	case errors.Is(err, ErrNoItem):
		return Missing, nil
	case errors.Is(err, ErrDamaged):
		return Damaged, nil
	case err != nil:
		return "", err
	}
	defer func() { _ = p.file.Close() }() // only read
	return p.state(it, sum)
}

func (p *pack) state(it *indexItem, sum string) (State, error) {
	blank, err := p.blank(it)
	if err != nil || blank {
		return Purged, err
	}
	if it.Members[0].Sum != sum {
		return Damaged, nil
	}
	for _, m := range it.Members {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(p.file, m.Offset, m.Length)); err != nil {
			return "", err
		}
		if hex.EncodeToString(h.Sum(nil)) != m.StoredSum {
			return Damaged, nil
		}
	}
	return Good, nil
}

// checkEach checks a pack some of whose items were purged: its digest as a
// whole says nothing any more.
func (s *Store) checkEach(k record.KeptBody, purged map[string]bool) Checked {
	c := Checked{Pack: k.Pack, State: Good, Items: k.Items}
	left := 0
	for _, item := range k.Items {
		state, err := s.Item(item.Name, item.Sum)
		switch {
		case err != nil:
			c.State, c.Why = Damaged, err.Error()
		case purged[item.Name] && (state == Purged || state == Missing):
		case purged[item.Name]:
			c.State, c.Why = Damaged, fmt.Sprintf("item %q was purged and is still there", item.Name)
		case state != Good:
			c.State, c.Why = Damaged, fmt.Sprintf("item %q is %s", item.Name, state)
			left++
		default:
			left++
		}
	}
	if left == 0 && c.State == Good {
		c.State = Purged
	}
	return c
}
