package cli

import (
	"strings"
	"time"

	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/postfix"
	"holdfast/present"
)

// sheet writes one message for people.
type sheet struct {
	screen *Screen
	d      *operate.Detail
	m      *postfix.Message
	at     time.Time
	copied bool // it is a copy in the vault, and not queued
}

const (
	labelWidth = 12
	// someAddresses is how many recipients with one reason a terminal shows: a
	// list of a thousand would push the reason itself off the screen.
	someAddresses = 10
)

// field writes a label and words beside it, broken where the screen ends.
func (s *sheet) field(label, value present.Words) {
	if value.Empty() {
		return
	}
	t := &present.Table{Columns: []present.Column{{Width: labelWidth}, {}}}
	for i, line := range value.Wrap(s.room(labelWidth + 2)) {
		if i > 0 {
			label = present.Words{}
		}
		t.Row(label.In(present.Faint), line)
	}
	s.screen.Table(t)
}

// room is the width that is left beside an indent, 0 where there is no end.
func (s *sheet) room(indent int) int {
	if s.screen.term.Columns == 0 {
		return 0
	}
	return max(20, s.screen.term.Columns-indent)
}

func (s *sheet) title(words present.Words) {
	s.screen.Line()
	s.screen.Line(words.In(present.Heading))
}

// text writes words with an indent, broken where the screen ends.
func (s *sheet) text(indent present.Words, words present.Words) {
	for _, line := range words.Wrap(s.room(indent.Width())) {
		s.screen.Line(indent, line)
	}
}

func text(v string) present.Words { return present.Hostile(v).Words(0) }

func (s *sheet) envelope() {
	m := s.m
	state := present.Say("  %s queue", text(m.Queue.String()))
	if s.copied {
		state = present.Say("  a copy in the vault")
	}
	if m.Queue != postfix.Hold {
		state = present.Say("%s, %s", state, why(m))
	}
	s.screen.Line(text(string(m.ID)).In(present.Strong), state)
	s.screen.Line()
	if m.Damage != "" {
		s.field(present.Say("Damaged"), text(m.Damage).In(present.Bad))
	}
	s.field(present.Say("Sender"), present.Address(m.Sender))
	s.field(present.Say("Arrived"), present.When(m.Arrival, s.at))
	if m.Queue.Scheduled() && !m.NextTry.IsZero() && m.Queue != postfix.Active {
		s.field(present.Say("Next try"), s.nextTry())
	}
	s.field(present.Say("Given up"), s.expiry())
	s.field(present.Say("Size"), present.Say("%s bytes", present.Count(int(m.Size))))
	s.field(present.Say("Client"), s.client())
	s.field(present.Say("Login"), text(m.SASLUser))
	s.field(present.Say("Message-ID"), text(m.MessageID))
	s.field(present.Say("Filter"), text(m.Filter))
	if m.Redirect != "" {
		s.field(present.Say("Redirect"), present.Say("%s instead of all recipients", present.Address(m.Redirect)))
	}
	if m.FlushRequested {
		s.field(present.Say("Flush"), present.Say("an attempt was asked for"))
	}
	s.field(present.Say("Instance"), present.Say("%s (%s)", text(s.d.Instance.Name), text(s.d.Instance.ConfigDir)))
	s.field(present.Say("File"), s.file())
}

func (s *sheet) nextTry() present.Words {
	if !s.m.NextTry.After(s.at) {
		return present.Say("due at the next queue run")
	}
	return present.Say("%s at the earliest", present.When(s.m.NextTry, s.at))
}

// expiry says when the message goes back: not at that time, but with the first
// attempt that fails after it.
func (s *sheet) expiry() present.Words {
	switch {
	case s.m.ForceExpire:
		return present.Say("with the next attempt, as postsuper -e has asked").In(present.Warn)
	case s.m.Expires.IsZero():
		return present.Words{}
	case s.m.Queue == postfix.Hold:
		return present.Say("%s, if it fails after a release", present.When(s.m.Expires, s.at))
	case s.m.Expires.Before(s.at):
		return present.Say("with the next failed attempt: its time ended %s", present.When(s.m.Expires, s.at)).In(present.Warn)
	}
	return present.Say("with the first failed attempt after %s", present.When(s.m.Expires, s.at))
}

func (s *sheet) client() present.Words {
	name := present.Client(s.m)
	if name == "" {
		return present.Say("submitted on this host")
	}
	out := text(name)
	if s.m.Client.Helo != "" {
		out = present.Say("%s, helo %s", out, text(s.m.Client.Helo))
	}
	if s.m.Client.Protocol != "" {
		out = present.Say("%s, %s", out, text(s.m.Client.Protocol))
	}
	return out
}

func (s *sheet) file() present.Words {
	if s.d.FromShowq || s.d.Path == "" {
		return present.Words{}
	}
	path := text(s.d.Path)
	if s.d.Misplaced {
		return present.Say("%s, where Postfix does not look for it", path).In(present.Bad)
	}
	return path
}

