package query

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// checkSpans looks for rows outside of what spans say.
func (s *store) checkSpans(t *testing.T) {
	t.Helper()
	if len(s.spans) != len(s.alive)*64/stripeRows {
		t.Fatalf("%d spans of %d stripes", len(s.spans), len(s.alive)*64/stripeRows)
	}
	for ord := range uint32(s.ids.len()) {
		if !s.isAlive(ord) {
			continue
		}
		span, id := s.spans[ord>>stripeBits], s.ids.at(ord)
		if least := span.least(&s.ids); id < least {
			t.Fatalf("%s stands before %s, the least of its stripe", id, least)
		}
		if span.upTo(&s.ids, id) && span.last != ord {
			t.Fatalf("%s is not the last of its stripe, and none is behind it", id)
		}
	}
}

// TestPagesOverStripes: whatever order the rows came in, and whichever have gone, pages
// by id are those of a list that is sorted and cut. Of rows in order few are looked at.
func TestPagesOverStripes(t *testing.T) {
	const rows, share = 5*stripeRows + 1000, 101
	id := func(i int) string { return fmt.Sprintf("d%06d0", i) }
	orders := map[string]func(r *rand.Rand, i int) (loader, row int){
		"in order":       func(_ *rand.Rand, i int) (int, int) { return 0, i },
		"backwards":      func(_ *rand.Rand, i int) (int, int) { return 0, rows - 1 - i },
		"two loaders":    func(_ *rand.Rand, i int) (int, int) { return i / 2048 % 2, i },
		"in other order": func(_ *rand.Rand, i int) (int, int) { return i % 2, i * 7919 % rows },
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			f := newFleet(ColumnOptions{})
			b := f.columns.Build()
			loaders := []*Loader{b.Loader(), b.Loader()}
			n := func(i int) Value { return NumberValue(float64(i * 31 % share)) }
			for i := range rows {
				loader, row := order(r, i)
				f.docs[id(row)] = ObjectValue([]Member{{"deviceId", StringValue(id(row))}, {"tags", ObjectValue([]Member{{"n", n(row)}})}})
				loaders[loader].Add(id(row), 0, []Field{{Path{"tags", "n"}, n(row)}})
			}
			b.Done()
			f.checkPages(t, r)
			if name == "in order" || name == "two loaders" {
				_, plan := f.page(t, "SELECT TOP 20 deviceId FROM devices WHERE tags.n = 5", "", 20)
				scan := plan.Steps[slices.IndexFunc(plan.Steps, func(s *Step) bool { return s.Kind == "scan" })]
				if scan.Rows > rows/2 || !strings.Contains(scan.Note, "were enough") {
					t.Errorf("a page of 20 scans %d rows: %q", scan.Rows, scan.Note)
				}
			}
			// The first and the last of each stripe go, some others, and others come.
			var changes []Change
			for i := range f.columns.store.spans {
				s := f.columns.store.spans[i]
				changes = append(changes, Change{ID: f.columns.store.ids.at(s.first), Gone: true}, Change{ID: f.columns.store.ids.at(s.last), Gone: true})
			}
			for range 500 {
				changes = append(changes, Change{ID: id(r.IntN(rows)), Gone: true})
			}
			f.apply(changes...)
			f.checkPages(t, r)
			changes = nil
			for range 1500 { // in all places that are free
				i := r.IntN(rows)
				changes = append(changes, Change{ID: id(i)[:7] + "5", Fields: []Field{{Path{"tags", "n"}, n(i)}}})
			}
			f.apply(changes...)
			f.checkPages(t, r)
			if err := f.restart(t); err != nil {
				t.Fatal(err)
			}
			f.checkPages(t, r)
		})
	}
}

