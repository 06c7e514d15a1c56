package spool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/lab/forge"
	"holdfast/postfix"
)

func TestFindMeetsEveryPlace(t *testing.T) {
	for _, long := range []bool{false, true} {
		s, in := testSpool(t, long, 2)
		var ids []postfix.QueueID
		want := make(map[postfix.QueueID]postfix.Queue)
		for _, q := range postfix.Queues() {
			id, err := s.Write(&forge.Message{Queue: q, Sender: "a@sender.example", Arrival: time.Now(), Size: 700, Recipients: []forge.Recipient{
				{Address: "one@dest.example", Done: true}, {Address: "two@dest.example"},
			}})
			if err != nil {
				t.Fatal(err)
			}
			ids, want[id] = append(ids, id), q
		}
		// Where Postfix would not find it: the depth of the hash was changed.
		moved := ids[0]
		if err := os.Rename(s.Path("deferred", moved), filepath.Join(s.Dir, "deferred", string(moved))); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(in, Options{})
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Find(context.Background(), append(slices.Clone(ids), "0123456789A"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != len(ids) {
			t.Errorf("found %d of %d", len(found), len(ids))
		}
		snap := lookAt(t, r)
		for _, id := range ids {
			if len(found[id]) != 1 {
				t.Errorf("%s was found %d times", id, len(found[id]))
				continue
			}
			f := found[id][0]
			if f.Queue != want[id] || f.Open != 1 || f.Done != 1 || f.Damage != "" {
				t.Errorf("%s: %+v", id, f)
			}
			if m := snap.Find(id)[0]; !m.Fingerprint(in.Name).Same(f.Fingerprint) || !m.Changed.Equal(f.Changed) {
				t.Errorf("%s: a look has %+v, Find %+v", id, m.Fingerprint(in.Name), f.Fingerprint)
			}
		}
	}
}

// TestFindAtIsNotMisled: where a message probably is says where to look first,
// and settles nothing where another file lies there.
func TestFindAtIsNotMisled(t *testing.T) {
	s, in := testSpool(t, true, 1)
	write := func(q postfix.Queue) (postfix.QueueID, uint64) {
		id, err := s.Write(&forge.Message{Queue: q, Sender: "a@sender.example", Arrival: time.Now(), Recipients: []forge.Recipient{{Address: "one@dest.example"}}})
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(s.Path(q.String(), id), &st); err != nil {
			t.Fatal(err)
		}
		return id, st.Ino
	}
	id, inode := write(postfix.Deferred)
	other, otherInode := write(postfix.Hold)
	if err := os.Rename(s.Path("hold", other), s.Path("hold", id)); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sought Sought
		want   []uint64
	}{
		"as thought":            {Sought{id, postfix.Deferred, inode}, []uint64{inode}},
		"another one is there":  {Sought{id, postfix.Hold, inode}, []uint64{inode, otherInode}},
		"nothing is there":      {Sought{id, postfix.Incoming, inode}, []uint64{inode, otherInode}},
		"nothing is known":      {Sought{ID: id}, []uint64{inode, otherInode}},
		"it is the other one":   {Sought{id, postfix.Hold, otherInode}, []uint64{otherInode}},
		"an inode that is gone": {Sought{id, postfix.Deferred, inode + otherInode}, []uint64{inode, otherInode}},
	} {
		found, err := r.FindAt(context.Background(), []Sought{c.sought})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, f := range found[id] {
			got = append(got, f.Inode)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, not %v", name, got, c.want)
		}
	}
}

func TestSumIsOfTheWholeFile(t *testing.T) {
	s, in := testSpool(t, false, 1)
	id, err := s.Write(&forge.Message{Sender: "a@sender.example", Arrival: time.Now(), Size: 200_000, Recipients: []forge.Recipient{{Address: "one@dest.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Sum(context.Background(), id, postfix.Deferred)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(s.Path("deferred", id))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(data); got.File != hex.EncodeToString(sum[:]) {
		t.Errorf("sum %s", got.File)
	}
	d, err := r.Inspect(context.Background(), id, Want{Digest: true})
	if err != nil || d.Digest == "" || d.Digest != got.Digest {
		t.Errorf("digest %q, Inspect has %q: %v", got.Digest, d.Digest, err)
	}
	if _, err := r.Sum(context.Background(), id, postfix.Hold); !errors.Is(err, ErrNoMessage) {
		t.Errorf("of a queue that does not have it: %v", err)
	}
}

func TestLockedSeesAnAgent(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "message"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, true} {
		if want {
			if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
				t.Fatal(err)
			}
		}
		if locked, err := Locked(); err != nil || locked[st.Ino] != want {
			t.Errorf("locked: %v, %v; want %v", locked[st.Ino], err, want)
		}
	}
	list := parseFlocks("1: FLOCK  ADVISORY  READ 812 fe:00:4711 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 813 fe:00:4711 0 EOF\n2: POSIX  ADVISORY  READ 5 fe:00:9 0 EOF\nodd\n")
	if !slices.Equal(list, []flock{{812, 4711}, {813, 4711}}) {
		t.Errorf("parsed %v", list)
	}
}
