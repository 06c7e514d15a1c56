package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"holdfast/record"
)

// unixStat is what os.FileInfo.Sys returns.
type unixStat = syscall.Stat_t

// State is what a check says of a pack or of an item in it.
type State string

// The states.
const (
	Good    State = "good"
	Damaged State = "damaged"
	Missing State = "missing" // recorded, and not there
	Planted State = "planted" // there, and not recorded
)

// Checked is one pack as a check found it.
type Checked struct {
	Pack  string
	State State
	// Why says what is wrong.
	Why   string
	Items []record.Item
}

// Verify compares every pack with what the audit log says was kept, and which
// items were purged since. Without the log a planted pack looks like any other.
func (s *Store) Verify(kept []record.KeptBody, purged map[string]bool) ([]Checked, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("verify the vault: %w", err)
	}
	var out []Checked
	there := make(map[string]bool)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok {
			continue // of an interrupted write, which Sweep removes
		}
		there[name] = true
		i := slices.IndexFunc(kept, func(k record.KeptBody) bool { return k.Pack == name })
		if i < 0 {
			out = append(out, Checked{Pack: name, State: Planted, Why: "the audit log does not know it"})
			continue
		}
		if slices.ContainsFunc(kept[i].Items, func(it record.Item) bool { return purged[it.Name] }) {
			out = append(out, s.checkEach(kept[i], purged))
			continue
		}
		out = append(out, s.check(kept[i]))
	}
	for _, k := range kept {
		if k.Pack == "" || there[k.Pack] {
			continue
		}
		c := Checked{Pack: k.Pack, State: Missing, Why: "the audit log has it", Items: k.Items}
		if !slices.ContainsFunc(k.Items, func(it record.Item) bool { return !purged[it.Name] }) {
			c.State, c.Why = Purged, ""
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Checked) int { return strings.Compare(a.Pack, b.Pack) })
	return out, nil
}

// check reads a whole pack.
func (s *Store) check(k record.KeptBody) Checked {
	c := Checked{Pack: k.Pack, State: Damaged, Items: k.Items}
	p, err := s.open(k.Pack, os.O_RDONLY)
	if err != nil {
		c.Why = err.Error()
		return c
	}
	sum := sha256.New()
	_, err = io.Copy(sum, io.NewSectionReader(p.file, 0, p.size))
	err = errors.Join(err, p.file.Close())
	switch {
	case err != nil:
		c.Why = err.Error()
	case hex.EncodeToString(sum.Sum(nil)) != k.Sum:
		c.Why = "its bytes are not those that the audit log has the digest of"
	case !slices.Equal(recordItems(p.items), k.Items):
		c.Why = "its items are not those that the audit log has"
	default:
		c.State = Good
	}
	return c
}

// Packs lists the names of all packs.
func (s *Store) Packs() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("list the vault: %w", err)
	}
	names := make([]string, 0, len(paths))
	for _, path := range paths {
		names = append(names, strings.TrimSuffix(filepath.Base(path), suffix))
	}
	return names, nil
}
