package engine

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// ConfigurationStatus says what a configuration is to a twin.
type ConfigurationStatus string

// The statuses; the texts are IoT Hub's.
const (
	ConfigurationTargeted ConfigurationStatus = "Targeted" // its condition selects the twin, and others set all that it would
	ConfigurationApplied  ConfigurationStatus = "Applied"  // it sets one path at least
)

// evaluation is what configurations make of a twin.
type evaluation struct {
	id       TwinID
	turn     string // the configuration in whose rollout it is the twin's turn; empty: none
	identity identityRecord
	twin     twinRecord
	before   configuredRecord
	after    configuredRecord
	resolved *resolved
	faults   map[string]string // by configuration: why the twin does not take it
	steps    []configuration.Step
}

func (e *evaluation) changes() bool { return len(e.steps) > 0 || !e.before.equal(&e.after) }

// evaluate says what the configurations of a set make of a twin. An identity that
// there is not is CodeDeviceNotFound or CodeModuleNotFound.
func (h *Hub) evaluate(r storage.Reader, set *configurationSet, id TwinID, now time.Time) (*evaluation, error) {
	return h.evaluateTurn(r, set, id, now, "")
}

// evaluateTurn is evaluate for a twin whose turn it is in the rollout of a
// configuration.
func (h *Hub) evaluateTurn(r storage.Reader, set *configurationSet, id TwinID, now time.Time, turn string) (*evaluation, error) {
	e := &evaluation{id: id, turn: turn}
	var err error
	if e.identity, e.twin, err = h.loadTwin(r, id); err != nil {
		return nil, err
	}
	if e.before, err = getConfigured(r, id); err != nil {
		return nil, err
	}
	plain, layered, err := h.selecting(r, set, e, now)
	if err != nil {
		return nil, err
	}
	h.resolveTwin(set, e, plain, layered, now)
	return e, nil
}

// selecting returns the configurations whose conditions select the twin; layered
// are those for the modules of an edge device.
func (h *Hub) selecting(r storage.Reader, set *configurationSet, e *evaluation, now time.Time) (plain, layered []*setMember, err error) {
	kind := configuration.OfDevice
	if e.id.ModuleID != "" {
		kind = configuration.OfModule
	}
	if len(set.kinds[kind]) > 0 {
		plain = e.matching(set.kinds[kind], set.value(e.id, &e.twin), now)
	}
	if e.id.ModuleID == "" || !set.edge {
		return plain, nil, nil
	}
	device := TwinID{DeviceID: e.id.DeviceID}
	identity, t, err := h.loadTwin(r, device)
	if err != nil || !identity.Edge {
		return plain, nil, err
	}
	return plain, e.matching(set.kinds[configuration.OfModules], set.value(device, &t), now), nil
}

func (e *evaluation) matching(list []*setMember, v query.Value, now time.Time) []*setMember {
	var out []*setMember
	for _, m := range list {
		if m = m.revisionFor(&e.before, e.turn); m == nil {
			continue
		}
		if m.where != nil && m.where.Match(v, now) {
			out = append(out, m)
		}
	}
	return out
}

// value is the part of a twin that conditions may read.
func (s *configurationSet) value(id TwinID, t *twinRecord) query.Value {
	members := append(make([]query.Member, 0, 4), query.Member{Key: "deviceId", Value: query.StringValue(id.DeviceID)})
	if id.ModuleID != "" {
		members = append(members, query.Member{Key: "moduleId", Value: query.StringValue(id.ModuleID)})
	}
	if !s.paths().reads[0].empty() && !t.Tags.Empty() {
		members = append(members, query.Member{Key: "tags", Value: query.TwinValue(t.Tags.View())})
	}
	if !s.paths().reads[1].empty() {
		members = append(members, query.Member{Key: "properties", Value: query.ObjectValue([]query.Member{{Key: "reported", Value: query.TwinValue(t.Reported.View())}})})
	}
	return query.ObjectValue(members)
}

