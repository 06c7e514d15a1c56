package postfix

import "fmt"

// Queue is one of the directories below queue_directory that hold messages.
// The zero value is no queue.
type Queue uint8

// The queues, in the order in which a listing should visit them: a message
// normally moves towards the end of the list while one looks, so that it is
// met twice rather than missed.
const (
	NoQueue Queue = iota
	Deferred
	Incoming
	Active
	Hold
	Maildrop
	Corrupt
	Saved
)

// Queues lists all queues in scanning order.
func Queues() []Queue {
	return []Queue{Deferred, Incoming, Active, Hold, Maildrop, Corrupt, Saved}
}

var queueNames = [...]string{"", "deferred", "incoming", "active", "hold", "maildrop", "corrupt", "saved"}

// String returns the directory name, "" for NoQueue.
func (q Queue) String() string {
	if int(q) < len(queueNames) {
		return queueNames[q]
	}
	return fmt.Sprintf("queue(%d)", uint8(q))
}

// ParseQueue turns a directory name into a Queue.
func ParseQueue(name string) (Queue, error) {
	for i, n := range queueNames {
		if i > 0 && n == name {
			return Queue(i), nil
		}
	}
	return NoQueue, fmt.Errorf("unknown queue %q (there are maildrop, incoming, active, deferred, hold, corrupt, saved)", name)
}

// MarshalText implements encoding.TextMarshaler.
func (q Queue) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; "" is NoQueue.
func (q *Queue) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*q = NoQueue
		return nil
	}
	parsed, err := ParseQueue(string(text))
	if err != nil {
		return err
	}
	*q = parsed
	return nil
}

// Scheduled reports whether qmgr takes messages from this queue by itself
// (qmgr_active_feed in qmgr/qmgr_active.c): a held, corrupt or saved message
// waits for a person.
func (q Queue) Scheduled() bool {
	return q == Deferred || q == Incoming || q == Active || q == Maildrop
}
