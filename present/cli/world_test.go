package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
)

// at is the moment of every look in these tests.
var at = time.Date(2026, 3, 14, 3, 12, 0, 0, time.UTC)

// still is an Operator whose queue stands still: snapshots that were built by
// hand. What it shows went through the same packing as a real look.
type still struct {
	snaps   []*observe.Snapshot
	err     error
	headers map[postfix.QueueID][]plan.Header
	looks   int
	onLook  func(n int)
	detail  func(*spool.Detail, spool.Want)
	closed  bool
	// sum is what logs summary finds, with sumGaps and sumErr.
	sum     *maillog.Summary
	sumGaps []observe.Gap
	sumErr  error
	asked   maillog.Options
	// judge makes the triage of a snapshot, where one is asked for.
	judge func(*operate.Triage)
}

func (s *still) Look(ctx context.Context) ([]*observe.Snapshot, error) {
	s.looks++
	if s.onLook != nil {
		s.onLook(s.looks)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return s.snaps, s.err
}

func (s *still) Triage(ctx context.Context, _ operate.TriageOptions) ([]*operate.Triage, error) {
	snaps, err := s.Look(ctx)
	var all []*operate.Triage
	for _, snap := range snaps {
		t := &operate.Triage{At: snap.To, Snapshot: snap, Gaps: snap.Gaps}
		if s.judge != nil {
			s.judge(t)
		}
		all = append(all, t)
	}
	return all, err
}

func (s *still) Headers(_ context.Context, _ *observe.Snapshot, m *postfix.Message) ([]plan.Header, error) {
	h, ok := s.headers[m.ID]
	if !ok {
		return nil, fmt.Errorf("no headers for %s", m.ID)
	}
	return h, nil
}

func (s *still) Show(_ context.Context, id postfix.QueueID, want spool.Want) ([]operate.Detail, error) {
	var out []operate.Detail
	for _, snap := range s.snaps {
		for _, m := range snap.Find(id) {
			d := operate.Detail{Instance: snap.Instance, Detail: &spool.Detail{Message: m}}
			if s.detail != nil {
				s.detail(d.Detail, want)
			}
			out = append(out, d)
		}
	}
	if out == nil {
		return nil, &postfix.Error{Op: "show", Object: string(id), Err: spool.ErrNoMessage}
	}
	return out, nil
}

func (s *still) Close() error { s.closed = true; return nil }

func instance(name string) postfix.Instance {
	return postfix.Instance{
		Name: name, ConfigDir: "/etc/" + name, QueueDir: "/var/spool/" + name,
		MaxLifetime: 5 * 24 * time.Hour, BounceLifetime: 5 * 24 * time.Hour, QueueRunDelay: 5 * time.Minute,
	}
}

func snapshot(in postfix.Instance, messages ...*postfix.Message) *observe.Snapshot {
	shard := observe.NewShard()
	for _, m := range messages {
		shard.Add(m)
	}
	return observe.Build(in, observe.FromSpool, at.Add(-time.Second), at, postfix.Queues(), []*observe.Shard{shard})
}

// message makes a deferred message of the given age.
func message(id string, age time.Duration, size int64, sender string, to ...postfix.Recipient) *postfix.Message {
	return &postfix.Message{
		Queue: postfix.Deferred, ID: postfix.QueueID(id), Inode: 4711,
		Arrival: at.Add(-age), Created: at.Add(-age).Truncate(time.Second), NextTry: at.Add(7 * time.Minute),
		Size: size, Sender: sender, Recipients: to, TotalRecipients: len(to),
	}
}

func to(address, status, reason string) postfix.Recipient {
	return postfix.Recipient{Address: address, NextHop: "smtp:" + postfix.DomainOf(address), Status: status, Reason: reason, Offset: 217}
}

// result is what one command line left behind.
type result struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, op Operator, columns int, args ...string) result {
	t.Helper()
	return runWith(t.Context(), t, op, columns, "", args...)
}

func runWith(ctx context.Context, t *testing.T, op Operator, columns int, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(ctx, args, Env{
		Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr,
		Terminal: Terminal{Columns: columns, Rows: 24},
		Now:      func() time.Time { return at },
		Open:     func(context.Context, Settings) (Operator, error) { return op, nil },
		Summarize: func(_ context.Context, _ []string, o maillog.Options) (*maillog.Summary, []observe.Gap, error) {
			s, ok := op.(*still)
			if !ok {
				t.Fatalf("%v sums up logs of %T", args, op)
			}
			s.asked = o
			return s.sum, s.sumGaps, s.sumErr
		},
	})
	return result{code, stdout.String(), stderr.String()}
}
