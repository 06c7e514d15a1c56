package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/observe/opener"
)

// The opener opens what it was granted and nothing beside it, whatever it is
// asked for and whatever lies there.
func TestOpenerOpensGrantedLogsOnly(t *testing.T) {
	dir := t.TempDir()
	log, other := filepath.Join(dir, "mail.log"), filepath.Join(dir, "secret")
	for name, text := range map[string]string{log: "now", log + ".1": "before", log + "-20261123.gz": "packed", other: "secret"} {
		check(t, os.WriteFile(name, []byte(text), 0o600))
	}
	check(t, os.Symlink(other, log+".2"))
	check(t, os.Link(other, log+".3"))
	check(t, unix.Mkfifo(log+".4", 0o600))
	check(t, os.Mkdir(log+".5", 0o700))
	check(t, os.WriteFile(filepath.Join(log+".5", "deep"), nil, 0o600))
	relative := "etc/passwd"
	root, err := opener.Start(opener.Grants{Logs: []string{log, relative}})
	check(t, err)
	if root == nil {
		t.Fatal("only root can test the opener")
	}
	defer func() { check(t, root.Close()) }()

	for name, want := range map[string]string{"": "now", "mail.log": "now", "mail.log.1": "before", "mail.log-20261123.gz": "packed"} {
		f, err := root.Log(log, name)
		if err != nil {
			t.Errorf("open %q: %v", name, err)
			continue
		}
		got, err := io.ReadAll(f)
		if string(got) != want || err != nil {
			t.Errorf("%q reads %q, %v", name, got, err)
		}
		if n, err := f.WriteString("x"); err == nil {
			t.Errorf("%q took %d bytes", name, n)
		}
		check(t, f.Close())
	}
	for _, c := range []struct {
		path, name string
		want       error
	}{
		{other, "", unix.EPERM},
		{dir, "", unix.EPERM},
		{log, "secret", unix.EINVAL},
		{log, "../" + filepath.Base(dir) + "/mail.log", unix.EINVAL},
		{log, "mail.log.5/deep", unix.EINVAL},
		{log, "mail.log.5/../../secret", unix.EINVAL},
		{log, "mail.log.2", unix.ELOOP},
		{log, "mail.log.3", unix.EMLINK},
		{log, "mail.log.4", unix.EMLINK},
		{log, "mail.log.5", unix.EMLINK},
		{log, "mail.log.9", fs.ErrNotExist},
		{relative, "", unix.EINVAL},
	} {
		if f, err := root.Log(c.path, c.name); !errors.Is(err, c.want) {
			t.Errorf("open %q beside %q: %v, %v, want %v", c.name, c.path, f, err, c.want)
		}
	}
	// It has survived all of that.
	f, err := root.Log(log, "")
	check(t, err)
	check(t, f.Close())
}

func TestNilOpenerRefuses(t *testing.T) {
	var none *opener.Opener
	if _, err := none.Log("/var/log/mail.log", ""); !errors.Is(err, opener.ErrNone) {
		t.Errorf("log: %v", err)
	}
	if _, err := none.Maildrop("/var/spool/postfix", "0123456789"); err == nil {
		t.Error("maildrop was opened")
	}
	check(t, none.Close())
}

// The journal, read as on a host whose mail log it is: by the opener's
// journalctl, with a line in it that a user forged.
func TestJournalByTheOpener(t *testing.T) {
	l := busy(t)
	in := instanceOf(t, l)
	in.MailLogFile = "" // as where it was never set
	id, err := os.ReadFile("/etc/machine-id")
	check(t, err)
	dir := l.HostPath(filepath.Join("/var/log/journal", strings.TrimSpace(string(id))))
	check(t, os.MkdirAll(dir, 0o755))
	const delivery = "3F0000000%d: to=<u@takes.example>, relay=mx[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)"
	var export strings.Builder
	// Who follows the journal is shown the present boot.
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	check(t, err)
	boot = bytes.ReplaceAll(bytes.TrimSpace(boot), []byte("-"), nil)
	now := time.Now()
	for i, exe := range []string{in.DaemonDir + "/smtp", in.DaemonDir + "/smtp", "/usr/bin/logger"} {
		micro := now.Add(time.Duration(i-10) * time.Second).UnixMicro()
		fmt.Fprintf(&export, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n", micro, micro%1e12, boot)
		fmt.Fprintf(&export, "SYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=postfix/smtp\nSYSLOG_PID=7\n_PID=7\n_UID=0\n_EXE=%s\nMESSAGE="+delivery+"\n\n", exe, i)
	}
	cmd := exec.CommandContext(within(t, minute), "/lib/systemd/systemd-journal-remote", "-o", dir+"/system.journal", "-")
	cmd.Stdin = strings.NewReader(export.String())
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("systemd-journal-remote: %v: %s", err, said)
	}
	check(t, os.Chmod(dir+"/system.journal", 0o600))

	f := read(t, l, job{Instance: in})
	if got := f.Log; got.Trust != observe.TrustJournal || got.Total.Delivered != 2 || got.Suspect != 1 || len(f.Gaps) != 0 {
		t.Errorf("%+v; %+v", got, f.Gaps)
	}
	// Who may not read it hears of that, and what is read instead is no better
	// than it is.
	f = read(t, l, job{Instance: in, Alone: true})
	if f.Log.Trust != observe.TrustPlain || len(f.Gaps) == 0 || !strings.Contains(f.Gaps[0].Hint, "systemd-journal") {
		t.Errorf("without an opener: %+v; %+v", f.Log, f.Gaps)
	}
	// A follower that waits for a line that never comes ends with its context.
	f = read(t, l, job{Instance: in, Follow: true})
	if f.Followed != 2 || f.Ended != context.Canceled.Error() {
		t.Errorf("followed %d lines and ended with %q", f.Followed, f.Ended)
	}
}
