// Package lab is a real Postfix with a world of its own, to be broken at will.
//
// A lab is Postfix as Debian packages it, with private configuration, spool, data and log, inside mount, PID, UTS, IPC
// and network namespaces that the lab makes. On the other end of a virtual cable, in a second network namespace, live
// the peers of package world: resolver, providers, milters, filters. Postfix's stock commands work inside without any
// option, since /etc, /var/spool, /var/lib and /var/log are the lab's. Several labs run side by side.
//
// # Who is who
//
// Every process of a lab is a copy of the program that started it, which is why such a program must call [Main] first.
//
//	starter    a test or the shell tool; holds the lifeline, a pipe
//	keeper     on the host, detached; owns the lab's lock and directory
//	PID 1      in the namespaces; sets them up, then only reaps
//	world      in the second network namespace
//	Postfix    master and its children, as on any host
//
// # Invariants
//
// The host's mail system, its configuration and its spool are never touched, nor its network: everything of the host
// that a lab could write to, except /tmp and the lab's own directory, is covered by a private mount before the first
// Postfix program runs.
//
// Nothing is left behind. When the starter dies, by whatever signal, its end of the lifeline closes and the keeper takes
// the lab down. When PID 1 dies, the kernel kills all that it began. When the keeper dies, the kernel kills PID 1; then
// only the directory remains, its lock no longer held, and the next Start or List of anybody sweeps it away.
//
// Truth about mail comes from three sources that know nothing of each other: the journal of what was injected, the
// ledger that each provider writes before it answers 250, and Postfix's own listing. See [Lab.Account].
//
// # What it never does
//
// It never skips: where a lab cannot be had the test fails and says what to install. It is never part of the product:
// only cmd/holdfast-lab and tests import it, because a fault injector must not exist on a mail server.
//
// # Diagnostics
//
// DIR/keeper.log holds what keeper, PID 1 and world said; /proc/INIT/root is the lab's file tree, with the mail log in
// var/log/mail.log. The commands "holdfast-lab list" and "status" show both.
//
// # Bugs
//
// CPU, memory and the clock are shared with the host. A spool on tmpfs or on an image is not visible outside except
// through /proc, as root. A file system frozen by a lab whose keeper was killed is thawed only by the next sweep.
package lab
