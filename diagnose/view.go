package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// view is a Sight made ready for the rules: one pass over the queue, and the
// log's words beside each next hop.
type view struct {
	Sight
	in   postfix.Instance
	hops map[string]*hop

	// Messages that Postfix would deliver: maildrop, incoming, active, deferred.
	waiting  int
	active   int
	incoming int
	deferred int
	// oldestIncoming is the arrival of the oldest message in incoming.
	oldestIncoming time.Time
	held           heldMail
	expiry         expiry
	untold         untold
}

// hop is one next hop and the mail that waits for it.
type hop struct {
	name string
	// configured: the operator's own configuration leads here.
	configured bool
	messages   int
	active     int
	untried    int // messages with a recipient here that has no reason yet
	waits      map[postfix.Cause]*wait
	domains    map[string]bool // recipient domains, some
	sample     postfix.QueueID
	counted    int // number of the message that was counted last

	// What the log says, over all its domains.
	log       observe.LogDomain
	inLog     bool
	reachable []observe.Reach
}

// wait is the mail at one hop that waits for one cause.
type wait struct {
	cause    postfix.Cause
	messages int
	oldest   time.Time
	// first and last are the bounds of the next tries.
	first, last time.Time
	text        string // one reason, hostile
	host        string // who answered, hostile
	sample      postfix.QueueID
	servers     []server
	lookup      lookup // the name that could not be resolved
	counted     int
}

// heldMail is what is on hold.
type heldMail struct {
	messages    int
	bytes       int64
	since       time.Time // the oldest hold
	overdue     int       // held for longer than reviewAfter
	byRule      int       // by a rule or a milter, and not overdue
	own         int       // by Holdfast, and not to be looked at yet
	ownOverdue  int       // by Holdfast, and somebody should have looked
	review      time.Time // the first time at which somebody is to look at an own one
	risky       int       // would be lost if released under this queue manager
	riskySample postfix.QueueID
	unsure      int // nothing tells whether they were active
	expired     int // would bounce at their first failure
	sample      postfix.QueueID
}

// expiry is mail that will bounce soon.
type expiry struct {
	soon   int
	past   int // the next failure returns them already
	first  time.Time
	sample postfix.QueueID
	within time.Duration
}

// reviewAfter is how long mail may be on hold before somebody must look.
const reviewAfter = 24 * time.Hour

// keptServers bounds the servers that are kept of one wait: all messages to a
// hop name the same few.
const keptServers = 4

// keptDomains bounds the recipient domains that are kept of one hop.
const keptDomains = 1000

func newView(s Sight) *view {
	v := &view{Sight: s, in: s.Snapshot.Instance, hops: make(map[string]*hop)}
	v.expiry.within = expirySoon(v.in.MaxLifetime)
	v.untold = newUntold(s.Log)
	number := 0
	s.Snapshot.Each(func(m *postfix.Message) bool {
		number++
		v.addUntold(m)
		switch m.Queue {
		case postfix.Hold:
			v.addHeld(m)
		case postfix.Incoming, postfix.Active, postfix.Deferred:
			v.addWaiting(m, number)
		case postfix.Maildrop:
			v.waiting++
		}
		return true
	})
	v.addLog()
	v.addReaches()
	return v
}

// expirySoon is how near its end a message counts as expiring: a tenth of its
// life, half a day at most, so that a relay with a short lifetime is not
// always about to lose its mail.
func expirySoon(lifetime time.Duration) time.Duration {
	return min(lifetime/10, 12*time.Hour)
}

func (v *view) addWaiting(m *postfix.Message, number int) {
	v.waiting++
	switch m.Queue {
	case postfix.Active:
		v.active++
	case postfix.Incoming:
		v.incoming++
		if v.oldestIncoming.IsZero() || m.Arrival.Before(v.oldestIncoming) {
			v.oldestIncoming = m.Arrival
		}
	case postfix.Deferred:
		v.deferred++
		v.addExpiry(m)
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		h := v.hopOf(m, r)
		if h.counted != number {
			h.counted = number
			h.messages++
			if m.Queue == postfix.Active {
				h.active++
			}
			if h.sample == "" || m.Queue == postfix.Deferred && len(m.Recipients) == 1 {
				h.sample = m.ID
			}
			if r.Cause == postfix.NoCause {
				h.untried++
			}
		}
		if r.Cause != postfix.NoCause {
			h.wait(r.Cause).add(m, r, number)
		}
	}
}

