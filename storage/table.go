package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"slices"
)

// Codec turns a record into bytes and back. Append adds the encoding to dst. Decode must copy
// what it keeps: b is reused. The table adds version, length and checksum.
type Codec[T any] interface {
	Append(dst []byte, v T) ([]byte, error)
	Decode(b []byte) (T, error)
}

// JSON is the codec of encoding/json.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func (jsonCodec[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// Table is a typed set of records under keys, with indexes. It holds no state: it may be a
// package-level value and is safe for concurrent use.
type Table[T any] struct {
	name    string
	version byte
	codec   Codec[T]
	prefix  []byte
	indexes []Index[T]
}

// Item is a record with its key (without the table's prefix).
type Item[T any] struct {
	Key   Key
	Value T
}

// Range selects keys, relative to the table or index. All given bounds hold together; the zero
// Range is everything.
type Range struct {
	Prefix  Key  // keys that begin with it
	Start   Key  // keys from it on, itself included
	End     Key  // keys below it
	After   Key  // keys behind it in the direction of the iteration: the last key of a page
	Reverse bool // from the highest key down
}

// NewTable declares a table. The name is part of every key; the version is that of the codec and
// is stored with every record. A name that is empty or holds '/' or zero panics.
func NewTable[T any](name string, version byte, codec Codec[T], indexes ...Index[T]) *Table[T] {
	checkName("table", name)
	t := &Table[T]{name: name, version: version, codec: codec, prefix: tablePrefix(name), indexes: slices.Clone(indexes)}
	for i := range t.indexes {
		checkName("index", t.indexes[i].Name)
		t.indexes[i].prefix = indexPrefix(name, t.indexes[i].Name)
	}
	return t
}

func (t *Table[T]) raw(key Key) []byte {
	return append(append(make([]byte, 0, len(t.prefix)+len(key)), t.prefix...), key...)
}

// Get returns the record, or ErrNotFound.
func (t *Table[T]) Get(r Reader, key Key) (T, error) {
	raw := t.raw(key)
	value, err := r.get(raw)
	if err != nil {
		var zero T
		if errors.Is(err, ErrNotFound) {
			return zero, fmt.Errorf("%s: %w", t.name, ErrNotFound)
		}
		return zero, err
	}
	v, err := t.decode(raw, value)
	if tx, ok := r.(*Tx); ok && err == nil && len(t.indexes) > 0 {
		t.remember(tx, raw, key, v)
	}
	return v, err
}

