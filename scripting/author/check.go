package author

import (
	"cmp"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/yuin/gopher-lua/ast"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/scripting"
	"github.com/muster-hub/muster/scripting/scenario"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	LevelError   Level = "error"   // install refuses it, or it fails when it gets there
	LevelWarning Level = "warning" // it is likely not what is meant
)

// Finding is something that Check found.
type Finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // from 1; 0: the file as a whole
	Level   Level  `json:"level"`
	Rule    string `json:"rule"` // kebab-case
	Message string `json:"message"`
	Next    string `json:"next,omitempty"` // what to do
}

// checker gathers what is found.
type checker struct {
	bundle   *pattern.Bundle
	manifest *pattern.Manifest // nil: it can't be read
	host     *host
	list     []Finding

	used    map[pattern.Need]bool // capabilities of calls whose arguments are written out
	dynamic map[string]bool       // sorts of them, as "method", whose arguments are not
	read    map[string]bool       // parameters
	passed  bool                  // the parameters go somewhere as a whole
	entries map[string]bool       // functions of pattern{}
	keys    map[string]int        // lines of the members of pattern{}
}

// Check looks at a bundle: everything for which it would not be installed, and
// what its source shows. Findings are in order of files and lines. The manifest
// is nil if it can't be read.
func Check(b *pattern.Bundle) ([]Finding, *pattern.Manifest) {
	c := &checker{
		bundle: b, host: newHost(), used: map[pattern.Need]bool{}, dynamic: map[string]bool{}, read: map[string]bool{},
		entries: map[string]bool{}, keys: map[string]int{},
	}
	if err := b.Check(); err != nil {
		c.add("", 0, LevelError, "bundle", err.Error(), "")
		return c.list, nil
	}
	chunks := c.parse()
	c.load(chunks)
	for _, file := range slices.Sorted(maps.Keys(chunks)) {
		c.walk(file, chunks[file])
	}
	if c.manifest != nil && chunks[pattern.MainFile] != nil {
		c.needs()
		c.params()
	}
	// What ends the loading of the pattern has often been told already, and better.
	c.list = slices.DeleteFunc(c.list, func(f Finding) bool {
		return f.Rule == "load" && slices.ContainsFunc(c.list, func(o Finding) bool {
			return o.Rule != "load" && o.Level == LevelError && o.File == f.File && o.Line == f.Line
		})
	})
	if !slices.ContainsFunc(slices.Collect(maps.Keys(b.Files)), func(f string) bool { return isTest(f) }) {
		c.add("", 0, LevelWarning, "no-tests", "the pattern has no tests", "Write one in test/: see docs/how-to/test-a-pattern.md.")
	}
	slices.SortStableFunc(c.list, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(string(a.Level), string(b.Level)))
	})
	return slices.CompactFunc(c.list, func(a, b Finding) bool { return a.File == b.File && a.Line == b.Line && a.Message == b.Message }), c.manifest
}

func isTest(file string) bool {
	return strings.HasPrefix(file, scenario.Folder+"/") && strings.HasSuffix(file, ".lua")
}

func (c *checker) add(file string, line int, level Level, rule, message, next string) {
	c.list = append(c.list, Finding{file, line, level, rule, message, next})
}

// parse reads all files of Lua but the editor's stubs.
func (c *checker) parse() map[string][]ast.Stmt {
	chunks := map[string][]ast.Stmt{}
	for file, source := range c.bundle.Files {
		if !strings.HasSuffix(file, ".lua") || strings.HasSuffix(file, ".d.lua") {
			continue
		}
		chunk, err := scripting.Parse(file, source)
		if err == nil {
			chunks[file] = chunk
			continue
		}
		line, message := 1, err.Error()
		if f, ok := errors.AsType[*pattern.Fault](err); ok {
			_, line = splitLine(f.Line)
			message = f.Message
		}
		next := ""
		if lines := strings.Split(string(source), "\n"); line >= 1 && line <= len(lines) {
			next = syntaxHint(lines[line-1])
		}
		c.add(file, line, LevelError, "syntax", message, next)
	}
	return chunks
}

