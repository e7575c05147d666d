package storage

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"
)

func TestTupleOrder(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	sorted := []Key{
		Tuple([]byte{}), Tuple([]byte{0}), Tuple([]byte{0, 1}), Tuple([]byte{1}),
		Tuple(""), Tuple("", "x"), Tuple("\x00"), Tuple("a"), Tuple("a", "b"), Tuple("a\x00"), Tuple("aa"), Tuple("ab"),
		Tuple(int64(math.MinInt64)), Tuple(int64(-1)), Tuple(0), Tuple(int64(1)), Tuple(int64(math.MaxInt64)),
		Tuple(uint64(0)), Tuple(uint64(1)), Tuple(uint64(math.MaxUint64)),
		Tuple(time.Unix(0, math.MinInt64)), Tuple(at), Tuple(at.Add(1)), Tuple(false), Tuple(true),
	}
	for i := 1; i < len(sorted); i++ {
		if bytes.Compare(sorted[i-1], sorted[i]) >= 0 {
			t.Errorf("%x is not below %x (%d)", sorted[i-1], sorted[i], i)
		}
	}
	parts, err := Tuple("a\x00b", []byte{0, 0xFF}, uint64(7), int64(-7), at, true, false).Parts()
	if err != nil || len(parts) != 7 || parts[0] != "a\x00b" || !bytes.Equal(parts[1].([]byte), []byte{0, 0xFF}) ||
		parts[2] != uint64(7) || parts[3] != int64(-7) || parts[4] != at || parts[5] != true || parts[6] != false {
		t.Errorf("%v, %v", parts, err)
	}
}

func FuzzTuple(f *testing.F) {
	f.Add([]byte(Tuple("a", []byte{0}, uint64(1), int64(-1), true)))
	f.Add([]byte{tagString, 0, 0xFE})
	f.Add([]byte{tagUint, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		parts, err := Key(b).Parts()
		if err != nil {
			return
		}
		if again := Tuple(parts...); !bytes.Equal(again, b) {
			t.Errorf("%x decodes to %v, which encodes to %x", b, parts, again)
		}
	})
}

func FuzzTupleOrder(f *testing.F) {
	f.Add("a", "b", uint64(1), uint64(2))
	f.Add("a\x00", "a", uint64(9), uint64(0))
	f.Fuzz(func(t *testing.T, a, b string, m, n uint64) {
		want := slices.Compare([]byte(a), []byte(b))
		if want == 0 && m != n {
			want = 1
			if m < n {
				want = -1
			}
		}
		if got := bytes.Compare(Tuple(a, m), Tuple(b, n)); got != want {
			t.Errorf("(%q, %d) and (%q, %d): %d, want %d", a, m, b, n, got, want)
		}
	})
}

func FuzzJournalRecord(f *testing.F) {
	body := appendOp(appendOp(make([]byte, recordHeader), []byte("k"), []byte("v")), []byte("d"), nil)
	f.Add(sealRecord(body, 7, 8))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := decodeRecord(b); ok {
			if _, err := decodeOps(r.body); err == nil && r.size > len(b) {
				t.Errorf("the record has %d bytes of %d", r.size, len(b))
			}
		}
		if len(b) > recordHeader { // the body alone, as if the checksum matched
			ops, err := decodeOps(b)
			if err != nil {
				return
			}
			var again []byte
			for _, o := range ops {
				if o.value == nil && len(o.key) == 0 {
					t.Error("an empty key")
				}
				again = appendOp(again, o.key, o.value)
			}
			if back, err := decodeOps(again); err != nil || len(back) != len(ops) {
				t.Errorf("%d operations became %d: %v", len(ops), len(back), err)
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("key"), frame([]byte("key"), 3, []byte("payload")))
	f.Fuzz(func(t *testing.T, key, b []byte) {
		version, payload, err := unframe(key, b)
		if err != nil {
			return
		}
		if !bytes.Equal(frame(key, version, payload), b) {
			t.Errorf("%x under %x is not what frame makes", b, key)
		}
	})
}
