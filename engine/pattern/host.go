package pattern

// Object is a group of the host API: an object that programs get ("dev"), a
// library ("json"), or Lua's own globals (the empty name). The table of them is
// the one list of what a program sees: the sandbox makes these names and no
// others (a test compares), the editor's stubs and docs/reference/lua.md are
// written from it, and so are the messages for what is not there.
type Object struct {
	Name  string // the variable or library: "dev", "fleet", "ctx", "kv", "run", "json", ...; "": globals
	Class string // in the stubs: "muster.Device"
	// Method says that functions are called with a colon: dev:get(...).
	Method    bool
	Text      string
	Fields    []Field
	Functions []Function
}

// Field is a member of an object, or of a table that is given or got.
type Field struct {
	Name     string
	Type     string // of LuaCATS: "string", "integer", "string|integer"
	Optional bool
	Default  string // in words, of an optional one
	Text     string
}

// Function is one function of an object.
type Function struct {
	Name string // "get"; of globals "pcall"
	// Op is the operation whose step a call is; empty: it is no step.
	Op      string
	Text    string
	Params  []Field
	Options []Field // members of a last, optional table; its class in the stubs is named after the function
	Returns []Field
	Needs   []string    // capabilities in words: "method:NAME"
	Faults  []FaultCode // that a call may raise beside FaultInvalid, FaultDenied and FaultCanceled
	// Standard says that it is Lua's own; Text then tells only how it differs.
	Standard bool
	Example  string
}

// Removed is a name of Lua's that programs do not have.
type Removed struct {
	Name    string // "os", "string.dump", "math.random"
	Message string // what to write instead: `use ctx:now() ...`; empty: nothing
}

// Host lists the whole host API, in the order of documents.
func Host() []Object { return nil }

// RemovedNames lists the names of Lua's standard library that are not there.
// Whoever reads one gets [MissingGlobal] of it.
func RemovedNames() []Removed { return nil }

// MissingGlobal is the message for a read of a global, or of a member of a
// library ("string.dump"), that is not there: `global "os" does not exist here:
// use ctx:now() for the time`.
func MissingGlobal(name string) string { return "" }

// AssignedGlobal is the message for an assignment to a global: `assignment to
// global "count": write 'local count' instead`.
func AssignedGlobal(name string) string { return "" }

// Stubs returns the file muster.d.lua, with which an editor that runs
// lua-language-server completes and checks programs.
func Stubs() []byte { return nil }

// Page returns docs/reference/lua.md without its first line.
func Page() string { return "" }
