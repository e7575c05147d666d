package query

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParseValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"null", "null"}, {" true ", "true"}, {"false", "false"}, {"0", "0"}, {"-0.50e+2", "-50"}, {"1e21", "1e+21"},
		{`"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"`, ""}, {`"\ud83d x"`, ""}, {`"\ude00"`, ""},
		{"[]", "[]"}, {"{}", "{}"}, {`[1, [2], {"a": null}]`, `[1,[2],{"a":null}]`},
		{`{"a": 1, "b": {"c": [true]}, "a": 2}`, `{"a":2,"b":{"c":[true]}}`},
		{"\t{\r\n}", "{}"},
		{`"` + "\xff" + `"`, ""},
	} {
		v, err := ParseValue([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got := v.AppendJSON(nil)
		if c.want != "" && string(got) != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
		var a, b any
		if err := json.Unmarshal([]byte(c.text), &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &b); err != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%s: got %s, which encoding/json reads as %v, %v", c.text, got, b, err)
		}
	}
}

func TestParseValueErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"", "byte 0 of the JSON document: found the end, expected a value"},
		{"{", "byte 1 of the JSON document: found the end, expected a key in double quotes"},
		{"{1:2}", "byte 1 of the JSON document: found '1', expected a key in double quotes"},
		{`{"a" 1}`, "byte 5 of the JSON document: found '1', expected ':'"},
		{`{"a":1 "b"`, "byte 7 of the JSON document: found '\"', expected ',' or '}'"},
		{`{"a":1,}`, "byte 7 of the JSON document: found '}', expected a key in double quotes"},
		{"[1,]", "byte 3 of the JSON document: found ']', expected a value"},
		{"[1 2]", "byte 3 of the JSON document: found '2', expected ',' or ']'"},
		{"1 2", "byte 2 of the JSON document: found '2', expected the end of the document"},
		{"01", "byte 0 of the JSON document: found '0', expected a JSON number that a 64-bit float can hold"},
		{"1.", "byte 0 of the JSON document: found '1', expected a JSON number that a 64-bit float can hold"},
		{"-", "byte 0 of the JSON document: found '-', expected a JSON number that a 64-bit float can hold"},
		{"1e999", "byte 0 of the JSON document: found '1', expected a JSON number that a 64-bit float can hold"},
		{`"a`, "byte 2 of the JSON document: found the end, expected the closing quote of a string"},
		{"\"a\nb\"", "byte 2 of the JSON document: found '\\n', expected control characters escaped"},
		{`"\x"`, `byte 1 of the JSON document: found '\\', expected one of \" \\ \/ \b \f \n \r \t \uXXXX`},
		{`"\u12"`, `byte 1 of the JSON document: found '\\', expected one of \" \\ \/ \b \f \n \r \t \uXXXX`},
		{"nul", "byte 0 of the JSON document: found 'n', expected a value"},
		{strings.Repeat("[", 101), "byte 100 of the JSON document: found '[', expected at most 100 objects and arrays in each other"},
	} {
		if _, err := ParseValue([]byte(c.text)); err == nil || err.Error() != "query: "+c.want {
			t.Errorf("%.40s\n got %v\nwant query: %s", c.text, err, c.want)
		}
	}
	if _, err := ParseValue([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))); err != nil {
		t.Errorf("100 deep: %v", err)
	}
}

// TestManyMembers reads an object of more members than are looked through.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteByte('{')
	for i := range 200 {
		fmt.Fprintf(&b, `"k%d":%d,`, i%100, i)
	}
	b.WriteString(`"last":{}}`)
	v, err := ParseValue([]byte(b.String()))
	if err != nil || len(v.Members()) != 101 || v.At("k7").Number() != 107 {
		t.Fatalf("got %d members, %v, %v", len(v.Members()), v.At("k7"), err)
	}
}

func BenchmarkParseValue(b *testing.B) {
	text := []byte(example)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseValue(text); err != nil {
			b.Fatal(err)
		}
	}
}
