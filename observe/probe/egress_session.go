package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// Patience with a mail server. smtp(8) waits for minutes; what makes it wait
// longer than this makes mail wait too.
const (
	connectPatience = 5 * time.Second
	bannerPatience  = 10 * time.Second
	stagePatience   = 5 * time.Second
	quitPatience    = 500 * time.Millisecond
	// enoughPatience is what a server had at the least where the end of the
	// look came before the end of patience; with less, nothing is said of it.
	enoughPatience = 3 * time.Second
)

const (
	maxReplyText  = 2000     // kept of a reply
	maxReplyBytes = 64 << 10 // read of a reply before the server is taken for mad
	submissions   = 465      // TLS comes first there (RFC 8314)
)

// The stages of a session.
const (
	stageConnect  = "connect"
	stageBanner   = "banner"
	stageEHLO     = "ehlo"
	stageSTARTTLS = "starttls"
	stageDone     = "done"
)

// session is one conversation with a mail server. It greets, offers TLS where
// the server does, and says good-bye; it never names a sender.
type session struct {
	reach  *observe.Reach
	helo   string
	conn   net.Conn
	reader *bufio.Reader
	// ctx is that of the look; began is when the present stage did.
	ctx   context.Context
	began time.Time
}

// errCut says that the look ended before the server's time was up.
var errCut = errors.New("the look ended before the server's time to answer was up")

// converse connects to one server and fills reach. The error is errCut, or nil:
// what the server does wrong is the result.
func converse(ctx context.Context, reach *observe.Reach, from netip.Addr, helo string) error {
	reach.At = time.Now()
	s := &session{reach: reach, helo: helo, ctx: ctx}
	err := s.connect(from)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
		err = s.talk()
		stop()
		s.quit()
	}
	switch {
	case err == nil:
		reach.Stage = stageDone
	case s.isCut(err):
		return errCut
	default:
		reach.Failed, reach.Text = true, bounded(err.Error(), maxReplyText)
		reach.Cause = postfix.Classify("", reach.Text)
		if reach.Stage == stageSTARTTLS && reach.Cause != postfix.RemoteThrottling {
			reach.Cause = postfix.TLS
		}
	}
	if reach.Latency == 0 {
		reach.Latency = time.Since(reach.At)
	}
	return nil
}

// isCut says whether a stage was ended by the end of the look, too early to
// blame the server. Every stage has more patience than that by itself.
func (s *session) isCut(err error) bool {
	return errors.Is(err, errTimeout) && time.Since(s.began) < enoughPatience
}

// errTimeout marks an error that is the end of patience.
var errTimeout = errors.New("timed out")

// timeoutError is a text about the end of patience.
type timeoutError string

func (e timeoutError) Error() string        { return string(e) }
func (e timeoutError) Is(target error) bool { return target == errTimeout }

// peer is the server as Postfix names it.
func (s *session) peer() string {
	name := s.reach.Server
	if name == "" {
		name = s.reach.Address.String()
	}
	return name + "[" + s.reach.Address.String() + "]"
}

func (s *session) enter(stage string) { s.reach.Stage, s.began = stage, time.Now() }

func (s *session) connect(from netip.Addr) error {
	s.enter(stageConnect)
	d := net.Dialer{Timeout: connectPatience, KeepAlive: -1}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	// The address goes in as it was judged: no name is looked up again.
	at := netip.AddrPortFrom(s.reach.Address, s.reach.Port)
	conn, err := d.DialContext(s.ctx, "tcp", at.String())
	if err != nil {
		text := fmt.Sprintf("connect to %s:%d: ", s.peer(), s.reach.Port)
		if os.IsTimeout(err) && !errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, context.Canceled) {
			return timeoutError(text + "Connection timed out")
		}
		return errors.New(text + systemText(err))
	}
	s.conn, s.reader = conn, bufio.NewReaderSize(conn, 4096)
	return nil
}

// systemText words an error as the C library does, which is how Postfix logs it.
func systemText(err error) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// talk goes through the stages after the connection.
func (s *session) talk() error {
	if s.reach.Port == submissions {
		s.enter(stageSTARTTLS)
		if err := s.handshake(); err != nil {
			return err
		}
	}
	s.enter(stageBanner)
	banner, err := s.read(bannerPatience, "receiving the initial server greeting")
	s.reach.Latency = time.Since(s.reach.At)
	s.reach.Banner = banner.text
	if err != nil {
		return err
	}
	if banner.code[0] != '2' {
		return s.refusal(banner)
	}
	s.enter(stageEHLO)
	hello, err := s.command("EHLO "+s.helo, "performing the EHLO handshake")
	if err != nil {
		return err
	}
	if hello.code[0] == '5' { // a server of before 1995
		if hello, err = s.command("HELO "+s.helo, "performing the HELO handshake"); err != nil {
			return err
		}
	}
	if hello.code[0] != '2' {
		return s.refusal(hello)
	}
	if !hello.offers("STARTTLS") || s.reach.TLS != "" {
		return nil
	}
	s.enter(stageSTARTTLS)
	ready, err := s.command("STARTTLS", "performing the STARTTLS handshake")
	if err != nil {
		return err
	}
	if ready.code[0] != '2' {
		return fmt.Errorf("host %s refused to start TLS: %s", s.peer(), ready.text)
	}
	return s.handshake()
}

