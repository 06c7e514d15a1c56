package account

import (
	"fmt"
	"slices"
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/postfix"
)

// Balance accounts for what was in from, and for what came since, by what is in
// to. steps reads the log from the place that from names, hands its lines on in
// their order, and says how well they could be read; facts are Holdfast's own
// record, nil where there is none.
func Balance(from, to *Snapshot, steps func(each func(*maillog.Step)) maillog.Trace, facts *Facts) *Book {
	if facts == nil {
		facts = &Facts{}
	}
	b := &balance{
		from: from, to: to, facts: facts,
		lives: lives{current: make(map[postfix.QueueID]*life, len(from.All)), from: from.Head.From, seen: from.Head.To},
	}
	b.open()
	b.trace = steps(b.lives.step)
	b.attach()
	b.bear()
	return b.close()
}

// balance is one Balance.
type balance struct {
	from, to *Snapshot
	facts    *Facts
	lives    lives
	trace    maillog.Trace
	absent   bool // that a file is not in to means that it is gone
	came     map[arrived][]*Message
	book     *Book
}

// open takes the messages of the first snapshot.
func (b *balance) open() {
	b.lives.all = make([]*life, 0, len(b.from.All))
	for i := range b.from.All {
		m := &b.from.All[i]
		l := &life{id: m.ID, msg: m, first: b.from.Head.From, last: b.from.Head.From, sender: addressKey(m.Sender)}
		for _, address := range m.Recipients {
			l.recipients = append(l.recipients, recipient{address: address, key: addressKey(address)})
		}
		// Of two with one ID, the later one came while one looked.
		if before := b.lives.current[m.ID]; before == nil || before.msg.Arrival.Before(m.Arrival) {
			b.lives.current[m.ID] = l
		}
		b.lives.all = append(b.lives.all, l)
	}
}

// arrived tells messages apart that are under another ID than before.
type arrived struct {
	at     int64
	sender string
}

// attach finds for each message of the second snapshot what the lines tell of
// it, if they do.
func (b *balance) attach() {
	later := index(b.to)
	generations := map[postfix.QueueID][]*life{}
	for _, l := range b.lives.all {
		switch {
		case l.msg != nil:
			l.now = later.take(l.msg)
		case !l.first.After(b.to.Head.To.Add(stampSlack)):
			generations[l.id] = append(generations[l.id], l)
		}
	}
	b.came = map[arrived][]*Message{}
	for i := range b.to.All {
		if later.taken[i] {
			continue
		}
		m := &b.to.All[i]
		key := arrived{m.Arrival.UnixMicro(), addressKey(m.Sender)}
		b.came[key] = append(b.came[key], m)
		known := generations[m.ID]
		at := -1
		for k, l := range known { // the last that had begun has the ID
			if l.now == nil && !l.older && l.isIn(b.to, m) {
				at = k
			}
		}
		if at < 0 {
			b.lives.all = append(b.lives.all, &life{id: m.ID, now: m, first: m.Arrival, last: b.to.Head.To})
			continue
		}
		known[at].now = m
	}
}

// isIn reports whether a message of the log can be the one that is queued: it
// did not end before the look, or it arrived when that one did, whatever a line
// says of its end.
func (l *life) isIn(to *Snapshot, m *Message) bool {
	switch {
	case l.active && (l.size != m.Size || l.sender != addressKey(m.Sender)):
		return false
	case l.end == running, l.started && l.fits(m.Arrival):
		return true
	case l.end == overtaken || l.ended == nil:
		return false
	}
	return !l.ended.at.Before(to.Head.From.Add(-stampSlack))
}

// bear sees to it that what Holdfast gave a new ID is accounted for, whatever
// the log says of it.
func (b *balance) bear() {
	if len(b.facts.born) == 0 {
		return
	}
	byID := map[postfix.QueueID][]*life{}
	for _, l := range b.lives.all {
		byID[l.id] = append(byID[l.id], l)
	}
	for _, d := range b.facts.born {
		if slices.ContainsFunc(byID[d.successor], func(l *life) bool {
			return l.msg != nil && l.now != nil && l.msg.is(&Message{Fingerprint: d.target.Fingerprint})
		}) {
			continue // it came back under its own ID and inode, and is what it was
		}
		at := slices.IndexFunc(byID[d.successor], func(l *life) bool { return b.isBorn(l, d) })
		if at < 0 {
			l := &life{id: d.successor, first: d.begun, last: d.at, promised: true, born: d, expected: d.target.Recipients}
			b.lives.all = append(b.lives.all, l)
			continue
		}
		if l := byID[d.successor][at]; l.msg == nil {
			l.promised, l.older, l.born = true, false, d
			if l.expected == 0 { // a new queue file has its own count, a restored one that of long ago
				l.expected = d.target.Recipients
			}
		}
	}
}

// isBorn reports whether a life can be that of a successor. One of the first
// snapshot is, where it was given its ID while that was taken.
func (b *balance) isBorn(l *life, d *deed) bool {
	if l.msg != nil && d.at.After(b.from.Head.To.Add(stampSlack)) {
		return false
	}
	for _, m := range []*Message{l.msg, l.now} {
		if m != nil && m.Inode != 0 && d.inode != 0 {
			return m.Inode == d.inode
		}
	}
	return !l.last.Before(d.begun.Add(-stampSlack))
}

