package cli

import (
	"strings"

	"holdfast/observe"
	"holdfast/postfix"
	"holdfast/present"
)

// render writes what was seen of one instance.
func (q *queueRun) render(v *view, several, first bool) error {
	if q.screen.json {
		return q.renderJSON(v)
	}
	if several {
		if !first {
			q.screen.Line()
		}
		q.screen.Line(present.Say("Postfix instance %s", present.Hostile(v.snap.Instance.Name)).In(present.Heading),
			present.Say(" (%s)", present.Hostile(v.snap.Instance.ConfigDir)).In(present.Faint))
	}
	q.headline(v)
	switch {
	case v.ages != nil:
		q.ageTable(v)
	case v.by != nil:
		q.groupTable(v)
	default:
		q.overview(v)
		q.listing(v)
	}
	q.notes(v)
	return nil
}

func (q *queueRun) renderJSON(v *view) error {
	at := v.snap.To
	switch {
	case v.ages != nil:
		return q.screen.Record(q.agesRecord(v))
	case v.by != nil:
		groups := v.by.Groups()
		shown := q.shown(len(groups))
		total := v.by.Total().Record(at)
		r := &present.GroupsRecord{
			Envelope: envelope(present.SchemaGroups, v), By: present.By(q.by),
			Groups: make([]present.GroupRecord, 0, shown), More: len(groups) - shown,
			Total: total.Count, Recipients: total.Recipients, Bytes: total.Bytes, OldestSeconds: total.OldestSeconds,
			Seen: present.SeenOf(v.snap, v.gaps()),
		}
		for _, g := range groups[:shown] {
			r.Groups = append(r.Groups, g.Record(at))
		}
		return q.screen.Record(r)
	}
	return q.messagesJSON(v)
}

func (q *queueRun) agesRecord(v *view) *present.AgesRecord {
	rows := v.ages.Rows()
	shown := q.shown(len(rows))
	total := v.ages.Total().Record()
	total.Key = "TOTAL"
	r := &present.AgesRecord{
		Envelope: envelope(present.SchemaAges, v), Of: q.ages, Minutes: present.AgeMinutes(),
		Rows: make([]present.AgeRowRecord, 0, shown), More: len(rows) - shown, Total: total,
		Unknown: v.ages.Unknown(), Seen: present.SeenOf(v.snap, v.gaps()),
	}
	for _, row := range rows[:shown] {
		r.Rows = append(r.Rows, row.Record())
	}
	return r
}

// messagesJSON writes one object a message. What there is to say about the
// look itself follows in one object more, and only where there is something:
// a program that counts lines counts messages then.
func (q *queueRun) messagesJSON(v *view) error {
	var m postfix.Message
	record := &present.MessageRecord{Envelope: envelope(present.SchemaMessage, v), Message: &m}
	for i := range present.Sorted(v.list, q.shown(present.Listed(v.list))) {
		v.snap.At(i, &m)
		if err := q.screen.Record(record); err != nil {
			return err
		}
	}
	seen := present.SeenOf(v.snap, v.gaps())
	if len(seen.Gaps)+len(seen.Strays)+len(seen.Unseen) == 0 {
		return nil
	}
	if err := q.screen.Record(&present.NotesRecord{Envelope: envelope(present.SchemaNotes, v), Seen: seen}); err != nil {
		return err
	}
	q.notes(v)
	return nil
}

func envelope(schema string, v *view) present.Envelope {
	return present.Envelope{Schema: schema, Instance: v.snap.Instance.Name}
}

// shown is how many of n lines the limit lets through. Where none is given, a
// terminal takes as many as leave the headline in sight, but not only two.
func (q *queueRun) shown(n int) int {
	limit := q.most()
	if rows := q.screen.term.Rows; q.limit == limitNotGiven && rows > 0 {
		const around = 3 // the titles, the line that says how many more, the prompt
		limit = min(limit, max(rows-q.above-around, 3))
	}
	if limit == 0 || limit > n {
		return n
	}
	return limit
}

// most is the most that the limit can let through, 0 for all.
func (q *queueRun) most() int {
	switch {
	case q.limit != limitNotGiven:
		return q.limit
	case q.screen.json:
		return 0
	}
	return limitOfText
}

