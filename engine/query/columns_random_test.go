package query

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func randomRef(r *rand.Rand) string {
	return []string{"tags.site", "tags.n", "tags.o", "tags.o.x", "tags.o.y", "properties.reported.w", "properties.reported.v",
		"properties.reported.o.x", "deviceId", "tags.never", "etag"}[min(r.IntN(24), r.IntN(24))%11]
}

func randomCondition(r *rand.Rand, depth int) string {
	if depth > 0 {
		switch r.IntN(8) {
		case 0, 1:
			return "(" + randomCondition(r, depth-1) + " AND " + randomCondition(r, depth-1) + ")"
		case 2, 3:
			return "(" + randomCondition(r, depth-1) + " OR " + randomCondition(r, depth-1) + ")"
		case 4:
			return "NOT (" + randomCondition(r, depth-1) + ")"
		}
	}
	constant := func() string {
		return []string{"0", "1", "2.5", "3", "500", "'A'", "'B'", "'a'", "''", "'text 5'", "true", "false", "null", "undefined", "'d0005'"}[r.IntN(15)]
	}
	op := []string{"=", "!=", "<", "<=", ">", ">="}[r.IntN(6)]
	a, b := randomRef(r), randomRef(r)
	switch r.IntN(14) {
	case 0, 1, 2, 3:
		return fmt.Sprintf("%s %s %s", a, op, constant())
	case 4:
		return fmt.Sprintf("%s %s %s", constant(), op, a)
	case 5:
		return fmt.Sprintf("%s %s %s", a, op, b)
	case 6:
		return fmt.Sprintf("%s + %s * 2 %s %d", a, b, op, r.IntN(900))
	case 7:
		return fmt.Sprintf("%s %% 3 - 1 %s -%s", a, op, b)
	case 8:
		return fmt.Sprintf("%s %s [%s, %s]", a, []string{"IN", "NIN"}[r.IntN(2)], constant(), constant())
	case 9:
		return fmt.Sprintf("%s(%s)", []string{"IS_DEFINED", "IS_NULL", "IS_NUMBER", "IS_STRING", "IS_OBJECT", "IS_BOOL"}[r.IntN(6)], a)
	case 10:
		return fmt.Sprintf("STARTSWITH(%s, '%s')", a, []string{"A", "d000", "text 1"}[r.IntN(3)])
	case 11:
		return fmt.Sprintf("(%s = %s OR %s = 'A' OR %s = %s OR %s = %s)", a, constant(), b, constant(), a, b, constant())
	case 12:
		return fmt.Sprintf("%s / %s %s %d", a, b, op, r.IntN(3))
	}
	return fmt.Sprintf("ABS(%s - 400) %s %d", a, op, r.IntN(500))
}

func randomQuery(r *rand.Rand) string {
	where := ""
	if r.IntN(8) > 0 {
		where = " WHERE " + randomCondition(r, 3)
	}
	a, b := randomRef(r), randomRef(r)
	switch r.IntN(10) {
	case 0, 1, 2:
		return "SELECT * FROM devices" + where
	case 3:
		return fmt.Sprintf("SELECT TOP %d deviceId, %s AS a, %s AS b FROM devices%s", r.IntN(40), a, b, where)
	case 4:
		return fmt.Sprintf("SELECT %s AS a, %s AS b FROM devices%s LIMIT %d OFFSET %d", a, b, where, r.IntN(100), r.IntN(20))
	case 5:
		return fmt.Sprintf("SELECT deviceId, %s AS a FROM devices%s ORDER BY %s DESC, %s", a, where, a, b)
	case 6:
		return "SELECT COUNT() AS n FROM devices" + where
	case 7:
		return fmt.Sprintf("SELECT COUNT() AS n, COUNT(DISTINCT %s) AS k, AVG(%s) AS v, SUM(%s) AS s, MIN(%s) AS lo, MAX(%s) AS hi FROM devices%s", a, b, b, a, b, where)
	case 8:
		return fmt.Sprintf("SELECT %s AS a, COUNT() AS n, SUM(%s) AS s FROM devices%s GROUP BY %s HAVING COUNT() > %d AND %s != 'B'", a, b, where, a, r.IntN(3), a)
	}
	return fmt.Sprintf("SELECT %s AS a, %s AS b, COUNT(%s) AS n FROM devices%s GROUP BY %s, %s ORDER BY n DESC", a, b, b, where, a, b)
}

// TestRandomQueries compares columns with a naive evaluation of documents, while
// rows come, change and go.
func TestRandomQueries(t *testing.T) {
	for name, o := range map[string]ColumnOptions{
		"columns": {}, "few columns": {MaxColumns: 5}, "no memory": {Memory: 1},
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			r := rand.New(rand.NewPCG(seed, 1))
			f := newFleet(o)
			f.apply(Change{ID: "d0005"})
			selected, queries := 0, 0
			for round := range 24 {
				var changes []Change
				for range r.IntN(400) {
					changes = append(changes, randomChange(r, 1+round*60))
				}
				f.apply(changes...)
				if round%13 == 12 {
					f.rebuild(1 + r.IntN(3))
				}
				if round%5 == 3 {
					if err := f.restart(t); err != nil && (o.Memory+int64(o.MaxColumns) == 0 || !errors.Is(err, ErrPartial)) {
						t.Fatal(err)
					}
				}
				for range scaled(25) {
					text := randomQuery(r)
					limit := 1 + r.IntN(100)
					if strings.Contains(text, "ORDER BY") {
						limit = 1 << 20
					}
					got, plan := f.all(t, text, limit)
					want := f.naive(t, text)
					if !slices.Equal(got, want) {
						t.Fatalf("seed %d round %d, limit %d: %s\ngot  %s\nwant %s\n%s", seed, round, limit, text, short(got, want), short(want, got), plan)
					}
					queries++
					if len(got) > 0 {
						selected++
					}
				}
				f.check(t)
			}
			if selected*10 < queries*3 {
				t.Errorf("%d of %d queries selected something", selected, queries)
			}
		})
	}
}

