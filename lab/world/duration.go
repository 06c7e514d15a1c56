package world

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// Duration is a time span that reads and writes as Go writes it: "1h30m".
// A bare number is refused, since nobody can tell seconds from nanoseconds.
type Duration time.Duration

// MarshalText writes the span as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText reads what time.ParseDuration reads, and refuses a negative span.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("parse duration %q: %w", text, err)
	}
	if v < 0 {
		return fmt.Errorf("parse duration %q: is negative", text)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalJSON exists only to give a bare number a helpful error; the text
// form does the work.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("parse duration %s: write a string with a unit, such as \"90s\"", data)
	}
	return d.UnmarshalText([]byte(s))
}

// clock divides the world's spans by the time scale. Policies are written in
// the time that real providers use ("greylisted for an hour"); a test that
// cannot wait an hour sets a scale and changes nothing else.
type clock struct {
	scale atomic.Uint64 // float64 bits; always > 0
}

func (c *clock) set(scale float64) error {
	if scale == 0 {
		scale = 1
	}
	if scale < 0 || math.IsNaN(scale) || math.IsInf(scale, 0) {
		return fmt.Errorf("set time scale %v: must be a positive number", scale)
	}
	c.scale.Store(math.Float64bits(scale))
	return nil
}

func (c *clock) factor() float64 { return math.Float64frombits(c.scale.Load()) }

// real turns a policy's span into the span that is waited.
func (c *clock) real(d Duration) time.Duration {
	return time.Duration(float64(d) / c.factor())
}

// sleep waits for a policy's span and reports whether it was waited in full.
func (c *clock) sleep(ctx context.Context, d Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(c.real(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
