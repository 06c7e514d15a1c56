package world

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func reply(t *testing.T, s string) *Reply {
	t.Helper()
	r, err := ParseReply(s)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

const (
	ehlo = "EHLO client.example"
	from = "MAIL FROM:<s@client.example>"
	to   = "RCPT TO:<t-1@acme.example>"
	text = "Subject: x\r\n\r\nhello\r\n."
)

// Every rule of a traffic policy that shows within one session: what is sent,
// and the pattern of what must come.
func TestSession(t *testing.T) {
	upTo := func(n int, rest ...string) []string {
		all := []string{"", "^220 ", ehlo, "^250", from, "^250 ", to, "^250 ", "DATA", "^354 "}
		return append(slices.Clone(all[:2*n]), rest...)
	}
	at := func(stage Stage, r string) Traffic {
		return Traffic{Rules: []Rule{{Stage: stage, Reply: reply(t, r)}}}
	}
	cut := func(stage Stage, c Cut) Traffic { return Traffic{Rules: []Rule{{Stage: stage, Cut: c}}} }
	for _, c := range []struct {
		name    string
		traffic Traffic
		steps   []string
	}{
		{"healthy", Traffic{}, upTo(5, text, `^250 2\.0\.0 `, "QUIT", "^221 ", "", "^EOF$")},
		{"two messages in a session", Traffic{}, upTo(5, text, "^250 ", from, "^250 ", to, "^250 ", "DATA", "^354 ", text, "^250 ")},
		{"helo", Traffic{}, []string{"", "^220 ", "HELO x", "^250 ", from, "^250 "}},
		{"mail before ehlo", Traffic{}, []string{"", "^220 ", from, "^503 "}},
		{"rcpt before mail", Traffic{}, upTo(2, to, "^503 ")},
		{"data without recipients", Traffic{}, upTo(3, "DATA", "^554 ")},
		{"nonsense", Traffic{}, upTo(2, "FROBNICATE", "^500 ", "MAIL FRO:<>", "^501 ", strings.Repeat("x", 40000), "^500 ", "NOOP", "^250 ")},
		{"rset", Traffic{}, upTo(4, "RSET", "^250 ", to, "^503 ")},
		{"banner text", Traffic{Banner: "hello there"}, []string{"", `^220 mx1\.acme\.test hello there\r\n$`}},

		{"421 at banner", at(StageBanner, "421 4.3.2 go away"), []string{"", `^421 4\.3\.2 go away\r\n$`, "", "^EOF$"}},
		{"554 at banner waits for QUIT", at(StageBanner, "554 5.7.1 listed"), []string{"", "^554 ", ehlo, "^503 ", "QUIT", "^221 ", "", "^EOF$"}},
		{"garbage banner", Traffic{Rules: []Rule{{Stage: StageBanner, Reply: &Reply{Raw: []byte("\x00\xff?? \x1b[31m\r\n")}}}}, []string{"", "^\x00.*\x1b", "NOOP", "^250 "}},
		{"451 at ehlo", at(StageEHLO, "451 4.3.0 no"), upTo(1, ehlo, "^451 ")},
		{"helo only", Traffic{HeloOnly: true}, upTo(1, ehlo, "^502 ", "HELO x", "^250 ")},
		{"450 at mail", at(StageMail, "450 4.7.1 rate"), upTo(2, from, "^450 ")},
		{"452 at rcpt", at(StageRcpt, "452 4.2.2 full"), upTo(3, to, "^452 ")},
		{"550 at rcpt", at(StageRcpt, "550 5.1.1 unknown"), upTo(3, to, "^550 ", "DATA", "^554 ")},
		{"450 at data", at(StageData, "450 4.7.1 rate"), upTo(4, "DATA", "^450 ", from, "^250 ")},
		{"451 at dot", at(StageDot, "451 4.3.0 later"), upTo(5, text, "^451 ", from, "^250 ")},
		{"554 at dot", at(StageDot, "554 5.7.1 spam"), upTo(5, text, "^554 ")},
		{"421 closes anywhere", at(StageRcpt, "421 4.7.0 enough"), upTo(3, to, "^421 ", "", "^EOF$")},
		{"close after a 451", Traffic{Rules: []Rule{{Stage: StageRcpt, Reply: reply(t, "451 x"), Close: true}}}, upTo(3, to, "^451 ", "", "^EOF$")},
		{"by recipient", Traffic{Rules: []Rule{{Stage: StageRcpt, Recipient: "*@bad.example", Reply: reply(t, "550 5.1.2 no")}}}, upTo(3, "RCPT TO:<a@BAD.example>", "^550 ", to, "^250 ")},
		{"by sender", Traffic{Rules: []Rule{{Stage: StageMail, Sender: "s@*", Reply: reply(t, "550 5.7.1 no")}}}, upTo(2, from, "^550 ", "MAIL FROM:<other@x.example>", "^250 ")},
		{"null sender only", Traffic{Rules: []Rule{{Stage: StageMail, Sender: "<>", Reply: reply(t, "550 5.7.1 no")}}}, upTo(2, "MAIL FROM:<>", "^550 ", from, "^250 ")},
		{"recipient pattern at dot", Traffic{Rules: []Rule{{Stage: StageDot, Recipient: "t-1@*", Reply: reply(t, "450 4.0.0 no")}}}, upTo(4, "RCPT TO:<b@acme.example>", "^250", "DATA", "^354", text, "^450 ")},
		{"other client", Traffic{Rules: []Rule{{Stage: StageMail, Client: "192.0.2.*", Reply: reply(t, "550 no")}}}, upTo(2, from, "^250 ")},
		{"only twice", Traffic{Rules: []Rule{{Stage: StageMail, Times: 2, Reply: reply(t, "450 no")}}}, upTo(2, from, "^450", from, "^450", from, "^250")},
		{"delay, then as usual", Traffic{Rules: []Rule{{Stage: StageMail, Delay: Duration(time.Millisecond)}}}, upTo(2, from, "^250 ")},

		{"drop at banner", cut(StageBanner, CutClose), []string{"", "^EOF$"}},
		{"drop after ehlo", cut(StageEHLO, CutClose), upTo(1, ehlo, "^EOF$")},
		{"drop at mail", cut(StageMail, CutClose), upTo(2, from, "^EOF$")},
		{"drop at rcpt", cut(StageRcpt, CutClose), upTo(3, to, "^EOF$")},
		{"drop at data", cut(StageData, CutClose), upTo(4, "DATA", "^EOF$")},
		{"drop in the middle of data", cut(StageBody, CutClose), upTo(5, "Subject: x", "^EOF$")},
		{"drop at the final dot", cut(StageDot, CutClose), upTo(5, text, "^EOF$")},
		{"lost 250", cut(StageAccepted, CutClose), upTo(5, text, "^EOF$")},
		{"reset at rcpt", cut(StageRcpt, CutReset), upTo(3, to, "^RESET$")},

		{"size announced", Traffic{SizeLimit: 1000}, []string{"", "^220", ehlo, "(?m)^250.SIZE 1000\r$", "MAIL FROM:<a@b.example> SIZE=1001", `^552 5\.3\.4 `, "MAIL FROM:<a@b.example> SIZE=1000", "^250 "}},
		{"size exceeded", Traffic{SizeLimit: 10}, upTo(5, text, `^552 5\.3\.4 `)},
		{"too many recipients", Traffic{MaxRecipients: 1}, upTo(4, "RCPT TO:<b@acme.example>", `^452 4\.5\.3 `, "DATA", "^354", text, "^250")},
		{"all extensions", Traffic{}, upTo(1, ehlo, `^250-mx1\.acme\.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE\r\n$`)},
		{"no extensions", Traffic{Extensions: []string{}}, upTo(1, ehlo, `^250-mx1\.acme\.test\r\n250 SIZE\r\n$`, "MAIL FROM:<a@b.example> SMTPUTF8", "^555 ", "MAIL FROM:<ü@b.example>", `^553 5\.6\.7 `)},
		{"smtputf8", Traffic{}, upTo(2, "MAIL FROM:<ü@b.example> SMTPUTF8", "^250 ", "RCPT TO:<ö@ä.example>", "^250 ")},
		{"quoted local part", Traffic{}, upTo(3, `RCPT TO:<"a > \" b"@acme.example> NOTIFY=NEVER`, "^250 ")},

		{"multi-line reply", at(StageMail, "450 4.7.1 one\ntwo\nthree"), upTo(2, from, `^450-4\.7\.1 one\r\n450-4\.7\.1 two\r\n450 4\.7\.1 three\r\n$`)},
		{"many long lines", Traffic{Rules: []Rule{{Stage: StageMail, Reply: &Reply{Code: 450, Text: "y", Lines: 50, Width: 3000}}}}, upTo(2, from, `^(450-yx+\r\n){49}450 yx+\r\n$`)},
		{"hostile bytes", at(StageMail, "550 5.7.1 \x1b[2J\x07\rfake: line \u202eü"), upTo(2, from, "^550 5\\.7\\.1 \x1b\\[2J\x07\rfake: line \u202eü\r\n$")},
		{"bytes that are no text", Traffic{Rules: []Rule{{Stage: StageMail, Reply: &Reply{Code: 450, Raw: []byte("450 \xff\xfe\x00\r\n")}}}}, upTo(2, from, "^450 \\x{fffd}\\x{fffd}\x00\r\n$")},

		{"starttls not offered", Traffic{}, upTo(2, "STARTTLS", "^502 ")},
		{"starttls refused", Traffic{TLS: TLSRefused}, []string{"", "^220", ehlo, "STARTTLS", "STARTTLS", "^454 "}},
		{"tls missing", Traffic{TLS: TLSMissing}, upTo(2, from, `^530 5\.7\.0 `)},
		{"tls required", Traffic{TLS: TLSRequired}, []string{"", "^220", ehlo, "STARTTLS", from, `^530 5\.7\.0 `}},

		{"auth required", Traffic{Auth: &Auth{Required: true}}, []string{"", "^220", ehlo, "AUTH PLAIN LOGIN", from, `^530 5\.7\.0 `}},
		{"auth offered only", Traffic{Auth: &Auth{}}, upTo(3)},
		{"auth needs tls", Traffic{Auth: &Auth{NeedTLS: true}}, upTo(2, "AUTH PLAIN x", "^502 ")},
		{"auth login, bad password", Traffic{Auth: &Auth{Users: map[string]string{"u": "p"}}}, upTo(2, "AUTH LOGIN", "^334 VXNlcm5hbWU6", "dQ==", "^334 UGFzc3dvcmQ6", "eA==", `^535 5\.7\.8 `)},
		{"auth login, good password", Traffic{Auth: &Auth{Required: true, Users: map[string]string{"u": "p"}}}, upTo(2, "AUTH LOGIN", "^334 ", "dQ==", "^334 ", "cA==", "^235 ", from, "^250 ")},
		{"auth temporary failure", Traffic{Auth: &Auth{Users: map[string]string{"u": "p"}}, Rules: []Rule{{Stage: StageAuth, Reply: reply(t, "454 4.7.0 later")}}}, upTo(2, "AUTH PLAIN AHUAcA==", "^454 ")},
		{"auth garbage", Traffic{Auth: &Auth{}}, upTo(2, "AUTH PLAIN %%%", "^501 ", "AUTH CRAM-MD5", "^504 ")},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := oneProvider(t, c.traffic)
			dial(t, f.acme()).do(c.steps...)
		})
	}
}