// TestLargeDictionary: of a column with more values than two bytes can number.
func TestLargeDictionary(t *testing.T) {
	f := newFleet(ColumnOptions{})
	rows := scaled(70_000)
	b := f.columns.Build()
	l := b.Loader()
	for i := range rows {
		id, text := fmt.Sprintf("d%06d", i), StringValue(fmt.Sprintf("text %d", i))
		if i%1000 == 0 {
			text = NullValue()
		}
		f.docs[id] = ObjectValue([]Member{{"deviceId", StringValue(id)}, {"tags", ObjectValue([]Member{{"t", text}, {"n", NumberValue(float64(i % 7))}})}})
		l.Add(id, 0, []Field{{Path{"tags"}, f.docs[id].Member("tags")}})
	}
	b.Done()
	f.check(t)
	for _, text := range []string{
		"SELECT * FROM devices WHERE tags.t = 'text 69999'",
		"SELECT * FROM devices WHERE tags.t IN ['text 5', 'text 66000', null, 'text 66001', 7]",
		"SELECT * FROM devices WHERE NOT (tags.t != 'text 66001') OR tags.t = 'text 3'",
		"SELECT * FROM devices WHERE tags.t = 'text 66001' OR 'text 3' = tags.t OR tags.n = 3 AND tags.t = 'text 10' OR tags.t = null",
		"SELECT * FROM devices WHERE deviceId = 'd000003' OR deviceId = 'd000002' OR deviceId = 'none' OR deviceId = 'd000003'",
		"SELECT COUNT() AS n FROM devices WHERE tags.t != 'text 66001' AND tags.n = 3",
		"SELECT COUNT() AS n FROM devices WHERE STARTSWITH(tags.t, 'text 69') OR tags.t < 'text 2'",
		"SELECT COUNT(DISTINCT tags.t) AS n FROM devices WHERE tags.n IN [1, 2]",
		"SELECT TOP 5 tags.t, COUNT() AS n FROM devices GROUP BY tags.t ORDER BY n DESC",
		"SELECT TOP 5 tags.t FROM devices ORDER BY tags.t DESC",
	} {
		got, plan := f.all(t, text, 1000)
		if want := f.naive(t, text); !slices.Equal(got, want) {
			t.Errorf("%s\ngot  %s\nwant %s\n%s", text, short(got, want), short(want, got), plan)
		}
	}
}

// short returns a list from a little before it differs from another.
func short(a, b []string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	i = max(0, i-1)
	return fmt.Sprintf("%d rows, from %d: %q", len(a), i, a[i:min(len(a), i+4)])
}

// check compares what the store counts with what it holds.
func (f *fleet) check(t *testing.T) {
	t.Helper()
	s := f.columns.store
	if s.count != len(f.docs) || s.index.used != len(f.docs) {
		t.Fatalf("%d rows, %d in the index, of %d", s.count, s.index.used, len(f.docs))
	}
	ids := f.ids()
	ords := s.sorted.all()
	if len(ords) != len(ids) {
		t.Fatalf("%d rows are sorted, of %d", len(ords), len(ids))
	}
	for i, ord := range ords {
		if s.ids.at(ord) != ids[i] {
			t.Fatalf("row %d is %s, not %s", i, s.ids.at(ord), ids[i])
		}
	}
	for i, note := range f.columns.Notes(append(ids, "nobody")) {
		if i < len(ids) && note != f.notes[ids[i]] || i == len(ids) && note != 0 {
			t.Fatalf("the note of row %d is %d", i, note)
		}
	}
	s.checkSpans(t)
	columns, bytes := 0, int64(0)
	s.each(func(n *node) {
		c := n.column
		columns++
		bytes += c.size()
		counts := make([]uint32, len(c.entries))
		var kinds [Object + 1]int
		used, cells, values := 0, int64(0), int64(0)
		for _, stripe := range c.stripes {
			if stripe == nil {
				continue
			}
			cells += stripe.bytes()
			stripe.each(func(_ uint32, x cell) {
				used++
				if x.coded() {
					counts[x.code()]++
				}
				kinds[c.cellValue(x).Kind()]++
			})
		}
		live := 0
		var places []uint32
		for code, e := range c.entries {
			if counts[code] != e.count() {
				t.Fatalf("%v: %d rows have code %d, counted %d", n.path(), counts[code], code, e.count())
			}
			if e.count() > 0 && uint32(code) >= firstCode {
				live++
			}
			if e.kind() == Array {
				values += arrayCost(c.texts.text(e.place))
			}
			places = append(places, e.place)
		}
		checkArena(t, &c.texts, places)
		kinds[Undefined] = c.kinds[Undefined]
		if used != c.used || kinds != c.kinds || live != c.live || live != c.index.used {
			t.Fatalf("%v: used %d %d, kinds %v %v, live %d %d %d", n.path(), used, c.used, kinds, c.kinds, live, c.live, c.index.used)
		}
		if cells != c.cells || values != c.spread {
			t.Fatalf("%v: %d bytes of cells, counted %d; arrays %d, counted %d", n.path(), cells, c.cells, values, c.spread)
		}
	})
	checkArena(t, &s.rows.ids.arena, s.rows.ids.places)
	if columns != s.columns || bytes != s.bytes {
		t.Fatalf("%d columns counted as %d, %d bytes as %d", columns, s.columns, bytes, s.bytes)
	}
	if s.columns > s.options.MaxColumns {
		t.Fatalf("%d columns", s.columns)
	}
}
