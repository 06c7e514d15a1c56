package postfix

// Test files are outside the order, the fences and the sizes.
import (
	"os"
	"os/exec"

	"holdfast/lab"
)

var _, _, _ = os.Rename, exec.Command, lab.Up
