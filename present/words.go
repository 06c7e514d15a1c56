package present

import (
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
)

// Words are what a terminal may be given as it is. They come from constants of
// this program, from numbers and times, and from [Text.Words].
type Words struct {
	s     string
	style Style
	// keep is where the part of s begins that is to be left when there is no
	// room for all of it, 0 for words that are read from their beginning.
	keep int
}

// literal can only be written as a constant outside this package, which is
// what keeps computed strings out of Words.
type literal string

// Word is what can stand in a sentence: Text or Words.
type Word interface{ word() string }

func (t Text) word() string  { return t.Terminal(0) }
func (w Words) word() string { return w.s }

// Say makes words from a format with one %s for each argument.
func Say(format literal, args ...Word) Words {
	if len(args) == 0 {
		return Words{s: string(format)}
	}
	plain := make([]any, len(args))
	for i, a := range args {
		plain[i] = a.word()
	}
	return Words{s: fmt.Sprintf(string(format), plain...)}
}

// Join puts sep between the words.
func Join(sep literal, words ...Words) Words {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = w.s
	}
	return Words{s: strings.Join(parts, string(sep))}
}

// Plural returns "1 message", "2,000 messages".
func Plural(n int, one, many literal) Words {
	if n == 1 {
		return Words{s: "1 " + string(one)}
	}
	return Words{s: Count(n).s + " " + string(many)}
}

// String returns the words without their style.
func (w Words) String() string { return w.s }

// Empty reports whether there are no words.
func (w Words) Empty() bool { return w.s == "" }

// Width is the number of columns that the words take.
func (w Words) Width() int { return runewidth.StringWidth(w.s) }

// Address returns a mail address, "<>" for the null sender. Where there is no
// room for all of it, the domain is kept and the local part gives way: the
// domain is what mail waits for.
func Address(a string) Words {
	if a == "" {
		return Words{s: "<>"}
	}
	w := Hostile(a).Words(0)
	w.keep = max(strings.LastIndexByte(w.s, '@'), 0)
	return w
}

// Fit returns the words in at most width columns; "…" stands for what was left
// out.
func (w Words) Fit(width int) Words {
	if len(w.s) <= width || w.Width() <= width {
		return w
	}
	if w.keep > 0 {
		front, end := w.s[:w.keep], w.s[w.keep:]
		const least = 3 // of the local part, where the domain fits beside it
		room := width - runewidth.StringWidth(end)
		if room < least {
			room = min(width/3, runewidth.StringWidth(front))
		}
		w.s = runewidth.Truncate(front, room, "…") + end
		w.keep = 0
	}
	w.s = runewidth.Truncate(w.s, width, "…")
	return w
}

// Wrap breaks the words into lines of at most width columns, at blanks where
// there are any. A width of 0 keeps them on one line.
func (w Words) Wrap(width int) []Words {
	if width <= 0 || w.Width() <= width {
		return []Words{w}
	}
	var lines []Words
	line, columns := "", 0
	flush := func() {
		lines = append(lines, Words{s: line, style: w.style})
		line, columns = "", 0
	}
	for word := range strings.SplitSeq(w.s, " ") {
		room := runewidth.StringWidth(word)
		if columns > 0 && columns+1+room > width {
			flush()
		}
		for room > width { // a word that no line has room for
			head := runewidth.Truncate(word, width, "")
			if head == "" {
				break
			}
			line, word = head, word[len(head):]
			room = runewidth.StringWidth(word)
			flush()
		}
		if columns > 0 {
			line, columns = line+" ", columns+1
		}
		line, columns = line+word, columns+room
	}
	flush()
	return lines
}

// PadRight fills the words with blanks to a width.
func PadRight(w Words, width int) Words {
	if blank := width - w.Width(); blank > 0 {
		w.s += strings.Repeat(" ", blank)
	}
	return w
}

// Lines is Wrap with an end: of more than most lines the last one is cut, and
// "…" says so. A most of 0 keeps them all.
func (w Words) Lines(width, most int) []Words {
	lines := w.Wrap(width)
	if most <= 0 || len(lines) <= most {
		return lines
	}
	rest := Join(" ", lines[most-1:]...).In(w.style)
	return append(lines[:most-1:most-1], rest.Fit(width))
}

// Style is how words stand out where colour is allowed. It is never the only
// carrier of a meaning: the same words say the same without it.
type Style uint8

// The styles.
const (
	Normal  Style = iota
	Heading       // column titles
	Strong        // the figure that matters
	Faint         // what is there for completeness
	Good
	Warn
	Bad
)

// In returns the words in a style.
func (w Words) In(s Style) Words {
	w.style = s
	return w
}

// sgr holds the colours: the eight basic ones and bold, which every terminal
// knows and the operator's own palette decides about.
var sgr = [...]string{Normal: "", Heading: "\x1b[1m", Strong: "\x1b[1m", Faint: "\x1b[2m", Good: "\x1b[32m", Warn: "\x1b[33m", Bad: "\x1b[31m"}

// Paint writes the words, with colour if it is allowed.
func (w Words) Paint(out io.StringWriter, colour bool) {
	if !colour || w.style == Normal || int(w.style) >= len(sgr) || w.s == "" {
		_, _ = out.WriteString(w.s) // a screen that has gone away is noticed when it is flushed
		return
	}
	_, _ = out.WriteString(sgr[w.style] + w.s + "\x1b[0m")
}
