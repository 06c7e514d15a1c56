package operate

import (
	"testing"

	"holdfast/observe"
	"holdfast/plan"
)

func TestHoldAsAWorkQueue(t *testing.T) {
	for name, c := range map[string]struct {
		others *foreign
		work   bool
		says   string
	}{
		"nobody else":       {nil, false, ""},
		"a colleague":       {&foreign{by: map[observe.HoldOrigin]int{observe.HeldByPostsuper: 40}, passing: 50}, false, "40 by postsuper"},
		"a rule, for some":  {&foreign{by: map[observe.HoldOrigin]int{observe.HeldByRule: 20}, passing: 200, ruled: 20}, false, "20 by a HOLD rule"},
		"a rule, for all":   {&foreign{by: map[observe.HoldOrigin]int{observe.HeldByRule: 3, unknownOrigin: 2}, passing: 100, ruled: 100}, true, "3 by a HOLD rule, 2 by whom the log does not tell"},
		"a milter, for all": {&foreign{by: map[observe.HoldOrigin]int{observe.HeldByMilter: 1}, passing: 10, ruled: 10}, true, "1 by a milter"},
		"too few to tell":   {&foreign{by: map[observe.HoldOrigin]int{observe.HeldByRule: 9}, passing: 9, ruled: 9}, false, "9 by a HOLD rule"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &drafting{others: c.others}
			e := plan.Effects{Skipped: []plan.Skip{{Why: plan.SkipForeign, Hint: "--foreign takes it too"}, {Why: plan.SkipActive, Hint: "x"}}}
			d.addStrangers(&e)
			if (len(e.Bars) == 1) != c.work {
				t.Errorf("bars %+v", e.Bars)
			}
			want := "--foreign takes it too"
			if c.says != "" {
				want = "in all of hold: " + c.says + "; " + want
			}
			if e.Skipped[0].Hint != want || e.Skipped[1].Hint != "x" {
				t.Errorf("skipped %+v", e.Skipped)
			}
		})
	}
}
