// Package act carries out plans. There is one engine and one file a verb: the
// engine makes batches, records the intent, lets the verb act through the hand,
// looks at what became of each message, and records the outcome.
//
// Invariants: nothing is done without an intent that is on disk; an outcome is
// what was seen in the spool afterwards, never an exit status; whatever kills
// the program, each intent can be settled later by looking, and settling twice
// gives the same; a plan runs once.
//
// The package runs without rights, as the owner of the spool. What needs root
// goes through package act/hand, which checks every request against the intent.
package act

import (
	"context"
	"io"
	"os"

	"holdfast/act/hand"
	"holdfast/observe/maillog"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/vault"
)

// Hand is what the engine needs of the process that may change something. It
// is implemented by *hand.Client, and by tests that break in the middle.
type Hand interface {
	// Begin takes the lock under which everything else happens. The error is a
	// *postfix.Error of kind Refused where another process has it.
	Begin(ctx context.Context) error
	// Append writes one entry to the audit log and returns when it is on disk.
	// detail is encoded by record.Encode.
	Append(ctx context.Context, kind record.Kind, ref uint64, files []record.File, detail any) (record.Entry, error)
	// Adopt makes an open intent of an earlier hand this one's, so that it can
	// be acted upon and settled.
	Adopt(ctx context.Context, e record.Entry) error
	// Postsuper runs one operation on messages of an intent.
	Postsuper(ctx context.Context, intent uint64, op hand.Op, ids []postfix.QueueID) (hand.Printed, error)
	// Vault copies held messages, with their defer, bounce and trace logs, and
	// returns when the copies are on disk, read back and recorded. What could
	// not be copied is in the map, with the reason, and in no entry.
	Vault(ctx context.Context, intent uint64, copies []hand.Copy) (record.KeptBody, map[postfix.QueueID]string, error)
	// Reveal hands over the plain content of an item of the vault, read-only.
	// authority is the entry that allows it: a restore's intent, or Looked.
	Reveal(ctx context.Context, authority uint64, item string) (*os.File, error)
	// Purge removes items of an intent from the vault for good. Items says what
	// is there of items that are given as the audit log has them.
	Purge(ctx context.Context, intent uint64, items []string) error
	Items(ctx context.Context, items []record.Item) ([]vault.State, error)
	// Keep stores a file of state under its name.
	Keep(ctx context.Context, shelf hand.Shelf, name string, content io.Reader) error
	// Reserve makes sure that this many bytes of entries can be written even
	// when the disk is full, and fails where they cannot.
	Reserve(ctx context.Context, bytes int64) error
	// Checkpoint signs the head of the audit log and returns the signed note.
	Checkpoint(ctx context.Context) (string, error)
}

// Step is told of progress: after each batch, and of what a verb waits for.
type Step struct {
	Plan  *plan.Plan
	Batch int
	// Targets are how many there are, Settled how many have an outcome.
	Targets, Settled int
	// Outcomes are those of the batch that has ended, in the order of the
	// report.
	Outcomes []record.Outcome
	// Waiting is set while nothing is done until something is seen; hostile.
	Waiting string
	// Log is a line of the mail log about a message that is tried; hostile. It
	// is nil but for steps that tell of nothing else.
	Log *maillog.Line
}
