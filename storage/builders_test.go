package storage

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/ristretto/v2/z"
)

// pooled empties a pool and returns the sizes of what was in it, in KiB.
func pooled(pool *z.AllocatorPool) (sizes []int) {
	for {
		size := pool.Get(1, "test").Allocated()
		if size <= newBuilder {
			return sizes
		}
		sizes = append(sizes, int(size>>10))
	}
}

func TestOneLargeBuilderIsKept(t *testing.T) {
	pool := z.NewAllocatorPool(pooledBuilders)
	defer pool.Release()
	b := builders{pool: pool, large: 2048 << 10}
	check := func(when string, want ...int) {
		t.Helper()
		b.trim()
		if got := pooled(pool); !slices.Equal(got, want) {
			t.Errorf("%s, builders of %d KiB stay; expected %d", when, got, want)
		}
	}
	fill := func(list ...*z.Allocator) {
		for _, a := range list {
			pool.Return(a)
		}
	}
	sized := func(kib int) *z.Allocator { return z.NewAllocator(kib<<10, "test") }
	check("of none")
	fill(sized(256), sized(2048), sized(512))
	check("of small ones", 256, 2048, 512)
	first := sized(8192)
	fill(first, sized(256), sized(4096), sized(8192))
	check("of three large ones", 8192, 256)
	fill(sized(4096), sized(256), sized(16384))
	check("while the one that stays is in use", 256)
	fill(sized(4096), first)
	check("when that one is back", 8192)
	first.Release()
	fill(sized(4096), sized(4096))
	check("when that one is gone for good", 4096)
	fill(sized(4096), sized(4096), sized(4096), sized(4096), sized(4096), sized(4096), sized(4096), sized(4096))
	check("of a full pool, while the one that stays is in use")
}

// TestBuildersAreTrimmed fails where a release of Badger keeps its builders elsewhere.
func TestBuildersAreTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
		defer mustClose(t, db)
		pool := db.builders.pool
		if pool == nil {
			t.Fatal("Badger's pool of builders was not found; look for the field in its DB, and see builders.go")
		}
		const size = 8 << 10 // KiB; no builder of a store with small memtables is as large
		for range 4 {
			pool.Return(z.NewAllocator(size<<10, "test"))
		}
		tab := docs()
		for i := range 16 {
			update(t, db, func(tx *Tx) error { return tab.Put(tx, Tuple(i), doc{Text: strings.Repeat("x", 8<<10)}) })
		}
		time.Sleep(time.Second) // less than the pool's own clock needs to let go of one
		synctest.Wait()
		large := slices.DeleteFunc(pooled(pool), func(n int) bool { return n < size })
		if len(large) != 1 {
			t.Errorf("of 4 large builders, %d are left after half a memtable was written; expected 1", len(large))
		}
	})
}
