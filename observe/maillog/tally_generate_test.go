package maillog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"holdfast/postfix"
)

// generator writes the log of a relay that never was, line by line as Postfix
// words them, and keeps the account of what it wrote.
type generator struct {
	bytes.Buffer
	r    *rand.Rand
	at   time.Time
	pid  int
	iso  bool
	live []*generated // mail that is in the queue

	arrived, delivered, deferred, suspended, bounced, rejected, held int64
	bytes                                                            int64
	deferredIDs                                                      map[string]bool
	lines                                                            int64
	domains                                                          int
}

// generated is one message on its way.
type generated struct {
	id, sender string
	size       int
	waiting    []string // recipients
	total      int
	held       bool
	up         bool // qmgr has it
	counted    bool
}

func newGenerator(seed uint64) *generator {
	return &generator{
		r: rand.New(rand.NewPCG(seed, 7)), at: time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC), pid: 1000,
		deferredIDs: make(map[string]bool), domains: 40,
	}
}

func (g *generator) line(program, format string, args ...any) {
	g.at = g.at.Add(time.Duration(g.r.IntN(40)) * time.Millisecond)
	at := g.at
	if g.r.IntN(200) == 0 {
		at = at.Add(-time.Second) // the writer's clock, not postlogd's
	}
	stamp := at.Format("Jan _2 15:04:05")
	if g.iso {
		stamp = at.Format("2006-01-02T15:04:05.000000-07:00")
	}
	fmt.Fprintf(g, "%s relay1 postfix/%s[%d]: ", stamp, program, g.pid)
	fmt.Fprintf(g, format, args...)
	g.WriteByte('\n')
	g.lines++
}

func (g *generator) client() string {
	n := g.r.IntN(500)
	return fmt.Sprintf("host%d.clients.example[198.51.%d.%d]", n, n/250, n%250+1)
}

// arrive writes one SMTP session that leaves a message.
func (g *generator) arrive() {
	g.pid = 1000 + g.r.IntN(60)
	client := g.client()
	g.line("smtpd", "connect from %s", client)
	if g.r.IntN(12) == 0 {
		g.line("smtpd", "NOQUEUE: reject: RCPT from %s: 450 4.7.1 Client host rejected: cannot find your hostname, [203.0.113.9]; from=<a%d@spam.example> to=<x@here.example> proto=ESMTP helo=<pc>", client, g.r.IntN(9999))
		g.line("smtpd", "disconnect from %s ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4", client)
		g.rejected++
		return
	}
	m := &generated{sender: fmt.Sprintf("news-%d@sender%d.example", g.r.IntN(50), g.r.IntN(20)), size: 1000 + g.r.IntN(90000)}
	if g.r.IntN(2) == 0 {
		m.id = string(postfix.NewLongID(g.at, uint64(100000+g.lines)))
	} else {
		m.id = string(postfix.NewShortID(g.at.Add(time.Duration(g.lines)*time.Microsecond), uint64(1000000+g.lines)))
	}
	hold := g.r.IntN(60) == 0
	if hold {
		g.line("smtpd", "NOQUEUE: hold: RCPT from %s: <%s>: Sender address triggers HOLD we look at these; from=<%s> to=<x@here.example> proto=ESMTP helo=<mx>", client, m.sender, m.sender)
		g.held++
	}
	g.line("smtpd", "%s: client=%s", m.id, client)
	g.arrived++
	g.line("cleanup", "%s: message-id=<%d.%d@sender.example>", m.id, g.lines, g.r.Uint32())
	g.line("smtpd", "disconnect from %s ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7", client)
	for range 1 + g.r.IntN(8)/6*g.r.IntN(5) {
		m.waiting = append(m.waiting, fmt.Sprintf("user%d@dest%d.example", g.r.IntN(5000), g.r.IntN(g.domains)))
	}
	m.total = len(m.waiting)
	m.held = hold
	g.live = append(g.live, m)
	if !hold {
		g.takeUp(m)
	}
}

func (g *generator) takeUp(m *generated) {
	g.pid = 900
	g.line("qmgr", "%s: from=<%s>, size=%d, nrcpt=%d (queue active)", m.id, m.sender, m.size, m.total)
	m.up = true
	if !m.counted {
		g.bytes += int64(m.size)
		m.counted = true
	}
}

