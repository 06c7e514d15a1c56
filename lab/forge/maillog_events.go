package forge

import "strconv"

// Process IDs: one range for each program, as many as a busy relay runs.
const (
	pidQmgr, pidAnvil, pidPickup = 901, 905, 906
	pidSMTPD, pidCleanup         = 1000, 2000
	pidSMTP, pidError, pidBounce = 3000, 5000, 6000
	pidPostsuper                 = 7000
)

// session writes what one client does.
func (r *relay) session() {
	pid, client := pidSMTPD+r.rand.IntN(100), r.rand.IntN(400)
	r.begin("smtpd", pid).text("connect from ").client(client).end()
	switch k := r.rand.IntN(100); {
	case k < 9:
		r.refused(pid, client)
	case k < 10:
		r.begin("smtpd", pid).text("lost connection after EHLO from ").client(client).end()
		r.begin("smtpd", pid).text("disconnect from ").client(client).text(" ehlo=1 commands=1").end()
	default:
		r.accepted(pid, client, k == 10)
	}
}

// refused writes a client that is turned away, or would be.
func (r *relay) refused(pid, client int) {
	action := "reject"
	if r.rand.IntN(10) == 0 {
		action = "reject_warning"
		r.totals.RejectWarnings++
	} else {
		r.totals.Rejected++
	}
	n := r.rand.IntN(5000)
	r.begin("smtpd", pid).text("NOQUEUE: ").text(action).text(": RCPT from ").client(client)
	switch r.rand.IntN(3) {
	case 0:
		r.text(": 554 5.7.1 <someone").number(n).text("@elsewhere.example>: Relay access denied; ")
	case 1:
		r.text(": 450 4.7.25 Client host rejected: cannot find your hostname, [203.0.113.").number(n % 250).text("]; ")
	default:
		r.text(": 550 5.1.1 <nobody").number(n).text("@here.example>: Recipient address rejected: User unknown in relay recipient table; ")
	}
	r.text("from=<offer").number(n).text("@bulk.example> to=<someone").number(n).text("@here.example> proto=ESMTP helo=<app").number(client).text(">").end()
	r.begin("smtpd", pid).text("disconnect from ").client(client).text(" ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4").end()
}

// accepted writes a client whose message is taken.
func (r *relay) accepted(pid, client int, hold bool) {
	n := r.rand.IntN(800)
	m := r.newMessage("billing" + strconv.Itoa(n) + "@shop" + strconv.Itoa(n%40) + ".example")
	if hold {
		r.begin("smtpd", pid).text("NOQUEUE: hold: RCPT from ").client(client).text(": <").text(m.sender).
			text(">: Sender address triggers HOLD new customer; from=<").text(m.sender).text("> to=").address(m, 0).text(" proto=ESMTP helo=<app").number(client).text(">").end()
		r.totals.HeldByRule++
	}
	r.begin("smtpd", pid).text(m.id).text(": client=").client(client)
	if n%10 == 0 {
		r.text(", sasl_method=PLAIN, sasl_username=shop").number(n % 40)
	}
	r.end()
	r.totals.Received++
	r.named(m)
	if hold {
		r.onHold(m)
	} else {
		r.takeUp(m)
	}
	r.begin("smtpd", pid).text("disconnect from ").client(client).text(" ehlo=2 starttls=1 mail=1 rcpt=").number(m.recipients).text(" data=1 quit=1 commands=").number(6 + m.recipients).end()
}

// pickup writes a message that a program of this host submitted.
func (r *relay) pickup() {
	m := r.newMessage("root@relay1.example")
	r.begin("pickup", pidPickup).text(m.id).text(": uid=0 from=<root>").end()
	r.totals.Received++
	r.named(m)
	r.takeUp(m)
}

func (r *relay) named(m *logged) {
	r.begin("cleanup", pidCleanup+r.rand.IntN(50)).text(m.id).text(": message-id=<").number(int(m.arrived.UnixMicro())).text(".").text(m.id).text("@shop.example>").end()
}

