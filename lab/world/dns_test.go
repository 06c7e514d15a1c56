package world

import (
	"errors"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameServed is a world with a name server, and with a provider whose records
// it has to know by itself.
func nameServed(t *testing.T, cfg DNSConfig) (f *fixture, addr string) {
	t.Helper()
	cfg.Listen = []string{"127.0.0.1:0"}
	f = start(t, Config{DNS: cfg, Seed: 3, Providers: []ProviderConfig{{
		Name: "acme", Domains: []string{"acme.example", "*.acme.example"},
		Hosts: []Host{{Addr: "127.0.0.1:0"}, {Addr: "[::1]:0", Name: "backup.acme.example", Preference: 20}},
	}}})
	return f, f.status().DNS.Listening[0]
}

// ask returns the answer in one line: the code, and the records sorted.
func ask(t *testing.T, network, addr, name, qtype string) (string, *dns.Msg) {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 20 * time.Second}
	m := new(dns.Msg).SetQuestion(name, dns.StringToType[qtype])
	in, _, err := c.Exchange(m, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", name, qtype, err)
	}
	var records []string
	for _, rr := range in.Answer {
		h := rr.Header()
		data := strings.TrimPrefix(rr.String(), h.String())
		records = append(records, strings.TrimSuffix(h.Name, ".")+" "+dns.TypeToString[h.Rrtype]+" "+data)
	}
	slices.Sort(records)
	return strings.Join(append([]string{dns.RcodeToString[in.Rcode]}, records...), "; "), in
}

func TestDNSData(t *testing.T) {
	_, addr := nameServed(t, DNSConfig{Zones: []Zone{
		{Name: "data.test", Records: []string{
			"@ MX 10 mx1", "@ MX 20 mx2.other.test.", "mx1 A 192.0.2.1", "mx1 AAAA 2001:db8::1",
			"@ TXT \"v=spf1 -all\"", "www CNAME mx1", "a CNAME b", "b CNAME a", "out CNAME mx1.acme.test.",
			"*.wild A 192.0.2.9", "known.wild TXT yes", "deep.down.here A 192.0.2.3",
		}},
		{Name: "nullmx.test", Records: []string{"@ MX 0 ."}},
		{Name: "2.0.192.in-addr.arpa", Records: []string{"1 PTR mx1.data.test."}},
	}})
	for _, c := range []struct{ name, qtype, want string }{
		{"data.test.", "MX", "NOERROR; data.test MX 10 mx1.data.test.; data.test MX 20 mx2.other.test."},
		{"DATA.test.", "TXT", `NOERROR; data.test TXT "v=spf1 -all"`},
		{"mx1.data.test.", "A", "NOERROR; mx1.data.test A 192.0.2.1"},
		{"mx1.data.test.", "AAAA", "NOERROR; mx1.data.test AAAA 2001:db8::1"},
		{"mx1.data.test.", "MX", "NOERROR"},
		{"www.data.test.", "A", "NOERROR; mx1.data.test A 192.0.2.1; www.data.test CNAME mx1.data.test."},
		{"www.data.test.", "CNAME", "NOERROR; www.data.test CNAME mx1.data.test."},
		{"out.data.test.", "A", "NOERROR; mx1.acme.test A 127.0.0.1; out.data.test CNAME mx1.acme.test."},
		{"a.data.test.", "A", "SERVFAIL"},
		{"x.wild.data.test.", "A", "NOERROR; x.wild.data.test A 192.0.2.9"},
		{"x.y.wild.data.test.", "A", "NOERROR; x.y.wild.data.test A 192.0.2.9"},
		{"known.wild.data.test.", "A", "NOERROR"},
		{"down.here.data.test.", "A", "NOERROR"},
		{"nothing.data.test.", "A", "NXDOMAIN"},
		{"nullmx.test.", "MX", "NOERROR; nullmx.test MX 0 ."},
		{"1.2.0.192.in-addr.arpa.", "PTR", "NOERROR; 1.2.0.192.in-addr.arpa PTR mx1.data.test."},
		{"nowhere.", "MX", "NXDOMAIN"},
		{"acme.example.", "MX", "NOERROR; acme.example MX 10 mx1.acme.test.; acme.example MX 20 backup.acme.example."},
		{"any.acme.example.", "MX", "NOERROR; any.acme.example MX 10 mx1.acme.test.; any.acme.example MX 20 backup.acme.example."},
		{"mx1.acme.test.", "A", "NOERROR; mx1.acme.test A 127.0.0.1"},
		{"mx1.acme.test.", "AAAA", "NOERROR"},
		{"backup.acme.example.", "AAAA", "NOERROR; backup.acme.example AAAA ::1"},
		{"1.0.0.127.in-addr.arpa.", "PTR", "NOERROR; 1.0.0.127.in-addr.arpa PTR mx1.acme.test."},
	} {
		for _, network := range []string{"udp", "tcp"} {
			got, in := ask(t, network, addr, c.name, c.qtype)
			if !strings.EqualFold(got, c.want) {
				t.Errorf("%s %s over %s: got %q, want %q", c.name, c.qtype, network, got, c.want)
			}
			if negative := len(in.Answer) == 0 && in.Rcode != dns.RcodeServerFailure; negative != (len(in.Ns) == 1) {
				t.Errorf("%s %s: authority section %v", c.name, c.qtype, in.Ns)
			}
		}
	}
}

