// Package probe holds the probes of name servers and mail servers to a world
// that is ill on purpose: real resolvers and providers at public addresses, on
// the other end of a lab's cable, with filters in between.
//
// Each case does one thing to the world, asks as holdfast does, inside and with
// root given up, and compares.
//
// Invariant: one sick domain is told from a sick resolver, one sick provider
// from a sick way out, and a server never sees a sender or a second connection.
//
// It never skips: without root and Postfix the tests fail and say so.
package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/durable"
	"holdfast/lab"
	"holdfast/lab/world"
	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/observe/probe"
	"holdfast/observe/spool"
	"holdfast/postfix"
)

// askVar makes this program, started once more inside a lab, one that asks.
const askVar = "HOLDFAST_TEST_PROBE"

// question is what that program is to ask.
type question struct {
	ConfigDir, MemoryDir string
	Questions            observe.Questions
}

func TestMain(m *testing.M) {
	if opener.Serve(os.Args) {
		return
	}
	if text := os.Getenv(askVar); text != "" {
		if err := answer(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main()
	os.Exit(run(m))
}

// program is this program where every user may run it.
var program string

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "holdfast-probe-")
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "probe.test")
		var data []byte
		if data, err = os.ReadFile("/proc/self/exe"); err == nil {
			err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, data, 0o755))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "copy the test program:", err)
		return 1
	}
	return m.Run()
}

// answer makes the memory as root, gives root up, and asks.
func answer(text string) error {
	var q question
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		return fmt.Errorf("decode question: %w", err)
	}
	ctx := context.Background()
	found, _, err := probe.Instances(ctx, "", []string{q.ConfigDir})
	if err != nil {
		return err
	}
	st, err := os.Stat(found[0].DataDir) // it belongs to the mail owner
	if err != nil {
		return err
	}
	uid, gid, err := owner(st)
	if err != nil {
		return err
	}
	if err := durable.MkdirFor(q.MemoryDir, 0o700, uid, gid); err != nil {
		return err
	}
	if err := spool.Drop(found[0].MailOwner); err != nil {
		return err
	}
	h := probe.Ask(ctx, found[0], q.Questions, probe.AskOptions{MemoryDir: q.MemoryDir})
	return json.NewEncoder(os.Stdout).Encode(h)
}

// relay is a lab and how often it was asked.
type relay struct {
	*testing.T
	*lab.Lab
	looks int
}

// ask asks with a memory of its own, so that each case meets the world anew.
func (r *relay) ask(q observe.Questions) *observe.Host {
	r.Helper()
	r.looks++
	return r.askWith(fmt.Sprintf("/var/lib/holdfast-%d/probes", r.looks), q)
}

func (r *relay) askWith(memory string, q observe.Questions) *observe.Host {
	r.Helper()
	text, err := json.Marshal(question{r.Instances[0].ConfigDir, memory, q})
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	res, err := r.ExecWith(ctx, lab.ExecOptions{Env: []string{askVar + "=" + string(text)}}, program)
	if err != nil || res.Code != 0 {
		r.Fatalf("ask: %v, exit %d: %s", err, res.Code, res.Stderr)
	}
	h := new(observe.Host)
	if err := json.NewDecoder(bytes.NewReader([]byte(res.Stdout))).Decode(h); err != nil {
		r.Fatalf("decode %q: %v", res.Stdout, err)
	}
	return h
}

