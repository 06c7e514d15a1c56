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
	"holdfast/observe/spool"
	"holdfast/postfix"
	"holdfast/record"
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
	holds, gap := o.ownHolds(ctx, in, snap)
	t.Gaps = append(t.Gaps, gap...)
	late, err := o.Late(ctx)
	if err != nil && len(gap) == 0 { // else that is what the gap says
		t.Gaps = append(t.Gaps, observe.Gap{Source: "record", Text: err.Error(), Hint: "whether something is overdue is not known"})
	}
	t.Verdict = diagnose.Judge(diagnose.Sight{Snapshot: snap, Log: log, Host: host, Holds: holds, Late: lateOf(in, late), Now: now})
	return t, nil
}

// lateOf is what is overdue of one instance.
func lateOf(in *instance, late []Late) []diagnose.LateDuty {
	var own []diagnose.LateDuty
	for i := range late {
		if d := &late[i]; d.Config == in.ConfigDir {
			own = append(own, diagnose.LateDuty{What: d.What, Object: d.Object, When: d.When, Keeper: d.Keeper})
		}
	}
	return own
}

// ownHolds are the holds of one instance that are on record, where something
// is on hold at all: whose a hold is decides whether it was forgotten.
func (o *Operator) ownHolds(ctx context.Context, in *instance, snap *observe.Snapshot) (map[diagnose.HeldFile]diagnose.OwnHold, []observe.Gap) {
	if shape := snap.Shape(postfix.Hold); !shape.Known || shape.Messages == 0 {
		return nil, nil
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, []observe.Gap{{Source: "record", Text: err.Error(), Hint: "which mail Holdfast itself has put on hold is not known; run it as root"}}
	}
	running, err := spool.QueueManager(in.Instance)
	known := &record.Process{PID: running.PID, Started: running.Started}
	if err != nil || running.PID == 0 {
		known = nil
	}
	own := make(map[diagnose.HeldFile]diagnose.OwnHold)
	snap.Each(func(m *postfix.Message) bool {
		if m.Queue != postfix.Hold {
			return true
		}
		h, ours := ledger.HoldOf(m.Fingerprint(in.Name))
		if !ours {
			return true
		}
		review := h.At.Add(o.policy.Review)
		if run := ledger.Plans[h.Plan]; run != nil && !run.Plan.Review.IsZero() {
			review = run.Plan.Review
		}
		own[diagnose.HeldFile{ID: m.ID, Inode: m.Inode}] = diagnose.OwnHold{Review: review, Remembered: h.Under(known)}
		return true
	})
	return own, nil
}
