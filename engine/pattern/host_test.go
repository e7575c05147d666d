package pattern

import (
	"bytes"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/gopher-lua/parse"

	"github.com/muster-hub/muster/engine/rollout"
)

// TestHostTable compares the table of the host API with those of operations,
// capabilities and faults.
func TestHostTable(t *testing.T) {
	t.Parallel()
	ops, names, codes := map[string]bool{}, map[string]bool{}, map[FaultCode]bool{}
	for _, f := range Faults() {
		codes[f.Code] = true
	}
	for _, o := range Host() {
		if o.Method && o.Class == "" || names[o.Name+"."] {
			t.Errorf("%q has no class, or comes twice", o.Name)
		}
		names[o.Name+"."] = true
		for _, f := range o.Functions {
			full := o.Name + "." + f.Name
			if names[full] {
				t.Errorf("%s comes twice", full)
			}
			names[full] = true
			if f.Text == "" && !f.Standard {
				t.Errorf("%s is not explained", full)
			}
			if f.Op != "" {
				op, ok := Find(f.Op)
				ops[f.Op] = true
				if !ok {
					t.Errorf("%s is a step of the operation %s, which is not there", full, f.Op)
				}
				if full := o.Name + "." + f.Name; op.Name != full && f.Name != "wait_online" {
					t.Errorf("%s is a step of %s", full, op.Name)
				}
				if (op.Needs == nil) != (f.Needs == nil) {
					t.Errorf("%s needs %q, and its operation says otherwise", full, f.Needs)
				}
			}
			for _, n := range f.Needs {
				word, arg, _ := strings.Cut(n, ":")
				if _, _, err := Need(n).Parse(); err != nil {
					t.Errorf("%s needs %s, %s: %v", full, word, arg, err)
				}
			}
			for _, code := range f.Faults {
				if !codes[code] {
					t.Errorf("%s raises %s, which is in no table", full, code)
				}
			}
		}
	}
	for _, op := range Operations() {
		if !ops[op.Name] {
			t.Errorf("no function is a step of %s", op.Name)
		}
	}
	own := hostNames()
	for _, r := range RemovedNames() {
		if slices.Contains(own, r.Name) {
			t.Errorf("%s is there, and is said not to be", r.Name)
		}
	}
}

