package spool

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// field is what the table below expects of one header.
func field(name, value, problem string) Header {
	return Header{Name: name, Value: value, Malformed: problem != "", Problem: problem}
}

// headerSamples are beginnings of messages as they lie in real queues.
func headerSamples() []struct {
	name, text string
	want       []Header
	rest       string // what is left for the body
	end        HeaderEnd
} {
	blank := HeaderEnd{Blank: true}
	return []struct {
		name, text string
		want       []Header
		rest       string
		end        HeaderEnd
	}{
		{"sound", "From: a@x.example\nSubject: hi\n\nbody\n", []Header{field("From", "a@x.example", ""), field("Subject", "hi", "")}, "body\n", blank},
		{"folded", "Received: by relay\n\twith ESMTP\n  for <b@y>\nTo: b\n\n", []Header{field("Received", "by relay with ESMTP for <b@y>", ""), field("To", "b", "")}, "", blank},
		{"folded by blanks alone", "Subject: one\n \t\n two\n\n", []Header{field("Subject", "one two", "")}, "", blank},
		{"value on the next line", "Subject:\n hi\n\n", []Header{field("Subject", "hi", "")}, "", blank},
		{"line ends of the network", "From: a\r\nSubject: x\r\n y\r\n\r\nbody\r\n", []Header{field("From", "a", ""), field("Subject", "x y", "")}, "body\r\n", blank},
		{"empty value", "Subject:\nBcc: \n\n", []Header{field("Subject", "", ""), field("Bcc", "", "")}, "", blank},
		{"mailbox separator", "From a@x.example  Mon Jan  1 00:00:00 2026\nSubject: hi\n\n", []Header{field("", "From a@x.example  Mon Jan  1 00:00:00 2026", MailboxLine), field("Subject", "hi", "")}, "", blank},
		{"mailbox separator, escaped", ">From a@x Mon 00:00:00\nSubject: hi\n\n", []Header{field("", ">From a@x Mon 00:00:00", MailboxLine), field("Subject", "hi", "")}, "", blank},
		{"no colon", "Subject: hi\nthis is no header\nTo: b\n\nbody\n", []Header{field("Subject", "hi", ""), field("", "this is no header", NoColon), field("To", "b", "")}, "body\n", blank},
		{"no colon, folded", "X\n continued\nTo: b\n\n", []Header{field("", "X continued", NoColon), field("To", "b", "")}, "", blank},
		{"colon without name", ": value\nTo: b\n\n", []Header{field("", ": value", NoColon), field("To", "b", "")}, "", blank},
		{"leading blank", " lost: fold\nTo: b\n\n", []Header{field("", "lost: fold", NoFieldBefore), field("To", "b", "")}, "", blank},
		{"blank before the colon", "Subject : hi\n\n", []Header{field("Subject", "hi", OddName)}, "", blank},
		{"blank in the name", "Message ID: <1@x>\n\n", []Header{field("Message ID", "<1@x>", OddName)}, "", blank},
		{"8-bit name", "Betr\xc3\xa4ff: x\n\n", []Header{field("Betr\xc3\xa4ff", "x", OddName)}, "", blank},
		{"null byte", "Subject: a\x00b\n\n", []Header{field("Subject", "a\x00b", NullByte)}, "", blank},
		{"bare return", "Subject: a\rb\n\n", []Header{field("Subject", "a\rb", BareReturn)}, "", blank},
		{"two returns", "Subject: a\r\r\n\r\n", []Header{field("Subject", "a\r", BareReturn)}, "", blank},
		{"escape", "Subject: \x1b[2J\n\n", []Header{field("Subject", "\x1b[2J", ControlByte)}, "", blank},
		{"raw UTF-8", "Subject: Gr\xc3\xbc\xc3\x9fe\n\n", []Header{field("Subject", "Gr\xc3\xbc\xc3\x9fe", "")}, "", blank},
		{"raw Latin-1", "Subject: Gr\xfc\xdfe\n\n", []Header{field("Subject", "Gr\xfc\xdfe", UnknownCharset)}, "", blank},
		{"long line", "X: " + strings.Repeat("a", 1000) + "\n\n", []Header{field("X", strings.Repeat("a", 1000), TooLongLine)}, "", blank},
		{"very long line", "X: " + strings.Repeat("a", 100<<10) + "\nTo: b\n\nbody", []Header{field("X", strings.Repeat("a", 100<<10), TooLongLine), field("To", "b", "")}, "body", blank},
		{"long, but folded", "X: " + strings.Repeat("a", 900) + "\n " + strings.Repeat("b", 900) + "\n\n", []Header{field("X", strings.Repeat("a", 900)+" "+strings.Repeat("b", 900), "")}, "", blank},
		{"no headers", "\nbody\n", nil, "body\n", blank},
		{"nothing", "", nil, "", HeaderEnd{}},
		{"no body", "Subject: hi\n", []Header{field("Subject", "hi", "")}, "", HeaderEnd{}},
		{"no body, no line end", "Subject: hi", []Header{field("Subject", "hi", "")}, "", HeaderEnd{}},
		{"text alone", "hello\nthere\n", nil, "hello\nthere\n", HeaderEnd{}},
		{"indented text alone", "  hello\n  there\n", nil, "  hello\n  there\n", HeaderEnd{}},
		{"no blank line", "Subject: hi\nodd\nTo: b\nhello\n there\n", []Header{field("Subject", "hi", ""), field("", "odd", NoColon), field("To", "b", "")}, "hello\n there\n", HeaderEnd{}},
		{"only blank lines", "\n\n\n", nil, "\n\n", blank},
	}
}

