package present

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"holdfast/postfix"
)

// By names the property that a queue is grouped by.
type By string

// The properties. The first four belong to each recipient, so that a message
// counts once in every group that one of its recipients falls into, and the
// groups add up to more than the messages; the others belong to the message.
const (
	ByDestination By = "destination"
	ByNextHop     By = "next-hop"
	ByCause       By = "cause"
	ByText        By = "text"
	BySender      By = "sender"
	ByClient      By = "client"
	BySASL        By = "sasl"
	ByQueue       By = "queue"
	ByAge         By = "age"
	BySize        By = "size"
)

// AllBy lists the properties in the order of the manual.
func AllBy() []By {
	return []By{ByDestination, ByNextHop, ByCause, ByText, BySender, ByClient, BySASL, ByQueue, ByAge, BySize}
}

// Group is what the messages with one key have in common.
type Group struct {
	Key string
	// Messages counts messages that have at least one recipient here,
	// Recipients the recipients here that are still to do.
	Messages, Recipients int
	// Bytes is the size of the messages.
	Bytes int64
	// Oldest is the earliest arrival, zero where none is known.
	Oldest time.Time
	// Cause is the class of the texts of a group by text.
	Cause postfix.Cause

	domains map[string]struct{} // of the recipients in a group by text
	seen    int                 // the number of the message that was counted last
	rank    int                 // place among groups whose keys have an order of their own
}

// Tally groups messages in one pass. A Tally is used by one goroutine; several
// are merged when all have finished.
type Tally struct {
	by     By
	at     time.Time
	groups map[string]*Group
	total  Group
	texts  map[string]string
}

// mostTexts bounds the memory for reasons that were already reduced. Servers
// that put a serial number into each reply would otherwise fill it.
const mostTexts = 1 << 14

// NewTally counts by a property, with ages as of the given time.
func NewTally(by By, at time.Time) *Tally {
	return &Tally{by: by, at: at, groups: make(map[string]*Group), texts: make(map[string]string)}
}

// Add counts one message. The message is not kept.
func (t *Tally) Add(m *postfix.Message) {
	t.total.Messages++
	t.total.add(m, len(m.Recipients))
	switch t.by {
	case ByDestination, ByNextHop, ByCause, ByText:
		for i := range m.Recipients {
			t.addRecipient(m, &m.Recipients[i])
		}
		return
	}
	key, rank := t.messageKey(m)
	g := t.group(key, rank)
	g.Messages++
	g.add(m, len(m.Recipients))
}

func (t *Tally) addRecipient(m *postfix.Message, r *postfix.Recipient) {
	var key string
	switch t.by {
	case ByDestination:
		key = Destination(r)
	case ByNextHop:
		key = r.NextHop
	case ByCause:
		key = string(r.Cause)
	default:
		key = t.reasonGroup(r)
	}
	g := t.group(key, 0)
	if t.by == ByText {
		g.reason(r)
	}
	if g.seen != t.total.Messages {
		g.seen = t.total.Messages
		g.Messages++
		g.add(m, 0)
	}
	g.Recipients++
}

// reason notes the class of a text and for how many destinations it is given:
// one text for many destinations and many for one are different troubles.
func (g *Group) reason(r *postfix.Recipient) {
	if g.domains == nil {
		g.Cause, g.domains = r.Cause, make(map[string]struct{})
	}
	g.domains[Destination(r)] = struct{}{}
}

// Destinations is how many domains a group by text has recipients in.
func (g Group) Destinations() int { return len(g.domains) }

// reasonGroup reduces a reason, each distinct text once. The recipient is
// taken out first: servers quote it, and the texts would all be different.
func (t *Tally) reasonGroup(r *postfix.Recipient) string {
	text := r.Reason
	if r.Address != "" && strings.Contains(text, r.Address) {
		text = strings.ReplaceAll(text, r.Address, "*")
	}
	if g, ok := t.texts[text]; ok {
		return g
	}
	g := postfix.ReasonGroup(text)
	if len(t.texts) < mostTexts {
		t.texts[text] = g
	}
	return g
}

func (t *Tally) messageKey(m *postfix.Message) (key string, rank int) {
	switch t.by {
	case BySender:
		return m.Sender, 0
	case ByClient:
		return Client(m), 0
	case BySASL:
		return m.SASLUser, 0
	case ByQueue:
		return m.Queue.String(), int(m.Queue)
	case ByAge:
		return ageKey(m, t.at)
	}
	return sizeKey(m.Size)
}

func (t *Tally) group(key string, rank int) *Group {
	g := t.groups[key]
	if g == nil {
		g = &Group{Key: key, rank: rank}
		t.groups[key] = g
	}
	return g
}

func (g *Group) add(m *postfix.Message, recipients int) {
	g.Recipients += recipients
	g.Bytes += m.Size
	if at := Arrived(m); !at.IsZero() && (g.Oldest.IsZero() || at.Before(g.Oldest)) {
		g.Oldest = at
	}
}

// Merge adds what another Tally of other messages has counted.
func (t *Tally) Merge(other *Tally) {
	t.total.merge(&other.total)
	for key, g := range other.groups {
		t.group(key, g.rank).merge(g)
	}
}

func (g *Group) merge(other *Group) {
	g.Messages += other.Messages
	g.Recipients += other.Recipients
	if g.domains == nil {
		g.Cause, g.domains = other.Cause, other.domains
	} else {
		maps.Copy(g.domains, other.domains)
	}
	g.Bytes += other.Bytes
	if g.Oldest.IsZero() || !other.Oldest.IsZero() && other.Oldest.Before(g.Oldest) {
		g.Oldest = other.Oldest
	}
}

// Total is the sum over messages: each counts once, whatever its groups.
func (t *Tally) Total() Group { return t.total }

// Groups returns the groups, the largest first; ages, sizes and queues in
// their own order.
func (t *Tally) Groups() []Group {
	out := make([]Group, 0, len(t.groups))
	for _, g := range t.groups {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.Messages, a.Messages),
			cmp.Compare(b.Recipients, a.Recipients), strings.Compare(a.Key, b.Key))
	})
	return out
}

// Arrived is the time that ages count from: the first arrival, or the creation
// of the queue file where a damaged one does not tell.
func Arrived(m *postfix.Message) time.Time {
	if m.Arrival.IsZero() {
		return m.Created
	}
	return m.Arrival
}

// Destination is the domain of the recipient, "" for an address without one.
func Destination(r *postfix.Recipient) string { return r.Domain() }

// Client is where the message came from, in the form of Postfix's own log:
// name[address]. It is empty for mail that was submitted on the host itself.
func Client(m *postfix.Message) string {
	if m.Client.Name == "" && m.Client.Address == "" {
		return ""
	}
	if m.Client.Address == "" {
		return m.Client.Name
	}
	return m.Client.Name + "[" + m.Client.Address + "]"
}

// sizeKeys are the groups of sizes, by what a message must stay below.
var sizeKeys = [...]struct {
	below int64
	key   string
}{
	{1 << 10, "under 1k"},
	{10 << 10, "1k to 10k"},
	{100 << 10, "10k to 100k"},
	{1 << 20, "100k to 1M"},
	{10 << 20, "1M to 10M"},
	{100 << 20, "10M to 100M"},
}

func sizeKey(size int64) (string, int) {
	for i, s := range sizeKeys {
		if size < s.below {
			return s.key, i
		}
	}
	return "100M and more", len(sizeKeys)
}
