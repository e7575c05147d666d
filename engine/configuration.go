package engine

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// Configuration is an automatic configuration: desired properties that every
// device or module has for which a condition holds, for as long as it holds.
// Fields under "set by the hub" are ignored on input.
type Configuration struct {
	ID              string // at most 128 lower-case letters, digits and -+%_*!'
	SchemaVersion   string // anything; empty: none
	ContentType     string // anything; empty: none
	Labels          map[string]string
	Content         ConfigurationContent
	TargetCondition string // of devices, "from devices.modules where ..." for modules, "*" for all devices; empty: nothing
	Priority        int    // where two set the same path the higher one does, of equal ones the newer
	Metrics         ConfigurationMetrics
	// Rollout says how this revision spreads over the twins that it selects: each
	// keeps what it had until its turn comes. nil: it is applied to all at once.
	Rollout *rollout.Policy

	// Set by the hub.
	RolloutJob string // that spreads the newest revision with a Rollout, until it has completed; empty: none
	// Warnings are what may not be meant in Rollout: of the PutConfiguration that begins it.
	Warnings      []rollout.Fault
	SystemMetrics ConfigurationMetrics
	ETag          string // without quotes
	Revision      uint64 // counts up with each change, from 1
	Principal     string // who made this revision
	Created       time.Time
	Updated       time.Time // when this revision was made
}

// ConfigurationContent is what a configuration sets, in IoT Hub's form: exactly
// one field is there. Each is a JSON object whose keys are properties.desired or
// properties.desired.PATH; of Modules it is one such object for each module.
type ConfigurationContent struct {
	Device  json.RawMessage `json:"deviceContent,omitempty"`
	Module  json.RawMessage `json:"moduleContent,omitempty"`
	Modules json.RawMessage `json:"modulesContent,omitempty"` // of an edge device
}

// PutConfiguration makes a configuration when the condition is absent, and
// changes it otherwise; what it leaves out is taken away. Twins follow at once,
// in the background, or as the rollout says: then a job spreads it, which can be
// paused, resumed and canceled as others, and when it has completed all twins
// follow. One that is canceled or fails leaves the rest with what they had, until
// the next revision, of which a rollout that is under way is canceled. Sent
// without a rollout, the same revision goes to all that are left. A rollout that can't
// be done with as many twins as are selected now is refused, and what may not be meant
// is in Warnings, as of a job. Under the azure limits the content of one that exists stays
// as it is, and another one is ignored, as IoT Hub does. Errors:
// CodeConfigurationAlreadyExists, CodeConfigurationNotFound,
// CodePreconditionFailed, CodeConfigurationCondition, CodeConfigurationContent,
// CodeConfigurationMetrics, CodeTooManyConfigurations. It needs ServiceConnect.
func (h *Hub) PutConfiguration(ctx context.Context, c Caller, g Configuration, m IfMatch) (Configuration, error) {
	if err := h.authorize(ctx, c, opConfigurationWrite, g.ID); err != nil {
		return Configuration{}, err
	}
	if err := h.checkConfiguration(&g); err != nil {
		return Configuration{}, err
	}
	next := configurationRecord{
		Schema: g.SchemaVersion, ContentType: g.ContentType, Labels: g.Labels, Content: g.Content, Condition: g.TargetCondition,
		Priority: g.Priority, Metrics: g.Metrics.Queries, Rollout: g.Rollout,
	}
	warnings, err := h.sizedRollout(ctx, g.ID, &next)
	if err != nil {
		return Configuration{}, err
	}
	var stored configurationRecord
	var former *configurationSpread
	err = h.step(ctx, "configuration.put", func(tx *storage.Tx) (err error) {
		old, err := loadConfiguration(tx, g.ID)
		former = old.Spread
		switch e, is := errors.AsType[*Error](err); {
		case err == nil && !m.Present:
			return errf(CodeConfigurationAlreadyExists, "the configuration %q exists; expected an If-Match header with its ETag to change it", g.ID)
		case err == nil:
			stored, err = h.changeConfigurationTx(tx, c, g.ID, old, next, m)
		case is && e.Code == CodeConfigurationNotFound && !m.Present:
			stored, err = h.createConfigurationTx(tx, c, g.ID, next)
		}
		return err
	})
	if err != nil {
		return Configuration{}, err
	}
	made := h.showConfiguration(ctx, g.ID, &stored)
	if stored.Spread.job() != former.job() {
		made.Warnings = warnings
	}
	return made, nil
}

func (h *Hub) createConfigurationTx(tx *storage.Tx, c Caller, id string, r configurationRecord) (configurationRecord, error) {
	n, err := storage.Counter(tx, counterConfigurations)
	if err != nil {
		return r, err
	}
	if most := int64(h.limits.Configurations); n >= most {
		return r, errf(CodeTooManyConfigurations, "the hub has %d configurations, and the limit is %d", n, most)
	}
	if n == 0 { // nobody followed the changes before, and all that the first one selects is looked for
		_, last, err := changeLog.Bounds(tx)
		if err != nil {
			return r, err
		}
		tx.SetCursor(cursorConfigurations, last)
	}
	tx.Add(counterConfigurations, 1)
	r.Created, r.Revision, r.Effect = tx.Now(), 1, 1
	if err := h.spreadConfigurationTx(tx, c, id, nil, &r); err != nil {
		return r, err
	}
	return h.storeConfigurationTx(tx, c, id, nil, r)
}

