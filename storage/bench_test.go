package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// rawDoc is a document that is already bytes, so that the benchmark measures the store.
type rawCodec struct{}

func (rawCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (rawCodec) Decode(b []byte) ([]byte, error)             { return slices.Clone(b), nil }

const benchKeys = 20_000

// benchStore is a store with benchKeys documents of 1 KB, an index, a history and a log.
type benchStore struct {
	db      *DB
	docs    *Table[[]byte]
	history *Table[[]byte]
}

func newBenchStore(b *testing.B) *benchStore {
	s := &benchStore{
		db: mustOpen(b, testOptions(b, b.TempDir()), osFS{}, tuning{}),
		docs: NewTable("docs", 1, Codec[[]byte](rawCodec{}), Index[[]byte]{Name: "kind", Keys: func(_ Key, v []byte) []Key {
			return []Key{Tuple(uint64(v[0]))}
		}}),
		history: NewTable("history", 1, Codec[[]byte](rawCodec{})),
	}
	err := s.db.BulkLoad(context.Background(), func(yield func(func(tx *Tx) error) bool) {
		for i := range benchKeys {
			if !yield(func(tx *Tx) error { return s.docs.Put(tx, Tuple("dev", uint64(i)), randomDoc(i)) }) {
				return
			}
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// update is a durable read-modify-write with an index entry, a history row and a log entry.
func (s *benchStore) update() error {
	k := uint64(rand.IntN(benchKeys))
	return s.db.Update(context.Background(), func(tx *Tx) error {
		key := Tuple("dev", k)
		v, err := s.docs.Get(tx, key)
		if err != nil {
			return err
		}
		v[8+rand.IntN(900)]++
		v[0] = byte(rand.IntN(8))
		if err := s.docs.Put(tx, key, v); err != nil {
			return err
		}
		if err := s.history.Put(tx, Tuple("dev", k, uint64(tx.Now().UnixNano())), v[:150]); err != nil {
			return err
		}
		return changes().Append(tx, v[:100])
	})
}

// run spreads b.N calls over writers; with a rate it offers that many a second, and the time of a
// call counts from the moment when it was due.
func run(b *testing.B, writers int, rate float64, call func() error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	times := make([][]time.Duration, writers)
	b.ResetTimer()
	started := time.Now()
	for w := range writers {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				began := time.Now()
				if rate > 0 {
					began = started.Add(time.Duration(float64(n) / rate * float64(time.Second)))
					if d := time.Until(began); d > 0 {
						<-time.After(d)
					}
				}
				if err := call(); err != nil {
					b.Error(err)
					return
				}
				times[w] = append(times[w], time.Since(began))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(times...)
	slices.Sort(all)
	ms := func(part float64) float64 {
		return float64(all[int(float64(len(all)-1)*part)].Microseconds()) / 1000
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(ms(1), "max-ms")
}

// BenchmarkUpdate measures the rate with 1, 64 and 256 writers.
func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := newBenchStore(b)
			defer mustClose(b, s.db)
			run(b, writers, 0, s.update)
			st := s.db.Stats()
			b.ReportMetric(float64(st.Commits)/float64(st.Groups), "per-group")
		})
	}
}

// BenchmarkOffered measures the latency at 5,000 updates a second.
func BenchmarkOffered(b *testing.B) {
	s := newBenchStore(b)
	defer mustClose(b, s.db)
	run(b, 256, 5000, s.update)
}

// BenchmarkNaive is the same work on Badger alone, with SyncWrites and conflict detection.
func BenchmarkNaive(b *testing.B) {
	for _, writers := range []int{1, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			db, err := badger.Open(badger.DefaultOptions(b.TempDir()).WithSyncWrites(true).WithLogger(nil))
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			load := db.NewWriteBatch()
			for i := range benchKeys {
				if err := load.Set(Tuple("dev", uint64(i)), randomDoc(i)); err != nil {
					b.Fatal(err)
				}
			}
			if err := load.Flush(); err != nil {
				b.Fatal(err)
			}
			var position atomic.Uint64
			run(b, writers, 0, func() error {
				k := uint64(rand.IntN(benchKeys))
				for {
					err := db.Update(func(txn *badger.Txn) error {
						key := Tuple("dev", k)
						item, err := txn.Get(key)
						if err != nil {
							return err
						}
						v, err := item.ValueCopy(nil)
						if err != nil {
							return err
						}
						old := v[0]
						v[8+rand.IntN(900)]++
						v[0] = byte(rand.IntN(8))
						return errors.Join(
							txn.Set(key, v),
							txn.Delete(Tuple("kind", uint64(old), k)),
							txn.Set(Tuple("kind", uint64(v[0]), k), []byte{1}),
							txn.Set(Tuple("history", k, uint64(time.Now().UnixNano())), v[:150]),
							txn.Set(Tuple("log", position.Add(1)), v[:100]),
						)
					})
					if !errors.Is(err, badger.ErrConflict) {
						return err
					}
				}
			})
		})
	}
}

func randomDoc(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 2))
	v := make([]byte, 0, 1000)
	v = append(v, byte(i%8))
	for len(v) < 955 {
		v = fmt.Appendf(v, `"property%d":%d,`, r.IntN(20), r.IntN(1000))
	}
	return v[:955]
}
