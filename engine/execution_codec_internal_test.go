package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

func someExecutions() []executionRecord {
	now := time.Date(2026, 11, 30, 9, 17, 40, 123456789, time.UTC)
	return []executionRecord{
		{},
		{Status: rollout.ExecutionSucceeded, Generation: "638000000000000000", Created: now, Started: now, Updated: now, Ended: now, Attempts: 1,
			Last: []attemptRecord{{ID: "j/1", Sent: now, Ended: now, Outcome: rollout.ExecutionSucceeded, Status: 200}}},
		{Status: "of a later version", Wave: 3, BlockedBy: "other", Code: "X", Message: "why", Answered: true, AnswerCode: -7, Answer: []byte(`{"a":1}`),
			Due: now, Attempts: 12, Retried: 4, Last: make([]attemptRecord, executionAttempts)},
		{Status: rollout.ExecutionWaiting, Created: now, Rank: &executionRank{Priority: -3, Created: now}},
	}
}

func TestExecutionCodec(t *testing.T) {
	var c executionCodec
	for _, r := range someExecutions() {
		b, err := c.Append([]byte{}, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Decode(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v is read as %+v, %v", r, got, err)
		}
		for n := range b {
			if _, err := c.Decode(b[:n]); err == nil {
				t.Errorf("%d of %d bytes are a record", n, len(b))
			}
		}
		if _, err := c.Decode(append(b, 0)); err == nil {
			t.Error("bytes behind a record are taken")
		}
	}
}

func FuzzExecutionCodec(f *testing.F) {
	for _, r := range someExecutions() {
		b, _ := executionCodec{}.Append(nil, r)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := executionCodec{}.Decode(b)
		if err != nil {
			return
		}
		again, _ := executionCodec{}.Append(nil, r)
		if got, err := (executionCodec{}).Decode(again); err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v, %+v, %v", r, got, err)
		}
	})
}

func TestExecutionKey(t *testing.T) {
	id := TwinID{"device/1", "m"}
	k := executionKey("job", 7, id)
	job, run, got, err := executionOfKey(k)
	if err != nil || job != "job" || run != 7 || got != id {
		t.Errorf("%s, %d, %v, %v", job, run, got, err)
	}
	if rest := k[executionRun(k):]; string(rest) != string(id.key()) {
		t.Errorf("behind the run the key is %x, want %x", rest, id.key())
	}
	for n := range k {
		if _, _, _, err := executionOfKey(k[:n]); err == nil {
			t.Errorf("%d bytes are a key", n)
		}
		executionRun(k[:n]) // must not panic
	}
}

// BenchmarkExecutionCodec compares the codec with JSON.
func BenchmarkExecutionCodec(b *testing.B) {
	r := someExecutions()[1]
	for name, c := range map[string]storage.Codec[executionRecord]{"binary": executionCodec{}, "json": storage.JSON[executionRecord]()} {
		b.Run(name, func(b *testing.B) {
			var buf []byte
			for b.Loop() {
				buf, _ = c.Append(buf[:0], r)
				if _, err := c.Decode(buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(buf)), "bytes")
		})
	}
}
