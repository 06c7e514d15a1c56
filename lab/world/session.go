package world

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// inbox is the SMTP server of one peer. What it does with the mail is the
// peer's business, through take.
type inbox struct {
	gate  *gate
	clock *clock
	certs *certs
	hosts []string // host name by index of the door's address
	// take takes a message over. It returns the reply to the final dot, which is
	// a promise if it is a 250.
	take func(ctx context.Context, d *delivery) Reply
	// unanswered hears of a promise that could not be sent.
	unanswered func(d *delivery)
	keep       bool // keep the whole content, not only its head
	xforward   bool
}

// delivery is one message as it came in.
type delivery struct {
	id       string
	host     string
	client   string
	user     string
	tls      bool
	sender   string
	mailArgs string
	rcpts    []recipient
	xforward []string // as received, in order: "NAME=...", ...
	head     []byte   // the first headBytes of the content
	content  []byte   // all of it, dot stuffing undone, if the inbox keeps it
	bytes    int64
	lost     bool // the reply will be withheld on purpose
}

type recipient struct{ addr, args string }

const (
	headBytes   = 16 << 10
	lineBytes   = 16 << 10
	defaultIdle = Duration(5 * time.Minute)
)

// errEnd ends a session without being a fault of anybody.
var errEnd = errors.New("end of session")

// session is one client's connection.
type session struct {
	*inbox
	ctx    context.Context
	conn   net.Conn // the TLS layer, once there is one
	raw    net.Conn
	r      *bufio.Reader
	w      *bufio.Writer
	host   string
	client string

	greeted  bool
	barred   bool // refused at the banner: only QUIT is left
	tls      bool
	user     string
	xclient  []string
	mail     *delivery
	envelope []string // recipients as the gate wants them
}

// serve runs one session to its end.
func (b *inbox) serve(ctx context.Context, conn net.Conn, addr int) {
	s := &session{
		inbox: b, ctx: ctx, conn: conn, raw: conn, client: clientOf(conn), host: b.hosts[addr],
		r: bufio.NewReaderSize(conn, lineBytes), w: bufio.NewWriter(conn),
	}
	defer b.gate.leave(s.client)
	if err := s.greet(b.gate.enter(s.client)); err != nil {
		return
	}
	for {
		line, err := s.readLine()
		if err != nil {
			return
		}
		if err := s.command(line); err != nil {
			_ = s.w.Flush() // a client that has left needs no last word
			return
		}
	}
}

func (s *session) greet(v *verdict) error {
	switch done, err := s.obey(StageBanner, v); {
	case err != nil:
		_ = s.w.Flush() // as above
		return err
	case done:
		s.barred = v.reply.refusal()
		return nil
	}
	text := s.gate.policy().Banner
	if text == "" {
		text = "ESMTP"
	}
	return s.reply(Reply{Code: 220, Text: s.host + " " + text})
}

// obey does what the gate wants instead of the usual, and reports whether the
// usual is thereby done.
func (s *session) obey(stage Stage, v *verdict) (done bool, err error) {
	if v == nil {
		return false, nil
	}
	if v.delay > 0 {
		if err := s.w.Flush(); err != nil {
			return true, errEnd
		}
		if !s.pause(v.delay) {
			return true, errEnd
		}
	}
	if v.cut != "" {
		s.gate.count(func(n *SMTPCounters) { n.Cuts[string(stage)]++ })
		s.cut(v.cut)
		return true, errEnd
	}
	if v.reply == nil {
		return false, nil
	}
	if err := s.reply(*v.reply); err != nil {
		return true, err
	}
	if v.close || v.reply.Code == 421 {
		return true, errEnd
	}
	return true, nil
}

func (s *session) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// cut ends the connection in one of the ways that leave a client wondering.
func (s *session) cut(how Cut) {
	switch how {
	case CutReset:
		if c, ok := s.raw.(*net.TCPConn); ok {
			_ = c.SetLinger(0) // without it the reset is an ordinary close
		}
	case CutHang:
		s.patience(0)
		// Reading notices when the client leaves; not reading would keep its
		// session open, and counted, for ever.
		_, _ = io.Copy(io.Discard, s.raw)
	}
	_ = s.raw.Close() // whatever comes of it, the session is over
}

// reply sends an answer, late if the peer is a tarpit. It is flushed when the
// client has nothing more to say, as pipelining wants it (RFC 2920 3.2).
func (s *session) reply(r Reply) error {
	if t := s.gate.policy().Tarpit; t > 0 {
		if err := s.w.Flush(); err != nil || !s.clock.sleep(s.ctx, t) {
			return errEnd
		}
	}
	s.gate.replied(s.client, r)
	if _, err := s.w.Write(r.wire()); err != nil {
		return errEnd
	}
	return nil
}

func (s *session) say(code int, enhanced, text string) error {
	return s.reply(Reply{Code: code, Enhanced: enhanced, Text: text})
}

// patience sets how long the next read may take; 0 is for ever. It reports
// whether the peer is still open: a peer that shuts expires all its
// connections once, and that must not be undone here.
func (s *session) patience(d time.Duration) bool {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	if err := s.raw.SetReadDeadline(until); err != nil || s.ctx.Err() != nil {
		expire(s.raw)
		return false
	}
	return true
}

