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
		if c := neighbourRules.match(r.text); c != NoCause {
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

// maskedDigits is how long a number must be not to matter to Classify: longer
// than any in a phrase, a reply code or an address.
const maskedDigits = 5

// AppendMasked appends the reason with its long numbers taken out, and the name
// and address of the server where they stand before its answer. Reasons that
// are equal then are of the same class, so that a class can be remembered for
// thousands of texts that differ in a ticket number or in which server it was.
func AppendMasked(dst []byte, reason string) []byte {
	reason = FirstReason(reason)
	if verb, rest, ok := cutServer(reason); ok {
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

// cutServer splits "host NAME[ADDRESS] said: ..." and "connect to
// NAME[ADDRESS]:PORT: ..." into the verb and what stands behind the address. A
// server on this host is left in: there it matters which one it is.
func cutServer(reason string) (verb, rest string, ok bool) {
	for _, verb = range []string{"host ", "connect to "} {
		rest, ok = strings.CutPrefix(reason, verb)
		if !ok {
			continue
		}
		name := strings.IndexAny(rest, " [")
		if name < 0 || rest[name] != '[' {
			return "", "", false
		}
		end := strings.IndexByte(rest, ']')
		if end < name || isLocal(rest[name+1:end]) {
			return "", "", false
		}
		rest = rest[end+1:]
		return verb, rest, strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, " said:") || strings.HasPrefix(rest, " refused to talk to me:")
	}
	return "", "", false
}

// classifyLocal reads what this host's own Postfix wrote.
func classifyLocal(status, text string) Cause {
	if c, ok := connectFailure(text); ok {
		return c
	}
	if c := localRules.match(text); c != NoCause {
		return c
	}
	// error(8) and retry(8) give the words of a table, pipe(8) those of a
	// program; both use the phrases of replies.
	if c := replyRules.match(text); c != NoCause {
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
	replyStatus = regexp.MustCompile(`^[245]\d\d[- #]{1,2}([245]\.\d{1,3}\.\d{1,3})\b`)
	connectTo   = regexp.MustCompile(`^connect to [^ \[]*\[([^\]]*)\](?::\d+)?: `)
)

func cutReply(text string) (reply, bool) {
	var r reply
	if host, words, ok := cutRemote(text); ok {
		r.host, r.text = host, words
	} else if r.text = strings.TrimPrefix(text, "said: "); !startsWithCode(r.text) {
		return reply{}, false // not even a reply by itself, as people paste it
	}
	if startsWithCode(r.text) {
		r.code = r.text[:3]
	}
	return r, true
}

// cutRemote finds the words of smtp/smtp_proto.c and smtp_sasl_glue.c before a
// reply: "host NAME[ADDRESS]:PORT said: ". They stand at the start, perhaps
// behind an explanation; what follows is the server's and may hold the same
// words.
func cutRemote(text string) (host, words string, ok bool) {
	text = strings.TrimPrefix(text, "protocol error: ")
	if head, _, found := strings.Cut(text, ":"); found {
		if at := strings.LastIndex(head, "; "); at >= 0 {
			text = text[at+2:]
		}
	}
	rest, ok := strings.CutPrefix(text, "host ")
	if !ok {
		if rest, ok = strings.CutPrefix(text, "server "); !ok {
			return "", "", false
		}
	}
	end := strings.IndexAny(rest, " [")
	if end < 0 {
		return "", "", false
	}
	if rest = rest[end:]; rest[0] == '[' {
		if host, rest, ok = strings.Cut(rest[1:], "]"); !ok {
			return "", "", false
		}
	}
	if port, ok := strings.CutPrefix(rest, ":"); ok {
		rest = strings.TrimLeft(port, "0123456789")
	}
	for _, verb := range []string{" said:", " refused to talk to me:"} {
		if words, ok := strings.CutPrefix(rest, verb); ok {
			return host, strings.TrimPrefix(words, " "), true
		}
	}
	return "", "", false
}

// startsWithCode reports whether a text begins with an SMTP reply code.
func startsWithCode(text string) bool {
	if len(text) < 3 || text[0] != '2' && text[0] != '4' && text[0] != '5' || !isDigit(text[1]) || !isDigit(text[2]) {
		return false
	}
	return len(text) == 3 || text[3] == ' ' || text[3] == '-'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

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
	if !strings.HasPrefix(text, "connect to ") {
		return NoCause, false
	}
	at := connectTo.FindStringSubmatchIndex(text)
	if at == nil {
		return NoCause, false
	}
	if isLocal(text[at[2]:at[3]]) {
		return ContentFilter, true
	}
	if c := egressRules.match(text[at[1]:]); c != NoCause {
		return c, true
	}
	// Refused, timed out, no route: one attempt cannot tell the far end from
	// the way to it. That takes destinations that are well.
	return RemoteDown, true
}

func classifyReply(status string, r reply) Cause {
	if c := replyRules.match(r.text); c != NoCause {
		return c
	}
	if r.code != "" && r.code[0] == '5' && goneRules.match(r.text) != NoCause {
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
var egressRules = bind([]rule{
	{Egress, []string{
		"network is unreachable", "cannot assign requested address", "operation not permitted", "permission denied",
		"address family not supported", "protocol not supported", "no buffer space",
	}},
})

// localRules read texts that this host's own Postfix wrote, from smtp/ (connect,
// addr, proto, trouble, tls_policy, sasl_glue), dns/, qmgr/, oqmgr/, local/,
// virtual/, pipe/ and global/ (cleanup_strerror, sys_exits).
var localRules = bind([]rule{
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
})

// neighbourRules read replies of a server on this host: mostly Postfix's own
// smtpd behind a content filter, whose words for its own helpers are known
// (smtpd/smtpd_milter.c, smtpd_check.c, global/cleanup_strerror.c).
var neighbourRules = bind([]rule{
	{Milter, []string{"service unavailable - try again later", "milter"}},
	{PolicyService, []string{"server configuration problem", "policy service", "policyd"}},
	{LookupTable, []string{"temporary lookup failure"}},
	{StorageSpace, []string{"insufficient system storage", "queue file write error", "no space left"}},
})

// replyRules read texts that a remote server wrote.
var replyRules = bind([]rule{
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
})

// goneRules read what means an unknown mailbox when it is permanent, and a busy
// one when it is not (RFC 5321, 4.2.3: 450 and 550).
var goneRules = bind([]rule{{RecipientUnknown, []string{"mailbox unavailable", "recipient address rejected", "recipient rejected", "mailbox not available"}}})

// ruleBook is a list of rules made ready for one pass over a text. Every queued
// message has a reason, and most of a large queue have one of their own.
type ruleBook struct {
	rules   []rule
	byFirst [256][]phrase // phrases by their first byte, rules in order
}

type phrase struct {
	text string
	rule int
}

func bind(rules []rule) *ruleBook {
	b := &ruleBook{rules: rules}
	for i, r := range rules {
		for _, text := range r.phrases {
			b.byFirst[text[0]] = append(b.byFirst[text[0]], phrase{text, i})
		}
	}
	return b
}

// match returns the cause of the first rule that has a phrase in the text.
func (b *ruleBook) match(text string) Cause {
	best := len(b.rules)
	inWord := false
	for i := range len(text) {
		c := text[i]
		word := isWordByte(c)
		if word && inWord {
			continue // a phrase begins where a word begins
		}
		inWord = word
		for _, p := range b.byFirst[c] {
			if p.rule >= best {
				break
			}
			if strings.HasPrefix(text[i:], p.text) {
				best = p.rule
				break
			}
		}
	}
	if best == len(b.rules) {
		return NoCause
	}
	return b.rules[best].cause
}

func isWordByte(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'z' }
