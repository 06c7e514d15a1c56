package cli

import (
	"holdfast/present"
)

// page is what is to be shown at once. It is laid out before it is written, so
// that what does not fit can be told in fewer words instead of being cut off.
type page struct {
	screen *Screen
	lines  []pageLine
}

// pageLine is one line of words, or a table.
type pageLine struct {
	words []present.Words
	table *present.Table
}

func (p *page) line(words ...present.Words) { p.lines = append(p.lines, pageLine{words: words}) }

func (p *page) tableOf(t *present.Table) { p.lines = append(p.lines, pageLine{table: t}) }

// labelled writes words behind a label, broken into at most so many lines; 0
// is as many as it takes.
func (p *page) labelled(label, words present.Words, most int) {
	if words.Empty() {
		return
	}
	for _, line := range words.Lines(p.room(), most) {
		p.line(present.PadRight(label, pageIndent).In(present.Heading), line)
		label = present.Words{}
	}
}

// command writes a command line behind a label. It is never broken and never
// cut: it is there to be pasted.
func (p *page) command(label, command present.Words) {
	p.line(present.PadRight(label, pageIndent).In(present.Heading), command.In(present.Strong))
}

// pageIndent is the width of the labels at the left.
const pageIndent = 8

// room is the width behind the labels, 0 where there is no end.
func (p *page) room() int {
	if p.screen.term.Columns == 0 {
		return 0
	}
	return max(20, p.screen.term.Columns-pageIndent)
}

// height is how many rows the terminal needs.
func (p *page) height() int {
	rows := 0
	for _, l := range p.lines {
		if l.table != nil {
			rows += l.table.Len()
			continue
		}
		width := 0
		for _, w := range l.words {
			width += w.Width()
		}
		columns := max(p.screen.term.Columns, 1)
		rows += max(1, (width+columns-1)/columns)
	}
	return rows
}

func (p *page) write() {
	for _, l := range p.lines {
		if l.table != nil {
			p.screen.Table(l.table)
			continue
		}
		p.screen.Line(l.words...)
	}
}
