package configuration

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/twin"
)

var limits = twin.Limits{MaxBytes: 200, MaxDepth: 10, MaxKeyBytes: 20, MaxStringBytes: 40, MinInteger: -1 << 52, MaxInteger: 1<<52 - 1}

func raw(member, text string) Raw {
	var r Raw
	switch member {
	case "deviceContent":
		r.Device = []byte(text)
	case "moduleContent":
		r.Module = []byte(text)
	default:
		r.Modules = []byte(text)
	}
	return r
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, member, text string
		module             string
		want               string // path=value path=value
	}{
		{"one path", "deviceContent", `{"properties.desired.motor": {"speed": 3, "on": true}}`, "", `motor.on=true motor.speed=3`},
		{"a value", "deviceContent", `{"properties.desired.motor.speed": 1.50}`, "", `motor.speed=1.50`},
		{"an array", "deviceContent", `{"properties.desired": {"a": {"b": [1, {"x": 2}]}}}`, "", `a.b=[1,{"x":2}]`},
		{"nothing", "deviceContent", `{"properties.desired.a": null, "properties.desired.b": {"c": null}}`, "", `a=null b.c=null`},
		{"an empty object", "deviceContent", `{"properties.desired.a": {}, "properties.desired": {}}`, "", `a={}`},
		{"side by side", "deviceContent", `{"properties.desired": {"a": {"x": 1}}, "properties.desired.a": {"y": "é\u00e9"}}`, "", `a.x=1 a.y="éé"`},
		{"module", "moduleContent", `{"properties.desired.a": 1}`, "", `a=1`},
		{"edge", "modulesContent", `{"$edgeAgent": {"properties.desired": {"modules": {}}}, "m": {"properties.desired.a": 1}}`, "m", `a=1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(raw(c.member, c.text), limits)
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for _, s := range got.Settings(c.module) {
				list = append(list, s.Path+"="+s.Value)
			}
			if text := strings.Join(list, " "); text != c.want {
				t.Errorf("%s gives %s, expected %s", c.text, text, c.want)
			}
			if got.Kind().String() != c.member {
				t.Errorf("it is %s", got.Kind())
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		name, member, text, want string
	}{
		{"tags", "deviceContent", `{"tags.x": 1}`, `deviceContent.tags.x: this is no place in desired properties; expected properties.desired, or it with a path, as in properties.desired.motor.speed`},
		{"reported", "deviceContent", `{"properties.reported.x": 1}`, `deviceContent.properties.reported.x: this is no place`},
		{"a longer name", "deviceContent", `{"properties.desiredx": 1}`, `deviceContent.properties.desiredx: this is no place`},
		{"nothing in it", "deviceContent", `{}`, `deviceContent: nothing is in it; expected a key such as properties.desired.path`},
		{"no object", "deviceContent", `[]`, `deviceContent: `},
		{"all is no object", "deviceContent", `{"properties.desired": 5}`, `deviceContent.properties.desired: its value is no object`},
		{"all is null", "deviceContent", `{"properties.desired": null}`, `deviceContent.properties.desired: its value is no object`},
		{"an empty name", "deviceContent", `{"properties.desired.a..b": 5}`, `a name in the path is empty`},
		{"an empty name below", "deviceContent", `{"properties.desired.a": {"": 1}}`, `a name is empty, at "a."`},
		{"a bad name", "deviceContent", `{"properties.desired.a": {"b c": 1}}`, `deviceContent.properties.desired.a: at desired.a, found the key "b c"`},
		{"a bad name in the key", "deviceContent", `{"properties.desired.$a": 1}`, `deviceContent.properties.desired.$a: `},
		{"a special name", "deviceContent", `{"properties.desired": {"$version": 1}}`, `$version`},
		{"null in an array", "deviceContent", `{"properties.desired.a": [null]}`, `null in an array`},
		{"twice", "deviceContent", `{"properties.desired.a": 1, "properties.desired.a": 2}`, `deviceContent: `},
		{"the same path", "deviceContent", `{"properties.desired": {"a": {"x": 1}}, "properties.desired.a.x": 2}`, `both say what is at a.x`},
		{"a path below a value", "deviceContent", `{"properties.desired.a": 1, "properties.desired.a.x": 2}`, `properties.desired.a and properties.desired.a.x both say what is at a.x`},
		{"a path below nothing", "deviceContent", `{"properties.desired.a": null, "properties.desired.a.x": 2}`, `both say what is at a.x`},
		{"too large together", "deviceContent", `{"properties.desired.a": "` + strings.Repeat("x", 40) + `","properties.desired.b": "` + strings.Repeat("x", 40) + `","properties.desired.c": "` + strings.Repeat("x", 40) + `","properties.desired.d": "` + strings.Repeat("x", 40) + `","properties.desired.e": "` + strings.Repeat("x", 40) + `"}`, `deviceContent: at desired, `},
		{"too large an integer", "deviceContent", `{"properties.desired.a": 9007199254740993}`, `desired.a`},
		{"too deep", "deviceContent", `{"properties.desired.a.b.c.d.e.f.g.h.i.j.k.l": 1}`, `deviceContent.properties.desired.a.b.c.d.e.f.g.h.i.j.k.l: `},
		{"edge without its agent", "modulesContent", `{"m": {"properties.desired": {}}}`, `modulesContent: there is no $edgeAgent in it`},
		{"an edge module of no object", "modulesContent", `{"$edgeAgent": 5}`, `modulesContent.$edgeAgent: `},
		{"no JSON", "deviceContent", `{`, `deviceContent: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(raw(c.member, c.text), limits)
			if err == nil {
				t.Fatalf("%s is read", c.text)
			}
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%T", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s\nis refused with %q, expected %q", c.text, err, c.want)
			}
		})
	}
	both := Raw{Device: []byte(`{"properties.desired.a":1}`), Module: []byte(`{"properties.desired.a":1}`)}
	if _, err := Parse(both, limits); err == nil || !strings.Contains(err.Error(), "the content has deviceContent and moduleContent; expected exactly one") {
		t.Error(err)
	}
	if _, err := Parse(Raw{}, limits); err == nil || !strings.Contains(err.Error(), "the content is missing") {
		t.Error(err)
	}
}

