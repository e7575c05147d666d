package scripting

import (
	"encoding/json"
	"fmt"
	"strings"
)

// twinPath splits a path as programs write it, "reported.boot.count" or
// "tags['a b'].x", into members of a twin.
func twinPath(path string) ([]string, error) {
	var parts []string
	rest := path
	for rest != "" {
		if strings.HasPrefix(rest, "[") {
			if len(rest) < 2 || rest[1] != '\'' && rest[1] != '"' {
				return nil, fmt.Errorf(`the path %q has [ without a quoted name behind it`, clip(path, 80))
			}
			name, behind, ok := strings.Cut(rest[2:], rest[1:2]+"]")
			if !ok {
				return nil, fmt.Errorf("the path %q has [ without ]", clip(path, 80))
			}
			parts, rest = append(parts, name), strings.TrimPrefix(behind, ".")
			continue
		}
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		if end == 0 {
			return nil, fmt.Errorf("the path %q has an empty name in it", clip(path, 80))
		}
		parts, rest = append(parts, rest[:end]), rest[end:]
		if strings.HasPrefix(rest, ".") {
			if rest = rest[1:]; rest == "" {
				return nil, fmt.Errorf("the path %q ends with a dot", clip(path, 80))
			}
		}
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf(`the path is empty, expected one such as "reported.firmware.version"`)
	}
	switch parts[0] {
	case "reported", "desired":
		parts = append([]string{"properties"}, parts...)
	}
	return parts, nil
}

// find returns the value at a path of an object, as it stands in the text.
func find(text json.RawMessage, path []string) (json.RawMessage, bool) {
	for _, name := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(text, &object) != nil {
			return nil, false
		}
		v, ok := object[name]
		if !ok {
			return nil, false
		}
		text = v
	}
	return text, true
}
