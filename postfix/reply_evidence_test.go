package postfix

import (
	_ "embed"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// evidence are texts that mail servers really sent, one a line: provider,
// class, where the text was found, text. The class was given from the meaning
// of the text before any rule was tried on it. A provider that nobody named is
// called by a word of its text.
//
//go:embed testdata/replies.tsv
var evidence string

type sample struct{ provider, class, source, text string }

func samples(t *testing.T) []sample {
	t.Helper()
	var all []sample
	for line := range strings.Lines(evidence) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 4 || slices.Contains(f, "") {
			t.Fatalf("%q is not provider, class, source, text", line)
		}
		if _, ok := ParseCause(f[1]); !ok {
			t.Fatalf("%q has no class", line)
		}
		all = append(all, sample{f[0], f[1], f[2], f[3]})
	}
	return all
}

// half says which half of the evidence a provider belongs to: rules are built
// from one, and scored on the other, which no rule was made for.
func half(provider string) string {
	h := fnv.New32a()
	h.Write([]byte(strings.ToLower(provider)))
	if h.Sum32()%2 == 0 {
		return "build"
	}
	return "score"
}

// Before the table was made the rules had 72.9 % of the build half and 73.2 %
// of the score half right; with it, 100 % and 91.3 %. Whoever gave the classes
// also wrote the rules and had read both halves by then, so the second figure
// flatters: words traced to the score half alone were taken out again (with
// them it was 95.3 %), memory was not.
//
// TestRealReplies prints how the rules judge real texts, and fails where they
// become worse than they were when the figures were taken.
func TestRealReplies(t *testing.T) {
	const least = 300
	floor := map[string]float64{"build": 0.97, "score": 0.88}
	all := samples(t)
	if len(all) < least {
		t.Fatalf("%d texts, want %d", len(all), least)
	}
	for name, want := range floor {
		right, total := 0, 0
		confused := map[[2]string]int{}
		for _, s := range all {
			if half(s.provider) != name {
				continue
			}
			total++
			got := string(Explain("", s.text).Class)
			confused[[2]string{s.class, got}]++
			if got == s.class {
				right++
			} else if name == "build" {
				t.Logf("%s is %s, said to be %s: %s", s.provider, s.class, got, s.text)
			}
		}
		printConfusion(t, name, confused)
		share := float64(right) / float64(total)
		t.Logf("%s: %d of %d right, %.1f %%", name, right, total, 100*share)
		if share < want {
			t.Errorf("%s: %.1f %% right, want %.1f %%", name, 100*share, 100*want)
		}
	}
}

// printConfusion shows one line a class: what it is, and what it was taken for.
func printConfusion(t *testing.T, name string, confused map[[2]string]int) {
	t.Helper()
	rows := map[string]int{}
	for pair, n := range confused {
		rows[pair[0]] += n
	}
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		var b strings.Builder
		for _, pair := range slices.SortedFunc(maps.Keys(confused), func(a, b [2]string) int { return strings.Compare(a[1], b[1]) }) {
			if pair[0] == row {
				b.WriteString(" " + pair[1] + ":" + strconv.Itoa(confused[pair]))
			}
		}
		t.Logf("%s: %-18s %3d =%s", name, row, rows[row], b.String())
	}
}
