// Package maillog reads what Postfix logged: where the lines are, what they
// say, and how much of it. Log lines come in as blocks of a text log or as
// entries of the journal, and go out as an observe.Log for triage, as a
// Summary for people, or as single Lines for whoever follows one message.
//
// Invariant: every line is counted somewhere. One that bears the instance's
// name and cannot be read is in Unread with a sample, one that Postfix did not
// write is in Suspect, one of somebody else in Other. A log in several blocks
// that are read side by side gives what reading it from front to back would
// give, as long as nothing had to be dropped for room.
//
// It never takes words of a remote server for words of Postfix: fields are read
// from left to right up to the reason, and nothing is looked for inside that.
// It never orders lines by their time, which steps back, but by their place.
// Its memory has a bound that no log, however long or hostile, can move.
//
// Diagnostics: Dropped in both results says how much did not fit.
//
// Bugs: with info_log_address_format=internal an address that holds ">" is read
// to that sign only. A service that logs under a name which is not below the
// instance's ("-o syslog_name=submission") is another program's. postsuper -H
// ALL logs no queue IDs, so holds that it ended are still listed; the queue
// itself tells.
package maillog

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// Options say which lines count, and how much of them is kept.
type Options struct {
	// SyslogName is the instance's name in tags, "postfix" or "postfix-out".
	// Empty takes every tag that looks like one of Postfix.
	SyslogName string
	// Location is the zone of stamps that name none; nil is time.Local.
	Location *time.Location
	// Since skips older lines: they are in Lines and in nothing else. The zero
	// time takes all.
	Since time.Time
	// Detail keeps what triage needs: the flow of each minute, Domains,
	// Servers, Troubles, Holds. Without it there is only what Summary needs.
	Detail bool
}

// Entry is one line of the journal.
type Entry struct {
	At      time.Time
	Tag     string // SYSLOG_IDENTIFIER, "postfix/smtpd"
	PID     int
	Message []byte
	// Trusted says that by the journal's own fields Postfix wrote it; By names
	// the writer for the sample where it did not.
	Trusted bool
	By      string
}

// Tally counts the lines of one part of a log. It is for one goroutine;
// several parts are read by several tallies and put together by Merge.
type Tally struct {
	o     Options
	since int64
	head  head
	rec   record
	trust observe.Trust

	lines, other, unread, suspect int64
	unreadSamples, suspectSamples []string
	first, last                   int64 // of this instance's lines

	total   observe.Flow
	extra   extras
	minutes ranking[minute]
	minute  *minute // of the last line

	messages table[message]
	leftOver int // about how many of them have gone
	deferred distinct
	traffic  traffic
	troubles ranking[trouble]
	holds    map[postfix.QueueID]holding
	sessions table[session]
	dropped  int64 // lines that found a table full

	scratch []byte
}

// extras are what only a Summary has.
type extras struct {
	bytes                                               int64
	forwarded, rejectWarnings, discarded, notifications int64
}

// minute is the flow of one minute.
type minute struct {
	start int64
	flow  observe.Flow
}

// The bounds of a tally. What grows with the log are messages in the queue (48
// bytes each, 50 MB at most), deferred IDs (16 MB), and the holds of somebody
// who held everything (200 bytes each, 100 MB at most); the rest stays below 20.
const (
	mostMessages = 3 << 18
	mostMinutes  = 1 << 15
	mostHolds    = 1 << 19
	mostSessions = 1 << 14
	mostTroubles = 512
	mostSamples  = 8
	sampleSize   = 300
)

// NewTally returns an empty tally.
func NewTally(o Options) *Tally {
	t := &Tally{o: o, head: head{name: o.SyslogName}, since: math.MinInt64, traffic: newTraffic(o.Detail)}
	if !o.Since.IsZero() {
		t.since = o.Since.UnixNano()
	}
	t.messages.limit, t.sessions.limit = mostMessages, mostSessions
	// The heaviest minutes are the newest: old ones go first.
	t.minutes = newRanking(mostMinutes, func(m *minute) int64 { return m.start })
	t.troubles = newRanking(mostTroubles, func(x *trouble) int64 { return x.count })
	t.holds = make(map[postfix.QueueID]holding)
	return t
}

// Text tallies whole lines of a text log, in their order. The last line may
// lack its newline. newest is when the file was last written, which gives
// stamps without a year theirs: a stamp more than a day later than that is of
// the year before.
func (t *Tally) Text(block []byte, trust observe.Trust, newest time.Time) {
	t.head.set(t.o.Location, newest)
	t.trust = leastTrusted(t.trust, trust)
	for len(block) > 0 {
		line := block
		if n := bytes.IndexByte(block, '\n'); n >= 0 {
			line, block = block[:n], block[n+1:]
		} else {
			block = nil
		}
		t.lines++
		t.line(bytes.TrimSuffix(line, []byte("\r"))) // a log that was mailed or copied by hand
	}
}

