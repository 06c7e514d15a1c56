package operate

import (
	"fmt"
	"os/user"
	"slices"
	"strings"
	"time"

	"holdfast/config"
	"holdfast/plan"
)

// Policy is what may be done, by whom, and how carefully.
type Policy struct {
	// Digest is that of all of it. Under another one a plan does not run.
	Digest string
	// Lifetime is how long a sealed plan may wait; Review when a hold is looked
	// at again; PerRun how many messages are let go at once; Retention how long
	// a copy stays in the vault.
	Lifetime, Review, Retention time.Duration
	PerRun                      int
	// Judge says what the policy has against a plan; nil has nothing.
	Judge func(plan.Verb, Facts) []plan.Bar
	// ViewTicket is set where nobody looks at content without a ticket.
	ViewTicket bool
	// May says whether an account may do something: a verb, or "inspect".
	May func(what, login string) bool
}

// Facts are what a policy goes by.
type Facts struct {
	Login string
	Count int
	// Held is set where all messages were on hold before.
	Held   bool
	Ticket string
}

// UsualPolicy is what holds where nobody decided otherwise.
func UsualPolicy() Policy {
	usual := config.Default()
	return PolicyOf(&usual)
}

// PolicyOf is the policy that a configuration says.
func PolicyOf(c *config.Config) Policy {
	p := Policy{
		Digest: c.Digest(), Lifetime: time.Duration(c.Policy.PlanLifetime), Review: time.Duration(c.Policy.HoldReview),
		Retention: time.Duration(c.Vault.Retention), PerRun: c.Release.PerRun,
	}
	p.ViewTicket = c.Policy.Inspect.NeedsTicket
	rules := c.Policy
	p.May = func(what, login string) bool {
		rule, known := rules.Rule(what)
		return known && allows(rule.Allow, login)
	}
	p.Judge = func(v plan.Verb, f Facts) []plan.Bar {
		rule, known := rules.Rule(string(v))
		if !known {
			return []plan.Bar{{Kind: "policy", Text: fmt.Sprintf("the policy knows no verb %q", v)}}
		}
		return judge(v, rule, f)
	}
	return p
}

// judge lists what a rule has against a plan. Approval is last: it is the only
// one that somebody else can lift.
func judge(v plan.Verb, rule config.Rule, f Facts) []plan.Bar {
	var bars []plan.Bar
	bar := func(kind, lift, format string, args ...any) {
		bars = append(bars, plan.Bar{Kind: kind, Text: fmt.Sprintf(format, args...), Lift: lift})
	}
	if !allows(rule.Allow, f.Login) {
		bar("policy", "ask one of: "+strings.Join(rule.Allow, ", "), "the policy does not let %s %s mail", f.Login, v)
	}
	if rule.NeedsHold && !f.Held {
		bar("policy", "holdfast hold with the same selection first, and look at what is held", "the policy lets only mail be %s that was on hold before", past(v))
	}
	if rule.NeedsTicket && f.Ticket == "" {
		bar("policy", "--ticket NUMBER", "the policy wants a ticket to %s mail", v)
	}
	if rule.Ceiling > 0 && f.Count > rule.Ceiling {
		bar("policy", "select fewer, or have the ceiling in holdfast.toml raised", "the policy sets a ceiling of %d for one plan to %s mail", rule.Ceiling, v)
	}
	if rule.SecondPerson {
		bar("approval", "somebody else approves the plan", "the policy wants a second person to agree")
	}
	return bars
}

// past is a verb as it stands behind "be".
func past(v plan.Verb) string {
	switch v {
	case plan.Hold:
		return "held"
	case plan.Try:
		return "tried"
	}
	return strings.TrimSuffix(string(v), "e") + "ed"
}

// allows says whether an account, or a group that it is in, is in a list. An
// account that cannot be looked up is in no group.
func allows(list []string, login string) bool {
	if len(list) == 0 || slices.Contains(list, login) {
		return true
	}
	for _, name := range list {
		if group, ok := strings.CutPrefix(name, "@"); ok && inGroup(login, group) {
			return true
		}
	}
	return false
}

func inGroup(login, group string) bool {
	u, err := user.Lookup(login)
	if err != nil {
		return false
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return false
	}
	ids, err := u.GroupIds()
	return err == nil && slices.Contains(ids, g.Gid)
}
