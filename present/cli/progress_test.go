package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/observe"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

// slow is an Operator whose disk needs 100 ms for each header.
type slow struct{ still }

func (s *slow) Headers(context.Context, *observe.Snapshot, *postfix.Message) ([]plan.Header, error) {
	time.Sleep(100 * time.Millisecond)
	return []plan.Header{{Name: "Subject", Value: "x"}}, nil
}

func TestProgress(t *testing.T) {
	var many []*postfix.Message
	for i := range 25 {
		many = append(many, message(fmt.Sprintf("4F%08X", i), time.Hour, 1, "a@x.example"))
	}
	look := func(live bool, args ...string) string {
		var stderr bytes.Buffer
		synctest.Test(t, func(t *testing.T) {
			op := &slow{still{snaps: []*observe.Snapshot{snapshot(instance("postfix"), many...)}}}
			var stdout bytes.Buffer
			code := Run(t.Context(), append([]string{"queue", "--header", "subject: x"}, args...), Env{
				Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Live: live,
				Open: func(context.Context, Settings) (Operator, error) { return op, nil },
			})
			if code != exitDone || !strings.HasPrefix(stdout.String(), "25 messages") {
				t.Errorf("%d: %s", code, stdout.String())
			}
		})
		return stderr.String()
	}
	const erase = "\r\x1b[K"
	got := strings.Split(look(true), erase)
	if len(got) != 4 || got[0] != "" || got[3] != "" {
		t.Fatalf("progress is %q", got)
	}
	for i, line := range got[1:3] {
		if !strings.Contains(line, " of 25 messages, ") || !strings.HasSuffix(line, " left") {
			t.Errorf("line %d is %q", i, line)
		}
	}
	if got := look(false); got != "" {
		t.Errorf("a pipe is told %q", got)
	}
	if got := look(true, "-q"); got != "" {
		t.Errorf("-q says %q", got)
	}
}

// Triage takes as long as a name server that does not answer.
func (s *slow) Triage(ctx context.Context, o operate.TriageOptions) ([]*operate.Triage, error) {
	time.Sleep(2500 * time.Millisecond)
	return s.still.Triage(ctx, o)
}

// TestWaitIsTold: who waits for an answer sees that something happens.
func TestWaitIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		Run(t.Context(), nil, Env{
			Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Live: true,
			Open: func(context.Context, Settings) (Operator, error) { return &slow{*calm()}, nil },
		})
		const line = "\r\x1b[Kholdfast: looking at the queue, the log and the surroundings, "
		if want := line + "1s" + line + "2s" + "\r\x1b[K"; stderr.String() != want || !strings.HasPrefix(stdout.String(), "Mail flows") {
			t.Errorf("%q, not %q; %s", stderr.String(), want, stdout.String())
		}
	})
}

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		done, total int
		spent       time.Duration
		want        string
	}{
		{0, 10, time.Second, "holdfast: 0 of 10 messages"},
		{5000, 100000, 10 * time.Second, "holdfast: 5,000 of 100,000 messages, 500 a second, 3m10s left"},
		{0, 0, 3 * time.Second, "holdfast: messages, 3s"},
		{10, 10, time.Second, "holdfast: 10 of 10 messages, 10 a second, 0s left"},
	} {
		if got := progressLine(c.done, c.total, c.spent, present.Say("messages")).String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
