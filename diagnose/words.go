package diagnose

import (
	"fmt"
	"strconv"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// number writes 1240 as 1,240.
func number[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// messages writes "1 message", "1,240 messages".
func messages[N int | int64](n N) string {
	if n == 1 {
		return "1 message"
	}
	return number(n) + " messages"
}

// verb chooses the form that goes with a number.
func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// span writes a duration as people say it: "40 s", "5 min", "2 h 10 min", "3 d".
func span(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		if m := int(d % time.Hour / time.Minute); m != 0 {
			return fmt.Sprintf("%d h %d min", int(d/time.Hour), m)
		}
		return fmt.Sprintf("%d h", int(d/time.Hour))
	}
	return fmt.Sprintf("%d d", int(d/(24*time.Hour)))
}

// size writes bytes as people say them.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1000 && unit < len(units)-1 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[unit])
}

// cut shortens a text of a stranger, so that one reply does not fill a screen.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xC0 == 0x80 {
		n--
	}
	return text[:n] + "…"
}

// quoted is a reason in evidence: the first cause, shortened.
func quoted(reason string) string { return cut(postfix.FirstReason(reason), 160) }

// managerStarted returns when the running queue manager began, zero unknown.
func managerStarted(h *observe.Host) time.Time {
	if h == nil || !h.Manager.Known {
		return time.Time{}
	}
	return h.Manager.Started
}

// logSource names the log as a source of evidence, with what it is worth.
func (v *view) logSource() string {
	name := "log"
	if n := len(v.Log.Sources); n > 0 {
		name += " " + v.Log.Sources[n-1].Name
	}
	if v.Log.Trust != observe.TrustJournal {
		name += " (unproven: local users can write there)"
	}
	return name
}
