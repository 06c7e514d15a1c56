package account

import (
	"cmp"
	"fmt"
	"time"

	"holdfast/observe"
	"holdfast/plan"
	"holdfast/postfix"
)

// judge gives each recipient of one message its fate. What is in the queue is
// there, whatever a line says; what is not there and of which no line tells is
// unproven.
func (b *balance) judge(l *life) {
	in := b.queued(l)
	var whole *Target // the fate of those of which no line of their own tells
	for i := range l.recipients {
		r := &l.recipients[i]
		t := Target{ID: l.id, Recipient: r.address}
		switch {
		case in[r.key] > 0:
			in[r.key]--
			b.pending(&t, l)
		case r.fate != "":
			t.Fate, t.Successor = r.fate, r.next
			if r.fate == Bounced {
				t.Notice = l.notice
			}
			t.Evidence = b.evidence(r.line, l)
		case l.now != nil && l.now.Damaged:
			b.pending(&t, l)
			t.Evidence.Grade, t.Evidence.Text = Witnessed, "it is in "+t.Queue+", and not all of it could be read"
		default:
			if whole == nil {
				whole = b.ofWhole(l)
			}
			t.Fate, t.Successor, t.Notice, t.Evidence = whole.Fate, whole.Successor, whole.Notice, whole.Evidence
		}
		b.book.Targets = append(b.book.Targets, t)
	}
	b.unnamed(l, in, whole)
}

// queued counts the recipients that the message has in the second snapshot.
func (b *balance) queued(l *life) map[string]int {
	if l.now == nil {
		return nil
	}
	in := make(map[string]int, len(l.now.Recipients))
	for _, address := range l.now.Recipients {
		in[addressKey(address)]++
	}
	return in
}

func (b *balance) pending(t *Target, l *life) {
	t.Fate, t.Queue = Pending, l.now.Queue.String()
	t.Evidence = Evidence{Grade: Proved, Source: "queue", Text: "it is in " + t.Queue, At: b.to.Head.To}
}

// unnamed accounts for the recipients of which only their number is known, or
// only the queue tells. Those of a message of the first snapshot are all named.
func (b *balance) unnamed(l *life, in map[string]int, whole *Target) {
	if l.msg != nil {
		return
	}
	told := len(l.recipients)
	if l.now != nil {
		for _, address := range l.now.Recipients {
			if key := addressKey(address); in[key] > 0 {
				in[key]--
				told++
				t := Target{ID: l.id, Recipient: address}
				b.pending(&t, l)
				b.book.Targets = append(b.book.Targets, t)
			}
		}
	}
	want := l.expected
	if l.redirected || want == 0 && told == 0 && l.now == nil {
		want = 1 // every message has one; a redirected one is delivered once
	}
	for ; told < want; told++ {
		if whole == nil {
			whole = b.ofWhole(l)
		}
		t := *whole
		t.ID = l.id
		if t.Fate == Discarded {
			t.Recipient = l.discardTo
		}
		b.book.Targets = append(b.book.Targets, t)
	}
}

// evidence grades a line.
func (b *balance) evidence(told *line, l *life) Evidence {
	e := Evidence{Grade: Proved, Source: told.source, Text: told.text, At: told.at}
	from := l.first
	if l.msg == nil && !l.started {
		from = b.from.Head.From
	}
	switch {
	case told.trust != observe.TrustJournal && told.trust != observe.TrustGuarded:
		e.Grade = Claimed // anybody on the host may have written it
	case l.now == nil && !b.absent:
		e.Grade = Claimed // the file may still be there
	case b.hole(from, l.last) != nil:
		e.Grade = Claimed // it may be of another message with this ID
	}
	return e
}

func recorded(d *deed) Evidence {
	return Evidence{Grade: Proved, Source: "record", Text: d.text, At: d.at}
}

// ofWhole says what became of the recipients that no delivery line names: what
// happened to the message as a whole. Only one thing did.
func (b *balance) ofWhole(l *life) *Target {
	t := &Target{ID: l.id, Fate: Unproven}
	outstanding := max(l.outstanding(), 1)
	if l.msg == nil {
		outstanding = 0 // how many there were is not known
	}
	d, others := b.deed(l)
	switch {
	case l.now != nil:
		return b.unproven(t, l, "the message is still queued, but not for this recipient, and no line tells why")
	case d != nil && d.target.Recipients > 0 && outstanding > d.target.Recipients:
		return b.unproven(t, l, "some recipients were done before Holdfast took the message away, and no line tells which")
	case d != nil && d.successor != "":
		t.Fate, t.Successor, t.Evidence = Moved, d.successor, recorded(d)
	case d != nil && d.verb == plan.Delete:
		t.Fate, t.Evidence = Deleted, recorded(d)
		if back := b.facts.items[d.item]; back != nil && d.item != "" {
			t.Fate, t.Successor, t.Evidence = Moved, back.successor, recorded(back)
		}
	case l.expired != nil: // before what ended it: of that the line may be another message's
		t.Fate, t.Notice, t.Evidence = Expired, l.notice, b.evidence(l.expired, l)
	case others && l.expired == nil:
		return b.unproven(t, l, "its queue ID was given to another message, which Holdfast removed, and no line tells how it ended")
	case l.end == deleted && b.facts.open[l.id] != "":
		return b.unproven(t, l, fmt.Sprintf("Holdfast was ended in the middle of %s: holdfast recover finds out", b.facts.open[l.id]))
	case l.end == deleted:
		t.Fate, t.Evidence = DeletedByOther, b.evidence(l.ended, l)
	case l.successor != "":
		t.Fate, t.Successor, t.Evidence = Moved, l.successor, b.evidence(cmp.Or(l.ended, &line{}), l)
	case l.discard != nil && !l.active:
		t.Fate, t.Evidence = Discarded, b.evidence(l.discard, l)
	default:
		return b.unexplained(t, l)
	}
	return t
}

