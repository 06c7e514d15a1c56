package plan

import (
	"encoding/json"
	"errors"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"holdfast/postfix"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sample is a message with something in every field that can be asked for.
func sample() *postfix.Message {
	return &postfix.Message{
		Queue: postfix.Deferred, ID: "9FBF1140142", Arrival: noon.Add(-2 * time.Hour), NextTry: noon.Add(10 * time.Minute),
		Expires: noon.Add(118 * time.Hour), Size: 20_000, Sender: "News@Shop.example",
		Recipients: []postfix.Recipient{
			{
				Address: "Kim@mail.example.com", Original: "sales@shop.example", NextHop: "[mx.example.com]:587", Cause: postfix.DNS, Status: "4.4.3",
				Reason: "Host or domain name not found. Name service error for name=mx.example.com type=A: Host not found, try again",
			},
			{
				Address: "lee@b\xfccher.example", NextHop: "smtp.partner.example", Cause: postfix.Greylisting, Status: "4.7.1", Host: "mx.partner.example",
				Reason: "host mx.partner.example[192.0.2.7] said: 450 4.7.1 <lee@b\xfccher.example>: Recipient address rejected: Greylisted (in reply to RCPT TO command)",
			},
			{Address: "pat@xn--bcher-kva.example"},
		},
		TotalRecipients: 4, Done: 1, SASLUser: "Newsletter",
		Client:    postfix.Client{Name: "web1.dmz.Shop.example", Address: "10.1.2.3", Helo: "web1", Protocol: "ESMTP"},
		MessageID: "<abc.123@Shop.example>",
	}
}

func sampleHeaders() ([]Header, error) {
	return []Header{
		{Name: "Received", Value: "from web1 by relay"},
		{Name: "Subject", Value: "Rechnung für März"},
		{Name: "subject", Value: "a second one"},
		{Name: "X-Empty", Value: ""},
		{Name: "Message-ID", Value: "<abc.123@Shop.example>"},
	}, nil
}

func match(t *testing.T, s Selector, m *postfix.Message) bool {
	t.Helper()
	c, err := s.Compile(noon)
	if err != nil {
		t.Fatalf("compile %s: %v", s, err)
	}
	in, err := c.Match(m, sampleHeaders)
	if err != nil {
		t.Fatalf("match %s: %v", s, err)
	}
	return in
}

func TestKinds(t *testing.T) {
	type q = postfix.Queue
	for _, test := range []struct {
		name string
		s    Selector
		want bool
	}{
		{"zero", Selector{}, false},
		{"all", Selector{All: true}, true},
		{"all, narrowed", Selector{All: true, Queues: []q{postfix.Hold}}, false},
		{"queue", Selector{Queues: []q{postfix.Hold, postfix.Deferred}}, true},
		{"empty list", Selector{Queues: []q{postfix.Deferred}, IDs: []postfix.QueueID{}}, false},
		{"empty texts", Selector{All: true, Texts: []string{}}, false},
		{"empty headers", Selector{All: true, Headers: []string{}}, false},
		{"empty clients", Selector{All: true, Clients: []string{}}, false},
		{"id", Selector{IDs: []postfix.QueueID{"9FBF1140142"}}, true},
		{"id in another case", Selector{IDs: []postfix.QueueID{"9fbf1140142"}}, false},

		{"sender", Selector{Senders: []string{"news@shop.example"}}, true},
		{"sender in brackets", Selector{Senders: []string{"<news@shop.example>"}}, true},
		{"sender's domain", Selector{Senders: []string{"@SHOP.example"}}, true},
		{"sender's domain, glob", Selector{Senders: []string{"@*.example"}}, true},
		{"sender's parent domain", Selector{Senders: []string{"@example"}}, false},
		{"sender below a domain", Selector{Senders: []string{"@.example"}}, true},
		{"sender, glob", Selector{Senders: []string{"ne*@*.exam*le"}}, true},
		{"sender, glob over all", Selector{Senders: []string{"ews*"}}, false},
		{"sender, literal star", Selector{Senders: []string{`\*@shop.example`}}, false},
		{"null sender", Selector{Senders: []string{"<>"}}, false},

		{"recipient", Selector{Recipients: []string{"kim@MAIL.example.com"}}, true},
		{"recipient before rewriting", Selector{Recipients: []string{"sales@shop.example"}}, true},
		{"recipient with bytes", Selector{Recipients: []string{"lee@b*cher.example"}}, true},
		{"recipient, null", Selector{Recipients: []string{"<>"}}, false},
		{"domain", Selector{Domains: []string{"mail.example.com"}}, true},
		{"domain with a dot behind", Selector{Domains: []string{"mail.example.com."}}, true},
		{"parent domain", Selector{Domains: []string{"example.com"}}, false},
		{"sub-domains", Selector{Domains: []string{".example.com"}}, true},
		{"sub-domains are not itself", Selector{Domains: []string{".mail.example.com"}}, false},
		{"not the end of a label", Selector{Domains: []string{".xample.com"}}, false},
		{"domain, glob", Selector{Domains: []string{"m*.example.*"}}, true},
		{"domain, U-label", Selector{Domains: []string{"bücher.example"}}, true},
		{"domain before rewriting", Selector{Domains: []string{"shop.example"}}, false},
		{"next hop, host", Selector{NextHops: []string{"MX.example.com"}}, true},
		{"next hop, whole", Selector{NextHops: []string{"[mx.example.com]:587"}}, true},
		{"next hop, other port", Selector{NextHops: []string{"[mx.example.com]:25"}}, false},
		{"next hop, below", Selector{NextHops: []string{".partner.example"}}, true},
		{"next hop, glob", Selector{NextHops: []string{"[*]:587"}}, true},
		{"cause", Selector{Causes: []postfix.Cause{postfix.TLS, postfix.DNS}}, true},
		{"other cause", Selector{Causes: []postfix.Cause{postfix.TLS}}, false},
		{"text", Selector{Texts: []string{"HOST NOT found"}}, true},
		{"text, regexp", Selector{Texts: []string{`/name=mx\.\S+ TYPE=/`}}, true},
		{"text, regexp with case", Selector{Texts: []string{`/(?-i)TYPE=/`}}, false},
		{"text, not as glob", Selector{Texts: []string{"host*found"}}, false},

		{"one recipient: domain and its cause", Selector{Domains: []string{"mail.example.com"}, Causes: []postfix.Cause{postfix.DNS}}, true},
		{"two recipients: domain and another's cause", Selector{Domains: []string{"mail.example.com"}, Causes: []postfix.Cause{postfix.Greylisting}}, false},
		{"two recipients: hop and another's text", Selector{NextHops: []string{"mx.example.com"}, Texts: []string{"greylisted"}}, false},

		{"client name", Selector{Clients: []string{"web1.dmz.shop.example"}}, true},
		{"client below a domain", Selector{Clients: []string{".shop.example"}}, true},
		{"client, glob", Selector{Clients: []string{"web*"}}, true},
		{"client address", Selector{Clients: []string{"10.1.2.3"}}, true},
		{"client address in brackets", Selector{Clients: []string{"[10.1.2.3]"}}, true},
		{"client address, mapped", Selector{Clients: []string{"::ffff:10.1.2.3"}}, true},
		{"client network", Selector{Clients: []string{"192.0.2.0/24", "10.0.0.0/8"}}, true},
		{"other network", Selector{Clients: []string{"10.2.0.0/16", "::/0"}}, false},
		{"login", Selector{SASLUsers: []string{"newsletter"}}, true},
		{"login, glob", Selector{SASLUsers: []string{"*letter"}}, true},
		{"login, not below a dot", Selector{SASLUsers: []string{".newsletter"}}, false},

		{"older", Selector{OlderThan: Duration(2 * time.Hour)}, true},
		{"not older", Selector{OlderThan: Duration(2*time.Hour + time.Second)}, false},
		{"newer", Selector{NewerThan: Duration(2*time.Hour + time.Second)}, true},
		{"not newer", Selector{NewerThan: Duration(2 * time.Hour)}, false},
		{"larger", Selector{LargerThan: 19_999}, true},
		{"not larger", Selector{LargerThan: 20_000}, false},

		{"message ID", Selector{MessageIDs: []string{"abc.123@Shop.example"}}, true},
		{"message ID in brackets", Selector{MessageIDs: []string{" <abc.123@Shop.example>"}}, true},
		{"message ID in another case", Selector{MessageIDs: []string{"abc.123@shop.example"}}, false},
		{"header", Selector{Headers: []string{"Subject: rechnung FÜR"}}, true},
		{"header, second of a name", Selector{Headers: []string{"SUBJECT:second"}}, true},
		{"header, regexp", Selector{Headers: []string{"subject: /^rech.*rz$/"}}, true},
		{"header is there", Selector{Headers: []string{"X-Empty:"}}, true},
		{"header is not there", Selector{Headers: []string{"X-Other:"}}, false},
		{"header, other value", Selector{Headers: []string{"Received: Rechnung"}}, false},

		{"where", Selector{Where: `size > bytes("10k") and "dns" in causes`}, true},
		{"where narrows", Selector{All: true, Where: `size > bytes("1M")`}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := match(t, test.s, sample()); got != test.want {
				t.Errorf("%s selects: %t, want %t", test.s, got, test.want)
			}
		})
	}
}

