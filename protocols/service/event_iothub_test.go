package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// TestIoTHubShapes compares each of IoT Hub's events with its golden file.
func TestIoTHubShapes(t *testing.T) {
	h := iotHub{name: "contoso", epoch: "0123456789abcdef0123456789abcdef", ordinal: 1, fresh: enginetest.New(t).NewTwin()}
	at := time.Date(2026, 11, 23, 8, 15, 30, 123456789, time.UTC)
	device, module := engine.TwinID{DeviceID: "pump-1"}, engine.TwinID{DeviceID: "pump-1", ModuleID: "control"}
	whole := json.RawMessage(`{"etag":"AAAAAAAAAAQ=","version":9,"tags":{"site":"A"},"properties":{"desired":{"speed":3,"$metadata":{"$lastUpdated":"2026-11-23T08:15:30.1234567Z","$lastUpdatedVersion":5,"speed":{"$lastUpdated":"2026-11-23T08:15:30.1234567Z","$lastUpdatedVersion":5}},"$version":5},"reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}}}`)
	for name, e := range map[string]engine.Event{
		"device-connected":    {Kind: "session.connected", ID: device},
		"device-disconnected": {Kind: "session.disconnected", ID: device, Data: []byte(`{"reason":"the hub was restarted"}`)},
		"module-connected":    {Kind: "session.connected", ID: module},
		"module-disconnected": {Kind: "session.disconnected", ID: module},
		"device-created":      {Kind: "identity.created", ID: device, Data: []byte(`{"status":"enabled"}`)},
		"module-created":      {Kind: "identity.created", ID: module},
		"device-deleted":      {Kind: "identity.deleted", ID: device, Twin: whole, TwinVersion: 9},
		"device-deleted-big":  {Kind: "identity.deleted", ID: device, TwinVersion: 9},
		"module-deleted":      {Kind: "identity.deleted", ID: module, Twin: whole, TwinVersion: 9},
		"twin-tags":           {Kind: "twin.tags", ID: device, Data: []byte(`{"site":"A","old":null}`), Version: 3, TwinVersion: 7},
		"twin-desired":        {Kind: "twin.desired", ID: device, Data: []byte(`{"speed":3,"limits":{"high":[1,2],"low":null},"gone":null}`), Version: 5, TwinVersion: 8},
		"twin-reported":       {Kind: "twin.reported", ID: module, Data: []byte(`{"a<b":"c"}`), Version: 12, TwinVersion: 20},
		"twin-replaced":       {Kind: "twin.desired", ID: device, Data: []byte(`{"speed":3}`), Version: 5, Twin: whole, TwinVersion: 9},
		"gap":                 {Kind: engine.EventGap},
		"telemetry": {Kind: engine.EventTelemetry, ID: device, Message: &engine.StoredMessage{
			ID: device, Enqueued: at, Body: []byte(`{"t":21.5}`), Properties: []engine.Property{{Name: "level", Value: "warn"}, {Name: "bare", Null: true}},
			System: []engine.Property{{Name: "content-type", Value: "application/json"}, {Name: "iothub-connection-device-id", Value: "pump-1"}, {Name: "iothub-enqueuedtime", Value: "2026-11-23T08:15:30.123Z"}, {Name: "iothub-message-source", Value: "Telemetry"}},
		}},
		"telemetry-text":   {Kind: engine.EventTelemetry, ID: device, Message: &engine.StoredMessage{ID: device, Enqueued: at, Body: []byte("plain")}},
		"telemetry-binary": {Kind: engine.EventTelemetry, ID: device, Message: &engine.StoredMessage{ID: device, Enqueued: at, Body: []byte{0xff, 0xfe}}},
	} {
		e.Cursor, e.Time, e.Position = "0123456789abcdef0123456789abcdef.1a.0", at, 46
		d, ok := h.show(&e)
		if !ok {
			t.Errorf("%s is not shown", name)
			continue
		}
		var got bytes.Buffer
		if err := json.Indent(&got, encode(d), "", "  "); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
		file := filepath.Join("testdata", "events", name+".json")
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got.Bytes(), want)
		}
	}
	for _, kind := range []string{"identity.updated", "twin.modelId", "method.queued", "fault.added", "unknown"} {
		if _, ok := h.show(&engine.Event{Kind: kind, ID: device}); ok {
			t.Errorf("%s is shown, and IoT Hub has nothing like it", kind)
		}
	}
}

