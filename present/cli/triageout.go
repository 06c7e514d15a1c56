package cli

import (
	"time"

	"holdfast/diagnose"
	"holdfast/observe"
	"holdfast/postfix"
	"holdfast/present"
)

// detail is how much of a triage is told. 0 is no limit.
type detail struct {
	summary int // lines of what a finding says
	proofs  int // pieces of evidence, and lines of each
	proof   int
	steps   int // steps to take and to avoid, and lines of why
	why     int
	also    int // findings beyond the first
	unseen  int // gaps, and lines of each
	gap     int
	top     int // causes and destinations
	flow    int // lines of what went in and out
	ruled   bool
	senders bool
	log     bool
	air     bool // an empty line below the sentence
	host    bool // what the surroundings said
}

// everything is what a terminal gets where all of it fits. A pipe, and -v, get
// the surroundings as well: of these a first screen says what a finding uses,
// and more would push the finding off it.
var everything = detail{top: 5, ruled: true, senders: true, log: true, air: true}

// least is what a terminal gets in any case.
var least = detail{summary: 1, proofs: 1, proof: 1, steps: 1, why: 1, also: 1, unseen: 1, gap: 1, top: 1, flow: 1}

// richer is what is told beyond that as long as all of it fits the terminal,
// by importance. At three in the morning nobody scrolls: a first line that has
// left the screen was not read.
var richer = []func(*detail){
	func(d *detail) { d.summary = 2 },
	func(d *detail) { d.proof = 2 },
	func(d *detail) { d.also = 2 },
	func(d *detail) { d.senders = true },
	func(d *detail) { d.ruled = true },
	func(d *detail) { d.log = true },
	func(d *detail) { d.top = 3 },
	func(d *detail) { d.air = true },
	func(d *detail) { d.why = 2 },
	func(d *detail) { d.proofs = 2 },
	func(d *detail) { d.summary = 3 },
	func(d *detail) { d.also = 3 },
	func(d *detail) { d.gap = 2 },
	func(d *detail) { d.flow = 2 },
	func(d *detail) { d.unseen = 2 },
	func(d *detail) { d.steps = 2 },
	func(d *detail) { d.summary = 5 },
	func(d *detail) { d.proofs, d.proof = 3, 3 },
	func(d *detail) { d.also = 5 },
	func(d *detail) { d.unseen = 4 },
	func(d *detail) { d.top = 5 },
	func(d *detail) { *d = everything },
}

// pageOf lays one instance out. Where stdout is not a terminal, and with -v,
// nothing is left out for lack of room.
func (t *triageRun) pageOf(s *sight, several bool) *page {
	if t.screen.detail || t.screen.term.Columns == 0 {
		told := everything
		told.host = true
		return t.layout(s, several, told)
	}
	const prompt = 1
	told := least
	best := t.layout(s, several, told)
	for _, more := range richer {
		tried := told
		more(&tried)
		if p := t.layout(s, several, tried); p.height() <= t.screen.term.Rows-prompt {
			told, best = tried, p
		}
	}
	return best
}

func (t *triageRun) layout(s *sight, several bool, d detail) *page {
	p := &page{screen: t.screen}
	t.sentence(p, s, several)
	findings := s.Verdict.Findings
	if len(findings) > 0 {
		if d.air {
			p.line()
		}
		t.finding(p, s, &findings[0], d)
		t.others(p, s, findings[1:], d)
	}
	blind := s.Verdict.State == diagnose.CannotTell
	if blind {
		p.line()
		t.unseen(p, s, d)
	}
	calm := several && len(findings) == 0 && !blind && !t.screen.detail
	if !calm {
		p.line()
		p.tableOf(shapeTable(s, d))
	}
	flowLine(p, s, d)
	if !calm {
		if d.senders && s.Snapshot.Len() > 0 {
			sendersLine(p, s)
		}
		returnsLine(p, s, len(findings) == 0)
	}
	if d.log {
		logLine(p, s)
	}
	if d.host && !calm {
		hostBlock(p, s)
	}
	if !blind {
		t.unseen(p, s, d)
	}
	return p
}

// sentence answers the first question.
func (t *triageRun) sentence(p *page, s *sight, several bool) {
	style, word := present.Good, present.Say("Mail flows.")
	switch {
	case s.Verdict.State == diagnose.NotFlowing:
		style, word = present.Bad, present.Say("Mail does not flow.")
	case s.Verdict.State == diagnose.CannotTell:
		style, word = present.Warn, present.Say("Cannot tell whether mail flows.")
	case len(s.Verdict.Findings) > 0:
		style = present.Warn
	}
	if s.Verdict.Sentence != "" {
		word = text(s.Verdict.Sentence)
	}
	if several {
		word = present.Say("%s: %s", text(s.Snapshot.Instance.Name), word)
	}
	for _, line := range word.Wrap(t.screen.term.Columns) {
		p.line(line.In(style))
	}
}

