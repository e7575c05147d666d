package engine

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/query"
)

// schemaPathsMost bounds the paths that a report looks at: their names come
// from devices.
const schemaPathsMost = 10_000

// SchemaAsk says which part of a report is wanted.
type SchemaAsk struct {
	Source query.Source // query.Devices or query.Modules
	Prefix string       // that paths begin with, as they are reported or in full; without case up to the first dot
	After  string       // the last path of the page before
	Limit  int          // paths, at least 1
}

// SchemaReport is which paths the twins of a source have.
type SchemaReport struct {
	Rows      int // twins
	Paths     []SchemaPath
	Next      string // for SchemaAsk.After; empty at the end
	Truncated bool   // there are more paths than a report looks at
}

// SchemaPath is a path of a report.
type SchemaPath struct {
	Path     string         // as a query is written: "tags.site", "reported.battery"
	Bare     string         // as a bare predicate is written: tags["a-b"] where a query has tags.[[a-b]]
	Rows     int            // twins that have it; 0 without a column: it is not known
	Types    map[string]int // twins by the type that they have there; nil without a column
	Examples []json.RawMessage
	Column   bool   // queries on it are answered from a column
	Why      string // it has none
}

// SchemaReport returns which paths twins have, in order. It needs
// ServiceConnect; CodeUnavailable while columns are built.
func (h *Hub) SchemaReport(ctx context.Context, c Caller, a SchemaAsk) (SchemaReport, error) {
	if err := h.authorize(ctx, c, opSchemaRead, "*"); err != nil {
		return SchemaReport{}, err
	}
	if a.Source != query.Devices && a.Source != query.Modules {
		return SchemaReport{}, errf(CodeArgumentInvalid, "there is no report of %s; expected devices or modules", a.Source)
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return SchemaReport{}, err
	}
	whole := h.queries.columns[a.Source].Schema(schemaPathsMost)
	report := SchemaReport{Rows: whole.Rows, Truncated: whole.Truncated, Paths: []SchemaPath{}}
	full := h.limits.Profile == ProfileAzure || len(a.Prefix) > 0 && (beginsWith("properties.", a.Prefix) || beginsWith(a.Prefix, "properties."))
	for _, p := range whole.Paths {
		name, bare := p.Path, p.Bare
		if !full {
			name, bare = shortPath(name), shortPath(bare)
		}
		if !beginsWith(unquotedPath(name), unquotedPath(a.Prefix)) {
			continue
		}
		report.Paths = append(report.Paths, SchemaPath{
			Path: name, Bare: bare, Rows: p.Rows, Types: p.Types, Examples: p.Examples, Column: p.Why == "", Why: p.Why,
		})
	}
	slices.SortFunc(report.Paths, func(x, y SchemaPath) int { return strings.Compare(x.Path, y.Path) })
	if a.After != "" {
		i, found := slices.BinarySearchFunc(report.Paths, a.After, func(p SchemaPath, path string) int { return strings.Compare(p.Path, path) })
		if found {
			i++
		}
		report.Paths = report.Paths[i:]
	}
	if len(report.Paths) > a.Limit {
		report.Paths = report.Paths[:a.Limit]
		report.Next = report.Paths[a.Limit-1].Path
	}
	return report, nil
}

// shortPath spells a path of desired or reported properties by its alias.
func shortPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "properties."); ok {
		return rest
	}
	return path
}

// unquotedPath is a path without the brackets around reserved words and odd keys:
// whoever types a path has not come to them yet.
func unquotedPath(path string) string {
	return strings.NewReplacer("[[", "", "]]", "").Replace(path)
}

// beginsWith compares names of attributes without case, and keys with it.
func beginsWith(path, prefix string) bool {
	if len(path) < len(prefix) {
		return false
	}
	root, _, _ := strings.Cut(prefix, ".")
	return strings.EqualFold(path[:len(root)], root) && path[len(root):len(prefix)] == prefix[len(root):]
}
