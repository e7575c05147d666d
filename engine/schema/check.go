package schema

import (
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// Violation is one thing that a document has otherwise than its schema says.
type Violation struct {
	Path     string // keys and indexes with dots between them; "" is the document
	Expected string
	Found    string
	// Known is set when the document before had the same violation and nothing
	// else was written in its place: then the change is not to blame.
	Known bool

	keyword  string
	location []string
}

// Check returns what is wrong with a document after a change, at most a hundred
// violations in the order of their paths. Documents are made of map[string]any,
// []any, string, bool, nil, int64 and finite float64. before gives the document
// before the change, and is asked only when something is wrong; nil when there
// was none.
func (s *Schema) Check(before func() any, now any) []Violation {
	list := s.violations(now)
	if len(list) == 0 || before == nil {
		return list
	}
	then := before()
	old := map[string]bool{}
	for _, v := range s.violations(then) {
		old[v.Path+" "+v.keyword] = true
	}
	for i := range list {
		v := &list[i]
		if old[v.Path+" "+v.keyword] {
			a, b := find(then, v.location), find(now, v.location)
			v.Known = nested(a) && nested(b) || reflect.DeepEqual(a, b)
		}
	}
	return list
}

func nested(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

func find(v any, path []string) any {
	for _, key := range path {
		switch in := v.(type) {
		case map[string]any:
			v = in[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (s *Schema) violations(doc any) []Violation {
	if n := values(doc); n*s.cost > workMost {
		return []Violation{{
			Expected: fmt.Sprintf("at most %d values, as many as this schema can be checked on", workMost/s.cost),
			Found:    strconv.Itoa(n), keyword: "size",
		}}
	}
	err := s.compiled.Validate(doc)
	if err == nil {
		return nil
	}
	v, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []Violation{{Expected: "a document that can be checked", Found: err.Error(), keyword: "error"}}
	}
	list := flatten(nil, v, doc)
	slices.SortStableFunc(list, func(a, b Violation) int { return strings.Compare(a.Path, b.Path) })
	list = slices.CompactFunc(list, func(a, b Violation) bool { return a.Path == b.Path && a.keyword == b.keyword })
	return list[:min(len(list), reportMost)]
}

// flatten lists the leaves of the library's tree of errors. What lies below
// alternatives is what each of them would have liked: it counts as one.
func flatten(list []Violation, e *jsonschema.ValidationError, doc any) []Violation {
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		expected := "one of the alternatives of " + e.ErrorKind.KeywordPath()[0]
		if one, ok := k.(*kind.OneOf); ok && len(one.Subschemas) > 1 {
			expected = "exactly one of the alternatives of oneOf"
		}
		if wants := alternatives(e); len(wants) > 0 {
			expected += ": " + strings.Join(wants, ", or ")
		}
		return append(list, leaf(at, e.ErrorKind.KeywordPath()[0], expected, show(find(doc, at))))
	case *kind.Required:
		for _, key := range k.Missing {
			list = append(list, leaf(below(at, key), "required", "a value: it is required", "nothing"))
		}
		return list
	case *kind.DependentRequired:
		for _, key := range k.Missing {
			list = append(list, leaf(below(at, key), "required", "a value: it is required where "+k.Prop+" is", "nothing"))
		}
		return list
	case *kind.AdditionalProperties:
		for _, key := range k.Properties {
			list = append(list, leaf(below(at, key), "additionalProperties", "nothing: the schema has no such property", show(find(doc, below(at, key)))))
		}
		return list
	case *kind.FalseSchema:
		return append(list, leaf(at, "false", "nothing: the schema has no place for it", show(find(doc, at))))
	case *kind.PropertyNames:
		return append(list, leaf(below(at, k.Property), "propertyNames", "another name, as propertyNames says", strconv.Quote(k.Property)))
	}
	if len(e.Causes) > 0 {
		for _, c := range e.Causes {
			list = flatten(list, c, doc)
		}
		return list
	}
	keyword := strings.Join(e.ErrorKind.KeywordPath(), ".")
	return append(list, leaf(at, keyword, wanted(e.ErrorKind), show(find(doc, at))))
}

// alternatives is what the alternatives at one value expected of the value
// itself, at most three.
func alternatives(e *jsonschema.ValidationError) []string {
	var list []string
	for _, c := range e.Causes {
		for _, v := range flatten(nil, c, nil) {
			if slices.Equal(v.location, e.InstanceLocation) && !slices.Contains(list, v.Expected) {
				list = append(list, v.Expected)
			}
		}
	}
	return list[:min(len(list), 3)]
}

func below(at []string, key string) []string { return append(slices.Clone(at), key) }

func leaf(at []string, keyword, expected, found string) Violation {
	return Violation{Path: strings.Join(at, "."), Expected: expected, Found: found, keyword: keyword, location: at}
}

// wanted says what a keyword asks for.
func wanted(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return strings.Join(k.Want, " or ")
	case *kind.Enum:
		return "one of " + shortList(k.Want)
	case *kind.Const:
		return show(k.Want)
	case *kind.Format:
		if k.Want == "regex" && k.Err != nil {
			return "a regular expression: " + k.Err.Error()
		}
		if own, ok := errors.AsType[wrongFormat](k.Err); ok {
			return string(own)
		}
		return "a " + k.Want
	case *kind.Pattern:
		return "text that matches " + strconv.Quote(k.Want)
	case *kind.Minimum:
		return "at least " + number(k.Want)
	case *kind.Maximum:
		return "at most " + number(k.Want)
	case *kind.ExclusiveMinimum:
		return "more than " + number(k.Want)
	case *kind.ExclusiveMaximum:
		return "less than " + number(k.Want)
	case *kind.MultipleOf:
		return "a multiple of " + number(k.Want)
	case *kind.MinLength:
		return "at least " + strconv.Itoa(k.Want) + " characters"
	case *kind.MaxLength:
		return "at most " + strconv.Itoa(k.Want) + " characters"
	case *kind.MinItems:
		return "at least " + strconv.Itoa(k.Want) + " items"
	case *kind.MaxItems:
		return "at most " + strconv.Itoa(k.Want) + " items"
	case *kind.MinProperties:
		return "at least " + strconv.Itoa(k.Want) + " properties"
	case *kind.MaxProperties:
		return "at most " + strconv.Itoa(k.Want) + " properties"
	case *kind.UniqueItems:
		return "items that are all different"
	case *kind.Not:
		return "none of what `not` describes"
	}
	return "what the schema says under " + strings.Join(k.KeywordPath(), ".")
}

func number(r *big.Rat) string {
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func shortList(list []any) string {
	var texts []string
	for _, v := range list[:min(len(list), 10)] {
		texts = append(texts, show(v))
	}
	if len(list) > 10 {
		texts = append(texts, "...")
	}
	return strings.Join(texts, ", ")
}

// show is a value in a message: a scalar as it is, cut short.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		if len(v) > 80 {
			v = strings.ToValidUTF8(v[:80], "") + "..."
		}
		return strconv.Quote(v)
	case map[string]any:
		return "an object of " + strconv.Itoa(len(v)) + " members"
	case []any:
		return "an array of " + strconv.Itoa(len(v)) + " items"
	}
	return fmt.Sprint(v)
}
