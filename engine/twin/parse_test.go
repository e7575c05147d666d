package twin

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestParsePatchKeepsText(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", " {} ", `{}`},
		{"white space", "\t{ \"a\" :\r\n [ 1 , 2 ] , \"b\" : { } }\n", `{"a":[1,2],"b":{}}`},
		{"order", `{"z":1,"a":2,"m":3}`, `{"z":1,"a":2,"m":3}`},
		{"number text", `{"a":1,"b":1.0,"c":-0,"d":1e5,"e":1E+05,"f":0.10,"g":123456789012345678901234567890}`, `{"a":1,"b":1.0,"c":-0,"d":1e5,"e":1E+05,"f":0.10,"g":123456789012345678901234567890}`},
		{"large float", `{"a":1e300}`, `{"a":1e300}`},
		{"tiny float", `{"a":1e-400}`, `{"a":1e-400}`},
		{"literals", `{"a":true,"b":false,"c":null}`, `{"a":true,"b":false,"c":null}`},
		{"keys differ by case", `{"a":1,"A":2}`, `{"a":1,"A":2}`},
		{"empty key", `{"":1}`, `{"":1}`},
		{"unicode key", `{"ключ":1,"é":2}`, `{"ключ":1,"é":2}`},
		{"escaped key", `{"\u0061\/":1}`, `{"a/":1}`},
		{"escapes", `{"a":"\"\\\/\b\f\n\r\t\u0001\u00e9"}`, `{"a":"\"\\/\b\f\n\r\t\u0001é"}`},
		{"pair", `{"a":"x\ud83d\ude00y"}`, `{"a":"x😀y"}`},
		{"nul and del", "{\"a\":\"\\u0000\x7f\"}", "{\"a\":\"\\u0000\x7f\"}"},
		{"escaped replacement character", `{"a":"\ufffd"}`, `{"a":"` + "\ufffd" + `"}`},
		{"nothing of HTML", `{"a":"<&>` + "\u2028" + `"}`, `{"a":"<&>` + "\u2028" + `"}`},
		{"special keys", `{"$version":1,"$metadata":{"$lastUpdated":"x"}}`, `{"$version":1,"$metadata":{"$lastUpdated":"x"}}`},
		{"arrays", `{"a":[[],[[1]],{"b":[null]}]}`, `{"a":[[],[[1]],{"b":[null]}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := string(patch(t, c.in).JSON(nil))
			same(t, "JSON", got, c.want)
			same(t, "JSON of the JSON", string(patch(t, got).JSON(nil)), got)
		})
	}
}

func TestParsePatchRefuses(t *testing.T) {
	deep := func(n int) string {
		return `{"a":` + strings.Repeat(`[`, n-1) + strings.Repeat(`]`, n-1) + `}`
	}
	for _, c := range []struct{ name, in, path, found string }{
		{"nothing", ``, "", "the end of the text at byte 0"},
		{"only space", "  ", "", "the end of the text at byte 2"},
		{"array", `[1]`, "", `'[' at byte 0`},
		{"null", `null`, "", `'n' at byte 0`},
		{"string", `"a"`, "", `'"' at byte 0`},
		{"byte order mark", "\ufeff{}", "", `'\ufeff' at byte 0`},
		{"trailing text", `{} x`, "", `'x' after the document at byte 3`},
		{"two documents", `{}{}`, "", `'{' after the document at byte 2`},
		{"open", `{"a":{"b":1`, "a", "the end of the text at byte 11"},
		{"no value", `{"a":}`, "a", `'}' at byte 5`},
		{"no colon", `{"a" 1}`, "", `'1' at byte 5`},
		{"no comma", `{"a":1 "b":2}`, "", `'"' at byte 7`},
		{"comma at the end", `{"a":1,}`, "", `'}' at byte 7`},
		{"comma at an array's end", `{"a":[1,]}`, "a", `']' at byte 8`},
		{"open array", `{"a":[1 2]}`, "a", `'2' at byte 8`},
		{"key without quotes", `{a:1}`, "", `'a' at byte 1`},
		{"single quotes", `{'a':1}`, "", `'\'' at byte 1`},
		{"comment", `{/**/}`, "", `'/' at byte 1`},
		{"wrong literal", `{"a":truth}`, "a", `'t' at byte 5`},
		{"long literal", `{"a":trues}`, "", `'s' at byte 9`},
		{"capital literal", `{"a":True}`, "a", `'T' at byte 5`},
		{"not a number", `{"a":NaN}`, "a", `'N' at byte 5`},
		{"infinity", `{"a":-Infinity}`, "a", "a malformed number at byte 5"},
		{"leading zero", `{"a":01}`, "a", "a malformed number at byte 5"},
		{"leading plus", `{"a":+1}`, "a", `'+' at byte 5`},
		{"bare minus", `{"a":-}`, "a", "a malformed number at byte 5"},
		{"bare point", `{"a":1.}`, "a", "a malformed number at byte 5"},
		{"bare exponent", `{"a":1e}`, "a", "a malformed number at byte 5"},
		{"two signs", `{"a":1e+-5}`, "a", "a malformed number at byte 5"},
		{"infinite float", `{"x":{"a":1e400}}`, "x.a", "the number 1e400 beyond the range of a 64-bit float at byte 10"},
		{"negative infinite float", `{"a":-1e400}`, "a", "the number -1e400 beyond the range of a 64-bit float at byte 5"},
		{"long number", `{"a":` + strings.Repeat("9", 129) + `}`, "a", "a number of 129 characters at byte 5"},
		{"duplicate key", `{"b":{"a":1,"a":2}}`, "b", `the key "a" twice in one object at byte 12`},
		{"duplicate by escape", `{"a":1,"\u0061":2}`, "", `the key "a" twice in one object at byte 7`},
		{"duplicate in an array", `{"b":[{"a":1,"a":2}]}`, "b", `the key "a" twice in one object at byte 13`},
		{"not UTF-8", "{\"a\":\"\xff\"}", "", "text that is not UTF-8 at byte 6"},
		{"not UTF-8 after a replacement character", "{\"a\":\"\ufffd\xc3\x28\"}", "", "text that is not UTF-8 at byte 9"},
		{"surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\"}", "", "text that is not UTF-8 at byte 6"},
		{"high half", `{"a":"\ud83d"}`, "a", "half of a surrogate pair at byte 6"},
		{"low half", `{"a":"\ude00"}`, "a", "half of a surrogate pair at byte 6"},
		{"high half twice", `{"a":"\ud83d\ud83d"}`, "a", "half of a surrogate pair at byte 6"},
		{"half before text", `{"a":"\ud83dxxxxxx"}`, "a", "half of a surrogate pair at byte 6"},
		{"bad escape", `{"a":"\x41"}`, "a", `the unknown escape "\\x" at byte 6`},
		{"short escape", `{"a":"\u12"}`, "a", `a broken \u escape at byte 6`},
		{"escape at the end", `{"a":"\`, "a", "the end of the text at byte 7"},
		{"raw line break", "{\"a\":\"x\ny\"}", "a", `the control character '\n' in a string at byte 7`},
		{"raw control after escape", "{\"a\":\"\\n\x01\"}", "a", `the control character '\x01' in a string at byte 8`},
		{"open string", `{"a":"x`, "a", "the end of the text at byte 7"},
		{"open string after escape", `{"a":"\nx`, "a", "the end of the text at byte 9"},
		{"too deep", deep(65), "a", "more than 64 nested objects and arrays at byte 68"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParsePatch([]byte(c.in), 0)
			e := invalid(t, err)
			same(t, "path", e.Path, c.path)
			same(t, "reason", e.Reason, "found "+c.found)
			if e.TooLarge {
				t.Error("marked as too large")
			}
		})
	}
	if _, err := ParsePatch([]byte(deep(64)), 0); err != nil {
		t.Errorf("64 levels: %v", err)
	}
}

func TestParseSectionNamesIt(t *testing.T) {
	for _, c := range []struct {
		kind        Kind
		in          string
		path, found string
	}{
		{Desired, `{"x":{"y":1,"y":2}}`, "desired.x", `the key "y" twice in one object at byte 12 of desired`},
		{Tags, `[1]`, "tags", `'[' at byte 0 of tags`},
		{Tags, "{\"a\":\"\xff\"}", "tags", "text that is not UTF-8 at byte 6 of tags"},
		{Reported, `{"a" 1}`, "reported", `'1' at byte 5`}, // it is all that the device sent
	} {
		_, err := ParseSection(c.kind, []byte(c.in), 0)
		e := invalid(t, err)
		same(t, "path", e.Path, c.path)
		same(t, "reason", e.Reason, "found "+c.found)
	}
	_, err := ParseSection(Desired, []byte(`{"a":12}`), 7)
	if e := invalid(t, err); !e.TooLarge || e.Path != "desired" {
		t.Errorf("over the bound: %v", e)
	}
}

func TestParsePatchBounds(t *testing.T) {
	if _, err := ParsePatch([]byte(`{"a":1}`), 7); err != nil {
		t.Errorf("exactly the bound: %v", err)
	}
	_, err := ParsePatch([]byte(`{"a":12}`), 7)
	if e := invalid(t, err); !e.TooLarge {
		t.Errorf("over the bound is not marked: %v", e)
	}
	_, err = ParsePatch(make([]byte, maxParseBytes+1), maxParseBytes*2)
	if e := invalid(t, err); !e.TooLarge {
		t.Errorf("over the package's bound is not marked: %v", e)
	}
	_, err = ParsePatch([]byte(`{"a":[`+strings.Repeat("1,", maxParseValues)+`1]}`), 0)
	if e := invalid(t, err); !e.TooLarge || e.Path != "a" {
		t.Errorf("too many values: %v", e)
	}
}

// A parser that looks for duplicates pair by pair would need minutes for this.
func TestParsePatchManyKeys(t *testing.T) {
	var b strings.Builder
	b.WriteByte('{')
	const n = 100_000
	for i := range n {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	text := b.String()
	p := patch(t, text+`"last":1}`)
	if p.Len() != n+1 || !p.Has("k99999") || p.Has("k100000") {
		t.Errorf("got %d members", p.Len())
	}
	if _, err := ParsePatch([]byte(text+`"k7":1}`), 0); err == nil {
		t.Error("the duplicate of a key far away was not found")
	}
	s := section(t, Reported, text+`"last":1}`)
	next, c, err := s.Merge(p, noon, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Paths) != maxPaths {
		t.Errorf("got %d paths, want %d", len(c.Paths), maxPaths)
	}
	if d := Diff(s, next); len(d) != 0 {
		t.Errorf("got %d differences, want none", len(d))
	}
}

func TestPatchObject(t *testing.T) {
	doc := patch(t, `{"properties":{"desired":{"a":1},"reported":null},"tags":null,"etag":"x","list":[1]}`)
	for _, c := range []struct {
		path string
		want string
		ok   bool
		null bool
	}{
		{"properties", `{"desired":{"a":1},"reported":null}`, true, false},
		{"properties desired", `{"a":1}`, true, false},
		{"properties reported", "null", true, true},
		{"tags", "null", true, true},
		{"tags a", "{}", false, false},
		{"none", "{}", false, false},
		{"properties none", "{}", false, false},
		{"none none", "{}", false, false},
	} {
		sub, ok, err := doc.Object(strings.Fields(c.path)...)
		if err != nil || ok != c.ok || sub.IsNull() != c.null {
			t.Errorf("%s: got ok %v, null %v, error %v", c.path, ok, sub.IsNull(), err)
		}
		same(t, c.path, string(sub.JSON(nil)), c.want)
	}
	for _, path := range []string{"etag", "list", "etag x", "properties desired a"} {
		_, ok, err := doc.Object(strings.Fields(path)...)
		e := invalid(t, err)
		if ok || !strings.HasPrefix(strings.Join(strings.Fields(path), "."), e.Path) {
			t.Errorf("%s: got ok %v, %v", path, ok, e)
		}
	}
	if sub, ok, err := doc.Object(); err != nil || !ok || sub.Len() != doc.Len() {
		t.Error("no path is not the patch itself")
	}
}

func TestPatchZero(t *testing.T) {
	var p Patch
	if p.IsNull() || p.Len() != 0 || p.Has("") {
		t.Error("the zero patch is not an empty object")
	}
	same(t, "JSON", string(p.JSON(nil)), `{}`)
	same(t, "JSON with version", string(p.JSONWithVersion([]byte("x"), 3)), `x{"$version":3}`)
}

func TestPatchJSONWithVersion(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                                   `{"$version":7}`,
		`{"a":null,"b":{"c":1}}`:               `{"a":null,"b":{"c":1},"$version":7}`,
		`{"$version":3,"a":1,"$metadata":{}}`:  `{"a":1,"$version":7}`,
		`{"$metadata":{"$lastUpdated":"now"}}`: `{"$version":7}`,
	} {
		same(t, in, string(patch(t, in).JSONWithVersion(nil, 7)), want)
	}
}

func TestInvalidErrorIsOneSentence(t *testing.T) {
	_, err := ParsePatch([]byte(`{"a":{"b":tru}}`), 0)
	same(t, "error", err.Error(), `a.b: found 't' at byte 10; expected a JSON value`)
	_, err = ParsePatch([]byte(`{"`+strings.Repeat("k", 5000)+`":{"b":?}}`), 0)
	if e := invalid(t, err); len(e.Path) > maxTrail+10 {
		t.Errorf("the path has %d bytes", len(e.Path))
	}
	_, err = ParsePatch([]byte("{\"a\\u0007\x7f\":?}"), 0)
	same(t, "path", invalid(t, err).Path, `a\a\x7f`)
}

func FuzzParsePatch(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"a":{"b":[1,2.5e-3,"x\ud83d\ude00",null,true]}}`, `{"$version":3}`,
		`{"a":01}`, `{"a":"\ud83d"}`, "{\"\xff\":1}", `{"a":1,"a":2}`, `{"a":[[[[`, `{} {}`, `{"a":1e999}`, `{"":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePatch(data, 1<<16)
		if err != nil {
			invalid(t, err)
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted what is not JSON: %q", data)
		}
		text := p.JSON(nil)
		q, err := ParsePatch(text, 0)
		if err != nil {
			t.Fatalf("does not accept its own output %q: %v", text, err)
		}
		same(t, "second round", string(q.JSON(nil)), string(text))
		sameJSON(t, "meaning", string(text), string(data))
	})
}
