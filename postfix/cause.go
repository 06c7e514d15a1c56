package postfix

import (
	"slices"
	"strings"
)

// Cause is a class of trouble. Findings name one, and so does each recipient
// whose last attempt left a reason.
type Cause string

// The causes. The first group can be read from one reply or one deferral
// reason; the second needs more than one message to be told.
const (
	NoCause          Cause = ""
	DNS              Cause = "dns"
	Egress           Cause = "egress"
	RemoteDown       Cause = "remote-down"
	RemoteThrottling Cause = "remote-throttling"
	RemoteRejecting  Cause = "remote-rejecting"
	Greylisting      Cause = "greylisting"
	Reputation       Cause = "reputation"
	TLS              Cause = "tls"
	Relayhost        Cause = "relayhost"
	Auth             Cause = "auth"
	Milter           Cause = "milter"
	PolicyService    Cause = "policy-service"
	ContentFilter    Cause = "content-filter"
	LookupTable      Cause = "lookup-table"
	StorageSpace     Cause = "storage-space"
	Configuration    Cause = "configuration"
	RoutingLoop      Cause = "routing-loop"
	RecipientUnknown Cause = "recipient-unknown"
	MailboxFull      Cause = "mailbox-full"
	ContentRejected  Cause = "content-rejected"
	UnknownCause     Cause = "unknown"

	StorageInodes   Cause = "storage-inodes"
	StorageReadonly Cause = "storage-readonly"
	StorageLatency  Cause = "storage-latency"
	QueueManager    Cause = "queue-manager"
	PostfixDown     Cause = "postfix-down"
	ProcessLimit    Cause = "process-limit"
	Corruption      Cause = "corruption"
	Permissions     Cause = "permissions"
	Flood           Cause = "flood"
	Backscatter     Cause = "backscatter"
	BackoffWait     Cause = "backoff-wait"
	HeldForgotten   Cause = "held-forgotten"
	ExpirySoon      Cause = "expiry-soon"
	ActiveQueueFull Cause = "active-queue-full"
	Clock           Cause = "clock"
	Overdue         Cause = "overdue"
)

// ReasonCauses lists the causes that a recipient can wait for, for help texts
// and for checking a selection. Classify returns all of them but Relayhost: a
// text does not tell that the host in it is the relayhost; who knows the route
// does.
func ReasonCauses() []Cause {
	return []Cause{
		DNS, Egress, RemoteDown, RemoteThrottling, RemoteRejecting, Greylisting, Reputation, TLS,
		Relayhost, Auth, Milter, PolicyService, ContentFilter, LookupTable, StorageSpace, Configuration,
		RoutingLoop, RecipientUnknown, MailboxFull, ContentRejected, UnknownCause,
	}
}

// ParseCause accepts a cause that a recipient can wait for.
func ParseCause(s string) (Cause, bool) {
	c := Cause(s)
	return c, slices.Contains(ReasonCauses(), c)
}

// suspended is what qmgr puts before the reason of the delivery that made it
// give up a destination (qmgr_queue_suspend and qmgr_deliver in qmgr/): the
// cause is behind it, not in it.
const suspended = "delivery temporarily suspended: "

// Suspended says that a reason is of a delivery that was not tried, because the
// queue manager holds its destination dead.
func Suspended(reason string) bool { return strings.HasPrefix(reason, suspended) }

// FirstReason strips the mark of a suspended destination, however often it was
// put on, and returns the reason that caused the suspension.
func FirstReason(reason string) string {
	for strings.HasPrefix(reason, suspended) {
		reason = reason[len(suspended):]
	}
	return reason
}

// Classify gives a class to the reason of a deferral or bounce: the text as
// Postfix logged it or wrote it to a defer log, and the enhanced status code
// beside it, which may be empty. The first cause counts: the mark of a
// suspended destination is looked through. Texts that say nothing known are
// UnknownCause; no text at all is NoCause.
//
// Who wrote the text decides what it can mean. A remote server that says
// "temporary lookup failure" speaks of its own tables, and whatever it says
// about name servers or disks is no trouble of this host.
func Classify(status, reason string) Cause {
	if strings.TrimSpace(reason) == "" {
		return NoCause
	}
	cause, _ := judge(status, strings.ToLower(FirstReason(reason)))
	return cause
}

