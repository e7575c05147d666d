package query

import (
	bytesof "encoding/binary" // binary is an expression
	"hash/maphash"
	"math"
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
	index   table
	arrays  map[uint32]Value
	seed    maphash.Seed
	numbers int // entries that are numbers
	live    int // entries in use
	bytes   int64
	changes uint64 // counts entries that came
	free    []uint32
	retired []retired // in order of when
}

// entry is a value: a String's text, a Number's eight bytes, an Array's JSON.
type entry struct {
	text  string
	count uint32 // rows that have it
	kind  Kind
}

// retired is a code whose entry no row has, but which a query may have seen.
type retired struct {
	code uint32
	when uint64
}

const entryBytes = 24

func newDictionary() dictionary {
	return dictionary{
		seed: maphash.MakeSeed(),
		entries: []entry{
			codeUndefined: {kind: Undefined}, codeNull: {kind: Null}, codeFalse: {kind: Bool},
			codeTrue: {kind: Bool}, codeObject: {kind: Object},
		},
	}
}

func (d *dictionary) hash(kind Kind, text string) uint64 {
	return (maphash.String(d.seed, text) + uint64(kind)) * 0x9e3779b97f4a7c15
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
		e := &d.entries[code]
		return e.text == text && e.kind == kind
	})
}

// take returns the code of a value, which has one more row now.
func (d *dictionary) take(v Value) uint32 {
	var text string
	var b [8]byte
	switch v.kind {
	case Number:
		// The text is made only for an entry that is new.
		hash := d.hash(Number, string(putNumber(&b, v.number)))
		code, ok := d.index.find(hash, func(code uint32) bool {
			e := &d.entries[code]
			return e.kind == Number && e.text == string(b[:])
		})
		if !ok {
			return d.insert(hash, v, string(b[:]), 1)
		}
		d.entries[code].count++
		return code
	case String:
		text = v.text
	case Array:
		text = string(v.AppendJSON(nil))
	default:
		code, _ := d.find(v)
		if code != codeUndefined { // which most rows are, in most columns
			d.entries[code].count++
		}
		return code
	}
	hash := d.hash(v.kind, text)
	if code, ok := d.search(hash, v.kind, text); ok {
		d.entries[code].count++
		return code
	}
	switch v.kind {
	case String:
		text = strings.Clone(text) // else it would keep the document that it came in
	case Array:
		v = v.clone()
	}
	return d.insert(hash, v, text, 1)
}

// insert makes an entry that is not there.
func (d *dictionary) insert(hash uint64, v Value, text string, count uint32) uint32 {
	e := entry{text: text, count: count, kind: v.kind}
	var code uint32
	if n := len(d.free); n > 0 {
		code = d.free[n-1]
		d.free = d.free[:n-1]
		d.entries[code] = e
	} else {
		code = uint32(len(d.entries))
		d.entries = append(d.entries, e)
	}
	before := d.index.bytes()
	d.index.add(hash, code)
	d.bytes += d.index.bytes() - before + entryCost(&e)
	switch v.kind {
	case Number:
		d.numbers++
	case Array:
		if d.arrays == nil {
			d.arrays = map[uint32]Value{}
		}
		d.arrays[code] = v
	}
	d.live++
	d.changes++
	return code
}

func entryCost(e *entry) int64 {
	n := entryBytes + (int64(len(e.text))+15)&^15
	if e.kind == Array {
		n += 8 * int64(len(e.text)) // as a Value
	}
	return n
}

// give says that one row less has a code. When it was the last one, the code is
// free once no query that began before now is running.
func (d *dictionary) give(code uint32, now uint64) {
	if code == codeUndefined {
		return
	}
	e := &d.entries[code]
	e.count--
	if e.count > 0 || code < firstCode {
		return
	}
	d.index.remove(d.hash(e.kind, e.text), code)
	d.live--
	if e.kind == Number {
		d.numbers--
	}
	d.retired = append(d.retired, retired{code, now})
}

// reclaim frees the codes that were retired before a time.
func (d *dictionary) reclaim(before uint64) {
	n := 0
	for n < len(d.retired) && d.retired[n].when < before {
		code := d.retired[n].code
		d.bytes -= entryCost(&d.entries[code])
		delete(d.arrays, code)
		d.entries[code] = entry{}
		d.free = append(d.free, code)
		n++
	}
	if n > 0 {
		d.retired = append(d.retired[:0], d.retired[n:]...)
	}
}

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
	switch e := &d.entries[code]; e.kind {
	case String:
		return Value{kind: String, text: e.text}
	case Number:
		return NumberValue(entryNumber(e))
	default:
		return d.arrays[code]
	}
}

func entryNumber(e *entry) float64 {
	var b [8]byte
	copy(b[:], e.text)
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
		if e := &d.entries[c.code()]; e.kind == Number {
			return numberCell(entryNumber(e))
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
