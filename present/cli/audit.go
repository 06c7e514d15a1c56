package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
	"holdfast/record"
	"holdfast/record/audit"
)

// parent makes a command that only has commands below it.
func parent(name, group, short, long string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " COMMAND", Short: short, Long: long, GroupID: group,
		Args: func(_ *cobra.Command, args []string) error {
			hint := present.Shell("holdfast", name, "--help").String() + " lists them"
			if len(args) == 0 {
				return usageError(hint, "no command is given behind %s", name)
			}
			return usageError(hint, "there is no command %s behind %s", present.Shell(args[0]), name)
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args lets nothing pass
	}
	cmd.AddCommand(below...)
	return cmd
}

// auditOptions is what the flags of audit list and audit verify say.
type auditOptions struct {
	plan  string
	kind  string
	limit int
	key   string
	file  string
	// kept are files of checkpoints that somebody keeps elsewhere.
	kept []string
}

func (p *program) auditCommand() *cobra.Command {
	return parent("audit", groupProve, "the audit log: list, show, verify, export",
		"The audit log has every plan, every intent before anything was done, and every\noutcome as it was seen afterwards.",
		p.auditListCommand(), p.auditShowCommand(), p.auditVerifyCommand(), p.auditExportCommand())
}

var readExits = []int{exitDone, exitFailed, exitUsage, exitCannotTell, exitInterrupted}

func fileFlag(f *pflag.FlagSet, o *auditOptions) {
	f.StringVar(&o.file, "file", "", "read this `FILE` instead of the log of this host; - is stdin")
}

func (p *program) auditListCommand() *cobra.Command {
	o := &auditOptions{}
	cmd := &cobra.Command{
		Use: "list [flags]", Short: "the entries, the newest last", Args: cobra.NoArgs,
		Long:    "Lists the entries of the audit log in their order.",
		Example: "  holdfast audit list\n  holdfast audit list --plan 3f2a9c11d0ab\n  holdfast audit list -o json | jq 'select(.kind == \"outcome\")'",
		RunE:    p.run(func(ctx context.Context, _ []string) error { return p.auditList(ctx, o) }),
	}
	f := pflag.NewFlagSet("list", pflag.ContinueOnError)
	f.StringVar(&o.plan, "plan", "", "only entries of the plan whose `ID` begins so")
	f.StringVar(&o.kind, "kind", "", "only entries of this `KIND`: plan, intent, outcome, ...")
	f.IntVar(&o.limit, "limit", limitNotGiven, "only the newest `N`; 0 is all (text shows 20, json all)")
	f.Lookup("limit").DefValue = "0" // hides the mark of "not given" from the help text
	fileFlag(f, o)
	p.describe(cmd, verb{sections: []section{{"Which entries", f}}, exits: readExits})
	return cmd
}

func (p *program) auditShowCommand() *cobra.Command {
	o := &auditOptions{}
	cmd := &cobra.Command{
		Use: "show [flags] NUMBER", Short: "one entry with all that it says", Args: cobra.ExactArgs(1),
		Long: "Shows one entry of the audit log in full.", Example: "  holdfast audit show 17",
		RunE: p.run(func(ctx context.Context, args []string) error { return p.auditShow(ctx, o, args[0]) }),
	}
	f := pflag.NewFlagSet("show", pflag.ContinueOnError)
	fileFlag(f, o)
	p.describe(cmd, verb{sections: []section{{"Where", f}}, exits: readExits})
	return cmd
}

