package scripting

import lua "github.com/yuin/gopher-lua"

// openEnv gives gopher-lua's own libraries, without any bound, beside the host
// API: for tests of what stops a program when the sandbox does not.
func openEnv(x *execution) *lua.LTable {
	l := x.state
	l.OpenLibs()
	globals := l.Get(lua.GlobalsIndex).(*lua.LTable)
	for name, f := range map[string]lua.LGFunction{"pattern": basePattern, "require": baseRequire} {
		globals.RawSetString(name, x.lib.function(f))
	}
	return globals
}
