package present

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/observe"
	"holdfast/postfix"
)

const lifetime = 5 * 24 * time.Hour

// shaped looks at messages that arrived as long ago as they say.
func shaped(t *testing.T, watched bool, messages ...*postfix.Message) *Shape {
	t.Helper()
	shard := observe.NewShard()
	for _, m := range messages {
		shard.Add(m)
	}
	in := postfix.Instance{MaxLifetime: lifetime, BounceLifetime: lifetime}
	s, err := ShapeOf(t.Context(), observe.Build(in, observe.FromSpool, at, at, postfix.Queues(), []*observe.Shard{shard}), watched)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func aged(id string, queue postfix.Queue, age, next time.Duration, sender string) *postfix.Message {
	return &postfix.Message{
		Queue: queue, ID: postfix.QueueID(id), Arrival: at.Add(-age), Created: at.Add(-age), NextTry: at.Add(next), Sender: sender,
		Recipients: []postfix.Recipient{{Address: "b@y.example"}},
	}
}

func TestForecast(t *testing.T) {
	forced := aged("4F1A2B3C06", postfix.Deferred, time.Hour, 3*time.Hour, "a@x.example")
	forced.ForceExpire = true
	for _, c := range []struct {
		name string
		m    *postfix.Message
		want Forecast
	}{
		{"young", aged("4F1A2B3C01", postfix.Deferred, time.Hour, time.Minute, "a@x.example"), Forecast{First: at.Add(lifetime - time.Hour)}},
		{"soon", aged("4F1A2B3C02", postfix.Deferred, lifetime-30*time.Minute, time.Minute, "a@x.example"), Forecast{First: at.Add(30 * time.Minute), Hour: 1, Day: 1}},
		{"due after its time", aged("4F1A2B3C03", postfix.Deferred, lifetime+time.Hour, 2*time.Hour, ""), Forecast{First: at.Add(2 * time.Hour), Day: 1, Silent: 1}},
		{"overdue", aged("4F1A2B3C04", postfix.Deferred, lifetime+time.Hour, -time.Hour, "a@x.example"), Forecast{First: at, Hour: 1, Day: 1}},
		{"held", aged("4F1A2B3C05", postfix.Hold, lifetime+time.Hour, -time.Hour, "a@x.example"), Forecast{HeldOverdue: 1}},
		{"held and young", aged("4F1A2B3C05", postfix.Hold, time.Hour, -time.Hour, "a@x.example"), Forecast{}},
		{"corrupt", aged("4F1A2B3C05", postfix.Corrupt, lifetime+time.Hour, 0, "a@x.example"), Forecast{}},
		{"postsuper -e", forced, Forecast{First: at.Add(3 * time.Hour), Day: 1}},
	} {
		if diff := cmp.Diff(c.want, shaped(t, false, c.m).Forecast); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
}

// TestShapeIsTheSameHoweverManyLook: a queue that is shared among workers gives
// what one worker would have seen.
func TestShapeIsTheSameHoweverManyLook(t *testing.T) {
	var all []*postfix.Message
	for i := range 3 * fewMessages {
		m := aged(fmt.Sprintf("4F%08X", i), postfix.Deferred, time.Duration(i)*time.Minute, time.Minute, fmt.Sprintf("s%d@x.example", i%7))
		domain := i % 11
		m.Recipients = []postfix.Recipient{{Address: fmt.Sprintf("b@d%d.example", domain), Reason: fmt.Sprintf("host mx%d.example[192.0.2.1] said: 450 4.2.0 Greylisted", domain), Cause: postfix.Greylisting}}
		all = append(all, m)
	}
	whole := shaped(t, true, all...)
	var parts Forecast
	for from := 0; from < len(all); from += fewMessages / 2 {
		parts.merge(shaped(t, false, all[from:from+fewMessages/2]...).Forecast)
	}
	if diff := cmp.Diff(parts, whole.Forecast); diff != "" {
		t.Error(diff)
	}
	texts, more := Top(whole.Texts, 5)
	if len(texts) != 1 || more != 0 || texts[0].Destinations() != 11 || texts[0].Cause != postfix.Greylisting || texts[0].Messages != len(all) {
		t.Errorf("%+v and %d more", texts, more)
	}
	if senders, more := Top(whole.Senders, 5); len(senders) != 5 || more != 2 {
		t.Errorf("%d senders and %d more", len(senders), more)
	}
	if len(whole.keys) != len(all) {
		t.Errorf("%d keys of %d messages", len(whole.keys), len(all))
	}
}

func TestTurnover(t *testing.T) {
	letter := func(n int) *postfix.Message {
		return aged(fmt.Sprintf("4F1A2B3C%02X", n), postfix.Deferred, time.Duration(n)*time.Minute, time.Minute, "a@x.example")
	}
	moved := letter(2)
	moved.Queue = postfix.Hold
	reborn := letter(3)
	reborn.Arrival = at // the same short ID, another message
	for _, c := range []struct {
		name      string
		then, now []*postfix.Message
		want      Turnover
		direction Direction
	}{
		{"nothing", []*postfix.Message{letter(1)}, []*postfix.Message{letter(1)}, Turnover{}, Steady},
		{"came", nil, []*postfix.Message{letter(1), letter(2)}, Turnover{Came: 2}, Growing},
		{"left", []*postfix.Message{letter(1), letter(2)}, []*postfix.Message{letter(2)}, Turnover{Left: 1}, Shrinking},
		{"held", []*postfix.Message{letter(2)}, []*postfix.Message{moved}, Turnover{}, Steady},
		{"an ID again", []*postfix.Message{letter(3)}, []*postfix.Message{reborn}, Turnover{Came: 1, Left: 1}, Steady},
	} {
		got := shaped(t, true, c.now...).Since(shaped(t, true, c.then...))
		if got != c.want || got.Direction() != c.direction {
			t.Errorf("%s: %+v, %s", c.name, got, got.Direction())
		}
	}
}

func TestDirectionOfALog(t *testing.T) {
	for want, f := range map[Direction]observe.Flow{
		Growing: {Arrived: 10, Delivered: 7, Bounced: 2},
		Steady:  {Arrived: 10, Delivered: 10},
		Unknown: {Rejected: 5},
	} {
		if got := DirectionOf(f); got != want {
			t.Errorf("%+v is %s, not %s", f, got, want)
		}
	}
}

func TestLinesAreCutOnlyAtTheirEnd(t *testing.T) {
	words := Say("one two three four five six seven")
	for most, want := range map[int]string{
		0: "one two|three four|five six|seven",
		1: "one two t…",
		2: "one two|three fou…",
		4: "one two|three four|five six|seven",
		9: "one two|three four|five six|seven",
	} {
		var got []string
		for _, line := range words.Lines(10, most) {
			got = append(got, line.String())
		}
		if joined := strings.Join(got, "|"); joined != want {
			t.Errorf("at most %d: %q, not %q", most, joined, want)
		}
	}
	if w := PadRight(Say("né"), 4); w.String() != "né  " || PadRight(w, 2) != w {
		t.Errorf("%q", w)
	}
}
