package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

const (
	// wide is the number of messages above which a plan is not confirmed by
	// one key: the count is typed back, or given with --expect.
	wide = 1000
	// longestAnswer bounds a line that is typed.
	longestAnswer = 1024
)

// asks reports whether there is somebody to ask.
func (p *program) asks() bool { return p.env.Asks && !p.screen.json }

// ask puts a question on stderr and reads one line. It may be interrupted: a
// read of a terminal cannot, so it is left behind.
func (p *program) ask(ctx context.Context, question present.Words) (string, error) {
	_ = p.screen.Flush() // its error is kept and reported at the end
	if _, err := io.WriteString(p.screen.talk, question.String()+" "); err != nil {
		return "", fmt.Errorf("ask: %w", err)
	}
	if p.answers == nil {
		// Kept between questions: it may have read the next answer already.
		p.answers = bufio.NewReaderSize(p.env.Stdin, longestAnswer)
	}
	type reply struct {
		line string
		err  error
	}
	replies := make(chan reply, 1)
	go func() {
		line, err := p.answers.ReadSlice('\n')
		replies <- reply{string(line), err}
	}()
	select {
	case <-ctx.Done():
		_, _ = io.WriteString(p.screen.talk, "\n") // the cursor stands behind the question
		return "", ctx.Err()
	case r := <-replies:
		// The end of input is an answer without words, which confirms nothing.
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", fmt.Errorf("read answer: %w", r.err)
		}
		return strings.TrimSpace(r.line), nil
	}
}

// askReason asks why, where somebody can be asked. Elsewhere the plan is shown
// first, so that its reader learns more from the refusal than that a flag is
// missing.
func (p *program) askReason(ctx context.Context) (string, error) {
	if !p.asks() {
		return "", nil
	}
	reason, err := p.ask(ctx, present.Say("Why is this done?"))
	if err == nil && reason == "" {
		err = &postfix.Error{Kind: postfix.NeedsConfirmation, Err: errors.New("no reason was given, and nothing was changed"), Hint: "give it with --reason"}
	}
	return reason, err
}

// confirm returns nil where the plan may run: nothing bars it, it has a reason,
// it is of the size that the caller believes, and somebody has said yes. A plan
// that only waits for a second person goes on: it is stored, so that it can be
// approved, and then refused.
func (p *program) confirm(ctx context.Context, made *plan.Plan, o *changeOptions) error {
	unconfirmed := func(hint, format string, args ...any) error {
		return &postfix.Error{Kind: postfix.NeedsConfirmation, Err: fmt.Errorf(format+"; nothing was changed", args...), Hint: hint}
	}
	count := present.Plural(made.Count, "message", "messages")
	switch {
	case slices.ContainsFunc(made.Effects.Bars, func(b plan.Bar) bool { return b.Kind != "approval" }):
		return barred(made)
	case made.Reason == "":
		return unconfirmed("say why with --reason", "%s wants a reason", made.Verb)
	case o.expect != expectNotGiven && o.expect != made.Count:
		return unconfirmed("look at the plan, then give the number that it has",
			"--expect says %s and the plan has %s", present.Count(o.expect), count)
	case o.yes && made.Count > wide && o.expect == expectNotGiven:
		return unconfirmed(fmt.Sprintf("add --expect %d if that is what you mean", made.Count),
			"the plan has %s, and --yes alone is for up to %s", count, present.Count(wide))
	case o.yes:
		return nil
	case !p.asks():
		return unconfirmed("look at the plan, then add --yes", "there is no terminal to ask at and no --yes")
	}
	if made.Verb.Destructive() || made.Count > wide {
		answer, err := p.ask(ctx, present.Say("Type the number of messages to %s them:", text(string(made.Verb))))
		if err != nil {
			return err
		}
		if n, err := strconv.Atoi(strings.ReplaceAll(answer, ",", "")); err != nil || n != made.Count {
			return unconfirmed("", "that is not the number in the plan")
		}
		return nil
	}
	answer, err := p.ask(ctx, present.Say("%s %s? [y/N]", text(string(made.Verb)), count))
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return unconfirmed("", "not confirmed")
	}
	return nil
}

// barred is the refusal of a plan that may not run as it stands.
func barred(made *plan.Plan) error {
	bars := made.Effects.Bars
	e := &postfix.Error{Kind: postfix.Refused, Op: string(made.Verb), Err: errors.New(bars[0].Text), Hint: bars[0].Lift}
	if more := len(bars) - 1; more > 0 {
		e.Err = fmt.Errorf("%w (and %s)", e.Err, present.Plural(more, "more reason above", "more reasons above"))
	}
	return e
}
