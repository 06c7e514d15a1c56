package plan

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2h": 2 * time.Hour, "90m": 90 * time.Minute, "3d": 72 * time.Hour, "1w": 168 * time.Hour,
		"1d12h": 36 * time.Hour, "1w1d1h1m1s": 192*time.Hour + time.Hour + time.Minute + time.Second,
		"0s": 0, "0001h": time.Hour, "12h1d": 36 * time.Hour, "36500d": 36500 * 24 * time.Hour,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for text, complaint := range map[string]string{
		"": "no duration", "90": "no unit", "h": "whole number", "3x": "unknown unit \"x\"", "3 d": "no unit",
		"-1h": "whole number", "1.5h": "no unit", "1H": "unknown unit", "3days": "unknown unit \"days\"",
		"36501d": "100 years", "99999999999999999999s": "100 years", "100000w100000w": "100 years",
		"1h\x1b[2J": "whole number was expected at \"\\x1b[2J\"", "1µs": "no unit", "١h": "whole number",
	} {
		if d, err := ParseDuration(text); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("ParseDuration(%q) = %v, %v; want an error with %q", text, d, err, complaint)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "20480": 20480, "20480B": 20480, "500k": 512000, "500K": 512000, "10M": 10 << 20, "10m": 10 << 20,
		"1MiB": 1 << 20, "1mib": 1 << 20, "1KiB": 1024, "1MB": 1_000_000, "2kB": 2000, "1.5k": 1536, "0.5M": 1 << 19,
		"1G": 1 << 30, "1T": 1 << 40, "9223372036854775807": 1<<63 - 1, "8388607T": 8388607 << 40,
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for text, complaint := range map[string]string{
		"": "starts with a number", "M": "starts with a number", "-1": "starts with a number", "10X": "unknown unit", "10 M": "unknown unit",
		"1.2.3M": "not a number", ".": "not a number", "9223372036854775808": "more bytes", "8388608T": "more bytes", "1e3": "unknown unit",
		"99999999999999999999.5T": "more bytes", "10MBit": "unknown unit", "10kk": "unknown unit",
	} {
		if n, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("ParseSize(%q) = %d, %v; want an error with %q", text, n, err, complaint)
		}
	}
}

func TestCanonicalUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "", 90 * time.Minute: "1h30m", 36 * time.Hour: "1d12h", 14 * 24 * time.Hour: "2w", 10 * 24 * time.Hour: "10d", time.Second + 5: "1s",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("Duration(%v) is written %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "", 1: "1", 1000: "1000", 1024: "1k", 1536: "1536", 10 << 20: "10M", 1 << 50: "1024T"} {
		if got := Size(n).String(); got != want {
			t.Errorf("Size(%d) is written %q, want %q", n, got, want)
		}
	}
}

func TestUnitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(time.Duration(rapid.Int64Range(1, int64(maxDuration/time.Second)).Draw(t, "seconds")) * time.Second)
		var backD Duration
		if err := backD.UnmarshalText([]byte(d.String())); err != nil || backD != d {
			t.Fatalf("%d is written %q and read as %d, %v", d, d, backD, err)
		}
		s := Size(rapid.Int64Range(1, 1<<63-1).Draw(t, "bytes"))
		var backS Size
		if err := backS.UnmarshalText([]byte(s.String())); err != nil || backS != s {
			t.Fatalf("%d is written %q and read as %d, %v", int64(s), s, int64(backS), err)
		}
	})
}

// A limit of zero would read as "not given", which is wider than what was said.
func TestZeroIsNoLimit(t *testing.T) {
	var s Selector
	for _, flag := range []string{"older-than", "newer-than"} {
		if err := s.Set(flag, "0h"); err == nil {
			t.Errorf("--%s 0h is taken", flag)
		}
	}
	if err := s.Set("larger-than", "0"); err == nil {
		t.Error("--larger-than 0 is taken")
	}
	if !s.IsZero() {
		t.Errorf("refused values were kept: %+v", s)
	}
}
