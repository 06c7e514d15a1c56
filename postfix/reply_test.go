package postfix

import (
	"slices"
	"strings"
	"testing"
)

// pasted are the forms in which people have an answer at hand.
var pasted = []struct {
	name, text string
	class      Cause
	status     string
	permanent  bool
	reply      string
}{
	{"bare reply", "451 4.7.1 Try again later", Greylisting, "4.7.1", false, "451 4.7.1 Try again later"},
	{"reason", "connect to mx.shop.example[192.0.2.1]:25: Connection timed out", RemoteDown, "", false, "connect to mx.shop.example[192.0.2.1]:25: Connection timed out"},
	{
		"suspended", "delivery temporarily suspended: connect to mx.shop.example[2001:db8::1]:25: Network is unreachable", Egress, "", false,
		"connect to mx.shop.example[2001:db8::1]:25: Network is unreachable",
	},
	{
		"log line", "Nov 23 10:00:00 mx postfix/smtp[12]: 4XyZ: to=<kim@shop.example>, relay=mx.shop.example[192.0.2.1]:25, delay=3, delays=1/0/1/1, dsn=4.2.2, status=deferred (host mx.shop.example[192.0.2.1] said: 452 sorry (in reply to RCPT TO command))",
		MailboxFull, "4.2.2", false, "host mx.shop.example[192.0.2.1] said: 452 sorry (in reply to RCPT TO command)",
	},
	{
		"bounced log line", "2026-11-23T10:00:00+01:00 mx postfix/lmtp[12]: 4XyZ: to=<kim@shop.example>, relay=none, delay=0, delays=0/0/0/0, dsn=5.4.4, status=bounced (Host or domain name not found. Name service error for name=shop.example type=A: Host not found)",
		DNS, "5.4.4", true, "Host or domain name not found. Name service error for name=shop.example type=A: Host not found",
	},
	{
		"own refusal", "Nov 23 10:00:00 mx postfix/smtpd[12]: NOQUEUE: reject: RCPT from unknown[198.51.100.7]: 450 4.7.25 Client host rejected: cannot find your hostname, [198.51.100.7]; from=<a@b.example> to=<kim@shop.example> proto=ESMTP helo=<x>",
		Reputation, "4.7.25", false, "450 4.7.25 Client host rejected: cannot find your hostname, [198.51.100.7]",
	},
	{"mailq", "   (host mx.shop.example[192.0.2.1] refused to talk to me: 421 4.7.0 Too many connections)", RemoteThrottling, "4.7.0", false, "host mx.shop.example[192.0.2.1] refused to talk to me: 421 4.7.0 Too many connections"},
	{
		"postqueue -j", `{"queue_name": "deferred", "queue_id": "4XyZ", "recipients": [{"address": "kim@shop.example", "delay_reason": "host mx.shop.example[192.0.2.1] said: 450 4.2.0 <kim@shop.example>: \"Greylisted\""}]}`,
		Greylisting, "4.2.0", false, `host mx.shop.example[192.0.2.1] said: 450 4.2.0 <kim@shop.example>: "Greylisted"`,
	},
	{"bounce of Postfix", "<kim@shop.example>: host mx.shop.example[192.0.2.1] said: 552 5.2.2 over\n    quota (in reply to RCPT TO command)", MailboxFull, "5.2.2", true, "host mx.shop.example[192.0.2.1] said: 552 5.2.2 over quota (in reply to RCPT TO command)"},
	{"status report", "Final-Recipient: rfc822; kim@shop.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 no\n  sorry\nRemote-MTA: dns; mx.shop.example\n", RecipientUnknown, "5.1.1", true, "550 no sorry"},
	{"diagnostic code", "Diagnostic-Code: smtp;550 5.7.606 Access denied, banned sending IP [192.0.2.1]", Reputation, "5.7.606", true, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]"},
	{"Exim", "SMTP error from remote mail server after RCPT TO:<kim@shop.example>: host mx.shop.example [192.0.2.1]: 550 User unknown", RecipientUnknown, "", true, "550 User unknown"},
	{"Sendmail", "(reason: 552 5.2.3 Message exceeds maximum fixed size)", ContentRejected, "5.2.3", true, "552 5.2.3 Message exceeds maximum fixed size"},
	{"qmail", "Remote host said: 553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", Auth, "", true, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"},
	{"quoted mail", "> 550-5.1.1 The email account that you tried to\n> 550-5.1.1 reach does not\n> 550 5.1.1 exist", RecipientUnknown, "5.1.1", true, "550-5.1.1 The email account that you tried to 550-5.1.1 reach does not 550 5.1.1 exist"},
	{"reply of several lines", "421-4.7.0 This message is suspicious due to the very low\r\n421-4.7.0 reputation of the sending IP\r\n421 4.7.0 gsmtp", Reputation, "4.7.0", false, "421-4.7.0 This message is suspicious due to the very low 421-4.7.0 reputation of the sending IP 421 4.7.0 gsmtp"},
	{"no reply code", "5.2.2 Over quota", MailboxFull, "5.2.2", true, "5.2.2 Over quota"},
	{"bare 421", "421 closing", RemoteThrottling, "", false, "421 closing"},
	{"bare 450", "450 please come back", RemoteRejecting, "", false, "450 please come back"},
	{"nonsense", "the quick brown fox", UnknownCause, "", false, "the quick brown fox"},
	{"nothing", " \n ", NoCause, "", false, ""},
}

func TestExplainWhatIsPasted(t *testing.T) {
	for _, c := range pasted {
		e := Explain("", c.text)
		if e.Class != c.class || e.Status != c.status || e.Permanent != c.permanent || e.Reply != c.reply {
			t.Errorf("%s: class %q, status %q, permanent %t, reply %q; want %q, %q, %t, %q",
				c.name, e.Class, e.Status, e.Permanent, e.Reply, c.class, c.status, c.permanent, c.reply)
		}
	}
}

// A phrase is found across the lines of a reply, whose codes tear it.
func TestLinesOfAReplyAreOneText(t *testing.T) {
	for text, want := range map[string]Cause{
		"550-5.2.1 The user you are trying to contact is receiving 550-5.2.1 mail at a rate that prevents 550 5.2.1 more of it": RemoteThrottling,
		"450-the mailbox 450 is full":                        MailboxFull,
		"550-#5.1.1 no 550-#5.1.1 such 550 user":             RecipientUnknown,
		"552 the message of 552 bytes is over 552-the quota": MailboxFull,
	} {
		if got := Classify("", "host mx.a.example[192.0.2.1] said: "+text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// TestExplainAgreesWithClassify: the table is one.
func TestExplainAgreesWithClassify(t *testing.T) {
	for _, c := range classified {
		if got := Explain(c.status, c.text).Class; got != c.cause {
			t.Errorf("%q is explained as %q, and classified as %q", c.text, got, c.cause)
		}
	}
}

func TestExplainTellsTheProvider(t *testing.T) {
	for text, want := range map[string]string{
		"host gmail-smtp-in.l.google.com[192.0.2.1] said: 550 5.1.1 no such user": "Google",
		"550 5.7.1 messages from [192.0.2.1] weren't sent (S3140)":                "Microsoft",
		"421 4.7.0 [TSS05] Messages from 192.0.2.1 temporarily deferred":          "Yahoo",
		"554 5.7.1 [HM08] Message rejected due to local policy":                   "Apple",
		"421 4.7.1 AUP#CXCNCT": "Cox",
		"550 HL:REP":           "NetEase",
		"550 5.1.1 <kim@gmail.com>: Recipient address rejected: User unknown in local recip table": "",
	} {
		if got := Explain("", text).Provider; got != want {
			t.Errorf("%q is of %q, want %q", text, got, want)
		}
	}
}

// TestEveryRuleIsWhole: whatever rule speaks, the operator gets a meaning,
// somebody who acts, a next step and a source; no step changes anything.
func TestEveryRuleIsWhole(t *testing.T) {
	actors := []Actor{ActorUs, ActorRemote, ActorRecipient, ActorNobody}
	looks := []string{"holdfast queue", "postconf -n", "postconf smtp", "postconf relay", "postconf content", "postconf queue", "postconf smtpd"}
	for _, book := range []*ruleBook{egressRules, localRules, neighbourRules, replyRules, lateRules, strongStatusRules, statusRules, codeRules} {
		for i := range book.rules {
			r := &book.rules[i]
			if len(r.phrases) == 0 && len(r.codes) == 0 {
				t.Errorf("a rule for %q can never speak", r.cause)
			}
			for _, permanent := range []bool{false, true} {
				e := Explanation{Class: r.cause, Permanent: permanent}
				e.advise(r)
				if e.Meaning == "" || e.Next == "" || e.Source == "" || !slices.Contains(actors, e.Who) {
					t.Errorf("rule %v %v says only %+v", r.phrases, r.codes, e)
				}
				step := strings.Join(e.Step, " ")
				if !slices.ContainsFunc(looks, func(p string) bool { return strings.HasPrefix(step, p) }) {
					t.Errorf("step %q of %q is not known to be harmless", step, r.cause)
				}
			}
		}
	}
}

// TestNoPhraseIsDead: each phrase by itself reaches its own rule; one that
// does not is hidden by a part of it in an earlier rule.
func TestNoPhraseIsDead(t *testing.T) {
	for _, book := range []*ruleBook{egressRules, localRules, neighbourRules, replyRules, lateRules} {
		for i := range book.rules {
			r := &book.rules[i]
			for _, p := range r.phrases {
				kind := r.only
				if kind == 0 {
					kind = '5'
				}
				if got := book.match(p, kind); got != r && (got == nil || got.cause != r.cause) {
					t.Errorf("phrase %q of %q is taken by %v", p, r.cause, got)
				}
			}
		}
	}
}

func FuzzExplain(f *testing.F) {
	for _, c := range pasted {
		f.Add("", c.text)
	}
	for line := range strings.Lines(evidence) {
		f.Add("4.0.0", line[strings.LastIndexByte(line, '\t')+1:])
	}
	f.Fuzz(func(t *testing.T, status, text string) {
		e := Explain(status, text)
		if _, ok := ParseCause(string(e.Class)); !ok && e.Class != NoCause {
			t.Fatalf("%q is of class %q", text, e.Class)
		}
		if (e.Class == NoCause) != (e.Reply == "") {
			t.Fatalf("%q is of class %q with reply %q", text, e.Class, e.Reply)
		}
		const widest = 3 // a byte that is no UTF-8 becomes U+FFFD in JSON
		if len(e.Reply) > widest*len(text) {
			t.Fatalf("%q grew to %q", text, e.Reply)
		}
		if e.Class == NoCause {
			return
		}
		if e.Meaning == "" || e.Next == "" || e.Who == "" {
			t.Fatalf("%q is explained by %+v", text, e)
		}
		beside := status
		if beside == "" {
			beside = unwrap(text).status
		}
		if again := Classify(beside, e.Reply); again != e.Class {
			t.Fatalf("%q is explained as %q, and classified as %q", e.Reply, e.Class, again)
		}
	})
}

func BenchmarkExplain(b *testing.B) {
	for b.Loop() {
		for _, c := range pasted {
			Explain("", c.text)
		}
	}
}
