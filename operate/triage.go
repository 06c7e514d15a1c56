package operate

import (
	"context"
	"time"

	"holdfast/diagnose"
	"holdfast/observe"
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

// Triage looks at every instance, its log and its surroundings, and says what
// is wrong. Where some instances could be looked at and others not, it returns
// both what it found and an error.
func (o *Operator) Triage(ctx context.Context, opts TriageOptions) ([]*Triage, error) {
	snaps, err := o.Look(ctx)
	var all []*Triage
	for _, snap := range snaps {
		t := &Triage{At: snap.To, Snapshot: snap, Gaps: snap.Gaps}
		t.Verdict = diagnose.Judge(diagnose.Sight{Snapshot: snap, Log: t.Log, Host: t.Host, Now: snap.To})
		all = append(all, t)
	}
	return all, err
}
