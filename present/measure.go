package present

import (
	"strconv"
	"time"
)

// Digits returns n in plain decimal digits.
func Digits(n int) string { return strconv.Itoa(n) }

// Count returns n with its thousands apart: 1,234,567.
func Count(n int) Words {
	s := strconv.Itoa(n)
	first := 0
	if n < 0 {
		first = 1
	}
	for i := len(s) - 3; i > first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return Words{s: s}
}

// Size returns a number of bytes in three digits or fewer, in powers of 1024:
// 812, 4.0k, 1.2M, 31G.
func Size(bytes int64) Words {
	if bytes < 1024 {
		return Words{s: strconv.FormatInt(bytes, 10)}
	}
	const units = "kMGTPE"
	v, u := float64(bytes)/1024, 0
	for v >= 999.5 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if v < 9.95 {
		return Words{s: strconv.FormatFloat(v, 'f', 1, 64) + units[u:u+1]}
	}
	return Words{s: strconv.FormatFloat(v, 'f', 0, 64) + units[u:u+1]}
}

// Decimal returns f with so many digits behind the point.
func Decimal(f float64, digits int) Words {
	return Words{s: strconv.FormatFloat(f, 'f', digits, 64)}
}

// Took returns how long something short took: 0.4 ms, 12 ms, 4.1 s.
func Took(d time.Duration) Words {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 999.5:
		return Words{s: Decimal(ms/1000, 1).s + " s"}
	case ms >= 9.95:
		return Words{s: Decimal(ms, 0).s + " ms"}
	}
	return Words{s: Decimal(ms, 1).s + " ms"}
}

// Age returns a span of time in its two leading units: 12s, 4m10s, 3h12m,
// 2d4h, 31d. A negative span, the trace of a clock that was set back, keeps
// its sign.
func Age(d time.Duration) Words {
	if d < 0 {
		return Words{s: "-" + Age(-d).s}
	}
	s := int64(d / time.Second)
	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	pair := func(big int64, bigUnit string, small int64, smallUnit string) Words {
		out := strconv.FormatInt(big, 10) + bigUnit
		if small > 0 {
			out += strconv.FormatInt(small, 10) + smallUnit
		}
		return Words{s: out}
	}
	switch {
	case s < minute:
		return Words{s: strconv.FormatInt(s, 10) + "s"}
	case s < 10*minute:
		return pair(s/minute, "m", s%minute, "s")
	case s < hour:
		return Words{s: strconv.FormatInt(s/minute, 10) + "m"}
	case s < day:
		return pair(s/hour, "h", s%hour/minute, "m")
	case s < 10*day:
		return pair(s/day, "d", s%day/hour, "h")
	}
	return Words{s: strconv.FormatInt(s/day, 10) + "d"}
}

// Since returns the age of something at the given time, "?" where its time is
// not known.
func Since(t, at time.Time) Words {
	if t.IsZero() {
		return Words{s: "?"}
	}
	return Age(at.Sub(t))
}

// When returns a time as people read it: the local clock and how far away it
// is. The date stands only where it is not today's.
func When(t, at time.Time) Words {
	if t.IsZero() {
		return Words{s: "not known"}
	}
	return Words{s: Clock(t, at).s + " (" + relative(t, at) + ")"}
}

// Clock returns the local time of day, with the date where it is not today.
func Clock(t, at time.Time) Words {
	t, at = t.In(at.Location()), at.In(at.Location())
	layout := "2006-01-02 15:04:05"
	if t.Format(time.DateOnly) == at.Format(time.DateOnly) {
		layout = time.TimeOnly
	}
	return Words{s: t.Format(layout)}
}

func relative(t, at time.Time) string {
	switch d := t.Sub(at); {
	case d >= time.Second:
		return "in " + Age(d).s
	case d > -time.Second:
		return "now"
	default:
		return Age(-d).s + " ago"
	}
}