func TestReplyWidth(t *testing.T) {
	lines := strings.SplitAfter(string(Reply{Code: 450, Text: "y", Lines: 3, Width: 3000}.wire()), "\n")
	if len(lines) != 4 || len(lines[0]) != len("450-")+3000+len("\r\n") || len(lines[2]) != len(lines[0]) {
		t.Fatalf("got %d lines, the first of %d bytes", len(lines)-1, len(lines[0]))
	}
}

func TestNeverAnswering(t *testing.T) {
	for _, stage := range []Stage{StageBanner, StageEHLO, StageDot} {
		t.Run(string(stage), func(t *testing.T) {
			f := oneProvider(t, Traffic{Rules: []Rule{{Stage: stage, Cut: CutHang}}})
			c := dial(t, f.acme())
			switch stage {
			case StageEHLO:
				c.do("", "^220 ")
				c.write(ehlo + "\r\n")
			case StageDot:
				c.greet().do(from, "^250", to, "^250", "DATA", "^354")
				c.write(text + "\r\n")
			}
			if err := c.conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if got := c.reply(); got != "SILENCE" {
				t.Fatalf("got %q", got)
			}
			if n := f.counters(); n.Open != 1 || n.Cuts[string(stage)] != 1 {
				t.Fatalf("got %+v", n)
			}
			if err := c.conn.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the session ends with its client", func() bool { return f.counters().Open == 0 })
			if len(f.entries()) != 0 {
				t.Fatal("something was delivered")
			}
		})
	}
}

