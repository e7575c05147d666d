package service

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every route that is served is described, and nothing else is.
func TestOpenAPIDescribesEveryRoute(t *testing.T) {
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(describe(routes()), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("openapi is %q", doc.OpenAPI)
	}
	described := 0
	for _, item := range doc.Paths {
		for method := range item {
			if method != "parameters" {
				described++
			}
		}
	}
	served := 0
	for _, r := range routes() {
		if r.later != "" {
			continue
		}
		served++
		var op struct {
			OperationID string
			Summary     string
			Description string
			Tags        []string
			Parameters  []struct{ Name, In string }
			RequestBody *struct{ Content map[string]any }
			Responses   map[string]struct {
				Description string
				Content     map[string]any
			}
		}
		raw, ok := doc.Paths[r.pattern][strings.ToLower(r.method)]
		if !ok {
			t.Errorf("%s is not described", r.label())
			continue
		}
		if err := json.Unmarshal(raw, &op); err != nil {
			t.Fatal(err)
		}
		if op.OperationID != r.operation || op.Summary == "" || op.Description == "" || len(op.Tags) != 1 {
			t.Errorf("%s: %+v", r.label(), op)
		}
		if (op.RequestBody != nil) != (r.request != nil) {
			t.Errorf("%s: request body", r.label())
		}
		ok2 := op.Responses[strconv.Itoa(max(r.status, 200))]
		if (ok2.Content != nil) != (r.response != nil || r.content != "") || op.Responses["default"].Content == nil {
			t.Errorf("%s: responses %+v", r.label(), op.Responses)
		}
		hasVersion := slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == "api-version" })
		if hasVersion != (r.shape != shapeProblem) {
			t.Errorf("%s: api-version", r.label())
		}
		var inPath []struct{ Name string }
		if strings.Contains(r.pattern, "{") {
			if err := json.Unmarshal(doc.Paths[r.pattern]["parameters"], &inPath); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range inPath {
			if !strings.Contains(r.pattern, "{"+p.Name+"}") {
				t.Errorf("%s: parameter %s", r.label(), p.Name)
			}
		}
		if len(inPath) != strings.Count(r.pattern, "{") {
			t.Errorf("%s: %d path parameters", r.label(), len(inPath))
		}
	}
	if served != described {
		t.Errorf("%d routes are served, %d described", served, described)
	}
}

// References lead somewhere, and two types do not share a component.
func TestOpenAPIComponents(t *testing.T) {
	var doc struct {
		Components struct{ Schemas map[string]any }
	}
	raw := describe(routes())
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(raw), `"#/components/schemas/`)[1:] {
		name := part[:strings.IndexByte(part, '"')]
		if _, ok := doc.Components.Schemas[name]; !ok {
			t.Errorf("%s is referred to and missing", name)
		}
	}
	owner := map[string]reflect.Type{}
	var walk func(reflect.Type)
	walk = func(t2 reflect.Type) {
		t2 = described(t2)
		switch t2.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t2.Elem())
		case reflect.Struct:
			if t2.PkgPath() == "time" {
				return
			}
			name := componentName(t2)
			if o, ok := owner[name]; ok {
				if o != t2 {
					t.Errorf("%v and %v are both %s", o, t2, name)
				}
				return
			}
			owner[name] = t2
			for f := range t2.Fields() {
				walk(f.Type)
			}
		}
	}
	for _, r := range routes() {
		for _, v := range []any{r.request, r.response} {
			if v != nil {
				walk(reflect.TypeOf(v))
			}
		}
	}
}

// specification checks answers of the running handler against the document.
type specification struct {
	doc map[string]any
}

func newSpecification(tb testing.TB) *specification {
	tb.Helper()
	s := &specification{}
	if err := json.Unmarshal(describe(routes()), &s.doc); err != nil {
		tb.Fatal(err)
	}
	return s
}

// check compares a body with what the document says of that operation's status.
func (s *specification) check(tb testing.TB, r *route, status int, body []byte) {
	tb.Helper()
	op := dig(s.doc, "paths", r.pattern, strings.ToLower(r.method))
	response := dig(op, "responses", strconv.Itoa(status))
	if response == nil {
		response = dig(op, "responses", "default")
	}
	content, _ := dig(response, "content").(map[string]any)
	if content == nil {
		if len(body) != 0 {
			tb.Errorf("%s %d: a body where none is described: %s", r.label(), status, body)
		}
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		tb.Errorf("%s %d: %v in %s", r.label(), status, err, body)
		return
	}
	for media := range content {
		if err := s.validate(dig(content, media, "schema"), v, "$"); err != nil {
			tb.Errorf("%s %d: %v in %s", r.label(), status, err, body)
		}
	}
}

func dig(v any, path ...string) any {
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

// validate knows the part of JSON Schema that describe makes, and refuses
// members that an object's schema does not name.
func (s *specification) validate(schema, v any, path string) error {
	m, _ := schema.(map[string]any)
	if ref, ok := m["$ref"].(string); ok {
		return s.validate(dig(s.doc, "components", "schemas", strings.TrimPrefix(ref, "#/components/schemas/")), v, path)
	}
	if all, ok := m["allOf"].([]any); ok {
		return s.validate(all[0], v, path)
	}
	if some, ok := m["anyOf"].([]any); ok {
		var last error
		for _, one := range some {
			if last = s.validate(one, v, path); last == nil {
				return nil
			}
		}
		return last
	}
	var kinds []any
	switch k := m["type"].(type) {
	case string:
		kinds = []any{k}
	case []any:
		kinds = k
	}
	if kinds != nil && !slices.ContainsFunc(kinds, func(k any) bool { return is(k, v) }) {
		return fmt.Errorf("%s is %T, want %v", path, v, kinds)
	}
	if enum, ok := m["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s is %v, want one of %v", path, v, enum)
	}
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			if err := s.validate(m["items"], e, path+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	case map[string]any:
		properties, named := m["properties"].(map[string]any)
		required, _ := m["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				return fmt.Errorf("%s lacks %v", path, name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			sub, ok := properties[name]
			if named && !ok {
				return fmt.Errorf("%s has %s, which is not described", path, name)
			}
			if err := s.validate(sub, v[name], path+"."+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func is(kind, v any) bool {
	switch kind {
	case "null":
		return v == nil
	case "integer":
		n, ok := v.(float64)
		return ok && n == float64(int64(n))
	case "number":
		_, ok := v.(float64)
		return ok
	case "string":
		_, ok := v.(string)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "array":
		_, ok := v.([]any)
		return ok
	case "object":
		_, ok := v.(map[string]any)
		return ok
	}
	return false
}
