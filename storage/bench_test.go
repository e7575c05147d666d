package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rawDoc is a document that is already bytes, so that the benchmark measures the store.
type rawCodec struct{}

func (rawCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (rawCodec) Decode(b []byte) ([]byte, error)             { return slices.Clone(b), nil }

// BenchmarkUpdate is a durable read-modify-write of a 1 KB document with an index entry, a history
// row and a log entry, by 1, 64 and 256 writers.
func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			o := testOptions(b, b.TempDir())
			db := mustOpen(b, o, osFS{}, tuning{})
			defer mustClose(b, db)
			const keys = 20_000
			tab := NewTable("docs", 1, Codec[[]byte](rawCodec{}), Index[[]byte]{Name: "kind", Keys: func(_ Key, v []byte) []Key {
				return []Key{Tuple(uint64(v[0]))}
			}})
			hist := NewTable("history", 1, Codec[[]byte](rawCodec{}))
			log := changes()
			load := func(yield func(func(tx *Tx) error) bool) {
				for i := range keys {
					if !yield(func(tx *Tx) error { return tab.Put(tx, Tuple("dev", uint64(i)), randomDoc(i)) }) {
						return
					}
				}
			}
			if err := db.BulkLoad(context.Background(), load); err != nil {
				b.Fatal(err)
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			times := make([][]time.Duration, writers)
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						k := rand.IntN(keys)
						began := time.Now()
						err := db.Update(context.Background(), func(tx *Tx) error {
							key := Tuple("dev", uint64(k))
							v, err := tab.Get(tx, key)
							if err != nil {
								return err
							}
							v[8+rand.IntN(900)]++
							v[0] = byte(rand.IntN(8))
							if err := tab.Put(tx, key, v); err != nil {
								return err
							}
							now := uint64(tx.Now().UnixNano())
							if err := hist.Put(tx, Tuple("dev", uint64(k), now), v[:150]); err != nil {
								return err
							}
							return log.Append(tx, v[:100])
						})
						if err != nil {
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
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			s := db.Stats()
			b.ReportMetric(float64(s.Commits)/float64(s.Groups), "per-group")
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
