package present

import (
	"testing"
	"time"
)

func TestMeasures(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		got  Words
		want string
	}{
		{Count(0), "0"},
		{Count(999), "999"},
		{Count(1000), "1,000"},
		{Count(1234567), "1,234,567"},
		{Count(-1234), "-1,234"},
		{Count(-123), "-123"},
		{Size(0), "0"},
		{Size(1023), "1023"},
		{Size(1024), "1.0k"},
		{Size(10188), "9.9k"},
		{Size(10189), "10k"},
		{Size(1023487), "999k"},
		{Size(1023488), "1.0M"},
		{Size(5 << 30), "5.0G"},
		{Size(1 << 62), "4.0E"},
		{Age(0), "0s"},
		{Age(59999 * time.Millisecond), "59s"},
		{Age(60 * time.Second), "1m"},
		{Age(250 * time.Second), "4m10s"},
		{Age(10*time.Minute + 59*time.Second), "10m"},
		{Age(time.Hour), "1h"},
		{Age(192 * time.Minute), "3h12m"},
		{Age(day), "1d"},
		{Age(2*day + 4*time.Hour + 59*time.Minute), "2d4h"},
		{Age(31 * day), "31d"},
		{Age(-90 * time.Second), "-1m30s"},
		{Plural(1, "message", "messages"), "1 message"},
		{Plural(0, "message", "messages"), "0 messages"},
		{Plural(2000, "message", "messages"), "2,000 messages"},
	} {
		if c.got.String() != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestTimes(t *testing.T) {
	zone := time.FixedZone("X", 2*60*60)
	at := time.Date(2026, 3, 14, 0, 30, 0, 0, zone)
	for _, c := range []struct {
		got  Words
		want string
	}{
		{When(at.Add(7*time.Minute), at), "00:37:00 (in 7m)"},
		{When(at.Add(-time.Minute), at), "00:29:00 (1m ago)"},
		{When(at.Add(-time.Hour), at), "2026-03-13 23:30:00 (1h ago)"},
		{When(at.UTC(), at), "00:30:00 (now)"},
		{When(time.Time{}, at), "not known"},
		{Since(time.Time{}, at), "?"},
		{Since(at.Add(-5*time.Second), at), "5s"},
		{Clock(at.Add(-30*time.Minute).UTC(), at), "00:00:00"},
	} {
		if c.got.String() != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 ms", 40 * time.Microsecond: "0.0 ms", 360 * time.Microsecond: "0.4 ms", 9949 * time.Microsecond: "9.9 ms", 9960 * time.Microsecond: "10 ms",
		999 * time.Millisecond: "999 ms", 999600 * time.Microsecond: "1.0 s", 4100 * time.Millisecond: "4.1 s",
	} {
		if got := Took(d).String(); got != want {
			t.Errorf("%s is %q, not %q", d, got, want)
		}
	}
}
