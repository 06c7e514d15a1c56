// Package cli is the command line of Holdfast.
//
// Invariant: every failure has one sentence on stderr, an exit code that
// docs/exit-codes.md explains, and with -o json an object on stdout; nothing
// that came from mail reaches stdout or stderr without the escaping of package
// present.
//
// The package turns words into calls of package operate and what comes back
// into words. It looks at no queue itself and decides nothing about mail. There
// is no state outside of [Run], so that tests call it as the shell does.
//
// # Diagnostics
//
// Usage mistakes end in exit code 2 and name the flag, the value and how it is
// written. What could not be seen is said on stderr, stands in "gaps" in JSON,
// and ends in exit code 6 where it leaves the question open. A verdict of triage
// is no failure: it ends in 6 or 10 without an error.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/config"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

// Operator is what a screen needs of the host, or of another one.
type Operator interface {
	// Look takes a snapshot of every instance that was asked for. A second
	// call reads only what has changed. Where some instances could be looked
	// at and others not, it returns both snapshots and an error.
	Look(ctx context.Context) ([]*observe.Snapshot, error)
	// Headers reads the headers of one message. It may be called by several
	// goroutines at once.
	Headers(ctx context.Context, snap *observe.Snapshot, m *postfix.Message) ([]plan.Header, error)
	// Show looks at the messages with one ID closely. Where there is none, the
	// error wraps spool.ErrNoMessage.
	Show(ctx context.Context, id postfix.QueueID, want spool.Want) ([]operate.Detail, error)
	// Triage looks at every instance, its log and its surroundings, and says
	// what is wrong. Where some instances could be looked at and others not,
	// it returns both what it found and an error.
	Triage(ctx context.Context, opts operate.TriageOptions) ([]*operate.Triage, error)
	// Close ends what reaching the host has started.
	Close() error
}

// Settings are what the flags say about where to look.
type Settings struct {
	ConfigDirs []string
	StateDir   string
	ConfigFile string
	// Surroundings says that the log and the host are looked at, too.
	Surroundings bool
}

// Env is everything that a command takes from its surroundings.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Getenv reads the environment; nil is an empty one.
	Getenv func(string) string
	// Terminal describes stdout.
	Terminal Terminal
	// Live is set where stderr is a terminal: then it shows progress.
	Live bool
	// Now is the clock, time.Now where it is nil. Its location is the zone in
	// which people are told times.
	Now func() time.Time
	// Open reaches the host.
	Open func(context.Context, Settings) (Operator, error)
	// Change reaches the host to change something. Where it is nil the verbs
	// that do are not there.
	Change func(context.Context, Settings) (Changer, error)
	// Keep reaches the host to go on with plans of earlier commands, Record to
	// read what was recorded; nil as above.
	Keep   func(context.Context, Settings) (Keeper, error)
	Record func(context.Context, Settings) (Recorder, error)
	// View reaches the host to look at content; where it is nil what shows
	// content goes on no record.
	View func(context.Context, Settings) (Viewer, error)
	// Account reaches the host to account for mail, Save to save a snapshot; nil
	// as above.
	Account func(context.Context, Settings) (Accountant, error)
	Save    func(context.Context, Settings) (Saver, error)
	// Tick reaches the host to do what is due; nil as above.
	Tick func(context.Context, Settings) (Ticker, error)
	// Asks is set where stdin is a terminal: then questions are answered there.
	Asks bool
	// Summarize sums up log files, "-" being stdin. Started as root it opens
	// them as root and reads them as somebody else.
	Summarize func(ctx context.Context, paths []string, o maillog.Options) (*maillog.Summary, []observe.Gap, error)
}

// program is one run of the command line.
type program struct {
	env      Env
	screen   *Screen
	settings Settings
	output   string
	colour   string
	timeout  time.Duration
	verbs    map[*cobra.Command]verb
	began    bool // the command line was understood
	exit     int  // of a verb that judges and did not fail
	answers  *bufio.Reader
}

const outputBuffer = 1 << 16

