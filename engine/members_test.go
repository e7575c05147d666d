package engine

import (
	"encoding/json"
	"testing"
	"time"
)

// TestRecordsAreJSON: what is appended by hand is what encoding/json makes.
func TestRecordsAreJSON(t *testing.T) {
	at := time.Date(2026, 11, 29, 1, 2, 3, 456000, time.UTC)
	odd := "a\"\\\n\x01<&>\u2028\u00e9\U0001F600"
	for _, r := range []historyRecord{
		{},
		{Version: 7, Time: at, Principal: "device:d", Patch: json.RawMessage(`{"a":1}`), Undo: json.RawMessage(`{"a":null}`)},
		{Version: -1, Time: at, Principal: odd, Cause: odd, RequestID: odd, Patch: json.RawMessage(`"<"`)},
	} {
		want, err := marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := historyCodec{}.Append([]byte("before"), r)
		if err != nil || !expectJSON(t, got[len("before"):], want) {
			t.Errorf("%s, %v\nwant %s", got, err, want)
		}
	}
	for _, r := range []changeRecord{
		{},
		{Kind: changeReported, DeviceID: "d", Principal: "device:d", Version: 7, Data: json.RawMessage(`{"a":1}`), TwinVersion: 8},
		{Kind: changeDesired, DeviceID: odd, ModuleID: odd, Principal: odd, Cause: odd, Version: 1, Twin: json.RawMessage(`{}`)},
	} {
		want, err := marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.append(nil); !expectJSON(t, got, want) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// expectJSON compares documents by their members, in order: encoding/json
// escapes U+2028 where that is not needed.
func expectJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var compact [2]string
	for i, text := range [][]byte{a, b} {
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Errorf("%s: %v", text, err)
			return false
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		compact[i] = string(again)
	}
	return compact[0] == compact[1]
}
