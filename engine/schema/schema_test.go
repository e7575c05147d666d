package schema

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const depth = 10

func compile(t *testing.T, text string) *Schema {
	t.Helper()
	s, err := Compile([]byte(text), depth)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func document(t *testing.T, text string) any {
	t.Helper()
	v, err := decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCheck(t *testing.T) {
	const schema = `{
		"type": "object", "additionalProperties": false, "required": ["site"],
		"properties": {
			"site": {"type": "string", "pattern": "^[A-Z]{1,3}$"},
			"floor": {"type": "integer", "minimum": -3, "exclusiveMaximum": 200},
			"kind": {"enum": ["pump", "valve", 3]},
			"installed": {"type": "string", "format": "date"},
			"ports": {"type": "array", "maxItems": 2, "uniqueItems": true, "items": {"type": "number", "multipleOf": 0.5}},
			"any": {"anyOf": [{"type": "string"}, {"type": "object", "required": ["x"]}]},
			"old": false,
			"mode": {"$ref": "#/$defs/mode"}
		},
		"$defs": {"mode": {"const": "auto"}}
	}`
	s := compile(t, schema)
	for _, c := range []struct{ doc, want string }{
		{`{"site":"A","floor":2,"kind":3,"installed":"2026-01-31","ports":[0.5,1],"any":{"x":1},"mode":"auto"}`, ``},
		{`{"site":"A","floor":2.0}`, ``},
		{`{}`, `site: found nothing, expected a value: it is required`},
		{`{"site":"A","color":"red"}`, `color: found "red", expected nothing: the schema has no such property`},
		{`{"site":"abc"}`, `site: found "abc", expected text that matches "^[A-Z]{1,3}$"`},
		{`{"site":7}`, `site: found 7, expected string`},
		{`{"site":"A","floor":1e300}`, `floor: found 1e+300, expected less than 200`},
		{`{"site":"A","floor":-4}`, `floor: found -4, expected at least -3`},
		{`{"site":"A","floor":1.5}`, `floor: found 1.5, expected integer`},
		{`{"site":"A","kind":"tap"}`, `kind: found "tap", expected one of "pump", "valve", 3`},
		{`{"site":"A","installed":"yesterday"}`, `installed: found "yesterday", expected a date`},
		{`{"site":"A","ports":[1,1]}`, `ports: found an array of 2 items, expected items that are all different`},
		{`{"site":"A","ports":[1,"2",3]}`, `ports: found an array of 3 items, expected at most 2 items|ports.1: found "2", expected number`},
		{`{"site":"A","ports":[0.3]}`, `ports.0: found 0.3, expected a multiple of 0.5`},
		{`{"site":"A","any":7}`, `any: found 7, expected one of the alternatives of anyOf: string, or object`},
		{`{"site":"A","old":null}`, `old: found null, expected nothing: the schema has no place for it`},
		{`{"site":"A","mode":"manual"}`, `mode: found "manual", expected "auto"`},
	} {
		var got []string
		for _, v := range s.Check(nil, document(t, c.doc)) {
			got = append(got, fmt.Sprintf("%s: found %s, expected %s", v.Path, v.Found, v.Expected))
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.doc, strings.Join(got, "|"), c.want)
		}
	}
}

// What was wrong before a change, and stayed as it was, is not the change's.
func TestKnown(t *testing.T) {
	s := compile(t, `{"required":["site"],"properties":{"level":{"type":"number"},"in":{"minProperties":3}}}`)
	for _, c := range []struct {
		before, after string
		want          string
	}{
		{`{"level":"low"}`, `{"level":"low","x":1}`, `level=true site=true`},
		{`{"level":"low"}`, `{"level":"lower"}`, `level=false site=true`},
		{`{"level":1,"site":"A"}`, `{"level":"low","site":"A"}`, `level=false`},
		{`{"site":"A"}`, `{}`, `site=false`},
		{`{"site":"A","in":{"a":1}}`, `{"site":"A","in":{"a":2}}`, `in=true`},
		{`{"site":"A","in":{"a":1,"b":1,"c":1}}`, `{"site":"A","in":{"a":2}}`, `in=false`},
	} {
		var got []string
		for _, v := range s.Check(func() any { return document(t, c.before) }, document(t, c.after)) {
			got = append(got, fmt.Sprintf("%s=%t", v.Path, v.Known))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s to %s: got %s, want %s", c.before, c.after, strings.Join(got, " "), c.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	var doubling strings.Builder
	doubling.WriteString(`{"$defs":{`)
	for i := range 30 {
		doubling.WriteString(fmt.Sprintf(`"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1))
	}
	doubling.WriteString(`"d30":{"type":"string"}},"$ref":"#/$defs/d0"}`)
	for _, c := range []struct{ name, schema, want string }{
		{"not json", `{"type":`, "it is not JSON"},
		{"two values", `{} {}`, "more than one JSON value"},
		{"not a schema", `[1]`, "it is no JSON Schema"},
		{"unknown type", `{"properties":{"a":{"type":"int"}}}`, `it is no JSON Schema: at "properties.a.type"`},
		{"remote", `{"$ref":"https://example.com/schema.json"}`, "lies outside of the schema"},
		{"file", `{"$ref":"file:///etc/passwd"}`, "lies outside of the schema"},
		{"dangling", `{"$ref":"#/$defs/none"}`, "none"},
		{"cycle", `{"$ref":"#"}`, "leads back to itself"},
		{"cycle of two", `{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"anyOf":[{"$ref":"#"}]}}}`, "leads back to itself"},
		{"dynamic", `{"properties":{"a":{"$dynamicRef":"#"}}}`, "expected $ref"},
		{"pattern", `{"pattern":"("}`, "missing closing"},
		{"lookahead", `{"pattern":"(?=a)b"}`, "a regular expression: "},
		{"large pattern", `{"pattern":"(a{30}){30}"}`, "steps a character"},
		{"long pattern", `{"pattern":"` + strings.Repeat("a", 2000) + `"}`, "2000 bytes"},
		{"doubling", doubling.String(), "looked at up to"},
		{"doubling by depth", `{"allOf":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"}}}]}`, "looked at up to"},
		{"patterns by depth", `{"patternProperties":{"a":{"$ref":"#"},"b":{"$ref":"#"},"c":{"$ref":"#"}}}`, "looked at up to"},
		{"long enum", `{"enum":[` + strings.Repeat("1,", 600) + `2]}`, "looked at up to"},
		{"number", `{"minimum":1e999999999}`, "out of range"},
		{"draft", `{"$schema":"https://example.com/draft"}`, "outside of the schema"},
	} {
		_, err := Compile([]byte(c.schema), depth)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, err, c.want)
		}
	}
}

// A tree that refers to itself is a schema that people write.
func TestCompileTakesTrees(t *testing.T) {
	s := compile(t, `{"type":"object","additionalProperties":{"$ref":"#"},"properties":{"left":{"$ref":"#"},"right":{"$ref":"#"}}}`)
	if list := s.Check(nil, document(t, `{"left":{"right":{"x":{}}}}`)); len(list) != 0 {
		t.Error(list)
	}
	if list := s.Check(nil, document(t, `{"left":{"right":{"x":{"y":1}}}}`)); len(list) != 1 || list[0].Path != "left.right.x.y" {
		t.Error(list)
	}
	for _, draft := range []string{"http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema"} {
		compile(t, `{"$schema":"`+draft+`","type":"object"}`)
	}
}

func TestCheckRefusesWhatIsTooDear(t *testing.T) {
	s := compile(t, `{"properties":{"list":{"items":{"enum":[`+strings.Repeat(`"x",`, 450)+`"y"]}}}}`)
	list := s.Check(nil, document(t, `{"list":[`+strings.Repeat(`"a",`, 50_000)+`"a"]}`))
	if len(list) != 1 || !strings.Contains(list[0].Expected, "values, as many as this schema can be checked on") {
		t.Error(list)
	}
}

func FuzzCompileAndCheck(f *testing.F) {
	f.Add(`{"type":"object","properties":{"a":{"enum":[1,2]}}}`, `{"a":3}`)
	f.Add(`{"oneOf":[{"required":["a"]},{"required":["b"]}],"unevaluatedProperties":false}`, `{"a":1,"b":2}`)
	f.Add(`{"$ref":"#/$defs/x","$defs":{"x":{"if":{"type":"object"},"then":{"propertyNames":{"maxLength":2}}}}}`, `{"abc":[1]}`)
	f.Fuzz(func(t *testing.T, schema, doc string) {
		if len(schema) > 4096 || len(doc) > 4096 || !json.Valid([]byte(doc)) {
			return
		}
		begun := time.Now()
		s, err := Compile([]byte(schema), depth)
		if err != nil {
			return
		}
		v, err := decode([]byte(doc))
		if err != nil {
			return
		}
		for _, v := range s.Check(func() any { return v }, v) {
			if v.Expected == "" || v.Found == "" {
				t.Errorf("a violation says nothing: %+v", v)
			}
		}
		if d := time.Since(begun); d > time.Minute {
			t.Errorf("it took %s", d)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	s, err := Compile([]byte(`{"properties":{"battery":{"type":"number","minimum":0},"firmware":{"type":"string"},"site":{"type":"string"}}}`), depth)
	if err != nil {
		b.Fatal(err)
	}
	doc, err := decode([]byte(`{"battery":20,"firmware":"1.2.3","site":"A","network":{"rssi":-60,"name":"wlan"},"uptime":123456}`))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(s.Check(nil, doc)) > 0 {
			b.Fatal("it has a violation")
		}
	}
}