// syntaxHint says what to write instead of what other versions of Lua, or other
// languages, have.
func syntaxHint(line string) string {
	code := regexp.MustCompile(`"(\\.|[^"\\])*"|'(\\.|[^'\\])*'|--.*`).ReplaceAllString(line, `""`)
	for _, h := range []struct{ what, next string }{
		{`//`, "This is Lua 5.1, which has no //: write math.floor(a / b)."},
		{`!=`, "Lua writes ~= for not equal."},
		{`\+=|-=|\*=`, "Lua has no +=: write a = a + b."},
		{`&&|\|\|`, "Lua writes and, or, not."},
		{`[&|~]\s*\d|<<|>>`, "This is Lua 5.1, which has no operators on bits."},
		{`\+\+`, "Lua has no ++: write a = a + 1."},
		{`<\s*(const|close)\s*>`, "This is Lua 5.1, which has no attributes of variables."},
		{`\bcontinue\b`, "Lua has no continue: write goto continue, and ::continue:: at the end of the loop."},
	} {
		if regexp.MustCompile(h.what).MatchString(code) {
			return h.next
		}
	}
	return ""
}

// load finds out what install would say.
func (c *checker) load(chunks map[string][]ast.Stmt) {
	if chunks[pattern.MainFile] == nil {
		return // it has been said why
	}
	c.findKeys(chunks[pattern.MainFile])
	m, err := scripting.Load(c.bundle)
	if err == nil {
		c.manifest = m
		return
	}
	if f, ok := errors.AsType[*pattern.Fault](err); ok {
		file, line := splitLine(f.Line)
		c.add(file, line, LevelError, "load", f.Message, "")
		return
	}
	if faults, ok := errors.AsType[rollout.Faults](err); ok {
		for _, f := range faults {
			line := c.lineOf(f.Path)
			if m := regexp.MustCompile(`has no member "([^"]+)"`).FindStringSubmatch(f.Reason); m != nil && line == 0 {
				line = c.lineOf(m[1])
			}
			c.add(pattern.MainFile, line, LevelError, "manifest", f.Error(), "")
		}
		return
	}
	c.add(pattern.MainFile, 0, LevelError, "manifest", err.Error(), "")
}

// splitLine splits "lib/x.lua:12".
func splitLine(place string) (file string, line int) {
	i := strings.LastIndexByte(place, ':')
	if i < 0 {
		return place, 0
	}
	line, err := strconv.Atoi(place[i+1:])
	if err != nil {
		return place, 0
	}
	return place[:i], line
}

// findKeys notes where the members of pattern{} stand, at any level.
func (c *checker) findKeys(chunk []ast.Stmt) {
	var table func(prefix string, t *ast.TableExpr)
	table = func(prefix string, t *ast.TableExpr) {
		n := 0
		for _, f := range t.Fields {
			path := prefix
			if key, ok := f.Key.(*ast.StringExpr); ok {
				if path != "" {
					path += "."
				}
				path += key.Value
			} else {
				path += "[" + strconv.Itoa(n) + "]"
				n++
			}
			c.keys[path] = f.Value.Line()
			if f.Key != nil && f.Key.Line() > 0 {
				c.keys[path] = f.Key.Line()
			}
			if inner, ok := f.Value.(*ast.TableExpr); ok {
				table(path, inner)
			}
		}
	}
	if t := patternTable(chunk); t != nil {
		table("", t)
	}
}

// patternTable is the argument of pattern{} that a main file returns.
func patternTable(chunk []ast.Stmt) *ast.TableExpr {
	for _, s := range chunk {
		r, ok := s.(*ast.ReturnStmt)
		if !ok || len(r.Exprs) == 0 {
			continue
		}
		call, ok := r.Exprs[0].(*ast.FuncCallExpr)
		if !ok || len(call.Args) != 1 {
			continue
		}
		if name, ok := call.Func.(*ast.IdentExpr); ok && name.Value == "pattern" {
			t, _ := call.Args[0].(*ast.TableExpr)
			return t
		}
	}
	return nil
}

// lineOf is the line of a member of the manifest, or of the nearest one above it.
func (c *checker) lineOf(path string) int {
	for path != "" {
		if line := c.keys[path]; line > 0 {
			return line
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			break
		}
		path = path[:i]
	}
	return 0
}
