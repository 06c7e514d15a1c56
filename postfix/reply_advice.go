package postfix

// advice is what Explain says of a class where the rule says nothing better.
type advice struct {
	cause  Cause
	means  string
	final  string // the meaning where the answer is permanent, if that is another
	who    Actor
	next   string
	step   []string
	source string
}

// classAdvice has one entry for each class that Classify gives. The steps
// look, none changes anything.
var classAdvice = []advice{
	{
		cause: DNS, means: "the name service did not give the address of a mail server for this domain",
		final: "the name service says that there is no such domain or host",
		who:   ActorUs, next: "Ask each resolver for the MX record of the domain; if only this domain fails, its own name servers are at fault.",
		step: waitingFor(DNS, "destination"), source: "dns/dns_lookup.c",
	},
	{
		cause: Egress, means: "this host cannot make the connection", who: ActorUs,
		next: "Find what stands in the way on this host: route, source address, packet filter.",
		step: []string{"postconf", "smtp_bind_address", "smtp_bind_address6", "inet_protocols"}, source: "smtp/smtp_connect.c",
	},
	{
		cause: RemoteDown, means: "no connection to the server came about, or it broke: the server, or the way to it, is down", who: ActorNobody,
		next: "Wait: Postfix tries again. If other destinations fail as well, look for the cause on this side.",
		step: waitingFor(RemoteDown, "destination"), source: "smtp/smtp_connect.c, smtp/smtp_trouble.c",
	},
	{
		cause: RemoteThrottling, means: "the server limits the pace", who: ActorUs,
		next: "Send this destination fewer messages at once; flushing the queue makes it worse.",
		step: waitingFor(RemoteThrottling, "destination"), source: rfc5321 + ", 4.5.4.1",
	},
	{
		cause: RemoteRejecting, means: "the server cannot or will not take this mail for now, and does not say why",
		final: "the server refuses this mail and does not say why", who: ActorRemote,
		next: "Wait for the next tries; if it lasts, send its postmaster the whole answer.",
		step: waitingFor(RemoteRejecting, "destination"), source: rfc5321 + ", 4.2",
	},
	{
		cause: Greylisting, means: "the first try of an unknown sender is put off for minutes", who: ActorNobody,
		next: "Wait: the next try by the same address gets through. Flushing early starts the clock anew on some servers.",
		step: waitingFor(Greylisting, "destination"), source: "RFC 6647",
	},
	{
		cause: Reputation, means: "the server holds the standing of this address or domain against the mail", who: ActorUs,
		next: "Find what was sent that hurt it, stop that, then ask for removal where the answer points.",
		step: waitingFor(Reputation, "sender"), source: "RFC 5782",
	},
	{
		cause: TLS, means: "the connection could not be secured as one side requires", who: ActorUs,
		next: "Compare the TLS policy for this destination with what its server offers.",
		step: []string{"postconf", "smtp_tls_security_level", "smtp_tls_policy_maps", "smtp_tls_CAfile"}, source: "RFC 3207; smtp/smtp_tls_policy.c",
	},
	{
		cause: Auth, means: "the server wants a login first, or did not accept the one it got", who: ActorUs,
		next: "Check that the mail goes to the right server, and the name and password for it.",
		step: []string{"postconf", "relayhost", "smtp_sasl_auth_enable", "smtp_sasl_password_maps"}, source: "RFC 4954",
	},
	{
		cause: Milter, means: "a milter of this relay does not answer", who: ActorUs,
		next: "Look whether the milter runs and listens where Postfix calls it.",
		step: []string{"postconf", "smtpd_milters", "non_smtpd_milters", "milter_default_action"}, source: "milter/milter.c",
	},
	{
		cause: PolicyService, means: "a policy service of this relay does not answer", who: ActorUs,
		next: "Look whether the service runs and listens where the restrictions name it.",
		step: []string{"postconf", "smtpd_recipient_restrictions", "smtpd_relay_restrictions"}, source: "smtpd/smtpd_check.c",
	},
	{
		cause: ContentFilter, means: "a program or server on this host, behind Postfix, does not take the mail", who: ActorUs,
		next: "Look whether the filter or mail store runs, and read its log.",
		step: []string{"postconf", "content_filter", "mailbox_transport", "virtual_transport"}, source: "FILTER_README",
	},
	{
		cause: LookupTable, means: "a table that Postfix looks into gave no answer", who: ActorUs,
		next: "Read the log for the warning that names the table, then query that table by hand.",
		step: []string{"postconf", "-n"}, source: "DATABASE_README",
	},
	{
		cause: StorageSpace, means: "this host could not write the message: its disk is full", who: ActorUs,
		next: "Make room on the file system of the queue, without touching the queue itself.",
		step: []string{"postconf", "queue_directory", "queue_minfree"}, source: "write(2): ENOSPC",
	},
	{
		cause: Configuration, means: "a setting of this Postfix stands in the way", who: ActorUs,
		next: "Read the log for the error behind it, and check the settings.",
		step: []string{"postconf", "-n"}, source: "postconf(5)",
	},
	{
		cause: RoutingLoop, means: "the mail goes round in a circle", who: ActorUs,
		next: "Follow the route of the address through MX, transport, alias and forwarding until it comes back.",
		step: waitingFor(RoutingLoop, "destination"), source: rfc5321 + ", 6.3",
	},
	{
		cause: RecipientUnknown, means: "the server does not know this recipient, or no longer", who: ActorUs,
		next: "Correct the address or take it off the list; the sender has to know.",
		step: waitingFor(RecipientUnknown, "sender"), source: rfc3463 + ", X.1.1",
	},
	{
		cause: MailboxFull, means: "the recipient's mailbox has no room", who: ActorRecipient,
		next: "Wait, or tell the recipient by other means.", step: waitingFor(MailboxFull, "destination"), source: rfc3463 + ", X.2.2",
	},
	{
		cause: ContentRejected, means: "the server refuses this message for what it is or contains", who: ActorUs,
		next: "Look at the message and who sent it; trying again changes nothing.", step: waitingFor(ContentRejected, "sender"), source: rfc3463 + ", X.6 and X.7",
	},
	{
		cause: UnknownCause, means: "nothing in this text is known", who: ActorUs,
		next: "Read the log around the message for more.",
	},
}

func waitingFor(c Cause, by string) []string {
	return []string{"holdfast", "queue", "--cause", string(c), "--by", by}
}

func adviceFor(c Cause) advice {
	for i := range classAdvice {
		if classAdvice[i].cause == c {
			return classAdvice[i]
		}
	}
	return advice{}
}
