package scripting

import (
	"reflect"
	"testing"
)

// TestHotLines looks for the line that runs nearly all of a slow program, also
// inside a pcall, and for none of a quick one.
func TestHotLines(t *testing.T) {
	slow := body(t, "local n = 0\npcall(function()\nfor i = 1, 20000 do\nn = n + i % 7\nend\nend)\nreturn n")
	first := execute(slow, nil)
	if len(first.Hot) == 0 {
		t.Fatal("no line is hot")
	}
	var sum int64
	for _, hot := range first.Hot {
		sum += hot.Instructions
	}
	if used := first.Cost.Instructions; sum > used || sum < used*9/10 {
		t.Errorf("hot lines have %d of %d instructions", sum, used)
	}
	if hot := first.Hot[0]; hot.Instructions < sum/2 {
		t.Errorf("the hottest line %s has %d of %d", hot.Line, hot.Instructions, sum)
	}
	if again := execute(slow, nil); !reflect.DeepEqual(again.Hot, first.Hot) {
		t.Errorf("a replay has %v, the first had %v", again.Hot, first.Hot)
	}
	var p packer
	p.outcome(&first)
	u := unpacker{b: p.b}
	if got := u.outcome(); !reflect.DeepEqual(got.Hot, first.Hot) {
		t.Errorf("over the wire came %v, want %v", got.Hot, first.Hot)
	}
	if quick := execute(body(t, "return 1"), nil); quick.Hot != nil {
		t.Errorf("a quick program has %v", quick.Hot)
	}
}
