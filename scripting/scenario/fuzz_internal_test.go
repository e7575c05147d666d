package scenario

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
)

// FuzzTest runs tests of any text: whatever they say, they end, and nothing
// panics.
func FuzzTest(f *testing.F) {
	for _, text := range []string{
		`local d = t:device { reported = { a = 1 } } d:on_method("go", function(p) return { p }, 200 end) t:run()`,
		`t:start() t:advance("1d") t:cancel() t:finish()`,
		`t:fleet(3, function(n) return { id = "x" .. n } end) t:check() t:gate({ size = 1 })`,
		`t:http("GET *", { json = json.array {} }) t:uncertain("failed") t:equal({ { 1 } }, { { 1, x = json.null } })`,
		`t:device():drop("1s") t:kv("run") t:kv("pattern", { [1] = 2 })`,
		`local d = t:device() d:after("0s", function() d:offline() d:online() d:report { a = { b = json.null } } end) t:undo(t:run())`,
		`error({ code = t }) `, `return t.x`, `t:device { tags = t }`, `string.rep("x", 1e9)`, `pcall(t.run, 1, 2)`,
	} {
		f.Add(text)
	}
	run := `
    local n = dev:get("reported.a", 0)
    pcall(dev.call, dev, "go", { n = n }, { timeout = "10s", online = "1m" })
    pcall(dev.wait, dev, "reported.a > n", { n = n, timeout = "1h" })`
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "while") || strings.Contains(text, "repeat") || strings.Contains(text, "for") || strings.Contains(text, "goto") {
			return // loops end, but they take their time
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		b := bundleOf(run, text)
		r, err := testWith(ctx, b, Options{CrashEverywhere: len(text) < 200}, scripting.Execute)
		if err != nil {
			return
		}
		var out strings.Builder
		if err := r.Text(&out, true); err != nil {
			t.Fatal(err)
		}
		if err := JUnit(&out, []*Report{r}); err != nil {
			t.Fatal(err)
		}
		if err := r.JSON(&out); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzValue takes JSON through Lua and back.
func FuzzValue(f *testing.F) {
	for _, text := range []string{`null`, `{}`, `[]`, `{"a":[1,{"b":[]}],"c":null}`, `[1.5,-1,1e300,"\u0000"]`, `9007199254740993`, `{"1":2,"x":[[]]}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) || strings.Contains(text, "-0") || len(text) > 4096 || strings.Count(text, "[")+strings.Count(text, "{") > valueDepth-2 {
			return
		}
		l := newState(context.Background())
		defer l.Close()
		openJSON(l)
		v, err := toLua(l, json.RawMessage(text))
		if err != nil {
			return
		}
		back, err := toJSON(v)
		if err != nil {
			t.Fatalf("%s does not come back: %v", text, err)
		}
		if want := canonical([]byte(text)); canonical(back) != want {
			t.Errorf("%s came back as %s", want, back)
		}
	})
}

// FuzzDiff applies what a difference says.
func FuzzDiff(f *testing.F) {
	f.Add("a\nb\nc", "a\nc\nd")
	f.Add("", "x")
	f.Add("a\na\na\nb", "a\nb\na")
	f.Fuzz(func(t *testing.T, a, b string) {
		left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
		if len(left) > 50 || len(right) > 50 {
			return
		}
		var old, new []string
		for _, line := range diffLines(left, right) {
			if line[0] != '+' {
				old = append(old, line[2:])
			}
			if line[0] != '-' {
				new = append(new, line[2:])
			}
		}
		// What is shown is a part of each, in one piece.
		if !strings.Contains("\n"+a+"\n", "\n"+strings.Join(old, "\n")+"\n") && len(old) > 0 {
			t.Errorf("%q is no part of %q", old, a)
		}
		if !strings.Contains("\n"+b+"\n", "\n"+strings.Join(new, "\n")+"\n") && len(new) > 0 {
			t.Errorf("%q is no part of %q", new, b)
		}
	})
}

func TestServersMatch(t *testing.T) {
	for _, row := range []struct {
		pattern, url string
		want         bool
	}{
		{"https://a/b", "https://a/b", true}, {"https://a/b", "https://a/bc", false}, {"https://a/*", "https://a/", true},
		{"https://a/*/c", "https://a/b/c", true}, {"https://a/*/c", "https://a/c", false}, {"*", "https://a/", true}, {"*x*y", "https://xay", true}, {"*x*y", "https://yax", false},
	} {
		if got := (&server{url: row.pattern}).matches("GET", row.url); got != row.want {
			t.Errorf("%s and %s: %v", row.pattern, row.url, got)
		}
	}
	if (&server{method: "POST", url: "*"}).matches("GET", "x") {
		t.Error("another method was taken")
	}
}

// TestDayIsShort keeps virtual time from costing any: a run that looks every
// ten minutes for a day is over in no time.
func TestDayIsShort(t *testing.T) {
	b := bundleOf(`for i = 1, 150 do ctx:sleep("10m") end`, `t:run() t:took_more_than("1d")`)
	r, err := Test(context.Background(), b, Options{})
	if err != nil || !r.Passed() {
		t.Fatalf("%v %+v", err, r.Tests[0].Failure.Message)
	}
	if got := r.Tests[0].Virtual; got != 150*10*time.Minute {
		t.Errorf("it took %s", got)
	}
	if len(r.Tests[0].Runs) != 1 || r.Tests[0].Runs[0].State != pattern.Succeeded {
		t.Errorf("it ended as %s", r.Tests[0].Runs[0].State)
	}
}

func TestTextsAreBounded(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{`local s = "x" for i = 1, 40 do s = s .. s end`, "more than"},
		{`string.rep("x", 1e9)`, "more than"},
		{`string.format("%999999999d", 1)`, "more than"},
		{`string.rep("x", 1000000):gsub("x", string.rep("y", 1000))`, "more than"},
		{`local l = {} for i = 1, 100 do l[i] = string.rep("x", 100000) end table.concat(l)`, "more than"},
		{`t:equal(string.format("%5d %s", 1, "x"), "    1 x") t:equal(("a-b"):gsub("-", "+"), "a+b") t:equal(table.concat({ 1, "b" }, ","), "1,b") t:equal(1 .. "", "1")`, ""},
		{`local function f() return f() + 1 end f()`, "overflow"},
		{`while true do end`, "instructions"},
		{`local d, n = t:device(), 0 d:on_desired(function() n = n + 1 d:desire { n = n } end) d:desire { n = 0 } t:run()`, "for ever"},
		{`local t2 = {} t2[1] = t2 t:equal(t2, 1)`, "deep"},
		{`return "x" .. nil`, "join a nil"},
	} {
		b := bundleOf("", row.text)
		r, err := Test(context.Background(), b, Options{})
		if err != nil {
			t.Fatalf("%s: %v", row.text, err)
		}
		switch f := r.Tests[0].Failure; {
		case row.want == "" && f != nil:
			t.Errorf("%s: %s", row.text, f.Message)
		case row.want != "" && (f == nil || !strings.Contains(f.Message, row.want)):
			t.Errorf("%s: %+v, expected %q", row.text, f, row.want)
		}
	}
}
