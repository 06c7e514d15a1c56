package operate

import (
	"context"
	"slices"
	"sync"
	"time"

	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/probe"
)

// TriageOptions say how far a triage looks.
type TriageOptions struct {
	// Window is how far back the log is read; an hour where it is 0.
	Window time.Duration
}

// Triage is what was seen of one instance and what it means.
type Triage struct {
	At       time.Time
	Snapshot *observe.Snapshot
	// Log is nil where no log was read, Host where nothing was asked.
	Log     *observe.Log
	Host    *observe.Host
	Verdict diagnose.Verdict
	// Gaps are all gaps: of the queue, the log and the probes.
	Gaps []observe.Gap
}

const usualWindow = time.Hour

// Triage looks at every instance, its log and its surroundings, and says what
// is wrong. Where some instances could be looked at and others not, it returns
// both what it found and an error. It needs Options.Surroundings.
func (o *Operator) Triage(ctx context.Context, opts TriageOptions) ([]*Triage, error) {
	if opts.Window <= 0 {
		opts.Window = usualWindow
	}
	var all []*Triage
	var errs []error
	for _, in := range o.instances {
		t, err := o.triage(ctx, in, opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, t)
	}
	if len(all) > 0 && len(o.gaps) > 0 {
		all[0].Gaps = slices.Concat(o.gaps, all[0].Gaps)
	}
	return all, joined(errs)
}

// triage looks at one instance: queue and log side by side, then what both
// suggest to ask.
func (o *Operator) triage(ctx context.Context, in *instance, opts TriageOptions) (*Triage, error) {
	var log *observe.Log
	var logGaps []observe.Gap
	var reading sync.WaitGroup
	reading.Go(func() {
		log, logGaps = maillog.Read(ctx, in.Instance, maillog.ReadOptions{
			Opener: o.opener, Since: time.Now().Add(-opts.Window), Detail: true,
		})
	})
	snap, err := in.look(ctx)
	reading.Wait()
	if log != nil && len(log.Sources) == 0 {
		log = nil // nothing was read: the gaps say why
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	host := probe.Ask(ctx, in.Instance, diagnose.Questions(snap, log, now), probe.AskOptions{Opener: o.opener, MemoryDir: o.memory})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := &Triage{At: now, Snapshot: snap, Log: log, Host: host, Gaps: slices.Concat(snap.Gaps, logGaps, host.Gaps)}
	t.Verdict = diagnose.Judge(diagnose.Sight{Snapshot: snap, Log: log, Host: host, Now: now})
	return t, nil
}
