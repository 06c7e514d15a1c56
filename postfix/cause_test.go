package postfix

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// classified are texts as Postfix 3.7 to 3.12 writes them, with replies in the
// manner of the large providers and the common servers. Hosts and addresses
// are made up.
var classified = []struct {
	cause        Cause
	status, text string
}{
	// What Postfix writes by itself.
	{DNS, "4.4.3", "Host or domain name not found. Name service error for name=mx.shop.example type=A: Host not found, try again"},
	{DNS, "5.4.4", "Host or domain name not found. Name service error for name=nosuch.example type=AAAA: Host not found"},
	{DNS, "4.4.3", "Name service error for name=shop.example type=MX: Malformed or unexpected name server reply"},
	{DNS, "4.4.4", "unable to look up host relay.corp.example: Temporary failure in name resolution"},
	{DNS, "5.4.4", "relay.corp.example: host not found"},
	{DNS, "4.4.4", "unable to find primary relay for shop.example"},
	{DNS, "5.4.4", "Name service error for b@d.example: invalid host or domain name"},
	{Configuration, "4.7.0", "Error looking up name=shop.example type=MX: DNS reply filter drops all results"},
	{RemoteRejecting, "5.1.0", "Domain nomail.example does not accept mail (nullMX)"},
	{RoutingLoop, "5.4.6", "mail for shop.example loops back to myself"},
	{RoutingLoop, "5.4.6", "mail forwarding loop for kim@shop.example"},
	{RoutingLoop, "5.4.0", "too many hops"},
	{Egress, "4.4.1", "connect to mx.shop.example[2001:db8::25]:25: Network is unreachable"},
	{Egress, "4.4.1", "connect to mx.shop.example[192.0.2.25]:25: Cannot assign requested address"},
	{Egress, "4.4.1", "connect to mx.shop.example[192.0.2.25]:25: Operation not permitted"},
	{Egress, "4.4.1", "connect to mx.shop.example[192.0.2.25]:25: Permission denied"},
	{RemoteDown, "4.4.1", "connect to mx.shop.example[192.0.2.25]:25: Connection timed out"},
	{RemoteDown, "4.4.1", "connect to mx.shop.example[192.0.2.25]:587: Connection refused"},
	{RemoteDown, "4.4.1", "connect to mx.shop.example[192.0.2.25]:25: No route to host"},
	{RemoteDown, "4.4.2", "lost connection with mx.shop.example[192.0.2.25] while receiving the initial server greeting"},
	{RemoteDown, "4.4.2", "lost connection with mx.shop.example[192.0.2.25] while sending end of data -- message may be sent more than once"},
	{RemoteDown, "4.4.2", "conversation with mx.shop.example[192.0.2.25] timed out while sending message body"},
	{RemoteDown, "4.3.0", "server unavailable or unable to receive mail"},
	{ContentFilter, "4.4.1", "connect to 127.0.0.1[127.0.0.1]:10024: Connection refused"},
	{ContentFilter, "4.4.1", "connect to localhost[::1]:10024: Connection timed out"},
	{ContentFilter, "4.4.1", "connect to relay.corp.example[private/dovecot-lmtp]: No such file or directory"},
	{ContentFilter, "4.3.0", "temporary failure. Command output: scanner: socket: said: 421 too busy"},
	{ContentFilter, "4.3.0", `Command time limit exceeded: "/usr/local/bin/scan"`},
	{TLS, "4.7.4", "TLS is required, but was not offered by host mx.shop.example[192.0.2.25]"},
	{TLS, "4.7.0", "TLS is required, but host mx.shop.example[192.0.2.25] refused to start TLS: 454 4.7.0 TLS not available due to local problem"},
	{TLS, "4.7.5", "Server certificate not verified"},
	{TLS, "4.7.5", "Server certificate not trusted"},
	{TLS, "4.7.5", "Cannot start TLS: handshake failure"},
	{TLS, "4.7.5", "TLSA lookup error for mx.shop.example:25"},
	{TLS, "4.7.5", "TLSA records unusable"},
	{TLS, "4.7.0", "client TLS configuration problem"},
	{RemoteRejecting, "5.6.7", "SMTPUTF8 is required, but was not offered by host mx.shop.example[192.0.2.25]"},
	{Auth, "4.7.0", "SASL authentication failed; server smtp.corp.example[192.0.2.26] said: 535 5.7.8 Error: authentication failed: bad password"},
	{Auth, "4.7.0", "SASL authentication failed; server smtp.corp.example[192.0.2.26] said: 454 4.7.0 Try later, our name service error for x"},
	{Auth, "4.7.0", "SASL [CACHED] authentication failed; server smtp.corp.example[192.0.2.26] said: 535 no"},
	{Auth, "4.7.0", "SASL authentication failed: server smtp.corp.example[192.0.2.26] offered no compatible authentication mechanisms for this type of connection security"},
	{Auth, "4.7.0", "SASL authentication failed; cannot authenticate to server smtp.corp.example[192.0.2.26]: no mechanism available"},
	{LookupTable, "4.3.0", "Temporary lookup error"},
	{LookupTable, "4.3.0", "table lookup failure"},
	{LookupTable, "4.3.0", "address resolver failure"},
	{LookupTable, "4.0.0", "user lookup error"},
	{Configuration, "4.3.0", "mail transport unavailable"},
	{Configuration, "4.3.0", "unknown mail transport error"},
	{Configuration, "4.3.2", "deferred transport"},
	{Configuration, "4.3.5", "Server configuration error"},
	{Configuration, "4.3.5", "mail system configuration error"},
	{Configuration, "4.4.4", "all network protocols are disabled"},
	{Configuration, "4.2.0", "cannot update mailbox /var/mail/kim for user kim. unable to lock for exclusive access: Resource temporarily unavailable"},
	{StorageSpace, "4.3.0", "queue file write error"},
	{StorageSpace, "4.3.0", "cannot update mailbox /var/mail/kim for user kim. error writing message: No space left on device"},
	{MailboxFull, "5.2.2", "cannot update mailbox /var/mail/kim for user kim. error writing message: Disk quota exceeded"},
	{MailboxFull, "5.2.2", "maildir delivery failed: error writing message: Disk quota exceeded"},
	{RecipientUnknown, "5.1.1", `unknown user: "kim"`},
	{RecipientUnknown, "5.1.1", "user unknown"},
	{RecipientUnknown, "5.1.1", "User unknown in virtual alias table"},
	{ContentRejected, "5.3.4", "message size 30000000 exceeds size limit 25000000 of server mx.shop.example[192.0.2.25]"},
	{UnknownCause, "4.7.0", "message is administratively expired"},
	{UnknownCause, "4.3.2", "paused by hand, ask Lee"},
	{UnknownCause, "", "xyzzy"},
	{NoCause, "", ""},
	{NoCause, "4.0.0", "  "},

	// The mark of a destination that was given up stands before the cause.
	{RemoteDown, "4.4.1", "delivery temporarily suspended: connect to mx.shop.example[192.0.2.25]:25: Connection timed out"},
	{RemoteThrottling, "4.7.0", "delivery temporarily suspended: delivery temporarily suspended: host mx.shop.example[192.0.2.25] refused to talk to me: 421 4.7.0 Too many connections"},
	{DNS, "4.4.3", "delivery temporarily suspended: Host or domain name not found. Name service error for name=a.example type=MX: Host not found, try again"},

	// Throttling.
	// A server on this host that says no more than "later" is in trouble.
	{ContentFilter, "4.7.1", "host 127.0.0.1[127.0.0.1] said: 451 4.7.1 Please try again later (in reply to end of DATA command)"},
	{ContentFilter, "4.4.2", "host 127.0.0.1[127.0.0.1] said: 421 4.4.2 timeout exceeded (in reply to end of DATA command)"},
	{Greylisting, "4.2.0", "host localhost[::1] said: 450 4.2.0 greylisted (in reply to RCPT TO command)"},
	{Greylisting, "4.3.2", "host mx.ps.example[192.0.2.37] said: 450 4.3.2 Service currently unavailable (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.0.0", "host mx.ps.example[192.0.2.37] said: 451 Please try again later (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.7.1", "host mx.ps.example[192.0.2.37] said: 451 4.7.1 Service unavailable - try again later (in reply to end of DATA command)"},
	{RemoteDown, "4.4.2", "host mx.ps.example[192.0.2.37] said: 421 4.4.2 mx.ps.example Error: timeout exceeded (in reply to end of DATA command)"},
	{RemoteThrottling, "4.7.0", "host mx.big.example[192.0.2.30] refused to talk to me: 421 4.7.0 Too many concurrent connections from your address"},
	{RemoteThrottling, "4.0.0", "host mx.big.example[192.0.2.30] refused to talk to me: 421 mx.big.example Service not available, closing transmission channel"},
	{RemoteThrottling, "4.3.2", "host mx.big.example[192.0.2.30] refused to talk to me: 421 4.3.2 The maximum number of concurrent server connections has exceeded a limit"},
	{RemoteThrottling, "4.7.28", "host mx.big.example[192.0.2.30] said: 421-4.7.28 We see an unusual rate of mail from your network. 421-4.7.28 It is rate limited for now. 421 4.7.28 See https://help.example/limits x1-20020a17si123wmb.12 - esmtp (in reply to end of DATA command)"},
	{RemoteThrottling, "4.2.1", "host mx.big.example[192.0.2.30] said: 450-4.2.1 The user is receiving mail at a rate that prevents 450 4.2.1 more of it (in reply to RCPT TO command)"},
	{RemoteThrottling, "4.2.1", "host mx.big.example[192.0.2.30] said: 450 4.2.1 This user gets mail too quickly (in reply to RCPT TO command)"},
	{RemoteThrottling, "4.7.500", "host mx.ms.example[192.0.2.31] said: 451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77714) (in reply to MAIL FROM command)"},
	{RemoteThrottling, "4.0.0", "host mx.ms.example[192.0.2.31] said: 421 RP-001 The connecting server has exceeded the rate limit allowed on this connection"},
	{RemoteThrottling, "4.5.3", "host mx.big.example[192.0.2.30] said: 452 4.5.3 Error: too many recipients (in reply to RCPT TO command)"},
	{RemoteThrottling, "4.3.1", "host mx.ms.example[192.0.2.31] said: 452 4.3.1 Insufficient system resources (in reply to MAIL FROM command)"},
	{RemoteThrottling, "4.0.0", "host mx.yy.example[192.0.2.32] refused to talk to me: 421 4.7.0 [GL01] Message from (192.0.2.1) temporarily deferred - 4.16.50"},
	{RemoteThrottling, "4.7.1", "host smtp.corp.example[192.0.2.26] said: 450 4.7.1 Sending limit of 300 per hour exceeded, quota exceeded (in reply to RCPT TO command)"},
	{RemoteThrottling, "4.7.1", `host mx.rs.example[192.0.2.33] said: 451 4.7.1 Ratelimit "bounce_to" exceeded (in reply to end of DATA command)`},
	{RemoteThrottling, "5.4.5", "host smtp.big.example[192.0.2.30] said: 550 5.4.5 Daily user sending limit exceeded (in reply to end of DATA command)"},

	// Greylisting.
	{Greylisting, "4.2.0", "host mx.pg.example[192.0.2.34] said: 450 4.2.0 <kim@pg.example>: Recipient address rejected: Greylisted, see http://postgrey.example/help/pg.example.html (in reply to RCPT TO command)"},
	{Greylisting, "4.7.1", "host mx.mg.example[192.0.2.34] said: 451 4.7.1 Greylisting in action, please come back in 00:05:00 (in reply to RCPT TO command)"},
	{Greylisting, "4.0.0", "host mx.ex.example[192.0.2.34] said: 451 Temporarily greylisted, please try again later (in reply to end of DATA command)"},
	{Greylisting, "4.7.1", "host mx.gl.example[192.0.2.34] said: 450 4.7.1 graylisted for 60 seconds (in reply to RCPT TO command)"},

	// Standing of the sender.
	{Reputation, "5.7.1", "host mx.ms.example[192.0.2.31] said: 550 5.7.1 Messages from [192.0.2.1] weren't sent; part of your network is on our block list (S3140). (in reply to MAIL FROM command)"},
	{Reputation, "4.7.650", "host mx.ms.example[192.0.2.31] said: 451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775) (in reply to MAIL FROM command)"},
	{Reputation, "4.0.0", "host mx.yy.example[192.0.2.32] refused to talk to me: 421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"},
	{Reputation, "5.7.1", "host mx.rb.example[192.0.2.35] said: 554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org (in reply to RCPT TO command)"},
	{Reputation, "4.7.0", "host mx.big.example[192.0.2.30] said: 421-4.7.0 This message is suspicious due to the very low reputation of the sending IP. 421 4.7.0 (in reply to end of DATA command)"},
	{Reputation, "4.7.25", "host mx.rb.example[192.0.2.35] said: 450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1] (in reply to RCPT TO command)"},
	{Reputation, "4.0.0", "host mx.rb.example[192.0.2.35] refused to talk to me: 554 Your IP is listed in our local RBL"},
	{Reputation, "5.7.606", "host mx.ms.example[192.0.2.31] said: 550 5.7.606 Access denied, banned sending IP [192.0.2.1] (in reply to RCPT TO command)"},

	// Mailboxes.
	{MailboxFull, "4.2.2", "host mx.big.example[192.0.2.30] said: 452-4.2.2 The recipient's inbox is out of storage space. 452 4.2.2 See https://help.example/full (in reply to RCPT TO command)"},
	{MailboxFull, "4.2.2", "host mail.dc.example[private/dovecot-lmtp] said: 452 4.2.2 <kim@dc.example> Quota exceeded (mailbox for user is full) (in reply to end of DATA command)"},
	{MailboxFull, "5.2.2", "host mx.co.example[192.0.2.36] said: 552 5.2.2 over quota (in reply to RCPT TO command)"},
	{MailboxFull, "4.2.2", "host mx.co.example[192.0.2.36] said: 450 sorry (in reply to RCPT TO command)"},
	{RecipientUnknown, "5.1.1", "host mx.big.example[192.0.2.30] said: 550-5.1.1 The email account that you tried to reach does not exist. 550 5.1.1 - gsmtp (in reply to RCPT TO command)"},
	{RecipientUnknown, "4.1.1", "host mx.co.example[192.0.2.36] said: 450 4.1.1 <kim@co.example>: Recipient address rejected: User unknown in local recipient table (in reply to RCPT TO command)"},
	{RecipientUnknown, "5.5.0", "host mx.ms.example[192.0.2.31] said: 550 5.5.0 Requested action not taken: mailbox unavailable (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.2.0", "host mx.ms.example[192.0.2.31] said: 450 Requested mail action not taken: mailbox unavailable (in reply to RCPT TO command)"},
	{RecipientUnknown, "5.4.1", "host mx.ms.example[192.0.2.31] said: 550 5.4.1 Recipient address rejected: Access denied. AS(201806281) (in reply to RCPT TO command)"},
	{RecipientUnknown, "5.1.10", "host mx.ms.example[192.0.2.31] said: 550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup (in reply to RCPT TO command)"},
	{RecipientUnknown, "5.2.1", "host mx.big.example[192.0.2.30] said: 550 5.2.1 This account is disabled (in reply to RCPT TO command)"},

	// Content.
	{ContentRejected, "5.7.1", "host mx.big.example[192.0.2.30] said: 550-5.7.1 This message is likely unsolicited mail. 550 5.7.1 (in reply to end of DATA command)"},
	{ContentRejected, "5.7.26", "host mx.big.example[192.0.2.30] said: 550-5.7.26 Unauthenticated email is not accepted due to the domain's DMARC policy. 550 5.7.26 (in reply to end of DATA command)"},
	{ContentRejected, "5.7.1", "host mx.rs.example[192.0.2.33] said: 554 5.7.1 Spam message rejected (in reply to end of DATA command)"},
	{ContentRejected, "5.7.1", "host mx.cl.example[192.0.2.33] said: 550 5.7.1 virus Eicar-Signature detected by ClamAV (in reply to end of DATA command)"},
	{ContentRejected, "5.3.4", "host mx.co.example[192.0.2.36] said: 552 5.3.4 Message size exceeds fixed limit (in reply to MAIL FROM command)"},

	// Other refusals.
	{Auth, "5.7.1", "host smtp.corp.example[192.0.2.26] said: 554 5.7.1 <kim@shop.example>: Relay access denied (in reply to RCPT TO command)"},
	{Auth, "5.7.0", "host smtp.corp.example[192.0.2.26] said: 530 5.7.0 Authentication required (in reply to MAIL FROM command)"},
	{Auth, "4.7.8", "host smtp.corp.example[192.0.2.26] said: 454 4.7.8 no (in reply to MAIL FROM command)"},
	{TLS, "5.7.0", "host smtp.corp.example[192.0.2.26] said: 530 5.7.0 Must issue a STARTTLS command first (in reply to MAIL FROM command)"},
	{RoutingLoop, "5.4.14", "host mx.ms.example[192.0.2.31] said: 554 5.4.14 Hop count exceeded - possible mail loop (in reply to end of DATA command)"},
	{RoutingLoop, "5.4.6", "host mx.co.example[192.0.2.36] said: 554 5.4.6 no (in reply to end of DATA command)"},
	{RemoteRejecting, "4.1.8", "host mx.co.example[192.0.2.36] said: 450 4.1.8 <news@shop.example>: Sender address rejected: Domain not found (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.3.0", "host mx.co.example[192.0.2.36] said: 451 4.3.0 <kim@co.example>: Temporary lookup failure (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.3.5", "host mx.co.example[192.0.2.36] said: 451 4.3.5 Server configuration problem (in reply to RCPT TO command)"},
	{Greylisting, "4.7.1", "host mx.rs.example[192.0.2.33] said: 451 4.7.1 Try again later (in reply to end of DATA command)"},
	{RemoteRejecting, "4.3.1", "host mx.co.example[192.0.2.36] said: 452 4.3.1 Insufficient system storage (in reply to MAIL FROM command)"},
	{RemoteRejecting, "4.7.1", "host mx.co.example[192.0.2.36] said: 450 4.7.1 Client host rejected: Access denied (in reply to RCPT TO command)"},

	// A server on this host: its trouble is ours.
	{Milter, "4.7.1", "host 127.0.0.1[127.0.0.1] said: 451 4.7.1 Service unavailable - try again later (in reply to end of DATA command)"},
	{PolicyService, "4.3.5", "host 127.0.0.1[127.0.0.1] said: 451 4.3.5 <kim@co.example>: Recipient address rejected: Server configuration problem (in reply to RCPT TO command)"},
	{StorageSpace, "4.3.1", "host localhost[::1] said: 452 4.3.1 Insufficient system storage (in reply to MAIL FROM command)"},
	{LookupTable, "4.3.0", "host 127.0.0.1[127.0.0.1] said: 451 4.3.0 <kim@co.example>: Temporary lookup failure (in reply to RCPT TO command)"},
	{ContentFilter, "4.5.0", "host 127.0.0.1[127.0.0.1] said: 451 4.5.0 Error in processing, id=12-34, virus_scan FAILED: all scanners down (in reply to end of DATA command)"},
	{Greylisting, "4.7.1", "host 127.0.0.1[127.0.0.1] said: 451 4.7.1 from the next server: greylisted (in reply to end of DATA command)"},

	// Pasted without what stands before.
	{Greylisting, "", "450 4.2.0 Greylisted"},
	{RecipientUnknown, "", "550 5.1.1 no"},
	{RemoteThrottling, "", "said: 421 later"},
	{Egress, "", "Network is unreachable"},

	// Words that are parts of others, and words of a stranger.
	{RemoteRejecting, "4.0.0", "host mx.marble.example[192.0.2.37] said: 450 try mx.marble.example, warble (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.0.0", "host mx.co.example[64.2.2.5] said: 451 14.2.2 45.1.1.1 not today (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.0.0", "host mx.co.example[192.0.2.36] said: 450 Name service error for name=x: connection timed out, no space left on device (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.0.0", "host mx.co.example[192.0.2.36] said: 450 host 127.0.0.1[127.0.0.1] said: 452 4.3.1 Insufficient system storage (in reply to RCPT TO command)"},
	{RemoteRejecting, "4.0.0", "host mx.co.example[192.0.2.36] said: 450 connect to localhost[127.0.0.1]:10024: refused (in reply to RCPT TO command)"},
}