func (t *triageRun) finding(p *page, s *sight, f *diagnose.Finding, d detail) {
	p.labelled(present.Say("STUCK"), stuck(s, f), 2)
	p.labelled(present.Say("WHY"), present.Say("%s, %s: %s", text(string(f.Cause)), sureness(f.Confidence), text(f.Summary)), d.summary)
	t.proofs(p, s, f, d)
	steps(p, present.Say("NEXT"), f.Next, d)
	steps(p, present.Say("DO NOT"), f.Avoid, d)
}

// stuck says how much waits, and where.
func stuck(s *sight, f *diagnose.Finding) present.Words {
	var out present.Words
	switch all := s.Snapshot.Len(); {
	case f.Waiting == 0:
		out = present.Say("no message waits for it")
	case f.Waiting < all:
		out = present.Say("%s of %s", present.Count(f.Waiting), present.Plural(all, "message", "messages"))
	default:
		out = present.Plural(f.Waiting, "message", "messages")
	}
	if where := placed(f); !where.Empty() {
		out = present.Say("%s, %s", out, where)
	}
	if !f.Since.IsZero() {
		out = present.Say("%s, since %s", out, present.When(f.Since, s.now))
	}
	return out
}

// placed says where a finding is.
func placed(f *diagnose.Finding) present.Words {
	switch {
	case f.Subject == "" && f.Scope == diagnose.Global:
		return present.Say("everywhere")
	case f.Subject == "" && f.Scope == diagnose.HostScope:
		return present.Say("on this host")
	case f.Subject == "":
		return present.Words{}
	case f.Scope == diagnose.Destination:
		return present.Say("to %s", text(f.Subject))
	case f.Scope == diagnose.Sender:
		return present.Say("from %s", present.Address(f.Subject))
	}
	if queue, err := postfix.ParseQueue(f.Subject); err == nil {
		return present.Say("in the %s queue", text(queue.String()))
	}
	return present.Say("at %s", text(f.Subject))
}

// sureness is the confidence in words that need no scale.
func sureness(c diagnose.Confidence) present.Words {
	switch c {
	case diagnose.High:
		return present.Say("certain")
	case diagnose.Medium:
		return present.Say("likely")
	}
	return present.Say("a guess")
}

func (t *triageRun) proofs(p *page, s *sight, f *diagnose.Finding, d detail) {
	label := present.Say("PROOF")
	for i, e := range f.Evidence {
		if d.proofs > 0 && i >= d.proofs {
			break
		}
		where := text(e.Source)
		if !e.At.IsZero() {
			where = present.Say("%s, %s", where, present.Clock(e.At, s.now))
		}
		p.labelled(label, present.Say("%s: %s", where, text(e.Text)), d.proof)
		label = present.Words{}
	}
	if len(f.RuledOut) == 0 || !d.ruled {
		return
	}
	if t.screen.detail {
		label = present.Say("NOT")
		for _, r := range f.RuledOut {
			p.labelled(label, present.Say("%s: %s", text(string(r.Cause)), text(r.Text)), 0)
			label = present.Words{}
		}
		return
	}
	names := make([]present.Words, len(f.RuledOut))
	for i, r := range f.RuledOut {
		names[i] = text(string(r.Cause))
	}
	p.labelled(present.Say("NOT"), present.Say("%s (-v says why not)", present.Join(", ", names...)), 1)
}

// steps writes commands to paste and why. A step without a command is advice,
// and does not take the place of a command where there is room for few.
func steps(p *page, label present.Words, list []diagnose.Step, d detail) {
	commands := 0
	for _, step := range list {
		if d.steps > 0 && commands >= d.steps {
			return
		}
		if len(step.Argv) > 0 {
			p.command(label, present.Shell(step.Argv...))
			label = present.Words{}
			commands++
		}
		p.labelled(label, text(step.Why), d.why)
		label = present.Words{}
	}
}

