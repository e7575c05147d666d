package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/rollout"
)

func formManifest(params string, required ...string) *Manifest {
	return &Manifest{Name: "a", Version: "1.0.0", API: API, Params: json.RawMessage(params), Required: required, Scope: ScopeDevice, Conflicts: ConflictQueue}
}

func TestForm(t *testing.T) {
	t.Parallel()
	many := make([]string, formChoicesMost+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"v%d"`, i)
	}
	value := func(text string) *string { return &text }
	for _, c := range []struct {
		name, schema string
		required     bool
		want         FormField // what is compared: label, expects, control, value, choices
	}{
		{"a text", `{"type":"string","title":"Reason","minLength":3,"maxLength":200}`, true, FormField{Label: "Reason", Expects: "a text, 3 to 200 characters", Control: ControlText}},
		{"a text with a default", `{"type":"string","default":""}`, false, FormField{Expects: "a text", Control: ControlText, Value: value("")}},
		{"several lines", `{"type":"string","default":"a\nb"}`, false, FormField{Expects: "a text", Control: ControlLines, Value: value("a\nb")}},
		{"a pattern", `{"type":"string","pattern":"^[a-z]+$"}`, false, FormField{Expects: "a text, matching ^[a-z]+$", Control: ControlText}},
		{"a format of JSON Schema's", `{"type":"string","format":"uri"}`, false, FormField{Expects: "a text of the format uri", Control: ControlText}},
		{"a span", `{"type":"string","format":"duration","default":"5m"}`, false, FormField{Expects: "a time span such as 90s, 5m, 6h or 2d", Control: ControlText, Value: value("5m")}},
		{"a secret's default is not told", `{"type":"string","format":"secret","default":"smtp"}`, false, FormField{Expects: "the name of a secret that the hub keeps, never its value, empty for the pattern's own", Control: ControlText}},
		{"a whole number", `{"type":"integer","minimum":0,"maximum":3600,"default":0}`, false, FormField{Expects: "a whole number, 0 to 3600", Control: ControlNumber, Value: value("0")}},
		{"a number", `{"type":["number","null"],"minimum":0.5}`, false, FormField{Expects: "a number, at least 0.5", Control: ControlNumber}},
		{"a bound that nobody would write out", `{"type":"number","maximum":1e300}`, false, FormField{Expects: "a number, at most 1e+300", Control: ControlNumber}},
		{"yes or no", `{"type":"boolean","default":true}`, false, FormField{Expects: "true or false", Control: ControlCheckbox, Value: value("true")}},
		{"a decision that nobody has made", `{"type":"boolean"}`, true, FormField{Expects: "true or false", Control: ControlSelect, Choices: []string{"true", "false"}}},
		{"a choice", `{"enum":["safe","5",5,null,"safe"],"default":"5"}`, false, FormField{Expects: "one of these", Control: ControlSelect, Value: value(`"5"`), Choices: []string{"safe", `"5"`, "5", "null"}}},
		{"a constant", `{"const":"x"}`, false, FormField{Expects: "one of these", Control: ControlSelect, Choices: []string{"x"}}},
		{"a choice that no text stands for", `{"type":["string","null"],"enum":["a",null],"default":null}`, false, FormField{Expects: "one of these", Control: ControlSelect, Choices: []string{"a"}}},
		{"too many choices", `{"enum":[` + strings.Join(many, ",") + `]}`, false, FormField{Expects: "one of 101 values, such as v0, v1, v2", Control: ControlText}},
		{"a choice that is too long", `{"enum":["` + strings.Repeat("x", formChoiceMost+1) + `"]}`, false, FormField{Expects: "one of 1 values, such as " + strings.Repeat("x", 40) + "...", Control: ControlText}},
		{"an object", `{"type":"object","default":{"b":1,"a":[]}}`, false, FormField{Expects: `JSON, an object such as {"a": 1}`, Control: ControlJSON, Value: value("{\n  \"a\": [],\n  \"b\": 1\n}")}},
		{"a list", `{"type":"array","minItems":1,"maxItems":5}`, false, FormField{Expects: `JSON, a list such as ["a", "b"], 1 to 5 entries`, Control: ControlJSON}},
		{"a default that is too long", `{"type":"string","default":"` + strings.Repeat("x", formValueMost+1) + `"}`, false, FormField{Expects: "a text", Control: ControlText}},
		{"anything", `true`, false, FormField{Expects: "a text, or JSON", Control: ControlText}},
		{"markup is text, and long texts are cut", `{"title":"<b>` + strings.Repeat("é", formTitleMost) + `"}`, false, FormField{Label: "<b>" + strings.Repeat("é", formTitleMost-3) + "...", Expects: "a text, or JSON", Control: ControlText}},
	} {
		m := formManifest(`{"p":`+c.schema+`}`, "p")
		if !c.required {
			m.Required = nil
		}
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		f := m.Form()[0]
		label := c.want.Label
		if label == "" {
			label = "p"
		}
		if f.Name != "p" || f.Label != label || f.Expects != c.want.Expects || f.Control != c.want.Control || f.Required != c.required || !slices.Equal(f.Choices, c.want.Choices) {
			t.Errorf("%s: got %+v, want %+v", c.name, f, c.want)
		}
		if (f.Value == nil) != (c.want.Value == nil) || f.Value != nil && *f.Value != *c.want.Value {
			t.Errorf("%s: got the default %v, want %v", c.name, deref(f.Value), deref(c.want.Value))
		}
	}
}

func deref(s *string) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%q", *s)
}

func TestFill(t *testing.T) {
	t.Parallel()
	m := formManifest(`{"delay":{"type":"integer","minimum":0,"maximum":60,"default":5},"reason":{"type":"string","minLength":3},"how":{"enum":["soft","5",5],"default":"soft"},`+
		`"tuning":{"type":"object","properties":{"level":{"type":"integer","default":1}}},"token":{"type":"string","format":"secret","default":"smtp"},"any":true}`, "reason")
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		texts map[string]string
		whole string // "": it is refused
		given string
		flags []string
		wrong []string
	}{
		{name: "what must be given", texts: map[string]string{"reason": "why not"}, whole: `{"delay":5,"how":"soft","reason":"why not"}`, given: `{"reason":"why not"}`, flags: []string{"reason=why not"}},
		{
			name: "defaults stay out, spelled as they are or otherwise", texts: map[string]string{"reason": "a=b", "delay": " 5.0 ", "how": "soft"},
			whole: `{"delay":5,"how":"soft","reason":"a=b"}`, given: `{"reason":"a=b"}`, flags: []string{"reason=a=b"},
		},
		{
			name: "all of them", texts: map[string]string{"reason": "12345", "delay": "7", "how": `"5"`, "tuning": "{\n \"x\": [1, 2]\n}", "token": "other", "any": "null"},
			whole: `{"any":null,"delay":7,"how":"5","reason":"12345","token":"other","tuning":{"level":1,"x":[1,2]}}`,
			given: `{"any":null,"delay":7,"how":"5","reason":"12345","token":"other","tuning":{"x":[1,2]}}`,
			flags: []string{"reason=12345", "any=null", "delay=7", `how="5"`, "token=other", `tuning={"x":[1,2]}`},
		},
		{name: "too much", texts: map[string]string{"reason": "why", "delay": "61"}, wrong: []string{"delay: found 61; expected at most 60"}},
		{
			name: "all that is wrong, once", texts: map[string]string{"delay": "soon", "tuning": `{"level":"x"}`, "dealy": "1"},
			wrong: []string{"delay: found \"soon\"; expected a whole number", `dealy: is no parameter; expected any, delay, how, reason, token or tuning; did you mean "delay"?`, `reason: found nothing; expected a value: it is required`, `tuning.level: found "x"; expected integer`},
		},
		{name: "a secret's value for its name", texts: map[string]string{"reason": "why", "token": "hunter 2"}, wrong: []string{"token: is no name of a secret; expected the name of a secret: letters, digits, dots, dashes and underscores, at most 64"}},
	} {
		got, err := m.Fill(c.texts)
		var wrong []string
		faults, _ := errors.AsType[rollout.Faults](err)
		for _, f := range faults {
			wrong = append(wrong, f.Error())
		}
		if !slices.Equal(wrong, c.wrong) || err != nil && faults == nil {
			t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
		}
		if string(got.Whole) != c.whole || string(got.Given) != c.given || !slices.Equal(got.Texts, c.flags) {
			t.Errorf("%s: got %s, %s and %q", c.name, got.Whole, got.Given, got.Texts)
		}
		if strings.Contains(fmt.Sprint(err), "hunter") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzFill: what the texts of a form come to is what the same parameters come to
// that are given as JSON, and the texts that Fill gives back come to the same.
func FuzzFill(f *testing.F) {
	f.Add([]byte(whole), "soak", "1h")
	f.Add([]byte(`{"name":"a","version":"1.0.0","params":{"a":true,"b":{"enum":["5",5,null]}}}`), "b", `"5"`)
	f.Fuzz(func(t *testing.T, text []byte, name, entered string) {
		m, err := ParseManifest(text)
		if err != nil {
			return
		}
		texts := map[string]string{name: entered}
		for _, field := range m.Form() {
			if _, have := texts[field.Name]; !have && field.Value != nil {
				texts[field.Name] = *field.Value
			}
		}
		got, err := m.Fill(texts)
		if err != nil {
			return
		}
		again := map[string]string{}
		for _, text := range got.Texts {
			name, value, _ := strings.Cut(text, "=")
			again[name] = value
		}
		same, err := m.Fill(again)
		if err != nil || string(same.Whole) != string(got.Whole) {
			t.Fatalf("%q came to %s and %q; these to %s, %v", texts, got.Whole, got.Texts, same.Whole, err)
		}
		params, err := m.Complete(got.Given)
		if err != nil {
			t.Fatalf("%s: %v", got.Given, err)
		}
		for name, value := range members(got.Whole) {
			if string(members(params)[name]) != string(value) {
				t.Fatalf("%s came to %s, want %s", got.Given, params, got.Whole)
			}
		}
	})
}