// try writes the attempts at the recipients that wait.
func (g *generator) try(m *generated) {
	left := m.waiting[:0]
	for _, to := range m.waiting {
		g.pid = 2000 + g.r.IntN(80)
		n := g.r.IntN(250)
		var dest int
		_, _ = fmt.Sscanf(to[bytes.IndexByte([]byte(to), '@'):], "@dest%d.", &dest)
		relay := fmt.Sprintf("mx%d.dest%d.example[192.0.2.%d]:25", n%3, dest, dest%200+1)
		head := fmt.Sprintf("%s: to=<%s>, relay=%s, delay=%.1f, delays=0.1/0/0.3/0.%d", m.id, to, relay, float64(n)/9, n)
		switch k := g.r.IntN(100); {
		case k < 70:
			g.line("smtp", "%s, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as %X)", head, g.r.Uint64())
			g.delivered++
			continue
		case k < 74:
			g.line("smtp", "%s, dsn=5.1.1, status=bounced (host mx%d.dest%d.example[192.0.2.%d] said: 550 5.1.1 <%s>: Recipient address rejected: User unknown in relay recipient table (in reply to RCPT TO command))", head, n%3, dest, dest%200+1, to)
			g.bounced++
			continue
		case k < 85:
			g.line("smtp", "%s, dsn=4.7.0, status=deferred (host mx%d.dest%d.example[192.0.2.%d] said: 421 4.7.0 [TSS04] Messages from 203.0.113.5 temporarily deferred due to user complaints - 4.16.55.1; see https://postmaster.dest.example/%d%s (in reply to MAIL FROM command))", head, n%3, dest, dest%200+1, g.r.Uint32(), "x")
			g.deferred++
		case k < 93:
			g.line("smtp", "%s: to=<%s>, relay=none, delay=30, delays=0.1/0/30/0, dsn=4.4.1, status=deferred (connect to mx0.dest%d.example[192.0.2.%d]:25: Connection timed out)", m.id, to, dest, dest%200+1)
			g.deferred++
		default:
			g.line("error", "%s: to=<%s>, relay=none, delay=30, delays=30/0/0/0, dsn=4.4.1, status=deferred (delivery temporarily suspended: connect to mx0.dest%d.example[192.0.2.%d]:25: Connection timed out)", m.id, to, dest, dest%200+1)
			g.suspended++
		}
		g.deferredIDs[m.id] = true
		left = append(left, to)
	}
	m.waiting, m.up = left, false
	g.pid = 900
	if len(left) == 0 {
		g.line("qmgr", "%s: removed", m.id)
	}
}

// step makes something happen.
func (g *generator) step() {
	switch k := g.r.IntN(20); {
	case k < 8 || len(g.live) == 0:
		g.arrive()
	case k < 17:
		i := g.r.IntN(len(g.live))
		m := g.live[i]
		if m.held {
			g.postsuper(m)
			return
		}
		if !m.up {
			g.takeUp(m)
		}
		g.try(m)
		if len(m.waiting) == 0 {
			g.live = append(g.live[:i], g.live[i+1:]...)
		}
	case k == 17:
		g.postsuper(g.live[g.r.IntN(len(g.live))])
	case k == 18:
		g.pid = 1000 + g.r.IntN(60)
		g.line("smtpd", "warning: hostname host%d.clients.example does not resolve to address 198.51.100.%d: Name or service not known", g.r.IntN(900), g.r.IntN(250))
	default:
		g.pid = 33
		g.line("anvil", "statistics: max connection rate %d/60s for (smtp:198.51.100.7) at Nov 23 03:04:05", g.r.IntN(90))
	}
}

func (g *generator) postsuper(m *generated) {
	g.pid = 5000 + g.r.IntN(9)
	if m.held {
		g.line("postsuper", "%s: released from hold", m.id)
		m.held, m.up = false, false
		return
	}
	g.line("postsuper", "%s: placed on hold", m.id)
	g.held++
	m.held = true
}

// generate returns a log of at least so many bytes.
func generate(seed uint64, size int) *generator {
	g := newGenerator(seed)
	for g.Len() < size {
		g.step()
	}
	return g
}
