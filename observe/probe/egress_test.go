package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"holdfast/lab/world"
	"holdfast/observe"
	"holdfast/postfix"
)

// relay is the instance on whose behalf tests connect.
func relay() postfix.Instance { return postfix.Instance{Hostname: "relay.example.net"} }

func portNumber(t *testing.T, port string) uint16 {
	t.Helper()
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

func banner(reply string, cut world.Cut) world.Traffic {
	rule := world.Rule{Stage: world.StageBanner, Cut: cut}
	if reply != "" {
		r, err := world.ParseReply(reply)
		if err != nil {
			panic(err)
		}
		rule.Reply = &r
	}
	return world.Traffic{Rules: []world.Rule{rule}}
}

// TestEachEndOfASession meets real providers that are ill in one way each,
// found by their MX records. They are on this host, where one that refuses counts
// as a content filter; the tests in a lab see the causes of remote ones.
func TestEachEndOfASession(t *testing.T) {
	noLeak(t)
	port := freePort(t)
	type want struct {
		stage string
		cause postfix.Cause
		text  string // with % for NAME[ADDRESS]
	}
	peers := []struct {
		name    string
		traffic world.Traffic
		down    bool
		want    want
	}{
		{name: "plain", want: want{stage: "done"}},
		{name: "old", traffic: world.Traffic{HeloOnly: true}, want: want{stage: "done"}},
		{name: "tls", traffic: world.Traffic{TLS: world.TLSGood}, want: want{stage: "done"}},
		{name: "expired", traffic: world.Traffic{TLS: world.TLSExpired}, want: want{stage: "done"}},
		{name: "brokentls", traffic: world.Traffic{TLS: world.TLSBroken}, want: want{"starttls", postfix.TLS, "Cannot start TLS: handshake failure"}},
		{name: "refusedtls", traffic: world.Traffic{TLS: world.TLSRefused}, want: want{"starttls", postfix.TLS, "host % refused to start TLS: 454"}},
		{name: "down", down: true, want: want{"connect", postfix.ContentFilter, "connect to %:" + port + ": Connection refused"}},
		{name: "slowdown", traffic: banner("421 4.7.0 Too many connections, slow down", ""), want: want{"banner", postfix.RemoteThrottling, "host % refused to talk to me: 421 4.7.0 Too many connections, slow down"}},
		{name: "listed", traffic: banner("554 5.7.1 Your IP address is listed at a blocklist", ""), want: want{"banner", postfix.Reputation, "host % refused to talk to me: 554 5.7.1"}},
		{name: "closes", traffic: banner("", world.CutClose), want: want{"banner", postfix.RemoteDown, "lost connection with % while receiving the initial server greeting"}},
		{name: "resets", traffic: banner("", world.CutReset), want: want{"banner", postfix.RemoteDown, "lost connection with % while receiving the initial server greeting"}},
		{name: "hangs", traffic: banner("", world.CutHang), want: want{"banner", postfix.RemoteDown, "conversation with % timed out while receiving the initial server greeting"}},
		{name: "cutsehlo", traffic: world.Traffic{Rules: []world.Rule{{Stage: world.StageEHLO, Cut: world.CutClose}}}, want: want{"ehlo", postfix.RemoteDown, "lost connection with % while performing the EHLO handshake"}},
	}
	c := world.Config{DNS: world.DNSConfig{Listen: []string{"127.0.0.2:" + port}}}
	var servers []observe.Server
	for i, p := range peers {
		c.Providers = append(c.Providers, world.ProviderConfig{
			Name: p.name, Domains: []string{p.name + ".test"}, Traffic: p.traffic, Down: p.down,
			Hosts: []world.Host{{Name: "mx." + p.name + ".test", Addr: fmt.Sprintf("127.0.1.%d:%s", i+1, port)}},
		})
		servers = append(servers, observe.Server{Hop: p.name + ".test", Control: i == 0})
	}
	startWorld(t, c)
	dir := t.TempDir()
	p := egressProbe{dns: dnsProbe{"", port}, smtpPort: portNumber(t, port), loopback: true}
	d := observe.DNS{Servers: []observe.Resolver{{Address: "127.0.0.2"}}}
	var reaches []observe.Reach
	for part := range slices.Chunk(servers, maxServers) {
		ctx, cancel := context.WithTimeout(t.Context(), enoughPatience+time.Second) // for the one that hangs
		got, gaps := p.look(ctx, relay(), observe.Settings{}, d, part, memory{dir})
		cancel()
		if len(gaps) != 0 || !got.Known {
			t.Fatalf("%+v, gaps %v", got, gaps)
		}
		reaches = append(reaches, got.Reaches...)
	}
	if len(reaches) != len(peers) {
		t.Fatalf("%d of %d", len(reaches), len(peers))
	}
	for i, r := range reaches {
		w, host := peers[i].want, fmt.Sprintf("mx.%s.test[127.0.1.%d]", peers[i].name, i+1)
		if peers[i].name == "resets" && r.Stage == "connect" { // the reset may overtake the end of connect(2)
			w = want{"connect", postfix.ContentFilter, "connect to %:" + port + ": Connection reset by peer"}
		}
		if r.Stage != w.stage || r.Cause != w.cause || r.Failed != (w.text != "") || r.Well() == r.Failed || !strings.HasPrefix(r.Text, strings.ReplaceAll(w.text, "%", host)) {
			t.Errorf("%s: %+v", peers[i].name, r)
		}
		if (r.Stage == "done" && !strings.HasPrefix(r.Banner, "220 ")) || r.Latency <= 0 || r.At.IsZero() || !slices.Equal(r.Hops, []string{peers[i].name + ".test"}) || r.Control != (i == 0) {
			t.Errorf("%s: %+v", peers[i].name, r)
		}
	}
	if reaches[2].TLS != "TLS 1.3" || reaches[0].TLS != "" {
		t.Errorf("TLS %q and %q", reaches[2].TLS, reaches[0].TLS)
	}
}

// mailServer serves each connection by what speak does with it.
func mailServer(t *testing.T, speak func(net.Conn)) (at netip.AddrPort, connections *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			speak(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).AddrPort(), connections
}

func say(conn net.Conn, text string) { _, _ = io.WriteString(conn, text) }

// drain reads until the other side has had enough.
func drain(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func at(a netip.AddrPort) observe.Server {
	return observe.Server{Hop: "hop.test", Name: "mx.test", Address: a.Addr(), Port: a.Port()}
}

func lookAt(t *testing.T, m memory, servers ...observe.Server) (observe.Egress, []observe.Gap) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enoughPatience+time.Second)
	defer cancel()
	return egressProbe{smtpPort: 25, loopback: true}.look(ctx, relay(), observe.Settings{}, observe.DNS{}, servers, m)
}

