package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAssignments(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"tags.a=1", `{"tags":{"a":1}}`},
		{"desired.a=text", `{"properties":{"desired":{"a":"text"}}}`},
		{"properties.desired.a=true", `{"properties":{"desired":{"a":true}}}`},
		{"desired.a.b=1 desired.a.c=2", `{"properties":{"desired":{"a":{"b":1,"c":2}}}}`},
		{"tags.a=1.50 tags.b=12345678901234567890", `{"tags":{"a":1.50,"b":12345678901234567890}}`},
		{"tags.a=null tags.b=\"null\"", `{"tags":{"a":null,"b":"null"}}`},
		{"tags.a=[1,2]", `{"tags":{"a":[1,2]}}`},
		{"tags.a={\"b\":1}", `{"tags":{"a":{"b":1}}}`},
		{"tags.a=b=c", `{"tags":{"a":"b=c"}}`},
		{"tags.a=", `{"tags":{"a":""}}`},
		{"tags={\"a\":1}", `{"tags":{"a":1}}`},
		{"tags=null", `{"tags":null}`},
		{"tags.a=2.0.1", `{"tags":{"a":"2.0.1"}}`},
		{"tags.<x>=&", `{"tags":{"<x>":"&"}}`},
	} {
		got, err := parseAssignments(strings.Fields(c.args))
		if err != nil || string(got) != c.want {
			t.Errorf("%s is %s, want %s: %v", c.args, got, c.want, err)
		}
	}
	for _, args := range []string{
		"tags.a", "a=1", "=1", "tags..a=1", ".tags.a=1", "tags.=1", "reported.a=1", "tags=1", "desired=x",
		"tags.a=1 tags.a=2", "tags.a=1 tags.a.b=2", "tags.a.b=1 tags.a=2", "properties=1", "tags.a=1 tags.\xff=2",
		strings.Repeat("tags.", 100) + "a=1",
	} {
		if got, err := parseAssignments(strings.Fields(args)); err == nil {
			t.Errorf("%q is taken as %s", args, got)
		}
	}
}

// FuzzAssignment: an argument that is taken gives one JSON object with the
// value at the path that was written.
func FuzzAssignment(f *testing.F) {
	for _, seed := range []string{"tags.a=1", "desired.a.b=x", "properties.desired.a={}", "tags=null", "tags.a==", "desired.ü=漢", "tags.a=[", "a=b", "tags.\"=\\", "tags.a=\"\\u0000\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		raw, err := parseAssignments([]string{arg})
		if err != nil {
			return
		}
		left, _, _ := strings.Cut(arg, "=")
		path := strings.Split(left, ".")
		if path[0] == "desired" {
			path = append([]string{"properties"}, path...)
		}
		for _, key := range path {
			var members map[string]json.RawMessage
			if err := json.Unmarshal(raw, &members); err != nil {
				t.Fatalf("%q gives %s: %v", arg, raw, err)
			}
			value, ok := members[key]
			if !ok || len(members) != 1 {
				t.Fatalf("%q gives %s, which lacks %q or has more", arg, raw, key)
			}
			raw = value
		}
	})
}

// FuzzConfig: no config file makes the parser panic, and what is taken holds
// known names only.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{"data: x\n", "host: [a, b]\n", "a: b\n", "quiet: true\n", "- x\n", "host: {a: [}\n", "data: &a x\nhub: *a\n", "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		values, err := parseConfig(data, "f.yaml")
		if err != nil {
			return
		}
		for name := range values {
			if name == "" {
				t.Fatalf("%q gives an empty name", data)
			}
		}
	})
}
