package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/engine/schema"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// SchemaMode says what becomes of a change that a declared schema does not allow.
type SchemaMode string

// The modes.
const (
	SchemaWarn   SchemaMode = "warn"   // it is stored, counted, logged and told as an event
	SchemaReject SchemaMode = "reject" // it is refused, and counted
)

// DeclaredSchema is what devices' twins should look like: a JSON Schema for
// each section, nil where anything goes. Twins of modules are not checked.
type DeclaredSchema struct {
	Tags     json.RawMessage
	Desired  json.RawMessage // without $version and $metadata, as Reported
	Reported json.RawMessage
	Mode     SchemaMode // empty: SchemaWarn
	Version  uint64
	ETag     string // without quotes
	Created  time.Time
	Updated  time.Time
	// Violations are those counted since the hub's start or the schema's last
	// change, the most frequent first.
	Violations []SchemaViolation
}

type declaredRecord struct {
	Tags     json.RawMessage `json:"t,omitempty"`
	Desired  json.RawMessage `json:"d,omitempty"`
	Reported json.RawMessage `json:"r,omitempty"`
	Mode     SchemaMode      `json:"m"`
	Version  uint64          `json:"n"`
	Created  time.Time       `json:"c"`
	Updated  time.Time       `json:"u"`
}

var declaredTable = storage.NewTable("schema", 1, storage.JSON[declaredRecord]())

func declaredKey() storage.Key { return storage.Tuple("declared") }

// declaredSections are the sections with their schemas, in order.
func (r *declaredRecord) sections() []declaredSection {
	return []declaredSection{{twin.Tags, r.Tags}, {twin.Desired, r.Desired}, {twin.Reported, r.Reported}}
}

type declaredSection struct {
	kind twin.Kind
	text json.RawMessage
}

// compiledSchemas are the declared schemas in force.
type compiledSchemas struct {
	mode     SchemaMode
	sections map[twin.Kind]*schema.Schema
}

func (h *Hub) compileSchemas(r *declaredRecord) (*compiledSchemas, error) {
	c := &compiledSchemas{mode: r.Mode, sections: map[twin.Kind]*schema.Schema{}}
	for _, s := range r.sections() {
		if s.text == nil {
			continue
		}
		if len(s.text) > h.limits.SchemaBytes {
			return nil, errf(CodeArgumentInvalid, "the schema of %s has %d bytes; expected at most %d", s.kind, len(s.text), h.limits.SchemaBytes)
		}
		compiled, err := schema.Compile(s.text, h.limits.TwinDepth+1)
		if err != nil {
			return nil, wrapf(CodeArgumentInvalid, err, "the schema of %s is not right: %v", s.kind, err)
		}
		c.sections[s.kind] = compiled
	}
	return c, nil
}

// openDeclared takes the schema into force that was declared before. One that
// can no longer be read leaves twins unchecked: it must not keep the hub down.
func (h *Hub) openDeclared(ctx context.Context) error {
	return h.view(ctx, "read the declared schema", func(r storage.Reader) error {
		record, err := declaredTable.Get(r, declaredKey())
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		compiled, err := h.compileSchemas(&record)
		if err != nil {
			h.log.Error("the declared schema can't be used, twins are not checked; declare it anew", slog.Any("error", err))
			return nil
		}
		h.declared.use(compiled)
		return nil
	})
}

// DeclaredSchema returns the declared schema; CodeSchemaNotFound when there is
// none. It needs ServiceConnect.
func (h *Hub) DeclaredSchema(ctx context.Context, c Caller) (DeclaredSchema, error) {
	if err := h.authorize(ctx, c, opSchemaRead, "declared"); err != nil {
		return DeclaredSchema{}, err
	}
	var record declaredRecord
	err := h.view(ctx, "read the declared schema", func(r storage.Reader) (err error) {
		record, err = getDeclared(r)
		return err
	})
	if err != nil {
		return DeclaredSchema{}, err
	}
	return h.showDeclared(record), nil
}

func getDeclared(r storage.Reader) (declaredRecord, error) {
	record, err := declaredTable.Get(r, declaredKey())
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeSchemaNotFound, "no schema is declared for twins")
	}
	return record, err
}

