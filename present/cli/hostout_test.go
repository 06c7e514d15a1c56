package cli

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/operate"
	"holdfast/postfix"
)

// surroundings is a host of which everything is known: one name server of two
// is silent, one mail server of two has no way to it, and the copy in the jail
// is old.
func surroundings() *observe.Host {
	answered := func(took time.Duration) observe.Answer {
		return observe.Answer{Name: "bigmail.example", Type: "MX", Outcome: "answer", Records: 1, Latency: took}
	}
	silent := observe.Answer{Name: "bigmail.example", Type: "MX", Outcome: "timeout", Latency: 3 * time.Second, Text: "timed out"}
	return &observe.Host{
		At: at.Add(-time.Second),
		DNS: observe.DNS{
			Known: true, Chrooted: true, Stale: true, Path: "/var/spool/postfix/etc/resolv.conf", HostPath: "/etc/resolv.conf",
			Servers: []observe.Resolver{
				{Address: "192.0.2.53", Answers: []observe.Answer{answered(9 * time.Millisecond), answered(time.Millisecond), silent, answered(2 * time.Millisecond)}},
				{Address: "192.0.2.54", Answers: []observe.Answer{silent, silent}},
			},
			HostServers: []observe.Resolver{{Address: "192.0.2.55", Answers: []observe.Answer{answered(1500 * time.Microsecond), answered(2500 * time.Microsecond)}}},
		},
		Egress: observe.Egress{Known: true, Reaches: []observe.Reach{
			{
				Server: "mx1.bigmail.example", Address: netip.MustParseAddr("192.0.2.10"), Port: 25, Hops: []string{"bigmail.example"}, At: at, Stage: "banner",
				Failed: true, Text: "host mx1.bigmail.example[192.0.2.10] refused to talk to me: 421 4.7.0 busy", Cause: postfix.RemoteThrottling, Latency: 41 * time.Millisecond,
			},
			{Address: netip.MustParseAddr("2001:db8::25"), Port: 25, Hops: []string{"other.example"}, Control: true, At: at.Add(-41 * time.Second), Stage: "done", TLS: "TLS 1.3", Latency: 12 * time.Millisecond},
			{Server: "mx.partner.example", Port: 25, Hops: []string{"partner.example"}, Refused: "its last answer was about reputation"},
		}},
		Storage: observe.Storage{
			Known: true, Path: "/var/spool/postfix", Mount: "/var", Type: "ext4", Bytes: 50 << 30, Free: 3 << 30, Inodes: 3276800, FreeFiles: 3100000,
			WriteTried: true, Written: true, Latency: 4300 * time.Microsecond, Fillers: []observe.Filler{{Path: "/var/log", Bytes: 31 << 30, Files: 812}},
		},
		Master:   observe.Master{Known: true, Running: true, PID: 1234, Started: at.Add(-50 * time.Hour)},
		Manager:  observe.Manager{Known: true, State: "well", Latency: 600 * time.Microsecond, PID: 1240, Started: at.Add(-50 * time.Minute)},
		Pressure: observe.Pressure{Known: true, CPU: 1.25, Memory: 0, IO: 37.5, IOWait: -1, Load: 2.5, PortsUsed: 812, Ports: 28232, NetErrors: 7},
	}
}

// around is a relay with these surroundings.
func around(h *observe.Host) *still {
	op := calm()
	judge := op.judge
	op.judge = func(t *operate.Triage) {
		judge(t)
		t.Host = h
	}
	return op
}

// TestHostIsTold: a pipe and -v tell what the surroundings said, a terminal
// does not, however large it is.
func TestHostIsTold(t *testing.T) {
	for _, c := range []struct {
		columns int
		args    string
		told    bool
	}{{0, "triage", true}, {80, "triage -v", true}, {200, "triage", false}, {80, "triage", false}} {
		r := run(t, around(surroundings()), c.columns, append(strings.Fields(c.args), "--color=never")...)
		if told := strings.Contains(r.stdout, "\nHOST "); told != c.told {
			t.Errorf("%s in %d columns: %s", c.args, c.columns, r.stdout)
		}
	}
	r := run(t, around(surroundings()), 0, "triage")
	if strings.Contains(r.stdout, "mx.partner.example") || strings.Contains(r.stdout, "iowait") {
		t.Errorf("what is not known is told: %s", r.stdout)
	}
}

