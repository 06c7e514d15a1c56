package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// screen is where a command prints.
type screen struct {
	out    io.Writer
	talk   io.Writer
	format string // text or json
}

func (s *screen) json() bool { return s.format == "json" }

// say tells a person what is going on.
func (s *screen) say(format string, args ...any) { fmt.Fprintf(s.talk, format+"\n", args...) }

// show prints a value as JSON, or lets text print it for people.
func (s *screen) show(value any, text func(io.Writer)) error {
	if !s.json() {
		text(s.out)
		return nil
	}
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// table prints rows in columns. Cells may hold what came from mail (a reply, a reason): control characters are escaped.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			quoted := fmt.Sprintf("%+q", cell)
			cells[i] = strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
	}
	_ = t.Flush() // a screen that is gone has nobody to tell
}
