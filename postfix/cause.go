package postfix

import (
	"regexp"
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

// ReasonCauses lists the causes that Classify can return, for help texts and
// for checking a selection.
func ReasonCauses() []Cause {
	return []Cause{
		DNS, Egress, RemoteDown, RemoteThrottling, RemoteRejecting, Greylisting, Reputation, TLS,
		Relayhost, Auth, Milter, PolicyService, ContentFilter, LookupTable, StorageSpace, Configuration,
		RoutingLoop, RecipientUnknown, MailboxFull, ContentRejected, UnknownCause,
	}
}

// ParseCause accepts a cause that Classify can return.
func ParseCause(s string) (Cause, bool) {
	c := Cause(s)
	return c, slices.Contains(ReasonCauses(), c)
}

// suspended is what qmgr puts before the reason of the delivery that made it
// give up a destination (qmgr_queue_suspend and qmgr_deliver in qmgr/): the
// cause is behind it, not in it.
const suspended = "delivery temporarily suspended: "

// FirstReason strips the mark of a suspended destination, however often it was
// put on, and returns the reason that caused the suspension.
func FirstReason(reason string) string {
	for strings.HasPrefix(reason, suspended) {
		reason = reason[len(suspended):]
	}
	return reason
}

// rule gives a class to every text that contains one of its phrases. Phrases
// are in lower case. Rules are tried in order: what names its cause outright
// stands before what only hints at it.
type rule struct {
	cause   Cause
	phrases []string
}

// localRules read texts that this host's own Postfix wrote, from
// smtp/smtp_connect.c, smtp/smtp_trouble.c, smtp/smtp_proto.c, tls/,
// qmgr/qmgr_error.c and global/.
var localRules = []rule{
	{DNS, []string{"name service error for", "malformed or unexpected name server reply", "unable to look up host", "host not found, try again"}},
	{RoutingLoop, []string{"loops back to myself", "greeted me with my own hostname", "too many hops", "hopcount exceeded"}},
	{TLS, []string{"tls is required", "cannot start tls", "server certificate not", "tlsa lookup error", "tls session", "certificate verification failed", "starttls"}},
	{Auth, []string{"sasl authentication failed", "no supported auth mechanisms", "authentication required"}},
	{Egress, []string{"network is unreachable", "cannot assign requested address", "operation not permitted", "permission denied"}},
	{LookupTable, []string{"table lookup problem", "temporary lookup failure", "lookup error for", "address resolver failure"}},
	{Configuration, []string{"mail transport unavailable", "deferred transport", "unknown mail transport error", "server configuration", "configuration problem", "bad transport type", "message is administratively expired"}},
	{StorageSpace, []string{"queue file write error", "no space left on device"}},
	{RemoteDown, []string{"connection timed out", "connection refused", "no route to host", "host is down", "connection reset by peer", "lost connection with", "timed out while", "no mail servers found", "unexpected disconnect"}},
}

// replyRules read texts that a remote server wrote.
var replyRules = []rule{
	{Greylisting, []string{"greylist", "graylist", "grey-list", "gray-list", "postgrey", "milter-greylist"}},
	{MailboxFull, []string{"mailbox full", "mailbox is full", "over quota", "quota exceeded", "exceeded storage", "out of storage", "insufficient system storage for", "4.2.2", "5.2.2", "mailbox has exceeded"}},
	{RecipientUnknown, []string{"5.1.1", "5.1.10", "user unknown", "unknown user", "no such user", "no such recipient", "recipient not found", "does not exist", "mailbox unavailable", "invalid recipient", "recipient address rejected: unknown", "undeliverable address"}},
	{Auth, []string{"5.7.8", "5.7.0 authentication", "authentication required", "authentication credentials invalid", "relay access denied", "relaying denied", "must authenticate", "535 "}},
	{Reputation, []string{"blocklist", "blacklist", "block list", "black list", "spamhaus", "barracuda", "dnsbl", "rbl", "reputation", "is blocked", "been blocked", "listed in", "listed at", "banned", "unsolicited mail originating", "[s3140]", "[tss0", "tss09", "s3150"}},
	{RemoteThrottling, []string{"too many", "rate limit", "ratelimit", "rate-limit", "rate that", "throttl", "slow down", "try again later, closing", "connection limit", "concurren", "exceeded the", "exceeds the", "temporarily deferred", "unusual rate", "too fast", "too quickly", "sending limit", "receiving mail at a rate", "4.7.28", "per hour", "per minute", "per connection"}},
	{ContentRejected, []string{"spam", "virus", "malware", "message content", "content rejected", "policy violation in message", "dmarc", "spf ", "dkim"}},
	{StorageSpace, []string{"insufficient system storage", "4.3.1"}},
}

var (
	remoteReply = regexp.MustCompile(`\b(?:said|refused to talk to me): ?([2-5]\d\d)?`)
	volatile    = regexp.MustCompile(`\b[245]\.\d{1,3}\.\d{1,3}\b|\[[0-9A-Fa-f.:]*[.:][0-9A-Fa-f.:]*\]|<[^<>]*>|\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9A-Fa-f]*\d[0-9A-Fa-f]{6,}\b|\b\d+\b`)
	replyCode   = regexp.MustCompile(`^(?:[245]\d\d|[245]\.\d{1,3}\.\d{1,3})$`)
)

// Classify gives a class to the reason of a deferral or bounce: the text as
// Postfix logged it or wrote it to a defer log, and the enhanced status code
// beside it, which may be empty. The first cause counts: the mark of a
// suspended destination is looked through. Texts that say nothing known are
// UnknownCause; no text at all is NoCause.
func Classify(status, reason string) Cause {
	if reason == "" {
		return NoCause
	}
	text := strings.ToLower(FirstReason(reason))
	at := remoteReply.FindStringSubmatchIndex(text)
	if at == nil {
		if c := match(localRules, text); c != NoCause {
			return c
		}
		if c := match(replyRules, text); c != NoCause {
			return c
		}
		return UnknownCause
	}
	reply := text[at[0]:]
	if c := match(replyRules, reply); c != NoCause {
		return c
	}
	if status == "4.2.2" || status == "5.2.2" {
		return MailboxFull
	}
	// A 421 that gives no reason closes the connection to shed load
	// (RFC 5321, 3.8): pace is what it asks for.
	if at[2] >= 0 && text[at[2]:at[3]] == "421" {
		return RemoteThrottling
	}
	return RemoteRejecting
}

func match(rules []rule, text string) Cause {
	for _, r := range rules {
		for _, phrase := range r.phrases {
			if strings.Contains(text, phrase) {
				return r.cause
			}
		}
	}
	return NoCause
}

// ReasonGroup reduces a reason to what it has in common with others of its
// kind, so that counting them shows one line and not thousands: addresses,
// queue IDs and numbers become "*", reply codes stay.
func ReasonGroup(reason string) string {
	return volatile.ReplaceAllStringFunc(FirstReason(reason), func(s string) string {
		switch {
		case replyCode.MatchString(s):
			return s
		case s[0] == '<':
			return "<*>"
		case s[0] == '[':
			return "[*]"
		}
		return "*"
	})
}