// TestHostTellsOnlyWhatIsKnown takes one part after the other away.
func TestHostTellsOnlyWhatIsKnown(t *testing.T) {
	for _, c := range []struct {
		forget      func(*observe.Host)
		word, field string
	}{
		{func(h *observe.Host) { h.DNS.Known = false }, "name server", "resolvers"},
		{func(h *observe.Host) { h.Egress.Known = false }, "mail server", "servers"},
		{func(h *observe.Host) { h.Storage.Known = false }, "disk", "storage"},
		{func(h *observe.Host) { h.Master.Known = false }, "master", "master"},
		{func(h *observe.Host) { h.Manager.Known = false }, "qmgr", "queue_manager"},
		{func(h *observe.Host) { h.Pressure.Known = false }, "pressure", "pressure"},
	} {
		h := surroundings()
		block := func() string {
			_, rest, _ := strings.Cut(run(t, around(h), 0, "triage").stdout, "\nHOST ")
			return rest
		}
		if with := block(); !strings.Contains(with, c.word) {
			t.Errorf("%q is not in %s", c.word, with)
		}
		c.forget(h)
		if without := block(); without == "" || strings.Contains(without, c.word) {
			t.Errorf("%q is still in %s", c.word, without)
		}
		host := hostOf(t, h)
		for field, raw := range host {
			want := field != c.field
			if have := len(raw) > 0; have != want {
				t.Errorf("without %s, %s is %v", c.field, field, raw)
			}
		}
	}
	if r := run(t, around(&observe.Host{}), 0, "triage"); strings.Contains(r.stdout, "HOST") {
		t.Errorf("nothing is known, and it is told: %s", r.stdout)
	}
	if rec := lastRecord(t, run(t, around(nil), 0, "triage", "-o", "json").stdout); rec["host"] != nil {
		t.Errorf("nothing was asked, and host is %v", rec["host"])
	}
}

// hostOf is the host of a JSON record; objects become lists of one, so that
// all parts look alike.
func hostOf(t *testing.T, h *observe.Host) map[string][]map[string]any {
	t.Helper()
	var record struct{ Host map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(run(t, around(h), 0, "triage", "-o", "json").stdout), &record); err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]map[string]any)
	for field, raw := range record.Host {
		text := string(raw)
		if strings.HasPrefix(text, "{") {
			text = "[" + text + "]"
		}
		var list []map[string]any
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatalf("%s: %v: %s", field, err, raw)
		}
		out[field] = list
	}
	return out
}

// TestHostRecord looks at what is counted or left open.
func TestHostRecord(t *testing.T) {
	h := surroundings()
	host := hostOf(t, h)
	r := host["resolvers"]
	if len(r) != 3 || r[0]["questions"] != 4.0 || r[0]["failed"] != 1.0 || r[0]["latency_ms"] != 2.0 || r[0]["stale"] != true {
		t.Errorf("resolvers %v", r)
	}
	if r[1]["latency_ms"] != nil || r[1]["failed"] != 2.0 || r[2]["stale"] != false || r[2]["path"] != "/etc/resolv.conf" || r[2]["latency_ms"] != 2.0 {
		t.Errorf("resolvers %v", r)
	}
	s := host["servers"]
	if len(s) != 3 || s[0]["failed"] != true || s[1]["address"] != "2001:db8::25" || s[1]["tls"] != "TLS 1.3" || s[2]["latency_ms"] != nil || s[2]["address"] != "" || s[2]["at"] != nil {
		t.Errorf("servers %v", s)
	}
	if p := host["pressure"][0]; p["io_wait"] != nil || p["memory"] != 0.0 || p["cpu"] != 1.25 || p["ports"] != 28232.0 {
		t.Errorf("pressure %v", p)
	}
	h.Storage.WriteTried, h.Storage.Written, h.Storage.Fillers = false, false, nil
	h.Manager.State, h.Manager.Latency, h.Manager.PID, h.Pressure.Ports = "silent", 0, 0, 0
	host = hostOf(t, h)
	if s := host["storage"][0]; s["written"] != nil || s["latency_ms"] != nil || s["fillers"] == nil {
		t.Errorf("storage %v", s)
	}
	if m := host["queue_manager"][0]; m["latency_ms"] != nil || m["pid"] != nil {
		t.Errorf("queue manager %v", m)
	}
	if p := host["pressure"][0]; p["ports"] != nil || p["ports_used"] != nil {
		t.Errorf("pressure %v", p)
	}
}