// takeUp writes that qmgr has a message.
func (r *relay) takeUp(m *logged) {
	if m.tries == 0 && m.sender != "" {
		r.totals.BytesReceived += int64(m.size)
	}
	r.begin("qmgr", pidQmgr).text(m.id).text(": from=<").text(m.sender).text(">, size=").number(m.size).text(", nrcpt=").number(m.recipients).text(" (queue active)").end()
	r.active = append(r.active, m)
}

// attempt writes what becomes of the recipients that wait.
func (r *relay) attempt(m *logged) {
	m.tries++
	left, bounced := 0, false
	for i := range m.domain {
		switch r.deliver(m, i) {
		case "deferred":
			m.domain[left], m.user[left] = m.domain[i], m.user[i]
			left++
		case "bounced":
			bounced = true
		}
	}
	m.domain, m.user = m.domain[:left], m.user[:left]
	if left > 0 && !m.wasDeferred {
		m.wasDeferred = true
		r.totals.DeferredMessages++
	}
	switch {
	case left > 0 && m.tries < mostTries:
		r.deferred = append(r.deferred, m)
		return
	case left > 0:
		r.begin("qmgr", pidQmgr).text(m.id).text(": from=<").text(m.sender).text(">, status=expired, returned to sender").end()
		r.totals.Expired++
		bounced = true
	}
	if bounced && m.sender != "" {
		r.notify(m)
	}
	r.begin("qmgr", pidQmgr).text(m.id).text(": removed").end()
}

// notify writes that a sender is told, by a message without a sender.
func (r *relay) notify(m *logged) {
	n := r.newMessage("")
	n.domain, n.user, n.recipients = n.domain[:1], n.user[:1], 1
	r.named(n)
	r.begin("bounce", pidBounce+r.rand.IntN(9)).text(m.id).text(": sender non-delivery notification: ").text(n.id).end()
	r.totals.Notifications++
	r.takeUp(n)
}

// deliver writes one delivery record and returns its status. Every seventh
// domain has a trouble of its own; the others have one now and then.
func (r *relay) deliver(m *logged, i int) string {
	d, k := m.domain[i], r.rand.IntN(100)
	troubled := d%7 == 3
	switch {
	case k < 2:
		r.record("smtp", pidSMTP, m, i, true).text(", dsn=5.1.1, status=bounced (host ").server(d, k).
			text(" said: 550 5.1.1 ").address(m, i).text(": Recipient address rejected: User unknown in virtual mailbox table (in reply to RCPT TO command))").end()
		r.totals.Bounced++
		return "bounced"
	case troubled && k < 25 && m.tries > 1:
		r.record("error", pidError, m, i, false).text(", dsn=4.4.1, status=deferred (delivery temporarily suspended: connect to ").server(d, 0).text(":25: Connection timed out)").end()
		r.totals.Suspended++
		return "deferred"
	case troubled && k < 75 || k < 4:
		r.failed(m, i, d+k/70)
		r.totals.Deferrals++
		return "deferred"
	}
	if k < 40 {
		r.begin("smtp", pidSMTP+d).text("Untrusted TLS connection established to ").server(d, k).text(":25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256").end()
	}
	r.record("smtp", pidSMTP, m, i, true).text(", dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as ").token().text(")").end()
	r.totals.Delivered++
	return "sent"
}

