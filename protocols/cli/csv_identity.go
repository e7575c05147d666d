package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// csvTarget is where the cells of a column go.
type csvTarget struct {
	path []string // in a line of an import: "id", "tags", "site"
	kind string   // string, number, bool, json
}

// csvNames are the columns that mean something by themselves, beside tags.*,
// desired.* and reported.*.
var csvNames = map[string][]string{
	"deviceid": {"id"}, "id": {"id"}, "moduleid": {"moduleId"}, "status": {"status"}, "statusreason": {"statusReason"},
	"importmode": {"importMode"}, "etag": {"eTag"}, "twinetag": {"twinETag"}, "devicescope": {"deviceScope"}, "managedby": {"managedBy"},
	"authenticationtype": {"authentication", "type"}, "primarykey": {"authentication", "symmetricKey", "primaryKey"},
	"secondarykey": {"authentication", "symmetricKey", "secondaryKey"}, "primarythumbprint": {"authentication", "x509Thumbprint", "primaryThumbprint"},
	"secondarythumbprint": {"authentication", "x509Thumbprint", "secondaryThumbprint"}, "iotedge": {"capabilities", "iotEdge"},
}

// parseTarget reads the name of a target with its type: tags.floor:number.
func parseTarget(text string) (csvTarget, error) {
	name, kind, typed := strings.Cut(text, ":")
	t := csvTarget{kind: "string"}
	if typed {
		t.kind = kind
		if !slices.Contains([]string{"string", "number", "bool", "json"}, kind) {
			return t, fmt.Errorf("the type %q is not known; expected string, number, bool or json", kind)
		}
	}
	if path, ok := csvNames[strings.ToLower(name)]; ok {
		if t.path = path; path[0] == "capabilities" {
			t.kind = "bool"
		}
		return t, nil
	}
	parts := strings.Split(strings.TrimPrefix(name, "properties."), ".")
	if len(parts) < 2 || slices.Contains(parts, "") {
		return t, fmt.Errorf("%q is no target; expected deviceId, status, tags.NAME, desired.NAME, reported.NAME, or one of: %s", name, strings.Join(csvNameList(), ", "))
	}
	switch parts[0] {
	case "tags":
		t.path = parts
	case "desired", "reported":
		t.path = append([]string{"properties"}, parts...)
	default:
		return t, fmt.Errorf("%q is no target; a property is tags.NAME, desired.NAME or reported.NAME", name)
	}
	if len(t.path) > 12 {
		return t, fmt.Errorf("%q is nested too deep", name)
	}
	return t, nil
}

func csvNameList() []string {
	return []string{"moduleId", "statusReason", "importMode", "eTag", "twinETag", "authenticationType", "primaryKey", "secondaryKey", "primaryThumbprint", "secondaryThumbprint", "iotEdge", "deviceScope", "managedBy"}
}

// csvPlan says what becomes of each column.
type csvPlan struct {
	header  []string
	targets []*csvTarget // nil: not used
	unused  []string
}

// planCSV matches the header with the mapping, TARGET=COLUMN. A column that is
// mapped goes there alone; one that is not goes where its name says.
func planCSV(header []string, mapping []string) (*csvPlan, error) {
	p := &csvPlan{header: header, targets: make([]*csvTarget, len(header))}
	for i := range header {
		header[i] = strings.TrimSpace(header[i])
		if header[i] != "" && slices.Contains(header[:i], header[i]) {
			return nil, fmt.Errorf("the column %q is there twice", header[i])
		}
	}
	for _, m := range mapping {
		name, column, ok := strings.Cut(m, "=")
		if !ok {
			return nil, fmt.Errorf("%q is no mapping; expected TARGET=COLUMN, as in tags.site=location", m)
		}
		t, err := parseTarget(name)
		if err != nil {
			return nil, err
		}
		at := slices.Index(header, column)
		if at < 0 {
			return nil, fmt.Errorf("there is no column %q; the file has %s", column, quotedList(header))
		}
		if p.targets[at] != nil {
			return nil, fmt.Errorf("the column %q is mapped twice", column)
		}
		p.targets[at] = &t
	}
	for i, name := range header {
		if p.targets[i] != nil {
			continue
		}
		t, err := parseTarget(name)
		if err != nil || slices.ContainsFunc(p.targets, func(o *csvTarget) bool { return o != nil && slices.Equal(o.path, t.path) }) {
			p.unused = append(p.unused, name)
			continue
		}
		p.targets[i] = &t
	}
	var paths [][]string
	for _, t := range p.targets {
		if t == nil {
			continue
		}
		if slices.ContainsFunc(paths, func(o []string) bool { return slices.Equal(o, t.path) }) {
			return nil, fmt.Errorf("two columns set %s", strings.Join(t.path, "."))
		}
		paths = append(paths, t.path)
	}
	if !slices.ContainsFunc(paths, func(path []string) bool { return path[0] == "id" }) {
		return nil, fmt.Errorf("no column is the device id; name one deviceId, or map it with --map deviceId=COLUMN; the file has %s", quotedList(header))
	}
	return p, nil
}

