package query

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// fleet is rows as a naive reader has them, beside the columns that are tested.
type fleet struct {
	columns *Columns
	docs    map[string]Value
	notes   map[string]uint32
	loads   int
}

func newFleet(o ColumnOptions) *fleet {
	o.ID = Path{"deviceId"}
	o.Outside = append(o.Outside, Path{"etag"}, Path{"properties", "desired", "$metadata"})
	return &fleet{columns: NewColumns(o), docs: map[string]Value{}, notes: map[string]uint32{}}
}

// Documents implements Documents.
func (f *fleet) Documents(_ context.Context, ids []string) ([]Value, error) {
	f.loads += len(ids)
	list := make([]Value, len(ids))
	for i, id := range ids {
		list[i] = f.docs[id]
	}
	return list, nil
}

func (f *fleet) ids() []string { return slices.Sorted(maps.Keys(f.docs)) }

// apply gives a change to the columns and to the documents.
func (f *fleet) apply(changes ...Change) {
	for _, ch := range changes {
		if ch.Gone {
			delete(f.docs, ch.ID)
			delete(f.notes, ch.ID)
			continue
		}
		doc, ok := f.docs[ch.ID]
		if !ok || ch.Replace {
			doc = ObjectValue([]Member{{"deviceId", StringValue(ch.ID)}, {"etag", StringValue("e-" + ch.ID)}})
		}
		for _, field := range ch.Fields {
			doc = with(doc, field.Path, field.Value)
		}
		f.docs[ch.ID] = doc
		if ch.Replace || ch.Noted {
			f.notes[ch.ID] = ch.Note
		}
	}
	f.columns.Apply(changes)
}

// with returns a document with another value at a path.
func with(doc Value, p Path, v Value) Value {
	if len(p) == 0 {
		return v
	}
	var members []Member
	if doc.Kind() == Object {
		members = slices.Clone(doc.Members())
	} else if v.Kind() == Undefined {
		return doc
	}
	i := slices.IndexFunc(members, func(m Member) bool { return m.Key == p[0] })
	if i < 0 {
		if v.Kind() == Undefined {
			return doc
		}
		return ObjectValue(append(members, Member{p[0], with(Value{}, p[1:], v)}))
	}
	child := with(members[i].Value, p[1:], v)
	if child.Kind() == Undefined {
		members = slices.Delete(members, i, i+1)
	} else {
		members[i].Value = child
	}
	return ObjectValue(members)
}

// rebuild loads all rows again, as after a restart.
func (f *fleet) rebuild(loaders int) {
	b := f.columns.Build()
	list := make([]*Loader, loaders)
	for i := range list {
		list[i] = b.Loader()
	}
	for i, id := range f.ids() {
		var fields []Field
		for _, m := range f.docs[id].Members() {
			fields = append(fields, Field{Path{m.Key}, m.Value})
		}
		list[i%loaders].Add(id, f.notes[id], fields)
	}
	b.Done()
}

