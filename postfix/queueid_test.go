package postfix

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyTime is what a queue file can have been made at: from 1970 until six
// base-52 digits run out.
var anyTime = rapid.Custom(func(t *rapid.T) time.Time {
	sec := rapid.OneOf(rapid.Int64Range(0, 52*52*52*52*52*52-1), rapid.Int64Range(1_700_000_000, 1_900_000_000)).Draw(t, "seconds")
	return time.Unix(sec, rapid.Int64Range(0, 999_999).Draw(t, "microseconds")*1000).UTC()
})

// inodes start where five hexadecimal digits of microseconds leave a name of
// more than five characters: every inode.
var anyInode = rapid.OneOf(rapid.Uint64Range(1, 1<<62), rapid.Uint64Range(1, 1<<24))

// worked are encodings that Postfix itself made.
var worked = []struct {
	sec, usec int64
	inode     uint64
	long      QueueID
	short     QueueID
}{
	{1767225600, 654321, 1311042, "4dhRlh4dz5z9s2h", "9FBF1140142"},
	{1300631508, 353025, 5536956, "3Pt2mN2VXxznjll", "56301547CBC"}, // the long one is in postconf(5)
}

func TestWorkedQueueIDs(t *testing.T) {
	for _, w := range worked {
		at := time.Unix(w.sec, w.usec*1000).UTC()
		if got := NewLongID(at, w.inode); got != w.long {
			t.Errorf("long ID is %s, want %s", got, w.long)
		}
		if got := NewShortID(at, w.inode); got != w.short {
			t.Errorf("short ID is %s, want %s", got, w.short)
		}
		if w.long.Form() != LongID || w.short.Form() != ShortID {
			t.Errorf("forms are %d and %d", w.long.Form(), w.short.Form())
		}
	}
	for usec, want := range map[int64]string{0: "0000", 255: "004v", 4096: "01Vm", 65535: "0SDH", 999999: "75pl"} {
		id := NewLongID(time.Unix(1767225600, usec*1000), 1)
		if got := string(id[6:10]); got != want {
			t.Errorf("%d microseconds are %q, want %q", usec, got, want)
		}
		if back, err := id.Microseconds(); err != nil || int64(back) != usec {
			t.Errorf("%s carries %d microseconds, %v; want %d", id, back, err, usec)
		}
	}
}

func TestQueueIDRoundTrip(t *testing.T) {
	shortForm := regexp.MustCompile(`^[0-9A-F]{6,}$`)
	longForm := regexp.MustCompile(`^[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,}z[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]+$`)
	rapid.Check(t, func(t *rapid.T) {
		at, inode := anyTime.Draw(t, "time"), anyInode.Draw(t, "inode")
		long, short := NewLongID(at, inode), NewShortID(at, inode)
		if long.Form() != LongID || !longForm.MatchString(string(long)) {
			t.Fatalf("%s is no long ID", long)
		}
		if short.Form() != ShortID || !shortForm.MatchString(string(short)) {
			t.Fatalf("%s is no short ID", short)
		}
		if got, err := long.Time(); err != nil || !got.Equal(at) {
			t.Fatalf("%s carries the time %v, %v; want %v", long, got, err, at)
		}
		if got, err := short.Time(); err == nil {
			t.Fatalf("a short ID carries no time, but %s gives %v", short, got)
		}
		for _, id := range []QueueID{long, short} {
			if got, err := id.Inode(); err != nil || got != inode {
				t.Fatalf("%s carries the inode %d, %v; want %d", id, got, err, inode)
			}
			if got, err := id.Microseconds(); err != nil || got != at.Nanosecond()/1000 {
				t.Fatalf("%s carries %d microseconds, %v", id, got, err)
			}
			if parsed, err := ParseQueueID(string(id)); err != nil || parsed != id {
				t.Fatalf("%s is not accepted: %v", id, err)
			}
		}
		if long.HashPath(2) != short.HashPath(2) {
			t.Fatalf("hashed to %s and %s, by the same microseconds", long.HashPath(2), short.HashPath(2))
		}
	})
}

// Long IDs sort by the time of their files.
func TestLongIDsSortByTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyTime.Draw(t, "a"), anyTime.Draw(t, "b")
		inode := anyInode.Draw(t, "inode")
		if a.Before(b) != (NewLongID(a, inode) < NewLongID(b, inode)) {
			t.Fatalf("%s and %s do not sort as %v and %v", NewLongID(a, inode), NewLongID(b, inode), a, b)
		}
	})
}

