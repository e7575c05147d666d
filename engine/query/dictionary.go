package query

import (
	bytesof "encoding/binary" // binary is an expression
	"hash/maphash"
	"math"
	"slices"
	"strings"
)

// cell is what a row has in a column: the bits of a number, or a NaN that carries
// a code. JSON has no NaN, so that none is mistaken.
type cell uint64

const boxed = 0xfff8 << 48

// The codes that every dictionary has.
const (
	codeUndefined uint32 = iota
	codeNull
	codeFalse
	codeTrue
	codeObject // what is in it stands in the columns below
	firstCode  // of values
)

func codeCell(code uint32) cell { return boxed | cell(code) }
func numberCell(f float64) cell { return cell(math.Float64bits(f)) }
func (c cell) coded() bool      { return c>>48 == boxed>>48 }
func (c cell) code() uint32     { return uint32(c) }
func (c cell) number() float64  { return math.Float64frombits(uint64(c)) }

// dictionary gives the distinct values of a column their codes, and forgets
// those that no row has.
type dictionary struct {
	entries []entry // by code
	texts   arena
	index   table
	arrays  map[uint32]Value
	spread  int64 // bytes of arrays
	seed    maphash.Seed
	numbers int    // entries that are numbers
	live    int    // entries in use
	changes uint64 // counts entries that came
	last    uint32 // taken, of values
	free    []uint32
	retired []retired // in order of when
}

// entry is a value. Its text is a String's, a Number's eight bytes, or an Array's
// JSON.
type entry struct {
	place   uint32 // of the text
	counted uint32 // rows that have it, and in the lower bits its kind
}

const (
	kindBits = 3
	oneRow   = 1 << kindBits
)

func newEntry(kind Kind, place, count uint32) entry {
	return entry{place, count<<kindBits | uint32(kind)}
}

func (e entry) kind() Kind    { return Kind(e.counted & (oneRow - 1)) }
func (e entry) count() uint32 { return e.counted >> kindBits }

// retired is a code whose entry no row has, but which a query may have seen.
type retired struct {
	code uint32
	when uint64
}

func newDictionary() dictionary {
	return dictionary{
		seed: maphash.MakeSeed(),
		entries: []entry{
			codeUndefined: newEntry(Undefined, noPlace, 0), codeNull: newEntry(Null, noPlace, 0),
			codeFalse: newEntry(Bool, noPlace, 0), codeTrue: newEntry(Bool, noPlace, 0),
			codeObject: newEntry(Object, noPlace, 0),
		},
	}
}

func (d *dictionary) hash(kind Kind, text string) uint64 {
	return (maphash.String(d.seed, text) + uint64(kind)) * 0x9e3779b97f4a7c15
}

// hashes gives the hash of each value that some row has. It goes through the codes,
// whose texts mostly lie in their order.
func (d *dictionary) hashes(yield func(code uint32, hash uint64)) {
	for code := int(firstCode); code < len(d.entries); code++ {
		if e := d.entries[code]; e.count() > 0 {
			yield(uint32(code), d.hash(e.kind(), d.texts.text(e.place)))
		}
	}
}

// bytes is what the dictionary takes.
func (d *dictionary) bytes() int64 {
	return d.texts.size() + d.index.bytes() + d.spread + int64(cap(d.entries))*8 + int64(cap(d.free))*4 + int64(cap(d.retired))*16
}

// find returns the code of a value that some row has.
func (d *dictionary) find(v Value) (uint32, bool) {
	switch v.kind {
	case Undefined:
		return codeUndefined, true
	case Null:
		return codeNull, true
	case Bool:
		if v.Bool() {
			return codeTrue, true
		}
		return codeFalse, true
	case Object:
		return codeObject, true
	case Number:
		var b [8]byte
		return d.lookup(Number, string(putNumber(&b, v.number)))
	case Array:
		return d.lookup(Array, string(v.AppendJSON(nil)))
	}
	return d.lookup(String, v.text)
}

func putNumber(b *[8]byte, f float64) []byte {
	bytesof.LittleEndian.PutUint64(b[:], math.Float64bits(f))
	return b[:]
}

func (d *dictionary) lookup(kind Kind, text string) (uint32, bool) {
	return d.search(d.hash(kind, text), kind, text)
}

func (d *dictionary) search(hash uint64, kind Kind, text string) (uint32, bool) {
	return d.index.find(hash, func(code uint32) bool {
		e := d.entries[code]
		return e.kind() == kind && d.texts.text(e.place) == text
	})
}

// take returns the code of a value, which has one more row now.
func (d *dictionary) take(v Value) uint32 {
	var text string
	var b [8]byte
	switch v.kind {
	case Number:
		// The text is made only for an entry that is new.
		if d.again(Number, string(putNumber(&b, v.number))) {
			return d.last
		}
		hash := d.hash(Number, string(putNumber(&b, v.number)))
		code, ok := d.index.find(hash, func(code uint32) bool {
			e := d.entries[code]
			return e.kind() == Number && d.texts.text(e.place) == string(b[:])
		})
		if !ok {
			return d.insert(hash, v, string(b[:]), 1)
		}
		d.entries[code].counted += oneRow
		d.last = code
		return code
	case String:
		text = v.text
	case Array:
		text = string(v.AppendJSON(nil))
	default:
		code, _ := d.find(v)
		if code != codeUndefined { // which most rows are, in most columns
			d.entries[code].counted += oneRow
		}
		return code
	}
	if d.again(v.kind, text) {
		return d.last
	}
	hash := d.hash(v.kind, text)
	if code, ok := d.search(hash, v.kind, text); ok {
		d.entries[code].counted += oneRow
		d.last = code
		return code
	}
	if v.kind == Array {
		v = v.clone() // else it would keep the document that it came in
	}
	return d.insert(hash, v, text, 1)
}

