package service

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
)

// TestLiveForm: what is put together of parts is the JSON of a liveDocument.
func TestLiveForm(t *testing.T) {
	form := eventForm{name: "query", rest: liveRest}
	at := time.Date(2026, 11, 30, 1, 2, 3, 45000, time.UTC)
	for _, e := range []*engine.Event{
		{Kind: "reset", Time: at},
		{Cursor: "i.h.1.a", Kind: "current", Time: at, Position: 7},
		{Cursor: "i.h.1.b.ZA", Kind: "row", Time: at, ID: engine.TwinID{DeviceID: "d"}, Position: 1 << 60, Data: json.RawMessage(`{"a":"<\u2028>"}`)},
		{Cursor: "i.h.1.c", Kind: "leave", Time: at, ID: engine.TwinID{DeviceID: "d", ModuleID: "m"}, Position: 8},
		{Cursor: "i.h.1.d", Kind: "enter", Time: at, ID: engine.TwinID{DeviceID: `a'(b)`}, Position: 9, Data: json.RawMessage(`{}`)},
	} {
		want, err := encodeEvent(liveDocument{
			Cursor: e.Cursor, Kind: e.Kind, Time: e.Time, DeviceID: e.ID.DeviceID, ModuleID: e.ID.ModuleID, Position: e.Position, Row: e.Data,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := form.appendDocument(nil, e); string(got) != string(want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		text := "before: id: " + e.Cursor + "\nevent: " + e.Kind + "\ndata: " + string(want) + "\n\n"
		if got := form.appendText([]byte("before: "), e); string(got) != text {
			t.Errorf("got\n%s\nwant\n%s", got, text)
		}
	}
}
