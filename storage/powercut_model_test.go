//go:build powercut

package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

const (
	cutWriters = 8
	cutKeys    = 75
	cutBuckets = 7
)

// cutDoc is a record of the load. It names its key and number, so that a value at the wrong place
// or of the wrong time is known for what it is.
type cutDoc struct {
	Writer, Key int
	Number      uint64 // of the operation that wrote it
	Pad         []byte
}

func cutBucket(v cutDoc) uint64 { return v.Number % cutBuckets }

func cutTable() *Table[cutDoc] {
	return NewTable("docs", 1, JSON[cutDoc](), Index[cutDoc]{
		Name: "bucket",
		Keys: func(_ Key, v cutDoc) []Key { return []Key{Tuple(cutBucket(v))} },
	})
}

func cutLog() *Log { return NewLog("operations", LogOptions{Chained: true}) }

func cutKey(w, k int) Key { return Tuple("d", uint64(w), uint64(k)) }

// cutOp is one transaction of a writer: keys set to its number, and keys deleted.
type cutOp struct {
	number    uint64
	set, gone []int
}

// cutWriter is what one writer did. Its operations are one after another, so after a power cut
// the store holds the first so many of them: at least those acknowledged.
type cutWriter struct {
	id int

	mu    sync.Mutex
	base  map[int]uint64 // numbers by key before ops
	logs  []uint64       // numbers in the log before ops
	ops   []cutOp        // issued
	acked int            // of ops
	next  uint64         // number
}

type cutModel [cutWriters]*cutWriter

func newCutModel() *cutModel {
	var m cutModel
	for i := range m {
		m[i] = &cutWriter{id: i, base: map[int]uint64{}, next: 1}
	}
	return &m
}

// acked returns how many operations of each writer are acknowledged.
func (m *cutModel) acked() (n [cutWriters]int) {
	for i, w := range m {
		w.mu.Lock()
		n[i] = w.acked
		w.mu.Unlock()
	}
	return n
}

func (m *cutModel) issued() (n [cutWriters]int) {
	for i, w := range m {
		w.mu.Lock()
		n[i] = len(w.ops)
		w.mu.Unlock()
	}
	return n
}

func (w *cutWriter) draw(rng *rand.Rand) cutOp {
	o := cutOp{number: w.next}
	w.next++
	for _, k := range rng.Perm(cutKeys)[:1+rng.IntN(3)] {
		if rng.IntN(100) < 9 {
			o.gone = append(o.gone, k)
		} else {
			o.set = append(o.set, k)
		}
	}
	return o
}

// do makes one transaction of o. It runs inside prepare, perhaps more than once.
func (w *cutWriter) do(tx *Tx, o cutOp, state map[int]uint64, seed uint64) error {
	table := cutTable()
	rng := rand.New(rand.NewPCG(seed, o.number))
	for _, k := range o.set {
		v, err := table.Get(tx, cutKey(w.id, k))
		if errors.Is(err, ErrNotFound) {
			v, err = cutDoc{}, nil
		}
		if err != nil {
			return err
		}
		if state != nil && v.Number != state[k] {
			return fmt.Errorf("the running store shows key %d/%d with number %d, expected %d", w.id, k, v.Number, state[k])
		}
		pad := make([]byte, 50+rng.IntN(700))
		for i := 0; i+8 <= len(pad); i += 8 {
			binary.LittleEndian.PutUint64(pad[i:], rng.Uint64())
		}
		if err := table.Put(tx, cutKey(w.id, k), cutDoc{w.id, k, o.number, pad}); err != nil {
			return err
		}
	}
	for _, k := range o.gone {
		if err := table.Delete(tx, cutKey(w.id, k)); err != nil {
			return err
		}
	}
	tx.Add("operations", 1)
	return cutLog().Append(tx, binary.BigEndian.AppendUint64([]byte{byte(w.id)}, o.number))
}

func (o cutOp) apply(state map[int]uint64) {
	for _, k := range o.set {
		state[k] = o.number
	}
	for _, k := range o.gone {
		delete(state, k)
	}
}

// run writes until stop is closed or an error comes.
func (w *cutWriter) run(ctx context.Context, db *DB, rng *rand.Rand, stop <-chan struct{}) error {
	state := maps.Clone(w.base)
	seed := rng.Uint64()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		n := 1
		if rng.IntN(60) == 0 {
			n = 20 // a bulk load
		}
		ops := make([]cutOp, n)
		w.mu.Lock()
		for i := range ops {
			ops[i] = w.draw(rng)
		}
		w.ops = append(w.ops, ops...)
		w.mu.Unlock()
		var err error
		if n == 1 {
			err = db.Update(ctx, func(tx *Tx) error { return w.do(tx, ops[0], state, seed) })
		} else {
			err = db.BulkLoad(ctx, func(yield func(func(tx *Tx) error) bool) {
				for _, o := range ops {
					if !yield(func(tx *Tx) error { return w.do(tx, o, nil, seed) }) {
						return
					}
				}
			})
		}
		if err != nil {
			return fmt.Errorf("writer %d: %w", w.id, err)
		}
		for _, o := range ops {
			o.apply(state)
		}
		w.mu.Lock()
		w.acked += n
		w.mu.Unlock()
	}
}

// cutContent is what a store shows of the load.
type cutContent struct {
	docs    [cutWriters]map[int]uint64
	logs    [cutWriters][]uint64
	indexed map[string]uint64 // bucket by raw key, from the index
	counter int64
	keys    map[string]uint64 // the same, from the records
}

