package engine

import (
	"encoding/base64"
	"errors"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// configurationRecord is a revision of a configuration.
type configurationRecord struct {
	Schema      string               `json:"s,omitempty"`
	ContentType string               `json:"ct,omitempty"`
	Labels      map[string]string    `json:"l,omitempty"`
	Content     ConfigurationContent `json:"t"`
	Condition   string               `json:"w,omitempty"`
	Priority    int                  `json:"p,omitempty"`
	Metrics     map[string]string    `json:"m,omitempty"`
	Rollout     *rollout.Policy      `json:"r,omitempty"`
	Spread      *configurationSpread `json:"sp,omitempty"` // nil: all twins get it, as their turn in the background comes
	Revision    uint64               `json:"n"`
	Effect      uint64               `json:"f"` // the revision since which twins get what they get
	Owner       configurationOwner   `json:"o"`
	Created     time.Time            `json:"c"` // of the configuration
	Updated     time.Time            `json:"u"`
}

// configurationOwner is who made a revision: its effects are written as theirs.
type configurationOwner struct {
	Kind auth.Kind `json:"k"`
	Name string    `json:"n"`
}

func (o configurationOwner) principal() auth.Principal {
	return auth.Principal{Kind: o.Kind, Name: o.Name}
}

var (
	configurationTable         = storage.NewTable("configuration", 1, storage.JSON[configurationRecord]())
	configurationRevisionTable = storage.NewTable("configurationrevision", 1, storage.JSON[configurationRecord]())
)

// Counters of configurations. The set's changes whenever what twins get may
// change: who evaluates twins reads it in the same transaction.
const (
	counterConfigurations     = "configurations"
	counterConfigurationBytes = "configurations.bytes"
	counterConfigurationSet   = "configurations.set"
)

func configurationKey(id string) storage.Key { return storage.Tuple(id) }

func configurationRevisionKey(id string, n uint64) storage.Key { return storage.Tuple(id, n) }

func loadConfiguration(r storage.Reader, id string) (configurationRecord, error) {
	record, err := configurationTable.Get(r, configurationKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeConfigurationNotFound, "there is no configuration %q", clip(id))
	}
	return record, err
}

// etag is in IoT Hub's form, base64.
func (r *configurationRecord) etag(epoch uint32) string {
	return base64.StdEncoding.EncodeToString([]byte(savedETag(epoch, r.Created, r.Revision)))
}

// size is what a configuration counts against the bytes of all.
func (r *configurationRecord) size() int64 {
	n := len(r.Content.Device) + len(r.Content.Module) + len(r.Content.Modules) + len(r.Condition)
	for name, text := range r.Metrics {
		n += len(name) + len(text)
	}
	return int64(n)
}

// sameEffect reports whether twins get the same from both.
func (r *configurationRecord) sameEffect(o *configurationRecord) bool {
	return r.Content.equal(o.Content) && r.Condition == o.Condition && r.Priority == o.Priority
}

func (r *configurationRecord) same(o *configurationRecord) bool {
	return r.sameEffect(o) && reflect.DeepEqual(r.Rollout, o.Rollout) && r.Schema == o.Schema && r.ContentType == o.ContentType && maps.Equal(r.Labels, o.Labels) && maps.Equal(r.Metrics, o.Metrics)
}

func (c ConfigurationContent) equal(o ConfigurationContent) bool {
	return slices.Equal(c.Device, o.Device) && slices.Equal(c.Module, o.Module) && slices.Equal(c.Modules, o.Modules)
}

// kind returns whose the content is; it has been checked.
func (c ConfigurationContent) kind() configuration.Kind {
	switch {
	case c.Modules != nil:
		return configuration.OfModules
	case c.Module != nil:
		return configuration.OfModule
	}
	return configuration.OfDevice
}

// show returns the record as callers see it, without results.
func (r *configurationRecord) show(epoch uint32, id string) Configuration {
	return Configuration{
		ID: id, SchemaVersion: r.Schema, ContentType: r.ContentType, Labels: r.Labels, Content: r.Content, TargetCondition: r.Condition, Priority: r.Priority,
		Metrics: ConfigurationMetrics{Queries: r.Metrics}, SystemMetrics: ConfigurationMetrics{Queries: systemMetrics(id, r)}, Rollout: r.Rollout, RolloutJob: r.Spread.job(),
		ETag: r.etag(epoch), Revision: r.Revision, Principal: r.Owner.principal().String(), Created: r.Created.UTC(), Updated: r.Updated.UTC(),
	}
}
