package record

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
)

// Ledger is what follows from the entries of an audit log: what is ours, what
// is open, what ran, what is due. It is computed anew whenever it is needed, so
// that it cannot differ from the log.
type Ledger struct {
	// Seq and Hash are those of the entry up to which it was computed.
	Seq  uint64
	Hash string
	// Holds are the messages that are on hold because Holdfast put them there,
	// as far as the log knows: somebody else may have taken one since.
	Holds map[HoldKey]Hold
	// Open are the intents without an outcome, by their entries.
	Open map[uint64]*Intent
	// Plans are all plans that were sealed or run, by their IDs.
	Plans map[string]*Run
	// Items are the copies in the vault, by their names, purged ones included.
	Items map[string]*Copy
	// Dues are what must still happen, by their entries.
	Dues map[uint64]DueBody
	// Saved are the snapshots, the oldest first.
	Saved []SavedBody
	// Torn counts the lines that a crash cut.
	Torn int

	starts map[uint64]string // plan by its start
}

// HoldKey names a file on hold. Queue IDs are unique within one instance only.
type HoldKey struct {
	Instance string
	File
}

// Hold says how a message came to be on hold.
type Hold struct {
	Plan string
	At   time.Time
	// FromActive is set where it was active before: the queue manager of that
	// time, Qmgr, still has it in memory, and would remove the file undelivered
	// if it met it again.
	FromActive bool
	Qmgr       *Process
	// of is the message: a short ID and its inode come again. Its ID is "" where
	// it has been given a new one, as by a restore, and is not on record.
	of postfix.Fingerprint
}

// is reports whether the hold is about this message.
func (h *Hold) is(message postfix.Fingerprint) bool {
	if h.of.ID == "" {
		return true
	}
	t := plan.Target{Fingerprint: h.of}
	return t.Matches(message)
}

// HoldOf is the hold of a message, where Holdfast has put it on hold.
func (l *Ledger) HoldOf(message postfix.Fingerprint) (Hold, bool) {
	h, ours := l.Holds[HoldKey{message.Instance, File{message.ID, message.Inode}}]
	if !ours || !h.is(message) {
		return Hold{}, false
	}
	return h, true
}

// Under reports whether the queue manager that runs is the one that has the
// message in memory. Where either is not known, it may be: a message is at
// stake.
func (h Hold) Under(running *Process) bool {
	if !h.FromActive {
		return false
	}
	return h.Qmgr == nil || running == nil || h.Qmgr.PID == running.PID && h.Qmgr.Started.Equal(running.Started)
}

// Intent is an intent without an outcome, with what was recorded under it.
type Intent struct {
	Entry Entry
	Body  IntentBody
	Kept  []Item
	Notes []NoteBody
}

// Run is what became of one plan.
type Run struct {
	Plan PlanBody
	// Planned, Started and Ended are when; zero where it was not.
	Planned, Started, Ended time.Time
	// Start is the entry of its start, 0 where it was not started.
	Start uint64
	// Approved are the people who agreed to it.
	Approved []plan.Who
	// Counts are its targets that have an outcome, by state.
	Counts map[State]int
}

// Settled is how many targets have an outcome.
func (r *Run) Settled() int {
	n := 0
	for _, count := range r.Counts {
		n += count
	}
	return n
}

// Left is how many targets were not begun, or have no outcome yet.
func (r *Run) Left() int { return max(r.Plan.Count-r.Settled(), 0) }

// State is one word for what became of the plan: "sealed", "expired",
// "running", which an interruption leaves behind too, or "ended".
func (r *Run) State(now time.Time) string {
	switch {
	case !r.Ended.IsZero():
		return "ended"
	case r.Start != 0:
		return "running"
	case !r.Plan.Expires.IsZero() && !now.Before(r.Plan.Expires):
		return "expired"
	}
	return "sealed"
}

// Copy is the copy of a message in the vault.
type Copy struct {
	Item
	Plan, Pack string
	At         time.Time
	// Target is the message as the plan had it.
	Target plan.Target
	// Removed is set where the message is not in the queue any more by our
	// doing, so that the copy is the last that there is.
	Removed bool
	// Requeued is set where Postfix was to take it in anew: it lives on under
	// another queue ID, unless pickup threw it away.
	Requeued bool
	// Restored is the queue ID under which it came back, "" where it did not.
	Restored postfix.QueueID
	Purged   bool
	// Legal is set while it is under legal hold: it must not be purged.
	Legal bool
}

// Fold computes the ledger. It stops at the first entry that cannot be read:
// what follows from half a log is not known.
func Fold(entries iter.Seq2[Entry, error]) (*Ledger, error) {
	l := &Ledger{
		Holds: map[HoldKey]Hold{}, Open: map[uint64]*Intent{}, Plans: map[string]*Run{},
		Items: map[string]*Copy{}, Dues: map[uint64]DueBody{}, starts: map[uint64]string{},
	}
	for e, err := range entries {
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if err := l.add(&e); err != nil {
			return nil, fmt.Errorf("read entry %d of the audit log, %q: %w", e.Seq, e.Kind, err)
		}
		l.Seq, l.Hash = e.Seq, e.Hash
	}
	return l, nil
}

