package pattern

import (
	"reflect"
	"testing"
)

func TestAddHot(t *testing.T) {
	var list []HotLine
	for _, more := range [][]HotLine{
		{{"a.lua:1", 512}},
		{{"a.lua:2", 1024}, {"a.lua:1", 1536}},
		{{"a.lua:3", 256}}, // no room, and cooler than all
		{{"a.lua:4", 1536}},
	} {
		list = AddHot(list, more, 2)
	}
	if want := []HotLine{{"a.lua:1", 2048}, {"a.lua:4", 1536}}; !reflect.DeepEqual(list, want) {
		t.Errorf("the hottest are %v, want %v", list, want)
	}
}
