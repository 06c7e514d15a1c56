package operate

import (
	"math"
	"os"
	"os/user"
	"strconv"
	"strings"

	"holdfast/plan"
)

// whoRuns finds out on whose word this process acts. It is called while the
// process still is what it was started as. SUDO_USER is root's word about who
// called it; the kernel's loginuid is nobody's, and cannot be changed by sudo
// or su.
func whoRuns() plan.Who {
	who := plan.Who{UID: os.Getuid(), PID: os.Getpid()}
	who.User = accountOf(strconv.Itoa(who.UID))
	if who.UID == 0 {
		who.SudoUser = plan.Canonical(os.Getenv("SUDO_USER"))
	}
	// Not set, as in a service, is the largest number.
	if text, err := os.ReadFile("/proc/self/loginuid"); err == nil {
		if uid := strings.TrimSpace(string(text)); uid != strconv.FormatUint(math.MaxUint32, 10) {
			who.Login = accountOf(uid)
		}
	}
	for _, fd := range []string{"0", "1", "2"} {
		if name, err := os.Readlink("/proc/self/fd/" + fd); err == nil && (strings.HasPrefix(name, "/dev/pts/") || strings.HasPrefix(name, "/dev/tty")) {
			who.Terminal = plan.Canonical(name)
			break
		}
	}
	return who
}

// accountOf is the name of an account, its number where it has none.
func accountOf(uid string) string {
	u, err := user.LookupId(uid)
	if err != nil {
		return uid
	}
	return plan.Canonical(u.Username)
}
