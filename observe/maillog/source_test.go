package maillog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sent is one delivery, of message n, at a time that its line has with a zone.
func sent(n int, at time.Time) string {
	return at.UTC().Format("2006-01-02T15:04:05.000000-07:00") + sentBody(n)
}

func sentBody(n int) string {
	return fmt.Sprintf(" relay1 postfix/smtp[77]: %010X: to=<u%d@example.net>, relay=mx.example.net[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)\n", 0x3000000000+n, n)
}

// sentFrom are several, a second apart.
func sentFrom(first, count int, at time.Time) string {
	var b strings.Builder
	for i := range count {
		b.WriteString(sent(first+i, at.Add(time.Duration(i)*time.Second)))
	}
	return b.String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// written sets when a file was last written.
func written(t *testing.T, path string, at time.Time) {
	t.Helper()
	check(t, os.Chtimes(path, at, at))
}

func logsTo(path string) postfix.Instance {
	return postfix.Instance{Name: "postfix", SyslogName: "postfix", MailLogFile: path}
}

func gapTexts(gaps []observe.Gap) string {
	var list []string
	for _, g := range gaps {
		list = append(list, g.String()+" | "+g.Hint)
	}
	return strings.Join(list, "\n")
}

// morning is when most of these logs begin.
func morning() time.Time { return time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC) }

func TestCandidates(t *testing.T) {
	root := t.TempDir()
	if got := candidates(root, ""); got != nil {
		t.Errorf("candidates of nothing: %q", got)
	}
	for _, name := range []string{"/var/log/syslog", "/var/log/mail/mail.log", "/var/log/mail/out.log", "/var/log/mail/notes.txt", "/var/log/maillog.1"} {
		write(t, root+name, "x\n")
	}
	// /var/log/mail is a folder here and a file on SUSE; maillog is between two rotations.
	var want []string
	for _, name := range []string{"/var/log/mail/mail.log", "/var/log/mail/out.log", "/var/log/syslog"} {
		want = append(want, root+name)
	}
	if got := candidates(root, ""); !slices.Equal(got, want) {
		t.Errorf("candidates: %q, want %q", got, want)
	}
	own := write(t, root+"/var/log/postfix.log", "")
	for name, want := range map[string][]string{
		own: {own}, "/dev/stdout": nil, root + "/none.log": nil, root + "/var/log/maillog": {root + "/var/log/maillog"},
	} {
		if got := Candidates(name); !slices.Equal(got, want) {
			t.Errorf("candidates of maillog_file %q: %q, want %q", name, got, want)
		}
	}
}

func TestFindTakesTheFileWithTheName(t *testing.T) {
	root := t.TempDir()
	in := postfix.Instance{SyslogName: "postfix-out"}
	find := func() (Where, []observe.Gap) { return Find(in, ReadOptions{root: root}) }

	if where, gaps := find(); where != (Where{}) || len(gaps) != 1 || gaps[0].Hint == "" {
		t.Errorf("of nothing: %+v, %s", where, gapTexts(gaps))
	}
	line := strings.ReplaceAll(sent(1, morning()), "postfix/", "postfix-out/")
	debian := write(t, root+"/var/log/mail.log", sent(1, morning())) // another instance's
	if where, gaps := find(); where.Path != debian || len(gaps) != 1 {
		t.Errorf("of a log of others: %+v, %s", where, gapTexts(gaps))
	}
	all := write(t, root+"/var/log/syslog", line)
	if where, gaps := find(); where.Path != all || len(gaps) != 0 {
		t.Errorf("of a log further on: %+v, %s", where, gapTexts(gaps))
	}
	// Just rotated: the name is in the older part only.
	write(t, debian+".1", line)
	if where, _ := find(); where.Path != debian {
		t.Errorf("after a rotation: %+v", where)
	}
	in.MailLogFile = root + "/set.log"
	if where, _ := find(); where != (Where{Path: in.MailLogFile, Configured: true}) {
		t.Errorf("with maillog_file: %+v", where)
	}
}