func TestConnectionLimits(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit ConnectionLimit
		want  string
	}{
		{"in all", ConnectionLimit{Max: 2}, `^421 4\.7\.0 `},
		{"per client", ConnectionLimit{PerClient: 2, Reply: &Reply{Code: 421, Text: "only two"}}, "^421 only two"},
		{"by hanging up", ConnectionLimit{Max: 2, Cut: CutClose}, "^(EOF|RESET)$"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := oneProvider(t, Traffic{Connections: &c.limit})
			first := dial(t, f.acme()).greet()
			dial(t, f.acme()).greet()
			dial(t, f.acme()).do("", c.want)
			first.do("QUIT", "^221", "", "^EOF$")
			eventually(t, "room for another", func() bool { return f.counters().Open < 2 })
			dial(t, f.acme()).greet()
			if n := f.counters(); n.ConnLimited != 1 || n.PeakOpen != 3 {
				t.Fatalf("got %+v", n)
			}
		})
	}
}

// A rate so low that no test sees a second token, until the time scale makes
// a year of it.
func TestRate(t *testing.T) {
	for _, stage := range []Stage{StageMail, StageRcpt, StageData} {
		t.Run(string(stage), func(t *testing.T) {
			f := oneProvider(t, Traffic{Rate: &Rate{PerSecond: 1e-6, Burst: 3, Stage: stage}})
			c := dial(t, f.acme()).greet()
			for range 3 {
				if got := c.send("t-1@acme.example"); got[:3] != "250" {
					t.Fatalf("got %q", got)
				}
			}
			if got := c.send("t-1@acme.example"); !strings.HasPrefix(got, "450 4.7.1 ") {
				t.Fatalf("over the burst: got %q", got)
			}
			if n := f.counters(); n.RateLimited != 1 || n.Messages != 3 || n.Refused["450"] != 1 {
				t.Fatalf("got %+v", n)
			}
			if err := f.client.SetTimeScale(f.ctx(), 1e12); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the bucket fills", func() bool {
				c.do("RSET", "^250 ")
				return c.send("t-1@acme.example")[:3] == "250"
			})
		})
	}
}

