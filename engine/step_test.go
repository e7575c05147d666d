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
var stepFiles = []string{"job*.go", "execution*.go", "configuration*.go", "identity_job*.go"}

// TestLongWorkIsInSteps fails if one of these files runs a transaction otherwise
// than by Hub.step, or by one without a name of its own that is written there:
// TestFaultSweep would not know of it.
func TestLongWorkIsInSteps(t *testing.T) {
	set := token.NewFileSet()
	names := map[string]string{} // where each name is
	files := 0
	for _, pattern := range stepFiles {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			files++
			f, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			checkSteps(t, set, f, names)
		}
	}
	if files < 20 || len(names) < 10 {
		t.Errorf("%d files with %d steps were found: are the patterns right?", files, len(names))
	}
	for name, where := range names {
		subject, what, ok := strings.Cut(name, ".")
		if !ok || subject == "" || what == "" || strings.ContainsAny(name, " :/") {
			t.Errorf("%s: the step is named %q, expected subject.what", where, name)
		}
	}
	t.Logf("%d files, %d steps: %s", files, len(names), strings.Join(slices.Sorted(maps.Keys(names)), " "))
}

func checkSteps(t *testing.T, set *token.FileSet, f *ast.File, names map[string]string) {
	for _, decl := range f.Decls {
		function, _ := decl.(*ast.FuncDecl)
		ast.Inspect(decl, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			where := set.Position(call.Pos()).String()
			switch method.Sel.Name {
			case "update", "Update", "Submit", "submitPresence", "BulkLoad":
				if receiver := lastName(method.X); receiver == "h" || receiver == "hub" || receiver == "db" {
					t.Errorf("%s: a transaction by %s.%s; expected Hub.step with a name", where, receiver, method.Sel.Name)
				}
			case "step":
				if len(call.Args) < 2 {
					return true
				}
				name, ok := call.Args[1].(*ast.BasicLit)
				if !ok {
					if !passesName(function, call.Args[1]) {
						t.Errorf("%s: the name of the step is not written there", where)
					}
					return true
				}
				text, err := strconv.Unquote(name.Value)
				if err != nil {
					t.Fatal(err)
				}
				if other, taken := names[text]; taken {
					t.Errorf("%s: the step %q is also at %s", where, text, other)
				}
				names[text] = where
			}
			return true
		})
	}
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

// passesName reports whether a function is itself one called step that hands its
// parameter on: then the names are where it is called.
func passesName(function *ast.FuncDecl, name ast.Expr) bool {
	ident, ok := name.(*ast.Ident)
	if !ok || function == nil || function.Name.Name != "step" {
		return false
	}
	for _, p := range function.Type.Params.List {
		for _, n := range p.Names {
			if n.Name == ident.Name {
				return true
			}
		}
	}
	return false
}