// Entry tallies one line of the journal.
func (t *Tally) Entry(e Entry) {
	t.lines++
	t.trust = leastTrusted(t.trust, observe.TrustJournal)
	r := &t.rec
	r.at, r.host, r.tag, r.pid, r.text = e.At.UnixNano(), nil, []byte(e.Tag), e.PID, e.Message
	who := t.head.owner(r)
	if who == ours && !e.Trusted {
		who = suspect
	}
	if who != ours {
		by := e.By
		if by != "" {
			by = " (written by " + by + ")"
		}
		t.refuse(who, fmt.Appendf(nil, "%s[%d]: %s%s", e.Tag, e.PID, e.Message, by))
		return
	}
	t.tally(r, e.Message)
}

// leastTrusted returns the lower of two grades; one that is not known yet does
// not count.
func leastTrusted(a, b observe.Trust) observe.Trust {
	grades := []observe.Trust{"", observe.TrustJournal, observe.TrustGuarded, observe.TrustPlain}
	return grades[max(slices.Index(grades, a), slices.Index(grades, b))]
}

// line tallies one line of a text log.
func (t *Tally) line(line []byte) {
	r := &t.rec
	who := t.head.parse(line, r)
	if who == broken {
		var fragment int
		if fragment, who = t.head.glued(line, r); who == ours {
			t.refuse(broken, line[:fragment])
			line = line[fragment:]
		}
	}
	switch who {
	case ours:
		t.tally(r, line)
	case broken:
		// A line without a stamp, or one that was cut: whose it is can only be
		// guessed by what it mentions.
		if !t.mentions(line) {
			who = other
		}
		fallthrough
	default:
		t.refuse(who, line)
	}
}

// mentions says whether a line that is none holds something like our tag.
func (t *Tally) mentions(line []byte) bool {
	name := t.o.SyslogName
	if name == "" {
		name = "postfix"
	}
	at := bytes.Index(line, []byte(name))
	return at >= 0 && at+len(name) < len(line) && line[at+len(name)] == '/'
}

// refuse counts a line that is not tallied.
func (t *Tally) refuse(who origin, line []byte) {
	switch who {
	case suspect:
		t.suspect++
		t.suspectSamples = sample(t.suspectSamples, line)
	case broken:
		t.unread++
		t.unreadSamples = sample(t.unreadSamples, line)
	default:
		t.other++
	}
}

func sample(samples []string, line []byte) []string {
	if len(samples) >= mostSamples {
		return samples
	}
	return append(samples, string(line[:min(len(line), sampleSize)]))
}

// tally takes in what a line of ours says.
func (t *Tally) tally(r *record, line []byte) {
	if r.at < t.since {
		return
	}
	if !r.parseText() {
		t.refuse(broken, line)
		return
	}
	if t.first == 0 {
		t.first = r.at
	}
	t.last = r.at
	switch r.event {
	case Talk:
		if t.o.Detail {
			t.sessionEnds(r)
		}
	case Arrival:
		t.arrival(r)
	case Named:
		t.born(r.id, false)
	case Active:
		t.active(r)
	case Delivery:
		t.delivery(r)
	case Expired:
		t.expired(r)
	case Finished, Deleted:
		t.gone(r)
	case Skipped:
		t.letGo(r.id)
	case Notice:
		t.extra.notifications++
	case Action:
		t.action(r)
	case PlacedOnHold:
		t.count(func(f *observe.Flow) { f.Held++ })
		t.hold(r.id, observe.Hold{At: timeOf(r.at), By: observe.HeldByPostsuper})
	case Released, Requeued:
		t.unhold(r.id)
	case Trouble:
		if t.o.Detail {
			t.trouble(r)
		}
	case Probe:
		// A question to another server, whoever asked it; no mail moved.
	}
}

// count changes the flow, of the whole and of the minute of the line at hand.
func (t *Tally) count(change func(*observe.Flow)) {
	change(&t.total)
	if !t.o.Detail {
		return
	}
	start := t.rec.at - t.rec.at%(60*second)
	if t.minute == nil || t.minute.start != start {
		// A clock that ran ahead must not push out the minutes that count.
		if !t.head.newest.IsZero() && start > t.head.newest.UnixNano()+24*3600*second {
			return
		}
		key := uint64(start) //nolint:gosec // a key, whatever it is as a number
		if t.minute = t.minutes.find(key); t.minute == nil {
			t.minute = t.minutes.add(key, minute{start: start})
		}
	}
	change(&t.minute.flow)
}

// action tallies what an access table, a header check or a milter did.
func (t *Tally) action(r *record) {
	switch string(r.action) {
	case "reject", "milter-reject", "proxy-reject":
		t.count(func(f *observe.Flow) { f.Rejected++ })
	case "reject_warning":
		t.extra.rejectWarnings++
	case "discard", "milter-discard":
		t.extra.discarded++
	case "hold", "milter-hold":
		t.count(func(f *observe.Flow) { f.Held++ })
		h := observe.Hold{At: timeOf(r.at), By: observe.HeldByRule}
		if r.action[0] == 'm' {
			h.By = observe.HeldByMilter
		}
		if t.o.Detail {
			given := rule(r.reason)
			h.Rule = string(given[:min(len(given), sampleSize)])
			if r.id == nil {
				t.sessionHolds(r, h)
				return
			}
		}
		t.hold(r.id, h)
	}
}
