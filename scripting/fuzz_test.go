package scripting

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"

	"github.com/muster-hub/muster/engine/pattern"
)

// FuzzFrames feeds the reader of frames, and of each body, with anything: it
// neither panics nor makes more of it than there is. What it takes, it writes
// again the same.
func FuzzFrames(f *testing.F) {
	var p packer
	a := journal(3)
	a.Kept, a.Cancel, a.Now = map[string]json.RawMessage{"x": raw("1")}, &pattern.Fault{Code: "x", Message: "y", Trace: []string{"z"}}, time.Unix(1, 2).UTC()
	at := p.begin(frameActivation)
	p.activation(&a)
	p.end(at)
	at = p.begin(frameOutcome)
	o := pattern.Outcome{Ending: pattern.EndFailed, Steps: a.Steps, Logs: []pattern.LogLine{{Text: "x"}}, Lines: map[string][]int{"a": {1, 2}}, Fault: a.Cancel, Kept: a.Kept}
	p.outcome(&o)
	p.end(at)
	at = p.begin(frameProgram)
	p.bundle(bundleOf("return 1"))
	p.end(at)
	f.Add(p.b)
	f.Add([]byte{255, 255, 255, 255, 'O'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var buf []byte
		for {
			kind, body, next, err := readFrame(r, buf, 1<<20)
			if err != nil {
				return
			}
			buf = next
			var again packer
			u := &unpacker{b: body}
			switch kind {
			case frameActivation:
				a := u.activation()
				if u.done() == nil {
					again.activation(a)
					v := &unpacker{b: again.b}
					if b := v.activation(); v.done() != nil || !reflect.DeepEqual(a, b) {
						t.Fatalf("%+v became %+v", a, b)
					}
				}
			case frameOutcome:
				o := u.outcome()
				if u.done() == nil && !math.IsNaN(o.Report.Progress) {
					again.outcome(&o)
					v := &unpacker{b: again.b}
					if b := v.outcome(); v.done() != nil || !reflect.DeepEqual(o, b) {
						t.Fatalf("%+v became %+v", o, b)
					}
				}
			case frameFault:
				u.fault()
			default:
				u.bundle()
			}
		}
	})
}

// FuzzJSON reads and writes what encoding/json reads and writes.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.5,-0,1e9,1e-9,null,true,false],"b":{"c":"d\u00e9\ud83d\ude00\n<>&"}}`, `[]`, `{}`, `"\u2028"`, `1e400`, `[1,`, `{"a":1,"a":2}`, ` [ ] `, `01`, `"\x"`,
		`{"$secret":"x"}`, `9007199254740993`, "\"\xff\"", `-`, `"\ud800"`,
	} {
		f.Add(s)
	}
	lib := newLibrary()
	f.Fuzz(func(t *testing.T, s string) {
		v, err := lib.decode(s)
		var want any
		wantErr := json.Unmarshal([]byte(s), &want)
		if (err == nil) != (wantErr == nil) {
			if err == errDeep {
				return
			}
			t.Fatalf("%q: %v, and encoding/json says %v", s, err, wantErr)
		}
		if err != nil {
			return
		}
		b, err := encode(v, 1<<20)
		if err != nil {
			return // too deep, or keys that look like a list's
		}
		var got any
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, whole(want)) {
			t.Fatalf("%q became %q: %v", s, b, err)
		}
		if utf8.ValidString(s) {
			if again, err := json.Marshal(json.RawMessage(b)); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("a store makes %q of %q (%v)", again, b, err)
			}
		}
		back, err := lib.decode(string(b))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := encode(back, 1<<20); err != nil || !bytes.Equal(b, c) {
			t.Fatalf("%q became %q, then %q", s, b, c)
		}
	})
}

// whole makes what encoding/json has read into what has crossed Lua: minus zero is
// zero.
func whole(v any) any {
	switch v := v.(type) {
	case float64:
		if v == 0 {
			return 0.0
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	}
	return v
}

// FuzzRewrite runs programs with and without what stands for operators: they give
// the same, or one of them fails.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{
		`local a = "x" .. 1 .. "y" return a`, `local function g() return 1, 2 end return g() .. g(), (g())`, `local function v(...) return "a" .. ... end return v(1, 2)`,
		`local a, b = 1, 2 a, b = b, a return a .. b`, `local t = {} t.a, t.b = 1, 2 t.a, t.b = t.b, t.a return t.a .. t.b`,
		`local i, t = 1, {} i, t[i] = i + 1, 20 return i, t[1]`, `return "a" < "b", "a" <= "a", "b" > "a", 1 >= 2`, `if "a" .. "b" == "ab" and not ("a" > "b") then return 1 end`,
		`local s = "" for i = 1, 5 do s = s .. i .. (i < 3 and "," or ";") end return s`, `local mt = {__concat = function(a, b) return "c" end} local t = setmetatable({}, mt) return t .. 1 .. "x", 1 .. t`,
		`local function f(a, b) b, a = a, b .. "!" return a, b end return f("x", "y")`, `return ("x"):rep(3) .. #("ab" .. "c")`, `goto l do local x = 1 .. 2 end ::l:: return "z" .. 9`,
		`local r = {} repeat local d = (r.n or 0) + 1 r.n = d until d .. "" > "3" return r.n`, `return (function(...) local a, b = ... return b .. a end)("1", "2", "3")`,
	} {
		f.Add(s)
	}
	lib := newLibrary()
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 2000 || strings.Contains(s, "\x00") {
			return
		}
		run := func(parse func(string, []byte) ([]ast.Stmt, *pattern.Fault)) (string, bool) {
			c, fault := parse("pattern.lua", []byte(s))
			if fault != nil {
				return "", false
			}
			proto, err := lua.Compile(c, "pattern.lua")
			if err != nil {
				return "", false
			}
			x := newExecution(&Program{lib: lib, files: map[string]*lua.FunctionProto{}}, &pattern.Activation{Entry: entryLoad})
			v, failed := x.protected(x.state.NewFunctionFromProto(proto), "main chunk")
			if failed != nil {
				return "", false
			}
			return tostringOf(v) + "|" + tostringOf(x.second), true
		}
		with, ok := run(parseFile)
		without, ok2 := run(func(file string, text []byte) ([]ast.Stmt, *pattern.Fault) {
			c, fault := parseLua(file, text)
			if fault != nil {
				return nil, fault
			}
			return (&rewriter{file: file, plain: true}).rewrite(c)
		})
		if ok && ok2 && with != without {
			t.Fatalf("%s\ngives %s with and %s without", s, with, without)
		}
	})
}

func tostringOf(v lua.LValue) string {
	if n, ok := v.(lua.LNumber); ok && math.Abs(float64(n)) > 1e9 {
		return "large" // the two write such numbers differently
	}
	return show(v)
}
