package present

import (
	"cmp"
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

// Listing collects the places of the messages that are to be shown, and sorts
// them. It keeps some thirty bytes a message and no message: a million of them
// are already in memory once, in the snapshot.
type Listing struct {
	order Order
	rows  []listed
}

type listed struct {
	number int64
	text   string // shares the memory of the snapshot
	at     int
}

// NewListing returns an empty listing.
func NewListing(order Order) *Listing { return &Listing{order: order} }

// Add takes message i of the snapshot.
func (l *Listing) Add(i int, m *postfix.Message) {
	row := listed{at: i}
	switch l.order {
	case LargestFirst:
		row.number = -m.Size
	case OrderQueue:
		row.number = int64(m.Queue)<<56 | micro(Arrived(m))>>8
	case OrderSender:
		row.text = m.Sender
	case OrderDest:
		if len(m.Recipients) > 0 {
			row.text = Destination(&m.Recipients[0])
		}
	case SoonestFirst:
		row.number = neverTriedAgain
		if !m.NextTry.IsZero() && m.Queue.Scheduled() {
			row.number = m.NextTry.UnixMicro()
		}
	case MostRecipients:
		row.number = -int64(len(m.Recipients))
	case OrderID:
		row.text = string(m.ID)
	default:
		row.number = micro(Arrived(m))
	}
	l.rows = append(l.rows, row)
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Len returns the number of messages.
func (l *Listing) Len() int { return len(l.rows) }

// Sorted returns the places of the messages in order, those of all listings
// together. Messages that are equal in it stand in the order of the snapshot.
func Sorted(listings []*Listing, reverse bool) []int {
	var rows []listed
	for _, l := range listings {
		if rows == nil {
			rows = l.rows
			continue
		}
		rows = append(rows, l.rows...)
	}
	slices.SortFunc(rows, func(a, b listed) int {
		c := cmp.Compare(a.number, b.number)
		if c == 0 {
			c = strings.Compare(a.text, b.text)
		}
		if reverse {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.at, b.at))
	})
	places := make([]int, len(rows))
	for i, r := range rows {
		places[i] = r.at
	}
	return places
}
