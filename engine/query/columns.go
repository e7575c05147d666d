package query

import (
	"hash/maphash"
	"slices"
	"sync"
)

// What bounds columns when ColumnOptions does not.
const (
	defaultColumns = 2000
	defaultMemory  = 1 << 30
)

// Columns holds one collection's properties, a column a path: the value of each
// row by a code of 1, 2 or 4 bytes into a dictionary, or as a float64. Rows are
// known by their id. Queries run over it while changes arrive; each row is seen
// as it stood at one moment. Safe for concurrent use.
type Columns struct {
	mu      sync.RWMutex
	store   *store
	seed    maphash.Seed
	options ColumnOptions
	builder *Builder // while rows are loaded, else nil
	running struct { // taken after mu
		sync.Mutex
		since []uint64 // the store's time when each query began
	}
}

// ColumnOptions are the bounds of Columns. Zero values are defaults.
type ColumnOptions struct {
	Memory     int64 // bytes of columns and dictionaries, at most; 1 GiB by default
	MaxColumns int   // paths with a column, at most; 2,000 by default
	// ID is the path whose value is the row's id. It needs no column.
	ID Path
	// Outside are paths of which changes never speak, with all below them: what
	// asks about them is answered from documents.
	Outside []Path
}

// Field is the value at one path of a row.
//
// Undefined removes the path and all below it, an Object takes the place of all
// that was below it, anything else is a value. What stands above the path becomes
// an object.
type Field struct {
	Path  Path
	Value Value
}

// Change is what a commit did to one row.
type Change struct {
	ID      string
	Gone    bool    // the row is no more
	Replace bool    // what is not in Fields is no more, nor is the note
	Fields  []Field // in order
	Noted   bool    // Note is the row's note from now on
	Note    uint32
}

// NewColumns returns empty columns.
func NewColumns(o ColumnOptions) *Columns {
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	if o.MaxColumns <= 0 {
		o.MaxColumns = defaultColumns
	}
	seed := maphash.MakeSeed()
	return &Columns{options: o, seed: seed, store: newStore(o, seed)}
}

// Apply takes the changes of commits, in commit order; one caller at a time. A
// query that begins after Apply returns sees them. The changes belong to the
// columns from then on: they must not be written to any more. While rows are
// loaded (Build) the changes wait until Builder.Done.
func (c *Columns) Apply(changes []Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.builder != nil {
		c.builder.waiting = append(c.builder.waiting, changes...)
		return
	}
	c.apply(changes)
}

func (c *Columns) apply(changes []Change) {
	s := c.store
	c.running.Lock()
	s.oldest = s.now + 1 // nothing that is retired by now is seen any more
	for _, since := range c.running.since {
		s.oldest = min(s.oldest, since)
	}
	c.running.Unlock()
	s.reclaim()
	for i := range changes {
		s.apply(&changes[i])
	}
	s.shrink()
}

// Value returns what a row has at a path, undefined if there is no such row or no
// such path. ok is false when the columns can't tell: the path has no column.
// Objects come without members.
func (c *Columns) Value(id string, p Path) (v Value, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.store.value(id, p)
}

// Notes returns what the last change that was Noted, or Loader.Add, said of each of some
// rows: 32 bits for who owns the columns, who need not look elsewhere for what fits in
// them. They are 0 of a row that is not there.
func (c *Columns) Notes(ids []string) []uint32 {
	notes := make([]uint32, 0, len(ids))
	for batch := range slices.Chunk(ids, selectRows/4) {
		c.mu.RLock()
		for _, id := range batch {
			note := uint32(0)
			if ord, found := c.store.find(id); found {
				note = c.store.notes[ord]
			}
			notes = append(notes, note)
		}
		c.mu.RUnlock()
	}
	return notes
}

// Has reports whether some row has a value at a path: a text, a boolean, null. Of a
// number, which may need no dictionary, or a path without a column it says no.
func (c *Columns) Has(p Path, v Value) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := c.store.locate(p)
	if l.column == nil {
		return false
	}
	code, ok := l.column.find(v)
	return ok && l.column.entries[code].count() > 0
}
