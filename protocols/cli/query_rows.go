package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

// printRows writes a query's rows. A table is made of all of them; the other
// forms are written page by page.
func (a *app) printRows(ctx context.Context, f QueryFlags, ask asker) error {
	var out rowPrinter
	switch f.Output {
	case "json":
		out = &jsonRows{w: a.io.Out}
	case "jsonl":
		out = lineRows{a.io.Out}
	case "csv":
		out = &csvRows{w: csvTo(a.io.Out)}
	default:
		out = &tableRows{app: a}
	}
	more := false
	for p, err := range queryPages(ctx, f.Limit, ask) {
		if err != nil {
			return err
		}
		if err := out.page(&p.QueryPage); err != nil {
			return err
		}
		more = p.more
	}
	if err := out.end(); err != nil {
		return err
	}
	if more {
		a.note("There are more than %d rows; --limit 0 shows all.", f.Limit)
	}
	return nil
}

// rowPrinter writes rows as they come.
type rowPrinter interface {
	page(p *client.QueryPage) error
	end() error
}

type lineRows struct{ w io.Writer }

func (r lineRows) page(p *client.QueryPage) error {
	for _, item := range p.Items {
		if err := writeJSONLine(r.w, item); err != nil {
			return err
		}
	}
	return nil
}

func (r lineRows) end() error { return nil }

// jsonRows writes one array.
type jsonRows struct {
	w     io.Writer
	begun bool
}

func (r *jsonRows) page(p *client.QueryPage) error {
	for _, item := range p.Items {
		var b bytes.Buffer
		if r.begun {
			b.WriteString(",\n  ")
		} else {
			b.WriteString("[\n  ")
			r.begun = true
		}
		if err := json.Indent(&b, item, "  ", "  "); err != nil {
			return err
		}
		if _, err := r.w.Write(plainJSON(b.Bytes())); err != nil {
			return err
		}
	}
	return nil
}

func (r *jsonRows) end() error {
	text := "\n]\n"
	if !r.begun {
		text = "[]\n"
	}
	_, err := io.WriteString(r.w, text)
	return err
}

// csvRows has a column for each member that was selected, or those of twinCells.
// Nested values are JSON.
type csvRows struct {
	w     *csvWriter
	begun bool
}

func (r *csvRows) page(p *client.QueryPage) error {
	columns := p.Columns
	if p.ItemType == "Twin" {
		columns = []string{"deviceId", "moduleId", "status", "connectionState", "lastActivityTime", "modelId", "version", "etag", "tags", "desired", "reported"}
	}
	if !r.begun {
		r.begun = true
		if err := r.w.write(columns); err != nil {
			return err
		}
	}
	for _, item := range p.Items {
		members, err := membersOf(item)
		if err != nil {
			return err
		}
		if p.ItemType == "Twin" {
			flattenTwin(members)
		}
		line := make([]string, len(columns))
		for i, key := range columns {
			line[i] = plainCell(scalar(members[key]))
		}
		if err := r.w.write(line); err != nil {
			return err
		}
	}
	return r.w.flush()
}

func (r *csvRows) end() error { return nil }

func membersOf(item json.RawMessage) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(item, &m); err != nil {
		return nil, fmt.Errorf("read a row of the result: %w", err)
	}
	return m, nil
}

// flattenTwin brings the sections of a twin up as desired and reported, without
// version and metadata.
func flattenTwin(m map[string]json.RawMessage) {
	var p struct{ Desired, Reported json.RawMessage }
	_ = json.Unmarshal(m["properties"], &p) // what is not there stays empty
	m["desired"], m["reported"] = plainSection(p.Desired), plainSection(p.Reported)
}

func plainSection(raw json.RawMessage) json.RawMessage {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var b bytes.Buffer
	if err := copyValue(d, &b, func(key string) bool { return key != "$metadata" && key != "$version" }); err != nil {
		return raw
	}
	return b.Bytes()
}

// scalar is a JSON value as a cell: texts and numbers as such, anything else as
// the JSON that it is, nil when there is none.
func scalar(raw json.RawMessage) any {
	switch {
	case len(raw) == 0:
		return nil
	case raw[0] == '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(string(raw), 64); err == nil {
			return f
		}
	}
	return raw
}

// tableRows collects rows and writes one table.
type tableRows struct {
	app  *app
	rows []json.RawMessage
	head client.QueryPage // item type and columns
}

func (r *tableRows) page(p *client.QueryPage) error {
	r.head = client.QueryPage{ItemType: p.ItemType, Columns: p.Columns}
	r.rows = append(r.rows, p.Items...)
	return nil
}

func (r *tableRows) end() error {
	sh, err := rowSheet(&r.head, r.rows)
	if err != nil {
		return err
	}
	return r.app.print(OutputFlags{Output: "table"}, sh)
}