func TestOddMessages(t *testing.T) {
	null := &postfix.Message{Queue: postfix.Active, ID: "A0000B"}
	for _, test := range []struct {
		name string
		s    Selector
		m    *postfix.Message
		want bool
	}{
		{"null sender", Selector{Senders: []string{"<>"}}, null, true},
		{"a star is also nothing", Selector{Senders: []string{"*"}}, null, true},
		{"no address before the domain", Selector{Senders: []string{"*@*"}}, null, false},
		{"no recipient is left", Selector{Recipients: []string{"*"}}, null, false},
		{"no login", Selector{SASLUsers: []string{"*"}}, null, false},
		{"no client", Selector{Clients: []string{"*", "0.0.0.0/0", "::/0"}}, null, false},
		{"client without a name", Selector{Clients: []string{"unknown"}}, &postfix.Message{Client: postfix.Client{Name: "unknown", Address: "192.0.2.1"}}, true},
		{"client address of IPv6", Selector{Clients: []string{"2001:db8::/32"}}, &postfix.Message{Client: postfix.Client{Address: "2001:db8::1"}}, true},
		{"client address with a zone", Selector{Clients: []string{"fe80::/10"}}, &postfix.Message{Client: postfix.Client{Address: "fe80::1%eth0"}}, true},
		{"client address mapped", Selector{Clients: []string{"192.0.2.0/24"}}, &postfix.Message{Client: postfix.Client{Address: "::ffff:192.0.2.9"}}, true},
		{"client address that is none", Selector{Clients: []string{"::/0", "0.0.0.0/0"}}, &postfix.Message{Client: postfix.Client{Address: "[UNAVAILABLE]"}}, false},
		{"arrived in the future", Selector{NewerThan: Duration(time.Minute)}, &postfix.Message{Arrival: noon.Add(time.Hour)}, true},
		{"domain literal", Selector{Domains: []string{"[192.0.2.1]"}}, &postfix.Message{Recipients: []postfix.Recipient{{Address: "a@[192.0.2.1]"}}}, true},
		{"quoted @ in a local part", Selector{Domains: []string{"b.example"}}, &postfix.Message{Recipients: []postfix.Recipient{{Address: "a@x@b.example"}}}, true},
		{"ends of a pattern do not overlap", Selector{Senders: []string{"kim@x*m@x"}}, &postfix.Message{Sender: "kim@x"}, false},
		{"literal star", Selector{Senders: []string{`\*`}}, &postfix.Message{Sender: "*"}, true},
		{"literal backslashes", Selector{Senders: []string{`a\\b\c`}}, &postfix.Message{Sender: `a\b\c`}, true},
		{"different bytes stay different", Selector{Senders: []string{"\ufffd@x"}}, &postfix.Message{Sender: "\xff@x"}, false},
		{"next hop IPv6", Selector{NextHops: []string{"smtp"}}, &postfix.Message{Recipients: []postfix.Recipient{{Address: "a@b", NextHop: "smtp:[2001:db8::1]:25"}}}, true},
		{"next hop IPv6, whole", Selector{NextHops: []string{"[2001:db8::1]:*"}}, &postfix.Message{Recipients: []postfix.Recipient{{Address: "a@b", NextHop: "[2001:db8::1]:25"}}}, true},
		{"no next hop", Selector{NextHops: []string{"*"}}, &postfix.Message{Recipients: []postfix.Recipient{{Address: "a@b"}}}, false},
		{"broken bracket", Selector{NextHops: []string{"x"}}, &postfix.Message{Recipients: []postfix.Recipient{{Address: "a@b", NextHop: "[x"}}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := match(t, test.s, test.m); got != test.want {
				t.Errorf("%s selects: %t, want %t", test.s, got, test.want)
			}
		})
	}
}

