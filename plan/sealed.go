package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"holdfast/postfix"
)

// Verb is what a plan does to its messages.
type Verb string

// The verbs that change mail.
const (
	Hold    Verb = "hold"
	Release Verb = "release"
	Try     Verb = "try"
	Requeue Verb = "requeue"
	Expire  Verb = "expire"
	Delete  Verb = "delete"
	Restore Verb = "restore"
	Purge   Verb = "purge" // of the vault: the only act that cannot be undone
)

// Verbs lists them all.
func Verbs() []Verb {
	return []Verb{Hold, Release, Try, Requeue, Expire, Delete, Restore, Purge}
}

// Destructive reports whether the verb ends a message, or a copy of one, so
// that the count is asked for and contents are compared.
func (v Verb) Destructive() bool {
	return v == Delete || v == Expire || v == Requeue || v == Purge
}

// Target is one message that a plan names.
type Target struct {
	postfix.Fingerprint
	// Queue is where the message was when the plan was sealed.
	Queue postfix.Queue `json:"queue"`
	// NextHop is where its first outstanding recipient goes. A release lets
	// one message of each next hop go before the others.
	NextHop string `json:"next_hop,omitempty"`
	// Recipients is how many are still to do.
	Recipients int `json:"recipients,omitempty"`
	// HeldOnArrival is set where a log to which no stranger can add tells that
	// cleanup put it on hold when it came: no queue manager has it in memory.
	HeldOnArrival bool `json:"held_on_arrival,omitempty"`
	// Item names the copy in the vault: of restore and purge.
	Item string `json:"item,omitempty"`
}

// TargetOf makes a target of a message. The sender is kept in the form that
// survives JSON, so that a target read back from a file is equal.
func TargetOf(instance string, m *postfix.Message) Target {
	t := Target{Fingerprint: m.Fingerprint(instance), Queue: m.Queue, Recipients: len(m.Recipients)}
	t.Sender = Canonical(t.Sender)
	if len(m.Recipients) > 0 {
		t.NextHop = Canonical(m.Recipients[0].NextHop)
	}
	return t
}

// Matches reports whether a message that was looked at is the one that was
// planned for.
func (t *Target) Matches(seen postfix.Fingerprint) bool {
	seen.Sender = Canonical(seen.Sender)
	return t.Same(seen)
}

// Canonical replaces each byte that is not UTF-8, as JSON would do.
func Canonical(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		b.WriteRune(r)
		i += n
	}
	return b.String()
}

// Who is the person on whose word something is done.
type Who struct {
	UID int `json:"uid"`
	// Login is the account that logged in (the kernel's loginuid), which sudo
	// and su do not change; "" where the kernel does not know.
	Login string `json:"login,omitempty"`
	// User is the account of UID, SudoUser the one that called sudo.
	User     string `json:"user"`
	SudoUser string `json:"sudo_user,omitempty"`
	Terminal string `json:"terminal,omitempty"`
	PID      int    `json:"pid"`
}

// Name is the person's own account, as far as the host knows it.
func (w Who) Name() string {
	for _, name := range []string{w.SudoUser, w.Login, w.User} {
		if name != "" && (name != "root" || w.User == "root" && w.SudoUser == "" && w.Login == "") {
			return name
		}
	}
	return w.User
}

// Options are what the operator chose beside the messages.
type Options struct {
	// PerRun is how many messages are let go at once: of release, expire and
	// what undoes a hold.
	PerRun int `json:"per_run,omitempty"`
	// Active lets hold, delete and expire take active mail, which is then not
	// released before another queue manager runs.
	Active bool `json:"active,omitempty"`
	// Foreign takes mail that somebody else put on hold.
	Foreign bool `json:"foreign,omitempty"`
	// Anyway goes on although a finding says that it would do harm.
	Anyway bool `json:"anyway,omitempty"`
	// Effects accepts the side effects of requeue that the plan names.
	Effects bool `json:"effects,omitempty"`
	// Review is when a hold is to be looked at again.
	Review Duration `json:"review,omitempty"`
}