func TestClassify(t *testing.T) {
	for _, test := range classified {
		if got := Classify(test.status, test.text); got != test.cause {
			t.Errorf("%s: got %q, want %q", test.text, got, test.cause)
		}
	}
}

// Every cause that a selection may ask for is one that some text has, and no
// text has another.
func TestReasonCausesAreThoseThatAppear(t *testing.T) {
	seen := map[Cause]bool{Relayhost: true} // told by the route, not by a text
	for _, test := range classified {
		seen[test.cause] = true
	}
	for _, c := range ReasonCauses() {
		if !seen[c] {
			t.Errorf("no text is of class %q", c)
		}
		if parsed, ok := ParseCause(string(c)); !ok || parsed != c {
			t.Errorf("ParseCause(%q) = %q, %t", c, parsed, ok)
		}
		delete(seen, c)
	}
	delete(seen, NoCause)
	if len(seen) > 0 {
		t.Errorf("classes %v are missing in ReasonCauses", seen)
	}
	for _, s := range []string{"", "DNS", "flood", "dns "} {
		if c, ok := ParseCause(s); ok {
			t.Errorf("ParseCause(%q) = %q", s, c)
		}
	}
}

// Rules are matched against text in lower case, and a rule behind another with
// a part of its phrases never fires.
func TestPhrasesCanMatch(t *testing.T) {
	for _, book := range []*ruleBook{egressRules, localRules, neighbourRules, replyRules, lateRules, providerMarks} {
		for _, r := range book.rules {
			for _, phrase := range r.phrases {
				if len(phrase) < 2 || phrase != strings.ToLower(phrase) || phrase[0] == ' ' {
					t.Errorf("phrase %q cannot match", phrase)
				}
			}
		}
	}
}

