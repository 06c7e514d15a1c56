package world

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// fixture is a world on loopback with its control API on a socket, as the lab
// runs it.
type fixture struct {
	t      *testing.T
	world  *World
	client *Client
	ledger string
}

func start(t *testing.T, cfg Config) *fixture {
	t.Helper()
	dir := t.TempDir()
	if cfg.LedgerDir == "" {
		cfg.LedgerDir = filepath.Join(dir, "ledger")
	}
	w, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "control")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w.Handler()}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture{t: t, world: w, client: Dial(socket), ledger: cfg.LedgerDir}
}

// oneProvider is a world with one provider, "acme", on one port.
func oneProvider(t *testing.T, traffic Traffic) *fixture {
	t.Helper()
	return start(t, Config{Seed: 7, Providers: []ProviderConfig{{
		Name: "acme", Domains: []string{"acme.example"}, Hosts: []Host{{Addr: "127.0.0.1:0"}}, Traffic: traffic,
	}}})
}

func (f *fixture) ctx() context.Context { return f.t.Context() }

func (f *fixture) status() Status {
	f.t.Helper()
	s, err := f.client.Status(f.ctx())
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func (f *fixture) counters() SMTPCounters {
	f.t.Helper()
	n, err := f.status().SMTP(KindProvider, "acme")
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// addr is where a peer listens.
func (f *fixture) addr(kind, name string) string {
	f.t.Helper()
	for _, p := range f.status().Peers {
		if p.Kind == kind && p.Name == name && len(p.Listening) > 0 {
			return p.Listening[0]
		}
	}
	f.t.Fatalf("%s %q does not listen", kind, name)
	return ""
}

func (f *fixture) acme() string { return f.addr(KindProvider, "acme") }

func (f *fixture) setTraffic(traffic Traffic) {
	f.t.Helper()
	if err := f.client.SetTraffic(f.ctx(), KindProvider, "acme", traffic); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) entries() []LedgerEntry {
	f.t.Helper()
	entries, err := ReadLedger(f.ledger)
	if err != nil {
		f.t.Fatal(err)
	}
	return entries
}

// tokens are those of the ledger, sorted.
func (f *fixture) tokens() []string {
	f.t.Helper()
	var tokens []string
	for _, e := range f.entries() {
		tokens = append(tokens, e.Token)
	}
	slices.Sort(tokens)
	return tokens
}

// talk is a raw SMTP client: it sends what it is told and returns what came.
type talk struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr string) *talk {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // a test may have closed it
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &talk{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (c *talk) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatalf("write %q: %v", text, err)
	}
}

// reply reads one whole reply; a connection that ended is "EOF" or "RESET".
func (c *talk) reply() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String() + endOf(c.t, err)
		}
		if len(line) < 4 || line[3] != '-' {
			return b.String()
		}
	}
}

func endOf(t *testing.T, err error) string {
	t.Helper()
	switch {
	case errors.Is(err, io.EOF):
		return "EOF"
	case strings.Contains(err.Error(), "reset by peer"):
		return "RESET"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "SILENCE"
	}
	t.Fatalf("read: %v", err)
	return ""
}

// do sends lines and checks each reply against a pattern.
func (c *talk) do(steps ...string) {
	c.t.Helper()
	if len(steps)%2 != 0 {
		c.t.Fatal("steps come in pairs")
	}
	for i := 0; i < len(steps); i += 2 {
		if steps[i] != "" {
			c.write(steps[i] + "\r\n")
		}
		got := c.reply()
		if !regexp.MustCompile(steps[i+1]).MatchString(got) {
			c.t.Fatalf("step %d, %q: got %q, want a match of %q", i/2+1, steps[i], got, steps[i+1])
		}
	}
}

// greet says the usual words up to the first MAIL.
func (c *talk) greet() *talk {
	c.t.Helper()
	c.do("", "^220 ", "EHLO client.example", "^250")
	return c
}

