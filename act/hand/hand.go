// Package hand is the part of Holdfast that stays root to change something: it
// writes the audit log and the vault, runs Postfix's commands, and compares
// inodes and digests. It is a child process behind a socket pair, and the only
// way in which anything is changed.
//
// Invariants: no act without its intent on disk, which the hand reads back
// itself; only the messages that the intent names, by the operation that its
// verb allows; a deletion only from hold, only of a file that is still the one
// that was vaulted. After a failed write of the audit log, or a failed fsync,
// nothing is done any more.
//
// It decodes nothing that came from mail: requests are numbers, names from a
// closed alphabet, and opaque bytes that it stores; and it has no network.
package hand

import (
	"time"

	"holdfast/postfix"
)

// Op is an operation of postsuper. Each is restricted to the queues that it
// may touch: the hand gives them, the caller cannot.
type Op uint8

// The operations.
const (
	HoldWaiting Op = iota + 1 // -h - deferred incoming
	HoldAny                   // -h - deferred incoming active
	Release                   // -H - hold
	Requeue                   // -r - hold
	Expire                    // -e - hold
	Delete                    // -d - hold
)

// Printed is what an operation said, as far as it names IDs of its request. It
// is evidence and no proof: the outcome is what is seen afterwards.
type Printed struct {
	// IDs were named in a line of their own.
	IDs []postfix.QueueID
	// Exit is the exit status, -1 where a signal ended it; Signal is that.
	Exit   int
	Signal string
	// TimedOut is set where it was ended because it took too long.
	TimedOut bool
	// Warnings are the first lines that were no such line: hostile text.
	Warnings []string
	Took     time.Duration
}

// Copy is a message on hold that is to be copied to the vault.
type Copy struct {
	ID    postfix.QueueID
	Inode uint64
	// Sum is the SHA-256, hexadecimal, of the whole file as the caller read and
	// compared it. What is copied must be that.
	Sum string
}

// Shelf is a directory of state in which the caller may keep files.
type Shelf uint8

// The shelves. File names are lower-case letters, digits, "-" and "."; of
// plans and targets they are the SHA-256 of the content, which is checked.
const (
	Plans Shelf = iota + 1
	Targets
	Snapshots
	Ledger
)
