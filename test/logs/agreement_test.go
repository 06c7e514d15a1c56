package logs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/lab/world"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/probe"
	"holdfast/postfix"
)

const minute = time.Minute

// busy is a relay that delivers, defers, bounces and refuses mail.
func busy(t *testing.T) *lab.Lab {
	t.Helper()
	answers := func(name string, number int, text string) world.ProviderConfig {
		p := world.ProviderConfig{Name: name, Domains: []string{name + ".example"}, Hosts: []world.Host{{Addr: fmt.Sprintf("198.51.100.%d", number)}}}
		if text != "" {
			r, err := world.ParseReply(text)
			check(t, err)
			p.Traffic.Rules = []world.Rule{{Stage: world.StageRcpt, Reply: &r}}
		}
		return p
	}
	return lab.Up(t, lab.Options{
		World: world.Config{
			DNS: world.DNSConfig{Listen: []string{"192.0.2.53"}},
			Providers: []world.ProviderConfig{
				answers("takes", 10, ""), answers("later", 20, "450 4.2.0 status=sent (250 come back later)"), answers("never", 30, "550 5.1.1 unknown"),
			},
		},
		Params: map[string]string{
			"smtpd_recipient_restrictions": "check_recipient_access inline:{ {refused.example = REJECT not here} }",
			"minimal_backoff_time":         "4h", "maximal_backoff_time": "8h", "queue_run_delay": "4h",
		},
	})
}

func inject(t *testing.T, l *lab.Lab) {
	t.Helper()
	// Some are refused by Postfix, which is what was asked for.
	_, _ = l.Inject(within(t, minute), lab.Load{
		Count: 60, Recipients: 2, Domains: []string{"takes.example", "later.example", "never.example", "refused.example", "takes.example"},
	})
	check(t, l.WaitQueue(within(t, minute), func(list []lab.Queued) bool {
		counts := lab.Counts(list)
		return counts["incoming"] == 0 && counts["active"] == 0 && counts["maildrop"] == 0 && counts["deferred"] > 0
	}))
}

