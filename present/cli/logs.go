package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/observe/maillog"
	"holdfast/postfix"
	"holdfast/present"
)

// summaryOptions is what the flags of logs summary say.
type summaryOptions struct {
	window     time.Duration
	syslogName string
	limit      int
}

func (p *program) logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs COMMAND", Short: "what mail logs say: logs summary FILE...", GroupID: groupLook,
		Long: "Reads mail logs.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("holdfast logs summary FILE... sums up log files", "no command is given behind logs")
			}
			return usageError("holdfast logs --help lists them", "there is no command %s behind logs", present.Shell(args[0]))
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args lets nothing pass
	}
	cmd.AddCommand(p.summaryCommand())
	return cmd
}

func (p *program) summaryCommand() *cobra.Command {
	o := &summaryOptions{}
	cmd := &cobra.Command{
		Use: "summary [flags] FILE... | -", Short: "sums of log files: received, delivered, deferred and why, bounced",
		Long: "Sums up mail logs of Postfix: how much was received, delivered, deferred,\n" +
			"bounced and rejected, why, for whom and from whom. Rotated files may be given\n" +
			"in any order, compressed ones as they are; - is stdin. No Postfix is needed.\n" +
			"Lines that cannot be read are counted and never skipped in silence.",
		Example: "  holdfast logs summary /var/log/mail.log\n" +
			"  holdfast logs summary /var/log/mail.log /var/log/mail.log.* --limit 0\n" +
			"  holdfast logs summary --window 24h /var/log/mail.log -o json | jq .reasons\n" +
			"  ssh relay cat /var/log/mail.log | holdfast logs summary -",
		RunE: p.run(func(ctx context.Context, args []string) error { return p.summary(ctx, *o, args) }),
	}
	f := pflag.NewFlagSet("summary", pflag.ContinueOnError)
	f.DurationVar(&o.window, "window", 0, "only the last `TIME`, for example 24h; 0 is all that the files have")
	f.StringVar(&o.syslogName, "syslog-name", "", "only the instance with this `NAME` in front of its tags, for example postfix-out")
	f.IntVar(&o.limit, "limit", usualSummary, "show at most `N` reasons, destinations and senders; 0 is all (json has all)")
	p.describe(cmd, verb{
		sections: []section{{"What is summed up", f}},
		exits:    []int{exitDone, exitFailed, exitUsage, exitCannotTell, exitInterrupted},
	})
	return cmd
}

// usualSummary is how many lines of each table are shown.
const usualSummary = 10

// summary runs the verb.
func (p *program) summary(ctx context.Context, o summaryOptions, paths []string) error {
	switch {
	case len(paths) == 0:
		return usageError("holdfast logs summary /var/log/mail.log", "no log file is given")
	case o.limit < 0:
		return usageError("--limit 0 shows everything", "--limit %d is negative", o.limit)
	case o.window < 0:
		return usageError("leave --window out to read all", "--window %s is negative", o.window)
	}
	want := maillog.Options{SyslogName: o.syslogName, Location: p.env.Now().Location()}
	if o.window > 0 {
		want.Since = p.env.Now().Add(-o.window)
	}
	progress := p.screen.watchProgress(0, present.Say("reading the log"))
	sum, gaps, err := p.env.Summarize(ctx, paths, want)
	progress.end()
	if err != nil {
		return err
	}
	if p.screen.json {
		err = p.screen.Record(&present.LogSummaryRecord{
			Envelope: present.Envelope{Schema: present.SchemaLogSummary}, Summary: sum, Gaps: gaps,
		})
	} else {
		s := &summarySheet{screen: p.screen, sum: sum, limit: o.limit, now: p.env.Now()}
		s.write()
	}
	for _, g := range gaps {
		p.screen.gap(g)
	}
	if err == nil && sum.Lines == 0 && len(gaps) > 0 {
		return &postfix.Error{Kind: postfix.CannotTell, Err: errors.New("no line of a log could be read")}
	}
	return err
}

// summarySheet writes a summary for people, with the words and in the order of
// pflogsumm, which they have read for twenty years.
type summarySheet struct {
	screen *Screen
	sum    *maillog.Summary
	limit  int
	now    time.Time
}

func (s *summarySheet) write() {
	if s.sum.Lines == 0 {
		s.screen.Line(present.Say("There is no line in it."))
		return
	}
	s.headline()
	s.totals()
	s.reasons()
	s.destinations()
	s.senders()
	if s.sum.Dropped > 0 {
		s.screen.Line()
		s.screen.Line(present.Say("%s had a reason, destination or sender too rare to be kept apart",
			present.Plural(int(s.sum.Dropped), "line", "lines")).In(present.Faint))
	}
	s.samples()
}

func large(n int64) present.Words { return present.Count(int(n)) }

func (s *summarySheet) headline() {
	out := present.Plural(int(s.sum.Lines), "line", "lines")
	if !s.sum.First.IsZero() {
		out = present.Say("%s, %s to %s (%s)", out, present.Clock(s.sum.First, s.now), present.Clock(s.sum.Last, s.now),
			present.Age(s.sum.Last.Sub(s.sum.First)))
	}
	if s.sum.Other > 0 {
		out = present.Say("%s; %s of other programs", out, large(s.sum.Other))
	}
	s.screen.Line(out)
	if s.sum.Unread > 0 {
		s.screen.Line(present.Say("%s could not be read%s", present.Plural(int(s.sum.Unread), "line of Postfix", "lines of Postfix"), s.hint()).In(present.Warn))
	}
	if s.sum.Suspect > 0 {
		s.screen.Line(present.Say("%s in Postfix's name that it did not write, not counted%s",
			present.Plural(int(s.sum.Suspect), "line", "lines"), s.hint()).In(present.Warn))
	}
}