func TestHashPath(t *testing.T) {
	for _, test := range []struct {
		id    QueueID
		depth int
		want  string
	}{
		{"9FBF1140142", 0, ""},
		{"9FBF1140142", -1, ""},
		{"9FBF1140142", 1, "9/"},
		{"9FBF1140142", 2, "9/F/"},
		{"9FBF1140142", 3, "9/F/B/"},
		{"4dhRlh4dz5z9s2h", 1, "9/"},
		{"4dhRlh4dz5z9s2h", 3, "9/F/B/"},
		{"AB", 3, "A/B/_/"},
		{"_x", 1, "_/"},
		// A "z" makes it long, but the digits before it are no microseconds.
		{"AAAAAAAAAAAAzB", 2, "0/0/"},
	} {
		if got := test.id.HashPath(test.depth); got != test.want {
			t.Errorf("%s at depth %d lies in %q, want %q", test.id, test.depth, got, test.want)
		}
	}
}

func TestParseQueueID(t *testing.T) {
	for _, good := range []string{"A", "9FBF1140142", "4dhRlh4dz5z9s2h", "_", "ALL", strings.Repeat("a", 255)} {
		if id, err := ParseQueueID(good); err != nil || string(id) != good {
			t.Errorf("ParseQueueID(%q) = %q, %v", good, id, err)
		}
	}
	for _, bad := range []string{
		"", "-", "-d", "../x", "a/b", "a;rm", "A\n", "A\x00", "A B", "ABC*", "ABC!", "ABC123\nALL", "Ä", strings.Repeat("a", 256), "a.b", "A#FIX",
	} {
		if id, err := ParseQueueID(bad); err == nil {
			t.Errorf("ParseQueueID(%q) = %q", bad, id)
		} else if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) || len(err.Error()) > 200 {
			t.Errorf("error is not fit for a terminal: %q", err)
		}
		if QueueID(bad).Form() != InvalidID {
			t.Errorf("%q has a form", bad)
		}
	}
}

// Whatever is accepted as a name is decoded without harm, and what decodes
// encodes to itself.
func TestDecodeAnyName(t *testing.T) {
	name := rapid.StringOfN(rapid.SampledFrom([]rune(idAlphabet+"AEIOUaeiou_z")), 1, 40, -1)
	rapid.Check(t, func(t *rapid.T) {
		id := QueueID(name.Draw(t, "name"))
		inode, errInode := id.Inode()
		usec, errMicro := id.Microseconds()
		at, errTime := id.Time()
		if errMicro == nil && (usec < 0 || usec > 999999) {
			t.Fatalf("%s carries %d microseconds", id, usec)
		}
		path := id.HashPath(3)
		if len(path) != 6 || path[1] != '/' || path[3] != '/' || path[5] != '/' || strings.Contains(path, "..") {
			t.Fatalf("%s is hashed to %q", id, path)
		}
		if errInode != nil || errMicro != nil || errTime != nil || at.Unix() >= 52*52*52*52*52*52 {
			return
		}
		back := NewLongID(at, inode)
		if trimmed := id.trimZeros(); back != trimmed {
			t.Fatalf("%s is decoded to %v, %d and encoded to %s", id, at, inode, back)
		}
	})
}

// trimZeros takes leading zeros from the parts of a long ID, down to the width
// that Postfix writes.
func (id QueueID) trimZeros() QueueID {
	sep := strings.LastIndexByte(string(id), 'z')
	sec, usec, inode := string(id[:sep-4]), string(id[sep-4:sep]), string(id[sep+1:])
	for len(sec) > 6 && sec[0] == '0' {
		sec = sec[1:]
	}
	for len(inode) > 1 && inode[0] == '0' {
		inode = inode[1:]
	}
	return QueueID(sec + usec + "z" + inode)
}

func TestNamesThatCarryNothing(t *testing.T) {
	for _, id := range []QueueID{"", "9FBF1", "9FBF1 140142", "XYZXYZXYZ", "9fbf1abcdef"} {
		usec, err := id.Microseconds()
		if err == nil {
			t.Errorf("%q carries %d microseconds", id, usec)
		}
		if inode, err := id.Inode(); err == nil {
			t.Errorf("%q carries the inode %d", id, inode)
		}
	}
	if usec, err := QueueID("FFFFF1").Microseconds(); err == nil {
		t.Errorf("more microseconds than a second has: %d", usec)
	}
}
