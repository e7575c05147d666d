package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/muster-hub/muster"

// layer is a row of the table of who may import whom. Paths are relative to the
// module; "" is the module's root.
type layer struct {
	path    string
	may     []string // packages of Muster; "engine/..." is the package and what is below it
	never   []string // others, with what is below them
	because string
}

// layers has a row for each package. A package without a row fails the test:
// a new arrow is a decision, and this is where it is written down.
func layers() []layer {
	network := []string{"net/http", "github.com/coder/websocket", "github.com/mochi-mqtt", "github.com/alecthomas/kong"}
	pure := append([]string{"net", "os", "database/sql", "log", "github.com/dgraph-io"}, network...)
	edge := []string{"github.com/dgraph-io", "github.com/alecthomas/kong"}
	return []layer{
		{"storage", nil, network, "storage is the floor: it knows no domain word and no wire"},
		{"engine/wording", nil, pure, "what messages about bad input share needs nothing but the words"},
		{"engine/twin", nil, pure, "the rules of twins are pure: no I/O, time is an argument"},
		{"engine/auth", nil, pure, "who a token is must be decided without I/O, time is an argument"},
		{"engine/query", []string{"engine/twin", "engine/wording"}, pure, "a language and its plans are pure: documents come through an interface, time is an argument"},
		{"engine/query/querytest", nil, pure, "scenarios of the query language are data: what runs them reads them from here"},
		{"engine/rollout", []string{"engine/wording"}, pure, "how an action spreads is decided without I/O and clock: a simple model can check it"},
		{"engine/schema", nil, pure, "checking a document is pure; a schema leads nowhere outside of itself"},
		{"engine/configuration", []string{"engine/twin"}, pure, "who sets what in a twin is decided without I/O, so that a naive evaluator can check it"},
		{"engine/pattern", []string{"engine/query", "engine/rollout", "engine/schema", "engine/wording"}, pure, "what a program is and how a run goes on is decided without Lua, I/O and clock: the engine and the tests of patterns run the very same"},
		{"engine", []string{"storage", "engine/auth", "engine/configuration", "engine/pattern", "engine/query", "engine/rollout", "engine/schema", "engine/twin"}, append([]string{"github.com/dgraph-io"}, network...), "the engine owns the rules and knows no edge"},
		{"engine/enginetest", []string{"storage", "engine/..."}, append([]string{"github.com/dgraph-io"}, network...), "a hub in process for the tests of other packages"},
		{"scripting", []string{"engine/pattern", "engine/query", "engine/rollout", "engine/schema", "engine/twin", "engine/wording"}, append([]string{"github.com/dgraph-io"}, network...), "Lua sees programs, never the store or a wire: what it may do comes from the pure packages"},
		{"scripting/scenario", []string{"scripting", "engine/pattern", "engine/query", "engine/rollout", "engine/twin", "engine/wording"}, append([]string{"github.com/dgraph-io"}, network...), "tests of patterns run without a hub: the pure packages are all that they need of it"},
		{"scripting/author", []string{"scripting", "scripting/scenario", "engine/pattern", "engine/query", "engine/rollout", "engine/wording"}, append([]string{"github.com/dgraph-io"}, network...), "what helps to write a pattern sees its files alone"},
		{"plugins", []string{"engine/pattern"}, edge, "the patterns that ship inside the binary are files, handed out as bundles"},
		{"protocols/wire", nil, edge, "the wire codec knows no hub; it is the only importer of both libraries"},
		{"protocols/device", []string{"engine/...", "protocols/wire"}, append(libraries(), edge...), "an edge translates and never decides; it does not see the store or another edge"},
		{"protocols/service", []string{"engine/...", "protocols/wire"}, append(libraries(), edge...), "an edge translates and never decides; it does not see the store or another edge"},
		{"protocols/outbound", nil, append(libraries(), edge...), "outgoing calls know no hub: whoever needs one hands them in"},
		{"protocols/console", nil, edge, "the console uses only the public REST: no private door into the engine"},
		{"protocols", []string{"engine/...", "protocols/device", "protocols/service", "protocols/console", "protocols/wire"}, append(libraries(), edge...), "the server owns listeners and order, not rules; it accepts sockets in the form that wire waits on"},
		{"protocols/client", []string{"protocols/wire", "engine/auth"}, edge, "a client speaks the wire; of the engine it takes only the pure grammar of tokens and connection strings"},
		{"protocols/client/clienttest", []string{"engine/...", "storage", "protocols", "protocols/client"}, edge, "a hub with sockets for the clients' tests"},
		{"protocols/simulator", []string{"protocols/client", "protocols/wire", "engine/auth"}, edge, "simulated devices are clients like any other"},
		{"protocols/cli", []string{"protocols/client", "protocols/simulator", "protocols/wire", "engine/auth", "engine/pattern", "engine/wording"}, []string{"github.com/dgraph-io"}, "commands are clients of a running hub; what needs the hub itself comes as a hook from main"},
		{"", []string{"storage", "engine/...", "scripting/...", "plugins", "protocols", "protocols/cli", "protocols/outbound"}, edge, "main is wiring"},
		{"test/powercut", []string{"test/powercut/..."}, network, "the harness looks at the store from outside"},
		{"test/powercut/disk", nil, network, "a model of a disk"},
		{"test/powercut/hooked", nil, network, "copies of the store's library with hooks"},
	}
}