// send goes through one transaction and returns the reply to the final dot, or
// the first refusal.
func (c *talk) send(rcpt string) string {
	c.t.Helper()
	for _, line := range []string{"MAIL FROM:<s@client.example>", "RCPT TO:<" + rcpt + ">", "DATA"} {
		c.write(line + "\r\n")
		if got := c.reply(); got[0] != '2' && got[0] != '3' {
			return got
		}
	}
	c.write("Subject: x\r\n\r\nhello\r\n.\r\n")
	return c.reply()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestConfigIsStrict(t *testing.T) {
	for _, c := range []struct{ name, json, want string }{
		{"unknown field", `{"provider":[]}`, `unknown field "provider"`},
		{"unknown field deep inside", `{"providers":[{"name":"a","hosts":[{"addr":"127.0.0.1"}],"traffic":{"grey":1}}]}`, `unknown field "grey"`},
		{"unknown field of a reply", `{"providers":[{"name":"a","traffic":{"rules":[{"stage":"mail","reply":{"kode":1}}]}}]}`, `unknown field "kode"`},
		{"something after the end", `{} {}`, "follows the end"},
		{"duration without unit", `{"dns":{"faults":[{"domain":".","delay":5}]}}`, "unit"},
		{"negative duration", `{"dns":{"faults":[{"domain":".","delay":"-5s"}]}}`, "negative"},
		{"reply that is none", `{"providers":[{"name":"a","traffic":{"rules":[{"stage":"mail","reply":"not now"}]}}]}`, "not now"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadConfig(strings.NewReader(c.json))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestStartRefuses(t *testing.T) {
	provider := func(p ProviderConfig) Config {
		p.Name, p.Hosts = "a", []Host{{Addr: "127.0.0.1:0"}}
		return Config{LedgerDir: t.TempDir(), Providers: []ProviderConfig{p}}
	}
	traffic := func(tr Traffic) Config { return provider(ProviderConfig{Traffic: tr}) }
	rule := func(r Rule) Config { return traffic(Traffic{Rules: []Rule{r}}) }
	twice := provider(ProviderConfig{})
	twice.Providers = append(twice.Providers, twice.Providers[0])
	noLedger := provider(ProviderConfig{})
	noLedger.LedgerDir = ""
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"time scale", Config{TimeScale: -1}, "time scale"},
		{"no ledger", noLedger, "ledger_dir"},
		{"same name twice", twice, "given twice"},
		{"unknown stage", rule(Rule{Stage: "later", Cut: CutClose}), `"later"`},
		{"unknown cut", rule(Rule{Stage: StageMail, Cut: "bite"}), `"bite"`},
		{"idle rule", rule(Rule{Stage: StageMail}), "does nothing"},
		{"reply and cut", rule(Rule{Stage: StageMail, Cut: CutClose, Reply: &Reply{Code: 450}}), "both"},
		{"impossible code", rule(Rule{Stage: StageMail, Reply: &Reply{Code: 42}}), "42"},
		{"text that JSON would change", rule(Rule{Stage: StageMail, Reply: &Reply{Code: 450, Text: "\xff"}}), "raw"},
		{"probability", rule(Rule{Stage: StageMail, Cut: CutClose, Probability: 2}), "probability"},
		{"tls mode", traffic(Traffic{TLS: "maybe"}), `"maybe"`},
		{"rate", traffic(Traffic{Rate: &Rate{}}), "rate"},
		{"penalty", traffic(Traffic{Penalty: &Penalty{Refusals: 1}}), "penalty"},
		{"domain", provider(ProviderConfig{Domains: []string{"a..b"}}), "a..b"},
		{"zone record", Config{DNS: DNSConfig{Zones: []Zone{{Name: "a.test", Records: []string{"@ MX mx1"}}}}}, "@ MX mx1"},
		{"record of another zone", Config{DNS: DNSConfig{Zones: []Zone{{Name: "a.test", Records: []string{"b.test. A 192.0.2.1"}}}}}, "outside"},
		{"dns fault", Config{DNS: DNSConfig{Faults: []DNSFault{{Domain: ".", Kind: "sulk"}}}}, `"sulk"`},
		{"host name as address", Config{DNS: DNSConfig{Listen: []string{"localhost"}}}, "localhost"},
		{"smart host without passwords", Config{LedgerDir: t.TempDir(), SmartHosts: []SmartHostConfig{{Name: "s", Addr: "127.0.0.1:0"}}}, "auth"},
		{"edit before the end", Config{Milters: []MilterConfig{{Name: "m", Listen: "127.0.0.1:0", Rules: []MilterRule{{Stage: MilterMail, Action: MilterQuarantine}}}}}, "stage end"},
		{"policy rule without action", Config{Policies: []PolicyConfig{{Name: "p", Listen: "127.0.0.1:0", Rules: []PolicyRule{{}}}}}, "action"},
		{"filter without a way back", Config{Filters: []FilterConfig{{Name: "f", Listen: "127.0.0.1:0"}}}, "listen address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := Start(c.cfg)
			if err == nil {
				t.Fatal(errors.Join(errors.New("was started"), w.Close()))
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// All or nothing: a port that is taken leaves none of the others open.
func TestStartIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := Start(Config{LedgerDir: t.TempDir(), Providers: []ProviderConfig{
		{Name: "a", Hosts: []Host{{Addr: addr}}},
		{Name: "b", Hosts: []Host{{Addr: taken.Addr().String()}}},
	}})
	if err == nil {
		t.Fatal(errors.Join(errors.New("was started"), w.Close()))
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		t.Fatal("the first provider is still open: ", c.Close())
	}
}

func TestControlChangesEverythingWhileRunning(t *testing.T) {
	f := oneProvider(t, Traffic{})
	ctx := f.ctx()
	addr := f.acme()
	open := dial(t, addr).greet()

	t.Run("traffic, also for open sessions", func(t *testing.T) {
		f.setTraffic(Traffic{Rules: []Rule{{Stage: StageMail, Reply: &Reply{Code: 451, Enhanced: "4.7.1", Text: "not now"}}}})
		open.do("MAIL FROM:<a@b.example>", `^451 4\.7\.1 not now\r\n$`)
		f.setTraffic(Traffic{})
		open.do("MAIL FROM:<a@b.example>", "^250 ", "RSET", "^250 ")
	})
	t.Run("down and up again at the same port", func(t *testing.T) {
		if err := f.client.SetDown(ctx, KindProvider, "acme", true); err != nil {
			t.Fatal(err)
		}
		if got := open.reply(); got != "EOF" {
			t.Fatalf("open session: got %q", got)
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			t.Fatal("the port is open: ", c.Close())
		}
		if err := f.client.SetDown(ctx, KindProvider, "acme", false); err != nil {
			t.Fatal(err)
		}
		if got := dial(t, addr).greet().send("t-1@acme.example"); got[:3] != "250" {
			t.Fatalf("got %q", got)
		}
	})
	t.Run("a second provider comes and goes", func(t *testing.T) {
		p := ProviderConfig{Name: "b", Hosts: []Host{{Addr: "127.0.0.1:0"}}}
		if err := f.client.PutProvider(ctx, p); err != nil {
			t.Fatal(err)
		}
		there := f.addr(KindProvider, "b")
		dial(t, there).greet()
		if err := f.client.Remove(ctx, KindProvider, "b"); err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("tcp", there); err == nil {
			t.Fatal("the port is open: ", c.Close())
		}
	})
	t.Run("reset", func(t *testing.T) {
		if f.counters().Messages == 0 {
			t.Fatal("nothing was counted")
		}
		if err := f.client.Reset(ctx); err != nil {
			t.Fatal(err)
		}
		if n := f.counters(); n.Messages != 0 || n.Connections != 0 {
			t.Fatalf("got %+v", n)
		}
	})
}

func TestControlRefuses(t *testing.T) {
	f := oneProvider(t, Traffic{})
	ctx := f.ctx()
	for _, c := range []struct {
		name         string
		method, path string
		body         any
		want         string
	}{
		{"unknown field", "PATCH", "providers/acme", map[string]any{"traffick": 1}, `unknown field "traffick"`},
		{"unknown field, nested", "PATCH", "providers/acme", map[string]any{"traffic": map[string]any{"pace": 1}}, `unknown field "pace"`},
		{"unknown peer", "PATCH", "providers/nobody", map[string]any{"down": true}, "no such peer"},
		{"remove unknown peer", "DELETE", "milters/nobody", nil, "no such peer"},
		{"two names", "PUT", "providers/x", ProviderConfig{Name: "y", Hosts: []Host{{Addr: "127.0.0.1:0"}}}, `"x"`},
		{"unknown kind", "GET", "elephants/x", nil, "404"},
		{"dns field", "PATCH", "dns", map[string]any{"zoness": 1}, `unknown field "zoness"`},
		{"dns fault", "PUT", "dns/faults", map[string]any{"domain": ".", "kynd": "drop"}, `unknown field "kynd"`},
		{"unknown dns fault", "DELETE", "dns/faults?name=a.test", nil, "no such peer"},
		{"time scale", "PUT", "time_scale", map[string]any{"time_scale": -2}, "positive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := f.client.Do(ctx, c.method, c.path, c.body, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// What the world says of itself starts the same world again.
func TestConfigRoundTrip(t *testing.T) {
	want := Config{
		TimeScale: 60, Seed: 1<<63 + 1, LedgerDir: filepath.Join(t.TempDir(), "l"),
		DNS: DNSConfig{
			Zones:  []Zone{{Name: "x.test", Records: []string{"@ A 192.0.2.1"}}},
			Faults: []DNSFault{{Domain: "x.test", Kind: DNSDrop, Delay: Duration(time.Second), Types: []string{"MX"}}},
		},
		Providers: []ProviderConfig{{Name: "a", Hosts: []Host{{Addr: "127.0.0.1:0"}}, Traffic: Traffic{
			Greylist: &Greylist{Delay: Duration(time.Hour), Reply: &Reply{Code: 450, Text: "wait\x1b[2J"}},
		}}},
		SmartHosts: []SmartHostConfig{{Name: "s", Addr: "127.0.0.1:0", Traffic: Traffic{Auth: &Auth{Users: map[string]string{"u": "p"}}}}},
		Milters:    []MilterConfig{{Name: "m", Listen: "127.0.0.1:0", Rules: []MilterRule{{Stage: MilterEnd, Action: MilterAccept}}}},
		Policies:   []PolicyConfig{{Name: "p", Listen: "127.0.0.1:0", Rules: []PolicyRule{{Action: "DUNNO"}}}},
		Filters:    []FilterConfig{{Name: "f", Listen: "127.0.0.1:0", Forward: "127.0.0.1:9"}},
	}
	f := start(t, want)
	got, err := f.client.Config(f.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if g, w := encode(t, got), encode(t, want); !bytes.Equal(g, w) {
		t.Fatalf("got  %s\nwant %s", g, w)
	}
}
