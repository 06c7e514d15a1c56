package present

import (
	"io"
	"iter"
	"strings"
)

// Column is one column of a Table.
type Column struct {
	Title Words
	// Right aligns figures.
	Right bool
	// Width is the width that the column has even if no cell needs it.
	Width int
	// Least is the narrowest that the column should become where the screen is
	// too narrow: spare columns go before it gets narrower, and it never has
	// less than half of it. 0 means that it keeps its width.
	Least int
	// Spare columns are left out where the screen is too narrow, the highest
	// number first. Columns with 0 always stay.
	Spare int
}

// Table lines up words in columns.
type Table struct {
	Columns []Column
	// Stream gives the rows that follow those that were added. It is run
	// twice, for the widths and for the words: a list of a million lines is
	// then never in memory as a whole. The cells may be used again by the next
	// row.
	Stream iter.Seq[[]Words]

	rows [][]Words
}

const gutter = 2

// Row adds a row. Cells that are missing are empty.
func (t *Table) Row(cells ...Words) { t.rows = append(t.rows, cells) }

// Len returns the number of rows that were added.
func (t *Table) Len() int { return len(t.rows) }

// all are the rows that were added and those of the stream.
func (t *Table) all(yield func([]Words) bool) {
	for _, row := range t.rows {
		if !yield(row) {
			return
		}
	}
	if t.Stream != nil {
		t.Stream(yield)
	}
}

// Write draws the table. A width of 0 means that the output is not a screen:
// then every column is there and nothing is shortened.
func (t *Table) Write(out io.StringWriter, width int, colour bool) {
	widths := t.layout(width)
	titled := false
	for _, c := range t.Columns {
		titled = titled || !c.Title.Empty()
	}
	if titled {
		titles := make([]Words, len(t.Columns))
		for i, c := range t.Columns {
			titles[i] = c.Title.In(Heading)
		}
		t.line(out, titles, widths, colour)
	}
	for row := range t.all {
		t.line(out, row, widths, colour)
	}
}

// layout returns the width of each column, -1 for one that is left out: there
// is no room for it, or nothing in it.
func (t *Table) layout(width int) []int {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = max(c.Width, c.Title.Width())
	}
	for row := range t.all {
		for i := range min(len(row), len(widths)) {
			widths[i] = max(widths[i], row[i].Width())
		}
	}
	for i, w := range widths {
		if w == 0 {
			widths[i] = -1
		}
	}
	if width <= 0 {
		return widths
	}
	for t.least(widths) > width && t.dropOne(widths) {
	}
	t.shrink(widths, width)
	return widths
}

// least is the narrowest that the columns which are left can be.
func (t *Table) least(widths []int) int {
	sum := -gutter
	for i, w := range widths {
		if w < 0 {
			continue
		}
		if l := t.Columns[i].Least; l > 0 {
			w = min(w, l)
		}
		sum += w + gutter
	}
	return sum
}

func (t *Table) dropOne(widths []int) bool {
	worst := -1
	for i, w := range widths {
		if w >= 0 && t.Columns[i].Spare > 0 && (worst < 0 || t.Columns[i].Spare > t.Columns[worst].Spare) {
			worst = i
		}
	}
	if worst < 0 {
		return false
	}
	widths[worst] = -1
	return true
}

// shrink takes columns away from the widest that may give, one by one, so that
// the narrow ones keep what they need.
func (t *Table) shrink(widths []int, width int) {
	sum := -gutter
	for _, w := range widths {
		if w >= 0 {
			sum += w + gutter
		}
	}
	for ; sum > width; sum-- {
		i := t.widest(widths, 1)
		if i < 0 {
			i = t.widest(widths, 2) // no column is left to drop
		}
		if i < 0 {
			return
		}
		widths[i]--
	}
}

// widest finds the widest column that may still shrink to a part of its Least,
// -1 if there is none.
func (t *Table) widest(widths []int, part int) int {
	best := -1
	for i, w := range widths {
		if l := t.Columns[i].Least; l > 0 && w > l/part && (best < 0 || w > widths[best]) {
			best = i
		}
	}
	return best
}

func (t *Table) line(out io.StringWriter, cells []Words, widths []int, colour bool) {
	pad := 0
	for i, c := range t.Columns {
		if widths[i] < 0 {
			continue
		}
		var cell Words
		if i < len(cells) {
			cell = cells[i].Fit(widths[i])
		}
		blank := widths[i] - cell.Width()
		if c.Right {
			pad += blank
		}
		if !cell.Empty() {
			_, _ = out.WriteString(strings.Repeat(" ", pad)) // noticed when the screen is flushed
			cell.Paint(out, colour)
			pad = 0
		}
		pad += gutter
		if !c.Right {
			pad += blank
		}
	}
	_, _ = out.WriteString("\n")
}
