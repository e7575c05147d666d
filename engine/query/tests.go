package query

import "time"

// constantTest passes all rows or none.
type constantTest bool

func (t constantTest) filter(b *block) {
	if !t {
		clear(b.bits)
	}
}

// identityTest is a test on rows' ids.
type identityTest struct {
	columnTest
	store *store
	ords  []uint32 // of the ids that pass, when they are known
}

// find looks the ids up.
func (t *identityTest) find() {
	t.ords = []uint32{}
	for _, v := range t.equals {
		if v.kind == String {
			if ord, ok := t.store.find(v.text); ok {
				t.ords = append(t.ords, ord)
			}
		}
	}
}

func (t *identityTest) filter(b *block) {
	if t.equals != nil {
		b.only(t.ords)
		return
	}
	base := b.base() - b.from
	b.keep(func(at uint32) bool { return t.judge(Value{kind: String, text: t.store.ids.at(base + at)}) })
}

// rowTest evaluates an expression row by row.
type rowTest struct {
	program *program
	want    bool
	now     time.Time
	row     columnRow
}

func (t *rowTest) filter(b *block) {
	base := b.base() - b.from
	b.keep(func(at uint32) bool { return t.pass(base + at) })
}

func (t *rowTest) pass(ord uint32) bool {
	t.row.ord = ord
	got := t.program.eval(&t.row, t.now)
	return got.kind == Bool && got.Bool() == t.want
}
