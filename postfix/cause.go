package postfix

import (
	"net/netip"
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
	text := strings.ToLower(FirstReason(reason))
	r, ok := cutReply(text)
	switch {
	case !ok:
		return classifyLocal(status, text)
	case strings.HasPrefix(text, "sasl "):
		// The server's words are about the login, whatever they are.
		return Auth
	case isLocal(r.host):
		if c := match(neighbourRules, r.text); c != NoCause {
			return c
		}
		c := classifyReply(status, r)
		if c == RemoteRejecting || c == ContentRejected && strings.HasPrefix(r.code, "4") {
			return ContentFilter
		}
		return c
	}
	return classifyReply(status, r)
}

// classifyLocal reads what this host's own Postfix wrote.
func classifyLocal(status, text string) Cause {
	if c, ok := connectFailure(text); ok {
		return c
	}
	if c := match(localRules, text); c != NoCause {
		return c
	}
	// error(8) and retry(8) give the words of a table, pipe(8) those of a
	// program; both use the phrases of replies.
	if c := match(replyRules, text); c != NoCause {
		return c
	}
	if c := byStatus(status); c != NoCause {
		return c
	}
	return UnknownCause
}

// reply is what a server answered, and which.
type reply struct {
	host string // the address between brackets: IP or path of a socket, "" where there is none
	code string // "450", "" where there is none
	text string // code and all that follows
}

var (
	// remoteReply finds the words of smtp/smtp_proto.c and smtp_sasl_glue.c
	// before a reply. They stand at the start; what follows is the server's
	// and may hold the same words.
	remoteReply = regexp.MustCompile(`^(?:protocol error: )?(?:[^:]*; )?(?:host|server) [^ \[]*(?:\[([^\]]*)\])?(?::\d+)? (?:said|refused to talk to me): ?`)
	// bareReply is a reply by itself, as people paste it.
	bareReply   = regexp.MustCompile(`^(?:said: )?[245]\d\d(?:[- ]|$)`)
	replyStatus = regexp.MustCompile(`^[245]\d\d[- #]{1,2}([245]\.\d{1,3}\.\d{1,3})\b`)
	connectTo   = regexp.MustCompile(`^connect to [^ \[]*\[([^\]]*)\](?::\d+)?: `)
)

func cutReply(text string) (reply, bool) {
	var r reply
	if at := remoteReply.FindStringSubmatchIndex(text); at != nil {
		if at[2] >= 0 {
			r.host = text[at[2]:at[3]]
		}
		r.text = text[at[1]:]
	} else if bareReply.MatchString(text) {
		r.text = strings.TrimPrefix(text, "said: ")
	} else {
		return reply{}, false
	}
	if bareReply.MatchString(r.text) {
		r.code = r.text[:3]
	}
	return r, true
}

