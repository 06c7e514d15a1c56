package maillog

import (
	"bytes"
	"strings"

	"holdfast/observe"
	"holdfast/postfix"
)

// traffic is who sent mail to whom, and what became of it.
type traffic struct {
	detail  bool
	domains ranking[domain]
	servers ranking[server]
	reasons ranking[reason]
	senders ranking[sender]

	// classes remembers what a reason is, by its masked text: to find out takes
	// a hundred comparisons, and thousands of lines differ in a number only.
	classes map[string]class
	masked  []byte
	lower   []byte
}

type domain struct {
	name                                                       string
	flow                                                       observe.Flow
	firstDelivered, lastDelivered, firstDeferred, lastDeferred int64
	after                                                      int64 // deliveries since the last deferral in this part
	// orphans are messages delivered since the last deferral that this part
	// does not show to have been taken up by qmgr: an earlier part may.
	orphans []uint64
	relay   []byte
	reasons []domainReason
}

type domainReason struct {
	cause       postfix.Cause
	attempts    int64
	first, last int64
	text, relay []byte
}

type server struct {
	relay                        string
	delivered, deferred, bounced int64
	lastDelivered, lastFailed    int64
	cause                        postfix.Cause
	domain                       string
}

type reason struct {
	class             class
	deferred, bounced int64
}

// class is what reasons of one masked text have in common.
type class struct {
	key   uint64 // of cause and group
	cause postfix.Cause
	group string
}

type sender struct {
	address         string
	messages, bytes int64
}

// How many of each are kept through any flood of others. A relay of a large
// sender has tens of thousands of destinations a day; the rest is noise.
const (
	mostDomains = 1 << 13
	mostServers = 1 << 12
	mostReasons = 1 << 10
	mostSenders = 1 << 12
	mostClasses = 1 << 13
	longestText = 512
)

func newTraffic(detail bool) traffic {
	return traffic{
		detail: detail,
		domains: newRanking(mostDomains, func(d *domain) int64 {
			return d.flow.Delivered + d.flow.Deferred + d.flow.Suspended + d.flow.Bounced
		}),
		servers: newRanking(mostServers, func(s *server) int64 { return s.delivered + s.deferred + s.bounced }),
		reasons: newRanking(mostReasons, func(r *reason) int64 { return r.deferred + r.bounced }),
		senders: newRanking(mostSenders, func(s *sender) int64 { return s.messages }),
		classes: make(map[string]class),
	}
}

// delivery tallies what became of one recipient.
func (t *Tally) delivery(r *record) {
	var c class
	d := t.traffic.domain(r)
	switch r.status[0] {
	case 's':
		t.count(func(f *observe.Flow) { f.Delivered++ })
		if hasPrefix(r.reason, forwardedAs) {
			t.extra.forwarded++
		}
	case 'b':
		t.count(func(f *observe.Flow) { f.Bounced++ })
		c = t.traffic.fail(r, true)
	default: // deferred, and SOFTBOUNCE, which is one
		t.deferred.add(hashOf(r.id))
		c = t.traffic.fail(r, false)
		if hasPrefix(r.reason, suspendedMark) {
			t.count(func(f *observe.Flow) { f.Suspended++ })
		} else {
			t.count(func(f *observe.Flow) { f.Deferred++ })
		}
	}
	if d != nil {
		d.tally(r, c.cause, t.o.Detail)
		if t.o.Detail && r.status[0] == 's' {
			d.witness(hashOf(r.id), t.takenUp)
		}
	}
	if t.o.Detail {
		t.traffic.server(r, c.cause)
		t.tried(r.id, r.status[0] == 's' || r.status[0] == 'b')
	}
}

// suspendedMark is what qmgr puts before the reason where it did not try.
const suspendedMark = "delivery temporarily suspended: "

// expired tallies a message that qmgr gave up.
func (t *Tally) expired(r *record) {
	t.count(func(f *observe.Flow) { f.Expired++; f.Bounced++ })
	t.letGo(r.id)
}

// domain finds the entry of a recipient's domain, nil where it has none.
func (t *traffic) domain(r *record) *domain {
	name := domainOf(r.address)
	if len(name) == 0 {
		return nil
	}
	if hasUpper(name) {
		t.lower = append(t.lower[:0], name...)
		name = t.lower
		lowerASCII(name)
	}
	key := hashOf(name)
	if d := t.domains.find(key); d != nil {
		return d
	}
	return t.domains.add(key, domain{name: string(name)})
}

func hasUpper(b []byte) bool {
	for _, c := range b {
		if c >= 'A' && c <= 'Z' {
			return true
		}
	}
	return false
}