// What is not known is neither inside nor outside, but another condition may
// settle the matter.
func TestCannotTell(t *testing.T) {
	m := sample()
	m.Arrival, m.Expires = time.Time{}, time.Time{}
	for _, s := range []Selector{
		{OlderThan: Duration(time.Hour)},
		{NewerThan: Duration(time.Hour)},
		{Where: `age > duration("1h")`},
		{Where: `expires_in < duration("1h")`},
	} {
		c, err := s.Compile(noon)
		if err != nil {
			t.Fatal(err)
		}
		in, err := c.Match(m, nil)
		var e *postfix.Error
		if in || !errors.As(err, &e) || e.Kind != postfix.CannotTell {
			t.Errorf("%s: %t, %v; want an error of kind CannotTell", s, in, err)
		}
		s.Senders = []string{"somebody@else.example"}
		if c, err = s.Compile(noon); err != nil {
			t.Fatal(err)
		}
		if in, err = c.Match(m, nil); in || err != nil {
			t.Errorf("%s: %t, %v; want false", s, in, err)
		}
	}
	c, err := Selector{OlderThan: Duration(time.Hour), Where: "size < 10"}.Compile(noon)
	if err != nil {
		t.Fatal(err)
	}
	if in, err := c.Match(m, nil); in || err != nil {
		t.Errorf("excluded by its size: %t, %v; want false", in, err)
	}
}

