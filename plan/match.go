package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/postfix"
)

// Header is one header of a message, unfolded, its encoded words decoded
// (RFC 2047).
type Header struct {
	Name  string `json:"name" expr:"name" doc:"the name, in lower case in an expression"`
	Value string `json:"value" expr:"value" doc:"the decoded value"`
}

// Matcher judges messages by a Selector. It may be used by several goroutines
// at once.
type Matcher struct {
	nothing   bool
	at        time.Time
	queues    map[postfix.Queue]struct{}
	ids       map[postfix.QueueID]struct{}
	senders   *addressSet
	clients   *clientSet
	users     *nameSet
	older     time.Duration // 0 = any
	newer     time.Duration
	larger    int64
	rcpt      recipientMatcher
	messageID map[string]struct{}
	headers   []headerPattern
	hasHeader bool
	where     *where
	spoolOnly []string
}

// recipientMatcher holds the conditions that one recipient must satisfy
// together. nil is "not given" for each.
type recipientMatcher struct {
	any       bool // any condition is given
	addresses *addressSet
	domains   *nameSet
	hops      *hopSet
	causes    map[postfix.Cause]struct{}
	texts     []textPattern
}

// Compile prepares the selection for judging messages as they were at the
// given time. Every mistake in it is a *postfix.Error of kind Usage that names
// the flag, the value, and how to write it.
func (s Selector) Compile(at time.Time) (*Matcher, error) {
	m := &Matcher{nothing: s.IsZero(), at: at, spoolOnly: s.spoolOnly()}
	for _, step := range []func(*Matcher) error{s.compileEnvelope, s.compileRecipients, s.compileContent} {
		if err := step(m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (s Selector) compileEnvelope(m *Matcher) (err error) {
	if m.queues, err = setOf("queue", s.Queues, func(q postfix.Queue) error { _, err := parseQueue(q.String()); return err }); err != nil {
		return err
	}
	if m.ids, err = setOf("id", s.IDs, func(id postfix.QueueID) error { _, err := parseID(string(id)); return err }); err != nil {
		return err
	}
	if m.senders, err = given("sender", s.Senders, addressSetOf); err != nil {
		return err
	}
	if m.clients, err = given("client", s.Clients, clientSetOf); err != nil {
		return err
	}
	if m.users, err = given("sasl-user", s.SASLUsers, loginSet); err != nil {
		return err
	}
	m.older, m.newer, m.larger = time.Duration(s.OlderThan), time.Duration(s.NewerThan), int64(s.LargerThan)
	switch {
	case m.older < 0 || m.older > maxDuration:
		return mistake("older-than", m.older.String(), errOutside)
	case m.newer < 0 || m.newer > maxDuration:
		return mistake("newer-than", m.newer.String(), errOutside)
	case m.larger < 0:
		return mistake("larger-than", fmt.Sprint(m.larger), errOutside)
	case m.newer > 0 && m.older >= m.newer:
		return mistake("newer-than", s.NewerThan.String(), fmt.Errorf("no message is also older than %s", s.OlderThan))
	}
	return nil
}

var errOutside = errors.New("outside of what can be meant")

func (s Selector) compileRecipients(m *Matcher) (err error) {
	r := &m.rcpt
	if r.addresses, err = given("recipient", s.Recipients, addressSetOf); err != nil {
		return err
	}
	if r.domains, err = given("domain", s.Domains, domainSet); err != nil {
		return err
	}
	if r.hops, err = given("next-hop", s.NextHops, hopSetOf); err != nil {
		return err
	}
	if r.causes, err = setOf("cause", s.Causes, func(c postfix.Cause) error { _, err := parseCause(string(c)); return err }); err != nil {
		return err
	}
	if s.Texts != nil {
		if r.texts, err = textPatterns("text", s.Texts); err != nil {
			return err
		}
	}
	r.any = r.addresses != nil || r.domains != nil || r.hops != nil || r.causes != nil || r.texts != nil
	return nil
}

func (s Selector) compileContent(m *Matcher) (err error) {
	if s.MessageIDs != nil {
		m.messageID = make(map[string]struct{}, len(s.MessageIDs))
	}
	for _, id := range s.MessageIDs {
		if err := checkValue(id); err != nil {
			return mistake("message-id", id, err)
		}
		m.messageID[bareMessageID(id)] = struct{}{}
	}
	m.hasHeader = s.Headers != nil
	for _, h := range s.Headers {
		p, err := parseHeader(h)
		if err != nil {
			return mistake("header", h, err)
		}
		m.headers = append(m.headers, p)
	}
	if s.Where != "" {
		m.where, err = compileWhere(s.Where, m.at)
	}
	return err
}

func given[S any](flag string, values []string, build func(string, []string) (*S, error)) (*S, error) {
	if values == nil {
		return nil, nil //nolint:nilnil // nil is "not given" in a Matcher
	}
	return build(flag, values)
}

func setOf[T comparable](flag string, values []T, check func(T) error) (map[T]struct{}, error) {
	if values == nil {
		return nil, nil
	}
	set := make(map[T]struct{}, len(values))
	for _, v := range values {
		if err := check(v); err != nil {
			return nil, mistake(flag, fmt.Sprint(v), err)
		}
		set[v] = struct{}{}
	}
	return set, nil
}

func bareMessageID(s string) string {
	s = strings.TrimSpace(s)
	return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
}

// NeedsHeaders reports whether Match may have to read headers.
func (m *Matcher) NeedsHeaders() bool {
	return !m.nothing && (m.hasHeader || m.messageID != nil || m.where != nil && m.where.needsHeaders())
}

// NeedsSpool lists the flags and fields of the selection that only queue files
// can answer. Asked of what showq listed they would find nothing, which is not
// the same as that there is nothing.
func (m *Matcher) NeedsSpool() []string {
	names := m.spoolOnly
	if m.where != nil {
		names = append(slices.Clone(names), m.where.spoolOnly()...)
	}
	return names
}

func (s Selector) spoolOnly() []string {
	var names []string
	for _, k := range kinds() {
		switch k.flag {
		case "client", "sasl-user", "message-id", "header":
			if k.given(&s) {
				names = append(names, "--"+k.flag)
			}
		}
	}
	return names
}

// Match reports whether the message is selected. headers is called at most
// once, and only if the answer depends on it; it may be nil if NeedsHeaders is
// false.
//
// An error of kind CannotTell means that this message cannot be judged, since
// something about it is not known; the caller counts it as a gap and goes on.
// An error of kind Usage comes from the expression and will come again.
func (m *Matcher) Match(msg *postfix.Message, headers func() ([]Header, error)) (bool, error) {
	if m.nothing || !m.matchEnvelope(msg) || m.rcpt.any && !m.rcpt.matchAny(msg.Recipients) {
		return false, nil
	}
	// A condition that cannot be judged counts only if no other one excludes
	// the message.
	inAge, unknown := m.matchAge(msg)
	if unknown == nil && !inAge {
		return false, nil
	}
	content := lazyHeaders{read: headers}
	if in, err := m.matchContent(msg, &content); err != nil || !in {
		return false, err
	}
	if m.where != nil {
		if in, err := m.where.match(msg, m.at, &content); err != nil || !in {
			return false, err
		}
	}
	return unknown == nil, unknown
}

func (m *Matcher) matchEnvelope(msg *postfix.Message) bool {
	if m.queues != nil {
		if _, ok := m.queues[msg.Queue]; !ok {
			return false
		}
	}
	if m.ids != nil {
		if _, ok := m.ids[msg.ID]; !ok {
			return false
		}
	}
	return (m.larger == 0 || msg.Size > m.larger) &&
		(m.senders == nil || m.senders.match(msg.Sender)) &&
		(m.users == nil || msg.SASLUser != "" && m.users.match(fold(msg.SASLUser))) &&
		(m.clients == nil || m.clients.match(msg.Client))
}

func (m *Matcher) matchAge(msg *postfix.Message) (bool, error) {
	if m.older == 0 && m.newer == 0 {
		return true, nil
	}
	if msg.Arrival.IsZero() {
		return false, cannotJudge(msg, "its arrival time is not known")
	}
	age := m.at.Sub(msg.Arrival)
	return (m.older == 0 || age >= m.older) && (m.newer == 0 || age < m.newer), nil
}

func (m *Matcher) matchContent(msg *postfix.Message, content *lazyHeaders) (bool, error) {
	if m.messageID != nil {
		id := msg.MessageID
		if id == "" {
			headers, err := content.get(msg)
			if err != nil {
				return false, err
			}
			id = messageIDOf(headers)
		}
		if _, ok := m.messageID[bareMessageID(id)]; !ok || id == "" {
			return false, nil
		}
	}
	if !m.hasHeader {
		return true, nil
	}
	if len(m.headers) == 0 {
		return false, nil
	}
	headers, err := content.get(msg)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(m.headers, func(p headerPattern) bool { return slices.ContainsFunc(headers, p.match) }), nil
}

func messageIDOf(headers []Header) string {
	for _, h := range headers {
		if strings.EqualFold(h.Name, "Message-ID") {
			return h.Value
		}
	}
	return ""
}

func (r *recipientMatcher) matchAny(rcpts []postfix.Recipient) bool {
	for i := range rcpts {
		if r.match(&rcpts[i]) {
			return true
		}
	}
	return false
}

func (r *recipientMatcher) match(rcpt *postfix.Recipient) bool {
	if r.causes != nil {
		if _, ok := r.causes[rcpt.Cause]; !ok {
			return false
		}
	}
	if r.addresses != nil && !r.addresses.match(rcpt.Address) && (rcpt.Original == "" || !r.addresses.match(rcpt.Original)) {
		return false
	}
	if r.domains != nil && !r.domains.match(rcpt.Domain()) {
		return false
	}
	if r.hops != nil && !r.hops.match(rcpt.NextHop) {
		return false
	}
	return r.texts == nil || rcpt.Reason != "" && slices.ContainsFunc(r.texts, func(p textPattern) bool { return p.match(rcpt.Reason) })
}

// lazyHeaders reads the headers of one message when they are first asked for.
type lazyHeaders struct {
	read    func() ([]Header, error)
	done    bool
	headers []Header
	err     error
}

func (l *lazyHeaders) get(msg *postfix.Message) ([]Header, error) {
	if l.done {
		return l.headers, l.err
	}
	l.done = true
	if l.read == nil {
		l.err = cannotJudge(msg, "its headers cannot be read here")
		return nil, l.err
	}
	if l.headers, l.err = l.read(); l.err != nil {
		l.err = &postfix.Error{Kind: postfix.CannotTell, Op: "read headers of", Object: string(msg.ID), Err: l.err}
	}
	return l.headers, l.err
}

func cannotJudge(msg *postfix.Message, why string) error {
	return &postfix.Error{Kind: postfix.CannotTell, Op: "judge message", Object: string(msg.ID), Err: errors.New(why)}
}