// judge finds the class of a text in lower case, and the rule that said so.
// The rule is nil where only the shape of the text told.
func judge(status, text string) (Cause, *rule) {
	r, ok := cutReply(text)
	switch {
	case !ok:
		return judgeLocal(status, text)
	case strings.HasPrefix(text, "sasl "):
		// The server's words are about the login, whatever they are.
		return Auth, nil
	case isLocal(r.host):
		if found := neighbourRules.match(r.text, r.kind); found != nil {
			return found.cause, found
		}
		cause, found := judgeReply(status, r)
		if failsBeside(cause, r) {
			return ContentFilter, nil
		}
		return cause, found
	}
	return judgeReply(status, r)
}

// failsBeside reports whether an answer of a server on this host, which from
// elsewhere would be a refusal without a reason or a broken connection, is that
// server's own trouble.
func failsBeside(cause Cause, r reply) bool {
	switch cause {
	case RemoteRejecting, RemoteDown:
		return true
	case ContentRejected:
		return r.kind == '4'
	case Greylisting:
		return !strings.Contains(r.text, "grey") && !strings.Contains(r.text, "gray")
	}
	return false
}

// judgeLocal reads what this host's own Postfix wrote.
func judgeLocal(status, text string) (Cause, *rule) {
	if cause, found, ok := connectFailure(text); ok {
		return cause, found
	}
	kind := kindOf(status)
	// error(8) and retry(8) give the words of a table, pipe(8) those of a
	// program; both use the phrases of replies.
	for _, book := range []*ruleBook{localRules, replyRules} {
		if found := book.match(text, kind); found != nil {
			return found.cause, found
		}
	}
	if found := statusRules.find(status, kind); found != nil {
		return found.cause, found
	}
	return UnknownCause, nil
}

// connectFailure reads smtp_connect_sock of smtp/smtp_connect.c: "connect to
// NAME[ADDRESS]:PORT: " and the words of the system.
func connectFailure(text string) (Cause, *rule, bool) {
	verb, host, rest, ok := cutServer(text)
	if !ok || verb != "connect to " || host == "" {
		return NoCause, nil, false
	}
	words, ok := strings.CutPrefix(skipPort(rest), ": ")
	if !ok {
		return NoCause, nil, false
	}
	if isLocal(host) {
		return ContentFilter, nil, true
	}
	if found := egressRules.match(words, 0); found != nil {
		return found.cause, found, true
	}
	// Refused, timed out, no route: one attempt cannot tell the far end from
	// the way to it. That takes destinations that are well.
	return RemoteDown, nil, true
}

// judgeReply reads the words of a server. A code that says one thing wherever
// it is used comes before the words, one that is only a hint after them.
func judgeReply(status string, r reply) (Cause, *rule) {
	if r.status != "" {
		status = r.status
	}
	if found := strongStatusRules.find(status, r.kind); found != nil {
		return found.cause, found
	}
	if found := replyRules.match(r.text, r.kind); found != nil {
		return found.cause, found
	}
	if found := statusRules.find(status, r.kind); found != nil {
		return found.cause, found
	}
	if found := codeRules.find(r.code, r.kind); found != nil {
		return found.cause, found
	}
	return RemoteRejecting, lateRules.match(r.text, r.kind)
}

// maskedDigits is how long a number must be not to matter to Classify: longer
// than any in a phrase, a reply code or an address.
const maskedDigits = 5

// AppendMasked appends the reason with its long numbers taken out, and the name
// and address of the server where they stand before its answer. Reasons that
// are equal then are of the same class, so that a class can be remembered for
// thousands of texts that differ in a ticket number or in which server it was.
func AppendMasked(dst []byte, reason string) []byte {
	reason = FirstReason(reason)
	// A server on this host is left in: there it matters which one it is.
	if verb, host, rest, ok := cutServer(reason); ok && host != "" && !isLocal(host) && endsServer(rest) {
		dst, reason = append(dst, verb...), rest
	}
	for i := 0; i < len(reason); {
		run := i
		for run < len(reason) && isDigit(reason[run]) {
			run++
		}
		switch {
		case run == i:
			dst = append(dst, reason[i])
			i++
		case run-i < maskedDigits:
			dst = append(dst, reason[i:run]...)
			i = run
		default:
			dst = append(dst, '#')
			i = run
		}
	}
	return dst
}

// endsServer reports whether what follows the name of a server is no longer
// about which one it is.
func endsServer(rest string) bool {
	return strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, " said:") || strings.HasPrefix(rest, " refused to talk to me:")
}
