package engine_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// stepFiles are the files of long work: what is killed between two of its
// transactions must be taken up again, so each of them is a named step.
var stepFiles = []string{"job*.go", "execution*.go", "configuration*.go", "identity_job*.go", "run_*.go", "pattern*.go", "trigger*.go"}

// TestLongWorkIsInSteps fails if one of these files runs a transaction otherwise
// than by Hub.step, or by one without a name of its own that is written there, or
// where a function is called that hands the name on: TestFaultSweep would not
// know of it.
func TestLongWorkIsInSteps(t *testing.T) {
	c := &stepCheck{set: token.NewFileSet(), naming: map[string]int{"step/3": 1, "step/4": 1}, names: map[string]string{}}
	var files []*ast.File
	for _, pattern := range stepFiles {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(c.set, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	for known := 0; known != len(c.naming); { // functions that hand a name on, and those that call them so
		known = len(c.naming)
		for _, f := range files {
			c.each(f, c.findNaming)
		}
	}
	for _, f := range files {
		c.each(f, func(function *ast.FuncDecl, call *ast.CallExpr) { c.check(t, function, call) })
	}
	if len(files) < 20 || len(c.names) < 10 {
		t.Errorf("%d files with %d steps were found: are the patterns right?", len(files), len(c.names))
	}
	for name, where := range c.names {
		subject, what, ok := strings.Cut(name, ".")
		if !ok || subject == "" || what == "" || strings.ContainsAny(name, " :/") {
			t.Errorf("%s: the step is named %q, expected subject.what", where, name)
		}
	}
	t.Logf("%d files, %d steps: %s", len(files), len(c.names), strings.Join(slices.Sorted(maps.Keys(c.names)), " "))
}

// stepCheck looks for transactions in the files of long work.
type stepCheck struct {
	set    *token.FileSet
	naming map[string]int    // functions, by name and number of arguments, that take a step's name: as which of them
	names  map[string]string // where each name is
}

// each calls f for each call in a file, with the function that it is in.
func (c *stepCheck) each(file *ast.File, f func(function *ast.FuncDecl, call *ast.CallExpr)) {
	for _, decl := range file.Decls {
		function, _ := decl.(*ast.FuncDecl)
		ast.Inspect(decl, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				f(function, call)
			}
			return true
		})
	}
}

// name returns the argument of a call that names a step, nil when the call does
// not begin one.
func (c *stepCheck) name(call *ast.CallExpr) ast.Expr {
	if n, naming := c.naming[lastName(call.Fun)+"/"+strconv.Itoa(len(call.Args))]; naming {
		return call.Args[n]
	}
	return nil
}

func (c *stepCheck) findNaming(function *ast.FuncDecl, call *ast.CallExpr) {
	if n := parameter(function, c.name(call)); n >= 0 {
		c.naming[function.Name.Name+"/"+strconv.Itoa(function.Type.Params.NumFields())] = n
	}
}

func (c *stepCheck) check(t *testing.T, function *ast.FuncDecl, call *ast.CallExpr) {
	where := c.set.Position(call.Pos()).String()
	if method, ok := call.Fun.(*ast.SelectorExpr); ok {
		switch method.Sel.Name {
		case "update", "Update", "Submit", "submitPresence", "BulkLoad":
			if receiver := lastName(method.X); receiver == "h" || receiver == "hub" || receiver == "db" {
				t.Errorf("%s: a transaction by %s.%s; expected Hub.step with a name", where, receiver, method.Sel.Name)
			}
		}
	}
	argument := c.name(call)
	if argument == nil || parameter(function, argument) >= 0 {
		return
	}
	name, ok := argument.(*ast.BasicLit)
	if !ok {
		t.Errorf("%s: the name of the step is not written there", where)
		return
	}
	text, err := strconv.Unquote(name.Value)
	if err != nil {
		t.Fatal(err)
	}
	if other, taken := c.names[text]; taken {
		t.Errorf("%s: the step %q is also at %s", where, text, other)
	}
	c.names[text] = where
}

// lastName is b of a.b, and a of a.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// parameter returns which parameter of a function an expression is, -1 if none.
func parameter(function *ast.FuncDecl, e ast.Expr) int {
	ident, ok := e.(*ast.Ident)
	if !ok || function == nil {
		return -1
	}
	n := 0
	for _, p := range function.Type.Params.List {
		for _, name := range p.Names {
			if name.Name == ident.Name {
				return n
			}
			n++
		}
	}
	return -1
}
