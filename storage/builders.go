package storage

import (
	"reflect"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/ristretto/v2/z"
)

// builders bounds the memory that Badger keeps for its table builders. Each builds its table in an
// allocator that doubles its memory as it needs more and gives none back, and up to eight of these
// wait in a pool for the next builders, which take the one that has waited longest: so the flush of
// a memtable, whose table is many times larger than one of a compaction, gets a small allocator and
// makes a large one of it, and in the end all of them are as large as a flush needs. Badger lets go
// of them only after seconds without any builder, and has no option for it.
//
// So the pool's allocators are looked at now and then, by ristretto's exported means. Badger does not
// export its pool, so the field is found by reflection. Where a newer Badger has none under that name,
// nothing is bounded, and TestBuildersAreTrimmed fails.
type builders struct {
	pool  *z.AllocatorPool // nil: not found
	large uint64           // bytes; a builder of a compaction takes less
	kept  *z.Allocator     // the large one that stays; nil: none yet
	every int              // bytes written to Badger between two looks
	wrote int              // since the last one
}

const (
	// A pool has room for so many; Badger asks for it when it opens.
	pooledBuilders = 8
	// An allocator that is made because the pool is empty has a single small page.
	newBuilder = 1 << 10
)

func newBuilders(db *badger.DB, t tuning) builders {
	b := builders{large: uint64(20 * t.tableSize), every: int(t.memTable / 4)}
	f := reflect.ValueOf(db).Elem().FieldByName("allocPool")
	if f.IsValid() && f.Type() == reflect.TypeFor[*z.AllocatorPool]() {
		b.pool = (*z.AllocatorPool)(f.UnsafePointer())
	}
	return b
}

// settled counts what was written to Badger. Memtables fill in proportion to it, so the pool is
// looked at some times for each flush, and is left to Badger's own clock while hardly anything is
// written. It must not be called once Badger closes.
func (b *builders) settled(writes []pair) {
	for i := range writes {
		b.wrote += len(writes[i].key) + len(writes[i].value)
	}
	if b.wrote >= b.every {
		b.wrote = 0
		b.trim()
	}
}

// trim lets go of the large allocators in the pool, but for one that stays the same, since memtables
// are flushed one after another. While a compaction uses that one, no other takes its place: else
// there would be as many in the end as tables that a compaction builds at once. A builder that asks
// for an allocator while this runs gets a new one.
func (b *builders) trim() {
	if b.pool == nil {
		return
	}
	if b.kept != nil && z.AllocatorFrom(b.kept.Ref) != b.kept {
		b.kept = nil // Badger has let go of it
	}
	var stay []*z.Allocator
	for range pooledBuilders {
		a := b.pool.Get(1, "trim")
		size := a.Allocated()
		if size <= newBuilder {
			a.Release()
			break
		}
		if size > b.large {
			if b.kept == nil {
				b.kept = a
			}
			if a != b.kept {
				a.Release()
				continue
			}
		}
		stay = append(stay, a)
	}
	for _, a := range stay {
		b.pool.Return(a)
	}
}
