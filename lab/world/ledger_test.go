package world

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

const childMark = "WORLD_TEST_CHILD_LEDGER"

// runChild is a world of its own process, to be killed.
func runChild(dir string) error {
	w, err := Start(Config{LedgerDir: dir, Providers: []ProviderConfig{{Name: "acme", Hosts: []Host{{Addr: "127.0.0.1:0"}}}}})
	if err != nil {
		return err
	}
	s, err := w.Status()
	if err != nil {
		return err
	}
	fmt.Println(s.Peers[0].Listening[0])
	_, err = bufio.NewReader(os.Stdin).ReadString('\n') // until the parent dies
	return errors.Join(err, w.Close())
}

// Killed in mid-stream, three times over one ledger, the world has lost no
// message that any client was told about, and has invented none.
func TestLedgerSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged, sent := make(map[string]bool), make(map[string]bool)
	for round := range 3 {
		killOnce(t, dir, round, acknowledged, sent)
	}
	entries, err := ReadLedger(dir)
	if err != nil && !errors.Is(err, ErrTornLedger) {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, e := range entries {
		if !sent[e.Token] {
			t.Errorf("%q was never sent", e.Token)
		}
		if found[e.Token] {
			t.Errorf("%q is there twice", e.Token)
		}
		found[e.Token] = true
	}
	for token := range acknowledged {
		if !found[token] {
			t.Errorf("%q was acknowledged and is not in the ledger", token)
		}
	}
	if len(acknowledged) < 300 {
		t.Fatalf("only %d messages were acknowledged: the kills came too early to mean anything", len(acknowledged))
	}
}

func killOnce(t *testing.T, dir string, round int, acknowledged, sent map[string]bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childMark+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(line)

	var mu sync.Mutex
	var count atomic.Int64
	var wg sync.WaitGroup
	enough := make(chan struct{})
	for i := range 8 {
		c := dial(t, addr).greet()
		wg.Go(func() {
			for n := 0; ; n++ {
				token := fmt.Sprintf("t-%d-%d-%d", round, i, n)
				mu.Lock()
				sent[token] = true
				mu.Unlock()
				if !sendQuietly(c, token+"@acme.example") {
					return
				}
				mu.Lock()
				acknowledged[token] = true
				mu.Unlock()
				if count.Add(1) == 150 {
					close(enough)
				}
			}
		})
	}
	<-enough
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
}

// sendQuietly reports whether the message was acknowledged; the server may die
// at any moment.
func sendQuietly(c *talk, rcpt string) bool {
	for _, line := range []string{"MAIL FROM:<s@client.example>", "RCPT TO:<" + rcpt + ">", "DATA", "Subject: x\r\n\r\nx\r\n."} {
		if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
			return false
		}
		reply, err := c.r.ReadString('\n')
		if err != nil || reply[0] > '3' {
			return false
		}
	}
	return true
}

