package agree

// The native reader agrees with postqueue, postcat and showq, field by field,
// on two queues of real mail of every shape, one of short and one of long IDs.
// Where it differs, the difference is one of those that have a name below, and
// every name must occur: one that no longer does describes nothing.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/lab"
	"holdfast/observe"
	"holdfast/observe/showq"
	"holdfast/observe/spool"
	"holdfast/postfix"
)

// difference is a way in which the reader and Postfix's programs disagree on
// purpose.
type difference string

const (
	// A probe asks whether an address exists. It is no mail, so the reader
	// counts it apart; showq does not look at trace flags.
	probeLeftOut difference = "address probe: listed by showq, counted apart by the reader"
	// showq.c lists maildrop, active, incoming, deferred and hold.
	setAside difference = "corrupt or saved: read by the reader, not listed by showq"
	// showq prints a defer log without asking whether the recipients in it are
	// still to do.
	doneListed difference = "recipient done: still listed by showq from the defer log"
	// showq remembers duplicate_filter_limit addresses of the defer log; what
	// it forgot it lists again when it comes to the recipient record.
	listedTwice difference = "more reasons than duplicate_filter_limit: listed twice by showq"
	// With REDIRECT the log is about the one new address, under the offset of
	// the first recipient; showq shows both, the reader joins them.
	redirectShown difference = "redirected: showq lists the new address as one more recipient"
	// Postfix enumerates by walking and opens by computed path, so it meets the
	// name and then does not find the file.
	misplaced difference = "misplaced file: not listed by showq, not found by postcat -q"
	// postsuper -r leaves the old size record in place. 3.7 believes it; later
	// releases do not, and a preliminary one of 3.11 means nothing.
	requeuedSize difference = "requeued to maildrop: showq has the size of before, the reader that of the file"
	// mail_queue_names of postcat.c ends with saved.
	corruptUnfound difference = "corrupt file: not found by postcat -q"
	// postcat -h ends at the first record that does not begin a header or
	// continue one, which the second record of a long header line is, too.
	headersEnd difference = "headers: postcat -h ends earlier, at what is no header or at 2,048 bytes of one line"
)

func differences() []difference {
	return []difference{probeLeftOut, setAside, doneListed, listedTwice, redirectShown, misplaced, requeuedSize, corruptUnfound, headersEnd}
}

// tally counts how often each difference occurred, in both labs.
type tally struct {
	mu       sync.Mutex
	count    map[difference]int
	messages int
}

func (c *tally) add(d difference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[d]++
}

func TestReaderAgreesWithPostfix(t *testing.T) {
	c := &tally{count: make(map[difference]int)}
	t.Run("queue", func(t *testing.T) {
		for name, long := range map[string]bool{"short IDs": false, "long IDs": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				newComparison(t, c, long).run()
			})
		}
	})
	t.Logf("%d messages", c.messages)
	for _, d := range differences() {
		t.Logf("%5d  %s", c.count[d], d)
		if c.count[d] == 0 {
			t.Errorf("this difference never occurred: %s", d)
		}
	}
	if c.messages < 2000 {
		t.Errorf("compared %d messages, not 2,000", c.messages)
	}
}

// comparison is one queue as everybody sees it.
type comparison struct {
	*jam
	tally  *tally
	in     postfix.Instance
	reader *spool.Reader
	snap   *observe.Snapshot
	native map[string]*postfix.Message // by queue/ID
	listed []lab.Queued
}

func newComparison(t *testing.T, count *tally, long bool) *comparison {
	c := &comparison{jam: jammed(t, long), tally: count, native: make(map[string]*postfix.Message)}
	c.in = instanceOf(t, c.Lab)
	var err error
	c.reader, err = spool.NewReader(c.in, spool.Options{})
	check(t, err)
	c.listed, err = c.Queue(c.ctx, "")
	check(t, err)
	c.snap, err = c.reader.Look(c.ctx)
	check(t, err)
	for _, m := range messages(c.snap) {
		if c.native[place(m)] != nil {
			t.Errorf("%s is in the snapshot twice", place(m))
		}
		c.native[place(m)] = m
	}
	return c
}

func place(m *postfix.Message) string { return m.Queue.String() + "/" + string(m.ID) }

func (c *comparison) run() {
	c.shape()
	c.withPostqueue(c.listed)
	c.withShowq()
	c.withCommand()
	c.withPostcat()
	c.tally.mu.Lock()
	c.tally.messages += len(c.native)
	c.tally.mu.Unlock()
}

