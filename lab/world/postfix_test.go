package world_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"holdfast/lab"
	"holdfast/lab/world"
)

func TestMain(m *testing.M) {
	lab.Main()
	if dir := os.Getenv(world.ChildMark); dir != "" {
		if err := world.RunChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const resolver = "192.0.2.53"

// trouble is one way in which a provider fails, and what Postfix says of it.
type trouble struct {
	domain  string // also the name of the provider
	traffic world.Traffic
	down    bool
	reason  string // part of the delay reason
}

func refuse(stage world.Stage, reply string) world.Traffic {
	r, err := world.ParseReply(reply)
	if err != nil {
		return world.Traffic{Rules: []world.Rule{{Stage: stage, Reply: &world.Reply{Code: 599, Text: err.Error()}}}}
	}
	return world.Traffic{Rules: []world.Rule{{Stage: stage, Reply: &r}}}
}

func cutAt(stage world.Stage, how world.Cut) world.Traffic {
	return world.Traffic{Rules: []world.Rule{{Stage: stage, Cut: how}}}
}

func troubles() []trouble {
	hostile := world.Traffic{Rules: []world.Rule{{Stage: world.StageRcpt, Reply: &world.Reply{Code: 450, Raw: []byte("450 4.0.0 \x1b[2Jred\xff\r\n")}}}}
	return []trouble{
		{domain: "banner", traffic: refuse(world.StageBanner, "421 4.3.2 not today"), reason: "refused to talk to me: 421 4.3.2 not today"},
		{domain: "mail", traffic: refuse(world.StageMail, "451 4.7.1 too fast"), reason: "said: 451 4.7.1 too fast (in reply to MAIL FROM command)"},
		{domain: "rcpt", traffic: refuse(world.StageRcpt, "450 4.2.1 busy"), reason: "said: 450 4.2.1 busy (in reply to RCPT TO command)"},
		{domain: "data", traffic: refuse(world.StageData, "452 4.3.1 full"), reason: "said: 452 4.3.1 full (in reply to DATA command)"},
		{domain: "dot", traffic: refuse(world.StageDot, "451 4.3.0 later"), reason: "said: 451 4.3.0 later (in reply to end of DATA command)"},
		{domain: "hostile", traffic: hostile, reason: "said: 450 4.0.0 ?[2Jred? (in reply"},
		// Postfix censors control characters and bytes that are no text, but lets
		// through what is UTF-8, whatever it does to a screen.
		{domain: "bidi", traffic: refuse(world.StageRcpt, "450 4.0.0 \u202edeppots"), reason: "said: 450 4.0.0 \u202edeppots (in reply"},
		{domain: "drop-banner", traffic: cutAt(world.StageBanner, world.CutClose), reason: "while receiving the initial server greeting"},
		{domain: "drop-ehlo", traffic: cutAt(world.StageEHLO, world.CutClose), reason: "while performing the EHLO handshake"},
		{domain: "drop-body", traffic: world.Traffic{Rules: []world.Rule{{Stage: world.StageBody, Cut: world.CutReset, AfterBytes: 1000}}}, reason: "while sending message body"},
		{domain: "drop-dot", traffic: cutAt(world.StageDot, world.CutClose), reason: "while sending end of data -- message may be sent more than once"},
		{domain: "silent", traffic: cutAt(world.StageBanner, world.CutHang), reason: "timed out while receiving the initial server greeting"},
		{domain: "refused", down: true, reason: "Connection refused"},
		{domain: "grey", traffic: world.Traffic{Greylist: &world.Greylist{Delay: world.Duration(time.Hour)}}, reason: "said: 450 4.2.0 greylisted"},
		{domain: "no-tls", traffic: world.Traffic{TLS: world.TLSOff}, reason: "TLS is required, but was not offered"},
		{domain: "broken-tls", traffic: world.Traffic{TLS: world.TLSBroken}, reason: "Cannot start TLS: handshake failure"},
		{domain: "refused-tls", traffic: world.Traffic{TLS: world.TLSRefused}, reason: "TLS is required, but host"},
		{domain: "expired-tls", traffic: world.Traffic{TLS: world.TLSExpired}, reason: "Server certificate not verified"},
		{domain: "misnamed-tls", traffic: world.Traffic{TLS: world.TLSWrongName}, reason: "Server certificate not verified"},
		{domain: "servfail", reason: "Host not found, try again"},
		{domain: "dns-garbage", reason: "Malformed or unexpected name server reply"},
	}
}

// Each failure of a provider or of DNS means to a real Postfix what it is
// meant to mean.
func TestPostfixMeetsTrouble(t *testing.T) {
	list := troubles()
	cfg := world.Config{DNS: world.DNSConfig{Listen: []string{resolver}, Faults: []world.DNSFault{
		{Domain: "servfail.example", Kind: world.DNSServfail}, {Domain: "dns-garbage.example", Kind: world.DNSGarbage},
	}}}
	var domains []string
	for i, c := range list {
		domains = append(domains, c.domain+".example")
		cfg.Providers = append(cfg.Providers, world.ProviderConfig{
			Name: c.domain, Domains: []string{c.domain + ".example"}, Down: c.down, Traffic: c.traffic,
			Hosts: []world.Host{{Addr: fmt.Sprintf("198.51.100.%d", i+10)}},
		})
	}
	l := lab.Up(t, lab.Options{World: cfg, Params: map[string]string{
		"smtp_helo_timeout": "2s", "minimal_backoff_time": "1h", "maximal_backoff_time": "1h",
		"smtp_tls_CAfile": "/etc/postfix/world-ca.pem",
		"smtp_tls_policy_maps": "inline:{{no-tls.example=encrypt}, {broken-tls.example=encrypt}, {refused-tls.example=encrypt}, " +
			"{expired-tls.example=secure match=hostname}, {misnamed-tls.example=secure match=hostname}}",
	}})
	ctx := limited(t)
	trustWorld(ctx, t, l)
	for _, domain := range domains {
		load := lab.Load{Count: 1, Domains: []string{domain}}
		if domain == "drop-body.example" {
			load.Size = 6 << 20 // more than fits into the buffers between the two
		}
		if _, err := l.Inject(ctx, load); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.WaitQueue(ctx, lab.Count("deferred", len(list))); err != nil {
		t.Fatal(err)
	}
	queue, err := l.Queue(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(map[string]string)
	for _, m := range queue {
		_, domain, _ := strings.Cut(m.Recipients[0].Address, "@")
		reasons[strings.TrimSuffix(domain, ".example")] = m.Recipients[0].Reason
	}
	for _, c := range list {
		if !strings.Contains(reasons[c.domain], c.reason) {
			t.Errorf("%s: got %q, want %q", c.domain, reasons[c.domain], c.reason)
		}
	}
	if e, err := l.Ledger(); err != nil || len(e) != 0 {
		t.Errorf("delivered %+v, %v", e, err)
	}
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func trustWorld(ctx context.Context, t *testing.T, l *lab.Lab) {
	t.Helper()
	ca, err := l.World().CA(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.HostPath("/etc/postfix/world-ca.pem"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
}

// deliveries waits until a domain's tokens are in the ledger often enough.
func deliveries(ctx context.Context, t *testing.T, l *lab.Lab, domain string, n int) []world.LedgerEntry {
	t.Helper()
	for {
		all, err := l.Ledger()
		if err != nil && !errors.Is(err, world.ErrTornLedger) {
			t.Fatal(err)
		}
		found := slices.DeleteFunc(all, func(e world.LedgerEntry) bool { return !strings.HasSuffix(e.Rcpt, "@"+domain) })
		if len(found) >= n {
			return found
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %d of %d deliveries: %+v", domain, len(found), n, found)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// retryOnce waits until the only message is deferred, mends what was wrong, and
// flushes. Short back-off times would do the same by themselves, most of the
// time: a queue run that meets a message in the moment of its delivery puts it
// off by a minute ("skipped, still being delivered").
func retryOnce(ctx context.Context, t *testing.T, l *lab.Lab, mend func() error) {
	t.Helper()
	err := l.WaitQueue(ctx, lab.Count("deferred", 1))
	if err == nil {
		err = mend()
	}
	if err != nil {
		t.Fatal(err)
	}
	if res, err := l.Exec(ctx, "postqueue", "-f"); err != nil || res.Code != 0 {
		t.Fatalf("flush: %+v, %v", res, err)
	}
}

// logged waits for a line of Postfix's log, which is written behind its back
// by a process of its own.
func logged(ctx context.Context, t *testing.T, l *lab.Lab, line string) {
	t.Helper()
	for {
		log, err := os.ReadFile(l.HostPath(l.Instances[0].LogFile))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), line) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("never logged: %s", line)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// What a real Postfix delivers is what the ledger says, also where things go
// wrong on the way.
func TestPostfixDelivers(t *testing.T) {
	provider := func(name, addr string, tr world.Traffic) world.ProviderConfig {
		return world.ProviderConfig{Name: name, Domains: []string{name + ".example"}, Hosts: []world.Host{{Addr: addr}}, Traffic: tr}
	}
	l := lab.Up(t, lab.Options{
		World: world.Config{
			DNS: world.DNSConfig{Listen: []string{resolver}, Faults: []world.DNSFault{{Domain: "plain.example", Kind: world.DNSTruncate}}},
			Providers: []world.ProviderConfig{
				provider("plain", "198.51.100.10", world.Traffic{}),
				provider("bare", "198.51.100.11", world.Traffic{Extensions: []string{}, HeloOnly: true}),
				provider("tls", "198.51.100.12", world.Traffic{TLS: world.TLSRequired}),
				provider("lossy", "198.51.100.13", world.Traffic{Rules: []world.Rule{{Stage: world.StageAccepted, Times: 1, Cut: world.CutClose}}}),
				provider("grey", "198.51.100.14", world.Traffic{Greylist: &world.Greylist{Delay: world.Duration(time.Hour)}}),
			},
			SmartHosts: []world.SmartHostConfig{{Name: "isp", Addr: "192.0.2.60", Traffic: world.Traffic{
				TLS: world.TLSGood, Auth: &world.Auth{Required: true, NeedTLS: true, Users: map[string]string{"relay": "secret"}},
			}}},
		},
		Params: map[string]string{
			"smtp_tls_CAfile":            "/etc/postfix/world-ca.pem",
			"smtp_tls_policy_maps":       "inline:{{tls.example=secure match=hostname}}",
			"transport_maps":             "inline:{{isp.example=smtp:[192.0.2.60]:587}}",
			"smtp_sasl_auth_enable":      "yes",
			"smtp_sasl_password_maps":    "inline:{{[192.0.2.60]:587=relay:secret}}",
			"smtp_sasl_security_options": "noanonymous",
		},
	})
	ctx := limited(t)
	trustWorld(ctx, t, l)
	send := func(domain string, load lab.Load) []lab.Injected {
		t.Helper()
		load.Domains = []string{domain}
		in, err := l.Inject(ctx, load)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	t.Run("several recipients, pipelined, DNS over TCP", func(t *testing.T) {
		in := send("plain.example", lab.Load{Count: 3, Recipients: 20})
		got := deliveries(ctx, t, l, "plain.example", len(in))
		if len(got) != 60 || got[0].QueueID != in[0].QueueID && !slices.ContainsFunc(in, func(i lab.Injected) bool { return i.QueueID == got[0].QueueID }) {
			t.Fatalf("got %d entries, the first %+v", len(got), got[0])
		}
	})
	t.Run("a server of the eighties", func(t *testing.T) {
		send("bare.example", lab.Load{Count: 2, Recipients: 3})
		deliveries(ctx, t, l, "bare.example", 6)
	})
	t.Run("verified TLS", func(t *testing.T) {
		send("tls.example", lab.Load{Count: 1})
		if e := deliveries(ctx, t, l, "tls.example", 1); !e[0].TLS {
			t.Fatalf("got %+v", e)
		}
	})
	t.Run("smart host with a password", func(t *testing.T) {
		send("isp.example", lab.Load{Count: 1})
		if e := deliveries(ctx, t, l, "isp.example", 1); !e[0].TLS || e[0].User != "relay" {
			t.Fatalf("got %+v", e)
		}
	})
	t.Run("greylisted, then taken", func(t *testing.T) {
		send("grey.example", lab.Load{Count: 1})
		retryOnce(ctx, t, l, func() error { return l.World().SetTimeScale(ctx, 1e9) })
		deliveries(ctx, t, l, "grey.example", 1)
		s, err := l.World().Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := s.SMTP(world.KindProvider, "grey"); err != nil || n.Greylisted == 0 {
			t.Fatalf("got %+v, %v", n, err)
		}
	})
	t.Run("lost 250 is delivered twice", func(t *testing.T) {
		send("lossy.example", lab.Load{Count: 1})
		retryOnce(ctx, t, l, func() error { return nil })
		e := deliveries(ctx, t, l, "lossy.example", 2)
		if e[0].Token != e[1].Token || e[0].QueueID != e[1].QueueID || !e[0].Lost || e[1].Lost {
			t.Fatalf("got %+v", e)
		}
	})
	if err := l.WaitQueue(ctx, lab.Empty); err != nil {
		t.Fatal(err)
	}
}

// A milter, a policy service and a content filter in front of and behind the
// queue of a real Postfix.
func TestPostfixAsks(t *testing.T) {
	tempfail := world.Reply{Code: 451, Enhanced: "4.7.1", Text: "100% busy"}
	l := lab.Up(t, lab.Options{
		World: world.Config{
			DNS: world.DNSConfig{Listen: []string{resolver}},
			Providers: []world.ProviderConfig{{
				Name: "all", Domains: []string{"a.example", "b.example", "held.example"}, Hosts: []world.Host{{Addr: "198.51.100.10"}},
			}},
			Milters: []world.MilterConfig{{Name: "spam", Listen: "192.0.2.61:10025", Rules: []world.MilterRule{
				{Stage: world.MilterRcpt, Recipient: "*@busy.example", Action: world.MilterTempfail, Reply: &tempfail},
				{Stage: world.MilterEnd, Recipient: "*@held.example", Action: world.MilterQuarantine, Value: "suspect"},
				{Stage: world.MilterEnd, Recipient: "*@a.example", Action: world.MilterAddRecipient, Value: "t-added@b.example"},
				{Stage: world.MilterEnd, Action: world.MilterAddHeader, Value: "X-Seen: yes"},
			}}},
			Policies: []world.PolicyConfig{{Name: "polly", Listen: "192.0.2.62:10040", Rules: []world.PolicyRule{
				{Match: map[string]world.Pattern{"recipient": "*@policed.example"}, Action: "DEFER 4.7.1 not you"},
			}}},
			Filters: []world.FilterConfig{{Name: "scan", Listen: "192.0.2.63:10025", Forward: "192.0.2.1:10026", Header: "X-Scanned: yes"}},
		},
		Params: map[string]string{
			"smtpd_milters":                "inet:192.0.2.61:10025",
			"smtpd_recipient_restrictions": "check_policy_service inet:192.0.2.62:10040",
			"content_filter":               "smtp:[192.0.2.63]:10025",
			"minimal_backoff_time":         "1s", "maximal_backoff_time": "2s", "queue_run_delay": "1s",
		},
		Services: []string{"192.0.2.1:10026 inet n - y - - smtpd -o content_filter= -o smtpd_milters= -o smtpd_recipient_restrictions= " +
			"-o smtpd_authorized_xforward_hosts=192.0.2.0/24"},
	})
	ctx := limited(t)
	send := func(t *testing.T, domain string) lab.Injected {
		t.Helper()
		in, err := l.Inject(ctx, lab.Load{Count: 1, Domains: []string{domain}})
		if len(in) != 1 {
			t.Fatalf("injected %+v, %v", in, err)
		}
		return in[0]
	}
	t.Run("through filter, with a recipient more", func(t *testing.T) {
		in := send(t, "a.example")
		e := deliveries(ctx, t, l, "a.example", 1)
		if e[0].Token != in.Token || e[0].QueueID == in.QueueID {
			t.Fatalf("got %+v; the relay gives mail from the filter another ID than %s", e, in.QueueID)
		}
		if e := deliveries(ctx, t, l, "b.example", 1); e[0].Token != "t-added" {
			t.Fatalf("got %+v", e)
		}
	})
	t.Run("filter down, then up", func(t *testing.T) {
		if err := l.World().SetDown(ctx, world.KindFilter, "scan", true); err != nil {
			t.Fatal(err)
		}
		if in := send(t, "b.example"); in.Fate != lab.Accepted {
			t.Fatalf("got %+v", in)
		}
		retryOnce(ctx, t, l, func() error { return l.World().SetDown(ctx, world.KindFilter, "scan", false) })
		deliveries(ctx, t, l, "b.example", 2)
	})
	t.Run("refused by policy and by milter", func(t *testing.T) {
		for domain, want := range map[string]string{"policed.example": "not you", "busy.example": "4.7.1 100% busy"} {
			if in := send(t, domain); in.Fate != lab.Refused || !strings.Contains(in.Reply, want) {
				t.Errorf("%s: got %+v, want %q", domain, in, want)
			}
		}
	})
	t.Run("milter down", func(t *testing.T) {
		if err := l.World().SetDown(ctx, world.KindMilter, "spam", true); err != nil {
			t.Fatal(err)
		}
		if in := send(t, "b.example"); in.Fate != lab.Refused {
			t.Errorf("got %+v", in)
		}
		logged(ctx, t, l, "connect to Milter service inet:192.0.2.61:10025: Connection refused")
		if err := l.World().SetDown(ctx, world.KindMilter, "spam", false); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("quarantined", func(t *testing.T) {
		send(t, "held.example")
		if err := l.WaitQueue(ctx, lab.Count("hold", 1)); err != nil {
			t.Fatal(err)
		}
	})
}
