package world

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// gate is the memory of one peer: who is connected, how fast they came, whom
// it has seen, whom it has boxed. It decides; the session speaks.
type gate struct {
	clock *clock

	mu        sync.Mutex
	traffic   Traffic
	rules     []liveRule
	dice      *rand.Rand
	perClient map[string]int
	buckets   map[string]*rate.Limiter // by client; "" for all together
	seen      map[triplet]time.Time
	refusals  map[string][]time.Time
	boxed     map[string]time.Time // until when
	n         SMTPCounters
}

// SMTPCounters is what one SMTP peer did since its start or the last reset.
type SMTPCounters struct {
	Connections  int            `json:"connections"`
	Open         int            `json:"open"`      // sessions now
	PeakOpen     int            `json:"peak_open"` // the most at one time
	Transactions int            `json:"transactions"`
	Messages     int            `json:"messages"`   // accepted
	Recipients   int            `json:"recipients"` // accepted
	Lost         int            `json:"lost"`       // messages accepted without the client being told
	Refused      map[string]int `json:"refused"`    // replies of 400 and above, by code
	Cuts         map[string]int `json:"cuts"`       // sessions ended without a word, by stage
	ConnLimited  int            `json:"conn_limited"`
	RateLimited  int            `json:"rate_limited"`
	Greylisted   int            `json:"greylisted"`
	Boxes        int            `json:"boxes"`           // times a client was boxed
	Boxed        []string       `json:"boxed,omitempty"` // clients in the box now
	TLS          int            `json:"tls"`             // handshakes done
	TLSFailed    int            `json:"tls_failed"`
	Auth         int            `json:"auth"` // users let in
	AuthFailed   int            `json:"auth_failed"`
	Internal     int            `json:"internal"` // failures of the world itself
}

type liveRule struct {
	Rule
	client, sender, recipient *matcher
	used                      int
}

type triplet struct{ client, sender, rcpt string }

// verdict is what the gate wants done in place of the usual.
type verdict struct {
	delay time.Duration
	reply *Reply
	cut   Cut
	close bool // after the reply
	after int64
}

func newDice(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func newGate(clock *clock, seed uint64, name string) *gate {
	g := &gate{clock: clock, dice: newDice(seed, name), perClient: make(map[string]int)}
	g.forgetLocked()
	return g
}

// apply takes another policy. What the gate remembers of its clients stays,
// but for the buckets, which start full when the rate changes.
func (g *gate) apply(t Traffic) {
	rules := make([]liveRule, len(t.Rules))
	for i, r := range t.Rules {
		rules[i] = liveRule{Rule: r, client: r.Client.compile(), sender: r.Sender.compile(), recipient: r.Recipient.compile()}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, now := g.traffic.Rate, t.Rate
	if old == nil || now == nil || old.PerSecond != now.PerSecond || old.Burst != now.Burst || old.PerClient != now.PerClient {
		clear(g.buckets)
	}
	g.traffic, g.rules = t, rules
}

// policy returns the traffic policy of this moment.
func (g *gate) policy() *Traffic {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.traffic
	return &t
}

// reset forgets counters, clients and what they did.
func (g *gate) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := g.n.Open
	g.forgetLocked()
	g.n.Open, g.n.PeakOpen = open, open
}

func (g *gate) forgetLocked() {
	g.buckets = make(map[string]*rate.Limiter)
	g.seen = make(map[triplet]time.Time)
	g.refusals = make(map[string][]time.Time)
	g.boxed = make(map[string]time.Time)
	g.n = SMTPCounters{Refused: make(map[string]int), Cuts: make(map[string]int)}
}

func (g *gate) counters() SMTPCounters {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.n
	n.Refused, n.Cuts = cloneCounts(g.n.Refused), cloneCounts(g.n.Cuts)
	now := time.Now()
	for client, until := range g.boxed {
		if now.Before(until) {
			n.Boxed = append(n.Boxed, client)
		}
	}
	slices.Sort(n.Boxed)
	return n
}

// count runs f on the counters.
func (g *gate) count(f func(n *SMTPCounters)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.n)
}

// enter registers a connection and judges it. Each enter has its leave, also
// for those turned away, because a session that is being refused is open.
func (g *gate) enter(client string) *verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n.Connections++
	g.n.Open++
	g.n.PeakOpen = max(g.n.PeakOpen, g.n.Open)
	g.perClient[client]++
	if v := g.boxLocked(client, time.Now()); v != nil {
		return v
	}
	c := g.traffic.Connections
	if c != nil && (c.Max > 0 && g.n.Open > c.Max || c.PerClient > 0 && g.perClient[client] > c.PerClient) {
		g.n.ConnLimited++
		if c.Cut != "" {
			g.refuseLocked(client, time.Now()) // hanging up is a refusal too
			return &verdict{cut: c.Cut}
		}
		r := c.Reply.or(Reply{Code: 421, Enhanced: "4.7.0", Text: "too many connections, try again later"})
		return &verdict{reply: &r, close: true}
	}
	return g.ruleLocked(StageBanner, client, "", nil)
}

