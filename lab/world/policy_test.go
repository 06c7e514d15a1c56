package world

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

const policyRequest = "request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@b.example\nrecipient=t-1@acme.example\nclient_address=192.0.2.9\n\n"

// askPolicy sends a request as smtpd does and returns all that comes, up to the
// empty line.
func askPolicy(t *testing.T, network, addr string) string {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return askAgain(t, conn, bufio.NewReader(conn))
}

func askAgain(t *testing.T, conn net.Conn, r *bufio.Reader) string {
	t.Helper()
	if _, err := io.WriteString(conn, policyRequest); err != nil {
		t.Fatal(err)
	}
	var got string
	for {
		line, err := r.ReadString('\n')
		got += line
		if err != nil {
			return got + endOf(t, err)
		}
		if line == "\n" {
			return got
		}
	}
}

func withPolicy(t *testing.T, c PolicyConfig) *fixture {
	c.Name = "polly"
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	return start(t, Config{Policies: []PolicyConfig{c}})
}

func TestPolicy(t *testing.T) {
	rule := func(action string, match map[string]Pattern) PolicyConfig {
		return PolicyConfig{Rules: []PolicyRule{{Match: match, Action: action}}}
	}
	for _, c := range []struct {
		name string
		cfg  PolicyConfig
		want string
	}{
		{"dunno", PolicyConfig{}, "action=DUNNO\n\n"},
		{"default", PolicyConfig{Default: "OK"}, "action=OK\n\n"},
		{"defer with text", rule("DEFER_IF_PERMIT 4.7.1 come back", nil), "action=DEFER_IF_PERMIT 4.7.1 come back\n\n"},
		{"reject by sender", rule("REJECT no", map[string]Pattern{"sender": "*@b.example"}), "action=REJECT no\n\n"},
		{"hold by two attributes", rule("HOLD", map[string]Pattern{"recipient": "t-*", "client_address": "192.0.2.*"}), "action=HOLD\n\n"},
		{"one attribute does not match", rule("HOLD", map[string]Pattern{"recipient": "t-*", "client_address": "198.51.100.*"}), "action=DUNNO\n\n"},
		{"an attribute that is not sent", rule("HOLD", map[string]Pattern{"sasl_username": "*x*"}), "action=DUNNO\n\n"},
		{"first match", PolicyConfig{Rules: []PolicyRule{{Action: "OK"}, {Action: "HOLD"}}}, "action=OK\n\n"},
		{"slow", PolicyConfig{Delay: Duration(time.Millisecond)}, "action=DUNNO\n\n"},
		{"hangs up", PolicyConfig{Rules: []PolicyRule{{Fault: PolicyClose}}}, "EOF"},
		{"garbage", PolicyConfig{Rules: []PolicyRule{{Fault: PolicyGarbage}}}, "\x16\x03\x01 this is no action\n\xff\xfe\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := withPolicy(t, c.cfg)
			if got := askPolicy(t, "tcp", f.addr(KindPolicy, "polly")); got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			if n, err := f.status().Policy("polly"); err != nil || n.Requests != 1 || n.Connections != 1 {
				t.Fatalf("got %+v, %v", n, err)
			}
		})
	}
}

func TestPolicyHangs(t *testing.T) {
	f := withPolicy(t, PolicyConfig{Rules: []PolicyRule{{Fault: PolicyHang}}})
	conn, err := net.Dial("tcp", f.addr(KindPolicy, "polly"))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if got := askAgain(t, conn, bufio.NewReader(conn)); got != "SILENCE" {
		t.Fatalf("got %q", got)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session ends with its client", func() bool {
		n, err := f.status().Policy("polly")
		return err == nil && n.Open == 0 && n.Faults["hang"] == 1
	})
}

// Many requests over one connection, which is how smtpd asks; the rules change
// between two of them; then the service goes away and comes back.
func TestPolicyChangesWhileRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy")
	f := withPolicy(t, PolicyConfig{Listen: "unix:" + path})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 3 {
		if got := askAgain(t, conn, r); got != "action=DUNNO\n\n" {
			t.Fatalf("got %q", got)
		}
	}
	if err := f.client.Patch(f.ctx(), KindPolicy, "polly", map[string]string{"default": "HOLD"}); err != nil {
		t.Fatal(err)
	}
	if got := askAgain(t, conn, r); got != "action=HOLD\n\n" {
		t.Fatalf("got %q", got)
	}
	if err := f.client.SetDown(f.ctx(), KindPolicy, "polly", true); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		t.Fatal("the socket is open: ", c.Close())
	}
	if err := f.client.SetDown(f.ctx(), KindPolicy, "polly", false); err != nil {
		t.Fatal(err)
	}
	if got := askPolicy(t, "unix", path); got != "action=HOLD\n\n" {
		t.Fatalf("got %q", got)
	}
}
