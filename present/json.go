package present

import (
	"cmp"
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Encoder writes JSON. It differs from encoding/json in what it does with the
// texts of strangers. Every code point that a terminal might obey or hide is
// written as \uXXXX, which loses nothing. JSON cannot carry a byte that is not
// UTF-8: such a byte is written visibly, as the six characters \x{9b}, and the
// object that holds the field then has one member more, "raw", which maps the
// field's name to its exact bytes in base64. Elements of lists are named
// "field.0".
//
// Member names and the options omitempty and omitzero are those of the json
// struct tags. A nil list is [], never null; times are RFC 3339 in UTC. Types
// that write their own JSON would go around the escaping and have none here.
//
// An Encoder remembers the types that it met. It is for one goroutine.
type Encoder struct{ shapes map[reflect.Type]*shape }

// AppendJSON appends v as one JSON object on one line, without a line end.
func AppendJSON(dst []byte, v any) ([]byte, error) { return new(Encoder).Append(dst, v) }

// Append appends v as one JSON object on one line, without a line end.
func (e *Encoder) Append(dst []byte, v any) ([]byte, error) {
	var raw rawFields
	return e.value(dst, reflect.ValueOf(v), "", &raw)
}

// rawFields are the fields of one object whose text was not valid UTF-8.
type rawFields []rawField

type rawField struct{ name, bytes string }

// shape is what has to be known of a type to write its values.
type shape struct {
	special special
	fields  []field
}

type special uint8

const (
	byKind special = iota
	isTime
	isText
	isMarshaler
)

type field struct {
	index     int
	name      string
	omitEmpty bool
	omitZero  bool
	embedded  bool
}

var errNoForm = errors.New("no JSON form is defined for it")

func (e *Encoder) shape(t reflect.Type) *shape {
	if s := e.shapes[t]; s != nil {
		return s
	}
	s := &shape{}
	switch {
	case t == reflect.TypeFor[time.Time]():
		s.special = isTime
	case t == reflect.TypeFor[Text]():
		s.special = isText
	case t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		s.special = isMarshaler
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "-" || !f.IsExported() && !f.Anonymous {
				continue
			}
			s.fields = append(s.fields, field{
				index: i, name: cmp.Or(name, f.Name), embedded: f.Anonymous && name == "",
				omitEmpty: strings.Contains(options, "omitempty"), omitZero: strings.Contains(options, "omitzero"),
			})
		}
	}
	if e.shapes == nil {
		e.shapes = make(map[reflect.Type]*shape)
	}
	e.shapes[t] = s
	return s
}

func (e *Encoder) value(dst []byte, v reflect.Value, name string, raw *rawFields) ([]byte, error) {
	if !v.IsValid() {
		return append(dst, "null"...), nil
	}
	s := e.shape(v.Type())
	switch s.special {
	case isTime:
		return appendTime(dst, v), nil
	case isText:
		return appendText(dst, v.Field(0).String(), name, raw), nil
	case isMarshaler:
		if m, ok := v.Interface().(encoding.TextMarshaler); ok {
			text, err := m.MarshalText()
			return appendText(dst, string(text), name, raw), err
		}
	}
	switch v.Kind() {
	case reflect.String:
		return appendText(dst, v.String(), name, raw), nil
	case reflect.Bool:
		return strconv.AppendBool(dst, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(dst, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(dst, v.Uint(), 10), nil
	case reflect.Float32, reflect.Float64:
		return appendFloat(dst, v.Float())
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return append(dst, "null"...), nil
		}
		return e.value(dst, v.Elem(), name, raw)
	case reflect.Slice, reflect.Array:
		return e.list(dst, v, name, raw)
	case reflect.Map:
		return e.object(dst, v)
	case reflect.Struct:
		var inner rawFields
		start := len(dst) + 1
		dst, err := e.members(append(dst, '{'), v, start, &inner)
		return append(appendRaw(dst, inner, len(dst) == start), '}'), err
	}
	return dst, fmt.Errorf("encode %s: %w", v.Type(), errNoForm)
}

// appendTime asks for the address where there is one: five times a message
// would otherwise be copied to the heap.
func appendTime(dst []byte, v reflect.Value) []byte {
	var t time.Time
	if !v.CanAddr() {
		t, _ = v.Interface().(time.Time)
	} else if p, ok := v.Addr().Interface().(*time.Time); ok {
		t = *p
	}
	return append(t.UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano), '"')
}

