package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"holdfast/postfix"
)

// Circumstances are what a draft has to know beside the messages.
type Circumstances struct {
	Instance postfix.Instance
	Now      time.Time
	// Held says what is recorded of a message on hold.
	Held func(m *postfix.Message) Holding
	// Digest reads the digest of a message's content, for verbs that end one.
	Digest func(m *postfix.Message) (string, error)
	// VaultOnSpool is set where the vault lies on the file system of the queue.
	VaultOnSpool bool
}

// Holding is what is recorded of a message on hold.
type Holding struct {
	// Ours is set where Holdfast put it there.
	Ours bool
	// Remembered is set where the queue manager that runs may still have it in
	// memory from when it was active. It must not meet the file again.
	Remembered bool
	// OnArrival is set where somebody else's hold is proved to be from before
	// any queue manager saw it.
	OnArrival bool
}

// A Draft becomes a plan: it is shown every message of a Snapshot, once, and
// says which are taken, which are left alone and why, and what it leads to. It
// is a pure function of what it is shown.
type Draft struct {
	verb    Verb
	opts    Options
	what    Circumstances
	matcher *Matcher

	targets   []Target
	effects   Effects
	skips     map[string]*Skip
	senders   map[string]int
	places    map[string]int
	arriving  map[string]int // messages of the last minutes, by sender
	counts    draftCounts
	recipient []string // destinations of one message: scratch
}

// draftCounts are messages, for the risks.
type draftCounts struct {
	old, null, redirected, filtered, active int
}

const (
	// mostNamed bounds each list that a plan shows; its targets are all kept.
	mostNamed = 10
	// arrivingWithin is what "still arriving" means.
	arrivingWithin = 10 * time.Minute
)

// NewDraft begins a draft. matcher is what was selected by, for what else the
// messages carry; it may be nil.
func NewDraft(v Verb, opts Options, what Circumstances, matcher *Matcher) *Draft {
	return &Draft{
		verb: v, opts: opts, what: what, matcher: matcher,
		skips: map[string]*Skip{}, senders: map[string]int{}, places: map[string]int{}, arriving: map[string]int{},
	}
}

// See shows a message that was not selected.
func (d *Draft) See(m *postfix.Message) {
	if d.verb == Delete && !m.Arrival.IsZero() && d.what.Now.Sub(m.Arrival) < arrivingWithin {
		d.arriving[Canonical(m.Sender)]++
	}
}

// Take shows a message that was selected.
func (d *Draft) Take(m *postfix.Message) {
	d.See(m)
	if why, hint := d.spared(m); why != "" {
		d.skip(why, hint, m.ID)
		return
	}
	t := TargetOf(d.what.Instance.Name, m)
	t.HeldOnArrival = m.Queue == postfix.Hold && d.what.Held(m).OnArrival
	if d.verb.Destructive() && d.what.Digest != nil {
		digest, err := d.what.Digest(m)
		if err != nil {
			d.skip(SkipDigest, "it may have left the queue meanwhile; select again", m.ID)
			return
		}
		t.Digest = digest
	}
	d.TakeTarget(t, m.FileSize)
	d.count(m)
	d.recipients(m)
}

// TakeTarget adds a target that is no message of the queue: a copy in the
// vault. It counts as one message of its sender.
func (d *Draft) TakeTarget(t Target, size int64) {
	d.targets = append(d.targets, t)
	d.effects.Bytes += size
	d.effects.Recipients += t.Recipients
	d.senders[t.Sender]++
	if !t.Arrival.IsZero() {
		if d.effects.Oldest.IsZero() || t.Arrival.Before(d.effects.Oldest) {
			d.effects.Oldest = t.Arrival
		}
		if t.Arrival.After(d.effects.Newest) {
			d.effects.Newest = t.Arrival
		}
	}
	if t.Item != "" && t.NextHop != "" {
		d.places[t.NextHop]++
	}
}

// Skip leaves a selected message alone for a reason that the draft cannot see.
func (d *Draft) Skip(why, hint string, id postfix.QueueID) { d.skip(why, hint, id) }

func (d *Draft) skip(why, hint string, id postfix.QueueID) {
	s := d.skips[why]
	if s == nil {
		s = &Skip{Why: why, Hint: hint}
		d.skips[why] = s
	}
	s.Count++
	if len(s.IDs) < mostNamed {
		s.IDs = append(s.IDs, id)
	}
}

