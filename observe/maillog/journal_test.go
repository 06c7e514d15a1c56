package maillog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// entryFields are one entry of the journal's export format.
type entryFields struct {
	at              time.Time
	tag, pid        string
	uid, exe, comm  string
	message         string
	facility, extra string
}

func (e entryFields) export(b *bytes.Buffer) {
	micro := e.at.UnixMicro()
	fmt.Fprintf(b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0123456789abcdef0123456789abcdef\n", micro+30, micro%1e12)
	facility := e.facility
	if facility == "" {
		facility = "2"
	}
	for _, f := range [][2]string{
		{"PRIORITY", "6"},
		{"SYSLOG_FACILITY", facility},
		{"SYSLOG_IDENTIFIER", e.tag},
		{"SYSLOG_PID", e.pid},
		{"_PID", "4711"},
		{"_UID", e.uid},
		{"_EXE", e.exe},
		{"_COMM", e.comm},
		{"_SOURCE_REALTIME_TIMESTAMP", fmt.Sprint(micro)},
	} {
		if f[1] != "" {
			fmt.Fprintf(b, "%s=%s\n", f[0], f[1])
		}
	}
	b.WriteString(e.extra)
	// The form for any bytes: name, length, bytes.
	b.WriteString("MESSAGE\n")
	_ = binary.Write(b, binary.LittleEndian, uint64(len(e.message)))
	b.WriteString(e.message + "\n\n")
}

// journalOf has systemd write a journal of its own format, without a journald.
func journalOf(t *testing.T, entries ...entryFields) (dir string) {
	t.Helper()
	var export bytes.Buffer
	for _, e := range entries {
		e.export(&export)
	}
	dir = t.TempDir()
	cmd := exec.Command("/lib/systemd/systemd-journal-remote", "-o", dir+"/system.journal", "-")
	cmd.Stdin = &export
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("systemd-journal-remote: %v: %s", err, said)
	}
	return dir
}

func genuine(n int, at time.Time) entryFields {
	_, text, _ := strings.Cut(strings.TrimSuffix(sentBody(n), "\n"), "]: ")
	return entryFields{at: at, tag: "postfix/smtp", pid: "77", uid: "0", exe: "/usr/lib/postfix/sbin/smtp", comm: "smtp", message: text}
}

func TestForgedLinesDoNotGetPastTheJournal(t *testing.T) {
	var entries []entryFields
	for i := range 20 {
		entries = append(entries, genuine(i, morning().Add(time.Duration(i)*time.Second)))
	}
	forged := genuine(100, morning().Add(time.Minute))
	forged.uid, forged.exe, forged.comm = "1000", "/usr/bin/logger", "logger"
	other := genuine(101, morning().Add(time.Minute))
	other.tag = "postfix-out/smtp"
	news := genuine(102, morning().Add(time.Minute))
	news.facility = "7"
	dir := journalOf(t, append(entries, forged, other, news)...)

	in := postfix.Instance{SyslogName: "postfix", MailOwner: "postfix"}
	o := ReadOptions{journal: dir, root: t.TempDir(), Detail: true}
	write(t, o.root+"/var/log/mail.log", sentFrom(0, 99, morning()))
	got, gaps := Read(t.Context(), in, o)
	if len(gaps) != 0 || got.Trust != observe.TrustJournal || got.Total.Delivered != 20 || got.Suspect != 1 || got.Other != 1 || got.Lines != 22 {
		t.Errorf("%+v; %s", got, gapTexts(gaps))
	}
	if len(got.SuspectSamples) != 1 || !strings.Contains(got.SuspectSamples[0], "/usr/bin/logger, user 1000") {
		t.Errorf("samples %q", got.SuspectSamples)
	}
	if !got.From.Equal(morning()) || got.Sources[0].Name != "journal" || got.Sources[0].Modified.Before(got.To) {
		t.Errorf("from %v, sources %+v", got.From, got.Sources)
	}
	// An instance that logs elsewhere does not get this journal.
	in.SyslogName = "postfix-in"
	if where, gaps := Find(in, o); where.Journal || where.Path == "" {
		t.Errorf("of another instance: %+v; %s", where, gapTexts(gaps))
	}
	o.Since = morning().Add(10 * time.Second)
	in.SyslogName = "postfix"
	if got, _ := Read(t.Context(), in, o); got.Total.Delivered != 10 {
		t.Errorf("%d delivered since the tenth", got.Total.Delivered)
	}
}

func TestJournalOfOddMessages(t *testing.T) {
	bytesInIt, huge, twice := genuine(1, morning()), genuine(2, morning().Add(time.Second)), genuine(3, morning().Add(2*time.Second))
	bytesInIt.message = strings.Replace(bytesInIt.message, "250 ok", "250 \xff\xfe\x01 ok", 1)
	huge.message = strings.Replace(huge.message, "250 ok", strings.Repeat("long ", 20_000), 1)
	twice.extra = "MESSAGE=another\n"
	dir := journalOf(t, bytesInIt, huge, twice)
	got, gaps := Read(t.Context(), postfix.Instance{SyslogName: "postfix"}, ReadOptions{journal: dir, Detail: true})
	// journalctl shows null for a field above 4096 bytes: counted, not dropped.
	// Of two messages in one entry the first is read, which is no delivery.
	if got.Lines != 3 || got.Total.Delivered != 1 || got.Unread != 1 || len(gaps) != 0 {
		t.Errorf("%+v; %s", got, gapTexts(gaps))
	}
}

