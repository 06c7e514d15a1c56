package postfix

import (
	"slices"
	"strings"
)

// Actor is who has to do something before the mail can go.
type Actor string

// The actors.
const (
	ActorUs        Actor = "us"        // whoever runs this relay, or sends through it
	ActorRemote    Actor = "remote"    // the postmaster of the server that answered
	ActorRecipient Actor = "recipient" // the person whose mailbox it is
	ActorNobody    Actor = "nobody"    // time alone
)

// Explanation is what one answer of a mail server, or one reason of Postfix,
// means to whoever has to get the mail through.
type Explanation struct {
	Class     Cause
	Permanent bool   // 5xx, 5.x.x, bounced: Postfix does not try again
	Status    string // the enhanced status code, "" where there is none
	Reply     string // what was judged: the text without the line around it
	Meaning   string // one sentence
	Who       Actor
	Next      string   // what to do, one sentence
	Step      []string // a safe command that goes with it: looks, never changes; nil where there is none
	Source    string   // where that meaning is written down: an RFC, a source file of Postfix, a provider's page
	Provider  string   // whose words they are, "" where many say the same
}

// Explain gives the meaning of a deferral or bounce in whatever form people
// have it at hand: a bare reply, a reason of Postfix, a line of the log, of
// mailq or of a bounce. status is the enhanced status code known from
// elsewhere, and may be empty. Of a reason as Postfix wrote it the class is the
// one that Classify gives; of no text it is NoCause.
func Explain(status, text string) Explanation {
	p := unwrap(text)
	if status == "" {
		status = p.status
	}
	if p.reason == "" {
		return Explanation{Status: status}
	}
	lower := strings.ToLower(p.reason)
	cause, found := judge(status, lower)
	e := Explanation{Class: cause, Status: status, Reply: p.reason}
	kind := kindOf(status)
	if r, ok := cutReply(lower); ok {
		if r.status != "" {
			e.Status = r.status
		}
		if r.kind != 0 {
			kind = r.kind
		}
	}
	e.Permanent = kind == '5' || kind == 0 && p.bounced
	e.advise(found)
	if e.Provider == "" {
		if mark := providerMarks.match(lower, 0); mark != nil {
			e.Provider = mark.by
		}
	}
	return e
}

// advise fills in what the class says, and over it what the rule says.
func (e *Explanation) advise(found *rule) {
	a := adviceFor(e.Class)
	e.Meaning, e.Who, e.Next, e.Step, e.Source = a.means, a.who, a.next, slices.Clone(a.step), a.source
	if e.Permanent && a.final != "" {
		e.Meaning = a.final
	}
	if found != nil && found.cause == e.Class {
		if found.says != "" {
			e.Meaning = found.says
		}
		if found.who != "" {
			e.Who = found.who
		}
		if found.next != "" {
			e.Next = found.next
		}
		if found.source != "" {
			e.Source = found.source
		}
		e.Provider = found.by
	}
	if e.Permanent {
		e.settle(found)
	}
	e.Meaning = sentence(e.Meaning)
}

// settle mends the advice for an answer that is final: nothing is gained by
// waiting.
func (e *Explanation) settle(found *rule) {
	if found != nil && found.next != "" {
		return
	}
	switch e.Class {
	case RemoteThrottling:
		e.Next = "The message has bounced: slow down before more of them do, and have the sender send it again."
	case MailboxFull:
		e.Next = "Tell the recipient by other means; the sender has to send it again."
	case RemoteRejecting:
		e.Next = "Send the postmaster of that server the whole answer; the sender has to send the message again."
	case DNS:
		e.Next = "Check the spelling of the domain; the sender has to know."
	case RemoteDown, Greylisting:
		e.Who, e.Next = ActorRemote, "Ask the postmaster of that server: an answer that is final should not be given for this."
	}
}

// sentence begins a meaning with a capital and ends it.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
