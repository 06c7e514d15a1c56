package cli

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/plan"
	"holdfast/postfix"
)

// selectionFlags are the flags of the selection language. They come from
// package plan, so that the command line cannot know fewer or other ones.
func selectionFlags(sel *plan.Selector) *pflag.FlagSet {
	f := pflag.NewFlagSet("selection", pflag.ContinueOnError)
	for _, doc := range plan.Flags() {
		flag := f.VarPF(&condition{sel: sel, doc: doc}, doc.Name, "", doc.Doc)
		if doc.Value == "" {
			flag.NoOptDefVal = "true"
		}
	}
	return f
}

// condition is one flag of the selection.
type condition struct {
	sel *plan.Selector
	doc plan.FlagDoc
}

// String implements pflag.Value: there is no preset to show.
func (c *condition) String() string { return "" }

// Type implements pflag.Value: what stands for the value in the help text.
func (c *condition) Type() string {
	if c.doc.Value == "" {
		return "bool"
	}
	return c.doc.Value
}

// Set implements pflag.Value.
func (c *condition) Set(value string) error { return c.sel.Set(c.doc.Name, value) }

// completeSelection offers the words that flags of the selection can take.
func completeSelection(cmd *cobra.Command) error {
	queues := make([]string, 0, len(postfix.Queues()))
	for _, q := range postfix.Queues() {
		queues = append(queues, q.String())
	}
	causes := make([]string, 0, len(postfix.ReasonCauses()))
	for _, c := range postfix.ReasonCauses() {
		causes = append(causes, string(c))
	}
	for flag, words := range map[string][]string{"queue": queues, "cause": causes} {
		if err := completeWords(cmd, flag, words); err != nil {
			return err
		}
	}
	return nil
}

func completeWords[T ~string](cmd *cobra.Command, flag string, words []T) error {
	plain := make([]string, len(words))
	for i, w := range words {
		plain[i] = string(w)
	}
	return cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(plain, cobra.ShellCompDirectiveNoFileComp))
}

const (
	// longestIDLine bounds a line of IDs on stdin. The longest ID has some
	// twenty characters; what is longer is not a list of IDs.
	longestIDLine = 1024
	// mostIDs bounds the list: a queue of ten million is beyond any relay.
	mostIDs = 10_000_000
)

// addIDs adds the IDs that are arguments, or on stdin where the argument is
// "-". A list on stdin that is empty selects nothing: it must not turn into
// everything because the program in front of the pipe found nothing.
func addIDs(sel *plan.Selector, args []string, stdin io.Reader) error {
	for _, arg := range args {
		if arg != "-" {
			if err := sel.Set("id", arg); err != nil {
				return err
			}
			continue
		}
		if sel.IDs == nil {
			sel.IDs = []postfix.QueueID{}
		}
		if err := readIDs(sel, stdin); err != nil {
			return err
		}
	}
	return nil
}

func readIDs(sel *plan.Selector, stdin io.Reader) error {
	const hint = "write one queue ID a line"
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, longestIDLine)
	for n := 1; lines.Scan(); n++ {
		id := strings.TrimSpace(lines.Text())
		switch {
		case id == "":
			continue
		case len(sel.IDs) >= mostIDs:
			return usageError("select by something else than IDs", "stdin has more than %d IDs", mostIDs)
		case !postfix.ValidQueueID(id) || strings.EqualFold(id, "all"): // as --id
			return usageError(hint, "line %d of stdin is %s, not a queue ID", n, strconv.QuoteToASCII(id))
		}
		sel.IDs = append(sel.IDs, postfix.QueueID(id))
	}
	if err := lines.Err(); err != nil {
		return &postfix.Error{Kind: postfix.Usage, Op: "read IDs from", Object: "stdin", Err: err, Hint: hint}
	}
	return nil
}

// missing lists the IDs that were named and not met, in the order in which
// they were named.
func missing(named []postfix.QueueID, met []map[postfix.QueueID]bool) []postfix.QueueID {
	var out []postfix.QueueID
	for _, id := range named {
		found := slices.ContainsFunc(met, func(m map[postfix.QueueID]bool) bool { return m[id] })
		if !found && !slices.Contains(out[max(0, len(out)-mostNamed):], id) {
			out = append(out, id)
		}
	}
	return out
}

// mostNamed is how many missing IDs an error names.
const mostNamed = 5

// notThere is the error of so many IDs that were named, the first of which are
// given, and that are in no queue, or not in the vault.
func notThere(ids []postfix.QueueID, count int, place string, everySeen bool) *postfix.Error {
	e := &postfix.Error{
		Kind: postfix.Failed,
		Hint: "it may have been delivered, returned or deleted meanwhile: search the mail log for the ID",
	}
	names := make([]string, 0, mostNamed)
	for _, id := range ids[:min(len(ids), mostNamed)] {
		names = append(names, string(id))
	}
	list := strings.Join(names, ", ")
	if count > len(names) {
		list = fmt.Sprintf("%s and %d more", list, count-len(names))
	}
	where := "is"
	if count > 1 {
		where = "are"
	}
	if place == "vault" {
		where += " not in the vault"
		e.Hint = "holdfast vault list names what is"
	} else {
		where += " in no queue"
	}
	if !everySeen {
		e.Kind = postfix.CannotTell
		where += " that could be seen"
		e.Hint = "not every queue could be looked at; root and the mail owner can see them all"
	}
	e.Err = fmt.Errorf("%s %s", list, where)
	return e
}
