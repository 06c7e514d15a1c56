package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Field is one setting with its manual.
type Field struct {
	Key     string // full name: policy.delete.needs_ticket
	Kind    string // of its value, in words
	Doc     string
	Value   string // as it is written in the file
	Default string
	Line    int // where it is set, 0 where it is not

	least, most string
	value       any
}

// Name is the last part of the key, which stands under its table.
func (f *Field) Name() string { return f.Key[strings.LastIndexByte(f.Key, '.')+1:] }

// Fields lists every setting, in the order of the manual.
func (l *Loaded) Fields() []Field {
	def := Default()
	return l.collect(nil, "", reflect.ValueOf(l.Config), reflect.ValueOf(def))
}

func (l *Loaded) collect(list []Field, prefix string, v, def reflect.Value) []Field {
	for i := range v.NumField() {
		t := v.Type().Field(i)
		key := prefix + t.Tag.Get("toml")
		if t.Type.Kind() == reflect.Struct {
			list = l.collect(list, key+".", v.Field(i), def.Field(i))
			continue
		}
		list = append(list, Field{
			Key: key, Kind: kindOf(t.Type), Doc: t.Tag.Get("doc"), Value: written(v.Field(i)), Default: written(def.Field(i)),
			Line: l.Lines[key], least: t.Tag.Get("least"), most: t.Tag.Get("most"), value: v.Field(i).Interface(),
		})
	}
	return list
}

// written is a value as TOML has it.
func written(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case Duration:
		return strconv.Quote(x.String())
	case []string:
		quoted := make([]string, len(x))
		for i, s := range x {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// table is one table of the file, with what it is about.
type table struct {
	key, doc string
	fields   []Field
}

func tables() []table {
	l := &Loaded{Config: Default()}
	fields := l.Fields()
	var list []table
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for f := range t.Fields() {
			if f.Type.Kind() != reflect.Struct {
				continue
			}
			one := table{key: prefix + f.Tag.Get("toml"), doc: f.Tag.Get("doc")}
			for _, field := range fields {
				if field.Key == one.key+"."+field.Name() {
					one.fields = append(one.fields, field)
				}
			}
			list = append(list, one)
			walk(one.key+".", f.Type)
		}
	}
	walk("", reflect.TypeFor[Config]())
	return list
}

//go:generate go run holdfast/scripts/manual ../docs/config.md

// Sample is a file in which every setting stands with its default, as a
// comment: it says what could be set and sets nothing.
func Sample() string {
	var b strings.Builder
	b.WriteString("# Settings of Holdfast. It is read from " + DefaultPath + " unless --config says\n# otherwise, and must belong to root and be writable for nobody else.\n# holdfast config check finds mistakes; holdfast config explain shows what holds.\n")
	said := make(map[string]bool) // the rules of all verbs have the same settings
	for _, t := range tables() {
		b.WriteByte('\n')
		comment(&b, t.doc)
		fmt.Fprintf(&b, "[%s]\n", t.key)
		for _, f := range t.fields {
			if !said[f.Doc] {
				said[f.Doc] = true
				b.WriteByte('\n')
				comment(&b, f.Doc+rangeOf(&f))
			}
			fmt.Fprintf(&b, "#%s = %s\n", f.Name(), f.Default)
		}
	}
	return b.String()
}

func rangeOf(f *Field) string {
	if f.most == "" {
		return ""
	}
	return fmt.Sprintf(" From %s to %s.", f.least, f.most)
}

// comment writes a text in lines that fit a terminal.
func comment(b *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 78 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// Manual is the page about the file, in Markdown.
func Manual() string {
	var b strings.Builder
	b.WriteString(`<!-- Generated from package config by go generate. Do not edit. -->

# holdfast.toml

Settings are read from ` + "`" + DefaultPath + "`" + `, or from the file that ` + "`--config`" + ` names.
Without a file every setting has its default. The file and its directory must
belong to root and be writable for nobody else. A file that says something that
is not understood is refused as a whole, with the line.

` + "`holdfast config sample`" + ` prints a file with every setting, ` + "`config check`" + ` looks for
mistakes, and ` + "`config explain`" + ` shows each value that holds and where it came from.

A plan is sealed under the policy of its time: where the file changes before
the plan runs, it is refused.
`)
	for _, t := range tables() {
		fmt.Fprintf(&b, "\n## [%s]\n\n%s\n", t.key, t.doc)
		if len(t.fields) == 0 {
			continue
		}
		b.WriteString("\n| setting | value | default | meaning |\n|---|---|---|---|\n")
		for _, f := range t.fields {
			fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", f.Name(), f.Kind, f.Default, f.Doc+rangeOf(&f))
		}
	}
	return b.String()
}
