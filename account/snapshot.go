package account

import (
	"slices"
	"time"

	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/plan"
	"holdfast/postfix"
)

// Head is the first line of a snapshot: what one wants to know before all of it
// is read.
type Head struct {
	Schema   string    `json:"schema"`
	Name     string    `json:"name,omitempty"`
	Instance string    `json:"instance"`
	Host     string    `json:"host,omitempty"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Note     string    `json:"note,omitempty"` // why it was taken, in the operator's words
	// Source is how the queue was seen.
	Source observe.Source `json:"source"`
	// Blind are the queues that could not be looked at.
	Blind      []string         `json:"blind,omitempty"`
	Messages   int              `json:"messages"`
	Recipients int              `json:"recipients"`
	Queues     map[string]Shape `json:"queues"`
	Gaps       []observe.Gap    `json:"gaps"`
	// Log is the place behind the last line when the look began.
	Log maillog.Position `json:"log,omitzero"`
	// Triage is what was found at the same time, nil where nobody looked.
	Triage *Triage `json:"triage,omitempty"`
}

// Triage is what a triage found when the snapshot was taken: causes with their
// evidence, what asking the surroundings gave, and the pressure on the host.
type Triage struct {
	State    diagnose.State     `json:"state"`
	Sentence string             `json:"sentence"`
	Findings []diagnose.Finding `json:"findings"`
	Flow     observe.Flow       `json:"flow"`
	Host     *observe.Host      `json:"host,omitempty"`
}

// Shape is the size of one queue.
type Shape struct {
	Messages int       `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"`
}

// Message is one message of a snapshot, with the recipients that were still to
// do.
type Message struct {
	postfix.Fingerprint
	Queue      postfix.Queue `json:"queue"`
	Recipients []string      `json:"recipients"`
	// Redirect is where it goes in place of its recipients.
	Redirect string `json:"redirect,omitempty"`
	// Damaged is set where the file is not complete, and its recipients may not
	// be either.
	Damaged bool `json:"damaged,omitempty"`
}

// Snapshot is what was in the queue of one instance.
type Snapshot struct {
	Head
	All []Message
}

// Take keeps of what was seen what an account needs. log is the place in the
// log before the look.
func Take(seen *observe.Snapshot, log maillog.Position) *Snapshot {
	s := &Snapshot{
		Head: Head{
			Schema: schema, Instance: seen.Instance.Name, Host: seen.Instance.Hostname, From: seen.From.UTC(), To: seen.To.UTC(),
			Source: seen.Source, Queues: map[string]Shape{}, Gaps: slices.Concat([]observe.Gap{}, seen.Gaps), Log: log,
		},
		All: make([]Message, 0, seen.Len()),
	}
	for _, q := range postfix.Queues() {
		if shape := seen.Shape(q); shape.Known {
			s.Queues[q.String()] = Shape{shape.Messages, shape.Bytes, shape.Oldest}
		} else {
			s.Blind = append(s.Blind, q.String())
		}
	}
	seen.Each(func(m *postfix.Message) bool {
		one := Message{
			Fingerprint: m.Fingerprint(seen.Instance.Name), Queue: m.Queue, Damaged: m.Damage != "",
			Redirect: plan.Canonical(m.Redirect), Recipients: make([]string, len(m.Recipients)),
		}
		one.Sender = plan.Canonical(one.Sender)
		for i := range m.Recipients {
			one.Recipients[i] = plan.Canonical(m.Recipients[i].Address)
		}
		s.Recipients += len(one.Recipients)
		s.All = append(s.All, one)
		return true
	})
	s.Messages = len(s.All)
	return s
}

// is reports whether two messages are one. Where only showq was asked there is
// no inode, and no arrival finer than a second.
func (m *Message) is(other *Message) bool {
	if m.ID != other.ID {
		return false
	}
	if m.Inode != 0 && other.Inode != 0 {
		return m.Inode == other.Inode && m.Arrival.Equal(other.Arrival)
	}
	return m.Arrival.Truncate(time.Second).Equal(other.Arrival.Truncate(time.Second)) && m.Size == other.Size
}

// Diff is what differs between two snapshots.
type Diff struct {
	// Came and Left are messages that are in one of them only, Stayed those in
	// both, Progressed those of them that have fewer recipients to do, and
	// Switched those that are in another queue.
	Came, Left                   []Message
	Stayed, Progressed, Switched int
	// Between counts the switches by "deferred to hold".
	Between map[string]int
}

// Compare says what differs between two snapshots of one instance. What became
// of what left is for Balance to say.
func Compare(a, b *Snapshot) Diff {
	d := Diff{Between: map[string]int{}}
	later := index(b)
	for i := range a.All {
		m := &a.All[i]
		now := later.take(m)
		if now == nil {
			d.Left = append(d.Left, *m)
			continue
		}
		d.Stayed++
		if len(now.Recipients) < len(m.Recipients) {
			d.Progressed++
		}
		if now.Queue != m.Queue {
			d.Switched++
			d.Between[m.Queue.String()+" to "+now.Queue.String()]++
		}
	}
	for i := range b.All {
		if !later.taken[i] {
			d.Came = append(d.Came, b.All[i])
		}
	}
	return d
}

// lookup finds the messages of a snapshot by ID, each once. A queue of two
// thousand million messages fits on no disk, so that places are 32 bits.
type lookup struct {
	s     *Snapshot
	byID  map[postfix.QueueID]int32
	next  []int32 // the one before with the same ID, -1 for none
	taken []bool
}

func index(s *Snapshot) *lookup {
	l := &lookup{s: s, byID: make(map[postfix.QueueID]int32, len(s.All)), next: make([]int32, len(s.All)), taken: make([]bool, len(s.All))}
	for i := range s.All {
		before, ok := l.byID[s.All[i].ID]
		if !ok {
			before = -1
		}
		l.next[i] = before
		l.byID[s.All[i].ID] = int32(i)
	}
	return l
}

// take returns the message that is the given one, and does not find it again.
func (l *lookup) take(m *Message) *Message {
	i, ok := l.byID[m.ID]
	if !ok {
		return nil
	}
	for ; i >= 0; i = l.next[i] {
		if !l.taken[i] && l.s.All[i].is(m) {
			l.taken[i] = true
			return &l.s.All[i]
		}
	}
	return nil
}
