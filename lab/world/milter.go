package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	milter "github.com/d--j/go-milter"
)

// MilterConfig is a mail filter that a relay asks before it queues.
type MilterConfig struct {
	Name   string       `json:"name"`
	Listen string       `json:"listen"` // "192.0.2.61:10025" or "unix:/path"
	Rules  []MilterRule `json:"rules,omitempty"`
	Down   bool         `json:"down,omitempty"`
}

// MilterStage is an event of the milter protocol.
type MilterStage string

// The stages, in their order.
const (
	MilterConnect MilterStage = "connect"
	MilterHelo    MilterStage = "helo"
	MilterMail    MilterStage = "mail"
	MilterRcpt    MilterStage = "rcpt"
	MilterData    MilterStage = "data"
	MilterHeaders MilterStage = "headers" // the end of the headers
	MilterBody    MilterStage = "body"    // each chunk
	MilterEnd     MilterStage = "end"     // the end of the message
)

// MilterAction is what a rule makes the milter do.
type MilterAction string

// The verdicts and faults end a stage; the edits are for stage end and let the
// rules after them be tried.
const (
	MilterAccept   MilterAction = "accept"
	MilterTempfail MilterAction = "tempfail" // 451 4.7.1, or Reply
	MilterReject   MilterAction = "reject"   // 550 5.7.1, or Reply
	MilterDiscard  MilterAction = "discard"
	MilterHang     MilterAction = "hang"  // never answers
	MilterClose    MilterAction = "close" // hangs up

	MilterQuarantine      MilterAction = "quarantine"       // Value: the reason; Postfix puts the message on hold
	MilterAddRecipient    MilterAction = "add-recipient"    // Value: the address
	MilterDeleteRecipient MilterAction = "delete-recipient" // Value: the address
	MilterAddHeader       MilterAction = "add-header"       // Value: "Name: value"
	MilterReplaceBody     MilterAction = "replace-body"     // Value: the body
)

// MilterRule acts at one stage on the mail that matches. A rule without an
// action only waits.
type MilterRule struct {
	Stage       MilterStage  `json:"stage"`
	Client      Pattern      `json:"client,omitempty"`      // the SMTP client's address
	Sender      Pattern      `json:"sender,omitempty"`      // from stage mail on
	Recipient   Pattern      `json:"recipient,omitempty"`   // at stage rcpt; later: any recipient
	Probability float64      `json:"probability,omitempty"` // 0 means always
	Times       int          `json:"times,omitempty"`       // only the first so many matches
	Delay       Duration     `json:"delay,omitempty"`
	Action      MilterAction `json:"action,omitempty"`
	Reply       *Reply       `json:"reply,omitempty"`
	Value       string       `json:"value,omitempty"`
}

// MilterCounters is what a milter was asked, and what it did.
type MilterCounters struct {
	Connections int            `json:"connections"`
	Open        int            `json:"open"`
	Messages    int            `json:"messages"` // seen to their end
	Actions     map[string]int `json:"actions"`
	Failed      int            `json:"failed"` // edits that the relay did not allow
}

func (c MilterConfig) check() error {
	err := errors.Join(checkName(c.Name), checkListen(c.Listen))
	for i, r := range c.Rules {
		if e := r.check(); e != nil {
			err = errors.Join(err, fmt.Errorf("rule %d: %w", i+1, e))
		}
	}
	if err != nil {
		return fmt.Errorf("milter %q: %w", c.Name, err)
	}
	return nil
}

func (r MilterRule) check() error {
	err := errors.Join(
		oneOf("stage", r.Stage, MilterConnect, MilterHelo, MilterMail, MilterRcpt, MilterData, MilterHeaders, MilterBody, MilterEnd),
		oneOf("action", r.Action, "", MilterAccept, MilterTempfail, MilterReject, MilterDiscard, MilterHang, MilterClose,
			MilterQuarantine, MilterAddRecipient, MilterDeleteRecipient, MilterAddHeader, MilterReplaceBody),
		checkProbability(r.Probability), r.Reply.check())
	switch {
	case err != nil:
		return err
	case r.edits() && r.Stage != MilterEnd:
		return fmt.Errorf("action %q is possible at stage end only", r.Action)
	case r.Action == "" && r.Delay == 0:
		return errors.New("does nothing: give an action or a delay")
	case r.Reply != nil && r.Action != MilterTempfail && r.Action != MilterReject:
		return errors.New("a reply goes with tempfail or reject")
	case r.Reply != nil && (r.Reply.Code < 400 || len(r.Reply.Raw) > 0):
		return errors.New("the reply must be a plain one of code 400 or more")
	case r.Action == MilterAddHeader && !strings.Contains(r.Value, ":"):
		return fmt.Errorf("header %q is not of the form \"Name: value\"", r.Value)
	case r.Times < 0:
		return errors.New("times is negative")
	}
	return nil
}

