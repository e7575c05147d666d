package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sharedByChoice are tests that do less under the race detector, and nowhere
// else in test/run.sh more: what they leave out shows nothing of its own.
func sharedByChoice() map[string]string {
	return map[string]string{
		"TestBatch": "says how often workers were replaced, which the detector's memory decides",
	}
}

// TestSharesRunInFull: a test that takes a share of its cases under the race
// detector is one of those that test/run.sh runs again without it, and each name
// there is one of a test.
func TestSharesRunInFull(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("test/run.sh")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*/race_on_test.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("*/*/race_on_test.go")
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string]string{} // the package of each test
	for _, file := range append(files, more...) {
		for _, name := range sharesIn(t, filepath.Dir(file)) {
			shared[name] = filepath.Dir(file)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shared)) {
		_, chosen := sharedByChoice()[name]
		if named := regexp.MustCompile(`\b` + name + `\b`).Match(script); named == chosen {
			t.Errorf("%s of %s takes a share under the race detector, expected it in test/run.sh in full, or in sharedByChoice with a reason (named: %t, chosen: %t)", name, shared[name], named, chosen)
		}
	}
	_, list, _ := strings.Cut(string(script), "in_full=(")
	list, _, _ = strings.Cut(list, "\n)")
	names := regexp.MustCompile(`\bTest\w+`).FindAllString(list, -1)
	for _, name := range names {
		if shared[name] == "" {
			t.Errorf("test/run.sh runs %s in full, no test of that name takes a share under the race detector", name)
		}
	}
	if len(names) < 15 {
		t.Errorf("only %v run in full: is the list in test/run.sh still found?", names)
	}
}

// sharesIn returns the tests of a directory that ask for raceDetector, by
// themselves or by a function of the tests that they call.
func sharesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	uses := map[string]map[string]bool{} // by function
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || function.Recv != nil || function.Body == nil {
				continue
			}
			used := map[string]bool{}
			ast.Inspect(function.Body, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					used[id.Name] = true
				}
				return true
			})
			uses[function.Name.Name] = used
		}
	}
	asks := map[string]bool{"raceDetector": true}
	for known := 0; known != len(asks); {
		known = len(asks)
		for name, used := range uses {
			for asked := range asks {
				if used[asked] && !(strings.HasPrefix(name, "Benchmark")) {
					asks[name] = true
					break
				}
			}
		}
	}
	for name := range asks {
		if strings.HasPrefix(name, "Test") {
			names = append(names, name)
		}
	}
	return names
}
