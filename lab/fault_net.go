package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// networkFaults act with nftables, routes and sysctls. Each fault that filters has a table of its own, so that its cure
// is to delete the table and cannot disturb another.
func networkFaults() []FaultKind {
	mode := FaultParam{
		Name: "mode", Type: "choice", Default: "drop", Choices: []string{"drop", "reset", "icmp"},
		Help: "drop: silence, then a time-out; reset: connection refused; icmp: administratively prohibited",
	}
	at := FaultParam{
		Name: "at", Type: "choice", Default: "wire", Choices: []string{"wire", "host"},
		Help: "wire: beyond the relay, where it cannot look; host: in the relay's own firewall",
	}
	port := FaultParam{Name: "port", Type: "number", Default: "25", Help: "TCP port"}
	address := FaultParam{Name: "address", Type: "address", Help: "only to this address; everywhere unless set"}
	return []FaultKind{
		filterFault("net.block-smtp", "outgoing SMTP is filtered", []FaultParam{mode, port, address, at}, func(a args) string {
			return matchAddress(a) + " tcp dport " + a.Params["port"] + " " + verdict(a.Params["mode"])
		}),
		filterFault("net.block-dns", "outgoing DNS is filtered, UDP and TCP", []FaultParam{mode, at}, func(a args) string {
			if a.Params["mode"] == "reset" { // there is no reset for UDP; a closed port answers so
				return "udp dport 53 reject with icmpx type port-unreachable; tcp dport 53 reject with tcp reset"
			}
			return "meta l4proto { tcp, udp } th dport 53 " + verdict(a.Params["mode"])
		}),
		filterFault("net.stall", "connections fall silent after so many bytes", []FaultParam{
			port, address,
			{Name: "bytes", Type: "number", Default: "1500", Help: "bytes sent, with TCP and IP headers, before the silence"},
		}, func(a args) string {
			return matchAddress(a) + " tcp dport " + a.Params["port"] + " ct original bytes > " + a.Params["bytes"] + " drop"
		}),
		filterFault("net.cut", "connections are reset as soon as they are established", []FaultParam{port, address}, func(a args) string {
			return matchAddress(a) + " tcp dport " + a.Params["port"] + " ct state established reject with tcp reset"
		}),
		filterFault("net.mtu", "large packets vanish: a path MTU black hole", []FaultParam{
			address,
			{Name: "bytes", Type: "number", Default: "500", Help: "largest packet that passes"},
		}, func(a args) string {
			return matchAddress(a) + " meta length > " + a.Params["bytes"] + " drop"
		}),
		filterFault("net.loss", "packets are lost by chance", []FaultParam{
			address,
			{Name: "percent", Type: "number", Default: "20", Help: "packets lost of a hundred"},
		}, func(a args) string {
			return matchAddress(a) + " numgen random mod 100 < " + a.Params["percent"] + " drop"
		}),
		{
			Name: "net.route", Summary: "one address has no way to it", Cure: "deletes the route",
			Params: []FaultParam{
				{Name: "address", Type: "address", Required: true, Help: "the address"},
				{
					Name: "mode", Type: "choice", Default: "unreachable", Choices: []string{"unreachable", "blackhole", "prohibit"},
					Help: "unreachable: no route to host; blackhole: invalid argument; prohibit: permission denied",
				},
			},
			prepare: nothingToUndo,
			act: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
				_, err := l.must(ctx, "ip", "route", "add", a.Params["mode"], hostRoute(a), "metric", fmt.Sprint(a.id))
				return err
			},
			cure: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
				res, err := l.Exec(ctx, "ip", "route", "del", a.Params["mode"], hostRoute(a), "metric", fmt.Sprint(a.id))
				if err == nil && res.Code != 0 && !strings.Contains(res.Stderr, "No such process") {
					err = fmt.Errorf("delete route: %s", strings.TrimSpace(res.Stderr))
				}
				return err
			},
		},
		portsFault(),
		{
			Name: "net.link-down", Summary: "the cable is out", Cure: "puts it back and restores the routes that fell with it",
			prepare: nothingToUndo,
			act: func(ctx context.Context, l *Lab, _ args, _ json.RawMessage) error {
				// keep_addr_on_down: without it the kernel forgets the IPv6 addresses.
				if _, err := l.must(ctx, "sysctl", "-qw", "net.ipv6.conf."+relayLink+".keep_addr_on_down=1"); err != nil {
					return err
				}
				_, err := l.must(ctx, "ip", "link", "set", relayLink, "down")
				return err
			},
			cure: linkUp,
		},
	}
}

