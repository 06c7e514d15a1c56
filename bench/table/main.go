// Command table reads the output of several rounds of the benchmarks and
// prints medians, and each ratio beside the bar that it is held to.
//
// Invariant: every figure of the table is in its input; a benchmark that is
// missing there is a line that says so, never a zero. A ratio that misses its
// bar is marked and is no failure: the machine may be busy.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	messages := flag.Int("messages", 0, "number of messages in the queue that was measured")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, *messages); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

// Units of the benchmarks' output.
const (
	nanoseconds = "ns/op"
	processor   = "cpu-ns/op"
	peakBytes   = "peak-bytes"
	rate        = "MB/s"
)

// figures are the measured values: benchmark → unit → one value a round.
type figures map[string]map[string][]float64

func run(in io.Reader, out io.Writer, messages int) error {
	all, err := parse(in)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("there is no benchmark in the input")
	}
	if messages <= 0 {
		return errors.New("say how many -messages the queue had")
	}
	all.times(out)
	all.ratios(out, messages)
	return nil
}

// parse reads lines like "BenchmarkFloor-2  1  498123456 ns/op  123 peak-bytes".
func parse(in io.Reader) (figures, error) {
	all := make(figures)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "Benchmark"), "-")
		if all[name] == nil {
			all[name] = make(map[string][]float64)
		}
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", lines.Text(), err)
			}
			all[name][fields[i+1]] = append(all[name][fields[i+1]], v)
		}
	}
	return all, lines.Err()
}

// median returns the middle value, false where nothing was measured.
func (f figures) median(name, unit string) (float64, bool) {
	values := slices.Sorted(slices.Values(f[name][unit]))
	n := len(values)
	switch {
	case n == 0:
		return 0, false
	case n%2 == 1:
		return values[n/2], true
	}
	return (values[n/2-1] + values[n/2]) / 2, true
}

// titles says in words what each benchmark does, in the order of the table.
func titles() [][2]string {
	return [][2]string{
		{"Floor", "open, read 4 kB, close all files (floor)"},
		{"FirstLook", "first look: queue, causes, counts"},
		{"SecondLook", "second look, nothing changed"},
		{"QueueByCause", "holdfast queue --by cause -o json"},
		{"QueueByCauseEmpty", "  the same on an empty queue"},
		{"Postqueue", "postqueue -j > /dev/null"},
		{"Qshape", "qshape deferred"},
		{"LogSummary", "holdfast logs summary -o json"},
		{"LogSummarySmall", "  of half the log"},
		{"LogSummaryGiant", "  of five times the log"},
		{"Pflogsumm", "pflogsumm > /dev/null"},
		{"PflogsummLeast", "  with all details switched off"},
		{"Triage", "holdfast triage, largest log of a day"},
		{"TriageFlood", "  all of the log in the last hour"},
		{"TriageDeaf", "  of a day, and the network drops all"},
		{"Account", "holdfast account, ten lines a message"},
		{"Hold", "holdfast hold of all, on record"},
		{"HoldPostsuper", "postsuper -h - deferred, the same IDs"},
		{"HoldTenth", "holdfast hold of a tenth"},
		{"HoldTenthPostsuper", "postsuper -h - deferred, the same IDs"},
		{"Delete", "holdfast delete of a tenth, with copies"},
		{"DeletePostsuper", "postsuper -d - deferred, the same IDs"},
	}
}

func (f figures) times(out io.Writer) {
	fmt.Fprintf(out, "%-44s %10s %10s %10s %10s %10s %10s\n", "", "median", "least", "most", "processor", "peak RSS", "read")
	known := make(map[string]bool)
	for _, t := range titles() {
		known[t[0]] = true
		middle, ok := f.median(t[0], nanoseconds)
		if !ok {
			fmt.Fprintf(out, "%-44s %10s\n", t[1], "not measured")
			continue
		}
		values := f[t[0]][nanoseconds]
		memory, cpu, read := "", "", ""
		if spent, ok := f.median(t[0], processor); ok {
			cpu = span(spent)
		}
		if peak, ok := f.median(t[0], peakBytes); ok {
			memory = fmt.Sprintf("%.1f MB", peak/1e6)
		}
		if speed, ok := f.median(t[0], rate); ok {
			read = fmt.Sprintf("%.0f MB/s", speed)
		}
		line := fmt.Sprintf("%-44s %10s %10s %10s %10s %10s %10s", t[1], span(middle), span(slices.Min(values)), span(slices.Max(values)), cpu, memory, read)
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if middle, ok := f.median(name, nanoseconds); ok && !known[name] {
			fmt.Fprintf(out, "%-44s %10s\n", name, span(middle))
		}
	}
}