// TestPagesOverStripesMeanwhile: rows that pass throughout are on exactly one page, in
// their order, while those at the ends of stripes go and others take their places.
func TestPagesOverStripesMeanwhile(t *testing.T) {
	const rows, share = 3*stripeRows + 100, 128
	id := func(i int) string { return fmt.Sprintf("d%06d0", i) }
	f := newFleet(ColumnOptions{})
	b := f.columns.Build()
	loader := b.Loader()
	fields := func(i int) []Field { return []Field{{Path{"tags", "n"}, NumberValue(float64(i % share))}} }
	var want []string
	for i := range rows {
		loader.Add(id(i), 0, fields(i))
		if i%share == 5 {
			want = append(want, id(i))
		}
	}
	b.Done()
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		for ctx.Err() == nil {
			var gone, come []Change
			for stripe := range 3 {
				for _, i := range []int{stripe * stripeRows, (stripe+1)*stripeRows - 1, r.IntN(rows)} {
					if i%share == 5 {
						continue
					}
					gone = append(gone, Change{ID: id(i), Gone: true})
					k := r.IntN(rows) // the place is taken by one that passes, too, now and then
					come = append(come, Change{ID: id(k)[:7] + "5", Fields: fields(5 + r.IntN(2))}, Change{ID: id(r.IntN(rows))[:7] + "5", Gone: true}, Change{ID: id(i), Fields: fields(i)})
				}
			}
			f.columns.Apply(gone)
			f.columns.Apply(come)
		}
	})
	defer writing.Wait()
	defer cancel()
	stable := func(ids []string) []string {
		return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return strings.HasSuffix(id, "5") })
	}
	const where = "tags.n = 5"
	for round := range 12 {
		var got []string
		limit := 30 + round*17
		for after := ""; ; {
			ids, plan := f.page(t, "SELECT deviceId FROM devices WHERE "+where, after, limit)
			got = append(got, ids...)
			if !slices.ContainsFunc(plan.Steps, func(s *Step) bool { return s.Kind == "scan" }) {
				t.Fatalf("nothing was scanned:\n%s", plan)
			}
			if len(ids) < limit {
				break
			}
			after = ids[limit-1]
		}
		if !slices.IsSorted(got) || !slices.Equal(stable(got), want) {
			t.Fatalf("pages of %d: %d rows, %d of which are stable, of %d", limit, len(got), len(stable(got)), len(want))
		}
		got = nil
		q, err := Parse("SELECT * FROM devices WHERE "+where, Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = f.columns.Select(t.Context(), q, Ask{Limit: limit, Documents: f}, nil, func(rows []Row) bool {
			for _, row := range rows {
				got = append(got, row.ID)
			}
			return true
		})
		if err != nil || !slices.IsSorted(got) || !slices.Equal(stable(got), want) {
			t.Fatalf("selected %d rows, %d of which are stable, of %d: %v", len(got), len(stable(got)), len(want), err)
		}
	}
	cancel()
	writing.Wait()
	f.columns.store.checkSpans(t)
}

// page returns a page's ids.
func (f *fleet) page(t *testing.T, text, after string, limit int) (ids []string, plan *Plan) {
	t.Helper()
	q, err := Parse(text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	page, err := f.columns.Run(t.Context(), q, Ask{After: after, Limit: limit, Documents: f})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range page.Rows {
		v, err := ParseValue(row)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.Member("deviceId").Text())
	}
	return ids, page.Plan
}

func (f *fleet) checkPages(t *testing.T, r *rand.Rand) {
	t.Helper()
	f.columns.store.checkSpans(t)
	ids := f.ids()
	// One that few rows pass, one that more do than wait by id, one that many do, and one
	// that needs a look at each row.
	for _, c := range []struct {
		where string
		pass  func(n float64) bool
	}{
		{"tags.n = 5", func(n float64) bool { return n == 5 }},
		{"tags.n < 6", func(n float64) bool { return n < 6 }},
		{"tags.n < 17", func(n float64) bool { return n < 17 }},
		{"tags.n < 17 AND LENGTH(deviceId) = tags.n", func(n float64) bool { return n == 8 }},
	} {
		var want []string
		for _, id := range ids {
			if c.pass(f.docs[id].Value(Path{"tags", "n"}).Number()) {
				want = append(want, id)
			}
		}
		for range 10 {
			from, limit := r.IntN(len(want)), 1+r.IntN(300)
			after := ""
			if from > 0 {
				after = want[from-1]
			}
			got, _ := f.page(t, "SELECT deviceId FROM devices WHERE "+c.where, after, limit)
			if !slices.Equal(got, want[from:min(len(want), from+limit)]) {
				t.Fatalf("%s behind %q: %d rows are not the %d wanted", c.where, after, len(got), limit)
			}
		}
	}
}
