package scenario

import "strings"

// diffText shows how b differs from a, line by line: - is only in a, + only in
// b; of what they share the lines next to a difference are shown.
func diffText(a, b string) string {
	return strings.Join(diffLines(strings.Split(a, "\n"), strings.Split(b, "\n")), "\n")
}

// linesMost bounds what is compared: the table below grows with the product.
const linesMost = 600

// diffLines is diffText of lines.
func diffLines(a, b []string) []string {
	first := 0
	for first < len(a) && first < len(b) && a[first] == b[first] {
		first++
	}
	last := 0
	for last < len(a)-first && last < len(b)-first && a[len(a)-1-last] == b[len(b)-1-last] {
		last++
	}
	var out []string
	for _, line := range a[max(0, first-2):first] {
		out = append(out, "  "+line)
	}
	left, right := a[first:len(a)-last], b[first:len(b)-last]
	left, right = left[:min(len(left), linesMost)], right[:min(len(right), linesMost)]
	// common[i][j] is how many lines left[i:] and right[j:] share.
	common := make([][]int, len(left)+1)
	for i := range common {
		common[i] = make([]int, len(right)+1)
	}
	for i := len(left) - 1; i >= 0; i-- {
		for j := len(right) - 1; j >= 0; j-- {
			if left[i] == right[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(left) || j < len(right); {
		switch {
		case i < len(left) && j < len(right) && left[i] == right[j]:
			out = append(out, "  "+left[i])
			i, j = i+1, j+1
		case i < len(left) && (j == len(right) || common[i+1][j] >= common[i][j+1]):
			out = append(out, "- "+left[i])
			i++
		default:
			out = append(out, "+ "+right[j])
			j++
		}
	}
	for _, line := range a[len(a)-last : min(len(a), len(a)-last+2)] {
		out = append(out, "  "+line)
	}
	return out
}
