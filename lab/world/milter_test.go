package world

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	milter "github.com/d--j/go-milter"
)

// ask a milter as a relay does, up to the first answer that is not "continue".
func milterDialogue(network, addr string, stages int, rcpt string) (fate string, err error) {
	client := milter.NewClient(network, addr, milter.WithReadTimeout(20*time.Second), milter.WithWriteTimeout(20*time.Second))
	s, err := client.Session(milter.NewMacroBag())
	if err != nil {
		return "", err
	}
	defer s.Close()
	steps := []func() (*milter.Action, error){
		func() (*milter.Action, error) {
			return s.Conn("client.example", milter.FamilyInet, 12345, "192.0.2.77")
		},
		func() (*milter.Action, error) { return s.Helo("client.example") },
		func() (*milter.Action, error) { return s.Mail("s@client.example", "") },
		func() (*milter.Action, error) { return s.Rcpt(rcpt, "") },
		s.DataStart,
		func() (*milter.Action, error) { return s.HeaderField("Subject", "x", nil) },
		s.HeaderEnd,
		func() (*milter.Action, error) { return s.BodyChunk([]byte("hello\r\n")) },
	}
	for i, step := range steps[:min(stages, len(steps))] {
		a, err := step()
		if err != nil {
			return fmt.Sprintf("step %d", i+1), err
		}
		if a.Type != milter.ActionContinue {
			return fmt.Sprintf("%d: %s", i+1, describe(a)), nil
		}
	}
	mods, a, err := s.End()
	if err != nil {
		return "end", err
	}
	var edits []string
	for _, m := range mods {
		edits = append(edits, describeEdit(m))
	}
	return strings.Join(append(edits, "end: "+describe(a)), "; "), nil
}

func describe(a *milter.Action) string {
	switch a.Type {
	case milter.ActionAccept:
		return "accept"
	case milter.ActionDiscard:
		return "discard"
	case milter.ActionReject:
		return "reject"
	case milter.ActionTempFail:
		return "tempfail"
	case milter.ActionRejectWithCode:
		return a.SMTPReply
	}
	return a.String()
}

func describeEdit(m milter.ModifyAction) string {
	if m.Type == milter.ActionReplaceBody {
		return "body " + string(m.Body)
	}
	return m.String()
}

func withMilter(t *testing.T, rules ...MilterRule) *fixture {
	return start(t, Config{Milters: []MilterConfig{{Name: "spam", Listen: "127.0.0.1:0", Rules: rules}}})
}

func TestMilter(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []MilterRule
		want  string
	}{
		{"nothing to say", nil, "end: accept"},
		{"accept at connect", []MilterRule{{Stage: MilterConnect, Action: MilterAccept}}, "1: accept"},
		{"tempfail at helo", []MilterRule{{Stage: MilterHelo, Action: MilterTempfail}}, "2: tempfail"},
		// The percent sign is doubled on the wire, as libmilter wants it; Postfix undoes that.
		{"tempfail with text", []MilterRule{{Stage: MilterMail, Action: MilterTempfail, Reply: &Reply{Code: 451, Enhanced: "4.7.1", Text: "100% busy"}}}, "3: 451 4.7.1 100%% busy"},
		{"reject a recipient", []MilterRule{{Stage: MilterRcpt, Recipient: "t-1@*", Action: MilterReject, Reply: &Reply{Code: 550, Enhanced: "5.7.1", Text: "no"}}}, "4: 550 5.7.1 no"},
		{"reject at data", []MilterRule{{Stage: MilterData, Action: MilterReject}}, "5: reject"},
		{"discard at headers", []MilterRule{{Stage: MilterHeaders, Action: MilterDiscard}}, "7: discard"},
		{"reject at body", []MilterRule{{Stage: MilterBody, Action: MilterReject}}, "8: reject"},
		{"tempfail at the end", []MilterRule{{Stage: MilterEnd, Action: MilterTempfail, Reply: &Reply{Code: 450, Text: "later"}}}, "end: 450 later"},
		{"quarantine", []MilterRule{{Stage: MilterEnd, Action: MilterQuarantine, Value: "suspect"}}, `Quarantine "suspect"; end: accept`},
		{"add recipient", []MilterRule{{Stage: MilterEnd, Action: MilterAddRecipient, Value: "t-2@b.example"}}, `AddRcpt "<t-2@b.example>" ""; end: accept`},
		{"delete recipient", []MilterRule{{Stage: MilterEnd, Action: MilterDeleteRecipient, Value: "t-1@a.example"}}, `DelRcpt "<t-1@a.example>"; end: accept`},
		{"add header", []MilterRule{{Stage: MilterEnd, Action: MilterAddHeader, Value: "X-Seen: yes"}}, `AddHeader "X-Seen" "yes"; end: accept`},
		{"replace body", []MilterRule{{Stage: MilterEnd, Action: MilterReplaceBody, Value: "gone\r\n"}}, "body gone\r\n; end: accept"},
		{"two edits and a verdict", []MilterRule{
			{Stage: MilterEnd, Action: MilterAddHeader, Value: "X-A: 1"},
			{Stage: MilterEnd, Action: MilterQuarantine, Value: "why"},
			{Stage: MilterEnd, Action: MilterReject},
		}, `AddHeader "X-A" "1"; Quarantine "why"; end: reject`},
		{"another sender", []MilterRule{{Stage: MilterMail, Sender: "*@elsewhere.example", Action: MilterReject}}, "end: accept"},
		{"another client", []MilterRule{{Stage: MilterConnect, Client: "198.51.100.*", Action: MilterReject}}, "end: accept"},
		{"this client", []MilterRule{{Stage: MilterConnect, Client: "192.0.2.*", Action: MilterAccept}}, "1: accept"},
		{"slow", []MilterRule{{Stage: MilterMail, Delay: Duration(time.Millisecond)}}, "end: accept"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := withMilter(t, c.rules...)
			got, err := milterDialogue("tcp", f.addr(KindMilter, "spam"), 99, "t-1@a.example")
			if err != nil {
				t.Fatalf("%s: %v", got, err)
			}
			if got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			n, err := f.status().Milter("spam")
			if err != nil || n.Connections != 1 || n.Failed != 0 {
				t.Fatalf("got %+v, %v", n, err)
			}
			for _, r := range c.rules {
				if met := !strings.Contains(c.name, "another"); r.Action != "" && (n.Actions[string(r.Action)] == 1) != met {
					t.Errorf("%s was counted %d times", r.Action, n.Actions[string(r.Action)])
				}
			}
		})
	}
}

