package scripting

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// Program is a bundle that was compiled. It holds no state of any run, and is
// safe for concurrent use.
type Program struct {
	hash  string
	files map[string]*lua.FunctionProto // by path
	lib   *library
	walls walls
}

// walls say which bounds are taken away, for tests that show what the other ones
// are worth.
type walls struct {
	open bool // the sandbox: Lua's own libraries, no rewriting, no budget
}

// Compile parses and compiles the Lua files of a bundle. What is wrong with them
// is a *pattern.Fault with Line ("pattern.lua:3").
func Compile(b *pattern.Bundle) (*Program, error) { return compile(b, newLibrary(), false, walls{}) }

// compile takes a library that programs may share. With whole the main file
// keeps what only a manifest needs.
func compile(b *pattern.Bundle, lib *library, whole bool, w walls) (*Program, error) {
	p := &Program{hash: b.Hash(), files: map[string]*lua.FunctionProto{}, lib: lib, walls: w}
	if _, ok := b.Files[pattern.MainFile]; !ok {
		return nil, &pattern.Fault{Code: pattern.FaultLua, Message: "the bundle has no file " + pattern.MainFile}
	}
	for _, path := range slices.Sorted(maps.Keys(b.Files)) {
		if !IsCode(path) {
			continue
		}
		proto, fault := compileFile(path, b.Files[path], path == pattern.MainFile && !whole, w)
		if fault != nil {
			return nil, fault
		}
		p.files[path] = proto
	}
	return p, nil
}

// IsCode reports whether a file of a bundle is part of its program: Lua that is
// no test.
func IsCode(path string) bool {
	return strings.HasSuffix(path, ".lua") && !strings.HasPrefix(path, "test/")
}

func compileFile(path string, text []byte, cut bool, w walls) (_ *lua.FunctionProto, fault *pattern.Fault) {
	parse := parseFile
	if w.open {
		parse = parseLua
	}
	chunk, fault := parse(path, text)
	if fault != nil {
		return nil, fault
	}
	if cut {
		trim(chunk)
	}
	proto, err := lua.Compile(chunk, path)
	if err != nil {
		fault = &pattern.Fault{Code: pattern.FaultLua, Message: err.Error(), Line: place(path, 1)}
		if e, ok := err.(*lua.CompileError); ok {
			fault.Message, fault.Line = e.Message, place(path, e.Line)
		}
		return nil, fault
	}
	return proto, nil
}

// newSource reads a file as Lua's own loader does: without a byte order mark,
// and without a first line that begins with #.
func newSource(text []byte) io.Reader {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(text, []byte("#")) {
		_, rest, _ := bytes.Cut(text, []byte("\n"))
		text = append([]byte("\n"), rest...)
	}
	return bytes.NewReader(text)
}

func lines(text []byte) int { return max(1, bytes.Count(bytes.TrimRight(text, "\n"), []byte("\n"))+1) }

// Hash is that of the bundle.
func (p *Program) Hash() string { return p.hash }

// Load compiles a bundle, runs its main file and returns what it declares. What
// is wrong with it is a *pattern.Fault where Lua found it, else an error that
// names the member of the manifest.
func Load(b *pattern.Bundle) (*pattern.Manifest, error) { return load(b, newLibrary(), walls{}) }

func load(b *pattern.Bundle, lib *library, w walls) (*pattern.Manifest, error) {
	text, err := declaration(b, lib, w)
	if err != nil {
		return nil, err
	}
	return manifestOf(text)
}

// manifestOf makes the manifest of what declaration gave.
func manifestOf(text []byte) (*pattern.Manifest, error) { return pattern.ParseManifest(text) }

// declaration runs the main file and gives what it declares as JSON, with
// hasUndo and so on in place of its functions.
func declaration(b *pattern.Bundle, lib *library, w walls) ([]byte, error) {
	p, err := compile(b, lib, true, w)
	if err != nil {
		return nil, err
	}
	x := newExecution(p, &pattern.Activation{Entry: entryLoad})
	table, fault := x.load()
	if fault != nil {
		return nil, fault
	}
	if _, ok := table.RawGetString(string(pattern.EntryRun)).(*lua.LFunction); !ok {
		return nil, &pattern.Fault{Code: pattern.FaultLua, Message: "the pattern has no function run", Line: place(pattern.MainFile, 1)}
	}
	whole := x.state.NewTable()
	for _, entry := range []struct {
		of   pattern.Entry
		name string
	}{{pattern.EntryRun, ""}, {pattern.EntryUndo, "hasUndo"}, {pattern.EntryGate, "hasGate"}, {pattern.EntryCheck, "hasCheck"}} {
		switch v := table.RawGetString(string(entry.of)).(type) {
		case *lua.LNilType:
		case *lua.LFunction:
			if entry.name != "" {
				whole.RawSetString(entry.name, lua.LTrue)
			}
		default:
			return nil, &pattern.Fault{Code: pattern.FaultLua, Message: fmt.Sprintf("%s is a %s, expected a function", entry.of, v.Type()), Line: place(pattern.MainFile, 1)}
		}
	}
	table.ForEach(func(k, v lua.LValue) {
		if name, ok := k.(lua.LString); !ok || !isEntry(string(name)) {
			whole.RawSet(k, v)
		}
	})
	text, err := encode(whole, pattern.MaxManifest)
	if err != nil {
		return nil, &pattern.Fault{Code: pattern.FaultLua, Message: "the argument of pattern{}: " + err.Error(), Line: place(pattern.MainFile, 1)}
	}
	return text, nil
}
