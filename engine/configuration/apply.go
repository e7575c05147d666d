package configuration

import (
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// Owner says that a configuration has set a path of a twin.
type Owner struct {
	Path          string
	Configuration string
	Created       time.Time // of the configuration: another one of the same id is not it
	Mark          uint64    // of the value; see Mark
}

// Mark is a hash by which a value is known again.
func Mark(value string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(value)) // it never fails
	return h.Sum64()
}

// Step is a change of a twin on behalf of one configuration.
type Step struct {
	Configuration string
	Patch         []byte // JSON merge patch of the desired properties
}

// Fate says what becomes of a path that no configuration sets any more.
type Fate uint8

// The fates.
const (
	Remove Fate = iota // if it still has the value that was set
	Leave              // as it is, and nobody owns it: the configuration was deleted
	Keep               // as it is, and owned: the twin does not take what it should have instead
)

// Apply says how a twin comes to what a resolution decides: the merge patches to
// apply, in order, and who owns its paths afterwards, sorted by path. There is no
// patch when nothing differs. former is who owned them before, sorted by path.
func (r *Resolution) Apply(desired *twin.Section, former []Owner, fate func(Owner) Fate) ([]Step, []Owner) {
	a := application{r: r, root: desired.View(), removed: map[string]bool{}, dropped: map[string]bool{}, steps: map[string][]Setting{}}
	a.remove(former, fate)
	a.set()
	owners := r.owners
	if len(a.kept) > 0 {
		owners = slices.Concat(owners, a.kept)
		slices.SortFunc(owners, func(a, b Owner) int { return strings.Compare(a.Path, b.Path) })
	}
	return a.list(), owners
}

// application is what one Apply works out.
type application struct {
	r       *Resolution
	root    twin.View
	wide    map[string]map[string]int // members of wide objects, by path
	text    []byte                    // of the value in hand
	gone    []gone                    // paths that end and were a configuration's
	kept    []Owner                   // of paths that nobody sets, and that stay
	removed map[string]bool           // nothing is at these afterwards; false: something is
	dropped map[string]bool           // a step removes these
	steps   map[string][]Setting
	order   []string // of steps: removals first
}

// gone is a path that is removed on behalf of a configuration.
type gone struct{ path, by string }

// remove finds what was set and is set no more, and the objects that become empty
// by it: they are there for nothing else.
func (a *application) remove(former []Owner, fate func(Owner) Fate) {
	for _, o := range former {
		if _, ok := a.r.byPath[o.Path]; ok || a.covered(o.Path) {
			continue
		}
		switch fate(o) {
		case Leave:
			continue
		case Keep:
			a.kept = append(a.kept, o)
			continue
		}
		// What somebody else has written since then is not the configuration's.
		if v, ok := a.find(o.Path); ok && Mark(a.json(v)) == o.Mark {
			a.gone = append(a.gone, gone{o.Path, o.Configuration})
			a.removed[o.Path] = true
		}
	}
	for _, w := range a.r.Won {
		if !w.IsNothing() {
			continue
		}
		a.removed[w.Path] = true
		if i := ownedAt(former, w.Path); i < len(former) && (former[i].Path == w.Path || isAbove(w.Path, former[i].Path)) {
			if _, ok := a.find(w.Path); ok {
				a.gone = append(a.gone, gone{w.Path, a.r.Candidates[w.By].ID})
			}
		}
	}
	for _, g := range a.gone {
		last := g.path
		for path := range above(g.path) {
			if v, ok := a.find(path); !ok || a.remains(path, v) {
				break
			}
			a.removed[path] = true
			last = path
		}
		a.drop(last, g.by)
	}
}

// ownedAt is the first of the owners that may lie at or below a path.
func ownedAt(former []Owner, path string) int {
	i, found := slices.BinarySearchFunc(former, path, func(o Owner, p string) int { return strings.Compare(o.Path, p) })
	if !found { // a-b comes between a and a.b
		i, _ = slices.BinarySearchFunc(former, path+".", func(o Owner, p string) int { return strings.Compare(o.Path, p) })
	}
	return i
}