// Dues are what must still happen, by their entries: what Fold finds of them,
// without reading anything else.
func Dues(entries iter.Seq2[Entry, error]) (map[uint64]DueBody, error) {
	l := &Ledger{Dues: map[uint64]DueBody{}}
	for e, err := range entries {
		if err == nil && (e.Kind == Due || e.Kind == DueDone) {
			err = l.add(&e)
		}
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
	}
	return l.Dues, nil
}

// add takes one entry. A kind that is not known is one of a later Holdfast:
// what it means could be anything, so it is refused.
func (l *Ledger) add(e *Entry) error {
	switch e.Kind {
	case Planned, Approved, Started:
		return decoded(e, l.addPlan)
	case Intended:
		return decoded(e, l.addIntent)
	case Kept:
		return decoded(e, l.addKept)
	case Noted:
		return decoded(e, l.addNote)
	case Settled:
		return decoded(e, l.addOutcomes)
	case Ended:
		return decoded(e, l.addEnd)
	case Due:
		return decoded(e, func(e *Entry, b *DueBody) { l.Dues[e.Seq] = *b })
	case DueDone:
		delete(l.Dues, e.Ref)
		return nil
	case Saved:
		return decoded(e, func(_ *Entry, b *SavedBody) { l.Saved = append(l.Saved, *b) })
	case LegalHold:
		return decoded(e, l.addLegal)
	case Torn:
		l.Torn++
		return nil
	case Begin, Looked:
		return nil
	}
	return fmt.Errorf("%w: a kind that this Holdfast does not know", ErrEntry)
}

func decoded[B any](e *Entry, add func(*Entry, *B)) error {
	var body B
	if err := json.Unmarshal(e.Detail, &body); err != nil {
		return err
	}
	add(e, &body)
	return nil
}

func (l *Ledger) run(id string) *Run {
	r := l.Plans[id]
	if r == nil {
		r = &Run{Plan: PlanBody{Plan: id}, Counts: map[State]int{}}
		l.Plans[id] = r
	}
	return r
}

func (l *Ledger) addPlan(e *Entry, b *PlanBody) {
	r := l.run(b.Plan)
	switch e.Kind {
	case Approved:
		// The body says who approves; what was planned stays as it was sealed.
		r.Approved = append(r.Approved, b.By)
		return
	case Planned:
		if r.Planned.IsZero() {
			r.Planned = e.At
		}
	case Started:
		r.Started, r.Start = e.At, e.Seq
		l.starts[e.Seq] = b.Plan
	}
	r.Plan = *b
}

func (l *Ledger) addIntent(e *Entry, b *IntentBody) {
	l.Open[e.Seq] = &Intent{Entry: *e, Body: *b}
}

func (l *Ledger) addKept(e *Entry, b *KeptBody) {
	intent := l.Open[e.Ref]
	if intent == nil {
		// Nothing can be kept for an intent that is settled; if it says so, the
		// copy is still there, only of what is not known.
		intent = &Intent{}
	}
	intent.Kept = append(intent.Kept, b.Items...)
	targets := make(map[postfix.QueueID]*plan.Target, len(intent.Body.Targets))
	for i := range intent.Body.Targets {
		targets[intent.Body.Targets[i].ID] = &intent.Body.Targets[i]
	}
	for _, item := range b.Items {
		c := &Copy{Item: item, Plan: b.Plan, Pack: b.Pack, At: e.At}
		if t := targets[item.ID]; t != nil {
			c.Target = *t
		}
		l.Items[item.Name] = c
	}
}

func (l *Ledger) addNote(e *Entry, b *NoteBody) {
	if intent := l.Open[e.Ref]; intent != nil {
		intent.Notes = append(intent.Notes, *b)
	}
}

func (l *Ledger) addLegal(_ *Entry, b *LegalBody) {
	for _, name := range b.Items {
		if c := l.Items[name]; c != nil {
			c.Legal = b.On
		}
	}
}

func (l *Ledger) addEnd(e *Entry, b *EndBody) {
	id := b.Plan
	if id == "" {
		id = l.starts[e.Ref]
	}
	l.run(id).Ended = e.At
}

