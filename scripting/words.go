package scripting

import (
	"slices"
	"strconv"
)

// quote shows a text of somebody's, bounded.
func quote(s string) string { return strconv.Quote(clip(valid(s), 80)) }

// thousands writes a number for people: 200,000.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func sortInts(list []int) { slices.Sort(list) }
