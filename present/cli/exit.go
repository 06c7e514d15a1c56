package cli

import (
	"context"
	"errors"

	"holdfast/postfix"
	"holdfast/present"
)

// The exit codes. docs/exit-codes.md explains them to scripts; a test holds
// the two together.
const (
	exitDone              = 0
	exitFailed            = 1
	exitUsage             = 2
	exitNeedsConfirmation = 3
	exitRefused           = 4
	exitPartial           = 5
	exitCannotTell        = 6
	exitFindings          = 10
	exitInterrupted       = 130
)

// outcome is what an error means to a script: the exit code and the word that
// stands for it in JSON.
func outcome(err error) (code int, word string) {
	switch kindOf(err) {
	case postfix.Usage:
		return exitUsage, "usage"
	case postfix.NeedsConfirmation:
		return exitNeedsConfirmation, "needs-confirmation"
	case postfix.Refused:
		return exitRefused, "refused"
	case postfix.Partial:
		return exitPartial, "partial"
	case postfix.CannotTell:
		return exitCannotTell, "cannot-tell"
	case postfix.Interrupted:
		return exitInterrupted, "interrupted"
	}
	return exitFailed, "failed"
}

// kindOf finds the kind of an error. A cancelled context outranks it: what
// fails because the operator pressed Ctrl-C did not fail.
func kindOf(err error) postfix.Kind {
	if errors.Is(err, context.Canceled) {
		return postfix.Interrupted
	}
	var e *postfix.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return postfix.Failed
}

// fail reports an error, on stdout too where stdout is JSON, and returns the
// exit code.
func (s *Screen) fail(err error) int {
	code, _ := outcome(err)
	for _, one := range each(err) {
		s.failOne(one, code)
	}
	return code
}

// each takes errors apart that were joined: several instances can fail, each
// with a reason and a hint of its own.
func each(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, each(e)...)
	}
	return all
}

func (s *Screen) failOne(err error, code int) {
	_, word := outcome(err)
	var e *postfix.Error
	hint := ""
	if errors.As(err, &e) {
		hint = e.Hint
	}
	if s.json {
		// An error of the write itself is the one thing that cannot be said
		// on stdout; stderr has the failure in any case.
		_ = s.Record(&present.ErrorRecord{
			Envelope: present.Envelope{Schema: present.SchemaError},
			Kind:     word, Message: err.Error(), Hint: hint, ExitCode: code,
		})
	}
	s.say("holdfast: ", present.Hostile(err.Error()).Words(0))
	if hint != "" {
		s.say("hint: ", present.Hostile(hint).Words(2*present.LongestText))
	}
}