func appendFloat(dst []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, fmt.Errorf("encode %v: %w", f, errNoForm)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, 64), nil
}

func (e *Encoder) list(dst []byte, v reflect.Value, name string, raw *rawFields) ([]byte, error) {
	dst = append(dst, '[')
	texts := v.Type().Elem().Kind() == reflect.String
	for i := range v.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		element := name
		if texts {
			element += "." + strconv.Itoa(i)
		}
		var err error
		if dst, err = e.value(dst, v.Index(i), element, raw); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// object writes a map, its keys in order so that equal values look equal.
func (e *Encoder) object(dst []byte, v reflect.Value) ([]byte, error) {
	if v.Type().Key().Kind() != reflect.String {
		return dst, fmt.Errorf("encode %s: %w", v.Type(), errNoForm)
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	var raw rawFields
	dst = append(dst, '{')
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, key.String(), "", &rawFields{}), ':')
		var err error
		if dst, err = e.value(dst, v.MapIndex(key), key.String(), &raw); err != nil {
			return dst, err
		}
	}
	return append(appendRaw(dst, raw, len(keys) == 0), '}'), nil
}

// members appends the members of v to the object that opened before start;
// those of embedded structs are part of it.
func (e *Encoder) members(dst []byte, v reflect.Value, start int, raw *rawFields) ([]byte, error) {
	for _, f := range e.shape(v.Type()).fields {
		member := v.Field(f.index)
		var err error
		if f.embedded {
			for member.Kind() == reflect.Pointer && !member.IsNil() {
				member = member.Elem()
			}
			if member.Kind() == reflect.Struct {
				if dst, err = e.members(dst, member, start, raw); err != nil {
					return dst, err
				}
			}
			continue
		}
		if f.omitZero && member.IsZero() || f.omitEmpty && empty(member) {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), f.name...), '"', ':')
		if dst, err = e.value(dst, member, f.name, raw); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// empty is what encoding/json means by omitempty.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func appendRaw(dst []byte, raw rawFields, first bool) []byte {
	if len(raw) == 0 {
		return dst
	}
	if !first {
		dst = append(dst, ',')
	}
	dst = append(dst, `"raw":{`...)
	for i, f := range raw {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, f.name, "", &rawFields{}), ':', '"')
		dst = append(base64.StdEncoding.AppendEncode(dst, []byte(f.bytes)), '"')
	}
	return append(dst, '}')
}

func appendText(dst []byte, s, name string, raw *rawFields) []byte {
	dst = append(dst, '"')
	done, invalid := 0, false
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c <= '~' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[done:i]...)
			dst = appendEscaped(dst, rune(c))
			i++
			done = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			invalid = true
			dst = append(dst, s[done:i]...)
			dst = append(append(append(dst, `\\x{`...), hex(rune(s[i]))...), '}')
			done = i + size
		case Unseen(r):
			dst = append(dst, s[done:i]...)
			dst = appendEscaped(dst, r)
			done = i + size
		}
		i += size
	}
	if invalid {
		*raw = append(*raw, rawField{name, s})
	}
	return append(append(dst, s[done:]...), '"')
}

func appendEscaped(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\n':
		return append(dst, '\\', 'n')
	case '\t':
		return append(dst, '\\', 't')
	}
	if first, second := utf16.EncodeRune(r); first != utf8.RuneError {
		return appendUnit(appendUnit(dst, first), second)
	}
	return appendUnit(dst, r)
}

func appendUnit(dst []byte, u rune) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[u>>12&15], digits[u>>8&15], digits[u>>4&15], digits[u&15])
}
