// Package postcmd is planted: the one place that may change Postfix.
package postcmd

import "os/exec"

var _ = exec.Command