// counts reports whether a message is one of this account: it was there, or it
// came, and not only after the second look.
func (b *balance) counts(l *life) bool {
	switch {
	case l.msg != nil || l.now != nil:
		return true
	case l.older || l.first.After(b.to.Head.To.Add(stampSlack)):
		return false
	case l.end == canceled && !l.active:
		return l.discard != nil
	}
	// A client that names a recipient gets an ID, and may yet go away: only
	// what qmgr or an agent took up did come.
	there := l.active || l.promised || len(l.recipients) > 0 || l.expired != nil || l.discard != nil || l.end == deleted || l.end == requeued
	if !there {
		return false
	}
	late := !l.first.Before(b.to.Head.From.Add(-stampSlack))
	return !late || l.end != running && l.outstanding() == 0
}

// close says of each recipient what became of it.
func (b *balance) close() *Book {
	b.book = &Book{
		Instance: b.from.Instance, From: side(b.from), To: side(b.to), Fates: map[Fate]int{}, Grades: map[Grade]int{},
		Problems: []Problem{}, Holes: slices.Concat([]maillog.Hole{}, b.trace.Holes),
		Gaps: slices.Concat([]observe.Gap{}, b.to.Gaps, b.trace.Gaps), Sources: slices.Concat([]observe.LogSource{}, b.trace.Sources),
	}
	for _, f := range Fates() {
		b.book.Fates[f] = 0
	}
	for _, g := range Grades() {
		b.book.Grades[g] = 0
	}
	b.book.Targets = make([]Target, 0, b.from.Recipients)
	b.look()
	present := 0
	for _, l := range b.lives.all {
		if !b.counts(l) {
			continue
		}
		first := len(b.book.Targets)
		b.judge(l)
		if l.msg != nil {
			present += len(l.msg.Recipients)
			continue
		}
		for i := first; i < len(b.book.Targets); i++ {
			b.book.Targets[i].Arrived = true
		}
	}
	b.sum(present)
	return b.book
}

// look says how well the second look and the log could see.
func (b *balance) look() {
	b.absent, b.book.Seen = true, true
	for _, name := range b.to.Blind {
		b.book.Seen = false
		if name != postfix.Corrupt.String() && name != postfix.Saved.String() {
			b.absent = false
		}
	}
	if slices.ContainsFunc(b.to.Gaps, func(g observe.Gap) bool { return g.Source == string(observe.FromSpool) }) {
		b.absent, b.book.Seen = false, false
	}
	if len(b.trace.Holes) > 0 {
		b.book.Seen = false
	}
}

func side(s *Snapshot) Side {
	return Side{Name: s.Name, From: s.Head.From, To: s.Head.To, Messages: s.Messages, Recipients: s.Recipients}
}

// sum counts, and says where the books do not balance. What was present is
// counted apart from the fates, so that a recipient that was lost on the way
// through this package shows.
func (b *balance) sum(present int) {
	book, arrived, fates := b.book, 0, 0
	bad := map[string]*Problem{}
	var order []string
	for i := range book.Targets {
		t := &book.Targets[i]
		book.Fates[t.Fate]++
		book.Grades[t.Evidence.Grade]++
		if fates++; t.Arrived {
			arrived++
		}
		if t.Fate != Unproven && t.Fate != DeletedByOther {
			continue
		}
		text := t.Evidence.Text
		if t.Fate == DeletedByOther {
			text = "postsuper removed mail, and Holdfast did not ask it to"
		}
		p := bad[text]
		if p == nil {
			p = &Problem{Kind: string(t.Fate), Text: text}
			bad[text], order = p, append(order, text)
		}
		if p.Count++; len(p.Targets) < mostSamples {
			p.Targets = append(p.Targets, *t)
		}
	}
	book.Arrived = arrived
	for _, text := range order {
		book.Problems = append(book.Problems, *bad[text])
	}
	slices.SortStableFunc(book.Problems, func(x, y Problem) int { return y.Count - x.Count })
	if present+arrived != fates {
		book.Problems = append(book.Problems, Problem{Kind: "sum", Text: fmt.Sprintf("%d were there and %d came, and %d have a fate: this is a mistake of Holdfast", present, arrived, fates)})
	}
	book.Balanced = book.Fates[Unproven] == 0 && present+arrived == fates
	if book.Balanced {
		book.Seen = true // what there is to tell was told
	}
}

// mostSamples is how many recipients a problem names.
const mostSamples = 10

// hole returns the hole in the log that a message's lines may have fallen into.
func (b *balance) hole(from, to time.Time) *maillog.Hole {
	for i := range b.trace.Holes {
		h := &b.trace.Holes[i]
		if (h.To.IsZero() || !h.To.Before(from.Add(-stampSlack))) && (h.From.IsZero() || !h.From.After(to.Add(stampSlack))) {
			return h
		}
	}
	return nil
}
