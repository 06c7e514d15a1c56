package maillog

import (
	"testing"
	"time"
)

func TestStamps(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	utc := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		text   string
		zone   *time.Location
		newest string
		want   string // "" for none
	}{
		{"Nov 23 17:37:24 x", time.UTC, "2026-11-23T18:00:00Z", "2026-11-23T17:37:24Z"},
		{"Nov  3 17:37:24 x", time.UTC, "2026-11-23T18:00:00Z", "2026-11-03T17:37:24Z"},
		{"Nov 23 17:37:24 x", berlin, "2026-11-23T18:00:00Z", "2026-11-23T16:37:24Z"},
		{"Jul 23 17:37:24 x", berlin, "2026-11-23T18:00:00Z", "2026-07-23T15:37:24Z"},
		// A file that was rotated in the last night of the year.
		{"Dec 31 23:59:59 x", time.UTC, "2027-01-01T00:00:10Z", "2026-12-31T23:59:59Z"},
		{"Jan  1 00:00:02 x", time.UTC, "2027-01-01T00:00:10Z", "2027-01-01T00:00:02Z"},
		// A clock that was set back after the line was written, at new year.
		{"Jan  1 00:00:02 x", time.UTC, "2026-12-31T23:59:50Z", "2027-01-01T00:00:02Z"},
		// In the file's own year a day ahead is too far.
		{"Nov 25 18:01:01 x", time.UTC, "2026-11-24T18:00:00Z", "2025-11-25T18:01:01Z"},
		{"Feb 29 12:00:00 x", time.UTC, "2027-03-01T00:00:00Z", "2024-02-29T12:00:00Z"},
		{"Feb 30 12:00:00 x", time.UTC, "2027-03-01T00:00:00Z", ""},
		{"Nov 23 17:37:60 x", time.UTC, "2026-11-23T18:00:00Z", "2026-11-23T17:38:00Z"}, // a leap second
		{"Nov 23 17:37:61 x", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"Nov 23 17:60:00 x", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"nov 23 17:37:24 x", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"2026-11-23T17:37:24Z x", berlin, "2026-11-23T18:00:00Z", "2026-11-23T17:37:24Z"},
		{"2026-11-23T17:37:24.5+01:00 x", time.UTC, "2026-11-23T18:00:00Z", "2026-11-23T16:37:24.5Z"},
		{"2026-11-23T17:37:24.123456-0330 x", time.UTC, "2026-11-23T18:00:00Z", "2026-11-23T21:07:24.123456Z"},
		{"2026-11-23T17:37:24.1234567891234+00:00 x", time.UTC, "2026-11-23T18:00:00Z", "2026-11-23T17:37:24.123456789Z"},
		{"2024-02-29T00:00:00Z x", time.UTC, "2026-11-23T18:00:00Z", "2024-02-29T00:00:00Z"},
		{"2026-02-29T00:00:00Z x", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"2026-13-01T00:00:00Z x", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"9026-11-23T17:37:24Z x", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"2026-11-23T17:37:24 relay x", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"2026-11-23T17:37:24.123456", time.UTC, "2026-11-23T18:00:00Z", ""},
		{"2026-11-23T17:37:24+01:00", time.UTC, "2026-11-23T18:00:00Z", ""},
	} {
		var k clock
		k.set(c.zone, utc(c.newest))
		for range 2 { // from the digits, and from what is remembered of the minute
			got, n, ok := k.read([]byte(c.text))
			switch {
			case ok != (c.want != ""):
				t.Errorf("%q: read %v", c.text, ok)
			case ok && !timeOf(got).Equal(utc(c.want)):
				t.Errorf("%q by %s: %s, want %s", c.text, c.newest, timeOf(got), c.want)
			case ok && c.text[n-1] != ' ':
				t.Errorf("%q: ends at %d", c.text, n)
			}
		}
	}
}

// TestYearFollowsTheFile reads the same stamp for files of different years.
func TestYearFollowsTheFile(t *testing.T) {
	var k clock
	for year := 2020; year < 2030; year++ {
		k.set(time.UTC, time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC))
		for stamp, want := range map[string]int{"May  5 10:00:00 ": year, "Aug  5 10:00:00 ": year - 1} {
			at, _, ok := k.read([]byte(stamp + "relay1"))
			if !ok || timeOf(at).Year() != want {
				t.Errorf("%s in a file of %d: %s", stamp, year, timeOf(at))
			}
		}
	}
}