func (h *Hub) showDeclared(r declaredRecord) DeclaredSchema {
	return DeclaredSchema{
		Tags: r.Tags, Desired: r.Desired, Reported: r.Reported, Mode: r.Mode, Version: r.Version,
		ETag: savedETag(h.db.Epoch().Ordinal, r.Created, r.Version), Created: r.Created.UTC(), Updated: r.Updated.UTC(),
		Violations: h.declared.list(),
	}
}

// DeclareSchema puts a schema into force. Changes that begin after it returns
// are checked against it; twins that there are, are not. etag is empty, "*" when
// one must be there, or the one that it must have. It needs HubManage.
func (h *Hub) DeclareSchema(ctx context.Context, c Caller, d DeclaredSchema, etag string) (DeclaredSchema, error) {
	if err := h.authorize(ctx, c, opSchemaWrite, "declared"); err != nil {
		return DeclaredSchema{}, err
	}
	next := declaredRecord{Tags: d.Tags, Desired: d.Desired, Reported: d.Reported, Mode: d.Mode}
	switch next.Mode {
	case "":
		next.Mode = SchemaWarn
	case SchemaWarn, SchemaReject:
	default:
		return DeclaredSchema{}, errf(CodeArgumentInvalid, "mode %.20q is not known; expected %s or %s", string(next.Mode), SchemaWarn, SchemaReject)
	}
	if next.Tags == nil && next.Desired == nil && next.Reported == nil {
		return DeclaredSchema{}, errf(CodeArgumentNull, "there is no schema; expected one of tags, desired and reported")
	}
	for _, text := range []*json.RawMessage{&next.Tags, &next.Desired, &next.Reported} {
		var b bytes.Buffer
		if *text != nil && json.Compact(&b, *text) == nil {
			*text = b.Bytes()
		}
	}
	compiled, err := h.compileSchemas(&next)
	if err != nil {
		return DeclaredSchema{}, err
	}
	err = h.update(ctx, "declare schema", func(tx *storage.Tx) error {
		old, err := getDeclared(tx)
		switch {
		case err == nil:
			if err := checkSavedETag(etag, savedETag(h.db.Epoch().Ordinal, old.Created, old.Version), "the declared schema"); err != nil {
				return err
			}
			next.Created = old.Created
		case AsError(err).Code == CodeSchemaNotFound && etag == "":
			next.Created = tx.Now()
		default:
			return err
		}
		next.Version, next.Updated = old.Version+1, tx.Now()
		tx.OnCommit(func(uint64) { h.declared.use(compiled) })
		return errors.Join(declaredTable.Put(tx, declaredKey(), next), h.toldDeclaredTx(tx, c, next.Version, next.Mode))
	})
	if err != nil {
		return DeclaredSchema{}, err
	}
	return h.showDeclared(next), nil
}

// toldDeclaredTx writes the event and the audit of a change of the schema; mode
// is empty when it is no longer in force.
func (h *Hub) toldDeclaredTx(tx *storage.Tx, c Caller, version uint64, mode SchemaMode) error {
	kind := changeSchemaDeclared
	if mode == "" {
		kind = changeSchemaDropped
	}
	details, err := marshal(struct {
		Version uint64     `json:"version"`
		Mode    SchemaMode `json:"mode,omitempty"`
	}{version, mode})
	return errors.Join(err, appendChange(tx, c, kind, TwinID{}, int64(version), details), h.auditTx(tx, c, opSchemaWrite, "declared", details))
}

// DropDeclaredSchema ends the checks of twins. etag is as in DeclareSchema. It
// needs HubManage.
func (h *Hub) DropDeclaredSchema(ctx context.Context, c Caller, etag string) error {
	if err := h.authorize(ctx, c, opSchemaWrite, "declared"); err != nil {
		return err
	}
	return h.update(ctx, "drop the declared schema", func(tx *storage.Tx) error {
		old, err := getDeclared(tx)
		if err != nil {
			return err
		}
		if err := checkSavedETag(etag, savedETag(h.db.Epoch().Ordinal, old.Created, old.Version), "the declared schema"); err != nil {
			return err
		}
		tx.OnCommit(func(uint64) { h.declared.use(nil) })
		return errors.Join(declaredTable.Delete(tx, declaredKey()), h.toldDeclaredTx(tx, c, old.Version, ""))
	})
}
