package agree

// The queue that everything is compared on: mail of every shape, in every
// queue, at rest. Postfix made all of it; only what Postfix makes too rarely to
// wait for is helped along, each time by the very write that Postfix does.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/lab/world"
)

const (
	deferred = "deferred.example" // refuses every recipient for now
	half     = "half.example"     // takes some, defers some, bounces some
	slow     = "slow.example"     // never answers MAIL
	bounce   = "bounce.example"   // refuses for good
	sick     = "sick.example"     // has a name server that fails
	customer = "customer.example" // senders; refuses for now, so that notices stay

	milterAddress = "192.0.2.61:10025"
)

// stubbornWorld is a world in which nearly nothing can be delivered.
func stubbornWorld(t *testing.T) world.Config {
	provider := func(name string, number int, domain string, rules ...world.Rule) world.ProviderConfig {
		return world.ProviderConfig{
			Name: name, Domains: []string{domain, "*." + domain},
			Hosts: []world.Host{{Addr: fmt.Sprintf("198.51.100.%d", number)}}, Traffic: world.Traffic{Rules: rules},
		}
	}
	refuse := func(who, text string) world.Rule {
		return world.Rule{Stage: world.StageRcpt, Recipient: world.Pattern(who), Reply: reply(t, text)}
	}
	return world.Config{
		DNS: world.DNSConfig{
			Listen: []string{"192.0.2.53"},
			Faults: []world.DNSFault{{Domain: sick, Kind: world.DNSServfail}},
		},
		Providers: []world.ProviderConfig{
			provider("defers", 10, deferred, refuse("*7@*", "451 4.7.1 <ugly> \"reply\"\x1b[31m with \xff bytes"), refuse("*", "450 4.2.0 come back later")),
			provider("half", 20, half, refuse("*1@*", "450 4.2.2 mailbox is full"), refuse("*2@*", "550 5.1.1 no such user"),
				refuse("*4@*", "452 4.5.3 too many"), refuse("*8@*", "450 4.2.1 try again")),
			provider("slow", 30, slow, world.Rule{Stage: world.StageMail, Delay: world.Duration(24 * time.Hour)}),
			provider("bounce", 40, bounce, refuse("*", "550 5.1.1 never heard of him")),
			provider("customer", 50, customer, refuse("*", "450 4.3.0 not now")),
		},
		Milters: []world.MilterConfig{{Name: "editor", Listen: milterAddress, Rules: []world.MilterRule{
			{Stage: world.MilterEnd, Action: world.MilterAddHeader, Value: "X-Seen-By: editor"},
			{Stage: world.MilterEnd, Sender: "adds@*", Action: world.MilterAddRecipient, Value: "archive@" + deferred},
			{Stage: world.MilterEnd, Sender: "drops@*", Action: world.MilterDeleteRecipient, Value: "dropped@" + deferred},
			{Stage: world.MilterEnd, Sender: "replaces@*", Action: world.MilterReplaceBody, Value: "another body\r\n" + strings.Repeat("longer than before\r\n", 200)},
			{Stage: world.MilterEnd, Sender: "shortens@*", Action: world.MilterReplaceBody, Value: "short\r\n"},
			{Stage: world.MilterEnd, Sender: "quarantines@*", Action: world.MilterQuarantine, Value: "smells"},
		}}},
	}
}

func stubbornParams() map[string]string {
	return map[string]string{
		"minimal_backoff_time":            "4h",
		"maximal_backoff_time":            "8h",
		"queue_run_delay":                 "4h",
		"delay_warning_time":              "1s", // until the first batch is in; see jam
		"smtpd_recipient_limit":           "2000",
		"smtpd_authorized_xforward_hosts": "192.0.2.0/24",
		"milter_default_action":           "accept",
		"virtual_alias_maps": "inline:{ {both@" + deferred + " = one@" + deferred + ", two@" + deferred + "}, {one-too@" + deferred +
			" = one@" + deferred + "} }",
		"smtpd_sender_restrictions": "check_sender_access inline:{ {filter@" + customer + " = FILTER smtp:[198.51.100.10]:25}," +
			" {redirect@" + customer + " = REDIRECT elsewhere@" + deferred + "}, {hold@" + customer + " = HOLD by rule}," +
			" {copy@" + customer + " = BCC copy@" + deferred + "} }",
	}
}

// jam is a lab whose queue is full and stands still.
type jam struct {
	*testing.T
	*lab.Lab
	ctx   context.Context
	spool string
}

