package maillog

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/observe"
	"holdfast/postfix"
)

func TestSignatures(t *testing.T) {
	for text, want := range map[string]postfix.Cause{
		"smtpd[1]: warning: not enough free space in mail queue: 1234 bytes < 1.5*message size limit":                                   postfix.StorageSpace,
		"cleanup[1]: warning: mail_queue_enter: create file incoming/123456.789: No space left on device":                               postfix.StorageSpace,
		"cleanup[1]: warning: 4F1C2B3D4E: write queue file: No space left on device":                                                    postfix.StorageSpace,
		"bounce[1]: fatal: append file defer 4F1C2B3D4E: No space left on device":                                                       postfix.StorageSpace,
		"qmgr[1]: fatal: qmgr_move: rename deferred/4/4F1C2B3D4E to active/4F1C2B3D4E: Read-only file system":                           postfix.StorageReadonly,
		"smtpd[1]: warning: connect to Milter service inet:localhost:8891: Connection refused":                                          postfix.Milter,
		"smtpd[1]: warning: milter inet:127.0.0.1:8891: can't read SMFIC_MAIL reply packet header: Connection timed out":                postfix.Milter,
		"smtpd[1]: warning: problem talking to server private/policy: Connection refused":                                               postfix.PolicyService,
		"smtpd[1]: warning: connect to 127.0.0.1:10023: Connection refused":                                                             postfix.PolicyService,
		"smtpd[1]: warning: ldap:/etc/postfix/users.cf: table lookup problem":                                                           postfix.LookupTable,
		"cleanup[1]: warning: mysql:/etc/postfix/a.cf lookup error for \"ann@here.example\"":                                            postfix.LookupTable,
		"trivial-rewrite[1]: error: open database /etc/postfix/transport.db: No such file or directory":                                 postfix.LookupTable,
		"smtpd[1]: error: unsupported dictionary type: pgsql. Is the postfix-pgsql package installed?":                                  postfix.LookupTable,
		"smtpd[1]: warning: load_library_symbols: dlopen failure loading /usr/lib/postfix/postfix-ldap.so: x":                           postfix.LookupTable,
		"smtpd[1]: fatal: in parameter smtpd_client_restrictions, specify a lookup table; unknown smtpd restriction: \"reject_all\"":    postfix.Configuration,
		"smtp[1]: fatal: bad numerical configuration: smtp_connect_timeout = soon":                                                      postfix.Configuration,
		"smtp[1]: warning: no MX host for b.example has a valid address record":                                                         postfix.DNS,
		"smtp[1]: warning: host mx.b.example[192.0.2.1]:25 greeted me with my own hostname relay1.example":                              postfix.RoutingLoop,
		"smtp[1]: warning: TLS library problem: error:0A00010B:SSL routines::wrong version number:../ssl/record/ssl3_record.c:354:":     postfix.TLS,
		"smtpd[1]: warning: cannot get RSA private key from file \"/etc/ssl/private/k.pem\": disabling TLS support":                     postfix.TLS,
		"smtp[1]: warning: SASL authentication failure: No worthy mechs found":                                                          postfix.Auth,
		"smtpd[1]: warning: SASL: Connect to Dovecot auth socket 'private/auth' failed: No such file or directory":                      postfix.Auth,
		"smtpd[1]: fatal: no SASL authentication mechanisms":                                                                            postfix.Auth,
		"smtpd[1]: warning: unknown[192.0.2.1]: SASL LOGIN authentication failed: UGFzc3dvcmQ6":                                         postfix.UnknownCause,
		"smtpd[1]: warning: Connection concurrency limit exceeded: 51 from bot[192.0.2.1] for service smtp":                             postfix.Flood,
		"smtpd[1]: warning: Recipient address rate limit exceeded: 51 from bot[192.0.2.1] for service smtp":                             postfix.Flood,
		"master[1]: warning: service \"smtp\" (25) has reached its process limit \"100\": new clients may experience noticeable delays": postfix.ProcessLimit,
		"master[1]: warning: process /usr/lib/postfix/sbin/qmgr pid 12 killed by signal 9":                                              postfix.QueueManager,
		"master[1]: warning: process /usr/lib/postfix/sbin/smtpd pid 12 exit status 1":                                                  postfix.Configuration,
		"master[1]: warning: /usr/lib/postfix/sbin/smtpd: bad command startup -- throttling":                                            postfix.Configuration,
		"qmgr[1]: warning: connect to transport private/nosuch: No such file or directory":                                              postfix.Configuration,
		"qmgr[1]: fatal: watchdog timeout":                                                                          postfix.QueueManager,
		"qmgr[1]: fatal: timeout connecting to transport: slow":                                                     postfix.QueueManager,
		"qmgr[1]: panic: qmgr_entry_select: no recipients":                                                          postfix.QueueManager,
		"qmgr[1]: warning: mail for b.example is using up 4001 of 5000 active queue entries":                        postfix.ActiveQueueFull,
		"qmgr[1]: warning: saving corrupt file \"4F1C2B3D4E\" from queue \"active\" to queue \"corrupt\"":           postfix.Corruption,
		"qmgr[1]: warning: 4F1C2B3D4E: message rejected: missing end record":                                        postfix.Corruption,
		"pickup[1]: warning: uid=102: unexpected or malformed record type -1":                                       postfix.Corruption,
		"postsuper[1]: warning: bogus file name: incoming/x#FIX":                                                    postfix.Corruption,
		"qmgr[1]: warning: file system clock is 3600 seconds ahead of local clock":                                  postfix.Clock,
		"postfix-script[1]: fatal: the Postfix mail system is not running":                                          postfix.PostfixDown,
		"smtpd[1]: warning: hostname pc.b.example does not resolve to address 192.0.2.1: Name or service not known": postfix.UnknownCause,
		"smtp[1]: warning: open active 4F1C2B3D4E: No such file or directory":                                       postfix.UnknownCause,
		"smtpd[1]: warning: non-SMTP command from unknown[192.0.2.1]: GET / HTTP/1.1":                               postfix.UnknownCause,
		"proxymap[1]: warning: connect to mysql server 192.0.2.3: Can't connect to MySQL server":                    postfix.LookupTable,
		"postdrop[1]: warning: mail_queue_enter: create file maildrop/1.2: Permission denied":                       postfix.Permissions,
		"pickup[1]: warning: unable to look up public/qmgr: No such file or directory":                              postfix.QueueManager,
		"cleanup[1]: warning: connect #3 to subsystem private/rewrite: Connection refused":                          postfix.Configuration,
		"smtp[1]: warning: relayhost configuration problem":                                                         postfix.Configuration,
		"smtpd[1]: warning: dict_nis_init: NIS domain name not set - NIS lookups disabled":                          postfix.LookupTable,
		"smtp[1]: warning: smtp_connect_addr: bind 203.0.113.5: Cannot assign requested address":                    postfix.Egress,
		"qmgr[1]: warning: premature disconnect of private/smtp while reading input":                                postfix.QueueManager,
		"cleanup[1]: warning: 4F1C2B3D4E: message rejected: hopcount exceeded":                                      postfix.RoutingLoop,
		"smtpd[1]: fatal: the Postfix configuration directory \"/etc/postfix\" is broken":                           postfix.Configuration,
		"smtp[1]: warning: TLS policy lookup for b.example/b.example: invalid security level \"x\"":                 postfix.TLS,
		"master[1]: fatal: bind 0.0.0.0 port 25: Address already in use":                                            postfix.Configuration,
		"master[1]: warning: master_spawn: fork: Resource temporarily unavailable -- throttling":                    postfix.ProcessLimit,
	} {
		l := tallied(options(true), lines(text)).Log()
		if len(l.Troubles) != 1 {
			t.Errorf("%s: %d troubles", text, len(l.Troubles))
			continue
		}
		if got := l.Troubles[0].Cause; got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestTroublesAreGrouped: what differs in a name or number is one trouble.
func TestTroublesAreGrouped(t *testing.T) {
	l := tallied(options(true), lines(
		"smtpd[1]: warning: hostname a.b.example does not resolve to address 192.0.2.1: Name or service not known",
		"master[1]: warning: process /usr/lib/postfix/sbin/smtp pid 12 exit status 1",
		"smtpd[2]: warning: hostname c.example does not resolve to address 2001:db8::1: Name or service not known",
		"submission/smtpd[3]: warning: hostname d.example does not resolve to address 198.51.100.77: Name or service not known",
		"cleanup[1]: warning: 4F1C2B3D4E: write queue file: No space left on device",
		"cleanup[1]: warning: 4dhRlh4dz5z9s2h: write queue file: No space left on device",
		"cleanup[1]: error: 4dhRlh4dz5z9s2h: write queue file: No space left on device",
	)).Log()
	want := []observe.Trouble{
		{
			Program: "smtpd", Severity: "warning", Cause: postfix.UnknownCause, Count: 3, First: second30(0), Last: second30(3),
			Group: "hostname * does not resolve to address *: Name or service not known",
			Text:  "hostname d.example does not resolve to address 198.51.100.77: Name or service not known",
		},
		{
			Program: "cleanup", Severity: "warning", Cause: postfix.StorageSpace, Count: 2, First: second30(4), Last: second30(5),
			Group: "write queue file: No space left on device", Text: "4dhRlh4dz5z9s2h: write queue file: No space left on device",
		},
		{
			Program: "master", Severity: "warning", Cause: postfix.Configuration, Count: 1, First: second30(1), Last: second30(1),
			Group: "process /usr/lib/postfix/sbin/smtp pid * exit status *", Text: "process /usr/lib/postfix/sbin/smtp pid 12 exit status 1",
		},
		{
			Program: "cleanup", Severity: "error", Cause: postfix.StorageSpace, Count: 1, First: second30(6), Last: second30(6),
			Group: "write queue file: No space left on device", Text: "4dhRlh4dz5z9s2h: write queue file: No space left on device",
		},
	}
	if diff := cmp.Diff(want, l.Troubles); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !l.From.Equal(time.Date(2026, 11, 23, 17, 30, 0, 0, time.UTC)) {
		t.Errorf("from %s", l.From)
	}
}
