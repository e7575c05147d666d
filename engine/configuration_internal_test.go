package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/twin"
)

func someConfigured() configuredRecord {
	return configuredRecord{
		Has:   []configuredBy{{"a", 1_700_000_000_000_000_000, 3, true, ""}, {"b", -5, 1, false, "it is too large"}},
		Of:    []configuredOwner{{"a", 1_700_000_000_000_000_000}, {"gone", 7}},
		Owned: []configuredPath{{"motor.speed", 0, 1 << 63}, {"x", 1, 0}},
	}
}

func TestConfiguredCodec(t *testing.T) {
	for _, r := range []configuredRecord{{}, someConfigured()} {
		b, err := configuredCodec{}.Append([]byte("before"), r)
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		got, err := configuredCodec{}.Decode(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v becomes %+v, %v", r, got, err)
		}
		for n := range b {
			if _, err := (configuredCodec{}).Decode(b[:n]); err == nil {
				t.Errorf("%d of %d bytes are read", n, len(b))
			}
		}
		if _, err := (configuredCodec{}).Decode(append(b, 0)); err == nil {
			t.Error("a byte behind the end is read")
		}
	}
}

// No bytes make the decoder panic, or take more memory than they have themselves;
// what it reads is written as it was.
func FuzzConfiguredCodec(f *testing.F) {
	b, _ := configuredCodec{}.Append(nil, someConfigured())
	f.Add(b)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := configuredCodec{}.Decode(b)
		if err != nil {
			return
		}
		again, err := configuredCodec{}.Append(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := (configuredCodec{}).Decode(again); err != nil || !reflect.DeepEqual(r, other) {
			t.Errorf("%+v becomes %+v, %v", r, other, err)
		}
	})
}

// peekChange reads what a whole decoding reads, whatever the entry.
func TestPeekChange(t *testing.T) {
	for _, r := range []changeRecord{
		{Kind: changeReported, DeviceID: "d1"},
		{Kind: changeReported, DeviceID: "d1", ModuleID: "m", Principal: "device:d1", Cause: "job:x", Version: 12, Data: json.RawMessage(`{"a":{"b":[1,"}"]}}`), TwinVersion: 5, Twin: json.RawMessage(`{"etag":"x"}`)},
		{Kind: changeTags, DeviceID: `with"quote\`, Data: json.RawMessage(`{"a":"\"}{"}`)},
		{Kind: changeDesired, DeviceID: "é", Data: json.RawMessage(`null`), TwinVersion: 1},
		{Kind: changeIdentityDeleted, DeviceID: "d1", TwinVersion: 3, Twin: json.RawMessage(`{"x":1}`)},
		{Kind: changeConfiguration, Version: -3, Data: json.RawMessage(`{"configuration":"c"}`)},
	} {
		entry := r.append(nil)
		got, err := peekChange(entry)
		if err != nil {
			t.Errorf("%s: %v", entry, err)
			continue
		}
		want, err := decodePeek(entry)
		if err != nil || got.kind != want.kind || got.device != want.device || got.module != want.module || got.cause != want.cause || !bytes.Equal(got.data, want.data) {
			t.Errorf("%s is read as %+v, expected %+v, %v", entry, got, want, err)
		}
	}
}

func FuzzPeekChange(f *testing.F) {
	for _, text := range []string{`{"k":"twin.tags","d":"d1","x":{"a":1}}`, `{"k":"a","d":"b","v":1,"x":{"a":"\"}"},"tv":3}`, `{"k":"a`, `{`, `{"x":[`, `{"v":}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		_, _ = peekChange(entry) // it does not panic
	})
}

func TestPathTree(t *testing.T) {
	var tree pathTree
	for _, path := range []string{"site", "net.wifi", "a.b.c"} {
		tree.add(strings.Split(path, "."))
	}
	for _, c := range []struct {
		patch string
		want  bool
	}{
		{`{"site":"x"}`, true},
		{`{"site":{"deep":1}}`, true},
		{`{"site":null}`, true},
		{`{"other":"site"}`, false},
		{`{"net":{"lan":1}}`, false},
		{`{"net":{"wifi":{"ssid":"x"}}}`, true},
		{`{"net":5}`, true},
		{`{"net":null}`, true},
		{`{"net":{}}`, false},
		{`{"a":{"b":{"d":1}}}`, false},
		{`{"a":{"b":{"c":1}}}`, true},
		{`{"a":{"b":[]}}`, true},
		{`null`, true},
		{`{}`, false},
	} {
		if got := tree.touchedBy([]byte(c.patch)); got != c.want {
			t.Errorf("%s touches: %v", c.patch, got)
		}
	}
	var none, all, wide pathTree
	all.add(nil)
	if none.touchedBy([]byte(`{"a":1}`)) || !all.touchedBy([]byte(`{"a":1}`)) {
		t.Error("no paths, or all of them")
	}
	for i := range 2 * namesMost {
		wide.add([]string{fmt.Sprint("k", i)})
	}
	if !wide.touchedBy([]byte(`{"k20":1}`)) || wide.touchedBy([]byte(`{"k":1}`)) {
		t.Error("many names")
	}
	p, err := twin.ParsePatch([]byte(`{"site":1}`), 0)
	if err != nil || !tree.touched(p.View()) {
		t.Error(err)
	}
}
