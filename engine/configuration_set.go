package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// configurations is what the hub keeps of configurations while it runs.
type configurations struct {
	used    atomic.Bool // there are some, or were: twins may have something of them
	mu      sync.Mutex
	changed chan struct{} // closed when one was stored or deleted
	set     *configurationSet
}

func newConfigurations() *configurations {
	return &configurations{changed: make(chan struct{}), set: &configurationSet{version: -1, paths: func() *setPaths { return &setPaths{} }}}
}

// openConfigurations finds out whether there is anything to do with them.
func (h *Hub) openConfigurations(ctx context.Context) error {
	return h.view(ctx, "read configurations", func(r storage.Reader) error {
		for _, err := range configurationTable.Scan(r, storage.Range{}) {
			h.configurations.used.Store(true)
			return err
		}
		for _, err := range configuredTable.Scan(r, storage.Range{}) {
			h.configurations.used.Store(true)
			return err
		}
		return nil
	})
}

// stored wakes who follows configurations. It runs when the change is visible.
func (c *configurations) stored() {
	c.used.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *configurations) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// configurationChangeTable: (counterConfigurationSet after the change), the id of
// the configuration that changed. The newest are kept.
var configurationChangeTable = storage.NewTable("configurationchange", 1, storage.JSON[string]())

const setChangesKept = 256

// configurationSet is all configurations at one moment, ready to be evaluated. It
// is immutable but for what it remembers of earlier evaluations, and safe for
// concurrent use.
type configurationSet struct {
	version   int64            // of counterConfigurationSet
	list      []*setMember     // by id
	revisions int              // numbers that were given to revisions
	edge      bool             // some are of modules of edge devices
	kinds     [3][]*setMember  // by kind of content
	memory    resolutionMemory // of candidates
	paths     func() *setPaths // made when it is asked for: many sets are never
}

// setPaths are the paths that matter to a set.
type setPaths struct {
	reads [2]pathTree // what conditions read, of tags and of reported properties
	sets  pathTree    // what is set
}

// setMember is a configuration of a set.
type setMember struct {
	id      string
	number  int // of the revision, in this set and those that come of it
	record  configurationRecord
	content *configuration.Content
	where   *query.Predicate // nil: it selects nothing
	// While it spreads by a rollout: what twins have whose turn has not come, by
	// the revision.
	former map[uint64]*setMember
}

// configurationSet returns the set as it is now.
func (h *Hub) configurationSet(ctx context.Context) (*configurationSet, error) {
	var set *configurationSet
	err := h.view(ctx, "read configurations", func(r storage.Reader) (err error) {
		set, err = h.configurationSetAt(r)
		return err
	})
	return set, err
}

// configurationSetAt returns the set as a reader sees it. What has not changed
// since it was read last is not read again.
func (h *Hub) configurationSetAt(r storage.Reader) (*configurationSet, error) {
	version, err := storage.Counter(r, counterConfigurationSet)
	if err != nil {
		return nil, err
	}
	h.configurations.mu.Lock()
	before := h.configurations.set
	h.configurations.mu.Unlock()
	if before.version == version {
		return before, nil
	}
	set, err := readConfigurationSet(r, version, before)
	if err != nil {
		return nil, err
	}
	h.configurations.mu.Lock()
	defer h.configurations.mu.Unlock()
	if h.configurations.set.version < version {
		h.configurations.set = set
	}
	return set, nil
}

// readConfigurationSet reads a set: of the one before only what has changed since,
// if that is known.
func readConfigurationSet(r storage.Reader, version int64, before *configurationSet) (*configurationSet, error) {
	ids, known, err := setChanges(r, before.version, version)
	if err != nil {
		return nil, err
	}
	if !known {
		return readWholeSet(r, version, before)
	}
	set := &configurationSet{version: version, list: slices.Clone(before.list), revisions: before.revisions}
	for _, id := range ids {
		at, found := slices.BinarySearchFunc(set.list, id, compareMember)
		var old *setMember
		if found {
			old = set.list[at]
			set.list = slices.Delete(set.list, at, at+1)
		}
		record, err := configurationTable.Get(r, configurationKey(id))
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m, err := set.read(r, id, record, old)
		if err != nil {
			return nil, err
		}
		set.list = slices.Insert(set.list, at, m)
	}
	set.arrange()
	return set, nil
}

