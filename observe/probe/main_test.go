package probe

import (
	"os"
	"testing"

	"holdfast/observe/opener"
)

// TestMain lets this program be the process that a storage trial runs in.
func TestMain(m *testing.M) {
	if opener.Serve(os.Args) {
		return
	}
	os.Exit(m.Run())
}