func (s *summarySheet) hint() present.Words {
	if s.screen.detail {
		return present.Words{}
	}
	return present.Say("; -v shows some")
}

func (s *summarySheet) totals() {
	t := &present.Table{Columns: []present.Column{{Width: 9, Right: true}, {}}}
	add := func(n int64, what present.Words) {
		count := large(n)
		if n == 0 {
			count = count.In(present.Faint)
		}
		t.Row(count, what)
	}
	deferred := present.Say("deferred (%s, %s suspended without an attempt)",
		present.Plural(int(s.sum.Deferrals), "deferral", "deferrals"), large(s.sum.Suspended))
	if s.sum.Estimated {
		deferred = present.Say("%s; messages estimated", deferred)
	}
	add(s.sum.Received, present.Say("received (%s)", present.Size(s.sum.BytesReceived)))
	add(s.sum.Delivered, present.Say("delivered"))
	add(s.sum.Forwarded, present.Say("forwarded"))
	add(s.sum.DeferredMessages, deferred)
	add(s.sum.Bounced, present.Say("bounced (%s expired)", large(s.sum.Expired)))
	add(s.sum.Rejected, present.Say("rejected"))
	add(s.sum.RejectWarnings, present.Say("reject warnings"))
	add(s.sum.Held, present.Say("held"))
	add(s.sum.Discarded, present.Say("discarded"))
	add(s.sum.Notifications, present.Say("bounces and delay warnings mailed"))
	s.title(present.Say("Messages"), 0, 0)
	s.screen.Table(t)
}

func (s *summarySheet) title(name present.Words, shown, all int) {
	s.screen.Line()
	if shown < all {
		name = present.Say("%s (%s of %s, --limit 0 shows all)", name, present.Count(shown), present.Count(all))
	}
	s.screen.Line(name.In(present.Heading))
}

func (s *summarySheet) shown(n int) int {
	if s.limit == 0 {
		return n
	}
	return min(s.limit, n)
}

func (s *summarySheet) reasons() {
	shown := s.shown(len(s.sum.Reasons))
	if shown == 0 {
		return
	}
	s.title(present.Say("Why attempts failed"), shown, len(s.sum.Reasons))
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("DEFERRED"), Width: 9, Right: true},
		{Title: present.Say("BOUNCED"), Right: true},
		{Title: present.Say("CLASS")},
		{Title: present.Say("TEXT")},
	}}
	room := 0
	if s.screen.term.Columns > 0 {
		const figures = 42 // what the other columns and their gaps take
		room = max(s.screen.term.Columns-figures, 20)
	}
	for _, r := range s.sum.Reasons[:shown] {
		cells := []present.Words{large(r.Deferred), large(r.Bounced), text(string(r.Class))}
		for _, line := range text(r.Text).Wrap(room) {
			t.Row(append(cells, line)...)
			cells = make([]present.Words, len(cells))
		}
	}
	s.screen.Table(t)
}

func (s *summarySheet) destinations() {
	shown := s.shown(len(s.sum.Destinations))
	if shown == 0 {
		return
	}
	s.title(present.Say("Destinations"), shown, len(s.sum.Destinations))
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("DELIVERED"), Right: true},
		{Title: present.Say("DEFERRED"), Right: true},
		{Title: present.Say("BOUNCED"), Right: true},
		{Title: present.Say("DOMAIN"), Least: 20},
	}}
	for _, d := range s.sum.Destinations[:shown] {
		t.Row(large(d.Delivered), large(d.Deferred), large(d.Bounced), groupName(present.ByDestination, d.Domain))
	}
	s.screen.Table(t)
}

func (s *summarySheet) senders() {
	shown := s.shown(len(s.sum.Senders))
	if shown == 0 {
		return
	}
	s.title(present.Say("Senders"), shown, len(s.sum.Senders))
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("MESSAGES"), Width: 9, Right: true}, {Title: present.Say("SIZE"), Width: 8, Right: true}, {Title: present.Say("SENDER"), Least: 20},
	}}
	for _, d := range s.sum.Senders[:shown] {
		t.Row(large(d.Messages), present.Size(d.Bytes), groupName(present.BySender, d.Sender))
	}
	s.screen.Table(t)
}

// samples are lines that were not counted, as they stand.
func (s *summarySheet) samples() {
	if !s.screen.detail {
		return
	}
	for _, part := range []struct {
		title present.Words
		lines []string
	}{
		{present.Say("Lines that could not be read"), s.sum.UnreadSamples},
		{present.Say("Lines that Postfix did not write"), s.sum.SuspectSamples},
	} {
		if len(part.lines) == 0 {
			continue
		}
		s.title(part.title, 0, 0)
		for _, line := range part.lines {
			s.screen.Line(present.Say("  "), text(line))
		}
	}
}