// again reports whether a value is that of the row before, as it is in many
// columns, and counts it then: that is quicker than a search.
func (d *dictionary) again(kind Kind, text string) bool {
	e := d.entries[d.last]
	if e.kind() != kind || e.count() == 0 || d.texts.text(e.place) != text {
		return false
	}
	d.entries[d.last].counted += oneRow
	return true
}

// insert makes an entry that is not there.
func (d *dictionary) insert(hash uint64, v Value, text string, count uint32) uint32 {
	code := uint32(len(d.entries))
	if n := len(d.free); n > 0 {
		code = d.free[n-1]
		d.free = d.free[:n-1]
	} else {
		d.entries = append(d.entries, entry{})
	}
	d.index.add(hash, code, d.hashes) // before the entry counts, else it might be put in twice
	d.entries[code] = newEntry(v.kind, d.texts.add(text), count)
	switch v.kind {
	case Number:
		d.numbers++
	case Array:
		if d.arrays == nil {
			d.arrays = map[uint32]Value{}
		}
		d.arrays[code] = v
		d.spread += arrayCost(text)
	}
	d.live++
	d.changes++
	d.last = code
	return code
}

// arrayCost is what an array takes as a Value, roughly.
func arrayCost(text string) int64 { return 8 * int64(len(text)) }

// give says that one row less has a code. When it was the last one, the code is
// free once no query that began before now is running.
func (d *dictionary) give(code uint32, now uint64) {
	if code == codeUndefined {
		return
	}
	e := &d.entries[code]
	e.counted -= oneRow
	if e.count() > 0 || code < firstCode {
		return
	}
	d.index.remove(d.hash(e.kind(), d.texts.text(e.place)), code)
	d.live--
	if e.kind() == Number {
		d.numbers--
	}
	d.retired = append(d.retired, retired{code, now})
}

// reclaim frees the codes that were retired before a time, and moves together
// what is left of the texts where few are.
func (d *dictionary) reclaim(before uint64) {
	n := 0
	for n < len(d.retired) && d.retired[n].when < before {
		code := d.retired[n].code
		e := d.entries[code]
		if e.kind() == Array {
			d.spread -= arrayCost(d.texts.text(e.place))
			delete(d.arrays, code)
		}
		d.texts.remove(e.place)
		d.entries[code] = newEntry(Undefined, noPlace, 0)
		d.free = append(d.free, code)
		n++
	}
	d.retired = slices.Delete(d.retired, 0, n)
	if len(d.texts.thin) == 0 {
		return
	}
	waiting := make(map[uint32]uint32, len(d.retired)) // codes by their places
	for _, r := range d.retired {
		waiting[d.entries[r.code].place] = r.code
	}
	d.texts.compact(func(text string, place uint32) *uint32 {
		if code, ok := waiting[place]; ok {
			return &d.entries[code].place
		}
		// A text is there once for each kind, at most.
		for _, kind := range []Kind{String, Number, Array} {
			if code, ok := d.lookup(kind, text); ok && d.entries[code].place == place {
				return &d.entries[code].place
			}
		}
		return nil
	})
}

// busy reports whether there is something to reclaim.
func (d *dictionary) busy() bool { return len(d.retired) > 0 || len(d.texts.thin) > 0 }

// value returns what a code stands for. An object comes without members.
func (d *dictionary) value(code uint32) Value {
	switch code {
	case codeUndefined:
		return Value{}
	case codeNull:
		return NullValue()
	case codeFalse, codeTrue:
		return BoolValue(code == codeTrue)
	case codeObject:
		return ObjectValue(nil)
	}
	switch e := d.entries[code]; e.kind() {
	case String:
		return Value{kind: String, text: d.texts.text(e.place)}
	case Number:
		return NumberValue(d.numberOf(e))
	default:
		return d.arrays[code]
	}
}

// numberOf returns the number that an entry is.
func (d *dictionary) numberOf(e entry) float64 {
	var b [8]byte
	copy(b[:], d.texts.text(e.place))
	return math.Float64frombits(bytesof.LittleEndian.Uint64(b[:]))
}

// cellValue returns what a cell stands for.
func (d *dictionary) cellValue(c cell) Value {
	if c.coded() {
		return d.value(c.code())
	}
	return NumberValue(c.number())
}

// plain returns a cell that is the same for the same value, whether a number is
// in the dictionary or not.
func (d *dictionary) plain(c cell) cell {
	if c.coded() && c.code() >= firstCode {
		if e := d.entries[c.code()]; e.kind() == Number {
			return numberCell(d.numberOf(e))
		}
	}
	return c
}

// clone returns a value that keeps nothing else alive.
func (v Value) clone() Value {
	v.text = strings.Clone(v.text)
	if v.items != nil {
		items := make([]Value, len(v.items))
		for i := range items {
			items[i] = v.items[i].clone()
		}
		v.items = items
	}
	if v.members != nil {
		members := make([]Member, len(v.members))
		for i, m := range v.members {
			members[i] = Member{strings.Clone(m.Key), m.Value.clone()}
		}
		v.members = members
	}
	return v
}
