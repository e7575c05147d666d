package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The suite runs on every file layer: what it asks for must hold whichever lies below.
func TestSuite(t *testing.T) {
	layers := map[string]func() fsys{
		"os":     func() fsys { return osFS{} },
		"faulty": func() fsys { return &faultFS{} },
	}
	tests := map[string]func(t *testing.T, fs fsys){
		"model":             suiteModel,
		"commit order":      suiteCommitOrder,
		"own writes":        suiteOwnWrites,
		"ranges":            suiteRanges,
		"phantoms":          suitePhantoms,
		"logs":              suiteLogs,
		"bulk load":         suiteBulk,
		"bounds":            suiteBounds,
		"errors of prepare": suitePrepareErrors,
		"close":             suiteClose,
		"snapshot":          suiteSnapshot,
	}
	for layer, fs := range layers {
		for name, test := range tests {
			t.Run(layer+"/"+name, func(t *testing.T) { t.Parallel(); test(t, fs()) })
		}
	}
}

// model is what the store must hold, as plain maps.
type model struct {
	docs    map[string]doc
	counter int64
	cursor  uint64
	logs    [][]byte // of the chained log, from position 1 on
	trimmed uint64   // positions that were let go
}

func newModel() *model { return &model{docs: map[string]doc{}} }

// check compares everything that can be read with the model.
func (m *model) check(t testing.TB, db *DB) {
	t.Helper()
	tab := docs()
	view(t, db, func(r Reader) error {
		got := map[string]doc{}
		var keys []string
		for it, err := range tab.Scan(r, Range{}) {
			if err != nil {
				return err
			}
			got[string(it.Key)] = it.Value
			keys = append(keys, string(it.Key))
		}
		if !maps.Equal(got, m.docs) {
			return fmt.Errorf("the store holds %d records, the model %d:\n%s", len(got), len(m.docs), diffDocs(got, m.docs))
		}
		if !slices.IsSorted(keys) {
			return errors.New("the scan is not sorted")
		}
		indexed := map[string]int{}
		for it, err := range tab.Lookup(r, "city", Range{}) {
			if err != nil {
				return err
			}
			indexed[string(it.Key)]++
		}
		for k, v := range m.docs {
			want := 1
			if v.City == "" {
				want = 0
			}
			if indexed[k] != want {
				return fmt.Errorf("record %q has %d index entries, want %d", k, indexed[k], want)
			}
			delete(indexed, k)
		}
		if len(indexed) > 0 {
			return fmt.Errorf("index entries without records: %v", indexed)
		}
		if n, err := Counter(r, "n"); n != m.counter || err != nil {
			return fmt.Errorf("counter %d, %v, want %d", n, err, m.counter)
		}
		if n, err := Cursor(r, "c"); n != m.cursor || err != nil {
			return fmt.Errorf("cursor %d, %v, want %d", n, err, m.cursor)
		}
		next := uint64(0)
		for e, err := range auditLog().Read(r, 0) {
			if err != nil {
				return err
			}
			if next == 0 {
				// Entries committed together with the first one that stays, stay too.
				if next = e.Position; next > m.trimmed+1 || next+stepOps <= m.trimmed+1 {
					return fmt.Errorf("the log begins at %d after a trim up to %d", next, m.trimmed)
				}
			}
			if e.Position != next || !bytes.Equal(e.Data, m.logs[e.Position-1]) {
				return fmt.Errorf("log entry %d is %q, want %d", e.Position, e.Data, next)
			}
			next++
		}
		if next = max(next, 1); next != uint64(len(m.logs))+1 {
			return fmt.Errorf("the log ends before %d, want %d", next, len(m.logs)+1)
		}
		if _, bad, err := auditLog().Verify(t.Context(), r); bad != 0 || err != nil {
			return fmt.Errorf("chain: bad %d, %v", bad, err)
		}
		return nil
	})
}