// shape makes sure that the queue is what this test is about.
func (c *comparison) shape() {
	kind := map[string]int{}
	for _, m := range c.native {
		count := func(name string, is bool) {
			if is {
				kind[name]++
			}
		}
		count("in "+m.Queue.String(), true)
		count("null sender", m.Sender == "")
		count("UTF-8 sender or recipient", m.SMTPUTF8)
		count("1,000 recipients", len(m.Recipients) >= 1000)
		count("some done", m.Done > 0 && len(m.Recipients) > 0)
		count("all done", m.Done > 0 && len(m.Recipients) == 0)
		count("bounce waits", len(m.Bounces) > 0)
		count("SASL user", m.SASLUser != "")
		count("filter", m.Filter != "")
		count("redirect", m.Redirect != "")
		count("force-expired", m.ForceExpire)
		count("flush requested", m.FlushRequested)
		count("body replaced", m.ContentLength != m.Size && m.ContentLength != 0)
		count("damaged", m.Damage != "")
		count("told client", m.Client.Address == "203.0.113.9")
		count("original recipient", slices.ContainsFunc(m.Recipients, func(r postfix.Recipient) bool { return r.Original != "" }))
		count("no reason", len(m.Recipients) > 0 && m.Recipients[0].Reason == "")
		form := map[postfix.IDForm]string{postfix.ShortID: "short ID", postfix.LongID: "long ID"}[m.ID.Form()]
		count(form, true)
		if want := map[bool]string{false: "short ID", true: "long ID"}[c.in.LongIDs]; form != want {
			c.Errorf("%s has a %s", place(m), form)
		}
	}
	wanted := []string{
		"null sender", "UTF-8 sender or recipient", "1,000 recipients", "some done", "all done", "bounce waits", "SASL user", "filter",
		"redirect", "force-expired", "flush requested", "body replaced", "damaged", "told client", "original recipient", "no reason",
	}
	for _, q := range postfix.Queues() {
		wanted = append(wanted, "in "+q.String())
	}
	for _, name := range wanted {
		if kind[name] == 0 {
			c.Errorf("the queue has no message of the kind %q", name)
		}
	}
	c.Logf("%d messages: %v", len(c.native), kind)
	if c.snap.Probes != 2 {
		c.Errorf("the reader counted %d probes, not 2", c.snap.Probes)
	}
	if len(c.snap.Gaps) > 0 {
		c.Errorf("gaps: %v", c.snap.Gaps)
	}
	for _, s := range c.snap.Strays {
		if s.Kind != observe.Misplaced {
			c.Errorf("stray: %+v", s)
		}
	}
}

// withPostqueue compares the snapshot with postqueue -j.
func (c *comparison) withPostqueue(list []lab.Queued) {
	left := make(map[string]bool)
	for place := range c.native {
		left[place] = true
	}
	for i := range list {
		q := &list[i]
		m := c.native[q.Queue+"/"+q.ID]
		switch {
		case m != nil:
			delete(left, place(m))
			c.sameEntry(q, m)
		case len(q.Recipients) == 1 && strings.HasPrefix(q.Recipients[0].Address, "probe@"):
			c.tally.add(probeLeftOut)
		default:
			c.Errorf("showq lists %s/%s, which the reader has not: %+v", q.Queue, q.ID, q)
		}
	}
	for place := range left {
		switch m := c.native[place]; {
		case m.Queue == postfix.Corrupt || m.Queue == postfix.Saved:
			c.tally.add(setAside)
		case c.stray(place):
			c.tally.add(misplaced)
		default:
			c.Errorf("the reader has %s, which showq does not list", place)
		}
	}
}

