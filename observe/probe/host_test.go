package probe

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// A part that hangs is a gap with its name; what the others say counts.
func TestLatePartIsAGapAndNotWaitedFor(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	quick := part{"quick", func(context.Context, observe.Host) (func(*observe.Host), []observe.Gap) {
		return func(h *observe.Host) { h.Storage.Known = true }, []observe.Gap{{Source: "quick", Text: "of its own"}}
	}}
	hangs := part{"hangs", func(context.Context, observe.Host) (func(*observe.Host), []observe.Gap) {
		<-release // deaf to its context, as a system call on a dead disk is
		return func(h *observe.Host) { h.Master.Known = true }, nil
	}}
	h := gather(t.Context(), 50*time.Millisecond, [][]part{{quick}, {hangs, {"behind it", quick.ask}}})
	var sources []string
	for _, g := range h.Gaps {
		sources = append(sources, g.Source)
	}
	if !slices.Equal(sources, []string{"quick", "hangs", "behind it"}) || !h.Storage.Known || h.Master.Known {
		t.Errorf("gaps of %v, host %+v", sources, h)
	}
	if !strings.Contains(h.Gaps[1].Text, "50ms") || h.Gaps[1].Hint == "" {
		t.Errorf("the gap says %+v", h.Gaps[1])
	}
}

// What one part of a row finds is known to the next, and only its context tells
// a part that the time is over, early enough to be heard.
func TestRowHandsOnWhatItFound(t *testing.T) {
	first := part{"first", func(context.Context, observe.Host) (func(*observe.Host), []observe.Gap) {
		return func(h *observe.Host) { h.Settings.SMTPChroot = true }, nil
	}}
	second := part{"second", func(ctx context.Context, seen observe.Host) (func(*observe.Host), []observe.Gap) {
		<-ctx.Done()
		return func(h *observe.Host) { h.DNS.Chrooted = seen.Settings.SMTPChroot }, nil
	}}
	h := gather(t.Context(), time.Second, [][]part{{first, second}})
	if !h.DNS.Chrooted || len(h.Gaps) != 0 {
		t.Errorf("%+v", h)
	}
}

func TestInterruptedAskEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hangs := part{"hangs", func(context.Context, observe.Host) (func(*observe.Host), []observe.Gap) {
		<-t.Context().Done()
		return func(*observe.Host) {}, nil
	}}
	h := gather(ctx, time.Hour, [][]part{{hangs}})
	if len(h.Gaps) != 1 || !strings.Contains(h.Gaps[0].Text, "interrupted") {
		t.Errorf("gaps %v", h.Gaps)
	}
}

// A spool with no Postfix, asked for real.
func TestAskOfASpoolThatNeverRan(t *testing.T) {
	spool := t.TempDir()
	dir := configure(t, "compatibility_level=3.6\nqueue_directory="+spool+"\n")
	h := Ask(t.Context(), postfix.Instance{ConfigDir: dir, QueueDir: spool, DataDir: t.TempDir()}, observe.Questions{}, AskOptions{})
	if !h.Settings.Known || !h.Storage.Known || !h.Pressure.Known || h.At.IsZero() {
		t.Errorf("%+v", h)
	}
	if !h.Master.Known || h.Master.Running || h.Manager.State != managerAbsent {
		t.Errorf("master %+v, manager %+v", h.Master, h.Manager)
	}
	if !h.Storage.WriteTried || !h.Storage.Written || h.Storage.Latency <= 0 {
		t.Errorf("storage %+v, gaps %v", h.Storage, h.Gaps)
	}
}
