// Package operate is planted: a process without os/exec.
package operate

import (
	"syscall"

	sys "golang.org/x/sys/unix"
)

var (
	_ = syscall.ForkExec // want "processes: starts a process by syscall.ForkExec"
	_ = sys.Exec         // want "processes: starts a process by unix.Exec"
	_ = sys.Setresuid    // giving up privileges is allowed
)
