package maillog

import (
	"math"

	"holdfast/observe"
)

// message is what one part of a log says of one queue ID. A part may begin in
// the middle of a message's life: then the numbers count from there, and after
// puts the parts together.
type message struct {
	// Of the first time in this part that qmgr took the message up, unless it
	// is known from this part alone that it was not up before.
	sender uint64
	size   int64

	nrcpt  uint32 // recipients, as qmgr said last
	finals uint32 // recipients that are done with
	before uint32 // of these, before qmgr took the message up last
	since  uint32 // recipients tried since
	acts   uint16 // how often qmgr took it up
	flags  uint8
}

const (
	isBorn    = 1 << iota // its beginning is in this part
	isArrived             // it came in from outside
	isNamed               // what is first seen of it is its message-id
	isReset               // whatever an earlier part says of this ID is of another life
	isForeign             // this part has lines of an earlier life
	isGone                // it left the queue
	isIdle                // qmgr let go of it
	isCounted             // sender and size are set
)

func (m *message) is(flag uint8) bool { return m.flags&flag != 0 }

// waiting says whether qmgr still has recipients of the message before it, as
// far as the log tells. It goes by number, since a message with one recipient
// tried and another waiting is in memory all the same. Where earlier attempts
// are not in the log it errs to yes, which costs a reload and no mail.
func (m *message) waiting() bool {
	return m.acts > 0 && !m.is(isGone|isIdle) && int64(m.nrcpt) > int64(m.before)+int64(m.since)
}

// after returns the life of a message whose earlier part is e.
func (m message) after(e message) message {
	first := e // what is known of the first life stays that of the earlier part
	if !e.is(isCounted|isReset) && !m.is(isNamed) {
		first = m
	}
	switch {
	case m.is(isReset):
		if m.is(isNamed) && e.fresh() {
			m.flags |= e.flags & isArrived
		}
		m.flags |= isForeign
		if e.is(isBorn) && !e.is(isForeign) && m.is(isBorn) {
			m.flags &^= isForeign
		}
	case e.is(isGone):
		m.flags |= isReset | isForeign
	default:
		if m.acts == 0 {
			m.nrcpt, m.before, m.since = e.nrcpt, e.before, e.since+m.since
			m.flags |= e.flags & isIdle
		} else {
			m.before += e.finals
		}
		m.finals += e.finals
		m.acts = uint16(min(uint32(m.acts)+uint32(e.acts), math.MaxUint16))
		m.flags |= e.flags & (isBorn | isArrived | isReset | isForeign)
	}
	m.sender, m.size = first.sender, first.size
	m.flags = m.flags&^(isCounted|isNamed) | first.flags&isCounted | e.flags&isNamed
	return m
}

// fresh says whether the message has come in and qmgr has not seen it yet.
func (m *message) fresh() bool { return m.is(isBorn) && m.acts == 0 && !m.is(isGone) }

// whole says whether the message's beginning is known from this part alone, so
// that nothing of it is left to tell once it has gone. Of a message that begins
// with its message-id, the client= may be at the end of the part before.
func (m *message) whole() bool { return m.flags&(isBorn|isForeign|isNamed) == isBorn }

// entry returns the entry of a key, nil where there is no room. What has gone
// makes room first: it matters only to the merge with an earlier part.
func (t *Tally) entry(key uint64) (m *message, added bool) {
	if m, added = t.messages.put(key); m != nil {
		return m, added
	}
	// Not for a handful, or each line would go through the whole table.
	if t.leftOver < mostMessages/16 {
		t.dropped++
		return nil, false
	}
	t.leftOver = 0
	var over []uint64
	t.messages.each(func(key uint64, m *message) {
		if m.is(isGone) {
			over = append(over, key)
		}
	})
	for _, key := range over {
		t.messages.remove(key)
	}
	return t.messages.put(key)
}

