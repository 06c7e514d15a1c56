package present

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"holdfast/postfix"
)

// Order names how messages are sorted.
type Order string

// The orders. Each puts first what an operator looks for first.
const (
	OldestFirst     Order = "age"
	LargestFirst    Order = "size"
	OrderQueue      Order = "queue"
	OrderSender     Order = "sender"
	OrderDest       Order = "destination"
	SoonestFirst    Order = "next-try"
	MostRecipients  Order = "recipients"
	OrderID         Order = "id"
	neverTriedAgain       = math.MaxInt64
)

// Orders lists the orders in the order of the manual.
func Orders() []Order {
	return []Order{OldestFirst, LargestFirst, OrderQueue, OrderSender, OrderDest, SoonestFirst, MostRecipients, OrderID}
}

// Listing collects the places of the messages that are to be shown, in order.
// It keeps sixteen bytes a message, and no message: a million of them are in
// memory once already, in the snapshot. It is used by one goroutine.
type Listing struct {
	order   Order
	reverse bool
	keep    int // 0 keeps all
	rows    []listed
	texts   []string // share the memory of the snapshot
	count   int
}

// listed is a place with what it is sorted by: a number, or the index of a
// text.
type listed struct {
	key int64
	at  int
}

// NewListing returns an empty listing for about size messages, of which it
// keeps the first keep in its order; 0 keeps all.
func NewListing(order Order, reverse bool, keep, size int) *Listing {
	l := &Listing{order: order, reverse: reverse, keep: keep}
	if keep > 0 {
		size = min(size, l.most()+1)
	}
	l.rows = make([]listed, 0, size)
	return l
}

// most is how many rows are collected before those that cannot be among the
// first are let go. A multiple of what is kept makes that rare.
func (l *Listing) most() int { return max(4*l.keep, 1024) }

// Add takes message i of the snapshot.
func (l *Listing) Add(i int, m *postfix.Message) {
	l.count++
	row := listed{at: i}
	switch l.order {
	case OrderSender, OrderDest, OrderID:
		row.key = int64(len(l.texts))
		l.texts = append(l.texts, l.text(m))
	default:
		row.key = l.number(m)
	}
	l.rows = append(l.rows, row)
	if l.keep > 0 && len(l.rows) > l.most() {
		l.cut()
	}
}

func (l *Listing) text(m *postfix.Message) string {
	switch {
	case l.order == OrderSender:
		return m.Sender
	case l.order == OrderID:
		return string(m.ID)
	case len(m.Recipients) > 0:
		return Destination(&m.Recipients[0])
	}
	return ""
}

func (l *Listing) number(m *postfix.Message) int64 {
	switch l.order {
	case LargestFirst:
		return -m.Size
	case OrderQueue:
		return int64(m.Queue)<<56 | micro(Arrived(m))>>8
	case SoonestFirst:
		if m.NextTry.IsZero() || !m.Queue.Scheduled() {
			return neverTriedAgain
		}
		return m.NextTry.UnixMicro()
	case MostRecipients:
		return -int64(len(m.Recipients))
	}
	return micro(Arrived(m))
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// cut sorts the rows and lets go of those that are not kept.
func (l *Listing) cut() {
	slices.SortFunc(l.rows, func(a, b listed) int { return l.compare(a, l, b) })
	if l.keep == 0 || len(l.rows) <= l.keep {
		return
	}
	l.rows = l.rows[:l.keep]
	if l.texts != nil {
		kept := make([]string, 0, l.most()+1)
		for i := range l.rows {
			kept = append(kept, l.texts[l.rows[i].key])
			l.rows[i].key = int64(i)
		}
		l.texts = kept
	}
}

// compare orders a row of l and one of other. Rows that are equal stand in the
// order of the snapshot.
func (l *Listing) compare(a listed, other *Listing, b listed) int {
	var c int
	if l.texts != nil && other.texts != nil {
		c = strings.Compare(l.texts[a.key], other.texts[b.key])
	} else {
		c = cmp.Compare(a.key, b.key)
	}
	if l.reverse {
		c = -c
	}
	return cmp.Or(c, cmp.Compare(a.at, b.at))
}

// Listed is how many messages were added to the listings.
func Listed(listings []*Listing) int {
	n := 0
	for _, l := range listings {
		n += l.count
	}
	return n
}

// Sorted returns the places of the first n messages of all listings together,
// in order. Nothing may be added afterwards.
func Sorted(listings []*Listing, n int) iter.Seq[int] {
	for _, l := range listings {
		l.cut()
	}
	return func(yield func(int) bool) {
		next := make([]int, len(listings))
		for range n {
			best := -1
			for k, l := range listings {
				if next[k] < len(l.rows) && (best < 0 || l.compare(l.rows[next[k]], listings[best], listings[best].rows[next[best]]) < 0) {
					best = k
				}
			}
			if best < 0 || !yield(listings[best].rows[next[best]].at) {
				return
			}
			next[best]++
		}
	}
}