// bzip2Log is sentFrom of five lines, by bzip2(1): Go only unpacks that.
const bzip2Log = "QlpoOTFBWSZTWfGgaPEAALffgDAQQG//t0AABAonL95gMAFAZoRRIAk9IeppiaYmgGnpBFURkGnpNAxGTIBkARUppptQ0BoGhoAD1PUxGxOqbEwVqTJISRKJenul6ZpaJvS5NiUSUzEiZ8tkpUmidBJVlIG9ITzEiE4JuEoPeMDhWkBIbUqGYjBJmI1Ur1VDUkBpWnZMUxSxLDmnBPZL8kuTkltE9Um1NacUol0b0iYI1q4pyTJOic7VCU1p2TNOqfySlE6Jtuw7t1ErTRMksTiJfSQJYrASafUgkEyJnE+JwSKSSxOwJmEkJhTYkEiJSkUypUl5JiUK1JYmhOyUJIkEoSYSAmVNKTp9SCUJNKhKQT+LuSKcKEh40DR4gA=="

func packed(t *testing.T, ending, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ending {
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	case ".bz2":
		raw, err := base64.StdEncoding.DecodeString(bzip2Log)
		check(t, err)
		return string(raw)
	default:
		return text
	}
	check(t, err)
	_, err = io.WriteString(w, text)
	check(t, err)
	check(t, w.Close())
	return b.String()
}

func TestReadsOlderPartsOfEveryPacking(t *testing.T) {
	for name, older := range map[string][]string{ // newest first, each of five lines
		"counted":     {"mail.log.1", "mail.log.2.gz", "mail.log.3.xz", "mail.log.4.zst", "mail.log.5.bz2"},
		"from zero":   {"mail.log.0", "mail.log.1.bz2"},
		"dated":       {"mail.log-20261123.gz", "mail.log-20261122", "mail.log-20261121.xz"},
		"by postfix":  {"mail.log.20261123-173724", "mail.log.20261122-173724.gz"},
		"beyond nine": {"mail.log.2.gz", "mail.log.9.gz", "mail.log.10.gz"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log := write(t, dir+"/mail.log", sentFrom(0, 5, morning().Add(time.Hour)))
			for i, file := range older {
				write(t, dir+"/"+file, packed(t, filepath.Ext(file), sentFrom(100*i, 5, morning().AddDate(0, 0, -i))))
			}
			// None of these is a part of it.
			for _, other := range []string{"mail.log.offset", "mail.log~", "mail.logs.1", "mail.log.1.swp", "mail.err.1"} {
				write(t, dir+"/"+other, sent(7, morning()))
			}
			got, gaps := Read(t.Context(), logsTo(log), ReadOptions{})
			if want := int64(5 * (len(older) + 1)); got.Total.Delivered != want || got.Lines != want || len(gaps) != 0 {
				t.Errorf("%d lines, %d delivered, want %d; %s", got.Lines, got.Total.Delivered, want, gapTexts(gaps))
			}
			var names []string
			for _, s := range slices.Backward(got.Sources) {
				names = append(names, filepath.Base(s.Name))
			}
			if want := append([]string{"mail.log"}, older...); !slices.Equal(names, want) {
				t.Errorf("read %q, want %q", names, want)
			}
		})
	}
}

func TestWhileAPartIsBeingCompressed(t *testing.T) {
	dir := t.TempDir()
	log := write(t, dir+"/mail.log", sentFrom(0, 5, morning()))
	old := sentFrom(5, 5, morning().AddDate(0, 0, -1))
	write(t, dir+"/mail.log.1", old)
	write(t, dir+"/mail.log.1.gz", packed(t, ".gz", old)[:20])
	got, gaps := Read(t.Context(), logsTo(log), ReadOptions{})
	if got.Total.Delivered != 10 || len(gaps) != 0 {
		t.Errorf("%d delivered; %s", got.Total.Delivered, gapTexts(gaps))
	}
}