func span(ns float64) string {
	d := time.Duration(ns)
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", ns/1e6)
	}
	return fmt.Sprintf("%.3f s", ns/1e9)
}

// ratio is one comparison with its bar.
type ratio struct {
	title      string
	over, unto string // benchmarks: time of over / time of unto
	most       float64
	least      float64
}

func (f figures) ratios(out io.Writer, messages int) {
	fmt.Fprintf(out, "\n%-44s %10s %10s %10s\n", "", "measured", "bar", "processor")
	for _, r := range []ratio{
		{title: "first look / floor", over: "FirstLook", unto: "Floor", most: 1.5},
		{title: "postqueue -j / first look", over: "Postqueue", unto: "FirstLook", least: 3},
		{title: "qshape / first look", over: "Qshape", unto: "FirstLook", least: 3},
		{title: "postqueue -j / second look", over: "Postqueue", unto: "SecondLook", least: 20},
		{title: "postqueue -j / holdfast queue", over: "Postqueue", unto: "QueueByCause", least: 3},
		{title: "qshape / holdfast queue", over: "Qshape", unto: "QueueByCause", least: 3},
		// Both read the same file, so this is the ratio of bytes a second.
		{title: "pflogsumm / holdfast logs summary", over: "Pflogsumm", unto: "LogSummary", least: 20},
		{title: "holdfast hold of all / postsuper", over: "Hold", unto: "HoldPostsuper", most: 1.5},
		{title: "holdfast hold of a tenth / postsuper", over: "HoldTenth", unto: "HoldTenthPostsuper", most: 1.5},
		{title: "holdfast delete / postsuper", over: "Delete", unto: "DeletePostsuper", most: 10},
	} {
		over, ok1 := f.median(r.over, nanoseconds)
		unto, ok2 := f.median(r.unto, nanoseconds)
		bar, met := fmt.Sprintf(">= %g", r.least), over/unto >= r.least
		if r.most > 0 {
			bar, met = fmt.Sprintf("<= %g", r.most), over/unto <= r.most
		}
		verdict(out, r.title, fmt.Sprintf("%.2f", over/unto), bar, f.processorRatio(r), ok1 && ok2, met)
	}
	full, ok1 := f.median("QueueByCause", peakBytes)
	empty, ok2 := f.median("QueueByCauseEmpty", peakBytes)
	growth := (full - empty) / float64(messages)
	verdict(out, "memory for each message", fmt.Sprintf("%.0f B", growth), "< 400 B", "", ok1 && ok2, growth < 400)
	f.triage(out)
	giant, ok := f.median("LogSummaryGiant", peakBytes)
	verdict(out, "memory for the largest log", fmt.Sprintf("%.1f MB", giant/1e6), "< 128 MB", "", ok, giant < 128e6)
}

// triage sets the times of triage beside what somebody with a jammed relay will
// wait for.
func (f figures) triage(out io.Writer) {
	const most = 10 * time.Second
	for _, t := range [][2]string{
		{"Triage", "triage"}, {"TriageFlood", "triage, all of the log in the last hour"}, {"TriageDeaf", "triage, and the network drops all"},
	} {
		spent, ok := f.median(t[0], nanoseconds)
		verdict(out, t[1], span(spent), "<= 10 s", "", ok, spent <= float64(most))
	}
}

// processorRatio is the same comparison by processor time, which says more
// where other programs want the processors too. It has no bar.
func (f figures) processorRatio(r ratio) string {
	over, ok1 := f.median(r.over, processor)
	unto, ok2 := f.median(r.unto, processor)
	if !ok1 || !ok2 || unto == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", over/unto)
}

func verdict(out io.Writer, title, measured, bar, cpu string, known, met bool) {
	mark := ""
	switch {
	case !known:
		measured = "unknown"
	case !met:
		mark = "missed"
	}
	fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("%-44s %10s %10s %10s  %s", title, measured, bar, cpu, mark), " "))
}
