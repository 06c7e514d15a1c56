package maillog

import (
	"bytes"

	"holdfast/observe"
)

// Merge adds a tally of the lines that follow those of t. later must not be
// used afterwards. Both must have the same Options.
func (t *Tally) Merge(later *Tally) {
	t.trust = leastTrusted(t.trust, later.trust)
	t.lines += later.lines
	t.other += later.other
	t.unread += later.unread
	t.suspect += later.suspect
	t.dropped += later.dropped
	t.unreadSamples = mergeSamples(t.unreadSamples, later.unreadSamples)
	t.suspectSamples = mergeSamples(t.suspectSamples, later.suspectSamples)
	t.first, t.last = spanFirst(t.first, later.first), spanLast(t.last, later.last)

	addFlow(&t.total, &later.total)
	t.extra.bytes += later.extra.bytes
	t.extra.forwarded += later.extra.forwarded
	t.extra.rejectWarnings += later.extra.rejectWarnings
	t.extra.discarded += later.extra.discarded
	t.extra.notifications += later.extra.notifications

	t.minute = nil // the ranking may move it
	t.minutes.merge(&later.minutes, func(mine, m *minute) { addFlow(&mine.flow, &m.flow) })
	t.deferred.merge(&later.deferred)
	for i := range later.traffic.domains.items {
		d := &later.traffic.domains.items[i]
		orphans := d.orphans
		d.orphans = nil
		for _, id := range orphans {
			d.witness(id, t.takenUp)
		}
	}
	t.traffic.merge(&later.traffic)
	t.troubles.merge(&later.troubles, func(mine, x *trouble) {
		mine.count += x.count
		mine.last, mine.text = x.last, x.text
	})
	t.mergeHolds(later)
	t.mergeMessages(later)
	t.leftOver += later.leftOver
}

func mergeSamples(mine, later []string) []string {
	return append(mine, later[:min(len(later), mostSamples-len(mine))]...)
}

// spanFirst and spanLast choose by place in the log, not by time.
func spanFirst(mine, later int64) int64 {
	if mine != 0 {
		return mine
	}
	return later
}

func spanLast(mine, later int64) int64 { return spanFirst(later, mine) }

func addFlow(mine, f *observe.Flow) {
	mine.Arrived += f.Arrived
	mine.Delivered += f.Delivered
	mine.Deferred += f.Deferred
	mine.Suspended += f.Suspended
	mine.Bounced += f.Bounced
	mine.Expired += f.Expired
	mine.Rejected += f.Rejected
	mine.Held += f.Held
}

// merge puts the items of the later ranking into r; both gives what one key has
// in both.
func (r *ranking[E]) merge(later *ranking[E], both func(mine, e *E)) {
	r.lost += later.lost
	for i, key := range later.keys {
		if mine := r.find(key); mine != nil {
			both(mine, &later.items[i])
			continue
		}
		r.add(key, later.items[i])
	}
}

func (t *traffic) merge(later *traffic) {
	t.domains.merge(&later.domains, mergeDomain)
	t.servers.merge(&later.servers, mergeServer)
	t.reasons.merge(&later.reasons, func(mine, x *reason) {
		mine.deferred += x.deferred
		mine.bounced += x.bounced
	})
	t.senders.merge(&later.senders, func(mine, s *sender) {
		mine.messages += s.messages
		mine.bytes += s.bytes
	})
}

func mergeDomain(mine, d *domain) {
	addFlow(&mine.flow, &d.flow)
	if d.flow.Deferred > 0 {
		mine.after, mine.orphans = d.after, d.orphans
	} else {
		mine.after += d.after
		mine.orphans = append(mine.orphans, d.orphans[:min(len(d.orphans), mostOrphans-len(mine.orphans))]...)
	}
	mine.firstDelivered = spanFirst(mine.firstDelivered, d.firstDelivered)
	mine.lastDelivered = spanLast(mine.lastDelivered, d.lastDelivered)
	mine.firstDeferred = spanFirst(mine.firstDeferred, d.firstDeferred)
	mine.lastDeferred = spanLast(mine.lastDeferred, d.lastDeferred)
	if d.flow.Delivered > 0 {
		mine.relay = bytes.Clone(d.relay)
	}
	for i := range d.reasons {
		x := &d.reasons[i]
		y := mine.reason(x.cause, x.first)
		y.attempts += x.attempts
		y.last, y.text, y.relay = x.last, x.text, x.relay
	}
}

func mergeServer(mine, s *server) {
	mine.delivered += s.delivered
	mine.deferred += s.deferred
	mine.bounced += s.bounced
	mine.lastDelivered = spanLast(mine.lastDelivered, s.lastDelivered)
	if s.deferred+s.bounced > 0 {
		mine.lastFailed, mine.cause = s.lastFailed, s.cause
	}
}
