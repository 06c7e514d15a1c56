// Package postfix is the vocabulary that every other part of Holdfast speaks:
// instances, queues, queue IDs, messages, recipients, fingerprints, and the
// classes into which replies and deferral reasons fall.
//
// Invariant: a value of this package means the same in every stage, on every
// screen and in every file that Holdfast writes. The JSON of these types is a
// contract (docs/json.md); a field is added, never renamed or re-used.
//
// The package performs no I/O and knows no Postfix command. What it states
// about Postfix is taken from the source of Postfix 3.7 to 3.12 and was tried
// on 3.7.11; each such statement names the source file or the manual page.
package postfix

// Version gates are deliberately absent here. Readers accept what any release
// since 2.9 writes and leave zero what an older one does not know.
