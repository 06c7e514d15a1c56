package account

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/observe/maillog"
	"holdfast/postfix"
)

// forging is a log with one message in the queue, and lines that a test writes.
func forging(t *testing.T, mode fs.FileMode) (*model, *mail, *Snapshot) {
	t.Helper()
	m := newModel(t, 1, false)
	m.check(m.log.Chmod(mode))
	m.wait()
	x := m.put("s@example.org", []string{"a@example.net", "b@example.net"}, postfix.Deferred)
	m.named(x)
	m.wait()
	from := m.snapshot()
	return m, x, from
}

func (m *model) line(format string, args ...any) {
	_, err := fmt.Fprintf(m.log, "%s relay1 %s\n", m.now.Format("Jan _2 15:04:05"), fmt.Sprintf(format, args...))
	m.check(err)
}

// fates are those of the recipients of one ID, with their grades.
func fates(b *Book, id postfix.QueueID) string {
	var list []string
	for _, t := range b.Targets {
		if t.ID == id {
			list = append(list, fmt.Sprintf("%s %s %s", t.Recipient, t.Fate, t.Evidence.Grade))
		}
	}
	return strings.Join(list, ", ")
}

// TestForgedDeliveryIsNeverProved is attack A-45: any local user writes lines
// into a log of syslog.
func TestForgedDeliveryIsNeverProved(t *testing.T) {
	m, x, from := forging(t, 0o666) // a log that others may write to is a plain one
	m.wait()
	for _, r := range x.Recipients {
		m.line("postfix/smtp[99]: %s: to=<%s>, relay=mx.example.net[192.0.2.1]:25, delay=%.0f, dsn=2.0.0, status=sent (250 ok)", x.ID, r, m.now.Sub(x.Arrival).Seconds())
	}
	m.line("postfix/qmgr[98]: %s: removed", x.ID)
	still := Balance(from, m.snapshot(), m.steps(from), nil)
	if got := fates(still, x.ID); got != "a@example.net pending proved, b@example.net pending proved" {
		t.Errorf("it is in the queue, and the account says %q", got)
	}
	m.leave(x)
	gone := Balance(from, m.snapshot(), m.steps(from), nil)
	if got := fates(gone, x.ID); got != "a@example.net delivered claimed, b@example.net delivered claimed" {
		t.Errorf("anybody may have written the lines, and the account says %q", got)
	}
}

// TestForgedRemovalIsNoDelivery is attack A-46, and what hold and release of
// active mail leave behind: removed, and no line of a delivery.
func TestForgedRemovalIsNoDelivery(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o666} {
		m, x, from := forging(t, mode)
		m.wait()
		m.line("systemd-journald[1]: Suppressed 4000 messages from postfix.service")
		m.line("postfix/qmgr[98]: %s: removed", x.ID)
		m.leave(x)
		book := Balance(from, m.snapshot(), m.steps(from), nil)
		if got := fates(book, x.ID); got != "a@example.net unproven unproven, b@example.net unproven unproven" || book.Balanced || book.Seen {
			t.Errorf("mode %o: %q, balanced %t, seen %t", mode, got, book.Balanced, book.Seen)
		}
		if len(book.Problems) != 1 || book.Problems[0].Count != 2 || !strings.Contains(book.Problems[0].Text, "thrown away") {
			t.Errorf("the account does not say why: %+v", book.Problems)
		}
	}
}

// TestForgedRequeueIsNoMove is attack A-19: a local user gives his own message
// out for somebody's that was taken in anew.
func TestForgedRequeueIsNoMove(t *testing.T) {
	// As a line that anybody can write.
	m, x, from := forging(t, 0o666)
	m.wait()
	y := m.put("mallory@example.org", []string{"a@example.net", "b@example.net"}, postfix.Deferred)
	m.line("postfix/postsuper[97]: %s: requeued", x.ID)
	m.line("postfix/pickup[98]: %s: uid=104 from=<%s> orig_id=%s", y.ID, x.Sender, x.ID)
	m.leave(x)
	book := Balance(from, m.snapshot(), m.steps(from), nil)
	for _, target := range book.Targets {
		if target.ID == x.ID && target.Evidence.Grade == Proved {
			t.Errorf("a line that anybody can write proves that %s is %s", target.Recipient, target.Fate)
		}
	}
	// As the sender of a message of his own, where only Postfix writes.
	m, x, from = forging(t, 0o640)
	m.wait()
	y = m.put("mallory@example.org", []string{"a@example.net", "b@example.net"}, postfix.Deferred)
	m.line("postfix/pickup[98]: %s: uid=1000 from=<s@example.org> orig_id=%s>", y.ID, x.ID)
	m.leave(x)
	book = Balance(from, m.snapshot(), m.steps(from), nil)
	if got := fates(book, x.ID); got != "a@example.net unproven unproven, b@example.net unproven unproven" {
		t.Errorf("a sender's address moved a message: %s", got)
	}
}

