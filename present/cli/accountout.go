package cli

import (
	"time"

	"holdfast/account"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/postfix"
	"holdfast/present"
)

// The names of the JSON records about where mail went.
const (
	schemaAccount = "holdfast.account/1"
	schemaFate    = "holdfast.fate/1"
)

// accountRecord is an account.
type accountRecord struct {
	present.Envelope
	From     account.Side        `json:"from"`
	To       account.Side        `json:"to"`
	Arrived  int                 `json:"arrived"`
	Fates    fatesRecord         `json:"fates"`
	Grades   gradesRecord        `json:"grades"`
	Balanced bool                `json:"balanced"`
	Seen     bool                `json:"seen"`
	Problems []account.Problem   `json:"problems"`
	Holes    []maillog.Hole      `json:"holes"`
	Sources  []observe.LogSource `json:"sources"`
	Gaps     []observe.Gap       `json:"gaps"`
}

// fatesRecord counts recipients by what became of them.
type fatesRecord struct {
	Pending        int `json:"pending"`
	Delivered      int `json:"delivered"`
	Bounced        int `json:"bounced"`
	Expired        int `json:"expired"`
	Discarded      int `json:"discarded"`
	Deleted        int `json:"deleted_with_reason"`
	DeletedByOther int `json:"deleted_by_other"`
	Moved          int `json:"moved"`
	Unproven       int `json:"unproven"`
}

// gradesRecord counts recipients by what their fates rest on.
type gradesRecord struct {
	Proved    int `json:"proved"`
	Witnessed int `json:"witnessed"`
	Claimed   int `json:"claimed"`
	Unproven  int `json:"unproven"`
}

// fateRecord is the fate of one recipient.
type fateRecord struct {
	present.Envelope
	account.Target
}

func accountRecordOf(b *account.Book) *accountRecord {
	return &accountRecord{
		Envelope: present.Envelope{Schema: schemaAccount, Instance: b.Instance},
		From:     b.From, To: b.To, Arrived: b.Arrived, Balanced: b.Balanced, Seen: b.Seen,
		Fates: fatesRecord{
			b.Fates[account.Pending], b.Fates[account.Delivered], b.Fates[account.Bounced], b.Fates[account.Expired], b.Fates[account.Discarded],
			b.Fates[account.Deleted], b.Fates[account.DeletedByOther], b.Fates[account.Moved], b.Fates[account.Unproven],
		},
		Grades:   gradesRecord{b.Grades[account.Proved], b.Grades[account.Witnessed], b.Grades[account.Claimed], b.Grades[account.Unshown]},
		Problems: b.Problems, Holes: b.Holes, Sources: b.Sources, Gaps: b.Gaps,
	}
}

func (p *program) showBook(b *account.Book, each bool) error {
	if p.screen.json {
		for i := range b.Targets {
			if !each {
				break
			}
			if err := p.screen.Record(&fateRecord{present.Envelope{Schema: schemaFate, Instance: b.Instance}, b.Targets[i]}); err != nil {
				return err
			}
		}
		return p.screen.Record(accountRecordOf(b))
	}
	out := &bookPage{page: &page{screen: p.screen}, b: b, at: p.env.Now()}
	out.verdict()
	out.table()
	out.where()
	out.log()
	if each {
		out.each()
	}
	out.write()
	return nil
}

// bookPage lays an account out.
type bookPage struct {
	*page
	b  *account.Book
	at time.Time
}

// fateWords are the fates as a screen names them.
func fateWords(f account.Fate) present.Words {
	switch f {
	case account.Deleted:
		return present.Say("deleted with a reason")
	case account.DeletedByOther:
		return present.Say("deleted by another")
	case account.Pending, account.Delivered, account.Bounced, account.Expired, account.Discarded, account.Moved, account.Unproven:
	}
	return text(string(f))
}

// verdict is the first thing that one wants to know.
func (o *bookPage) verdict() {
	b := o.b
	all := b.Arrived
	for _, n := range b.Fates {
		all += n
	}
	all -= b.Arrived
	to := present.Say("the queue at %s", present.Clock(b.To.To, o.at))
	if b.To.Name != "" {
		to = present.Say("snapshot %s", text(b.To.Name))
	}
	o.labelled(present.Say("ACCOUNT"), present.Say("%s, from snapshot %s, %s, to %s", text(b.Instance), text(b.From.Name), present.When(b.From.To, o.at), to), 0)
	style, words := present.Good, present.Say("balances: each of %s has a fate that is shown", present.Plural(all, "recipient", "recipients"))
	switch missing := b.Fates[account.Unproven]; {
	case b.Balanced && b.Fates[account.DeletedByOther] > 0:
		style, words = present.Warn, present.Say("%s; %s by another than Holdfast", words, present.Plural(b.Fates[account.DeletedByOther], "was deleted", "were deleted"))
	case b.Balanced:
	case !b.Seen:
		style, words = present.Warn, present.Say("cannot be told: %s of %s is not shown, and not all of queue and log could be seen", fateOf(missing), present.Plural(all, "recipient", "recipients"))
	default:
		style, words = present.Bad, present.Say("does not balance: %s of %s is not shown", fateOf(missing), present.Plural(all, "recipient", "recipients"))
	}
	o.labelled(present.Say("BOOKS"), words.In(style), 0)
	o.labelled(present.Say("SUM"), present.Say("%s were queued and %s came", present.Count(all-b.Arrived), present.Count(b.Arrived)), 0)
}