func (p *program) auditVerifyCommand() *cobra.Command {
	o := &auditOptions{}
	cmd := &cobra.Command{
		Use: "verify [flags] [FILE | -]", Short: "check that no entry was changed, taken out or cut off", Args: cobra.MaximumNArgs(1),
		Long: "Checks the audit log from its first line to its last, and against the signed\n" +
			"checkpoints beside it. It needs nothing but the file. It names the first entry\n" +
			"that is not what was written.",
		Example: "  holdfast audit verify\n  ssh relay holdfast audit export | holdfast audit verify -",
		RunE: p.run(func(ctx context.Context, args []string) error {
			if len(args) == 1 {
				o.file = args[0]
			}
			return p.auditVerify(ctx, o)
		}),
	}
	f := pflag.NewFlagSet("verify", pflag.ContinueOnError)
	f.StringVar(&o.key, "key", "", "verify checkpoints by this `KEY`, kept elsewhere; else by the one that the log names itself")
	f.StringArrayVar(&o.kept, "checkpoint", nil, "also verify by a checkpoint in this `FILE`, kept elsewhere: it finds a log that was put back; may be repeated")
	p.describe(cmd, verb{sections: []section{{"How it is checked", f}}, exits: readExits})
	return cmd
}

func (p *program) auditExportCommand() *cobra.Command {
	var checkpoint bool
	cmd := &cobra.Command{
		Use: "export", Short: "write the log as it is, for another machine", Args: cobra.NoArgs,
		Long:    "Writes the lines of the audit log to stdout as they are. They are plain ASCII;\naudit verify on another machine checks them.",
		Example: "  holdfast audit export > audit.log\n  holdfast audit export --checkpoint | mail -s 'audit log' somebody@elsewhere.example",
		RunE: p.run(func(ctx context.Context, _ []string) error {
			if checkpoint {
				return p.exportCheckpoint(ctx)
			}
			return p.auditExport(ctx)
		}),
	}
	f := pflag.NewFlagSet("export", pflag.ContinueOnError)
	f.BoolVar(&checkpoint, "checkpoint", false, "only the newest signed checkpoint, to be kept where nobody of this host can change it")
	p.describe(cmd, verb{sections: []section{{"What is written", f}}, exits: readExits})
	return cmd
}

