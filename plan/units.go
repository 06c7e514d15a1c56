package plan

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as operators write it: whole numbers with the
// units w, d, h, m and s, for example "2h", "90m", "3d", "1w" or "1d12h". In
// JSON it is that text. Zero means "not given"; it cannot be written.
type Duration time.Duration

// Size is a number of bytes as operators write it, for example "500k", "10M",
// "1.5G" or "20480". The letters k, M, G and T, alone or as KiB and so on,
// count in 1024s; KB, MB, GB and TB count in 1000s, as in GNU coreutils. In
// JSON it is that text. Zero means "not given"; it cannot be written.
type Size int64

const (
	day  = 24 * time.Hour
	week = 7 * day
	// maxDuration bounds what is accepted. No queue is older, and sums with
	// the times of messages cannot overflow.
	maxDuration = 100 * 365 * day
)

var durationUnits = [...]struct {
	name string
	size time.Duration
}{{"w", week}, {"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

// ParseDuration reads a Duration.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errors.New("no duration is given")
	}
	var total time.Duration
	for rest := s; rest != ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		number, after := rest[:digits], rest[digits:]
		if number == "" {
			return 0, fmt.Errorf("a whole number was expected at %s", strconv.QuoteToASCII(clip(rest)))
		}
		unit := after[:len(after)-len(strings.TrimLeft(after, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))]
		size, err := durationUnit(unit)
		if err != nil {
			return 0, fmt.Errorf("%s has %w", number, err)
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > int64(maxDuration/size) || total+time.Duration(n)*size > maxDuration {
			return 0, errors.New("longer than 100 years")
		}
		total += time.Duration(n) * size
		rest = after[len(unit):]
	}
	return total, nil
}

func durationUnit(name string) (time.Duration, error) {
	if name == "" {
		return 0, errors.New("no unit")
	}
	for _, u := range durationUnits {
		if u.name == name {
			return u.size, nil
		}
	}
	return 0, fmt.Errorf("the unknown unit %s", strconv.QuoteToASCII(clip(name)))
}

// String returns the one way in which Holdfast writes the duration, "" for
// zero. Parts of a second are left out.
func (d Duration) String() string {
	rest := time.Duration(d)
	if rest < time.Second {
		return ""
	}
	var b strings.Builder
	for _, u := range durationUnits {
		// "7d" and "14d" read better than weeks; whole weeks stay weeks.
		if u.size == week && rest%week != 0 {
			continue
		}
		if n := int64(rest / u.size); n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			rest %= u.size
		}
	}
	return b.String()
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err == nil && parsed == 0 {
		err = errZero
	}
	if err != nil {
		return err
	}
	*d = Duration(parsed)
	return nil
}

// errZero stands for a limit of nothing. As "not given" it would widen a
// selection, and as a limit it says nothing that anybody means.
var errZero = errors.New("must be more than zero")

// ParseSize reads a Size.
func ParseSize(s string) (int64, error) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789."))
	number, unit := s[:digits], s[digits:]
	if number == "" {
		return 0, errors.New("a size starts with a number")
	}
	factor, err := sizeUnit(unit)
	if err != nil {
		return 0, err
	}
	if !strings.Contains(number, ".") {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > math.MaxInt64/factor {
			return 0, errors.New("more bytes than can be counted")
		}
		return n * factor, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number", strconv.QuoteToASCII(clip(number)))
	}
	if f *= float64(factor); f >= math.MaxInt64 {
		return 0, errors.New("more bytes than can be counted")
	}
	return int64(math.Round(f)), nil
}

func sizeUnit(unit string) (int64, error) {
	lower := strings.ToLower(unit)
	if lower == "" || lower == "b" {
		return 1, nil
	}
	power := strings.IndexByte("kmgt", lower[0]) + 1
	base := int64(1024)
	switch {
	case power > 0 && (lower[1:] == "" || lower[1:] == "ib"):
	case power > 0 && lower[1:] == "b":
		base = 1000
	default:
		return 0, fmt.Errorf("unknown unit %s", strconv.QuoteToASCII(clip(unit)))
	}
	factor := int64(1)
	for range power {
		factor *= base
	}
	return factor, nil
}

// String returns the one way in which Holdfast writes the size, exact to the
// byte, "" for zero.
func (s Size) String() string {
	if s <= 0 {
		return ""
	}
	n, unit := int64(s), ""
	for _, u := range []string{"k", "M", "G", "T"} {
		if n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := ParseSize(string(text))
	if err == nil && parsed == 0 {
		err = errZero
	}
	if err != nil {
		return err
	}
	*s = Size(parsed)
	return nil
}

// clip shortens what an error message echoes.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
