package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// Key is an encoded tuple. Comparing keys as bytes compares the tuples part by part.
type Key []byte

// The type tags. Each encoded part is prefix-free: no part is the beginning of another, so a
// tuple sorts before every tuple that continues it, and ("a", "b") never meets ("ab").
const (
	tagBytes  = 0x01
	tagString = 0x02
	tagInt    = 0x03
	tagUint   = 0x04
	tagTime   = 0x05
	tagFalse  = 0x06
	tagTrue   = 0x07
)

// Tuple encodes parts of the types string, []byte, uint64, int64 (also int), time.Time and bool
// so that the order of the bytes is the order of the parts. Times keep nanoseconds and sort from
// 1677 to 2262. Any other type is a programming error and panics.
func Tuple(parts ...any) Key {
	k := make(Key, 0, 16*len(parts))
	for _, p := range parts {
		switch v := p.(type) {
		case string:
			k = appendText(k, tagString, v)
		case []byte:
			k = appendText(k, tagBytes, v)
		case uint64:
			k = binary.BigEndian.AppendUint64(append(k, tagUint), v)
		case int64:
			k = binary.BigEndian.AppendUint64(append(k, tagInt), uint64(v)^(1<<63))
		case int:
			k = binary.BigEndian.AppendUint64(append(k, tagInt), uint64(int64(v))^(1<<63))
		case time.Time:
			k = binary.BigEndian.AppendUint64(append(k, tagTime), uint64(v.UnixNano())^(1<<63))
		case bool:
			if v {
				k = append(k, tagTrue)
			} else {
				k = append(k, tagFalse)
			}
		default:
			panic(fmt.Sprintf("storage: a tuple part is a string, []byte, uint64, int64, time.Time or bool, not %T", p))
		}
	}
	return k
}

// appendText writes 0x00 as 0x00 0xFF and ends with 0x00 0x00, which keeps the order.
func appendText[T string | []byte](k Key, tag byte, s T) Key {
	k = append(k, tag)
	for i := range len(s) {
		k = append(k, s[i])
		if s[i] == 0 {
			k = append(k, 0xFF)
		}
	}
	return append(k, 0, 0)
}

// Parts decodes the tuple. Its parts have the types that Tuple takes; times are UTC.
func (k Key) Parts() ([]any, error) {
	var parts []any
	for b := []byte(k); len(b) > 0; {
		p, rest, err := nextPart(b)
		if err != nil {
			return nil, fmt.Errorf("key %x at byte %d: %w", []byte(k), len(k)-len(b), err)
		}
		parts, b = append(parts, p), rest
	}
	return parts, nil
}

func nextPart(b []byte) (part any, rest []byte, err error) {
	tag, b := b[0], b[1:]
	switch tag {
	case tagFalse, tagTrue:
		return tag == tagTrue, b, nil
	case tagBytes, tagString:
		var text []byte
		for {
			i := bytes.IndexByte(b, 0)
			if i < 0 || i+1 >= len(b) {
				return nil, nil, fmt.Errorf("%w: a text has no end", ErrCorrupt)
			}
			text = append(text, b[:i]...)
			switch end := b[i+1]; end {
			case 0:
				if tag == tagString {
					return string(text), b[i+2:], nil
				}
				return append([]byte{}, text...), b[i+2:], nil
			case 0xFF:
				text = append(text, 0)
				b = b[i+2:]
			default:
				return nil, nil, fmt.Errorf("%w: byte %#x after a zero in a text", ErrCorrupt, end)
			}
		}
	case tagInt, tagUint, tagTime:
		if len(b) < 8 {
			return nil, nil, fmt.Errorf("%w: a number is cut short", ErrCorrupt)
		}
		n, rest := binary.BigEndian.Uint64(b), b[8:]
		switch tag {
		case tagInt:
			return int64(n ^ (1 << 63)), rest, nil
		case tagTime:
			return time.Unix(0, int64(n^(1<<63))).UTC(), rest, nil
		}
		return n, rest, nil
	}
	return nil, nil, fmt.Errorf("%w: unknown part type %#x", ErrCorrupt, tag)
}
