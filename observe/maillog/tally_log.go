package maillog

import (
	"cmp"
	"slices"

	"holdfast/observe"
	"holdfast/postfix"
)

// Log returns what triage needs. Sources are the caller's to add.
func (t *Tally) Log() *observe.Log {
	l := &observe.Log{
		Trust: t.trust, From: timeOf(t.first), To: timeOf(t.last),
		Lines: t.lines, Other: t.other, Unread: t.unread, Suspect: t.suspect,
		UnreadSamples: slices.Clone(t.unreadSamples), SuspectSamples: slices.Clone(t.suspectSamples),
		Total:   t.total,
		Domains: make(map[string]*observe.LogDomain, len(t.traffic.domains.items)),
		Servers: make(map[string]*observe.LogServer, len(t.traffic.servers.items)),
		Dropped: t.dropped + t.traffic.domains.lost + t.traffic.servers.lost + t.troubles.lost,
		Holds:   t.onHold(),
	}
	for i := range t.minutes.items {
		m := &t.minutes.items[i]
		l.Minutes = append(l.Minutes, observe.FlowMinute{Start: timeOf(m.start), Flow: m.flow})
	}
	slices.SortFunc(l.Minutes, func(a, b observe.FlowMinute) int { return a.Start.Compare(b.Start) })
	for i := range t.traffic.domains.items {
		d := &t.traffic.domains.items[i]
		l.Domains[d.name] = d.log()
	}
	for i := range t.traffic.servers.items {
		s := &t.traffic.servers.items[i]
		l.Servers[s.relay] = &observe.LogServer{
			Delivered: s.delivered, Deferred: s.deferred, Bounced: s.bounced,
			LastDelivered: timeOf(s.lastDelivered), LastFailed: timeOf(s.lastFailed), LastCause: s.cause, Domain: s.domain,
		}
	}
	for _, n := range t.troubles.order() {
		x := &t.troubles.items[n]
		l.Troubles = append(l.Troubles, observe.Trouble{
			Program: x.program, Severity: x.severity, Cause: x.cause, Group: x.group, Text: string(x.text),
			Count: x.count, First: timeOf(x.first), Last: timeOf(x.last),
		})
	}
	return l
}

func (d *domain) log() *observe.LogDomain {
	l := &observe.LogDomain{
		Flow:           d.flow,
		FirstDelivered: timeOf(d.firstDelivered), LastDelivered: timeOf(d.lastDelivered),
		FirstDeferred: timeOf(d.firstDeferred), LastDeferred: timeOf(d.lastDeferred),
		DeliveredAfter: d.after, Relay: string(d.relay),
		Reasons: make(map[postfix.Cause]*observe.LogReason, len(d.reasons)),
	}
	for i := range d.reasons {
		x := &d.reasons[i]
		l.Reasons[x.cause] = &observe.LogReason{
			Attempts: x.attempts, First: timeOf(x.first), Last: timeOf(x.last), Text: string(x.text), Relay: string(x.relay),
		}
	}
	return l
}

// Summary returns the figures of the whole.
func (t *Tally) Summary() *Summary {
	s := &Summary{
		Lines: t.lines, Other: t.other, Unread: t.unread, Suspect: t.suspect,
		UnreadSamples:  append([]string{}, t.unreadSamples...), // "[]" in JSON, not "null"
		SuspectSamples: append([]string{}, t.suspectSamples...),
		First:          timeOf(t.first), Last: timeOf(t.last),
		Received: t.total.Arrived, BytesReceived: t.extra.bytes,
		Delivered: t.total.Delivered, Forwarded: t.extra.forwarded,
		Deferrals: t.total.Deferred + t.total.Suspended, Suspended: t.total.Suspended,
		Bounced: t.total.Bounced, Expired: t.total.Expired,
		Rejected: t.total.Rejected, RejectWarnings: t.extra.rejectWarnings,
		Held: t.total.Held, Discarded: t.extra.discarded, Notifications: t.extra.notifications,
		Reasons: []SummaryReason{}, Destinations: []SummaryDestination{}, Senders: []SummarySender{},
		Dropped: t.dropped + t.traffic.domains.lost + t.traffic.reasons.lost + t.traffic.senders.lost,
	}
	s.DeferredMessages, s.Estimated = t.deferred.count()
	t.rank(s)
	return s
}

// rank fills the lists. Equal ones go by name, so that the same log always
// prints the same.
func (t *Tally) rank(s *Summary) {
	for i := range t.traffic.reasons.items {
		x := &t.traffic.reasons.items[i]
		s.Reasons = append(s.Reasons, SummaryReason{
			Class: x.class.cause, Text: x.class.group, Count: x.deferred + x.bounced, Deferred: x.deferred, Bounced: x.bounced,
		})
	}
	slices.SortFunc(s.Reasons, func(a, b SummaryReason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Text, b.Text))
	})
	for i := range t.traffic.domains.items {
		d := &t.traffic.domains.items[i]
		s.Destinations = append(s.Destinations, SummaryDestination{
			Domain: d.name, Delivered: d.flow.Delivered, Deferred: d.flow.Deferred + d.flow.Suspended, Bounced: d.flow.Bounced,
		})
	}
	slices.SortFunc(s.Destinations, func(a, b SummaryDestination) int {
		return cmp.Or(cmp.Compare(b.Delivered+b.Deferred+b.Bounced, a.Delivered+a.Deferred+a.Bounced), cmp.Compare(a.Domain, b.Domain))
	})
	for i := range t.traffic.senders.items {
		if x := &t.traffic.senders.items[i]; x.messages > 0 {
			s.Senders = append(s.Senders, SummarySender{Sender: x.address, Messages: x.messages, Bytes: x.bytes})
		}
	}
	slices.SortFunc(s.Senders, func(a, b SummarySender) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Sender, b.Sender))
	})
}
