package service

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
)

type savedQueryBody struct {
	Query       string            `json:"query,omitempty" doc:"A query: SELECT ... . It or where."`
	Where       string            `json:"where,omitempty" doc:"A bare predicate, such as tags.site == \"A\": the whole twins that it matches."`
	Source      string            `json:"source,omitempty" enum:"devices,modules" doc:"What where is about; devices when absent."`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty" doc:"At most 20."`
}

type savedQueryDocument struct {
	Name        string            `json:"name"`
	Query       string            `json:"query,omitempty"`
	Where       string            `json:"where,omitempty"`
	Source      string            `json:"source" enum:"devices,modules,jobs"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Version     uint64            `json:"version"`
	Principal   string            `json:"principal" doc:"Who made this version."`
	ETag        string            `json:"etag"`
	CreatedTime time.Time         `json:"createdTime"`
	UpdatedTime time.Time         `json:"updatedTime" doc:"When this version was made."`
}

func savedQueryRoutes() []*route {
	const connect, path = auth.ServiceConnect, "/api/v1/queries/{name}"
	table := []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/queries", operation: "listQueries", tag: tagQueries, permission: connect,
			query:   append(listQuery("queries"), parameter{name: "label", kind: "string", text: "Only those with this label: KEY, or KEY=VALUE."}),
			summary: "Lists the saved queries by name.", response: page[savedQueryDocument]{}, handle: listSavedQueries,
		},
		{
			method: http.MethodGet, pattern: path, operation: "getQuery", tag: tagQueries, permission: connect,
			query:   []parameter{{name: "version", kind: "integer", text: "A version that is kept; the newest when absent."}},
			summary: "Returns a saved query.", response: savedQueryDocument{}, handle: getSavedQuery,
		},
		{
			method: http.MethodPut, pattern: path, operation: "putQuery", tag: tagQueries, permission: connect, ifMatch: optional,
			summary: "Saves a query under a name, or makes a new version of one.", request: savedQueryBody{}, response: savedQueryDocument{}, handle: putSavedQuery,
		},
		{
			method: http.MethodDelete, pattern: path, operation: "deleteQuery", tag: tagQueries, permission: connect, ifMatch: optional,
			summary: "Deletes a saved query with its versions.", status: http.StatusNoContent, handle: deleteSavedQuery,
		},
		{
			method: http.MethodGet, pattern: path + "/versions", operation: "listQueryVersions", tag: tagQueries, permission: connect, query: listQuery("versions"),
			summary: "Lists the versions of a saved query that are kept, newest first.", response: page[savedQueryDocument]{}, handle: listQueryVersions,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// sourceName is a source as Muster's own API spells it.
func sourceName(s query.Source) string {
	switch s {
	case query.Modules:
		return "modules"
	case query.Jobs:
		return "jobs"
	default:
		return "devices"
	}
}

func showSavedQuery(s engine.SavedQuery) savedQueryDocument {
	d := savedQueryDocument{
		Name: s.Name, Source: sourceName(s.Source), Description: s.Description, Labels: s.Labels, Version: s.Version,
		Principal: s.Principal, ETag: s.ETag, CreatedTime: s.Created, UpdatedTime: s.Updated,
	}
	if query.IsQuery(s.Text) {
		d.Query = s.Text
	} else {
		d.Where = s.Text
	}
	return d
}

// queryText returns the one of query and where that a body has, and what a
// predicate is about.
func queryText(f fields) (text string, source query.Source, err error) {
	var full, where, about string
	err = firstError(
		func() (err error) { full, err = f.text("query"); return err },
		func() (err error) { where, err = f.text("where"); return err },
		func() (err error) { about, err = f.text("source"); return err },
	)
	if err != nil {
		return "", 0, err
	}
	switch {
	case full == "" && where == "":
		return "", 0, &engine.Error{Code: engine.CodeArgumentNull, Message: "the query is missing; expected query, as in SELECT * FROM devices, or where, as in tags.site == \"A\""}
	case full != "" && where != "":
		return "", 0, invalid("query and where are both there; expected one of them")
	case full != "" && !query.IsQuery(full):
		return "", 0, invalid("query does not begin with SELECT; send a bare predicate as where")
	case where != "" && query.IsQuery(where):
		return "", 0, invalid("where begins with SELECT; send a whole query as query")
	case full != "" && about != "":
		return "", 0, invalid("source goes with where; a query names its own after FROM")
	}
	switch about {
	case "", "devices":
	case "modules":
		source = query.Modules
	default:
		return "", 0, invalid("source is %q; expected devices or modules", clip(about))
	}
	return full + where, source, nil
}

func listSavedQueries(c *call) (answer, error) {
	list, err := c.hub.SavedQueries(c.r.Context(), c.caller)
	if err != nil {
		return answer{}, err
	}
	if label := c.query.Get("label"); label != "" {
		key, value, exact := strings.Cut(label, "=")
		list = slices.DeleteFunc(list, func(s engine.SavedQuery) bool {
			got, ok := s.Labels[key]
			return !ok || exact && got != value
		})
	}
	return pageOfNames(c, "queries", list, func(s engine.SavedQuery) string { return s.Name }, showSavedQuery)
}

func listQueryVersions(c *call) (answer, error) {
	list, err := c.hub.SavedQueryVersions(c.r.Context(), c.caller, c.params[0])
	if err != nil {
		return answer{}, err
	}
	return pageOfVersions(c, "query-versions", list, func(s engine.SavedQuery) uint64 { return s.Version }, showSavedQuery)
}

func getSavedQuery(c *call) (answer, error) {
	version, err := c.integer("version", 0, 1, 1<<53)
	if err != nil {
		return answer{}, err
	}
	s, err := c.hub.SavedQuery(c.r.Context(), c.caller, c.params[0], uint64(version))
	return answer{body: showSavedQuery(s), etag: s.ETag}, err
}

func putSavedQuery(c *call) (answer, error) {
	f, err := c.members("query", "where", "source", "description", "labels")
	if err != nil {
		return answer{}, err
	}
	s := engine.SavedQuery{Name: c.params[0]}
	if s.Text, s.Source, err = queryText(f); err != nil {
		return answer{}, err
	}
	if s.Description, err = f.text("description"); err != nil {
		return answer{}, err
	}
	labels, err := f.object("labels")
	if err != nil {
		return answer{}, err
	}
	for key := range labels.members {
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		if s.Labels[key], err = labels.text(key); err != nil {
			return answer{}, err
		}
	}
	s, err = c.hub.PutSavedQuery(c.r.Context(), c.caller, s, c.condition())
	return answer{body: showSavedQuery(s), etag: s.ETag}, err
}

func deleteSavedQuery(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteSavedQuery(c.r.Context(), c.caller, c.params[0], c.condition())
}