func TestHostileMailServers(t *testing.T) {
	noLeak(t)
	cases := map[string]struct {
		speak  func(net.Conn)
		stage  string
		says   string
		banner string
	}{
		"a greeting of many lines": {func(c net.Conn) {
			say(c, strings.Repeat("220-be patient\r\n", 300)+"220 now\r\n")
			drain(c)
		}, "ehlo", "timed out while performing the EHLO handshake", "220-be patient 220-be patient"},
		"a greeting without an end": {func(c net.Conn) {
			for range 20_000 {
				if _, err := io.WriteString(c, "220-flood\r\n"); err != nil {
					return
				}
			}
		}, "banner", "without an end", "220-flood"},
		"a line without an end": {func(c net.Conn) {
			for range 20_000 {
				if _, err := io.WriteString(c, "xxxxxxxxxxxxxxxxxxxx"); err != nil {
					return
				}
			}
		}, "banner", "without an end", "xxxxxxxx"},
		"a byte a second": {func(c net.Conn) {
			for range 10 {
				if _, err := io.WriteString(c, "2"); err != nil {
					return
				}
				time.Sleep(500 * time.Millisecond)
			}
		}, "banner", "timed out while receiving the initial server greeting", ""},
		"a web server": {func(c net.Conn) {
			say(c, "HTTP/1.1 400 Bad Request\r\n\r\n\x1b]0;title\a\xff\x00\r\n")
		}, "banner", "lost connection with mx.test[127.0.0.1] while receiving the initial server greeting", "HTTP/1.1 400 Bad Request"},
		"noise before the greeting": {func(c net.Conn) { say(c, "hello\r\n421 go away\r\n"); drain(c) }, "banner", "refused to talk to me: hello 421 go away", "hello 421"},
		"a refusal of 10 kB":        {func(c net.Conn) { say(c, "554 "+strings.Repeat("no ", 3300)+"\r\n"); drain(c) }, "banner", "refused to talk to me: 554 no no", "554 no"},
		"a TLS of noise": {func(c net.Conn) {
			say(c, "220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n"+strings.Repeat("noise", 20))
			drain(c)
		}, "starttls", "Cannot start TLS", "220 x"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			address, _ := mailServer(t, c.speak)
			got, gaps := lookAt(t, memory{t.TempDir()}, at(address))
			if len(gaps) != 0 || len(got.Reaches) != 1 {
				t.Fatalf("%+v, gaps %v", got, gaps)
			}
			r := got.Reaches[0]
			if !r.Failed || r.Stage != c.stage || !strings.Contains(r.Text, c.says) || !strings.HasPrefix(r.Banner, c.banner) || len(r.Text) > maxReplyText || len(r.Banner) > maxReplyText {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestNoSenderIsNamed reads what a server is told.
func TestNoSenderIsNamed(t *testing.T) {
	noLeak(t)
	heard := make(chan string, 1)
	address, _ := mailServer(t, func(c net.Conn) {
		say(c, "220 mx.test\r\n250-mx.test\r\n250 PIPELINING\r\n221 bye\r\n")
		text, _ := io.ReadAll(c)
		heard <- string(text)
	})
	got, gaps := lookAt(t, memory{t.TempDir()}, at(address))
	if len(gaps) != 0 || len(got.Reaches) != 1 || !got.Reaches[0].Well() {
		t.Fatalf("%+v, %v", got, gaps)
	}
	if text := <-heard; text != "EHLO relay.example.net\r\nQUIT\r\n" {
		t.Errorf("it was told %q", text)
	}
	for name, want := range map[string]string{"": "relay.example.net", "other.example": "other.example", "x\r\nMAIL FROM:<>": "localhost.localdomain"} {
		if got := heloName(relay(), observe.Settings{HeloName: name}); got != want {
			t.Errorf("smtp_helo_name %q greets as %q", name, got)
		}
	}
}

func TestSecondLookRemembers(t *testing.T) {
	noLeak(t)
	address, connections := mailServer(t, func(c net.Conn) { say(c, "421 4.7.0 too many connections\r\n"); drain(c) })
	m := memory{t.TempDir()}
	first, gaps := lookAt(t, m, at(address), observe.Server{Hop: "other.test", Address: address.Addr(), Port: address.Port(), Control: true})
	if len(gaps) != 0 || len(first.Reaches) != 1 || !slices.Equal(first.Reaches[0].Hops, []string{"hop.test", "other.test"}) || !first.Reaches[0].Control {
		t.Fatalf("%+v, %v", first, gaps)
	}
	second, gaps := lookAt(t, m, at(address))
	if len(gaps) != 0 || len(second.Reaches) != 1 || connections.Load() != 1 {
		t.Fatalf("%+v, %v, %d connections", second, gaps, connections.Load())
	}
	a, b := first.Reaches[0], second.Reaches[0]
	if b.Text != a.Text || b.Cause != a.Cause || b.At.After(a.At) || b.Refused != "" {
		t.Errorf("remembered %+v of %+v", b, a)
	}
}

func TestNoMemoryNoConnection(t *testing.T) {
	address, connections := mailServer(t, drain)
	got, gaps := lookAt(t, memory{filepath.Join(t.TempDir(), "missing")}, at(address))
	if got.Known || len(got.Reaches) != 0 || connections.Load() != 0 || len(gaps) != 1 || gaps[0].Hint == "" {
		t.Errorf("%+v, %v, %d connections", got, gaps, connections.Load())
	}
}

// The end of the look blames nobody who had no time to answer, and the server
// is not asked again within the minute, for it has seen a connection.
func TestEndOfTheLookIsNoFailure(t *testing.T) {
	noLeak(t)
	address, connections := mailServer(t, drain)
	m := memory{t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	p := egressProbe{smtpPort: 25, loopback: true}
	got, gaps := p.look(ctx, relay(), observe.Settings{}, observe.DNS{}, []observe.Server{at(address)}, m)
	if len(got.Reaches) != 0 || len(gaps) != 1 || gaps[0].Object != address.String() {
		t.Errorf("%+v, %v", got, gaps)
	}
	got, gaps = lookAt(t, m, at(address))
	if len(gaps) != 0 || len(got.Reaches) != 1 || got.Reaches[0].Refused == "" || connections.Load() != 1 {
		t.Errorf("%+v, %v, %d connections", got, gaps, connections.Load())
	}
}

func TestWhereStrangersMustNotAim(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	for _, text := range []string{
		"127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "::", "0.1.2.3", "169.254.169.254", "fe80::1", "fe80::1%lo", "10.1.2.3", "172.16.0.1", "172.31.255.255",
		"192.168.1.1", "100.64.0.1", "100.127.255.255", "fc00::1", "fd12::1", "fec0::1", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "192.0.0.8", "198.18.0.1",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::1", "2002:a00:1::1",
		"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "100::1",
	} {
		if why := (egressProbe{}).forbidden(netip.AddrPortFrom(netip.MustParseAddr(text), 25), own); why == "" {
			t.Errorf("%s may be connected to", text)
		}
	}
	for _, text := range []string{"192.0.2.2", "198.51.100.7", "203.0.113.9", "2001:db8::2", "8.8.4.4", "172.32.0.1", "100.128.0.1", "2a00::1", "2002:cb00:7105::1"} {
		addr := netip.MustParseAddr(text)
		if why := (egressProbe{}).forbidden(netip.AddrPortFrom(addr, 25), own); why != "" {
			t.Errorf("%s: %s", text, why)
		}
		if why := (egressProbe{}).forbidden(netip.AddrPortFrom(addr, 6379), own); why == "" {
			t.Errorf("%s may be connected to at any port", text)
		}
	}
}

// TestRebinding: names, hops and MX records that lead home open no connection,
// and what the operator configured does.
func TestRebinding(t *testing.T) {
	noLeak(t)
	address, connections := mailServer(t, func(c net.Conn) { say(c, "220 x\r\n250 x\r\n221 x\r\n"); drain(c) })
	port := freePort(t)
	startWorld(t, world.Config{DNS: world.DNSConfig{Listen: []string{"127.0.0.2:" + port}, Zones: []world.Zone{{Name: "evil.test", Records: []string{
		"@ MX 10 home", "home A 127.0.0.1", "home AAAA ::1", "meta MX 1 m", "m A 169.254.169.254", "none MX 0 .", "away MX 1 nowhere",
	}}}}})
	p := egressProbe{dns: dnsProbe{"", port}, smtpPort: address.Port()}
	d := observe.DNS{Servers: []observe.Resolver{{Address: "127.0.0.3"}, {Address: "127.0.0.2"}}}
	hop := func(h string) observe.Server { return observe.Server{Hop: h} }
	bracket := fmt.Sprintf("[127.0.0.1]:%d", address.Port())
	got, gaps := p.look(t.Context(), relay(), observe.Settings{InetProtocols: "ipv4"}, d, []observe.Server{
		hop("evil.test"), hop("meta.evil.test"), hop(bracket), hop("[home.evil.test]"), at(address),
		{Hop: "quiet.test", Name: "mx.quiet.test", LeaveAlone: "its last answer was about the pace"},
		hop("none.evil.test"), hop("away.evil.test"), hop("unix:private/lmtp"), hop("[broken"),
	}, memory{t.TempDir()})
	if connections.Load() != 0 {
		t.Errorf("%d connections", connections.Load())
	}
	for _, r := range got.Reaches {
		if r.Refused == "" || r.Well() || r.Stage != "" {
			t.Errorf("%+v", r)
		}
	}
	if len(got.Reaches) != 3 || len(gaps) != 4 { // three addresses for six hops; four that lead nowhere
		t.Errorf("%+v\n%v", got.Reaches, gaps)
	}
	ours := hop(bracket)
	ours.Configured = true
	got, gaps = p.look(t.Context(), relay(), observe.Settings{}, d, []observe.Server{hop("evil.test"), ours}, memory{t.TempDir()})
	well := 0
	for _, r := range got.Reaches {
		if r.Well() {
			well++
			if !slices.Equal(r.Hops, []string{bracket}) {
				t.Errorf("for whom: %v", r.Hops)
			}
		}
	}
	if well != 1 || connections.Load() != 1 || len(gaps) != 0 {
		t.Errorf("%+v, %v, %d connections", got.Reaches, gaps, connections.Load())
	}
}

func TestNextHopsAsPostfixWritesThem(t *testing.T) {
	for text, want := range map[string]nextHop{
		"example.com": {"example.com", 25, true}, "example.com:587": {"example.com", 587, true}, "[gw.example]": {"gw.example", 25, false},
		"[gw.example]:2525": {"gw.example", 2525, false}, "[192.0.2.7]": {"192.0.2.7", 25, false}, "[ipv6:2001:db8::7]:26": {"2001:db8::7", 26, false},
		"[2001:db8::7]": {"2001:db8::7", 25, false}, "inet:[127.0.0.1]:10024": {"127.0.0.1", 10024, false}, "inet:filter:10024": {"filter", 10024, true},
		"[gw.example]:smtp": {"gw.example", 25, false},
	} {
		if got, err := parseHop(t.Context(), text, 25); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "[", "[]", "[x", "[x]y", "x:0", "x:no-such-service", "unix:private/x", "private/dovecot-lmtp", ":25", "x:99999"} {
		if got, err := parseHop(t.Context(), text, 25); err == nil {
			t.Errorf("%q passes for %+v", text, got)
		}
	}
}

func TestAddressesInTurn(t *testing.T) {
	noLeak(t)
	port := freePort(t)
	startWorld(t, world.Config{DNS: world.DNSConfig{Listen: []string{"127.0.0.2:" + port}, Zones: []world.Zone{{Name: "z.test", Records: []string{
		"@ MX 20 b", "@ MX 10 a", "@ MX 30 c", "a A 203.0.113.1", "b A 203.0.113.2", "b A 203.0.113.3", "c A 203.0.113.4",
		"six MX 10 both", "both A 203.0.113.5", "both A 203.0.113.6", "both AAAA 2001:db8::5", "bare A 203.0.113.7",
		"half MX 10 gone", "half MX 20 a",
	}}}}})
	p := egressProbe{dns: dnsProbe{"", port}, smtpPort: 25}
	d := observe.DNS{Servers: []observe.Resolver{{Address: "127.0.0.2"}}}
	for hop, want := range map[string][]string{
		"z.test": {"203.0.113.1:25", "203.0.113.2:25"}, "six.z.test": {"203.0.113.5:25", "[2001:db8::5]:25"}, "bare.z.test": {"203.0.113.7:25"},
		"[both.z.test]:587": {"203.0.113.5:587", "[2001:db8::5]:587"}, "half.z.test": {"203.0.113.1:25"}, "absent.test": nil,
	} {
		found, err := p.locate(t.Context(), d, source{ipv4: true, ipv6: true}, hop)
		var got []string
		for _, c := range found {
			got = append(got, c.at.String())
		}
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%s: %v (-want +got):\n%s", hop, err, diff)
		}
	}
	// One that answered nothing is not asked again.
	dead := observe.DNS{Servers: []observe.Resolver{{Address: "127.0.0.2", Answers: []observe.Answer{{Outcome: "timeout"}}}}}
	if r, err := p.dns.lookup(t.Context(), dead, "z.test", dns.TypeMX); err == nil {
		t.Errorf("%+v", r)
	}
}

func TestWhereFromAndWhom(t *testing.T) {
	s, gaps, err := newSource(observe.Settings{InetProtocols: "ipv4", BindAddress: "127.0.0.9", BindAddress6: "[2001:db8::dead]"})
	if err != nil || !s.ipv4 || s.ipv6 || s.bind4 != netip.MustParseAddr("127.0.0.9") || s.bind6.IsValid() || len(gaps) != 1 || gaps[0].Hint == "" {
		t.Errorf("%+v, %v, %v", s, gaps, err)
	}
	heard := make(chan string, 1)
	address, _ := mailServer(t, func(c net.Conn) { heard <- c.RemoteAddr().(*net.TCPAddr).IP.String() })
	p := egressProbe{smtpPort: 25, loopback: true}
	got, _ := p.look(t.Context(), relay(), observe.Settings{BindAddress: "127.0.0.9", InetProtocols: "ipv4"}, observe.DNS{}, []observe.Server{at(address)}, memory{t.TempDir()})
	if from := <-heard; from != "127.0.0.9" || !slices.Equal(got.From, []string{"127.0.0.9"}) {
		t.Errorf("connected from %s, and says %v", from, got.From)
	}
	var many []observe.Server
	for i := range 40 {
		many = append(many, observe.Server{Hop: strconv.Itoa(i), Control: i%2 == 1})
	}
	list := choose(many)
	controls := 0
	for _, s := range list {
		if s.Control {
			controls++
		}
	}
	if len(list) != maxServers || controls != leastControls || list[0].Hop != "0" || len(choose(many[:3])) != 3 {
		t.Errorf("%v", list)
	}
}
