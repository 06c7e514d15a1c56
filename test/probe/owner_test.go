package probe

import (
	"fmt"
	"io/fs"
	"syscall"
)

// owner returns who a file belongs to.
func owner(st fs.FileInfo) (uid, gid int, err error) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("the owner of %q cannot be told", st.Name())
	}
	return int(sys.Uid), int(sys.Gid), nil
}
