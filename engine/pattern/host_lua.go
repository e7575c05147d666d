package pattern

// own makes functions of Lua's own that are as its manual says.
func own(names ...string) []Function {
	list := make([]Function, len(names))
	for i, name := range names {
		list[i] = Function{Name: name, Standard: true}
	}
	return list
}

// standard is what programs have of Lua 5.1, and the globals that load them.
func standard() []Object {
	differs := func(name, text string) Function { return Function{Name: name, Standard: true, Text: text} }
	const capped = "Gives at most 1 MiB; more raises `too-big`."
	const costly = "A pattern that would take too long on the text raises `too-costly`."
	return []Object{
		{
			Text: "What stands by itself. A program can't make globals: every variable is local.",
			Functions: append([]Function{
				{
					Name: "pattern", Text: "Declares the pattern; the file pattern.lua returns what it gives.",
					Params:  []Field{{Name: "manifest", Type: "muster.Manifest"}},
					Returns: []Field{{Name: "pattern", Type: "muster.Pattern"}},
				},
				{
					Name: "require", Text: "Gives what another file of the bundle returns: `require \"lib.x\"` is lib/x.lua. Each file runs once. There are no other modules.",
					Params:  []Field{{Name: "name", Type: "string"}},
					Returns: []Field{{Name: "value", Type: "any"}},
				},
				differs("error", "Takes a table {code, message, ...} or a text, whose code is `lua` then."),
				differs("pcall", "Gives errors as tables {code, message, status?, cause?, payload?}. A run that waits is no error: it can't be caught, and neither can a budget that is used up."),
				differs("xpcall", "As pcall."),
				differs("tostring", "Gives no addresses: a table is \"table\", a function \"function\"."),
				differs("setmetatable", "Without __gc and __mode, which mean nothing here."),
				differs("getmetatable", "Of a text it gives false."),
				differs("pairs", "Goes in the order in which members were set; in that of their names through what came from the hub."),
			}, own("assert", "ipairs", "next", "select", "tonumber", "type", "unpack")...),
		},
		{
			Name: "string", Text: "Lua's, bounded.",
			Functions: append([]Function{
				differs("rep", capped), differs("format", capped+" %p is not there."), differs("gsub", capped+" "+costly),
				differs("find", costly), differs("match", costly), differs("gmatch", costly),
			}, own("byte", "char", "len", "lower", "reverse", "sub", "upper")...),
		},
		{
			Name: "table", Text: "Lua's, bounded.",
			Functions: append([]Function{differs("concat", capped)}, own("insert", "maxn", "remove", "sort")...),
		},
		{
			Name: "math", Text: "Lua's, without chance.",
			Fields:    []Field{{Name: "huge", Type: "number"}, {Name: "pi", Type: "number"}},
			Functions: own("abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "ldexp", "log", "log10", "max", "min", "modf", "pow", "rad", "sin", "sinh", "sqrt", "tan", "tanh"),
		},
	}
}

// RemovedNames lists the names of Lua's standard library that programs do not
// have, with what to do instead. [MissingGlobal] makes messages of them.
func RemovedNames() []Removed {
	const steps = "a step waits by itself: call dev:wait, ctx:sleep and so on where you need them"
	const code = "a program is its files: use require \"lib.name\""
	return []Removed{
		{"os", "ctx:now() gives the time, and a program has no files and no environment"},
		{"io", "a program has no files: use ctx:log, ctx:event or ctx:http"},
		{"debug", "an error that ends a run shows its line and trace"},
		{"package", code},
		{"module", "return a table at the end of the file, and use require \"lib.name\""},
		{"load", code},
		{"loadstring", code},
		{"loadfile", code},
		{"dofile", code},
		{"coroutine", steps},
		{"channel", steps},
		{"print", "use ctx:log"},
		{"newproxy", ""},
		{"getfenv", ""},
		{"setfenv", ""},
		{"collectgarbage", "memory is freed by itself"},
		{"rawset", "write t[k] = v"},
		{"rawget", "write t[k]"},
		{"rawequal", "write a == b"},
		{"rawlen", "write #t"},
		{"_G", "name what you mean"},
		{"_VERSION", "the language is Lua 5.1 with goto"},
		{"_printregs", ""},
		{"utf8", "texts are bytes: string.sub and # count bytes"},
		{"bit32", "there are no bit operators"},
		{"table.getn", "write #t"},
		{"table.unpack", "write unpack(t)"},
		{"table.pack", "write { ... }"},
		{"string.dump", code},
		{"string.gfind", "use string.gmatch"},
		{"math.random", "use ctx:random(low, high), which replay repeats"},
		{"math.randomseed", "use ctx:random(low, high), which replay repeats"},
		{"math.mod", "use math.fmod or %"},
	}
}
