package operate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"
	"time"

	"holdfast/account"
	"holdfast/act"
	"holdfast/act/hand"
	"holdfast/observe/maillog"
	"holdfast/postfix"
	"holdfast/record"
)

const shelfSnapshots = "snapshots"

// partSize is how much of a snapshot one file has: what the hand takes at once
// has a bound, and a queue of a million messages is beyond it.
const partSize = 16 << 20

// Snapshots are the snapshots that were saved of the instance, the oldest
// first.
func (o *Operator) Snapshots(ctx context.Context) ([]record.SavedBody, error) {
	in, err := o.only()
	if err != nil {
		return nil, err
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, err
	}
	own := []record.SavedBody{}
	for _, s := range ledger.Saved {
		if s.Instance == in.Name {
			own = append(own, s)
		}
	}
	return own, nil
}

// Snapshot reads a saved snapshot and holds it against the digest that the
// audit log has of it. ref is its name or the first characters of that, ""
// is the newest.
func (o *Operator) Snapshot(ctx context.Context, ref string) (*account.Snapshot, error) {
	saved, err := o.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	one, err := resolve(saved, ref)
	if err != nil {
		return nil, err
	}
	file := &parts{state: o.state, name: one.Name, sum: sha256.New()}
	defer file.close()
	s, err := account.Decode(file)
	if err == nil {
		_, err = io.Copy(io.Discard, file)
	}
	if err == nil && hex.EncodeToString(file.sum.Sum(nil)) != one.Sum {
		err = fmt.Errorf("%w: the audit log has another digest of it", account.ErrSnapshot)
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot %q: %w", one.Name, err)
	}
	return s, nil
}