// TestOnePassMatchesAsOneByOne holds the single pass over a text to the plain
// meaning of the rules: the first rule of which a phrase begins a word.
func TestOnePassMatchesAsOneByOne(t *testing.T) {
	plain := func(b *ruleBook, text string, kind byte) *rule {
		for i, r := range b.rules {
			if r.only != 0 && r.only != kind {
				continue
			}
			for _, p := range r.phrases {
				for at := 0; at < len(text); at++ {
					starts := at == 0 || !isWordByte(p[0]) || !isWordByte(text[at-1])
					if starts && strings.HasPrefix(text[at:], p) {
						return &b.rules[i]
					}
				}
			}
		}
		return nil
	}
	var pieces []string
	for _, r := range replyRules.rules {
		pieces = append(pieces, r.phrases...)
	}
	pieces = append(pieces, " ", "x", "4", "-", "[", ".", "too ", "is ")
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 6).Draw(t, "pieces"), rapid.SampledFrom([]string{"", " "}).Draw(t, "between"))
		kind := rapid.SampledFrom([]byte{0, '4', '5'}).Draw(t, "kind")
		if got, want := replyRules.match(text, kind), plain(replyRules, text, kind); got != want {
			t.Fatalf("%q is %+v in one pass, %+v one by one", text, got, want)
		}
	})
}

