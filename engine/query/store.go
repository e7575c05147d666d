package query

// store is what Columns guards.
type store struct{}

func newStore(ColumnOptions) *store { return &store{} }

func (s *store) apply(ch *Change) {}

func (s *store) value(id string, p Path) (Value, bool) { return Value{}, true }
