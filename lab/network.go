package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// The network of a lab: two namespaces and one cable. Postfix lives in "relay", its peers in "world".
//
//	192.0.2.1 … 192.0.2.31      the relay: instance i has 192.0.2.(1+i), and 127.0.0.(1+i)
//	192.0.2.32 … 192.0.2.254    the world: the resolver (192.0.2.53), customers that send through the relay
//	198.51.100.0/24             the world: providers
//	203.0.113.0/24              the world: providers
//	2001:db8::1 … ::1f          the relay; the rest of 2001:db8::/32 the world
//
// The world's ranges are local as a whole (the kernel calls it AnyIP): a provider can be added at an address while the
// lab runs, and an address without a listener refuses, as a host without a mail server does. An address that must
// swallow packets instead is made by a fault.
const (
	worldNet        = "/run/netns/world" // inside the lab; /run is private
	relayLink       = "relay0"
	worldLink       = "world0"
	defaultResolver = "192.0.2.53"
	customerAddress = "192.0.2.100" // where mail injected from the world comes from
	maxInstances    = 31
)

// relayNetworks may use the relay: itself and its customers.
const relayNetworks = "127.0.0.0/8 [::1]/128 192.0.2.0/24 [2001:db8::]/64"

func wireNetwork(s spec) error {
	if err := tool("ip", "netns", "add", "world"); err != nil {
		return err
	}
	relay := []string{
		"link set lo up",
		"link add " + relayLink + " type veth peer name " + worldLink + " netns world",
		"link set " + relayLink + " up",
	}
	// Routes to the relay's addresses are longer than the world's local ranges and so win, although both are in
	// table main; in table local the order of tables would decide and the world would swallow its own replies.
	world := []string{
		"link set lo up",
		"link set " + worldLink + " up",
		"addr add 192.0.2.254/32 dev " + worldLink,
		"addr add 2001:db8::fe/128 dev " + worldLink + " nodad",
		"route add local 192.0.2.0/24 dev lo table main src 192.0.2.254",
		"route add local 198.51.100.0/24 dev lo table main",
		"route add local 203.0.113.0/24 dev lo table main",
		"-6 route add local 2001:db8::/32 dev lo table main",
		"route add 192.0.2.0/27 dev " + worldLink + " src 192.0.2.254",
		"-6 route add 2001:db8::/123 dev " + worldLink,
	}
	for i, in := range s.Instances {
		relay = append(relay, "addr add "+in.Address+"/32 dev "+relayLink,
			fmt.Sprintf("addr add %s/128 dev %s nodad", in.address6(), relayLink))
		if i > 0 {
			relay = append(relay, "addr add "+in.loopback()+"/8 dev lo")
		}
	}
	for _, route := range relayRoutes(s) {
		relay = append(relay, route.family+" route add "+route.text)
	}
	if err := ipBatch("", relay); err != nil {
		return err
	}
	return ipBatch("world", world)
}

type route struct{ family, text string }

// relayRoutes is the relay's way out, next hop before what goes through it.
func relayRoutes(s spec) []route {
	first := s.Instances[0]
	return []route{
		{"-4", "192.0.2.254 dev " + relayLink + " src " + first.Address},
		{"-4", "default via 192.0.2.254 src " + first.Address},
		{"-6", "2001:db8::fe dev " + relayLink},
		{"-6", "default via 2001:db8::fe src " + first.address6()},
	}
}

// ipBatch runs ip(8) commands one after the other in a named network namespace, or in the caller's.
func ipBatch(netns string, lines []string) error {
	for _, line := range lines {
		argv := strings.Fields(line)
		if netns != "" {
			argv = append([]string{"-n", netns}, argv...)
		}
		if out, err := exec.Command("ip", argv...).CombinedOutput(); err != nil {
			return fmt.Errorf("run %q: %w: %s", "ip "+strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// joinNet moves the calling thread, which must be locked, into a network namespace.
func joinNet(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %q: %w", path, err)
	}
	return nil
}