// jammed starts a lab, fills its queue with mail of every shape and stops
// everything that could still move it.
func jammed(t *testing.T, longIDs bool) *jam {
	t.Helper()
	l := lab.Up(t, lab.Options{World: stubbornWorld(t), Params: stubbornParams(), LongIDs: longIDs})
	j := &jam{T: t, Lab: l, ctx: within(t, 4*time.Minute), spool: l.SpoolDir("")}
	j.deferSome()
	j.editSome()
	j.keepSomeBusy()
	j.settle()
	j.handleSome()
	j.spoilSome()
	j.freeze()
	j.addToStopped()
	return j
}

func (j *jam) inject(load lab.Load) []lab.Injected {
	j.Helper()
	injected, err := j.Inject(j.ctx, load)
	check(j.T, err)
	return injected
}

// set changes parameters. It waits until qmgr is idle and then starts Postfix
// anew: what is under way at a reload comes back, all done, only at a scan
// minutes later, and a delivery agent of before the reload that gets hold of a
// provider that never answers keeps master from starting others.
func (j *jam) set(settings ...string) {
	j.Helper()
	check(j.T, j.WaitQueue(j.ctx, func(list []lab.Queued) bool {
		n := lab.Counts(list)
		return n["active"]+n["incoming"]+n["maildrop"] == 0
	}))
	check(j.T, j.Postfix(j.ctx, "", "stop"))
	check(j.T, j.SetParams(j.ctx, "", settings...))
	check(j.T, j.Postfix(j.ctx, "", "start"))
}

// deferSome: the common case in many shapes, without a milter.
func (j *jam) deferSome() {
	j.inject(lab.Load{Count: 30, Domains: []string{deferred}})
	j.set("delay_warning_time=0")
	var all []string
	for _, s := range lab.Shapes() {
		if s.Name != "big" {
			all = append(all, s.Name)
		}
	}
	j.inject(lab.Load{Count: 540, Domains: []string{deferred}, Shapes: all})
	j.inject(lab.Load{Count: 3, Domains: []string{deferred}, Shapes: []string{"big"}})
	j.inject(lab.Load{Count: 90, Domains: []string{half}, Recipients: 6, Shapes: []string{"plain", "quoted", "smtputf8"}})
	j.inject(lab.Load{Count: 1, Domains: []string{deferred}, Recipients: 1000})
	j.inject(lab.Load{Count: 1, Domains: []string{deferred}, Recipients: 1100})
	j.inject(lab.Load{Count: 30, Domains: []string{sick}, Client: "203.0.113.77", SASLUser: "batch@customer.example"})
	j.inject(lab.Load{Count: 60, Domains: []string{deferred, half}, Via: "sendmail", Shapes: []string{"plain", "null-sender", "dsn", "long-lines", "eight-bit"}})
	for _, who := range []string{"filter", "redirect", "hold", "copy"} {
		j.inject(lab.Load{Count: 8, Domains: []string{deferred}, Recipients: 2, Sender: who + "@" + customer})
	}
	// Each of these is printed in another form than it is stored in.
	for _, local := range []string{"\"a tab\there\"", `"a quote \" and \\"`, `"an@at"`, `".dots..in.odd.places."`, `"<angle>"`, "böhm", `"\(paren)"`} {
		j.submit(envelope{sender: local + "@" + customer, rcpts: []string{local + "@" + deferred, "plain@" + deferred}})
	}
	// smtpd wants UTF-8; a local program may say anything.
	in(j.T, j.Lab, "Subject: Latin-1\n\nHello.\n", "sendmail", "-f", "h\xe9l\xe8ne@"+customer, "b\xf6hm@"+deferred)
	for _, rcpts := range [][]string{{"both@" + deferred, "one-too@" + deferred}, {"one@" + deferred, "one-too@" + deferred}} {
		j.submit(envelope{rcpts: rcpts})
	}
}

// editSome: the same through a milter, which leaves pointer records.
func (j *jam) editSome() {
	j.set("smtpd_milters=inet:" + milterAddress)
	j.inject(lab.Load{Count: 220, Domains: []string{deferred, half}, Shapes: []string{"plain", "null-sender", "smtputf8", "quoted", "malformed", "hostile", "long-lines", "dsn"}})
	for _, who := range []string{"adds", "replaces", "shortens", "quarantines"} {
		j.inject(lab.Load{Count: 20, Domains: []string{deferred}, Recipients: 3, Sender: who + "@" + customer})
	}
	for range 10 {
		j.submit(envelope{sender: "drops@" + customer, rcpts: []string{"kept@" + deferred, "dropped@" + deferred, "also-kept@" + deferred}})
	}
	j.set("smtpd_milters=")
}

