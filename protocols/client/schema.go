package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// SchemaPath is a path that twins have.
type SchemaPath struct {
	Path     string            `json:"path"`  // as it is written in a query
	Bare     string            `json:"bare"`  // and in a bare predicate
	Twins    int               `json:"twins"` // that have it
	Types    map[string]int    `json:"types"` // twins by type
	Examples []json.RawMessage `json:"examples"`
	Column   bool              `json:"column"`
	Why      string            `json:"why,omitempty"` // it has no column
}

func schemaQuery(source, prefix string) url.Values {
	q := url.Values{}
	if source != "" {
		q.Set("source", source)
	}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	return q
}

// SchemaPage is a page of the report of paths.
type SchemaPage struct {
	Paths     []SchemaPath
	Truncated bool // twins have had paths that no page has
}

// Schema walks the paths that twins have, in order; source is devices (when
// empty) or modules.
func (s *Service) Schema(ctx context.Context, source, prefix string) iter.Seq2[SchemaPage, error] {
	return func(yield func(SchemaPage, error) bool) {
		for p, err := range wholePages[SchemaPath](ctx, s, "/api/v1/schema", schemaQuery(source, prefix), 500) {
			if !yield(SchemaPage{p.Items, p.Truncated}, err) || err != nil {
				return
			}
		}
	}
}

// SchemaPathName is a path as a completion shows it.
type SchemaPathName struct {
	Path  string   `json:"path"`  // as it is written in a query
	Bare  string   `json:"bare"`  // and in a bare predicate
	Types []string `json:"types"` // the most frequent first
	Twins int      `json:"twins"`
}

// SchemaPaths lists the first paths that begin with prefix.
func (s *Service) SchemaPaths(ctx context.Context, source, prefix string, limit int) ([]SchemaPathName, error) {
	q := schemaQuery(source, prefix)
	q.Set("limit", strconv.Itoa(limit))
	var p page[SchemaPathName]
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/schema/paths", Query: q}, &p)
	return p.Items, err
}

// DeclaredSchema is what devices' twins should look like.
type DeclaredSchema struct {
	Tags       json.RawMessage   `json:"tags,omitempty"` // a JSON Schema; so the others
	Desired    json.RawMessage   `json:"desired,omitempty"`
	Reported   json.RawMessage   `json:"reported,omitempty"`
	Mode       string            `json:"mode"` // warn or reject
	Version    uint64            `json:"version"`
	ETag       string            `json:"etag"`
	Created    Time              `json:"createdTime"`
	Updated    Time              `json:"updatedTime"`
	Violations []SchemaViolation `json:"violations"`
}

// SchemaViolation counts what was found against the declared schema at a path.
type SchemaViolation struct {
	Path     string `json:"path"`
	Warned   uint64 `json:"warned"`
	Rejected uint64 `json:"rejected"`
	Device   string `json:"lastDevice"`
	Found    string `json:"lastFound"`
	Expected string `json:"expected"`
	Last     Time   `json:"lastTime"`
}

const declaredPath = "/api/v1/schema/declared"

// DeclaredSchema returns the declared schema; IsNotFound tells when there is none.
func (s *Service) DeclaredSchema(ctx context.Context) (d DeclaredSchema, err error) {
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: declaredPath}, &d)
	return d, err
}

// DeclareSchema puts a schema into force: an object with tags, desired, reported
// and mode. etag is empty, * when there must be one, or the one that it must have.
func (s *Service) DeclareSchema(ctx context.Context, body json.RawMessage, etag string) (d DeclaredSchema, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPut, Path: declaredPath, Body: body, IfMatch: etag}, &d)
	return d, err
}

// DropDeclaredSchema ends the checks.
func (s *Service) DropDeclaredSchema(ctx context.Context, etag string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: declaredPath, IfMatch: etag}, nil)
}
