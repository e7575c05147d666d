package pattern

import (
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/wording"
)

// Object is a group of the host API: an object that programs get ("dev"), a
// library ("json"), or Lua's own globals (the empty name).
//
// The table of them, [Host], is the one list of what a program sees. The sandbox
// makes these names and no others, and a test there compares; the messages for
// what is not there come from [RemovedNames]; the editor's stubs and
// docs/reference/lua.md are written from it.
type Object struct {
	Name  string // of the variable or library: "dev", "ctx", "json"; empty: globals
	Class string // in the stubs: "muster.Device"; empty: it is a global table
	// Method says that functions are called with a colon: dev:get(...).
	Method    bool
	Text      string
	Fields    []Field
	Functions []Function
}

// Field is a member of an object, a parameter, a result, or a member of a table
// that is one of these.
type Field struct {
	Name     string
	Type     string // of LuaCATS: "string", "integer", "any[]"; empty with Members
	Optional bool
	Text     string
	Members  []Field // of a table with a shape of its own
	List     bool    // it is a list of such tables
}

// Function is one function of an object.
type Function struct {
	Name string // "get"
	// Op is the operation whose step a call is; empty: it is no step, and replay
	// calls it again.
	Op      string
	Text    string
	Params  []Field
	Returns []Field
	Needs   []string    // capabilities, in words: "method:NAME"
	Faults  []FaultCode // that it may raise beside those that each step may: see docs
	// Standard says that it is Lua's own; Text then tells how it differs, and
	// Params and Returns are left to Lua's manual.
	Standard bool
	Example  string
}

// Removed is a name of Lua's that programs do not have.
type Removed struct {
	Name    string // "os", "string.dump"
	Message string // what to do instead; empty: nothing
}

// Host lists the whole host API, in the order of documents.
func Host() []Object {
	return slices.Concat([]Object{device(), fleet(), gateRun(), context(), keyValue()}, libraries(), standard())
}

// MissingGlobal is the message for a read of a global, or of a member of a
// library ("string.dump"), that is not there, such as `global "os" does not
// exist here: ctx:now() gives the time`. The sandbox raises it with FaultLua.
func MissingGlobal(name string) string {
	what := "global"
	if strings.Contains(name, ".") {
		what = "function"
	}
	text := what + " " + quote(name) + " does not exist here"
	list := RemovedNames()
	if i := slices.IndexFunc(list, func(r Removed) bool { return r.Name == name }); i >= 0 && list[i].Message != "" {
		return text + ": " + list[i].Message
	}
	if near := wording.Nearest(name, hostNames()); near != "" {
		return text + ": did you mean " + near + "?"
	}
	return text
}

// AssignedGlobal is the message for an assignment to a global, such as
// `assignment to global "count": write 'local count' instead`.
func AssignedGlobal(name string) string {
	return "assignment to global " + quote(name) + ": write 'local " + clip(name) + "' instead"
}

// hostNames are the names that stand by themselves in a program: globals and
// libraries, and library.function.
func hostNames() []string {
	var names []string
	for _, o := range Host() {
		switch {
		case o.Method: // a parameter, named by the program
		case o.Name == "":
			for _, f := range o.Functions {
				names = append(names, f.Name)
			}
		default:
			names = append(names, o.Name)
			for _, f := range o.Functions {
				names = append(names, o.Name+"."+f.Name)
			}
		}
	}
	return names
}
