package postfix

// replyRules read texts that a remote server wrote: the marks of providers
// first, then what many servers say in their own words.
var replyRules = bind(providerRules, refusalRules, mailboxRules, standingRules, loadRules, troubleRules)

const (
	access   = "postfix, access(5) and postconf(5)"
	observed = "common wording of Postfix, Exim, Sendmail, qmail and Exchange"
)

// refusalRules: what the server wants of the sender before it takes anything.
var refusalRules = []rule{
	{
		cause: Greylisting, phrases: []string{
			"greylist", "graylist", "grey-list", "gray-list", "grey list", "postgrey", "milter-greylist", "sqlgrey", "gld_greylist", "greylisting", "try another server",
		},
		says: "the first try of an unknown sender is put off for minutes", source: "RFC 6647",
	},
	{
		cause: Greylisting, only: '4', phrases: []string{"450 4.3.2 service currently unavailable"}, by: "Postfix postscreen",
		says: "the server tests an unknown client and lets it in at its next connection", source: "POSTSCREEN_README, tests after the 220 greeting",
	},
	{
		// Nothing but a policy code and "later" is what filters say that put
		// off the first try; whoever limits the pace says so.
		cause: Greylisting, only: '4', phrases: []string{
			"4.7.1 please try again later", "4.7.1 please try later", "4.2.0 try again later", "4.2.0 please try again later", "451 temporary failure, please try again later",
		},
		says: "the server puts the mail off without a reason, as for the first try of an unknown sender", source: "RFC 6647; spamd(8) of OpenBSD",
	},
	{
		cause: RoutingLoop, phrases: []string{"too many hops", "hop count exceeded", "hopcount", "mail loop", "routing loop", "loops back", "loop detected", "mail forwarding loop", "too many received"},
		says: "the message went through too many servers, or came back to one that had it", source: rfc5321 + ", 6.3",
	},
	{
		cause: Reputation, phrases: []string{"is an open relay", "possible open relay"},
		says: "the server takes this host for one that relays for anybody", source: observed, next: "Check smtpd_relay_restrictions and mynetworks, and who sends through this host.",
	},
	{
		cause: ContentRejected, phrases: []string{"authentication information", "did not pass authentication checks", "email authentication", "authentication checks", "authentication level"},
		says: "the mail did not pass SPF, DKIM or DMARC", source: "RFC 7372, RFC 7489", next: "Have the sender's domain authorise this relay (SPF) and sign the mail (DKIM).",
	},
	{
		cause: Auth, phrases: []string{
			"relay access denied", "relaying denied", "relay not permitted", "relaying not", "relay not", "unable to relay", "open relay not", "relay disabled", "relaying disallowed", "relay denied",
			"relaying prohibited", "relay prohibited", "not allowed to relay", "relay operation rejected", "as a relay", "not configured to relay", "no relaying", "relaying to", "cannot relay", "can't relay",
			"we do not relay", "does not relay", "allowed rcpthosts", "relaying is", "insecure mail relay",
		},
		says: "the server is not responsible for this recipient and does not pass mail on for this host", source: access,
		next: "Check the route of this mail: the MX of the domain, relayhost and transport_maps; then whether a login is needed.",
	},
	{
		cause: Auth, phrases: []string{
			"authentication required", "authentication failed", "authentication failure", "authentication credentials", "authentication unsuccessful", "temporary authentication failure", "authentication rejected",
			"authentication not", "auth error", "smtp authentication", "must authenticate", "please authenticate", "not logged in", "not owned by user", "unauthenticated sender",
			"not authenticated", "bad username or password", "username and password", "invalid credentials", "authenticate first", "login required", "requires authentication", "recipient not authorized", "recipient not authorised",
			"lors de l'authentification",
		},
		source: "RFC 4954",
	},
	{
		cause: TLS, phrases: []string{"starttls", "tls required", "tls not available", "tls is required", "encryption required", "encryption needed", "session encryption", "requires tls", "tls connection required", "must use tls"},
		says: "the server wants the connection encrypted, or could not do so itself", source: "RFC 3207",
	},
	{
		cause: ContentRejected, phrases: []string{
			"dmarc", "spf ", "spf:", "[spf]", "spf-", "spf.", "dkim", "unauthenticated email", "unauthenticated mail", "sender is unauthenticated", "sender policy framework", "sender id ",
		},
		says: "the mail did not pass SPF, DKIM or DMARC: the sender's domain does not vouch for this relay", source: "RFC 7208, RFC 6376, RFC 7489",
		next: "Have the sender's domain authorise this relay (SPF) and sign the mail (DKIM).",
	},
	{
		cause: Reputation, phrases: []string{
			"ptr ", "reverse dns", "reverse-dns", "reverse lookup", "reverse mapping", "rdns", "reverse hostname", "find your hostname", "find your reverse", "name lookup failed", "no reverse", "dns look-up",
		},
		says: "the name service has no name for this host's address that leads back to it", source: "RFC 1912, 2.1; postconf(5): reject_unknown_client_hostname",
		next: "Have whoever runs the address set its PTR record to this host's name.",
	},
	{
		cause: RemoteRejecting, only: '5', phrases: []string{"sender verify", "sender verification", "callout verification", "verification failed for"},
		says: "the server asked the sender's own mail server, which did not confirm the sender's address", who: ActorUs, source: "Exim, verify = sender/callout",
		next: "Have the sender's domain accept mail for that address.",
	},
	{
		cause: RemoteRejecting, phrases: []string{"unverified address", "address verification in progress", "sender verify", "sender verification", "callout verification", "verification failed for"},
		says: "the server first asks another one whether the address exists, and has no answer yet", source: "Postfix ADDRESS_VERIFICATION_README; Exim, verify = sender/callout",
	},
	{
		cause: RemoteRejecting, phrases: []string{"helo command rejected", "invalid helo", "bad helo", "helo should", "helo must", "helo name", "helo host", "ehlo name", "ehlo host"},
		says: "the server does not like the name that this host gives itself", who: ActorUs, source: access,
		next: "Compare smtp_helo_name with the name service.",
	},
	{
		cause: RecipientUnknown, only: '5', phrases: []string{"recipient address rejected: domain not found"},
		says: "the server finds no mail server for the recipient's domain", source: "postconf(5): reject_unknown_recipient_domain",
	},
	{
		cause: RemoteRejecting, only: '4', phrases: []string{"recipient address rejected: domain not found"},
		says: "the server finds no mail server for the recipient's domain at the moment", source: "postconf(5): reject_unknown_recipient_domain",
	},
	{
		cause: RemoteRejecting, phrases: []string{"email address is not verified"}, by: "Amazon SES", who: ActorUs, source: fieldManual,
		says: "the account there may not send with this sender's address", next: "Have the address or its domain verified in the account.",
	},
	{
		cause: RemoteRejecting, phrases: []string{
			"sender address rejected", "sender address not", "sender address is", "sender address does", "sender domain", "domain not found", "domain of sender", "domain is invalid", "invalid sender", "unroutable sender", "unrouteable sender", "sender rejected",
			"mail from domain does not", "mail from invalid", "invalid dns mx", "no such domain", "resolving mx server",
		},
		says: "the server does not accept the sender's address, mostly because its domain cannot be answered to", who: ActorUs, source: "postconf(5): reject_unknown_sender_domain",
		next: "Check the sender's domain: MX or address record, and the spelling.",
	},
	{
		cause: RemoteRejecting, phrases: []string{
			"reject list", "blocked senders", "recipient doesn't want", "recipient does not want", "rejected by this user", "rejected by recipient", "by recipients", "sender is blacklisted",
			"blocked by the recipient", "user entry", "envelope blocked",
		},
		says: "the recipient, or the recipient's own administrator, has shut this sender out", who: ActorRecipient, source: observed, next: "Ask the recipient to allow the sender.",
	},
}