func TestGreylist(t *testing.T) {
	f := oneProvider(t, Traffic{Greylist: &Greylist{Delay: Duration(time.Hour)}})
	c := dial(t, f.acme()).greet()
	for range 2 {
		c.do(from, "^250 ", to, `^450 4\.2\.0 `, "RSET", "^250 ")
	}
	c.do(from, "^250 ", "RCPT TO:<other@acme.example>", "^450 ", "RSET", "^250 ")
	if n := f.counters(); n.Greylisted != 3 {
		t.Fatalf("got %+v", n)
	}
	if err := f.client.SetTimeScale(f.ctx(), float64(time.Hour/time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the triplet is known", func() bool {
		c.do("RSET", "^250 ")
		return c.send("t-1@acme.example")[:3] == "250"
	})
	// A new triplet still waits its turn, however short.
	c.do("MAIL FROM:<new@client.example>", "^250 ", to, "^450 ")
}

func TestPenaltyBox(t *testing.T) {
	f := oneProvider(t, Traffic{
		Penalty: &Penalty{Refusals: 3, Window: Duration(time.Hour), For: Duration(time.Hour), Reply: reply(t, "421 4.7.0 boxed")},
		Rules:   []Rule{{Stage: StageRcpt, Recipient: "bad@*", Reply: reply(t, "450 4.2.1 busy")}},
	})
	c := dial(t, f.acme()).greet()
	c.do(from, "^250 ")
	for range 3 {
		c.do("RCPT TO:<bad@acme.example>", `^450 4\.2\.1 `)
	}
	c.do(to, "^421 4.7.0 boxed", "", "^EOF$")
	dial(t, f.acme()).do("", "^421 4.7.0 boxed", "", "^EOF$")
	if n := f.counters(); n.Boxes != 1 || !slices.Equal(n.Boxed, []string{"127.0.0.1"}) || n.Refused["421"] != 2 || n.Refused["450"] != 3 {
		t.Fatalf("got %+v", n)
	}
	if err := f.client.ResetPeer(f.ctx(), KindProvider, "acme"); err != nil {
		t.Fatal(err)
	}
	if got := dial(t, f.acme()).greet().send("t-1@acme.example"); got[:3] != "250" {
		t.Fatalf("after the reset: got %q", got)
	}
}