// spared says why a message is left alone, "" where it is not.
func (d *Draft) spared(m *postfix.Message) (why, hint string) {
	switch {
	case m.Queue == postfix.Corrupt || m.Queue == postfix.Saved:
		return SkipQueue, ""
	case m.Queue == postfix.Maildrop:
		return SkipMaildrop, "pickup takes it in a moment; select again then"
	case m.Damage != "" || m.Inode == 0:
		return SkipDamaged, ""
	}
	switch m.Queue {
	case postfix.Hold:
		return d.sparedOnHold(m)
	case postfix.Active:
		return d.sparedActive()
	}
	switch {
	case d.verb == Release:
		return SkipNotHeld, ""
	case d.verb == Try && m.Queue == postfix.Incoming:
		// The queue manager is about to take it without being asked.
		return SkipQueue, ""
	}
	return d.sparedForm(m)
}

func (d *Draft) sparedActive() (why, hint string) {
	switch {
	case d.verb == Release:
		return SkipNotHeld, ""
	case d.verb == Try || d.verb == Requeue:
		return SkipActive, "" // requeue of what is being sent sends it twice
	case !d.opts.Active:
		return SkipActive, "--active takes it too"
	}
	return "", ""
}

func (d *Draft) sparedOnHold(m *postfix.Message) (why, hint string) {
	h := d.what.Held(m)
	switch {
	case d.verb == Hold:
		return SkipHeld, ""
	case !h.Ours && !d.opts.Foreign:
		return SkipForeign, "--foreign takes it too"
	case h.Remembered && d.verb != Delete:
		// Of a deletion nothing is met again, so nothing is lost by it.
		return SkipHeldActive, "postfix reload starts another queue manager; select again then"
	}
	return d.sparedForm(m)
}

// sparedForm says why a verb cannot do anything with such a message.
func (d *Draft) sparedForm(m *postfix.Message) (why, hint string) {
	switch {
	case d.verb == Requeue && len(m.Bounces) > 0:
		return SkipPending, "the notice that is still to be sent would be lost"
	case len(m.Recipients) == 0 && (d.verb == Requeue || d.verb == Try || d.verb == Expire):
		return SkipFinished, ""
	}
	return "", ""
}

// count looks at what a message adds to the risks.
func (d *Draft) count(m *postfix.Message) {
	if m.ForceExpire || !m.Expires.IsZero() && !d.what.Now.Before(m.Expires) {
		d.counts.old++
	}
	if m.Sender == "" {
		d.counts.null++
	}
	if m.Redirect != "" {
		d.counts.redirected++
	}
	if m.Filter != "" {
		d.counts.filtered++
	}
	if m.Queue == postfix.Active {
		d.counts.active++
	}
}

// recipients counts destinations, each once for a message, and the recipients
// at others than those that the selection asked for.
func (d *Draft) recipients(m *postfix.Message) {
	asked := d.matcher != nil && d.matcher.rcpt.any
	d.recipient = d.recipient[:0]
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if !asked || d.matcher.rcpt.match(r) {
			d.recipient = append(d.recipient, m.DestinationOf(r))
		}
	}
	chosen := len(d.recipient)
	for i := range m.Recipients {
		place := m.DestinationOf(&m.Recipients[i])
		if !slices.Contains(d.recipient[:chosen], place) {
			d.effects.Elsewhere++
			d.recipient = append(d.recipient, place)
		}
	}
	slices.Sort(d.recipient)
	for _, place := range slices.Compact(d.recipient) {
		d.places[Canonical(place)]++
	}
}

// Targets are what is taken, the oldest first.
func (d *Draft) Targets() []Target {
	slices.SortFunc(d.targets, func(a, b Target) int {
		return cmp.Or(a.Arrival.Compare(b.Arrival), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Item, b.Item))
	})
	return d.targets
}

// Places are the destinations of all targets, and how many messages go to each.
func (d *Draft) Places() map[string]int { return d.places }

// Effects are what the plan leads to.
func (d *Draft) Effects() Effects {
	e := d.effects
	e.Senders, e.Destinations = most(d.senders), most(d.places)
	e.MoreSenders, e.MoreDestinations = len(d.senders)-len(e.Senders), len(d.places)-len(e.Destinations)
	e.Sample = sampleOf(d.Targets())
	for _, why := range slices.Sorted(maps.Keys(d.skips)) {
		e.Skipped = append(e.Skipped, *d.skips[why])
	}
	slices.SortStableFunc(e.Skipped, func(a, b Skip) int { return b.Count - a.Count })
	if len(d.targets) > 0 {
		e.Risks = d.risks()
		e.Bars = d.bars()
	}
	e.Back, e.BackWhy = wayBack(d.verb)
	return e
}

