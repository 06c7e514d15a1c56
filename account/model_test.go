package account

import (
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
)

// model is a Postfix in which nothing happens but mail, and which knows what
// became of each recipient. It writes a real log and a real record.
type model struct {
	*testing.T
	seed    uint64
	rnd     *rand.Rand
	dir     string
	in      postfix.Instance
	log     *os.File
	now     time.Time
	begin   time.Time
	queue   []*mail
	all     []*mail
	vault   []*mail // deleted by us, with a copy
	entries []record.Entry
	drops   bool // lines may be lost
	lost    int
	serial  int
	again   time.Time // arrival of a message that comes back: not as what it was once
}

// mail is one message of the model.
type mail struct {
	Message
	n      int
	held   bool
	all    []string // recipients in the order in which they were given
	fate   map[string]Fate
	next   map[string]postfix.QueueID
	unseen map[string]bool // the line that tells its fate was lost
	late   bool            // it came when the first snapshot had been taken
	harmed bool            // a line of it was lost
	item   string
	noted  bool // a notification is due
	twice  bool // its recipients were lost from sight and then it went as a whole
}

func newModel(t *testing.T, seed uint64, drops bool) *model {
	t.Helper()
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := &model{
		T: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 5)), dir: dir, drops: drops, now: time.Now().UTC().Add(-20 * time.Hour).Truncate(time.Second),
		in: postfix.Instance{Name: "postfix", SyslogName: "postfix", MailOwner: who.Username, MailLogFile: filepath.Join(dir, "mail.log"), CommandDir: dir},
	}
	m.openLog()
	return m
}