// instanceOf asks Postfix for the instance, as holdfast does.
func instanceOf(t *testing.T, l *lab.Lab) postfix.Instance {
	t.Helper()
	found, gaps, err := probe.Instances(within(t, minute), "", []string{l.HostPath(l.Instances[0].ConfigDir)})
	check(t, err)
	if len(found) != 1 || len(gaps) != 0 {
		t.Fatalf("found %d instances with gaps %v", len(found), gaps)
	}
	return found[0]
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(within(t, minute), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

func TestAgreesWithGrepAndPflogsumm(t *testing.T) {
	l := busy(t)
	in := instanceOf(t, l)
	inject(t, l)
	if res, err := l.Exec(within(t, minute), "postfix", "logrotate"); err != nil || res.Code != 0 {
		t.Fatalf("postfix logrotate: %v, %s", err, res.Stderr)
	}
	inject(t, l)
	if res, err := l.Exec(within(t, minute), "sh", "-c", "postqueue -j | sed 's/.*queue_id.: .\\([0-9A-F]*\\).*/\\1/' | postsuper -h - deferred"); err != nil || res.Code != 0 {
		t.Fatalf("postsuper: %v, %s", err, res.Stderr)
	}
	log := l.HostPath(in.MailLogFile)
	rotated, err := filepath.Glob(log + ".*")
	check(t, err)
	if len(rotated) != 1 || !strings.HasSuffix(rotated[0], ".gz") {
		t.Fatalf("postfix logrotate left %q", rotated)
	}
	// The reader cannot open it itself: it is root's alone, as on many hosts.
	for _, path := range []string{log, rotated[0]} {
		check(t, os.Chown(path, 0, 0))
		check(t, os.Chmod(path, 0o600))
	}
	text := output(t, "zcat", rotated[0]) + output(t, "cat", log)
	older := filepath.Join(filepath.Dir(in.MailLogFile), filepath.Base(rotated[0]))
	whole := filepath.Join(t.TempDir(), "whole.log")
	check(t, os.WriteFile(whole, []byte(text), 0o600))
	count := func(pattern string) int64 {
		return int64(len(regexp.MustCompile("(?m)"+pattern).FindAllString(text, -1)))
	}

	f := read(t, l, job{Instance: in, Files: []string{in.MailLogFile, older}})
	if len(f.Gaps) != 0 || f.Unsummed != "" || len(f.SummaryOf) != 0 {
		t.Fatalf("gaps %v, %s %v", f.Gaps, f.Unsummed, f.SummaryOf)
	}
	got := f.Log
	delivery := `dsn=\S+, status=`
	want := observe.Flow{
		Arrived:   count(`postfix/smtpd\[\d+\]: [0-9A-F]+: client=|postfix/pickup\[\d+\]: [0-9A-F]+: uid=`),
		Delivered: count(delivery + "sent "), Deferred: count(delivery + "deferred "), Bounced: count(delivery + "bounced "),
		Rejected: count("NOQUEUE: reject: "), Held: count(": placed on hold"),
	}
	suspended := count("status=deferred .delivery temporarily suspended")
	want.Deferred, want.Suspended = want.Deferred-suspended, suspended
	if got.Total != want || got.Lines != int64(strings.Count(text, "\n")) || got.Unread != 0 || got.Suspect != 0 {
		t.Errorf("flow %+v in %d lines, %d unread, %d suspect\nwant %+v in %d", got.Total, got.Lines, got.Unread, got.Suspect, want, strings.Count(text, "\n"))
	}
	if want.Delivered == 0 || want.Deferred == 0 || want.Bounced == 0 || want.Rejected == 0 || want.Held == 0 {
		t.Errorf("the log does not have everything: %+v", want)
	}
	if names := []string{got.Sources[0].Name, got.Sources[1].Name}; !slices.Equal(names, []string{older, in.MailLogFile}) {
		t.Errorf("sources %q", names)
	}

	totals := output(t, "pflogsumm", "--detail", "0", whole)
	for name, n := range map[string]int64{
		"received": f.Summary.Received, "delivered": f.Summary.Delivered, "bounced": f.Summary.Bounced,
		// Not "held": pflogsumm does not know the holds of postsuper.
		"rejected": f.Summary.Rejected, "discarded": f.Summary.Discarded,
		"reject warnings": f.Summary.RejectWarnings, "forwarded": f.Summary.Forwarded, "deferred": f.Summary.DeferredMessages,
	} {
		if theirs := total(t, totals, name); theirs != n {
			t.Errorf("%s: %d, by pflogsumm %d", name, n, theirs)
		}
	}
	if ours := fmt.Sprintf("(%d deferrals)", f.Summary.Deferrals+f.Summary.Suspended); !strings.Contains(strings.Join(strings.Fields(totals), " "), ours) {
		t.Errorf("%s is not what pflogsumm says:\n%s", ours, totals)
	}

	// A folder that only root may enter is no obstacle to an opener, except that
	// nobody can list it: the older part, which is named by its date, is a gap.
	folder := filepath.Dir(log)
	st, err := os.Stat(folder)
	check(t, err)
	check(t, os.Chmod(folder, 0o700))
	f = read(t, l, job{Instance: in})
	if now := int64(strings.Count(output(t, "cat", log), "\n")); f.Log.Lines != now || len(f.Gaps) != 1 || !strings.Contains(f.Gaps[0].Text, "permission denied") {
		t.Errorf("in a closed folder: %d lines of %d, %+v", f.Log.Lines, now, f.Gaps)
	}
	check(t, os.Rename(rotated[0], log+".1.gz"))
	if f = read(t, l, job{Instance: in}); f.Log.Lines != got.Lines {
		t.Errorf("in a closed folder with a usual name: %d lines of %d, %+v", f.Log.Lines, got.Lines, f.Gaps)
	}
	check(t, os.Chmod(folder, st.Mode()))

	// Without root to open it nothing is made up.
	f = read(t, l, job{Instance: in, Alone: true})
	if f.Log.Lines != 0 || len(f.Gaps) != 1 || !strings.Contains(f.Gaps[0].Text, "permission denied") || !strings.Contains(f.Gaps[0].Hint, "root") {
		t.Errorf("without an opener: %d lines, %+v", f.Log.Lines, f.Gaps)
	}
}

// total takes one figure out of pflogsumm's grand totals.
func total(t *testing.T, text, name string) int64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^ +(\d+) +` + name + `\b`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("pflogsumm has no %q:\n%s", name, text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	check(t, err)
	return n
}

// Mail is seen as Postfix logs it, over its own rotation.
func TestFollowsPostfixOverItsLogrotate(t *testing.T) {
	l := busy(t)
	in := instanceOf(t, l)
	in.MailLogFile = l.HostPath(in.MailLogFile)
	at, err := maillog.End(in, maillog.ReadOptions{})
	check(t, err)
	ctx, end := context.WithCancel(within(t, 2*minute))
	defer end()
	sent, done := make(chan maillog.Line, 10_000), make(chan error, 1)
	go func() {
		done <- maillog.Follow(ctx, in, maillog.ReadOptions{}, at, func(line maillog.Line, _ maillog.Position) {
			if line.Event == maillog.Delivery && line.Status == "sent" {
				sent <- line
			}
		})
	}()
	seen := make(map[string]int)
	for round := range 3 {
		injected, err := l.Inject(within(t, minute), lab.Load{Count: 20, Domains: []string{"takes.example"}})
		check(t, err)
		for range injected {
			select {
			case line := <-sent:
				seen[line.Recipient]++
			case <-ctx.Done():
				t.Fatalf("round %d: saw %d deliveries", round, len(seen))
			}
		}
		for _, i := range injected {
			if seen[i.Rcpt] != 1 {
				t.Errorf("round %d: %s was seen %d times", round, i.Rcpt, seen[i.Rcpt])
			}
		}
		if res, err := l.Exec(within(t, minute), "postfix", "logrotate"); err != nil || res.Code != 0 {
			t.Fatalf("postfix logrotate: %v, %s", err, res.Stderr)
		}
	}
	end()
	<-done
}