func quotedList(names []string) string {
	var list []string
	for _, n := range names[:min(len(names), 20)] {
		list = append(list, strconv.Quote(printable(n)))
	}
	return strings.Join(list, ", ")
}

// line makes a line of an import out of a record. Empty cells are absent; a
// device without a status is enabled. column is the one of an error, from 1.
func (p *csvPlan) line(fields []string) (text []byte, column int, err error) {
	if len(fields) > len(p.targets) {
		return nil, len(p.targets) + 1, fmt.Errorf("the record has %d fields, the header has %d", len(fields), len(p.targets))
	}
	root := map[string]any{"status": "enabled"}
	for i, cell := range fields {
		t := p.targets[i]
		if t == nil || strings.TrimSpace(cell) == "" {
			continue
		}
		v, err := t.value(cell)
		if err != nil {
			return nil, i + 1, fmt.Errorf("in the column %q: %w", printable(p.header[i]), err)
		}
		if !place(root, t.path, v) {
			return nil, i + 1, fmt.Errorf("in the column %q: %s lies within what another column of the record sets, or holds it; expected one of the two to be empty", printable(p.header[i]), strings.Join(t.path, "."))
		}
	}
	if root["id"] == nil {
		return nil, 1, errors.New("the device id is empty")
	}
	if a, ok := root["authentication"].(map[string]any); ok && a["type"] == nil {
		a["type"] = "sas"
		if a["x509Thumbprint"] != nil {
			a["type"] = "selfSigned"
		}
	}
	text, err = encodeJSON(root)
	return text, 0, err
}

// place puts a value into nested objects; it reports false where one path would lie within the value
// of another. Two devices may use one name in both ways, so that a file has columns for both.
func place(root map[string]any, path []string, v any) bool {
	last := len(path) - 1
	for _, key := range path[:last] {
		if root[key] == nil {
			root[key] = map[string]any{}
		}
		inner, ok := root[key].(map[string]any)
		if !ok {
			return false
		}
		root = inner
	}
	if _, taken := root[path[last]].(map[string]any); taken {
		return false
	}
	root[path[last]] = v
	return true
}

// value reads a cell by the column's type.
func (t *csvTarget) value(cell string) (any, error) {
	trimmed := strings.TrimSpace(cell)
	switch t.kind {
	case "number":
		if !json.Valid([]byte(trimmed)) || !strings.ContainsAny(trimmed[:1], "-0123456789") {
			return nil, fmt.Errorf("%q is no number; expected one as JSON writes it, such as 12.5", clipped(cell))
		}
		return json.RawMessage(trimmed), nil
	case "bool":
		switch strings.ToLower(trimmed) {
		case "true", "yes", "1":
			return true, nil
		case "false", "no", "0":
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", clipped(cell))
	case "json":
		if !json.Valid([]byte(trimmed)) {
			return nil, fmt.Errorf("%q is not valid JSON", clipped(cell))
		}
		var b bytes.Buffer
		if err := json.Compact(&b, []byte(trimmed)); err != nil { // no line breaks within a line
			return nil, err
		}
		return json.RawMessage(b.Bytes()), nil
	}
	if len(t.path) == 1 || t.path[0] == "authentication" {
		return trimmed, nil
	}
	return cell, nil
}

func clipped(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// csvLines turns CSV into the lines of an import, each on the line of its
// record, so that the numbers in the hub's errors are those of the file. Faults
// of records are handed to fault, and leave a blank line.
type csvLines struct {
	csv     *csvReader
	plan    *csvPlan
	fault   func(line, column int, text string)
	written int // lines
	out     bytes.Buffer
	end     bool
}

func newCSVLines(r io.Reader, comma byte, mapping []string, fault func(line, column int, text string)) (*csvLines, error) {
	c, err := newCSVReader(r, comma)
	if err != nil {
		return nil, err
	}
	header, _, err := c.next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; its first line must name the columns")
	}
	if err != nil {
		return nil, err
	}
	plan, err := planCSV(slices.Clone(header), mapping)
	if err != nil {
		return nil, err
	}
	return &csvLines{csv: c, plan: plan, fault: fault}, nil
}

// Read implements io.Reader.
func (l *csvLines) Read(p []byte) (int, error) {
	for l.out.Len() < len(p) && l.out.Len() < 1<<20 && !l.end {
		fields, line, err := l.csv.next()
		var text []byte
		column := 0
		if err == nil {
			text, column, err = l.plan.line(fields)
		}
		f, isFault := errors.AsType[*csvFault](err)
		switch {
		case errors.Is(err, io.EOF):
			l.end = true
			continue
		case isFault:
			l.fault(f.line, f.column, f.text)
			continue
		case column > 0:
			l.fault(line, column, err.Error())
			continue
		case err != nil:
			return 0, err
		}
		for ; l.written < line-1; l.written++ {
			l.out.WriteByte('\n')
		}
		l.out.Write(append(text, '\n'))
		l.written = line
	}
	if l.out.Len() == 0 {
		return 0, io.EOF
	}
	return l.out.Read(p)
}