// readImage reads everything and checks what holds whatever was lost.
func readImage(ctx context.Context, db *DB) (c cutContent, err error) {
	c.indexed, c.keys = map[string]uint64{}, map[string]uint64{}
	for i := range c.docs {
		c.docs[i] = map[int]uint64{}
	}
	err = db.View(ctx, func(r Reader) error {
		table := cutTable()
		for it, err := range table.Scan(r, Range{}) {
			if err != nil {
				return err
			}
			v := it.Value
			if v.Writer < 0 || v.Writer >= cutWriters || !bytes.Equal(it.Key, cutKey(v.Writer, v.Key)) || len(v.Pad) < 50 {
				return fmt.Errorf("wrong value: key %q holds %d/%d number %d", it.Key, v.Writer, v.Key, v.Number)
			}
			c.docs[v.Writer][v.Key] = v.Number
			c.keys[string(it.Key)] = cutBucket(v)
			got, err := table.Get(r, it.Key)
			if err != nil || got.Number != v.Number {
				return fmt.Errorf("key %d/%d: a scan shows number %d, a read %d, %v", v.Writer, v.Key, v.Number, got.Number, err)
			}
		}
		for b := range uint64(cutBuckets) {
			for it, err := range table.Lookup(r, "bucket", Range{Prefix: Tuple(b)}) {
				if err != nil {
					return err
				}
				c.indexed[string(it.Key)] = b
			}
		}
		var last uint64
		for e, err := range cutLog().Read(r, 0) {
			if err != nil {
				return err
			}
			if last != 0 && e.Position != last+1 {
				return fmt.Errorf("the log jumps from position %d to %d", last, e.Position)
			}
			last = e.Position
			if len(e.Data) != 9 || int(e.Data[0]) >= cutWriters {
				return fmt.Errorf("wrong log entry at %d: %x", e.Position, e.Data)
			}
			w := e.Data[0]
			c.logs[w] = append(c.logs[w], binary.BigEndian.Uint64(e.Data[1:]))
		}
		if _, bad, err := cutLog().Verify(ctx, r); err != nil || bad != 0 {
			return fmt.Errorf("the log's chain: bad at %d, %w", bad, err)
		}
		c.counter, err = Counter(r, "operations")
		return err
	})
	if err != nil {
		return c, err
	}
	if !maps.Equal(c.indexed, c.keys) {
		return c, fmt.Errorf("the index shows %d records, the table %d, or in other cutBuckets", len(c.indexed), len(c.keys))
	}
	var total int64
	for _, l := range c.logs {
		total += int64(len(l))
	}
	if total != c.counter {
		return c, fmt.Errorf("the counter says %d operations, the log holds %d", c.counter, total)
	}
	return c, nil
}

// match compares the store with the model: each writer must show the state after at least the
// acknowledged and at most the issued operations, and its log exactly these. It returns how many
// operations of each writer are there.
func (m *cutModel) match(c cutContent, acked, issued [cutWriters]int) (n [cutWriters]int, err error) {
	for i, w := range m {
		w.mu.Lock()
		state, logs := maps.Clone(w.base), slices.Clone(w.logs)
		var first map[int]uint64
		found := -1
		for j := 0; j <= issued[i]; j++ {
			if j > 0 {
				w.ops[j-1].apply(state)
				logs = append(logs, w.ops[j-1].number)
			}
			if j < acked[i] {
				continue
			}
			if first == nil {
				first = maps.Clone(state)
			}
			if maps.Equal(state, c.docs[i]) && slices.Equal(logs, c.logs[i]) {
				found = j
				break
			}
		}
		next := w.next
		w.mu.Unlock()
		if found < 0 {
			return n, fmt.Errorf("writer %d, %d acknowledged of %d issued: %s; log has %d entries of %d", i, acked[i], issued[i], cutDifferences(first, c.docs[i], next), len(c.logs[i]), len(w.logs)+acked[i])
		}
		n[i] = found
	}
	return n, nil
}

// cutDifferences says how found differs from what was acknowledged.
func cutDifferences(want, found map[int]uint64, next uint64) string {
	var lost, older, newer, undeleted, strange int
	for k, n := range want {
		switch f, ok := found[k]; {
		case !ok:
			lost++
		case f < n:
			older++
		case f > n && f < next:
			newer++
		case f >= next:
			strange++
		}
	}
	for k := range found {
		if _, ok := want[k]; !ok {
			undeleted++
		}
	}
	return fmt.Sprintf("against the acknowledged state %d keys lost, %d older, %d newer, %d not deleted, %d never written", lost, older, newer, undeleted, strange)
}

// settle makes the first n operations of each writer the model's new base.
func (m *cutModel) settle(n [cutWriters]int) {
	for i, w := range m {
		w.mu.Lock()
		for _, o := range w.ops[:n[i]] {
			o.apply(w.base)
			w.logs = append(w.logs, o.number)
		}
		w.ops, w.acked = nil, 0
		w.mu.Unlock()
	}
}

// clone copies a settled model.
func (m *cutModel) clone() *cutModel {
	var c cutModel
	for i, w := range m {
		c[i] = &cutWriter{id: i, base: maps.Clone(w.base), logs: slices.Clone(w.logs), next: w.next}
	}
	return &c
}