func resolve(saved []record.SavedBody, ref string) (record.SavedBody, error) {
	if len(saved) == 0 {
		return record.SavedBody{}, &postfix.Error{
			Kind: postfix.Failed, Op: "find snapshot", Object: ref, Err: errors.New("none was saved of this instance"),
			Hint: "save one now, and account from it later: holdfast snapshot save",
		}
	}
	if ref == "" {
		return saved[len(saved)-1], nil
	}
	var found []record.SavedBody
	for _, s := range saved {
		if s.Name == ref {
			return s, nil
		}
		if strings.HasPrefix(s.Name, ref) {
			found = append(found, s)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	text := "there is none with this name"
	if len(found) > 1 {
		text = "more than one begins so"
	}
	return record.SavedBody{}, &postfix.Error{Kind: postfix.Failed, Op: "find snapshot", Object: ref, Err: errors.New(text), Hint: "holdfast snapshot list names them"}
}

// SnapshotOptions say more about a snapshot that is saved.
type SnapshotOptions struct {
	Note string
	// Again is after which time a second one is saved; 0 for none.
	Again time.Duration
}

// SavedSnapshot is what was saved.
type SavedSnapshot struct {
	account.Head
	// Again is the second one that is to come, nil for none. KeeperErr is why
	// nobody keeps time for it.
	Again     *Duty
	KeeperErr error
}

// SaveSnapshot looks at everything that triage looks at, and keeps it: the
// messages, and in the head shape, causes and what asking the surroundings
// gave. It changes no mail.
func (o *Operator) SaveSnapshot(ctx context.Context, opts SnapshotOptions) (SavedSnapshot, error) {
	head, err := o.saveSnapshot(ctx, opts.Note, 0)
	saved := SavedSnapshot{Head: head}
	if err != nil || opts.Again <= 0 {
		return saved, err
	}
	in, err := o.only()
	if err != nil {
		return saved, err
	}
	duty, err := o.later(ctx, in, dueSnapshot, head.Name, head.To.Add(opts.Again))
	if duty.Entry == 0 {
		return saved, err
	}
	saved.Again, saved.KeeperErr = &duty, err
	return saved, nil
}

func (o *Operator) saveSnapshot(ctx context.Context, note string, due uint64) (account.Head, error) {
	in, err := o.only()
	if err != nil {
		return account.Head{}, err
	}
	if o.hand == nil {
		return account.Head{}, needsRoot("save a snapshot")
	}
	s, err := o.takeSnapshot(ctx, in)
	if err != nil {
		return account.Head{}, err
	}
	s.Note = note
	if err := o.hand.Begin(ctx); err != nil {
		return account.Head{}, err
	}
	saved, err := o.Snapshots(ctx)
	if err != nil {
		return account.Head{}, err
	}
	s.Name = nameOf(s, saved)
	out := &partWriter{ctx: ctx, hand: o.hand, name: s.Name, size: partSize, sum: sha256.New()}
	if err = account.Encode(out, s); err == nil {
		err = out.finish()
	}
	if err != nil {
		return account.Head{}, fmt.Errorf("save snapshot %q: %w", s.Name, err)
	}
	_, err = o.hand.Append(ctx, record.Saved, 0, nil, record.SavedBody{
		Name: s.Name, Sum: hex.EncodeToString(out.sum.Sum(nil)), Instance: in.Name, Messages: s.Messages, By: o.who, Due: due,
	})
	return s.Head, err
}

// Comparison is what differs between two looks at one queue.
type Comparison struct {
	From, To account.Head
	account.Diff
}

// CompareSnapshots says what differs between a saved snapshot and another one,
// or the queue as it is now for to "".
func (o *Operator) CompareSnapshots(ctx context.Context, from, to string) (*Comparison, error) {
	in, err := o.only()
	if err != nil {
		return nil, err
	}
	a, err := o.Snapshot(ctx, from)
	if err != nil {
		return nil, err
	}
	var b *account.Snapshot
	if to != "" {
		b, err = o.Snapshot(ctx, to)
	} else if seen, lookErr := in.look(ctx); lookErr != nil {
		err = lookErr
	} else {
		b = account.Take(seen, maillog.Position{})
	}
	if err != nil {
		return nil, err
	}
	return &Comparison{From: a.Head, To: b.Head, Diff: account.Compare(a, b)}, nil
}

// takeSnapshot notes the place in the log first: what is logged from there on
// is what an account reads. A log that cannot be found is a gap of the triage.
func (o *Operator) takeSnapshot(ctx context.Context, in *instance) (*account.Snapshot, error) {
	at, err := maillog.End(in.Instance, maillog.ReadOptions{Opener: o.opener})
	if err != nil {
		at = maillog.Position{}
	}
	if !o.surroundings {
		seen, err := in.look(ctx)
		if err != nil {
			return nil, err
		}
		return account.Take(seen, at), nil
	}
	t, err := o.triage(ctx, in, TriageOptions{Window: usualWindow})
	if err != nil {
		return nil, err
	}
	s := account.Take(t.Snapshot, at)
	s.Gaps = append(s.Gaps, t.Gaps[len(t.Snapshot.Gaps):]...)
	s.Triage = &account.Triage{State: t.Verdict.State, Sentence: t.Verdict.Sentence, Findings: t.Verdict.Findings, Host: t.Host}
	if t.Log != nil {
		s.Triage.Flow = t.Log.Total
	}
	return s, nil
}

// nameOf names a snapshot by its time. Two in one second differ in a number.
func nameOf(s *account.Snapshot, saved []record.SavedBody) string {
	name := s.Head.From.UTC().Format("20060102-150405")
	for n, used := 2, true; used; n++ {
		used = false
		for i := range saved {
			used = used || saved[i].Name == name
		}
		if used {
			name = fmt.Sprintf("%s.%d", s.Head.From.UTC().Format("20060102-150405"), n)
		}
	}
	return name
}

// partWriter keeps a stream as files of one size, NAME and NAME.part1 and so
// on. The first is written last: it is what gives the snapshot its name.
type partWriter struct {
	ctx   context.Context //nolint:containedctx // an io.Writer has no other way to end with its caller
	hand  act.Hand
	name  string
	size  int // of a part
	sum   hash.Hash
	first []byte
	part  bytes.Buffer
	n     int
}

func (w *partWriter) Write(p []byte) (int, error) {
	w.sum.Write(p)
	written := 0
	for len(p) > 0 {
		n := min(len(p), w.size-w.part.Len())
		w.part.Write(p[:n])
		p, written = p[n:], written+n
		if w.part.Len() < w.size {
			continue
		}
		if err := w.flush(); err != nil {
			return written, err
		}
	}
	return written, nil
}

func (w *partWriter) flush() error {
	defer w.part.Reset()
	if w.n++; w.n == 1 {
		w.first = bytes.Clone(w.part.Bytes())
		return nil
	}
	return w.hand.Keep(w.ctx, hand.Snapshots, partName(w.name, w.n-1), bytes.NewReader(w.part.Bytes()))
}

func (w *partWriter) finish() error {
	if w.part.Len() > 0 || w.n == 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.hand.Keep(w.ctx, hand.Snapshots, w.name, bytes.NewReader(w.first))
}

func partName(name string, n int) string {
	if n == 0 {
		return name
	}
	return fmt.Sprintf("%s.part%d", name, n)
}

// parts reads what a partWriter kept.
type parts struct {
	state stateFiles
	name  string
	sum   hash.Hash
	open  io.ReadCloser
	n     int
	ended bool
}

func (r *parts) Read(p []byte) (int, error) {
	for !r.ended {
		if r.open == nil {
			file, err := r.state.State(shelfSnapshots, partName(r.name, r.n))
			if errors.Is(err, fs.ErrNotExist) && r.n > 0 {
				r.ended = true
				break
			}
			if err != nil {
				return 0, err
			}
			r.open = file
			r.n++
		}
		n, err := r.open.Read(p)
		r.sum.Write(p[:n])
		if errors.Is(err, io.EOF) {
			r.close()
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

func (r *parts) close() {
	if r.open != nil {
		_ = r.open.Close() // only read
		r.open = nil
	}
}
