package world

import (
	"errors"
	"fmt"
	"slices"
)

// Traffic is how an SMTP peer treats its clients. The zero value takes
// everything at once. All spans are divided by Config.TimeScale and all rates
// multiplied by it.
type Traffic struct {
	Connections *ConnectionLimit `json:"connections,omitempty"`
	Rate        *Rate            `json:"rate,omitempty"`
	Greylist    *Greylist        `json:"greylist,omitempty"`
	Penalty     *Penalty         `json:"penalty,omitempty"`
	// Rules are tried in order; the first that matches and whose dice fall is
	// done, the others are not looked at.
	Rules []Rule `json:"rules,omitempty"`

	Tarpit  Duration `json:"tarpit,omitempty"`  // before every reply
	Latency Duration `json:"latency,omitempty"` // between the final dot and its reply
	// Idle is how long a client may be silent, five real minutes unless set.
	Idle Duration `json:"idle,omitempty"`

	TLS  TLSMode `json:"tls,omitempty"`
	Auth *Auth   `json:"auth,omitempty"`

	Banner string `json:"banner,omitempty"` // text after the 220 and the host name
	// Extensions of the EHLO reply; an empty list is none, if absent PIPELINING, 8BITMIME, SMTPUTF8, DSN
	// and ENHANCEDSTATUSCODES. SIZE, STARTTLS and AUTH come from their own fields.
	Extensions []string `json:"extensions,omitzero"`
	SizeLimit  int64    `json:"size_limit,omitempty"` // of a message, in bytes; 0: none
	// MaxRecipients of one message; the next is answered 452 4.5.3. 0: no bound.
	MaxRecipients int `json:"max_recipients,omitempty"`
	// HeloOnly answers 502 to EHLO, as very old servers do.
	HeloOnly bool `json:"helo_only,omitempty"`
}

// ConnectionLimit bounds the sessions at one time; 0 is no bound. A client over
// it gets Reply (421 4.7.0 unless set) in place of the banner, or what Cut says.
type ConnectionLimit struct {
	Max       int    `json:"max,omitempty"`
	PerClient int    `json:"per_client,omitempty"`
	Reply     *Reply `json:"reply,omitempty"`
	Cut       Cut    `json:"cut,omitempty"`
}

// Rate is a token bucket: PerSecond on average, Burst at once. What costs a
// token is one command of the stage: mail (a message), rcpt (a recipient) or
// data.
type Rate struct {
	PerSecond float64 `json:"per_second"`
	Burst     int     `json:"burst,omitempty"` // at least 1
	Stage     Stage   `json:"stage,omitempty"` // mail unless set
	PerClient bool    `json:"per_client,omitempty"`
	Reply     *Reply  `json:"reply,omitempty"` // 450 4.7.1 unless set
}

// Greylist refuses a triplet of client, sender and recipient until Delay has
// passed since it was first seen.
type Greylist struct {
	Delay Duration `json:"delay"`
	Reply *Reply   `json:"reply,omitempty"` // 450 4.2.0 unless set
}

// Penalty boxes a client that was refused too often: from its Refusals-th
// refusal within Window on, it gets nothing but Reply for the span For. With
// Extend, each command refused in the box starts the span again.
type Penalty struct {
	Refusals int      `json:"refusals"`
	Window   Duration `json:"window"`
	For      Duration `json:"for"`
	Extend   bool     `json:"extend,omitempty"`
	Reply    *Reply   `json:"reply,omitempty"` // 421 4.7.0 unless set
}

// Stage is a moment of an SMTP session.
type Stage string

// The stages at which a Rule can act.
const (
	StageBanner   Stage = "banner"   // a client has connected
	StageEHLO     Stage = "ehlo"     // EHLO or HELO was read
	StageStartTLS Stage = "starttls" // STARTTLS was read
	StageAuth     Stage = "auth"     // AUTH was read
	StageMail     Stage = "mail"     // MAIL was read
	StageRcpt     Stage = "rcpt"     // RCPT was read
	StageData     Stage = "data"     // DATA was read
	StageBody     Stage = "body"     // in the middle of the content; cut only
	StageDot      Stage = "dot"      // the final dot was read, nothing is taken over yet
	// StageAccepted is after the message went into the ledger and before the
	// 250: a cut here is the lost 250 of RFC 1047, a reply here a lie.
	StageAccepted Stage = "accepted"
)

// Cut is a way to end a session without a word.
type Cut string

// The cuts. Hang keeps the connection open and silent until the client leaves.
const (
	CutClose Cut = "close"
	CutReset Cut = "reset"
	CutHang  Cut = "hang"
)

// Rule does something particular at one stage: answer Reply, or Cut, or only
// wait for Delay before what would have happened anyway.
type Rule struct {
	Stage     Stage   `json:"stage"`
	Client    Pattern `json:"client,omitempty"`    // the client's address
	Sender    Pattern `json:"sender,omitempty"`    // from stage mail on
	Recipient Pattern `json:"recipient,omitempty"` // at stage rcpt; later: any recipient of the message
	// Probability that a match counts; 0 means always. The dice are seeded by
	// Config.Seed and the peer's name.
	Probability float64  `json:"probability,omitempty"`
	Times       int      `json:"times,omitempty"` // only the first so many matches; 0: all
	Delay       Duration `json:"delay,omitempty"`
	Reply       *Reply   `json:"reply,omitempty"`
	Cut         Cut      `json:"cut,omitempty"`
	// AfterBytes of content, at stage body, comes the cut.
	AfterBytes int64 `json:"after_bytes,omitempty"`
	// Close ends the session after the reply; a 421 does so by itself.
	Close bool `json:"close,omitempty"`
}

