package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxAssignDepth bounds nesting well above what a twin allows.
const maxAssignDepth = 64

// parseAssignments makes a twin patch of arguments such as
//
//	desired.fan.speed=3 tags.site=lyon desired.old=null 'desired.list=[1,2]'
//
// A path begins with tags or desired; a dot separates its parts. A value is
// JSON when it parses as JSON, else a string. Two arguments may not say
// different things about one path.
func parseAssignments(args []string) (json.RawMessage, error) {
	root := &assignNode{}
	for _, arg := range args {
		path, value, err := parseAssignment(arg)
		if err != nil {
			return nil, err
		}
		if err := root.set(path, value); err != nil {
			return nil, fmt.Errorf("%q: %w", arg, err)
		}
	}
	var b bytes.Buffer
	root.write(&b)
	return b.Bytes(), nil
}

// parseAssignment splits one argument into the path in the twin's document and
// the value as JSON.
func parseAssignment(arg string) (path []string, value json.RawMessage, err error) {
	left, right, ok := strings.Cut(arg, "=")
	if !ok {
		return nil, nil, fmt.Errorf("%q has no =, expected PATH=VALUE such as desired.interval=30", arg)
	}
	if !utf8.ValidString(arg) {
		return nil, nil, fmt.Errorf("%q is not valid UTF-8", arg)
	}
	parts := strings.Split(left, ".")
	if len(parts) > maxAssignDepth {
		return nil, nil, fmt.Errorf("%q is nested more than %d deep", arg, maxAssignDepth)
	}
	if slices.Contains(parts, "") {
		return nil, nil, fmt.Errorf("%q has an empty part in its path, expected names separated by single dots", arg)
	}
	if parts[0] == "properties" {
		parts = parts[1:]
	}
	if len(parts) == 0 {
		return nil, nil, fmt.Errorf("%q: the path must begin with tags or desired", arg)
	}
	switch parts[0] {
	case "tags":
		path = parts
	case "desired":
		path = append([]string{"properties"}, parts...)
	case "reported":
		return nil, nil, fmt.Errorf("%q: reported properties are the device's own; only tags and desired can be changed here", arg)
	default:
		return nil, nil, fmt.Errorf("%q: the path must begin with tags or desired, such as tags.%s", arg, left)
	}
	value = assignValue(right)
	if (len(parts) == 1) && value[0] != '{' && string(value) != "null" {
		return nil, nil, fmt.Errorf("%q: %s as a whole must be a JSON object", arg, parts[0])
	}
	return path, value, nil
}

// assignValue keeps JSON as it is, number text included, and quotes the rest.
func assignValue(s string) json.RawMessage {
	t := strings.TrimSpace(s)
	if json.Valid([]byte(t)) {
		return json.RawMessage(t)
	}
	return quoteJSON(s)
}

// assignNode is an object in the making, or a value at its end.
type assignNode struct {
	keys     []string
	children map[string]*assignNode
	value    json.RawMessage
}

func (n *assignNode) set(path []string, value json.RawMessage) error {
	for _, key := range path {
		if n.value != nil {
			return errors.New("another argument gives a path above it a value")
		}
		child := n.children[key]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*assignNode{}
			}
			child = &assignNode{}
			n.children[key] = child
			n.keys = append(n.keys, key)
		}
		n = child
	}
	if n.value != nil || n.children != nil {
		return errors.New("another argument gives this path, or one below it, a value")
	}
	n.value = value
	return nil
}

func (n *assignNode) write(b *bytes.Buffer) {
	if n.value != nil {
		b.Write(n.value)
		return
	}
	b.WriteByte('{')
	for i, key := range n.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quoteJSON(key))
		b.WriteByte(':')
		n.children[key].write(b)
	}
	b.WriteByte('}')
}

func quoteJSON(s string) json.RawMessage {
	raw, err := encodeJSON(s)
	if err != nil {
		return json.RawMessage(`""`) // a string always encodes
	}
	return raw
}

// maxDocument bounds what a command reads from a file or standard input.
const maxDocument = 8 << 20

// readDocument reads one JSON value from a reader.
func readDocument(r io.Reader, name string) (json.RawMessage, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxDocument {
		return nil, usage(name+" is larger than 8 MiB", "Send less.")
	}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\uFEFF")))
	var v json.RawMessage
	if err := json.Unmarshal(data, &v); err != nil {
		where := ""
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			line := 1 + bytes.Count(data[:min(int(e.Offset), len(data))], []byte{'\n'})
			where = fmt.Sprintf(", line %d", line)
		}
		return nil, &problem{exit: ExitUsage, what: name + " is not valid JSON" + where, why: err.Error(), next: "Write one JSON value."}
	}
	return v, nil
}

// twinDocument checks a patch or a replacement and accepts desired and tags at
// the top as well as IoT Hub's properties.desired.
func twinDocument(raw json.RawMessage, name string) (json.RawMessage, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil || top == nil {
		return nil, usage(name+" is not a JSON object", `Write {"tags":{...},"properties":{"desired":{...}}}, or short {"tags":{...},"desired":{...}}.`)
	}
	desired, short := top["desired"]
	if !short {
		return raw, nil
	}
	if _, both := top["properties"]; both {
		return nil, usage(name+" has both desired and properties", "Write the desired properties once.")
	}
	out := map[string]any{"properties": map[string]json.RawMessage{"desired": desired}}
	if tags, ok := top["tags"]; ok {
		out["tags"] = tags
	}
	return encodeJSON(out)
}
