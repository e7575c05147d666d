package engine

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
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
	Version     uint64            `json:"n"`
	Principal   string            `json:"p"`
	Created     time.Time         `json:"c"`
	Updated     time.Time         `json:"u"`
}

var (
	savedQueryTable        = storage.NewTable("query", 1, storage.JSON[savedQueryRecord]())
	savedQueryVersionTable = storage.NewTable("queryversion", 1, storage.JSON[savedQueryRecord]())
)

const counterSavedQueries = "queries"

// show returns the record as callers see it.
func (r savedQueryRecord) show(epoch uint32, name string) SavedQuery {
	return SavedQuery{
		Name: name, Text: r.Text, Source: r.Source, Description: r.Description, Labels: r.Labels, Version: r.Version,
		ETag: savedETag(epoch, r.Created, r.Version), Principal: r.Principal, Created: r.Created.UTC(), Updated: r.Updated.UTC(),
	}
}

// savedETag is the ETag of a version of a record with a name: neither one from
// before a restore nor one of a namesake that was deleted ever matches it.
func savedETag(epoch uint32, created time.Time, version uint64) string {
	return strconv.FormatUint(uint64(epoch), 36) + "." + strconv.FormatInt(created.UnixMicro(), 36) + "." + strconv.FormatUint(version, 10)
}

// SavedQueries lists the saved queries by name. It needs ServiceConnect.
func (h *Hub) SavedQueries(ctx context.Context, c Caller) ([]SavedQuery, error) {
	if err := h.authorize(ctx, c, opSavedQueryRead, "*"); err != nil {
		return nil, err
	}
	list := []SavedQuery{}
	err := h.view(ctx, "list saved queries", func(r storage.Reader) error {
		list = list[:0]
		for item, err := range savedQueryTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			name, _ := parts[0].(string)
			list = append(list, item.Value.show(h.db.Epoch().Ordinal, name))
		}
		return nil
	})
	return list, err
}

// SavedQuery returns a saved query: its newest version when version is 0. It
// needs ServiceConnect.
func (h *Hub) SavedQuery(ctx context.Context, c Caller, name string, version uint64) (s SavedQuery, err error) {
	if err := h.authorize(ctx, c, opSavedQueryRead, name); err != nil {
		return s, err
	}
	err = h.view(ctx, "read saved query", func(r storage.Reader) error {
		record, err := getSavedQuery(r, name)
		if err == nil && version != 0 && version != record.Version {
			record, err = savedQueryVersionTable.Get(r, storage.Tuple(name, version))
			if errors.Is(err, storage.ErrNotFound) {
				return errf(CodeQueryNotFound, "the saved query %q has no version %d, or it is no longer kept", name, version)
			}
		}
		s = record.show(h.db.Epoch().Ordinal, name)
		return err
	})
	return s, err
}

func getSavedQuery(r storage.Reader, name string) (savedQueryRecord, error) {
	record, err := savedQueryTable.Get(r, storage.Tuple(name))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeQueryNotFound, "there is no saved query %q", name)
	}
	return record, err
}