func diffDocs(got, want map[string]doc) string {
	var b strings.Builder
	n := 0
	for k, v := range want {
		if g, ok := got[k]; (!ok || g != v) && n < 5 {
			n++
			fmt.Fprintf(&b, "key %q: found %v (number %d), want number %d\n", k, ok, g.Number, v.Number)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok && n < 10 {
			n++
			fmt.Fprintf(&b, "key %q (number %d) should not exist\n", k, v.Number)
		}
	}
	return b.String()
}

// stepOps is how much one step does at most.
const stepOps = 6

// step runs one random transaction on both.
func (m *model) step(db *DB, rng *rand.Rand) error {
	next := model{docs: maps.Clone(m.docs), counter: m.counter, cursor: m.cursor, logs: slices.Clip(m.logs)}
	seed := rng.Uint64()
	err := db.Update(context.Background(), func(tx *Tx) error {
		r := rand.New(rand.NewPCG(seed, 3)) // the same at each attempt
		next.docs, next.counter, next.cursor, next.logs = maps.Clone(m.docs), m.counter, m.cursor, slices.Clip(m.logs)
		for range 1 + r.IntN(stepOps) {
			key := Tuple("key", uint64(r.IntN(150)))
			switch r.IntN(10) {
			case 0, 1, 2, 3, 4:
				v := doc{City: []string{"", "Bonn", "Ulm", "Jena"}[r.IntN(4)], Number: r.Int64(), Text: text(r.IntN(2000), "lorem ipsum ")}
				if err := docs().Put(tx, key, v); err != nil {
					return err
				}
				next.docs[string(key)] = v
			case 5, 6:
				if err := docs().Delete(tx, key); err != nil {
					return err
				}
				delete(next.docs, string(key))
			case 7:
				n := int64(r.IntN(9)) - 4
				tx.Add("n", n)
				next.counter += n
			case 8:
				tx.SetCursor("c", next.cursor+1)
				next.cursor++
			case 9:
				data := fmt.Appendf(nil, "entry %d", r.Int64())
				if err := auditLog().Append(tx, data); err != nil {
					return err
				}
				next.logs = append(next.logs, data)
			}
			want, ok := next.docs[string(key)]
			if got, err := docs().Get(tx, key); ok && (err != nil || got != want) || !ok && !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("inside the transaction: %v, %v", got.Number, err)
			}
		}
		return nil
	})
	if err == nil {
		next.trimmed = m.trimmed
		*m = next
	}
	return err
}

// suiteModel runs random transactions beside a plain map and opens the store anew after every n.
func suiteModel(t *testing.T, fs fsys) {
	rng := seeded(t)
	o := testOptions(t, t.TempDir())
	m := newModel()
	db := mustOpen(t, o, fs, small())
	for round := range 8 {
		for range 250 {
			if err := m.step(db, rng); err != nil {
				t.Fatal(err)
			}
		}
		if round == 4 {
			keep := uint64(len(m.logs) / 2)
			if _, err := auditLog().Trim(t.Context(), db, TrimPolicy{Before: time.Now().Add(time.Hour), Keep: keep}); err != nil {
				t.Fatal(err)
			}
			m.trimmed = keep
		}
		m.check(t, db)
		mustClose(t, db)
		db = mustOpen(t, o, fs, small())
		m.check(t, db)
	}
	mustClose(t, db)
}

