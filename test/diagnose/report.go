package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"holdfast/postfix"
)

// report prints every case, what was missed, planted against named, and the bar.
func report(w io.Writer, results []Result) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "kind\tcase\tseconds\tplanted\tnamed\t")
	for _, r := range results {
		word := ""
		if !r.met() {
			word = "MISS"
		}
		fmt.Fprintf(table, "%s\t%s\t%.1f\t%s\t%s\t%s\n", r.Case.Kind, r.Case.Name, r.Took.Seconds(), causes(r.Case.Expect.Findings), r.answered(), word)
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return // nobody reads any more
	}
	misses(w, results)
	confusion(w, results)
	bar(w, results)
}

// answered are the causes that were named, in the order of the answer.
func (r Result) answered() string {
	if len(r.Answers) == 0 {
		return "-"
	}
	var list []Wanted
	for _, a := range r.Answers {
		list = append(list, a.named()...)
	}
	return causes(list)
}

// causes are the names in their order; what follows itself is counted.
func causes(list []Wanted) string {
	var parts []string
	for i := 0; i < len(list); {
		n := 1
		for i+n < len(list) && list[i+n].Cause == list[i].Cause {
			n++
		}
		text := string(list[i].Cause)
		if n > 1 {
			text = fmt.Sprintf("%s x%d", text, n)
		}
		parts = append(parts, text)
		i += n
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func misses(w io.Writer, results []Result) {
	for _, r := range results {
		if r.met() {
			continue
		}
		fmt.Fprintf(w, "%s: %s\n", r.Case.Name, r.Case.Summary)
		if r.Err != nil {
			fmt.Fprintf(w, "  not played: %v\n", r.Err)
		}
		for _, m := range r.Misses {
			fmt.Fprintf(w, "  %s\n", m)
		}
	}
}

// confusion sets the first planted cause against the first that was named.
func confusion(w io.Writer, results []Result) {
	counts := map[postfix.Cause]map[postfix.Cause]int{}
	for _, r := range results {
		if len(r.Answers) == 0 {
			continue
		}
		planted, named := postfix.Cause("none"), postfix.Cause("none")
		if len(r.Case.Expect.Findings) > 0 {
			planted = r.Case.Expect.Findings[0].Cause
		}
		for _, a := range r.Answers {
			if len(a.Findings) > 0 {
				named = a.Findings[0].Cause
				break
			}
		}
		if counts[planted] == nil {
			counts[planted] = map[postfix.Cause]int{}
		}
		counts[planted][named]++
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nplanted first\tnamed first\t")
	for _, planted := range slices.Sorted(maps.Keys(counts)) {
		var parts []string
		for _, named := range slices.Sorted(maps.Keys(counts[planted])) {
			parts = append(parts, fmt.Sprintf("%s %d", named, counts[planted][named]))
		}
		fmt.Fprintf(table, "%s\t%s\t\n", planted, strings.Join(parts, ", "))
	}
	if err := table.Flush(); err != nil {
		return
	}
}

func bar(w io.Writer, results []Result) {
	fmt.Fprintln(w)
	for _, kind := range kinds {
		met, all := 0, 0
		for _, r := range results {
			if r.Case.Kind == kind {
				all++
				if r.met() {
					met++
				}
			}
		}
		if all > 0 {
			fmt.Fprintf(w, "%-8s %d of %d\n", kind, met, all)
		}
	}
	var took []time.Duration
	for _, r := range results {
		if len(r.Answers) > 0 {
			took = append(took, r.Took)
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		fmt.Fprintf(w, "seconds to the verdict: median %.1f, slowest %.1f\n", took[len(took)/2].Seconds(), took[len(took)-1].Seconds())
	}
}