// withLog opens a log and has it read. Only stdin needs no host.
func (p *program) withLog(ctx context.Context, path string, read func(io.Reader, []byte) error) (err error) {
	if path == "-" {
		return read(p.env.Stdin, nil)
	}
	host, err := p.env.Record(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	log, checkpoints, err := host.Audit(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	return read(log, checkpoints)
}

// until ends a walk over entries with its context.
func until(ctx context.Context, entries iter.Seq2[record.Entry, error]) iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		for e, err := range entries {
			if ctx.Err() != nil {
				yield(record.Entry{}, ctx.Err())
				return
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (p *program) auditList(ctx context.Context, o *auditOptions) error {
	if o.limit < limitNotGiven {
		return usageError("--limit 0 shows everything", "--limit %d is negative", o.limit)
	}
	most := o.limit
	if most == limitNotGiven {
		most = 0
		if !p.screen.json {
			most = limitOfText
		}
	}
	return p.withLog(ctx, o.file, func(log io.Reader, _ []byte) error {
		var kept []told
		var failed error
		hidden := 0
		for e, err := range until(ctx, audit.Read(log)) {
			if err != nil {
				failed = err // what was read before it is good, and is told
				break
			}
			t := tell(&e)
			if o.kind != "" && string(e.Kind) != o.kind || o.plan != "" && !bytes.HasPrefix([]byte(t.plan), []byte(o.plan)) {
				continue
			}
			if p.screen.json && most == 0 {
				if err := p.entryJSON(&e); err != nil {
					return err
				}
				continue
			}
			if kept = append(kept, t); most > 0 && len(kept) > most {
				kept, hidden = slices.Delete(kept, 0, 1), hidden+1
			}
		}
		if err := p.entries(kept, hidden); err != nil {
			return err
		}
		return damaged(failed)
	})
}

// damaged gives what ends the reading of a log its kind: an end that is not
// whole may be what another process is writing just now.
func damaged(err error) error {
	if err == nil {
		return nil
	}
	e := &postfix.Error{Kind: postfix.Failed, Err: err, Hint: "keep the file as it is: what follows this entry proves nothing, and what precedes it is good"}
	if errors.Is(err, audit.ErrCut) {
		e.Kind = postfix.CannotTell
		e.Hint = "another command may be writing: look again; what a crash has cut is accounted for by the next command that changes something"
	}
	return e
}

func (p *program) entryJSON(e *record.Entry) error {
	r, err := present.AuditEntryRecordOf(e)
	if err != nil {
		return err
	}
	return p.screen.Record(r)
}

func (p *program) entries(kept []told, hidden int) error {
	if p.screen.json {
		for i := range kept {
			if err := p.entryJSON(&kept[i].entry); err != nil {
				return err
			}
		}
		return nil
	}
	if len(kept) == 0 {
		p.screen.Note(present.Say("no entry fits"))
		return nil
	}
	if hidden > 0 {
		p.screen.Note(present.Say("%s before these; --limit 0 shows them all", present.Plural(hidden, "entry", "entries")))
	}
	t := &present.Table{Columns: []present.Column{
		{Title: present.Say("NUMBER"), Right: true},
		{Title: present.Say("TIME")},
		{Title: present.Say("KIND")},
		{Title: present.Say("PLAN"), Spare: 1},
		{Title: present.Say("WHAT"), Least: 24},
	}}
	at := p.env.Now()
	for i := range kept {
		e := &kept[i].entry
		t.Row(numbered(e.Seq), present.Clock(e.At, at), text(string(e.Kind)), text(plan.Short(kept[i].plan)), kept[i].what)
	}
	p.screen.Table(t)
	return nil
}

// numbered is the number of an entry. It stands without commas, as it is typed.
func numbered(n uint64) present.Words { return text(strconv.FormatUint(n, 10)) }

// told is an entry in words.
type told struct {
	entry record.Entry
	plan  string
	what  present.Words
}

// tell puts an entry into words. What does not decode is told as it stands.
func tell(e *record.Entry) told {
	t := told{entry: *e}
	var err error
	switch e.Kind {
	case record.Planned, record.Approved, record.Started:
		var b record.PlanBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.plan, t.what = b.Plan, present.Say("%s %s, by %s: %s", text(string(b.Verb)), present.Plural(b.Count, "message", "messages"), text(b.By.Name()), text(b.Reason))
		}
	case record.Intended:
		var b record.IntentBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.plan, t.what = b.Plan, present.Say("about to %s %s, batch %s", text(string(b.Verb)), present.Plural(len(b.Targets), "message", "messages"), present.Count(b.Batch))
		}
	case record.Kept:
		var b record.KeptBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.plan, t.what = b.Plan, present.Say("%s in the vault", present.Plural(len(b.Items), "copy", "copies"))
		}
	case record.Settled:
		var b record.OutcomeBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.plan, t.what = b.Plan, present.Say("%s, batch %s: %s", text(string(b.Verb)), present.Count(b.Batch), counted(present.CountsOf(b.Outcomes)))
		}
	case record.Ended:
		var b record.EndBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.plan, t.what = b.Plan, ended(&b)
		}
	case record.Looked:
		var b record.InspectBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.what = present.Say("%s looked at the content of %s (%s): %s", text(b.By.Name()), text(string(b.ID)), text(b.What), text(b.Reason))
		}
	case record.LegalHold:
		var b record.LegalBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.what = present.Say("%s under legal hold, by %s: %s", present.Plural(len(b.Items), "copy", "copies"), text(b.By.Name()), text(b.Reason))
			if !b.On {
				t.what = present.Say("%s not under legal hold any more, by %s: %s", present.Plural(len(b.Items), "copy", "copies"), text(b.By.Name()), text(b.Reason))
			}
		}
	case record.Saved:
		var b record.SavedBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			t.what = present.Say("snapshot %s of %s saved, by %s", text(b.Name), present.Plural(b.Messages, "message", "messages"), text(b.By.Name()))
		}
	case record.Due, record.DueDone:
		var b record.DueBody
		if err = json.Unmarshal(e.Detail, &b); err == nil {
			duty := dutyWords(&operate.Duty{DueBody: b})
			t.what = present.Say("%s is due at %s, asked for by %s", duty, text(b.When.UTC().Format("2006-01-02 15:04:05 UTC")), text(b.By.Name()))
			if e.Kind == record.DueDone {
				t.what = present.Say("%s is done: %s", duty, text(b.Text))
			}
		}
	default:
		t.what = text(string(e.Detail))
	}
	if err != nil {
		t.what = text(string(e.Detail))
	}
	return t
}