// Run runs one command line, without the program's name, and returns its exit
// code. A cancelled context is the operator's Ctrl-C.
func Run(ctx context.Context, args []string, env Env) int {
	if env.Getenv == nil {
		env.Getenv = func(string) string { return "" }
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	p := &program{env: env, screen: &Screen{
		out: bufio.NewWriterSize(env.Stdout, outputBuffer), talk: env.Stderr, term: env.Terminal, live: env.Live,
		// A mistake in the flags must be reported in the form that was asked
		// for, although it keeps the flags from being read.
		json: asksForJSON(args),
	}}
	p.announce()
	root := p.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var known *postfix.Error
	if err != nil && !p.began && !errors.As(err, &known) {
		err = usageError("holdfast --help lists the commands", "%w", err) // one of cobra's own
	}
	if err == nil {
		err = p.screen.flushed()
	}
	if err == nil {
		return p.exit
	}
	code := p.screen.fail(err)
	_ = p.screen.Flush() // a failure to write has been reported already
	return code
}

// announce has every command that reads the record begin with what is overdue.
// A tick is what does it.
func (p *program) announce() {
	e := &p.env
	e.Open, e.Change, e.Keep = announced(p, e.Open), announced(p, e.Change), announced(p, e.Keep)
	e.Record, e.View, e.Account, e.Save = announced(p, e.Record), announced(p, e.View), announced(p, e.Account), announced(p, e.Save)
}

// flushed ends the output.
func (s *Screen) flushed() error {
	if err := s.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func asksForJSON(args []string) bool {
	for i, a := range args {
		if a == "--" {
			return false
		}
		if a == "-ojson" || a == "--output=json" || (a == "-o" || a == "--output") && i+1 < len(args) && args[i+1] == "json" {
			return true
		}
	}
	return false
}

// usageError is a command line that cannot be understood.
func usageError(hint, format string, args ...any) error {
	return &postfix.Error{Kind: postfix.Usage, Err: fmt.Errorf(format, args...), Hint: hint}
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "get a stuck Postfix queue moving again without losing a message",
		Long: "Holdfast gets a stuck Postfix queue moving again without losing a message.\n" +
			p.promise() + "Without a command it is triage: what is stuck, why, and the next safe step.",
		Example:                    "  holdfast\n  holdfast -v\n  holdfast queue --by cause\n  holdfast show 3F2A01B2C4",
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		DisableAutoGenTag:          true,
		PersistentPreRunE:          func(*cobra.Command, []string) error { return p.prepare() },
	}
	// Before anything else: the completion command keeps the writer that it
	// finds when it is made.
	root.SetIn(p.env.Stdin)
	root.SetOut(p.screen.out)
	root.SetErr(p.env.Stderr)
	version := root.Flags().Bool("version", false, "print the version")
	bare := &triageOptions{}
	root.Flags().AddFlagSet(triageFlags(bare))
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *version {
			return p.version()
		}
		return p.run(func(ctx context.Context, _ []string) error { return p.triage(ctx, *bare) })(cmd, args)
	}
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := "holdfast --help lists the commands"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + present.Shell("holdfast", near[0]).String() + "?"
		}
		return usageError(hint, "there is no command %s", present.Shell(args[0]))
	}
	global := p.globalFlags()
	root.PersistentFlags().AddFlagSet(global)
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: groupLook, Title: "Look"})
	if p.env.Change != nil {
		p.addChanges(root)
	}
	p.addProofs(root)
	p.addAccounts(root, accounts{p.env.Account, p.env.Save})
	root.AddGroup(&cobra.Group{ID: groupKeep, Title: "Keep"})
	root.SetCompletionCommandGroupID(groupKeep)
	root.AddCommand(p.triageCommand(), p.queueCommand(), p.showCommand(), p.explainCommand(), p.logsCommand(), p.configCommand(), p.versionCommand(), whereTopic())
	if p.env.Tick != nil {
		root.AddCommand(p.tickCommand())
	}
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Short = "print the script that completes commands and flags in a shell"
		}
	}
	p.help(root, global)
	return root
}