// mailboxRules: what is the matter with the recipient or the message's size.
var mailboxRules = []rule{
	{
		cause: RemoteThrottling, phrases: []string{
			"sending limit", "sending quota", "message quota", "messages quota", "per hour", "per minute", "per day", "this hour", "hourly limit", "daily limit", "rate quota",
		},
		says: "a limit on how much this sender or host may send in a time has been reached", source: observed,
	},
	{
		cause: MailboxFull, phrases: []string{
			"mailbox full", "mailbox is full", "mailbox for user is full", "inbox is full", "inbox full", "is full", "over quota", "overquota", "over its quota", "over the quota", "quota exceeded", "exceeded its quota",
			"exceeds quota", "exceed quota", "quota exceed", "exceeded quota", "quota limit", "quota violation", "quota full", "out of quota", "exceeded the quota", "exceeded their quota", "disk quota", "out of storage", "exceeded storage",
			"storage limit", "recipient storage full", "mailbox has exceeded", "storage allocation", "mailbox size limit", "mailbox size exceeded", "mailbox limit", "mailbox quota", "mailbox over", "maildir over", "full mailbox",
			"not enough storage space in mailbox", "mailbox storage", "no space in mailbox", "buzon lleno", "casella piena", "postfach ist voll", "skrzynka pelna",
		},
		source: rfc3463 + ", X.2.2",
	},
	{
		cause: ContentRejected, phrases: []string{
			"message size", "message too large", "message too big", "message too long", "message is too", "message file too big", "size limit", "message exceeds", "message length", "maximum message size", "maximum allowed size",
			"too large for", "exceeds maximum", "exceeded mailsize",
		},
		says: "the message is larger than the server or the mailbox allows", source: "RFC 1870", next: "Tell the sender to send less, or by another way.",
	},
	{
		cause: Reputation, phrases: []string{"too many invalid", "too many unknown", "too many bad recipients", "excessive unknown recipients", "directory harvest", "dictionary attack"},
		says: "too much mail from this host goes to addresses that do not exist", source: observed, next: "Find which sender's list holds those addresses, and stop it.",
	},
	{
		cause: RemoteRejecting, phrases: []string{"your account", "sending for this account"},
		says: "the server has shut the account that this mail is sent with", who: ActorUs, source: observed, next: "Log in to that account, or ask its provider, before more is sent.",
	},
	{
		cause: RemoteRejecting, only: '4', phrases: []string{"mailbox busy", "mailbox is busy", "mailbox is locked", "mailbox locked"},
		says: "the mailbox is in use for the moment", who: ActorNobody, source: rfc5321 + ", 4.2.3",
	},
	{
		cause: RemoteRejecting, phrases: []string{"temporarily locked", "temporary locked", "temporarily disabled", "temporarily suspended", "temporarily unavailable for", "temporary domain failure"},
		says: "the server closed this mailbox for a while", source: observed,
	},
	{
		cause: RecipientUnknown, phrases: []string{
			"user unknown", "unknown user", "unknown recipient", "unknown address", "unknown mailbox", "unknown account", "unknown local", "unknown or illegal", "recipient unknown", "addressee unknown", "address unknown", "account unknown",
			"no such user", "no such recipient", "no such mailbox", "no such address", "no such account", "no such person", "no such local", "no mailbox", "no account", "no user ", "no valid recipient", "no correct recipient",
			"recipient not found", "recipientnotfound", "recipnotfound", "user not found", "mailbox not found", "address not found", "account not found", "mailbox does not", "recipient not exist", "user not exist", "could not be found",
			"couldn't be found", "cannot be found", "user not known", "recipient not known", "user is not known", "user is not found", "recipient is not known", "recipient is not valid", "does not exist", "doesn't exist", "not exist", "does not have a", "doesn't have a",
			"invalid recipient", "invalid mailbox", "invalid user", "invalid address", "invalid account", "bad destination", "bad recipient", "bad address", "illegal user", "illegal recipient", "undeliverable address",
			"no longer valid", "no longer on server", "no longer available", "no longer in use", "no longer accept", "no longer active", "no longer exists",
			"account is disabled", "account disabled", "account has been disabled", "account that you tried to reach is", "account is locked", "account is closed", "account closed", "account suspended", "account blocked",
			"account inactive", "account expired", "user is locked", "user suspended", "user disabled", "user inactive", "inactive", "deactivated", "mailbox is disabled", "mailbox disabled", "mailbox is inactive",
			"mailbox is frozen", "mailbox is blocked", "mailbox has been", "mailbox suspended", "mailbox currently suspended", "mailbox closed", "disabled recipient", "recipient disabled", "recipient account is",
			"not our user", "not our customer", "not in recipient list", "not a registered", "not a valid mailbox", "not a valid recipient", "not a valid user", "not a valid email", "not a valid address", "not a known user", "not a local user", "user not local", "mailbox name not allowed",
			"marked as invalid", "address rejected: unknown", "address rejected: inactive", "address rejected: blocked", "address rejected: not in", "unrouteable address", "unroutable address", "unable to find recipient", "host unknown", "unknown host",
			"utilisateur inconnu", "usuario desconocido", "no existe", "utente sconosciuto", "casella inesistente", "unbekannter", "nicht bekannt", "nie istnieje",
		},
		says: "the server does not know this recipient, or no longer", source: rfc3463 + ", X.1.1",
	},
}

