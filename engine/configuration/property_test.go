package configuration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// cases is how many random ones each property is tried on: nothing here is
// concurrent, so that the race detector gets a few only and CI runs all without.
func cases() int {
	if raceDetector {
		return 4000
	}
	return 100_000
}

// naive is a slow evaluator that shares nothing with Resolve and Apply: documents
// are maps, paths lists of keys, and every setting is compared with every other.
type naive struct {
	id       string
	priority int
	created  time.Time
	content  map[string]any // a merge patch
}

type naiveSetting struct {
	of    *naive
	path  []string
	value any // nil: nothing; an empty map: an object
}

func (s naiveSetting) dotted() string { return strings.Join(s.path, ".") }

func naiveSettings(of *naive, path []string, v any) []naiveSetting {
	if m, ok := v.(map[string]any); ok && (len(m) > 0 || len(path) == 0) {
		var list []naiveSetting
		for key, v := range m {
			list = append(list, naiveSettings(of, append(slices.Clone(path), key), v)...)
		}
		return list
	}
	return []naiveSetting{{of, path, v}}
}

func isObject(v any) bool { _, ok := v.(map[string]any); return ok }

func naiveConflict(a, b naiveSetting) bool {
	for i := range min(len(a.path), len(b.path)) {
		if a.path[i] != b.path[i] {
			return false
		}
	}
	switch {
	case len(a.path) < len(b.path):
		return !isObject(a.value)
	case len(b.path) < len(a.path):
		return !isObject(b.value)
	}
	return true
}

// beats orders configurations: by priority, then age, then id.
func (n *naive) beats(o *naive) bool {
	switch {
	case n.priority != o.priority:
		return n.priority > o.priority
	case !n.created.Equal(o.created):
		return n.created.After(o.created)
	}
	return n.id < o.id
}

// resolve tells for each setting by whom it is beaten; nil: by none.
func naiveResolve(list []*naive) map[*naive]map[string]*naive {
	var all []naiveSetting
	for _, n := range list {
		all = append(all, naiveSettings(n, nil, n.content)...)
	}
	var loses func(s naiveSetting) *naive
	loses = func(s naiveSetting) *naive {
		var by *naive
		for _, o := range all {
			if o.of != s.of && o.of.beats(s.of) && naiveConflict(o, s) && loses(o) == nil && (by == nil || o.of.beats(by)) {
				by = o.of
			}
		}
		return by
	}
	out := map[*naive]map[string]*naive{}
	for _, n := range list {
		out[n] = map[string]*naive{}
	}
	for _, s := range all {
		out[s.of][s.dotted()] = loses(s)
	}
	return out
}

// naiveApply puts what wins into a document.
func naiveApply(doc map[string]any, list []*naive, lost map[*naive]map[string]*naive) {
	var won []naiveSetting
	for _, n := range list {
		for _, s := range naiveSettings(n, nil, n.content) {
			if lost[n][s.dotted()] == nil {
				won = append(won, s)
			}
		}
	}
	for _, s := range won { // first what goes
		if s.value != nil {
			continue
		}
		at := doc
		for _, key := range s.path[:len(s.path)-1] {
			at, _ = at[key].(map[string]any)
		}
		delete(at, s.path[len(s.path)-1])
	}
	for _, s := range won {
		if s.value == nil {
			continue
		}
		at := doc
		for _, key := range s.path[:len(s.path)-1] {
			next, ok := at[key].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[key] = next
			}
			at = next
		}
		last := s.path[len(s.path)-1]
		if isObject(s.value) {
			if !isObject(at[last]) {
				at[last] = map[string]any{}
			}
			continue
		}
		at[last] = s.value
	}
}

var names = []string{"a", "b", "c", "a-b"} // '-' sorts before '.'

// What is more than a few members is looked up in another way.
func TestWideObjects(t *testing.T) {
	for _, width := range []int{wideObject - 1, wideObject, 3000} {
		content := map[string]any{}
		for i := range width {
			content[fmt.Sprint("k", i)] = map[string]any{"v": json.Number(strconv.Itoa(i))}
		}
		n := &naive{id: "c", content: map[string]any{"wide": content, "w": json.Number("1")}}
		w := twinOf{desired: section(t, map[string]any{"w": "x", "wide": map[string]any{"own": "y", "k5": json.Number("3")}})}
		r := Resolve([]Candidate{n.candidate(t)})
		w.apply(t, r, present)
		if steps, _ := r.Apply(w.desired, w.owners, present); len(steps) > 0 {
			t.Errorf("%d: it is changed again: %s", width, steps[0].Patch)
		}
		if v, _ := w.desired.Get("wide.k7.v"); string(v) != "7" {
			t.Errorf("%d: k7 is %s", width, v)
		}
		w.apply(t, Resolve(nil), present)
		if got := string(w.desired.Plain(nil)); got != `{"wide":{"own":"y"}}` {
			t.Errorf("%d: left is %s", width, got)
		}
	}
}

