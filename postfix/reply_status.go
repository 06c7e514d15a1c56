package postfix

// Rules for codes: enhanced ones (RFC 3463, the IANA registry of them, and
// what providers add), and those of RFC 5321.

const (
	rfc3463  = "RFC 3463"
	rfc5321  = "RFC 5321"
	iana     = "IANA, SMTP Enhanced Status Codes Registry"
	msNDR    = "https://learn.microsoft.com/en-us/exchange/troubleshoot/email-delivery/ndr/non-delivery-reports-in-exchange-online"
	msTenant = "https://learn.microsoft.com/en-us/Exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online/fix-error-code-5-7-700-through-5-7-750"
	googleHC = "https://support.google.com/a/answer/3726730"
)

// strongStatusRules are the codes that say the same thing whatever words
// stand beside them.
var strongStatusRules = bind([]rule{
	{
		cause: RemoteThrottling, only: '4', codes: []string{"7.500-7.649", "7.652-7.699", "7.850-7.899"}, by: "Microsoft",
		says: "the sending address changed its pattern or sends more than its history allows, and is slowed down", source: msNDR,
	},
	{
		cause: Reputation, only: '4', codes: []string{"7.650", "7.651"}, by: "Microsoft",
		says: "mail from this address is slowed down because of the address's standing", source: msNDR,
		next: "Find what made recipients complain, then ask for mitigation at the provider's postmaster page; more pace makes it worse.",
	},
	{
		cause: Reputation, only: '5', codes: []string{"7.501-7.503", "7.511", "7.606-7.649", "7.708", "7.800"}, by: "Microsoft",
		says: "this address, sender or domain is banned for spam that came from it", source: msNDR,
		next: "Stop what was sent, then ask for removal at https://sender.office.com/.",
	},
	{
		cause: ContentRejected, only: '5', codes: []string{"7.509", "7.512", "7.515"}, by: "Microsoft",
		says: "the domain of the sender did not pass SPF, DKIM or DMARC", source: msNDR,
		next: "Have the sender's domain authorise this relay (SPF) and sign the mail (DKIM).",
	},
	{
		cause: RemoteThrottling, only: '5', codes: []string{"7.508", "7.700-7.707", "7.750", "7.232", "7.233", "1.90"}, by: "Microsoft",
		says: "a sending limit of the account or tenant has been reached", source: msTenant,
	},
	{
		cause: RemoteThrottling, codes: []string{"2.121", "2.122"}, by: "Microsoft",
		says: "the recipient gets, or this sender sent them, more messages an hour than the limit", source: msNDR,
	},
	{
		cause: Auth, only: '5', codes: []string{"7.57", "7.64", "7.368"}, by: "Microsoft",
		says: "the server takes mail from this client only after a login or through a connector", source: msNDR,
	},
	{
		cause: RemoteRejecting, only: '5', codes: []string{"7.124", "7.133", "7.134", "7.136", "7.193"}, by: "Microsoft",
		says: "the recipient or group accepts mail only from senders it lists", source: msNDR, who: ActorRecipient,
		next: "Ask the recipient to allow the sender.",
	},
	{
		cause: RemoteThrottling, only: '4', codes: []string{"7.28"}, by: "Google",
		says: "too much unwanted mail comes from this address, domain or link, and its pace is limited", source: googleHC,
	},
	{
		cause: RemoteThrottling, only: '4', codes: []string{"7.26", "7.27", "7.29-7.32"}, by: "Google",
		says: "the pace is limited because the mail is not authenticated or not encrypted as bulk mail must be", source: googleHC,
		next: "Send less at once, and have the sender's domain set up SPF, DKIM and DMARC, and this relay TLS.",
	},
	{
		cause: ContentRejected, only: '5', codes: []string{"7.20-7.24", "7.26", "7.27", "7.29", "7.30"},
		says: "the mail did not pass SPF, DKIM or another check of who sent it", source: iana,
		next: "Have the sender's domain authorise this relay (SPF) and sign the mail (DKIM).",
	},
	{
		cause: Reputation, codes: []string{"7.25"},
		says: "the name service has no name for this host's address that leads back to it", source: iana + " (RFC 7372)",
		next: "Have whoever runs the address set its PTR record to this host's name.",
	},
	{cause: DNS, codes: []string{"4.310", "4.312"}, by: "Microsoft", says: "the server that passes the mail on cannot look up the recipient's domain", who: ActorRemote, source: msNDR},
	{cause: MailboxFull, codes: []string{"2.2"}, source: rfc3463},
	{cause: RoutingLoop, codes: []string{"4.6"}, source: rfc3463},
	{cause: RoutingLoop, only: '5', codes: []string{"4.14"}, by: "Microsoft", source: msNDR},
})

// statusRules are the codes that count where the words say nothing.
var statusRules = bind([]rule{
	{cause: RecipientUnknown, codes: []string{"1.1", "1.6", "1.10"}, source: rfc3463},
	{cause: RecipientUnknown, only: '5', codes: []string{"1.2", "1.3", "1.4"}, says: "the recipient's address cannot be right", source: rfc3463},
	{cause: RecipientUnknown, only: '5', codes: []string{"2.1"}, says: "the mailbox has been disabled", source: rfc3463}, // 4.2.1 is said of mailboxes that are busy
	{cause: RemoteRejecting, codes: []string{"1.7", "1.8"}, says: "the server does not like the sender's address or its domain", who: ActorUs, source: rfc3463},
	{cause: ContentRejected, codes: []string{"2.3", "3.4"}, says: "the message is larger than the mailbox or the server allows", source: rfc3463},
	{cause: ContentRejected, codes: []string{"6.0-6.6", "6.8-6.10"}, says: "the server cannot take the message in this form", source: rfc3463},
	{cause: ContentRejected, codes: []string{"7.20-7.24", "7.26"}, says: "the mail did not pass a check of who sent it", source: iana},
	{cause: RemoteDown, only: '4', codes: []string{"4.1"}, says: "the next host did not answer", source: rfc3463}, // 5.4.1 is Microsoft's for an unknown recipient
	{cause: RemoteDown, codes: []string{"4.2", "4.316"}, says: "the connection broke or went stale", source: rfc3463},
	{cause: RemoteThrottling, codes: []string{"4.5", "5.3", "7.28"}, says: "the server is congested, or has been given too much at once", source: rfc3463},
	{cause: Auth, codes: []string{"7.8", "7.9"}, source: iana + " (RFC 4954)"},
	{cause: TLS, codes: []string{"7.10", "7.11"}, source: iana},
})

// codeRules are the reply codes of RFC 5321 and its extensions, for answers
// that say nothing else.
var codeRules = bind([]rule{
	{
		cause: RemoteThrottling, codes: []string{"421"},
		says: "the server closes the connection without giving a reason, mostly to shed load", source: rfc5321 + ", 3.8",
	},
	{
		cause: RemoteRejecting, codes: []string{"500-504", "555"},
		says: "the server did not understand a command, or did not expect it then", source: rfc5321 + ", 4.2.3",
		next: "Look whether a firewall that changes SMTP stands between, and send the postmaster there the whole answer.",
	},
	{cause: Auth, codes: []string{"530", "534", "535", "538"}, source: "RFC 4954"},
})