// setChanges returns the configurations that changed between two versions of the
// set, each once; known is false when that is not kept.
func setChanges(r storage.Reader, from, to int64) (ids []string, known bool, err error) {
	if from < 0 || to-from > setChangesKept {
		return nil, false, nil
	}
	for n := from + 1; n <= to; n++ {
		id, err := configurationChangeTable.Get(r, storage.Tuple(n))
		if errors.Is(err, storage.ErrNotFound) {
			return nil, false, nil // a hub that kept none stored it
		}
		if err != nil {
			return nil, false, err
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, true, nil
}

func readWholeSet(r storage.Reader, version int64, before *configurationSet) (*configurationSet, error) {
	set := &configurationSet{version: version}
	for item, err := range configurationTable.Scan(r, storage.Range{}) {
		if err != nil {
			return nil, err
		}
		id, err := configurationOfKey(item.Key)
		if err != nil {
			return nil, err
		}
		m, err := set.read(r, id, item.Value, before.member(id))
		if err != nil {
			return nil, err
		}
		set.list = append(set.list, m)
	}
	set.arrange()
	return set, nil
}

// read makes a member of a record, with the revisions that it still has, and gives
// each its number.
func (s *configurationSet) read(r storage.Reader, id string, record configurationRecord, known *setMember) (*setMember, error) {
	m, err := newSetMember(id, record, known)
	if err != nil {
		return nil, err
	}
	if err := m.readFormer(r, known); err != nil {
		return nil, err
	}
	for revision := range m.all() {
		revision.number = s.revisions
		s.revisions++
	}
	return m, nil
}

// all are the revisions of a configuration that twins may have.
func (m *setMember) all() iter.Seq[*setMember] {
	return func(yield func(*setMember) bool) {
		if !yield(m) {
			return
		}
		for _, n := range slices.Sorted(maps.Keys(m.former)) {
			if !yield(m.former[n]) {
				return
			}
		}
	}
}

// newSetMember compiles a configuration, unless it was compiled before. What is
// stored was checked under the limits of then: those of now don't count.
func newSetMember(id string, r configurationRecord, before *setMember) (*setMember, error) {
	m := &setMember{id: id, record: r}
	if before != nil && before.record.Created.Equal(r.Created) && before.record.Effect == r.Effect {
		m.content, m.where = before.content, before.where
		return m, nil
	}
	var err error
	if m.content, err = configuration.Parse(configuration.Raw{Device: r.Content.Device, Module: r.Content.Module, Modules: r.Content.Modules}, twin.Limits{}); err != nil {
		return nil, wrapf(CodeInternal, err, "the stored configuration %q can't be read: %v", id, err)
	}
	if strings.TrimSpace(r.Condition) == "" {
		return m, nil
	}
	source := query.Devices
	if m.content.Kind() == configuration.OfModule {
		source = query.Modules
	}
	q, err := query.ParseTarget(source, r.Condition, query.Options{})
	if err != nil {
		return nil, wrapf(CodeInternal, err, "the condition of the stored configuration %q can't be read: %v", id, err)
	}
	m.where = q.Predicate()
	return m, nil
}

// arrange makes what follows from the list.
func (s *configurationSet) arrange() {
	for _, m := range s.list {
		kind := m.content.Kind()
		s.kinds[kind] = append(s.kinds[kind], m)
		s.edge = s.edge || kind == configuration.OfModules
	}
	list := s.list
	s.paths = sync.OnceValue(func() *setPaths {
		p := &setPaths{}
		for _, m := range list {
			for revision := range m.all() {
				p.notice(revision)
			}
		}
		return p
	})
}

// notice remembers what a revision reads and sets.
func (p *setPaths) notice(m *setMember) {
	if m.where != nil {
		for _, path := range m.where.Paths() {
			switch path[0] {
			case "tags":
				p.reads[0].add(path[1:])
			case "properties":
				p.reads[1].add(path[2:])
			}
		}
	}
	modules := m.content.Modules()
	if m.content.Kind() != configuration.OfModules {
		modules = []string{""}
	}
	for _, module := range modules {
		for _, setting := range m.content.Settings(module) {
			p.sets.add(strings.Split(setting.Path, "."))
		}
	}
}

func compareMember(m *setMember, id string) int { return strings.Compare(m.id, id) }

// member returns a configuration of the set; nil: it has none of that id.
func (s *configurationSet) member(id string) *setMember {
	i, ok := slices.BinarySearchFunc(s.list, id, compareMember)
	if !ok {
		return nil
	}
	return s.list[i]
}

// has reports whether a configuration is still the one that was created then.
func (s *configurationSet) has(id string, created time.Time) bool {
	m := s.member(id)
	return m != nil && m.record.Created.Equal(created)
}

// pathTree is a set of paths. The zero tree is empty.
type pathTree struct {
	end   bool // of a path; what is below it counts, too
	next  map[string]*pathTree
	names [][]byte // of next in JSON, while they are few
}

// namesMost is how many names a patch is searched for before it is read.
const namesMost = 16

func (t *pathTree) add(path []string) {
	for _, key := range path {
		if t.end {
			return
		}
		if t.next == nil {
			t.next = map[string]*pathTree{}
		}
		below := t.next[key]
		if below == nil {
			below = &pathTree{}
			t.next[key] = below
			t.names = append(t.names, twin.AppendString(nil, key))
		}
		t = below
	}
	t.end, t.next, t.names = true, nil, nil
}

func (t *pathTree) empty() bool { return !t.end && len(t.next) == 0 }

// touched reports whether a merge patch changes something at, above or below one
// of the paths.
func (t *pathTree) touched(patch twin.View) bool {
	if t.end {
		return true
	}
	for i := range patch.Len() {
		key, v := patch.At(i)
		if below := t.next[key]; below != nil && (v.Form() != '{' || below.touched(v)) {
			return true
		}
	}
	return false
}

// resolutionMemory remembers what was resolved: most twins have the candidates
// that another one had.
type resolutionMemory struct {
	mu    sync.Mutex
	known map[string]*resolved
	cost  int
}

// resolved is a resolution with the configurations behind its candidates.
type resolved struct {
	*configuration.Resolution
	members []*setMember     // by candidate
	record  configuredRecord // of a twin that takes all
}

const resolutionsMost = 200_000 // settings that are remembered

// resolve returns the resolution of some configurations of the set for a twin.
// module is the module's id, empty for a device; layered holds those for modules of
// an edge device.
func (s *configurationSet) resolve(module string, plain, layered []*setMember) *resolved {
	key := make([]byte, 0, 64)
	for _, m := range plain {
		key = binary.AppendUvarint(key, uint64(m.number)+1)
	}
	if len(layered) > 0 {
		key = append(key, 0)
		for _, m := range layered {
			key = binary.AppendUvarint(key, uint64(m.number)+1)
		}
		key = append(append(key, 0), module...)
	}
	s.memory.mu.Lock()
	known := s.memory.known[string(key)]
	s.memory.mu.Unlock()
	if known != nil {
		return known
	}
	made := makeResolved(module, plain, layered)
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	cost := len(made.Won) + len(made.Lost) + 10
	if s.memory.known == nil || s.memory.cost+cost > resolutionsMost {
		s.memory.known, s.memory.cost = map[string]*resolved{}, 0
	}
	s.memory.known[string(key)] = made
	s.memory.cost += cost
	return made
}

func makeResolved(module string, plain, layered []*setMember) *resolved {
	var list []configuration.Candidate
	members := map[string]*setMember{}
	for _, m := range slices.Concat(plain, layered) {
		members[m.id] = m
	}
	for _, m := range plain {
		list = append(list, m.candidate(""))
	}
	var edge []configuration.EdgeCandidate
	for _, m := range layered {
		edge = append(edge, configuration.EdgeCandidate{Candidate: m.candidate(module), Content: m.content})
	}
	for _, c := range configuration.Layers(edge) {
		if len(c.Settings) > 0 || members[c.ID].content.Names(module) {
			list = append(list, c)
		}
	}
	out := &resolved{Resolution: configuration.Resolve(list)}
	for i, c := range out.Candidates {
		m := members[c.ID]
		out.members = append(out.members, m)
		out.record.Has = append(out.record.Has, configuredBy{m.id, m.record.Created.UnixNano(), m.record.Effect, out.Applied(i), ""})
	}
	slices.SortFunc(out.record.Has, func(a, b configuredBy) int { return strings.Compare(a.ID, b.ID) })
	out.record.own(out.Owners())
	return out
}

func (m *setMember) candidate(module string) configuration.Candidate {
	return configuration.Candidate{ID: m.id, Priority: m.record.Priority, Created: m.record.Created, Settings: m.content.Settings(module)}
}
