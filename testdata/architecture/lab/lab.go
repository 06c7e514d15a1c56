// Package lab is planted: it breaks things for a living.
package lab

import (
	"net/http"
	"os"
	"os/exec"

	"holdfast/lab/world"
)

var _, _, _, _ = http.Get, os.Rename, exec.Command, world.Start
