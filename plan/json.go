package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"holdfast/postfix"
)

// UnmarshalJSON reads a Selector strictly. encoding/json would take a name in
// the wrong case, let the last of two equal names win, and read null as "not
// given"; each is a way to a wider selection than the one that was sent.
func (s *Selector) UnmarshalJSON(data []byte) error {
	if err := checkObject(data); err != nil {
		return selectorError(err)
	}
	type plain Selector // without this method
	var out plain
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil {
		return selectorError(err)
	}
	*s = Selector(out)
	return nil
}

func selectorError(err error) error {
	return &postfix.Error{
		Kind: postfix.Usage, Op: "read selection", Err: err,
		Hint: "write an object with names such as \"senders\" and \"older_than\"; docs/json.md lists them",
	}
}

// checkObject goes over the names and null values of one flat object.
func checkObject(data []byte) error {
	known := make(map[string]reflect.Kind)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Selector]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = f.Type.Kind()
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if t, err := decoder.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	for decoder.More() {
		t, err := decoder.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		kind, there := known[name]
		switch {
		case !there:
			return fmt.Errorf("unknown name %s", strconv.QuoteToASCII(clip(name)))
		case kind == reflect.Invalid:
			return fmt.Errorf("the name %q stands there twice", name)
		}
		known[name] = reflect.Invalid
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		// A queue is a small number in Go, and a text for a list of those would
		// be read as base64.
		if kind == reflect.Slice && value[0] != '[' {
			return fmt.Errorf("%s: not a list", name)
		}
		if err := checkJSONValue(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

// checkJSONValue refuses null, alone or in a list, and the empty text, which
// as "where" would mean "not given".
func checkJSONValue(value json.RawMessage) error {
	decoder := json.NewDecoder(bytes.NewReader(value))
	for {
		t, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		switch {
		case err != nil:
			return err
		case t == nil:
			return errors.New("null is no value")
		case t == "":
			return errEmpty
		}
	}
}
