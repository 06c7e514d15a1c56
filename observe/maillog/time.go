package maillog

import (
	"bytes"
	"time"
)

// clock reads the stamps that log lines begin with. Neighbouring lines are
// mostly of one minute, so what a minute is costs one comparison.
type clock struct {
	zone   *time.Location
	newest time.Time

	text  [16]byte // the minute as it was written, of which size bytes count
	size  int
	start int64 // when it begins
}

const (
	second = int64(time.Second)
	// sizeTraditional and sizeISO are the bytes of a stamp up to its minute:
	// "Nov 23 17:37" and "2026-11-23T17:37".
	sizeTraditional = 12
	sizeISO         = 16
)

// set gives the clock the time that a file was last written.
func (c *clock) set(zone *time.Location, newest time.Time) {
	if zone == nil {
		zone = time.Local
	}
	if newest.IsZero() {
		newest = time.Now()
	}
	if !newest.Equal(c.newest) || zone != c.zone {
		c.size = 0
	}
	c.zone, c.newest = zone, newest
}

// read returns the time of a line in nanoseconds since 1970 and how many bytes
// the stamp takes with the blank behind it.
func (c *clock) read(b []byte) (at int64, n int, ok bool) {
	if len(b) < sizeISO {
		return 0, 0, false
	}
	if b[3] == ' ' {
		return c.traditional(b)
	}
	return c.iso(b)
}

// traditional reads "Nov  3 17:37:24 " of RFC 3164, 4.1.2. It is local time
// without a year, which is all that postlogd(8) and most syslogs write.
func (c *clock) traditional(b []byte) (at int64, n int, ok bool) {
	const size = len("Nov 23 17:37:24 ")
	if b[12] != ':' || b[15] != ' ' {
		return 0, 0, false
	}
	sec, ok := twoDigits(b[13:])
	if !ok || sec > 60 {
		return 0, 0, false
	}
	if c.size != sizeTraditional || !bytes.Equal(c.text[:sizeTraditional], b[:sizeTraditional]) {
		start, ok := c.minuteOfYear(b)
		if !ok {
			return 0, 0, false
		}
		c.start, c.size = start, copy(c.text[:], b[:sizeTraditional])
	}
	return c.start + int64(sec)*second, size, true
}

// minuteOfYear reads "Nov 23 17:37" and finds its year: the latest in which it
// is no more than a day after the newest line. A day, because stamps of another
// zone, or of a clock that was set back, may lie ahead.
func (c *clock) minuteOfYear(b []byte) (int64, bool) {
	month := monthOf(b)
	if month == 0 || b[6] != ' ' || b[9] != ':' {
		return 0, false
	}
	tens := b[4]
	if tens == ' ' {
		tens = '0'
	}
	day, ok1 := twoDigits([]byte{tens, b[5]})
	hour, ok2 := twoDigits(b[7:])
	minute, ok3 := twoDigits(b[10:])
	if !ok1 || !ok2 || !ok3 || day < 1 || hour > 23 || minute > 59 {
		return 0, false
	}
	latest := c.newest.Add(24 * time.Hour)
	// Eight years back there has been a 29 February, even around 1900 or 2100.
	for year := latest.In(c.zone).Year(); year > latest.Year()-10; year-- {
		at := time.Date(year, month, day, hour, minute, 0, 0, c.zone)
		if at.Day() != day || at.Month() != month {
			continue // 29 February of another year
		}
		if !at.After(latest) {
			return at.UnixNano(), true
		}
	}
	return 0, false
}

// iso reads "2026-11-23T17:37:24.123456+01:00 " of RFC 3339.
func (c *clock) iso(b []byte) (at int64, n int, ok bool) {
	if len(b) < len("2026-11-23T17:37:24Z ") || b[4] != '-' || b[16] != ':' {
		return 0, 0, false
	}
	if c.size != sizeISO || !bytes.Equal(c.text[:sizeISO], b[:sizeISO]) {
		start, ok := minuteOfISO(b)
		if !ok {
			return 0, 0, false
		}
		c.start, c.size = start, copy(c.text[:], b[:sizeISO])
	}
	sec, ok := twoDigits(b[17:])
	if !ok || sec > 60 {
		return 0, 0, false
	}
	at, n = c.start+int64(sec)*second, 19
	if b[n] == '.' || b[n] == ',' {
		n++
		for unit := second / 10; n < len(b) && b[n] >= '0' && b[n] <= '9'; n++ {
			at += int64(b[n]-'0') * unit
			unit /= 10
		}
	}
	offset, size, ok := zoneOffset(b[n:])
	if n += size; !ok || n >= len(b) || b[n] != ' ' {
		return 0, 0, false
	}
	return at - offset, n + 1, true
}

// minuteOfISO reads "2026-11-23T17:37" as if it were UTC.
func minuteOfISO(b []byte) (int64, bool) {
	century, ok1 := twoDigits(b)
	year, ok2 := twoDigits(b[2:])
	month, ok3 := twoDigits(b[5:])
	day, ok4 := twoDigits(b[8:])
	hour, ok5 := twoDigits(b[11:])
	minute, ok6 := twoDigits(b[14:])
	separated := b[7] == '-' && (b[10] == 'T' || b[10] == 't' || b[10] == ' ') && b[13] == ':'
	if !separated || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || hour > 23 || minute > 59 {
		return 0, false
	}
	year += 100 * century
	at := time.Date(year, time.Month(month), day, hour, minute, 0, 0, time.UTC)
	// Beyond these years nanoseconds do not fit, and no mail was logged.
	if at.Day() != day || int(at.Month()) != month || year < 1970 || year > 2200 {
		return 0, false
	}
	return at.UnixNano(), true
}

// zoneOffset reads "Z", "+01:00" or "+0100" and returns it in nanoseconds.
func zoneOffset(b []byte) (offset int64, size int, ok bool) {
	if len(b) > 0 && (b[0] == 'Z' || b[0] == 'z') {
		return 0, 1, true
	}
	if len(b) < 5 || b[0] != '+' && b[0] != '-' {
		return 0, 0, false
	}
	at := 3
	if b[3] == ':' {
		at = 4
	}
	hours, ok1 := twoDigits(b[1:])
	minutes, ok2 := twoDigits(b[at:])
	offset = (int64(hours)*60 + int64(minutes)) * 60 * second
	if b[0] == '-' {
		offset = -offset
	}
	return offset, at + 2, ok1 && ok2 && hours < 24 && minutes < 60
}

// monthOf reads the English abbreviation, which syslog writes in every locale.
func monthOf(b []byte) time.Month {
	const names = "JanFebMarAprMayJunJulAugSepOctNovDec"
	for m := range 12 {
		if string(b[:3]) == names[3*m:3*m+3] {
			return time.Month(m + 1)
		}
	}
	return 0
}

func twoDigits(b []byte) (int, bool) {
	if len(b) < 2 {
		return 0, false
	}
	tens, ones := b[0]-'0', b[1]-'0'
	return int(tens)*10 + int(ones), tens <= 9 && ones <= 9
}

// timeOf turns nanoseconds back into a time; 0 is no time at all.
func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
