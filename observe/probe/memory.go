package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/durable"
	"holdfast/observe"
	"holdfast/postfix"
)

// A provider must not come to see a host in trouble as one that knocks without
// sending: whoever looks, and however often, one server meets one connection a
// minute.
const (
	memoryFresh = time.Minute
	// memoryAlone is how long a server is left in peace whose answer asked for it.
	memoryAlone = 10 * time.Minute
	memoryLife  = time.Hour
	memoryRoom  = 4096
	// memoryText bounds what is kept of a server's words.
	memoryText   = 500
	memorySchema = "holdfast.probe-memory/1"
	// memoryBytes is above what a full memory takes; a longer file is not ours.
	memoryBytes = 16 << 20
	// memoryPatience is how long another look may sit on the lock.
	memoryPatience = 2 * time.Second
)

// memory is what all looks of this host know of connections to mail servers,
// in one file that changes under a lock. The zero value remembers nothing and
// permits nothing.
type memory struct{ dir string }

// memoryFile is the file.
type memoryFile struct {
	Schema  string                        `json:"schema"`
	Servers map[netip.AddrPort]remembered `json:"servers"`
}

// remembered is one server. Without a Result somebody began to ask it at that
// time, and either still does or never came to an end.
type remembered struct {
	At time.Time `json:"at"`
	// From is the address that was bound to: what one address meets, another
	// may not.
	From   string        `json:"from,omitempty"`
	Result *memoryResult `json:"result,omitempty"`
}

type memoryResult struct {
	Stage   string        `json:"stage"`
	Failed  bool          `json:"failed,omitempty"`
	Text    string        `json:"text,omitempty"`
	Cause   postfix.Cause `json:"cause,omitempty"`
	Banner  string        `json:"banner,omitempty"`
	TLS     string        `json:"tls,omitempty"`
	Latency time.Duration `json:"latency_ns,omitempty"`
}

// asksForPeace says whether a failure is one that another connection makes worse.
func asksForPeace(c postfix.Cause) bool {
	return c == postfix.RemoteThrottling || c == postfix.Greylisting || c == postfix.Reputation
}

// claim takes the servers that may be connected to now, and notes on disk that
// they are being asked before it returns. For each of the others it returns
// what is remembered, or why it is not asked. After an error none may be asked.
func (m memory) claim(ctx context.Context, now time.Time, wanted map[netip.AddrPort]string) (map[netip.AddrPort]observe.Reach, []observe.Gap, error) {
	known := make(map[netip.AddrPort]observe.Reach)
	var gaps []observe.Gap
	err := m.change(ctx, now, func(f *memoryFile, damage error) {
		if damage != nil {
			gaps = append(gaps, observe.Gap{Source: "egress", Object: m.path(), Text: fmt.Sprintf("what earlier looks have learnt is lost: %v", damage)})
		}
		for server, from := range wanted {
			if old, ok := f.Servers[server]; ok {
				if reach, stands := old.answer(now, from); stands {
					known[server] = reach
					continue
				}
			}
			f.Servers[server] = remembered{At: now.UTC(), From: from}
		}
	})
	return known, gaps, err
}

// answer returns what is remembered of a server where that still stands.
func (r remembered) answer(now time.Time, from string) (observe.Reach, bool) {
	age := now.Sub(r.At)
	fresh := age < memoryFresh
	alone := r.Result != nil && r.Result.Failed && asksForPeace(r.Result.Cause) && age < memoryAlone
	if !fresh && !alone {
		return observe.Reach{}, false
	}
	reach := observe.Reach{At: r.At}
	ago := max(age, 0).Round(time.Second)
	if r.Result == nil || r.From != from {
		reach.Refused = fmt.Sprintf("it was asked %v ago by another look, whose answer does not serve here; once a minute is enough", ago)
		return reach, true
	}
	reach.Stage, reach.Failed, reach.Text, reach.Cause = r.Result.Stage, r.Result.Failed, r.Result.Text, r.Result.Cause
	reach.Banner, reach.TLS, reach.Latency = r.Result.Banner, r.Result.TLS, r.Result.Latency
	if !fresh {
		reach.Refused = fmt.Sprintf("its answer %v ago was about the pace or the reputation of this host", ago)
	}
	return reach, true
}

// settle notes what the claimed servers have answered.
func (m memory) settle(ctx context.Context, now time.Time, results map[netip.AddrPort]observe.Reach) error {
	return m.change(ctx, now, func(f *memoryFile, _ error) {
		for server, r := range results {
			entry, ok := f.Servers[server]
			if !ok {
				continue // the file was lost meanwhile
			}
			entry.Result = &memoryResult{
				Stage: r.Stage, Failed: r.Failed, Text: bounded(r.Text, memoryText), Cause: r.Cause,
				Banner: bounded(r.Banner, memoryText), TLS: r.TLS, Latency: r.Latency,
			}
			f.Servers[server] = entry
		}
	})
}

func (m memory) path() string { return filepath.Join(m.dir, "egress.json") }

// change reads the file, lets edit have it and writes it, under the lock. A
// file that cannot be understood is begun anew, and edit is told.
func (m memory) change(ctx context.Context, now time.Time, edit func(f *memoryFile, damage error)) (err error) {
	if m.dir == "" {
		return errors.New("no directory is given in which to remember it")
	}
	ctx, cancel := context.WithTimeout(ctx, memoryPatience)
	defer cancel()
	lock, err := durable.AcquireLock(ctx, filepath.Join(m.dir, "egress.lock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if err := durable.Sweep(m.dir, memoryLife); err != nil {
		return err
	}
	f, damage, err := m.read()
	if err != nil {
		return err
	}
	edit(&f, damage)
	f.forget(now)
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("word what is remembered: %w", err)
	}
	return durable.Replace(m.path(), append(text, '\n'), 0o600)
}

// read reads the file. What is wrong with its content is damage; what is wrong
// with reading it, an error.
func (m memory) read() (f memoryFile, damage, err error) {
	empty := memoryFile{Schema: memorySchema, Servers: make(map[netip.AddrPort]remembered)}
	file, err := os.OpenFile(m.path(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil, nil
	}
	if err != nil {
		return empty, nil, fmt.Errorf("read what earlier looks have learnt: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, memoryBytes+1))
	switch {
	case err != nil:
		return empty, nil, fmt.Errorf("read what earlier looks have learnt: %w", err)
	case len(text) > memoryBytes:
		return empty, errors.New("the file is too long"), nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	switch err := d.Decode(&f); {
	case err != nil:
		return empty, err, nil
	case f.Schema != memorySchema:
		return empty, fmt.Errorf("its schema is %q", f.Schema), nil
	case f.Servers == nil:
		return empty, errors.New("it lists no servers"), nil
	}
	return f, nil, nil
}

// forget drops what is old, what a clock that was set back left in the future,
// and the oldest where there is too much.
func (f *memoryFile) forget(now time.Time) {
	var kept []netip.AddrPort
	for server, r := range f.Servers {
		if age := now.Sub(r.At); age >= memoryLife || age < -memoryFresh {
			delete(f.Servers, server)
			continue
		}
		kept = append(kept, server)
	}
	if len(kept) <= memoryRoom {
		return
	}
	slices.SortFunc(kept, func(a, b netip.AddrPort) int { return f.Servers[a].At.Compare(f.Servers[b].At) })
	for _, server := range kept[:len(kept)-memoryRoom] {
		delete(f.Servers, server)
	}
}

// bounded cuts a text that a stranger wrote.
func bounded(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[:limit-3] + "..."
}
