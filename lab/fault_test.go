package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/lab/world"
)

const alphaMX = "198.51.100.10:25"

// probe says in a word how a connection from the relay to the provider goes.
func probe(ctx context.Context, l *Lab, address string) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := l.Dial(ctx, RelaySide, address)
	if err != nil {
		for _, word := range []string{"refused", "no route", "not permitted", "permission denied", "invalid argument", "unreachable", "cannot assign", "reset"} {
			if strings.Contains(err.Error(), word) {
				return word
			}
		}
		return "timeout" // whichever of the two clocks ran out first
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	switch {
	case err == nil && strings.HasPrefix(string(buf[:n]), "220 "):
		return "banner"
	case err != nil && strings.Contains(err.Error(), "reset"):
		return "reset"
	default:
		return "silence"
	}
}

// TestNetworkFaults checks for each fault what the relay's side sees with it, and that the cure leaves no trace in
// filters, routes or sysctls.
func TestNetworkFaults(t *testing.T) {
	l := Up(t, Options{World: oneProvider()})
	ctx := deadline(t, 2*time.Minute)
	network := func() string {
		var text strings.Builder
		for _, side := range []Side{RelaySide, WorldSide} {
			res, err := l.ExecWith(ctx, ExecOptions{Side: side}, "sh", "-c", "nft list ruleset; ip route; ip -6 route; cat /proc/sys/net/ipv4/ip_local_port_range")
			if err != nil || res.Code != 0 {
				t.Fatal(err, res)
			}
			for line := range strings.Lines(res.Stdout) {
				if !strings.Contains(line, "fe80") { // appears when the kernel has finished with it
					text.WriteString(line)
				}
			}
		}
		return text.String()
	}
	before := network()
	cases := []struct {
		fault  string
		params Params
		want   string
	}{
		{"net.block-smtp", Params{"mode": "drop"}, "timeout"},
		{"net.block-smtp", Params{"mode": "reset"}, "refused"},
		{"net.block-smtp", Params{"mode": "icmp"}, "no route"},
		{"net.block-smtp", Params{"mode": "reset", "at": "host"}, "refused"},
		{"net.block-smtp", Params{"mode": "drop", "address": "198.51.100.10"}, "timeout"},
		{"net.block-smtp", Params{"mode": "drop", "address": "198.51.100.99"}, "banner"},
		{"net.block-smtp", Params{"port": "587"}, "banner"},
		{"net.route", Params{"address": "198.51.100.10", "mode": "unreachable"}, "no route"},
		{"net.route", Params{"address": "198.51.100.10", "mode": "prohibit"}, "permission denied"},
		{"net.route", Params{"address": "198.51.100.10", "mode": "blackhole"}, "invalid argument"},
		{"net.cut", nil, "reset"},
		{"net.stall", Params{"bytes": "100"}, "silence"},
		{"net.link-down", nil, "unreachable"},
		{"world.down", Params{"name": "alpha"}, "refused"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.fault, c.params), func(t *testing.T) {
			if err := l.Fault(c.fault, c.params); err != nil {
				t.Fatal(err)
			}
			got := probe(ctx, l, alphaMX)
			if err := l.Cure(c.fault); err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("with the fault: %s, want %s", got, c.want)
			}
			if now := network(); now != before {
				t.Errorf("the cure left something:\n%s\nbefore:\n%s", now, before)
			}
			if got := probe(ctx, l, alphaMX); got != "banner" {
				t.Errorf("after the cure: %s, want banner", got)
			}
		})
	}
}