// remains reports whether anything will be at a path that holds v now.
func (a *application) remains(path string, v twin.View) bool {
	if removed, known := a.removed[path]; known {
		return !removed
	}
	remains := true
	if _, won := a.r.byPath[path]; !won && v.Form() == '{' && v.Len() > 0 {
		remains = a.setBelow(path)
		for i := 0; i < v.Len() && !remains; i++ {
			key, member := v.At(i)
			remains = a.remains(path+"."+key, member)
		}
	}
	a.removed[path] = !remains
	return remains
}

// drop removes a path, unless one above it is removed.
func (a *application) drop(path, by string) {
	for p := range above(path) {
		if a.removed[p] {
			return
		}
	}
	a.removed[path] = true
	if !a.dropped[path] {
		a.dropped[path] = true
		a.add(by, Setting{path, nothing})
	}
}

func (a *application) add(configuration string, s Setting) {
	list, ok := a.steps[configuration]
	if !ok {
		a.order = append(a.order, configuration)
	}
	a.steps[configuration] = append(list, s)
}

// find returns what the twin holds at a path.
func (a *application) find(path string) (v twin.View, ok bool) {
	v = a.root
	for from := 0; from <= len(path); {
		end := len(path)
		if i := strings.IndexByte(path[from:], '.'); i >= 0 {
			end = from + i
		}
		if v, ok = a.member(path[:max(from-1, 0)], v, path[from:end]); !ok {
			return v, false
		}
		from = end + 1
	}
	return v, true
}

// wideObject is from where on the members of an object are looked up by a map:
// one by one, a twin of many thousand members would take seconds.
const wideObject = 32

// member returns a member of the object at a path.
func (a *application) member(path string, object twin.View, key string) (twin.View, bool) {
	if object.Form() != '{' || object.Len() < wideObject {
		return object.Member(key)
	}
	index := a.wide[path]
	if index == nil {
		index = make(map[string]int, object.Len())
		for i := range object.Len() {
			key, _ := object.At(i)
			index[key] = i
		}
		if a.wide == nil {
			a.wide = map[string]map[string]int{}
		}
		a.wide[path] = index
	}
	i, ok := index[key]
	if !ok {
		return twin.View{}, false
	}
	_, v := object.At(i)
	return v, true
}

func (a *application) json(v twin.View) string {
	a.text = v.AppendJSON(a.text[:0])
	return string(a.text)
}

// covered reports whether what is set above or below a path takes its place.
func (a *application) covered(path string) bool {
	for p := range above(path) {
		if w, ok := a.r.Winner(p); ok && w.Value != anyObject {
			return true
		}
	}
	return a.setBelow(path)
}

// setBelow reports whether something is set below a path, so that an object is
// there.
func (a *application) setBelow(path string) bool {
	from := path + "."
	i, _ := slices.BinarySearchFunc(a.r.Won, from, func(w Won, p string) int { return strings.Compare(w.Path, p) })
	for ; i < len(a.r.Won) && strings.HasPrefix(a.r.Won[i].Path, from); i++ {
		if !a.r.Won[i].IsNothing() {
			return true
		}
	}
	return false
}

// set finds where the twin differs from what is to be there.
func (a *application) set() {
	for _, w := range a.r.Won {
		v, ok := a.find(w.Path)
		by := a.r.Candidates[w.By].ID
		switch {
		case w.IsNothing():
			if ok {
				a.drop(w.Path, by)
			}
		case ok && w.Value == anyObject && v.Form() == '{', w.Value == anyObject && a.setBelow(w.Path):
		case !ok || a.json(v) != w.Value:
			a.add(by, w.Setting)
		}
	}
}

// list makes the patches.
func (a *application) list() []Step {
	list := make([]Step, len(a.order))
	for i, id := range a.order {
		list[i] = Step{id, patch(a.steps[id])}
	}
	return list
}
