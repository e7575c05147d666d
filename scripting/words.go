package scripting

import (
	"slices"
	"strconv"
	"strings"
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

// nearest is the name that word is a slip of the finger from; empty: none.
func nearest(word string, names []string) string {
	best, least := "", 3
	for _, name := range names {
		if d := slips(strings.ToLower(word), name); d < least && 2*d < len(name) {
			best, least = name, d
		}
	}
	return best
}

// slips counts the letters that were put in, left out or exchanged.
func slips(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
