package maillog

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// stepsOf reads a log for an account.
func stepsOf(t *testing.T, path string, since time.Time, from Position) ([]Step, Trace) {
	t.Helper()
	var all []Step
	in := logsTo(path)
	in.CommandDir = filepath.Dir(path) // no postlog there
	trace := Steps(t.Context(), in, ReadOptions{Since: since, Location: time.UTC}, from, func(s *Step) { all = append(all, *s) })
	return all, trace
}

func TestStepSaysWhatALineSays(t *testing.T) {
	const head = "2026-11-20T09:00:00.000000+00:00 relay1 postfix/"
	for line, want := range map[string]string{
		"smtp[1]: 3F2A9C11D0: to=<a@example.net>, relay=mx[192.0.2.1]:25, delay=4.6, delays=1/1/1/1, dsn=2.0.0, status=sent (250 Ok: queued as 4F2A9C11D1)":                   "4 3F2A9C11D0 a@example.net sent 4.6s ",
		"smtp[1]: 3F2A9C11D0: to=<a@example.net>, relay=127.0.0.1[127.0.0.1]:10025, delay=90000, delays=1/1/1/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4F2A9C11D1)": "4 3F2A9C11D0 a@example.net sent 25h0m0s 4F2A9C11D1",
		"local[1]: 3F2A9C11D0: to=<a@example.net>, orig_to=<x, delay=1, @y>, relay=local, delay=0.05, delays=0/0/0/0, dsn=2.0.0, status=sent (forwarded as 4F2A9C11D1)":       "4 3F2A9C11D0 a@example.net sent 50ms 4F2A9C11D1",
		"smtp[1]: 3F2A9C11D0: to=<\"a>b\"@example.net>, relay=none, delay=1.2, delays=0/0/0/0, dsn=4.0.0, status=deferred (, delay=9, status=sent)":                           "4 3F2A9C11D0 \"a>b\"@example.net deferred 1.2s ",
		"pickup[1]: 3F2A9C11D0: uid=104 from=<s@example.org> orig_id=4F2A9C11D1":                                                                                              "1 3F2A9C11D0   0s ",
		"bounce[1]: 3F2A9C11D0: sender non-delivery notification: 4F2A9C11D1":                                                                                                 "9 3F2A9C11D0   0s 4F2A9C11D1",
		"cleanup[1]: 3F2A9C11D0: discard: header Subject: x; from=<a> to=<b> from h[192.0.2.1]; from=<s@example.org> to=<r@example.net> proto=ESMTP helo=<h>: spam":           "10 3F2A9C11D0 r@example.net  0s ",
		"smtpd[1]: NOQUEUE: reject: RCPT from h[192.0.2.1]: 450 4.7.1 <a>: x; from=<s> to=<r> proto=ESMTP helo=<h>":                                                           "",
		"cleanup[1]: 3F2A9C11D0: resent-message-id=<1@example.org>":                                                                                                           "",
	} {
		path := write(t, filepath.Join(t.TempDir(), "mail.log"), head+line+"\n")
		all, _ := stepsOf(t, path, time.Time{}, Position{})
		got := ""
		if len(all) == 1 {
			s := all[0]
			got = fmt.Sprintf("%d %s %s %s %v %s", s.Event, s.ID, s.Recipient, s.Status, s.Delay, s.NewID)
		}
		if got != want {
			t.Errorf("%s\nsays %q, not %q", line, got, want)
		}
	}
}

// TestStepsBeginWhereASnapshotWasTaken reads on from a place, over a rotation
// and a packed part, and without the place from a time.
func TestStepsBeginWhereASnapshotWasTaken(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "mail.log"), sentFrom(0, 100, morning()))
	at, err := End(logsTo(path), ReadOptions{})
	check(t, err)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteString(sentFrom(100, 50, morning().Add(100*time.Second)))
	check(t, err)
	check(t, f.Close())
	check(t, os.Rename(path, path+".1"))
	write(t, path, sentFrom(150, 50, morning().Add(150*time.Second)))
	for name, from := range map[string]Position{"place": at, "time": {}} {
		all, trace := stepsOf(t, path, morning().Add(100*time.Second), from)
		first := "u100@example.net"
		if name == "time" {
			first = "u98@example.net" // stamps are coarse
		}
		if len(all) < 100 || all[0].Recipient != first || all[len(all)-1].Recipient != "u199@example.net" || len(trace.Holes) != 0 || len(trace.Gaps) != 0 {
			t.Errorf("by %s: %d steps, %+v %+v", name, len(all), trace.Holes, trace.Gaps)
		}
	}
	if _, trace := stepsOf(t, path, morning().Add(-time.Hour), Position{}); len(trace.Holes) != 1 || !trace.Holes[0].To.Equal(morning()) {
		t.Errorf("the log does not reach back as far: %+v", trace.Holes)
	}
}