// message returns the entry of an ID; nil where there are too many.
func (t *Tally) message(id []byte) *message {
	m, added := t.entry(hashOf(id))
	switch {
	case m == nil:
	case !added && m.is(isGone):
		// Another message with a short ID that was used before.
		*m = message{sender: m.sender, size: m.size, flags: m.flags&(isCounted|isNamed) | isReset | isForeign}
	}
	return m
}

func (t *Tally) arrival(r *record) {
	if len(r.otherID) > 0 { // postsuper -r: the message was here before
		t.born(r.id, false)
		return
	}
	t.count(func(f *observe.Flow) { f.Arrived++ })
	t.born(r.id, true)
	if t.o.Detail {
		t.sessionOpens(r)
	}
}

// born begins a message: at client= or uid= where it arrived, else at the
// message-id, which those that arrived have as well.
func (t *Tally) born(id []byte, arrived bool) {
	m, added := t.entry(hashOf(id))
	if m == nil {
		return
	}
	if !arrived && !added && m.fresh() {
		return
	}
	was := *m
	*m = message{flags: isBorn | isReset}
	switch {
	case arrived:
		m.flags |= isArrived
	case added:
		m.flags |= isNamed
	}
	if !added && (!was.is(isBorn) || was.is(isForeign)) {
		m.flags |= isForeign
	}
	if !added {
		m.sender, m.size = was.sender, was.size
		m.flags |= was.flags & (isCounted | isNamed)
	}
}

func (t *Tally) active(r *record) {
	key := hashOf(r.sender)
	m := t.message(r.id)
	if m == nil {
		return
	}
	if m.acts == 0 {
		t.traffic.sent(key, r.sender, r.size)
		if m.is(isArrived) {
			t.extra.bytes += r.size
		}
		if !m.is(isReset|isCounted) || m.flags&(isNamed|isForeign|isCounted) == isNamed {
			m.sender, m.size = key, r.size
			m.flags |= isCounted
		}
	}
	m.nrcpt = uint32(min(r.recipients, math.MaxUint32)) //nolint:gosec // clamped
	m.before, m.since = m.finals, 0
	m.flags &^= isIdle
	if m.acts < math.MaxUint16 {
		m.acts++
	}
}

// tried notes that one recipient of a message was tried.
func (t *Tally) tried(id []byte, final bool) {
	if m := t.message(id); m != nil {
		m.since++
		if final {
			m.finals++
		}
	}
}

// letGo notes that qmgr has done with a message for now.
func (t *Tally) letGo(id []byte) {
	if !t.o.Detail {
		return
	}
	if m := t.message(id); m != nil {
		m.flags |= isIdle
	}
}

// gone ends a message. Where its beginning was in this part nothing need be
// kept; else its end must be told to the part before.
func (t *Tally) gone(r *record) {
	if r.event == Deleted {
		t.unhold(r.id)
	}
	key := hashOf(r.id)
	if m := t.messages.find(key); m != nil && m.whole() {
		t.messages.remove(key)
		return
	}
	if m, _ := t.entry(key); m != nil {
		m.flags |= isGone
		t.leftOver++
	}
}

// mergeMessages puts the lives of the messages of two parts together, and
// takes back what the later one counted for want of the earlier.
func (t *Tally) mergeMessages(later *Tally) {
	var over []uint64
	later.messages.each(func(key uint64, m *message) {
		e, added := t.entry(key)
		if e == nil {
			return
		}
		if added {
			*e = *m
			return
		}
		if m.is(isCounted) {
			t.correct(e, m)
		}
		*e = m.after(*e)
		if e.is(isGone) && e.whole() {
			over = append(over, key)
		}
	})
	for _, key := range over {
		t.messages.remove(key)
	}
}

// correct repairs what a part counted of a message that qmgr took up there
// first, as it seemed.
func (t *Tally) correct(e, later *message) {
	switch {
	case e.is(isGone), later.is(isNamed) && !e.fresh():
		return
	case e.acts > 0:
		t.traffic.unsent(later.sender, later.size)
	case e.is(isArrived):
		t.extra.bytes += later.size
	}
}
