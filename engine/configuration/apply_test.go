package configuration

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// settings makes settings of "path=value path=value".
func settings(text string) []Setting {
	var list []Setting
	for part := range strings.FieldsSeq(text) {
		path, value, _ := strings.Cut(part, "=")
		list = append(list, Setting{path, value})
	}
	slices.SortFunc(list, func(a, b Setting) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// candidate makes one of "id priority path=value ...".
func candidate(text string) Candidate {
	f := strings.SplitN(text, " ", 3)
	c := Candidate{ID: f[0], Priority: int(f[1][0] - '0'), Created: noon}
	if len(f) > 2 {
		c.Settings = settings(f[2])
	}
	return c
}

func candidates(list ...string) []Candidate {
	var out []Candidate
	for _, text := range list {
		out = append(out, candidate(text))
	}
	return out
}

// What a twin becomes on its way through several states.
func TestApply(t *testing.T) {
	for _, c := range []struct {
		name   string
		before string // the twin's desired properties
		first  []string
		manual string // a patch by somebody else in between
		then   []string
		gone   string // id of a configuration that was deleted in between
		kept   string // id of one whose new content the twin does not take
		steps  string // of then: id patch; id patch
		after  string
	}{
		{name: "nothing to do", before: `{"a":1}`, first: []string{"c 1 a=1"}, then: []string{"c 1 a=1"}, after: `{"a":1}`},
		{name: "a new value", before: `{}`, first: []string{"c 1 a=1"}, then: []string{"c 1 a=2"}, steps: `c {"a":2}`, after: `{"a":2}`},
		{name: "it leaves", before: `{"own":1}`, first: []string{"c 1 a.b=1"}, steps: `c {"a":null}`, after: `{"own":1}`},
		{name: "it leaves an object that is not empty", before: `{"a":{"own":1}}`, first: []string{"c 1 a.b=1"}, steps: `c {"a":{"b":null}}`, after: `{"a":{"own":1}}`},
		{name: "it leaves an object that was empty", before: `{"a":{}}`, first: []string{"c 1 a.b=1"}, steps: `c {"a":null}`, after: `{}`},
		{name: "it leaves what another one takes over", before: `{}`, first: []string{"c 2 a=1", "d 1 a=2"}, then: []string{"d 1 a=2"}, steps: `d {"a":2}`, after: `{"a":2}`},
		{name: "it was deleted", before: `{}`, first: []string{"c 1 a=1"}, gone: "c", after: `{"a":1}`},
		{name: "it was deleted and another one takes over", before: `{}`, first: []string{"c 2 a=1 b=1", "d 1 a=2"}, then: []string{"d 1 a=2"}, gone: "c", steps: `d {"a":2}`, after: `{"a":2,"b":1}`},
		{name: "its new content is not taken", before: `{}`, first: []string{"c 1 a=1 b=1"}, kept: "c", after: `{"a":1,"b":1}`},
		{name: "its new content is not taken and another one takes over", before: `{}`, first: []string{"c 2 a.x=1 b=1"}, then: []string{"d 1 a=2"}, kept: "c", steps: `d {"a":2}`, after: `{"a":2,"b":1}`},
		{name: "a person's value is overwritten", before: `{}`, first: []string{"c 1 a=1"}, manual: `{"a":9}`, then: []string{"c 1 a=1"}, steps: `c {"a":1}`, after: `{"a":1}`},
		{name: "a person's value stays when it leaves", before: `{}`, first: []string{"c 1 a=1"}, manual: `{"a":9}`, after: `{"a":9}`},
		{name: "a person's removal is taken back", before: `{}`, first: []string{"c 1 a.b=1"}, manual: `{"a":null}`, then: []string{"c 1 a.b=1"}, steps: `c {"a":{"b":1}}`, after: `{"a":{"b":1}}`},
		{name: "null removes", before: `{"a":1,"b":2}`, then: []string{"c 1 a=null"}, steps: `c {"a":null}`, after: `{"b":2}`},
		{name: "null keeps away", before: `{}`, first: []string{"c 1 a=null"}, manual: `{"a":9}`, then: []string{"c 1 a=null"}, steps: `c {"a":null}`, after: `{}`},
		{name: "what null removed does not come back", before: `{"a":1}`, first: []string{"c 1 a=null"}, after: `{}`},
		{name: "null leaves a person's object", before: `{"a":{"b":1}}`, then: []string{"c 1 a.b=null"}, steps: `c {"a":{"b":null}}`, after: `{"a":{}}`},
		{name: "null of a stronger one takes the object along that the weaker made", before: `{}`, first: []string{"c 1 a.b=1"}, then: []string{"c 1 a.b=1", "d 2 a.b=null"}, steps: `d {"a":null}`, after: `{}`},
		{name: "a value over an object", before: `{}`, first: []string{"c 1 a.b=1"}, then: []string{"c 1 a.b=1", "d 2 a=5"}, steps: `d {"a":5}`, after: `{"a":5}`},
		{name: "an object over a value", before: `{}`, first: []string{"c 1 a=5"}, then: []string{"c 1 a=5", "d 2 a.b=1"}, steps: `d {"a":{"b":1}}`, after: `{"a":{"b":1}}`},
		{name: "and back", before: `{}`, first: []string{"c 1 a=5", "d 2 a.b=1"}, then: []string{"c 1 a=5"}, steps: `c {"a":5}`, after: `{"a":5}`},
		{name: "an empty object", before: `{}`, then: []string{"c 1 a={}"}, steps: `c {"a":{}}`, after: `{"a":{}}`},
		{name: "an empty object is content with any", before: `{"a":{"own":1}}`, then: []string{"c 1 a={}"}, after: `{"a":{"own":1}}`},
		{name: "an empty object with another's below it", before: `{}`, then: []string{"c 1 a={}", "d 2 a.b=1"}, steps: `d {"a":{"b":1}}`, after: `{"a":{"b":1}}`},
		{name: "an empty object stays when what is below it leaves", before: `{}`, first: []string{"c 1 a={}", "d 2 a.b=1"}, then: []string{"c 1 a={}"}, steps: `d {"a":{"b":null}}`, after: `{"a":{}}`},
		{name: "an empty object leaves", before: `{}`, first: []string{"c 1 a={}"}, steps: `c {"a":null}`, after: `{}`},
		{name: "both leave", before: `{}`, first: []string{"c 1 a={}", "d 2 a.b=1"}, steps: `d {"a":null}`, after: `{}`},
		{name: "two that leave a common object", before: `{}`, first: []string{"c 1 a.x=1", "d 2 a.y=1"}, steps: `c {"a":null}`, after: `{}`},
		{name: "a name that another one begins with", before: `{}`, first: []string{"c 1 a.x=1 a-b=1"}, then: []string{"c 1 a-b=1"}, steps: `c {"a":null}`, after: `{"a-b":1}`},
		{name: "a step for each configuration", before: `{"a":0,"b":0}`, then: []string{"c 1 a=1 b=1", "d 2 b=2"}, steps: `c {"a":1}; d {"b":2}`, after: `{"a":1,"b":2}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := twinOf{desired: section(t, decode(t, []byte(c.before)))}
			w.apply(t, Resolve(candidates(c.first...)), present)
			if c.manual != "" {
				w.desired = merge(t, w.desired, []byte(c.manual))
			}
			var list []string
			r := Resolve(candidates(c.then...))
			fate := func(o Owner) Fate {
				switch o.Configuration {
				case c.gone:
					return Leave
				case c.kept:
					return Keep
				}
				return Remove
			}
			for _, s := range w.apply(t, r, fate) {
				list = append(list, s.Configuration+" "+string(s.Patch))
			}
			if text := strings.Join(list, "; "); text != c.steps {
				t.Errorf("the steps are %s, expected %s", text, c.steps)
			}
			if got := string(encode(t, decode(t, w.desired.Plain(nil)))); got != c.after {
				t.Errorf("it becomes %s, expected %s", got, c.after)
			}
			if steps, owners := r.Apply(w.desired, w.owners, fate); len(steps) > 0 || len(owners) != len(w.owners) {
				t.Errorf("it is changed again: %s", steps[0].Patch)
			}
		})
	}
}

func TestResolveTellsWhy(t *testing.T) {
	newer := candidate("newer 1 a=3")
	newer.Created = noon.Add(time.Second)
	refused := candidate("refused 9 a=4")
	refused.Refused = "it is not wanted"
	for _, c := range []struct {
		name string
		list []Candidate
		want string // loser path: reason; ...
	}{
		{"priority", candidates("c 1 a=1", "d 2 a=2"), "c a: d sets this path, and its priority is higher"},
		{"the same value", candidates("c 1 a=1", "d 2 a=1"), "c a: d sets this path, and its priority is higher"},
		{"age", append(candidates("c 1 a=1"), newer), "c a: newer sets this path, and it is newer, of the same priority"},
		{"id", candidates("d 1 a=2", "c 1 a=1"), "d a: c sets this path, and its id comes first, of the same priority and age"},
		{"above", candidates("c 1 a.b=1", "d 2 a=2"), "c a.b: d sets a, which lies above it, and its priority is higher"},
		{"below", candidates("c 1 a=1", "d 2 a.b=2"), "c a: d sets a.b, which lies below it, and its priority is higher"},
		{"one that lost takes none with it", candidates("c 1 a.y=1", "d 2 a=2", "e 3 a.x=3"), "d a: e sets a.x, which lies below it, and its priority is higher"},
		{"an empty object is no rival of what is below it", candidates("c 1 a={} a2={}", "d 2 a.x=2", "e 3 a2.x={}"), ""},
		{"an empty object is one of a value", candidates("c 1 a={}", "d 2 a=2"), "c a: d sets this path, and its priority is higher"},
		{"refused", append(candidates("c 1 a=1"), refused), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Resolve(c.list)
			var list []string
			for _, l := range r.Lost {
				list = append(list, r.Candidates[l.Of].ID+" "+l.Path+": "+r.Reason(l))
			}
			if text := strings.Join(list, "; "); text != c.want {
				t.Errorf("it tells %q, expected %q", text, c.want)
			}
		})
	}
	r := Resolve(append(candidates("c 1 a=1"), refused))
	if w, ok := r.Winner("a"); !ok || r.Candidates[w.By].ID != "c" || r.Applied(0) || !r.Applied(1) {
		t.Errorf("a refused one wins: %v", r.Won)
	}
}

func TestLayers(t *testing.T) {
	base := &Content{kind: OfModules}
	layer := &Content{kind: OfModules, layer: true}
	for _, c := range []struct {
		name string
		list []EdgeCandidate
		want string // id or id(reason), the strongest first
	}{
		{"one", []EdgeCandidate{{candidate("b 1"), base}}, "b"},
		{"two bases", []EdgeCandidate{{candidate("b 1"), base}, {candidate("d 2"), base}}, "d b(an edge device has one configuration that stands alone, and d is stronger)"},
		{"a layer over a base", []EdgeCandidate{{candidate("b 1"), base}, {candidate("l 2"), layer}}, "l b"},
		{"a layer below a base", []EdgeCandidate{{candidate("b 2"), base}, {candidate("l 1"), layer}}, "b l(a layer is applied only over a configuration that is weaker, and b, which stands alone, is stronger)"},
		{"layers alone", []EdgeCandidate{{candidate("k 1"), layer}, {candidate("l 2"), layer}}, "l k"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var list []string
			for _, k := range Layers(c.list) {
				if k.Refused != "" {
					k.ID += "(" + k.Refused + ")"
				}
				list = append(list, k.ID)
			}
			if text := strings.Join(list, " "); text != c.want {
				t.Errorf("they are %s, expected %s", text, c.want)
			}
		})
	}
}