func suiteCommitOrder(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer mustClose(t, db)
	var order []uint64 // only the committer appends
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				seen := uint64(0)
				err := db.Update(context.Background(), func(tx *Tx) error {
					tx.OnCommit(func(seq uint64) {
						order = append(order, seq)
						seen = seq
					})
					return docs().Put(tx, Tuple(uint64(w), uint64(i)), doc{Number: 1})
				})
				if err != nil || seen == 0 {
					t.Errorf("the callback ran after the answer (%d), or %v", seen, err)
				}
				err = db.View(context.Background(), func(r Reader) error {
					_, err := docs().Get(r, Tuple(uint64(w), uint64(i)))
					return err
				})
				if err != nil {
					t.Errorf("an acknowledged write is not visible: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if len(order) != 400 || !slices.IsSorted(order) {
		t.Errorf("%d callbacks, sorted %v", len(order), slices.IsSorted(order))
	}
}

func suiteOwnWrites(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer mustClose(t, db)
	tab := docs()
	update(t, db, func(tx *Tx) error {
		for i := range 40 { // beyond the size at which writes get an index
			if err := tab.Put(tx, Tuple(uint64(i)), doc{City: "a", Number: int64(i)}); err != nil {
				return err
			}
		}
		return nil
	})
	update(t, db, func(tx *Tx) error {
		if err := tab.Delete(tx, Tuple(uint64(3))); err != nil {
			return err
		}
		if err := tab.Put(tx, Tuple(uint64(99)), doc{City: "b"}); err != nil {
			return err
		}
		if err := tab.Put(tx, Tuple(uint64(5)), doc{City: "b", Number: 55}); err != nil {
			return err
		}
		n, sum := 0, int64(0)
		for it, err := range tab.Scan(tx, Range{}) {
			if err != nil {
				return err
			}
			n, sum = n+1, sum+it.Value.Number
		}
		if n != 40 || sum != 780-3-5+55 {
			t.Errorf("scan inside: %d records, sum %d", n, sum)
		}
		var back []int64
		for it, err := range tab.Lookup(tx, "city", Range{Prefix: Tuple("b"), Reverse: true}) {
			if err != nil {
				return err
			}
			back = append(back, it.Value.Number)
		}
		if !slices.Equal(back, []int64{0, 55}) {
			t.Errorf("index inside: %v", back)
		}
		tx.Add("x", 2)
		tx.Add("x", 3)
		if n, err := Counter(tx, "x"); n != 5 || err != nil {
			t.Errorf("counter inside: %d, %v", n, err)
		}
		return nil
	})
}

func suiteRanges(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer mustClose(t, db)
	tab := NewTable("r", 1, JSON[int]())
	other := NewTable("s", 1, JSON[int]()) // directly behind
	update(t, db, func(tx *Tx) error {
		for i := range 10 {
			if err := errors.Join(tab.Put(tx, Tuple("a", uint64(i)), i), other.Put(tx, Tuple("a", uint64(i)), 100+i)); err != nil {
				return err
			}
		}
		return tab.Put(tx, Tuple("b"), 50)
	})
	tests := []struct {
		name string
		g    Range
		want []int
	}{
		{"all", Range{}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 50}},
		{"all backwards", Range{Reverse: true}, []int{50, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{"prefix", Range{Prefix: Tuple("a")}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"start and end", Range{Start: Tuple("a", uint64(3)), End: Tuple("a", uint64(6))}, []int{3, 4, 5}},
		{"after", Range{Prefix: Tuple("a"), After: Tuple("a", uint64(7))}, []int{8, 9}},
		{"after backwards", Range{Prefix: Tuple("a"), After: Tuple("a", uint64(2)), Reverse: true}, []int{1, 0}},
		{"end backwards", Range{End: Tuple("a", uint64(2)), Reverse: true}, []int{1, 0}},
		{"nothing", Range{Start: Tuple("c")}, nil},
		{"upside down", Range{Start: Tuple("b"), End: Tuple("a")}, nil},
		{"absent prefix", Range{Prefix: Tuple("aa")}, nil},
	}
	for _, tt := range tests {
		view(t, db, func(r Reader) error {
			var got []int
			for it, err := range tab.Scan(r, tt.g) {
				if err != nil {
					return err
				}
				got = append(got, it.Value)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
			return nil
		})
	}
}

// suitePhantoms: two transactions that each scan and add one more must not both see the same.
func suitePhantoms(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer mustClose(t, db)
	tab := NewTable("p", 1, JSON[int]())
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 20 {
				err := db.Update(context.Background(), func(tx *Tx) error {
					n := 0
					for _, err := range tab.Scan(tx, Range{}) {
						if err != nil {
							return err
						}
						n++
					}
					return tab.Put(tx, Tuple(uint64(w), uint64(i)), n)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[int]bool{}
	view(t, db, func(r Reader) error {
		for it, err := range tab.Scan(r, Range{}) {
			if err != nil {
				return err
			}
			if seen[it.Value] {
				t.Errorf("two transactions counted %d", it.Value)
			}
			seen[it.Value] = true
		}
		return nil
	})
	if len(seen) != 120 {
		t.Errorf("%d counts, want 120", len(seen))
	}
}

func suiteLogs(t *testing.T, fs fsys) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, fs, small())
	log := changes()
	waited := make(chan error, 1)
	go func() { waited <- log.Wait(context.Background(), db, 9) }()
	for i := range 10 {
		update(t, db, func(tx *Tx) error { return log.Append(tx, fmt.Appendf(nil, "e%d", i)) })
	}
	if err := <-waited; err != nil {
		t.Errorf("wait: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := log.Wait(ctx, db, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("wait canceled: %v", err)
	}
	bounds := func(wantFirst, wantLast uint64) {
		t.Helper()
		view(t, db, func(r Reader) error {
			first, last, err := log.Bounds(r)
			if first != wantFirst || last != wantLast {
				t.Errorf("bounds %d to %d, want %d to %d", first, last, wantFirst, wantLast)
			}
			return err
		})
	}
	trim := func(p TrimPolicy, want int) {
		t.Helper()
		if n, err := log.Trim(t.Context(), db, p); n != want || err != nil {
			t.Errorf("trimmed %d, %v, want %d", n, err, want)
		}
	}
	later := time.Now().Add(time.Hour)
	trim(TrimPolicy{Before: later}, 0) // nobody has read anything
	trim(TrimPolicy{Before: later, Keep: 3}, 3)
	bounds(4, 10)
	trim(TrimPolicy{MaxBytes: 1, Keep: 6}, 3)
	bounds(7, 10)
	trim(TrimPolicy{Before: later, Keep: math.MaxUint64}, 3)
	bounds(10, 10)
	mustClose(t, db)
	db = mustOpen(t, o, fs, small())
	update(t, db, func(tx *Tx) error { return log.Append(tx, []byte("eleven")) })
	bounds(10, 11)
	view(t, db, func(r Reader) error {
		var got []string
		for e, err := range log.Read(r, 10) {
			if err != nil {
				return err
			}
			got = append(got, string(e.Data))
		}
		if !slices.Equal(got, []string{"eleven"}) {
			t.Errorf("read: %q", got)
		}
		return nil
	})
	mustClose(t, db)
	if err := log.Wait(t.Context(), db, 99); !errors.Is(err, ErrClosed) {
		t.Errorf("wait on a closed store: %v", err)
	}
}

func suiteBulk(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer mustClose(t, db)
	items := func(n, bad int) iter.Seq[func(tx *Tx) error] {
		return func(yield func(func(tx *Tx) error) bool) {
			for i := range n {
				ok := yield(func(tx *Tx) error {
					if i == bad {
						return errors.New("bad item")
					}
					v, err := docs().Get(tx, Tuple("last"))
					if err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
					if v.Number != int64(i) {
						return fmt.Errorf("item %d saw %d", i, v.Number)
					}
					return errors.Join(docs().Put(tx, Tuple("last"), doc{Number: v.Number + 1}),
						docs().Put(tx, Tuple("k", uint64(i)), doc{City: "x", Text: text(800, "bulk ")}))
				})
				if !ok {
					return
				}
			}
		}
	}
	// Each item must see the one before it, although many are under way.
	if err := db.BulkLoad(t.Context(), items(500, -1)); err != nil {
		t.Fatal(err)
	}
	if err := db.BulkLoad(t.Context(), items(20, 0)); err == nil {
		t.Error("a failing item must end the load")
	}
	view(t, db, func(r Reader) error {
		n := 0
		for _, err := range docs().Lookup(r, "city", Range{}) {
			if err != nil {
				return err
			}
			n++
		}
		if n != 500 {
			t.Errorf("%d records, want 500", n)
		}
		return nil
	})
}

func suiteBounds(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer mustClose(t, db)
	err := db.Update(t.Context(), func(tx *Tx) error {
		return docs().Put(tx, Tuple("big"), doc{Text: text(maxValue, "x")})
	})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("value: %v", err)
	}
	err = db.Update(t.Context(), func(tx *Tx) error {
		return docs().Put(tx, Tuple(text(maxKey, "k")), doc{})
	})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("key: %v", err)
	}
	err = db.Update(t.Context(), func(tx *Tx) error {
		for i := range 10_000 {
			if err := docs().Put(tx, Tuple(uint64(i)), doc{Text: "x"}); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("transaction: %v", err)
	}
	err = db.Update(t.Context(), func(tx *Tx) error { return auditLog().Append(tx, make([]byte, maxValue)) })
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("entry: %v", err)
	}
}

func suitePrepareErrors(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer mustClose(t, db)
	mine := errors.New("mine")
	err := db.Update(t.Context(), func(tx *Tx) error {
		if err := docs().Put(tx, Tuple("a"), doc{}); err != nil {
			return err
		}
		return mine
	})
	if err != mine {
		t.Errorf("got %v", err)
	}
	var kept Reader
	view(t, db, func(r Reader) error { kept = r; return nil })
	if _, err := docs().Get(kept, Tuple("a")); !errors.Is(err, errEnded) {
		t.Errorf("a reader after its end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Update(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if err := db.Submit(func(tx *Tx) error { return docs().Put(tx, Tuple("s"), doc{Number: 1}) }); err != nil {
		t.Error(err)
	}
	update(t, db, func(tx *Tx) error { // behind the submitted one
		_, err := docs().Get(tx, Tuple("s"))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		return docs().Put(tx, Tuple("t"), doc{})
	})
	view(t, db, func(r Reader) error { _, err := docs().Get(r, Tuple("s")); return err })
}

func suiteClose(t *testing.T, fs fsys) {
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				err := db.Update(context.Background(), func(tx *Tx) error {
					return docs().Put(tx, Tuple(uint64(w), uint64(i)), doc{})
				})
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if i == 5 && w == 0 {
					go func() { _ = db.Close() }()
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, db) // waits for the other
	if err := db.View(t.Context(), func(Reader) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("view: %v", err)
	}
	if err := db.Submit(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("submit: %v", err)
	}
	if err := db.Health(); !errors.Is(err, ErrClosed) {
		t.Errorf("health: %v", err)
	}
}

// suiteSnapshot: an open View sees one state while checkpoints and compactions pass.
func suiteSnapshot(t *testing.T, fs fsys) {
	o := testOptions(t, t.TempDir())
	o.CheckpointBytes = 100 << 10
	db := mustOpen(t, o, fs, small())
	defer mustClose(t, db)
	put := func(n int64) {
		update(t, db, func(tx *Tx) error {
			for i := range 20 {
				if err := docs().Put(tx, Tuple(uint64(i)), doc{Number: n, Text: text(400, fmt.Sprint(n))}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	put(1)
	view(t, db, func(r Reader) error {
		for n := range int64(150) {
			put(n + 2)
		}
		for i := range 20 {
			v, err := docs().Get(r, Tuple(uint64(i)))
			if err != nil || v.Number != 1 {
				t.Errorf("record %d: %d, %v", i, v.Number, err)
			}
		}
		return nil
	})
}