// TestStepsNameHoles: lines that were cut or thrown away are missing from a
// time that ends with the next line.
func TestStepsNameHoles(t *testing.T) {
	const stamp = "2026-11-20T09:00:00.000000+00:00 relay1 "
	for bad, want := range map[string]int{
		stamp + "systemd-journald[1]: Suppressed 12 messages from postfix.service\n":                            1,
		stamp + "rsyslogd[1]: imuxsock: 12 messages lost due to rate-limiting (500 allowed within 5 seconds)\n": 1,
		stamp + "postfix/smtp[1]: 3000000001: to=<a@example.net>, relay=no\n":                                   1,
		"2026-11-20T09:00:0\n":                      1,
		stamp + "cron[1]: Suppressed 12 messages\n": 0,
		stamp + "postfix/smtp[1]: 3000000001: host said: Suppressed 1 messages from\n": 0,
	} {
		path := write(t, filepath.Join(t.TempDir(), "mail.log"), sentFrom(0, 2, morning())+bad+sentFrom(2, 2, morning().Add(time.Minute)))
		all, trace := stepsOf(t, path, time.Time{}, Position{})
		if len(all) != 4 || len(trace.Holes) != want {
			t.Errorf("%q: %d steps, %+v", bad, len(all), trace.Holes)
		}
		for _, h := range trace.Holes {
			if !h.From.Equal(morning().Add(time.Second)) || !h.To.Equal(morning().Add(time.Minute)) {
				t.Errorf("%q: %+v", bad, h)
			}
		}
	}
}

// TestStepsTrustNoSharedLog: where postlog is set-gid, everybody writes by
// postlogd under any name.
func TestStepsTrustNoSharedLog(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "mail.log"), sentFrom(0, 1, morning()))
	me, err := user.Current()
	check(t, err)
	grades := []observe.Trust{}
	for _, mode := range []os.FileMode{0o755, 0o755 | os.ModeSetgid} {
		postlog := write(t, filepath.Join(filepath.Dir(path), "postlog"), "")
		check(t, os.Chmod(postlog, mode))
		in := logsTo(path)
		in.CommandDir, in.MailOwner = filepath.Dir(path), me.Username
		Steps(t.Context(), in, ReadOptions{}, Position{}, func(s *Step) { grades = append(grades, s.Trust) })
	}
	if len(grades) != 2 || grades[0] != observe.TrustGuarded || grades[1] != observe.TrustPlain {
		t.Errorf("%v", grades)
	}
}

// TestStepsOfTheJournal: what others than Postfix wrote is no step, however it
// is called, and the journal too may not reach back as far.
func TestStepsOfTheJournal(t *testing.T) {
	var entries []entryFields
	for i := range 20 {
		entries = append(entries, genuine(i, morning().Add(time.Duration(i)*time.Second)))
	}
	forged := genuine(100, morning().Add(time.Minute))
	forged.uid, forged.exe, forged.comm = "1000", "/usr/bin/logger", "logger"
	o := ReadOptions{journal: journalOf(t, append(entries, forged)...), root: t.TempDir(), Since: morning().Add(11 * time.Second)}
	in := postfix.Instance{SyslogName: "postfix", MailOwner: "postfix"}
	var all []Step
	each := func(s *Step) { all = append(all, *s) }
	trace := Steps(t.Context(), in, o, Position{At: morning().Add(10 * time.Second)}, each)
	if len(all) != 10 || all[0].Recipient != "u10@example.net" || all[0].Trust != observe.TrustJournal || all[0].Source != "journal" || trace.Suspect != 1 || len(trace.Holes) != 0 {
		t.Errorf("%d steps, %+v", len(all), trace)
	}
	o.Since = morning().Add(-time.Hour)
	if trace := Steps(t.Context(), in, o, Position{}, each); len(trace.Holes) != 1 || !trace.Holes[0].To.Equal(morning()) || len(all) != 30 {
		t.Errorf("%d steps, %+v", len(all), trace)
	}
}