func TestHeadersAreReadWhenNeeded(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, test := range []struct {
		name  string
		s     Selector
		m     *postfix.Message
		needs bool
		reads int
	}{
		{"no headers", Selector{All: true, Where: "size > 1"}, sample(), false, 0},
		{"zero", Selector{}, sample(), false, 0},
		{"header", Selector{Headers: []string{"Subject: März", "Received: x"}}, sample(), true, 1},
		{"excluded before", Selector{Headers: []string{"Subject: März"}, Queues: []postfix.Queue{postfix.Hold}}, sample(), true, 0},
		{"message ID is known", Selector{MessageIDs: []string{"x"}}, sample(), true, 0},
		{"message ID is not known", Selector{MessageIDs: []string{"x"}}, &postfix.Message{}, true, 1},
		{"where names headers", Selector{Where: `any(headers, .name == "subject")`}, sample(), true, 1},
		{"where names the message ID", Selector{Where: `message_id == "x"`}, sample(), true, 0},
		{"all at once", Selector{MessageIDs: []string{"abc.123@Shop.example"}, Headers: []string{"Subject:"}, Where: `len(headers) == 5`}, &postfix.Message{}, true, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := test.s.Compile(noon)
			if err != nil {
				t.Fatal(err)
			}
			if c.NeedsHeaders() != test.needs {
				t.Errorf("NeedsHeaders is %t", c.NeedsHeaders())
			}
			reads := 0
			if _, err := c.Match(test.m, func() ([]Header, error) { reads++; return sampleHeaders() }); err != nil {
				t.Fatal(err)
			}
			if reads != test.reads {
				t.Errorf("headers were read %d times, want %d", reads, test.reads)
			}
			if test.reads == 0 {
				return
			}
			_, err = c.Match(test.m, func() ([]Header, error) { return nil, broken })
			var e *postfix.Error
			if !errors.Is(err, broken) || !errors.As(err, &e) || e.Kind != postfix.CannotTell {
				t.Errorf("unreadable headers give %v", err)
			}
			if _, err = c.Match(test.m, nil); !errors.As(err, &e) || e.Kind != postfix.CannotTell {
				t.Errorf("without a way to headers: %v", err)
			}
		})
	}
}

