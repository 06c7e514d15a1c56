package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"holdfast/observe"
	"holdfast/postfix"
)

// Transports asks the instance's transport_maps where it hands mail for the
// given domains, and returns the next hop of those that a table sends
// elsewhere. It asks for the domain, its parents (".example.com") and "*", as
// transport(5) orders them; entries for single addresses are not asked for. A
// table that cannot be asked is a gap: the next hop is then what it would be
// without it.
func Transports(ctx context.Context, in postfix.Instance, domains []string) (map[string]string, []observe.Gap) {
	if len(in.TransportMaps) == 0 || len(domains) == 0 {
		return nil, nil
	}
	keys, seen := []string{"*"}, map[string]bool{"*": true}
	for _, d := range domains {
		for _, k := range transportKeys(d) {
			if k != "" && !seen[k] && !strings.ContainsAny(k, "\r\n\x00") {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	found := make(map[string]string)
	var gaps []observe.Gap
	for _, table := range in.TransportMaps {
		answers, err := ask(ctx, in, table, keys)
		if err != nil {
			gaps = append(gaps, observe.Gap{Source: "transport_maps", Object: table, Text: err.Error(), Hint: "next hops are shown as they would be without this table"})
			continue
		}
		for k, v := range answers {
			if _, ok := found[k]; !ok { // the first table that answers counts
				found[k] = v
			}
		}
	}
	return resolveTransports(domains, found), gaps
}

// transportKeys returns the patterns that can match a domain, best first.
func transportKeys(domain string) []string {
	keys := []string{domain}
	for rest := domain; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 || domain == "" {
			return append(keys, "*")
		}
		if dot > 0 {
			keys = append(keys, rest[dot:])
		}
		rest = rest[dot+1:]
	}
}

func resolveTransports(domains []string, found map[string]string) map[string]string {
	routes := make(map[string]string)
	for _, d := range domains {
		for _, k := range transportKeys(d) {
			value, ok := found[k]
			if !ok {
				continue
			}
			// "transport:nexthop". Without a next hop the domain itself is one,
			// whatever relayhost says; ":" alone changes nothing.
			if transport, hop, _ := strings.Cut(value, ":"); hop != "" {
				routes[d] = hop
			} else if transport != "" {
				routes[d] = d
			}
			break
		}
	}
	return routes
}

// ask queries one table for many keys in one process.
func ask(ctx context.Context, in postfix.Instance, table string, keys []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	dir, err := commandDir(in.CommandDir)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postmap"), "-c", in.ConfigDir, "-q", "-", table)
	cmd.Stdin = strings.NewReader(strings.Join(keys, "\n") + "\n")
	out, err := run(ctx, cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, nil // nothing found, and nothing said
	}
	if err != nil {
		return nil, fmt.Errorf("ask with postmap -q: %w", err)
	}
	answers := make(map[string]string)
	for line := range bytes.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimRight(string(line), "\n"), "\t"); ok {
			answers[k] = v
		}
	}
	return answers, nil
}
