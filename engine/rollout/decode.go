package rollout

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/wording"
)

const listMost = 100_000 // elements of a list that is decoded

// Decode reads JSON into a struct (by its json tags), strictly: members that it
// doesn't have, and members that come twice, are errors that say where and which
// one was perhaps meant; so are values of the wrong kind. Null is as if the
// member were not there. Path is what errors call the document. The error is
// [Faults]; what could be read has been.
//
// Types that read themselves (json.Unmarshaler) do so, without strictness;
// json.RawMessage takes what is there. Into is a pointer to a struct without
// embedded ones.
func Decode(text []byte, path string, into any) error {
	var d decoding
	if err := check(text); err != nil {
		d.faults.add(path, err.Error(), "a JSON object")
		return d.faults
	}
	d.value(bytes.TrimSpace(text), path, reflect.ValueOf(into).Elem())
	return d.faults.err()
}

// check says what is wrong with the syntax of a JSON text.
func check(text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("is empty")
	}
	var raw json.RawMessage
	err := json.Unmarshal(text, &raw)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return errors.New("is not JSON at byte " + strconv.FormatInt(syntax.Offset, 10) + ": " + syntax.Error())
	}
	return err
}

type decoding struct{ faults Faults }

// value reads one value; text is valid JSON without space around it.
func (d *decoding) value(text []byte, path string, v reflect.Value) {
	if string(text) == "null" {
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(text, path, v.Elem())
		return
	}
	if own, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		d.own(own, text, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.object(text, path, v)
	case reflect.Slice:
		d.list(text, path, v)
	case reflect.Map:
		d.plain(text, path, v, "an object of texts")
	case reflect.String:
		d.plain(text, path, v, "a text")
	case reflect.Bool:
		d.plain(text, path, v, "true or false")
	case reflect.Int, reflect.Int64:
		d.plain(text, path, v, "a whole number")
	default:
		d.plain(text, path, v, "a number")
	}
}

func (d *decoding) own(v json.Unmarshaler, text []byte, path string) {
	err := v.UnmarshalJSON(text)
	if err == nil {
		return
	}
	if f, ok := errors.AsType[Fault](err); ok {
		d.faults.add(path+f.Path, f.Reason, f.Expected)
		return
	}
	expected := ""
	if _, ok := v.(*time.Time); ok {
		expected = `a time such as "2026-01-31T22:00:00Z"`
	}
	d.faults.add(path, "found "+kindOf(text), expected)
}

func (d *decoding) plain(text []byte, path string, v reflect.Value, expected string) {
	if json.Unmarshal(text, v.Addr().Interface()) != nil {
		d.faults.add(path, "found "+kindOf(text), expected)
	}
}

func (d *decoding) list(text []byte, path string, v reflect.Value) {
	var elements []json.RawMessage
	if json.Unmarshal(text, &elements) != nil {
		d.faults.add(path, "found "+kindOf(text), "a list")
		return
	}
	if len(elements) > listMost {
		d.faults.add(path, "has "+strconv.Itoa(len(elements))+" elements", "at most "+strconv.Itoa(listMost))
		return
	}
	if len(elements) == 0 {
		return // as if it were not there
	}
	list := reflect.MakeSlice(v.Type(), len(elements), len(elements))
	for i, e := range elements {
		at := path + "[" + strconv.Itoa(i) + "]"
		if string(e) == "null" {
			d.faults.add(at, "found null", "")
			continue
		}
		d.value(e, at, list.Index(i))
	}
	v.Set(list)
}

func (d *decoding) object(text []byte, path string, v reflect.Value) {
	r := json.NewDecoder(bytes.NewReader(text))
	if t, err := r.Token(); err != nil || t != json.Delim('{') {
		d.faults.add(path, "found "+kindOf(text), "an object")
		return
	}
	fields, names := members(v.Type())
	seen := map[string]bool{}
	for r.More() {
		t, err := r.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			d.faults.add(path, "can't be read", "an object")
			return
		}
		var raw json.RawMessage
		if err := r.Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
			d.faults.add(path, "can't be read", "an object")
			return
		}
		i, known := fields[name]
		switch {
		case !known:
			d.faults.add(path, "has no member "+quoted(name), wording.OneOf(names)+near(name, names))
		case seen[name]:
			d.faults.add(path+"."+name, "comes twice", "")
		default:
			seen[name] = true
			d.value(raw, path+"."+name, v.Field(i))
		}
	}
}

// members are the fields of a struct by their JSON names, and these in order.
func members(t reflect.Type) (fields map[string]int, names []string) {
	fields = make(map[string]int, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		fields[name] = i
		names = append(names, name)
	}
	return fields, names
}

// kindOf names what a JSON text is, and shows it if it is short.
func kindOf(text []byte) string {
	switch text = bytes.TrimSpace(text); {
	case len(text) == 0:
		return "nothing"
	case text[0] == '{':
		return "an object"
	case text[0] == '[':
		return "a list"
	case len(text) > quotedMost && text[0] == '"':
		return "a long text"
	case len(text) > quotedMost:
		return "a long number"
	}
	return string(text)
}
