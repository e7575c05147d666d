package pattern

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/engine/schema"
	"github.com/muster-hub/muster/engine/wording"
)

// Parameter describes one parameter as a field of a form and as a flag.
type Parameter struct {
	Name     string            `json:"name"`               // as the program sees it
	Title    string            `json:"title"`              // for people; the name if the schema has none
	Text     string            `json:"text,omitempty"`     // the schema's description
	Type     string            `json:"type,omitempty"`     // "string", "integer", "number", "boolean", "object" or "array"; empty: any
	Format   string            `json:"format,omitempty"`   // one of [Formats] or of JSON Schema's; empty: none
	Required bool              `json:"required,omitempty"` // and without default
	Default  json.RawMessage   `json:"default,omitempty"`  // nil: none
	Enum     []json.RawMessage `json:"enum,omitempty"`     // values to choose from; nil: any
	// Minimum and Maximum bound a number's value, a text's length in characters, or
	// a list's length; nil: no bound.
	Minimum *float64 `json:"minimum,omitempty"`
	Maximum *float64 `json:"maximum,omitempty"`
	Pattern string   `json:"pattern,omitempty"` // regular expression of a text
}

// Formats are those that texts may have beside JSON Schema's.
func Formats() []string { return []string{"duration", "query", "secret", "regex", "release"} }

// formats has what the schema package does not know; it knows "regex".
func formats() []schema.Format {
	return []schema.Format{
		{Name: "duration", Check: func(text string) string {
			if _, err := rollout.ParseDuration(text); err != nil {
				return `a duration such as "90s", "5m", "6h" or "2d"`
			}
			return ""
		}},
		{Name: "query", Check: func(text string) string {
			if _, err := query.ParsePredicate(text); err != nil && text != everything {
				return "a predicate over twins: " + clip(err.Error())
			}
			return ""
		}},
		{Name: "secret", Check: func(text string) string {
			if !isSecretName(text) {
				return "the name of a secret: letters, digits, dots, dashes and underscores, at most 64"
			}
			return ""
		}},
		{Name: "release", Check: func(string) string { return "" }},
	}
}

// everything is the query that selects all devices.
const everything = "*"

// property is what is read of the schema of one parameter.
type property struct {
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Type        json.RawMessage   `json:"type"`
	Format      string            `json:"format"`
	Default     json.RawMessage   `json:"default"`
	Enum        []json.RawMessage `json:"enum"`
	Const       json.RawMessage   `json:"const"`
	Pattern     string            `json:"pattern"`
	Minimum     *float64          `json:"minimum"`
	Maximum     *float64          `json:"maximum"`
	MinLength   *float64          `json:"minLength"`
	MaxLength   *float64          `json:"maxLength"`
	MinItems    *float64          `json:"minItems"`
	MaxItems    *float64          `json:"maxItems"`
}