func lowerASCII(b []byte) {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
}

// mostOrphans bounds the deliveries that wait for an earlier part of the log to
// vouch for them.
const mostOrphans = 64

// witness counts a delivery after the last failure if the log has the message
// itself: that qmgr took it up. A line that somebody else wrote, to make
// believe that a server takes mail again, has no such message.
func (d *domain) witness(id uint64, takenUp func(uint64) bool) {
	switch {
	case takenUp(id):
		d.after++
	case len(d.orphans) < mostOrphans:
		d.orphans = append(d.orphans, id)
	}
}

// takenUp says that qmgr has a message, by this part of the log.
func (t *Tally) takenUp(id uint64) bool {
	m := t.messages.find(id)
	return m != nil && m.acts > 0 && !m.is(isGone)
}

func (d *domain) tally(r *record, cause postfix.Cause, detail bool) {
	if r.status[0] == 's' {
		d.flow.Delivered++
		if d.firstDelivered == 0 {
			d.firstDelivered = r.at
		}
		d.lastDelivered = r.at
		if detail {
			d.relay = append(d.relay[:0], r.relay...)
		}
		return
	}
	switch {
	case r.status[0] == 'b':
		d.flow.Bounced++
	case hasPrefix(r.reason, suspendedMark):
		d.flow.Suspended++
	default:
		d.flow.Deferred++
		d.after, d.orphans = 0, d.orphans[:0]
		if d.firstDeferred == 0 {
			d.firstDeferred = r.at
		}
		d.lastDeferred = r.at
	}
	if detail {
		x := d.reason(cause, r.at)
		x.attempts++
		x.last = r.at
		x.text = append(x.text[:0], r.reason[:min(len(r.reason), longestText)]...)
		x.relay = append(x.relay[:0], r.relay...)
	}
}

func (d *domain) reason(cause postfix.Cause, at int64) *domainReason {
	for i := range d.reasons {
		if d.reasons[i].cause == cause {
			return &d.reasons[i]
		}
	}
	d.reasons = append(d.reasons, domainReason{cause: cause, first: at})
	return &d.reasons[len(d.reasons)-1]
}

// server tallies what a server answered. Where none was reached, or the relay
// is one of Postfix's own agents, there is no address in the name.
func (t *traffic) server(r *record, cause postfix.Cause) {
	if bytes.IndexByte(r.relay, '[') < 0 {
		return
	}
	key := hashOf(r.relay)
	s := t.servers.find(key)
	if s == nil {
		s = t.servers.add(key, server{relay: string(r.relay), domain: strings.ToLower(string(domainOf(r.address)))})
	}
	switch r.status[0] {
	case 's':
		s.delivered++
		s.lastDelivered = r.at
		return
	case 'b':
		s.bounced++
	default:
		s.deferred++
	}
	s.lastFailed, s.cause = r.at, cause
}

// fail counts a failed attempt by its reason.
func (t *traffic) fail(r *record, final bool) class {
	c := t.classify(r.dsn, r.reason)
	x := t.reasons.find(c.key)
	if x == nil {
		x = t.reasons.add(c.key, reason{class: c})
	}
	if final {
		x.bounced++
	} else {
		x.deferred++
	}
	return c
}

// classify gives a class to a reason. It is found from the masked text alone:
// of two parts of a log, each gives the same text the same class.
func (t *traffic) classify(dsn, text []byte) class {
	t.masked = append(append(t.masked[:0], dsn...), ' ')
	t.masked = appendMasked(t.masked, text)
	if c, ok := t.classes[string(t.masked)]; ok {
		return c
	}
	key := string(t.masked)
	masked := key[len(dsn)+1:]
	c := class{cause: postfix.Classify(key[:len(dsn)], masked), group: postfix.ReasonGroup(masked)}
	if len(c.group) > longestText {
		c.group = strings.Clone(c.group[:longestText])
	}
	c.key = hashOf([]byte(string(c.cause) + " " + c.group))
	if len(t.classes) >= mostClasses {
		clear(t.classes)
	}
	t.classes[key] = c
	return c
}

// sent counts a message by its sender.
func (t *traffic) sent(key uint64, address []byte, size int64) {
	s := t.senders.find(key)
	if s == nil {
		s = t.senders.add(key, sender{address: string(address)})
	}
	s.messages++
	s.bytes += size
}

// unsent takes a message back that was counted in two parts.
func (t *traffic) unsent(key uint64, size int64) {
	if s := t.senders.find(key); s != nil {
		s.messages--
		s.bytes -= size
	}
}