func (r MilterRule) edits() bool {
	return slices.Contains([]MilterAction{
		MilterQuarantine, MilterAddRecipient, MilterDeleteRecipient, MilterAddHeader, MilterReplaceBody,
	}, r.Action)
}

// mailFilter is a running milter.
type mailFilter struct {
	clock *clock
	door  *door

	mu    sync.Mutex
	rules []liveMilterRule
	dice  *rand.Rand
	n     MilterCounters
}

type liveMilterRule struct {
	MilterRule
	client, sender, recipient *matcher
	used                      int
}

func newMilter(w *World, c MilterConfig) (*mailFilter, error) {
	f := &mailFilter{clock: &w.clock, dice: newDice(w.seed, "milter "+c.Name)}
	f.reset()
	f.door = newDoor([]string{c.Listen}, f.serve)
	if err := f.apply(c); err != nil {
		return nil, fmt.Errorf("open milter %q: %w", c.Name, err)
	}
	return f, nil
}

func (f *mailFilter) apply(c MilterConfig) error {
	rules := make([]liveMilterRule, len(c.Rules))
	for i, r := range c.Rules {
		rules[i] = liveMilterRule{MilterRule: r, client: r.Client.compile(), sender: r.Sender.compile(), recipient: r.Recipient.compile()}
	}
	f.mu.Lock()
	f.rules = rules
	f.mu.Unlock()
	return f.door.set([]string{c.Listen}, c.Down)
}

func (f *mailFilter) close() { f.door.shut() }

func (f *mailFilter) listening() []string { return f.door.listening() }

func (f *mailFilter) counters() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.n
	n.Actions = cloneCounts(f.n.Actions)
	return n
}

func (f *mailFilter) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n = MilterCounters{Open: f.n.Open, Actions: make(map[string]int)}
}

const milterEdits = milter.OptAddHeader | milter.OptChangeBody | milter.OptAddRcpt | milter.OptRemoveRcpt | milter.OptQuarantine

// serve gives each connection a server of the library to itself, because the
// library cannot say when a session has ended, and the door has to know.
func (f *mailFilter) serve(ctx context.Context, conn net.Conn, _ int) {
	f.mu.Lock()
	f.n.Connections++
	f.n.Open++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.n.Open--
		f.mu.Unlock()
	}()
	c := &milterConn{Conn: conn, closed: make(chan struct{})}
	srv := milter.NewServer(milter.WithActions(milterEdits), milter.WithMilter(func() milter.Milter {
		return &milterSession{filter: f, ctx: ctx, conn: conn}
	}))
	_ = srv.Serve(&oneConn{conn: c}) // always an error, when the only connection is closed
}

// milterConn leaves deadlines to the door and tells when it is closed.
type milterConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *milterConn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// Read says EOF for an expired deadline, which only a shut door sets; the
// library would log anything else.
func (c *milterConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}

func (c *milterConn) SetReadDeadline(time.Time) error  { return nil }
func (c *milterConn) SetWriteDeadline(time.Time) error { return nil }