// others are the findings behind the first: one line each, in full with -v.
func (t *triageRun) others(p *page, s *sight, rest []diagnose.Finding, d detail) {
	if t.screen.detail {
		for i := range rest {
			p.line()
			t.finding(p, s, &rest[i], d)
		}
		return
	}
	shown := len(rest)
	if d.also > 0 {
		shown = min(shown, d.also)
	}
	label := present.Say("ALSO")
	for i := range rest[:shown] {
		f := &rest[i]
		name := text(string(f.Cause))
		if where := placed(f); !where.Empty() {
			name = present.Say("%s %s", name, where)
		}
		p.labelled(label, present.Say("%s: %s", name, text(f.Summary)), 1)
		label = present.Words{}
	}
	if more := len(rest) - shown; more > 0 {
		p.labelled(label, present.Say("and %s; -v shows all in full", present.Plural(more, "other finding", "other findings")).In(present.Faint), 1)
	}
}

// shapeTable has the queues, the causes and the destinations side by side.
func shapeTable(s *sight, d detail) *present.Table {
	t := &present.Table{Columns: []present.Column{
		{},
		{Right: true},
		{Right: true, Spare: 1},
		{Right: true, Spare: 2},
		{Least: 12},
		{Right: true},
		{Least: 14},
		{Right: true},
	}}
	causes, moreCauses := present.Top(s.shape.Causes, d.top)
	dests, moreDests := present.Top(s.shape.Destinations, d.top)
	title := []present.Words{
		present.Say("QUEUE"), present.Say("MESSAGES"), present.Say("OLDEST"), present.Say("SIZE"),
		partOf(present.Say("WHY"), len(causes), moreCauses),
		{},
		partOf(present.Say("TO"), len(dests), moreDests),
		{},
	}
	cells := len(title)
	for i := range title {
		title[i] = title[i].In(present.Heading)
	}
	t.Row(title...)
	queues := queueCells(s)
	why, to := groupRows(present.ByCause, causes), groupRows(present.ByDestination, dests)
	for i := range max(len(queues), len(why), len(to)) {
		row := make([]present.Words, 0, cells)
		for _, part := range []struct {
			rows  [][]present.Words
			width int
		}{{queues, 4}, {why, 2}, {to, 2}} {
			if i < len(part.rows) {
				row = append(row, part.rows[i]...)
			} else {
				row = append(row, make([]present.Words, part.width)...)
			}
		}
		t.Row(row...)
	}
	return t
}

// queueCells are the queues that have something in them or could not be
// looked at, deferred always.
func queueCells(s *sight) [][]present.Words {
	var rows [][]present.Words
	for _, q := range postfix.Queues() {
		shape := s.Snapshot.Shape(q)
		name := text(q.String())
		switch {
		case !shape.Known:
			unknown := present.Say("?").In(present.Warn)
			rows = append(rows, []present.Words{name, unknown, unknown, unknown})
		case shape.Messages > 0 || q == postfix.Deferred:
			oldest := present.Say("-")
			if shape.Messages > 0 {
				oldest = present.Since(shape.Oldest, s.At)
			}
			rows = append(rows, []present.Words{name, present.Count(shape.Messages), oldest, present.Size(shape.Bytes)})
		}
	}
	return rows
}

func groupRows(by present.By, groups []present.Group) [][]present.Words {
	rows := make([][]present.Words, len(groups))
	for i, g := range groups {
		rows[i] = []present.Words{groupName(by, g.Key), present.Count(g.Messages)}
	}
	return rows
}

// partOf says in a title that there is more than is shown.
func partOf(title present.Words, shown, more int) present.Words {
	switch {
	case shown == 0:
		return present.Words{}
	case more == 0:
		return title
	}
	return present.Say("%s (%s of %s)", title, present.Count(shown), present.Count(shown+more))
}

// flowLine says whether the queue grows, and what went in and out.
func flowLine(p *page, s *sight, d detail) {
	label := present.Say("FLOW")
	var parts []present.Words
	if last := s.flow.SinceLastLook; last != nil {
		parts = append(parts, present.Say("+%s -%s since the last look %s ago",
			present.Count(last.Came), present.Count(last.Left), present.Age(time.Duration(last.Seconds)*time.Second)))
	}
	if s.flow.Arrived != nil {
		parts = append(parts, logged(s.flow))
	}
	if len(parts) == 0 {
		p.labelled(label, present.Say("not known: no log was read"), d.flow)
		return
	}
	out := present.Join(", ", parts...)
	p.labelled(label, present.Say("%s: %s", growth(s.flow), out).In(growthStyle(s.flow.Direction)), d.flow)
}