// await prepares for a read that may block.
func (s *session) await() error {
	if err := s.w.Flush(); err != nil {
		return err
	}
	idle := s.gate.policy().Idle
	wait := s.clock.real(idle)
	if idle == 0 {
		wait = time.Duration(defaultIdle)
	}
	if !s.patience(wait) {
		return errEnd
	}
	return nil
}

func (s *session) buffered() bool {
	b, err := s.r.Peek(s.r.Buffered())
	return err == nil && strings.IndexByte(string(b), '\n') >= 0
}

// readLine reads a command line without its ending.
func (s *session) readLine() (string, error) {
	if !s.buffered() {
		if err := s.await(); err != nil {
			return "", err
		}
	}
	line, err := s.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = s.r.ReadSlice('\n')
		}
		return "?", err // an unknown command
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

func (s *session) command(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if s.barred && verb != "QUIT" {
		return s.say(503, "5.5.1", "you were told that there is no service here")
	}
	switch verb {
	case "EHLO", "HELO":
		return s.hello(verb, rest)
	case "STARTTLS":
		return s.startTLS()
	case "AUTH":
		return s.auth(rest)
	case "MAIL":
		return s.mailFrom(rest)
	case "RCPT":
		return s.rcptTo(rest)
	case "DATA":
		return s.data()
	case "XFORWARD":
		return s.forwarded(rest)
	case "RSET":
		s.forget()
		return s.say(250, "2.0.0", "forgotten")
	case "NOOP":
		return s.say(250, "2.0.0", "nothing done")
	case "VRFY":
		return s.say(252, "2.5.0", "send it and see")
	case "QUIT":
		if err := s.say(221, "2.0.0", s.host+" closing"); err != nil {
			return err
		}
		return errEnd
	}
	return s.say(500, "5.5.2", "command not understood")
}

func (s *session) forget() { s.mail, s.envelope = nil, nil }

func (s *session) hello(verb, name string) error {
	if done, err := s.obey(StageEHLO, s.gate.judge(StageEHLO, s.client, "", nil)); done {
		return err
	}
	t := s.gate.policy()
	if verb == "EHLO" && t.HeloOnly {
		return s.say(502, "5.5.1", "only HELO is known here")
	}
	if strings.TrimSpace(name) == "" {
		return s.say(501, "5.5.4", verb+" needs a name")
	}
	s.forget()
	s.greeted = true
	if verb == "HELO" {
		return s.say(250, "", s.host)
	}
	return s.say(250, "", strings.Join(append([]string{s.host}, s.keywords(t)...), "\n"))
}