// refusal words a reply as smtp(8) does where a server will not begin.
func (s *session) refusal(r smtpReply) error {
	return fmt.Errorf("host %s refused to talk to me: %s", s.peer(), r.text)
}

// handshake starts TLS. Whose certificate it is does not matter here: the
// question is whether the two ends find any common ground, with everything
// allowed that smtp(8) allows where encryption is opportunistic.
func (s *session) handshake() error {
	config := &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // nothing is sent; see above
		MinVersion:         tls.VersionTLS10,
	}
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		config.CipherSuites = append(config.CipherSuites, suite.ID)
	}
	if err := s.setDeadline(stagePatience); err != nil {
		return err
	}
	conn := tls.Client(s.conn, config)
	if err := conn.HandshakeContext(s.ctx); err != nil {
		text := "Cannot start TLS: handshake failure: " + systemText(err)
		if isTimeout(err) {
			return timeoutError("Cannot start TLS: the handshake with " + s.peer() + " timed out")
		}
		return errors.New(text)
	}
	s.conn, s.reader = conn, bufio.NewReaderSize(conn, 4096)
	s.reach.TLS = tls.VersionName(conn.ConnectionState().Version)
	return nil
}

// quit says good-bye as well as it can. Nobody waits for what comes back.
func (s *session) quit() {
	_ = s.conn.SetDeadline(time.Now().Add(quitPatience))
	if _, err := io.WriteString(s.conn, "QUIT\r\n"); err == nil {
		_, _ = s.read(quitPatience, "sending QUIT")
	}
	_ = s.conn.Close()
}

// setDeadline gives the stage its time, and never more than the look has left.
func (s *session) setDeadline(d time.Duration) error {
	at := time.Now().Add(d)
	if end, ok := s.ctx.Deadline(); ok && end.Before(at) {
		at = end
	}
	if err := s.conn.SetDeadline(at); err != nil {
		return err
	}
	if s.ctx.Err() != nil { // it may have ended before, and its own deadline been lifted just now
		return timeoutError("the look has ended")
	}
	return nil
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// smtpReply is one reply of a server, of however many lines.
type smtpReply struct {
	code  string
	text  string   // lines with their codes, joined by spaces, bounded
	words []string // first word of each line behind the code
}

func (r smtpReply) offers(extension string) bool {
	for _, w := range r.words {
		if strings.EqualFold(w, extension) {
			return true
		}
	}
	return false
}

func (s *session) command(line, doing string) (smtpReply, error) {
	if err := s.setDeadline(stagePatience); err != nil {
		return smtpReply{}, err
	}
	if _, err := io.WriteString(s.conn, line+"\r\n"); err != nil {
		return smtpReply{}, s.lost(err, doing)
	}
	return s.read(stagePatience, doing)
}

// read reads one reply. Lines that are none are passed over, as smtp(8) does.
func (s *session) read(patience time.Duration, doing string) (smtpReply, error) {
	var r smtpReply
	if err := s.setDeadline(patience); err != nil {
		return r, err
	}
	var text strings.Builder
	for total := 0; ; {
		line, n, err := s.line()
		total += n
		if err != nil {
			r.text = bounded(text.String(), maxReplyText)
			return r, s.lost(err, doing)
		}
		if text.Len() <= maxReplyText {
			if text.Len() > 0 {
				text.WriteByte(' ')
			}
			text.WriteString(line)
		}
		if total > maxReplyBytes {
			r.text = bounded(text.String(), maxReplyText)
			return r, fmt.Errorf("protocol error: host %s said: more than %d bytes without an end: %s", s.peer(), maxReplyBytes, bounded(r.text, 200))
		}
		code, last, ok := replyCode(line)
		if !ok {
			continue
		}
		if len(line) > 4 && len(r.words) < 100 {
			word, _, _ := strings.Cut(line[4:], " ")
			r.words = append(r.words, word)
		}
		if last {
			r.code, r.text = code, bounded(text.String(), maxReplyText)
			return r, nil
		}
	}
}

// line reads one line and returns what fits of it, and how long it was.
func (s *session) line() (string, int, error) {
	var kept []byte
	total := 0
	for {
		part, err := s.reader.ReadSlice('\n')
		total += len(part)
		if room := maxReplyText - len(kept); room > 0 {
			kept = append(kept, part[:min(len(part), room)]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) && total <= maxReplyBytes {
			continue
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil // the caller finds that it is too long
		}
		return strings.TrimRight(string(kept), "\r\n"), total, err
	}
}

// replyCode reads the code of a reply line, and whether the line is the last.
func replyCode(line string) (code string, last, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return "", false, false
	}
	for i := range 3 {
		if line[i] < '0' || line[i] > '9' {
			return "", false, false
		}
	}
	switch {
	case len(line) == 3 || line[3] == ' ':
		return line[:3], true, true
	case line[3] == '-':
		return line[:3], false, true
	}
	return "", false, false
}

// lost words the end of a conversation as smtp_trouble.c does.
func (s *session) lost(err error, doing string) error {
	if isTimeout(err) {
		return timeoutError(fmt.Sprintf("conversation with %s timed out while %s", s.peer(), doing))
	}
	return fmt.Errorf("lost connection with %s while %s", s.peer(), doing)
}
