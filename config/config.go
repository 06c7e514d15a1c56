// Package config reads holdfast.toml: who may do what to mail, what has to come
// first, how long copies are kept.
//
// There is one struct, Config. Its tags are the manual: the sample file, the
// page docs/config.md and what `holdfast config explain` says are made from it.
//
// Invariants: a file that says something which is not understood is refused as
// a whole, with the line and what could be meant; what a file does not say is
// Default. A file that others than root can change is refused where root reads
// it: it would let them decide what root does.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DefaultPath is where the file is looked for if nobody says otherwise.
const DefaultPath = "/etc/holdfast/holdfast.toml"

// Config is everything that can be set.
type Config struct {
	Policy  Policy  `toml:"policy" doc:"What may be done to mail, by whom, and what has to come first. A plan is sealed under the policy of its time and does not run under another."`
	Release Release `toml:"release" doc:"How mail that was on hold is let go."`
	Vault   Vault   `toml:"vault" doc:"Copies of what was deleted, expired or requeued."`
}

// Policy is what may be done, by whom, and how carefully.
type Policy struct {
	PlanLifetime Duration `toml:"plan_lifetime" doc:"How long a sealed plan may wait before it is run." least:"1m" most:"30d"`
	HoldReview   Duration `toml:"hold_review" doc:"After this time triage names a hold first, so that it is not forgotten." least:"1m" most:"365d"`

	Hold    Rule `toml:"hold" doc:"Putting mail aside."`
	Release Rule `toml:"release" doc:"Letting mail go."`
	Try     Rule `toml:"try" doc:"Sending one message now."`
	Requeue Rule `toml:"requeue" doc:"Letting Postfix take mail in anew."`
	Expire  Rule `toml:"expire" doc:"Giving mail up, so that its senders get it back."`
	Delete  Rule `toml:"delete" doc:"Removing mail, with a copy in the vault."`
	Restore Rule `toml:"restore" doc:"Bringing mail back from the vault."`
	Purge   Rule `toml:"purge" doc:"Removing copies from the vault for good."`

	Inspect Inspection `toml:"inspect" doc:"Looking at the content of mail, which is recorded. Headers and envelopes are no content."`
}

// Inspection is what the policy says of looking at content.
type Inspection struct {
	Allow       []string `toml:"allow" doc:"Accounts, and groups with an @ before them, that may do it. None listed: whoever can become root here."`
	NeedsTicket bool     `toml:"needs_ticket" doc:"Only with the number of a ticket."`
}

// Rule is what the policy says of one verb.
type Rule struct {
	Allow        []string `toml:"allow" doc:"Accounts, and groups with an @ before them, that may do it. None listed: whoever can become root here."`
	NeedsHold    bool     `toml:"needs_hold" doc:"Only mail that was on hold before."`
	NeedsTicket  bool     `toml:"needs_ticket" doc:"Only with the number of a ticket."`
	SecondPerson bool     `toml:"second_person" doc:"Only after somebody else has approved the plan."`
	Ceiling      int      `toml:"ceiling" doc:"At most this many messages in one plan; 0 is no limit." least:"0" most:"100000000"`
}

// Release is how mail is let go.
type Release struct {
	PerRun int `toml:"per_run" doc:"Messages that are let go at once; the next ones wait for what becomes of them." least:"1" most:"20000"`
}

// Vault is about the copies.
type Vault struct {
	Recipients []string `toml:"recipients" doc:"age public keys (age1...) to which copies are encrypted. This host then cannot read them back without a private key. None: not encrypted."`
	Retention  Duration `toml:"retention" doc:"How long a copy is kept before it may be purged without saying so." least:"0s" most:"3650d"`
}

// Default is what holds where nothing is set.
func Default() Config {
	return Config{
		Policy:  Policy{PlanLifetime: Duration(time.Hour), HoldReview: Duration(24 * time.Hour)},
		Release: Release{PerRun: 100},
		Vault:   Vault{Retention: Duration(90 * 24 * time.Hour)},
	}
}

// Digest names what is in force: 64 hexadecimal digits, the same for every
// file that says the same.
func (c *Config) Digest() string {
	sum := sha256.New()
	for _, f := range (&Loaded{Config: *c}).Fields() {
		_, _ = fmt.Fprintf(sum, "%s = %s\n", f.Key, f.Value) // a hash never fails
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Rule returns what is said of a verb, and whether there is such a verb.
func (p *Policy) Rule(verb string) (Rule, bool) {
	rules := map[string]Rule{
		"hold": p.Hold, "release": p.Release, "try": p.Try, "requeue": p.Requeue, "expire": p.Expire,
		"delete": p.Delete, "restore": p.Restore, "purge": p.Purge,
		"inspect": {Allow: p.Inspect.Allow, NeedsTicket: p.Inspect.NeedsTicket},
	}
	r, ok := rules[verb]
	return r, ok
}

// Duration is a span of time. Days may be used in writing: 90d, 1d12h.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	var days time.Duration
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is no span of time; write it as 30m, 24h or 90d", s)
		}
		days, s = time.Duration(n)*24*time.Hour, after
	}
	rest := time.Duration(0)
	if s != "" || days == 0 && string(text) != "0d" {
		var err error
		if rest, err = time.ParseDuration(s); err != nil || rest < 0 {
			return fmt.Errorf("%q is no span of time; write it as 30m, 24h or 90d", text)
		}
	}
	*d = Duration(days + rest)
	return nil
}

// MarshalText implements encoding.TextMarshaler. Equal spans are written equal.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	t := time.Duration(d)
	const day = 24 * time.Hour
	if t >= 2*day && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	s := t.String()
	if t >= time.Minute {
		s = strings.TrimSuffix(s, "0s")
	}
	if t >= time.Hour && strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
