// Package present holds what every screen shares: the words, the tables, the
// measures, the grouping of a queue, and the escaping of what strangers wrote.
//
// Invariant: a text that came from mail, from a remote server or from a file
// reaches a screen only as a [Text], and [Words] are the only thing that a
// terminal is given. Words are made from constants of this program, from
// numbers, and from Text by escaping; the compiler refuses a plain string.
// JSON is written by [AppendJSON] alone, which escapes every string it meets,
// so that a listing is safe to look at even where it is not piped.
//
// The package decides nothing about mail and changes nothing. It groups and
// sorts what a Snapshot holds because each screen would otherwise count in its
// own way; the numbers of the terminal, of JSON and of a page must agree.
//
// # Bugs
//
// Columns are counted as go-runewidth counts them. Terminals disagree with it,
// and with each other, about emoji sequences and about characters of ambiguous
// width; a column can then be off by one or two. Letters of right-to-left
// scripts are shown as they are: a terminal that reorders them shows a line in
// an order that Holdfast did not write, but nothing is hidden by it.
package present
