package scripting

import (
	"reflect"
	"strings"
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

// TestHotCalls: what calls of the library and the host count as is told with the
// line that makes them.
func TestHotCalls(t *testing.T) {
	for _, test := range []struct{ line, source string }{
		{"pattern.lua:2", "local text = ''\ntext = string.rep('x', 300000)\nreturn #text"},
		{"pattern.lua:3", "local text = string.rep('a', 20000)\nfor i = 1, 20 do\nstring.find(text, 'a-b')\nend\nreturn 1"},
		{"pattern.lua:2", "for i = 1, 200 do\nctx:log('line')\nend\nreturn 1"},
	} {
		o := execute(body(t, test.source), nil)
		if len(o.Hot) == 0 || o.Hot[0].Instructions < o.Cost.Instructions/2 || !strings.HasSuffix(o.Hot[0].Line, test.line) {
			t.Errorf("%q ran %d instructions, most of them at %v, want %s", test.source, o.Cost.Instructions, o.Hot, test.line)
		}
	}
}