// libraries are what only protocols/wire may import.
func libraries() []string {
	return []string{"github.com/coder/websocket", "github.com/mochi-mqtt"}
}

// listed is what go list tells of a package.
type listed struct {
	ImportPath   string
	Dir          string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func list(t *testing.T, dir string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func relative(importPath string) (string, bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// checkImports returns a line for each import that the table does not allow.
func checkImports(rows []layer, packages []listed) []string {
	var bad []string
	for _, p := range packages {
		path, own := relative(p.ImportPath)
		if !own {
			continue
		}
		i := slices.IndexFunc(rows, func(l layer) bool { return l.path == path })
		if i < 0 {
			bad = append(bad, fmt.Sprintf("package %q has no row in the table of layers; give it one, with the reason", path))
			continue
		}
		for _, imported := range p.Imports {
			if why := rows[i].refuses(imported); why != "" {
				bad = append(bad, fmt.Sprintf("%s imports %s: %s, because %s", p.ImportPath, imported, why, rows[i].because))
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if below(imported, "github.com/stretchr/testify") {
				bad = append(bad, p.ImportPath+" tests with testify: tests use the standard library, so that a failure reads as the code does")
			}
		}
	}
	return bad
}

func (l layer) refuses(imported string) string {
	if path, own := relative(imported); own {
		for _, may := range l.may {
			if tree, ok := strings.CutSuffix(may, "/..."); path == may || ok && below(path, tree) {
				return ""
			}
		}
		return "no such arrow is in the table"
	}
	for _, never := range l.never {
		if imported == never || strings.Contains(never, ".") && below(imported, never) {
			return "the table forbids it"
		}
	}
	return ""
}

func below(path, tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

// Bounds on shape.
const (
	fileLinesMost  = 900 // of code: neither blank nor only comment
	hubFieldsMost  = 15
	docWordsLeast  = 3
	packageDocWord = "Package "
)

// checkSource returns a line for each rule that a package's source breaks.
func checkSource(p listed) ([]string, error) {
	var bad []string
	fset := token.NewFileSet()
	documented := p.Name == "main"
	var files []*ast.File
	for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		if f.Doc != nil && (p.Name == "main" || strings.HasPrefix(f.Doc.Text(), packageDocWord+p.Name+" ")) {
			documented = true
		}
		if n := codeLines(fset, f); n > fileLinesMost {
			bad = append(bad, fmt.Sprintf("%s has %d lines of code, at most %d: cut it by subject", filepath.Join(p.ImportPath, name), n, fileLinesMost))
		}
	}
	if !documented {
		bad = append(bad, fmt.Sprintf("%s has no package comment that begins with %q", p.ImportPath, packageDocWord+p.Name))
	}
	for _, f := range files {
		for _, d := range f.Decls {
			at := func(n ast.Node) string {
				pos := fset.Position(n.Pos())
				return fmt.Sprintf("%s/%s:%d", p.ImportPath, filepath.Base(pos.Filename), pos.Line)
			}
			bad = append(bad, checkDecl(p, d, at)...)
		}
	}
	return bad, nil
}

func checkDecl(p listed, d ast.Decl, at func(ast.Node) string) []string {
	var bad []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.Name == "init" && d.Recv == nil {
			bad = append(bad, at(d)+": init runs at import; make what it makes in a constructor")
		}
		if d.Name.IsExported() && exportedReceiver(d) && words(d.Doc) < docWordsLeast {
			bad = append(bad, fmt.Sprintf("%s: %s has no comment that says what it does", at(d), d.Name.Name))
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && words(d.Doc) < docWordsLeast && words(s.Doc) < docWordsLeast && words(s.Comment) < docWordsLeast {
					bad = append(bad, fmt.Sprintf("%s: type %s has no comment that says what it is", at(s), s.Name.Name))
				}
				if st, ok := s.Type.(*ast.StructType); ok && p.ImportPath == module+"/engine" && s.Name.Name == "Hub" && st.Fields.NumFields() > hubFieldsMost {
					bad = append(bad, fmt.Sprintf("%s: Hub has %d fields, at most %d: a rule belongs into a pure package", at(s), st.Fields.NumFields(), hubFieldsMost))
				}
			case *ast.ValueSpec:
				bad = append(bad, checkValues(d, s, at)...)
			}
		}
	}
	return bad
}

func checkValues(d *ast.GenDecl, s *ast.ValueSpec, at func(ast.Node) string) []string {
	var bad []string
	for i, name := range s.Names {
		if name.IsExported() && words(d.Doc) < docWordsLeast && words(s.Doc) == 0 && words(s.Comment) == 0 {
			bad = append(bad, fmt.Sprintf("%s: %s has no comment that says what it is", at(name), name.Name))
		}
		if d.Tok != token.VAR || name.Name == "_" || allowedVar(d, s, i) {
			continue
		}
		bad = append(bad, fmt.Sprintf("%s: the package-level variable %s is neither an error nor a table: put state into a struct", at(name), name.Name))
	}
	return bad
}

// allowedVar reports whether a package-level variable is a sentinel error, a
// table, a compiled expression, a stateless description of a record, or an
// embedded file.
func allowedVar(d *ast.GenDecl, s *ast.ValueSpec, i int) bool {
	if i >= len(s.Values) {
		return embeds(d.Doc) || embeds(s.Doc)
	}
	switch v := s.Values[i].(type) {
	case *ast.CompositeLit:
		return true
	case *ast.SelectorExpr: // another package's error by its own name
		return strings.HasPrefix(v.Sel.Name, "Err") && v.Sel.Name == s.Names[i].Name
	case *ast.CallExpr:
		fun := v.Fun
		if g, ok := fun.(*ast.IndexExpr); ok {
			fun = g.X
		}
		if own, ok := fun.(*ast.Ident); ok {
			return own.Name == "NewTable" // in storage itself
		}
		sel, ok := fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, _ := sel.X.(*ast.Ident)
		return pkg != nil && slices.Contains([]string{
			"errors.New", "fmt.Errorf", "regexp.MustCompile", "storage.NewTable", "storage.NewLog", "netip.MustParsePrefix",
			"flag.Int", "flag.Bool", "flag.String", "strings.NewReplacer", "template.Must", "crc32.MakeTable",
		}, pkg.Name+"."+sel.Sel.Name)
	}
	return false
}

func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

func words(doc *ast.CommentGroup) int {
	if doc == nil {
		return 0
	}
	return len(strings.Fields(doc.Text()))
}

// codeLines counts lines that hold a token of code.
func codeLines(fset *token.FileSet, f *ast.File) int {
	lines := map[int]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			return false
		}
		switch n.(type) {
		case *ast.Comment, *ast.CommentGroup:
			return false
		}
		lines[fset.Position(n.Pos()).Line] = true
		lines[fset.Position(n.End()-1).Line] = true
		return true
	})
	return len(lines)
}

