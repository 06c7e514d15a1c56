package postfix

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
	Permanent bool   // 5xx, 5.x.x: Postfix bounces and does not try again
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
// elsewhere, and may be empty.
func Explain(status, text string) Explanation {
	e := Explanation{Class: Classify(status, text), Status: status, Reply: FirstReason(text), Who: ActorUs}
	e.Permanent = status != "" && status[0] == '5'
	return e
}
