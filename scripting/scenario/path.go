package scenario

import (
	"maps"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/query"
)

// at is the value at a dotted path of a twin, with the aliases of queries.
func at(v query.Value, path string) query.Value {
	names := strings.Split(path, ".")
	switch names[0] {
	case "reported", "desired":
		names = append([]string{"properties"}, names...)
	case "connected":
		return query.BoolValue(v.Member("connectionState").Text() == "Connected")
	}
	return v.At(names...)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// containsText finds a part of a text whatever the case of its letters.
func containsText(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}
