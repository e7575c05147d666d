package author

import (
	"maps"
	"slices"

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
