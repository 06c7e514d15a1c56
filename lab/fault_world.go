package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/lab/world"
)

// worldFaults change the peers of package world while they run. What a peer was before is in the fault's record, and
// the cure puts exactly that back.
func worldFaults() []FaultKind {
	kind := FaultParam{
		Name: "kind", Type: "choice", Default: world.KindProvider, Help: "kind of peer",
		Choices: []string{world.KindProvider, world.KindSmartHost, world.KindMilter, world.KindPolicy, world.KindFilter},
	}
	name := FaultParam{Name: "name", Type: "text", Required: true, Help: "name of the peer"}
	return []FaultKind{
		peerFault("world.down", "a peer closes its ports: connections are refused", []FaultParam{kind, name}, func(args) any {
			return map[string]bool{"down": true}
		}),
		peerFault("world.patch", "a peer behaves otherwise", []FaultParam{
			kind, name,
			{Name: "change", Type: "json", Required: true, Help: `fields to merge into its configuration, such as {"traffic":{"tarpit":"5s"}}`},
		}, func(a args) any {
			return json.RawMessage(a.Params["change"])
		}),
		dnsFault(),
	}
}

func peerFault(name, summary string, params []FaultParam, change func(args) any) FaultKind {
	path := func(a args) string { return a.Params["kind"] + "/" + url.PathEscape(a.Params["name"]) }
	return FaultKind{
		Name: name, Summary: summary, Cure: "puts the peer's configuration back as it was", Params: params,
		prepare: func(ctx context.Context, l *Lab, a args) (any, error) {
			var before any
			err := l.World().Do(ctx, http.MethodGet, path(a), nil, &before)
			return before, err
		},
		act: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
			return l.World().Patch(ctx, a.Params["kind"], a.Params["name"], change(a))
		},
		cure: func(ctx context.Context, l *Lab, a args, before json.RawMessage) error {
			return l.World().Do(ctx, http.MethodPut, path(a), before, nil)
		},
	}
}

// dnsFault touches the fault of one domain and no other, so that several can come and go in any order.
func dnsFault() FaultKind {
	kinds := []string{
		"slow", string(world.DNSServfail), string(world.DNSNXDomain), string(world.DNSRefused), string(world.DNSNoData),
		string(world.DNSDrop), string(world.DNSTruncate), string(world.DNSTruncateDead), string(world.DNSGarbage),
	}
	return FaultKind{
		Name: "world.dns", Summary: "the name server misbehaves for a domain and all below it", Cure: "puts back what held for the domain before",
		Params: []FaultParam{
			{Name: "domain", Type: "text", Default: ".", Help: "the domain; . is everything"},
			{Name: "kind", Type: "choice", Default: string(world.DNSServfail), Choices: kinds, Help: "what goes wrong; slow is right but late"},
			{Name: "delay", Type: "text", Help: "before each answer, such as 3s; divided by the time scale"},
			{Name: "types", Type: "text", Help: "record types, separated by commas; all unless set"},
			{Name: "probability", Type: "text", Help: "of a question to meet the fault, such as 0.3; always unless set"},
		},
		prepare: func(ctx context.Context, l *Lab, a args) (any, error) {
			if _, err := dnsFaultOf(a); err != nil {
				return nil, err
			}
			cfg, err := l.World().DNS(ctx)
			if i := slices.IndexFunc(cfg.Faults, func(f world.DNSFault) bool { return sameDomain(f.Domain, a.Params["domain"]) }); i >= 0 {
				return &cfg.Faults[i], err
			}
			return nil, err
		},
		act: func(ctx context.Context, l *Lab, a args, _ json.RawMessage) error {
			f, err := dnsFaultOf(a)
			if err != nil {
				return err
			}
			return l.World().PutFault(ctx, f)
		},
		cure: func(ctx context.Context, l *Lab, a args, raw json.RawMessage) error {
			before, err := undoAs[*world.DNSFault](raw)
			if err != nil {
				return err
			}
			if before != nil {
				return l.World().PutFault(ctx, *before)
			}
			cfg, err := l.World().DNS(ctx)
			if err != nil || !slices.ContainsFunc(cfg.Faults, func(f world.DNSFault) bool { return sameDomain(f.Domain, a.Params["domain"]) }) {
				return err
			}
			return l.World().RemoveFault(ctx, a.Params["domain"])
		},
	}
}

func sameDomain(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

func dnsFaultOf(a args) (world.DNSFault, error) {
	f := world.DNSFault{Domain: a.Params["domain"], Kind: world.DNSFaultKind(a.Params["kind"])}
	if f.Kind == "slow" {
		f.Kind = ""
	}
	if text := a.Params["delay"]; text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			return f, fmt.Errorf("delay: %w", err)
		}
		f.Delay = world.Duration(d)
	}
	if text := a.Params["types"]; text != "" {
		f.Types = strings.Split(text, ",")
	}
	if text := a.Params["probability"]; text != "" {
		p, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return f, fmt.Errorf("probability: %w", err)
		}
		f.Probability = p
	}
	return f, nil
}