// standingRules: what the server holds against this host or the message.
var standingRules = []rule{
	{
		cause: ContentRejected, phrases: []string{"banned content", "banned file", "banned attachment", "looks like spam", "spam url", "spam content", "spam message", "spam detected", "spam classification", "considered as spam", "considered spam", "classified as spam", "flagged as spam", "scored as spam", "suspicion of spam", "spam filter"},
		says: "a content filter takes the message for spam or worse", source: observed,
	},
	{
		cause: Reputation, phrases: []string{
			"blocklist", "blacklist", "black list", "block list", "block-list", "black-list", "blocklisted", "denylist", "spamhaus", "barracuda reputation", "barracudacentral", "spamcop", "sorbs", "dnsbl", "rbl", "uceprotect", "invaluement",
			"reputation", "blocked using", "blocked by zen", "blocked due to", "blocked for", "blocked aup", "ip has been blocked", "address has been blocked", "host has been blocked", "has been blocked by", "sender has been blocked", "ip blocked", "address blocked", "ip is blocked",
			"is_blocked", "is blocked", "> blocked by", "550 blocked", "554 blocked", "5.7.0 blocked", "5.7.1 blocked", "listed in", "listed at", "listed by", "listed on",
			"banned sending", "banned sender", "banned", "unsolicited mail originating", "not in whitelist", "poor sender", "senderscore", "csi.cloudmark", "mail-abuse", "spam source", "spammer", "source of spam", "for spamming",
			"you are sending spam", "sending spam", "suspected spam sender", "for abuse", "due to abuse", "rejection- abuse", "dynamic ip", "residential ip", "ip in prison", "not allowed to connect", "ip rejected", "ip is rejected",
			"geographical location", "blocked automatically",
		},
		says: "the address or domain that sends is on a block list, or has a bad standing", source: "RFC 5782 and the list named in the answer",
	},
	{
		cause: ContentRejected, phrases: []string{
			"header error", "headers are not", "in from: header", "no from: header", "from: header", "multiple addresses in from", "rfc 5322 compliant", "not rfc compliant", "rfc compliant", "duplicate header", "headers too large", "8-bit data", "bare lf", "bare newline",
			"line too long", "malformed message", "malformed header", "missing header",
		},
		says: "the message is not well formed: its headers or lines break the standard", source: "RFC 5322, 3.6; RFC 5321, 4.5.3.1", next: "Have the program that wrote the message mended.",
	},
}