// A box opens by itself when its span is over.
func TestPenaltyBoxOpens(t *testing.T) {
	f := start(t, Config{TimeScale: float64(time.Hour / (20 * time.Millisecond)), Providers: []ProviderConfig{{
		Name: "acme", Hosts: []Host{{Addr: "127.0.0.1:0"}}, Traffic: Traffic{
			Penalty: &Penalty{Refusals: 1, Window: Duration(time.Hour), For: Duration(time.Hour)},
			Rules:   []Rule{{Stage: StageMail, Times: 1, Reply: reply(t, "450 no")}},
		},
	}}})
	dial(t, f.acme()).greet().do(from, "^450 ")
	eventually(t, "the box opens", func() bool { return strings.HasPrefix(dial(t, f.acme()).reply(), "220") })
	if n := f.counters(); n.Boxes != 1 || len(n.Boxed) != 0 {
		t.Fatalf("got %+v", n)
	}
}

// Lower bounds only: a busy machine makes waits longer, never shorter.
func TestTarpitAndLatency(t *testing.T) {
	const wait = 30 * time.Millisecond
	elapsed := func(f func()) time.Duration {
		before := time.Now()
		f()
		return time.Since(before)
	}
	f := oneProvider(t, Traffic{Tarpit: Duration(wait)})
	if d := elapsed(func() { dial(t, f.acme()).greet() }); d < 2*wait {
		t.Errorf("two replies took %v", d)
	}
	f.setTraffic(Traffic{Latency: Duration(wait)})
	c := dial(t, f.acme()).greet()
	c.do(from, "^250", to, "^250", "DATA", "^354")
	if d := elapsed(func() { c.do(text, "^250 ") }); d < wait {
		t.Errorf("the final reply took %v", d)
	}
}