// TLSMode says how STARTTLS goes.
type TLSMode string

// The modes. Certificates come from the world's own CA (World.CA).
const (
	TLSOff       TLSMode = "off"        // not offered; also the zero value
	TLSGood      TLSMode = "good"       // a valid certificate for the host's name
	TLSBroken    TLSMode = "broken"     // offered, then garbage for a handshake
	TLSRefused   TLSMode = "refused"    // offered, then 454
	TLSMissing   TLSMode = "missing"    // not offered, and yet MAIL is answered 530 without it
	TLSRequired  TLSMode = "required"   // as good, and MAIL is answered 530 without it
	TLSExpired   TLSMode = "expired"    // a certificate of the past
	TLSWrongName TLSMode = "wrong-name" // a valid certificate for another name
)

// Auth is what a smart host wants to know. PLAIN and LOGIN are understood.
type Auth struct {
	Required   bool              `json:"required,omitempty"`   // MAIL without it is answered 530 5.7.0
	Mechanisms []string          `json:"mechanisms,omitempty"` // PLAIN and LOGIN unless set
	Users      map[string]string `json:"users,omitempty"`      // name to password
	NeedTLS    bool              `json:"need_tls,omitempty"`   // not offered in clear
	// Failure answers bad credentials (535 5.7.8 unless set). A temporary
	// failure of good ones is a Rule at stage auth: "454 4.7.0 ...".
	Failure *Reply `json:"failure,omitempty"`
}

var defaultExtensions = []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"}

func (t Traffic) check() error {
	if c := t.Connections; c != nil {
		err := errors.Join(c.Reply.check(), checkCut(c.Cut))
		if c.Max < 0 || c.PerClient < 0 {
			err = errors.Join(err, errors.New("limit is negative"))
		}
		if err != nil {
			return fmt.Errorf("connections: %w", err)
		}
	}
	if err := t.Rate.check(); err != nil {
		return fmt.Errorf("rate: %w", err)
	}
	if t.Greylist != nil {
		if err := t.Greylist.Reply.check(); err != nil {
			return fmt.Errorf("greylist: %w", err)
		}
	}
	if p := t.Penalty; p != nil {
		if p.Refusals < 1 || p.Window <= 0 || p.For <= 0 {
			return errors.New("penalty: refusals, window and for must all be set")
		}
		if err := p.Reply.check(); err != nil {
			return fmt.Errorf("penalty: %w", err)
		}
	}
	for i, r := range t.Rules {
		if err := r.check(); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	if t.SizeLimit < 0 || t.MaxRecipients < 0 {
		return errors.New("size_limit or max_recipients is negative")
	}
	return errors.Join(
		oneOf("tls mode", t.TLS, "", TLSOff, TLSGood, TLSBroken, TLSRefused, TLSMissing, TLSRequired, TLSExpired, TLSWrongName),
		t.Auth.check())
}

func checkCut(c Cut) error { return oneOf("cut", c, "", CutClose, CutReset, CutHang) }

func (r *Rate) check() error {
	if r == nil {
		return nil
	}
	if r.PerSecond <= 0 || r.Burst < 0 {
		return fmt.Errorf("%v a second with a burst of %d is no rate", r.PerSecond, r.Burst)
	}
	return errors.Join(oneOf("stage", r.Stage, "", StageMail, StageRcpt, StageData), r.Reply.check())
}

func (a *Auth) check() error {
	if a == nil {
		return nil
	}
	for _, m := range a.Mechanisms {
		if err := oneOf("auth mechanism", m, "PLAIN", "LOGIN"); err != nil {
			return err
		}
	}
	return a.Failure.check()
}

func (r Rule) check() error {
	err := errors.Join(
		oneOf("stage", r.Stage, StageBanner, StageEHLO, StageStartTLS, StageAuth, StageMail, StageRcpt,
			StageData, StageBody, StageDot, StageAccepted),
		checkCut(r.Cut), r.Reply.check(), checkProbability(r.Probability))
	if err != nil {
		return err
	}
	switch {
	case r.Reply != nil && r.Cut != "":
		return errors.New("both a reply and a cut; use close to end the session after a reply")
	case r.Reply == nil && r.Cut == "" && r.Delay == 0:
		return errors.New("does nothing: give a reply, a cut or a delay")
	case r.Stage == StageBody && r.Reply != nil:
		return errors.New("stage body has no reply; use dot")
	case r.AfterBytes != 0 && r.Stage != StageBody:
		return errors.New("after_bytes is for stage body")
	case r.Times < 0 || r.AfterBytes < 0:
		return errors.New("a count is negative")
	}
	return nil
}

func (t *Traffic) offers(extension string) bool {
	list := t.Extensions
	if list == nil {
		list = defaultExtensions
	}
	return slices.Contains(list, extension)
}
