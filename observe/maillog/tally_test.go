package maillog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/observe"
	"holdfast/postfix"
)

var newest = time.Date(2026, 11, 23, 23, 0, 0, 0, time.UTC)

func options(detail bool) Options {
	return Options{SyslogName: "postfix", Location: time.UTC, Detail: detail}
}

func tallied(o Options, blocks ...[]byte) *Tally {
	all := NewTally(o)
	for i, b := range blocks {
		t := all
		if i > 0 {
			t = NewTally(o)
		}
		t.Text(b, observe.TrustPlain, newest)
		if i > 0 {
			all.Merge(t)
		}
	}
	return all
}

// both is everything that a tally tells.
type both struct {
	Log     *observe.Log
	Summary *Summary
}

func told(t *Tally) both { return both{t.Log(), t.Summary()} }

// TestFiguresAreThoseOfTheLog holds a tally against what the generator knows
// that it wrote.
func TestFiguresAreThoseOfTheLog(t *testing.T) {
	for seed := range uint64(4) {
		g := generate(seed, 300_000)
		got := tallied(options(true), g.Bytes()).Summary()
		want := Summary{
			Lines: g.lines, Received: g.arrived, BytesReceived: g.bytes, Delivered: g.delivered, Deferrals: g.deferred + g.suspended,
			Suspended: g.suspended, DeferredMessages: int64(len(g.deferredIDs)), Bounced: g.bounced, Rejected: g.rejected, Held: g.held,
		}
		ignored := cmpopts.IgnoreFields(Summary{}, "First", "Last", "Reasons", "Destinations", "Senders", "UnreadSamples", "SuspectSamples")
		if diff := cmp.Diff(want, *got, ignored); diff != "" {
			t.Errorf("seed %d (-want +got):\n%s", seed, diff)
		}
		var sum SummaryDestination
		for _, d := range got.Destinations {
			sum.Delivered += d.Delivered
			sum.Deferred += d.Deferred
			sum.Bounced += d.Bounced
		}
		if sum != (SummaryDestination{Delivered: g.delivered, Deferred: g.deferred + g.suspended, Bounced: g.bounced}) {
			t.Errorf("seed %d: destinations together are %+v", seed, sum)
		}
	}
}

// TestPartsGiveTheWhole cuts a log at every line, and into many parts at once.
func TestPartsGiveTheWhole(t *testing.T) {
	for seed := range uint64(6) {
		log := generate(100+seed, 40_000).Bytes()
		want := told(tallied(options(true), log))
		for at := 0; at < len(log); at += bytes.IndexByte(log[at:], '\n') + 1 {
			if diff := cmp.Diff(want, told(tallied(options(true), log[:at], log[at:]))); diff != "" {
				t.Fatalf("seed %d cut at byte %d (-whole +parts):\n%s", seed, at, diff)
			}
		}
		for _, size := range []int{200, 1000, 7000} {
			if diff := cmp.Diff(want, told(tallied(options(true), parts(log, size)...))); diff != "" {
				t.Fatalf("seed %d in parts of %d bytes (-whole +parts):\n%s", seed, size, diff)
			}
		}
	}
}

// parts cuts a log at newlines into parts of about a size.
func parts(log []byte, size int) (blocks [][]byte) {
	for len(log) > size {
		n := size + bytes.IndexByte(log[size:], '\n') + 1
		if n == size {
			break
		}
		blocks, log = append(blocks, log[:n]), log[n:]
	}
	return append(blocks, log)
}

func BenchmarkTally(b *testing.B) {
	const size = 32 << 20
	for _, c := range []struct {
		name   string
		detail bool
		log    func() []byte
	}{
		{"summary", false, func() []byte { return relayLog(size, false) }},
		{"triage", true, func() []byte { return relayLog(size, false) }},
		{"triage-rfc3339", true, func() []byte { return relayLog(size, true) }},
		{"summary-jam", false, func() []byte { return jamLog(size) }},
		{"triage-jam", true, func() []byte { return jamLog(size) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			log := c.log()
			b.SetBytes(int64(len(log)))
			b.ReportMetric(float64(len(log))/float64(bytes.Count(log, []byte("\n"))), "B/line")
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				NewTally(options(c.detail)).Text(log, observe.TrustPlain, newest)
			}
		})
	}
}

