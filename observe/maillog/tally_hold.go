package maillog

import (
	"holdfast/observe"
	"holdfast/postfix"
)

// holding is the last that one part of a log says of a message on hold.
type holding struct {
	hold observe.Hold
	// at is what was known of the message then: whether qmgr had it.
	at message
	// ended: released, requeued or deleted since, which an earlier part's hold
	// has to be told.
	ended bool
}

// hold notes that a message was put on hold.
func (t *Tally) hold(id []byte, h observe.Hold) {
	if !t.o.Detail || id == nil {
		return
	}
	var at message
	if m := t.messages.find(hashOf(id)); m != nil {
		at = *m
	}
	t.keepHold(postfix.QueueID(id), holding{hold: h, at: at})
}

// unhold notes that a message is no longer on hold.
func (t *Tally) unhold(id []byte) {
	if t.o.Detail {
		t.keepHold(postfix.QueueID(id), holding{ended: true})
	}
}

func (t *Tally) keepHold(id postfix.QueueID, h holding) {
	if _, known := t.holds[id]; !known && len(t.holds) >= mostHolds {
		t.dropped++
		return
	}
	t.holds[id] = h
}

// session is one smtpd process. A HOLD for the first recipient is logged before
// the message has an ID ("NOQUEUE: hold: RCPT"); the ID is in the client= line
// that the same process writes next.
type session struct {
	// begun says that something of the process was seen in this part; first is
	// the ID of a client= line, if that was the first thing.
	begun bool
	first postfix.QueueID
	// pending is set by a hold whose message has no ID yet.
	pending bool
	hold    observe.Hold
}

func (t *Tally) session(r *record) *session {
	s, _ := t.sessions.put(uint64(r.pid)) //nolint:gosec // a process ID is not negative
	if s == nil {
		t.dropped++
	}
	return s
}

func (t *Tally) sessionHolds(r *record, h observe.Hold) {
	if s := t.session(r); s != nil {
		s.begun, s.pending, s.hold = true, true, h
	}
}

func (t *Tally) sessionOpens(r *record) {
	s := t.session(r)
	if s == nil {
		return
	}
	if !s.begun {
		s.begun, s.first = true, postfix.QueueID(r.id)
	}
	if s.pending {
		s.pending = false
		t.keepHold(postfix.QueueID(r.id), holding{hold: s.hold})
	}
}

func (t *Tally) sessionEnds(r *record) {
	if len(r.text) == 0 || r.text[0] != 'd' || !hasPrefix(r.text, "disconnect from ") {
		return
	}
	if s := t.session(r); s != nil {
		s.begun, s.pending = true, false
	}
}

// mergeHolds adds the holds of the later part. It must run before
// mergeMessages, since a hold needs what the earlier part says of its message.
func (t *Tally) mergeHolds(later *Tally) {
	later.sessions.each(func(pid uint64, s *session) {
		mine, _ := t.sessions.put(pid)
		if mine == nil {
			t.dropped++
			return
		}
		if mine.pending && s.first != "" {
			if _, known := later.holds[s.first]; !known {
				t.keepHold(s.first, holding{hold: mine.hold})
			}
		}
		if !mine.begun {
			mine.begun, mine.first = s.begun, s.first
		}
		mine.pending, mine.hold = s.pending, s.hold
	})
	for id, h := range later.holds {
		if m := t.messages.find(hashOf([]byte(id))); m != nil && !h.ended {
			h.at = h.at.after(*m)
		}
		t.keepHold(id, h)
	}
}

// onHold returns the holds that stand at the end of the log.
func (t *Tally) onHold() map[postfix.QueueID]observe.Hold {
	holds := make(map[postfix.QueueID]observe.Hold)
	for id, h := range t.holds {
		if h.ended {
			continue
		}
		h.hold.FromActive = h.at.waiting()
		holds[id] = h.hold
	}
	return holds
}