// growth says whether the queue grows, as two looks have shown, or whether it
// did, as the log tells.
func growth(f present.FlowRecord) present.Words {
	now := f.SinceLastLook != nil
	switch {
	case f.Direction == present.Growing && now:
		return present.Say("the queue grows")
	case f.Direction == present.Growing:
		return present.Say("the queue grew")
	case f.Direction == present.Shrinking:
		return present.Say("the queue shrinks")
	case f.Direction == present.Steady && now:
		return present.Say("the queue does not grow")
	case f.Direction == present.Steady:
		return present.Say("the queue did not grow")
	}
	return present.Say("no mail moved")
}

func growthStyle(d present.Direction) present.Style {
	if d == present.Growing {
		return present.Warn
	}
	return present.Normal
}

// logged is what the log has counted.
func logged(f present.FlowRecord) present.Words {
	window := present.Age(time.Duration(f.WindowSeconds) * time.Second)
	out := present.Say("last %s %s in, %s delivered", window, number(f.Arrived), number(f.Delivered))
	for _, n := range []struct {
		count *int64
		what  present.Words
	}{
		{f.Deferred, present.Say("deferred")},
		{f.Bounced, present.Say("bounced")},
		{f.Rejected, present.Say("rejected")},
		{f.Suspended, present.Say("put off untried")},
	} {
		if *n.count > 0 {
			out = present.Say("%s, %s %s", out, number(n.count), n.what)
		}
	}
	return out
}

func number(n *int64) present.Words { return present.Count(int(*n)) }

func sendersLine(p *page, s *sight) {
	const most = 3
	top, more := present.Top(s.shape.Senders, most)
	parts := make([]present.Words, 0, len(top)+1)
	for _, g := range top {
		parts = append(parts, present.Say("%s %s", groupName(present.BySender, g.Key), present.Count(g.Messages)))
	}
	out := present.Join(", ", parts...)
	if more > 0 {
		out = present.Say("%s and %s more", out, present.Count(more))
	}
	p.labelled(present.Say("FROM"), out, 1)
}

// logLine says what there is to know about the log before one believes it.
func logLine(p *page, s *sight) {
	if s.Log == nil {
		return
	}
	var parts []present.Words
	if n := s.Log.Suspect; n > 0 {
		line := present.Say("%s in Postfix's name that it did not write, not counted", present.Plural(int(n), "line", "lines"))
		if s.Log.Trust == observe.TrustPlain {
			line = present.Say("%s; any local user can write to it", line)
		}
		parts = append(parts, line)
	}
	if n := s.Log.Unread; n > 0 {
		parts = append(parts, present.Say("%s could not be read", present.Plural(int(n), "line", "lines")))
	}
	style := present.Normal
	if s.Log.Suspect > 0 {
		style = present.Warn
	}
	p.labelled(present.Say("LOG"), present.Join("; ", parts...).In(style), 1)
}

// returnsLine says when mail begins to go back. On a relay without a finding
// that is of interest only where it is near.
func returnsLine(p *page, s *sight, calm bool) {
	f := s.shape.Forecast
	var out present.Words
	if !f.First.IsZero() && (f.Day > 0 || !calm) {
		out = present.Say("the first %s if nothing changes", present.When(f.First, s.now))
		if f.Day > 0 {
			out = present.Say("%s; %s within an hour, %s within a day", out, present.Count(f.Hour), present.Count(f.Day)).In(present.Warn)
		}
		if f.Silent > 0 {
			out = present.Say("%s, %s of them without notice", out, present.Count(f.Silent)).In(present.Warn)
		}
	}
	if f.HeldOverdue > 0 {
		held := present.Say("%s on hold are too old: a release returns them", present.Count(f.HeldOverdue))
		if !out.Empty() {
			held = present.Say("%s; %s", out, held)
		}
		out = held.In(present.Warn)
	}
	p.labelled(present.Say("RETURNS"), out, 2)
}

// unseen says what could not be looked at, and what would let it.
func (t *triageRun) unseen(p *page, s *sight, d detail) {
	shown := len(s.Gaps)
	if d.unseen > 0 {
		shown = min(shown, d.unseen)
	}
	label := present.Say("UNSEEN")
	for _, g := range s.Gaps[:shown] {
		p.labelled(label, gapWords(g), d.gap)
		label = present.Words{}
	}
	if more := len(s.Gaps) - shown; more > 0 {
		p.labelled(label, present.Say("and %s; -v shows all", present.Plural(more, "other gap", "other gaps")).In(present.Faint), 1)
	}
}

func gapWords(g observe.Gap) present.Words {
	if g.Hint == "" {
		return text(g.String())
	}
	return present.Say("%s (%s)", text(g.String()), text(g.Hint))
}
