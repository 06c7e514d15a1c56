package bench

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The verbs that change mail, beside bare postsuper with the same queue IDs.
// Both move or remove the same files; Holdfast also plans, records, compares,
// copies to the vault and looks again.

// idsOf lists messages of a queue, the same ones each time.
func idsOf(b *testing.B, c *Corpus, queue string) []string {
	b.Helper()
	var ids []string
	err := filepath.WalkDir(filepath.Join(c.Private.Instance().QueueDir, queue), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			ids = append(ids, d.Name())
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

// changing prepares a change of messages by Holdfast, with a record of its own.
func changing(b *testing.B, verb string) func(context.Context, *Corpus, []string) *exec.Cmd {
	b.Helper()
	return func(ctx context.Context, c *Corpus, ids []string) *exec.Cmd {
		state, err := os.MkdirTemp(filepath.Dir(filepath.Dir(c.Private.ConfigDir)), "state-")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(state) })
		if err := os.Chmod(state, 0o711); err != nil {
			b.Fatal(err)
		}
		return exec.CommandContext(ctx, product(), "-c", c.Private.ConfigDir, "--state-dir", state,
			verb, "-", "--yes", "--expect", strconv.Itoa(len(ids)), "--reason", "bench", "-q")
	}
}

// bare prepares the same by postsuper.
func bare(option, queue string) func(context.Context, *Corpus, []string) *exec.Cmd {
	return func(ctx context.Context, c *Corpus, _ []string) *exec.Cmd {
		return c.Private.Command(ctx, "postsuper", option, "-", queue)
	}
}

// timed runs a command with queue IDs on its standard input.
func timed(b *testing.B, cmd *exec.Cmd, ids []string) time.Duration {
	b.Helper()
	cmd.Stdin = strings.NewReader(strings.Join(ids, "\n") + "\n")
	var said strings.Builder
	cmd.Stderr = &said
	began := time.Now()
	if err := cmd.Run(); err != nil {
		text := said.String()
		b.Fatalf("%v\n%s", err, text[:min(len(text), 2000)])
	}
	return time.Since(began)
}

// benchHold measures a hold of n messages, which are let go again outside of
// what is measured.
func benchHold(b *testing.B, part int, with func(context.Context, *Corpus, []string) *exec.Cmd) {
	c := corpora(b).full
	ids := idsOf(b, c, "deferred")
	ids = ids[:len(ids)/part]
	var spent time.Duration
	for b.Loop() {
		spent += timed(b, with(b.Context(), c, ids), ids)
		if n := len(idsOf(b, c, "hold")); n < len(ids) {
			b.Fatalf("%d messages are on hold, want %d", n, len(ids))
		}
		timed(b, c.Private.Command(b.Context(), "postsuper", "-H", "-", "hold"), ids)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/op")
}

func BenchmarkHold(b *testing.B)               { benchHold(b, 1, changing(b, "hold")) }
func BenchmarkHoldPostsuper(b *testing.B)      { benchHold(b, 1, bare("-h", "deferred")) }
func BenchmarkHoldTenth(b *testing.B)          { benchHold(b, 10, changing(b, "hold")) }
func BenchmarkHoldTenthPostsuper(b *testing.B) { benchHold(b, 10, bare("-h", "deferred")) }

// benchDelete measures a deletion of a tenth of the messages, from a queue that
// is forged for it.
func benchDelete(b *testing.B, with func(context.Context, *Corpus, []string) *exec.Cmd) {
	n := corpora(b).full.Messages / 10
	var spent time.Duration
	for round := 0; b.Loop(); round++ {
		dir, err := temporary()
		if err != nil {
			b.Fatal(err)
		}
		c, err := Open(filepath.Join(dir, fmt.Sprint("round", round)), n)
		if err != nil {
			b.Fatal(err)
		}
		ids := idsOf(b, c, "deferred")
		spent += timed(b, with(b.Context(), c, ids), ids)
		if left := len(idsOf(b, c, "deferred")) + len(idsOf(b, c, "hold")); left > 0 {
			b.Fatalf("%d messages are left", left)
		}
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/op")
}

func BenchmarkDelete(b *testing.B)          { benchDelete(b, changing(b, "delete")) }
func BenchmarkDeletePostsuper(b *testing.B) { benchDelete(b, bare("-d", "deferred")) }