// most are the largest tallies, the largest first.
func most(counts map[string]int) []Tally {
	all := make([]Tally, 0, len(counts))
	for name, n := range counts {
		all = append(all, Tally{name, n})
	}
	slices.SortFunc(all, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return slices.Clip(all[:min(len(all), mostNamed)])
}

// sampleOf picks some targets at even distances, the oldest and the newest
// among them.
func sampleOf(targets []Target) []Target {
	n := min(len(targets), mostNamed)
	sample := make([]Target, 0, n)
	for i := range n {
		at := 0
		if n > 1 {
			at = i * (len(targets) - 1) / (n - 1)
		}
		sample = append(sample, targets[at])
	}
	return sample
}

func (d *Draft) risks() []Risk {
	var out []Risk
	add := func(kind string, n int, text string) {
		if n > 0 {
			out = append(out, Risk{Kind: kind, Count: n, Text: text})
		}
	}
	n := len(d.targets)
	switch d.verb {
	case Release, Try:
		add("expires", d.counts.old, "past their time: if the next attempt fails, Postfix returns them to their senders")
	case Hold:
		add("held-active", d.counts.active, "being delivered: they cannot be released before another queue manager runs, and an attempt under way still ends")
	case Requeue:
		add("lifetime", n, "taken in anew: their time in the queue begins again, and what main.cf says now holds for them")
		d.addAnew(add, n)
		add("content-filter", d.counts.filtered, "with a content filter of their own, which the settings of today replace")
		add("redirect", d.counts.redirected, "redirected: that is dropped, and they go to their first recipients")
	case Expire:
		add("backscatter", n-d.counts.null, "notices of failure to senders, who may be forged")
		add("null-sender", d.counts.null, "notices themselves: nobody is told of their end")
	case Delete:
		d.addArriving(&out)
	case Purge:
		add("gone-for-good", n, "gone for good: what was deleted cannot be restored afterwards")
	}
	if d.what.VaultOnSpool && (d.verb == Delete || d.verb == Expire || d.verb == Requeue) {
		add("vault-disk", n, "copies to the vault, which lies on the file system of the queue: no space is won, and one disk holds both")
	}
	return out
}

// addAnew says what the instance's settings do to mail that is taken in once
// more (cleanup(8); pickup(8) spares it from milters alone).
func (d *Draft) addAnew(add func(kind string, n int, text string), n int) {
	set := func(names ...string) string {
		var found []string
		for _, name := range names {
			if slices.Contains(d.what.Instance.Anew, name) {
				found = append(found, name)
			}
		}
		return strings.Join(found, ", ")
	}
	if names := set("always_bcc", "sender_bcc_maps", "recipient_bcc_maps"); names != "" {
		add("bcc", n, "copied once more by "+names+": who had the copy has it twice")
	}
	if names := set("content_filter"); names != "" {
		add("content-filter", n, "sent through "+names+" once more")
	}
	if names := set("header_checks", "mime_header_checks", "nested_header_checks", "body_checks"); names != "" {
		add("checks", n, "looked at once more by "+names+", which may hold, discard or change them")
	}
	if names := set("canonical_maps", "sender_canonical_maps", "recipient_canonical_maps", "virtual_alias_maps", "masquerade_domains"); names != "" {
		add("rewriting", n, "rewritten once more by "+names)
	}
}

// addArriving says from whom more comes while this is planned.
func (d *Draft) addArriving(out *[]Risk) {
	total, names := 0, make(map[string]int)
	for sender := range d.senders {
		if n := d.arriving[sender]; n > 0 {
			total += n
			names[sender] = n
		}
	}
	if total == 0 {
		return
	}
	first := most(names)[0]
	name := first.Name
	if name == "" {
		name = "<>"
	}
	*out = append(*out, Risk{
		Kind: "arriving", Count: total,
		Text: fmt.Sprintf("arrived in the last ten minutes from these senders, %d of them from %s: more may come", first.Count, name),
	})
}

func (d *Draft) bars() []Bar {
	if d.verb == Requeue && !d.opts.Effects {
		return []Bar{{Kind: "guard", Text: "requeue has effects beside its purpose, which nobody accepted", Lift: "--effects accepts them"}}
	}
	return nil
}

// wayBack is the command that takes a verb's plan back. The plan's own ID
// belongs behind it, which cannot stand in what it is the digest of.
func wayBack(v Verb) (argv []string, why string) {
	undo := []string{"holdfast", "undo"}
	switch v {
	case Hold:
		return undo, "lets them go again, at a pace"
	case Release:
		return undo, "holds again what is still queued; what was delivered stays so"
	case Delete:
		return undo, "brings them back from the vault, on hold, until it is purged"
	case Try:
		return nil, "an attempt cannot be taken back"
	case Expire:
		return nil, "what was returned is with its sender; the vault keeps copies"
	case Requeue:
		return nil, "they have other queue IDs afterwards; the vault keeps copies"
	case Restore:
		return nil, "they lie on hold; delete removes them again"
	case Purge:
		return nil, "what is purged is gone for good"
	}
	return nil, ""
}