// relayLog is the log of a busy relay with three thousand destinations.
func relayLog(size int, iso bool) []byte {
	g := newGenerator(1)
	g.iso, g.domains = iso, 3000
	for g.Len() < size {
		g.step()
	}
	return g.Bytes()
}

// jamLog is that of a relay on which hundreds of thousands of messages wait and
// are refused again and again, each time in words that hold a ticket.
func jamLog(size int) []byte {
	g := newGenerator(2)
	for i := 0; g.Len() < size; i++ {
		m := generated{id: string(postfix.NewLongID(g.at, uint64(i%200_000))), sender: fmt.Sprintf("bounce-%d@news.example", i%5000), size: 9000, total: 1}
		g.takeUp(&m)
		g.pid = 2000 + i%100
		g.line("smtp", "%s: to=<user%d@big%d.example>, relay=mx%d.big%d.example[192.0.2.%d]:25, delay=%d, delays=%d/0.02/0.4/0.1, dsn=4.7.0, status=deferred (host mx%d.big%d.example[192.0.2.%d] said: 421-4.7.0 Our system has detected an unusual rate of mail from your address 203.0.113.5. Please visit https://support.big.example/answer?id=%d to review our guidelines. %x-%xsi%d.%d - gsmtp (in reply to end of DATA command))",
			m.id, i, i%50, i%4, i%50, i%50, i%90000, i%90000, i%4, i%50, i%50, g.r.Uint32(), g.r.Uint64(), g.r.Uint32(), g.r.Uint32(), i%200)
	}
	return g.Bytes()
}

// lines makes a log of texts: each stands behind a stamp of its own second.
func lines(texts ...string) []byte {
	var b bytes.Buffer
	for i, text := range texts {
		fmt.Fprintf(&b, "Nov 23 17:%02d:%02d relay1 postfix/%s\n", 30+i/60, i%60, text)
	}
	return b.Bytes()
}

func second30(n int) time.Time { return time.Date(2026, 11, 23, 17, 30, n, 0, time.UTC) }