func TestWhole(t *testing.T) {
	for _, c := range []struct {
		member, text, want string
	}{
		{"modulesContent", `{"$edgeAgent": {"properties.desired": {"a": 1}}, "m": {"properties.desired": {}}}`, ""},
		{"modulesContent", `{"$edgeAgent": {"properties.desired": {"a": 1}}, "m": {"properties.desired.x": 1}}`, "modulesContent.m: it is a layer over something else; expected properties.desired as its only key"},
		{"modulesContent", `{"$edgeAgent": {"properties.desired": {"a": 1}, "properties.desired.b": 1}}`, "modulesContent.$edgeAgent: it is a layer"},
		{"deviceContent", `{"properties.desired": {"a": 1}}`, "deviceContent: it can't be applied to one device; expected modulesContent"},
	} {
		content, err := Parse(raw(c.member, c.text), limits)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := content.Whole()
		if c.want != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%s: %v, expected %s", c.text, err, c.want)
			}
			continue
		}
		if err != nil || string(whole["m"]) != "{}" || string(whole["$edgeAgent"]) != `{"a": 1}` || !slices.Equal(content.Modules(), []string{"$edgeAgent", "m"}) {
			t.Errorf("%s: %v %q %v", c.text, err, whole, content.Modules())
		}
	}
}

// A content that is read can be put on a twin, and what it sets is then there.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"properties.desired.motor": {"speed": 3, "on": null, "list": [1,"\ud83d\ude00"], "none": {}}}`))
	f.Add([]byte(`{"properties.desired": {"a": {"b": {}}}, "properties.desired.a.b.c": null}`))
	f.Add([]byte(`{"properties.desired.a":1,"properties.desired.a-b":2,"properties.desired.a.b":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(Raw{Device: text}, limits)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%T", err)
			}
			return
		}
		r := Resolve([]Candidate{{ID: "c", Settings: c.Settings("")}})
		if len(r.Lost) > 0 || len(r.Won) != len(c.Settings("")) {
			t.Fatalf("%s conflicts with itself: %v", text, r.Lost)
		}
		w := twinOf{desired: twin.New(twin.Desired)}
		w.apply(t, r, present)
		for _, won := range r.Won {
			if v, ok := w.desired.Get(won.Path); ok == won.IsNothing() || ok && won.Value != anyObject && string(v) != won.Value {
				t.Fatalf("%s: %s is %s, expected %s", text, won.Path, v, won.Value)
			}
		}
	})
}
