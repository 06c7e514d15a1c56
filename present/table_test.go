package present

import (
	"strings"
	"testing"
)

func draw(t *Table, width int, colour bool) string {
	var out strings.Builder
	t.Write(&out, width, colour)
	return out.String()
}

func fruit() *Table {
	t := &Table{Columns: []Column{
		{Title: Say("ID")},
		{Title: Say("N"), Right: true},
		{Title: Say("SPARE"), Spare: 1},
		{Title: Say("NAME"), Least: 6},
		{},
		{Title: Say("END")},
	}}
	t.Row(Say("A1"), Count(5), Say("s"), Say("short"), Words{}, Say("x"))
	t.Row(Say("B22"), Count(12345), Say("spare"), Say("a rather long name"), Words{}, Say("漢字"))
	t.Row(Say("C"))
	return t
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
		want  []string
	}{
		{"piped", 0, []string{
			"ID        N  SPARE  NAME                END",
			"A1        5  s      short               x",
			"B22  12,345  spare  a rather long name  漢字",
			"C",
		}},
		{"wide", 200, []string{
			"ID        N  SPARE  NAME                END",
			"A1        5  s      short               x",
			"B22  12,345  spare  a rather long name  漢字",
			"C",
		}},
		{"shrinks", 36, []string{
			"ID        N  SPARE  NAME        END",
			"A1        5  s      short       x",
			"B22  12,345  spare  a rather …  漢字",
			"C",
		}},
		{"drops", 30, []string{
			"ID        N  NAME         END",
			"A1        5  short        x",
			"B22  12,345  a rather l…  漢字",
			"C",
		}},
	} {
		got := strings.Split(strings.TrimSuffix(draw(fruit(), c.width, false), "\n"), "\n")
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		for _, line := range got {
			if w := Hostile(line).Words(0).Width(); c.width > 0 && w > c.width {
				t.Errorf("%s: %q takes %d columns", c.name, line, w)
			}
			if strings.HasSuffix(line, " ") {
				t.Errorf("%s: %q ends in blanks", c.name, line)
			}
		}
	}
}

func TestColourChangesNoWord(t *testing.T) {
	table := fruit()
	table.Row(Say("bad").In(Bad), Count(1).In(Faint))
	plain := draw(table, 0, false)
	painted := draw(table, 0, true)
	if painted == plain {
		t.Error("nothing is painted")
	}
	for _, code := range sgr {
		if code != "" {
			painted = strings.ReplaceAll(painted, code, "")
		}
	}
	if painted = strings.ReplaceAll(painted, "\x1b[0m", ""); painted != plain {
		t.Errorf("without colour it reads %q, not %q", painted, plain)
	}
}
