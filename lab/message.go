package lab

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// message is one message to inject and, afterwards, what became of it.
type message struct {
	shape    string
	domain   string
	sender   string
	utf8     bool   // MAIL needs SMTPUTF8
	eightBit bool   // MAIL says BODY=8BITMIME
	notify   string // DSN NOTIFY
	saslUser string // for the shape "sasl"
	rcpts    []rcpt
	size     int
	content  []byte // with CRLF, not dot-stuffed
	queueID  string
}

type rcpt struct {
	number                   int
	token, addr, fate, reply string
}

func token(lab string, n int) string { return fmt.Sprintf("t-%s-%d", lab, n) }

func newMessage(lab, shape, domain string, first, width int, load Load) *message {
	m := &message{shape: shape, domain: domain, sender: load.Sender, size: defaultTo(load.Size, 1000)}
	if m.sender == "" {
		m.sender = fmt.Sprintf("s-%s-%d@customer.example", lab, first)
	}
	for i := range width {
		t := token(lab, first+i)
		m.rcpts = append(m.rcpts, rcpt{number: first + i, token: t, addr: t + "@" + domain})
	}
	m.write(nil, nil)
	return m
}

// write makes the content: ordinary headers, those given, and a body to the size asked for.
func (m *message) write(headers, body []byte) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\n", m.sender, m.rcpts[0].addr)
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s@customer.example>\r\n", time.Now().UTC().Format(time.RFC1123Z), m.rcpts[0].token)
	if !bytes.Contains(headers, []byte("Subject:")) {
		fmt.Fprintf(&b, "Subject: lab message %s\r\n", m.rcpts[0].token)
	}
	b.Write(headers)
	b.WriteString("\r\n")
	b.Write(body)
	const line = "This line stands in for what people write to each other; it only has to take up room.\r\n"
	for missing := m.size - b.Len(); missing > 0; missing = m.size - b.Len() {
		b.WriteString(line[max(0, len(line)-max(missing, 3)):])
	}
	m.content = b.Bytes()
}

func (m *message) settle(fate, reply string) {
	for i := range m.rcpts {
		if m.rcpts[i].fate == "" {
			m.rcpts[i].fate, m.rcpts[i].reply = fate, reply
		}
	}
}

func (m *message) fates() []Injected {
	list := make([]Injected, 0, len(m.rcpts))
	for _, r := range m.rcpts {
		list = append(list, Injected{Number: r.number, Token: r.token, Rcpt: r.addr, Sender: m.sender, Shape: m.shape, QueueID: m.queueID, Fate: r.fate, Reply: r.reply})
	}
	return list
}

// Shape is a kind of message.
type Shape struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	build   func(*message)
}

// Shapes lists the kinds of messages that Load.Shapes may name.
func Shapes() []Shape {
	var list []Shape
	for name, s := range shapes() {
		s.Name = name
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Shape) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func shapes() map[string]Shape {
	return map[string]Shape{
		"plain":       {Summary: "a text message", build: func(*message) {}},
		"null-sender": {Summary: "empty envelope sender, as bounces have", build: func(m *message) { m.sender = ""; m.write(nil, nil) }},
		"smtputf8": {Summary: "local part and subject in UTF-8 (SMTPUTF8)", build: func(m *message) {
			m.readdress(func(local string) string { return local + "-böhm" }, "")
			m.utf8 = true
			m.write([]byte("Subject: Grüße an 測試\r\n"), nil)
		}},
		"smtputf8-domain": {Summary: "domain in UTF-8 as well: bücher. and the domain", build: func(m *message) {
			m.readdress(func(local string) string { return local + "-böhm" }, "bücher."+m.domain)
			m.utf8 = true
			m.write(nil, nil)
		}},
		"long-lines": {Summary: "lines over 998 and over 2,048 bytes, in header and body", build: func(m *message) {
			long := strings.Repeat("0123456789", 500) + "\r\n"
			m.write([]byte("X-Long: "+long[2000:]), []byte(long[3900:]+long))
		}},
		"quoted": {Summary: "quoted local part with a space", build: func(m *message) {
			for i := range m.rcpts {
				m.rcpts[i].token += " quoted"
				m.rcpts[i].addr = `"` + m.rcpts[i].token + `"@` + m.domain
			}
			m.write(nil, nil)
		}},
		"extension": {Summary: "address extension: +news", build: func(m *message) {
			for i := range m.rcpts {
				m.rcpts[i].addr = m.rcpts[i].token + "+news@" + m.domain
			}
			m.write(nil, nil)
		}},
		"dsn":  {Summary: "NOTIFY=SUCCESS,FAILURE,DELAY with ORCPT, RET and ENVID", build: func(m *message) { m.notify = "SUCCESS,FAILURE,DELAY" }},
		"sasl": {Summary: "from an authenticated user", build: func(m *message) { m.saslUser = "newsletter@customer.example" }},
		"eight-bit": {Summary: "8-bit body, BODY=8BITMIME", build: func(m *message) {
			m.eightBit = true
			m.write([]byte("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"), []byte("Gr\xfc\xdfe aus K\xf6ln\r\n"))
		}},
		"big": {Summary: "one megabyte", build: func(m *message) { m.size = 1 << 20; m.write(nil, nil) }},
		"malformed": {Summary: "headers that break the grammar", build: func(m *message) {
			m.write([]byte("Subject\r\nSubject: second one\r\n: no name\r\nX Y: space in name\r\nContent-Type: text/plain; boundary=\"\r\n"+
				"To: undisclosed <<@@>>, ,\r\nX-Cut: =?utf-8?Q?=C3?=\r\n"), []byte(".leading dot\r\n..two\r\n"))
		}},
		"hostile": {Summary: "escape sequences, bare CR, bidi and zero-width characters in headers", build: func(m *message) {
			m.eightBit = true
			m.write([]byte("Subject: \x1b[2J\x1b]0;owned\x07pay \u202egpj.exe\u202c \u200bnow\r\nX-CR: one\rtwo\r\n"+
				"X-Markup: <script>alert(1)</script>\r\nReply-To: \"\x1b[31mroot\" <root@customer.example>\r\n"), nil)
		}},
	}
}

// readdress changes the local part, token included, and the domain if one is given.
func (m *message) readdress(local func(string) string, domain string) {
	if domain == "" {
		domain = m.domain
	}
	for i := range m.rcpts {
		m.rcpts[i].token = local(m.rcpts[i].token)
		m.rcpts[i].addr = m.rcpts[i].token + "@" + domain
	}
}