// TestSuppressedLinesTakeTheProof: what else was logged then may have been of
// another message with the same ID.
func TestSuppressedLinesTakeTheProof(t *testing.T) {
	m, x, from := forging(t, 0o640)
	m.wait()
	m.line("systemd-journald[1]: Suppressed 4000 messages from postfix.service")
	x.Recipients = x.Recipients[:1]
	m.say(x, "smtp", "to=<b@example.net>, relay=mx.example.net[192.0.2.1]:25, delay=%.0f, dsn=2.0.0, status=sent (250 ok)", m.now.Sub(x.Arrival).Seconds())
	book := Balance(from, m.snapshot(), m.steps(from), nil)
	if got := fates(book, x.ID); got != "a@example.net pending proved, b@example.net delivered claimed" {
		t.Error(got)
	}
}

// TestReusedIDIsAnotherMessage is attack A-47: an ID is born again, and the
// lines of the first message are lost. Its fate must not be that of the second.
func TestReusedIDIsAnotherMessage(t *testing.T) {
	for _, lost := range []string{"", "client=", "message-id=", "(queue active)", "client= message-id= (queue active)"} {
		m, x, from := forging(t, 0o640)
		m.leave(x) // it ends without a line
		m.wait()
		y := &mail{Message: x.Message}
		y.Arrival, y.Size = m.now, 4711
		for _, text := range []string{
			"smtpd client=mx.example.org[192.0.2.7]", "cleanup message-id=<2@example.org>", "qmgr from=<s@example.org>, size=4711, nrcpt=1 (queue active)",
		} {
			program, text, _ := strings.Cut(text, " ")
			if l := strings.Fields(lost); len(l) > 0 && containsAny(text, strings.ReplaceAll(lost, "(queue active)", "(queue")) {
				continue
			}
			m.say(y, program, "%s", text)
		}
		m.now = m.now.Add(20 * time.Second)
		m.say(y, "smtp", "to=<a@example.net>, relay=mx.example.net[192.0.2.1]:25, delay=20, dsn=2.0.0, status=sent (250 ok)")
		m.say(y, "qmgr", "removed")
		book := Balance(from, m.snapshot(), m.steps(from), nil)
		want := "a@example.net unproven unproven, b@example.net unproven unproven, a@example.net delivered proved"
		if got := fates(book, x.ID); got != want {
			t.Errorf("without %q: %q", lost, got)
		}
	}
}