// rowSheet makes a table of rows.
func rowSheet(head *client.QueryPage, rows []json.RawMessage) (*sheet, error) {
	if head.ItemType == "Twin" {
		return twinSheet(rows)
	}
	sh := &sheet{empty: "No rows."}
	all := make([]map[string]json.RawMessage, 0, len(rows))
	for _, row := range rows {
		m, err := membersOf(row)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	columns := nestedColumns(usedColumns(head.Columns, all), all)
	for _, c := range columns {
		sh.columns = append(sh.columns, strings.Join(c, "."))
	}
	for i, m := range all {
		cells := make([]any, len(columns))
		for j, c := range columns {
			cells[j] = scalar(follow(m[c[0]], c[1:]))
		}
		sh.add(rows[i], cells...)
	}
	return sh, nil
}

// columnsMost is from how many columns on a table leaves out those in which no
// row has anything: whole rows of runs have many members, and most runs few.
const columnsMost = 12

// usedColumns are those that a table shows.
func usedColumns(selected []string, rows []map[string]json.RawMessage) []string {
	if len(selected) < columnsMost || len(rows) == 0 {
		return selected
	}
	var used []string
	for _, key := range selected {
		if slices.ContainsFunc(rows, func(m map[string]json.RawMessage) bool { return len(m[key]) > 0 && string(m[key]) != "null" }) {
			used = append(used, key)
		}
	}
	return used
}

// nestedMost is how many columns a nested value may become.
const nestedMost = 8

// nestedColumns gives each member of a nested value a column of its own, where
// a selected value is an object wherever there is one and the objects have few
// members. Where some rows have other values they have no member to stand under, so
// the column keeps its own name, and objects are JSON.
func nestedColumns(selected []string, rows []map[string]json.RawMessage) [][]string {
	var columns [][]string
	for _, key := range selected {
		var keys []string
		mixed := false
		for _, m := range rows {
			raw := m[key]
			if len(raw) == 0 || string(raw) == "null" {
				continue
			}
			inner, err := membersOf(raw)
			if err != nil {
				mixed = true
				break
			}
			for k := range inner {
				if !slices.Contains(keys, k) && len(keys) <= nestedMost && !strings.HasPrefix(k, "$") {
					keys = append(keys, k)
				}
			}
		}
		if mixed || len(keys) == 0 || len(keys) > nestedMost {
			columns = append(columns, []string{key})
			continue
		}
		slices.Sort(keys)
		for _, k := range keys {
			columns = append(columns, []string{key, k})
		}
	}
	return columns
}

func follow(raw json.RawMessage, path []string) json.RawMessage {
	for _, key := range path {
		m, err := membersOf(raw)
		if err != nil {
			return nil // there is nothing in this row
		}
		raw = m[key]
	}
	return raw
}

// twinSheet shows twins: what they are, and the first of their properties.
func twinSheet(rows []json.RawMessage) (*sheet, error) {
	sh := &sheet{empty: "No twins match."}
	modules := false
	type line struct {
		t                       client.Twin
		tags, desired, reported string
	}
	lines := make([]line, 0, len(rows))
	for _, row := range rows {
		var l line
		if err := json.Unmarshal(row, &l.t); err != nil {
			return nil, fmt.Errorf("read a row of the result: %w", err)
		}
		modules = modules || l.t.ModuleID != ""
		l.tags, l.desired, l.reported = brief(l.t.Tags), brief(l.t.Properties.Desired), brief(l.t.Properties.Reported)
		lines = append(lines, l)
	}
	sh.columns = []string{"DEVICE", "CONNECTION", "LAST ACTIVITY", "TAGS", "DESIRED", "REPORTED"}
	if modules {
		sh.columns = slices.Insert(sh.columns, 1, "MODULE")
	}
	for i, l := range lines {
		state := strings.ToLower(l.t.ConnectionState)
		if l.t.Status == "disabled" {
			state = "disabled"
		}
		cells := []any{l.t.DeviceID, state, l.t.LastActivityTime, l.tags, l.desired, l.reported}
		if modules {
			cells = slices.Insert(cells, 1, any(l.t.ModuleID))
		}
		sh.add(rows[i], cells...)
	}
	return sh, nil
}

// briefMost is how many properties of a section a table shows.
const briefMost = 4

// brief is the first properties of a section, "battery=20 net.rssi=-60 +3".
func brief(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	plain := plainSection(raw)
	if string(plain) == "{}" {
		return ""
	}
	list := leaves(plain)
	var parts []string
	for _, l := range list[:min(len(list), briefMost)] {
		value, _ := l[1].(json.RawMessage)
		parts = append(parts, fmt.Sprintf("%s=%s", l[0], plainCell(scalar(value))))
	}
	if more := len(list) - briefMost; more > 0 {
		parts = append(parts, "+"+strconv.Itoa(more))
	}
	return strings.Join(parts, " ")
}