// Parameters describes the parameters, those that must be given first, then by
// name. What the manifest has wrong is left out.
func (m *Manifest) Parameters() []Parameter {
	var list []Parameter
	for name, text := range members(m.Params) {
		var p property
		_ = json.Unmarshal(text, &p) // true and false describe nothing, and are schemas, too
		out := Parameter{
			Name: name, Title: p.Title, Text: p.Description, Type: p.kind(), Format: p.Format, Default: p.Default, Enum: p.Enum, Pattern: p.Pattern,
			Minimum: p.Minimum, Maximum: p.Maximum,
		}
		switch out.Type {
		case "string":
			out.Minimum, out.Maximum = p.MinLength, p.MaxLength
		case "array":
			out.Minimum, out.Maximum = p.MinItems, p.MaxItems
		}
		if out.Title == "" {
			out.Title = name
		}
		if p.Const != nil && out.Enum == nil {
			out.Enum = []json.RawMessage{p.Const}
		}
		out.Required = slices.Contains(m.Required, name) && out.Default == nil
		list = append(list, out)
	}
	slices.SortFunc(list, func(a, b Parameter) int {
		if a.Required != b.Required {
			if a.Required {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// kind is the one type that values have, beside null; empty: there are several.
func (p *property) kind() string {
	var one string
	if json.Unmarshal(p.Type, &one) == nil {
		return one
	}
	var several []string
	_ = json.Unmarshal(p.Type, &several) // no list: no type
	several = slices.DeleteFunc(several, func(s string) bool { return s == "null" })
	if len(several) == 1 {
		return several[0]
	}
	return ""
}

// Value is what a text of a form or flag stands for. A text is taken as it is
// where texts are expected; elsewhere, and where anything is, it is read as JSON.
func (p *Parameter) Value(text string) (json.RawMessage, error) {
	value := json.RawMessage(strings.TrimSpace(text))
	switch {
	case p.Type == "string":
		return marshal(text), nil
	case json.Valid(value):
		return value, nil
	case p.Type == "":
		return marshal(text), nil
	}
	return nil, rollout.Faults{{Path: p.Name, Reason: "found " + quote(text), Expected: typeInWords(p.Type)}}
}

// typeInWords is how a value of a type is written in a form or flag.
func typeInWords(kind string) string {
	switch kind {
	case "string":
		return "a text"
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
	case "boolean":
		return "true or false"
	case "object":
		return `JSON, an object such as {"a": 1}`
	case "array":
		return `JSON, a list such as ["a", "b"]`
	}
	return "a text, or JSON"
}

// members are those of a JSON object; nil if it is none.
func members(object json.RawMessage) map[string]json.RawMessage {
	var list map[string]json.RawMessage
	_ = json.Unmarshal(object, &list) // nil then
	return list
}

// marshal writes JSON without taking < and > for HTML.
func marshal(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // values here are what JSON was read into
		return json.RawMessage("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Schema returns the JSON Schema of the parameters: an object that has nothing
// but them.
func (m *Manifest) Schema() json.RawMessage {
	s := map[string]any{"type": "object", "additionalProperties": false, "properties": json.RawMessage("{}")}
	if len(m.Params) > 0 && json.Valid(m.Params) {
		s["properties"] = m.Params
	}
	if len(m.Required) > 0 {
		s["required"] = m.Required
	}
	return marshal(s)
}

// Complete checks parameters, a JSON object or nothing, and fills in the
// defaults of those that are missing, also within objects. Keys of the result are
// sorted. The error is [rollout.Faults] with all that is wrong; paths begin at the
// parameters: "delay".
func (m *Manifest) Complete(params json.RawMessage) (json.RawMessage, error) {
	wrong := func(reason, expected string) (json.RawMessage, error) {
		return nil, rollout.Faults{{Path: "params", Reason: reason, Expected: expected}}
	}
	given := map[string]any{}
	if text := bytes.TrimSpace(params); len(text) > 0 && string(text) != "null" {
		if len(text) > MaxValue {
			return wrong(fmt.Sprintf("has %d bytes", len(text)), fmt.Sprintf("at most %d", MaxValue))
		}
		if deeper(text, MaxDepth) {
			return wrong("nests too deep", fmt.Sprintf("at most %d", MaxDepth))
		}
		v, err := plain(text)
		object, ok := v.(map[string]any)
		switch {
		case err != nil:
			return wrong(err.Error(), "a JSON object")
		case !ok:
			return wrong("found "+clip(string(text)), "a JSON object")
		}
		given = object
	}
	compiled, err := schema.Compile(m.Schema(), MaxDepth, formats()...)
	if err != nil {
		return wrong("can't be checked: "+err.Error(), "another version of the pattern")
	}
	fill(given, m.Params, MaxDepth)
	if bad := compiled.Check(nil, given); len(bad) > 0 {
		known := slices.Sorted(maps.Keys(members(m.Params)))
		var faults rollout.Faults
		for _, v := range bad[:min(len(bad), faultsMost)] {
			f := rollout.Fault{Path: v.Path, Reason: "found " + v.Found, Expected: v.Expected}
			if _, have := members(m.Params)[v.Path]; !have && !strings.Contains(v.Path, ".") && v.Path != "" {
				f.Reason, f.Expected = "is no parameter", "nothing: the pattern has no parameters"
				if len(known) > 0 {
					f.Expected = wording.OneOf(known)
				}
				if near := wording.Nearest(v.Path, known); near != "" {
					f.Expected += `; did you mean "` + near + `"?`
				}
			}
			faults = append(faults, f)
		}
		return nil, faults
	}
	out := marshal(given)
	if len(out) > MaxValue {
		return wrong(fmt.Sprintf("has %d bytes with its defaults", len(out)), fmt.Sprintf("at most %d", MaxValue))
	}
	return out, nil
}

// fill sets members that are missing to the defaults that a schema's properties
// have, also in objects that are there.
func fill(object map[string]any, properties json.RawMessage, depth int) {
	if depth == 0 {
		return
	}
	for name, text := range members(properties) {
		var p struct {
			Default    json.RawMessage `json:"default"`
			Properties json.RawMessage `json:"properties"`
		}
		if json.Unmarshal(text, &p) != nil {
			continue
		}
		v, have := object[name]
		if !have && p.Default != nil {
			if d, err := plain(p.Default); err == nil {
				object[name], v = d, d
			}
		}
		if inner, ok := v.(map[string]any); ok {
			fill(inner, p.Properties, depth-1)
		}
	}
}

// plain reads JSON into what the schema package checks: whole numbers as int64,
// others as float64.
func plain(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if d.More() {
		return nil, fmt.Errorf("is more than one JSON value")
	}
	v, err := schema.Numbers(v)
	if err != nil {
		return nil, fmt.Errorf("can't be taken: %w", err)
	}
	return v, nil
}

// deeper reports whether JSON nests deeper than it may.
func deeper(text []byte, most int) bool {
	depth, inText := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
