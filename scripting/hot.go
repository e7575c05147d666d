package scripting

import (
	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// hotEvery is how many instructions lie between two samples of where a program
// is, a power of two. Most activations end before the first.
const hotEvery = 512

// sample notes where the program is.
func (x *execution) sample() {
	if x.left == x.budget {
		return // it has not begun
	}
	source, line := x.next()
	if source == "" {
		return
	}
	x.found(place(source, line), 1)
}

// sampleCall notes where the program is that calls a function of the library, as
// often as samples would lie in what the call costs.
func (x *execution) sampleCall(l *lua.LState, cost int64) {
	// Done samples at multiples of hotEvery before it counts.
	n := max(x.left, 0)/hotEvery - max(x.left-cost, 0)/hotEvery
	if n == 0 {
		return
	}
	if line := x.line(l); line != "" {
		x.found(line, n)
	}
}

// found counts samples of a line.
func (x *execution) found(line string, n int64) {
	if x.hot == nil {
		x.hot = map[string]int64{}
	}
	x.hot[line] += n
}

// hotLines are the lines that were seen most, the hottest first.
func (x *execution) hotLines() []pattern.HotLine {
	var list []pattern.HotLine
	for line, n := range x.hot {
		list = append(list, pattern.HotLine{Line: line, Instructions: n * hotEvery})
	}
	pattern.SortHot(list)
	return list[:min(len(list), pattern.HotMost)]
}
