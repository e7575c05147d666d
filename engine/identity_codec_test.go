package engine

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/storage"
)

// What the codec reads by itself is what encoding/json reads.
func FuzzIdentityCodec(f *testing.F) {
	now := time.Date(2026, 11, 29, 18, 0, 0, 123456789, time.UTC)
	for _, r := range []identityRecord{
		{}, {GenerationID: "638000000000000000", Revision: 12345, Type: AuthSAS, SealedKeys: []byte("sealed"), Created: now, Updated: now, History: 1},
		{Disabled: true, StatusReason: "lost", StatusUpdated: now, Type: AuthSelfSigned, Thumbprints: [2]string{"AB", "CD"}, Edge: true, DeviceScope: "ms-azure-iot-edge://e-1", ParentScopes: []string{"a", "b"}, ManagedBy: "me"},
		{StatusReason: "q\"\\\u2028é<&>", ParentScopes: []string{""}},
	} {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add([]byte(strings.ReplaceAll(string(b), ",", " ,")))
	}
	f.Add([]byte(`{"g":"1","g":"2"}`))
	f.Add([]byte(`{"x":true,"e":true,"n":007}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got identityRecord
		if s := (recordScanner{b: b}); !s.identity(&got) {
			return
		}
		want, err := storage.JSON[identityRecord]().Decode(b)
		if err != nil {
			t.Fatalf("%s is read, and encoding/json says %v", b, err)
		}
		if len(got.SealedKeys) == 0 { // an empty one is nil or not
			got.SealedKeys, want.SealedKeys = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as\n%+v\nand by encoding/json as\n%+v", b, got, want)
		}
	})
}

func TestIdentityCodecReadsWhatItWrites(t *testing.T) {
	now := time.Now().UTC().Truncate(0)
	r := identityRecord{GenerationID: "638000000000000000", Revision: 12345, Type: AuthSAS, SealedKeys: make([]byte, 150), Created: now, Updated: now, History: 1}
	c := identityCodec{storage.JSON[identityRecord]()}
	b, err := c.Append(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	var got identityRecord
	if s := (recordScanner{b: b}); !s.identity(&got) || !reflect.DeepEqual(got, r) {
		t.Errorf("%s is read as %+v", b, got)
	}
}

func BenchmarkIdentityCodec(b *testing.B) {
	now := time.Now().UTC()
	c := identityCodec{storage.JSON[identityRecord]()}
	text, err := c.Append(nil, identityRecord{GenerationID: "638000000000000000", Revision: 12345, Type: AuthSAS, SealedKeys: make([]byte, 150), Created: now, Updated: now, History: 1})
	if err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string]storage.Codec[identityRecord]{"own": c, "encoding/json": c.Codec} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Decode(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What the codec writes by itself is what encoding/json reads.
func TestIdentityCodecWrites(t *testing.T) {
	now := time.Date(2026, 11, 29, 18, 0, 0, 123456789, time.UTC)
	c := identityCodec{storage.JSON[identityRecord]()}
	for _, r := range []identityRecord{
		{}, {GenerationID: "638000000000000000", Revision: 1 << 60, Type: AuthSAS, SealedKeys: []byte("sealed"), Created: now, Updated: now, History: 1},
		{Disabled: true, StatusReason: "lost", StatusUpdated: now, Type: AuthSelfSigned, Thumbprints: [2]string{"AB", "C\"D"}, Edge: true, DeviceScope: "ms-azure-iot-edge://e-1", ParentScopes: []string{"a", "b"}, ManagedBy: "me"},
		{StatusReason: "q\"\\\u2028é<&>\x01", ParentScopes: []string{""}, Thumbprints: [2]string{"", "x"}},
	} {
		b, err := c.Append([]byte("before"), r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := storage.JSON[identityRecord]().Decode(b[len("before"):])
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s is read as %+v, %v, want %+v", b, got, err, r)
		}
		if got, err = c.Decode(b[len("before"):]); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s is read as %+v, %v, want %+v", b, got, err, r)
		}
	}
}
