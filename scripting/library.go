package scripting

import (
	"maps"
	"math"
	"slices"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/wording"
)

// markArray is the member of the metatable of lists. Programs can't reach it.
const markArray = "\x00array"

// library is everything that programs see and can't change: it is made once,
// shared by all activations of all its programs, and only ever read. What an
// activation has of its own hangs on its execution, which functions find by
// their state.
//
// Libraries and objects are userdata, so that no function for tables can write
// to them, with metatables that give nothing away.
type library struct {
	env    *lua.LTable     // the globals: empty, with what reads and writes meet
	closed <-chan struct{} // what Done gives when there is nothing left
	ops    map[string]pattern.Operation

	sentinel              *lua.LUserData // of unwinding
	null                  *lua.LUserData
	dev, fleet, gate, ctx *lua.LUserData
	secretMeta            *lua.LTable
	arrayMeta, faultMeta  *lua.LTable
	stringMeta            *lua.LTable
	kvs                   map[string]*lua.LUserData
	names                 map[string][]string // of the members of each object, for suggestions
	pairsNext, ipairsNext *lua.LFunction
}

// group is the value of a library or object: its name.
type group string

func newLibrary() *library {
	closed := make(chan struct{})
	close(closed)
	lib := &library{env: &lua.LTable{}, closed: closed, ops: map[string]pattern.Operation{}, names: map[string][]string{}}
	for _, op := range pattern.Operations() {
		lib.ops[op.Name] = op
	}
	lib.sentinel = &lua.LUserData{Metatable: lua.LNil}
	lib.null = &lua.LUserData{Value: null{}, Metatable: lib.meta(map[string]lua.LValue{"__tostring": lib.constant("null")})}
	lib.secretMeta = lib.meta(map[string]lua.LValue{"__tostring": lib.function(secretText), "__concat": lib.function(secretConcat)})
	lib.arrayMeta = lib.meta(map[string]lua.LValue{markArray: lua.LTrue})
	lib.faultMeta = lib.meta(map[string]lua.LValue{"__tostring": lib.function(faultText), "__concat": lib.function(faultConcat)})
	lib.pairsNext, lib.ipairsNext = lib.function(baseNext), lib.function(ipairsNext)

	globals := &lua.LTable{Metatable: lib.meta(map[string]lua.LValue{"__index": lib.function(missingGlobal)})}
	add := func(set map[string]lua.LGFunction) {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			globals.RawSetString(name, lib.function(set[name]))
		}
	}
	add(baseFunctions())
	globals.RawSetString(concatName, lib.function(concat))
	globals.RawSetString(lessName, lib.function(func(l *lua.LState) int { return pushBool(l, less(l, l.Get(1), l.Get(2))) }))
	globals.RawSetString(greaterName, lib.function(func(l *lua.LState) int { return pushBool(l, less(l, l.Get(2), l.Get(1))) }))
	globals.RawSetString(atMostName, lib.function(func(l *lua.LState) int { return pushBool(l, atMost(l, l.Get(1), l.Get(2))) }))
	globals.RawSetString(atLeastName, lib.function(func(l *lua.LState) int { return pushBool(l, atMost(l, l.Get(2), l.Get(1))) }))
	others := map[string]map[string]lua.LValue{
		"json": {"null": lib.null}, "math": {"pi": lua.LNumber(math.Pi), "huge": lua.LNumber(math.Inf(1))},
	}
	for name, set := range map[string]map[string]lua.LGFunction{
		"string": stringFunctions(), "table": tableFunctions(), "math": mathFunctions(), "json": jsonFunctions(), "base64": base64Functions(),
		"hex": hexFunctions(), "hash": hashFunctions(), "hmac": hmacFunctions(), "time": timeFunctions(), "version": versionFunctions(), "text": textFunctions(),
	} {
		globals.RawSetString(name, lib.object(name, set, others[name], missingMember))
	}
	text := globals.RawGetString("string").(*lua.LUserData).Metatable.(*lua.LTable)
	lib.stringMeta = lib.meta(map[string]lua.LValue{"__index": text.RawGetString("__index")})

	lib.dev = lib.object("dev", deviceFunctions(), nil, deviceMember)
	lib.fleet = lib.object("fleet", fleetFunctions(), nil, missingMethod)
	lib.gate = lib.object("run", gateFunctions(), nil, missingMethod)
	lib.ctx = lib.object("ctx", contextFunctions(), nil, contextMember)
	lib.kvs = map[string]*lua.LUserData{}
	kv := lib.object("kv", kvFunctions(), nil, missingMethod)
	for _, scope := range []string{"run", "pattern"} {
		lib.kvs[scope] = &lua.LUserData{Value: store(scope), Env: lib.env, Metatable: kv.Metatable}
	}

	*lib.env = lua.LTable{Metatable: lib.meta(map[string]lua.LValue{"__index": globals, "__newindex": lib.function(assignedGlobal)})}
	return lib
}

