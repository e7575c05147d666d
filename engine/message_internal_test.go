package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/muster-hub/muster/storage"
)

func TestMessageComesBackAsItWasSent(t *testing.T) {
	g := Grant{ID: TwinID{DeviceID: "d1", ModuleID: "m1"}, GenerationID: "7", Method: `{"scope":"module"}`}
	m := Message{
		Body: []byte{0, 255, '{'}, Properties: []Property{{Name: "a", Value: "<b>"}, {Name: "bare", Null: true}},
		System: []Property{{Name: "message-id", Value: "1"}},
	}
	b, err := encodeMessage(g, "dtmi:a;1", m)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 1, 2, 3, 456e6, time.UTC)
	got, err := decodeMessage(storage.Entry{Position: 9, Time: at, Data: b})
	want := StoredMessage{
		Position: 9, ID: g.ID, Enqueued: at, Body: m.Body, Properties: m.Properties,
		System: []Property{
			{Name: "message-id", Value: "1"},
			{Name: "iothub-connection-device-id", Value: "d1"},
			{Name: "iothub-connection-module-id", Value: "m1"},
			{Name: "iothub-connection-auth-generation-id", Value: "7"},
			{Name: "iothub-connection-auth-method", Value: `{"scope":"module"}`},
			{Name: "iothub-enqueuedtime", Value: "2026-11-23T01:02:03.456Z"},
			{Name: "iothub-message-source", Value: "Telemetry"},
			{Name: "dt-dataschema", Value: "dtmi:a;1"},
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func FuzzStoredMessage(f *testing.F) {
	b, err := encodeMessage(Grant{ID: TwinID{DeviceID: "d"}}, "", Message{Body: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{messageVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMessage(storage.Entry{Data: b}); err == nil && len(m.Body) > len(b) {
			t.Error("a body that is longer than its message")
		}
	})
}