func TestLost250IsMarked(t *testing.T) {
	for _, c := range []struct {
		name string
		rule Rule
	}{
		{"dropped", Rule{Stage: StageAccepted, Cut: CutClose}},
		{"reset", Rule{Stage: StageAccepted, Cut: CutReset}},
		{"a lie", Rule{Stage: StageAccepted, Reply: &Reply{Code: 451, Text: "something went wrong"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := oneProvider(t, Traffic{Rules: []Rule{c.rule}})
			c := dial(t, f.acme()).greet()
			if got := c.send("t-1@acme.example"); strings.HasPrefix(got, "2") {
				t.Fatalf("got %q", got)
			}
			if e := f.entries(); len(e) != 1 || !e[0].Lost || e[0].Token != "t-1" {
				t.Fatalf("got %+v", e)
			}
			if n := f.counters(); n.Lost != 1 || n.Messages != 1 {
				t.Fatalf("got %+v", n)
			}
		})
	}
}

// A 250 that could not be written is marked afterwards.
func TestUnansweredIsMarked(t *testing.T) {
	f := oneProvider(t, Traffic{Rules: []Rule{{Stage: StageAccepted, Delay: Duration(1 << 60)}}})
	c := dial(t, f.acme()).greet()
	c.do(from, "^250", to, "^250", "DATA", "^354")
	c.write(text + "\r\n")
	eventually(t, "the message is in the ledger", func() bool { return len(f.entries()) == 1 })
	if e := f.entries(); e[0].Lost {
		t.Fatal("lost before anything went wrong")
	}
	if err := f.client.SetDown(f.ctx(), KindProvider, "acme", true); err != nil {
		t.Fatal(err)
	}
	if e := f.entries(); len(e) != 1 || !e[0].Lost {
		t.Fatalf("got %+v", e)
	}
}

func TestRefusedIsNotInTheLedger(t *testing.T) {
	for _, stage := range []Stage{StageRcpt, StageData, StageDot} {
		f := oneProvider(t, Traffic{Rules: []Rule{{Stage: stage, Reply: &Reply{Code: 451}}}})
		dial(t, f.acme()).greet().send("t-1@acme.example")
		if e := f.entries(); len(e) != 0 {
			t.Fatalf("%s: got %+v", stage, e)
		}
	}
}

func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l, err := openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		line := ledgerLine{LedgerEntry: &LedgerEntry{Token: fmt.Sprintf("t-%d", i), Delivery: fmt.Sprint(i)}}
		if err := l.commit([]ledgerLine{line}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	file := l.file.Name()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(file, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		entries, err := ReadLedger(dir)
		complete := strings.Count(string(whole[:cut]), "\n")
		torn := cut > 0 && whole[cut-1] != '\n'
		if len(entries) != complete || torn != errors.Is(err, ErrTornLedger) || !torn && err != nil {
			t.Fatalf("cut at %d: %d entries, %v", cut, len(entries), err)
		}
	}
	// The next run leaves the torn file as it is and starts another.
	next, err := openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(next.commit([]ledgerLine{{LedgerEntry: &LedgerEntry{Token: "t-9"}}}), next.close()); err != nil {
		t.Fatal(err)
	}
	entries, err := ReadLedger(dir)
	if !errors.Is(err, ErrTornLedger) || entries[len(entries)-1].Token != "t-9" {
		t.Fatalf("got %+v, %v", entries, err)
	}
}

func TestReadLedgerRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadLedger(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a missing directory reads as an empty ledger")
	}
	if err := os.WriteFile(filepath.Join(dir, "ledger-000001.jsonl"), []byte("{\"token\":\"t-1\"}\n{nonsense}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLedger(dir); err == nil || errors.Is(err, ErrTornLedger) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
}

// After one failed write nothing is acknowledged any more.
func TestLedgerFailureIsFinal(t *testing.T) {
	f := oneProvider(t, Traffic{})
	c := dial(t, f.acme()).greet()
	if got := c.send("t-1@acme.example"); got[:3] != "250" {
		t.Fatalf("got %q", got)
	}
	good := f.world.ledger.file
	broken, err := os.Open(good.Name()) // read only: every write fails
	if err != nil {
		t.Fatal(err)
	}
	f.world.ledger.file = broken
	for range 2 {
		if got := c.send("t-2@acme.example"); !strings.HasPrefix(got, "451 4.3.0 ") {
			t.Fatalf("got %q", got)
		}
		f.world.ledger.file = good // healed, but nobody knows what was lost
	}
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	if got := f.tokens(); !slices.Equal(got, []string{"t-1"}) || f.counters().Internal != 2 {
		t.Fatalf("got %q, %+v", got, f.counters())
	}
}

// No kill shows whether the ledger is flushed, only a power cut would. A pipe
// takes every write and refuses every flush, so what is acknowledged over a
// pipe was not flushed.
func TestNothingIsAcknowledgedUnflushed(t *testing.T) {
	f := oneProvider(t, Traffic{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	good := f.world.ledger.file
	f.world.ledger.file = w
	if got := dial(t, f.acme()).greet().send("t-1@acme.example"); !strings.HasPrefix(got, "451 4.3.0 ") {
		t.Fatalf("got %q", got)
	}
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || !strings.Contains(line, `"t-1"`) {
		t.Fatalf("written: %q, %v", line, err)
	}
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	f.world.ledger.file = good
}

func TestToken(t *testing.T) {
	for rcpt, want := range map[string]string{
		"t-lab-1@acme.example":         "t-lab-1",
		"t-lab-1+ext@acme.example":     "t-lab-1",
		`"t-lab 1"@acme.example`:       "t-lab 1",
		`"t-lab\"1"@acme.example`:      `t-lab"1`,
		`"t-lab-1+more"@acme.example`:  "t-lab-1",
		"t-ü@bücher.example":           "t-ü",
		"t-1":                          "t-1",
		"t-@acme.example":              "",
		"x-t-1@acme.example":           "",
		"postmaster@acme.example":      "",
		`"t-a@b"@acme.example`:         "",
		"+t-1@acme.example":            "",
		`"@acme.example`:               "",
		"double-bounce@relay.example":  "",
		`"t-unfinished@acme.example`:   "",
		"T-1@acme.example":             "",
		`"t-1"@acme.example`:           "t-1",
		`"t-back\\slash"@acme.example`: `t-back\slash`,
	} {
		if got := tokenOf(rcpt); got != want {
			t.Errorf("%s: got %q, want %q", rcpt, got, want)
		}
	}
}

func TestQueueID(t *testing.T) {
	for _, c := range []struct{ name, head, want string }{
		{"by smtpd", "Received: from a (b [192.0.2.1])\r\n\tby relay.example (Postfix) with ESMTP id 4fJx1Y0Zz\r\n\tfor <x@y>; date\r\n\r\n", "4fJx1Y0Zz"},
		{"by pickup", "Received: by relay.example (Postfix, from userid 0)\r\n\tid 3A1F22; date\r\n\r\n", "3A1F22"},
		{"hostile helo", "Received: from id.EVIL (id 666666 [192.0.2.1])\r\n\tby relay (Postfix) with ESMTPS id ABCDEF;\r\n\tdate\r\n", "ABCDEF"},
		{"topmost of two", "Received: by a (Postfix)\r\n\tid AAAAAA; d\r\nReceived: by b (Postfix)\r\n\tid BBBBBB; d\r\n", "AAAAAA"},
		{"below another header", "X-Mark: by x id CCCCCC\r\nreceived: by a (Postfix)\r\n\tid AAAAAA; d\r\n", "AAAAAA"},
		{"in the body", "Subject: x\r\n\r\nReceived: by a id AAAAAA; d\r\n", ""},
		{"none", "Subject: x\r\n\r\n", ""},
		{"without id", "Received: by a; d\r\n\r\n", ""},
		{"empty", "", ""},
	} {
		if got := queueIDOf([]byte(c.head)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// What one machine can take, with every message on disk before its 250.
func BenchmarkDeliver(b *testing.B) {
	w, err := Start(Config{LedgerDir: b.TempDir(), Providers: []ProviderConfig{{Name: "acme", Hosts: []Host{{Addr: "127.0.0.1:0"}}}}})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	s, err := w.Status()
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		var t testing.T
		c := dial(&t, s.Peers[0].Listening[0]).greet()
		for pb.Next() {
			if !sendQuietly(c, "t-1@acme.example") {
				b.Error("not acknowledged")
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