// A client that gives up during the latency is not delivered behind its back.
func TestNothingIsTakenFromAClientThatLeft(t *testing.T) {
	f := oneProvider(t, Traffic{Latency: Duration(50 * time.Millisecond)})
	c := dial(t, f.acme()).greet()
	c.do(from, "^250", to, "^250", "DATA", "^354")
	c.write(text + "\r\n")
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session ends", func() bool { return f.counters().Open == 0 })
	if got := f.entries(); len(got) != 0 {
		t.Fatalf("got %+v", got)
	}
}

// With the same seed the same messages meet the same fate.
func TestProbabilityIsRepeatable(t *testing.T) {
	run := func() (fates string) {
		f := oneProvider(t, Traffic{Rules: []Rule{{Stage: StageRcpt, Probability: 0.5, Reply: reply(t, "450 no")}}})
		c := dial(t, f.acme()).greet()
		c.do(from, "^250 ")
		for range 60 {
			c.write(to + "\r\n")
			fates += c.reply()[:1]
		}
		return fates
	}
	first := run()
	if second := run(); first != second {
		t.Fatalf("got %s, then %s", first, second)
	}
	if n := strings.Count(first, "4"); n < 15 || n > 45 {
		t.Fatalf("%d of 60 were refused at 0.5", n)
	}
}

func TestPipelining(t *testing.T) {
	f := oneProvider(t, Traffic{Rules: []Rule{{Stage: StageRcpt, Recipient: "t-2@*", Reply: reply(t, "450 4.2.1 busy")}}})
	c := dial(t, f.acme()).greet()
	c.write("MAIL FROM:<s@x.example>\r\nRCPT TO:<t-1@acme.example>\r\nRCPT TO:<t-2@acme.example>\r\nRCPT TO:<t-3@acme.example>\r\nDATA\r\n")
	c.do("", "^250 2.1.0", "", "^250 2.1.5", "", "^450 4.2.1", "", "^250 2.1.5", "", "^354")
	// The content, the next command and a farewell in one packet.
	c.write("Subject: x\r\n\r\n..dot\r\n.\r\nRSET\r\nQUIT\r\n")
	c.do("", "^250 2.0.0", "", "^250", "", "^221", "", "^EOF$")
	if got := f.tokens(); !slices.Equal(got, []string{"t-1", "t-3"}) {
		t.Fatalf("got %q", got)
	}
	entries := f.entries()
	if e := entries[0]; e.Bytes != int64(len("Subject: x\r\n\r\n.dot\r\n")) || e.Delivery != entries[1].Delivery {
		t.Fatalf("got %+v", entries)
	}
}

// The final dot is found wherever it falls in the packets and the buffer.
func TestContentBoundaries(t *testing.T) {
	f := oneProvider(t, Traffic{})
	c := dial(t, f.acme()).greet()
	for _, n := range []int{lineBytes - 2, lineBytes - 1, lineBytes, lineBytes + 1, 3*lineBytes - 1} {
		for _, eol := range []string{"\r\n", "\n.\n\r\n"} {
			c.do(from, "^250", to, "^250", "DATA", "^354")
			content := strings.Repeat("x", n) + eol
			c.write(content)
			c.write(".")
			c.write("\r\n")
			c.do("", "^250")
			// A dot at the start of a line that is not the last is stuffing only
			// after CRLF; after a bare LF it is content.
			entries := f.entries()
			if got := entries[len(entries)-1].Bytes; got != int64(len(content)) {
				t.Fatalf("%d bytes and %q: got %d", n, eol, got)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	for _, c := range []struct {
		mode TLSMode
		good func(error) bool
	}{
		{TLSGood, func(err error) bool { return err == nil }},
		{TLSRequired, func(err error) bool { return err == nil }},
		{TLSExpired, func(err error) bool {
			var e x509.CertificateInvalidError
			return errors.As(err, &e) && e.Reason == x509.Expired
		}},
		{TLSWrongName, func(err error) bool { return errors.As(err, new(x509.HostnameError)) }},
		{TLSBroken, func(err error) bool { return err != nil && !errors.As(err, new(*net.OpError)) }},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			f := oneProvider(t, Traffic{TLS: c.mode})
			ca, err := f.client.CA(f.ctx())
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(ca) {
				t.Fatal("no CA")
			}
			client, err := smtp.Dial(f.acme())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			err = client.StartTLS(&tls.Config{RootCAs: roots, ServerName: "mx1.acme.test"})
			if !c.good(err) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				eventually(t, "the failure is counted", func() bool { return f.counters().TLSFailed == 1 })
				return
			}
			sendWith(t, client, "t-1@acme.example")
			if e := f.entries(); len(e) != 1 || !e[0].TLS {
				t.Fatalf("got %+v", e)
			}
		})
	}
}

