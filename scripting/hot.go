package scripting

import (
	"cmp"
	"slices"

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
	if x.hot == nil {
		x.hot = map[string]int64{}
	}
	x.hot[place(source, line)]++
}

// hotLines are the lines that were seen most, the hottest first.
func (x *execution) hotLines() []pattern.HotLine {
	var list []pattern.HotLine
	for line, n := range x.hot {
		list = append(list, pattern.HotLine{Line: line, Instructions: n * hotEvery})
	}
	slices.SortFunc(list, func(a, b pattern.HotLine) int {
		return cmp.Or(cmp.Compare(b.Instructions, a.Instructions), cmp.Compare(a.Line, b.Line))
	})
	return list[:min(len(list), pattern.HotMost)]
}