func (m *model) check(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *model) openLog() {
	f, err := os.OpenFile(m.in.MailLogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	m.check(err)
	m.log = f
	m.Cleanup(func() { _ = f.Close() })
}

func (m *model) rotate() {
	m.written()
	for i := 40; i >= 1; i-- {
		_ = os.Rename(fmt.Sprintf("%s.%d", m.in.MailLogFile, i), fmt.Sprintf("%s.%d", m.in.MailLogFile, i+1))
	}
	m.check(m.log.Close())
	m.check(os.Rename(m.in.MailLogFile, m.in.MailLogFile+".1"))
	m.openLog()
}

// written gives the log the time of the model, by which its stamps are read.
func (m *model) written() { m.check(os.Chtimes(m.in.MailLogFile, m.now, m.now)) }

// say logs a line about a message and reports whether it was lost. A message
// loses one line at most: what no evidence is left of nobody can account for.
func (m *model) say(x *mail, program, format string, args ...any) bool {
	if m.drops && !x.harmed && m.rnd.IntN(25) == 0 {
		m.lost++
		x.harmed = true
		return true
	}
	_, err := fmt.Fprintf(m.log, "%s relay1 postfix/%s[77]: %s: %s\n", m.now.Format("Jan _2 15:04:05"), program, x.ID, fmt.Sprintf(format, args...))
	m.check(err)
	return false
}

func (m *model) wait() {
	m.now = m.now.Add(time.Duration(4000+m.rnd.IntN(30000)) * time.Millisecond)
}

// freeID gives the ID of an inode that is free: few inodes, and few IDs an
// inode, so that IDs come again and again.
func (m *model) freeID() (postfix.QueueID, uint64) {
	for {
		inode := uint64(0x100 + m.rnd.IntN(20))
		id := postfix.QueueID(fmt.Sprintf("%05X%X", m.rnd.IntN(2), inode))
		same := func(x *mail) bool { return x.ID == id && x.Arrival.Equal(m.again) }
		if !slices.ContainsFunc(m.all, same) && !slices.ContainsFunc(m.queue, func(x *mail) bool { return x.Inode == inode }) {
			return id, inode
		}
	}
}

// put lets a message come into being, with its own recipients unless some are
// given.
func (m *model) put(sender string, recipients []string, q postfix.Queue) *mail {
	m.serial++
	id, inode := m.freeID()
	x := &mail{n: m.serial, fate: map[string]Fate{}, next: map[string]postfix.QueueID{}, unseen: map[string]bool{}, late: !m.begin.IsZero()}
	x.Fingerprint = postfix.Fingerprint{Instance: m.in.Name, ID: id, Inode: inode, Arrival: m.now.Add(time.Duration(m.serial) * time.Microsecond), Size: int64(1000 + m.serial), Sender: sender}
	x.Queue, x.Recipients = q, recipients
	for i := range 1 + m.rnd.IntN(3) {
		if recipients == nil {
			x.Recipients = append(x.Recipients, fmt.Sprintf("r%d.%d@example.net", x.n, i))
		}
	}
	x.all = slices.Clone(x.Recipients)
	m.queue, m.all = append(m.queue, x), append(m.all, x)
	return x
}

func (m *model) arrive() *mail {
	x := m.put(fmt.Sprintf("s%d@example.org", m.rnd.IntN(3)), nil, postfix.Incoming)
	m.say(x, "smtpd", "client=mx.example.org[192.0.2.7]")
	m.named(x)
	return x
}

// named is what cleanup and the queue manager say of every message at once.
func (m *model) named(x *mail) {
	m.say(x, "cleanup", "message-id=<%d@example.org>", x.n)
	m.takeUp(x)
}

func (m *model) takeUp(x *mail) {
	m.say(x, "qmgr", "from=<%s>, size=%d, nrcpt=%d (queue active)", x.Sender, x.Size, len(x.all))
}

// leave takes a message out of the queue.
func (m *model) leave(x *mail) {
	m.queue = slices.DeleteFunc(m.queue, func(y *mail) bool { return x == y })
}

// deliver tries all recipients once.
func (m *model) deliver(x *mail) {
	m.takeUp(x)
	for _, r := range slices.Clone(x.Recipients) {
		m.attempt(x, r)
	}
	x.Queue = postfix.Deferred
	m.done(x)
}

func (m *model) attempt(x *mail, r string) {
	delay := m.now.Sub(x.Arrival).Seconds()
	precise := fmt.Sprintf("%.2g", delay)
	if delay >= 10 {
		precise = fmt.Sprintf("%.0f", delay)
	}
	var status string
	program := "smtp"
	switch m.rnd.IntN(10) {
	case 0, 1, 2:
		status = "sent (250 2.0.0 Ok: queued as 4d2NaQ5Lz8z1x)"
		x.fate[r] = Delivered
	case 3:
		status = "bounced (host mx.example.net[192.0.2.1] said: 550 5.1.1 no such user)"
		x.fate[r] = Bounced
		x.noted = true
	case 4:
		program, status = "discard", "sent (discarded)"
		x.fate[r] = Discarded
	case 5:
		y := m.put(x.Sender, nil, postfix.Incoming)
		m.named(y)
		program, status = "local", "sent (forwarded as "+string(y.ID)+")"
		x.fate[r], x.next[r] = Moved, y.ID
	default:
		m.say(x, program, "to=<%s>, relay=none, delay=%s, delays=0/0/0/0, dsn=4.4.1, status=deferred (connect to mx.example.net[192.0.2.1]:25: Connection refused)", r, precise)
		return
	}
	x.unseen[r] = m.say(x, program, "to=<%s>, relay=mx.example.net[192.0.2.1]:25, delay=%s, delays=0/0/0/0, dsn=2.0.0, status=%s", r, precise, status)
	x.Recipients = slices.DeleteFunc(x.Recipients, func(y string) bool { return y == r })
}

// done lets a message end of which all recipients are done.
func (m *model) done(x *mail) {
	if len(x.Recipients) > 0 {
		return
	}
	if x.noted && x.Sender != "" {
		m.notify(x)
	}
	m.leave(x)
	m.say(x, "qmgr", "removed")
}

func (m *model) notify(x *mail) {
	y := m.put("", []string{fmt.Sprintf("n%d.%s", m.serial+1, x.Sender)}, postfix.Incoming)
	m.named(y)
	m.say(x, "bounce", "sender non-delivery notification: %s", y.ID)
}

// whole gives all recipients that are left one fate.
func (m *model) whole(x *mail, fate Fate, next postfix.QueueID, lost bool) {
	for _, r := range x.all {
		if x.unseen[r] {
			x.twice = true // it is one of the message's, as far as anybody can see
		}
	}
	for _, r := range x.Recipients {
		x.fate[r], x.next[r], x.unseen[r] = fate, next, lost
	}
	x.Recipients = nil
}

func (m *model) expire(x *mail) {
	lost := m.say(x, "qmgr", "from=<%s>, status=expired, returned to sender", x.Sender)
	m.whole(x, Expired, "", lost)
	if x.Sender != "" {
		m.notify(x)
	}
	m.leave(x)
	m.say(x, "qmgr", "removed")
}

func (m *model) requeue(x *mail) {
	recipients := slices.Clone(x.Recipients)
	told := m.say(x, "postsuper", "requeued")
	m.leave(x)
	m.again = x.Arrival
	y := m.put(x.Sender, recipients, postfix.Incoming)
	y.Arrival, m.again = x.Arrival, time.Time{}
	edge := m.say(y, "pickup", "uid=0 from=<%s> orig_id=%s", y.Sender, x.ID)
	m.named(y)
	m.whole(x, Moved, y.ID, edge)
	x.harmed = x.harmed || told || edge
}

// removed is what another administrator does.
func (m *model) removed(x *mail) {
	m.whole(x, DeletedByOther, "", m.say(x, "postsuper", "removed"))
	m.leave(x)
}

// enter writes an entry of the record.
func (m *model) enter(kind record.Kind, ref uint64, body any) uint64 {
	detail, err := json.Marshal(body)
	m.check(err)
	e := record.Entry{Seq: uint64(len(m.entries) + 1), At: m.now, Kind: kind, Ref: ref, Detail: detail}
	m.entries = append(m.entries, e)
	return e.Seq
}

func (m *model) record() iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		for _, e := range m.entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (m *model) act(verb plan.Verb, x *mail, o record.Outcome) {
	id := fmt.Sprintf("%064x", len(m.entries))
	m.enter(record.Planned, 0, record.PlanBody{Plan: id, Verb: verb, Reason: "flood"})
	t := plan.Target{Fingerprint: x.Fingerprint, Queue: x.Queue, Recipients: len(x.Recipients)}
	if verb == plan.Restore {
		t.Item, t.Recipients = x.item, len(m.outstanding(x))
	}
	intent := m.enter(record.Intended, 0, record.IntentBody{Plan: id, Verb: verb, Batch: 1, Targets: []plan.Target{t}})
	o.ID, o.Item = x.ID, x.item
	m.enter(record.Settled, intent, record.OutcomeBody{Plan: id, Verb: verb, Batch: 1, Outcomes: []record.Outcome{o}})
}

// outstanding are the recipients that the copy in the vault has.
func (m *model) outstanding(x *mail) []string {
	var left []string
	for _, r := range x.all {
		if x.fate[r] == Deleted {
			left = append(left, r)
		}
	}
	return left
}

func (m *model) remove(x *mail) {
	x.item = fmt.Sprintf("pack-%d", x.n)
	m.say(x, "postsuper", "placed on hold")
	m.act(plan.Delete, x, record.Outcome{State: record.Done})
	m.say(x, "postsuper", "removed")
	m.whole(x, Deleted, "", false)
	m.leave(x)
	m.vault = append(m.vault, x)
}

// restore brings a copy back, into hold, without a word in the log.
func (m *model) restore() {
	if len(m.vault) == 0 {
		return
	}
	x := m.vault[0]
	m.vault = m.vault[1:]
	recipients := m.outstanding(x)
	m.again = x.Arrival
	y := m.put(x.Sender, recipients, postfix.Hold)
	m.again = time.Time{}
	y.Arrival, y.Size, y.held = x.Arrival, x.Size, true
	y.harmed = true // it has no lines that begin it, which is as good as lost
	m.act(plan.Restore, x, record.Outcome{State: record.Done, Successor: y.ID, Inode: y.Inode})
	for _, r := range recipients {
		x.fate[r], x.next[r] = Moved, y.ID
	}
}

// turn is one thing that happens.
func (m *model) turn() {
	m.wait()
	what := m.rnd.IntN(100)
	if len(m.queue) == 0 || what < 25 && len(m.queue) < 14 {
		m.arrive()
		return
	}
	x := m.queue[m.rnd.IntN(len(m.queue))]
	switch {
	case what < 30:
		m.rotate()
	case what < 33:
		m.restore()
	case what < 38:
		x.held, x.Queue = true, postfix.Hold
		m.say(x, "postsuper", "placed on hold")
	case what < 44:
		if x.held {
			m.say(x, "postsuper", "released from hold")
		}
		x.held, x.Queue = false, postfix.Deferred
	case what < 48:
		m.removed(x)
	case what < 54:
		m.remove(x)
	case what < 58:
		m.requeue(x)
	case x.held:
	case what < 62:
		m.takeUp(x)
		m.expire(x)
	default:
		m.deliver(x)
	}
}

// snapshot looks at the queue.
func (m *model) snapshot() *Snapshot {
	m.wait()
	at, err := maillog.End(m.in, maillog.ReadOptions{Location: time.UTC})
	m.check(err)
	s := &Snapshot{Head: Head{
		Schema: schema, Instance: m.in.Name, From: m.now, To: m.now.Add(time.Second), Source: observe.FromSpool, Log: at,
		Queues: map[string]Shape{}, Gaps: []observe.Gap{},
	}}
	for _, x := range m.queue {
		one := x.Message
		one.Recipients = slices.Clone(x.Recipients)
		s.All = append(s.All, one)
		s.Recipients += len(one.Recipients)
	}
	s.Messages = len(s.All)
	m.now = s.Head.To
	m.written()
	return s
}

// steps reads the log from where a snapshot says.
func (m *model) steps(from *Snapshot) func(func(*maillog.Step)) maillog.Trace {
	return func(each func(*maillog.Step)) maillog.Trace {
		return maillog.Steps(m.Context(), m.in, maillog.ReadOptions{Location: time.UTC, Since: from.Head.From}, from.Log, each)
	}
}