// TestLongNumbersDoNotMatter is what lets a class be remembered for a masked
// reason: texts with equal masks are of one class.
func TestLongNumbersDoNotMatter(t *testing.T) {
	for _, book := range []*ruleBook{egressRules, localRules, neighbourRules, replyRules, lateRules, providerMarks} {
		for _, r := range book.rules {
			for _, p := range r.phrases {
				if masked := string(AppendMasked(nil, p)); masked != p {
					t.Errorf("phrase %q has a number that the mask takes out: %q", p, masked)
				}
			}
		}
	}
	number := rapid.StringMatching(`[0-9]{5,12}`)
	rapid.Check(t, func(t *rapid.T) {
		c := classified[rapid.IntRange(0, len(classified)-1).Draw(t, "text")]
		at := rapid.IntRange(0, len(c.text)).Draw(t, "at")
		a := c.text[:at] + number.Draw(t, "a") + c.text[at:]
		b := c.text[:at] + number.Draw(t, "b") + c.text[at:]
		if !bytes.Equal(AppendMasked(nil, a), AppendMasked(nil, b)) {
			t.Fatalf("%q and %q have different masks", a, b)
		}
		if x, y := Classify(c.status, a), Classify(c.status, b); x != y {
			t.Fatalf("%q is %q, %q is %q", a, x, b, y)
		}
	})
}

