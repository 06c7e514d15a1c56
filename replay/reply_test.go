package replay

import (
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	const host = "host mx.shop.example[192.0.2.25] "
	for _, c := range []struct {
		status, dsn, reason string
		want                Result
	}{
		{"sent", "2.0.0", "250 2.0.0 taken", Result{Kind: Accepted}},
		{"bounced", "5.1.1", host + "said: 550 5.1.1 no such user (in reply to RCPT TO command)", Result{Kind: Bounced}},
		{"expired", "4.7.0", "", Result{Kind: Bounced}},
		{"deferred", "4.4.1", "delivery temporarily suspended: connect to mx.shop.example[192.0.2.25]:25: Connection timed out", Result{Kind: Suspended}},
		{"deferred", "4.4.1", "connect to mx.shop.example[192.0.2.25]:25: Connection refused", Result{Kind: Unreachable}},
		{"deferred", "4.4.3", "Host or domain name not found. Name service error for name=a.example type=MX: Host not found, try again", Result{Kind: Unreachable}},
		{"deferred", "4.7.1", host + "said: 450 4.7.1 you are sending too fast, slow down (in reply to MAIL FROM command)", Result{Kind: Throttled}},
		{"deferred", "4.7.0", host + "refused to talk to me: 421 4.7.0 too many connections, try again later", Result{Kind: Crowded}},
		{"deferred", "4.7.0", host + "refused to talk to me: 421 4.7.0 Too many concurrent SMTP connections", Result{Kind: Crowded}},
		{"deferred", "4.7.0", host + "said: 421 4.7.0 too many messages, try again in 5 minutes", Result{Kind: Throttled, Asked: 5 * time.Minute}},
		{"deferred", "4.2.0", host + "said: 450 4.2.0 greylisted, please try again later (in reply to RCPT TO command)", Result{Kind: Greylisted}},
		{"deferred", "4.7.1", host + "said: 450 4.7.1 graylisted for 60 seconds (in reply to RCPT TO command)", Result{Kind: Greylisted, Asked: time.Minute}},
		{"deferred", "4.2.2", host + "said: 452 4.2.2 mailbox full (in reply to RCPT TO command)", Result{Kind: Deferred}},
		{"deferred", "4.0.0", "", Result{Kind: Deferred}},
	} {
		if got := Read(c.status, c.dsn, c.reason); got != c.want {
			t.Errorf("%s %s %q\n got %+v\nwant %+v", c.status, c.dsn, c.reason, got, c.want)
		}
	}
}

func TestAsked(t *testing.T) {
	for reason, want := range map[string]time.Duration{
		"":                                    0,
		"450 try again in 5 minutes":          5 * time.Minute,
		"451 Please wait 300 seconds":         300 * time.Second,
		"450 come back in 00:04:57":           4*time.Minute + 57*time.Second,
		"450 retry after 1 hour":              time.Hour,
		"450 Greylisted, try again in 30s":    30 * time.Second,
		"450 delayed for 2 mins":              2 * time.Minute,
		"421 blocked for 999999 hours":        longestAsked,
		"450 try again in 99999999999 hours":  0, // no number of hours that anybody means
		"452 limit of 100 messages in 1 hour": 0,
		"450 4.7.1 try again later":           0,
		"450 wait for 3 messages":             0,
		"450 later 5 menus":                   0,
	} {
		if got := Asked(reason); got != want {
			t.Errorf("%q: %v, want %v", reason, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("deferred", "4.7.0", "421 try again in 5 minutes")
	f.Add("deferred", "", "come back in 999:59:59")
	f.Fuzz(func(t *testing.T, status, dsn, reason string) {
		if r := Read(status, dsn, reason); r.Asked < 0 || r.Asked > longestAsked || r.Kind > Suspended {
			t.Errorf("%q: %+v", reason, r)
		}
	})
}