func TestDNSFaults(t *testing.T) {
	const healthy = "^NOERROR; "
	for _, c := range []struct {
		fault    DNSFault
		udp, tcp string // "" is silence
	}{
		{DNSFault{Kind: DNSServfail}, "^SERVFAIL$", "^SERVFAIL$"},
		{DNSFault{Kind: DNSNXDomain}, "^NXDOMAIN$", "^NXDOMAIN$"},
		{DNSFault{Kind: DNSRefused}, "^REFUSED$", "^REFUSED$"},
		{DNSFault{Kind: DNSNoData}, "^NOERROR$", "^NOERROR$"},
		{DNSFault{Kind: DNSDrop}, "", ""},
		{DNSFault{Kind: DNSTruncate}, "^NOERROR$ TC", healthy},
		{DNSFault{Kind: DNSTruncateDead}, "^NOERROR$ TC", ""},
		{DNSFault{Kind: DNSGarbage}, "garbage", "garbage"},
		{DNSFault{Delay: Duration(20 * time.Millisecond)}, healthy, healthy},
		{DNSFault{Kind: DNSServfail, Types: []string{"A"}}, healthy, healthy},
	} {
		name := string(c.fault.Kind)
		if name == "" {
			name = "delay"
		}
		t.Run(name, func(t *testing.T) {
			f, addr := nameServed(t, DNSConfig{})
			c.fault.Domain = "acme.example"
			if err := f.client.PutFault(f.ctx(), c.fault); err != nil {
				t.Fatal(err)
			}
			for network, want := range map[string]string{"udp": c.udp, "tcp": c.tcp} {
				before := time.Now()
				checkFaulty(t, network, addr, want)
				if d := time.Since(before); d < time.Duration(c.fault.Delay) {
					t.Errorf("answered after %v", d)
				}
			}
			if got, _ := ask(t, "udp", addr, "mx1.acme.test.", "A"); !strings.HasPrefix(got, "NOERROR; ") {
				t.Errorf("another domain: got %q", got)
			}
			if err := f.client.RemoveFault(f.ctx(), "acme.example"); err != nil {
				t.Fatal(err)
			}
			checkFaulty(t, "udp", addr, healthy)
		})
	}
}

