// Package observe holds what was seen: a Snapshot of one instance's queue,
// taken over an interval, and the Gaps in it. Its sub-packages do the looking.
//
// Invariant: what could not be read is a Gap and never an empty list, a zero
// or a healthy answer; a Snapshot does not change once it is built.
//
// Nothing below this package changes anything: no file is written, no lock is
// taken, no access time is touched.
package observe

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"holdfast/postfix"
)

// Gap is something that could not be seen.
type Gap struct {
	// Source is what was asked: "spool", "showq", "defer log", "postconf", ...
	Source string `json:"source"`
	// Object is what could not be read: a path, a socket, a parameter.
	Object string `json:"object,omitempty"`
	// Text says why, as the system said it.
	Text string `json:"text"`
	// Hint says what would let it be seen.
	Hint string `json:"hint,omitempty"`
	// Count is how many objects of the same kind this gap stands for, where it
	// is more than one; Object is then the first of them.
	Count int `json:"count,omitempty"`
}

// String returns the gap as one line.
func (g Gap) String() string {
	s := g.Source
	if g.Object != "" {
		s += " " + g.Object
	}
	s += ": " + g.Text
	if g.Count > 1 {
		s += fmt.Sprintf(" (and %d more)", g.Count-1)
	}
	return s
}

// Stray is a file in the spool that is not a message where Postfix would look
// for it.
type Stray struct {
	Path string    `json:"path"` // relative to the queue directory
	Kind StrayKind `json:"kind"`
	// Size is in bytes, Modified is the mtime.
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified,omitzero"`
}

// StrayKind says what is odd about a file.
type StrayKind string

// The kinds of stray files.
const (
	// Unfinished: mode without all of 0700, being written or left by a crash
	// (global/mail_open_ok.c). postsuper -p removes it after a while.
	Unfinished StrayKind = "unfinished"
	// Misplaced: a message in a hash directory where Postfix does not look for
	// it (hash_queue_depth or hash_queue_names was changed).
	Misplaced StrayKind = "misplaced"
	// Repair: left by an interrupted postsuper run (name ends in "#FIX").
	Repair StrayKind = "repair"
	// NotRegular: a link, pipe, socket, device or directory in place of a file.
	NotRegular StrayKind = "not-regular"
	// HardLinked: a file with more than one name; Postfix refuses or, in
	// maildrop, deletes it.
	HardLinked StrayKind = "hard-linked"
	// ForeignName: a name that is no queue ID.
	ForeignName StrayKind = "foreign-name"
	// ForeignOwner: a file that does not belong to the mail owner.
	ForeignOwner StrayKind = "foreign-owner"
)

// Source says how a Snapshot was taken.
type Source string

// The ways to look at a queue.
const (
	FromSpool Source = "spool"
	FromShowq Source = "showq"
)

// QueueShape is the size of one queue.
type QueueShape struct {
	Messages int       `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"-"`
	// Known is false where the queue could not be looked at: the zeroes then
	// mean nothing.
	Known bool `json:"-"`
}

// Snapshot is what was seen of one instance's queue between From and To. A
// listing is not a moment: messages move while one looks. A message is here if
// it was met in either of two looks, in the queue where it was met last.
type Snapshot struct {
	Instance postfix.Instance
	From, To time.Time
	Source   Source
	Gaps     []Gap
	Strays   []Stray
	// Probes counts address verification probes (sendmail -bv and Postfix's
	// own), which are not mail and are left out.
	Probes int
	// Vanished counts names that were listed but gone when they were opened,
	// and not met again: delivered, most likely; nothing here proves it.
	Vanished int

	shapes [8]QueueShape
	routes map[string]string // next hop by recipient domain, from transport tables
	shards []*Shard
	starts []int // index of the first message of each shard
	length int
}

// Len returns the number of messages.
func (s *Snapshot) Len() int { return s.length }

// Shape returns the size of one queue.
func (s *Snapshot) Shape(q postfix.Queue) QueueShape { return s.shapes[q] }

// At fills m with message i, 0 <= i < Len(). The slices of m are reused and
// its strings share the snapshot's memory: m.Clone keeps a message beyond the
// next call. Different goroutines may call At with different m.
func (s *Snapshot) At(i int, m *postfix.Message) {
	k := len(s.starts) - 1
	for s.starts[k] > i {
		k--
	}
	s.shards[k].Get(i-s.starts[k], m)
	m.Expires = s.Instance.Expires(m.Created, m.Sender)
	RouteMessage(m, s.routes)
}

// Route adds what the transport tables say: the next hop of each recipient
// domain that they send elsewhere. It is called before the Snapshot is handed
// out.
func (s *Snapshot) Route(byDomain map[string]string) { s.routes = byDomain }

// RouteMessage sets the next hops of one message by such a table. A content
// filter comes before any table.
func RouteMessage(m *postfix.Message, byDomain map[string]string) {
	if len(byDomain) == 0 || m.Filter != "" {
		return
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if hop, ok := byDomain[m.DestinationOf(r)]; ok {
			r.NextHop = hop
		}
	}
}

// Domains returns the domains that mail is to go to, each once.
func (s *Snapshot) Domains() []string {
	seen := make(map[string]bool)
	s.Each(func(m *postfix.Message) bool {
		for i := range m.Recipients {
			seen[m.DestinationOf(&m.Recipients[i])] = true
		}
		return true
	})
	return slices.Sorted(maps.Keys(seen))
}

// Each calls f for every message until f returns false. The message is lent:
// it is overwritten by the next call.
func (s *Snapshot) Each(f func(*postfix.Message) bool) {
	var m postfix.Message
	for i := range s.length {
		s.At(i, &m)
		if !f(&m) {
			return
		}
	}
}

// Find returns the messages with the given ID. More than one is possible: the
// ID of a finished message can be given to a new one while one looks.
func (s *Snapshot) Find(id postfix.QueueID) []*postfix.Message {
	var found []*postfix.Message
	s.Each(func(m *postfix.Message) bool {
		if m.ID == id {
			found = append(found, m.Clone())
		}
		return true
	})
	return found
}

// Build makes a Snapshot of what the shards hold. known lists the queues that
// were looked at; the others are unknown, not empty.
func Build(in postfix.Instance, source Source, from, to time.Time, known []postfix.Queue, shards []*Shard) *Snapshot {
	s := &Snapshot{Instance: in, From: from, To: to, Source: source, shards: shards}
	for _, q := range known {
		s.shapes[q].Known = true
	}
	var oldest [len(s.shapes)]int64
	for _, shard := range shards {
		s.starts = append(s.starts, s.length)
		s.length += shard.Len()
		for i := range shard.count {
			r := shard.row(i)
			shape := &s.shapes[r.queue]
			shape.Messages++
			shape.Bytes += r.size
			if r.arrival != 0 && (oldest[r.queue] == 0 || r.arrival < oldest[r.queue]) {
				oldest[r.queue] = r.arrival
			}
		}
	}
	for q := range s.shapes {
		s.shapes[q].Oldest = fromMicro(oldest[q])
	}
	if len(s.starts) == 0 {
		s.starts = []int{0}
		s.shards = []*Shard{NewShard()}
	}
	return s
}