func fateOf(n int) present.Words { return present.Say("the fate of %s", present.Count(n)) }

// table counts fates by what they rest on.
func (o *bookPage) table() {
	counts := map[account.Fate]map[account.Grade]int{}
	for i := range o.b.Targets {
		t := &o.b.Targets[i]
		if counts[t.Fate] == nil {
			counts[t.Fate] = map[account.Grade]int{}
		}
		counts[t.Fate][t.Evidence.Grade]++
	}
	t := &present.Table{Columns: []present.Column{
		{Width: pageIndent - 2},
		{Title: present.Say("FATE"), Least: 12},
		{Title: present.Say("RECIPIENTS"), Right: true},
		{Title: present.Say("PROVED"), Right: true},
		{Title: present.Say("WITNESSED"), Right: true},
		{Title: present.Say("CLAIMED"), Right: true},
	}}
	for _, f := range account.Fates() {
		n := o.b.Fates[f]
		if n == 0 && f != account.Pending && f != account.Delivered && f != account.Unproven {
			continue
		}
		words, style := fateWords(f), present.Normal
		if n > 0 && (f == account.Unproven || f == account.DeletedByOther) {
			style = present.Bad
		}
		cell := func(g account.Grade) present.Words {
			if counts[f][g] == 0 {
				return present.Say("-")
			}
			return present.Count(counts[f][g])
		}
		t.Row(present.Words{}, words.In(style), present.Count(n).In(style), cell(account.Proved), cell(account.Witnessed), cell(account.Claimed))
	}
	if t.Len() > 0 {
		o.tableOf(t)
	}
}

// where names what is not accounted for.
func (o *bookPage) where() {
	const few = 3
	for i := range o.b.Problems {
		pr := &o.b.Problems[i]
		words := present.Hostile(pr.Text).Words(0)
		if pr.Count > 0 {
			words = present.Say("%s: %s", present.Plural(pr.Count, "recipient", "recipients"), words)
		}
		o.labelled(present.Say("WHERE"), words, 0)
		for k := range pr.Targets {
			if k == few && !o.screen.detail {
				break
			}
			t := &pr.Targets[k]
			o.labelled(present.Words{}, present.Say("%s to %s", text(string(t.ID)), recipientWords(t)), 1)
		}
		shown := len(pr.Targets)
		if !o.screen.detail {
			shown = min(shown, few)
		}
		if pr.Count > shown {
			o.labelled(present.Words{}, present.Say("and %s more; --each names all", present.Count(pr.Count-shown)), 1)
		}
	}
}

func recipientWords(t *account.Target) present.Words {
	if t.Recipient == "" {
		return present.Say("a recipient that no line names")
	}
	return present.Address(t.Recipient)
}

// log says what was read, and from when lines are missing.
func (o *bookPage) log() {
	var claimed bool
	for _, s := range o.b.Sources {
		claimed = claimed || s.Trust == observe.TrustPlain
	}
	if claimed {
		o.labelled(present.Say("LOG"), present.Say("any user of this host can write into it, so that what it says is claimed and not proved"), 0)
	}
	const few = 3
	for i, h := range o.b.Holes {
		if i == few && !o.screen.detail {
			o.labelled(present.Words{}, present.Say("and %s more; -v lists them", present.Count(len(o.b.Holes)-few)), 1)
			break
		}
		words := present.Hostile(h.Text).Words(0)
		if !h.From.IsZero() {
			words = present.Say("%s, from %s", words, present.Clock(h.From, o.at))
		}
		if !h.To.IsZero() {
			words = present.Say("%s to %s", words, present.Clock(h.To, o.at))
		}
		o.labelled(present.Say("MISSING"), words, 0)
	}
	for _, g := range o.b.Gaps {
		o.labelled(present.Say("UNSEEN"), present.Hostile(g.String()).Words(0), 0)
	}
}

// each lists all recipients.
func (o *bookPage) each() {
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("ID")},
		{Title: present.Say("RECIPIENT"), Least: 16},
		{Title: present.Say("FATE")},
		{Title: present.Say("GRADE"), Spare: 1},
		{Title: present.Say("EVIDENCE"), Least: 20},
	}}
	for i := range o.b.Targets {
		target := &o.b.Targets[i]
		evidence := present.Hostile(target.Evidence.Text).Words(0)
		if target.Successor != postfix.QueueID("") {
			evidence = present.Say("goes on as %s; %s", text(string(target.Successor)), evidence)
		}
		t.Row(text(string(target.ID)), recipientWords(target), fateWords(target.Fate), text(string(target.Evidence.Grade)), evidence)
	}
	if t.Len() > 0 {
		o.line()
		o.tableOf(t)
	}
}