// Plan is what is to be done to which messages, sealed: its ID is the digest of
// all of it, and what was shown is what runs, once.
type Plan struct {
	Schema   string    `json:"schema"` // PlanSchema
	Verb     Verb      `json:"verb"`
	Instance string    `json:"instance"`
	Config   string    `json:"config_dir"`
	Selector Selector  `json:"selector"`
	Options  Options   `json:"options"`
	Reason   string    `json:"reason"`
	Ticket   string    `json:"ticket,omitempty"`
	By       Who       `json:"by"`
	Made     time.Time `json:"made"`
	Expires  time.Time `json:"expires"`
	// Policy is the digest of the policy under which it was sealed. Under
	// another one it does not run.
	Policy string `json:"policy"`
	// Undoes is the plan whose outcome this one takes back.
	Undoes string `json:"undoes,omitempty"`
	// Count is the number of targets; Targets is the digest of the list, which
	// lies in a file of that name.
	Count   int     `json:"count"`
	Targets string  `json:"targets"`
	Effects Effects `json:"effects"`
}

// PlanSchema names the form of a sealed plan.
const PlanSchema = "holdfast.plan/1"

// Effects is what a plan does beside its purpose, as far as can be told.
type Effects struct {
	Bytes  int64     `json:"bytes"`
	Oldest time.Time `json:"oldest,omitzero"`
	Newest time.Time `json:"newest,omitzero"`
	// Recipients that are still to do, of all targets.
	Recipients int `json:"recipients"`
	// Elsewhere are recipients that the selection did not ask for, at other
	// destinations, whom these messages carry too.
	Elsewhere    int     `json:"elsewhere,omitempty"`
	Senders      []Tally `json:"senders"`
	Destinations []Tally `json:"destinations"`
	// MoreSenders and MoreDestinations are how many there are beside those.
	MoreSenders      int      `json:"more_senders,omitempty"`
	MoreDestinations int      `json:"more_destinations,omitempty"`
	Sample           []Target `json:"sample"`
	// Skipped are messages that were selected and that the plan leaves alone.
	Skipped []Skip `json:"skipped,omitempty"`
	Risks   []Risk `json:"risks,omitempty"`
	// Bars are reasons why it may not run as it stands.
	Bars []Bar `json:"bars,omitempty"`
	// Back is the command that takes it back, nil where nothing does;
	// BackWhy says what that is worth.
	Back    []string `json:"back,omitempty"`
	BackWhy string   `json:"back_why,omitempty"`
}

// Tally is a name and how many messages it stands for.
type Tally struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// Skip is a group of selected messages that are left alone.
type Skip struct {
	// Why is one of the Skip constants.
	Why   string            `json:"why"`
	Count int               `json:"count"`
	IDs   []postfix.QueueID `json:"ids"` // the first few
	// Hint says what would let them be taken, "" where nothing does.
	Hint string `json:"hint,omitempty"`
}

// Why messages are skipped.
const (
	SkipActive     = "active"           // the queue manager has it
	SkipHeldActive = "held-from-active" // releasing it under the same queue manager loses it
	SkipMaildrop   = "maildrop"         // Postfix cannot hold it there
	SkipDamaged    = "damaged"          // does not parse
	SkipForeign    = "held-by-other"
	SkipNotHeld    = "not-held"
	SkipHeld       = "held" // already, or not to be held again
	SkipQueue      = "queue"
	SkipFinished   = "finished" // no recipient is left to do
	SkipQueued     = "still-queued"
	SkipDelivered  = "was-delivered"
	SkipRequeued   = "requeued"       // it lives on under another queue ID
	SkipPending    = "pending-bounce" // requeue would abandon it
	SkipPurged     = "purged"
	SkipLegalHold  = "legal-hold"
	SkipRetention  = "retention" // not kept for as long as it is to be
	SkipDigest     = "unreadable"
	SkipMissing    = "missing" // an ID that was named and is not there
)

// Risk is something that the plan causes and that is not its purpose.
type Risk struct {
	// Kind is one word for programs: "expires", "bcc", "content-filter",
	// "redirect", "backscatter", "delay-warning", "arriving", "vault-disk",
	// "dead-destination", "cause-stands", ...
	Kind  string `json:"kind"`
	Count int    `json:"count,omitempty"` // messages concerned
	Text  string `json:"text"`
	// Next is a command that helps, if there is one.
	Next []string `json:"next,omitempty"`
}

// Bar is a reason why a plan may not run, and what lifts it.
type Bar struct {
	// Kind is "policy", "finding", "guard" or "approval".
	Kind string `json:"kind"`
	Text string `json:"text"`
	Lift string `json:"lift,omitempty"`
}

// ID returns the digest that names the plan: 64 hexadecimal digits.
func (p *Plan) ID() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("a plan is data: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Short is the form of a plan's ID that people type.
func Short(id string) string {
	return id[:min(len(id), shortID)]
}

const shortID = 12
