package act

import (
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// TestTry: what waits is asked for where it is; what is on hold is let go
// first. A next attempt that was set before says nothing of this one.
func TestTry(t *testing.T) {
	for name, c := range map[string]struct {
		queue   postfix.Queue
		held    bool
		through bool
		state   record.State
		says    string
		now     string
	}{
		"waits, gets through":      {queue: postfix.Deferred, through: true, state: record.Done, says: "left the queue"},
		"waits, put off again":     {queue: postfix.Deferred, state: record.Done, says: "put off again", now: "deferred"},
		"held, gets through":       {queue: postfix.Deferred, held: true, through: true, state: record.Done, says: "left the queue"},
		"held, put off again":      {queue: postfix.Deferred, held: true, state: record.Done, says: "put off again", now: "deferred"},
		"held by somebody else":    {queue: postfix.Hold, state: record.Refused, says: textForeign, now: "hold"},
		"is being delivered":       {queue: postfix.Active, state: record.Already, says: "on its way", now: "active"},
		"nobody serves the flush":  {queue: postfix.Deferred, state: record.Unknown, says: "patience", now: "deferred", through: true},
		"held, nobody serves that": {queue: postfix.Deferred, held: true, state: record.Unknown, says: "patience", now: "deferred", through: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			k := w.message(c.queue, "m1", "one.example")
			future := time.Now().Add(5 * time.Minute)
			if err := os.Chtimes(w.spool.Path(c.queue.String(), k.ID), future, future); err != nil {
				t.Fatal(err)
			}
			if c.held {
				w.do(plan.Hold, plan.Options{}, k)
			}
			if !strings.Contains(name, "nobody") {
				w.serveFlush(map[postfix.QueueID]bool{k.ID: c.through})
			}
			o := one(t, w.do(plan.Try, plan.Options{}, k))
			if o.State != c.state || !strings.Contains(o.Text, c.says) || w.queueOf(k.ID) != c.now {
				t.Errorf("outcome %+v, it is in %q", o, w.queueOf(k.ID))
			}
		})
	}
}
