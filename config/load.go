package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"filippo.io/age"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"holdfast/postfix"
)

// mostBytes is more than any such file has.
const mostBytes = 1 << 20

// Loaded is a configuration and where each of its values came from.
type Loaded struct {
	Config
	// Path is the file, "" where there is none and all is Default.
	Path string
	// Lines are where keys are set, from 1, by their full names.
	Lines map[string]int
}

// Load reads the file. Where it does not exist and was not asked for by name,
// Default holds. Every error is a *postfix.Error of kind Usage.
func Load(path string, named bool) (*Loaded, error) {
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return &Loaded{Config: Default(), Lines: map[string]int{}}, nil
	}
	if err != nil {
		return nil, &postfix.Error{Kind: postfix.Usage, Op: "read settings from", Object: strconv.Quote(path), Err: err}
	}
	return Parse(path, text)
}

// read reads the file and checks who could have written it.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	if os.Geteuid() == 0 {
		dir, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return nil, withoutPath(err)
		}
		if err := errors.Join(onlyRoots("it", info), onlyRoots("its directory", dir)); err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err == nil && len(text) > mostBytes {
		err = fmt.Errorf("it is larger than %d bytes", mostBytes)
	}
	return text, err
}

// onlyRoots refuses what somebody else than root can change.
func onlyRoots(what string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("whose " + what + " is cannot be told")
	}
	if st.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be changed by others than root (owner %d, mode %04o), who could then decide what root does", what, st.Uid, info.Mode().Perm())
	}
	return nil
}

func withoutPath(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// Parse reads the text of a file. path is only named.
func Parse(path string, text []byte) (*Loaded, error) {
	l := &Loaded{Config: Default(), Path: path, Lines: make(map[string]int)}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&l.Config); err != nil {
		return nil, wrong(path, err)
	}
	if err := l.findLines(text); err != nil {
		return nil, wrong(path, err)
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l, nil
}

// wrong says where a file cannot be understood.
func wrong(path string, err error) error {
	e := &postfix.Error{Kind: postfix.Usage, Op: "read settings from", Object: path, Err: err}
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		first := unknown.Errors[0]
		row, column := first.Position()
		key := strings.Join(first.Key(), ".")
		e.Object = fmt.Sprintf("%s:%d:%d", path, row, column)
		e.Err = fmt.Errorf("there is no setting %q", key)
		if near := nearest(key); near != "" {
			e.Hint = "the nearest is " + near + "; holdfast config sample shows all"
		} else {
			e.Hint = "holdfast config sample shows all settings"
		}
	case errors.As(err, &bad):
		row, column := bad.Position()
		e.Object = fmt.Sprintf("%s:%d:%d", path, row, column)
		e.Err = errors.New(strings.TrimPrefix(bad.Error(), "toml: "))
		if key := strings.Join(bad.Key(), "."); key != "" {
			e.Err = fmt.Errorf("%s: %w", key, e.Err)
			e.Hint = hintOf(key)
		}
	}
	return e
}

// hintOf says what a value looks like.
func hintOf(key string) string {
	for _, f := range (&Loaded{Config: Default()}).Fields() {
		if f.Key == key {
			return "it is written like this: " + f.Name() + " = " + f.Default
		}
	}
	return ""
}

// findLines notes where each key is set.
func (l *Loaded) findLines(text []byte) error {
	var p unstable.Parser
	p.Reset(text)
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table:
			table, _ = keyOf(&p, e)
		case unstable.KeyValue:
			l.note(&p, table, e)
		}
	}
	return p.Error()
}

func (l *Loaded) note(p *unstable.Parser, table string, e *unstable.Node) {
	key, line := keyOf(p, e)
	if table != "" {
		key = table + "." + key
	}
	if v := e.Value(); v.Kind == unstable.InlineTable {
		for c := v.Children(); c.Next(); {
			l.note(p, key, c.Node())
		}
		return
	}
	l.Lines[key] = line
}

func keyOf(p *unstable.Parser, e *unstable.Node) (key string, line int) {
	var parts []string
	for k := e.Key(); k.Next(); {
		if line == 0 {
			line = p.Shape(k.Node().Raw).Start.Line
		}
		parts = append(parts, string(k.Node().Data))
	}
	return strings.Join(parts, "."), line
}

// check refuses values that are out of range or make no sense.
func (l *Loaded) check() error {
	for _, f := range l.Fields() {
		if err := f.check(); err != nil {
			object := l.Path
			if f.Line > 0 {
				object = fmt.Sprintf("%s:%d", l.Path, f.Line)
			}
			return &postfix.Error{
				Kind: postfix.Usage, Op: "read settings from", Object: object, Err: fmt.Errorf("%s: %w", f.Key, err),
				Hint: "it is written like this: " + f.Name() + " = " + f.Default,
			}
		}
	}
	return nil
}

func (f *Field) check() error {
	switch v := f.value.(type) {
	case int:
		least, _ := strconv.Atoi(f.least)
		most, _ := strconv.Atoi(f.most)
		if v < least || v > most {
			return fmt.Errorf("%d is not between %s and %s", v, f.least, f.most)
		}
	case Duration:
		var least, most Duration
		if err := errors.Join(least.UnmarshalText([]byte(f.least)), most.UnmarshalText([]byte(f.most))); err != nil {
			return err
		}
		if v < least || v > most {
			return fmt.Errorf("%s is not between %s and %s", v, least, most)
		}
	case []string:
		return checkNames(f.Key, v)
	}
	return nil
}

func checkNames(key string, names []string) error {
	for i, name := range names {
		switch {
		case name == "" || name == "@" || strings.ContainsAny(name, " \t\r\n:"):
			return fmt.Errorf("%q is no name", name)
		case slices.Contains(names[:i], name):
			return fmt.Errorf("%q stands there twice", name)
		case key == "vault.recipients":
			if _, err := age.ParseX25519Recipient(name); err != nil {
				return fmt.Errorf("%q is no age public key", name)
			}
		}
	}
	return nil
}

// nearest is the setting that was most likely meant, "" where none is near.
func nearest(key string) string {
	best, far := "", len(key)/2+1
	for _, f := range (&Loaded{Config: Default()}).Fields() {
		if d := distance(key, f.Key); d < far {
			best, far = f.Key, d
		}
	}
	return best
}

// distance counts the letters by which two words differ (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// kindOf is what a value is called in the manual.
func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "span of time"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "list of texts"
	}
	return "number"
}
