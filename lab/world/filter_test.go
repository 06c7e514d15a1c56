package world

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// filtered is a provider, standing for the relay's second smtpd, behind a
// content filter.
func filtered(t *testing.T, c FilterConfig, back Traffic) *fixture {
	f := start(t, Config{Providers: []ProviderConfig{{Name: "back", Hosts: []Host{{Addr: "127.0.0.1:0"}}, Traffic: back}}})
	c.Name, c.Listen = "scan", "127.0.0.1:0"
	if c.Forward == "" {
		c.Forward = f.addr(KindProvider, "back")
	}
	if err := f.client.PutFilter(f.ctx(), c); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFilterHandsOver(t *testing.T) {
	f := filtered(t, FilterConfig{Header: "X-Scanned: yes"}, Traffic{})
	c := dial(t, f.addr(KindFilter, "scan"))
	c.do("", "^220", ehlo, "XFORWARD NAME ADDR", "XFORWARD NAME=client.example ADDR=192.0.2.1 IDENT=4AbC", "^250",
		"MAIL FROM:<> SIZE=10 BODY=8BITMIME RET=HDRS", "^250", "RCPT TO:<t-1@a.example> NOTIFY=NEVER", "^250",
		`RCPT TO:<"t-2 x"@a.example>`, "^250", "DATA", "^354")
	content := "Subject: x\r\n\r\n.dot\r\n\xff eight bits\r\n"
	c.write("Subject: x\r\n\r\n..dot\r\n\xff eight bits\r\n.\r\n")
	c.do("", `^250 2\.0\.0 taken as `, "QUIT", "^221")
	if got := f.tokens(); !slices.Equal(got, []string{"t-1", "t-2 x"}) {
		t.Fatalf("got %q", got)
	}
	if e := f.entries()[0]; e.Bytes != int64(len("X-Scanned: yes\r\n"+content)) || e.Sender != "" {
		t.Fatalf("got %+v", e)
	}
	if n, err := f.status().SMTP(KindFilter, "scan"); err != nil || n.Messages != 1 || n.Recipients != 2 {
		t.Fatalf("got %+v, %v", n, err)
	}
}

// A filter passes on what the other side says, and takes nothing that the
// other side has not taken.
func TestFilterFailures(t *testing.T) {
	at := func(stage Stage, r string) Traffic {
		return Traffic{Rules: []Rule{{Stage: stage, Reply: reply(t, r)}}}
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := dead.Addr().String()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		filter FilterConfig
		back   Traffic
		want   string
	}{
		{"the way back is closed", FilterConfig{Forward: nowhere}, Traffic{}, "451 4.4.1 "},
		{"refused at banner", FilterConfig{}, at(StageBanner, "421 4.3.2 full"), "421 4.3.2 full"},
		{"refused at mail", FilterConfig{}, at(StageMail, "452 4.3.1 no space"), "452 4.3.1 no space"},
		{"refused at rcpt", FilterConfig{}, at(StageRcpt, "550 5.1.1 unknown"), "550 5.1.1 unknown"},
		{"refused at dot", FilterConfig{}, at(StageDot, "451 4.3.0 later"), "451 4.3.0 later"},
		{"dropped at dot", FilterConfig{}, Traffic{Rules: []Rule{{Stage: StageDot, Cut: CutClose}}}, "451 4.4.1 "},
		{"the filter itself refuses", FilterConfig{Traffic: at(StageDot, "450 4.7.1 scanner busy")}, Traffic{}, "450 4.7.1 scanner busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := filtered(t, c.filter, c.back)
			if got := dial(t, f.addr(KindFilter, "scan")).greet().send("t-1@a.example"); !strings.HasPrefix(got, c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			if e := f.entries(); len(e) != 0 {
				t.Fatalf("got %+v", e)
			}
		})
	}
}

func TestFilterDownHangingAndBack(t *testing.T) {
	f := filtered(t, FilterConfig{Plain: true, Traffic: Traffic{Rules: []Rule{{Stage: StageDot, Cut: CutHang}}}}, Traffic{})
	addr := f.addr(KindFilter, "scan")
	c := dial(t, addr).greet()
	c.do("XFORWARD NAME=x", "^502 ", from, "^250", to, "^250", "DATA", "^354")
	c.write(text + "\r\n")
	eventually(t, "the filter hangs", func() bool {
		n, err := f.status().SMTP(KindFilter, "scan")
		return err == nil && n.Cuts["dot"] == 1
	})
	if err := f.client.SetDown(f.ctx(), KindFilter, "scan", true); err != nil {
		t.Fatal(err)
	}
	if got := c.reply(); got != "EOF" {
		t.Fatalf("got %q", got)
	}
	err := f.client.Patch(f.ctx(), KindFilter, "scan", map[string]any{"down": nil, "traffic": nil, "header": "X-Late: 1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := dial(t, addr).greet().send("t-1@a.example"); got[:3] != "250" {
		t.Fatalf("got %q", got)
	}
}

// Shutting a filter does not wait for a relay that never answers.
func TestFilterShutsWhileHandingOver(t *testing.T) {
	f := filtered(t, FilterConfig{}, Traffic{Rules: []Rule{{Stage: StageBanner, Cut: CutHang}}})
	c := dial(t, f.addr(KindFilter, "scan")).greet()
	c.do(from, "^250", to, "^250", "DATA", "^354")
	c.write(text + "\r\n")
	eventually(t, "the hand-over hangs", func() bool {
		n, err := f.status().SMTP(KindProvider, "back")
		return err == nil && n.Open == 1
	})
	done := make(chan error, 1)
	go func() { done <- f.client.Remove(f.ctx(), KindFilter, "scan") }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("still waiting")
	}
	// Told to try again, or told nothing; never that it was taken.
	if got := c.reply(); !strings.HasPrefix(got, "451 ") && got != "EOF" {
		t.Fatalf("got %q", got)
	}
	if e := f.entries(); len(e) != 0 {
		t.Fatalf("got %+v", e)
	}
}