// oneConn is a listener with one connection to give.
type oneConn struct {
	conn  *milterConn
	given bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.given {
		<-l.conn.closed
		return nil, net.ErrClosed
	}
	l.given = true
	return l.conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// milterSession answers for one connection of the relay.
type milterSession struct {
	milter.NoOpMilter
	filter *mailFilter
	ctx    context.Context
	conn   net.Conn

	client, sender string
	rcpts          []string
}

// find returns the next rule that applies at a stage, from rule number i on.
func (f *mailFilter) find(i int, stage MilterStage, s *milterSession, rcpts []string) (rule *MilterRule, next int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; i < len(f.rules); i++ {
		r := &f.rules[i]
		switch {
		case r.Stage != stage, r.Times > 0 && r.used >= r.Times, !r.client.match(s.client), !r.sender.match(s.sender),
			r.recipient != nil && !slices.ContainsFunc(rcpts, r.recipient.match),
			r.Probability > 0 && f.dice.Float64() >= r.Probability:
			continue
		}
		r.used++
		if r.Action != "" {
			f.n.Actions[string(r.Action)]++
		}
		found := r.MilterRule
		return &found, i + 1
	}
	return nil, i
}

// act goes through the rules of a stage.
func (s *milterSession) act(stage MilterStage, rcpts []string, m milter.Modifier) (*milter.Response, error) {
	for i := 0; ; {
		var r *MilterRule
		r, i = s.filter.find(i, stage, s, rcpts)
		if r == nil {
			return milter.RespContinue, nil
		}
		if !s.filter.clock.sleep(s.ctx, r.Delay) {
			return nil, io.EOF
		}
		if r.edits() {
			if err := r.edit(m); err != nil {
				s.filter.mu.Lock()
				s.filter.n.Failed++
				s.filter.mu.Unlock()
			}
			continue
		}
		if resp, err := s.verdict(r); resp != nil || err != nil {
			return resp, err
		}
	}
}

func (s *milterSession) verdict(r *MilterRule) (*milter.Response, error) {
	switch r.Action {
	case MilterAccept:
		return milter.RespAccept, nil
	case MilterDiscard:
		return milter.RespDiscard, nil
	case MilterTempfail, MilterReject:
		if r.Reply == nil && r.Action == MilterTempfail {
			return milter.RespTempFail, nil
		}
		if r.Reply == nil {
			return milter.RespReject, nil
		}
		return milter.RejectWithCodeAndReason(uint16(r.Reply.Code), strings.TrimSpace(r.Reply.Enhanced+" "+r.Reply.Text))
	case MilterHang:
		// The library waits for us, so it is us who see the relay leave.
		_, _ = io.Copy(io.Discard, s.conn)
		return nil, io.EOF
	case MilterClose:
		return nil, io.EOF
	}
	return nil, nil
}

func (r *MilterRule) edit(m milter.Modifier) error {
	switch r.Action {
	case MilterQuarantine:
		return m.Quarantine(r.Value)
	case MilterAddRecipient:
		return m.AddRecipient(r.Value, "")
	case MilterDeleteRecipient:
		return m.DeleteRecipient(r.Value)
	case MilterAddHeader:
		name, value, _ := strings.Cut(r.Value, ":")
		return m.AddHeader(name, strings.TrimPrefix(value, " "))
	case MilterReplaceBody:
		return m.ReplaceBody(strings.NewReader(r.Value))
	}
	return nil
}

func (s *milterSession) Connect(_, _ string, _ uint16, addr string, m milter.Modifier) (*milter.Response, error) {
	s.client = addr
	return s.act(MilterConnect, nil, m)
}

func (s *milterSession) Helo(_ string, m milter.Modifier) (*milter.Response, error) {
	return s.act(MilterHelo, nil, m)
}

func (s *milterSession) MailFrom(from, _ string, m milter.Modifier) (*milter.Response, error) {
	s.sender, s.rcpts = from, nil
	return s.act(MilterMail, nil, m)
}

func (s *milterSession) RcptTo(rcpt, _ string, m milter.Modifier) (*milter.Response, error) {
	s.rcpts = append(s.rcpts, rcpt)
	return s.act(MilterRcpt, []string{rcpt}, m)
}

func (s *milterSession) Data(m milter.Modifier) (*milter.Response, error) {
	return s.act(MilterData, s.rcpts, m)
}

func (s *milterSession) Header(string, string, milter.Modifier) (*milter.Response, error) {
	return milter.RespContinue, nil
}

func (s *milterSession) Headers(m milter.Modifier) (*milter.Response, error) {
	return s.act(MilterHeaders, s.rcpts, m)
}

func (s *milterSession) BodyChunk(_ []byte, m milter.Modifier) (*milter.Response, error) {
	return s.act(MilterBody, s.rcpts, m)
}

func (s *milterSession) EndOfMessage(m milter.Modifier) (*milter.Response, error) {
	s.filter.mu.Lock()
	s.filter.n.Messages++
	s.filter.mu.Unlock()
	return s.act(MilterEnd, s.rcpts, m)
}

func (s *milterSession) Abort(milter.Modifier) error {
	s.sender, s.rcpts = "", nil
	return nil
}
