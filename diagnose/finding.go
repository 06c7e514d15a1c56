package diagnose

import (
	"time"

	"holdfast/postfix"
)

// Finding is one trouble, named and proved.
type Finding struct {
	Cause postfix.Cause `json:"cause"`
	// Subject is what it concerns: a domain, a host, a path, "" for the
	// instance as a whole. Hostile text.
	Subject    string     `json:"subject"`
	Scope      Scope      `json:"scope"`
	Confidence Confidence `json:"confidence"`
	// Summary is one sentence for people. Texts of strangers in it are hostile.
	Summary string `json:"summary"`
	// Waiting is how many messages wait for it; Since is when it began, as far
	// as can be told.
	Waiting int       `json:"waiting"`
	Since   time.Time `json:"since,omitzero"`
	// Evidence is what the verdict rests on, the strongest first.
	Evidence []Evidence `json:"evidence"`
	// RuledOut are other explanations and what speaks against each.
	RuledOut []Rejected `json:"ruled_out"`
	// Next are steps that are safe now, the first one first. Avoid are steps
	// that people take here and that would make it worse.
	Next  []Step `json:"next"`
	Avoid []Step `json:"avoid"`
}

// Scope says how far a trouble reaches.
type Scope string

// The scopes.
const (
	Global      Scope = "global"
	Destination Scope = "destination"
	Sender      Scope = "sender"
	HostScope   Scope = "host"
)

// Confidence says how sure a verdict is.
type Confidence string

// High: seen directly, or by two sources that know nothing of each other.
// Medium: one source, and nothing against it. Low: the best guess, with
// something not seen.
const (
	High   Confidence = "high"
	Medium Confidence = "medium"
	Low    Confidence = "low"
)

// Evidence is one observation.
type Evidence struct {
	// Source is where it was seen: "spool", "log /var/log/mail.log",
	// "probe dns", "probe egress", "statvfs", ...
	Source string    `json:"source"`
	At     time.Time `json:"at,omitzero"`
	Text   string    `json:"text"`
}

// Rejected is an explanation that was considered and does not hold.
type Rejected struct {
	Cause postfix.Cause `json:"cause"`
	Text  string        `json:"text"`
}

// Step is a command, as words that a screen quotes for the shell, and why. A
// step without words is advice that no command carries out.
type Step struct {
	Argv []string `json:"argv"`
	Why  string   `json:"why"`
}

// State answers the first question.
type State string

// The states.
const (
	Flowing    State = "flowing"
	NotFlowing State = "not-flowing"
	CannotTell State = "cannot-tell"
)

// Verdict is the whole answer about one instance.
type Verdict struct {
	State State
	// Sentence says it in words.
	Sentence string
	// Findings, the one to act on first on top.
	Findings []Finding
}