func sendWith(t *testing.T, c *smtp.Client, rcpt string) {
	t.Helper()
	err := errors.Join(c.Mail("s@client.example"), c.Rcpt(rcpt))
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(w, "Subject: x\r\n\r\nhello\r\n")
	if err := errors.Join(err, w.Close(), c.Quit()); err != nil {
		t.Fatal(err)
	}
}

func TestSmartHost(t *testing.T) {
	f := start(t, Config{SmartHosts: []SmartHostConfig{{
		Name: "isp", Addr: "127.0.0.1:0",
		Traffic: Traffic{Auth: &Auth{Required: true, Users: map[string]string{"relay": "secret"}}},
	}}})
	addr := f.addr(KindSmartHost, "isp")
	for _, c := range []struct{ password, want string }{{"wrong", "535"}, {"secret", ""}} {
		client, err := smtp.Dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() }) // Quit may have done it
		// The standard client sends PLAIN in clear to 127.0.0.1 only.
		err = client.Auth(smtp.PlainAuth("", "relay", c.password, "127.0.0.1"))
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sendWith(t, client, "t-1@anywhere.example")
	}
	if e := f.entries(); len(e) != 1 || e[0].User != "relay" || e[0].Provider != "isp" || e[0].Token != "t-1" {
		t.Fatalf("got %+v", e)
	}
	n, err := f.status().SMTP(KindSmartHost, "isp")
	if err != nil || n.Auth != 1 || n.AuthFailed != 1 {
		t.Fatalf("got %+v, %v", n, err)
	}
}

// A second client implementation, which speaks DSN, SIZE and SMTPUTF8.
func TestAnotherClient(t *testing.T) {
	f := oneProvider(t, Traffic{})
	c, err := gosmtp.Dial(f.acme())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("ü@client.example", &gosmtp.MailOptions{Size: 100, UTF8: true, Return: gosmtp.DSNReturnHeaders, EnvelopeID: "e1"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("t-ö@acme.example", &gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyNever}}); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(w, "Received: from x (y [192.0.2.1])\r\n\tby relay.example (Postfix) with ESMTP id 4AbC12xyz\r\n\tfor <a@b>; date\r\n\r\n.x\r\n")
	if err := errors.Join(err, w.Close(), c.Quit()); err != nil {
		t.Fatal(err)
	}
	if e := f.entries(); len(e) != 1 || e[0].Token != "t-ö" || e[0].Sender != "ü@client.example" || e[0].QueueID != "4AbC12xyz" {
		t.Fatalf("got %+v", e)
	}
}

func TestAuthPlainWithoutInitialResponse(t *testing.T) {
	f := oneProvider(t, Traffic{Auth: &Auth{Users: map[string]string{"u": "p"}}})
	secret := base64.StdEncoding.EncodeToString([]byte("\x00u\x00p"))
	dial(t, f.acme()).greet().do("AUTH PLAIN", "^334 ", secret, "^235 ", "AUTH PLAIN "+secret, "^503 ")
}