// Has reports whether there is a record, without decoding it.
func (t *Table[T]) Has(r Reader, key Key) (bool, error) {
	_, err := r.get(t.raw(key))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Preload has the record cache take over the records of a table, in the order of their keys, until
// a quarter of it is taken or ctx ends. After a start that is for what everybody is about to ask for: to
// go through a table costs each record a small part of what finding it by itself does.
func (t *Table[T]) Preload(ctx context.Context, db *DB) error {
	return db.View(ctx, func(r Reader) error { return r.(*snapshot).preload(ctx, t.prefix) })
}

// Unchanged reports whether certainly nothing was written under key since a sequence that
// SequenceOf gave, and then makes the transaction depend on it, as Get does, for much less than
// reading the record. false says nothing: the store only remembers lately written keys, by their
// hashes.
func (t *Table[T]) Unchanged(tx *Tx, key Key, since uint64) bool {
	raw := t.raw(key)
	hash := hashKey(tx.db.hash, raw)
	if tx.ended || since == 0 || tx.find(raw) >= 0 || tx.db.recent.after(hash, since) {
		return false
	}
	// What is written from now on may be younger than the snapshot, and is found at the commit.
	tx.reads = append(tx.reads, hash)
	return true
}

// remember notes the index entries of a record that was read, since Put and Delete need them:
// the caller may change what v points to, and decoding the record again costs more.
func (t *Table[T]) remember(tx *Tx, raw []byte, key Key, v T) {
	if k := tx.recall(raw); k != nil && !k.indexed && tx.find(raw) < 0 {
		k.entries, k.indexed = t.entriesOf(key, v), true
	}
}

// A record's payload is the number of its index entries, the sum of the checksums of their keys
// when there are any (Verify adds both up and compares them with the entries that exist), and
// the codec's bytes.
func (t *Table[T]) decode(raw, value []byte) (v T, err error) {
	version, payload, err := unframe(raw, value)
	if err != nil {
		return v, err
	}
	if version > t.version {
		return v, fmt.Errorf("%w: a record of %s has version %d, this program knows %d", ErrNewerFormat, t.name, version, t.version)
	}
	_, _, body, ok := splitRecord(payload)
	if !ok || version != t.version {
		return v, badValue(raw, "a record of %s has version %d (%d is expected) or is cut short", t.name, version, t.version)
	}
	if v, err = t.codec.Decode(body); err != nil {
		return v, badValue(raw, "a record of %s cannot be decoded: %v", t.name, err)
	}
	return v, nil
}

func splitRecord(payload []byte) (entries, sum uint32, body []byte, ok bool) {
	n, w := binary.Uvarint(payload)
	if w <= 0 || n > 1<<31 {
		return 0, 0, nil, false
	}
	payload = payload[w:]
	if n == 0 {
		return 0, 0, payload, true
	}
	if len(payload) < 4 {
		return 0, 0, nil, false
	}
	return uint32(n), binary.LittleEndian.Uint32(payload), payload[4:], true
}

// Put writes the record and brings its index entries in line. ErrTooLarge when it is above the
// bound for a value, or the transaction above that for a group.
func (t *Table[T]) Put(tx *Tx, key Key, v T) error {
	raw := t.raw(key)
	var entries [][]byte
	if len(t.indexes) > 0 {
		old, err := t.entries(tx, raw, key)
		if err != nil {
			return err
		}
		entries = t.entriesOf(key, v)
		for _, e := range old {
			if !containsKey(entries, e) {
				if err := tx.del(e); err != nil {
					return err
				}
			}
		}
		for _, e := range entries {
			if !containsKey(old, e) {
				if err := tx.set(e, indexValue(e, len(e)-len(key))); err != nil {
					return err
				}
			}
		}
	}
	room := 256
	if k := tx.recall(raw); k != nil {
		room = len(k.value) + len(k.value)/32 // most records keep their length, about
	}
	b := beginFrame(make([]byte, 0, max(room, 256)), t.version)
	b = binary.AppendUvarint(b, uint64(len(entries)))
	if len(entries) > 0 {
		var sum uint32
		for _, e := range entries {
			sum += crc32.Checksum(e, castagnoli)
		}
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	b, err := t.codec.Append(b, v)
	if err != nil {
		return fmt.Errorf("%s: encoding a record: %w", t.name, err)
	}
	tx.puts++
	return tx.set(raw, endFrame(raw, b))
}

// Delete removes the record and its index entries. An absent key is no error.
func (t *Table[T]) Delete(tx *Tx, key Key) error {
	raw := t.raw(key)
	if len(t.indexes) == 0 {
		// Reading the record would cost more than a tombstone for one that is absent.
		return tx.del(raw)
	}
	if _, err := tx.get(raw); errors.Is(err, ErrNotFound) {
		return nil // the read is verified at the commit
	}
	old, err := t.entries(tx, raw, key)
	if err != nil {
		return err
	}
	for _, e := range old {
		if err := tx.del(e); err != nil {
			return err
		}
	}
	return tx.del(raw)
}

// entries returns the raw index keys of the record as it is stored now.
func (t *Table[T]) entries(tx *Tx, raw []byte, key Key) ([][]byte, error) {
	value, err := tx.get(raw)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if k := tx.recall(raw); k != nil && k.indexed && tx.find(raw) < 0 {
		return k.entries, nil
	}
	v, err := t.decode(raw, value)
	if err != nil {
		return nil, err
	}
	return t.entriesOf(key, v), nil
}

func (t *Table[T]) entriesOf(key Key, v T) [][]byte {
	var entries [][]byte
	for i := range t.indexes {
		for _, k := range t.indexes[i].Keys(key, v) {
			e := make([]byte, 0, len(t.indexes[i].prefix)+len(k)+len(key))
			e = append(append(append(e, t.indexes[i].prefix...), k...), key...)
			if !containsKey(entries, e) {
				entries = append(entries, e)
			}
		}
	}
	return entries
}

func containsKey(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

// Scan yields the records of a range in the order of their keys. An error ends it.
func (t *Table[T]) Scan(r Reader, g Range) iter.Seq2[Item[T], error] {
	lo, hi := g.bounds(t.prefix)
	return func(yield func(Item[T], error) bool) {
		if empty(lo, hi) {
			return
		}
		for p, err := range r.scan(lo, hi, g.Reverse) {
			if err != nil {
				yield(Item[T]{}, err)
				return
			}
			v, err := t.decode(p.key, p.value)
			if err != nil {
				yield(Item[T]{}, err)
				return
			}
			if !yield(Item[T]{Key: bytes.Clone(p.key[len(t.prefix):]), Value: v}, nil) {
				return
			}
		}
	}
}

func empty(lo, hi []byte) bool { return hi != nil && bytes.Compare(lo, hi) >= 0 }

// bounds turns a range into raw keys lo <= key < hi.
func (g Range) bounds(prefix []byte) (lo, hi []byte) {
	join := func(k Key) []byte { return append(bytes.Clone(prefix), k...) }
	lo = join(g.Prefix)
	hi = successor(lo)
	if g.Start != nil {
		lo = maxBytes(lo, join(g.Start))
	}
	upper := func(k Key) {
		if end := join(k); hi == nil || bytes.Compare(end, hi) < 0 {
			hi = end
		}
	}
	if g.End != nil {
		upper(g.End)
	}
	switch {
	case g.After != nil && g.Reverse:
		upper(g.After)
	case g.After != nil:
		lo = maxBytes(lo, append(join(g.After), 0))
	}
	return lo, hi
}

func maxBytes(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return b
	}
	return a
}
