package service

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
)

type schemaDocument struct {
	Source    string             `json:"source" enum:"devices,modules"`
	Twins     int                `json:"twins" doc:"That there are."`
	Items     []schemaPathRecord `json:"items"`
	Cursor    string             `json:"cursor" doc:"Send it as ?cursor= for what follows; empty at the end."`
	Truncated bool               `json:"truncated,omitempty" doc:"Twins have more paths than a report looks at."`
}

type schemaPathRecord struct {
	Path     string            `json:"path" doc:"As it is written in a query."`
	Bare     string            `json:"bare" doc:"As it is written in a bare predicate."`
	Twins    int               `json:"twins" doc:"That have it; 0 without a column: it is not known."`
	Types    map[string]int    `json:"types,omitempty" doc:"Twins by the type that they have there."`
	Examples []json.RawMessage `json:"examples,omitempty" doc:"Up to three values."`
	Column   bool              `json:"column" doc:"Queries on it are answered from memory, without a look at documents."`
	Why      string            `json:"why,omitempty" doc:"It has no column."`
}

type schemaPaths struct {
	Items []schemaPathName `json:"items"`
}

type schemaPathName struct {
	Path  string   `json:"path" doc:"As it is written in a query."`
	Bare  string   `json:"bare" doc:"As it is written in a bare predicate."`
	Types []string `json:"types" doc:"The most frequent first."`
	Twins int      `json:"twins"`
}

func schemaRoutes() []*route {
	source := parameter{name: "source", kind: "string", text: "devices, when absent, or modules."}
	prefix := parameter{name: "prefix", kind: "string", text: "Only paths that begin so, such as reported.net or properties.reported.net."}
	table := []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/schema", operation: "getSchema", tag: tagQueries, permission: auth.ServiceConnect,
			query:   append(listQuery("paths"), source, prefix),
			summary: "Reports which paths twins have: types, how many twins, examples, and whether queries find a column.", response: schemaDocument{}, handle: getSchema,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/schema/paths", operation: "listSchemaPaths", tag: tagQueries, permission: auth.ServiceConnect,
			query:   []parameter{prefix, source, {name: "limit", kind: "integer", text: "At most so many, 1 to 1000; 100 when absent."}},
			summary: "Lists the paths that begin with what somebody has typed, to complete it.", response: schemaPaths{}, handle: listSchemaPaths,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// schemaAsk reads what both routes take.
func (c *call) schemaAsk() (a engine.SchemaAsk, err error) {
	switch name := c.query.Get("source"); name {
	case "", "devices":
	case "modules":
		a.Source = query.Modules
	default:
		return a, invalid("the query parameter source is %q; expected devices or modules", clip(name))
	}
	a.Prefix = c.query.Get("prefix")
	a.Limit, err = c.integer("limit", pageDefault, 1, pageMost)
	return a, err
}

func getSchema(c *call) (answer, error) {
	a, err := c.schemaAsk()
	if err != nil {
		return answer{}, err
	}
	filter := sourceName(a.Source) + " " + a.Prefix
	if a.After, err = parseCursor(c.query.Get("cursor"), "schema", filter); err != nil {
		return answer{}, err
	}
	r, err := c.hub.SchemaReport(c.r.Context(), c.caller, a)
	return answer{body: schemaDocument{
		Source: sourceName(a.Source), Twins: r.Rows, Cursor: makeCursor("schema", filter, r.Next), Truncated: r.Truncated,
		Items: show(r.Paths, func(p engine.SchemaPath) schemaPathRecord {
			return schemaPathRecord{p.Path, p.Bare, p.Rows, p.Types, p.Examples, p.Column, p.Why}
		}),
	}}, err
}

func listSchemaPaths(c *call) (answer, error) {
	a, err := c.schemaAsk()
	if err != nil {
		return answer{}, err
	}
	r, err := c.hub.SchemaReport(c.r.Context(), c.caller, a)
	return answer{body: schemaPaths{show(r.Paths, func(p engine.SchemaPath) schemaPathName {
		types := slices.SortedFunc(maps.Keys(p.Types), func(x, y string) int {
			if p.Types[x] != p.Types[y] {
				return p.Types[y] - p.Types[x]
			}
			if x < y {
				return -1
			}
			return 1
		})
		return schemaPathName{p.Path, p.Bare, types, p.Rows}
	})}}, err
}