// loadRules: what has to do with pace and load.
var loadRules = []rule{
	{
		cause: RemoteDown, only: '4', phrases: []string{"shutting down", "being shut down", "shutdown in progress", "going down"},
		says: "the server is being stopped", source: rfc5321 + ", 3.8; RFC 3463, X.3.2",
	},
	{cause: RemoteDown, phrases: []string{"timeout exceeded", "timeout -", "command timeout", "idle timeout"}, says: "the conversation took longer than the server waits, or it takes no connections now", source: rfc5321 + ", 4.5.3.2"},
	{
		cause: RemoteRejecting, phrases: []string{"temporary system problem", "system problem", "temporary server error", "internal server error", "internal error", "upstream error", "temporary system error", "temporary system failure", "local problem", "server error"},
		says: "something inside the remote system does not work at the moment", source: observed,
	},
	{
		cause: RemoteThrottling, phrases: []string{
			"too many", "rate limit", "ratelimit", "rate-limit", "rate limited", "rate control", "rate that", "rate of", "throttl", "slow down", "server busy", "server is busy", "server too busy", "too busy", "busy", "overloaded", "load too high", "load average",
			"connection limit", "connection rate", "concurren", "exceeded the", "exceeds the", "limit exceeded", "limit reached", "limits exceeded", "temporarily deferred", "too fast", "too quickly", "too frequent", "too often", "frequency",
			"per connection", "system resources", "resources temporarily unavailable", "back pressure", "threshold exceeded", "exceeded", "thread limit", "unable to process connection",
		},
		says: "the server gets more at once, or in a time, than it takes from this host", source: rfc5321 + ", 4.2.3 and 4.5.4.1",
	},
}