// headline is the one sentence that answers "how bad is it".
func (q *queueRun) headline(v *view) {
	total, all := v.total(), v.snap.Len()
	messages := present.Plural(total.Messages, "message", "messages")
	switch {
	case total.Messages == 0 && all == 0 && len(present.Unseeable(v.snap)) == 0:
		q.screen.Line(present.Say("The queue is empty.").In(present.Good))
		return
	case total.Messages == 0 && all == 0:
		q.screen.Line(present.Say("Nothing in the queues that could be looked at."))
		return
	case total.Messages == 0:
		q.screen.Line(present.Say("Nothing matches; the queue has %s.", present.Plural(all, "message", "messages")))
		return
	case total.Messages < all:
		messages = present.Say("%s of %s", present.Count(total.Messages), present.Plural(all, "message", "messages"))
	}
	q.screen.Line(messages.In(present.Strong), present.Say(", %s to do, %s, oldest %s",
		present.Plural(total.Recipients, "recipient", "recipients"), present.Size(total.Bytes), present.Since(total.Oldest, v.snap.To)))
}

// groupColumns are the columns of every table of groups.
func groupColumns(title present.Words, sections bool) []present.Column {
	columns := []present.Column{
		{Title: title, Least: 16},
		{Title: present.Say("MESSAGES"), Right: true},
		{Title: present.Say("RECIPIENTS"), Right: true, Spare: 1},
		{Title: present.Say("SIZE"), Right: true},
		{Title: present.Say("OLDEST"), Right: true},
	}
	if sections {
		for i := range columns {
			columns[i].Title = present.Words{}
		}
	}
	return columns
}

func groupCells(name present.Words, g present.Group, v *view) []present.Words {
	return []present.Words{
		name, present.Count(g.Messages), present.Count(g.Recipients), present.Size(g.Bytes), present.Since(g.Oldest, v.snap.To),
	}
}

func heading(title present.Words) []present.Words {
	cells := []present.Words{title}
	for _, c := range groupColumns(title, false)[1:] {
		cells = append(cells, c.Title)
	}
	for i := range cells {
		cells[i] = cells[i].In(present.Heading)
	}
	return cells
}

// topOfOverview is how many causes and destinations the overview names.
const topOfOverview = 3

// overview is three small tables in one, so that their figures stand under
// each other.
func (q *queueRun) overview(v *view) {
	if v.total().Messages == 0 {
		return
	}
	t := &present.Table{Columns: groupColumns(present.Words{}, true)}
	t.Row()
	t.Row(heading(present.Say("QUEUE"))...)
	for _, g := range v.sum.Groups() {
		t.Row(groupCells(present.Hostile(g.Key).Words(0), g, v)...)
	}
	for _, part := range []struct {
		title present.Words
		by    present.By
		tally *present.Tally
	}{
		{present.Say("WHY IT WAITS"), present.ByCause, v.why},
		{present.Say("WHERE IT GOES"), present.ByDestination, v.dest},
	} {
		groups := part.tally.Groups()
		title := part.title
		if len(groups) > topOfOverview {
			title = present.Say("%s (%s of %s, --by %s)", title, present.Count(topOfOverview), present.Count(len(groups)), present.Hostile(part.by))
		}
		t.Row()
		t.Row(heading(title)...)
		for _, g := range groups[:min(len(groups), topOfOverview)] {
			t.Row(groupCells(groupName(part.by, g.Key), g, v)...)
		}
	}
	q.screen.Table(t)
	q.screen.Line()
	q.above = t.Len() + 2 // with the headline and the empty line
}

// groupName gives a name to keys that are empty, and shows the others.
func groupName(by present.By, key string) present.Words {
	if key != "" {
		return present.Hostile(key).Words(0)
	}
	switch by {
	case present.BySender:
		return present.Say("<> (null sender)")
	case present.ByCause, present.ByText:
		return present.Say("(no reason yet)")
	case present.ByDestination:
		return present.Say("(no domain)")
	case present.ByNextHop:
		return present.Say("(not known)")
	case present.ByClient:
		return present.Say("(submitted on this host)")
	case present.BySASL:
		return present.Say("(no login)")
	}
	return present.Say("(none)")
}