func TestWhatIsNoLog(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(dir+"/folder", 0o755))
	check(t, unix.Mkfifo(dir+"/pipe", 0o644))
	check(t, os.Symlink(dir+"/loop", dir+"/loop"))
	write(t, dir+"/half.log.1", sentFrom(0, 3, morning()))
	write(t, dir+"/cut.log", sent(1, time.Now()))
	cut := packed(t, ".gz", sentFrom(0, 4000, morning()))
	write(t, dir+"/cut.log.1.gz", cut[:len(cut)/2])
	for _, c := range []struct {
		path, text string
		least      int64
	}{
		{"/none.log", "no such file", 0},
		{"/folder", "no regular file", 0},
		{"/pipe", "no regular file", 0},
		{"/loop", "symbolic links", 0},
		{"/half.log", "no such file", 3},    // renamed, and not made anew yet
		{"/cut.log", "unexpected EOF", 100}, // what there is of it counts
	} {
		got, gaps := Read(t.Context(), logsTo(dir+c.path), ReadOptions{})
		if got == nil || got.Total.Delivered < c.least || c.least == 0 && got.Lines != 0 {
			t.Errorf("%s: %+v", c.path, got)
		}
		if len(gaps) != 1 || !strings.Contains(gapTexts(gaps), c.text) {
			t.Errorf("%s: gaps %s", c.path, gapTexts(gaps))
		}
	}
	if _, gaps := Read(t.Context(), logsTo("/dev/stdout"), ReadOptions{}); len(gaps) != 1 || gaps[0].Hint == "" {
		t.Errorf("/dev/stdout: %s", gapTexts(gaps))
	}
}

func TestUnreadableNamesWhoMayRead(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "holdfast-log-") // others may look into it, as into /var/log
	check(t, err)
	defer os.RemoveAll(dir)
	check(t, os.Chmod(dir, 0o755))
	log := write(t, dir+"/mail.log", sent(1, morning()))
	adm, err := user.LookupGroup("adm")
	check(t, err)
	if os.Geteuid() == 0 {
		var gid int
		_, err := fmt.Sscan(adm.Gid, &gid)
		check(t, err)
		check(t, os.Chown(log, 0, gid))
		check(t, os.Chmod(log, 0o640))
		// The file system sees another user on this thread, which then ends.
		runtime.LockOSThread()
		check(t, unix.Setfsgid(65534))
		check(t, unix.Setfsuid(65534))
		defer func() { check(t, unix.Setfsuid(0)) }()
	} else {
		check(t, os.Chmod(log, 0o040))
	}
	got, gaps := Read(t.Context(), logsTo(log), ReadOptions{})
	text := gapTexts(gaps)
	if got.Lines != 0 || len(gaps) != 1 || !strings.Contains(text, "permission denied") || !strings.Contains(text, "root") {
		t.Errorf("%d lines; %s", got.Lines, text)
	}
	if os.Geteuid() == 0 && !strings.Contains(text, `"adm"`) {
		t.Errorf("the hint does not name the group: %s", text)
	}
}

func TestTrustIsThatOfTheFolders(t *testing.T) {
	me, err := user.Current()
	check(t, err)
	dir := t.TempDir() + "/a/b"
	log := write(t, dir+"/mail.log", sent(1, morning()))
	in := logsTo(log)
	in.MailOwner = me.Username
	for _, c := range []struct {
		path string
		mode fs.FileMode
		want observe.Trust
	}{
		{log, 0o640, observe.TrustGuarded},
		{log, 0o666, observe.TrustPlain},
		{dir, 0o777, observe.TrustPlain},
		{dir, 0o777 | fs.ModeSticky, observe.TrustGuarded},
		{filepath.Dir(dir), 0o777, observe.TrustPlain},
	} {
		st, err := os.Stat(c.path)
		check(t, err)
		check(t, os.Chmod(c.path, c.mode))
		got, _ := Read(t.Context(), in, ReadOptions{})
		if got.Trust != c.want || got.Sources[0].Trust != c.want {
			t.Errorf("%s with mode %v: %q and %q, want %q", c.path, c.mode, got.Trust, got.Sources[0].Trust, c.want)
		}
		check(t, os.Chmod(c.path, st.Mode()))
	}
	// A syslog file is anybody's, however it is guarded.
	root := t.TempDir()
	write(t, root+"/var/log/mail.log", sent(1, morning()))
	got, _ := Read(t.Context(), postfix.Instance{SyslogName: "postfix"}, ReadOptions{root: root})
	if got.Lines != 1 || got.Trust != observe.TrustPlain {
		t.Errorf("a syslog file: %d lines, trust %q", got.Lines, got.Trust)
	}
}

