package forge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"holdfast/postfix"
)

// MailLogOptions say how a forged mail log is to be.
type MailLogOptions struct {
	// Bytes is how long it becomes: the first whole event at or beyond it is
	// the last one.
	Bytes int64
	// Seed makes logs differ; one seed gives one log.
	Seed uint64
	// From and To are the times of the first and the last line. Stamps are
	// written in the zone of From, as syslog writes those of its host.
	From, To time.Time
	// Domains is how many recipient domains there are, 200 where it is 0.
	// They bear the names dest0.example, dest1.example and so on, the first
	// ones having most of the mail.
	Domains int
	// Instance is the syslog_name, "postfix" where it is empty.
	Instance string
}

// MailLogTotals is what a forged log says, counted while it was written: the
// truth that readers of logs are held to.
type MailLogTotals struct {
	Bytes, Lines int64
	// Received counts messages that came in, BytesReceived their sizes as far
	// as qmgr logged them.
	Received, BytesReceived int64
	// The next count one for each line.
	Delivered, Bounced int64
	// Deferrals are failed attempts, Suspended recipients that were put off
	// without one. DeferredMessages are the messages that either happened to.
	Deferrals, Suspended, DeferredMessages int64
	Expired, Notifications                 int64
	Rejected, RejectWarnings               int64
	// HeldByRule counts holds of an access table, HeldByHand those of postsuper.
	HeldByRule, HeldByHand int64
}

// MailLog writes the log of a busy relay that never was, as postlogd(8) writes
// it (RFC 3164 stamps): sessions of clients, mail that is taken up, delivered,
// deferred, suspended, tried again, bounced and expired, refusals, holds, and
// the talk between. Messages are interleaved, as in a log of many processes,
// and stamps step back now and then, since it is the clients that stamp.
//
// Every message has a queue ID of its own. Real short IDs come back about once
// in a million messages, which would leave the true number of messages open.
func MailLog(w io.Writer, o MailLogOptions) (MailLogTotals, error) {
	if o.Bytes <= 0 || !o.To.After(o.From) {
		return MailLogTotals{}, errors.New("forge mail log: no size, or no time from first to last line")
	}
	if o.Domains <= 0 {
		o.Domains = 200
	}
	if o.Instance == "" {
		o.Instance = "postfix"
	}
	r := &relay{
		o: o, out: bufio.NewWriterSize(w, 1<<18),
		rand: rand.New(rand.NewPCG(o.Seed, 3164)),
	}
	for r.totals.Bytes < o.Bytes && r.err == nil {
		r.step()
	}
	if err := errors.Join(r.err, r.out.Flush()); err != nil {
		return r.totals, fmt.Errorf("forge mail log: %w", err)
	}
	return r.totals, nil
}

// relay is the state of the mail system whose log is written.
type relay struct {
	o      MailLogOptions
	out    *bufio.Writer
	rand   *rand.Rand
	line   []byte
	err    error
	totals MailLogTotals

	second int64  // that stamp is of
	stamp  []byte // with the host's name behind it

	messages uint64 // so far
	active   []*logged
	deferred []*logged
	held     []*logged
}

// logged is one message of the log.
type logged struct {
	id, sender  string
	size        int
	arrived     time.Time
	domain      []int // of the recipients that wait
	user        []int
	recipients  int
	tries       int
	wasDeferred bool
}

// Bounds of the queues of the relay: one that is fuller is served first, so
// that a log of any length needs the same memory.
const (
	mostActive   = 60
	mostDeferred = 20_000
	mostHeldMail = 500
	mostTries    = 12
)

// step lets one thing happen.
func (r *relay) step() {
	switch k := r.rand.IntN(1000); {
	case len(r.active) > mostActive || k < 440 && len(r.active) > 0:
		r.attempt(take(r.rand, &r.active))
	case len(r.deferred) > mostDeferred || k < 520 && len(r.deferred) > 0:
		r.takeUp(take(r.rand, &r.deferred))
	case k < 940:
		r.session()
	case k < 955:
		r.pickup()
	case k < 960:
		r.postsuper()
	default:
		r.talk()
	}
}

// take removes one of several messages, any of them.
func take(from *rand.Rand, list *[]*logged) *logged {
	l := *list
	i := from.IntN(len(l))
	m := l[i]
	l[i] = l[len(l)-1]
	*list = l[:len(l)-1]
	return m
}

// now is the time of the next line: the log grows evenly.
func (r *relay) now() time.Time {
	share := min(float64(r.totals.Bytes)/float64(r.o.Bytes), 1)
	return r.o.From.Add(time.Duration(share * float64(r.o.To.Sub(r.o.From))))
}

// begin begins a line.
func (r *relay) begin(program string, pid int) *relay {
	at := r.now()
	second := at.Unix()
	if r.rand.IntN(300) == 0 {
		second--
	}
	if second != r.second || r.stamp == nil {
		r.second = second
		r.stamp = time.Unix(second, 0).In(r.o.From.Location()).AppendFormat(r.stamp[:0], "Jan _2 15:04:05")
		r.stamp = append(r.stamp, " relay1 "...) // not of the layout: its digit would be a month
	}
	r.line = append(append(r.line[:0], r.stamp...), r.o.Instance...)
	return r.text("/").text(program).text("[").number(pid).text("]: ")
}

func (r *relay) text(s string) *relay {
	r.line = append(r.line, s...)
	return r
}

func (r *relay) number(n int) *relay {
	r.line = strconv.AppendInt(r.line, int64(n), 10)
	return r
}

// token appends what servers name their queue entries and sessions by.
func (r *relay) token() *relay {
	const digits = "0123456789ABCDEF"
	for v, i := r.rand.Uint64(), 0; i < 10; i++ {
		r.line = append(r.line, digits[v&15])
		v >>= 4
	}
	return r
}

// decimal appends tenths as Postfix writes delays: two digits that count.
func (r *relay) decimal(tenths int) *relay {
	r.number(tenths / 10)
	if tenths < 100 && tenths%10 != 0 {
		r.text(".").number(tenths % 10)
	}
	return r
}

// end writes the line.
func (r *relay) end() {
	r.line = append(r.line, '\n')
	n, err := r.out.Write(r.line)
	r.totals.Bytes += int64(n)
	r.totals.Lines++
	if r.err == nil {
		r.err = err
	}
}

func (r *relay) client(n int) *relay {
	return r.text("app").number(n).text(".clients.example[198.51.100.").number(n % 250).text("]")
}

func (r *relay) newMessage(sender string) *logged {
	r.messages++
	const firstInode = 300_000
	at := r.now().Truncate(time.Second).Add(time.Duration(r.rand.IntN(1_000_000)) * time.Microsecond)
	m := &logged{
		id: string(postfix.NewShortID(at, firstInode+r.messages)), sender: sender, arrived: at,
		// Small ones are commoner.
		size: int(1000 * math.Pow(200, r.rand.Float64())),
	}
	m.recipients = 1
	if r.rand.IntN(12) == 0 {
		m.recipients += r.rand.IntN(8)
	}
	for range m.recipients {
		m.domain = append(m.domain, int(math.Pow(float64(r.o.Domains), r.rand.Float64()))-1)
		m.user = append(m.user, r.rand.IntN(1_000_000))
	}
	return m
}
