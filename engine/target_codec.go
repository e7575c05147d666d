package engine

import (
	"encoding/binary"
	"errors"
)

// targetCodec stores a block's ids each by what differs from the one before:
// those of a fleet are alike, and a large job has a million.
type targetCodec struct{}

// Append implements storage.Codec.
func (targetCodec) Append(dst []byte, block targetBlock) ([]byte, error) {
	dst = binary.AppendUvarint(dst, uint64(len(block)))
	last := ""
	for _, id := range block {
		n := 0
		for n < len(last) && n < len(id.DeviceID) && last[n] == id.DeviceID[n] {
			n++
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		dst = appendText(dst, id.DeviceID[n:])
		dst = appendText(dst, id.ModuleID)
		last = id.DeviceID
	}
	return dst, nil
}

// Decode implements storage.Codec.
func (targetCodec) Decode(b []byte) (targetBlock, error) {
	d := binaryReader{b: b}
	n := d.small()
	block := make(targetBlock, 0, min(n, targetBlockSize))
	last := ""
	for range n {
		same := d.small()
		if d.bad || same > len(last) {
			return nil, errTargetBlock
		}
		last = last[:same] + d.text()
		block = append(block, TwinID{last, d.text()})
	}
	if d.bad || len(d.b) != 0 {
		return nil, errTargetBlock
	}
	return block, nil
}

var errTargetBlock = errors.New("block of targets is cut short")