// all runs a query to its end, in pages.
func (f *fleet) all(t testing.TB, text string, limit int) (rows []string, plan *Plan) {
	t.Helper()
	q, err := Parse(text, Options{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	ask := Ask{Limit: limit, Now: testNow, Documents: f}
	for pages := 0; ; pages++ {
		page, err := f.columns.Run(t.Context(), q, ask)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, r := range page.Rows {
			rows = append(rows, string(r))
		}
		rows = append(rows, page.IDs...)
		if len(page.Rows)+len(page.IDs) > limit {
			t.Fatalf("%s: page of %d rows", text, len(page.Rows)+len(page.IDs))
		}
		plan = page.Plan
		if !page.More {
			return rows, plan
		}
		if page.Last == "" && len(q.order) == 0 || pages > 100000 {
			t.Fatalf("%s: more follows, but after what?", text)
		}
		if len(q.order) > 0 {
			t.Fatalf("%s: ordered, and more than %d", text, limit)
		}
		ask.After, ask.Given = page.Last, len(rows)
	}
}

var testNow = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// naive answers a query from documents, row by row.
func (f *fleet) naive(t testing.TB, text string) []string {
	t.Helper()
	q, err := Parse(text, Options{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var selected []string
	for _, id := range f.ids() {
		if q.Predicate().Match(f.docs[id], testNow) {
			selected = append(selected, id)
		}
	}
	var rows []string
	switch {
	case len(q.group) > 0 || q.aggregates():
		rows = f.naiveGroups(t, q, selected)
	default:
		slices.SortStableFunc(selected, func(a, b string) int {
			for _, o := range q.order {
				c := compareValues(f.docs[a].Value(o.path), f.docs[b].Value(o.path))
				if o.descending {
					c = -c
				}
				if c != 0 {
					return c
				}
			}
			return 0
		})
		for _, id := range selected {
			if q.star {
				rows = append(rows, id)
			} else {
				rows = append(rows, string(renderRow(q.items, func(i int) Value { return f.docs[id].Value(q.items[i].path) })))
			}
		}
	}
	rows = rows[min(q.offset, len(rows)):]
	if q.top >= 0 {
		rows = rows[:min(q.top, len(rows))]
	}
	return rows
}

func (f *fleet) naiveGroups(t testing.TB, q *Query, selected []string) []string {
	groups := map[string][]string{}
	if len(q.group) == 0 {
		groups[""] = nil
	}
	for _, id := range selected {
		var key []string
		for _, p := range q.group {
			key = append(key, string(appendCanonical(nil, f.docs[id].Value(p))))
		}
		k := strings.Join(key, "\n")
		groups[k] = append(groups[k], id)
	}
	value := func(ids []string, a aggregate, distinct bool, p Path) Value {
		count, sum, low, high, seen := 0, 0.0, 0.0, 0.0, map[string]bool{}
		for _, id := range ids {
			v := f.docs[id].Value(p)
			switch {
			case a == aggregateCount && len(p) == 0:
				count++
			case v.Kind() == Undefined:
			case a == aggregateCount && distinct:
				if k := string(appendCanonical(nil, v)); !seen[k] {
					seen[k] = true
					count++
				}
			case a == aggregateCount:
				count++
			case v.Kind() == Number:
				if count == 0 {
					low, high = v.Number(), v.Number()
				}
				count++
				sum += v.Number()
				low, high = min(low, v.Number()), max(high, v.Number())
			}
		}
		switch {
		case a == aggregateCount:
			return NumberValue(float64(count))
		case count == 0:
			return Value{}
		case a == aggregateAvg:
			return NumberValue(sum / float64(count))
		case a == aggregateSum:
			return NumberValue(sum)
		case a == aggregateMin:
			return NumberValue(low)
		}
		return NumberValue(high)
	}
	type one struct {
		key  []Value
		ids  []string
		rank []Value
	}
	var list []one
	for k, ids := range groups {
		key, ok := parseTuple(k, len(q.group))
		if !ok && len(q.group) > 0 {
			t.Fatalf("no tuple: %q", k)
		}
		// HAVING is always of the one form that randomQuery makes.
		if h, is := q.having.(*binary); is {
			count := h.left.(*binary)
			p, err := compile(h.right)
			if err != nil {
				t.Fatal(err)
			}
			if float64(len(ids)) <= count.right.(*literal).value.Number() || !p.eval(&single{key[0]}, testNow).True() {
				continue
			}
		}
		list = append(list, one{key: key, ids: ids})
	}
	valueOf := func(g *one, i item) Value {
		if i.aggregate != notAggregated {
			return value(g.ids, i.aggregate, i.distinct, i.path)
		}
		for k, p := range q.group {
			if slices.Equal(p, i.path) {
				return g.key[k]
			}
		}
		return Value{}
	}
	for i := range list {
		for _, o := range q.order {
			k := slices.IndexFunc(q.items, func(i item) bool { return i.key == o.key && o.key != "" || o.key == "" && slices.Equal(i.path, o.path) })
			if k < 0 {
				list[i].rank = append(list[i].rank, valueOf(&list[i], itemOf(o.path)))
			} else {
				list[i].rank = append(list[i].rank, valueOf(&list[i], q.items[k]))
			}
		}
	}
	slices.SortFunc(list, func(a, b one) int {
		if c := q.compareOrder(a.rank, b.rank); c != 0 {
			return c
		}
		return compareTuples(a.key, b.key)
	})
	var rows []string
	for _, g := range list {
		rows = append(rows, string(renderRow(q.items, func(i int) Value { return valueOf(&g, q.items[i]) })))
	}
	return rows
}

func itemOf(p Path) item { return item{path: p} }

// randomValue returns a value of any type, from a small domain or a wide one.
func randomValue(r *rand.Rand, wide bool, depth int) Value {
	switch k := r.IntN(12); {
	case wide && k < 7:
		return NumberValue(float64(r.IntN(4000)) / 4)
	case wide && k < 9:
		return StringValue(fmt.Sprintf("text %d", r.IntN(3000)))
	case k < 4:
		return NumberValue(float64(r.IntN(6)))
	case k < 7:
		return StringValue([]string{"A", "B", "a", "", "ü", "Anna", "5"}[r.IntN(7)])
	case k == 7:
		return BoolValue(r.IntN(2) == 0)
	case k == 8:
		return NullValue()
	case k == 9:
		return ArrayValue([]Value{NumberValue(float64(r.IntN(3))), StringValue("A")}[:r.IntN(3)])
	case k == 10 && depth > 0:
		members := []Member{{"x", randomValue(r, wide, depth-1)}, {"y", randomValue(r, false, depth-1)}}[:r.IntN(3)]
		return ObjectValue(slices.DeleteFunc(members, func(m Member) bool { return m.Value.Kind() == Undefined }))
	}
	return Value{}
}

var testPaths = []Path{
	{"tags", "site"}, {"tags", "n"}, {"tags", "o"}, {"tags", "o", "x"}, {"tags", "o", "y"}, {"tags"},
	{"properties", "reported", "w"}, {"properties", "reported", "v"}, {"properties", "reported", "o", "x"}, {"properties", "reported"},
}

func randomChange(r *rand.Rand, rows int) Change {
	ch := Change{ID: fmt.Sprintf("d%04d", r.IntN(rows))}
	switch r.IntN(20) {
	case 0, 1:
		ch.Gone = true
		return ch
	case 2:
		ch.Replace = true
	}
	if r.IntN(4) == 0 {
		ch.Noted, ch.Note = true, r.Uint32()
	}
	for range r.IntN(5) {
		p := testPaths[r.IntN(len(testPaths))]
		v := randomValue(r, p[len(p)-1] == "w" || p[len(p)-1] == "v", 2)
		if len(p) == 1 || p[len(p)-1] == "reported" {
			if r.IntN(10) > 0 {
				continue
			}
			v = ObjectValue([]Member{{"site", StringValue("A")}, {"n", NumberValue(3)}, {"w", NumberValue(float64(r.IntN(4000)))}})
		}
		ch.Fields = append(ch.Fields, Field{p, v})
	}
	return ch
}
