package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// setShape is what a set says, in a form that can be compared.
type setShape struct {
	Members []string
	Kinds   [3][]string
	Edge    bool
	Paths   setPaths
}

func shapeOf(t *testing.T, s *configurationSet) setShape {
	t.Helper()
	shape := setShape{Edge: s.edge}
	numbers := map[int]bool{}
	describe := func(m *setMember) string {
		if numbers[m.number] || m.number >= s.revisions {
			t.Fatalf("the revision %d of %s has the number %d of %d, which another one has", m.record.Revision, m.id, m.number, s.revisions)
		}
		numbers[m.number] = true
		where := ""
		if m.where != nil {
			where = fmt.Sprint(m.where.Paths())
		}
		record, err := json.Marshal(m.record)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s %s %s %v", m.id, record, where, m.content.Settings(""))
	}
	for _, m := range s.list {
		var text strings.Builder
		text.WriteString(describe(m))
		for _, n := range slices.Sorted(maps.Keys(m.former)) {
			text.WriteString(fmt.Sprintf("; former %d: %s", n, describe(m.former[n])))
		}
		shape.Members = append(shape.Members, text.String())
	}
	for kind, list := range s.kinds {
		for _, m := range list {
			shape.Kinds[kind] = append(shape.Kinds[kind], m.id)
		}
	}
	shape.Paths = *s.paths()
	sortNames(&shape.Paths.reads[0])
	sortNames(&shape.Paths.reads[1])
	sortNames(&shape.Paths.sets)
	return shape
}

// sortNames makes a tree independent of the order in which its paths came.
func sortNames(p *pathTree) {
	slices.SortFunc(p.names, slices.Compare)
	for _, below := range p.next {
		sortNames(below)
	}
}

// TestConfigurationSetIsIncremental makes random changes and compares the set that
// follows them with one that is read whole, after each and after many at once.
func TestConfigurationSetIsIncremental(t *testing.T) {
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	<-h.queries.ready
	r := rand.New(rand.NewPCG(31, 32))
	whole := 0
	check := func() {
		t.Helper()
		before := h.configurations.set
		set, err := h.configurationSet(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var fresh *configurationSet
		err = h.view(context.Background(), "test", func(reader storage.Reader) (err error) {
			if _, known, err := setChanges(reader, before.version, set.version); err != nil || !known {
				whole++
			}
			fresh, err = readWholeSet(reader, set.version, newConfigurations().set)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := shapeOf(t, set), shapeOf(t, fresh); !reflect.DeepEqual(got, want) {
			t.Fatalf("version %d is\n%+v\nexpected\n%+v", set.version, got, want)
		}
	}
	change := func() {
		id := fmt.Sprint("g", r.IntN(12))
		old, err := h.Configuration(context.Background(), everything, id)
		exists := err == nil
		if exists && r.IntN(4) == 0 {
			if err := h.DeleteConfiguration(context.Background(), everything, id, IfMatch{}); err != nil {
				t.Fatal(err)
			}
			return
		}
		g := Configuration{ID: id, Priority: r.IntN(3), TargetCondition: fmt.Sprintf("tags.t%d = 1 AND properties.reported.r%d.x > 2", r.IntN(9), r.IntN(5))}
		content := func(path string) []byte { return fmt.Appendf(nil, `{"%s.p%d":{"a":%d}}`, path, r.IntN(6), r.IntN(5)) }
		switch {
		case exists:
			g.Content = old.Content
			if r.IntN(3) > 0 && g.Content.Device != nil {
				g.Content.Device = content("properties.desired")
			}
		case r.IntN(4) == 0:
			g.Content.Module = content("properties.desired")
			g.TargetCondition = "FROM devices.modules WHERE " + g.TargetCondition
		case r.IntN(4) == 0:
			g.Content.Modules = fmt.Appendf(nil, `{"$edgeAgent":{"properties.desired":{"schemaVersion":"1.1"}},"m":%s}`, content("properties.desired"))
		default:
			g.Content.Device = content("properties.desired")
		}
		if exists && g.Content.Module != nil {
			g.TargetCondition = old.TargetCondition
		}
		switch r.IntN(8) {
		case 0:
			g.TargetCondition = ""
		case 1, 2:
			g.Rollout = &rollout.Policy{}
		case 3:
			if exists {
				g.TargetCondition, g.Priority, g.Labels = old.TargetCondition, old.Priority, map[string]string{"n": fmt.Sprint(r.IntN(100))}
			}
		}
		m := IfMatch{}
		if exists {
			m = IfMatch{Present: true, Any: true}
		}
		if _, err := h.PutConfiguration(context.Background(), everything, g, m); err != nil {
			t.Fatal(g, err)
		}
	}
	for range 150 {
		change()
		check()
	}
	if whole > 1 {
		t.Errorf("the set was read whole %d times, expected once", whole)
	}
	for range 6 {
		for range r.IntN(60) {
			change()
		}
		check()
	}
	before := whole
	for range setChangesKept + 20 {
		change()
	}
	check()
	if whole != before+1 {
		t.Error("more changes than are kept were followed")
	}
}
