package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"holdfast/lab/strike"
	"holdfast/record"
	"holdfast/record/audit"
)

// errnosOf are what a full, broken or read-only disk, and a process without
// descriptors, answer to a call of a kind.
func errnosOf(kind string) []syscall.Errno {
	switch kind {
	case "write", "pwrite", "fallocate", "mkdir":
		return []syscall.Errno{syscall.ENOSPC, syscall.EIO}
	case "fsync", "fdatasync":
		return []syscall.Errno{syscall.EIO, syscall.ENOSPC}
	case "rename", "link", "unlink", "chmod":
		return []syscall.Errno{syscall.EROFS, syscall.EIO}
	case "open":
		return []syscall.Errno{syscall.EMFILE, syscall.EROFS}
	}
	return nil
}

// TestEveryFailingCall lets one call fail at a time, and, as a full disk does,
// every later one of its kind too. Whatever is said to be done must be seen to
// be done, and nothing may be done without an intent on disk.
func TestEveryFailingCall(t *testing.T) {
	for _, v := range verbs() {
		if !slices.Contains([]string{"hold", "release", "delete", "restore", "requeue"}, v.name) {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			failing(t, v)
		})
	}
}

func failing(t *testing.T, v verb) {
	r := up(t)
	r.whole(v)
	list := failures(v.name, r.whole(v))
	pool := r.stage(v, len(list)*v.each)
	reached, spoilt := 0, 0
	for _, p := range list {
		var ids []string
		ids, pool = pool[:v.each], pool[v.each:]
		begun := make(map[string][]string)
		for _, id := range ids {
			begun[id] = r.where(id)
		}
		got, res := r.struck(p, ids, v.args...)
		if got.Struck {
			reached++
		}
		what := v.name + ", " + p.String()
		ledger := r.ledger()
		switch {
		case got.Code == 0:
			r.effect(what, v, ids, ledger)
		case got.Code > 128 && !got.Struck:
			t.Errorf("%s: exit %d\n%s%s", what, got.Code, res.Stdout, res.Stderr)
		default:
			spoilt++
		}
		intended := r.intended()
		for _, id := range ids {
			if now := r.where(id); !slices.Equal(now, begun[id]) && !intended[id] {
				t.Errorf("%s: %s went from %v to %v, and no intent names it", what, id, begun[id], now)
			}
		}
		r.settled(what, v, ids)
	}
	t.Logf("%s: %d of %d failures happened, %d runs were spoilt", v.name, reached, len(list), spoilt)
	if reached < len(list)*8/10 || spoilt == 0 {
		t.Errorf("%d of %d failures happened, %d runs were spoilt", reached, len(list), spoilt)
	}
	r.allArrive()
}

// failures are the calls that are let fail: each one, or some of each kind.
func failures(name string, whole strike.Report) []strike.Point {
	var list []strike.Point
	for _, part := range []string{"holdfast", "holdfast __hand", "postsuper"} {
		for _, kind := range strike.Kinds() {
			n := whole.Calls[part][kind]
			if kind == "open" && part != "holdfast __hand" || kind == "write" && part == "holdfast" {
				continue // what only looks opens much and changes nothing; its output is the terminal's
			}
			for e, errno := range errnosOf(kind) {
				for i := 1; i <= n; i++ {
					// Each write of the hand that goes to the record is one that an act
					// could be standing before.
					onRecord := part == "holdfast __hand" && kind == "write" && e == 0 && name == "hold"
					if !all() && !onRecord && (i != 1 && i != n || e != i%2) {
						continue
					}
					list = append(list, strike.Point{Part: part, Kind: kind, N: i, Errno: errno, Onwards: !onRecord && i%2 == 0})
				}
			}
		}
	}
	return list
}

// effect checks that what is said to be done is done.
func (r *relay) effect(what string, v verb, ids []string, ledger *record.Ledger) {
	r.Helper()
	for _, id := range ids {
		at := fmt.Sprint(r.where(id))
		good := false
		switch v.name {
		case "hold":
			good = at == "[hold]"
		case "release":
			good = at != "[hold]"
		case "delete":
			good = at == "[]" && kept(ledger, id)
		case "requeue":
			good = at == "[]" || at == "[maildrop]"
		case "restore":
			for _, c := range ledger.Items {
				good = good || string(c.ID) == id && c.Restored != "" && fmt.Sprint(r.where(string(c.Restored))) == "[hold]"
			}
		}
		if !good {
			r.Errorf("%s: it said done, and %s is in %s", what, id, at)
		}
	}
}

// intended are the messages that an intent on disk names.
func (r *relay) intended() map[string]bool {
	r.Helper()
	f, err := os.Open(r.HostPath(filepath.Join(stateDir, "audit", audit.LogName)))
	r.check(err)
	out := make(map[string]bool)
	for e, err := range audit.Read(f) {
		if errors.Is(err, audit.ErrCut) {
			break // the last line is torn
		}
		r.check(err)
		if e.Kind == record.Intended {
			for _, file := range e.Files {
				out[string(file.ID)] = true
			}
		}
	}
	r.check(f.Close())
	return out
}