func TestImports(t *testing.T) {
	t.Parallel()
	packages := list(t, ".")
	for _, line := range checkImports(layers(), packages) {
		t.Error(line)
	}
	badger := 0
	for _, p := range packages {
		if slices.ContainsFunc(p.Imports, func(i string) bool { return below(i, "github.com/dgraph-io/badger") }) {
			badger++
			if p.ImportPath != module+"/storage" {
				t.Errorf("%s imports Badger: only storage may, so that the store can be exchanged", p.ImportPath)
			}
		}
	}
	if badger == 0 {
		t.Error("nobody imports Badger: the check looks at the wrong packages")
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, ".") {
		if strings.HasPrefix(p.ImportPath, module+"/test/") {
			continue
		}
		bad, err := checkSource(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range bad {
			t.Error(line)
		}
	}
}

// TestCheckerFindsViolations plants one violation of each kind and expects the
// checker to name it.
func TestCheckerFindsViolations(t *testing.T) {
	t.Parallel()
	rows := layers()
	for _, planted := range []struct {
		path, imports, want string
	}{
		{"storage", module + "/engine", "no such arrow"},
		{"storage", "net/http", "the table forbids it"},
		{"engine", "github.com/dgraph-io/badger/v4", "the table forbids it"},
		{"engine/twin", "os", "the table forbids it"},
		{"protocols/device", module + "/storage", "no such arrow"},
		{"protocols/device", module + "/protocols/service", "no such arrow"},
		{"protocols/service", "github.com/coder/websocket", "the table forbids it"},
		{"protocols/cli", module + "/engine", "no such arrow"},
		{"protocols/console", module + "/engine", "no such arrow"},
		{"somewhere/new", "fmt", "has no row"},
	} {
		bad := checkImports(rows, []listed{{ImportPath: module + "/" + planted.path, Imports: []string{planted.imports}}})
		if len(bad) != 1 || !strings.Contains(bad[0], planted.want) {
			t.Errorf("%s importing %s: got %q, want one line with %q", planted.path, planted.imports, bad, planted.want)
		}
	}
	if bad := checkImports(rows, []listed{{ImportPath: module + "/storage", TestImports: []string{"github.com/stretchr/testify/assert"}}}); len(bad) != 1 {
		t.Errorf("testify: got %q", bad)
	}

	dir := t.TempDir()
	long := strings.Repeat("\t_ = 1\n", fileLinesMost+1)
	hub := "// Hub is a hub of too much.\ntype Hub struct {\n" + strings.Repeat("\t_ int\n", hubFieldsMost+1) + "}\n"
	for name, text := range map[string]string{
		"state.go": "package engine\n\nvar cache = make(map[string]int)\n\nvar total int\n",
		"doc.go":   "package engine\n\nfunc Do() {}\n\ntype Thing struct{}\n\nvar ErrGood = 1\n",
		"init.go":  "package engine\n\nfunc init() {}\n",
		"long.go":  "package engine\n\nfunc long() {\n" + long + "}\n",
		"hub.go":   "package engine\n\n" + hub,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bad, err := checkSource(listed{ImportPath: module + "/engine", Dir: dir, Name: "engine", GoFiles: []string{"state.go", "doc.go", "init.go", "long.go", "hub.go"}})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(bad, "\n")
	for _, want := range []string{
		"variable cache", "variable total", "Do has no comment", "type Thing has no comment", "ErrGood has no comment", "variable ErrGood",
		"init runs at import", "lines of code", "Hub has", "no package comment",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the checker does not find %q in\n%s", want, all)
		}
	}
	fine := "// Package fine is what the checker likes.\npackage fine\n\nimport \"errors\"\n\n// ErrGone says that it is gone.\nvar ErrGone = errors.New(\"gone\")\n\nvar rows = [...]int{1, 2}\n"
	if err := os.WriteFile(filepath.Join(dir, "fine.go"), []byte(fine), 0o600); err != nil {
		t.Fatal(err)
	}
	if bad, err := checkSource(listed{ImportPath: module + "/fine", Dir: dir, Name: "fine", GoFiles: []string{"fine.go"}}); err != nil || len(bad) > 0 {
		t.Errorf("a sound package: got %q, %v", bad, err)
	}
}