// resolveTwin fills in what the configurations that select a twin make of it.
func (h *Hub) resolveTwin(set *configurationSet, e *evaluation, plain, layered []*setMember, now time.Time) {
	e.resolved = set.resolve(e.id.ModuleID, plain, layered)
	former := e.before.owners()
	refused := map[string]bool{}
	fate := func(o configuration.Owner) configuration.Fate {
		switch {
		case !set.has(o.Configuration, o.Created):
			return configuration.Leave
		case refused[o.Configuration]:
			return configuration.Keep
		}
		return configuration.Remove
	}
	steps, owners := e.resolved.Apply(e.twin.Desired, former, fate)
	if h.tryDesired(e, steps, now) != nil {
		// Those that the twin takes are applied, the strongest first.
		all, faults := e.resolved.Candidates, map[string]string{}
		var taken []configuration.Candidate
		for i := range all {
			trial, _ := configuration.Resolve(append(slices.Clip(taken), all[i])).Apply(e.twin.Desired, former, fate)
			err := h.tryDesired(e, trial, now)
			if err == nil || all[i].Refused != "" {
				taken = append(taken, all[i])
				continue
			}
			c := all[i]
			c.Refused = "the twin does not take it: " + clip(AsError(err).Message)
			faults[c.ID], refused[c.ID] = c.Refused, true
			taken = append(taken, c)
		}
		e.resolved = &resolved{Resolution: configuration.Resolve(taken), members: e.resolved.members}
		e.faults = faults
		steps, owners = e.resolved.Apply(e.twin.Desired, former, fate)
		if h.tryDesired(e, steps, now) != nil { // what is there already is more than it would take
			steps, owners = nil, former
		}
	}
	e.steps = steps
	if e.faults == nil { // as in all twins with these configurations
		e.after = e.resolved.record
		return
	}
	e.after.own(owners)
	for i, m := range e.resolved.members {
		b := configuredBy{m.id, m.record.Created.UnixNano(), m.record.Effect, e.resolved.Applied(i), e.faults[m.id]}
		if b.Fault != "" {
			b.Applied = slices.ContainsFunc(owners, func(o configuration.Owner) bool { return o.Configuration == m.id && o.Created.Equal(m.record.Created) })
		}
		e.after.Has = append(e.after.Has, b)
	}
	slices.SortFunc(e.after.Has, func(a, b configuredBy) int { return cmp.Compare(a.ID, b.ID) })
}

// tryDesired reports why a twin would not take some patches.
func (h *Hub) tryDesired(e *evaluation, steps []configuration.Step, now time.Time) error {
	limits := h.limits.twinLimits(twin.Desired)
	desired := e.twin.Desired
	for _, s := range steps {
		patch, err := twin.ParsePatch(s.Patch, 0)
		if err != nil {
			return twinError(err)
		}
		next, _, err := desired.Merge(patch, now, limits)
		if err != nil {
			return twinError(err)
		}
		if _, err := h.compareDeclared(e.id, desired, next); err != nil {
			return err
		}
		desired = next
	}
	return nil
}

// configureTx brings a twin to what its configurations make of it. Its history
// tells of each change on behalf of which of them it was; the audit tells who made
// the configuration, and not each twin that follows it. It returns what it did, nil
// when there is no such identity.
func (h *Hub) configureTx(tx *storage.Tx, set *configurationSet, id TwinID, turn string) (*evaluation, error) {
	e, err := h.evaluateTurn(tx, set, id, tx.Now(), turn)
	if isGone(err) {
		return nil, nil
	}
	if err != nil || !e.changes() {
		return e, err
	}
	for _, s := range e.steps {
		c := Caller{Cause: configurationCause(s.Configuration)}
		if m := set.member(s.Configuration); m != nil {
			c.Principal = m.record.Owner.principal()
		}
		if _, err := h.applyTwinUpdateTx(tx, c, id, &e.twin, TwinUpdate{Desired: s.Patch}, true); err != nil {
			return e, err
		}
		e.twin.Revision++
		e.twin.Version++
	}
	if len(e.steps) > 0 {
		if err := twinTable.Put(tx, id.key(), e.twin); err != nil {
			return e, err
		}
	}
	return e, h.storeConfiguredTx(tx, set, e)
}

