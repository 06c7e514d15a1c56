package account

import (
	"slices"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/postfix"
)

// Tolerances of the clock. Lines have stamps of whole seconds that can step back
// by one; a message arrives when the client names its sender, and its first
// line comes with the first recipient, for which a slow client may take
// minutes (smtpd_timeout is 300 s).
const (
	stampSlack = 2 * time.Second
	slowClient = 330 * time.Second
	delaySlack = 5 * time.Second
)

// line is what a fate keeps of the line that tells it.
type line struct {
	at     time.Time
	source string
	text   string
	trust  observe.Trust
}

func lineOf(s *maillog.Step) *line { return &line{s.At, s.Source, s.Text, s.Trust} }

// ending says how the lines of a message end.
type ending uint8

const (
	running   ending = iota
	finished         // removed by qmgr, which says nothing of deliveries
	canceled         // by cleanup, before qmgr knew it
	deleted          // by postsuper
	requeued         // by postsuper
	overtaken        // another message has the ID, and no line ended this one
)

// life is one message as its lines tell of it, from one that begins it to one
// that ends it.
type life struct {
	id  postfix.QueueID
	msg *Message // in the first snapshot
	now *Message // in the second

	started, named, active bool // lines that there were
	promised               bool // another message's line names it: it must exist
	redirected             bool
	older                  bool // it arrived before the first snapshot, which has it not
	size                   int64
	sender                 string
	expected               int // recipients, by qmgr or by our own record

	first, last time.Time
	recipients  []recipient
	end         ending
	ended       *line // the line that did
	expired     *line
	discard     *line
	discardTo   string
	notice      postfix.QueueID
	successor   postfix.QueueID
	born        *deed // what Holdfast gave its ID with
	shadow      *life // of the same ID, told apart by the delays of its lines only
}

// recipient is one recipient of a life.
type recipient struct {
	address string // as it is shown
	key     string
	fate    Fate // "" while no line tells
	line    *line
	next    postfix.QueueID
}

// arrival is when the message arrived, as far as it is known.
func (l *life) arrival() time.Time {
	if l.msg != nil {
		return l.msg.Arrival
	}
	return time.Time{}
}

// lives are all messages of which lines tell.
type lives struct {
	current map[postfix.QueueID]*life
	all     []*life
	from    time.Time // the first look, from its beginning to its end
	seen    time.Time
}

// begin lets a message begin under an ID. One that had it and did not end is
// overtaken: the lines in which it ended are lost.
func (v *lives) begin(id postfix.QueueID, at time.Time) *life {
	if before := v.current[id]; before != nil && before.end == running {
		before.end = overtaken
	}
	l := &life{id: id, first: at, last: at}
	v.current[id] = l
	v.all = append(v.all, l)
	return l
}

// live returns the message that has an ID, or one that begins now.
func (v *lives) live(s *maillog.Step) *life {
	l := v.current[s.ID]
	if l == nil || l.end != running {
		return v.begin(s.ID, s.At)
	}
	return l
}

// step takes the next line.
func (v *lives) step(s *maillog.Step) {
	var l *life
	switch s.Event {
	case maillog.Arrival:
		l = v.arrives(s)
	case maillog.Named:
		if l = v.live(s); (l.named || l.active || !l.started && l.msg != nil) && !v.ownStart(l, s) {
			l = v.begin(s.ID, s.At)
		}
		l.started, l.named = true, true
	case maillog.Active:
		l = v.takenUp(s)
	case maillog.Delivery:
		l = v.about(s)
		l.delivery(s, v.leadsTo(s))
	case maillog.Expired:
		l = v.live(s)
		l.expired = lineOf(s)
	case maillog.Notice:
		l = v.live(s)
		if strings.Contains(s.Text, "non-delivery notification") {
			l.notice = s.NewID
		}
		v.promise(s.NewID, s.At)
	case maillog.Action:
		l = v.action(s)
	case maillog.Finished, maillog.Deleted, maillog.Requeued:
		l = v.ends(s)
	default: // holds: they end nothing
		return
	}
	if l != nil {
		l.last = s.At
	}
}

