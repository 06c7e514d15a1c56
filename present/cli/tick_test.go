package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/operate"
	"holdfast/postfix"
	"holdfast/record"
)

// clock is a host on which things are due.
type clock struct {
	ticks operate.Ticks
	late  []operate.Late
}

func (c *clock) Tick(context.Context) (operate.Ticks, error) { return c.ticks, nil }
func (c *clock) Close() error                                { return nil }

// lateShelf is a host with a record on which something is overdue.
type lateShelf struct {
	shelf
	late []operate.Late
}

func (l *lateShelf) Late(context.Context) ([]operate.Late, error) { return l.late, nil }

func duty(entry uint64, what, object string, when time.Duration) operate.Duty {
	return operate.Duty{Entry: entry, DueBody: record.DueBody{What: what, Object: object, When: at.Add(when), Instance: "postfix", Config: "/etc/postfix"}}
}

func (c *clock) run(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), append(args, "--color=never"), Env{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		Terminal: Terminal{Columns: 80, Rows: 24}, Now: func() time.Time { return at },
		Tick:   func(context.Context, Settings) (Ticker, error) { return c, nil },
		Record: func(context.Context, Settings) (Recorder, error) { return &lateShelf{late: c.late}, nil },
	})
	return result{code, stdout.String(), stderr.String()}
}

func TestTickScreens(t *testing.T) {
	done := operate.Ticked{Duty: duty(7, "snapshot", "20260314-030000", -time.Minute), Text: "20260314-031200"}
	failed := operate.Ticked{Duty: duty(9, "snapshot", "20260314-030500", -time.Second), Err: errors.New("no space left on device")}
	for name, c := range map[string]struct {
		ticks operate.Ticks
		args  []string
		code  int
	}{
		"tick":         {operate.Ticks{Ticked: []operate.Ticked{done}, Waiting: 2, Next: at.Add(14 * time.Minute)}, []string{"tick"}, exitDone},
		"tick-nothing": {operate.Ticks{}, []string{"tick"}, exitDone},
		"tick-part":    {operate.Ticks{Ticked: []operate.Ticked{done, failed}, Waiting: 1, Next: failed.When}, []string{"tick"}, exitPartial},
		"tick-failed":  {operate.Ticks{Ticked: []operate.Ticked{failed}, Waiting: 1, Next: failed.When}, []string{"tick"}, exitFailed},
		"tick-next":    {operate.Ticks{Waiting: 2, Next: at.Add(14 * time.Minute)}, []string{"tick", "--next"}, exitDone},
		"json-tick":    {operate.Ticks{Ticked: []operate.Ticked{done, failed}, Waiting: 1, Next: failed.When}, []string{"tick", "-o", "json"}, exitPartial},
		"help-tick":    {operate.Ticks{}, []string{"tick", "--help"}, exitDone},
	} {
		r := (&clock{ticks: c.ticks}).run(t, c.args...)
		if r.code != c.code {
			t.Errorf("%s: exit %d, not %d", name, r.code, c.code)
		}
		columns := 80
		if strings.HasPrefix(name, "json") {
			columns = 0
		}
		golden(t, name, columns, r)
	}
	if r := (&clock{}).run(t, "tick", "--next"); r.code != exitDone || r.stdout+r.stderr != "" {
		t.Errorf("nothing is due: %+v", r)
	}
}

// TestOverdueComesFirst: whoever reads the record is told, before anything else.
func TestOverdueComesFirst(t *testing.T) {
	late := operate.Late{Duty: duty(7, "snapshot", "20260314-030000\x1b[2J", -time.Hour)}
	for keeper, says := range map[bool]string{false: "no keeper lives", true: "the keeper lives and could not do it"} {
		late.Keeper = keeper
		c := &clock{late: []operate.Late{late, late}}
		r := c.run(t, "audit", "list")
		first, _, _ := strings.Cut(r.stderr, "\n")
		if !strings.HasPrefix(first, "holdfast: overdue since ") || !strings.Contains(first, says) || !strings.HasSuffix(first, "holdfast -c /etc/postfix tick") {
			t.Errorf("the first line is %q", first)
		}
		if strings.ContainsRune(r.stderr, 0x1b) {
			t.Error("an escape sequence reached the terminal")
		}
		if r := c.run(t, "audit", "list", "-c", "/etc/postfix"); !strings.Contains(r.stderr, "now: holdfast tick\n") {
			t.Errorf("for the instance that was named: %q", r.stderr)
		}
	}
	if r := (&clock{}).run(t, "audit", "list"); strings.Contains(r.stderr, "overdue") {
		t.Errorf("nothing is overdue: %q", r.stderr)
	}
}

// TestSecondSnapshotIsAnnounced: when it comes, and that nobody will make it.
func TestSecondSnapshotIsAnnounced(t *testing.T) {
	a := &archive{snapshot: snapshotOf()}
	golden(t, "snapshot-again", 80, a.run(t, 80, "snapshot", "save", "--again", "15m"))
	a.keeperErr = &postfix.Error{Kind: postfix.Failed, Err: errors.New("out of processes")}
	golden(t, "snapshot-again-unkept", 80, a.run(t, 80, "snapshot", "save", "--again", "15m"))
	if r := a.run(t, 80, "snapshot", "save", "--again", "-15m"); r.code != exitUsage {
		t.Errorf("a span below 0: %+v", r)
	}
}
