package operate

import (
	"os/user"
	"strings"
	"testing"

	"holdfast/config"
	"holdfast/plan"
)

func TestPolicyJudges(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rule  config.Rule
		facts Facts
		want  []string // the beginning of each bar's way out
	}{
		"nothing said":          {config.Rule{}, Facts{Login: "anna", Count: 1e6}, nil},
		"named":                 {config.Rule{Allow: []string{"anna"}}, Facts{Login: "anna"}, nil},
		"not named":             {config.Rule{Allow: []string{"anna", "@nobody"}}, Facts{Login: "bert"}, []string{"ask one of: anna, @nobody"}},
		"by group":              {config.Rule{Allow: []string{"@" + group.Name}}, Facts{Login: me.Username}, nil},
		"in no such group":      {config.Rule{Allow: []string{"@no-such-group"}}, Facts{Login: me.Username}, []string{"ask one of"}},
		"no account":            {config.Rule{Allow: []string{"@" + group.Name}}, Facts{Login: "no-such-account"}, []string{"ask one of"}},
		"a group is no account": {config.Rule{Allow: []string{"@anna"}}, Facts{Login: "anna"}, []string{"ask one of"}},
		"hold wanted":           {config.Rule{NeedsHold: true}, Facts{}, []string{"holdfast hold"}},
		"hold wanted and there": {config.Rule{NeedsHold: true}, Facts{Held: true}, nil},
		"ticket wanted":         {config.Rule{NeedsTicket: true}, Facts{}, []string{"--ticket"}},
		"ticket given":          {config.Rule{NeedsTicket: true}, Facts{Ticket: "OPS-7"}, nil},
		"at the ceiling":        {config.Rule{Ceiling: 5}, Facts{Count: 5}, nil},
		"above the ceiling":     {config.Rule{Ceiling: 5}, Facts{Count: 6}, []string{"select fewer"}},
		"second person":         {config.Rule{SecondPerson: true}, Facts{}, []string{"somebody else"}},
		"all of them": {
			config.Rule{Allow: []string{"x"}, NeedsHold: true, NeedsTicket: true, SecondPerson: true, Ceiling: 1},
			Facts{Login: "y", Count: 2},
			[]string{"ask", "holdfast hold", "--ticket", "select fewer", "somebody else"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			settings := config.Default()
			settings.Policy.Delete = c.rule
			p := PolicyOf(&settings)
			bars := p.Judge(plan.Delete, c.facts)
			if len(bars) != len(c.want) {
				t.Fatalf("bars %+v", bars)
			}
			for i, b := range bars {
				if !strings.HasPrefix(b.Lift, c.want[i]) || b.Text == "" || (b.Kind == "approval") != strings.HasPrefix(c.want[i], "somebody") {
					t.Errorf("bar %+v, want %q", b, c.want[i])
				}
			}
			if other := p.Judge(plan.Hold, c.facts); len(other) > 0 {
				t.Errorf("the rule of delete bars hold: %+v", other)
			}
		})
	}
}

func TestPolicyKnowsEveryVerb(t *testing.T) {
	p := UsualPolicy()
	for _, v := range plan.Verbs() {
		if bars := p.Judge(v, Facts{Login: "anna", Count: 1}); len(bars) > 0 {
			t.Errorf("%s: %+v", v, bars)
		}
	}
	if bars := p.Judge("explode", Facts{}); len(bars) != 1 {
		t.Errorf("an unknown verb: %+v", bars)
	}
	if !p.May("inspect", "anna") || p.May("explode", "anna") {
		t.Error("inspect, or a verb that is none")
	}
}