func (s *session) keywords(t *Traffic) []string {
	words := t.Extensions
	if words == nil {
		words = defaultExtensions
	}
	words = append([]string(nil), words...)
	if t.SizeLimit > 0 {
		words = append(words, "SIZE "+strconv.FormatInt(t.SizeLimit, 10))
	} else {
		words = append(words, "SIZE")
	}
	if s.offersTLS(t) {
		words = append(words, "STARTTLS")
	}
	if s.offersAuth(t) {
		words = append(words, "AUTH "+strings.Join(mechanisms(t.Auth), " "))
	}
	if s.xforward {
		words = append(words, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")
	}
	return words
}

func (s *session) offersTLS(t *Traffic) bool {
	return !s.tls && t.TLS != "" && t.TLS != TLSOff && t.TLS != TLSMissing
}

func (s *session) startTLS() error {
	if done, err := s.obey(StageStartTLS, s.gate.judge(StageStartTLS, s.client, "", nil)); done {
		return err
	}
	t := s.gate.policy()
	switch {
	case !s.offersTLS(t):
		return s.say(502, "5.5.1", "TLS is not offered")
	case t.TLS == TLSRefused:
		return s.say(454, "4.7.0", "TLS not available due to a temporary reason")
	}
	conf, err := s.certs.config(s.host, t.TLS)
	if err != nil {
		s.gate.count(func(n *SMTPCounters) { n.Internal++ })
		return s.say(454, "4.7.0", "no certificate")
	}
	if err := s.say(220, "2.0.0", "go ahead"); err != nil {
		return err
	}
	if err := s.await(); err != nil {
		return err
	}
	if t.TLS == TLSBroken {
		return s.breakTLS()
	}
	// What a client sent in clear after STARTTLS stays in the old reader, unread
	// for good: taking it over would be CVE-2011-0411.
	conn := tls.Server(s.raw, conf)
	if err := conn.HandshakeContext(s.ctx); err != nil {
		s.gate.count(func(n *SMTPCounters) { n.TLSFailed++ })
		return errEnd
	}
	s.gate.count(func(n *SMTPCounters) { n.TLS++ })
	s.conn, s.tls, s.greeted = conn, true, false
	s.r, s.w = bufio.NewReaderSize(conn, lineBytes), bufio.NewWriter(conn)
	s.forget()
	return nil
}

// breakTLS waits for the client's hello, so that it is the handshake that
// fails and not the connection.
func (s *session) breakTLS() error {
	s.gate.count(func(n *SMTPCounters) { n.TLSFailed++ })
	if _, err := s.r.Peek(1); err != nil {
		return errEnd
	}
	_, _ = s.raw.Write([]byte("\x16\x03\x01this is not a handshake\r\n")) // the end either way
	return errEnd
}

func (s *session) mailFrom(rest string) error {
	t := s.gate.policy()
	addr, args, ok := parsePath(rest, "FROM:")
	switch {
	case !s.greeted:
		return s.say(503, "5.5.1", "say EHLO first")
	case s.mail != nil:
		return s.say(503, "5.5.1", "a message is under way already")
	case !ok:
		return s.say(501, "5.5.4", "want MAIL FROM:<address>")
	}
	s.gate.count(func(n *SMTPCounters) { n.Transactions++ })
	switch {
	case !s.tls && (t.TLS == TLSRequired || t.TLS == TLSMissing):
		return s.say(530, "5.7.0", "must issue a STARTTLS command first")
	case s.user == "" && t.Auth != nil && t.Auth.Required:
		return s.say(530, "5.7.0", "authentication required")
	}
	if r, bad := badArgs(t, addr, args); bad {
		return s.reply(r)
	}
	if done, err := s.obey(StageMail, s.gate.judge(StageMail, s.client, addr, nil)); done {
		return err
	}
	s.mail = &delivery{host: s.host, client: s.client, user: s.user, tls: s.tls, sender: addr, mailArgs: args, xforward: s.xclient}
	return s.say(250, "2.1.0", "sender ok")
}

// badArgs finds what an honest server would refuse for its own limits.
func badArgs(t *Traffic, addr, args string) (Reply, bool) {
	for arg := range strings.FieldsSeq(args) {
		key, value, _ := strings.Cut(strings.ToUpper(arg), "=")
		switch key {
		case "SIZE":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return Reply{Code: 501, Enhanced: "5.5.4", Text: "bad SIZE"}, true
			}
			if t.SizeLimit > 0 && n > t.SizeLimit {
				return tooBig, true
			}
		case "SMTPUTF8":
			if !t.offers("SMTPUTF8") {
				return Reply{Code: 555, Enhanced: "5.5.4", Text: "SMTPUTF8 not known"}, true
			}
		case "RET", "ENVID":
			if !t.offers("DSN") {
				return Reply{Code: 555, Enhanced: "5.5.4", Text: "DSN not known"}, true
			}
		}
	}
	return utf8Address(t, addr)
}

func utf8Address(t *Traffic, addr string) (Reply, bool) {
	for i := range len(addr) {
		if addr[i] >= 0x80 && !t.offers("SMTPUTF8") {
			return Reply{Code: 553, Enhanced: "5.6.7", Text: "no internationalized addresses here"}, true
		}
	}
	return Reply{}, false
}

var tooBig = Reply{Code: 552, Enhanced: "5.3.4", Text: "message too big"}

func (s *session) rcptTo(rest string) error {
	t := s.gate.policy()
	addr, args, ok := parsePath(rest, "TO:")
	switch {
	case s.mail == nil:
		return s.say(503, "5.5.1", "no MAIL yet")
	case !ok || addr == "":
		return s.say(501, "5.5.4", "want RCPT TO:<address>")
	case t.MaxRecipients > 0 && len(s.mail.rcpts) >= t.MaxRecipients:
		return s.say(452, "4.5.3", "too many recipients")
	}
	if r, bad := utf8Address(t, addr); bad {
		return s.reply(r)
	}
	if done, err := s.obey(StageRcpt, s.gate.judge(StageRcpt, s.client, s.mail.sender, []string{addr})); done {
		return err
	}
	s.mail.rcpts = append(s.mail.rcpts, recipient{addr, args})
	s.envelope = append(s.envelope, addr)
	return s.say(250, "2.1.5", "recipient ok")
}

// parsePath reads "FROM:<address> arguments". A quoted local part may hold
// anything, also ">" and spaces (RFC 5321 4.1.2); a source route is dropped.
func parsePath(s, keyword string) (addr, args string, ok bool) {
	if len(s) < len(keyword) || !strings.EqualFold(s[:len(keyword)], keyword) {
		return "", "", false
	}
	s = strings.TrimLeft(s[len(keyword):], " ")
	if !strings.HasPrefix(s, "<") {
		return "", "", false
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			addr = s[1:i]
			if strings.HasPrefix(addr, "@") {
				_, addr, ok = strings.Cut(addr, ":")
				return addr, strings.TrimSpace(s[i+1:]), ok
			}
			return addr, strings.TrimSpace(s[i+1:]), true
		}
	}
	return "", "", false
}

func (s *session) forwarded(rest string) error {
	if !s.xforward || rest == "" {
		return s.say(502, "5.5.1", "XFORWARD is not offered")
	}
	s.xclient = append(s.xclient, strings.Fields(rest)...)
	return s.say(250, "2.0.0", "noted")
}

func codeText(code int) string { return fmt.Sprintf("%03d", code) }
