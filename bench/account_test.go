package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/lab/forge"
)

// linesEach is how many lines of the log there are for each message that waits.
const linesEach = 10

// BenchmarkAccount accounts for a queue of which nothing left since a snapshot,
// over a log of mail that came and went meanwhile.
func BenchmarkAccount(b *testing.B) {
	c := corpora(b)
	dir, err := os.MkdirTemp(c.dir, "account-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the mail owner has a directory below it
		b.Fatal(err)
	}
	log := &Log{Path: filepath.Join(dir, filepath.Base(dir)+".log")}
	if err := os.WriteFile(log.Path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	config, err := c.full.WithLog(log)
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(config)
	command := func(network string, args ...string) *exec.Cmd {
		return exec.CommandContext(b.Context(), "unshare", append([]string{
			"-n", "sh", "-c", network, "sh", product(), "-c", config, "--state-dir", filepath.Join(dir, "state"),
		}, args...)...)
	}
	if out, err := command(cutOff, "snapshot", "save").CombinedOutput(); err != nil {
		b.Fatalf("snapshot: %v\n%s", err, out)
	}
	lines, err := appendLog(log.Path, c.full.Messages*linesEach)
	if err != nil {
		b.Fatal(err)
	}
	// A forged log has mail that goes without a line, so that the books do not
	// balance: exit 1, with all that is to be said.
	benchProcess(b, command(`ip link set lo up && { "$@" || [ $? -eq 1 ]; }`, "account", "-o", "json"), true)
	b.ReportMetric(float64(lines), "lines")
}

// appendLog adds about so many lines of mail that came since.
func appendLog(path string, lines int) (int64, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return 0, fmt.Errorf("add to log: %w", err)
	}
	const width = 190 // of a line, about, in bytes
	now := time.Now()
	totals, err := forge.MailLog(f, forge.MailLogOptions{Bytes: int64(lines) * width, Seed: 7, From: now, To: now.Add(time.Second), Domains: domains})
	return totals.Lines, errors.Join(err, f.Sync(), f.Close())
}