func (l *Ledger) addOutcomes(e *Entry, b *OutcomeBody) {
	intent := l.Open[e.Ref]
	if intent == nil {
		return // settled twice: the first outcome counts, as for the hand
	}
	delete(l.Open, e.Ref)
	r := l.run(intent.Body.Plan)
	targets := make(map[postfix.QueueID]*plan.Target, len(intent.Body.Targets))
	items := make(map[string]*plan.Target)
	for i := range intent.Body.Targets {
		t := &intent.Body.Targets[i]
		targets[t.ID] = t
		if t.Item != "" {
			items[t.Item] = t
		}
	}
	for i := range b.Outcomes {
		o := &b.Outcomes[i]
		r.Counts[o.State]++
		t := targets[o.ID]
		if o.Item != "" && items[o.Item] != nil {
			t = items[o.Item]
		}
		if t != nil {
			l.settle(e, intent, t, o)
		}
	}
}

// settle takes one outcome into account: whether the message is on hold by our
// doing, and what that means for its copy.
func (l *Ledger) settle(e *Entry, intent *Intent, t *plan.Target, o *Outcome) {
	key := HoldKey{t.Instance, File{o.ID, cmp.Or(o.Inode, t.Inode)}}
	if o.Successor != "" {
		// What came back from the vault, or was queued anew, is another file.
		key.File = File{o.Successor, o.Inode}
		for i := range intent.Notes {
			if n := &intent.Notes[i]; n.Successor == o.Successor && n.Inode != 0 {
				key.Inode = n.Inode
			}
		}
	}
	before, ours := l.Holds[key]
	message := postfix.Fingerprint{}
	if o.Successor == "" {
		message = t.Fingerprint
		message.Inode, message.Digest = key.Inode, ""
		ours = ours && before.is(message)
	}
	switch {
	case o.Held && ours:
		// It was held by an earlier plan, which is what an undo goes by; only
		// that it came from active must not be forgotten.
		if o.FromActive && !before.FromActive {
			before.FromActive, before.Qmgr = true, intent.Body.Qmgr
			l.Holds[key] = before
		}
	case o.Held:
		h := Hold{Plan: intent.Body.Plan, At: e.At, FromActive: o.FromActive, of: message}
		if o.FromActive {
			h.Qmgr = intent.Body.Qmgr
		}
		l.Holds[key] = h
	case ours && o.State != Unknown && o.Now != postfix.Hold.String():
		delete(l.Holds, key)
	}
	if c := l.Items[itemOf(intent, o)]; c != nil {
		c.settle(intent.Body.Verb, o)
	}
}

// settle says what an outcome means for the copy.
func (c *Copy) settle(verb plan.Verb, o *Outcome) {
	if o.State != Done {
		return
	}
	switch verb {
	case plan.Purge:
		c.Purged = true
	case plan.Restore:
		c.Restored = o.Successor
	case plan.Delete, plan.Expire:
		c.Removed = true
	case plan.Requeue:
		c.Requeued = true
	}
}

// itemOf names the copy that an outcome is about.
func itemOf(intent *Intent, o *Outcome) string {
	if o.Item != "" {
		return o.Item
	}
	for _, item := range intent.Kept {
		if item.ID == o.ID {
			return item.Name
		}
	}
	return ""
}

// Intents are the open intents, the oldest first.
func (l *Ledger) Intents() []*Intent {
	open := make([]*Intent, 0, len(l.Open))
	for _, intent := range l.Open {
		open = append(open, intent)
	}
	slices.SortFunc(open, func(a, b *Intent) int { return cmp.Compare(a.Entry.Seq, b.Entry.Seq) })
	return open
}

// Resolve finds the plan whose ID begins with ref. Few digits can mean several
// plans, and none is then taken.
func (l *Ledger) Resolve(ref string) (*Run, error) {
	const fewest = 4
	var found *Run
	for id, r := range l.Plans {
		if len(ref) < fewest || !strings.HasPrefix(id, ref) {
			continue
		}
		if found != nil {
			return nil, &postfix.Error{Kind: postfix.Usage, Op: "find plan", Object: ref, Err: errors.New("more than one plan begins so"), Hint: "give more digits of its ID; holdfast plan list names them"}
		}
		found = r
	}
	if found == nil {
		return nil, &postfix.Error{Kind: postfix.Failed, Op: "find plan", Object: ref, Err: errors.New("no plan has this ID"), Hint: "holdfast plan list names the plans"}
	}
	return found, nil
}

// OutcomesOf collects what became of the targets of one plan, in the order in
// which it was recorded.
func OutcomesOf(entries iter.Seq2[Entry, error], planID string) ([]Outcome, error) {
	var all []Outcome
	settled := map[uint64]bool{}
	for e, err := range entries {
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if e.Kind != Settled || settled[e.Ref] {
			continue
		}
		var b OutcomeBody
		if err := json.Unmarshal(e.Detail, &b); err != nil {
			return nil, fmt.Errorf("read entry %d of the audit log: %w", e.Seq, err)
		}
		settled[e.Ref] = true
		if b.Plan == planID {
			all = append(all, b.Outcomes...)
		}
	}
	return all, nil
}
