package world

import (
	"fmt"
	"regexp"
	"strings"
)

// Pattern selects addresses and attribute values: "*" stands for any text, "?"
// for one character, letters match without regard to case. The empty pattern
// matches everything; "<>" matches the null sender, which is an empty string
// and could not be named otherwise.
type Pattern string

// matcher is a compiled Pattern; nil matches everything.
type matcher struct{ re *regexp.Regexp }

func (p Pattern) compile() *matcher {
	switch p {
	case "", "*":
		return nil
	case "<>":
		return &matcher{regexp.MustCompile(`^$`)}
	}
	q := regexp.QuoteMeta(string(p))
	q = strings.ReplaceAll(q, `\*`, `.*`)
	q = strings.ReplaceAll(q, `\?`, `.`)
	return &matcher{regexp.MustCompile(`(?is)^` + q + `$`)}
}

func (m *matcher) match(s string) bool { return m == nil || m.re.MatchString(s) }

// oneOf is the check of every enumerated word in a Config.
func oneOf[T ~string](what string, v T, legal ...T) error {
	for _, l := range legal {
		if v == l {
			return nil
		}
	}
	words := make([]string, 0, len(legal))
	for _, l := range legal {
		if l != "" {
			words = append(words, string(l))
		}
	}
	return fmt.Errorf("%s %q is none of %s", what, v, strings.Join(words, ", "))
}

func checkProbability(p float64) error {
	if p < 0 || p > 1 {
		return fmt.Errorf("probability %v is not between 0 and 1", p)
	}
	return nil
}
