package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"holdfast/lab/world"
	"holdfast/observe"
	"holdfast/postfix"
)

// noLeak fails the test where it leaves a goroutine behind. It is called
// before anything is started, so that it looks last.
func noLeak(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// freePort finds a port that is free on 127.0.0.1, for UDP and TCP alike.
func freePort(t *testing.T) string {
	t.Helper()
	for range 20 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
		pc, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		ln.Close()
		if err == nil {
			pc.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

func startWorld(t *testing.T, c world.Config) {
	t.Helper()
	c.LedgerDir = t.TempDir()
	w, err := world.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// dnsFaults is a world in which each domain is ill in the way of its name.
func dnsFaults(port string) world.Config {
	c := world.Config{DNS: world.DNSConfig{Listen: []string{"127.0.0.2:" + port}}}
	for _, kind := range []world.DNSFaultKind{
		world.DNSServfail, world.DNSRefused, world.DNSNoData, world.DNSDrop, world.DNSTruncate, world.DNSTruncateDead, world.DNSGarbage,
	} {
		domain := string(kind) + ".test"
		c.DNS.Zones = append(c.DNS.Zones, world.Zone{Name: domain, Records: []string{"@ MX 10 mx." + domain + ".", "@ MX 20 mx2." + domain + ".", "mx A 203.0.113.5"}})
		c.DNS.Faults = append(c.DNS.Faults, world.DNSFault{Domain: domain, Kind: kind})
	}
	c.DNS.Zones = append(c.DNS.Zones, world.Zone{Name: "good.test", Records: []string{
		"@ MX 10 mx.good.test.", "alias CNAME @", "@ A 203.0.113.9",
	}})
	return c
}

func TestEachOutcomeOfAQuestion(t *testing.T) {
	noLeak(t)
	port := freePort(t)
	startWorld(t, dnsFaults(port))
	p := dnsProbe{writeFile(t, filepath.Join(t.TempDir(), "resolv.conf"), "nameserver 127.0.0.2\nnameserver 127.0.0.3\n"), port}
	want := map[string]string{
		"good.test": "answer", "alias.good.test": "answer", "GOOD.test.": "answer", "absent.test": "nxdomain", "nodata.test": "nodata",
		"servfail.test": "servfail", "refused.test": "refused", "truncate.test": "answer", "garbage.test": "garbage", "drop.test": "timeout",
		"truncate-dead.test": "timeout",
	}
	q := observe.Questions{Names: []observe.Question{{Name: "good.test", Type: "MX", Control: true}}}
	for name := range want {
		if name != "good.test" {
			q.Names = append(q.Names, observe.Question{Name: name, Type: "MX"})
		}
	}
	got, gaps := p.look(t.Context(), postfix.Instance{QueueDir: t.TempDir()}, observe.Settings{}, q)
	if len(gaps) != 0 || !got.Known || got.Chrooted || got.Stale || got.Missing || got.Path != p.hostPath || len(got.Servers) != 2 || got.HostServers != nil {
		t.Fatalf("%+v, gaps %v", got, gaps)
	}
	outcomes := map[string]string{}
	for _, a := range got.Servers[0].Answers {
		outcomes[a.Name] = a.Outcome
		if records := map[string]int{"good.test": 1, "truncate.test": 2}[a.Name]; records > 0 && a.Records != records {
			t.Errorf("%s: %d records", a.Name, a.Records)
		}
		if a.Failed() != (a.Text != "") || a.Type != "MX" || a.Control != (a.Name == "good.test") || a.Latency <= 0 {
			t.Errorf("answer %+v", a)
		}
	}
	if diff := cmp.Diff(want, outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	for _, a := range got.Servers[1].Answers {
		if a.Outcome != "unreachable" || a.Text != "connection refused" {
			t.Errorf("of a host without a name server: %+v", a)
		}
	}
}

func TestJailHasItsOwnListOfServers(t *testing.T) {
	noLeak(t)
	port := freePort(t)
	startWorld(t, dnsFaults(port))
	p := dnsProbe{writeFile(t, filepath.Join(t.TempDir(), "resolv.conf"), "nameserver 127.0.0.2\n"), port}
	q := observe.Questions{Names: []observe.Question{{Name: "good.test", Type: "MX"}}}
	jail := func(text string) observe.DNS {
		in := postfix.Instance{QueueDir: t.TempDir()}
		if text != "" {
			writeFile(t, filepath.Join(in.QueueDir, "etc/resolv.conf"), text)
		}
		got, gaps := p.look(t.Context(), in, observe.Settings{SMTPChroot: true}, q)
		if len(gaps) != 0 || !got.Known || !got.Chrooted || got.Path != filepath.Join(in.QueueDir, "etc/resolv.conf") || got.HostPath != p.hostPath {
			t.Errorf("%+v, gaps %v", got, gaps)
		}
		return got
	}
	outcome := func(list []observe.Resolver) string {
		var words []string
		for _, r := range list {
			words = append(words, r.Address+" "+r.Answers[0].Outcome)
		}
		return strings.Join(words, ", ")
	}
	same := jail("# a copy\nnameserver 127.0.0.2 # first\n")
	if same.Stale || same.Missing || same.HostServers != nil || outcome(same.Servers) != "127.0.0.2 answer" {
		t.Errorf("a faithful copy: %+v", same)
	}
	old := jail("nameserver 127.0.0.9\nnameserver 127.0.0.2\n")
	if !old.Stale || outcome(old.Servers) != "127.0.0.9 unreachable, 127.0.0.2 answer" || outcome(old.HostServers) != "127.0.0.2 answer" {
		t.Errorf("an old copy: %+v", old)
	}
	none := jail("")
	if !none.Missing || !none.Stale || outcome(none.Servers) != "127.0.0.1 unreachable" || outcome(none.HostServers) != "127.0.0.2 answer" {
		t.Errorf("no copy: %+v", none)
	}
}

func TestUnreadableListIsAGap(t *testing.T) {
	p := dnsProbe{t.TempDir(), "53"} // a directory
	got, gaps := p.look(t.Context(), postfix.Instance{}, observe.Settings{}, observe.Questions{})
	if got.Known || len(gaps) != 1 || gaps[0].Object != p.hostPath || gaps[0].Hint == "" {
		t.Errorf("%+v, %v", got, gaps)
	}
}

func TestResolvConfAsLibcReadsIt(t *testing.T) {
	for text, want := range map[string]resolvConf{
		"":                       {servers: []string{"127.0.0.1"}},
		"search example.net\n":   {servers: []string{"127.0.0.1"}},
		"nameserver 192.0.2.1\n": {servers: []string{"192.0.2.1"}},
		"nameserver\t192.0.2.1  extra words\nnameserver fe80::1%eth0":                                             {servers: []string{"192.0.2.1", "fe80::1%eth0"}},
		" nameserver 192.0.2.1\n;nameserver 192.0.2.2\n#nameserver 192.0.2.3\nNameserver 192.0.2.4\nnameserver\n": {servers: []string{"127.0.0.1"}},
		"nameserver dns.example\nnameserver 192.0.2.2\n":                                                          {servers: []string{"192.0.2.2"}, ignored: []string{"dns.example"}},
		"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n":                {servers: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}},
		"options timeout:1 use-vc trust-ad\nnameserver 2001:db8::1\n":                                             {servers: []string{"2001:db8::1"}, overTCP: true},
	} {
		got := resolvConf{servers: []string{"127.0.0.1"}}
		got.parse(text)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(resolvConf{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// hostile is a name server that answers each packet by what speak returns.
func hostile(t *testing.T, speak func(query []byte, send func([]byte))) (address, port string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buffer)
			if err != nil {
				return
			}
			speak(slices.Clone(buffer[:n]), func(b []byte) { _, _ = pc.WriteTo(b, from) })
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	_, port, err = net.SplitHostPort(pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1", port
}

// answerTo makes an answer to a query.
func answerTo(t *testing.T, query []byte, records ...string) *dns.Msg {
	m := new(dns.Msg)
	if err := m.Unpack(query); err != nil {
		t.Error(err)
	}
	a := new(dns.Msg).SetReply(m)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Error(err)
		}
		a.Answer = append(a.Answer, rr)
	}
	return a
}

func packed(t *testing.T, m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

func TestHostileAnswers(t *testing.T) {
	chain := func(n int) []string {
		list := []string{"victim.test. 1 CNAME a0.test."}
		for i := range n {
			list = append(list, fmt.Sprintf("a%d.test. 1 CNAME a%d.test.", i, i+1))
		}
		return list
	}
	cases := map[string]struct {
		speak   func(query []byte, send func([]byte))
		outcome string
	}{
		"a flood of wrong IDs": {func(q []byte, send func([]byte)) {
			for i := range 3 * maxStrangers {
				a := answerTo(t, q)
				a.Id += uint16(i) + 1
				send(packed(t, a))
			}
		}, "garbage"},
		"one wrong ID, then the answer": {func(q []byte, send func([]byte)) {
			a := answerTo(t, q, "victim.test. 1 MX 5 mx.test.")
			a.Id++
			send(packed(t, a))
			a.Id--
			send(packed(t, a))
		}, "answer"},
		"another question": {func(q []byte, send func([]byte)) {
			a := answerTo(t, q)
			a.Question[0].Name = "other.test."
			send(packed(t, a))
		}, "garbage"},
		"the query itself": {func(q []byte, send func([]byte)) { send(q) }, "garbage"},
		"bytes":            {func(q []byte, send func([]byte)) { send(append(q[:2:2], "hello, world, this is no DNS"...)) }, "garbage"},
		"two bytes":        {func(q []byte, send func([]byte)) { send(q[:2]) }, "garbage"},
		"a header of promises": {func(q []byte, send func([]byte)) {
			b := append(slices.Clone(q[:12]), q[12:]...)
			b[2] |= 0x80
			binary.BigEndian.PutUint16(b[6:], 65535)
			send(b)
		}, "garbage"},
		"a loop of aliases": {func(q []byte, send func([]byte)) {
			send(packed(t, answerTo(t, q, "victim.test. 1 CNAME b.test.", "b.test. 1 CNAME victim.test.")))
		}, "failed"},
		"an endless chain":    {func(q []byte, send func([]byte)) { send(packed(t, answerTo(t, q, chain(40)...))) }, "failed"},
		"an alias to nowhere": {func(q []byte, send func([]byte)) { send(packed(t, answerTo(t, q, chain(2)...))) }, "nodata"},
		"records of others": {func(q []byte, send func([]byte)) {
			send(packed(t, answerTo(t, q, "other.test. 1 MX 5 mx.test.", "victim.test. 1 A 203.0.113.1")))
		}, "nodata"},
		"an error without the question": {func(q []byte, send func([]byte)) {
			a := answerTo(t, q)
			a.Question, a.Rcode = nil, dns.RcodeServerFailure
			send(packed(t, a))
		}, "servfail"},
		"no EDNS": {func(q []byte, send func([]byte)) {
			m := new(dns.Msg)
			if err := m.Unpack(q); err != nil {
				t.Error(err)
			}
			a := answerTo(t, q, "victim.test. 1 MX 5 mx.test.")
			if m.IsEdns0() != nil {
				a.Answer, a.Rcode = nil, dns.RcodeFormatError
			}
			send(packed(t, a))
		}, "answer"},
		"truncated, and nobody at TCP": {func(q []byte, send func([]byte)) {
			a := answerTo(t, q)
			a.Truncated = true
			send(packed(t, a))
		}, "unreachable"},
		"an unknown code": {func(q []byte, send func([]byte)) {
			a := answerTo(t, q)
			a.Rcode = 11
			send(packed(t, a))
		}, "failed"},
	}
	noLeak(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			address, port := hostile(t, c.speak)
			got := resolver{address: address, port: port}.ask(t.Context(), "victim.test.", dns.TypeMX)
			if got.Outcome != c.outcome || got.Failed() && got.Text == "" {
				t.Errorf("%s, %q; want %s", got.Outcome, got.Text, c.outcome)
			}
		})
	}
}

// TestLongAnswerOverTCP: 64 kB of text over TCP, and a server that promises so
// much and closes.
func TestLongAnswerOverTCP(t *testing.T) {
	noLeak(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for i := 0; ; i++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 600)
			n, _ := conn.Read(buffer)
			a := answerTo(t, buffer[2:n])
			a.Compress = true
			for range 250 {
				a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: "victim.test.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 240)}})
			}
			b := packed(t, a)
			if i == 0 {
				_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			} else {
				_, _ = conn.Write([]byte{255, 255, b[0], b[1]})
			}
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	r := resolver{address: "127.0.0.1", port: port, overTCP: true}
	if got := r.ask(t.Context(), "victim.test.", dns.TypeTXT); got.Outcome != "answer" || got.Records != 250 {
		t.Errorf("%+v", got.Answer)
	}
	if got := r.ask(t.Context(), "victim.test.", dns.TypeTXT); got.Outcome != "failed" || !strings.Contains(got.Text, "closed") {
		t.Errorf("%+v", got.Answer)
	}
}

func TestDeadServerCostsOneTimeout(t *testing.T) {
	noLeak(t)
	var packets atomic.Int64
	address, port := hostile(t, func(b []byte, _ func([]byte)) {
		// Not what another test's server still sends to whoever had the port.
		if len(b) > 14 && b[2]&0x80 == 0 && b[13] == 'd' {
			packets.Add(1)
		}
	})
	p := dnsProbe{writeFile(t, filepath.Join(t.TempDir(), "resolv.conf"), "nameserver "+address+"\n"), port}
	var q observe.Questions
	for i := range 20 {
		q.Names = append(q.Names, observe.Question{Name: fmt.Sprintf("d%d.test", i), Type: "MX", Control: i == 19})
	}
	got, gaps := p.look(t.Context(), postfix.Instance{}, observe.Settings{}, q)
	if len(gaps) != 0 || len(got.Servers[0].Answers) != 20 || !got.Servers[0].Answers[0].Control {
		t.Fatalf("%+v, %v", got, gaps)
	}
	for _, a := range got.Servers[0].Answers {
		if a.Outcome != "timeout" {
			t.Errorf("%+v", a)
		}
	}
	if most := int64(firstQuestions * (questionPatience/questionRepeat + 1)); packets.Load() > most || packets.Load() < 2*firstQuestions {
		t.Errorf("%d packets were sent", packets.Load())
	}
}

// A look that ends early says nothing of a server that had no time to answer.
func TestEndOfTheLookIsNoTimeout(t *testing.T) {
	noLeak(t)
	address, port := hostile(t, func([]byte, func([]byte)) {})
	p := dnsProbe{writeFile(t, filepath.Join(t.TempDir(), "resolv.conf"), "nameserver "+address+"\n"), port}
	for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 50*time.Millisecond)
		},
		"cancelled": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		ctx, cancel := end(t.Context())
		q := observe.Questions{Names: []observe.Question{{Name: "a.test", Type: "MX"}, {Name: "b.test", Type: "A"}, {Name: "c.test", Type: "A"}}}
		got, gaps := p.look(ctx, postfix.Instance{}, observe.Settings{}, q)
		if len(got.Servers[0].Answers) != 0 || len(gaps) != 1 || gaps[0].Count != 3 {
			t.Errorf("%s: %+v, %v", name, got, gaps)
		}
		cancel()
	}
}

func TestNamesThatCannotBeAskedFor(t *testing.T) {
	for name, want := range map[string]string{
		"example.com": "example.com.", "Example.com.": "Example.com.", "münchen.example": "xn--mnchen-3ya.example.", "_dmarc.example.com": "_dmarc.example.com.",
		"": "", ".": "", "a..b": "", "[192.0.2.1]": "", "a b": "", "a\\046b": "", "a\x00b": "", "user@example.com": "",
		strings.Repeat("a", 64) + ".test": "", strings.Repeat("abc.", 80): "", "\xff\xfe.test": "",
	} {
		if got, ok := wireName(name); got != want || ok != (want != "") {
			t.Errorf("%q is asked for as %q, %v", name, got, ok)
		}
	}
	list, gaps := wireQuestions([]observe.Question{{Name: "a b", Type: "MX"}, {Name: "ok.test", Type: "MX"}, {Name: "ok.test", Type: "NOTYPE"}, {Name: "c.test", Type: "A", Control: true}})
	if len(list) != 2 || !list[0].Control || len(gaps) != 2 {
		t.Errorf("%v, %v", list, gaps)
	}
}

// FuzzAnswer: whatever a packet holds, reading it ends and gives an outcome.
func FuzzAnswer(f *testing.F) {
	query := new(dns.Msg).SetQuestion("victim.test.", dns.TypeMX)
	query.Id = 7
	a := new(dns.Msg).SetReply(query)
	for _, text := range []string{"victim.test. 1 CNAME b.test.", "b.test. 1 MX 5 mx.test."} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		a.Answer = append(a.Answer, rr)
	}
	whole, err := a.Pack()
	if err != nil {
		f.Fatal(err)
	}
	for i := range whole {
		f.Add(whole[:i+1])
		flipped := slices.Clone(whole)
		flipped[i] ^= 0xff
		f.Add(flipped)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		msg, err := decodeAnswer(packet, query)
		if err != nil {
			return
		}
		var r reply
		r.judge(msg, "victim.test.", dns.TypeMX)
		if r.Outcome == "" || (r.Outcome == outcomeAnswer) != (r.Records > 0) || r.Records != len(r.records) {
			t.Errorf("%+v", r)
		}
	})
}