func ended(b *record.EndBody) present.Words {
	var c []present.Words
	for _, s := range record.States() {
		if n := b.Counts[s]; n > 0 {
			c = append(c, present.Say("%s %s", present.Count(n), text(string(s))))
		}
	}
	if b.Left > 0 {
		c = append(c, present.Say("%s not begun", present.Count(b.Left)))
	}
	return present.Join(", ", c...)
}

// counted puts outcomes by state into one line.
func counted(c present.CountsRecord) present.Words {
	var parts []present.Words
	for _, s := range record.States() {
		if n := c.Of(s); n > 0 {
			parts = append(parts, present.Say("%s %s", present.Count(n), text(string(s))))
		}
	}
	return present.Join(", ", parts...)
}

func (p *program) auditShow(ctx context.Context, o *auditOptions, number string) error {
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || seq == 0 {
		return usageError("holdfast audit list has the numbers", "%s is not the number of an entry", present.Shell(number))
	}
	return p.withLog(ctx, o.file, func(log io.Reader, _ []byte) error {
		for e, err := range until(ctx, audit.Read(log)) {
			if err != nil {
				return damaged(err)
			}
			if e.Seq == seq {
				return p.showEntry(&e)
			}
		}
		return &postfix.Error{Kind: postfix.Failed, Err: fmt.Errorf("the audit log has no entry %d", seq), Hint: "holdfast audit list has the numbers"}
	})
}

func (p *program) showEntry(e *record.Entry) error {
	if p.screen.json {
		return p.entryJSON(e)
	}
	s := &page{screen: p.screen}
	t := tell(e)
	s.labelled(present.Say("ENTRY"), present.Say("%s, %s, %s", numbered(e.Seq), text(string(e.Kind)), present.When(e.At, p.env.Now())).In(present.Strong), 0)
	if e.Ref > 0 {
		s.labelled(present.Say("OF"), present.Say("entry %s", numbered(e.Ref)), 0)
	}
	s.labelled(present.Say("PLAN"), text(t.plan), 0)
	s.labelled(present.Say("HASH"), text(e.Hash), 0)
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, e.Detail, "", "  "); err != nil {
		return fmt.Errorf("read entry %d of the audit log: %w", e.Seq, err)
	}
	for line := range bytes.Lines(pretty.Bytes()) {
		// An entry is ASCII in which everything else is escaped; a text of
		// one line may be longer than the screen's usual end.
		line = bytes.TrimSuffix(line, []byte("\n"))
		s.line(present.Hostile(line).Words(len(line) + 1))
	}
	s.write()
	return nil
}

// keptCheckpoints reads files of checkpoints. One in which there is none would
// prove nothing and look as if it did.
func keptCheckpoints(paths []string) ([]byte, error) {
	var all []byte
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, usageError("", "--checkpoint: %w", err)
		}
		if audit.LastCheckpoint(text) == "" {
			return nil, usageError("holdfast audit export --checkpoint writes one", "--checkpoint: there is none in %s", present.Shell(path))
		}
		all = append(append(all, text...), '\n')
	}
	return all, nil
}

func (p *program) auditVerify(ctx context.Context, o *auditOptions) error {
	kept, err := keptCheckpoints(o.kept)
	if err != nil {
		return err
	}
	return p.withLog(ctx, o.file, func(log io.Reader, checkpoints []byte) error {
		checkpoints = slices.Concat(checkpoints, []byte("\n"), kept)
		r, err := audit.Verify(log, checkpoints, o.key)
		if err != nil {
			return err
		}
		if p.screen.json {
			if err := p.screen.Record(present.AuditReportRecordOf(&r)); err != nil {
				return err
			}
		} else {
			p.showVerification(&r)
		}
		return unverified(&r)
	})
}

