package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"holdfast/observe"
)

// askPressure reads what the kernel counts of the host's shortages. A kernel
// without a part of it (pressure needs CONFIG_PSI) is no gap but a -1.
func askPressure(ctx context.Context, proc procfs) (observe.Pressure, []observe.Gap) {
	p := observe.Pressure{Known: true, CPU: -1, Memory: -1, IO: -1, IOWait: -1}
	var gaps []observe.Gap
	note := func(object string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			gaps = append(gaps, observe.Gap{Source: "pressure", Object: object, Text: err.Error()})
		}
	}
	for name, to := range map[string]*float64{"cpu": &p.CPU, "memory": &p.Memory, "io": &p.IO} {
		text, err := proc.read("pressure/" + name)
		if err == nil {
			*to, err = parsePressure(text)
		}
		// EOPNOTSUPP: the kernel was booted with psi=0.
		if err != nil && !strings.Contains(err.Error(), "not supported") {
			note("/proc/pressure/"+name, err)
		}
	}
	text, err := proc.read("stat")
	if err == nil {
		p.IOWait, err = parseIOWait(text)
	}
	note("/proc/stat", err)
	if text, err = proc.read("loadavg"); err == nil {
		_, err = fmt.Sscan(text, &p.Load)
	}
	note("/proc/loadavg", err)
	if text, err = proc.read("net/dev"); err == nil {
		p.NetErrors = parseNetErrors(text)
	}
	note("/proc/net/dev", err)
	note("/proc/net/tcp", proc.ports(ctx, &p))
	return p, gaps
}

// parsePressure reads "some avg10=0.12 avg60=..." and returns the first figure.
func parsePressure(text string) (float64, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "some" {
			continue
		}
		value, ok := strings.CutPrefix(f[1], "avg10=")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			return n, nil
		}
	}
	return -1, errors.New("unexpected form")
}

// parseIOWait returns the fifth figure of the line "cpu" as a share of all:
// user, nice, system, idle, iowait, irq, softirq, steal. What follows them is
// counted in user and nice already.
func parseIOWait(text string) (float64, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] != "cpu" {
			continue
		}
		var sum, wait float64
		for i, word := range f[1:min(len(f), 9)] {
			n, err := strconv.ParseFloat(word, 64)
			if err != nil {
				return -1, fmt.Errorf("unexpected figure %q", word)
			}
			sum += n
			if i == 4 {
				wait = n
			}
		}
		if sum > 0 {
			return 100 * wait / sum, nil
		}
	}
	return -1, errors.New("unexpected form")
}

// parseNetErrors adds errors and drops, received and sent, of all interfaces
// but the loopback.
func parseNetErrors(text string) int64 {
	var sum int64
	for line := range strings.Lines(text) {
		name, figures, ok := strings.Cut(line, ":")
		f := strings.Fields(figures)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 12 {
			continue
		}
		for _, i := range []int{2, 3, 10, 11} {
			if n, err := strconv.ParseInt(f[i], 10, 64); err == nil {
				sum += n
			}
		}
	}
	return sum
}

// ports counts the local ports that connections of ours could have, and those
// of them that are taken, closed connections in their last minute included.
func (p procfs) ports(ctx context.Context, to *observe.Pressure) error {
	text, err := p.read("sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return err
	}
	var first, last uint64
	if _, err := fmt.Sscan(text, &first, &last); err != nil || first > last || last > 65535 {
		return fmt.Errorf("unexpected port range %q", strings.TrimSpace(text))
	}
	taken := make(map[uint64]bool) // one port can serve many connections
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		if err := p.portsOf(ctx, name, taken); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	to.Ports, to.PortsUsed = int(last-first)+1, 0
	for port := range taken {
		if port >= first && port <= last {
			to.PortsUsed++
		}
	}
	return nil
}

// portsOf reads lines such as "  0: 0100007F:0019 00000000:0000 0A ..."; state
// 0A is a socket that listens.
func (p procfs) portsOf(ctx context.Context, name string, taken map[uint64]bool) error {
	f, err := os.Open(filepath.Join(string(p), name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() && ctx.Err() == nil {
		w := strings.Fields(lines.Text())
		if len(w) < 4 || w[3] == "0A" {
			continue
		}
		_, port, _ := strings.Cut(w[1], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil {
			taken[n] = true
		}
	}
	return errors.Join(lines.Err(), ctx.Err())
}
