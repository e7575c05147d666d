package service

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/query"
)

// TestLiveForm: what is put together of parts is the JSON of a liveDocument.
func TestLiveForm(t *testing.T) {
	live := query.NewLive(query.NewColumns(query.ColumnOptions{ID: query.Path{"deviceId"}}), query.LiveOptions{Queries: 1, Bytes: 1 << 20, Linger: time.Minute, Text: engine.LiveText, Instance: "i"})
	at := time.Date(2026, 11, 30, 1, 2, 3, 45000, time.FixedZone("", 3600))
	position := uint64(1 << 60)
	set := func(id, text string) {
		position++
		live.Apply(position, at, []query.Change{{ID: id, Fields: []query.Field{{Path: query.Path{"tags", "a"}, Value: query.StringValue(text)}}}})
	}
	q, err := query.Parse("SELECT tags.a FROM devices WHERE tags.a != 'gone'", query.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[query.LiveKind]int{}
	// check reads all there is, and returns the last cursor.
	check := func(r *query.LiveReader) (cursor string) {
		for range 10 { // a little at a time
			list, _, err := r.Next(100, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range list {
				e := &list[i]
				kinds[e.Kind]++
				id := engine.LiveIdentity(&e.LiveShown)
				cursor = e.Cursor()
				want, err := encodeEvent(liveDocument{
					Cursor: cursor, Kind: e.Kind.String(), Time: e.Time().UTC(), DeviceID: id.DeviceID, ModuleID: id.ModuleID, Position: e.Position, Row: json.RawMessage(e.Row()),
				})
				if err != nil {
					t.Fatal(err)
				}
				if got := liveList(list).appendDocument(nil, i); string(got) != string(want) {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				text := "before: id: " + cursor + "\nevent: " + e.Kind.String() + "\ndata: " + string(want) + "\n\n"
				if got := liveList(list).appendText([]byte("before: "), i); string(got) != text {
					t.Errorf("got\n%s\nwant\n%s", got, text)
				}
			}
		}
		return cursor
	}
	open := func(cursor string) *query.LiveReader {
		r, err := live.Open(q, cursor)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}
	set("d", "<\u2028>")
	set("d\x00m", `"`)
	r := open("")
	check(r)
	set("a'(b)", "x")
	set("d", "y")
	set("d\x00m", "gone")
	cursor := check(r)
	check(open("other" + cursor)) // of another hub
	if want := map[query.LiveKind]int{query.LiveRow: 4, query.LiveCurrent: 2, query.LiveEnter: 1, query.LiveChange: 1, query.LiveLeave: 1, query.LiveReset: 1}; !maps.Equal(kinds, want) {
		t.Errorf("%v events, want %v", kinds, want)
	}
}
