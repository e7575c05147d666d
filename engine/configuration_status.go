package engine

import (
	"slices"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// configured returns what a twin has of configurations. It costs nothing while
// there were never any.
func (h *Hub) configured(r storage.Reader, id TwinID) (configuredRecord, error) {
	if !h.configurations.used.Load() {
		return configuredRecord{}, nil
	}
	return getConfigured(r, id)
}

// statuses are the record's configurations as a twin shows them; nil: it shows none.
func (r *configuredRecord) statuses() map[string]ConfigurationStatus {
	if len(r.Has) == 0 {
		return nil
	}
	m := make(map[string]ConfigurationStatus, len(r.Has))
	for i := range r.Has {
		m[r.Has[i].ID] = r.Has[i].status()
	}
	return m
}

func (b *configuredBy) value() query.Value {
	return query.ObjectValue([]query.Member{{Key: "status", Value: query.StringValue(string(b.status()))}})
}

// configurations adds what the row has of configurations, if anything.
func (f *rowFields) configurations(r *configuredRecord) {
	if len(r.Has) == 0 {
		return
	}
	members := make([]query.Member, len(r.Has))
	for i := range r.Has {
		members[i] = query.Member{Key: r.Has[i].ID, Value: r.Has[i].value()}
	}
	f.add(rowPaths.configurations, query.ObjectValue(members))
}

// configurationChange adds what differs.
func (f *rowFields) configurationChange(before, after *configuredRecord) {
	if len(after.Has) == 0 {
		if len(before.Has) > 0 {
			f.add(rowPaths.configurations, query.Value{})
		}
		return
	}
	path := func(id string) query.Path { return append(slices.Clip(rowPaths.configurations), id) }
	for i := range before.Has {
		if id := before.Has[i].ID; after.find(id) == nil {
			f.add(path(id), query.Value{})
		}
	}
	for i := range after.Has {
		b := &after.Has[i]
		if was := before.find(b.ID); was == nil || was.Applied != b.Applied {
			f.add(path(b.ID), b.value())
		}
	}
}