// addProofs adds the verbs that show and settle what was recorded.
func (p *program) addProofs(root *cobra.Command) {
	if p.env.Record == nil && p.env.Keep == nil {
		return
	}
	root.AddGroup(&cobra.Group{ID: groupProve, Title: "Prove"})
	if p.env.Record != nil {
		root.AddCommand(p.planCommand(), p.auditCommand(), p.vaultCommand())
	}
	if p.env.Keep != nil {
		root.AddCommand(p.recoverCommand())
	}
}

// promise says what the program does to mail.
func (p *program) promise() string {
	if p.env.Change == nil {
		return "This release looks and changes nothing.\n"
	}
	return "Nothing is changed without a plan that was shown and confirmed.\n"
}

// The groups of verbs in the help text. Those that control come with
// the verbs that do.
const (
	groupLook  = "look"
	groupAct   = "act"
	groupProve = "prove"
	groupKeep  = "keep"
)

func (p *program) globalFlags() *pflag.FlagSet {
	f := pflag.NewFlagSet("global", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringArrayVarP(&p.settings.ConfigDirs, "config-dir", "c", nil, "Postfix configuration `DIR`, as postfix -c; may be repeated")
	f.VarP(newChoice(&p.output, "text", "text", "json"), "output", "o", "`FORM` of the output: text for people, json for programs")
	f.Var(newChoice(&p.colour, "auto", "auto", "always", "never"), "color", "colour `WHEN`: auto, always or never")
	f.BoolVarP(&p.screen.quiet, "quiet", "q", false, "say nothing on stderr but errors")
	f.BoolVarP(&p.screen.detail, "verbose", "v", false, "say more about what was looked at and how")
	f.DurationVar(&p.timeout, "timeout", 0, "give up after this `TIME`, for example 30s")
	f.StringVar(&p.settings.StateDir, "state-dir", "/var/lib/holdfast", "`DIR` of Holdfast's own records: when triage last asked which mail server")
	f.StringVar(&p.settings.ConfigFile, "config", config.DefaultPath, "settings `FILE`: who may do what; verbs that look do not need it")
	return f
}

// prepare makes the screen what the flags say.
func (p *program) prepare() error {
	if p.timeout < 0 {
		return usageError("leave --timeout out to wait as long as it takes", "--timeout %s is negative", p.timeout)
	}
	p.screen.json = p.output == "json"
	if p.screen.json {
		p.screen.term = Terminal{}
	}
	switch p.colour {
	case "always":
		p.screen.colour = true
	case "auto":
		p.screen.colour = p.screen.term.Columns > 0 && p.env.Getenv("NO_COLOR") == "" && p.env.Getenv("TERM") != "dumb"
	}
	return nil
}

// run makes the body of a verb: its context ends at --timeout, and whatever
// it returns has a kind.
func (p *program) run(body func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		p.began = true
		ctx := cmd.Context()
		if p.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, p.timeout)
			defer cancel()
		}
		err := body(ctx, args)
		switch {
		case err == nil:
			return nil
		case cmd.Context().Err() != nil:
			return &postfix.Error{Kind: postfix.Interrupted, Err: errors.New("interrupted")}
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
			return &postfix.Error{
				Kind: postfix.CannotTell, Err: fmt.Errorf("not finished within %s", p.timeout),
				Hint: "give it more time with --timeout, or leave that out",
			}
		}
		return err
	}
}

// flagError gives every mistake in the flags its exit code, and keeps the hint
// of the value that was wrong.
func flagError(cmd *cobra.Command, err error) error {
	var inner *postfix.Error
	if errors.As(err, &inner) {
		return inner
	}
	return usageError(present.Shell(append(strings.Fields(cmd.CommandPath()), "--help")...).String()+" lists the flags", "%w", err)
}

// choice is a flag that takes one of several words.
type choice struct {
	value *string
	words []string
}

func newChoice(value *string, preset string, words ...string) *choice {
	*value = preset
	return &choice{value, words}
}

// String implements pflag.Value.
func (c *choice) String() string { return *c.value }

// Type implements pflag.Value.
func (c *choice) Type() string { return "word" }

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("there is %s", strings.Join(c.words, ", "))
	}
	*c.value = s
	return nil
}
