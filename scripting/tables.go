package scripting

import (
	"math"
	"slices"
	"sort"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

func tableFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"concat": tableConcat, "insert": tableInsert, "maxn": tableMaxN, "remove": tableRemove, "sort": tableSort,
	}
}

func tableConcat(l *lua.LState) int {
	x, t := of(l), checkTable(l, 1)
	sep := ""
	if l.Get(2) != lua.LNil {
		sep = text(l, 2)
	}
	from, to := index(l, 3, 1), index(l, 4, t.Len())
	var b []byte
	for i := from; i <= to; i++ {
		v := t.RawGetInt(i)
		if !lua.LVCanConvToString(v) {
			return x.raisef(l, pattern.FaultLua, "table.concat: item %d is %s, expected a text", i, article(typeName(v)))
		}
		b = append(b, show(v)...)
		if i < to {
			b = append(b, sep...)
		}
		if len(b) > pattern.MaxString {
			x.fits(l, len(b), "table.concat")
		}
	}
	x.charge(l, max(0, to-from)/8)
	x.fits(l, len(b), "table.concat")
	l.Push(lua.LString(b))
	return 1
}

// tableInsert inserts within a list or right behind its end: elsewhere gopher-lua
// would fill up what is between.
func tableInsert(l *lua.LState) int {
	x, t := of(l), checkTable(l, 1)
	n := t.Len()
	switch l.GetTop() {
	case 2:
		t.RawSetInt(n+1, l.Get(2))
	case 3:
		at := index(l, 2, 0)
		if at < 1 || at > n+1 {
			return x.raisef(l, pattern.FaultLua, "table.insert: position %d of a list of %d items", at, n)
		}
		x.charge(l, (n-at)/8)
		if at > n {
			t.RawSetInt(at, l.Get(3))
		} else {
			t.Insert(at, l.Get(3))
		}
	default:
		return x.raisef(l, pattern.FaultLua, "table.insert takes a table, perhaps a position, and a value")
	}
	return 0
}

func tableMaxN(l *lua.LState) int {
	t, most := checkTable(l, 1), 0.0
	of(l).charge(l, keysOf(t)/8)
	t.ForEach(func(k, _ lua.LValue) {
		if n, ok := k.(lua.LNumber); ok {
			most = math.Max(most, float64(n))
		}
	})
	l.Push(lua.LNumber(most))
	return 1
}

func tableRemove(l *lua.LState) int {
	x, t := of(l), checkTable(l, 1)
	n := t.Len()
	at := index(l, 2, n)
	if n == 0 || at < 1 || at > n {
		l.Push(lua.LNil)
		return 1
	}
	x.charge(l, (n-at)/8)
	v := t.RawGetInt(at)
	if at == n {
		t.RawSetInt(n, lua.LNil)
	} else {
		for i := at; i < n; i++ {
			t.RawSetInt(i, t.RawGetInt(i+1))
		}
		t.RawSetInt(n, lua.LNil)
	}
	l.Push(v)
	return 1
}

// tableSort sorts a list. It sorts a copy, so that a comparison which raises, or
// writes to the table, leaves nothing half done.
func tableSort(l *lua.LState) int {
	x, t := of(l), checkTable(l, 1)
	n := t.Len()
	before := func(a, b lua.LValue) bool { return less(l, a, b) }
	if l.Get(2) != lua.LNil {
		f := l.CheckFunction(2)
		before = func(a, b lua.LValue) bool {
			l.Push(f)
			l.Push(a)
			l.Push(b)
			l.Call(2, 1)
			v := l.Get(-1)
			l.Pop(1)
			return lua.LVAsBool(v)
		}
	}
	x.charge(l, n)
	list := make([]lua.LValue, n)
	for i := range list {
		list[i] = t.RawGetInt(i + 1)
	}
	if i := slices.Index(list, lua.LNil); i >= 0 {
		return x.raisef(l, pattern.FaultLua, "table.sort: item %d is nil", i+1)
	}
	compared := 0
	sort.SliceStable(list, func(i, j int) bool {
		if compared++; compared%8 == 0 {
			x.charge(l, 8)
		}
		return before(list[i], list[j])
	})
	for i, v := range list {
		t.RawSetInt(i+1, v)
	}
	return 0
}