func TestPortsRunOut(t *testing.T) {
	l := Up(t, Options{World: oneProvider()})
	ctx := deadline(t, time.Minute)
	if err := l.Fault("net.ports", Params{"count": "2"}); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range 2 {
		conn, err := l.Dial(ctx, RelaySide, alphaMX)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	if got := probe(ctx, l, alphaMX); got != "cannot assign" {
		t.Errorf("third connection: %s, want cannot assign", got)
	}
	if err := l.Cure("net.ports"); err != nil {
		t.Fatal(err)
	}
	if got := probe(ctx, l, alphaMX); got != "banner" {
		t.Errorf("after the cure: %s", got)
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// injectFates injects n messages and counts what became of them.
func injectFates(ctx context.Context, t *testing.T, l *Lab, n int) map[string]int {
	t.Helper()
	injected, _ := l.Inject(ctx, Load{Count: n, Domains: []string{"alpha.example"}, ReplySeconds: 3}) // failures are fates here
	fates := map[string]int{}
	for _, in := range injected {
		fates[in.Fate]++
	}
	return fates
}

func TestStorageFaults(t *testing.T) {
	cases := []struct {
		fault   string
		params  Params
		storage string
		// refuses tells whether Postfix says no, rather than being stuck or stopped.
		refuses bool
	}{
		{"storage.fill", Params{"free": "64K"}, "ext4:32M", true},
		{"storage.fill", nil, "tmpfs:32M", true},
		{"storage.fill", Params{"free": "64K"}, "xfs:300M", true},
		{"storage.fill-inodes", nil, "ext4:32M:500", false}, // cleanup tries again for ever
		{"storage.fill-inodes", nil, "tmpfs:32M:500", false},
		{"storage.freeze", nil, "ext4:32M", false},
		{"storage.freeze", nil, "xfs:300M", false},
		{"storage.emergency", nil, "ext4:32M", false},
		{"storage.read-only", nil, "plain", false},
		{"storage.read-only", nil, "ext4:32M", false},
		{"storage.read-only", nil, "tmpfs:32M", false},
	}
	for _, c := range cases {
		t.Run(c.fault+" on "+c.storage, func(t *testing.T) {
			t.Parallel()
			s, err := ParseStorage(c.storage)
			if err != nil {
				t.Fatal(err)
			}
			l := Up(t, Options{World: oneProvider(), Spool: s})
			ctx := deadline(t, 2*time.Minute)
			if fates := injectFates(ctx, t, l, 5); fates[Accepted] != 5 {
				t.Fatalf("before the fault: %v", fates)
			}
			if err := l.WaitQueue(ctx, Empty); err != nil {
				t.Fatal(err)
			}
			if err := l.Fault(c.fault, c.params); err != nil {
				t.Fatal(err)
			}
			fates := injectFates(ctx, t, l, 3)
			if fates[Accepted] > 0 || (c.refuses && fates[Refused] != 3) {
				t.Errorf("with the fault: %v", fates)
			}
			if err := l.Cure(c.fault); err != nil {
				t.Fatal(err)
			}
			if fates := injectFates(ctx, t, l, 5); fates[Accepted] != 5 {
				// cleanup may sleep for ten seconds between two tries, so give it a second chance
				if again := injectFates(ctx, t, l, 5); again[Accepted] != 5 {
					t.Errorf("after the cure: %v, then %v", fates, again)
				}
			}
			if err := l.WaitQueue(ctx, Empty); err != nil {
				t.Fatal(err)
			}
			account, err := l.Account(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if c.fault == "storage.emergency" {
				// Postfix removes a queue file without fsync, so a file system that dies may bring delivered mail back.
				account.Twice = nil
			}
			if !account.Whole() {
				t.Errorf("account: %s: %+v", account, account)
			}
		})
	}
}

func TestFaultsOfTheHostAreRefused(t *testing.T) {
	l := Up(t, Options{World: oneProvider()})
	for _, fault := range []string{"storage.fill", "storage.fill-inodes", "storage.freeze", "storage.emergency"} {
		if err := l.Fault(fault, nil); err == nil || !strings.Contains(err.Error(), "plain") {
			t.Errorf("%s on a plain spool: %v", fault, err)
		}
	}
	if err := l.Fault("net.flood", nil); err == nil {
		t.Error("an unknown fault is accepted")
	}
	for _, params := range []Params{{"mode": "explode"}, {"address": "example.org"}, {"colour": "red"}, {"port": "smtp"}} {
		if err := l.Fault("net.block-smtp", params); err == nil {
			t.Errorf("parameters %v are accepted", params)
		}
	}
	if active, err := l.Faults(); err != nil || len(active) > 0 {
		t.Errorf("refused faults are in the list: %v, %v", active, err)
	}
}

func TestProcessFaults(t *testing.T) {
	l := Up(t, Options{World: oneProvider()})
	ctx := deadline(t, 2*time.Minute)
	state := func(name string) []string {
		procs, err := l.PostfixProcesses("", name)
		if err != nil {
			t.Fatal(err)
		}
		var states []string
		for _, p := range procs {
			states = append(states, p.State)
		}
		return states
	}
	for _, name := range []string{"qmgr", "pickup", "master"} {
		if err := l.Fault("process.stop", Params{"name": name}); err != nil {
			t.Fatal(err)
		}
		if got := state(name); len(got) != 1 || got[0] != "T" {
			t.Errorf("%s after SIGSTOP: %v", name, got)
		}
		if err := l.Cure("process.stop"); err != nil {
			t.Fatal(err)
		}
		if got := state(name); len(got) != 1 || got[0] == "T" {
			t.Errorf("%s after SIGCONT: %v", name, got)
		}
	}
	if err := l.Fault("process.kill", Params{"name": "master"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Cure("process.kill"); err != nil {
		t.Fatal(err)
	}
	if got := state("master"); len(got) != 1 {
		t.Errorf("master after the cure: %v", got)
	}
	if err := l.Fault("process.stop", Params{"name": "nosuchd"}); err == nil {
		t.Error("stopping a program that does not run is accepted")
	}
	if err := l.Fault("postfix.stop", nil); err != nil {
		t.Fatal(err)
	}
	if running, err := l.Running(ctx, ""); err != nil || running {
		t.Errorf("after postfix.stop: running %t, %v", running, err)
	}
	if err := l.Cure("postfix.stop"); err != nil {
		t.Fatal(err)
	}
	if fates := injectFates(ctx, t, l, 3); fates[Accepted] != 3 {
		t.Errorf("after all cures: %v", fates)
	}
}

func TestConfigFaultIsCuredByteForByte(t *testing.T) {
	l := Up(t, Options{World: oneProvider()})
	ctx := deadline(t, time.Minute)
	file := l.HostPath("/etc/postfix/main.cf")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Fault("postfix.config", Params{"set": "default_transport=error:broken on purpose"}); err != nil {
		t.Fatal(err)
	}
	if value, err := l.Postconf(ctx, "", "default_transport"); err != nil || value != "error:broken on purpose" {
		t.Errorf("with the fault: %q, %v", value, err)
	}
	if err := l.Cure("postfix.config"); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, before) {
		t.Errorf("after the cure main.cf is %q, %v; want %q", after, err, before)
	}
}

func TestWorldFaultsGoBackExactly(t *testing.T) {
	cfg := oneProvider()
	cfg.Providers[0].Traffic = world.Traffic{SizeLimit: 12345, Rules: []world.Rule{{Stage: world.StageRcpt, Recipient: "nobody@*", Reply: &world.Reply{Code: 550, Text: "no"}}}}
	l := Up(t, Options{World: cfg})
	ctx := deadline(t, time.Minute)
	look := func() string {
		got, err := l.World().Config(ctx)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := look()
	faults := []struct {
		name   string
		params Params
	}{
		{"world.patch", Params{"name": "alpha", "change": `{"traffic":{"tarpit":"1s","rules":[]}}`}},
		{"world.down", Params{"name": "alpha"}},
		{"world.dns", Params{"domain": "alpha.example", "kind": "nxdomain", "types": "MX"}},
		{"world.dns", Params{"domain": "alpha.example", "kind": "slow", "delay": "1s"}},
	}
	for _, f := range faults {
		if err := l.Fault(f.name, f.params); err != nil {
			t.Fatal(err)
		}
		if look() == before {
			t.Errorf("%s changed nothing", f.name)
		}
	}
	if active, err := l.Faults(); err != nil || len(active) != len(faults) {
		t.Errorf("active: %v, %v", active, err)
	}
	if err := l.Cure("all"); err != nil {
		t.Fatal(err)
	}
	if after := look(); after != before {
		t.Errorf("after the cures:\n%s\nbefore:\n%s", after, before)
	}
}

// TestStaysBehindItsMounts looks at what a lab could have changed on the host.
func TestStaysBehindItsMounts(t *testing.T) {
	snapshot := func() string {
		var list []string
		for _, root := range []string{"/etc/postfix", "/var/spool/postfix", "/var/lib/postfix", "/etc/resolv.conf", "/etc/hosts", "/run/netns"} {
			filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
				if err == nil {
					list = append(list, fmt.Sprint(path, info.Size(), info.ModTime(), info.Mode()))
				}
				return nil
			})
		}
		slices.Sort(list)
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		return host + strings.Join(list, "\n")
	}
	before := snapshot()
	l := Up(t, Options{World: oneProvider(), Instances: []InstanceOptions{{Name: "out"}}})
	if fates := injectFates(deadline(t, time.Minute), t, l, 20); fates[Accepted] != 20 {
		t.Fatal(fates)
	}
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(); after != before {
		t.Errorf("the host changed:\n%s\nbefore:\n%s", after, before)
	}
}