// TestIoTHubEvents does what IoT Hub tells, and reads it back: in order, with
// the twin's versions and metadata as a reader of the twin sees them.
func TestIoTHubEvents(t *testing.T) {
	f := newFixture(t)
	f.do(http.MethodPut, "/devices/a", `{"deviceId":"a"}`)
	f.do(http.MethodPatch, "/twins/a", `{"tags":{"site":"A"},"properties":{"desired":{"x":{"y":1},"z":2}}}`)
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "a"})
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"ok":true}`), -1); err != nil {
		t.Fatal(err)
	}
	twin := f.do(http.MethodGet, "/twins/a", "")
	f.do(http.MethodPut, "/twins/a", `{"tags":{"site":"B"},"properties":{"desired":{"n":1}}}`)
	replaced := f.do(http.MethodGet, "/twins/a", "")
	f.do(http.MethodDelete, "/devices/a", "", ifMatch("*"))

	var page struct {
		Events []struct {
			System map[string]any    `json:"systemProperties"`
			Props  map[string]string `json:"properties"`
			Body   map[string]any    `json:"body"`
		}
	}
	if err := json.Unmarshal([]byte(serveLocal(t, f, "/api/v1/events?cursor=start&schema=iothub", nil)), &page); err != nil {
		t.Fatal(err)
	}
	var ops []string
	for _, e := range page.Events {
		ops = append(ops, e.Props["opType"])
		if e.Props["hubName"] != strings.Split(enginetest.HostName, ".")[0] || e.Props["deviceId"] != "a" || e.System["iothub-connection-device-id"] != "a" {
			t.Errorf("%+v", e)
		}
	}
	if got, want := strings.Join(ops, " "), "createDeviceIdentity updateTwin updateTwin deviceConnected updateTwin updateTwin replaceTwin deviceDisconnected deleteDeviceIdentity"; got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	section := func(body map[string]any, name string) any {
		p, _ := body["properties"].(map[string]any)
		return p[name]
	}
	var now, later map[string]any
	if err := json.Unmarshal(twin.body, &now); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(replaced.body, &later); err != nil {
		t.Fatal(err)
	}
	same := func(what string, got, want any) {
		t.Helper()
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			t.Errorf("%s:\ngot  %s\nwant %s", what, g, w)
		}
	}
	same("version after the patch", page.Events[2].Body["version"], 3)
	same("tags", page.Events[1].Body["tags"], now["tags"])
	for i, name := range map[int]string{2: "desired", 4: "reported"} {
		got, want := section(page.Events[i].Body, name), section(now, name)
		g, w := got.(map[string]any), want.(map[string]any)
		same(name+" version", g["$version"], w["$version"])
		if len(g) != len(w) || fmt.Sprint(shapeless(g)) != fmt.Sprint(shapeless(w)) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, g, w)
		}
	}
	same("replaced", section(page.Events[6].Body, "desired"), section(later, "desired"))
	same("etag of the replaced", page.Events[6].Body["etag"], later["etag"])
	same("version of the replaced", page.Events[6].Body["version"], later["version"])
	same("deleted", section(page.Events[8].Body, "reported"), section(later, "reported"))
	same("version of the deleted", page.Events[8].Body["version"], later["version"])
}

// shapeless replaces the times in a document, which a transaction and its
// entry in the change log need not share to the last digit.
func shapeless(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for name, member := range v {
			m[name] = shapeless(member)
		}
		return m
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil {
			return "time"
		}
	}
	return v
}