func TestJournalIsBounded(t *testing.T) {
	var entries []entryFields
	start := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	for i := range 3000 {
		entries = append(entries, genuine(i, start.Add(time.Duration(i)*200*time.Millisecond)))
	}
	dir := journalOf(t, entries...)
	o := ReadOptions{journal: dir, MaxBytes: 1 << 20}
	got, gaps := Read(t.Context(), postfix.Instance{SyslogName: "postfix"}, o)
	if len(gaps) != 1 || !strings.Contains(gaps[0].Text, "left unread") || got.Sources[0].Bytes > 2<<20 || got.Total.Delivered < 100 {
		t.Fatalf("%+v; %s", got.Sources, gapTexts(gaps))
	}
	if last := entries[len(entries)-1].at; !got.To.Equal(last) {
		t.Errorf("the newest line read is of %v, want %v", got.To, last)
	}
}

func TestJournalThatCannotBeRead(t *testing.T) {
	got, gaps := Read(t.Context(), postfix.Instance{SyslogName: "postfix"}, ReadOptions{journal: t.TempDir() + "/none", root: t.TempDir()})
	if got.Lines != 0 || len(gaps) != 2 || !strings.Contains(gaps[0].Text, "journalctl") {
		t.Errorf("%s", gapTexts(gaps))
	}
	// Damaged output of journalctl is counted and does not end the reading.
	r := newJournalReader(strings.NewReader("{\n[]\n" + `{"__REALTIME_TIMESTAMP":"1","MESSAGE":[104,105]}` + "\n" +
		strings.Repeat("x", 2*bufferSize) + "\n" + `{"__REALTIME_TIMESTAMP":"2","MESSAGE":["first","second"]}` + "\n"))
	var said []string
	for {
		l, err := r.next()
		if err != nil && err != errNoEntry { //nolint:errorlint // this very one
			break
		}
		said = append(said, string(l.Message))
	}
	if want := []string{"", "", "hi", "", "first"}; !slices.Equal(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
}

func TestWhoWroteAnEntry(t *testing.T) {
	a := author{daemons: "/usr/lib/postfix/sbin/", commands: "/usr/sbin/", owner: "101"}
	for _, c := range []struct {
		exe, comm, uid, tag string
		want                bool
	}{
		{"/usr/lib/postfix/sbin/smtp", "smtp", "101", "postfix/smtp", true},
		{"/usr/lib/postfix/sbin/local", "local", "0", "postfix/local", true},
		{"/usr/lib/postfix/sbin/smtp (deleted)", "smtp", "101", "postfix/smtp", true}, // upgraded, not restarted
		{"/usr/sbin/postsuper", "postsuper", "0", "postfix/postsuper", true},
		{"/usr/sbin/postlog", "postlog", "0", "postfix/postfix-script", true},
		{"", "", "0", "postfix/postsuper", true},
		{"", "smtp", "101", "postfix/smtp", true},
		{"/usr/sbin/sendmail", "sendmail", "1000", "postfix/sendmail", true},

		{"/usr/bin/logger", "logger", "0", "postfix/smtp", false},
		{"/usr/bin/logger", "smtp", "1000", "postfix/smtp", false},
		{"/usr/lib/postfix/sbin/smtp", "smtp", "1000", "postfix/smtp", false}, // run by hand
		{"/usr/lib/postfix/sbin/../../../bin/logger", "smtp", "1000", "postfix/smtp", false},
		{"/usr/lib/postfix/sbinx/smtp", "smtp", "101", "postfix/smtp", false},
		{"/usr/sbin/postlog", "postlog", "1000", "postfix/smtp", false},
		{"/usr/sbin/sendmail", "smtp", "1000", "postfix/smtp", false}, // exec -a smtp
		{"/usr/sbin/rsyslogd", "rsyslogd", "0", "postfix/smtp", false},
		{"", "logger", "0", "postfix/smtp", false},
		{"", "", "1000", "postfix/smtp", false},
		{"", "smtp", "1000", "postfix/smtp", false},
		{"", "smtp", "", "postfix/smtp", false},
	} {
		l := journalLine{Exe: journalField(c.exe), Comm: journalField(c.comm), UID: journalField(c.uid), Identifier: journalField(c.tag)}
		if got := a.wrote(&l); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestFollowsTheJournalFromAPosition(t *testing.T) {
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	var entries []entryFields
	for i := range 10 {
		entries = append(entries, genuine(i, start.Add(time.Duration(i)*time.Millisecond)))
	}
	forged := genuine(100, start.Add(10*time.Millisecond))
	forged.exe = "/usr/bin/logger"
	dir := journalOf(t, append(entries, forged, genuine(11, start.Add(11*time.Millisecond)))...)
	in := postfix.Instance{SyslogName: "postfix"}

	follow := func(from Position, count int) (ids []postfix.QueueID, last Position) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := Follow(ctx, in, ReadOptions{journal: dir}, from, func(l Line, p Position) {
			ids, last = append(ids, l.ID), p
			if len(ids) == count {
				cancel()
			}
		})
		if err == nil || len(ids) < count {
			t.Errorf("%d lines, %v", len(ids), err)
		}
		return ids, last
	}
	all, _ := follow(Position{At: start.Add(-time.Second)}, 11)
	some, at := follow(Position{At: start.Add(-time.Second)}, 4)
	rest, _ := follow(at, 7)
	if got := slices.Concat(some, rest); !slices.Equal(got, all) || len(all) != 11 {
		t.Errorf("%q and then %q, want %q", some, rest, all)
	}
}
