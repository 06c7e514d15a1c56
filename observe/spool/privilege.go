package spool

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
)

// Drop turns a process that runs as root into one that runs as the owner of
// the spool, for good: real, effective and saved IDs, and no supplementary
// group. Root's capabilities go with it. It must be called before the first
// byte of mail is read; a process that is not root is left as it is.
//
// Postfix's postsuper does the same, for the same reason: what lies in the
// spool was written by strangers, and a mistake in reading it must not be
// root's mistake.
func Drop(owner string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := LookupOwner(owner)
	if err == nil && (uid == 0 || gid == 0) {
		err = errors.New("the owner of the spool is root")
	}
	if err == nil {
		err = become(uid, gid)
	}
	if err != nil {
		return &postfix.Error{
			Kind: postfix.CannotTell, Op: "give up root for", Object: fmt.Sprintf("%q", owner), Err: err,
			Hint: "mail_owner in main.cf names the account; it must exist and must not be root",
		}
	}
	return nil
}

func become(uid, gid int) error {
	// Package unix changes the groups of the calling thread alone; the others
	// would keep root's. Package syscall changes them in every thread.
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := unix.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("set group: %w", err)
	}
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("set user: %w", err)
	}
	// Believed only when it is seen: a kernel or a sandbox that ignores the
	// calls must not leave root reading mail.
	if err := unix.Setresuid(-1, 0, -1); err == nil {
		return errors.New("root could be taken back")
	}
	r, e, s := unix.Getresuid()
	if r != uid || e != uid || s != uid {
		return fmt.Errorf("the user is %d, %d, %d instead of %d", r, e, s, uid)
	}
	return nil
}