func checkFaulty(t *testing.T, network, addr, want string) {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 20 * time.Second}
	if want == "" {
		c.Timeout = 100 * time.Millisecond // silence does not end
	}
	in, _, err := c.Exchange(new(dns.Msg).SetQuestion("www.acme.example.", dns.TypeMX), addr)
	switch want {
	case "":
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s: got %v, %v, want silence", network, in, err)
		}
		return
	case "garbage":
		var e *dns.Error
		if err == nil || errors.As(err, new(net.Error)) || !errors.As(err, &e) && !strings.Contains(err.Error(), "unpack") {
			t.Fatalf("%s: got %v, want what cannot be unpacked", network, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	want, truncated := strings.CutSuffix(want, " TC")
	got := dns.RcodeToString[in.Rcode]
	for _, rr := range in.Answer {
		got += "; " + rr.String()
	}
	if !regexp.MustCompile(want).MatchString(got) || in.Truncated != truncated {
		t.Fatalf("%s: got %q, truncated %t, want %q", network, got, in.Truncated, want)
	}
}

// The fault with the longest domain is the one that counts, alone.
func TestDNSFaultScope(t *testing.T) {
	_, addr := nameServed(t, DNSConfig{Faults: []DNSFault{
		{Domain: ".", Kind: DNSServfail}, {Domain: "example", Kind: DNSRefused}, {Domain: "acme.example"},
	}})
	for name, want := range map[string]string{"x.test.": "SERVFAIL", "other.example.": "REFUSED", "notacme.example.": "REFUSED"} {
		if got, _ := ask(t, "udp", addr, name, "MX"); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got, _ := ask(t, "udp", addr, "sub.acme.example.", "MX"); !strings.HasPrefix(got, "NOERROR; ") {
		t.Errorf("the exempt domain: got %q", got)
	}
}

func TestDNSProbability(t *testing.T) {
	run := func() (codes string) {
		_, addr := nameServed(t, DNSConfig{Faults: []DNSFault{{Domain: "acme.example", Kind: DNSServfail, Probability: 0.5}}})
		for range 40 {
			got, _ := ask(t, "udp", addr, "acme.example.", "MX")
			codes += got[:1]
		}
		return codes
	}
	first := run()
	if second := run(); first != second {
		t.Fatalf("got %s, then %s", first, second)
	}
	if n := strings.Count(first, "S"); n < 8 || n > 32 {
		t.Fatalf("%d of 40 failed at 0.5", n)
	}
}

func TestDNSChangesWhileRunning(t *testing.T) {
	f, addr := nameServed(t, DNSConfig{})
	ctx := f.ctx()
	expect := func(name, qtype, want string) {
		t.Helper()
		if got, _ := ask(t, "udp", addr, name, qtype); got != want {
			t.Fatalf("%s %s: got %q, want %q", name, qtype, got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("new.test.", "A", "NXDOMAIN")
	must(f.client.PutZone(ctx, Zone{Name: "new.test", Records: []string{"@ A 192.0.2.1", "@ TXT old"}}))
	expect("new.test.", "A", "NOERROR; new.test A 192.0.2.1")
	must(f.client.PutRecords(ctx, RecordSet{Zone: "new.test", Name: "@", Type: "A", Values: []string{"192.0.2.2"}}))
	expect("new.test.", "A", "NOERROR; new.test A 192.0.2.2")
	expect("new.test.", "TXT", `NOERROR; new.test TXT "old"`)
	must(f.client.PutRecords(ctx, RecordSet{Zone: "new.test", Name: "@", Type: "TXT"}))
	expect("new.test.", "TXT", "NOERROR")
	must(f.client.PutRecords(ctx, RecordSet{Zone: "other.test", Name: "mx", Type: "A", Values: []string{"192.0.2.3"}}))
	expect("mx.other.test.", "A", "NOERROR; mx.other.test A 192.0.2.3")
	must(f.client.RemoveZone(ctx, "new.test"))
	expect("new.test.", "A", "NXDOMAIN")

	p, err := f.client.Provider(ctx, "acme")
	must(err)
	p.Domains = []string{"renamed.example"}
	must(f.client.PutProvider(ctx, p))
	expect("acme.example.", "MX", "NOERROR") // backup.acme.example still is below it
	expect("renamed.example.", "MX", "NOERROR; renamed.example MX 10 mx1.acme.test.; renamed.example MX 20 backup.acme.example.")
	must(f.client.Remove(ctx, KindProvider, "acme"))
	expect("renamed.example.", "MX", "NXDOMAIN")

	must(f.client.Do(ctx, "PATCH", "dns", map[string]bool{"down": true}, nil))
	if _, err := dns.Exchange(new(dns.Msg).SetQuestion("x.test.", dns.TypeA), addr); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("got %v, want a refusal", err)
	}
	must(f.client.Do(ctx, "PATCH", "dns", map[string]bool{"down": false}, nil))
	expect("mx.other.test.", "A", "NOERROR; mx.other.test A 192.0.2.3")
}

func TestDNSCounters(t *testing.T) {
	f, addr := nameServed(t, DNSConfig{Faults: []DNSFault{{Domain: "bad.test", Kind: DNSServfail}}})
	for range 3 {
		ask(t, "udp", addr, "acme.example.", "MX")
	}
	ask(t, "tcp", addr, "ACME.example.", "A")
	ask(t, "udp", addr, "bad.test.", "MX")
	n := f.status().DNS.Counters
	if n.Queries != 5 || n.Faulted != 1 || n.ByName["acme.example"]["MX"] != 3 || n.ByName["acme.example"]["A"] != 1 ||
		n.Rcodes["SERVFAIL"] != 1 || n.Rcodes["NOERROR"] != 4 {
		t.Fatalf("got %+v", n)
	}
}

// A delay divides by the time scale like every other span, and does not
// outlive the world.
func TestDNSDelayEndsWithTheWorld(t *testing.T) {
	f, addr := nameServed(t, DNSConfig{Faults: []DNSFault{{Domain: ".", Delay: Duration(time.Hour)}}})
	c, err := dns.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteMsg(new(dns.Msg).SetQuestion("x.test.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the question arrives", func() bool { return f.status().DNS.Counters.Queries == 1 })
	if err := f.world.Close(); err != nil { // goleak sees whether it waits
		t.Fatal(err)
	}
}

// More records than fit in a packet: truncated over UDP, whole over TCP, whole
// over UDP for a client that announces room.
func TestDNSBigAnswer(t *testing.T) {
	z := Zone{Name: "big.test"}
	for i := range 60 {
		z.Records = append(z.Records, "@ A 192.0.2."+string(rune('1'+i/10))+string(rune('0'+i%10)))
	}
	_, addr := nameServed(t, DNSConfig{Zones: []Zone{z}})
	if _, in := ask(t, "udp", addr, "big.test.", "A"); !in.Truncated || len(in.Answer) == 60 {
		t.Errorf("over UDP: truncated %t, %d records", in.Truncated, len(in.Answer))
	}
	if _, in := ask(t, "tcp", addr, "big.test.", "A"); in.Truncated || len(in.Answer) != 60 {
		t.Errorf("over TCP: truncated %t, %d records", in.Truncated, len(in.Answer))
	}
	m := new(dns.Msg).SetQuestion("big.test.", dns.TypeA).SetEdns0(4096, false)
	in, err := dns.Exchange(m, addr)
	if err != nil || in.Truncated || len(in.Answer) != 60 || in.IsEdns0() == nil {
		t.Errorf("with EDNS: %v, %v", in, err)
	}
}