// TestMaskedReasonsAreOfOneClass: of all the texts of this file, no two with
// the same mask differ in class, whatever server said them.
func TestMaskedReasonsAreOfOneClass(t *testing.T) {
	seen := make(map[string]Cause)
	for _, c := range classified {
		texts := []string{c.text}
		if verb, _, rest, ok := cutServer(FirstReason(c.text)); ok && verb != "server " {
			for _, server := range []string{"spamhaus.example[198.51.100.1]", "greylist.example[2001:db8::1]", "a[203.0.113.7]"} {
				texts = append(texts, verb+server+rest)
			}
		}
		for _, text := range texts {
			key := c.status + " " + string(AppendMasked(nil, text))
			got := Classify(c.status, text)
			if was, ok := seen[key]; ok && was != got {
				t.Errorf("%q is %q, another text with its mask is %q", text, got, was)
			}
			seen[key] = got
		}
	}
	if len(seen) == 0 {
		t.Fatal("no text was compared")
	}
	for _, local := range []string{"host a[127.0.0.1] said: 451 4.3.0 x", "connect to a[::1]:1025: Connection refused", "host a[private/lmtp] said: 450 x"} {
		if string(AppendMasked(nil, local)) != local {
			t.Errorf("%q lost its server", local)
		}
	}
}

