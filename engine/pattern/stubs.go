package pattern

// Stubs returns the file muster.d.lua, with which an editor that runs
// lua-language-server completes and checks programs. More are objects that only
// some programs have, such as scenarios of tests.
func Stubs(more ...Object) []byte { return nil }

// Page returns docs/reference/lua.md without its first line.
func Page(more ...Object) string { return "" }