func linkUp(ctx context.Context, l *Lab, _ args, _ json.RawMessage) error {
	if _, err := l.must(ctx, "ip", "link", "set", relayLink, "up"); err != nil {
		return err
	}
	for _, r := range relayRoutes(l.spec) {
		if _, err := l.must(ctx, append([]string{"ip", r.family, "route", "replace"}, strings.Fields(r.text)...)...); err != nil {
			return err
		}
	}
	return nil
}

// filterFault makes a fault of one or more nftables rules (separated by semicolons) in a table of its own. On the wire
// they stand where packets enter the world; in the relay, where they leave it.
func filterFault(name, summary string, params []FaultParam, rules func(args) string) FaultKind {
	table := func(a args) string { return fmt.Sprintf("inet holdfast_fault_%d", a.id) }
	place := func(a args) (Side, string) {
		if a.Params["at"] == "host" {
			return RelaySide, "output"
		}
		return WorldSide, "input"
	}
	nft := func(ctx context.Context, l *Lab, side Side, script string) error {
		res, err := l.ExecWith(ctx, ExecOptions{Side: side, Stdin: strings.NewReader(script)}, "nft", "-f", "-")
		if err == nil && res.Code != 0 {
			err = fmt.Errorf("load nftables rules: %s", strings.TrimSpace(res.Stderr))
		}
		return err
	}
	return FaultKind{
		Name: name, Summary: summary, Cure: "deletes the filter", Params: params,
		prepare: nothingToUndo,
		act: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
			side, hook := place(a)
			script := fmt.Sprintf("table %s {\n chain fault {\n type filter hook %s priority 0; policy accept;\n %s\n }\n}\n",
				table(a), hook, strings.ReplaceAll(rules(a), ";", "\n"))
			return nft(ctx, l, side, script)
		},
		cure: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
			side, _ := place(a)
			// Adding before deleting makes the deletion of a table that was never made succeed.
			return nft(ctx, l, side, "add table "+table(a)+"\ndelete table "+table(a)+"\n")
		},
	}
}

func verdict(mode string) string {
	switch mode {
	case "reset":
		return "reject with tcp reset"
	case "icmp":
		return "reject with icmpx type admin-prohibited"
	}
	return "drop"
}

func matchAddress(a args) string {
	addr, err := netip.ParseAddr(a.Params["address"])
	if err != nil {
		return "" // not given; a malformed one was refused before
	}
	if addr.Is4() {
		return "ip daddr " + addr.String()
	}
	return "ip6 daddr " + addr.String()
}

func hostRoute(a args) string {
	if strings.Contains(a.Params["address"], ":") {
		return a.Params["address"] + "/128"
	}
	return a.Params["address"] + "/32"
}

// portsFault narrows the range of local ports, so that the relay has as many connections as ports and no more.
func portsFault() FaultKind {
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	write := func(ctx context.Context, l *Lab, value string) error {
		_, err := l.must(ctx, "sh", "-c", `echo "$1" > `+file, "sh", value)
		return err
	}
	return FaultKind{
		Name: "net.ports", Summary: "local ports run out", Cure: "restores the range",
		Params: []FaultParam{{Name: "count", Type: "number", Default: "2", Help: "ports that are left"}},
		prepare: func(ctx context.Context, l *Lab, a args) (any, error) {
			if n := a.number("count"); n < 1 || n > 20000 {
				return nil, fmt.Errorf("count %d is not between 1 and 20000", n)
			}
			res, err := l.must(ctx, "cat", file)
			return strings.TrimSpace(res.Stdout), err
		},
		act: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
			return write(ctx, l, fmt.Sprintf("40000 %d", 40000+a.number("count")-1))
		},
		cure: func(ctx context.Context, l *Lab, _ args, raw json.RawMessage) error {
			before, err := undoAs[string](raw)
			if err != nil {
				return err
			}
			return write(ctx, l, before)
		},
	}
}
