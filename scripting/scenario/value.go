package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	lua "github.com/yuin/gopher-lua"
)

// Bounds of a value on its way between Lua and JSON.
const (
	valueDepth = 32
	valueBytes = 256 << 10
)

// null is what json.null holds.
type null struct{}

// openJSON makes the library json, with what programs have of it.
func openJSON(l *lua.LState) {
	nothing := l.NewUserData()
	nothing.Value = null{}
	nothing.Metatable = l.NewTable()
	lib := l.NewTable()
	lib.RawSetString("null", nothing)
	lib.RawSetString("array", l.NewFunction(func(l *lua.LState) int {
		t := l.OptTable(1, l.NewTable())
		markArray(l, t)
		l.Push(t)
		return 1
	}))
	lib.RawSetString("encode", l.NewFunction(func(l *lua.LState) int {
		text, err := toJSON(l.CheckAny(1))
		if err != nil {
			l.RaiseError("json.encode: %s", err.Error())
		}
		l.Push(lua.LString(text))
		return 1
	}))
	lib.RawSetString("decode", l.NewFunction(func(l *lua.LState) int {
		v, err := toLua(l, json.RawMessage(l.CheckString(1)))
		if err != nil {
			l.RaiseError("json.decode: %s", err.Error())
		}
		l.Push(v)
		return 1
	}))
	l.SetGlobal("json", lib)
}

const arrayMark = "array"

// markArray makes an empty table an empty list.
func markArray(l *lua.LState, t *lua.LTable) {
	meta := l.NewTable()
	meta.RawSetString("__name", lua.LString(arrayMark))
	t.Metatable = meta
}

func isArray(t *lua.LTable) bool {
	meta, ok := t.Metatable.(*lua.LTable)
	return ok && meta.RawGetString("__name") == lua.LString(arrayMark)
}

// nullOf is json.null of a state.
func nullOf(l *lua.LState) lua.LValue {
	if lib, ok := l.GetGlobal("json").(*lua.LTable); ok {
		return lib.RawGetString("null")
	}
	return lua.LNil
}

// toJSON writes a value of Lua as JSON with sorted keys; nil is nothing at all.
func toJSON(v lua.LValue) (json.RawMessage, error) {
	if v == lua.LNil {
		return nil, nil
	}
	var b bytes.Buffer
	if err := writeJSON(&b, v, 0); err != nil {
		return nil, err
	}
	return json.RawMessage(canonical(b.Bytes())), nil
}

func writeJSON(b *bytes.Buffer, v lua.LValue, depth int) error {
	switch {
	case depth > valueDepth:
		return fmt.Errorf("tables are nested more than %d deep, or hold themselves", valueDepth)
	case b.Len() > valueBytes:
		return fmt.Errorf("the value has more than %d bytes", valueBytes)
	}
	switch v := v.(type) {
	case lua.LBool:
		b.WriteString(strconv.FormatBool(bool(v)))
	case lua.LNumber:
		f := float64(v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%v is no number of JSON", f)
		}
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			b.WriteString(strconv.FormatInt(int64(f), 10))
		} else {
			b.WriteString(strconv.FormatFloat(f, 'g', -1, 64))
		}
	case lua.LString:
		text, err := json.Marshal(string(v))
		if err != nil {
			return err
		}
		b.Write(text)
	case *lua.LTable:
		return writeTable(b, v, depth)
	case *lua.LUserData:
		if _, ok := v.Value.(null); !ok {
			return errors.New("it holds an object of the test, which is no value")
		}
		b.WriteString("null")
	default:
		return fmt.Errorf("a %s is no value that can be stored", v.Type())
	}
	return nil
}

func writeTable(b *bytes.Buffer, t *lua.LTable, depth int) error {
	list, names := t.Len(), 0
	var err error
	t.ForEach(func(key, _ lua.LValue) {
		n, isNumber := key.(lua.LNumber)
		switch {
		case isNumber && n == lua.LNumber(int(n)) && n >= 1 && int(n) <= list:
		case isNumber:
			err = fmt.Errorf("a list has holes: it has a value at %v and %d without a hole", n, list)
		case key.Type() == lua.LTString:
			names++
		default:
			err = fmt.Errorf("a key is a %s, expected a string", key.Type())
		}
	})
	switch {
	case err != nil:
		return err
	case names > 0 && list > 0:
		return errors.New("a table is a list and has names, too; a value is one of both")
	case list > 0 || names == 0 && isArray(t):
		b.WriteByte('[')
		for n := 1; n <= list; n++ {
			if n > 1 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, t.RawGetInt(n), depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	b.WriteByte('{')
	first := true
	t.ForEach(func(key, value lua.LValue) {
		if err != nil {
			return
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		if err = writeJSON(b, key, depth+1); err == nil {
			b.WriteByte(':')
			err = writeJSON(b, value, depth+1)
		}
	})
	b.WriteByte('}')
	return err
}

// toLua makes a value of Lua of JSON; nothing is nil. Members come in the order
// of their names.
func toLua(l *lua.LState, text json.RawMessage) (lua.LValue, error) {
	if len(text) == 0 {
		return lua.LNil, nil
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return lua.LNil, err
	}
	return fromGo(l, v), nil
}

// fromGo makes a value of Lua of what encoding/json decodes to.
func fromGo(l *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	case string:
		return lua.LString(v)
	case []any:
		t := l.CreateTable(len(v), 0)
		for _, item := range v {
			t.Append(fromGo(l, item))
		}
		markArray(l, t)
		return t
	case map[string]any:
		t := l.CreateTable(0, len(v))
		for _, key := range sortedKeys(v) {
			t.RawSetString(key, fromGo(l, v[key]))
		}
		return t
	}
	return nullOf(l)
}

// must is toLua of what is known to be JSON.
func must(l *lua.LState, text json.RawMessage) lua.LValue {
	v, err := toLua(l, text)
	if err != nil {
		raised(l, fmt.Errorf("a value of the hub is no JSON: %w", err))
	}
	return v
}

// texts makes a list of Lua of texts.
func texts(l *lua.LState, list []string) *lua.LTable {
	t := l.CreateTable(len(list), 0)
	for _, s := range list {
		t.Append(lua.LString(s))
	}
	markArray(l, t)
	return t
}

// shown is a value as t:equal compares and shows it: an empty list and an
// empty table are the same.
func shown(v lua.LValue) (string, error) {
	text, err := toJSON(v)
	if err != nil {
		return "", err
	}
	if text == nil {
		return "nil", nil
	}
	var decoded any
	if err := json.Unmarshal(text, &decoded); err != nil {
		return "", err
	}
	out, err := json.MarshalIndent(levelled(decoded), "", "  ")
	if err != nil {
		return "", err
	}
	return string(out), nil
}

func levelled(v any) any {
	switch v := v.(type) {
	case []any:
		if len(v) == 0 {
			return map[string]any{}
		}
		for n := range v {
			v[n] = levelled(v[n])
		}
	case map[string]any:
		for key := range v {
			v[key] = levelled(v[key])
		}
	}
	return v
}
