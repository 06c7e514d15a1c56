package postfix

import "strings"

// Kind says what an operator, or a script, should conclude from an error. It
// decides the exit code; docs/exit-codes.md lists both.
type Kind uint8

const (
	// Failed is an ordinary failure.
	Failed Kind = iota
	// Usage is a command line that cannot be understood.
	Usage
	// NeedsConfirmation is a change that nobody confirmed.
	NeedsConfirmation
	// Refused is a change that policy, a guard or a lock forbids.
	Refused
	// Partial is work that was done in part.
	Partial
	// CannotTell is a question that what could be seen does not answer.
	CannotTell
	// Interrupted is work that the operator stopped.
	Interrupted
)

// Error is an error that an operator acts on. It reads "op object: err"; the
// hint, one sentence of what to do, stands apart from the message.
type Error struct {
	Kind   Kind
	Op     string // verb phrase: "read main.cf"
	Object string // what was acted upon, quoted by the author where it needs to be
	Err    error
	Hint   string
}

// Error implements error. The hint is not part of it: screens print it on a
// line of its own.
func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	head := strings.TrimSpace(e.Op + " " + e.Object)
	if head != "" {
		parts = append(parts, head)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