func TestScanHeaders(t *testing.T) {
	for _, c := range headerSamples() {
		t.Run(c.name, func(t *testing.T) {
			got, end := ScanHeaders([]byte(c.text))
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Header{}, "Raw"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			if rest := c.text[end.Body:]; rest != c.rest {
				t.Errorf("body is %q, want %q", rest, c.rest)
			}
			end.Body = 0
			if end != c.end {
				t.Errorf("end is %+v, want %+v", end, c.end)
			}
		})
	}
}

// TestScanHeadersKeepsEveryByte puts the raw fields together again.
func TestScanHeadersKeepsEveryByte(t *testing.T) {
	for _, c := range headerSamples() {
		got, end := ScanHeaders([]byte(c.text))
		var raw strings.Builder
		for _, h := range got {
			raw.WriteString(h.Raw + "\n")
		}
		plain := strings.NewReplacer("\r", "")
		want := plain.Replace(c.text[:end.Body])
		if end.Blank {
			want = strings.TrimSuffix(want, "\n")
		}
		if have := plain.Replace(raw.String()); strings.TrimSuffix(have, "\n") != strings.TrimSuffix(want, "\n") {
			t.Errorf("%s: raw fields give %.80q, the text has %.80q", c.name, have, want)
		}
	}
}

func TestScanHeadersIsBounded(t *testing.T) {
	many := bytes.Repeat([]byte("X-Loop: again\n"), 100_000)
	folds := append([]byte("Subject: x\n"), bytes.Repeat([]byte(" y\n"), 1<<20)...)
	for _, c := range []struct {
		name    string
		text    []byte
		headers int
	}{
		{"100,000 fields", many, 1000},
		{"a million folds", folds, 1},
		{"one endless line", append([]byte("Subject: "), bytes.Repeat([]byte("x"), 1<<20)...), 1},
		{"100,000 lines that are no headers", bytes.Repeat([]byte("no header\n"), 100_000), 0},
		{"limit between the two bytes of a line end", append(bytes.Repeat([]byte("a"), maxHeaderBytes-1), "\r\n\r\nbody"...), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, end := ScanHeaders(c.text)
			if len(got) != c.headers || !end.Cut || end.Blank || end.Body > maxHeaderBytes {
				t.Fatalf("%d headers, end %+v; want %d and a cut", len(got), end, c.headers)
			}
			for _, h := range got {
				if len(h.Value) > maxHeaderBytes {
					t.Errorf("a value of %d bytes", len(h.Value))
				}
			}
		})
	}
	exact := append(bytes.Repeat([]byte("A: b\n"), 1000), "\nbody"...)
	if got, end := ScanHeaders(exact); len(got) != 1000 || end.Cut || string(exact[end.Body:]) != "body" {
		t.Errorf("exactly 1,000 fields: %d, %+v", len(got), end)
	}
	full := append([]byte("A: "), bytes.Repeat([]byte("b"), maxHeaderBytes-5)...)
	full = append(full, "\n\n"...)
	if got, end := ScanHeaders(full); len(got) != 1 || end.Cut || !end.Blank || end.Body != maxHeaderBytes {
		t.Errorf("exactly 256 KiB: %d headers, %+v", len(got), end)
	}
}

