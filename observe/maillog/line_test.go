package maillog

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const stamp = "Nov 23 17:37:24 relay1 "

var at = time.Date(2026, 11, 23, 17, 37, 24, 0, time.UTC)

var grammar = Grammar{SyslogName: "postfix", Location: time.UTC, Newest: newest}

// TestLinesOfEveryProgram reads one line of each kind that Postfix 3.4 to 3.11
// writes.
func TestLinesOfEveryProgram(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want Line
	}{
		"smtp sent": {
			"postfix/smtp[812]: 4F1C2B3D4E: to=<ann@dest.example>, relay=mx.dest.example[192.0.2.7]:25, delay=1.2, delays=0.1/0.01/0.6/0.5, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 9FBF1140142)",
			Line{
				Event: Delivery, ID: "4F1C2B3D4E", Recipient: "ann@dest.example", Domain: "dest.example", Relay: "mx.dest.example[192.0.2.7]:25",
				DSN: "2.0.0", Status: "sent", Reason: "250 2.0.0 Ok: queued as 9FBF1140142",
			},
		},
		"smtp with everything that may be there": {
			"postfix/relay/smtp[812]: 4dhRlh4dz5z9s2h: to=<Ann@DEST.Example>, orig_to=<all@here.example>, relay=mx[2001:db8::7]:25, conn_use=3, delay=1, delays=0/0/0.6/0.5, tls=may/!requiretls:nostarttls, dsn=4.2.0, status=deferred (host mx[2001:db8::7] said: 450 4.2.0 status=sent (later) (in reply to RCPT TO command))",
			Line{
				Event: Delivery, ID: "4dhRlh4dz5z9s2h", Recipient: "Ann@DEST.Example", Original: "all@here.example", Domain: "dest.example", Relay: "mx[2001:db8::7]:25",
				DSN: "4.2.0", Status: "deferred", Reason: "host mx[2001:db8::7] said: 450 4.2.0 status=sent (later) (in reply to RCPT TO command)",
			},
		},
		"a field of a later version": {
			"postfix/smtp[812]: 4F1C2B3D4E: to=<a@b.example>, relay=none, delay=1, delays=1/0/0/0, newer=x/y, dsn=4.4.1, status=deferred (connect to b.example[192.0.2.1]:25: Connection refused)",
			Line{
				Event: Delivery, ID: "4F1C2B3D4E", Recipient: "a@b.example", Domain: "b.example", Relay: "none", DSN: "4.4.1", Status: "deferred",
				Reason: "connect to b.example[192.0.2.1]:25: Connection refused",
			},
		},
		"a quoted address that imitates a record": {
			`postfix/smtp[812]: 4F1C2B3D4E: to=<"x>, relay=none, dsn=2.0.0, status=sent (\"ok"@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=5.1.1, status=bounced (no)`,
			Line{
				Event: Delivery, ID: "4F1C2B3D4E", Recipient: `"x>, relay=none, dsn=2.0.0, status=sent (\"ok"@b.example`, Domain: "b.example", Relay: "none",
				DSN: "5.1.1", Status: "bounced", Reason: "no",
			},
		},
		"a reason that was cut": {
			"postfix/smtp[812]: 4F1C2B3D4E: to=<a@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (host b.example[192.0.2.1] said: 451 and so o",
			Line{
				Event: Delivery, ID: "4F1C2B3D4E", Recipient: "a@b.example", Domain: "b.example", Relay: "none", DSN: "4.4.1", Status: "deferred",
				Reason: "host b.example[192.0.2.1] said: 451 and so o",
			},
		},
		"local, forwarded": {
			"postfix/local[7]: 4F1C2B3D4E: to=<root@relay1.example>, orig_to=<root>, relay=local, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent (forwarded as 5A5A5A5A5A)",
			Line{
				Event: Delivery, ID: "4F1C2B3D4E", NewID: "5A5A5A5A5A", Recipient: "root@relay1.example", Original: "root", Domain: "relay1.example", Relay: "local",
				DSN: "2.0.0", Status: "sent", Reason: "forwarded as 5A5A5A5A5A",
			},
		},
		"a recipient without a domain": {
			"postfix/error[7]: 4F1C2B3D4E: to=<root>, relay=none, delay=0.1, delays=0/0/0/0.1, dsn=5.0.0, status=SOFTBOUNCE (no mail here)",
			Line{Event: Delivery, ID: "4F1C2B3D4E", Recipient: "root", Relay: "none", DSN: "5.0.0", Status: "SOFTBOUNCE", Reason: "no mail here"},
		},
		"address verification": {
			"postfix/smtp[7]: 4F1C2B3D4E: to=<a@b.example>, relay=mx.b.example[192.0.2.1]:25, delay=0.1, delays=0/0/0/0.1, dsn=2.1.5, status=deliverable (250 2.1.5 Ok)",
			Line{Event: Probe, ID: "4F1C2B3D4E", Recipient: "a@b.example", Domain: "b.example", Relay: "mx.b.example[192.0.2.1]:25", DSN: "2.1.5", Status: "deliverable", Reason: "250 2.1.5 Ok"},
		},
		"qmgr takes up": {
			"postfix/qmgr[9]: 4F1C2B3D4E: from=<\"a>b\"@c.example>, size=1234, nrcpt=2 (queue active)",
			Line{Event: Active, ID: "4F1C2B3D4E", Sender: `"a>b"@c.example`, Size: 1234, Recipients: 2},
		},
		"qmgr gives up":             {"postfix/qmgr[9]: 4F1C2B3D4E: from=<>, status=expired, returned to sender", Line{Event: Expired, ID: "4F1C2B3D4E"}},
		"qmgr gives up as told":     {"postfix/qmgr[9]: 4F1C2B3D4E: from=<a@b>, status=force-expired, returned to sender", Line{Event: Expired, ID: "4F1C2B3D4E", Sender: "a@b"}},
		"qmgr done":                 {"postfix/qmgr[9]: 4F1C2B3D4E: removed", Line{Event: Finished, ID: "4F1C2B3D4E"}},
		"qmgr skips":                {"postfix/qmgr[9]: 4F1C2B3D4E: skipped, still being delivered", Line{Event: Skipped, ID: "4F1C2B3D4E"}},
		"cleanup drops":             {"postfix/cleanup[9]: 4F1C2B3D4E: removed (discarded)", Line{Event: Finished, ID: "4F1C2B3D4E"}},
		"cleanup names":             {"postfix/cleanup[9]: 4F1C2B3D4E: message-id=<>", Line{Event: Named, ID: "4F1C2B3D4E"}},
		"cleanup names once more":   {"postfix/cleanup[9]: 4F1C2B3D4E: resent-message-id=<x@y>", Line{Event: Named, ID: "4F1C2B3D4E"}},
		"postsuper deletes":         {"postfix/postsuper[9]: 4F1C2B3D4E: removed", Line{Event: Deleted, ID: "4F1C2B3D4E"}},
		"postsuper holds":           {"postfix/postsuper[9]: 4F1C2B3D4E: placed on hold", Line{Event: PlacedOnHold, ID: "4F1C2B3D4E"}},
		"postsuper releases":        {"postfix/postsuper[9]: 4F1C2B3D4E: released from hold", Line{Event: Released, ID: "4F1C2B3D4E"}},
		"postsuper requeues":        {"postfix/postsuper[9]: 4F1C2B3D4E: requeued", Line{Event: Requeued, ID: "4F1C2B3D4E"}},
		"postsuper counts":          {"postfix/postsuper[9]: Placed on hold: 12 messages", Line{Event: Talk}},
		"pickup":                    {"postfix/pickup[9]: 4F1C2B3D4E: uid=0 from=<root>", Line{Event: Arrival, ID: "4F1C2B3D4E"}},
		"pickup after a requeue":    {"postfix/pickup[9]: 4F1C2B3D4E: uid=102 from=<root> orig_id=5A5A5A5A5A", Line{Event: Arrival, ID: "4F1C2B3D4E", OldID: "5A5A5A5A5A"}},
		"a sender like a requeue":   {`postfix/pickup[9]: 4F1C2B3D4E: uid=1000 from=<"> orig_id=5A5A5A5A5A"@x>`, Line{Event: Arrival, ID: "4F1C2B3D4E"}},
		"smtpd":                     {"postfix/submission/smtpd[9]: 4F1C2B3D4E: client=pc[192.0.2.1], sasl_method=PLAIN, sasl_username=ann", Line{Event: Arrival, ID: "4F1C2B3D4E", Client: "pc[192.0.2.1]"}},
		"smtpd before a proxy":      {"postfix/smtpd[9]: NOQUEUE: client=pc[192.0.2.1]", Line{Event: Talk}},
		"smtpd talks":               {"postfix/smtpd[9]: disconnect from pc[192.0.2.1] ehlo=1 quit=1 commands=2", Line{Event: Talk}},
		"anvil":                     {"postfix/anvil[9]: statistics: max cache size 2 at Nov 23 17:30:00", Line{Event: Talk}},
		"bounce":                    {"postfix/bounce[9]: 4F1C2B3D4E: sender non-delivery notification: 5A5A5A5A5A", Line{Event: Notice, ID: "4F1C2B3D4E", NewID: "5A5A5A5A5A"}},
		"bounce warns":              {"postfix/bounce[9]: 4F1C2B3D4E: postmaster delay notification: 5A5A5A5A5A", Line{Event: Notice, ID: "4F1C2B3D4E", NewID: "5A5A5A5A5A"}},
		"master":                    {"postfix/master[9]: warning: process /usr/lib/postfix/sbin/qmgr pid 12 killed by signal 9", Line{Event: Trouble, Severity: "warning"}},
		"script":                    {"postfix/postfix-script[9]: fatal: the Postfix mail system is not running", Line{Event: Trouble, Severity: "fatal"}},
		"smtpd rejects":             {"postfix/smtpd[9]: NOQUEUE: reject: RCPT from pc[192.0.2.1]: 450 4.7.1 <x@y>: no; from=<> to=<x@y> proto=ESMTP helo=<pc>", Line{Event: Action, Action: "reject", Reason: "RCPT from pc[192.0.2.1]: 450 4.7.1 <x@y>: no; from=<> to=<x@y> proto=ESMTP helo=<pc>"}},
		"a milter rejects":          {"postfix/cleanup[9]: 4F1C2B3D4E: milter-reject: END-OF-MESSAGE from pc[192.0.2.1]: 5.7.1 no; from=<a@b>", Line{Event: Action, ID: "4F1C2B3D4E", Action: "milter-reject", Reason: "END-OF-MESSAGE from pc[192.0.2.1]: 5.7.1 no; from=<a@b>"}},
		"smtp goes to the next one": {"postfix/smtp[9]: 4F1C2B3D4E: host mx[192.0.2.1] said: 421 status=sent (in reply to EHLO)", Line{Event: Talk, ID: "4F1C2B3D4E"}},
		"a server that writes logs": {"postfix/smtp[9]: connect to Nov 23 17:37:25 relay1 postfix/smtp[8]: 4F1C2B3D4E: removed", Line{Event: Talk}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := grammar.Parse([]byte(stamp + c.line))
			if !ok {
				t.Fatal("cannot be read")
			}
			tag, text, _ := strings.Cut(c.line, "]: ")
			c.want.Tag, _, _ = strings.Cut(tag, "[")
			c.want.Program = c.want.Tag[strings.LastIndexByte(c.want.Tag, '/')+1:]
			c.want.At, c.want.Host, c.want.PID = at, "relay1", got.PID
			c.want.Text = strings.TrimPrefix(text, c.want.Severity+": ")
			if got.PID == 0 {
				t.Error("no process ID")
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLinesThatAreNotRead(t *testing.T) {
	const record = "postfix/smtp[812]: 4F1C2B3D4E: to=<a@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1"
	const delivery = record + ", status=deferred (x)"
	for name, line := range map[string]string{
		"empty":                     "",
		"no stamp":                  delivery,
		"half a stamp":              "Nov 23 17:37:1",
		"no month":                  "Nop 23 17:37:24 relay1 " + delivery,
		"day 31 of November":        "Nov 31 17:37:24 relay1 " + delivery,
		"hour 24":                   "Nov 23 24:37:24 relay1 " + delivery,
		"no host":                   "Nov 23 17:37:24 " + delivery,
		"words behind a tag":        "Nov 23 17:37:24 relay1 somebody said: " + stamp + delivery,
		"another program":           stamp + "dovecot[12]: imap: " + delivery,
		"another instance":          stamp + strings.Replace(delivery, "postfix/", "postfix-out/", 1),
		"no process ID":             stamp + strings.Replace(delivery, "[812]", "", 1),
		"odd process ID":            stamp + strings.Replace(delivery, "[812]", "[x]", 1),
		"no text":                   stamp + "postfix/smtp[812]: ",
		"unknown status":            stamp + strings.Replace(delivery, "deferred", "done", 1),
		"no status":                 stamp + record,
		"status out of place":       stamp + strings.Replace(delivery, "delay=1, ", "Status is, ", 1),
		"an address without an end": stamp + `postfix/smtp[812]: 4F1C2B3D4E: to=<"a@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (x)`,
		"qmgr without a size":       stamp + "postfix/qmgr[9]: 4F1C2B3D4E: from=<a@b>, nrcpt=1 (queue active)",
	} {
		if got, ok := grammar.Parse([]byte(line)); ok {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

// TestEveryCutIsSurvived reads a line cut at each of its bytes: nothing of it
// may be taken for another record than the whole is.
func TestEveryCutIsSurvived(t *testing.T) {
	line := stamp + `postfix/smtp[812]: 4F1C2B3D4E: to=<"a b"@b.example>, orig_to=<x>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (host b said: 450 status=sent (ok))`
	status := strings.Index(line, "status=deferred") + len("status=deferred")
	for n := range len(line) {
		got, ok := grammar.Parse([]byte(line[:n]))
		switch {
		case n >= status && (!ok || got.Status != "deferred"):
			t.Errorf("cut at %d: read as %q, %v", n, got.Status, ok)
		case n < status && ok && got.Event != Talk:
			t.Errorf("cut at %d: read as event %d", n, got.Event)
		}
	}
}

func TestWhoseATagIs(t *testing.T) {
	for _, c := range []struct {
		name, tag string
		want      bool
	}{
		{"postfix", "postfix/smtp", true},
		{"postfix", "postfix/slow/smtp", true},
		{"postfix", "postfix-out/smtp", false},
		{"postfix", "postfix2/smtp", false},
		{"postfix", "postfix", false},
		{"postfix-out", "postfix-out/smtp", true},
		{"postfix-out", "postfix/smtp", false},
		{"mail/out", "mail/out/qmgr", true},
		{"mail/out", "mail/qmgr", false},
		{"", "postfix/smtp", true},
		{"", "postfix-out/relay/smtp", true},
		{"", "edge/qmgr", true},
		{"", "dovecot/auth", false},
		{"", "qmgr", false},
	} {
		g := grammar
		g.SyslogName = c.name
		_, ok := g.Parse([]byte(stamp + c.tag + "[9]: statistics"))
		if ok != c.want {
			t.Errorf("tag %s for instance %q: %v", c.tag, c.name, ok)
		}
		if _, ok = g.Entry(Entry{At: at, Tag: c.tag, PID: 9, Message: []byte("statistics")}); ok != c.want {
			t.Errorf("journal entry %s for instance %q: %v", c.tag, c.name, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(stamp + "postfix/qmgr[9]: 4F1C2B3D4E: from=<a@b>, size=1, nrcpt=1 (queue active)"))
	f.Add([]byte("2026-11-23T17:37:24.123456+01:00 r postfix/smtp[1]: 4F1C2B3D4E: to=<\"a\\\"\"@b>, relay=n, delay=1, dsn=4.4.1, status=deferred (x)"))
	f.Add([]byte("Nov 23 17:37:1Nov 23 17:37:24 r postfix/smtpd[1]: warning: x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		was := string(b)
		l, ok := grammar.Parse(b)
		if string(b) != was {
			t.Fatal("the line was changed")
		}
		if ok && (!strings.Contains(was, string(l.ID)) || !strings.Contains(was, l.Text) || l.At.IsZero()) {
			t.Fatalf("read what is not there: %+v", l)
		}
	})
}
