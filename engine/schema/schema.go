// Package schema checks the documents of twins against JSON Schemas that an
// operator has declared.
//
// The package is pure, and what it does is bounded whatever the schema and the
// document: references lead nowhere but into the schema itself, patterns are
// RE2 of a bounded size, and a schema's cost for a value is known before it is
// taken.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Bounds of a schema and of a check.
const (
	patternBytes = 1 << 10
	patternSize  = 500       // instructions of its program
	costMost     = 500       // schemas that are looked at for one value and what it lies in
	workMost     = 2_000_000 // the same for a whole document
	reportMost   = 100       // violations that one check returns
)

// Schema is a compiled JSON Schema, safe for concurrent use.
type Schema struct {
	compiled *jsonschema.Schema
	cost     int
}

// location is what errors of the library call the schema; nothing is read from
// there.
const location = "urn:muster:declared"

// sealed loads nothing.
type sealed struct{}

func (sealed) Load(url string) (any, error) {
	return nil, fmt.Errorf("%q lies outside of the schema", url)
}

// Format is a format that texts may have beside those of JSON Schema, or in the
// place of one of them.
type Format struct {
	Name  string
	Check func(text string) (expected string) // empty: the text is one
}

// wrongFormat is what a text was expected to be.
type wrongFormat string

func (w wrongFormat) Error() string { return string(w) }

// Compile reads a schema of draft 4, 6, 7, 2019-09 or 2020-12, which is taken
// when it names none. Documents nest at most depth deep. The error says what is
// wrong and where, for whoever wrote the schema.
func Compile(text []byte, depth int, formats ...Format) (*Schema, error) {
	doc, err := decode(text)
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(sealed{})
	c.UseRegexpEngine(pattern)
	c.AssertFormat()
	for _, f := range formats {
		c.RegisterFormat(&jsonschema.Format{Name: f.Name, Validate: func(v any) error {
			if text, ok := v.(string); ok {
				if expected := f.Check(text); expected != "" {
					return wrongFormat(expected)
				}
			}
			return nil
		}})
	}
	if err := c.AddResource(location, doc); err != nil {
		return nil, err
	}
	compiled, err := c.Compile(location)
	if err != nil {
		return nil, errors.New(plain(err, doc))
	}
	m := measure{known: map[measured]int{}}
	cost, err := m.of(compiled, depth)
	if err != nil {
		return nil, err
	}
	if cost > costMost {
		return nil, fmt.Errorf("a value would be looked at up to %d times; expected at most %d: combine fewer schemas by allOf, anyOf, oneOf, if and $ref, or list fewer values", cost, costMost)
	}
	return &Schema{compiled, cost}, nil
}

// plain is what the library says of a schema that it refuses, in one line.
func plain(err error, doc any) string {
	if e, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if v, ok := errors.AsType[*jsonschema.ValidationError](e.Err); ok {
			if list := flatten(nil, v, doc); len(list) > 0 {
				return "it is no JSON Schema: at " + strconv.Quote(list[0].Path) + " found " + list[0].Found + ", expected " + list[0].Expected
			}
		}
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), location, "")), " ")
}

// pattern compiles a regular expression that can't hurt: RE2 takes time that is
// linear in the text, and its program is small.
func pattern(text string) (jsonschema.Regexp, error) {
	if len(text) > patternBytes {
		return nil, fmt.Errorf("a pattern has %d bytes; expected at most %d", len(text), patternBytes)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(program.Inst); n > patternSize {
		return nil, fmt.Errorf("the pattern %.80q takes %d steps a character; expected at most %d: use maxLength instead of large repetitions", text, n, patternSize)
	}
	return regexp.Compile(text)
}

// decode reads JSON with numbers as int64 or float64: the library would raise
// ten to any exponent that a text names.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it is more than one JSON value")
	}
	return Numbers(v)
}

// Numbers makes int64 and float64 of the json.Number values in a decoded document,
// in place: the former where the number is whole and fits. It is an error when one
// is beyond a float64.
func Numbers(v any) (_ any, err error) {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		f, err := v.Float64()
		if err != nil || math.IsInf(f, 0) {
			return nil, fmt.Errorf("the number %.40s is out of range", v)
		}
		return f, nil
	case []any:
		for i := range v {
			if v[i], err = Numbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = Numbers(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// values counts the values of a document, itself included.
func values(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			n += values(x)
		}
	case map[string]any:
		for _, x := range v {
			n += values(x)
		}
	}
	return n
}

// measure finds how many schemas are looked at for one value and those that it
// lies in: branches that look at the same value add up, and of those for the
// parts of a value the dearest counts, since parts are different values.
type measure struct {
	known map[measured]int // -1: being measured
}

type measured struct {
	schema *jsonschema.Schema
	depth  int
}

func (m *measure) of(s *jsonschema.Schema, depth int) (int, error) {
	if s == nil || depth < 0 {
		return 0, nil
	}
	at := measured{s, depth}
	if n, ok := m.known[at]; ok {
		if n < 0 {
			return 0, errors.New("a $ref leads back to itself without going into a value; expected references that end")
		}
		return n, nil
	}
	if s.DynamicRef != nil || s.RecursiveRef != nil {
		return 0, errors.New("$dynamicRef and $recursiveRef are not taken; expected $ref")
	}
	m.known[at] = -1
	cost := 1
	if s.Enum != nil {
		cost += len(s.Enum.Values)
	}
	same, parts := under(s)
	for _, x := range same {
		n, err := m.of(x, depth)
		if err != nil {
			return 0, err
		}
		cost = min(cost+n, math.MaxInt32)
	}
	most := 0
	for _, x := range parts {
		n, err := m.of(x, depth-1)
		if err != nil {
			return 0, err
		}
		most = max(most, n)
	}
	// patternProperties may look at a part as often as there are patterns.
	cost = min(cost+most*max(1, len(s.PatternProperties)), math.MaxInt32)
	m.known[at] = cost
	return cost, nil
}

// under returns the schemas for the same value, and those for its parts.
func under(s *jsonschema.Schema) (same, parts []*jsonschema.Schema) {
	same = slices.Concat([]*jsonschema.Schema{s.Ref, s.Not, s.If, s.Then, s.Else}, s.AllOf, s.AnyOf, s.OneOf)
	for _, x := range s.DependentSchemas {
		same = append(same, x)
	}
	for _, x := range s.Dependencies {
		if x, ok := x.(*jsonschema.Schema); ok {
			same = append(same, x)
		}
	}
	parts = slices.Concat([]*jsonschema.Schema{s.PropertyNames, s.UnevaluatedProperties, s.Contains, s.Items2020, s.UnevaluatedItems, s.ContentSchema}, s.PrefixItems)
	for _, x := range s.Properties {
		parts = append(parts, x)
	}
	for _, x := range s.PatternProperties {
		parts = append(parts, x)
	}
	for _, x := range []any{s.AdditionalProperties, s.Items, s.AdditionalItems} {
		switch x := x.(type) {
		case *jsonschema.Schema:
			parts = append(parts, x)
		case []*jsonschema.Schema:
			parts = append(parts, x...)
		}
	}
	return same, parts
}
