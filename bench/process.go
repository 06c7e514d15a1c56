package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// MeasureEnv makes a program that calls MeasureMain run the command of its
// arguments and print what it cost.
const MeasureEnv = "HOLDFAST_BENCH_MEASURE"

// Cost is what a process took.
type Cost struct {
	Time time.Duration
	// CPU is the time of all its processes on a processor. On a busy machine
	// it is the steadier figure.
	CPU time.Duration
	// PeakRSS is the most memory that one process of it had at once, in bytes,
	// pages of its program file included. It is 0 where the command needs less
	// than the process that started it, for then it cannot be told.
	PeakRSS int64
}

// Measure runs a command in a small process of its own, which reports its
// cost. The detour makes the peak true: until it executes its program, a child
// counts the memory of its parent as its own (exec_mmap in the kernel), and
// the parent here holds whole snapshots.
func Measure(ctx context.Context, cmd *exec.Cmd) (Cost, error) {
	self, err := os.Executable()
	if err != nil {
		return Cost{}, fmt.Errorf("find own program: %w", err)
	}
	small := exec.CommandContext(ctx, self, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	small.Env = append(os.Environ(), MeasureEnv+"=1")
	small.SysProcAttr = cmd.SysProcAttr
	var stdout, stderr bytes.Buffer
	small.Stdout, small.Stderr = &stdout, &stderr
	if err := small.Run(); err != nil {
		return Cost{}, fmt.Errorf("measure %q: %w: %s", cmd.Args, err, strings.TrimSpace(stderr.String()))
	}
	var cost Cost
	if err := json.Unmarshal(stdout.Bytes(), &cost); err != nil {
		return Cost{}, fmt.Errorf("measure %q: %w", cmd.Args, err)
	}
	return cost, nil
}

// MeasureMain is the small process: it runs the command with its output thrown
// away and prints the cost as JSON.
func MeasureMain(argv []string) error {
	if len(argv) == 0 {
		return errors.New("measure: no command")
	}
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...) //nolint:gosec // the benchmark names it
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	cost := Cost{Time: time.Since(start)}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return errors.New("measure: the system reports no resource usage")
	}
	cost.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	own, err := ownPeak()
	if err != nil {
		return err
	}
	if peak := usage.Maxrss << 10; peak > own {
		cost.PeakRSS = peak
	}
	return json.NewEncoder(os.Stdout).Encode(cost)
}

// ownPeak is this process's own peak of memory in bytes.
func ownPeak() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read own memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil && n == 1 {
			return kb << 10, nil
		}
	}
	return 0, errors.New("read own memory: /proc/self/status has no VmHWM")
}