const causeConfiguration = "configuration:"

func configurationCause(id string) string { return causeConfiguration + id }

// storeConfiguredTx stores what a twin has of configurations, where it differs.
func (h *Hub) storeConfiguredTx(tx *storage.Tx, set *configurationSet, e *evaluation) error {
	if e.before.equal(&e.after) {
		return nil
	}
	countConfigured(tx, e.id, &e.before, -1, set.effect)
	countConfigured(tx, e.id, &e.after, 1, set.effect)
	if e.after.empty() {
		if err := configuredTable.Delete(tx, e.id.key()); err != nil {
			return err
		}
	} else if err := configuredTable.Put(tx, e.id.key(), e.after); err != nil {
		return err
	}
	var f rowFields
	if f.configurationChange(&e.before, &e.after); len(f.list) > 0 {
		h.queries.changeTx(tx, e.id, query.Change{Fields: f.list})
	}
	type status struct {
		Status ConfigurationStatus `json:"status"`
		Error  string              `json:"error,omitempty"`
	}
	data := struct {
		Configurations map[string]status `json:"configurations"`
	}{map[string]status{}}
	told := len(f.list) > 0
	for i := range e.after.Has {
		b := &e.after.Has[i]
		data.Configurations[b.ID] = status{b.status(), b.Fault}
		was := e.before.find(b.ID)
		told = told || was == nil || was.Fault != b.Fault
	}
	if !told {
		return nil
	}
	text, err := marshal(data)
	if err != nil {
		return err
	}
	return appendChange(tx, Caller{}, changeConfigured, e.id, 0, json.RawMessage(text))
}

// effect returns the revision that counts of a configuration in a twin; ok is false
// when the twin does not count for it.
func (s *configurationSet) effect(id TwinID, b *configuredBy) (effect uint64, ok bool) {
	m := s.member(b.ID)
	if m == nil {
		return 0, false
	}
	return m.record.effect(id, b)
}

// effect is that of a set, of one configuration. Of an edge device the agent
// counts, and no other module.
func (r *configurationRecord) effect(id TwinID, b *configuredBy) (effect uint64, ok bool) {
	if r.Content.kind() == configuration.OfModules && id.ModuleID != systemModules[0] {
		return 0, false
	}
	return r.Effect, r.Created.UnixNano() == b.Created
}

// countConfigured adds a twin to the counters of its configurations, or takes it
// out.
func countConfigured(tx *storage.Tx, id TwinID, r *configuredRecord, delta int64, effect func(TwinID, *configuredBy) (uint64, bool)) {
	for i := range r.Has {
		b := &r.Has[i]
		switch n, ok := effect(id, b); {
		case !ok || n != b.Effect:
		case b.Fault != "":
			tx.Add(counterConfigurationFailed(b.ID), delta)
		default:
			tx.Add(counterConfigurationSettled(b.ID), delta)
		}
	}
}

// The counters of a configuration's twins: those that have its newest revision,
// and those that don't take it.
func counterConfigurationSettled(id string) string { return "configuration.settled/" + id }
func counterConfigurationFailed(id string) string  { return "configuration.failed/" + id }

// forgetConfiguredTx removes what a deleted identity had of configurations.
func forgetConfiguredTx(tx *storage.Tx, id TwinID) error {
	record, err := getConfigured(tx, id)
	if err != nil || record.empty() {
		return err
	}
	var failed error
	countConfigured(tx, id, &record, -1, func(id TwinID, b *configuredBy) (uint64, bool) {
		g, err := configurationTable.Get(tx, configurationKey(b.ID))
		if err != nil {
			if !errors.Is(err, storage.ErrNotFound) {
				failed = err
			}
			return 0, false
		}
		return g.effect(id, b)
	})
	return errors.Join(failed, configuredTable.Delete(tx, id.key()))
}
