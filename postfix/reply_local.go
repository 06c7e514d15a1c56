package postfix

// Rules for what this host wrote by itself, and for a server beside it. The
// words are those of Postfix's sources; each rule names the file.

// egressRules read why no connection could be made from this host.
var egressRules = bind([]rule{
	{
		cause: Egress, phrases: []string{"network is unreachable"},
		says: "this host has no route to the address, as for IPv6 on a host without it", source: "smtp/smtp_connect.c; connect(2): ENETUNREACH",
		next: "Look at the routes and at which address families Postfix uses.", who: ActorUs,
	},
	{
		cause: Egress, phrases: []string{"cannot assign requested address"},
		says: "the address that Postfix binds to is not on this host, or its ports are used up", source: "smtp/smtp_connect.c; bind(2), connect(2): EADDRNOTAVAIL",
		next: "Compare smtp_bind_address with the addresses of this host.", who: ActorUs,
	},
	{
		cause: Egress, phrases: []string{"operation not permitted", "permission denied"},
		says: "a packet filter or security policy of this host forbids the connection", source: "smtp/smtp_connect.c; connect(2): EPERM, EACCES",
		next: "Look for a rule that rejects outgoing mail on this host.", who: ActorUs,
	},
	{
		cause: Egress, phrases: []string{"address family not supported", "protocol not supported", "no buffer space"},
		says: "this host's network cannot make such a connection", source: "smtp/smtp_connect.c; socket(2), connect(2)", who: ActorUs,
	},
})

