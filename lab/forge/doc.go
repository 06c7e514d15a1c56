// Package forge writes Postfix queue files and their defer and bounce logs
// straight into a spool directory, byte for byte in the layout that cleanup(8)
// and bounce(8) leave behind: a hundred thousand jammed messages in seconds,
// and every odd shape that a live relay shows only once a year. It also writes
// mail logs of any size, with an account of what they say.
//
// Invariant: what it writes without being asked for damage is a complete queue
// file that postcat, showq and qmgr of Postfix 3.x accept; the tests of this
// package ask those programs. A short queue ID carries the inode of its file,
// the mtime is the next attempt, and the mode bits are set last, as in
// global/mail_stream.c.
//
// It never writes into a spool that a Postfix is using for real mail: the
// callers are tests, benchmarks and the lab.
//
// Bugs: the DSN envelope values (ENVID, RET) and VERP are not written, and a
// milter's replaced body is not imitated, so fields 1 and 5 of the SIZE record
// are always equal.
package forge