func (v *view) hopOf(m *postfix.Message, r *postfix.Recipient) *hop {
	name := r.NextHop
	domain := m.DestinationOf(r)
	if name == "" {
		name = domain
	}
	h := v.hops[name]
	if h == nil {
		h = &hop{name: name, configured: name != domain, waits: make(map[postfix.Cause]*wait), domains: make(map[string]bool)}
		v.hops[name] = h
	}
	if len(h.domains) < keptDomains && !h.domains[domain] {
		h.domains[domain] = true
	}
	return h
}

func (h *hop) wait(c postfix.Cause) *wait {
	w := h.waits[c]
	if w == nil {
		w = &wait{cause: c}
		h.waits[c] = w
	}
	return w
}

func (w *wait) add(m *postfix.Message, r *postfix.Recipient, number int) {
	if w.counted == number {
		return
	}
	w.counted = number
	w.messages++
	if w.oldest.IsZero() || m.Arrival.Before(w.oldest) {
		w.oldest = m.Arrival
	}
	if m.Queue == postfix.Deferred && !m.NextTry.IsZero() {
		if w.first.IsZero() || m.NextTry.Before(w.first) {
			w.first = m.NextTry
		}
		if m.NextTry.After(w.last) {
			w.last = m.NextTry
		}
	}
	if w.text == "" {
		w.text, w.host, w.sample = r.Reason, r.Host, m.ID
	}
	if len(m.Recipients) == 1 && m.Queue == postfix.Deferred && number%64 == 0 {
		w.sample = m.ID // not always the very first: it may be special
	}
	if w.cause == postfix.DNS && w.lookup.name == "" {
		w.lookup = lookupOf(r.Reason)
	}
	if len(w.servers) < keptServers {
		if s, ok := serverOf(r.Reason); ok && !slices.Contains(w.servers, s) {
			w.servers = append(w.servers, s)
			if w.host == "" {
				w.host = s.name
			}
		}
	}
}

func (v *view) addExpiry(m *postfix.Message) {
	if m.Expires.IsZero() || v.expiry.within == 0 {
		return
	}
	if left := m.Expires.Sub(v.Now); left < v.expiry.within {
		v.expiry.soon++
		if left <= 0 {
			v.expiry.past++
		}
		if v.expiry.first.IsZero() || m.Expires.Before(v.expiry.first) {
			v.expiry.first, v.expiry.sample = m.Expires, m.ID
		}
	}
}

// addLog puts what the log says of recipient domains beside their hops.
func (v *view) addLog() {
	if v.Log == nil {
		return
	}
	for _, h := range v.hops {
		for domain := range h.domains {
			if d := v.Log.Domains[domain]; d != nil {
				h.addDomain(d)
			}
		}
	}
}

func (h *hop) addDomain(d *observe.LogDomain) {
	l := &h.log
	h.inLog = true
	l.Delivered += d.Delivered
	l.Deferred += d.Deferred
	l.Suspended += d.Suspended
	l.Bounced += d.Bounced
	l.FirstDelivered = earlier(l.FirstDelivered, d.FirstDelivered)
	l.FirstDeferred = earlier(l.FirstDeferred, d.FirstDeferred)
	// Of several domains only the one that failed last tells whether mail got
	// through after that.
	if l.LastDeferred.IsZero() || d.LastDeferred.After(l.LastDeferred) {
		l.DeliveredAfter = d.DeliveredAfter
	}
	l.LastDelivered = later(l.LastDelivered, d.LastDelivered)
	l.LastDeferred = later(l.LastDeferred, d.LastDeferred)
	if l.Reasons == nil {
		l.Reasons = make(map[postfix.Cause]*observe.LogReason)
	}
	for c, r := range d.Reasons {
		sum := l.Reasons[c]
		if sum == nil {
			sum = &observe.LogReason{}
			l.Reasons[c] = sum
		}
		sum.Attempts += r.Attempts
		sum.First = earlier(sum.First, r.First)
		if !r.Last.Before(sum.Last) {
			sum.Last, sum.Text, sum.Relay = r.Last, r.Text, r.Relay
		}
	}
}

func (v *view) addReaches() {
	if v.Host == nil {
		return
	}
	for _, r := range v.Host.Egress.Reaches {
		for _, name := range r.Hops {
			if h := v.hops[name]; h != nil {
				h.reachable = append(h.reachable, r)
			}
		}
	}
}

