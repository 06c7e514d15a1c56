// Package act is planted: its internal package is before it, and it starts
// nothing itself.
package act

import (
	run "os/exec" // want "processes: imports os/exec"

	"holdfast/act/internal/postcmd"
)

var _, _ = run.Command, postcmd.Hold
