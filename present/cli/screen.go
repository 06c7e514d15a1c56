package cli

import (
	"bufio"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"holdfast/present"
)

// The rules of the screen:
//
//   - stdout is data: what was asked for and nothing else. With -o json it is
//     one JSON object a line, also when the command fails.
//   - stderr is talk: errors, gaps, notes, progress. Each line of it begins
//     with "holdfast: "; the hint of an error follows on a line that begins with
//     "hint: ". Talk begins with a small letter and ends without a full stop;
//     it is a sentence of what is, the hint a sentence of what to do.
//     -q silences everything but errors. Gaps of a triage are on its page and
//     not here: what could not be seen is part of that answer.
//   - the terminal is questions. A verb that only looks never asks.
//   - Commands can be pasted: they are shell-quoted and never cut.
//   - A triage fits the terminal in fewer words, not by being cut off: what
//     matters most is told first and longest.
//   - A table fits the terminal: columns of less worth go first, then the
//     widest shrink. Where stdout is not a terminal every column is there and
//     nothing is shortened, except hostile texts at present.LongestText.
//   - Colour says nothing that the words do not say. It is off where stdout is
//     not a terminal, where NO_COLOR is set and where TERM is dumb.
//   - What a stranger wrote comes here as present.Text only, by way of
//     present.Words: no method of Screen takes a string.

// Screen is where a command's output goes.
type Screen struct {
	out    *bufio.Writer
	talk   io.Writer
	term   Terminal
	colour bool
	json   bool
	quiet  bool
	detail bool
	live   bool // stderr is a terminal

	encoder present.Encoder
	buf     []byte
}

// Terminal describes the terminal that stdout is, if it is one.
type Terminal struct {
	// Columns is 0 where stdout is not a terminal.
	Columns, Rows int
}

// TerminalOf asks the system.
func TerminalOf(f *os.File) Terminal {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return Terminal{}
	}
	columns, rows, err := term.GetSize(fd)
	if err != nil || columns <= 0 {
		// A serial console does not know its size; 80 by 24 is what it has.
		return Terminal{Columns: 80, Rows: 24}
	}
	return Terminal{Columns: columns, Rows: rows}
}

// Line writes one line of data for people.
func (s *Screen) Line(words ...present.Words) {
	for _, w := range words {
		w.Paint(s.out, s.colour)
	}
	_, _ = s.out.WriteString("\n") // the writer keeps its error for Flush
}

// Table writes a table for people.
func (s *Screen) Table(t *present.Table) { t.Write(s.out, s.term.Columns, s.colour) }

// Record writes one JSON object and a line end.
func (s *Screen) Record(v any) error {
	var err error
	if s.buf, err = s.encoder.Append(s.buf[:0], v); err != nil {
		return err
	}
	s.buf = append(s.buf, '\n')
	_, err = s.out.Write(s.buf)
	return err
}

// Flush hands over what was written, in one piece.
func (s *Screen) Flush() error { return s.out.Flush() }

// Note tells something that is not data. It first flushes stdout, so that the
// two appear in the order in which they were said.
func (s *Screen) Note(words present.Words) {
	if s.quiet {
		return
	}
	s.say("holdfast: ", words)
}

func (s *Screen) say(prefix string, words present.Words) {
	_ = s.out.Flush() // its error is kept and reported at the end
	var line strings.Builder
	line.WriteString(prefix)
	words.Paint(&line, false)
	line.WriteByte('\n')
	_, _ = io.WriteString(s.talk, line.String())
}