// isLocal reports whether a server is on this host: a loopback address, or the
// path of a socket below the queue directory ("private/dovecot-lmtp").
func isLocal(host string) bool {
	if strings.Contains(host, "/") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// connectFailure reads smtp_connect_sock of smtp/smtp_connect.c: "connect to
// NAME[ADDRESS]:PORT: " and the words of the system.
func connectFailure(text string) (Cause, bool) {
	at := connectTo.FindStringSubmatchIndex(text)
	if at == nil {
		return NoCause, false
	}
	if isLocal(text[at[2]:at[3]]) {
		return ContentFilter, true
	}
	if c := match(egressRules, text[at[1]:]); c != NoCause {
		return c, true
	}
	// Refused, timed out, no route: one attempt cannot tell the far end from
	// the way to it. That takes destinations that are well.
	return RemoteDown, true
}

func classifyReply(status string, r reply) Cause {
	if c := match(replyRules, r.text); c != NoCause {
		return c
	}
	if r.code != "" && r.code[0] == '5' && match(goneRules, r.text) != NoCause {
		return RecipientUnknown
	}
	if m := replyStatus.FindStringSubmatch(r.text); m != nil {
		status = m[1]
	}
	if c := byStatus(status); c != NoCause {
		return c
	}
	// A 421 that gives no reason closes the connection to shed load
	// (RFC 5321, 3.8): pace is what it asks for.
	if r.code == "421" {
		return RemoteThrottling
	}
	return RemoteRejecting
}

// byStatus reads an enhanced status code (RFC 3463 and the IANA registry, and
// what large providers add) where the words around it say nothing.
func byStatus(status string) Cause {
	if len(status) < 3 || status[1] != '.' {
		return NoCause
	}
	switch status[2:] {
	case "1.1", "1.6", "1.10":
		return RecipientUnknown
	case "2.2":
		return MailboxFull
	case "2.3", "3.4", "6.0", "7.20", "7.21", "7.22", "7.23", "7.24", "7.26":
		return ContentRejected
	case "4.6":
		return RoutingLoop
	case "5.3", "7.28", "7.500", "7.650":
		return RemoteThrottling
	case "7.8", "7.9":
		return Auth
	case "7.10", "7.11":
		return TLS
	case "7.25":
		return Reputation
	}
	if status == "5.2.1" {
		return RecipientUnknown // disabled; 4.2.1 is said of mailboxes that are busy
	}
	return NoCause
}

// rule gives a class to every text that contains one of its phrases. Phrases
// are in lower case and begin where a word begins, so that "rbl" is not found
// in "marble.example". Rules are tried in order: what names its cause outright
// stands before what only hints at it.
type rule struct {
	cause   Cause
	phrases []string
}

// egressRules read why no connection could be made from this host.
var egressRules = []rule{
	{Egress, []string{
		"network is unreachable", "cannot assign requested address", "operation not permitted", "permission denied",
		"address family not supported", "protocol not supported", "no buffer space",
	}},
}

// localRules read texts that this host's own Postfix wrote, from smtp/ (connect,
// addr, proto, trouble, tls_policy, sasl_glue), dns/, qmgr/, oqmgr/, local/,
// virtual/, pipe/ and global/ (cleanup_strerror, sys_exits).
var localRules = []rule{
	{RoutingLoop, []string{"loops back to myself", "greeted me with my own hostname", "mail forwarding loop", "too many hops", "hopcount exceeded", "nesting limit exceeded"}},
	{Configuration, []string{"dns reply filter", "invalid dns reply filter", "all network protocols are disabled"}},
	{DNS, []string{
		"name service error for", "malformed or unexpected name server reply", "unable to look up host", "host not found",
		"name server loop", "unable to find primary relay", "has a valid address record", "temporary failure in name resolution", "name service initialization failure",
	}},
	{RemoteRejecting, []string{"does not accept mail", "smtputf8 is required"}},
	{TLS, []string{
		"tls is required", "cannot start tls", "server certificate", "tlsa lookup error", "tlsa records", "no tlsa", "non dnssec destination",
		"tls session", "certificate verification failed", "starttls", "client tls configuration", "requiretls", "insecure mx",
	}},
	{Auth, []string{"sasl authentication failed", "sasl [cached] authentication failed", "no supported auth mechanisms", "authentication required"}},
	{LookupTable, []string{"table lookup", "temporary lookup", "lookup error for", "address resolver failure", "user lookup error", "alias database"}},
	{StorageSpace, []string{"queue file write error", "no space left on device"}},
	{MailboxFull, []string{"disk quota exceeded", "file too large"}},
	{Configuration, []string{
		"mail transport unavailable", "deferred transport", "unknown mail transport error", "server configuration", "mail system configuration",
		"local configuration error", "configuration problem", "bad transport type", "address verification requests", "cannot update mailbox",
		"is not owned by recipient", "cannot access home directory", "create maildir file",
	}},
	{ContentFilter, []string{"command output:", "command time limit exceeded", "command died with", "system resource problem"}},
	{ContentRejected, []string{"message size", "message too large", "message content rejected", "message file too big"}},
	{Egress, []string{"network is unreachable", "cannot assign requested address"}},
	{RemoteDown, []string{
		"lost connection with", "conversation with", "connection timed out", "connection refused", "no route to host", "host is down",
		"connection reset by peer", "timed out while", "no mail servers found", "unexpected disconnect", "server unavailable or unable to receive mail",
	}},
}

// neighbourRules read replies of a server on this host: mostly Postfix's own
// smtpd behind a content filter, whose words for its own helpers are known
// (smtpd/smtpd_milter.c, smtpd_check.c, global/cleanup_strerror.c).
var neighbourRules = []rule{
	{Milter, []string{"service unavailable - try again later", "milter"}},
	{PolicyService, []string{"server configuration problem", "policy service", "policyd"}},
	{LookupTable, []string{"temporary lookup failure"}},
	{StorageSpace, []string{"insufficient system storage", "queue file write error", "no space left"}},
}

// replyRules read texts that a remote server wrote.
var replyRules = []rule{
	{Greylisting, []string{"greylist", "graylist", "grey-list", "gray-list", "grey list", "postgrey", "milter-greylist", "sqlgrey", "gld_greylist"}},
	{RoutingLoop, []string{"too many hops", "hop count exceeded", "mail loop", "routing loop", "loops back", "loop detected"}},
	{Auth, []string{
		"authentication required", "authentication failed", "authentication credentials", "authentication unsuccessful", "temporary authentication failure",
		"relay access denied", "relaying denied", "relay not permitted", "unable to relay", "must authenticate", "please authenticate", "not logged in", "not owned by user",
	}},
	{TLS, []string{"starttls", "tls required", "tls not available", "tls is required", "encryption required", "encryption needed", "session encryption"}},
	{RemoteRejecting, []string{
		"sender address rejected", "sender domain", "sender verify", "sender verification", "helo command rejected", "unverified address",
		"address verification in progress", "domain not found", "domain of sender",
	}},
	{RemoteThrottling, []string{"sending limit", "sending quota", "message quota", "messages quota", "per hour", "per minute", "per day", "hourly limit", "daily limit"}},
	{ContentRejected, []string{"message size", "message too large", "message too big", "message file too big", "size limit", "message exceeds"}},
	{MailboxFull, []string{
		"mailbox full", "mailbox is full", "mailbox for user is full", "inbox is full", "is full", "over quota", "overquota", "over its quota", "quota exceeded", "exceeded its quota",
		"exceeds quota", "disk quota", "out of storage", "exceeded storage", "recipient storage full", "mailbox has exceeded", "storage allocation",
	}},
	{RecipientUnknown, []string{
		"user unknown", "unknown user", "unknown recipient", "recipient unknown", "no such user", "no such recipient", "no such mailbox", "no such address", "no mailbox here",
		"recipient not found", "recipientnotfound", "user not found", "mailbox not found", "address not found", "does not exist", "doesn't exist", "invalid recipient", "invalid mailbox",
		"undeliverable address", "no longer valid", "account is disabled", "account disabled", "account that you tried to reach is", "is inactive", "mailbox is disabled", "mailbox disabled",
		"5.4.1 recipient address rejected", "not a valid mailbox", "address rejected: unknown",
	}},
	{Reputation, []string{
		"blocklist", "blacklist", "block list", "black list", "block-list", "denylist", "spamhaus", "barracuda", "spamcop", "sorbs", "dnsbl", "rbl", "uceprotect", "invaluement",
		"reputation", "blocked using", "is blocked", "been blocked", "ip blocked", "listed in", "listed at", "listed by", "listed on", "banned", "unsolicited mail originating",
		"user complaints", "s3140", "s3150", "[ts01", "[ts02", "[ts03", "[tss0", "ptr record", "reverse dns", "reverse hostname", "find your hostname", "not in whitelist", "poor sender",
	}},
	{RemoteThrottling, []string{
		"too many", "rate limit", "ratelimit", "rate-limit", "rate that", "rate of", "throttl", "slow down", "server busy", "server is busy", "too busy", "overloaded", "load too high",
		"connection limit", "connection rate", "concurren", "exceeded the", "exceeds the", "limit exceeded", "temporarily deferred", "too fast", "too quickly", "too frequent",
		"per connection", "system resources", "resources temporarily unavailable", "back pressure",
	}},
	{ContentRejected, []string{
		"spam", "unsolicited", "virus", "malware", "phish", "message content", "content rejected", "policy violation in message", "dmarc", "spf", "dkim",
		"attachment", "blocked file", "suspicious content",
	}},
}

// goneRules read what means an unknown mailbox when it is permanent, and a busy
// one when it is not (RFC 5321, 4.2.3: 450 and 550).
var goneRules = []rule{{RecipientUnknown, []string{"mailbox unavailable", "recipient address rejected", "recipient rejected", "mailbox not available"}}}

func match(rules []rule, text string) Cause {
	for _, r := range rules {
		for _, phrase := range r.phrases {
			if hasPhrase(text, phrase) {
				return r.cause
			}
		}
	}
	return NoCause
}

// hasPhrase finds a phrase where a word begins.
func hasPhrase(text, phrase string) bool {
	for from := 0; ; {
		at := strings.Index(text[from:], phrase)
		if at < 0 {
			return false
		}
		at += from
		if at == 0 || !isWordByte(phrase[0]) || !isWordByte(text[at-1]) {
			return true
		}
		from = at + 1
	}
}

func isWordByte(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' }