// deed finds what Holdfast's record says was done to a message. others is set
// where the line that ended it is that of what was done to another message with
// its ID, so that how this one ended is not known.
func (b *balance) deed(l *life) (found *deed, others bool) {
	for _, d := range b.facts.deeds[l.id] {
		meanwhile := l.ended != nil && l.ended.at.After(d.begun.Add(-stampSlack)) && l.ended.at.Before(d.at.Add(stampSlack))
		var same bool
		switch {
		case l.msg != nil: // requeued mail keeps its arrival, and may by chance keep ID and inode
			same = l.msg.is(&Message{Fingerprint: d.target.Fingerprint}) && (l.end != requeued || meanwhile)
		case l.active && (l.size != d.target.Size || l.sender != addressKey(d.target.Sender)):
		case l.born != nil && l.now == nil: // it came from the vault, with the arrival that it had
			same = d.target.Arrival.Equal(l.born.target.Arrival) && (l.born.inode == 0 || d.target.Inode == l.born.inode)
		case l.end == deleted || l.end == requeued:
			same = meanwhile
		case l.end == running || l.end == overtaken: // postsuper's line was lost
			same = l.fits(d.target.Arrival) && !l.last.After(d.at.Add(stampSlack)) && !d.at.Before(l.first)
		}
		if same {
			return d, false
		}
		others = others || meanwhile && l.end == deleted
	}
	return nil, others
}

// unexplained is for a message that is gone while nothing tells why. Where one
// with its arrival to the microsecond and its sender is queued under another
// ID, it is that: postsuper -s and pickup give messages new IDs, and both keep
// the arrival.
func (b *balance) unexplained(t *Target, l *life) *Target {
	if m := l.msg; m != nil && m.Arrival.Nanosecond() != 0 {
		found := b.came[arrived{m.Arrival.UnixMicro(), addressKey(m.Sender)}]
		if len(found) == 1 && found[0].ID != m.ID {
			t.Fate, t.Successor = Moved, found[0].ID
			t.Evidence = Evidence{Grade: Witnessed, Source: "queue", Text: "a message with its arrival to the microsecond and its sender is in " + found[0].Queue.String(), At: b.to.Head.To}
			return t
		}
	}
	var why string
	switch l.end {
	case finished:
		why = "the queue manager removed it, and no line tells of a delivery"
	case requeued:
		why = "it was requeued, and no line names its new queue ID"
	case overtaken:
		why = "its queue ID was given to another message, and no line tells how it ended"
	case canceled:
		why = "cleanup removed it"
	case running, deleted:
		why = "it is gone, and no line tells why"
		if l.msg != nil && l.msg.Queue == postfix.Maildrop {
			why = "it left maildrop, and no line names its new queue ID"
		}
	}
	if verb := b.facts.open[l.id]; verb != "" {
		why = fmt.Sprintf("Holdfast was ended in the middle of %s: holdfast recover finds out", verb)
	}
	return b.unproven(t, l, why)
}

// unproven says why nothing is known, and whether it could have been seen.
func (b *balance) unproven(t *Target, l *life, why string) *Target {
	t.Fate = Unproven
	t.Evidence = Evidence{Grade: Unshown, Source: "log", Text: why}
	until := b.to.Head.To
	if l.end != running {
		until = l.last
	}
	h := b.hole(l.first, until)
	switch {
	case !b.absent && l.now == nil:
		t.Evidence.Source, t.Evidence.Text = "queue", "it was not seen in the queue, of which not all could be seen"
	case h != nil:
		t.Evidence.Text += " (" + h.Text + span(h.From, h.To) + ")"
	}
	if l.ended != nil {
		t.Evidence.At = l.ended.at
	}
	return t
}

// span writes the times of a hole.
func span(from, to time.Time) string {
	const form = "2006-01-02 15:04:05 MST"
	text := ""
	if !from.IsZero() {
		text = " from " + from.UTC().Format(form)
	}
	if !to.IsZero() {
		text += " to " + to.UTC().Format(form)
	}
	return text
}