// reasonGroup is recipients that wait for one reason.
type reasonGroup struct {
	sample    postfix.Recipient
	addresses []present.Words
}

// grouped puts recipients together whose last attempt ended alike.
func grouped(recipients []postfix.Recipient) []*reasonGroup {
	var order []*reasonGroup
	index := make(map[postfix.Recipient]*reasonGroup)
	for _, r := range recipients {
		key := postfix.Recipient{
			NextHop: r.NextHop, Status: r.Status, Host: r.Host, Cause: r.Cause,
			Reason: strings.ReplaceAll(r.Reason, r.Address, "\x00"),
		}
		if r.Address == "" {
			key.Reason = r.Reason
		}
		g := index[key]
		if g == nil {
			g = &reasonGroup{sample: r}
			index[key] = g
			order = append(order, g)
		}
		name := present.Address(r.Address)
		if r.Original != "" && r.Original != r.Address {
			name = present.Say("%s (was %s)", name, present.Address(r.Original))
		}
		g.addresses = append(g.addresses, name)
	}
	return order
}

func (s *sheet) recipients() {
	s.title(present.Say("%s to do", present.Plural(len(s.m.Recipients), "recipient", "recipients")))
	for _, g := range grouped(s.m.Recipients) {
		s.addresses(g.addresses)
		line := present.Say("not tried yet, or in delivery")
		if s.copied {
			line = present.Say("still to do when it was copied")
		}
		if g.sample.Reason != "" {
			line = text(string(g.sample.Cause)).In(present.Warn)
			if g.sample.Status != "" {
				line = present.Say("%s, status %s", line, text(g.sample.Status)).In(present.Warn)
			}
		}
		s.screen.Line(present.Say("      "), line)
		if g.sample.NextHop != "" {
			s.text(present.Say("      "), present.Say("next hop %s", text(g.sample.NextHop)))
		}
		if g.sample.Host != "" {
			s.text(present.Say("      "), present.Say("answered by %s", text(g.sample.Host)))
		}
		if g.sample.Reason != "" {
			s.text(present.Say("      "), text(g.sample.Reason))
		}
	}
}

func (s *sheet) addresses(list []present.Words) {
	shown := len(list)
	if s.screen.term.Columns > 0 && !s.screen.detail && shown > someAddresses+1 {
		shown = someAddresses
	}
	for _, a := range list[:shown] {
		s.text(present.Say("  "), a)
	}
	if more := len(list) - shown; more > 0 {
		s.screen.Line(present.Say("  and %s more; -v lists them", present.Count(more)).In(present.Faint))
	}
}

func (s *sheet) finished() {
	if len(s.d.Finished) == 0 {
		return
	}
	s.title(present.Say("%s done: delivered or returned, the queue file does not say which",
		present.Plural(len(s.d.Finished), "recipient", "recipients")))
	for _, g := range grouped(s.d.Finished) {
		s.addresses(g.addresses)
	}
}

func (s *sheet) bounces() {
	if len(s.m.Bounces) == 0 {
		return
	}
	s.title(present.Say("%s to be returned to the sender", present.Plural(len(s.m.Bounces), "failure", "failures")))
	for _, b := range s.m.Bounces {
		s.text(present.Say("  "), present.Address(b.Address))
		s.text(present.Say("      "), text(strings.TrimSpace(b.Status+" "+b.Reason)))
	}
}

func (s *sheet) headers() {
	if len(s.d.Headers) == 0 {
		return
	}
	s.title(present.Say("Headers"))
	for _, h := range s.d.Headers {
		value := text(spool.DecodeWords(h.Value))
		if h.Name != "" {
			value = present.Say("%s: %s", text(h.Name), value)
		}
		if h.Malformed {
			value = present.Say("%s  (not a valid header)", value).In(present.Warn)
		}
		for i, line := range value.Wrap(s.room(6)) {
			indent := present.Say("  ")
			if i > 0 {
				indent = present.Say("      ")
			}
			s.screen.Line(indent, line)
		}
	}
	if s.d.HeadersCut {
		s.screen.Line(present.Say("  (there are more)").In(present.Faint))
	}
}

// body shows the body as it stands, line by line. A tab is its blanks, as
// wide as a terminal would make it.
func (s *sheet) body() {
	s.title(present.Say("Body"))
	for line := range strings.Lines(string(s.d.Body)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		s.screen.Line(present.Say("  "), present.Hostile(expandTabs(line)).Words(longestBody))
	}
	if s.d.BodyCut {
		s.screen.Line(present.Say("  (there is more)").In(present.Faint))
	}
}

func expandTabs(line string) string {
	const stop = 8
	var out strings.Builder
	for i, part := range strings.Split(line, "\t") {
		if i > 0 {
			out.WriteString(strings.Repeat(" ", stop-out.Len()%stop))
		}
		out.WriteString(part)
	}
	return out.String()
}