// failed writes an attempt that failed for now. The texts name addresses,
// sessions and numbers, as those of real servers do.
func (r *relay) failed(m *logged, i, kind int) {
	d := m.domain[i]
	switch n := r.rand.IntN(1_000_000); kind % 6 {
	case 0:
		r.record("smtp", pidSMTP, m, i, false).text(", dsn=4.4.1, status=deferred (connect to ").server(d, 0).text(":25: Connection timed out)").end()
	case 1:
		r.record("smtp", pidSMTP, m, i, true).text(", dsn=4.2.0, status=deferred (host ").server(d, n).
			text(" said: 450 4.2.0 ").address(m, i).text(": Recipient address rejected: Greylisted for ").number(n % 300).text(" seconds (in reply to RCPT TO command))").end()
	case 2:
		r.record("smtp", pidSMTP, m, i, true).text(", dsn=4.7.28, status=deferred (host ").server(d, n).
			text(" said: 421-4.7.28 unusual rate of mail from your network, session ").token().text(" (in reply to end of DATA command))").end()
	case 3:
		r.record("smtp", pidSMTP, m, i, false).text(", dsn=4.4.3, status=deferred (Host or domain name not found. Name service error for name=dest").number(d).text(".example type=MX: Host not found, try again)").end()
	case 4:
		r.record("smtp", pidSMTP, m, i, true).text(", dsn=4.2.2, status=deferred (host ").server(d, n).
			text(" said: 452 4.2.2 ").address(m, i).text(" mailbox is over quota, ticket ").token().text(" (in reply to RCPT TO command))").end()
	default:
		r.record("smtp", pidSMTP, m, i, true).text(", dsn=4.4.2, status=deferred (lost connection with ").server(d, n).text(" while receiving the initial server greeting)").end()
	}
}

// record begins a delivery record (global/log_adhoc.c) up to its delays.
func (r *relay) record(program string, pid int, m *logged, i int, reached bool) *relay {
	d := m.domain[i]
	r.begin(program, pid+d).text(m.id).text(": to=").address(m, i)
	if reached {
		r.text(", relay=").server(d, r.rand.IntN(3)).text(":25")
	} else {
		r.text(", relay=none")
	}
	waited, busy := max(int(r.now().Sub(m.arrived).Milliseconds()/100), 0), r.rand.IntN(90)
	return r.text(", delay=").decimal(waited + busy).text(", delays=").decimal(waited).text("/0.01/").decimal(busy / 2).text("/").decimal(busy - busy/2)
}

func (r *relay) address(m *logged, i int) *relay {
	return r.text("<customer.").number(m.user[i]).text("@dest").number(m.domain[i]).text(".example>")
}

func (r *relay) server(domain, n int) *relay {
	return r.text("mx").number(n % 3).text(".dest").number(domain).text(".example[192.0.2.").number(domain%250 + 1).text("]")
}

// postsuper writes what an operator does to one message.
func (r *relay) postsuper() {
	pid := pidPostsuper + r.rand.IntN(1000)
	if len(r.held) > mostHeldMail || len(r.held) > 0 && r.rand.IntN(2) == 0 {
		m := take(r.rand, &r.held)
		r.begin("postsuper", pid).text(m.id).text(": released from hold").end()
		r.takeUp(m)
		return
	}
	if len(r.deferred) == 0 {
		return
	}
	m := take(r.rand, &r.deferred)
	r.begin("postsuper", pid).text(m.id).text(": placed on hold").end()
	r.totals.HeldByHand++
	r.onHold(m)
}

// onHold keeps a message that waits for an operator. Where too many do, the
// oldest is forgotten, as its operator forgot it.
func (r *relay) onHold(m *logged) {
	if len(r.held) > 2*mostHeldMail {
		r.held = r.held[1:]
	}
	r.held = append(r.held, m)
}

// talk writes a line that moves no mail.
func (r *relay) talk() {
	n := r.rand.IntN(400)
	pid := pidSMTPD + r.rand.IntN(100)
	switch r.rand.IntN(4) {
	case 0:
		r.begin("smtpd", pid).text("warning: hostname app").number(n).text(".clients.example does not resolve to address 203.0.113.").number(n % 250).text(": Name or service not known").end()
	case 1:
		r.begin("anvil", pidAnvil).text("statistics: max connection rate ").number(n).text("/60s for (smtp:198.51.100.").number(n % 250).text(") at Nov 23 03:04:05").end()
	case 2:
		r.begin("smtpd", pid).text("Anonymous TLS connection established from ").client(n).text(": TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)").end()
	default:
		r.begin("smtp", pidSMTP+n).text("connect to ").server(n%r.o.Domains, 1).text(":25: Connection refused").end()
	}
}