// sorted returns the hops, those with most mail first.
func (v *view) sorted() []*hop {
	list := make([]*hop, 0, len(v.hops))
	for _, h := range v.hops {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *hop) int {
		if a.messages != b.messages {
			return b.messages - a.messages
		}
		return strings.Compare(a.name, b.name)
	})
	return list
}

// main returns what most mail at a hop waits for, nil where none has a reason
// that is about the hop: a full mailbox is its owner's affair.
func (h *hop) main() *wait {
	var best *wait
	for c, w := range h.waits {
		if personal(c) {
			continue
		}
		if best == nil || w.messages > best.messages || w.messages == best.messages && c < best.cause {
			best = w
		}
	}
	return best
}

// personal causes are about one recipient or one message, not about a server.
func personal(c postfix.Cause) bool {
	return c == postfix.RecipientUnknown || c == postfix.MailboxFull || c == postfix.ContentRejected
}

// unreachable says that a cause means that no conversation came about.
func unreachable(c postfix.Cause) bool { return c == postfix.RemoteDown || c == postfix.Egress }

// leftAlone says that a server with this answer must not be bothered by probes.
func leftAlone(c postfix.Cause) bool {
	return c == postfix.RemoteThrottling || c == postfix.Reputation || c == postfix.Greylisting
}

// attempts is how much mail there was to deliver in the window: what waits and
// what went.
func (v *view) attempts() int {
	n := v.waiting
	if v.Log != nil {
		n += int(v.Log.Total.Delivered)
	}
	return n
}

// notable says whether so much waiting mail is a finding or the few bad
// addresses that every relay has: ten messages that are not a drop in the
// ocean, three that are a twentieth of the traffic, or half of what there is.
func (v *view) notable(n int) bool {
	total := v.attempts()
	return n >= 10 && n*1000 >= total || n >= 3 && n*20 >= total || n >= 1 && n*2 >= total
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// server is a mail server as Postfix names it in a reason.
type server struct {
	name    string
	address netip.Addr
	port    uint16
}

// serverOf reads "connect to NAME[ADDRESS]:PORT: ..." and "host NAME[ADDRESS]
// said: ..." (smtp/smtp_connect.c, smtp_proto.c), behind the mark of a suspended
// destination too. Port 25 goes without saying in the second.
func serverOf(reason string) (server, bool) {
	text := postfix.FirstReason(reason)
	found := false
	for _, verb := range [...]string{"connect to ", "host ", "lost connection with ", "conversation with "} {
		if text, found = strings.CutPrefix(text, verb); found {
			break
		}
	}
	s, rest, ok := cutServer(text)
	if !found || !ok || strings.ContainsAny(s.name, " :") {
		return server{}, false
	}
	s.port = portAfter(rest)
	return s, true
}

// cutServer splits NAME[ADDRESS] from what follows.
func cutServer(text string) (s server, rest string, ok bool) {
	name, rest, opened := strings.Cut(text, "[")
	inside, rest, closed := strings.Cut(rest, "]")
	address, err := netip.ParseAddr(strings.TrimPrefix(strings.ToLower(inside), "ipv6:"))
	if !opened || !closed || err != nil {
		return server{}, "", false
	}
	return server{name: name, address: address.Unmap()}, rest, true
}

// portAfter reads ":PORT" at the start of a text, 25 where there is none.
func portAfter(rest string) uint16 {
	digits, ok := strings.CutPrefix(rest, ":")
	if !ok {
		return 25
	}
	port := 0
	for i := 0; i < len(digits) && i < 5 && digits[i] >= '0' && digits[i] <= '9'; i++ {
		port = port*10 + int(digits[i]-'0')
	}
	if port < 1 || port > 65535 {
		return 25
	}
	return uint16(port)
}

// lookup is a question to a name server.
type lookup struct{ name, kind string }

// lookupOf reads "Name service error for name=NAME type=TYPE: ..." (smtp_addr.c
// and dns_lookup.c): often it is not the next hop that fails, but the address
// of its server.
func lookupOf(reason string) lookup {
	_, rest, ok := strings.Cut(postfix.FirstReason(reason), "Name service error for name=")
	if !ok {
		return lookup{}
	}
	name, rest, ok := strings.Cut(rest, " type=")
	if !ok || !isHostName(name) {
		return lookup{}
	}
	kind, _, _ := strings.Cut(rest, ":")
	if kind != "MX" {
		kind = "A" // type=AAAA is what is said when neither was found
	}
	return lookup{name, kind}
}