func TestMissingGlobal(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"os":                     `global "os" does not exist here: ctx:now() gives the time`,
		"math.random":            `function "math.random" does not exist here: use ctx:random`,
		"newproxy":               `global "newproxy" does not exist here`,
		"cont":                   `global "cont" does not exist here`,
		"jsn":                    `global "jsn" does not exist here: did you mean json?`,
		"string.formt":           `function "string.formt" does not exist here: did you mean string.format?`,
		"a\x00\xff":              `global "a\x00`,
		strings.Repeat("a", 999): `aaa..." does not exist here`,
	} {
		if got := MissingGlobal(name); !strings.Contains(got, want) || len(got) > 300 {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got, want := AssignedGlobal("count"), `assignment to global "count": write 'local count' instead`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// jsonNames are the members that a type has in JSON.
func jsonNames(t reflect.Type) []string {
	var list []string
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func fieldNames(fields []Field) []string {
	var list []string
	for _, f := range fields {
		list = append(list, f.Name)
	}
	slices.Sort(list)
	return list
}

func find(t *testing.T, fields []Field, path ...string) []Field {
	t.Helper()
	for _, name := range path {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
		if i < 0 {
			t.Fatalf("there is no %s in %q", name, path)
		}
		fields = fields[i].Members
	}
	return fields
}

// TestManifestFields compares the table of a manifest's members with the types
// that they are read into.
func TestManifestFields(t *testing.T) {
	t.Parallel()
	all := ManifestFields()
	for _, c := range []struct {
		path        []string
		of          reflect.Type
		more, fewer []string
	}{
		{nil, reflect.TypeFor[Manifest](), []string{"run", "undo", "gate", "check"}, []string{"hasUndo", "hasGate", "hasCheck"}},
		{[]string{"triggers"}, reflect.TypeFor[Trigger](), nil, nil},
		{[]string{"rollout"}, reflect.TypeFor[rollout.Policy](), nil, []string{"start", "end", "repeat", "repeatZone"}},
		{[]string{"rollout", "waves"}, reflect.TypeFor[rollout.Wave](), nil, nil},
		{[]string{"rollout", "waves", "health"}, reflect.TypeFor[rollout.Health](), nil, nil},
		{[]string{"rollout", "rate"}, reflect.TypeFor[rollout.Rate](), nil, nil},
		{[]string{"rollout", "windows"}, reflect.TypeFor[rollout.Window](), nil, nil},
		{[]string{"rollout", "retry"}, reflect.TypeFor[rollout.Retry](), nil, nil},
		{[]string{"rollout", "abort"}, reflect.TypeFor[rollout.Threshold](), nil, nil},
	} {
		want := slices.DeleteFunc(append(jsonNames(c.of), c.more...), func(n string) bool { return slices.Contains(c.fewer, n) })
		slices.Sort(want)
		if got := fieldNames(find(t, all, c.path...)); !slices.Equal(got, want) {
			t.Errorf("%q: the table has\n%q, the type\n%q", c.path, got, want)
		}
	}
}

// TestStubs has every function and class in the stubs, each once, and every type
// that is named there defined.
func TestStubs(t *testing.T) {
	t.Parallel()
	more := Object{Name: "t", Class: "muster.test.Test", Method: true, Functions: []Function{{Name: "run", Text: "Runs.", Params: []Field{{Name: "n", Type: "integer"}}}}}
	text := Stubs(more)
	if !bytes.Equal(text, Stubs(more)) {
		t.Error("they differ from time to time")
	}
	if _, err := parse.Parse(bytes.NewReader(text), "muster.d.lua"); err != nil {
		t.Errorf("they are no Lua: %v", err)
	}
	lines := strings.Split(string(text), "\n")
	index := func(line string) int { return slices.Index(lines, line) }
	for _, o := range append(Host(), more) {
		for _, f := range o.Functions {
			if f.Standard {
				continue
			}
			sep := "."
			if o.Method {
				sep = ":"
			}
			full := o.Name + sep + f.Name
			if o.Name == "" {
				full = f.Name
			}
			var names []string
			for _, p := range f.Params {
				names = append(names, p.Name)
			}
			at := index("function " + full + "(" + strings.Join(names, ", ") + ") end")
			if at < 0 {
				t.Errorf("%s is missing", full)
				continue
			}
			params, returns := 0, 0
			for ; at > 0 && lines[at] != ""; at-- {
				if strings.HasPrefix(lines[at], "---@param ") {
					params++
				}
				if strings.HasPrefix(lines[at], "---@return ") {
					returns++
				}
			}
			if params != len(f.Params) || returns != len(f.Returns) {
				t.Errorf("%s has %d parameters and %d results, and its stub %d and %d", full, len(f.Params), len(f.Returns), params, returns)
			}
		}
	}
	defined := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^---@(?:class|alias) ([\w.]+)`).FindAllStringSubmatch(string(text), -1) {
		if defined[m[1]] {
			t.Errorf("%s is defined twice", m[1])
		}
		defined[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^---@(?:field|param|return) (.*)$`).FindAllStringSubmatch(string(text), -1) {
		for _, name := range regexp.MustCompile(`\bmuster\.[A-Za-z_.]*[A-Za-z_]`).FindAllString(m[1], -1) {
			if !defined[name] {
				t.Errorf("%s is not defined: %s", name, m[0])
			}
		}
	}
	for _, f := range ManifestFields() {
		if !strings.Contains(string(text), "---@field "+fieldName(f)+" ") {
			t.Errorf("%s of the manifest is missing", f.Name)
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	text := Page()
	for _, want := range []string{
		"`dev:call(method[, payload[, options]])`** gives `payload, status`", "| `rollout.waves[].size` | `integer|string`, required |",
		"| `method:NAME` |", "| `uncertain` |", "| 200,000 | instructions", "| 30d | of one wait |", "### json", "| `os` |",
	} {
		if !strings.Contains(strings.ReplaceAll(text, `\|`, "|"), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "|") && !strings.HasSuffix(line, "|") {
			t.Errorf("a row that is none: %s", line)
		}
	}
}
