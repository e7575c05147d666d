package engine

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// Bounds of a saved query that no profile changes; the others are in the table of limits.
const (
	savedQueryName        = 64
	savedQueryDescription = 512
	labelsMost            = 20
	labelKeyBytes         = 64
	labelValueBytes       = 256
)

// SavedQuery is a query with a name, under which others ask it. Each change
// makes a version; the versions before are kept, as many as the limits say.
type SavedQuery struct {
	Name        string
	Text        string       // a query, or a bare predicate
	Source      query.Source // what a predicate is about; of a query, its own
	Description string
	Labels      map[string]string
	Version     uint64 // from 1
	ETag        string // without quotes
	Principal   string // who made this version
	Created     time.Time
	Updated     time.Time // when this version was made
}

// Request returns the request that asks the saved query.
func (s *SavedQuery) Request() QueryRequest {
	if query.IsQuery(s.Text) {
		return QueryRequest{Text: s.Text}
	}
	return QueryRequest{Where: s.Text, Source: s.Source}
}

type savedQueryRecord struct {
	Text        string            `json:"q"`
	Source      query.Source      `json:"f,omitempty"`
	Description string            `json:"t,omitempty"`
	Labels      map[string]string `json:"l,omitempty"`
	versionStamp
}

var (
	savedQueryTable        = storage.NewTable("query", 1, storage.JSON[savedQueryRecord]())
	savedQueryVersionTable = storage.NewTable("queryversion", 1, storage.JSON[savedQueryRecord]())
)

const counterSavedQueries = "queries"

func (h *Hub) savedQueries() *named[savedQueryRecord, SavedQuery] {
	return &named[savedQueryRecord, SavedQuery]{
		hub: h, noun: "saved query", plural: "saved queries", newest: savedQueryTable, kept: savedQueryVersionTable,
		counter: counterSavedQueries, most: h.limits.SavedQueries, missing: CodeQueryNotFound, read: opSavedQueryRead,
		show: func(name, etag string, r savedQueryRecord) SavedQuery {
			return SavedQuery{
				Name: name, Text: r.Text, Source: r.Source, Description: r.Description, Labels: r.Labels, Version: r.Version,
				ETag: etag, Principal: r.Principal, Created: r.Created.UTC(), Updated: r.Updated.UTC(),
			}
		},
	}
}

// SavedQueries lists the saved queries by name. It needs ServiceConnect.
func (h *Hub) SavedQueries(ctx context.Context, c Caller) ([]SavedQuery, error) {
	return h.savedQueries().list(ctx, c)
}

// SavedQuery returns a saved query: its newest version when version is 0. It
// needs ServiceConnect.
func (h *Hub) SavedQuery(ctx context.Context, c Caller, name string, version uint64) (SavedQuery, error) {
	return h.savedQueries().one(ctx, c, name, version)
}

// SavedQueryVersions lists the versions of a saved query that are kept, newest
// first. It needs ServiceConnect.
func (h *Hub) SavedQueryVersions(ctx context.Context, c Caller, name string) ([]SavedQuery, error) {
	return h.savedQueries().versions(ctx, c, name)
}

func (h *Hub) checkSavedQuery(s *SavedQuery) error {
	if err := checkID("name of a query", s.Name, savedQueryName); err != nil {
		return err
	}
	if len(s.Description) > savedQueryDescription {
		return errf(CodeArgumentInvalid, "description has %d bytes; expected at most %d", len(s.Description), savedQueryDescription)
	}
	if err := checkLabels(s.Labels); err != nil {
		return err
	}
	if most := h.limits.SavedQueryBytes; len(s.Text) > most {
		return errf(CodeArgumentInvalid, "the query has %d bytes; expected at most %d to save it", len(s.Text), most)
	}
	q, err := h.ParseQuery(s.Request())
	if err != nil {
		return err
	}
	s.Source = q.Source()
	return nil
}

// checkLabels checks the labels of a record that has a name.
func checkLabels(labels map[string]string) error {
	if len(labels) > labelsMost {
		return errf(CodeArgumentInvalid, "labels has %d members; expected at most %d", len(labels), labelsMost)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if err := checkID("label", key, labelKeyBytes); err != nil {
			return err
		}
		if n := len(labels[key]); n > labelValueBytes {
			return errf(CodeArgumentInvalid, "the label %q has %d bytes; expected at most %d", key, n, labelValueBytes)
		}
	}
	return nil
}

// PutSavedQuery makes a saved query, or a new version of one when something of
// it differs. etag is empty, "*" when it must exist, or the one that it must
// have. It needs ServiceConnect.
func (h *Hub) PutSavedQuery(ctx context.Context, c Caller, s SavedQuery, etag string) (SavedQuery, error) {
	if err := h.authorize(ctx, c, opSavedQueryWrite, s.Name); err != nil {
		return SavedQuery{}, err
	}
	if err := h.checkSavedQuery(&s); err != nil {
		return SavedQuery{}, err
	}
	var out SavedQuery
	err := h.update(ctx, "save query", func(tx *storage.Tx) (err error) {
		var version uint64
		out, version, err = h.savedQueries().putTx(tx, c, s.Name, etag, func(old savedQueryRecord) bool {
			return old.Text == s.Text && old.Source == s.Source && old.Description == s.Description && maps.Equal(old.Labels, s.Labels)
		}, func(stamp versionStamp) savedQueryRecord {
			return savedQueryRecord{s.Text, s.Source, s.Description, s.Labels, stamp}
		})
		if err != nil || version == 0 {
			return err
		}
		details, err := savedQueryDetails(s.Name, version)
		return errors.Join(
			err,
			appendChange(tx, c, changeQuerySaved, TwinID{}, int64(version), details),
			h.auditTx(tx, c, opSavedQueryWrite, s.Name, details),
		)
	})
	return out, err
}

func savedQueryDetails(name string, version uint64) (json.RawMessage, error) {
	return marshal(struct {
		Query   string `json:"query"`
		Version uint64 `json:"version"`
	}{name, version})
}

// DeleteSavedQuery removes a saved query with its versions. etag is as in
// PutSavedQuery. It needs ServiceConnect.
func (h *Hub) DeleteSavedQuery(ctx context.Context, c Caller, name, etag string) error {
	if err := h.authorize(ctx, c, opSavedQueryWrite, name); err != nil {
		return err
	}
	return h.update(ctx, "delete saved query", func(tx *storage.Tx) error {
		version, err := h.savedQueries().deleteTx(tx, name, etag)
		if err != nil {
			return err
		}
		details, err := savedQueryDetails(name, version)
		return errors.Join(
			err,
			appendChange(tx, c, changeQueryDeleted, TwinID{}, int64(version), details),
			h.auditTx(tx, c, opSavedQueryWrite, name, json.RawMessage(`{"deleted":true}`)),
		)
	})
}
