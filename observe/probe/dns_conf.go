package probe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxResolvers is MAXNS of resolv.h: the C library takes no more name servers.
const maxResolvers = 3

// resolvConf is what the C library takes from a resolv.conf.
type resolvConf struct {
	path    string
	missing bool
	// servers are as the file names them, in its order. Without any, libc asks
	// this host.
	servers []string
	// overTCP is "options use-vc": never UDP.
	overTCP bool
	// ignored are lines that name a server in a way that libc does not take.
	ignored []string
}

// readResolvConf reads a resolv.conf. A missing one is no error: libc then
// asks the name server of this host, which in a jail is most often nobody.
func readResolvConf(path string) (resolvConf, error) {
	c := resolvConf{path: path, servers: []string{"127.0.0.1"}}
	// O_NONBLOCK: a pipe in the place of the file would hold the look for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		c.missing = true
		return c, nil
	}
	if err != nil {
		return resolvConf{}, fmt.Errorf("read the list of name servers: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return resolvConf{}, fmt.Errorf("read the list of name servers: %w", err)
	}
	c.parse(string(text))
	return c, nil
}

// parse follows res_init.c of glibc: a keyword begins its line and a space or
// tab ends it, what follows the address is ignored, and so is an address that
// cannot be read.
func (c *resolvConf) parse(text string) {
	var servers []string
	for line := range strings.Lines(text) {
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			continue
		}
		words := strings.Fields(line[end:])
		switch keyword := line[:end]; {
		case keyword == "nameserver" && len(words) > 0:
			if addr, err := netip.ParseAddr(words[0]); err != nil || addr.Is4() && addr.Zone() != "" {
				c.ignored = append(c.ignored, words[0])
			} else if len(servers) < maxResolvers {
				servers = append(servers, words[0])
			}
		case keyword == "options":
			// timeout and attempts are about patience, of which a probe has its
			// own; rotate spreads the load over the same servers; trust-ad
			// matters to DANE, which is not asked for here.
			for _, option := range words {
				c.overTCP = c.overTCP || option == "use-vc"
			}
		}
	}
	if len(servers) > 0 {
		c.servers = servers
	}
}