func TestNeedsSpool(t *testing.T) {
	s := Selector{Clients: []string{"a"}, Senders: []string{"b"}, Headers: []string{"c:"}, Where: `done > 0 and any(recipients, .host == "x" or .domain == "y") and helo == ""`}
	c, err := s.Compile(noon)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--client", "--header", "recipients[].host", "done", "helo"}
	got := c.NeedsSpool()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMistakes(t *testing.T) {
	long := strings.Repeat("a", maxPattern+1)
	for _, test := range []struct {
		name     string
		s        Selector
		flag     string
		contains string
	}{
		{"queue", Selector{Queues: []postfix.Queue{postfix.NoQueue}}, "--queue", "no such queue"},
		{"queue number", Selector{Queues: []postfix.Queue{99}}, "--queue", "no such queue"},
		{"id", Selector{IDs: []postfix.QueueID{"ABC*"}}, `--id "ABC*"`, "not a queue ID"},
		{"empty id", Selector{IDs: []postfix.QueueID{""}}, "--id", "not a queue ID"},
		{"empty sender", Selector{Senders: []string{""}}, `--sender ""`, "no value"},
		{"blank sender", Selector{Senders: []string{"a", " "}}, `--sender " "`, "no value"},
		{"sender of no domain", Selector{Senders: []string{"@"}}, `--sender "@"`, "no domain"},
		{"long", Selector{Senders: []string{long}}, "--sender", "longer than"},
		{"bytes", Selector{Recipients: []string{"\xff@x"}}, `--recipient "\xff@x"`, "UTF-8"},
		{"domain with @", Selector{Domains: []string{"a@b"}}, `--domain "a@b"`, "an address"},
		{"domain of dots", Selector{Domains: []string{"."}}, `--domain "."`, "no name"},
		{"next hop", Selector{NextHops: []string{""}}, "--next-hop", "no value"},
		{"cause", Selector{Causes: []postfix.Cause{"dsn"}}, `--cause "dsn"`, `did you mean "dns"?`},
		{"cause, near", Selector{Causes: []postfix.Cause{"throttling"}}, "--cause", `did you mean "remote-throttling"?`},
		{"no cause", Selector{Causes: []postfix.Cause{""}}, "--cause", "no such cause"},
		{"text", Selector{Texts: []string{"/a(/"}}, `--text "/a(/"`, "missing closing )"},
		{"text of slashes", Selector{Texts: []string{"//"}}, "--text", "no regular expression"},
		{"client address", Selector{Clients: []string{"10.1.2.300"}}, "--client", "not an IP address"},
		{"client address of IPv6", Selector{Clients: []string{"2001:db8::x"}}, "--client", "not an IP address"},
		{"client network", Selector{Clients: []string{"10.0.0.0/33"}}, "--client", "not a network"},
		{"client host bits", Selector{Clients: []string{"10.1.2.3/8"}}, "--client", "did you mean 10.0.0.0/8?"},
		{"login", Selector{SASLUsers: []string{""}}, "--sasl-user", "no value"},
		{"older", Selector{OlderThan: -1}, "--older-than", "outside"},
		{"newer", Selector{NewerThan: 1 << 62}, "--newer-than", "outside"},
		{"larger", Selector{LargerThan: -1}, "--larger-than", "outside"},
		{"nobody", Selector{OlderThan: Duration(time.Hour), NewerThan: Duration(time.Minute)}, "--newer-than", "no message"},
		{"message ID", Selector{MessageIDs: []string{""}}, "--message-id", "no value"},
		{"header", Selector{Headers: []string{"Subject"}}, "--header", "no colon"},
		{"header name", Selector{Headers: []string{"Sub ject: x"}}, "--header", "name of a header"},
		{"header without a name", Selector{Headers: []string{": x"}}, "--header", "name of a header"},
		{"header regexp", Selector{Headers: []string{"X: /[/"}}, "--header", "regular expression"},
		{"where", Selector{Where: "  "}, "--where", "no value"},
		{"beside all", Selector{All: true, Texts: []string{"/*/"}}, "--text", "missing argument"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.s.Compile(noon)
			var e *postfix.Error
			if !errors.As(err, &e) || e.Kind != postfix.Usage {
				t.Fatalf("error is %v, want one of kind Usage", err)
			}
			if !strings.Contains(e.Object, test.flag) || !strings.Contains(e.Error(), test.contains) || e.Hint == "" {
				t.Errorf("error is %q with hint %q", e, e.Hint)
			}
			if strings.ContainsFunc(e.Error(), func(r rune) bool { return r < ' ' || r > '~' }) || len(e.Error()) > 400 {
				t.Errorf("error is not fit for a terminal: %q", e)
			}
		})
	}
}