// keepSomeBusy: mail that stays in active, partly delivered, and mail of an
// original client that a filter in front told about.
func (j *jam) keepSomeBusy() {
	j.inject(lab.Load{Count: 30, Domains: []string{slow}})
	for i := range 10 {
		n := strconv.Itoa(i)
		j.submit(envelope{rcpts: []string{"waits" + n + "@" + slow, "gone" + n + "@" + bounce, "later" + n + "@" + deferred, "ok@" + half}})
		j.submit(envelope{
			xforward: "XFORWARD NAME=origin.example ADDR=203.0.113.9 PROTO=ESMTP HELO=hello.example SOURCE=REMOTE",
			rcpts:    []string{"forwarded" + n + "@" + deferred},
		})
	}
	// A probe is in the queue only while it is tried.
	in(j.T, j.Lab, "", "sendmail", "-bv", "probe@"+slow)
}

// settle waits until nothing moves: what was to be tried was tried.
func (j *jam) settle() {
	j.Helper()
	const busy = 30 + 10 + 1
	check(j.T, j.WaitQueue(j.ctx, func(list []lab.Queued) bool {
		n := lab.Counts(list)
		return n["active"] == busy && n["incoming"] == 0 && n["maildrop"] == 0
	}))
}

// ids returns IDs of messages in one queue, of a plain shape, in a fixed order.
func (j *jam) ids(queue string, count int, wanted func(lab.Queued) bool) []string {
	j.Helper()
	list, err := j.Queue(j.ctx, "")
	check(j.T, err)
	var ids []string
	for _, m := range list {
		if m.Queue == queue && len(ids) < count && (wanted == nil || wanted(m)) {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) < count {
		j.Fatalf("there are %d such messages in %s, not %d", len(ids), queue, count)
	}
	return ids
}

// handleSome: what operators do: hold, release, expire, requeue, flush.
func (j *jam) handleSome() {
	ids := j.ids("deferred", 60, nil)
	in(j.T, j.Lab, strings.Join(ids[:40], "\n")+"\n", "postsuper", "-h", "-", "deferred")
	in(j.T, j.Lab, strings.Join(ids[:5], "\n")+"\n", "postsuper", "-H", "-", "hold")
	in(j.T, j.Lab, strings.Join(ids[40:], "\n")+"\n", "postsuper", "-e", "-", "deferred")
	in(j.T, j.Lab, strings.Join(j.ids("hold", 3, nil), "\n")+"\n", "postsuper", "-e", "-", "hold")
}

// path finds a queue file of the spool.
func (j *jam) path(queue, id string) string {
	j.Helper()
	found := ""
	err := filepath.WalkDir(filepath.Join(j.spool, queue), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == id {
			found = path
			return fs.SkipAll
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	check(j.T, err)
	if found == "" {
		j.Fatalf("no file of %s in %s", id, queue)
	}
	return found
}

// spoilSome: files cut short, which qmgr saves in corrupt; one in the queue of
// old that only postcat knows; one where Postfix does not look for it.
func (j *jam) spoilSome() {
	ids := j.ids("deferred", 9, func(m lab.Queued) bool { return len(m.Recipients) == 1 })
	for i, id := range ids[:5] {
		path := j.path("deferred", id)
		st, err := os.Stat(path)
		check(j.T, err)
		check(j.T, os.Truncate(path, st.Size()*int64(2*i+1)/10+1))
		check(j.T, os.Chtimes(path, time.Now(), time.Now()))
	}
	for _, id := range ids[:5] {
		in(j.T, j.Lab, "", "postqueue", "-i", id)
	}
	check(j.T, j.WaitQueue(j.ctx, func([]lab.Queued) bool {
		found, err := os.ReadDir(filepath.Join(j.spool, "corrupt"))
		return err == nil && len(found) == 5
	}))
	j.settle()
	for _, id := range ids[5:7] {
		check(j.T, os.Rename(j.path("deferred", id), filepath.Join(j.spool, "saved", id)))
	}
	for _, id := range ids[7:9] {
		check(j.T, os.Rename(j.path("deferred", id), filepath.Join(j.spool, "deferred", id)))
	}
}

// freeze stops who would move mail. SIGSTOP and not "postfix stop": showq must
// answer, and a delivery under way must stay under way.
func (j *jam) freeze() {
	j.stop("qmgr")
	// What deliver_completed() does, when an agent had reported the recipient
	// as deferred to the log and as done to the file: rare, and harmless.
	reported := func(m lab.Queued, least, most int) bool {
		return len(m.Recipients) >= least && len(m.Recipients) <= most && m.Recipients[0].Reason != ""
	}
	for _, id := range slices.Concat(
		j.ids("deferred", 4, func(m lab.Queued) bool { return reported(m, 1, 1) }),
		j.ids("deferred", 4, func(m lab.Queued) bool { return reported(m, 2, 10) }),
	) {
		j.markFirstDone(id)
	}
}

// stop sends SIGSTOP to every Postfix process of one name.
func (j *jam) stop(name string) {
	j.Helper()
	pids := strings.Fields(in(j.T, j.Lab, "", "pgrep", "-x", name))
	in(j.T, j.Lab, "", append([]string{"kill", "-STOP"}, pids...)...)
}

// markFirstDone writes the one byte that marks a recipient as done, where the
// first entry of the defer log says that the recipient is.
func (j *jam) markFirstDone(id string) {
	j.Helper()
	path := j.path("deferred", id)
	log, err := os.ReadFile(j.path("defer", id))
	check(j.T, err)
	_, rest, _ := strings.Cut(string(log), "\noffset=")
	number, _, _ := strings.Cut(rest, "\n")
	at, err := strconv.ParseInt(number, 10, 64)
	check(j.T, err)
	st, err := os.Stat(path)
	check(j.T, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(j.T, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	check(j.T, err)
	if b[0] != 'R' {
		j.Fatalf("%s: record %q at the offset of the first entry", id, b[0])
	}
	_, err = f.WriteAt([]byte{'D'}, at)
	check(j.T, errors.Join(err, f.Close(), os.Chtimes(path, st.ModTime(), st.ModTime())))
}

// addToStopped: mail that waits for a stopped qmgr in incoming, some of it
// flushed from deferred, and for a stopped pickup in maildrop, some of it
// requeued.
func (j *jam) addToStopped() {
	j.inject(lab.Load{Count: 40, Domains: []string{deferred}, Shapes: []string{"plain", "quoted", "null-sender", "sasl"}})
	in(j.T, j.Lab, "", "sendmail", "-bv", "probe@"+deferred)
	check(j.T, j.WaitQueue(j.ctx, func(list []lab.Queued) bool { return lab.Counts(list)["maildrop"] == 0 }))
	for _, id := range j.ids("deferred", 5, nil) {
		in(j.T, j.Lab, "", "postqueue", "-i", id)
	}
	j.stop("pickup")
	j.inject(lab.Load{Count: 30, Domains: []string{deferred, half}, Recipients: 2, Via: "sendmail", Shapes: []string{"plain", "null-sender", "quoted", "dsn"}})
	res, err := j.ExecWith(j.ctx, lab.ExecOptions{UID: 65534, GID: 65534, Stdin: strings.NewReader("no header at all\n")}, "sendmail", "nobody@"+deferred)
	check(j.T, err)
	if res.Code != 0 {
		j.Fatalf("sendmail of nobody: %s", res.Stderr)
	}
	requeued := j.ids("deferred", 5, func(m lab.Queued) bool { return len(m.Recipients) > 0 })
	in(j.T, j.Lab, strings.Join(requeued, "\n")+"\n", "postsuper", "-r", "-", "deferred")
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred", "hold"} {
		if len(j.ids(queue, 1, nil)) == 0 {
			j.Fatalf("no message in %s", queue)
		}
	}
}

// envelope is a message that lab.Load cannot describe.
type envelope struct {
	sender   string
	rcpts    []string
	xforward string
}

// submit sends one message over a session of its own.
func (j *jam) submit(e envelope) {
	j.Helper()
	if e.sender == "" {
		e.sender = "somebody@" + customer
	}
	conn, err := j.Dial(j.ctx, lab.WorldSide, j.Instances[0].Address+":25")
	check(j.T, err)
	defer conn.Close()
	r, w := textproto.NewReader(bufio.NewReader(conn)), bufio.NewWriter(conn)
	say := func(code int, line string) {
		j.Helper()
		_, err := w.WriteString(line)
		check(j.T, errors.Join(err, w.Flush(), conn.SetDeadline(time.Now().Add(time.Minute))))
		if _, _, err := r.ReadResponse(code); err != nil {
			j.Fatalf("%q: %v", bytes.TrimSpace([]byte(line)), err)
		}
	}
	say(220, "")
	say(250, "EHLO front.example\r\n")
	if e.xforward != "" {
		say(250, e.xforward+"\r\n")
	}
	say(250, "MAIL FROM:<"+e.sender+">\r\n")
	for _, rcpt := range e.rcpts {
		say(250, "RCPT TO:<"+rcpt+">\r\n")
	}
	say(354, "DATA\r\n")
	say(250, "From: <"+e.sender+">\r\nSubject: one of a kind\r\nMessage-ID: <"+strings.Join(e.rcpts, ".")+">\r\n\r\nHello.\r\n.\r\n")
}