// TestSumOfLines: every line is somewhere.
func TestSumOfLines(t *testing.T) {
	log := strings.Join([]string{
		"Nov 23 17:37:20 relay1 postfix/qmgr[9]: 4F1C2B3D4E: removed",
		"Nov 23 17:37:21 relay1 postfix/qmgr: 4F1C2B3D4E: removed",                // logger -t postfix/qmgr
		"Nov 23 17:37:21 relay1 postfix/qmgr[9]: 4F1C2B3D4E: from=<a@b>, size=1,", // cut
		"Nov 23 17:37:22 relay1 dovecot: imap-login: user=<x>",
		"Nov 23 17:37:22 relay1 postfix-out/qmgr[9]: 4F1C2B3D4E: removed",
		"Nov 23 17:37:2",
		"Nov 23 17:37:1Nov 23 17:37:24 relay1 postfix/qmgr[9]: 4F1C2B3D4F: removed", // glued
		"\x00\x00\x00\x00Nov 23 17:37:25 relay1 postfix/qmgr[9]: 4F1C2B3D50: removed",
		"Nov 23 17:37:26 relay1 postfiNov 23 17:37:26 relay1 postfix/qmgr[9]: 4F1C2B3D51: removed",
		"f postfix/qmgr[9]: 4F1C2B3D4F: removed", // the rest of a line that a rotation cut
		"", "",
		"\xff\xfe\x9b]0;title\x07",
	}, "\n")
	got := tallied(options(true), []byte(log)).Log()
	want := &observe.Log{
		Lines: 13, Other: 6, Suspect: 1, Unread: 5, Trust: observe.TrustPlain,
		From: time.Date(2026, 11, 23, 17, 37, 20, 0, time.UTC), To: time.Date(2026, 11, 23, 17, 37, 26, 0, time.UTC),
		SuspectSamples: []string{"Nov 23 17:37:21 relay1 postfix/qmgr: 4F1C2B3D4E: removed"},
		UnreadSamples: []string{
			"Nov 23 17:37:21 relay1 postfix/qmgr[9]: 4F1C2B3D4E: from=<a@b>, size=1,",
			"Nov 23 17:37:1", "\x00\x00\x00\x00", "Nov 23 17:37:26 relay1 postfi", "f postfix/qmgr[9]: 4F1C2B3D4F: removed",
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestAReplyMakesNoLine: what a server says stays a reason, whatever it looks like.
func TestAReplyMakesNoLine(t *testing.T) {
	forged := "Nov 23 17:31:00 relay1 postfix/smtp[812]: 5A5A5A5A5A: to=<x@victim.example>, relay=none, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (ok)"
	s := tallied(options(true), lines(
		"smtp[812]: 4F1C2B3D4E: to=<a@b.example>, relay=mx[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (host mx[192.0.2.1] said: 450 "+forged+")",
		"smtp[812]: 4F1C2B3D4E: to=<\""+forged+"\"@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (x)",
		"smtpd[812]: connect from "+forged,
		"smtpd[812]: NOQUEUE: reject: RCPT from x[192.0.2.1]: 450 4.7.1 <x>: "+forged+"; from=<> to=<x@y> proto=ESMTP helo=<"+forged+">",
	)).Summary()
	if s.Delivered != 0 || s.Deferrals != 2 || s.Rejected != 1 || s.Unread != 0 {
		t.Errorf("delivered %d, deferrals %d, rejected %d, unread %d", s.Delivered, s.Deferrals, s.Rejected, s.Unread)
	}
	if want := []SummaryDestination{{Domain: "b.example", Deferred: 2}}; !slices.Equal(s.Destinations, want) {
		t.Errorf("destinations %+v", s.Destinations)
	}
}

const to = "to=<a@b.example>, relay=mx.b.example[192.0.2.1]:25, delay=1, delays=1/0/0/0, "

func TestDomainsAndServers(t *testing.T) {
	l := tallied(options(true), lines(
		"smtp[1]: 4F1C2B3D4E: "+to+"dsn=2.0.0, status=sent (250 ok)",
		"smtp[1]: 4F1C2B3D4F: "+to+"dsn=4.7.1, status=deferred (host mx.b.example[192.0.2.1] said: 450 4.7.1 Greylisted, see you in 300 seconds)",
		"smtp[1]: 4F1C2B3D4F: to=<c@B.Example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (connect to mx.b.example[192.0.2.1]:25: Connection timed out)",
		"error[1]: 4F1C2B3D50: to=<c@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (delivery temporarily suspended: connect to mx.b.example[192.0.2.1]:25: Connection timed out)",
		"smtp[1]: 4F1C2B3D51: "+to+"dsn=2.0.0, status=sent (250 ok)",
		"smtp[1]: 4F1C2B3D52: "+to+"dsn=5.1.1, status=bounced (host mx.b.example[192.0.2.1] said: 550 5.1.1 User unknown)",
		"smtp[1]: 4F1C2B3D53: "+to+"dsn=2.0.0, status=sent (250 ok)",
		"qmgr[1]: 4F1C2B3D54: from=<x@y>, status=expired, returned to sender",
		"smtp[1]: 4F1C2B3D55: to=<p@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=undeliverable (connect to nowhere)",
	)).Log()
	want := map[string]*observe.LogDomain{"b.example": {
		Flow:           observe.Flow{Delivered: 3, Deferred: 2, Suspended: 1, Bounced: 1},
		FirstDelivered: second30(0), LastDelivered: second30(6), FirstDeferred: second30(1), LastDeferred: second30(2),
		DeliveredAfter: 0, // no line tells that there were such messages
		Relay:          "mx.b.example[192.0.2.1]:25",
		Reasons: map[postfix.Cause]*observe.LogReason{
			postfix.Greylisting: {
				Attempts: 1, First: second30(1), Last: second30(1), Relay: "mx.b.example[192.0.2.1]:25",
				Text: "host mx.b.example[192.0.2.1] said: 450 4.7.1 Greylisted, see you in 300 seconds",
			},
			postfix.RemoteDown: {
				Attempts: 2, First: second30(2), Last: second30(3), Relay: "none",
				Text: "delivery temporarily suspended: connect to mx.b.example[192.0.2.1]:25: Connection timed out",
			},
			postfix.RecipientUnknown: {
				Attempts: 1, First: second30(5), Last: second30(5), Relay: "mx.b.example[192.0.2.1]:25",
				Text: "host mx.b.example[192.0.2.1] said: 550 5.1.1 User unknown",
			},
		},
	}}
	if diff := cmp.Diff(want, l.Domains); diff != "" {
		t.Errorf("domains (-want +got):\n%s", diff)
	}
	servers := map[string]*observe.LogServer{"mx.b.example[192.0.2.1]:25": {
		Delivered: 3, Deferred: 1, Bounced: 1, LastDelivered: second30(6), LastFailed: second30(5), LastCause: postfix.RecipientUnknown, Domain: "b.example",
	}}
	if diff := cmp.Diff(servers, l.Servers); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
	flow := observe.Flow{Delivered: 3, Deferred: 2, Suspended: 1, Bounced: 2, Expired: 1}
	if diff := cmp.Diff(observe.Log{Total: flow, Minutes: []observe.FlowMinute{{Start: second30(0), Flow: flow}}},
		observe.Log{Total: l.Total, Minutes: l.Minutes}); diff != "" {
		t.Errorf("flow (-want +got):\n%s", diff)
	}
}

func TestHolds(t *testing.T) {
	const active = "qmgr[1]: 4F1C2B3D4E: from=<x@y>, size=1, nrcpt=2 (queue active)"
	const hold, release = "postsuper[2]: 4F1C2B3D4E: placed on hold", "postsuper[2]: 4F1C2B3D4E: released from hold"
	const sent = "smtp[1]: 4F1C2B3D4E: " + to + "dsn=2.0.0, status=sent (250 ok)"
	const deferred = "smtp[1]: 4F1C2B3D4E: " + to + "dsn=4.0.0, status=deferred (x)"
	const client = "smtpd[7]: 4F1C2B3D4E: client=pc[192.0.2.9]"
	const rcpt = "smtpd[7]: NOQUEUE: hold: RCPT from pc[192.0.2.9]: <pc[192.0.2.9]>: Client host triggers HOLD look at it; from=<x@y> to=<a@b> proto=ESMTP helo=<pc>"
	for name, c := range map[string]struct {
		log  []string
		want observe.Hold // zero for none
	}{
		"deferred before":                  {[]string{active, deferred, deferred, hold}, observe.Hold{By: observe.HeldByPostsuper}},
		"waiting in active":                {[]string{active, hold}, observe.Hold{By: observe.HeldByPostsuper, FromActive: true}},
		"one of two tried":                 {[]string{active, deferred, hold}, observe.Hold{By: observe.HeldByPostsuper, FromActive: true}},
		"one done, then the other tried":   {[]string{active, sent, deferred, active, deferred, hold}, observe.Hold{By: observe.HeldByPostsuper}},
		"one done, the other waits again":  {[]string{active, sent, deferred, active, hold}, observe.Hold{By: observe.HeldByPostsuper, FromActive: true}},
		"tried after it was held":          {[]string{active, hold, deferred, deferred}, observe.Hold{By: observe.HeldByPostsuper, FromActive: true}},
		"skipped":                          {[]string{active, "qmgr[1]: 4F1C2B3D4E: skipped, still being delivered", hold}, observe.Hold{By: observe.HeldByPostsuper}},
		"never seen before":                {[]string{hold}, observe.Hold{By: observe.HeldByPostsuper}},
		"released":                         {[]string{active, hold, release}, observe.Hold{}},
		"requeued":                         {[]string{active, hold, "postsuper[2]: 4F1C2B3D4E: requeued"}, observe.Hold{}},
		"deleted":                          {[]string{active, hold, "postsuper[2]: 4F1C2B3D4E: removed"}, observe.Hold{}},
		"held again":                       {[]string{active, hold, release, deferred, deferred, hold}, observe.Hold{By: observe.HeldByPostsuper}},
		"an ID that is used again":         {[]string{active, sent, sent, "qmgr[1]: 4F1C2B3D4E: removed", client, hold}, observe.Hold{By: observe.HeldByPostsuper}},
		"by a rule, before there is an ID": {[]string{rcpt, client}, observe.Hold{By: observe.HeldByRule, Rule: "<pc[192.0.2.9]>: Client host triggers HOLD look at it"}},
		"by a rule, other process":         {[]string{rcpt, strings.Replace(client, "[7]", "[8]", 1)}, observe.Hold{}},
		"by a rule, session over":          {[]string{rcpt, "smtpd[7]: disconnect from pc[192.0.2.9] quit=1 commands=1", client}, observe.Hold{}},
		"by a rule, later recipient": {
			[]string{client, strings.Replace(rcpt, "NOQUEUE", "4F1C2B3D4E", 1)},
			observe.Hold{By: observe.HeldByRule, Rule: "<pc[192.0.2.9]>: Client host triggers HOLD look at it"},
		},
		"by a header check": {
			[]string{client, "cleanup[3]: 4F1C2B3D4E: hold: header Subject: win from pc[192.0.2.9]; from=<x@y> to=<a@b> proto=ESMTP helo=<pc>: too good"},
			observe.Hold{By: observe.HeldByRule, Rule: "too good"},
		},
		"by a header check without a text": {
			[]string{client, "cleanup[3]: 4F1C2B3D4E: hold: header Subject: win from pc[192.0.2.9]; from=<x@y> to=<a@b> proto=ESMTP helo=<pc>"},
			observe.Hold{By: observe.HeldByRule, Rule: "header Subject: win from pc[192.0.2.9]"},
		},
		"by a milter": {
			[]string{client, "cleanup[3]: 4F1C2B3D4E: milter-hold: END-OF-MESSAGE from pc[192.0.2.9]: milter triggers HOLD action; from=<x@y> to=<a@b> proto=ESMTP helo=<pc>"},
			observe.Hold{By: observe.HeldByMilter, Rule: "milter triggers HOLD action"},
		},
	} {
		for i, text := range c.log {
			if strings.Contains(text, "hold") && !strings.Contains(text, "released") {
				c.want.At = second30(i)
			}
		}
		want := map[postfix.QueueID]observe.Hold{"4F1C2B3D4E": c.want}
		if c.want.By == "" {
			want = map[postfix.QueueID]observe.Hold{}
		}
		for at := range len(c.log) + 1 {
			a, b := NewTally(options(true)), NewTally(options(true))
			log := lines(c.log...)
			n := 0
			for range at {
				n += bytes.IndexByte(log[n:], '\n') + 1
			}
			a.Text(log[:n], observe.TrustPlain, newest)
			b.Text(log[n:], observe.TrustPlain, newest)
			a.Merge(b)
			if diff := cmp.Diff(want, a.Log().Holds); diff != "" {
				t.Errorf("%s, cut after line %d (-want +got):\n%s", name, at, diff)
			}
		}
	}
}

func TestSince(t *testing.T) {
	o := options(true)
	o.Since = second30(1)
	const sent = "smtp[1]: 4F1C2B3D4E: " + to + "dsn=2.0.0, status=sent (250 ok)"
	l := tallied(o, lines(sent, sent, sent)).Log()
	if l.Lines != 3 || l.Total.Delivered != 2 || !l.From.Equal(o.Since) {
		t.Errorf("%d lines, %d delivered, from %s", l.Lines, l.Total.Delivered, l.From)
	}
}

func TestJournal(t *testing.T) {
	tally := NewTally(options(true))
	sent := []byte("4F1C2B3D4E: " + to + "dsn=2.0.0, status=sent (250 ok)")
	for _, e := range []Entry{
		{At: second30(0), Tag: "postfix/smtp", PID: 7, Message: sent, Trusted: true},
		{At: second30(1), Tag: "postfix/smtp", PID: 8, Message: sent, By: "/usr/bin/logger of user 1000"},
		{At: second30(2), Tag: "postfix/smtp", PID: 9, Message: sent[:40], Trusted: true},
		{At: second30(3), Tag: "sshd", PID: 9, Message: []byte("x"), Trusted: true},
	} {
		tally.Entry(e)
	}
	l := tally.Log()
	if l.Lines != 4 || l.Total.Delivered != 1 || l.Suspect != 1 || l.Unread != 1 || l.Other != 1 || l.Trust != observe.TrustJournal {
		t.Errorf("%+v", l)
	}
	if want := "postfix/smtp[8]: " + string(sent) + " (written by /usr/bin/logger of user 1000)"; len(l.SuspectSamples) != 1 || l.SuspectSamples[0] != want {
		t.Errorf("samples %q", l.SuspectSamples)
	}
	tally.Text(lines("qmgr[1]: 4F1C2B3D4E: removed"), observe.TrustGuarded, newest)
	if got := tally.Log().Trust; got != observe.TrustGuarded {
		t.Errorf("with a file beside it the trust is %q", got)
	}
}

// TestFloodIsBounded forges a hundred thousand of everything that can be told
// apart: the few that are real stay, and what was dropped is said.
func TestFloodIsBounded(t *testing.T) {
	const many = 100_000
	tally := NewTally(options(true))
	var b bytes.Buffer
	for i := range many {
		x := i * 7919 // so that no number is masked away as a neighbour of another
		word := letters(x)
		fmt.Fprintf(&b, stamp+"postfix/%s[%d]: %010X: to=<%d@%s.example>, relay=%s[10.%d.%d.%d]:25, delay=1, delays=1/0/0/0, dsn=4.%d.%d, status=deferred (%s said %s)\n",
			word, i, x, i, word, word, i>>16, i>>8&255, i&255, i%1000, i/1000, word, word)
		fmt.Fprintf(&b, stamp+"postfix/%s[%d]: warning: %s is %s\n", word, i, word, word)
		fmt.Fprintf(&b, stamp+"postfix/qmgr[%d]: %010X: from=<%s@x>, size=1, nrcpt=1 (queue active)\n", i, x, word)
		fmt.Fprintf(&b, "%04d-01-01T%02d:%02d:00Z r postfix/smtpd[%d]: NOQUEUE: hold: RCPT from %s[192.0.2.1]: 450 x; from=<>\n", 1970+i%60, i/60%24, i%60, i, word)
		if i%100 == 0 {
			b.WriteString(stamp + "postfix/smtp[1]: 4F1C2B3D4E: " + to + "dsn=4.7.1, status=deferred (host mx said: 450 4.7.1 Greylisted)\n")
		}
		if b.Len() > 1<<20 {
			tally.Text(b.Bytes(), observe.TrustPlain, newest)
			b.Reset()
		}
	}
	tally.Text(b.Bytes(), observe.TrustPlain, newest)
	l, s := tally.Log(), tally.Summary()
	if len(l.Domains) > 2*mostDomains || len(l.Servers) > 2*mostServers || len(l.Troubles) > 2*mostTroubles || len(l.Minutes) > 2*mostMinutes ||
		len(s.Reasons) > 2*mostReasons || len(s.Senders) > 2*mostSenders || tally.sessions.used > mostSessions ||
		len(tally.traffic.classes) > mostClasses {
		t.Errorf("not bounded: %d domains, %d servers, %d troubles, %d minutes, %d reasons, %d senders",
			len(l.Domains), len(l.Servers), len(l.Troubles), len(l.Minutes), len(s.Reasons), len(s.Senders))
	}
	if l.Dropped == 0 || s.Dropped == 0 {
		t.Error("nobody says that anything was dropped")
	}
	if d := l.Domains["b.example"]; d == nil || d.Deferred != many/100 {
		t.Errorf("the real domain is lost: %+v", d)
	}
	if s.Reasons[0].Class != postfix.Greylisting || s.Reasons[0].Count != many/100 {
		t.Errorf("the real reason is lost: %+v", s.Reasons[0])
	}
	if l.Total.Deferred != many+many/100 || s.DeferredMessages != many+1 {
		t.Errorf("deferred %d, messages %d", l.Total.Deferred, s.DeferredMessages)
	}
}

// letters writes a number without digits.
func letters(n int) string {
	word := ""
	for ; n > 0; n /= 20 {
		word += string("bcdfghjklmnpqrstvwxz"[n%20])
	}
	return word + "q"
}

// FuzzBlock tallies any bytes as one block and as two. What a message's earlier
// life tells is left out: with lines that Postfix cannot have written in that
// order, the later part may not know that there was one.
func FuzzBlock(f *testing.F) {
	f.Add(generate(1, 3000).Bytes(), uint16(777))
	f.Add([]byte("Nov 23 17:37:1Nov 23 17:37:24 r postfix/smtpd[1]: warning: x\nNov 23"), uint16(70))
	f.Fuzz(func(t *testing.T, log []byte, at uint16) {
		cut := 0
		if n := int(at); n < len(log) {
			cut = bytes.LastIndexByte(log[:n], '\n') + 1
		}
		whole, halves := told(tallied(options(true), log)), told(tallied(options(true), log[:cut], log[cut:]))
		ignored := []cmp.Option{
			cmpopts.IgnoreFields(Summary{}, "BytesReceived", "Senders"), cmpopts.IgnoreFields(observe.Hold{}, "FromActive"), cmpopts.EquateEmpty(),
		}
		if diff := cmp.Diff(whole, halves, ignored...); diff != "" {
			t.Errorf("cut at %d (-whole +halves):\n%s", cut, diff)
		}
	})
}

// A line that claims a delivery counts as one after the last failure only if
// the log has the message, in this part or an earlier one.
func TestOnlyDeliveriesOfMessagesCount(t *testing.T) {
	all := strings.SplitAfter(string(lines(
		"qmgr[1]: 4F1C2B3D4F: from=<x@y>, size=100, nrcpt=1 (queue active)",
		"qmgr[1]: 4F1C2B3D50: from=<x@y>, size=100, nrcpt=1 (queue active)",
		"smtp[2]: 4F1C2B3D4F: "+to+"dsn=4.7.1, status=deferred (host mx.b.example[192.0.2.1] said: 450 4.7.1 slow down)",
		"smtp[2]: 4F1C2B3D50: "+to+"dsn=2.0.0, status=sent (250 ok)",
		"qmgr[1]: 4F1C2B3D50: removed",
		"smtp[9]: 0A1B2C3D4E: "+to+"dsn=2.0.0, status=sent (250 trust me)",
		"qmgr[1]: 4F1C2B3D4F: from=<x@y>, size=100, nrcpt=1 (queue active)",
		"smtp[2]: 4F1C2B3D4F: "+to+"dsn=2.0.0, status=sent (250 ok)",
	)), "\n")
	for cut := range all {
		sum := tallied(options(true), []byte(strings.Join(all[:cut], "")))
		sum.Merge(tallied(options(true), []byte(strings.Join(all[cut:], ""))))
		if got := sum.Log().Domains["b.example"].DeliveredAfter; got != 2 {
			t.Errorf("cut before line %d: %d deliveries after the last failure, want 2", cut, got)
		}
	}
}
