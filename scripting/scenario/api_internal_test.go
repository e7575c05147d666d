package scenario

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// objects makes one of each object that a test sees.
func objects(t *testing.T) map[string]*lua.LUserData {
	t.Helper()
	l := newState(context.Background())
	t.Cleanup(l.Close)
	openJSON(l)
	a := &attempt{lab: newLab(context.Background(), programs{}, "", nil), lua: l}
	d, err := a.addDevice("device-1", [3]json.RawMessage{}, true)
	if err != nil {
		t.Fatal(err)
	}
	l.Push(l.NewFunction(a.tHTTP))
	l.Push(lua.LNil)
	l.Push(lua.LString("https://example.net/"))
	l.Push(lua.LNumber(200))
	l.Call(3, 1)
	server, ok := l.Get(-1).(*lua.LUserData)
	if !ok {
		t.Fatal("t:http gave no server")
	}
	return map[string]*lua.LUserData{"t": a.bind(), "d": a.bindDevice(d), "r": a.bindRun("r-1"), "server": server}
}

func TestAPIIsComplete(t *testing.T) {
	have := objects(t)
	for _, o := range API() {
		if o.Name == "" {
			continue
		}
		m := namesOf(t, have[o.Name])
		var told []string
		for _, f := range o.Fields {
			told = append(told, f.Name)
		}
		for _, f := range o.Functions {
			told = append(told, f.Name)
			if f.Text == "" {
				t.Errorf("%s:%s has no text", o.Name, f.Name)
			}
		}
		slices.Sort(told)
		if !slices.Equal(told, m) {
			t.Errorf("%s is told as %v, and has %v", o.Name, told, m)
		}
		delete(have, o.Name)
	}
	if len(have) > 0 {
		t.Errorf("not told of: %v", slices.Collect(maps.Keys(have)))
	}
}

// namesOf lists what an object has; its error for a name that it has not names
// them, but Go knows better.
func namesOf(t *testing.T, ud *lua.LUserData) []string {
	t.Helper()
	meta, ok := ud.Metatable.(*lua.LTable)
	if !ok {
		t.Fatal("an object has no metatable")
	}
	names, ok := meta.RawGetString("names").(*lua.LUserData)
	if !ok {
		t.Fatal("an object does not know its names")
	}
	list, _ := names.Value.([]string)
	return list
}

func TestVerbsAreComplete(t *testing.T) {
	have := verbs()
	missing := []string{"dev.sign", "dev.revoke", "ctx.release"} // parts of Muster that have yet to come
	for _, op := range pattern.Operations() {
		if op.Way == pattern.Local {
			continue
		}
		if have[op.Name] == nil != slices.Contains(missing, op.Name) {
			t.Errorf("%s: there %v", op.Name, have[op.Name] != nil)
		}
		delete(have, op.Name)
	}
	if len(have) > 0 {
		t.Errorf("no operations: %v", slices.Collect(maps.Keys(have)))
	}
}
