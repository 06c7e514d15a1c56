// Package plan says which messages are meant, and later what is to happen to
// them. A Selector is that choice as data: it is written on a command line,
// kept in a sealed plan, sent to other relays, and asked of the vault, and it
// means the same everywhere.
//
// Invariants: the zero Selector selects nothing; a value that cannot be
// understood is refused and never ignored, for every condition that is dropped
// widens a selection; judging a message has no effect and takes time in
// proportion to the size of the message, whatever the expression.
//
// The package never looks at a queue and never changes one. It is given
// messages, one by one.
//
// # Diagnostics
//
// Whatever an operator got wrong is a *postfix.Error of kind Usage whose object
// is the flag with its value. A message that cannot be judged, because what the
// selection asks for could not be read, is one of kind CannotTell and concerns
// that message alone.
//
// # Bugs
//
// Letters are compared without regard to case, but not in normalised Unicode
// form: an "é" of two code points is not the "é" of one.
package plan