func reply(t *testing.T, text string) *world.Reply {
	t.Helper()
	r, err := world.ParseReply(text)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

// sickWorld has a provider for each way in which one can be ill, and two that
// are well.
func sickWorld(t *testing.T) world.Config {
	at := func(name, addr string, traffic world.Traffic) world.ProviderConfig {
		return world.ProviderConfig{Name: name, Domains: []string{name + ".example"}, Hosts: []world.Host{{Name: "mx." + name + ".example", Addr: addr}}, Traffic: traffic}
	}
	first := func(rule world.Rule) world.Traffic {
		rule.Stage = world.StageBanner
		return world.Traffic{Rules: []world.Rule{rule}}
	}
	return world.Config{
		DNS: world.DNSConfig{
			Listen: []string{"192.0.2.53", "192.0.2.54"},
			Zones: []world.Zone{{Name: "evil.example", Records: []string{
				"@ MX 10 home", "home A 127.0.0.1", "meta MX 10 m", "m A 169.254.169.254", "self MX 10 s", "s A 192.0.2.1",
			}}},
		},
		Providers: []world.ProviderConfig{
			at("well", "198.51.100.1", world.Traffic{TLS: world.TLSGood}),
			at("plain", "203.0.113.1", world.Traffic{}),
			at("busy", "198.51.100.2", first(world.Rule{Reply: reply(t, "421 4.7.0 Too many connections from your host, slow down")})),
			at("listed", "198.51.100.3", first(world.Rule{Reply: reply(t, "554 5.7.1 Service unavailable; client host blocked using a blocklist")})),
			at("mute", "198.51.100.4", first(world.Rule{Cut: world.CutHang})),
			at("badtls", "198.51.100.5", world.Traffic{TLS: world.TLSBroken}),
			{Name: "shut", Domains: []string{"shut.example"}, Hosts: []world.Host{{Name: "mx.shut.example", Addr: "198.51.100.6"}}, Down: true},
		},
	}
}

// names are questions about these providers.
func names(list ...string) (q observe.Questions) {
	for i, n := range list {
		q.Names = append(q.Names, observe.Question{Name: n + ".example", Type: "MX", Control: i == 0})
		q.Servers = append(q.Servers, observe.Server{Hop: n + ".example", Control: i == 0})
	}
	return q
}

// outcomes lists what each name server said to each question.
func outcomes(list []observe.Resolver) string {
	var words []string
	for _, s := range list {
		words = append(words, s.Address)
		for _, a := range s.Answers {
			words = append(words, strings.TrimSuffix(a.Name, ".example")+"="+a.Outcome)
		}
	}
	return strings.Join(words, " ")
}

// stages lists how far each connection came, and why no further.
func stages(e observe.Egress) string {
	var words []string
	for _, r := range e.Reaches {
		word := strings.TrimSuffix(r.Hops[0], ".example") + "=" + r.Stage
		if r.Failed {
			word += "/" + string(r.Cause)
		}
		if r.Refused != "" {
			word += "(refused)"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestNameServersOneByOne(t *testing.T) {
	r := &relay{T: t, Lab: lab.Up(t, lab.Options{World: sickWorld(t), NoStart: true})}
	q := names("well", "plain")
	q.Servers = nil
	for _, c := range []struct {
		name   string
		fault  string
		params lab.Params
		want   string // of the one name server
	}{
		{"healthy", "", nil, "well=answer plain=answer"},
		{"servfail for one domain", "world.dns", lab.Params{"domain": "plain.example", "kind": "servfail"}, "well=answer plain=servfail"},
		{"servfail for all", "world.dns", lab.Params{"kind": "servfail"}, "well=servfail plain=servfail"},
		{"silence for one domain", "world.dns", lab.Params{"domain": "plain.example", "kind": "drop"}, "well=answer plain=timeout"},
		{"silence", "world.dns", lab.Params{"kind": "drop"}, "well=timeout plain=timeout"},
		{"garbage", "world.dns", lab.Params{"kind": "garbage"}, "well=garbage plain=garbage"},
		{"truncated", "world.dns", lab.Params{"kind": "truncate"}, "well=answer plain=answer"},
		{"truncated and no TCP", "world.dns", lab.Params{"kind": "truncate-dead"}, "well=timeout plain=timeout"},
		{"refused", "world.dns", lab.Params{"kind": "refused"}, "well=refused plain=refused"},
		{"slow", "world.dns", lab.Params{"kind": "slow", "delay": "700ms"}, "well=answer plain=answer"},
		{"filtered", "net.block-dns", lab.Params{"mode": "drop"}, "well=timeout plain=timeout"},
		{"filtered and said", "net.block-dns", lab.Params{"mode": "reset"}, "well=unreachable plain=unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &relay{t, r.Lab, r.looks}
			k.during(c.fault, c.params, func() {
				h := k.ask(q)
				if got := outcomes(h.DNS.Servers); got != "192.0.2.53 "+c.want || !h.DNS.Known || !h.DNS.Chrooted || h.DNS.Stale {
					t.Errorf("%s; %+v; gaps %v", got, h.DNS, h.Gaps)
				}
				if c.name == "slow" && h.DNS.Servers[0].Answers[0].Latency < 700*time.Millisecond {
					t.Errorf("latency %v of an answer that is held back for 700 ms", h.DNS.Servers[0].Answers[0].Latency)
				}
			})
			r.looks = k.looks
		})
	}
	t.Run("an old copy in the jail", func(t *testing.T) {
		k := &relay{t, r.Lab, 100}
		in(k, "sh", "-c", "echo 'nameserver 192.0.2.60' > /var/spool/postfix/etc/resolv.conf")
		h := k.ask(q)
		if !h.DNS.Stale || !strings.HasPrefix(outcomes(h.DNS.Servers), "192.0.2.60 well=") || strings.Contains(outcomes(h.DNS.Servers), "answer") || outcomes(h.DNS.HostServers) != "192.0.2.53 well=answer plain=answer" {
			t.Errorf("%+v", h.DNS)
		}
	})
}

// during asks while a fault is in place.
func (r *relay) during(fault string, params lab.Params, f func()) {
	r.Helper()
	if fault == "" {
		f()
		return
	}
	if err := r.Fault(fault, params); err != nil {
		r.Fatal(err)
	}
	f()
	if err := r.Cure(fault); err != nil {
		r.Fatal(err)
	}
}

func in(r *relay, argv ...string) string {
	r.Helper()
	res, err := r.Exec(r.Context(), argv...)
	if err != nil || res.Code != 0 {
		r.Fatalf("%q: %v, %s", argv, err, res.Stderr)
	}
	return res.Stdout
}

func TestMailServersOneByOne(t *testing.T) {
	r := &relay{T: t, Lab: lab.Up(t, lab.Options{World: sickWorld(t), NoStart: true})}
	two := names("well", "plain")
	for _, c := range []struct {
		name   string
		q      observe.Questions
		fault  string
		params lab.Params
		want   string
	}{
		{
			"each in its own way", names("well", "plain", "busy", "listed", "mute", "badtls", "shut"), "", nil,
			"well=done plain=done busy=banner/remote-throttling listed=banner/reputation mute=banner/remote-down badtls=starttls/tls shut=connect/remote-down",
		},
		{"the way out is filtered", two, "net.block-smtp", lab.Params{"mode": "drop"}, "well=connect/remote-down plain=connect/remote-down"},
		{"the way out is reset", two, "net.block-smtp", lab.Params{"mode": "reset"}, "well=connect/remote-down plain=connect/remote-down"},
		{"the way out is prohibited", two, "net.block-smtp", lab.Params{"mode": "icmp"}, "well=connect/remote-down plain=connect/remote-down"},
		{"one address is filtered", two, "net.block-smtp", lab.Params{"mode": "drop", "address": "203.0.113.1"}, "well=done plain=connect/remote-down"},
		{"no route to one", two, "net.route", lab.Params{"address": "203.0.113.1"}, "well=done plain=connect/remote-down"},
		{"silence after the greeting", two, "net.stall", lab.Params{"bytes": "120"}, "well=ehlo/remote-down plain=ehlo/remote-down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &relay{t, r.Lab, r.looks}
			k.during(c.fault, c.params, func() {
				h := k.ask(c.q)
				if got := stages(h.Egress); got != c.want {
					t.Errorf("%s, want %s\n%+v\ngaps %v", got, c.want, h.Egress, h.Gaps)
				}
			})
			r.looks = k.looks
		})
	}
}

// TestStrangersAimInVain: MX records that point into the relay or its network
// open no connection, and a second look within the minute opens none at all.
func TestStrangersAimInVain(t *testing.T) {
	r := &relay{T: t, Lab: lab.Up(t, lab.Options{World: sickWorld(t)})} // its own smtpd listens
	q := names("evil", "meta.evil", "self.evil", "well")
	q.Servers = append(q.Servers, observe.Server{Hop: "x", Name: "forged", Address: netip.MustParseAddr("::ffff:127.0.0.1"), Port: 25})
	h := r.askWith("/var/lib/holdfast/probes", q)
	if got := stages(h.Egress); got != "evil=(refused) meta.evil=(refused) self.evil=(refused) well=done" {
		t.Errorf("%s\n%+v\n%v", got, h.Egress, h.Gaps)
	}
	log, err := os.ReadFile(r.HostPath(r.Instances[0].LogFile))
	if err != nil || !strings.Contains(string(log), "daemon started") || strings.Contains(string(log), "connect from") {
		t.Errorf("the relay's own log, %v:\n%s", err, log)
	}
	connections := func() int {
		status, err := r.World().Status(r.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range status.Peers {
			var c world.SMTPCounters
			if err := json.Unmarshal(p.Counters, &c); err != nil {
				t.Fatal(err)
			}
			if c.Transactions != 0 {
				t.Errorf("%s saw a sender: %s", p.Name, p.Counters)
			}
			n += c.Connections
		}
		return n
	}
	before := connections()
	again := r.askWith("/var/lib/holdfast/probes", q)
	if after := connections(); before != 1 || after != 1 {
		t.Errorf("%d connections, then %d", before, after)
	}
	last := again.Egress.Reaches[len(again.Egress.Reaches)-1]
	if last.Stage != "done" || last.TLS != "TLS 1.3" || last.At.After(h.At.Add(time.Minute)) || last.Cause != postfix.NoCause {
		t.Errorf("remembered %+v", last)
	}
	if mode := strings.TrimSpace(in(r, "stat", "-c", "%a %U", "/var/lib/holdfast/probes")); mode != "700 postfix" {
		t.Errorf("the memory is %s", mode)
	}
}