// localRules read texts that this host's own Postfix wrote.
var localRules = bind([]rule{
	{
		cause: RoutingLoop, phrases: []string{"loops back to myself", "greeted me with my own hostname"},
		says: "the route of this domain ends at this host, which does not take mail for it", source: "smtp/smtp_addr.c, smtp/smtp_proto.c",
		next: "Add the domain to the local, virtual or relay domains, or correct its MX or transport entry.",
	},
	{
		cause: RoutingLoop, phrases: []string{"mail forwarding loop", "too many hops", "hopcount exceeded", "nesting limit exceeded"},
		says: "the message passed too many hosts, or came back to one that had it already", source: "local/deliver, cleanup/cleanup_message.c",
	},
	{
		cause: Configuration, phrases: []string{"dns reply filter", "invalid dns reply filter", "all network protocols are disabled"},
		says: "a setting of this Postfix removes every address it could deliver to", source: "dns/dns_rr_filter.c, smtp/smtp_connect.c",
	},
	{
		cause: DNS, phrases: []string{"malformed or unexpected name server reply", "invalid host or domain name"},
		says: "what the name service says of this domain cannot be used", source: "dns/dns_lookup.c", who: ActorRemote,
	},
	{
		cause: DNS, phrases: []string{"host not found, try again", "temporary failure in name resolution", "name service initialization failure"},
		says: "the name service did not answer: the resolvers of this host, or the name servers of that one domain", source: "dns/dns_lookup.c, smtp/smtp_addr.c",
	},
	{
		cause: DNS, phrases: []string{
			"name service error for", "unable to look up host", "host not found",
			"name server loop", "unable to find primary relay", "has a valid address record",
		},
		says: "the name service knows no host that takes mail for this domain", source: "dns/dns_lookup.c, smtp/smtp_addr.c",
	},
	{
		cause: RemoteRejecting, phrases: []string{"does not accept mail"},
		says: "the domain says in its MX record that it takes no mail at all", source: "smtp/smtp_addr.c; RFC 7505", who: ActorUs,
		next: "Correct the address or tell the sender; no try will succeed.",
	},
	{
		cause: RemoteRejecting, phrases: []string{"smtputf8 is required"},
		says: "the message needs internationalised mail, which the server does not offer", source: "smtp/smtp_proto.c; RFC 6531", who: ActorUs,
		next: "Send it with plain ASCII addresses and headers.",
	},
	{
		cause: TLS, phrases: []string{"tlsa lookup error", "tlsa records", "no tlsa", "non dnssec destination"},
		says: "DANE is required for this destination and its TLSA records could not be used", source: "smtp/smtp_tls_policy.c; RFC 7672",
	},
	{
		cause: TLS, phrases: []string{
			"tls is required", "cannot start tls", "server certificate",
			"tls session", "certificate verification failed", "starttls", "client tls configuration", "requiretls", "insecure mx",
		},
		says: "this Postfix insists on TLS for the destination, and none that meets its policy came about", source: "smtp/smtp_proto.c, smtp/smtp_tls_policy.c",
	},
	{
		cause: Auth, phrases: []string{"sasl authentication failed", "sasl [cached] authentication failed", "no supported auth mechanisms", "authentication required"},
		says: "the login of this Postfix at the next server did not succeed", source: "smtp/smtp_sasl_glue.c",
	},
	{
		cause: LookupTable, phrases: []string{"table lookup", "temporary lookup", "lookup error for", "address resolver failure", "user lookup error", "alias database"},
		says: "a table of this Postfix, such as a database or directory, gave no answer", source: "global/mail_error.c, trivial-rewrite/resolve.c, local/alias.c",
	},
	{cause: StorageSpace, phrases: []string{"queue file write error", "no space left on device"}, source: "global/cleanup_strerror.c; write(2): ENOSPC"},
	{
		cause: MailboxFull, phrases: []string{"disk quota exceeded", "file too large"},
		says: "the mailbox on this host has reached its limit", source: "local/mailbox.c; write(2): EDQUOT, EFBIG",
	},
	{
		cause: Configuration, phrases: []string{"mail transport unavailable", "unknown mail transport error"},
		says: "the program that should deliver this mail is missing from master.cf, fails to start, or fails at once", source: "qmgr/qmgr_transport.c, qmgr/qmgr_deliver.c",
		next: "Read the log for the last fatal or panic line of that transport.",
	},
	{
		cause: Configuration, phrases: []string{"deferred transport"},
		says: "defer_transports holds this transport's mail back", source: "qmgr/qmgr_message.c",
		next: "Take the transport out of defer_transports when its mail may go.",
	},
	{
		cause: Configuration, phrases: []string{
			"server configuration", "mail system configuration", "local configuration error", "configuration problem", "bad transport type",
			"address verification requests", "cannot update mailbox", "is not owned by recipient", "cannot access home directory", "create maildir file",
		},
		source: "global/cleanup_strerror.c, global/sys_exits.c, local/mailbox.c, local/maildir.c",
	},
	{
		cause: ContentFilter, phrases: []string{"command output:", "command time limit exceeded", "command died with", "system resource problem"},
		says: "the program that mail is piped through failed or took too long", source: "global/pipe_command.c",
	},
	{
		cause: ContentRejected, phrases: []string{"message size", "message too large", "message file too big"},
		says: "the message is larger than the next server allows", source: "smtp/smtp_proto.c; RFC 1870",
		next: "Tell the sender to send less, or by another way.",
	},
	{cause: ContentRejected, phrases: []string{"message content rejected"}, says: "a header, body or milter rule of this Postfix refused the message", source: "global/cleanup_strerror.c"},
	{cause: Egress, phrases: []string{"network is unreachable", "cannot assign requested address"}, source: "smtp/smtp_connect.c"},
	{
		cause: RemoteDown, phrases: []string{
			"lost connection with", "conversation with", "connection timed out", "connection refused", "no route to host", "host is down",
			"connection reset by peer", "timed out while", "no mail servers found", "unexpected disconnect", "server unavailable or unable to receive mail",
		},
		source: "smtp/smtp_connect.c, smtp/smtp_trouble.c",
	},
})

// neighbourRules read replies of a server on this host: mostly Postfix's own
// smtpd behind a content filter, whose words for its own helpers are known.
var neighbourRules = bind([]rule{
	{
		cause: Milter, phrases: []string{"service unavailable - try again later", "milter"},
		says: "a milter of this host failed, and Postfix asks to try again", source: "milter/milter.c: milter_default_action",
	},
	{
		cause: PolicyService, phrases: []string{"server configuration problem", "policy service", "policyd"},
		says: "a policy service of this host gave no usable answer", source: "smtpd/smtpd_check.c",
	},
	{cause: LookupTable, phrases: []string{"temporary lookup failure"}, says: "a table of this Postfix gave no answer", source: "smtpd/smtpd_check.c"},
	{
		cause: StorageSpace, phrases: []string{"insufficient system storage", "queue file write error", "no space left"},
		source: "smtpd/smtpd.c, global/cleanup_strerror.c",
	},
})