func TestClassifyLaws(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.Custom(func(t *rapid.T) string {
		return classified[rapid.IntRange(0, len(classified)-1).Draw(t, "text")].text
	}))
	rapid.Check(t, func(t *rapid.T) {
		s := text.Draw(t, "reason")
		got := Classify("", s)
		if (got == NoCause) != (strings.TrimSpace(s) == "") {
			t.Fatalf("%q is of class %q", s, got)
		}
		if _, ok := ParseCause(string(got)); got != NoCause && !ok {
			t.Fatalf("%q is of class %q, which nobody can ask for", s, got)
		}
		if again := Classify("", suspended+s); got != NoCause && again != got {
			t.Fatalf("%q is of class %q, and %q behind the mark", s, got, again)
		}
	})
}

func TestFirstReason(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "x": "x", suspended: "", suspended + suspended + "x": "x", "x " + suspended + "y": "x " + suspended + "y",
	} {
		if got := FirstReason(in); got != want {
			t.Errorf("FirstReason(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, test := range classified {
		f.Add(test.status, test.text)
	}
	f.Fuzz(func(t *testing.T, status, text string) {
		c := Classify(status, text)
		if _, ok := ParseCause(string(c)); c != NoCause && !ok {
			t.Fatalf("%q is of class %q", text, c)
		}
		if group := ReasonGroup(text); len(group) > len(text) {
			t.Fatalf("%q grew to %q", text, group)
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	for b.Loop() {
		for _, test := range classified {
			Classify(test.status, test.text)
		}
	}
}
