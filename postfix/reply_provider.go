package postfix

const (
	msTrouble   = "http://mail.live.com/mail/troubleshooting.aspx#errors"
	fieldManual = "https://github.com/ActiveCampaign/smtp-field-manual"
	yahooHub    = "https://senders.yahooinc.com/smtp-error-codes/"
	appleHelp   = "https://support.apple.com/en-us/HT204137"
	neteaseDoc  = "https://biecuoliao.com/pa/MBRrwEM.html"
	coxDoc      = "http://postmaster.cox.net/confluence/display/postmaster/Error+Codes"
	comcastDoc  = "http://postmaster.comcast.net/mail-error-codes.html"
	gmxDoc      = "https://postmaster.gmx.com/en/error-messages"
	orangeDoc   = "https://bentonow.com/smtp-errors/orange"
	mimecast    = "https://mimecastsupport.zendesk.com/hc/en-us/articles/34000709564691-Policies-Mimecast-SMTP-Error-Codes"
	goDaddyDoc  = "https://sg.godaddy.com/help/fix-rejected-email-with-a-bounce-error-40685"
)

// providerRules read the marks that single providers put into their answers.
var providerRules = []rule{
	// Google, Microsoft.
	{
		cause: RemoteThrottling, phrases: []string{"unusual rate of unsolicited", "mail has been rate limited"}, by: "Google", source: googleHC,
		says: "more unwanted mail comes from this address or domain than usual, and its pace is limited",
	},
	{
		cause: RemoteThrottling, phrases: []string{"receiving mail at a rate", "receiving mail too quickly"}, by: "Google", source: googleHC,
		says: "this one mailbox gets more mail than it may, from everybody together", who: ActorNobody, next: "Wait; only this recipient is concerned.",
	},
	{
		cause: ContentRejected, phrases: []string{"nature of the content", "likely unsolicited mail", "likely unsolicited"}, by: "Google", source: googleHC,
		says: "the content or the links in the message look like spam",
	},
	{cause: Auth, phrases: []string{"whitelist for rcpt"}, by: "Google", source: googleHC, says: "the recipient's domain takes mail only from hosts that it lists, and this one is not listed"},
	{cause: RemoteThrottling, only: '4', phrases: []string{"try again later, closing connection"}, by: "Google", source: googleHC, says: "the server sheds load from this client"},
	{
		cause: Reputation, phrases: []string{"s3140", "s3150", "part of your network is on our block list", "part of their network is on our block list"}, by: "Microsoft",
		source: msTrouble, says: "the network around this address is on the provider's own block list",
		next: "Ask for removal at the provider's sender support; show it what was wrong and has been mended.",
	},
	{cause: RemoteThrottling, phrases: []string{"rp-001", "rp-002", "rp-003", "queue quota"}, by: "Microsoft", source: msTrouble},
	{cause: Reputation, phrases: []string{"sc-001", "sc-002", "sc-004", "dy-001", "dy-002", "ou-001", "ou-002"}, by: "Microsoft", source: msTrouble},
	{
		cause: RecipientUnknown, only: '5', phrases: []string{"5.4.1 recipient address rejected", "recipient addresses rejected"}, by: "Microsoft", source: msNDR,
		says: "the recipient does not exist in the directory of its domain",
	},
	// Yahoo with AOL, AT&T and others on its servers.
	{cause: Reputation, phrases: []string{"user complaints"}, by: "Yahoo", source: yahooHub, says: "unusual volume or complaints of users make the provider put off mail from this address"},
	{cause: Reputation, phrases: []string{"[ts01", "[ts02", "[ts03", "[tss0", "[tss1", "[bl2", "[ipts0"}, by: "Yahoo", source: yahooHub, says: "the provider puts off or refuses mail from this address because of its standing"},
	{cause: RemoteThrottling, only: '4', phrases: []string{"[gl01]", "[#4.16.", "4.16.5"}, by: "Yahoo", source: yahooHub, says: "the provider is busy, or puts off a sender that it does not know well"},
	{cause: ContentRejected, phrases: []string{"[ph01]", "5.7.9 message not accepted", "message not allowed -"}, by: "Yahoo", source: yahooHub, says: "the message failed the provider's content or authentication rules"},
	// Apple.
	{cause: ContentRejected, phrases: []string{"[cs01]", "[cs02]", "[hm07]", "[hm08]"}, by: "Apple", source: appleHelp, says: "the provider's content rules refused the message"},
	{cause: RemoteThrottling, phrases: []string{"deferred due to excessive volume"}, by: "Apple", source: appleHelp},
	// Germany: T-Online, GMX, web.de, IONOS.
	{
		cause: Reputation, phrases: []string{"a problem occurred. (ask your postmaster", "none/bad reputation"}, by: "T-Online", source: "https://postmaster.t-online.de/index.en.html",
		says: "the address has a bad standing there or none yet: unknown hosts are refused until they ask", next: "Write to the address in the answer, with a name and an imprint for this host.",
	},
	{cause: ContentRejected, phrases: []string{"policy restrictions (header based)"}, by: "GMX, web.de", source: gmxDoc},
	{cause: Reputation, phrases: []string{"policy restrictions (domain based)", "policy restrictions (ip based)", "nemesis esmtp service not available"}, by: "GMX, web.de", source: gmxDoc},
	{
		cause: Reputation, phrases: []string{"reject due to policy violations"}, by: "IONOS", source: "https://ionos.de/hilfe/e-mail/postmaster/smtp-fehlermeldungen-der-11-ionos-mailserver",
		says: "too much mail to addresses that do not exist came from this host",
	},
	// France: Orange and La Poste share the numbers behind their marks.
	{cause: RemoteThrottling, phrases: []string{"ofr004_104", "ofr005_104", "ofr_104"}, by: "Orange", source: orangeDoc},
	{cause: Reputation, phrases: []string{"ofr006_102", "ofr_102", "ofr_108", "ofr_109", "ofr_999", "lpn027_503"}, by: "Orange, La Poste", source: orangeDoc, says: "mail from this address is refused for hours after complaints or spam"},
	{cause: ContentRejected, phrases: []string{"ofr_506", "ofr_517", "lpn007_510", "lpn007_517"}, by: "Orange, La Poste", source: orangeDoc},
	{cause: RecipientUnknown, phrases: []string{"ofr_416", "lpn007_416", "lpn007_426"}, by: "Orange, La Poste", source: orangeDoc},
	{cause: MailboxFull, phrases: []string{"ofr_417", "lpn007_417"}, by: "Orange, La Poste", source: orangeDoc},
	{cause: RemoteRejecting, phrases: []string{"ofr004_405", "lpn007_405"}, by: "Orange, La Poste", source: orangeDoc, says: "the sender's domain cannot take mail", who: ActorUs},
	// America: Comcast, Cox, Charter, AT&T, GoDaddy.
	{cause: RemoteThrottling, phrases: []string{"smtp-error-codes.php#rl"}, by: "Comcast", source: comcastDoc},
	{cause: Reputation, phrases: []string{"smtp-error-codes.php#bl", "smtp-error-codes.php#es", "comcast block for spam"}, by: "Comcast", source: comcastDoc, says: "the address is on a block list, or is one for home connections"},
	{cause: RemoteThrottling, phrases: []string{"aup#cxcnct", "aup#cxmxrt", "message threshold exceeded"}, by: "Cox", source: coxDoc},
	{cause: ContentRejected, phrases: []string{"aup#cxsndr", "aup#cxmj"}, by: "Cox", source: coxDoc, says: "the message failed authentication or the content rules"},
	{cause: Reputation, phrases: []string{"aup#cxbl", "aup#cdrbl", "aup#ipbl"}, by: "Cox", source: coxDoc},
	{
		cause: Reputation, phrases: []string{"aup#i"}, by: "Charter, Spectrum", source: "https://www.spectrum.net/support/internet/understanding-email-error-codes",
		says: "the address or the sender is blocked for breaking the provider's terms",
	},
	{cause: Reputation, phrases: []string{"dnsbl:attrbl", "dnsbl:rbl", "failure in dns look-up"}, by: "AT&T", source: "http://rbl.att.net/block_enduser.html"},
	{cause: RemoteThrottling, phrases: []string{"ib101", "ib103", "ib104", "ib110", "ib607", "ib705"}, by: "GoDaddy", source: goDaddyDoc},
	{cause: Reputation, phrases: []string{"ib105", "ib108"}, by: "GoDaddy", source: goDaddyDoc},
	{cause: ContentRejected, phrases: []string{"ib212", "ib504", "ib508"}, by: "GoDaddy", source: goDaddyDoc},
	// Asia: NetEase, Tencent.
	{cause: RemoteThrottling, phrases: []string{"hl:icc", "hl:ifc", "mi:dmc", "mi:ccl", "mi:sfq", "mi:rqc", "mi:stc", "rp:drc", "rp:ccl", "rp:qrc", "rp:trc"}, by: "NetEase", source: neteaseDoc, says: "more connections, messages or recipients than NetEase takes from one address"},
	{cause: Reputation, phrases: []string{"hl:rep", "hl:mep", "hl:ipb", "dt:rbl", "wm:bli", "wm:blu"}, by: "NetEase", source: neteaseDoc},
	{cause: ContentRejected, phrases: []string{"dt:spm", "dt:sum", "mi:spb", "mi:spf", "mi:imf"}, by: "NetEase", source: neteaseDoc},
	{cause: Auth, phrases: []string{"too much fail authentication"}, by: "NetEase", source: neteaseDoc},
	{
		cause: RemoteThrottling, phrases: []string{"frequency limited"}, by: "Tencent QQ", source: "http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000725",
		says: "more mail or connections from this address or sender than Tencent takes",
	},
	// Filters in front of others' servers.
	{
		cause: Greylisting, only: '4', phrases: []string{"internal resource temporarily unavailable", "internal resource is temporarily unavailable", "internal resources are temporarily"}, by: "Mimecast", source: mimecast,
		says: "the first try of an unknown sender is put off",
	},
	{cause: Reputation, phrases: []string{"host network not allowed", "local ct ip reputation", "sender address blocked"}, by: "Mimecast", source: mimecast},
	{cause: ContentRejected, phrases: []string{"rejected due to security policies"}, by: "Mimecast", source: mimecast},
	{cause: Reputation, phrases: []string{"ers-"}, by: "Trend Micro", source: fieldManual},
	{cause: RemoteRejecting, phrases: []string{"recipient address rejected: block-", "recipient address rejected: no-domain"}, by: "Trend Micro", source: fieldManual},
	{cause: ContentRejected, phrases: []string{"message filtered"}, by: "Symantec", source: "https://knowledge.broadcom.com/external/article?legacyId=TECH246726"},
	{cause: Reputation, phrases: []string{"ipcheck.proofpoint.com", "prs.proofpoint.com", "dnsbl-lookup.cgi"}, by: "Proofpoint", source: "https://ipcheck.proofpoint.com/"},
	{cause: Reputation, phrases: []string{"your access to submit messages", "your access to this mail system"}, by: "Cisco IronPort", source: "Cisco IronPort, the wording of its BLOCKED policy"},
	// rspamd's own words for putting off a first try, which nothing marks but
	// that they stand directly behind the code.
	{
		cause: Greylisting, only: '4', phrases: []string{"4.7.1 try again later"}, by: "rspamd", source: "rspamd, doc/modules/greylisting.md",
		says: "the server puts off the first try of mail that it is not sure of",
	},
	{
		cause: RecipientUnknown, phrases: []string{"policy rejection on the target address"}, by: "Yandex", source: "https://www.yandex.com/support/mail/bounces/yandex.html",
		says: "the provider has blocked the recipient's account", who: ActorRecipient,
	},
	{
		cause: Reputation, phrases: []string{"blocked by spam statistics"}, by: "Yandex", source: "https://www.yandex.com/support/mail/bounces/yandex.html",
		says: "mostly spam came from this address, so it is shut out for a day",
	},
	{
		cause: RecipientUnknown, phrases: []string{"hasn't got the service mapped"}, by: "Seznam", source: "https://napoveda.seznam.cz/uzivatel-neexistuje",
		says: "there is no such mailbox, or it has no mail service",
	},
	{cause: Reputation, phrases: []string{"due to sender ip reputation"}, by: "BT", source: "https://btbusiness.custhelp.com/app/answers/detail/a_id/15074"},
	{cause: RecipientUnknown, phrases: []string{"mailbox currently suspended"}, by: "AT&T", source: "http://rbl.att.net/block_enduser.html", says: "the provider has closed the mailbox", who: ActorRecipient},
	{cause: Reputation, phrases: []string{"unauthorized interface for"}, by: "AT&T", source: "http://rbl.att.net/block_enduser.html", says: "the provider does not take this host for a mail server"},
}

