package engine

import (
	"bytes"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

func TestTwinCodecRoundTrip(t *testing.T) {
	r := newTwinRecord("637200435456546562")
	r.ModelID = "dtmi:com:example;1"
	r.Revision, r.Version, r.History = 7, 9, [3]uint64{1, 2, 300}
	p, err := twin.ParsePatch([]byte(`{"a":{"b":1.0},"s":"x"}`), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if r.Desired, _, err = r.Desired.Merge(p, time.Unix(1e9, 0), twin.Limits{}); err != nil {
		t.Fatal(err)
	}
	b, err := twinCodec{}.Append(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := twinCodec{}.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Generation != r.Generation || got.ModelID != r.ModelID || got.Revision != 7 || got.Version != 9 || got.History != r.History {
		t.Errorf("got %+v", got)
	}
	if !bytes.Equal(got.Desired.JSON(nil, true), r.Desired.JSON(nil, true)) {
		t.Errorf("desired %s, want %s", got.Desired.JSON(nil, true), r.Desired.JSON(nil, true))
	}
	for n := range b {
		if _, err := (twinCodec{}).Decode(b[:n]); err == nil {
			t.Fatalf("a record cut to %d of %d bytes is taken", n, len(b))
		}
	}
	if _, err := (twinCodec{}).Decode(append(b, 0)); err == nil {
		t.Error("a record with a byte too many is taken")
	}
}

func FuzzTwinCodec(f *testing.F) {
	b, err := twinCodec{}.Append(nil, newTwinRecord("1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := twinCodec{}.Decode(b)
		if err != nil {
			return
		}
		if _, err := (twinCodec{}).Append(nil, r); err != nil {
			t.Fatal(err)
		}
	})
}
