package cli

import (
	"bufio"
	"bytes"
	"context"
	"time"
)

// usualWatch is the interval of --watch where none is given, shortestWatch what
// a look at a large queue leaves time for anything else.
const (
	usualWatch    = "2s"
	shortestWatch = 100 * time.Millisecond
)

func checkWatch(interval time.Duration) error {
	if interval != 0 && interval < shortestWatch {
		return usageError("the usual interval is "+usualWatch, "--watch=%s is shorter than %s", interval, shortestWatch)
	}
	return nil
}

// again looks again and again until the operator stops it, which is the only
// way in which it ends well; the exit code says so (130).
func (s *Screen) again(ctx context.Context, interval time.Duration, look func(context.Context) error) error {
	next := time.NewTicker(interval)
	defer next.Stop()
	for {
		if err := s.picture(func() error { return look(ctx) }); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
	}
}

// picture lets draw fill the screen once. On a terminal the picture takes the
// place of the last one: it is drawn aside, talk and all, and cut to the
// height of the terminal, since what scrolls cannot be drawn over. Home and
// "erase to the end" flicker less than clearing the screen does.
func (s *Screen) picture(draw func() error) error {
	if s.term.Columns == 0 || s.json {
		if err := draw(); err != nil {
			return err
		}
		return s.Flush()
	}
	var frame bytes.Buffer
	out, talk, live := s.out, s.talk, s.live
	s.out, s.talk, s.live = bufio.NewWriter(&frame), &frame, false
	err := draw()
	_ = s.out.Flush() // a buffer takes everything
	s.out, s.talk, s.live = out, talk, live
	if err != nil {
		return err
	}
	lines := bytes.SplitAfter(frame.Bytes(), []byte("\n"))
	_, _ = s.out.WriteString("\x1b[H\x1b[J") // the writer keeps its error for Flush
	for _, line := range lines[:min(len(lines), max(1, s.term.Rows-1))] {
		_, _ = s.out.Write(line)
	}
	return s.Flush()
}
