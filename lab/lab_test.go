package lab

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/lab/world"
)

// oneProvider is the smallest world: a resolver and somebody who takes mail for example.org and all below it.
func oneProvider() world.Config {
	return world.Config{
		DNS: world.DNSConfig{Listen: []string{defaultResolver}},
		Providers: []world.ProviderConfig{{
			Name: "alpha", Domains: []string{"alpha.example", "*.alpha.example"},
			Hosts: []world.Host{{Addr: "198.51.100.10"}},
		}},
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestMailReachesTheLedger(t *testing.T) {
	l := Up(t, Options{World: oneProvider()})
	ctx := deadline(t, time.Minute)
	injected, err := l.Inject(ctx, Load{Count: 200, Domains: []string{"alpha.example"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range injected {
		if in.Fate != Accepted || in.QueueID == "" {
			t.Fatalf("not accepted: %+v", in)
		}
	}
	if err := l.WaitQueue(ctx, Empty); err != nil {
		t.Fatal(err)
	}
	account, err := l.Account(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !account.Whole() || len(account.Delivered) != 200 {
		t.Fatalf("account: %s", account)
	}
	// The ledger and Postfix must mean the same message by the same name.
	ids := map[string]string{}
	for _, in := range injected {
		ids[in.Token] = in.QueueID
	}
	entries, err := l.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.QueueID != ids[e.Token] {
			t.Errorf("token %s: ledger says queue ID %q, Postfix said %q", e.Token, e.QueueID, ids[e.Token])
		}
	}
}

func TestStockCommandsWorkInside(t *testing.T) {
	l := Up(t, Options{})
	ctx := deadline(t, time.Minute)
	for _, argv := range [][]string{
		{"postqueue", "-j"},
		{"postqueue", "-p"},
		{"postsuper"},
		{"postconf", "-n"},
		{"postfix", "status"},
		{"postmulti", "-l"},
		{"postmap", "-q", "x", "inline:{x=y}"},
		{"sh", "-c", "test $$ != 1 && test $(hostname) = relay.example.net"},
	} {
		res, err := l.Exec(ctx, argv...)
		if err != nil {
			t.Fatal(err)
		}
		if res.Code != 0 || strings.Contains(res.Stderr, "warning") {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", argv, res.Code, res.Stdout, res.Stderr)
		}
	}
}

// TestShapes sends every shape there is, each way it can go, and finds every recipient in the ledger under its token.
func TestShapes(t *testing.T) {
	l := Up(t, Options{World: oneProvider(), NoChroot: true, LongIDs: true})
	ctx := deadline(t, 2*time.Minute)
	for _, shape := range Shapes() {
		loads := []Load{{Count: 2, Recipients: 3, Domains: []string{"alpha.example"}, Shapes: []string{shape.Name}}}
		if !strings.HasPrefix(shape.Name, "smtputf8") { // Debian's sendmail(1) takes addresses in ASCII only
			loads = append(loads, Load{Count: 1, Domains: []string{"alpha.example"}, Shapes: []string{shape.Name}, Via: "sendmail"})
		}
		for _, load := range loads {
			injected, err := l.Inject(ctx, load)
			if err != nil {
				t.Fatalf("%s by %q: %v", shape.Name, load.Via, err)
			}
			for _, in := range injected {
				if in.Fate != Accepted {
					t.Errorf("%s by %q: %+v", shape.Name, load.Via, in)
				}
			}
		}
	}
	if err := l.WaitQueue(ctx, func(list []Queued) bool { return len(list) == 0 }); err != nil {
		t.Fatal(err)
	}
	account, err := l.Account(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !account.Whole() || len(account.Refused)+len(account.Bounced)+len(account.Queued) > 0 {
		t.Errorf("account: %s: %+v", account, account)
	}
}

func TestSASLUserAndClientAreInTheQueueFile(t *testing.T) {
	l := Up(t, Options{World: oneProvider()})
	ctx := deadline(t, time.Minute)
	if err := l.Fault("world.down", Params{"name": "alpha"}); err != nil {
		t.Fatal(err)
	}
	injected, err := l.Inject(ctx, Load{Count: 1, Domains: []string{"alpha.example"}, SASLUser: "alice", Client: "192.0.2.77"})
	if err != nil {
		t.Fatal(err)
	}
	if injected[0].Fate != Accepted {
		t.Fatalf("%+v", injected)
	}
	if err := l.WaitQueue(ctx, Count("deferred", 1)); err != nil {
		t.Fatal(err)
	}
	res, err := l.Exec(ctx, "postcat", "-eq", injected[0].QueueID)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sasl_username=alice", "log_client_address=192.0.2.77"} {
		if !strings.Contains(res.Stdout, want) {
			t.Errorf("no %q in the envelope: %s %s", want, res.Stdout, res.Stderr)
		}
	}
}

func TestInstancesAreApart(t *testing.T) {
	l := Up(t, Options{World: oneProvider(), Instances: []InstanceOptions{{Name: "out"}, {Name: "in", Spool: Storage{Kind: "tmpfs", Bytes: 32 << 20}}}})
	ctx := deadline(t, time.Minute)
	for _, name := range []string{"", "out", "postfix-in"} {
		if _, err := l.Inject(ctx, Load{Count: 3, Domains: []string{"alpha.example"}, Instance: name}); err != nil {
			t.Fatal(err)
		}
	}
	var entries []world.LedgerEntry
	for len(entries) < 9 && ctx.Err() == nil {
		var err error
		// Not the queue: a listing misses a message that moves between two directories meanwhile.
		if entries, err = l.Ledger(); err != nil && !errors.Is(err, world.ErrTornLedger) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	clients := map[string]int{}
	for _, e := range entries {
		clients[e.Client]++
	}
	if len(entries) != 9 || clients["192.0.2.1"] != 3 || clients["192.0.2.2"] != 3 || clients["192.0.2.3"] != 3 {
		t.Errorf("%d deliveries, by instance address %v; want 3 each", len(entries), clients)
	}
}

func TestAccountTellsLossFromDelay(t *testing.T) {
	cfg := oneProvider()
	cfg.Providers[0].Traffic.Rules = []world.Rule{
		{Stage: world.StageRcpt, Recipient: "*@no.alpha.example", Reply: &world.Reply{Code: 550, Enhanced: "5.1.1", Text: "nobody"}},
		{Stage: world.StageRcpt, Recipient: "*@later.alpha.example", Reply: &world.Reply{Code: 450, Enhanced: "4.2.0", Text: "later"}},
	}
	l := Up(t, Options{World: cfg})
	ctx := deadline(t, time.Minute)
	if _, err := l.Inject(ctx, Load{Count: 6, Domains: []string{"alpha.example", "no.alpha.example", "later.alpha.example"}}); err != nil {
		t.Fatal(err)
	}
	lost, err := l.Inject(ctx, Load{Count: 1, Domains: []string{"later.alpha.example"}})
	if err != nil {
		t.Fatal(err)
	}
	settled := Wait{Settled: true}
	if err := l.WaitQueue(ctx, settled.met); err != nil {
		t.Fatal(err)
	}
	if _, err := l.must(ctx, "postsuper", "-d", lost[0].QueueID); err != nil {
		t.Fatal(err)
	}
	account, err := l.Account(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(account.Delivered) != 2 || len(account.Bounced) != 2 || len(account.Queued) != 2 || len(account.Missing) != 1 || account.Missing[0] != lost[0].Token || account.Whole() {
		t.Errorf("account: %s: %+v", account, account)
	}
}
