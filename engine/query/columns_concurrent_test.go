package query

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestReadersSeeWholeChanges runs queries while rows change, come and go. Each
// change gives a row two equal values, so that no query may see them differ, and
// rows that stay come exactly once.
func TestReadersSeeWholeChanges(t *testing.T) {
	const stay, come = 20_000, 500
	c := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
	equal := func(r *rand.Rand) []Field {
		v := NumberValue(float64(r.IntN(1000)))
		if r.IntN(3) == 0 {
			v = StringValue(fmt.Sprint("text ", r.IntN(1000)))
		}
		return []Field{{Path{"tags", "a"}, v}, {Path{"tags", "b"}, v}}
	}
	r := rand.New(rand.NewPCG(1, 1))
	var all []Change
	for i := range stay {
		all = append(all, Change{ID: fmt.Sprintf("d%06d", i), Fields: equal(r)})
	}
	c.Apply(all)

	stop := make(chan struct{})
	var writer, readers sync.WaitGroup
	writer.Go(func() {
		r := rand.New(rand.NewPCG(2, 2))
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			var changes []Change
			for range 1 + r.IntN(20) {
				if r.IntN(4) == 0 {
					changes = append(changes, Change{ID: fmt.Sprintf("d%06dx", r.IntN(come)*40), Gone: r.IntN(2) == 0, Fields: equal(r)})
				} else {
					changes = append(changes, Change{ID: fmt.Sprintf("d%06d", r.IntN(stay)), Replace: r.IntN(2) == 0, Fields: equal(r)})
				}
			}
			if n%50 == 0 { // paths come and go
				changes = append(changes, Change{ID: "d000000x", Fields: []Field{{Path{"tags", fmt.Sprint("k", n)}, NumberValue(1)}}}, Change{ID: "d000000x", Gone: true})
			}
			c.Apply(changes)
		}
	})
	ask := func(text string, after string, given, limit int) (*Page, error) {
		q, err := Parse(text, Options{})
		if err != nil {
			return nil, err
		}
		return c.Run(t.Context(), q, Ask{After: after, Given: given, Limit: limit, Now: testNow, Documents: noDocuments{}})
	}
	readers.Go(func() {
		for range 30 {
			page, err := ask("SELECT * FROM devices WHERE tags.a != tags.b OR NOT IS_DEFINED(tags.a)", "", 0, 10)
			if err != nil || len(page.IDs) > 0 {
				t.Errorf("%v: rows with two values: %v", err, page)
				return
			}
			page, err = ask("SELECT tags.a, COUNT() AS n, MIN(tags.b) AS lo, MAX(tags.b) AS hi FROM devices WHERE tags.a > 500 GROUP BY tags.a", "", 0, 1000)
			if err != nil {
				t.Error(err)
				return
			}
			for _, row := range page.Rows {
				var g struct{ A, Lo, Hi float64 }
				if err := json.Unmarshal(row, &g); err != nil || g.A != g.Lo || g.A != g.Hi {
					t.Errorf("a group with two values: %s", row)
					return
				}
			}
		}
	})
	readers.Go(func() {
		for _, where := range []string{"", " WHERE tags.a = tags.b", " WHERE STARTSWITH(deviceId, 'd0')", " WHERE IS_NUMBER(tags.a) OR tags.b >= ''"} {
			seen := map[string]int{}
			page := &Page{More: true}
			for given := 0; page.More; given += len(page.Rows) {
				var err error
				if page, err = ask("SELECT deviceId, tags.a, tags.b FROM devices"+where, page.Last, given, 700); err != nil {
					t.Error(err)
					return
				}
				for _, row := range page.Rows {
					var d struct {
						DeviceID string
						A, B     any
					}
					if err := json.Unmarshal(row, &d); err != nil || d.A != d.B || d.A == nil {
						t.Errorf("a row with two values: %s", row)
						return
					}
					seen[d.DeviceID]++
				}
			}
			for i := range stay {
				if n := seen[fmt.Sprintf("d%06d", i)]; n != 1 {
					t.Errorf("%q: row %d came %d times", where, i, n)
					return
				}
			}
			for id, n := range seen {
				if n != 1 {
					t.Errorf("%s came %d times", id, n)
				}
			}
		}
	})
	readers.Wait()
	close(stop)
	writer.Wait()
	c.Apply(nil)
	if s := c.store; len(s.dirty) > 0 || len(s.rows.retired) > 0 {
		t.Errorf("%d columns and %d rows wait to be reclaimed though no query runs", len(s.dirty), len(s.rows.retired))
	}
}

// TestQueriesDuringBuild: until Done queries see the rows from before, then all of
// the new ones, and columns that come and go for want of memory change no answer.
func TestQueriesDuringBuild(t *testing.T) {
	const rows = 3000
	c := NewColumns(ColumnOptions{ID: Path{"deviceId"}, Memory: 150_000})
	docs := documentsOf(func(id string) Value {
		return ObjectValue([]Member{{"deviceId", StringValue(id)}, {"tags", ObjectValue([]Member{{"id", StringValue(id)}, {"n", NumberValue(7)}})}})
	})
	load := func() {
		b := c.Build()
		var all sync.WaitGroup
		for k := range 2 {
			l := b.Loader()
			all.Go(func() {
				for i := k; i < rows; i += 2 {
					id := fmt.Sprintf("d%06d", i)
					l.Add(id, 0, []Field{{Path{"tags", "id"}, StringValue(id)}, {Path{"tags", "n"}, NumberValue(7)}})
				}
			})
		}
		all.Wait()
		b.Done()
	}
	load()
	var builder, readers sync.WaitGroup
	stop := make(chan struct{})
	builder.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				load()
			}
		}
	})
	for _, one := range []struct{ text, last string }{
		{"SELECT COUNT() AS n FROM devices WHERE tags.id >= 'd000001' AND tags.n = 7", `{"n":2999}`},
		{"SELECT TOP 1 tags.id, tags.n FROM devices WHERE tags.id != '' ORDER BY tags.id DESC", `{"id":"d002999","n":7}`},
	} {
		readers.Go(func() {
			q, err := Parse(one.text, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			for range 30 {
				page, err := c.Run(t.Context(), q, Ask{Limit: 10, Now: testNow, Documents: docs})
				if err != nil || len(page.Rows) != 1 || string(page.Rows[0]) != one.last {
					t.Errorf("%s: %v %v", one.text, err, page)
					return
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	builder.Wait()
}

// documentsOf makes documents when they are asked for.
type documentsOf func(id string) Value

// Documents implements Documents.
func (f documentsOf) Documents(_ context.Context, ids []string) ([]Value, error) {
	list := make([]Value, len(ids))
	for i, id := range ids {
		list[i] = f(id)
	}
	return list, nil
}