func containsAny(text, words string) bool {
	for _, w := range strings.Fields(words) {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// TestBlindLookProvesNothing: a queue that could not be looked at may have what
// is missing.
func TestBlindLookProvesNothing(t *testing.T) {
	m, x, from := forging(t, 0o640)
	m.wait()
	m.leave(x)
	m.say(x, "smtp", "to=<a@example.net>, relay=mx.example.net[192.0.2.1]:25, delay=%.0f, dsn=2.0.0, status=sent (250 ok)", m.now.Sub(x.Arrival).Seconds())
	to := m.snapshot()
	to.Blind = []string{"hold"}
	book := Balance(from, to, m.steps(from), nil)
	if got := fates(book, x.ID); got != "a@example.net delivered claimed, b@example.net unproven unproven" || book.Seen {
		t.Error(got, book.Seen)
	}
}

// TestCompareNamesWhatDiffers compares two snapshots.
func TestCompareNamesWhatDiffers(t *testing.T) {
	m, x, _ := forging(t, 0o640)
	stays := m.put("t@example.org", []string{"c@example.net", "d@example.net"}, postfix.Deferred)
	from := m.snapshot()
	m.leave(x)
	stays.Queue, stays.Recipients = postfix.Hold, stays.Recipients[:1]
	came := m.put("u@example.org", nil, postfix.Incoming)
	d := Compare(from, m.snapshot())
	if len(d.Left) != 1 || d.Left[0].ID != x.ID || len(d.Came) != 1 || d.Came[0].ID != came.ID ||
		d.Stayed != 1 || d.Progressed != 1 || d.Switched != 1 || d.Between["deferred to hold"] != 1 {
		t.Errorf("%+v", d)
	}
}

// BenchmarkBalance accounts for 100,000 messages over a million lines.
func BenchmarkBalance(b *testing.B) {
	const messages, lines = 100_000, 1_000_000
	in, from, to := largeLog(b, messages, lines)
	b.ReportAllocs()
	for b.Loop() {
		book := Balance(from, to, func(each func(*maillog.Step)) maillog.Trace {
			return maillog.Steps(b.Context(), in, maillog.ReadOptions{Location: time.UTC, Since: from.Head.From}, from.Log, each)
		}, nil)
		if !book.Balanced || book.Fates[Pending] != messages/2 || book.Fates[Delivered] != messages/2 {
			b.Fatalf("%+v %+v", book.Fates, book.Problems)
		}
	}
	b.ReportMetric(lines*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/account")
}

// largeLog writes a log in which half of the messages are delivered and the
// others put off again and again.
func largeLog(b *testing.B, messages, lines int) (postfix.Instance, *Snapshot, *Snapshot) {
	b.Helper()
	dir := b.TempDir()
	in := postfix.Instance{Name: "postfix", SyslogName: "postfix", MailOwner: "root", MailLogFile: dir + "/mail.log", CommandDir: dir}
	f, err := os.Create(in.MailLogFile)
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second)
	from := &Snapshot{Head: Head{Instance: "postfix", From: start, To: start, Messages: messages, Recipients: messages, Log: maillog.Position{Absent: true}}}
	to := &Snapshot{Head: Head{Instance: "postfix", From: start.Add(9 * time.Hour), To: start.Add(9 * time.Hour)}}
	var text strings.Builder
	for i := range messages {
		m := Message{Fingerprint: postfix.Fingerprint{
			Instance: "postfix", ID: postfix.QueueID(fmt.Sprintf("%010X", 0x3000000000+i)), Inode: uint64(i + 1), Arrival: start.Add(-time.Hour), Size: 2000, Sender: "s@example.org",
		}, Queue: postfix.Deferred, Recipients: []string{fmt.Sprintf("u%d@example.net", i)}}
		from.All = append(from.All, m)
		if i%2 == 0 {
			to.All = append(to.All, m)
		}
	}
	to.Messages, to.Recipients = len(to.All), len(to.All)
	for i := range lines {
		m, at := &from.All[i%messages], start.Add(time.Duration(i)*30*time.Millisecond)
		stamp, delay := at.Format("Jan _2 15:04:05"), at.Sub(m.Arrival).Seconds()
		last := i >= lines-messages && i%messages%2 == 1
		switch {
		case i%2 == 1 && last:
			fmt.Fprintf(&text, "%s relay1 postfix/smtp[77]: %s: to=<%s>, relay=mx.example.net[192.0.2.1]:25, delay=%.0f, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4d2NaQ5Lz8z1x)\n", stamp, m.ID, m.Recipients[0], delay)
		case i/messages%2 == 0:
			fmt.Fprintf(&text, "%s relay1 postfix/qmgr[70]: %s: from=<s@example.org>, size=2000, nrcpt=1 (queue active)\n", stamp, m.ID)
		default:
			fmt.Fprintf(&text, "%s relay1 postfix/smtp[77]: %s: to=<%s>, relay=none, delay=%.0f, delays=0/0/0/1, dsn=4.4.1, status=deferred (connect to mx.example.net[192.0.2.1]:25: Connection refused)\n", stamp, m.ID, m.Recipients[0], delay)
		}
	}
	if _, err := f.WriteString(text.String()); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	end := start.Add(9 * time.Hour)
	if err := os.Chtimes(in.MailLogFile, end, end); err != nil {
		b.Fatal(err)
	}
	return in, from, to
}
