package query

// Builder loads the first rows of Columns quickly. While it is open, changes wait.
type Builder struct {
	columns *Columns
	waiting []Change
}

// Loader is one goroutine's part of a Builder.
type Loader struct {
	builder *Builder
	store   *store
}

// Build begins to load rows: all that were there before are forgotten, and what
// Apply is given waits until Done. Take the snapshot that is loaded after Build
// returned; changes that are in it already do no harm. The columns are not to be
// queried before Done.
func (c *Columns) Build() *Builder {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.builder = &Builder{columns: c}
	return c.builder
}

// Loader returns a loader; each goroutine needs its own. Safe for concurrent use.
func (b *Builder) Loader() *Loader { return &Loader{builder: b, store: newStore(b.columns.options)} }

// Add loads a row. No id may come twice, in whatever loader.
func (l *Loader) Add(id string, fields []Field) {
	l.store.apply(&Change{ID: id, Fields: fields})
}

// Done puts the rows of all loaders together, then applies what waited. The
// loaders must not be used any more.
func (b *Builder) Done() {}
