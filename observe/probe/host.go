package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/observe"
	"holdfast/observe/opener"
	"holdfast/postfix"
)

// AskOptions say with what the surroundings are asked.
type AskOptions struct {
	// Opener starts what takes root; nil where there was no root to keep.
	Opener *opener.Opener
	// MemoryDir holds what earlier connections have learnt; without it no mail
	// server is connected to.
	MemoryDir string
	// Deadline bounds the whole; 0 means seven seconds.
	Deadline time.Duration
}

const (
	// defaultDeadline lets a name server time out (3 s) and leaves a connection
	// after it longer than the 3 s that make its silence an answer. With the look
	// at a large queue before it, a triage still ends within ten seconds.
	defaultDeadline = 7 * time.Second
	// lastWords is what a part has, after its own context ended, to hand over
	// what it knows by then.
	lastWords = 300 * time.Millisecond
)

// Ask asks the surroundings of one instance, all parts side by side under one
// deadline. A part that is late is a gap and is not waited for: it may sit in a
// system call on a dead disk, from which nothing fetches it.
func Ask(ctx context.Context, in postfix.Instance, q observe.Questions, o AskOptions) *observe.Host {
	limit := o.Deadline
	if limit <= 0 {
		limit = defaultDeadline
	}
	// Settings tell what name servers Postfix asks, and those where servers
	// are; whether the manager is there depends on the master.
	return gather(ctx, limit, [][]part{
		{settingsPart(in), dnsPart(in, q), egressPart(in, q, o.MemoryDir)},
		{masterPart(in), managerPart(in)},
		{storagePart(in, q, o.Opener)},
		{pressurePart()},
	})
}

// A part is one question to the surroundings. It is given what the parts
// before it in its row have found, and returns how to note its own answer.
type part struct {
	name string
	ask  func(ctx context.Context, seen observe.Host) (note func(*observe.Host), gaps []observe.Gap)
}

// gather asks rows of parts, the rows side by side.
func gather(ctx context.Context, limit time.Duration, rows [][]part) *observe.Host {
	host := &observe.Host{At: time.Now()}
	patience, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	asking, stop := context.WithTimeout(ctx, max(limit-lastWords, limit/2))
	defer stop()
	type answer struct {
		name string
		note func(*observe.Host)
		gaps []observe.Gap
	}
	var missing []string
	for _, row := range rows {
		for _, p := range row {
			missing = append(missing, p.name)
		}
	}
	answers := make(chan answer, len(missing)) // room for all: nobody waits to be heard
	for _, row := range rows {
		go func() {
			var seen observe.Host
			for _, p := range row {
				note, gaps := p.ask(asking, seen)
				note(&seen)
				answers <- answer{p.name, note, gaps}
			}
		}()
	}
	for len(missing) > 0 {
		select {
		case a := <-answers:
			a.note(host)
			host.Gaps = append(host.Gaps, a.gaps...)
			missing = without(missing, a.name)
		case <-patience.Done():
			for _, name := range missing {
				host.Gaps = append(host.Gaps, late(patience, name, limit))
			}
			return host
		}
	}
	return host
}

func without(names []string, name string) []string {
	var rest []string
	for _, n := range names {
		if n != name {
			rest = append(rest, n)
		}
	}
	return rest
}

// late is the gap of a part that did not answer.
func late(ctx context.Context, name string, limit time.Duration) observe.Gap {
	if errors.Is(ctx.Err(), context.Canceled) {
		return observe.Gap{Source: name, Text: "interrupted before it answered"}
	}
	return observe.Gap{
		Source: name, Text: fmt.Sprintf("no answer within %v", limit),
		Hint: "ask again; what hangs every time hangs for Postfix too",
	}
}

func dnsPart(in postfix.Instance, q observe.Questions) part {
	return part{"dns", func(ctx context.Context, seen observe.Host) (func(*observe.Host), []observe.Gap) {
		dns, gaps := askDNS(ctx, in, seen.Settings, q)
		return func(h *observe.Host) { h.DNS = dns }, gaps
	}}
}

func egressPart(in postfix.Instance, q observe.Questions, memoryDir string) part {
	return part{"egress", func(ctx context.Context, seen observe.Host) (func(*observe.Host), []observe.Gap) {
		egress, gaps := askEgress(ctx, in, seen.Settings, seen.DNS, q, memoryDir)
		return func(h *observe.Host) { h.Egress = egress }, gaps
	}}
}

func settingsPart(in postfix.Instance) part {
	return part{"settings", func(ctx context.Context, _ observe.Host) (func(*observe.Host), []observe.Gap) {
		settings, gaps := askSettings(ctx, in)
		return func(h *observe.Host) { h.Settings = settings }, gaps
	}}
}

func masterPart(in postfix.Instance) part {
	return part{"master", func(ctx context.Context, _ observe.Host) (func(*observe.Host), []observe.Gap) {
		master, gaps := askMaster(ctx, procRoot, in)
		return func(h *observe.Host) { h.Master = master }, gaps
	}}
}

func managerPart(in postfix.Instance) part {
	return part{"queue manager", func(ctx context.Context, seen observe.Host) (func(*observe.Host), []observe.Gap) {
		manager, gaps := askManager(ctx, procRoot, in, seen.Master)
		return func(h *observe.Host) { h.Manager = manager }, gaps
	}}
}

func storagePart(in postfix.Instance, q observe.Questions, op *opener.Opener) part {
	return part{"storage", func(ctx context.Context, _ observe.Host) (func(*observe.Host), []observe.Gap) {
		storage, gaps := askStorage(ctx, procRoot, in, q.LogPath, op)
		return func(h *observe.Host) { h.Storage = storage }, gaps
	}}
}

func pressurePart() part {
	return part{"pressure", func(ctx context.Context, _ observe.Host) (func(*observe.Host), []observe.Gap) {
		pressure, gaps := askPressure(ctx, procRoot)
		return func(h *observe.Host) { h.Pressure = pressure }, gaps
	}}
}
