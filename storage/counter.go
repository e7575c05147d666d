package storage

import (
	"encoding/binary"
	"errors"
)

// Add changes a counter. Additions commute: they are summed in the committer and never make
// transactions conflict. A counter that was never added to is 0.
func (tx *Tx) Add(counter string, delta int64) {
	for i := range tx.adds {
		if tx.adds[i].name == counter {
			tx.adds[i].delta += delta
			return
		}
	}
	tx.adds = append(tx.adds, counterAdd{counter, delta})
	tx.size += 2*len(counter) + 32 + opOverhead
}

// Counter reads a counter. A transaction that reads one conflicts with every addition to it.
func Counter(r Reader, name string) (int64, error) {
	n, err := number(r, counterKey(name))
	if tx, ok := r.(*Tx); ok && err == nil {
		for _, a := range tx.adds {
			if a.name == name {
				n += a.delta
			}
		}
	}
	return n, err
}

// SetCursor remembers how far a reader of a log has come, in the transaction of its effects.
func (tx *Tx) SetCursor(name string, pos uint64) {
	key := cursorKey(name)
	// The two errors of set cannot occur with 8 bytes: the size is checked again at the commit.
	_ = tx.set(key, frame(key, 1, binary.BigEndian.AppendUint64(nil, pos)))
}

// Cursor reads a cursor; 0 when it was never set.
func Cursor(r Reader, name string) (uint64, error) {
	n, err := number(r, cursorKey(name))
	return uint64(n), err
}

func number(r Reader, key []byte) (int64, error) {
	value, err := r.get(key)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return decodeNumber(key, value)
}

func decodeNumber(key, value []byte) (int64, error) {
	_, payload, err := unframe(key, value)
	if err != nil {
		return 0, err
	}
	if len(payload) != 8 {
		return 0, badValue(key, "a number has %d bytes, 8 are expected", len(payload))
	}
	return int64(binary.BigEndian.Uint64(payload)), nil
}