// meta makes a metatable that programs can't see.
func (lib *library) meta(members map[string]lua.LValue) *lua.LTable {
	t := &lua.LTable{Metatable: lua.LNil}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		t.RawSetString(name, members[name])
	}
	t.RawSetString("__metatable", lua.LFalse)
	return t
}

func (lib *library) function(f lua.LGFunction) *lua.LFunction {
	return &lua.LFunction{IsG: true, Env: lib.env, GFunction: f}
}

func (lib *library) constant(text string) *lua.LFunction {
	return lib.function(func(l *lua.LState) int {
		l.Push(lua.LString(text))
		return 1
	})
}

// object makes a library or an object: functions by their names, other members,
// and what is called for names that are not there.
func (lib *library) object(name string, functions map[string]lua.LGFunction, others map[string]lua.LValue, missing lua.LGFunction) *lua.LUserData {
	members := &lua.LTable{}
	names := slices.Sorted(maps.Keys(functions))
	for _, n := range names {
		members.RawSetString(n, lib.function(functions[n]))
	}
	for _, n := range slices.Sorted(maps.Keys(others)) {
		members.RawSetString(n, others[n])
	}
	lib.names[name] = names
	ud := &lua.LUserData{Value: group(name), Env: lib.env}
	// The function for what is missing gets the table of members, and must know
	// whose it is: so each has one of its own.
	members.Metatable = lib.meta(map[string]lua.LValue{"__index": lib.function(func(l *lua.LState) int {
		l.Replace(1, ud)
		return missing(l)
	})})
	ud.Metatable = lib.meta(map[string]lua.LValue{
		"__index": members, "__newindex": lib.function(lockedMember), "__tostring": lib.constant(name),
	})
	return ud
}

// free reports whether a program may write to a table: all that it can get hold
// of, but for the globals.
func (lib *library) free(t *lua.LTable) bool { return t != lib.env }

func missingGlobal(l *lua.LState) int {
	return of(l).raisef(l, pattern.FaultLua, "%s", pattern.MissingGlobal(keyText(l)))
}

func assignedGlobal(l *lua.LState) int {
	return of(l).raisef(l, pattern.FaultLua, "%s", pattern.AssignedGlobal(keyText(l)))
}

func missingMember(l *lua.LState) int {
	return of(l).raisef(l, pattern.FaultLua, "%s", pattern.MissingGlobal(groupName(l)+"."+keyText(l)))
}

func missingMethod(l *lua.LState) int {
	x, name, key := of(l), groupName(l), keyText(l)
	text := name + " has no " + quote(key)
	if near := wording.Nearest(key, x.lib.names[name]); near != "" {
		text += ": did you mean " + name + ":" + near + "?"
	}
	return x.raisef(l, pattern.FaultLua, "%s", text)
}

func lockedMember(l *lua.LState) int {
	return of(l).raisef(l, pattern.FaultLua, "%s can't be changed", groupName(l))
}

func groupName(l *lua.LState) string {
	if ud, ok := l.Get(1).(*lua.LUserData); ok {
		switch v := ud.Value.(type) {
		case group:
			return string(v)
		case store:
			return "kv"
		}
	}
	return "it"
}

// keyText is the key of an access, as a message shows it.
func keyText(l *lua.LState) string { return clip(valid(show(l.Get(2))), 80) }