// troubleRules: what else is wrong with the message, or over there.
var troubleRules = []rule{
	{
		cause: ContentRejected, phrases: []string{
			"spam", "unsolicited", "virus", "malware", "infected", "phish", "message content", "content rejected", "content denied", "mail content", "content filter", "policy violation in message", "email policy", "mailpolicy", "policy violation detected",
			"attachment", "blocked file", "suspicious", "ube,", "message has been blocked", "message was blocked", "message blocked", "spf", "junk",
		},
		says: "a content filter refused the message", source: observed,
	},
	{
		cause: RemoteRejecting, only: '4', phrases: []string{"insufficient system storage", "insufficient disk space", "out of memory", "no space left", "insufficient storage", "space shortage"},
		says: "the remote server has no room left", source: rfc5321 + ", 4.2.3",
	},
	{
		cause: RemoteRejecting, only: '4', phrases: []string{
			"temporary lookup failure", "lookup failure", "server configuration", "local error", "service unavailable - try again later", "service is currently unavailable", "temporarily rejected",
			"recipient temporarily", "does not resolve",
		},
		says: "something inside the remote system does not work at the moment", source: observed,
	},
	{
		cause: RemoteRejecting, only: '5', phrases: []string{"access denied", "policy", "not allowed", "not authorized", "not authorised", "permissions", "administrative prohibition", "denied", "prohibited"},
		says: "a rule of the remote server forbids this mail, and it does not say which", source: observed,
	},
	// What means an unknown mailbox when it is permanent, and a busy one when
	// it is not (RFC 5321, 4.2.3: 450 and 550).
	{
		cause: RecipientUnknown, only: '5', phrases: []string{"mailbox unavailable", "mailbox not available", "recipient address rejected", "recipient rejected", "recipient unavailable", "address rejected"},
		says: "the server does not accept mail for this recipient", source: rfc5321 + ", 4.2.3",
	},
	{
		cause: RemoteRejecting, only: '4', phrases: []string{"mailbox unavailable", "mailbox not available", "recipient address rejected"},
		says: "the mailbox is busy or closed for the moment", source: rfc5321 + ", 4.2.3",
	},
}

// lateRules read what is left when neither words nor codes told anything.
var lateRules = bind([]rule{
	{
		cause: RemoteRejecting, only: '4', phrases: []string{"try again", "try later", "come back later", "retry later"},
		says: "the server puts the mail off and does not say why; often that is greylisting", who: ActorNobody, source: rfc5321 + ", 4.2.1",
	},
})