func TestSet(t *testing.T) {
	var s Selector
	for _, f := range [][2]string{
		{"queue", "hold, deferred"},
		{"id", "AB1,AB2"},
		{"id", "AB3"},
		{"sender", "a,b@x"},
		{"recipient", "r@x"},
		{"domain", "x"},
		{"next-hop", "h"},
		{"cause", "dns,tls"},
		{"text", "t, u"},
		{"client", "10.0.0.1"},
		{"sasl-user", "u"},
		{"older-than", "1h"},
		{"newer-than", "2d"},
		{"larger-than", "1k"},
		{"message-id", "m"},
		{"header", "H: v"},
		{"where", "size > 1"},
		{"all", "true"},
	} {
		if err := s.Set(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := Selector{
		All: true, Queues: []postfix.Queue{postfix.Hold, postfix.Deferred}, IDs: []postfix.QueueID{"AB1", "AB2", "AB3"},
		Senders: []string{"a,b@x"}, Recipients: []string{"r@x"}, Domains: []string{"x"}, NextHops: []string{"h"},
		Causes: []postfix.Cause{postfix.DNS, postfix.TLS}, Texts: []string{"t, u"}, Clients: []string{"10.0.0.1"}, SASLUsers: []string{"u"},
		OlderThan: Duration(time.Hour), NewerThan: Duration(48 * time.Hour), LargerThan: 1024, MessageIDs: []string{"m"}, Headers: []string{"H: v"}, Where: "size > 1",
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	for _, f := range [][2]string{
		{"older-than", "2h"}, {"larger-than", "1"}, {"where", "true"}, {"all", "perhaps"}, {"queue", "hold,defered"}, {"queue", ""}, {"id", ","}, {"nonsense", "x"}, {"senders", "x"},
	} {
		var e *postfix.Error
		if err := s.Set(f[0], f[1]); !errors.As(err, &e) || e.Kind != postfix.Usage {
			t.Errorf("Set(%q, %q) = %v, want an error of kind Usage", f[0], f[1], err)
		}
	}
}

// Every field has a flag and every flag a field: a kind that one of the two
// forgets would be dropped without a word.
func TestEveryFieldHasAFlag(t *testing.T) {
	flags := Flags()
	fields := reflect.VisibleFields(reflect.TypeFor[Selector]())
	if len(flags) != len(fields) {
		t.Fatalf("%d flags for %d fields", len(flags), len(fields))
	}
	for i, f := range flags {
		name, _, _ := strings.Cut(fields[i].Tag.Get("json"), ",")
		if got := strings.ReplaceAll(f.Name, "-", "_"); got != name && got+"s" != name {
			t.Errorf("flag --%s stands beside the field %q", f.Name, name)
		}
		if f.Doc == "" || f.Repeated != (fields[i].Type.Kind() == reflect.Slice) {
			t.Errorf("flag is described wrongly: %+v", f)
		}
	}
}

func TestString(t *testing.T) {
	for _, test := range []struct {
		s    Selector
		want string
	}{
		{Selector{}, ""},
		{Selector{All: true}, "--all"},
		{Selector{IDs: []postfix.QueueID{}}, "--id ''"},
		{Selector{Senders: []string{"b", "<>", "b"}, Queues: []postfix.Queue{postfix.Hold}}, "--queue hold --sender '<>' --sender b"},
		{Selector{Texts: []string{"it's $(reboot)"}}, `--text 'it'\''s $(reboot)'`},
		{Selector{Texts: []string{"a\x1b]0;x\a\n1"}}, `--text $'a\033]0;x\007\0121'`},
		{Selector{Texts: []string{"\u202e'x\\"}}, `--text $'\342\200\256\'x\\'`},
		{Selector{LargerThan: 10 << 20, OlderThan: Duration(90 * time.Minute)}, "--older-than 1h30m --larger-than 10M"},
	} {
		if got := test.s.String(); got != test.want {
			t.Errorf("%+v is written\n%s, want\n%s", test.s, got, test.want)
		}
	}
}

// What String writes is pasted into a shell: a shell must give back the value,
// whatever it holds.
func TestShellQuoteInAShell(t *testing.T) {
	var values []string
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.SampledFrom([]rune("a1' \\\"$`!*?~#;&|<>(){}[]\x1b\n\t\u009b\u202e-=")))).Draw(t, "value")
		values = append(values, strings.ReplaceAll(v, "\x00", ""))
	})
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = shellQuote(v)
		if strings.ContainsFunc(quoted[i], func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e }) {
			t.Errorf("%q is shown as %q", v, quoted[i])
		}
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-c", `printf '%s\0' `+strings.Join(quoted, " ")).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if diff := cmp.Diff(values, got); diff != "" {
		t.Error(diff)
	}
}