// changeConfigurationTx stores what a caller wants a configuration to be, if it
// meets the condition and anything differs.
func (h *Hub) changeConfigurationTx(tx *storage.Tx, c Caller, id string, old, next configurationRecord, m IfMatch) (configurationRecord, error) {
	if !m.matches(old.etag(h.db.Epoch().Ordinal)) {
		return old, errf(CodePreconditionFailed, "the configuration %q has changed; expected the ETag %q", id, old.etag(h.db.Epoch().Ordinal))
	}
	if h.limits.Profile == ProfileAzure {
		next.Content = old.Content
	}
	if next.Content.kind() != old.Content.kind() {
		return old, errf(CodeConfigurationContent, "the content is %s, and that of the configuration is %s; expected the same: make another configuration", next.Content.kind(), old.Content.kind())
	}
	next.Created, next.Revision, next.Effect = old.Created, old.Revision+1, old.Effect
	next.Spread = old.Spread
	if next.same(&old) && !next.goesOn(&old) {
		return old, nil
	}
	if !next.sameEffect(&old) {
		next.Effect = next.Revision
	}
	if err := h.spreadConfigurationTx(tx, c, id, &old, &next); err != nil {
		return old, err
	}
	return h.storeConfigurationTx(tx, c, id, &old, next)
}

// storeConfigurationTx stores a revision, and has the twins follow it.
func (h *Hub) storeConfigurationTx(tx *storage.Tx, c Caller, id string, old *configurationRecord, r configurationRecord) (configurationRecord, error) {
	r.Updated, r.Owner = tx.Now(), configurationOwner{c.Kind, c.Name}
	revision := r
	revision.Spread = nil // it is a matter of now
	bytes, err := storage.Counter(tx, counterConfigurationBytes)
	if err != nil {
		return r, err
	}
	more := r.size()
	if old != nil {
		more -= old.size()
	}
	if most := int64(h.limits.ConfigsBytes); more > 0 && bytes+more > most {
		return r, errf(CodeTooManyConfigurations, "all configurations together would have %d bytes; expected at most %d", bytes+more, most)
	}
	tx.Add(counterConfigurationBytes, more)
	if n, most := r.Revision, uint64(h.limits.ConfigRevisions); n > most {
		if err := configurationRevisionTable.Delete(tx, configurationRevisionKey(id, n-most)); err != nil {
			return r, err
		}
	}
	details, err := configurationDetails(id, r.Revision)
	return r, errors.Join(
		err,
		configurationTable.Put(tx, configurationKey(id), r),
		configurationRevisionTable.Put(tx, configurationRevisionKey(id, r.Revision), revision),
		appendChange(tx, c, changeConfiguration, TwinID{}, int64(r.Revision), details),
		h.auditTx(tx, c, opConfigurationWrite, id, details),
	)
}

func configurationDetails(id string, revision uint64) (json.RawMessage, error) {
	return marshal(struct {
		Configuration string `json:"configuration"`
		Revision      uint64 `json:"revision"`
	}{id, revision})
}

// DeleteConfiguration removes a configuration; an absent condition means any.
// What it has set stays in the twins, where no other one sets it. It needs
// ServiceConnect.
func (h *Hub) DeleteConfiguration(ctx context.Context, c Caller, id string, m IfMatch) error {
	if err := h.authorize(ctx, c, opConfigurationWrite, id); err != nil {
		return err
	}
	return h.step(ctx, "configuration.delete", func(tx *storage.Tx) error {
		old, err := loadConfiguration(tx, id)
		if err != nil {
			return err
		}
		if now := old.etag(h.db.Epoch().Ordinal); !m.matches(now) {
			return errf(CodePreconditionFailed, "the configuration %q has changed; expected the ETag %q", id, now)
		}
		var keys []storage.Key
		for item, err := range configurationRevisionTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id)}) {
			if err != nil {
				return err
			}
			keys = append(keys, slices.Clone(item.Key))
		}
		for _, k := range keys {
			if err := configurationRevisionTable.Delete(tx, k); err != nil {
				return err
			}
		}
		tx.Add(counterConfigurations, -1)
		tx.Add(counterConfigurationBytes, -old.size())
		details, err := configurationDetails(id, old.Revision)
		return errors.Join(
			err,
			h.beginSpreadTx(tx, id, true),
			h.endRolloutTx(tx, c, old.Spread, "the configuration was deleted"),
			configurationTable.Delete(tx, configurationKey(id)),
			appendChange(tx, c, changeConfigDeleted, TwinID{}, int64(old.Revision), details),
			h.auditTx(tx, c, opConfigurationWrite, id, json.RawMessage(`{"deleted":true}`)),
		)
	})
}

// ConfigurationTest says what is wrong with the queries of a configuration.
type ConfigurationTest struct {
	TargetCondition string            // empty: nothing
	Translated      string            // the condition as it would be stored, if it is a bare predicate
	Metrics         map[string]string // by name, of those that are wrong
}