// ownStart reports whether a line that begins a message is that of a message
// of the first snapshot: it came while one looked, or just before.
func (v *lives) ownStart(l *life, s *maillog.Step) bool {
	return l.msg != nil && !l.named && !s.At.After(v.seen.Add(stampSlack)) &&
		(l.started || !s.At.Before(l.msg.Arrival.Add(-stampSlack)) && s.At.Before(l.msg.Arrival.Add(slowClient)))
}

func (v *lives) arrives(s *maillog.Step) *life {
	l := v.current[s.ID]
	own := l != nil && l.end == running && !l.started &&
		(v.ownStart(l, s) || l.msg != nil && s.OldID != "" && !s.At.After(v.seen.Add(stampSlack)))
	old := v.current[s.OldID] // before the new one begins: it can have the same ID
	if !own {
		l = v.begin(s.ID, s.At)
	}
	l.started = true
	if s.OldID == "" {
		return l
	}
	// pickup names the ID that postsuper -r took the message from. The line of
	// postsuper came before, unless it was lost.
	l.promised = true
	switch {
	case old == nil || old == l || old.successor != "":
	case old.end == requeued || old.end == running || old.end == overtaken && s.OldID == s.ID:
		old.successor = s.ID
		if old.end != requeued {
			old.end, old.ended = requeued, lineOf(s)
		}
	}
	return l
}

// takenUp takes a line of qmgr, which says sender and size: by these, too, one
// message is told from another.
func (v *lives) takenUp(s *maillog.Step) *life {
	l := v.live(s)
	sender := addressKey(s.Sender)
	other := l.active && (l.size != s.Size || l.sender != sender)
	if m := l.msg; m != nil && !other {
		other = m.Size != 0 && m.Size != s.Size || addressKey(m.Sender) != sender
	}
	if other {
		l = v.begin(s.ID, s.At)
	}
	l.active, l.size, l.sender = true, s.Size, sender
	if l.started && l.msg == nil {
		l.expected = s.Recipients
	}
	return l
}

// leadsTo returns the ID under which a delivery says that the message goes on.
// local(8) says so itself. Of a content filter on this host it is the word of
// somebody else, and counts where a message did come in under that ID.
func (v *lives) leadsTo(s *maillog.Step) postfix.QueueID {
	if s.NewID == "" || s.Program == "local" {
		v.promise(s.NewID, s.At)
		return s.NewID
	}
	if next := v.current[s.NewID]; next != nil && next.started && s.NewID != s.ID {
		return s.NewID
	}
	return ""
}

// about finds the message that a delivery line is about. The line says how long
// before it the message arrived, which no other one with its ID can share.
func (v *lives) about(s *maillog.Step) *life {
	arrived := s.At.Add(-s.Delay)
	if l := v.current[s.ID]; l != nil && l.end != running && s.Known && l.fits(arrived) {
		return l // of a delivery that went on when the file was gone
	}
	l := v.live(s)
	if !s.Known {
		return l
	}
	if !l.started && !l.active && l.msg == nil && arrived.Before(v.from.Add(-delaySlack)) {
		l.older = true
	}
	foreign := l.msg == nil && l.started && arrived.After(l.first.Add(delaySlack))
	if at := l.arrival(); !at.IsZero() {
		foreign = arrived.Sub(at).Abs() > delaySlack
	}
	if !foreign {
		return l
	}
	if l.shadow == nil {
		l.shadow = &life{id: s.ID, first: s.At, last: s.At, older: arrived.Before(v.from.Add(-delaySlack))}
		v.all = append(v.all, l.shadow)
	}
	return l.shadow
}

