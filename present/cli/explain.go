package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/postfix"
	"holdfast/present"
)

func (p *program) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain TEXT... | -", Short: "what a reply or a deferral reason means, who has to act, and how",
		GroupID: groupLook,
		Long: "Says what an answer of a mail server means: its class, whether it is final, who\n" +
			"has to act and what to do. Paste what there is: a bare reply, the reason in\n" +
			"mailq, a line of the log, the diagnostic code of a bounce. With - the texts are\n" +
			"read from stdin, one a line. Nothing is looked at, so no rights are needed.",
		Example: "  holdfast explain '421 4.7.0 Try again later, closing connection'\n" +
			"  grep status=deferred mail.log | holdfast explain - -o json | jq -r .class\n" +
			"  holdfast queue --by text -o json | jq -r '.groups[].key' | holdfast explain -",
		RunE: p.run(p.explain),
	}
	p.describe(cmd, verb{exits: []int{exitDone, exitFailed, exitUsage, exitInterrupted}})
	return cmd
}

// explain runs the verb. Words that a shell took apart are put together again:
// who pastes a reply forgets the quotes.
func (p *program) explain(ctx context.Context, args []string) error {
	text := strings.Join(args, " ")
	switch {
	case text == "-":
		return p.explainLines(ctx)
	case strings.TrimSpace(text) == "":
		return usageError("holdfast explain '451 4.7.1 Try again later', or holdfast explain - for texts on stdin", "no text is given")
	}
	return p.explainOne(text)
}

// longestReply bounds a line on stdin: Postfix logs no line of a fraction of
// that.
const longestReply = 1 << 20

// explainLines answers each line of stdin, an empty one too in JSON, so that
// line n of the answers belongs to line n of the questions.
func (p *program) explainLines(ctx context.Context) error {
	lines := bufio.NewScanner(p.env.Stdin)
	lines.Buffer(nil, longestReply)
	for first := true; lines.Scan(); {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		line := strings.TrimSuffix(lines.Text(), "\r")
		if !p.screen.json {
			if strings.TrimSpace(line) == "" {
				continue
			}
			if !first {
				p.screen.Line()
			}
			first = false
		}
		if err := p.explainOne(line); err != nil {
			return err
		}
	}
	err := lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		return usageError("write one text a line", "a line on stdin is longer than %d bytes", longestReply)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read stdin: %w", err)
	}
	return nil
}

func (p *program) explainOne(given string) error {
	e := postfix.Explain("", given)
	if e.Class == postfix.NoCause {
		e.Class = postfix.UnknownCause
	}
	if p.screen.json {
		return p.screen.Record(&present.ExplanationRecord{
			Envelope: present.Envelope{Schema: present.SchemaExplanation}, Text: given, Reply: e.Reply, Status: e.Status,
			Class: e.Class, Permanent: e.Permanent, Meaning: e.Meaning, Who: e.Who, Next: e.Next, Step: e.Step,
			Source: e.Source, Provider: e.Provider,
		})
	}
	lasting := present.Say("for now: it may go through later").In(present.Warn)
	if e.Permanent {
		lasting = present.Say("for good: it is not tried again").In(present.Bad)
	}
	page := &page{screen: p.screen}
	page.line(text(string(e.Class)).In(present.Strong), present.Say(", "), lasting)
	page.labelled(present.Say("TEXT"), text(strings.TrimSpace(e.Reply)), 0)
	page.labelled(present.Say("MEANS"), text(e.Meaning), 0)
	page.labelled(present.Say("ACTS"), actor(e.Who), 0)
	page.labelled(present.Say("NEXT"), text(e.Next), 0)
	if len(e.Step) > 0 {
		page.command(present.Words{}, present.Shell(e.Step...))
	}
	source := text(e.Source)
	if e.Provider != "" {
		source = present.Say("%s: %s", text(e.Provider), source)
	}
	page.labelled(present.Say("SOURCE"), source, 0)
	page.write()
	return nil
}

func actor(who postfix.Actor) present.Words {
	switch who {
	case postfix.ActorUs:
		return present.Say("us: whoever runs this relay or sends through it")
	case postfix.ActorRemote:
		return present.Say("the postmaster of the server that answered")
	case postfix.ActorRecipient:
		return present.Say("the recipient, whose mailbox it is")
	case postfix.ActorNobody:
		return present.Say("nobody: wait")
	}
	return present.Say("not known")
}
