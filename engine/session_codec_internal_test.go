package engine

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/muster-hub/muster/storage"
)

// same compares a codec with encoding/json on arbitrary bytes.
func same[T any](t *testing.T, c storage.Codec[T], b []byte, plain func(*T)) {
	t.Helper()
	got, gotErr := c.Decode(b)
	want, err := storage.JSON[T]().Decode(b)
	if (gotErr == nil) != (err == nil) {
		t.Fatalf("%s: %v, and encoding/json says %v", b, gotErr, err)
	}
	if plain != nil {
		plain(&got)
		plain(&want)
	}
	if err == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%s is read as\n%+v\nand by encoding/json as\n%+v", b, got, want)
	}
}

// What the codecs of sessions read is what encoding/json reads.
func FuzzSessionCodecs(f *testing.F) {
	now := time.Date(2026, 11, 29, 18, 0, 0, 123456789, time.UTC)
	for _, v := range []any{
		identityRecord{}, identityRecord{GenerationID: "638000000000000000", Revision: 12345, Type: AuthSAS, SealedKeys: []byte("sealed"), Created: now, Updated: now, History: 1},
		identityRecord{Disabled: true, StatusReason: "q\"", StatusUpdated: now, Type: AuthSelfSigned, Thumbprints: [2]string{"AB", "CD"}, Edge: true, DeviceScope: "s", ParentScopes: []string{"a", "b"}},
		presenceRecord{}, presenceRecord{Updated: now, Activity: now.Truncate(time.Second), Run: "abc"},
		NoSubscriptions(), Subscriptions{0, 1, -1, 0, 1}, []int{1}, []int{0, 0, 0, 0, 0, 0}, []int{2, 0, 0, 0, 0}, []int{200, 0, 0, 0, 0},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"g":"1","g":"2","x":true,"n":007}`))
	f.Add([]byte(`[-0,01,1 ,1,1]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		same[credentialRecord](t, credentials, b, func(r *credentialRecord) {
			if len(r.SealedKeys) == 0 { // an empty one is nil or not
				r.SealedKeys = nil
			}
		})
		same[presenceRecord](t, presenceCodec{storage.JSON[presenceRecord]()}, b, nil)
		same[Subscriptions](t, subscriptionCodec{storage.JSON[Subscriptions]()}, b, nil)
	})
}

// What they write is what encoding/json writes.
func TestSessionCodecsWrite(t *testing.T) {
	now := time.Date(2026, 11, 29, 18, 0, 0, 120000000, time.UTC)
	for _, r := range []presenceRecord{{}, {Updated: now}, {Activity: now}, {now, now.Add(time.Second), "run"}} {
		want, err := json.Marshal(r)
		got, err2 := presenceCodec{}.Append([]byte("x"), r)
		if err != nil || err2 != nil || string(got) != "x"+string(want) {
			t.Errorf("got %s, %v, want %s, %v", got, err2, want, err)
		}
	}
	for _, r := range []Subscriptions{{}, NoSubscriptions(), {1, 0, -1, 1, 0}} {
		want, err := json.Marshal(r)
		got, err2 := subscriptionCodec{}.Append([]byte("x"), r)
		if err != nil || err2 != nil || string(got) != "x"+string(want) {
			t.Errorf("got %s, %v, want %s, %v", got, err2, want, err)
		}
	}
}