func TestMessageID(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"Message-ID: <1@x.example>\n", "<1@x.example>"},
		{"MESSAGE-id:\n <2@x.example>\n", "<2@x.example>"},
		{"Message-Id: <3@x> (added by relay)\n", "<3@x>"},
		{"Message-Id: junk <4@x>\n", "<4@x>"},
		{"Message-Id: no brackets\n", "no brackets"},
		{"Message-Id: <never closed\n", "<never closed"},
		{"Message-Id: <>\n", "<>"},
		{"Message-ID: <a@x>\nMessage-ID: <b@x>\n", "<a@x>"},
		{"Resent-Message-ID: <5@x>\n", ""},
		{"", ""},
	} {
		headers, _ := ScanHeaders([]byte(c.text))
		if got := MessageID(headers); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestDecodeWords(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"},
		{"=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"},
		{"=?UTF-8?B?R3LDvMOfZQ==?= =?utf-8?q?_aus?=", "Grüße aus"},
		{"=?iso-8859-1?q?Gr=FC=DFe?=", "Grüße"},
		{"=?iso-8859-15?q?10_=A4?=", "10 €"},
		{"=?windows-1251?B?z/Do4uXy?=", "Привет"},
		{"=?koi8-r?B?8NLJ18XU?=", "Привет"},
		{"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"},
		{"=?gb2312?B?xOO6ww==?=", "你好"},
		{"=?shift_jis?B?k/qWew==?=", "日本"},
		{"=?x-unknown?q?order_42_=FC?=", "order 42 ?"},
		{"=?x-unknown?q?order_=C3=BC?=", "order ü"},
		{"=?us-ascii?q?caf=E9?=", "caf\uFFFD"},
		{"=?utf-8?B?not base64!?= and =?utf-8?q?this?=", "=?utf-8?B?not base64!?= and this"},
		{"=?utf-8?X?what?=", "=?utf-8?X?what?="},
		{"=?utf-8?q?open", "=?utf-8?q?open"},
		{"=?", "=?"},
		{"raw \xfc =?utf-8?q?x?=", "raw \xfc x"},
		{"=?utf-8?q?=1B[2J?=", "\x1b[2J"},
		{"=?utf-8*de?q?x?=", "x"},
	} {
		if got := DecodeWords(c.in); got != c.want {
			t.Errorf("DecodeWords(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestDecodeWordsOfLongValue(t *testing.T) {
	var in, want strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&in, "=?utf-8?q?J=C3=B6rg_%d?= <j%d@x.example>, ", i, i)
		fmt.Fprintf(&want, "Jörg %d <j%d@x.example>, ", i, i)
	}
	if got := DecodeWords(in.String()); got != want.String() {
		t.Errorf("a list of %d bytes was decoded into %d bytes, want %d", in.Len(), len(got), want.Len())
	}
}

func FuzzScanHeaders(f *testing.F) {
	for _, c := range headerSamples() {
		if len(c.text) < 4096 {
			f.Add([]byte(c.text))
		}
	}
	f.Add([]byte("Subject: =?utf-8?q?a?= =?x?b?Zm9v?=\nMessage-ID: <1@x>\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		headers, end := ScanHeaders(text)
		if end.Body < 0 || end.Body > len(text) || len(headers) > maxHeaders || end.Blank && end.Cut {
			t.Fatalf("%d headers, end %+v of %d bytes", len(headers), end, len(text))
		}
		if !end.Blank && len(headers) > 0 && headers[len(headers)-1].Name == "" {
			t.Fatal("a nameless line at the end was taken for a header")
		}
		at := 0
		for _, h := range headers {
			// Every field stands in the text, in this order.
			i := bytes.Index(text[at:], []byte(h.Raw))
			if i < 0 || h.Raw == "" {
				t.Fatalf("field %q is not in the text behind byte %d", h.Raw, at)
			}
			at += i + len(h.Raw)
			if h.Malformed != (h.Problem != "") || h.Name == "" && !h.Malformed || strings.Contains(h.Value, "\n") {
				t.Fatalf("impossible field %+v", h)
			}
			if out := DecodeWords(h.Value); utf8.ValidString(h.Value) && !utf8.ValidString(out) {
				t.Fatalf("%q was decoded into %q, which is no UTF-8", h.Value, out)
			}
		}
		if at > end.Body {
			t.Fatalf("the headers end at byte %d and the body begins at %d", at, end.Body)
		}
		MessageID(headers)
	})
}
