package query

import (
	"cmp"
	"encoding/json"
	"slices"
)

// Stats is what columns hold at the moment.
type Stats struct {
	Rows    int
	Columns int
	Bytes   int64     // of columns, dictionaries and ids
	Entries int       // of dictionaries
	Missing []Missing // paths that were seen and have no column
	Refused int64     // how often a path got no column
}

// Stats returns what the columns hold.
func (c *Columns) Stats() Stats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.store
	out := Stats{Rows: s.count, Columns: s.columns, Bytes: s.bytes + s.rows.bytes(), Refused: s.refused.total}
	s.visit(func(n *node) {
		switch {
		case n.column != nil:
			out.Entries += n.column.live
		case n.why != "":
			out.Missing = append(out.Missing, Missing{n.path().String(), n.why})
		}
	})
	slices.SortFunc(out.Missing, func(a, b Missing) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// Schema is a report of the paths that rows have.
type Schema struct {
	Rows      int          `json:"rows"`
	Paths     []SchemaPath `json:"paths"`     // in the order of their names
	Truncated bool         `json:"truncated"` // there are more paths
}

// SchemaPath is a path of a Schema. Of a path without a column, Why says why, and
// the rest is not known.
type SchemaPath struct {
	Path     string            `json:"path"`
	Bare     string            `json:"bare"`            // as a bare predicate has it
	Types    map[string]int    `json:"types,omitempty"` // rows by type
	Rows     int               `json:"rows"`            // that have the path
	Examples []json.RawMessage `json:"examples,omitempty"`
	Why      string            `json:"why,omitempty"`
}

// examplesMost is how many values a SchemaPath shows, and up to which size.
const (
	examplesMost = 3
	exampleBytes = 200
)

// Schema reports the paths that rows have, up to limit of them; those that most
// rows have come first into it.
func (c *Columns) Schema(limit int) Schema {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.store
	out := Schema{Rows: s.count, Truncated: s.refused.total > 0}
	var nodes []*node
	s.visit(func(n *node) {
		if n != s.root && (n.column != nil || n.why != "" || n.role == identity) {
			nodes = append(nodes, n)
		}
	})
	used := func(n *node) int {
		if n.column == nil {
			return s.count // roots that stand in documents, mostly
		}
		return n.column.used
	}
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(used(b), used(a)) })
	if len(nodes) > max(limit, 0) {
		nodes, out.Truncated = nodes[:max(limit, 0)], true
	}
	for _, n := range nodes {
		p := SchemaPath{Path: n.path().String(), Bare: n.path().Bare(), Why: n.why}
		if n.column != nil {
			p.Types = map[string]int{}
			for kind := Null; kind <= Object; kind++ {
				if k := n.column.kinds[kind]; k > 0 {
					p.Types[kind.String()] = k
				}
			}
			p.Rows, p.Examples = n.column.used, n.column.examples()
		}
		if n.role == identity {
			p.Types, p.Rows = map[string]int{String.String(): s.count}, s.count
		}
		out.Paths = append(out.Paths, p)
	}
	slices.SortFunc(out.Paths, func(a, b SchemaPath) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// examples returns a few of a column's values.
func (c *column) examples() (list []json.RawMessage) {
	add := func(v Value) {
		text := v.AppendJSON(nil)
		if len(text) <= exampleBytes && !slices.ContainsFunc(list, func(m json.RawMessage) bool { return string(m) == string(text) }) {
			list = append(list, text)
		}
	}
	const looked = 100
	for code := int(firstCode); code < min(len(c.entries), looked) && len(list) < examplesMost; code++ {
		if c.entries[code].count() > 0 {
			add(c.value(uint32(code)))
		}
	}
	for _, s := range c.stripes {
		if s == nil || s.form != floats {
			continue
		}
		for _, x := range s.floats[:looked] {
			if len(list) == examplesMost {
				return list
			}
			if !x.coded() {
				add(NumberValue(x.number()))
			}
		}
	}
	for code := codeNull; code < codeObject && len(list) < examplesMost; code++ {
		if c.entries[code].count() > 0 {
			add(c.value(code))
		}
	}
	return list
}

// visit calls f for every path.
func (s *store) visit(f func(n *node)) {
	var visit func(n *node)
	visit = func(n *node) {
		f(n)
		for _, c := range n.children {
			visit(c)
		}
	}
	visit(s.root)
}
