package author

import (
	"maps"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
)

// host is the table of what programs see, as the checks ask for it.
type host struct {
	globals   map[string]bool
	objects   map[string]pattern.Object // by name: "dev", "json"
	functions map[string]pattern.Function
}

func newHost() *host {
	h := &host{globals: map[string]bool{"pattern": true, "require": true}, objects: map[string]pattern.Object{}, functions: map[string]pattern.Function{}}
	for _, o := range pattern.Host() {
		switch {
		case o.Name == "":
			for _, f := range o.Fields {
				h.globals[f.Name] = true
			}
			for _, f := range o.Functions {
				h.globals[f.Name] = true
			}
			continue
		case !o.Method:
			h.globals[o.Name] = true
		}
		h.objects[o.Name] = o
		for _, f := range o.Functions {
			h.functions[o.Name+"."+f.Name] = f
		}
	}
	return h
}

// members lists the names that an object has.
func (h *host) members(object string) []string {
	names := map[string]bool{}
	for _, f := range h.objects[object].Fields {
		names[f.Name] = true
	}
	for _, f := range h.objects[object].Functions {
		names[f.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// near says what may be meant by a name; empty: nobody knows.
func near(name string, among []string) string {
	best, distance := "", 2+len(name)/3
	for _, other := range among {
		if d := editDistance(strings.ToLower(name), strings.ToLower(other)); d < distance {
			best, distance = other, d
		}
	}
	return best
}

// editDistance is how many letters one has to change to make one of the other.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}
