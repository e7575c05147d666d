package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// readAll reads from a cursor to the end in pages of a few events.
func readAll(t *testing.T, h *engine.Hub, f engine.EventFilter, cursor string) (list []engine.Event, next string) {
	t.Helper()
	for {
		page, n, err := h.ReadEvents(t.Context(), enginetest.Owner(), f, cursor, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 && n == cursor {
			return list, n
		}
		list, cursor = append(list, page...), n
	}
}

func kinds(list []engine.Event) string {
	var names []string
	for _, e := range list {
		names = append(names, e.ID.DeviceID+":"+e.Kind)
	}
	return strings.Join(names, " ")
}

func TestReadEvents(t *testing.T) {
	h := enginetest.New(t)
	d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
	for i := range 4 {
		if err := d.Telemetry(engine.Message{Body: fmt.Appendf(nil, "%d", i), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Session.PatchReported(t.Context(), fmt.Appendf(nil, `{"n":%d}`, i), -1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: "b"}); err != nil {
		t.Fatal(err)
	}
	all, end := readAll(t, h, engine.EventFilter{}, engine.CursorStart)
	if got, want := kinds(all), "a:identity.created a:session.connected"+strings.Repeat(" a:telemetry a:twin.reported", 4)+" b:identity.created"; got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	for _, tc := range []struct {
		filter engine.EventFilter
		want   string
	}{
		{engine.EventFilter{Devices: []string{"b"}}, "b:identity.created"},
		{engine.EventFilter{Kinds: []string{"identity.*"}}, "a:identity.created b:identity.created"},
		{engine.EventFilter{Kinds: []string{engine.EventTelemetry}, Devices: []string{"a*"}}, "a:telemetry a:telemetry a:telemetry a:telemetry"},
		{engine.EventFilter{Devices: []string{"c*"}}, ""},
	} {
		list, next := readAll(t, h, tc.filter, engine.CursorStart)
		if got := kinds(list); got != tc.want || next != end {
			t.Errorf("%+v: got %q to %s, want %q to %s", tc.filter, got, next, tc.want, end)
		}
	}
	// Every event's own cursor resumes right after it.
	for i, e := range all {
		rest, _ := readAll(t, h, engine.EventFilter{}, e.Cursor)
		if got, want := kinds(rest), kinds(all[i+1:]); got != want {
			t.Errorf("after event %d: got %q, want %q", i, got, want)
		}
	}
	if list, next, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{}, "", 10); err != nil || len(list) != 0 || next != end {
		t.Errorf("from now: %d events to %s, %v; want none to %s", len(list), next, err, end)
	}
}

func TestReadEventsRefuses(t *testing.T) {
	h := enginetest.New(t)
	_, end := readAll(t, h, engine.EventFilter{}, engine.CursorStart)
	epoch, rest, _ := strings.Cut(end, ".")
	other := strings.Repeat("0", len(epoch)) + "." + rest
	for _, cursor := range []string{"x", "..", epoch, epoch + ".1", epoch + ".1.", epoch + ".1.~", epoch + ".1.1.1", epoch + "." + strings.Repeat("z", 40) + ".0", strings.Repeat("g", len(epoch)) + ".0.0"} {
		if _, _, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{}, cursor, 1); engine.AsError(err).Code != engine.CodeArgumentInvalid {
			t.Errorf("cursor %q: %v, want CodeArgumentInvalid", cursor, err)
		}
	}
	for _, cursor := range []string{other, epoch + ".zzz.0", epoch + ".0.zzz"} {
		list, next, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{}, cursor, 1)
		if err != nil || len(list) != 1 || list[0].Kind != engine.EventGap || list[0].Cursor != next || !strings.HasPrefix(next, epoch) {
			t.Errorf("cursor %q: %+v, %q, %v; want one gap", cursor, list, next, err)
		}
	}
	if _, _, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{Kinds: make([]string, 101)}, "", 1); engine.AsError(err).Code != engine.CodeArgumentInvalid {
		t.Errorf("a huge filter: %v", err)
	}
	if _, _, err := h.ReadEvents(t.Context(), engine.Caller{}, engine.EventFilter{}, "", 1); engine.AsError(err).Code != engine.CodeForbidden {
		t.Errorf("nobody: %v", err)
	}
}

func TestEventsSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	var end string
	t.Run("before", func(t *testing.T) {
		h := enginetest.New(t, enginetest.Dir(dir))
		d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
		if err := d.Telemetry(engine.Message{Body: []byte("kept"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		_, end = readAll(t, h, engine.EventFilter{}, engine.CursorStart)
	})
	h := enginetest.New(t, enginetest.Dir(dir))
	list, _ := readAll(t, h, engine.EventFilter{Kinds: []string{engine.EventTelemetry}}, engine.CursorStart)
	if len(list) != 1 || string(list[0].Message.Body) != "kept" {
		t.Errorf("telemetry after the restart: %+v", list)
	}
	if _, err := h.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: "b"}); err != nil {
		t.Fatal(err)
	}
	if list, _ := readAll(t, h, engine.EventFilter{Devices: []string{"b"}}, end); kinds(list) != "b:identity.created" {
		t.Errorf("after the restart: %q", kinds(list))
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("start")
	f.Add("0123456789abcdef0123456789abcdef.1.2")
	f.Add("0123456789abcdef0123456789abcdef.-1.+2")
	f.Add("..")
	h := enginetest.New(f)
	f.Fuzz(func(t *testing.T, cursor string) {
		_, next, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{}, cursor, 1)
		if err != nil {
			return
		}
		if _, again, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{}, next, 1); err != nil || again == "" {
			t.Errorf("%q gave %q, which is not read again: %v", cursor, next, err)
		}
	})
}