func (q *queueRun) groupTable(v *view) {
	groups := v.by.Groups()
	if len(groups) == 0 {
		return
	}
	q.screen.Line()
	if q.by == string(present.ByText) {
		q.textTable(groups, v)
		return
	}
	q.above = 2 // the headline and the empty line
	t := &present.Table{Columns: groupColumns(present.Hostile(strings.ToUpper(q.by)).Words(0), false)}
	shown := q.shown(len(groups))
	for _, g := range groups[:shown] {
		t.Row(groupCells(groupName(present.By(q.by), g.Key), g, v)...)
	}
	q.screen.Table(t)
	q.more(len(groups) - shown)
}

// textTable puts the reasons last and breaks them: they are sentences, and
// their end says as much as their beginning.
func (q *queueRun) textTable(groups []present.Group, v *view) {
	columns := groupColumns(present.Say("TEXT"), false)
	columns = append(columns[1:], columns[0])
	for i := range columns {
		columns[i].Spare, columns[i].Least = 0, 0
	}
	t := &present.Table{Columns: columns}
	room := 0
	if q.screen.term.Columns > 0 {
		const figures = 38 // what the other columns and their gaps take, in a queue of less than a million
		room = max(q.screen.term.Columns-figures, 20)
	}
	shown := q.shown(len(groups))
	for _, g := range groups[:shown] {
		cells := groupCells(present.Words{}, g, v)[1:]
		for _, line := range groupName(present.ByText, g.Key).Wrap(room) {
			t.Row(append(cells, line)...)
			cells = make([]present.Words, len(cells))
		}
	}
	q.screen.Table(t)
	q.more(len(groups) - shown)
}

func (q *queueRun) ageTable(v *view) {
	rows := v.ages.Rows()
	if len(rows) == 0 {
		return
	}
	q.screen.Line()
	counted := present.Say("recipients by destination and age in minutes")
	if q.ages == "sender" {
		counted = present.Say("messages by sender's domain and age in minutes")
	}
	q.screen.Line(counted.In(present.Faint))
	t := &present.Table{Columns: []present.Column{{Least: 14}, {Title: present.Say("T"), Right: true}}}
	for _, title := range present.AgeTitles() {
		t.Columns = append(t.Columns, present.Column{Title: title, Right: true})
	}
	add := func(name present.Words, r present.AgeRow) {
		cells := []present.Words{name, present.Say("%s", present.Hostile(present.Digits(r.Total)))}
		for _, n := range r.Counts {
			cell := present.Hostile(present.Digits(n)).Words(0)
			if n == 0 {
				cell = cell.In(present.Faint)
			}
			cells = append(cells, cell)
		}
		t.Row(cells...)
	}
	add(present.Say("TOTAL"), v.ages.Total())
	by := present.ByDestination
	if q.ages == "sender" {
		by = present.BySender
	}
	q.above = 4 // the headline, the empty line, the caption, the total
	shown := q.shown(len(rows))
	for _, r := range rows[:shown] {
		add(groupName(by, r.Key), r)
	}
	q.screen.Table(t)
	q.more(len(rows) - shown)
	if n := v.ages.Unknown(); n > 0 {
		q.screen.Line(present.Say("%s of unknown age", present.Plural(n, "message", "messages")))
	}
}

// more says how many lines the limit left out and how to see them.
func (q *queueRun) more(n int) {
	if n > 0 {
		q.screen.Line(present.Say("%s more; --limit 0 shows all", present.Count(n)).In(present.Faint))
	}
}

func (q *queueRun) listing(v *view) {
	total := present.Listed(v.list)
	if total == 0 {
		return
	}
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("ID")},
		{Title: present.Say("QUEUE"), Spare: 2},
		{Title: present.Say("AGE"), Right: true},
		{Title: present.Say("SIZE"), Right: true, Spare: 1},
		{Title: present.Say("NEXT TRY"), Right: true, Spare: 3},
		{Title: present.Say("FROM"), Least: 16},
		{Title: present.Say("TO"), Least: 22},
		{Right: true}, // how many recipients more
		{Title: present.Say("WHY")},
		{Title: present.Say("REASON"), Least: 40, Spare: 9},
	}}
	if q.sort == string(present.LargestFirst) {
		t.Columns[3].Spare = 0
	}
	if q.sort == string(present.SoonestFirst) {
		t.Columns[4].Spare = 0
	}
	shown := q.shown(total)
	places := present.Sorted(v.list, shown)
	t.Stream = func(yield func([]present.Words) bool) {
		var m postfix.Message
		for i := range places {
			v.snap.At(i, &m)
			if !yield(listCells(&m, v)) {
				return
			}
		}
	}
	q.screen.Table(t)
	q.more(total - shown)
}