// fits reports whether the message can have arrived at a time.
func (l *life) fits(arrived time.Time) bool {
	if at := l.arrival(); !at.IsZero() {
		return arrived.Sub(at).Abs() <= delaySlack
	}
	return l.started && arrived.Before(l.first.Add(delaySlack)) && arrived.After(l.first.Add(-slowClient))
}

// promise notes that a message with an ID must exist: a notification, or what
// an alias sent on.
func (v *lives) promise(id postfix.QueueID, at time.Time) {
	if id == "" {
		return
	}
	l := v.current[id]
	if l == nil {
		l = v.begin(id, at)
	}
	l.promised = true
}

func (v *lives) action(s *maillog.Step) *life {
	switch s.Action {
	case "discard", "milter-discard":
		l := v.live(s)
		l.discard, l.discardTo = lineOf(s), s.Recipient
		return l
	case "redirect":
		l := v.live(s)
		l.redirected = true
		return l
	}
	return nil
}

// ends takes the last line of a message. A removal by qmgr of a message that is
// not known says nothing: what was removed may have been delivered before the
// log was read.
func (v *lives) ends(s *maillog.Step) *life {
	l := v.current[s.ID]
	if l == nil || l.end != running {
		if s.Event == maillog.Finished {
			return nil
		}
		l = v.begin(s.ID, s.At)
	}
	if s.Event == maillog.Finished && l.shadow != nil && l.shadow.end == running && l.outstanding() > 0 {
		l = l.shadow
	}
	l.ended = lineOf(s)
	switch {
	case s.Event == maillog.Deleted:
		l.end = deleted
	case s.Event == maillog.Requeued:
		l.end = requeued
	case s.Program == "cleanup":
		l.end = canceled
	default:
		l.end = finished
	}
	return l
}

func (l *life) outstanding() int {
	n := 0
	for i := range l.recipients {
		if l.recipients[i].fate == "" {
			n++
		}
	}
	return n
}

// delivery takes what became of one recipient, for now or for good.
func (l *life) delivery(s *maillog.Step, next postfix.QueueID) {
	var fate Fate
	switch {
	case s.Status == "sent" && s.Program == "discard":
		fate = Discarded
	case s.Status == "sent" && next != "":
		fate = Moved
	case s.Status == "sent":
		fate = Delivered
	case s.Status == "bounced":
		fate = Bounced
	}
	r := l.find(s)
	if r == nil || fate == "" {
		return
	}
	told := lineOf(s)
	r.fate, r.line, r.next = fate, told, next
	if l.msg != nil && l.msg.Redirect != "" {
		for i := range l.recipients { // one delivery is that of all
			if other := &l.recipients[i]; other.fate == "" {
				other.fate, other.line, other.next = fate, told, next
			}
		}
	}
}

// find returns the recipient that a line is about, nil where the message has
// none that is still to do: a second line of one that is done says that Postfix
// did it again, as after a crash.
func (l *life) find(s *maillog.Step) *recipient {
	key, done := addressKey(s.Recipient), false
	for i := range l.recipients {
		if r := &l.recipients[i]; r.key == key {
			if r.fate == "" {
				return r
			}
			done = true
		}
	}
	if s.Original != "" && !done {
		original := addressKey(s.Original)
		at := slices.IndexFunc(l.recipients, func(r recipient) bool { return r.key == original && r.fate == "" })
		if at >= 0 && l.msg != nil {
			return &l.recipients[at]
		}
	}
	if l.msg != nil {
		if l.msg.Redirect != "" {
			at := slices.IndexFunc(l.recipients, func(r recipient) bool { return r.fate == "" })
			if at >= 0 {
				return &l.recipients[at]
			}
		}
		if !l.msg.Damaged {
			return nil // it was done when the snapshot was taken
		}
	}
	if done && (s.Status != "sent" && s.Status != "bounced" || len(l.recipients) >= l.expected) {
		return nil
	}
	l.recipients = append(l.recipients, recipient{address: s.Recipient, key: key})
	return &l.recipients[len(l.recipients)-1]
}