// sameEntry compares one entry of a listing with the message.
func (c *comparison) sameEntry(q *lab.Queued, m *postfix.Message) {
	type entry struct {
		Arrival, Size int64
		Sender        string
	}
	want := entry{q.ArrivalTime, q.Size, q.Sender}
	got := entry{m.Arrival.Unix(), m.Size, external(m.Sender)}
	if m.Queue == postfix.Maildrop && got.Size == m.FileSize && want.Size == c.recordedSize(m) {
		c.tally.add(requeuedSize)
		want.Size = got.Size
	}
	if got != want {
		c.Errorf("%s: the reader has %+v, showq %+v", place(m), got, want)
	}
	type recipient struct{ address, reason string }
	var mine, listed []recipient
	for _, r := range m.Recipients {
		mine = append(mine, recipient{external(r.Address), printable(r.Reason)})
	}
	for _, r := range q.Recipients {
		listed = append(listed, recipient{r.Address, r.Reason})
	}
	missing, extra := without(mine, listed), without(listed, mine)
	switch {
	case len(missing)+len(extra) == 0:
		return
	case m.Redirect != "" && len(missing) == 1 && len(extra) == 2 && extra[0].address == external(m.Redirect) &&
		extra[0].reason == missing[0].reason && extra[1] == (recipient{missing[0].address, ""}):
		c.tally.add(redirectShown)
		return
	case len(missing) == 0 && len(listed) > 1000 && !slices.ContainsFunc(extra, func(r recipient) bool {
		return r.reason != "" || !slices.ContainsFunc(mine, func(g recipient) bool { return g.address == r.address && g.reason != "" })
	}):
		c.tally.add(listedTwice)
		return
	}
	finished := c.finished(m)
	// The new address stands for the first recipient. Once that is done, what
	// the log still says of the address is about nobody who waits.
	if m.Redirect != "" && len(missing) == 0 && len(finished) > 0 && len(extra) == 1 && extra[0].address == external(m.Redirect) {
		c.tally.add(redirectShown)
		return
	}
	for _, r := range extra {
		if len(missing) == 0 && r.reason != "" && slices.Contains(finished, r.address) {
			c.tally.add(doneListed)
			continue
		}
		c.Errorf("%s: only the reader has %+v, only showq has %+v", place(m), missing, extra)
		return
	}
}

// recordedSize reads field 1 of the size record at the beginning of a file, -1
// if there is none.
func (c *comparison) recordedSize(m *postfix.Message) int64 {
	data, err := os.ReadFile(filepath.Join(c.spool, place(m)))
	check(c.T, err)
	if size := int64(-1); data[0] == 'C' {
		_, err = fmt.Sscan(string(data[2:17]), &size)
		check(c.T, err)
		return size
	}
	return -1
}

// finished asks the reader for the recipients that are done, as showq would
// print them.
func (c *comparison) finished(m *postfix.Message) []string {
	d, err := c.reader.Inspect(c.ctx, m.ID, spool.Want{})
	check(c.T, err)
	var list []string
	for _, r := range d.Finished {
		list = append(list, external(r.Address))
	}
	return list
}

// without returns what a has more often than b.
func without[T comparable](a, b []T) []T {
	count := make(map[T]int)
	for _, v := range b {
		count[v]++
	}
	var rest []T
	for _, v := range a {
		if count[v]--; count[v] < 0 {
			rest = append(rest, v)
		}
	}
	return rest
}

// withShowq compares the decoder of the showq stream with postqueue: the same
// messages, the same fields.
func (c *comparison) withShowq() {
	s, err := showq.Look(c.ctx, c.in)
	check(c.T, err)
	var got []lab.Queued
	for _, m := range messages(s) {
		got = append(got, asListed(m))
	}
	sameListing(c.T, got, c.listed)
	if s.Shape(postfix.Corrupt).Known || s.Shape(postfix.Saved).Known || !s.Shape(postfix.Deferred).Known || len(s.Gaps) != 1 {
		c.Errorf("showq claims to know other queues than it does; gaps %v", s.Gaps)
	}
}

// asListed turns a message of a showq listing into what postqueue -j prints.
func asListed(m *postfix.Message) lab.Queued {
	q := lab.Queued{Queue: m.Queue.String(), ID: string(m.ID), ArrivalTime: m.Arrival.Unix(), Size: m.Size, Sender: external(m.Sender)}
	for _, r := range m.Recipients {
		q.Recipients = append(q.Recipients, struct {
			Address string `json:"address"`
			Reason  string `json:"delay_reason"`
		}{external(r.Address), r.Reason})
	}
	return q
}

func sameListing(t *testing.T, got, want []lab.Queued) {
	t.Helper()
	byPlace := func(a, b lab.Queued) bool { return a.Queue+a.ID < b.Queue+b.ID }
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(byPlace), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("postqueue and the listing differ (-postqueue +listing):\n%s", clip(diff))
	}
}

func clip(s string) string { return s[:min(len(s), 4000)] }

// line is what of a line of "holdfast queue -o json" is compared.
type line struct {
	Schema string `json:"schema"`
	postfix.Message
}

