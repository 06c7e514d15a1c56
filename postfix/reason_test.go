package postfix

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestReasonGroup(t *testing.T) {
	for in, want := range map[string]string{
		"": "",
		"connect to mx1.shop.example[192.0.2.25]:25: Connection timed out":                                                              "connect to *[*]:25: Connection timed out",
		"connect to mx1.shop.example[2001:db8::25]:587: Network is unreachable":                                                         "connect to *[*]:587: Network is unreachable",
		"connect to relay[private/dovecot-lmtp]: Connection refused":                                                                    "connect to relay[private/dovecot-lmtp]: Connection refused",
		"delivery temporarily suspended: lost connection with mx[192.0.2.1] while sending RCPT TO":                                      "lost connection with *[*] while sending RCPT TO",
		"Host or domain name not found. Name service error for name=a.example type=MX: Host not found, try again":                       "Host or domain name not found. Name service error for name=* type=MX: Host not found, try again",
		"host mx.pg.example[192.0.2.34] said: 450 4.2.0 <kim@pg.example>: Greylisted for 287 seconds (in reply to RCPT TO command)":     "host *[*] said: 450 4.2.0 <*>: Greylisted for * seconds (in reply to RCPT TO command)",
		"host mx[192.0.2.3] said: 550-5.1.1 No kim@x.example 550 5.1.1 here a640c23a62f3a-b0df1c9eb.127 - gsmtp (in reply to RCPT TO)":  "host *[*] said: 550-5.1.1 No * 550 5.1.1 here * - gsmtp (in reply to RCPT TO)",
		"host mx[192.0.2.3] refused to talk to me: 421-mx ready 421 later":                                                              "host *[*] refused to talk to me: 421-mx ready * later",
		"host mx[192.0.2.3] said: 550 5.7.1 [192.0.2.1] is on our block list (S3140)":                                                   "host *[*] said: 550 5.7.1 [*] is on our block list (S3140)",
		"host mx[192.0.2.3] said: 554 Client host [192.0.2.1] blocked using zen.spamhaus.org; see https://check.example/q?ip=192.0.2.1": "host *[*] said: 554 Client host [*] blocked using zen.spamhaus.org; see https://check.example/q?ip=192.0.2.1",
		"host mx[192.0.2.3] said: 452 4.3.1 try 9FBF1140142 or 4dhRlh4dz5z9s2h at 12:30:01":                                             "host *[*] said: 452 4.3.1 try * or * at *",
		"421 4.7.0 [TSS04] Messages from 192.0.2.1 deferred - 4.16.55.1":                                                                "421 4.7.0 [TSS04] Messages from * deferred - *",
		"message size 30000000 exceeds size limit 25000000 of server mx[192.0.2.3]":                                                     "message size * exceeds size limit * of server *[*]",
		"a < b and <c":           "a < b and <c",
		"<<x@y>>":                "<<*>>",
		"wait 450, or 451 4.7.1": "wait *, or 451 4.7.1",
		"MÜLL \xff\x00 ok":       "MÜLL \xff\x00 ok",
		"...":                    "...",
	} {
		if got := ReasonGroup(in); got != want {
			t.Errorf("ReasonGroup(%q)\n got %q\nwant %q", in, got, want)
		}
	}
}

// Reasons that differ only in what varies from message to message are one.
func TestReasonGroupJoins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func() string {
			return fmt.Sprintf("host mx%d.shop%d.example[192.0.2.%d] said: 450 4.7.1 <user%d@shop.example>: %s wait %d seconds, ticket %s (in reply to RCPT TO command)",
				rapid.IntRange(1, 99).Draw(t, "mx"), rapid.IntRange(1, 999).Draw(t, "shop"), rapid.IntRange(1, 254).Draw(t, "ip"), rapid.Int().Draw(t, "user"),
				"please", rapid.IntRange(0, 9999).Draw(t, "seconds"), NewShortID(anyTime.Draw(t, "time"), rapid.Uint64Range(1<<20, 1<<40).Draw(t, "inode")))
		}
		a, b := ReasonGroup(draw()), ReasonGroup(draw())
		if a != b {
			t.Fatalf("two groups:\n%s\n%s", a, b)
		}
		if again := ReasonGroup(a); again != a {
			t.Fatalf("not stable:\n%s\n%s", a, again)
		}
	})
}

func BenchmarkReasonGroup(b *testing.B) {
	for b.Loop() {
		for _, test := range classified {
			ReasonGroup(test.text)
		}
	}
}
