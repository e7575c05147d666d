package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// QueryAsk is a query, or a bare predicate on whole twins, and which page of its
// result is wanted.
type QueryAsk struct {
	Query   string `json:"query,omitempty"` // SELECT ...; it or Where
	Where   string `json:"where,omitempty"`
	Source  string `json:"source,omitempty"` // of Where: devices (when empty) or modules
	Limit   int    `json:"limit,omitempty"`  // rows of the page; 0: the hub's choice
	Cursor  string `json:"cursor,omitempty"` // of the page before
	Explain bool   `json:"explain,omitempty"`
}

// QueryPage is a page of a result.
type QueryPage struct {
	ItemType string            `json:"itemType"` // Twin, Raw, DeviceJob
	Items    []json.RawMessage `json:"items"`
	Columns  []string          `json:"columns"` // of Raw and DeviceJob: the members of a row in order
	Cursor   string            `json:"cursor"`  // empty at the end
	Plan     json.RawMessage   `json:"plan"`    // with Explain
	PlanText string            `json:"planText"`
}

// Query asks for a page of a query's result.
func (s *Service) Query(ctx context.Context, q QueryAsk) (p QueryPage, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/query", Body: q}, &p)
	return p, err
}

// SavedQueryResult asks for a page of a saved query's result; of q it takes
// Limit, Cursor and Explain.
func (s *Service) SavedQueryResult(ctx context.Context, name string, q QueryAsk) (p QueryPage, err error) {
	values := url.Values{}
	if q.Limit > 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Cursor != "" {
		values.Set("cursor", q.Cursor)
	}
	if q.Explain {
		values.Set("explain", "true")
	}
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: queryPath(name) + "/result", Query: values}, &p)
	return p, err
}

// SavedQuery is a query with a name.
type SavedQuery struct {
	Name        string            `json:"name"`
	Query       string            `json:"query,omitempty"` // it or Where
	Where       string            `json:"where,omitempty"`
	Source      string            `json:"source"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Version     uint64            `json:"version"`
	Principal   string            `json:"principal"` // who made this version
	ETag        string            `json:"etag"`
	Created     Time              `json:"createdTime"`
	Updated     Time              `json:"updatedTime"`
}

// Text returns the query or the predicate.
func (q *SavedQuery) Text() string { return q.Query + q.Where }

// SavedQuerySettings are the parts of a saved query that one sets.
type SavedQuerySettings struct {
	Query       string            `json:"query,omitempty"`
	Where       string            `json:"where,omitempty"`
	Source      string            `json:"source,omitempty"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

func queryPath(name string) string { return "/api/v1/queries/" + url.PathEscape(name) }

// SavedQueries walks the saved queries by name, all of them or those with a
// label, KEY or KEY=VALUE.
func (s *Service) SavedQueries(ctx context.Context, label string) iter.Seq2[SavedQuery, error] {
	q := url.Values{}
	if label != "" {
		q.Set("label", label)
	}
	return pages[SavedQuery](ctx, s, "/api/v1/queries", q, 500)
}

// SavedQuery returns a saved query, its newest version when version is 0.
func (s *Service) SavedQuery(ctx context.Context, name string, version uint64) (SavedQuery, error) {
	return ofVersion[SavedQuery](ctx, s, queryPath(name), version)
}

// ofVersion returns the record at a path, its newest version when version is 0.
func ofVersion[T any](ctx context.Context, s *Service, path string, version uint64) (record T, err error) {
	values := url.Values{}
	if version > 0 {
		values.Set("version", strconv.FormatUint(version, 10))
	}
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: path, Query: values}, &record)
	return record, err
}

// SavedQueryVersions walks the versions of a saved query, newest first.
func (s *Service) SavedQueryVersions(ctx context.Context, name string) iter.Seq2[SavedQuery, error] {
	return pages[SavedQuery](ctx, s, queryPath(name)+"/versions", nil, 100)
}

// PutSavedQuery saves a query. etag is empty, * when it must exist, or the one
// that it must have.
func (s *Service) PutSavedQuery(ctx context.Context, name string, settings SavedQuerySettings, etag string) (q SavedQuery, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPut, Path: queryPath(name), Body: settings, IfMatch: etag}, &q)
	return q, err
}

// DeleteSavedQuery deletes a saved query with its versions.
func (s *Service) DeleteSavedQuery(ctx context.Context, name, etag string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: queryPath(name), IfMatch: etag}, nil)
}