// withCommand compares what the command prints, as root and as a member of
// the group that may ask showq.
func (c *comparison) withCommand() {
	all := c.command(lab.ExecOptions{})
	if diff := cmp.Diff(c.native, all, cmpopts.EquateEmpty(), ignoreInvalidUTF8); diff != "" {
		c.Errorf("the command prints something else than the reader reads (-reader +command):\n%s", clip(diff))
	}
	member := c.command(lab.ExecOptions{UID: 65534, GID: c.groupID("postdrop")})
	var got []lab.Queued
	for _, m := range member {
		got = append(got, asListed(m))
	}
	sameListing(c.T, got, c.listed)
}

func (c *comparison) command(o lab.ExecOptions) map[string]*postfix.Message {
	c.Helper()
	res := holdfastAs(c.T, c.Lab, o, "queue", "-o", "json")
	if res.Code != 0 {
		c.Fatalf("holdfast queue: exit %d: %s", res.Code, res.Stderr)
	}
	found := make(map[string]*postfix.Message)
	for _, l := range jsonLines[line](c.T, res.Stdout) {
		if l.Schema == "holdfast.message/1" {
			found[place(&l.Message)] = &l.Message
		}
	}
	return found
}

// JSON has no place for bytes that are not UTF-8.
var ignoreInvalidUTF8 = cmp.Comparer(func(a, b string) bool {
	return strings.ToValidUTF8(a, "\uFFFD") == strings.ToValidUTF8(b, "\uFFFD")
})

// groupID finds a group of the host, which is the lab's.
func (c *comparison) groupID(name string) int {
	c.Helper()
	var gid int
	_, err := fmt.Sscanf(in(c.T, c.Lab, "", "getent", "group", name), name+":x:%d:", &gid)
	check(c.T, err)
	return gid
}

// withPostcat compares each file with postcat: envelope, headers, content.
func (c *comparison) withPostcat() {
	var sound, moved, damaged []string
	for place, m := range c.native {
		switch {
		case m.Damage != "":
			damaged = append(damaged, place)
		case c.stray(place):
			moved = append(moved, place)
		default:
			sound = append(sound, place)
		}
	}
	slices.Sort(sound)
	var ids []string
	for _, place := range sound {
		ids = append(ids, filepath.Base(place))
	}
	files := c.postcat([]string{"-q"}, ids)
	for _, place := range moved {
		c.unfound(place)
		files = append(files, c.postcat(nil, []string{filepath.Join(c.Instances[0].SpoolDir, place)})...)
	}
	if len(files) != len(sound)+len(moved) {
		c.Fatalf("postcat printed %d files, not %d", len(files), len(sound)+len(moved))
	}
	texts := c.contents(files)
	warned := 0
	for _, f := range files {
		c.sameFile(f, texts)
		if strings.HasSuffix(f.warned, " 1969") { // -1: the warning was sent
			warned++
		}
	}
	if warned == 0 {
		c.Error("no message is one whose sender was told of the delay")
	}
	for _, place := range damaged {
		c.unfound(place)
		c.tally.add(corruptUnfound)
		c.sameDamage(place)
	}
}

// stray tells whether the reader reports the file as misplaced.
func (c *comparison) stray(place string) bool {
	return slices.ContainsFunc(c.snap.Strays, func(s observe.Stray) bool { return s.Path == place })
}

// unfound makes sure that postcat -q does not find a file.
func (c *comparison) unfound(place string) {
	c.Helper()
	res, err := c.Exec(c.ctx, "postcat", "-q", filepath.Base(place))
	check(c.T, err)
	if res.Code == 0 {
		c.Errorf("postcat -q finds %s", place)
	}
}

// contents runs postcat -bh once for each file and returns the directory with
// what each printed.
func (c *comparison) contents(files []*file) string {
	c.Helper()
	dir, err := os.MkdirTemp("/tmp", "holdfast-agree-")
	check(c.T, err)
	c.Cleanup(func() { os.RemoveAll(dir) })
	var paths strings.Builder
	for _, f := range files {
		path := strings.TrimPrefix(f.path, c.Instances[0].SpoolDir+"/")
		paths.WriteString(filepath.Join(c.Instances[0].SpoolDir, path) + "\n")
	}
	in(c.T, c.Lab, paths.String(), "sh", "-c", `while read -r path; do postcat -bh "$path" >"$1/${path##*/}" || exit 1; done`, "sh", dir)
	return dir
}

