package query

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSelect compares what Select gives, in runs of any length, with a naive
// evaluation of documents.
func TestSelect(t *testing.T) {
	for name, o := range map[string]ColumnOptions{
		"columns": {}, "few columns": {MaxColumns: 5}, "no memory": {Memory: 1},
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			r := rand.New(rand.NewPCG(seed, 2))
			f := newFleet(o)
			paths := []Path{{"tags", "site"}, {"deviceId"}, {"etag"}, {"properties", "reported", "v"}}
			selected := 0
			for round := range 12 {
				var changes []Change
				for range 20 + r.IntN(800) {
					changes = append(changes, randomChange(r, 1+round*300))
				}
				f.apply(changes...)
				for range scaled(15) {
					text := "SELECT * FROM devices WHERE " + randomCondition(r, 3)
					if r.IntN(10) == 0 {
						text = "SELECT * FROM devices"
					}
					q, err := Parse(text, Options{})
					if err != nil {
						t.Fatal(err)
					}
					want := f.naive(t, text)
					asked := paths[:r.IntN(len(paths)+1)]
					var got []string
					a := Ask{Now: testNow, Documents: f, Limit: []int{0, 1, 100}[r.IntN(3)]}
					for pages, left := 0, true; left; pages++ {
						room := 1 + r.IntN(1500)
						left = false
						err := f.columns.Select(t.Context(), q, a, asked, func(rows []Row) bool {
							for _, row := range rows {
								if room--; room < 0 {
									left = true
									return false
								}
								got = append(got, row.ID)
								for i, p := range asked {
									is, should := row.Values[i], f.docs[row.ID].Value(p)
									if is.Kind() != should.Kind() || is.Kind() != Object && string(is.AppendJSON(nil)) != string(should.AppendJSON(nil)) {
										t.Fatalf("seed %d: %s of %s is %s, want %s", seed, p, row.ID, is.AppendJSON(nil), should.AppendJSON(nil))
									}
								}
							}
							return true
						})
						if err != nil {
							t.Fatalf("seed %d: %s: %v", seed, text, err)
						}
						if len(got) > 0 {
							a.After = got[len(got)-1]
						}
						if pages > 10_000 {
							t.Fatalf("seed %d: %s never ends", seed, text)
						}
					}
					if !slices.Equal(got, want) {
						t.Fatalf("seed %d round %d: %s\ngot  %s\nwant %s", seed, round, text, short(got, want), short(want, got))
					}
					selected += len(got)
				}
				f.checkValues(t, r)
			}
			if selected == 0 {
				t.Error("nothing was ever selected")
			}
		})
	}
}

// checkValues compares Values with the documents.
func (f *fleet) checkValues(t *testing.T, r *rand.Rand) {
	ids := append(f.ids(), "nobody")
	r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	paths := []Path{{"tags", "site"}, {"deviceId"}}
	values, missing := f.columns.Values(ids, paths)
	for i, id := range ids {
		doc, there := f.docs[id]
		if there != (values[i] != nil) {
			t.Fatalf("%s: there is %v, values are %v", id, there, values[i])
		}
		if !there {
			continue
		}
		for k, p := range paths {
			is, should := values[i][k], doc.Value(p)
			if missing && is.Kind() == Undefined {
				continue
			}
			if is.Kind() != should.Kind() || is.Kind() != Object && string(is.AppendJSON(nil)) != string(should.AppendJSON(nil)) {
				t.Fatalf("%s of %s is %s, want %s", p, id, is.AppendJSON(nil), should.AppendJSON(nil))
			}
		}
	}
}

func TestSelectRefusals(t *testing.T) {
	f := newFleet(ColumnOptions{})
	for i := range 100 {
		f.apply(Change{ID: fmt.Sprintf("d%04d", i)})
	}
	for path, want := range map[string]bool{"deviceId": true, "etag": true, "tags": false, "nothing": false} {
		if f.columns.Known(Path{path}) != want {
			t.Errorf("known is %s: %v", path, !want)
		}
	}
	all := func([]Row) bool { return true }
	jobs, err := Parse("SELECT * FROM devices.jobs", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.columns.Select(t.Context(), jobs, Ask{}, nil, all); err == nil {
		t.Error("jobs are selected from columns")
	}
	byETag, err := Parse("SELECT * FROM devices WHERE etag = 'e-d0001'", Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = f.columns.Select(t.Context(), byETag, Ask{Budget: Budget{Rows: 10}, Documents: f}, nil, all)
	if e, over := errors.AsType[*BudgetError](err); !over || e.Exceeded != "rows" {
		t.Errorf("100 documents with a budget of 10: %v", err)
	}
}

// BenchmarkSelect gives 1,000,000 rows, all and a tenth of them.
func BenchmarkSelect(b *testing.B) {
	c := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
	build := c.Build()
	l := build.Loader()
	for i := range 1_000_000 {
		l.Add(fmt.Sprintf("device-%07d", i), 0, []Field{{Path{"tags", "ring"}, NumberValue(float64(i % 10))}})
	}
	build.Done()
	for _, text := range []string{"SELECT * FROM devices", "SELECT * FROM devices WHERE tags.ring = 3"} {
		q, err := Parse(text, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				n := 0
				err := c.Select(b.Context(), q, Ask{Now: testNow}, []Path{{"tags", "ring"}}, func(rows []Row) bool { n += len(rows); return true })
				if err != nil || n < 100_000 {
					b.Fatal(n, err)
				}
			}
		})
	}
}