// randomValue is part of a content; null and empty objects included.
func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(10); {
	case n < 5 && depth < 3:
		m := map[string]any{}
		for range r.IntN(3) {
			m[names[r.IntN(len(names))]] = randomValue(r, depth+1)
		}
		return m
	case n == 5:
		return nil
	case n == 6:
		return []any{json.Number(strconv.Itoa(r.IntN(2))), "x"}
	case n == 7:
		return "t" + strconv.Itoa(r.IntN(2))
	default:
		return json.Number(strconv.Itoa(r.IntN(3)))
	}
}

func randomContent(r *rand.Rand) map[string]any {
	m := map[string]any{}
	for range 1 + r.IntN(2) {
		m[names[r.IntN(len(names))]] = randomValue(r, 1)
	}
	return m
}

func randomNaive(r *rand.Rand, i int) *naive {
	return &naive{id: fmt.Sprintf("c%d", i), priority: r.IntN(3), created: noon.Add(time.Duration(r.IntN(3)) * time.Second), content: randomContent(r)}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t *testing.T, b []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	m := map[string]any{}
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

func (n *naive) candidate(t *testing.T) Candidate {
	t.Helper()
	p, err := twin.ParsePatch(encode(t, n.content), 0)
	if err != nil {
		t.Fatalf("%s: %v", encode(t, n.content), err)
	}
	list := flatten(nil, "", p.View())
	slices.SortFunc(list, func(a, b Setting) int { return strings.Compare(a.Path, b.Path) })
	return Candidate{ID: n.id, Priority: n.priority, Created: n.created, Settings: list}
}

func section(t *testing.T, doc map[string]any) *twin.Section {
	t.Helper()
	return merge(t, twin.New(twin.Desired), encode(t, doc))
}

func merge(t *testing.T, s *twin.Section, text []byte) *twin.Section {
	t.Helper()
	p, err := twin.ParsePatch(text, 0)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	next, _, err := s.Merge(p, noon, twin.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return next
}

func present(Owner) Fate { return Remove }

// twinOf is a twin with who owns its paths.
type twinOf struct {
	desired *twin.Section
	owners  []Owner
}

func (w *twinOf) apply(t *testing.T, r *Resolution, fate func(Owner) Fate) []Step {
	t.Helper()
	steps, owners := r.Apply(w.desired, w.owners, fate)
	for _, s := range steps {
		w.desired = merge(t, w.desired, s.Patch)
	}
	w.owners = owners
	return steps
}

// What wins, what loses to whom, which configuration is applied, and what the twin
// holds afterwards are those of the naive evaluator; what is told of each path is
// what the twin holds; and a second time nothing changes.
func TestResolutionIsThatOfANaiveEvaluator(t *testing.T) {
	t.Parallel()
	var wins, losses int
	for seed := range uint64(cases()) {
		r := rand.New(rand.NewPCG(seed, 1))
		list := make([]*naive, r.IntN(5))
		candidates := make([]Candidate, len(list))
		byID := map[string]*naive{}
		for i := range list {
			list[i] = randomNaive(r, i)
			candidates[i] = list[i].candidate(t)
			byID[list[i].id] = list[i]
		}
		base := map[string]any{}
		if r.IntN(4) > 0 {
			base = randomContent(r)
		}
		w := twinOf{desired: section(t, base)}
		doc := decode(t, w.desired.Plain(nil))
		text := func() string {
			var b strings.Builder
			for _, n := range list {
				fmt.Fprintf(&b, "\n%s priority %d %s: %s", n.id, n.priority, n.created.Format("05"), encode(t, n.content))
			}
			return fmt.Sprintf("seed %d: %s on %s", seed, b.String(), encode(t, base))
		}

		lost := naiveResolve(list)
		naiveApply(doc, list, lost)
		res := Resolve(candidates)
		w.apply(t, res, present)
		if got := decode(t, w.desired.Plain(nil)); !reflect.DeepEqual(got, doc) {
			t.Fatalf("%s\nmakes %s, expected %s", text(), encode(t, got), encode(t, doc))
		}
		if steps, _ := res.Apply(w.desired, w.owners, present); len(steps) > 0 {
			t.Fatalf("%s\nis changed again by %s", text(), steps[0].Patch)
		}
		applied := map[string]bool{}
		told := 0
		for _, won := range res.Won {
			by := byID[res.Candidates[won.By].ID]
			if beaten, ok := lost[by][won.Path]; !ok || beaten != nil {
				t.Fatalf("%s\n%s of %s wins, expected that it does not", text(), won.Path, by.id)
			}
			value, ok := w.desired.Get(won.Path)
			if ok == won.IsNothing() || ok && won.Value != anyObject && string(value) != won.Value || won.Value == anyObject && (!ok || value[0] != '{') {
				t.Fatalf("%s\n%s of %s is told to be %s, and is %s", text(), won.Path, by.id, won.Value, value)
			}
			applied[by.id] = true
			told++
			wins++
		}
		for _, l := range res.Lost {
			of, winner := byID[res.Candidates[l.Of].ID], res.Candidates[res.Won[l.Winner].By].ID
			if by := lost[of][l.Path]; by == nil || by.id != winner {
				t.Fatalf("%s\n%s of %s loses to %s, expected %v", text(), l.Path, of.id, winner, by)
			}
			if !strings.HasPrefix(res.Reason(l), winner+" sets ") {
				t.Fatalf("%s\n%s", text(), res.Reason(l))
			}
			told++
			losses++
		}
		expected := 0
		for _, n := range list {
			expected += len(lost[n])
		}
		if told != expected {
			t.Fatalf("%s\n%d settings are told of, expected %d", text(), told, expected)
		}
		for i, c := range res.Candidates {
			if res.Applied(i) != applied[c.ID] {
				t.Fatalf("%s\n%s is applied: %v", text(), c.ID, res.Applied(i))
			}
		}
	}
	if wins < cases() || losses < cases()/4 {
		t.Errorf("only %d settings won and %d lost: the cases are too tame", wins, losses)
	}
}

// Whatever configurations a twin had on its way, with whatever content and
// priority, it ends as one that gets the last ones at once.
func TestAnyOrderOfChangesEndsInTheSameTwin(t *testing.T) {
	t.Parallel()
	differ := 0
	for seed := range uint64(cases()) {
		r := rand.New(rand.NewPCG(seed, 2))
		base := map[string]any{"own": "x", "a": map[string]any{"own": json.Number("1")}}
		if r.IntN(2) == 0 {
			base = map[string]any{"b": map[string]any{"c": map[string]any{"own": "y"}}}
		}
		manual := naiveSettings(&naive{}, nil, base)
		// What a person has written is elsewhere: what a configuration once took
		// the place of does not come back.
		clean := func(c Candidate) Candidate {
			c.Settings = slices.DeleteFunc(slices.Clone(c.Settings), func(s Setting) bool {
				return slices.ContainsFunc(manual, func(m naiveSetting) bool { return s.conflicts(Setting{m.dotted(), `"x"`}) })
			})
			return c
		}
		resolve := func() *Resolution {
			var list []Candidate
			for i := range 4 {
				if r.IntN(3) > 0 {
					n := randomNaive(r, i)
					n.created = noon.Add(time.Duration(i/2) * time.Second) // a configuration keeps it
					list = append(list, clean(n.candidate(t)))
				}
			}
			return Resolve(list)
		}
		once := twinOf{desired: section(t, base)}
		way := twinOf{desired: section(t, base)}
		for range r.IntN(4) {
			way.apply(t, resolve(), present)
		}
		if len(way.owners) > 0 {
			differ++
		}
		before := way
		last := resolve()
		once.apply(t, last, present)
		way.apply(t, last, present)
		a, b := decode(t, once.desired.Plain(nil)), decode(t, way.desired.Plain(nil))
		if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(once.owners, way.owners) {
			t.Fatalf("seed %d: at once it is %s, on the way %s, from %s owned %v, by %v", seed, encode(t, a), encode(t, b), before.desired.Plain(nil), before.owners, last.Won)
		}
	}
	if differ < cases()/4 {
		t.Errorf("only %d twins had something before: the cases are too tame", differ)
	}
}
