package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Every value in Badger is framed: a frame version, the version that the owner of the key gave
// it, the length of the payload and a CRC-32C over the key and all of that. Badger returns an
// empty value without an error when it cannot read one, and its block checksums do not cover
// what lies in a memtable; the frame finds both, and a value under a foreign key.
const (
	frameVersion = 1
	frameHeader  = 10
)

// sequence 1 of the frame: [0] frame version, [1] owner's version, [2:6] length, [6:10] checksum.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginFrame starts a framed value; the payload is appended to what it returns.
func beginFrame(dst []byte, version byte) []byte {
	return append(dst, frameVersion, version, 0, 0, 0, 0, 0, 0, 0, 0)
}

// endFrame fills in length and checksum of a frame that starts at b[0].
func endFrame(key, b []byte) []byte {
	binary.LittleEndian.PutUint32(b[2:], uint32(len(b)-frameHeader))
	binary.LittleEndian.PutUint32(b[6:], frameSum(key, b))
	return b
}

func frameSum(key, b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, b[:6])
	return crc32.Update(sum, castagnoli, b[frameHeader:])
}

// frame makes a whole framed value.
func frame(key []byte, version byte, payload []byte) []byte {
	b := beginFrame(make([]byte, 0, frameHeader+len(payload)), version)
	return endFrame(key, append(b, payload...))
}

// unframe checks a value and returns the owner's version and the payload, which aliases b.
func unframe(key, b []byte) (version byte, payload []byte, err error) {
	switch {
	case len(b) < frameHeader:
		return 0, nil, badValue(key, "the value has %d bytes, at least %d are expected", len(b), frameHeader)
	case b[0] > frameVersion:
		return 0, nil, fmt.Errorf("%w: the value of %q has frame version %d, this program knows %d",
			ErrNewerFormat, key, b[0], frameVersion)
	case b[0] != frameVersion:
		return 0, nil, badValue(key, "frame version %d", b[0])
	case int(binary.LittleEndian.Uint32(b[2:])) != len(b)-frameHeader:
		return 0, nil, badValue(key, "the payload has %d bytes, %d are expected",
			len(b)-frameHeader, binary.LittleEndian.Uint32(b[2:]))
	case binary.LittleEndian.Uint32(b[6:]) != frameSum(key, b):
		return 0, nil, badValue(key, "the checksum does not match")
	}
	return b[1], b[frameHeader:], nil
}

// badValue is the error for a value that is not what was written.
func badValue(key []byte, format string, args ...any) error {
	return fmt.Errorf("%w: key %q: %s; run `muster verify --data DIR` for the extent, then restore a backup or run `muster repair --data DIR`",
		ErrCorrupt, key, fmt.Sprintf(format, args...))
}