func TestJSON(t *testing.T) {
	s := Selector{
		All: true, Queues: []postfix.Queue{postfix.Hold}, IDs: []postfix.QueueID{"AB1"}, Senders: []string{"<>"}, Recipients: []string{"r@x"},
		Domains: []string{"x"}, NextHops: []string{"h"}, Causes: []postfix.Cause{postfix.DNS}, Texts: []string{}, Clients: []string{"10.0.0.1"},
		SASLUsers: []string{"u"}, OlderThan: Duration(36 * time.Hour), NewerThan: Duration(48 * time.Hour), LargerThan: 10 << 20,
		MessageIDs: []string{"m"}, Headers: []string{"H: v"}, Where: "size > 1",
	}
	// Names of this contract are never changed (docs/json.md).
	const want = `{"all":true,"queues":["hold"],"ids":["AB1"],"senders":["\u003c\u003e"],"recipients":["r@x"],"domains":["x"],` +
		`"next_hops":["h"],"causes":["dns"],"texts":[],"clients":["10.0.0.1"],"sasl_users":["u"],"older_than":"1d12h","newer_than":"2d",` +
		`"larger_than":"10M","message_ids":["m"],"headers":["H: v"],"where":"size \u003e 1"}`
	got, err := json.Marshal(s)
	if err != nil || string(got) != want {
		t.Fatalf("JSON is\n%s, %v, want\n%s", got, err, want)
	}
	var back Selector
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Error(diff)
	}
	if got, err := json.Marshal(Selector{}); err != nil || string(got) != "{}" {
		t.Errorf("the zero selection is %s, %v", got, err)
	}
}

func TestJSONIsStrict(t *testing.T) {
	for text, complaint := range map[string]string{
		`null`: "not a JSON object", `[]`: "not a JSON object", `"all"`: "not a JSON object",
		`{"All":true}`: "unknown name", `{"sender":["a"]}`: "unknown name", `{"ids":["A"],"ids":["B"]}`: "twice",
		`{"ids":null}`: "not a list", `{"where":null}`: "null", `{"ids":["A",null]}`: "null", `{"senders":[""]}`: "no value", `{"where":""}`: "no value",
		`{"older_than":"0s"}`: "more than zero", `{"older_than":7200}`: "older_than", `{"older_than":"2 hours"}`: "no unit",
		`{"queues":["defer"]}`: "unknown queue", `{"queues":"hold"}`: "not a list", `{"ids":"A"}`: "not a list", `{"all":"yes"}`: "all", `{"larger_than":""}`: "no value",
	} {
		s := Selector{All: true}
		err := s.UnmarshalJSON([]byte(text))
		var e *postfix.Error
		if !errors.As(err, &e) || e.Kind != postfix.Usage || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s gives %v, want a usage error with %q", text, err, complaint)
		}
		if diff := cmp.Diff(Selector{All: true}, s); diff != "" {
			t.Errorf("%s was refused and yet changed the selection: %s", text, diff)
		}
	}
	for _, text := range []string{`{"all":true}{}`, `{"all":true} x`, `{"all"`, `{"all":tru}`, ``} {
		var s Selector
		if err := s.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