func (g *gate) leave(client string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n.Open--
	if g.perClient[client]--; g.perClient[client] == 0 {
		delete(g.perClient, client)
	}
}

// judge decides about one command; nil lets it pass. rcpts is the recipient in
// question at stage rcpt and all that were accepted at later stages.
func (g *gate) judge(stage Stage, client, sender string, rcpts []string) *verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	commands := stage == StageMail || stage == StageRcpt || stage == StageData
	if commands {
		if v := g.boxLocked(client, now); v != nil {
			return v
		}
	}
	v := g.ruleLocked(stage, client, sender, rcpts)
	if v != nil && (v.reply != nil || v.cut != "") || !commands {
		return v
	}
	if stage == StageRcpt && len(rcpts) == 1 {
		if reply := g.greylistLocked(triplet{client, sender, rcpts[0]}, now); reply != nil {
			return v.with(reply)
		}
	}
	if reply := g.rateLocked(stage, client); reply != nil {
		return v.with(reply)
	}
	return v
}

// with keeps the delay of a rule that only delays.
func (v *verdict) with(reply *Reply) *verdict {
	out := verdict{reply: reply}
	if v != nil {
		out.delay = v.delay
	}
	return &out
}

func (g *gate) boxLocked(client string, now time.Time) *verdict {
	p := g.traffic.Penalty
	until, in := g.boxed[client]
	if p == nil || !in {
		return nil
	}
	if !now.Before(until) {
		delete(g.boxed, client)
		return nil
	}
	if p.Extend {
		g.boxed[client] = now.Add(g.clock.real(p.For))
	}
	r := p.Reply.or(Reply{Code: 421, Enhanced: "4.7.0", Text: "refused too often, come back later"})
	return &verdict{reply: &r, close: true}
}

func (g *gate) ruleLocked(stage Stage, client, sender string, rcpts []string) *verdict {
	for i := range g.rules {
		r := &g.rules[i]
		if r.Stage != stage || r.Times > 0 && r.used >= r.Times || !r.client.match(client) || !r.sender.match(sender) {
			continue
		}
		if r.recipient != nil && !slices.ContainsFunc(rcpts, r.recipient.match) {
			continue
		}
		if r.Probability > 0 && g.dice.Float64() >= r.Probability {
			continue
		}
		r.used++
		return &verdict{delay: g.clock.real(r.Delay), reply: r.Reply, cut: r.Cut, close: r.Close, after: r.AfterBytes}
	}
	return nil
}

func (g *gate) greylistLocked(t triplet, now time.Time) *Reply {
	l := g.traffic.Greylist
	if l == nil {
		return nil
	}
	first, known := g.seen[t]
	if !known {
		g.seen[t] = now
		first = now
	}
	if now.Sub(first) >= g.clock.real(l.Delay) {
		return nil
	}
	g.n.Greylisted++
	r := l.Reply.or(Reply{Code: 450, Enhanced: "4.2.0", Text: "greylisted, please try again later"})
	return &r
}

func (g *gate) rateLocked(stage Stage, client string) *Reply {
	l := g.traffic.Rate
	if l == nil || stage != cmpStage(l.Stage) {
		return nil
	}
	if !l.PerClient {
		client = ""
	}
	limit := rate.Limit(l.PerSecond * g.clock.factor())
	b := g.buckets[client]
	if b == nil {
		b = rate.NewLimiter(limit, max(1, l.Burst))
		g.buckets[client] = b
	} else if b.Limit() != limit {
		b.SetLimit(limit) // the time scale has changed
	}
	if b.Allow() {
		return nil
	}
	g.n.RateLimited++
	r := l.Reply.or(Reply{Code: 450, Enhanced: "4.7.1", Text: "you are sending too fast, slow down"})
	return &r
}

func cmpStage(s Stage) Stage {
	if s == "" {
		return StageMail
	}
	return s
}

// replied counts an answer, and boxes the client when it was one too many.
func (g *gate) replied(client string, r Reply) {
	if !r.refusal() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n.Refused[codeText(r.Code)]++
	g.refuseLocked(client, time.Now())
}

func (g *gate) refuseLocked(client string, now time.Time) {
	p := g.traffic.Penalty
	if p == nil {
		return
	}
	if until, in := g.boxed[client]; in && now.Before(until) {
		return
	}
	oldest := now.Add(-g.clock.real(p.Window))
	recent := slices.DeleteFunc(g.refusals[client], func(t time.Time) bool { return t.Before(oldest) })
	recent = append(recent, now)
	if len(recent) < p.Refusals {
		g.refusals[client] = recent
		return
	}
	delete(g.refusals, client)
	g.boxed[client] = now.Add(g.clock.real(p.For))
	g.n.Boxes++
}