func (p *program) showVerification(r *audit.Report) {
	s, at := &page{screen: p.screen}, p.env.Now()
	s.labelled(present.Say("LOG"), present.Say("good entries: %s", numbered(r.Entries)), 0)
	if r.Entries > 0 {
		s.labelled(present.Say("TIME"), present.Say("from %s to %s", present.When(r.First, at), present.When(r.Last, at)), 0)
	}
	if r.Torn > 0 {
		s.labelled(present.Say("TORN"), present.Say("%s cut by a crash and accounted for", present.Plural(r.Torn, "line was", "lines were")), 0)
	}
	signed := present.Say("no checkpoint: an end that was cut off cannot be told from one that was never written")
	if r.Checkpoints > 0 {
		signed = present.Say("%s, up to entry %s", present.Plural(r.Checkpoints, "checkpoint fits", "checkpoints fit"), numbered(r.Covered))
	}
	s.labelled(present.Say("SIGNED"), signed, 0)
	if r.FromLog && r.Checkpoints > 0 {
		s.labelled(present.Say(""), present.Say("by the key that the log names itself; --key takes one that was kept elsewhere"), 0)
	}
	for _, why := range r.BadCheckpoints {
		s.labelled(present.Say(""), text(why).In(present.Bad), 0)
	}
	if r.CutCheckpoints > 0 {
		s.labelled(present.Say(""), present.Say("%s not whole", present.Plural(r.CutCheckpoints, "checkpoint is", "checkpoints are")).In(present.Warn), 0)
	}
	if r.Bad != nil {
		s.labelled(present.Say("BAD"), present.Say("entry %s: %s", numbered(r.Bad.Seq), text(r.Bad.Why)).In(present.Bad), 0)
	}
	s.labelled(present.Say("HEAD"), text(r.Head), 0)
	s.write()
}

// unverified is what a report means for the exit code.
func unverified(r *audit.Report) error {
	switch {
	case r.Bad != nil:
		return damaged(r.Bad)
	case len(r.BadCheckpoints) > 0:
		return &postfix.Error{Kind: postfix.Failed, Err: fmt.Errorf("%s not good: %s", present.Plural(len(r.BadCheckpoints), "checkpoint is", "checkpoints are"), r.BadCheckpoints[0])}
	case r.Entries == 0:
		return &postfix.Error{Kind: postfix.CannotTell, Err: errors.New("the audit log has no entry"), Hint: "a log begins with its first entry; an empty file is none"}
	}
	return nil
}

// auditExport writes the log as it is: unless a byte in it is none that a log
// can have, and that a terminal might obey.
func (p *program) exportCheckpoint(ctx context.Context) error {
	return p.withLog(ctx, "", func(_ io.Reader, checkpoints []byte) error {
		last := audit.LastCheckpoint(checkpoints)
		if last == "" {
			return &postfix.Error{Kind: postfix.Failed, Err: errors.New("there is no checkpoint: nothing was ever changed here"), Hint: "the first verb that changes something signs one"}
		}
		for _, line := range strings.Split(strings.TrimSuffix(last, "\n"), "\n") {
			// Base64, digits, and the dash with which signatures begin.
			p.screen.Line(text(line))
		}
		return nil
	})
}

func (p *program) auditExport(ctx context.Context) error {
	return p.withLog(ctx, "", func(log io.Reader, _ []byte) error {
		buf := make([]byte, 1<<16)
		for at := int64(0); ; {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n, err := log.Read(buf)
			for i, c := range buf[:n] {
				if c != '\n' && (c < ' ' || c > '~') {
					return &postfix.Error{Kind: postfix.Failed, Err: fmt.Errorf("byte %d of the audit log is none that a log can have", at+int64(i)), Hint: "holdfast audit verify names the entry"}
				}
			}
			if _, err := p.screen.out.Write(buf[:n]); err != nil {
				return fmt.Errorf("write output: %w", err)
			}
			at += int64(n)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the audit log: %w", err)
			}
		}
	})
}
