package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// executionCodec stores an execution as varints and texts with their length
// before them: a job writes one or two of them for each of its targets, and
// JSON takes three times as long and as much room.
type executionCodec struct{}

var errExecutionRecord = errors.New("execution record is cut short")

// The flags of an execution record.
const (
	executionAnswered = 1 << iota
	executionRanked
)

// Append implements storage.Codec.
func (executionCodec) Append(dst []byte, r executionRecord) ([]byte, error) {
	var flags byte
	if r.Answered {
		flags |= executionAnswered
	}
	if r.Rank != nil {
		flags |= executionRanked
	}
	dst = append(dst, flags)
	dst = appendText(dst, string(r.Status))
	dst = appendText(dst, r.Generation)
	dst = binary.AppendUvarint(dst, uint64(r.Wave))
	dst = appendText(dst, r.BlockedBy)
	dst = appendText(dst, r.Code)
	dst = appendText(dst, r.Message)
	for _, t := range [...]time.Time{r.Created, r.Started, r.Updated, r.Ended, r.Due} {
		dst = appendTime(dst, t)
	}
	if r.Answered {
		dst = binary.AppendVarint(dst, int64(r.AnswerCode))
		dst = appendText(dst, string(r.Answer))
	}
	dst = binary.AppendUvarint(dst, uint64(r.Attempts))
	dst = binary.AppendUvarint(dst, uint64(r.Retried))
	dst = binary.AppendUvarint(dst, uint64(len(r.Last)))
	for _, a := range r.Last {
		dst = appendText(dst, a.ID)
		dst = appendTime(dst, a.Sent)
		dst = appendTime(dst, a.Ended)
		dst = appendText(dst, string(a.Outcome))
		dst = appendText(dst, a.Code)
		dst = appendText(dst, a.Message)
		dst = binary.AppendVarint(dst, int64(a.Status))
	}
	if r.Rank != nil {
		dst = binary.AppendVarint(dst, int64(r.Rank.Priority))
		dst = appendTime(dst, r.Rank.Created)
	}
	return dst, nil
}

// appendTime adds a time in nanoseconds, the zero time as 0.
func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(dst, 0)
	}
	return binary.AppendVarint(dst, t.UnixNano())
}

// Decode implements storage.Codec.
func (executionCodec) Decode(b []byte) (executionRecord, error) {
	var r executionRecord
	if len(b) == 0 {
		return r, errExecutionRecord
	}
	d := binaryReader{b: b[1:]}
	r.Answered = b[0]&executionAnswered != 0
	r.Status = d.status()
	r.Generation = d.text()
	r.Wave = d.small()
	r.BlockedBy = d.text()
	r.Code = d.text()
	r.Message = d.text()
	for _, t := range [...]*time.Time{&r.Created, &r.Started, &r.Updated, &r.Ended, &r.Due} {
		*t = d.time()
	}
	if r.Answered {
		r.AnswerCode = int(d.varint())
		r.Answer = json.RawMessage(d.text())
	}
	r.Attempts, r.Retried = d.small(), d.small()
	n := d.small()
	if n > executionAttempts {
		return r, errors.New("execution record has more attempts than are kept")
	}
	for range n {
		a := attemptRecord{ID: d.text(), Sent: d.time(), Ended: d.time(), Outcome: d.status()}
		a.Code, a.Message, a.Status = d.text(), d.text(), int(d.varint())
		r.Last = append(r.Last, a)
	}
	if b[0]&executionRanked != 0 {
		r.Rank = &executionRank{int(d.varint()), d.time()}
	}
	switch {
	case d.bad:
		return r, errExecutionRecord
	case len(d.b) != 0:
		return r, errors.New("execution record has bytes after its end")
	}
	return r, nil
}

// binaryReader reads varints and texts; bad says that something was missing.
type binaryReader struct {
	b   []byte
	bad bool
}

func (d *binaryReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *binaryReader) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// small reads a number that fits an int32.
func (d *binaryReader) small() int {
	v := d.uvarint()
	if v > math.MaxInt32 {
		d.b, d.bad = nil, true
		return 0
	}
	return int(v)
}

func (d *binaryReader) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *binaryReader) text() string { return string(d.bytes()) }

// word reads a text that is probably one of words.
// status reads the status that most records have without memory of its own.
func (d *binaryReader) status() rollout.ExecutionStatus {
	b := d.bytes()
	switch rollout.ExecutionStatus(b) {
	case "":
		return ""
	case rollout.ExecutionSucceeded:
		return rollout.ExecutionSucceeded
	}
	return rollout.ExecutionStatus(b)
}

func (d *binaryReader) time() time.Time {
	v := d.varint()
	if v == 0 {
		return time.Time{}
	}
	return time.Unix(0, v).UTC()
}