func (c *comparison) sameFile(f *file, texts string) {
	f.path = strings.TrimPrefix(f.path, c.Instances[0].SpoolDir+"/")
	want := c.message(f)
	d, err := c.reader.Inspect(c.ctx, want.ID, spool.Want{Headers: true, Body: 1 << 30, Digest: true})
	check(c.T, err)
	m := c.native[place(want)]
	if d.Path != f.path || m == nil || len(d.Gaps) > 0 {
		c.Errorf("%s: the reader has path %s, gaps %v, message %v", f.path, d.Path, d.Gaps, m)
		return
	}
	if diff := cmp.Diff(m, d.Message, cmpopts.EquateEmpty()); diff != "" {
		c.Errorf("%s: the snapshot has something else than the message alone:\n%s", f.path, clip(diff))
	}
	if diff := cmp.Diff(want, envelopeOnly(m), cmpopts.EquateEmpty()); diff != "" {
		c.Errorf("%s: postcat and the reader differ (-postcat +reader):\n%s", f.path, clip(diff))
	}
	var done []postfix.Recipient
	for _, r := range f.rcpts {
		if r.kind == 'D' {
			done = append(done, r.recipient())
		}
	}
	if diff := cmp.Diff(done, d.Finished, cmpopts.EquateEmpty()); diff != "" {
		c.Errorf("%s: recipients that are done (-postcat +reader):\n%s", f.path, clip(diff))
	}
	text, err := os.ReadFile(filepath.Join(texts, filepath.Base(f.path)))
	check(c.T, err)
	c.sameContent(f, d, text)
}

// envelopeOnly leaves of a message what a queue file alone tells.
func envelopeOnly(m *postfix.Message) *postfix.Message {
	e := *m
	if e.Queue == postfix.Maildrop {
		e.Size = 0 // the size of the file, as with showq
	}
	e.Inode, e.FileSize, e.ForceExpire, e.FlushRequested, e.Bounces = 0, 0, false, false, nil
	e.Changed, e.NextTry, e.Expires = time.Time{}, time.Time{}, time.Time{}
	e.Recipients = nil
	for _, r := range m.Recipients {
		e.Recipients = append(e.Recipients, postfix.Recipient{Address: r.Address, Original: r.Original, Offset: r.Offset})
	}
	return &e
}

func (c *comparison) sameContent(f *file, d *spool.Detail, text []byte) {
	sum := sha256.Sum256(text)
	if want := "sha256:" + hex.EncodeToString(sum[:]); d.Digest != want {
		c.Errorf("%s: digest %s, postcat -bh has %s", f.path, d.Digest, want)
	}
	var raw []string
	for _, h := range d.Headers {
		raw = append(raw, h.Raw+"\n")
	}
	head := strings.Join(raw, "")
	if whole := head + "\n" + string(d.Body); whole != string(text) && head+string(d.Body) != string(text) && strings.TrimSuffix(head, "\n") != string(text) {
		c.Errorf("%s: headers and body are not the content:\n%s", f.path, clip(cmp.Diff(string(text), whole)))
	}
	switch {
	case f.head == head:
	case len(f.head) < len(head) && strings.HasPrefix(head, strings.TrimSuffix(f.head, "\n")):
		c.tally.add(headersEnd)
	default:
		c.Errorf("%s: headers differ (-postcat +reader):\n%s", f.path, clip(cmp.Diff(f.head, head)))
	}
}

// sameDamage compares as much of a damaged file as postcat prints before it
// gives up.
func (c *comparison) sameDamage(place string) {
	res, err := c.Exec(c.ctx, "postcat", "-e", "-h", "-o", "-d", "-v", filepath.Join(c.Instances[0].SpoolDir, place))
	check(c.T, err)
	files := c.parsePostcat(strings.ToValidUTF8(res.Stdout, "?"))
	m := c.native[place]
	if len(files) != 1 || files[0].ended && m.Queue != postfix.Corrupt {
		c.Fatalf("%s: the reader says %q, postcat prints %s", place, m.Damage, clip(res.Stdout))
	}
	f := files[0]
	if f.sender != nil && *f.sender != m.Sender || len(f.sizes) > 0 && f.sizes[0] != m.Size && m.Size != m.FileSize {
		c.Errorf("%s: postcat has sender %v and sizes %v, the reader %q and %d", place, f.sender, f.sizes, m.Sender, m.Size)
	}
	// postcat prints a recipient only when its record is whole, as the reader.
	if len(f.rcpts) != len(m.Recipients)+m.Done {
		c.Errorf("%s: postcat has %d recipients, the reader %d", place, len(f.rcpts), len(m.Recipients)+m.Done)
	}
	if !bytes.Equal([]byte(m.ID), []byte(filepath.Base(place))) {
		c.Errorf("%s has the ID %s", place, m.ID)
	}
}