// providerMarks tell whose server it was by its name, or by a page that it
// links to, where the rule does not say. Domains of mailboxes are left out: a
// reply often repeats the recipient.
var providerMarks = bind([]rule{
	{by: "Google", phrases: []string{"gsmtp", "l.google.com", "googlemail.com", "support.google.com", "smtp.google.com"}},
	{by: "Microsoft", phrases: []string{"protection.outlook.com", "prod.outlook.com", "olc.protection", "hotmail.com[", "outlook.com]", "postmaster.live.com"}},
	{by: "Yahoo", phrases: []string{"yahoodns.net", "postmaster.yahoo", "yahooinc.com", "verizonmedia.com", "mail.yahoo.com"}},
	{by: "Apple", phrases: []string{"mail.icloud.com", "support.apple.com"}},
	{by: "GMX, web.de", phrases: []string{"postmaster.gmx", "mx00.gmx", "mx01.gmx", "mx-ha.web.de", "postmaster.web.de"}},
	{by: "IONOS", phrases: []string{"kundenserver.de", "mx00.ionos", "mx01.ionos"}},
	{by: "T-Online", phrases: []string{"rx.t-online.de", "mx00.t-online.de", "mx01.t-online.de", "mx02.t-online.de", "mx03.t-online.de"}},
	{by: "Orange", phrases: []string{"smtp-in.orange.fr", "mwinf", "ofr_", "ofr0"}},
	{by: "La Poste", phrases: []string{"smtpz4.laposte.net", "lpn0"}},
	{by: "Free", phrases: []string{"mx1.free.fr", "mx2.free.fr"}},
	{by: "Comcast", phrases: []string{"mx1.comcast.net", "mx2.comcast.net", "postmaster.comcast.net"}},
	{by: "Mail.ru", phrases: []string{"mxs.mail.ru", "help.mail.ru"}},
	{by: "Yandex", phrases: []string{"mx.yandex", "ya.cc"}},
	{by: "Tencent QQ", phrases: []string{"mx1.qq.com", "mx2.qq.com", "mx3.qq.com", "service.mail.qq.com", "service.exmail.qq.com"}},
	{by: "NetEase", phrases: []string{"mxmail.netease.com", "help.163.com"}},
	{by: "Zoho", phrases: []string{"mx.zoho", "smtpin.zoho"}},
	{by: "Proton", phrases: []string{"mail.protonmail.ch", "mailsec.protonmail.ch"}},
	{by: "Fastmail", phrases: []string{"smtp.messagingengine.com"}},
	{by: "Mimecast", phrases: []string{"mimecast"}},
	{by: "Proofpoint", phrases: []string{"pphosted.com", "ppe-hosted.com", "proofpoint"}},
	{by: "Barracuda", phrases: []string{"barracudanetworks.com", "cuda_nsu"}},
	{by: "Symantec", phrases: []string{"messagelabs.com", "symanteccloud.com"}},
	{by: "Spamhaus", phrases: []string{"spamhaus"}},
	{by: "OVH", phrases: []string{"mail.ovh.net"}},
	{by: "Gandi", phrases: []string{"mail.gandi.net"}},
	{by: "GoDaddy", phrases: []string{"secureserver.net"}},
	{by: "Rackspace", phrases: []string{"emailsrvr.com"}},
	{by: "Libero", phrases: []string{"libero.it[", "iol.local", "virgilio.it["}},
	{by: "Seznam", phrases: []string{"mx1.seznam.cz", "mx2.seznam.cz", "email.seznam.cz"}},
	{by: "Cox", phrases: []string{"cox.net["}},
})