func TestAnotherZoneIsSeenByTheFilesTime(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	log := func(ahead time.Duration, count int, apart time.Duration, last string) string {
		path := t.TempDir() + "/mail.log"
		var b strings.Builder
		for i := range count {
			at := now.Add(-time.Duration(count-1-i) * apart)
			b.WriteString(at.Add(ahead).Format(time.Stamp) + sentBody(i))
		}
		write(t, path, b.String()+last)
		written(t, path, now)
		return path
	}
	forged := now.Add(-5*time.Hour).Format(time.Stamp) + sentBody(999)
	ahead := now.Add(5*time.Hour).Format(time.Stamp) + sentBody(999)
	for name, c := range map[string]struct {
		path string
		to   time.Time
		gaps int
	}{
		"this zone":                 {log(0, 20, time.Second, ""), now, 0},
		"two hours ahead":           {log(2*time.Hour, 20, time.Second, ""), now, 1},
		"five and a half behind":    {log(-330*time.Minute, 20, time.Second, ""), now, 1},
		"a quiet log ahead":         {log(9*time.Hour, 20, 10*time.Minute, ""), now, 1},
		"seven minutes of buffers":  {log(-7*time.Minute, 20, time.Second, ""), now.Add(-7 * time.Minute), 0},
		"no whole quarter":          {log(-67*time.Minute, 20, time.Second, ""), now.Add(-67 * time.Minute), 0},
		"one line forged to behind": {log(0, 20, time.Second, forged), now.Add(-5 * time.Hour), 0},
		"one line forged to ahead":  {log(0, 20, time.Second, ahead), now.Add(5 * time.Hour), 0},
	} {
		got, gaps := Read(t.Context(), logsTo(c.path), ReadOptions{Location: time.UTC})
		if !got.To.Equal(c.to) || len(gaps) != c.gaps {
			t.Errorf("%s: the last line is of %v, want %v; %s", name, got.To, c.to, gapTexts(gaps))
		}
	}
}

func TestBombEndsAtWhatMayBeRead(t *testing.T) {
	dir := t.TempDir()
	log := write(t, dir+"/mail.log", sent(1, morning()))
	line := sent(2, morning())
	write(t, dir+"/mail.log.1.gz", packed(t, ".gz", strings.Repeat(line, (64<<20)/len(line))))
	got, gaps := Read(t.Context(), logsTo(log), ReadOptions{MaxBytes: 1 << 20})
	if got.Total.Delivered != 1 || len(gaps) != 1 || got.Sources[0].Left == 0 || got.Sources[0].Bytes != 0 {
		t.Errorf("%+v; %s", got.Sources, gapTexts(gaps))
	}
	zeros := packed(t, ".zst", strings.Repeat("\x00", 300<<20))
	bomb := write(t, dir+"/zeros.zst", zeros)
	sum, gaps, err := Summarize(t.Context(), []string{bomb, log}, Options{}, nil)
	if err != nil || sum.Delivered != 1 || len(gaps) != 1 || !strings.Contains(gaps[0].Text, "unpacks to more") {
		t.Errorf("%+v, %v; %s", sum, err, gapTexts(gaps))
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	log := write(t, t.TempDir()+"/mail.log", sentFrom(0, 1000, morning()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, gaps := Read(ctx, logsTo(log), ReadOptions{})
	if got.Lines != 0 || len(gaps) != 1 || !strings.Contains(gaps[0].Text, "no time") {
		t.Errorf("%d lines; %s", got.Lines, gapTexts(gaps))
	}
}