func listCells(m *postfix.Message, v *view) []present.Words {
	at := v.snap.To
	next, more, to, reason := present.Say("-"), present.Words{}, present.Say("(none left)"), present.Words{}
	if m.Queue.Scheduled() && !m.NextTry.IsZero() {
		next = present.Say("due")
		if m.NextTry.After(at) {
			next = present.Age(m.NextTry.Sub(at))
		}
	}
	if n := len(m.Recipients); n > 0 {
		to = present.Address(m.Recipients[0].Address)
		reason = present.Hostile(firstReason(m)).Words(0)
		if n > 1 {
			more = present.Say("+%s", present.Count(n-1))
		}
	}
	return []present.Words{
		present.Hostile(m.ID).Words(0), present.Hostile(m.Queue.String()).Words(0), present.Since(present.Arrived(m), at),
		present.Size(m.Size), next, present.Address(m.Sender), to, more, why(m), reason,
	}
}

// why is the shortest answer to "why is it still here".
func why(m *postfix.Message) present.Words {
	switch {
	case m.Damage != "":
		return present.Say("damaged").In(present.Bad)
	case m.Queue == postfix.Hold:
		return present.Say("on hold").In(present.Warn)
	case m.Queue == postfix.Active:
		return present.Say("in delivery")
	case m.Queue == postfix.Corrupt || m.Queue == postfix.Saved:
		return present.Hostile(m.Queue.String()).Words(0).In(present.Bad)
	}
	for i := range m.Recipients {
		if c := m.Recipients[i].Cause; c != postfix.NoCause {
			return present.Hostile(c).Words(0)
		}
	}
	switch m.Queue {
	case postfix.Incoming:
		return present.Say("arriving")
	case postfix.Maildrop:
		return present.Say("submitted")
	}
	return present.Say("no reason yet")
}

func firstReason(m *postfix.Message) string {
	for i := range m.Recipients {
		if r := m.Recipients[i].Reason; r != "" {
			return r
		}
	}
	return ""
}

// notes says on stderr what is not mail: gaps always, the rest where it is
// asked for or where it matters.
func (q *queueRun) notes(v *view) {
	for _, g := range append(append([]observe.Gap(nil), v.snap.Gaps...), v.gaps()...) {
		q.screen.gap(g)
	}
	if unseen := present.Unseeable(v.snap); len(unseen) > 0 {
		q.screen.Note(present.Say("cannot tell what is in %s", present.Hostile(strings.Join(queueNames(unseen), ", "))))
	}
	if n := len(v.snap.Strays); n > 0 {
		q.screen.Note(present.Say("%s in the queue directories that Postfix does not take for mail%s",
			present.Plural(n, "file", "files"), q.hintOfDetail()))
	}
	if !q.screen.detail {
		return
	}
	for _, s := range v.snap.Strays {
		q.screen.Note(present.Say("  %s: %s, %s", present.Hostile(s.Path), present.Hostile(s.Kind), present.Size(s.Size)))
	}
	q.screen.Note(present.Say("looked at %s by %s from %s to %s", present.Hostile(v.snap.Instance.QueueDir), present.Hostile(v.snap.Source),
		present.Clock(v.snap.From, q.env.Now()), present.Clock(v.snap.To, q.env.Now())))
	if n := v.snap.Probes; n > 0 {
		q.screen.Note(present.Say("%s left out: no mail is sent for it", present.Plural(n, "address probe", "address probes")))
	}
	if n := v.snap.Vanished; n > 0 {
		q.screen.Note(present.Say("%s left while they were looked at", present.Plural(n, "message", "messages")))
	}
}

func (q *queueRun) hintOfDetail() present.Words {
	if q.screen.detail {
		return present.Say(":")
	}
	return present.Say("; -v lists them")
}

// gap says what could not be seen.
func (s *Screen) gap(g observe.Gap) {
	s.Note(present.Say("cannot tell: %s", present.Hostile(g.String())))
	if g.Hint != "" && !s.quiet {
		s.say("hint: ", present.Hostile(g.Hint).Words(0))
	}
}