func TestMilterFaults(t *testing.T) {
	t.Run("hangs up", func(t *testing.T) {
		f := withMilter(t, MilterRule{Stage: MilterMail, Action: MilterClose})
		if got, err := milterDialogue("tcp", f.addr(KindMilter, "spam"), 99, "a@b.example"); !errors.Is(err, io.EOF) || got != "step 3" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		f := withMilter(t, MilterRule{Stage: MilterConnect, Action: MilterHang})
		client := milter.NewClient("tcp", f.addr(KindMilter, "spam"), milter.WithReadTimeout(50*time.Millisecond))
		s, err := client.Session(milter.NewMacroBag())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Conn("c", milter.FamilyInet, 1, "192.0.2.1"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		_ = s.Close() // already broken by the timeout
		eventually(t, "the session ends with its client", func() bool {
			n, err := f.status().Milter("spam")
			return err == nil && n.Open == 0
		})
	})
	t.Run("down and up", func(t *testing.T) {
		f := withMilter(t)
		addr := f.addr(KindMilter, "spam")
		if err := f.client.SetDown(f.ctx(), KindMilter, "spam", true); err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			t.Fatal("the port is open: ", c.Close())
		}
		if err := f.client.SetDown(f.ctx(), KindMilter, "spam", false); err != nil {
			t.Fatal(err)
		}
		if got, err := milterDialogue("tcp", addr, 99, "a@b.example"); err != nil || !strings.HasPrefix(got, "end") {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("unix socket", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "milter")
		start(t, Config{Milters: []MilterConfig{{Name: "spam", Listen: "unix:" + path, Rules: []MilterRule{{Stage: MilterMail, Action: MilterDiscard}}}}})
		if got, err := milterDialogue("unix", path, 99, "a@b.example"); err != nil || !strings.HasPrefix(got, "3: ") {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("rules change while running", func(t *testing.T) {
		f := withMilter(t)
		m, err := f.client.Milter(f.ctx(), "spam")
		if err != nil {
			t.Fatal(err)
		}
		m.Listen = f.addr(KindMilter, "spam")
		m.Rules = []MilterRule{{Stage: MilterRcpt, Times: 1, Action: MilterTempfail}}
		if err := f.client.PutMilter(f.ctx(), m); err != nil {
			t.Fatal(err)
		}
		var fates []string
		for range 2 {
			got, err := milterDialogue("tcp", m.Listen, 99, "a@b.example")
			if err != nil {
				t.Fatal(err)
			}
			fates = append(fates, got[:1])
		}
		if !slices.Equal(fates, []string{"4", "e"}) {
			t.Fatalf("got %q", fates)
		}
	})
}
