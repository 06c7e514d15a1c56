package lab

import (
	"context"
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
		{"postqueue", "-j"}, {"postqueue", "-p"}, {"postsuper"}, {"postconf", "-n"}, {"postfix", "status"},
		{"postmulti", "-l"}, {"postmap", "-q", "x", "inline:{x=y}"}, {"sh", "-c", "test $$ != 1 && test $(hostname) = relay.example.net"},
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