// SavedQueryVersions lists the versions of a saved query that are kept, newest
// first. It needs ServiceConnect.
func (h *Hub) SavedQueryVersions(ctx context.Context, c Caller, name string) ([]SavedQuery, error) {
	if err := h.authorize(ctx, c, opSavedQueryRead, name); err != nil {
		return nil, err
	}
	list := []SavedQuery{}
	err := h.view(ctx, "read a saved query's versions", func(r storage.Reader) error {
		list = list[:0]
		if _, err := getSavedQuery(r, name); err != nil {
			return err
		}
		for item, err := range savedQueryVersionTable.Scan(r, storage.Range{Prefix: storage.Tuple(name)}) {
			if err != nil {
				return err
			}
			list = append(list, item.Value.show(h.db.Epoch().Ordinal, name))
		}
		return nil
	})
	slices.Reverse(list)
	return list, err
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
	err := h.update(ctx, "save query", func(tx *storage.Tx) error {
		old, err := savedQueryTable.Get(tx, storage.Tuple(s.Name))
		isNew := errors.Is(err, storage.ErrNotFound)
		switch {
		case isNew && etag != "":
			return errf(CodeQueryNotFound, "there is no saved query %q", s.Name)
		case isNew:
			n, err := storage.Counter(tx, counterSavedQueries)
			if err != nil {
				return err
			}
			if n >= int64(h.limits.SavedQueries) {
				return errf(CodeQuotaExceeded, "the hub has %d saved queries, and the limit is %d; delete one first", n, h.limits.SavedQueries)
			}
			tx.Add(counterSavedQueries, 1)
			old.Created = tx.Now()
		case err != nil:
			return err
		default:
			if err := checkSavedETag(etag, savedETag(h.db.Epoch().Ordinal, old.Created, old.Version), "the saved query "+strconv.Quote(s.Name)); err != nil {
				return err
			}
			if old.Text == s.Text && old.Source == s.Source && old.Description == s.Description && maps.Equal(old.Labels, s.Labels) {
				out = old.show(h.db.Epoch().Ordinal, s.Name)
				return nil
			}
		}
		record := savedQueryRecord{
			Text: s.Text, Source: s.Source, Description: s.Description, Labels: s.Labels, Version: old.Version + 1,
			Principal: c.Principal.String(), Created: old.Created, Updated: tx.Now(),
		}
		out = record.show(h.db.Epoch().Ordinal, s.Name)
		return h.storeSavedQueryTx(tx, c, s.Name, record)
	})
	return out, err
}

// checkSavedETag refuses a condition that a record does not meet; an absent one
// and "*" mean any.
func checkSavedETag(etag, now, what string) error {
	if etag == "" || etag == "*" || etag == now {
		return nil
	}
	return errf(CodePreconditionFailed, "%s has changed; expected the ETag %q", what, now)
}

func (h *Hub) storeSavedQueryTx(tx *storage.Tx, c Caller, name string, r savedQueryRecord) error {
	if most := uint64(h.limits.SavedQueryVersions); r.Version > most {
		if err := savedQueryVersionTable.Delete(tx, storage.Tuple(name, r.Version-most)); err != nil {
			return err
		}
	}
	details, err := savedQueryDetails(name, r.Version)
	return errors.Join(
		err,
		savedQueryTable.Put(tx, storage.Tuple(name), r),
		savedQueryVersionTable.Put(tx, storage.Tuple(name, r.Version), r),
		appendChange(tx, c, changeQuerySaved, TwinID{}, int64(r.Version), details),
		h.auditTx(tx, c, opSavedQueryWrite, name, details),
	)
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
		record, err := getSavedQuery(tx, name)
		if err != nil {
			return err
		}
		if err := checkSavedETag(etag, savedETag(h.db.Epoch().Ordinal, record.Created, record.Version), "the saved query "+strconv.Quote(name)); err != nil {
			return err
		}
		var keys []storage.Key
		for item, err := range savedQueryVersionTable.Scan(tx, storage.Range{Prefix: storage.Tuple(name)}) {
			if err != nil {
				return err
			}
			keys = append(keys, slices.Clone(item.Key))
		}
		for _, k := range keys {
			if err := savedQueryVersionTable.Delete(tx, k); err != nil {
				return err
			}
		}
		tx.Add(counterSavedQueries, -1)
		details, err := savedQueryDetails(name, record.Version)
		return errors.Join(
			err,
			savedQueryTable.Delete(tx, storage.Tuple(name)),
			appendChange(tx, c, changeQueryDeleted, TwinID{}, int64(record.Version), details),
			h.auditTx(tx, c, opSavedQueryWrite, name, json.RawMessage(`{"deleted":true}`)),
		)
	})
}
