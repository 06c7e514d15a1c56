package cli

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/plan"
	"holdfast/present"
)

// section is a part of a verb's flags under a title of its own.
type section struct {
	title string
	flags *pflag.FlagSet
}

// verb carries what a help text needs beside the command.
type verb struct {
	sections []section
	exits    []int
}

// exitMeanings are the exit codes in the words of a help text.
var exitMeanings = map[int]string{
	exitDone:              "done, also when nothing matched",
	exitFailed:            "failed, also when an ID that was named is not there",
	exitUsage:             "the command line cannot be understood",
	exitNeedsConfirmation: "the plan was printed and nothing was changed: nobody confirmed it",
	exitRefused:           "a policy, a guard or a lock says no, and what would lift it is said",
	exitPartial:           "some messages are done, others are not; the outcome says which",
	exitCannotTell:        "not enough could be seen to tell",
	exitFindings:          "something wants attention; only with --exit-code",
	exitInterrupted:       "interrupted",
}

func (p *program) help(root *cobra.Command, global *pflag.FlagSet) {
	root.InitDefaultHelpFlag()
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		// Help is asked for before the flags have been acted upon.
		if err := p.prepare(); err != nil {
			return
		}
		p.writeHelp(cmd, global)
	})
}

// describe attaches what the help text of a verb says beside cobra's own.
func (p *program) describe(cmd *cobra.Command, v verb) {
	for _, s := range v.sections {
		s.flags.SortFlags = false
		cmd.Flags().AddFlagSet(s.flags)
	}
	if p.verbs == nil {
		p.verbs = make(map[*cobra.Command]verb)
	}
	p.verbs[cmd] = v
}

func (p *program) writeHelp(cmd *cobra.Command, global *pflag.FlagSet) {
	out := p.screen.out
	write := func(parts ...string) {
		for _, s := range parts {
			_, _ = out.WriteString(s) // the writer keeps its error for Flush
		}
	}
	title := func(s string) {
		write("\n")
		present.Hostile(s).Words(0).In(present.Heading).Paint(out, p.screen.colour)
		write("\n")
	}
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	write(strings.TrimSpace(text), "\n")
	switch {
	case cmd.HasAvailableSubCommands():
		p.writeVerbs(cmd, title, write)
	case cmd.Runnable():
		title("Usage")
		write("  ", cmd.UseLine(), "\n")
	default: // a topic has no flags
		return
	}
	if cmd.Example != "" {
		title("Examples")
		write(cmd.Example, "\n")
	}
	v := p.verbs[cmd]
	width := 80
	if p.screen.term.Columns > 0 {
		width = min(p.screen.term.Columns, 120)
	}
	for _, s := range v.sections {
		title(s.title)
		write(s.flags.FlagUsagesWrapped(width))
	}
	title("Global flags, before or after the command")
	write(global.FlagUsagesWrapped(width))
	if len(v.exits) > 0 {
		title("Exit codes")
		for _, code := range v.exits {
			write("  ", pad(present.Digits(code), 4), "  ", exitMeanings[code], "\n")
		}
	}
	if cmd.HasAvailableSubCommands() {
		write("\nholdfast COMMAND --help says more; holdfast help where explains --where.\n")
	}
}

func (p *program) writeVerbs(cmd *cobra.Command, title func(string), write func(...string)) {
	groups := cmd.Groups()
	if len(groups) == 0 {
		groups = []*cobra.Group{{Title: "Commands"}}
	}
	commands := slices.Clone(cmd.Commands())
	if !cmd.HasParent() {
		slices.SortStableFunc(commands, func(a, b *cobra.Command) int { return cmp.Compare(rank(a), rank(b)) })
	}
	for _, g := range groups {
		title(g.Title)
		for _, c := range commands {
			if c.GroupID == g.ID && c.IsAvailableCommand() {
				write("  ", pad(c.Name(), 12), c.Short, "\n")
			}
		}
	}
}

// rank puts the verbs in the order in which one needs them; the rest follows by
// name.
func rank(c *cobra.Command) int {
	order := []string{
		"triage", "queue", "show", "explain", "logs",
		"hold", "release", "try", "requeue", "expire", "delete", "restore", "undo",
		"plan", "audit", "recover",
	}
	if i := slices.Index(order, c.Name()); i >= 0 {
		return i
	}
	return len(order)
}

// whereTopic documents the expressions of --where. It is a topic of its own:
// forty fields would bury the flags.
func whereTopic() *cobra.Command {
	var out strings.Builder
	out.WriteString("--where takes an expression that is true for the messages that are meant. It is\n" +
		"written in the language of expr-lang.org, with the operators == != < > <= >=\n" +
		"&& || not in contains startsWith endsWith matches (a regular expression).\n" +
		"Inside any(recipients, ...) a field of the recipient begins with a dot.\n\nExamples\n" +
		"  --where 'size > bytes(\"5M\") && age < duration(\"1h\")'\n" +
		"  --where 'any(recipients, .domain endsWith \".example\" && .status == \"4.7.0\")'\n" +
		"  --where '\"dns\" in causes && not (sender_domain in [\"example.org\", \"\"])'\n\nFields\n")
	for _, f := range plan.WhereFields() {
		writeTopic(&out, f.Name, f.Doc+" ("+f.Type+")")
	}
	out.WriteString("\nFunctions\n")
	for _, f := range plan.WhereFunctions() {
		writeTopic(&out, f.Type, f.Doc)
	}
	return &cobra.Command{Use: "where", Short: "the expressions of --where", Long: out.String()}
}

// writeTopic writes a name and what it means beside it.
func writeTopic(out *strings.Builder, name, doc string) {
	const indent = 28
	for _, line := range wrap(doc, 80-indent) {
		out.WriteString("  " + pad(name, indent-4) + "  " + line + "\n")
		name = ""
	}
}

// wrap breaks a text into lines of at most width columns.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-len(s)))
}
