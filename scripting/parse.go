package scripting

import (
	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"
)

// Concat is the global that a file compiled by CompileFile calls for each a .. b,
// with two or more operands: whoever runs the file gives it.
const Concat = concatName

// CompileFile compiles a file of Lua that is no program but a program's test, for
// a Lua of the caller's own. What is wrong with it is a *pattern.Fault with Line.
func CompileFile(path string, text []byte) (*lua.FunctionProto, error) {
	proto, fault := compileFile(path, text, false, walls{})
	if fault != nil {
		return nil, fault
	}
	return proto, nil
}

// Parse returns the syntax tree of a file as it was written. What is wrong with
// it is a *pattern.Fault with Line.
func Parse(path string, text []byte) ([]ast.Stmt, error) {
	chunk, fault := parseLua(path, text)
	if fault == nil { // it bounds nesting, as that of a program
		_, fault = parseFile(path, text)
	}
	if fault != nil {
		return nil, fault
	}
	return chunk, nil
}
