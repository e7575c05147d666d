package engine_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// keptFile is where a hub that was shut down has left its columns.
func keptFile(dir string) string { return filepath.Join(dir, "KEPT") }

// killed makes the next start what it is after kill -9: nothing is kept.
func killed(t testing.TB, dir string) {
	t.Helper()
	if err := os.Remove(keptFile(dir)); err != nil {
		t.Fatal(err)
	}
}

// Columns that were kept are those that would be built from the store: of devices
// and modules that were connected, changed, disconnected and deleted until the end.
func TestKeptColumnsAreThoseThatWouldBeBuilt(t *testing.T) {
	dir := t.TempDir()
	owner, ctx := enginetest.Owner(), t.Context()
	h := openAt(t, dir)
	for at := 0; at < 300; at += 100 {
		var items []engine.BulkItem
		for i := at; i < at+100; i++ {
			items = append(items, engine.BulkItem{
				Identity: engine.Identity{DeviceID: deviceID(i)}, Mode: engine.ImportCreate,
				Tags: fmt.Appendf(nil, `{"site":"s%d","n":%d.5,"list":[%d,"x"],"o":{"on":%t}}`, i%7, i, i%3, i%2 == 0),
			})
		}
		if failed, err := h.Bulk(ctx, owner, items); err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
	}
	for i := range 40 {
		id := engine.TwinID{DeviceID: deviceID(i), ModuleID: "m"}
		if _, err := h.CreateIdentity(ctx, owner, engine.Identity{DeviceID: id.DeviceID, ModuleID: id.ModuleID}); err != nil {
			t.Fatal(err)
		}
	}
	var sessions []*enginetest.Device
	for i := range 60 {
		id := engine.TwinID{DeviceID: deviceID(i)}
		if i%3 == 0 && i < 40 {
			id.ModuleID = "m"
		}
		d := enginetest.Connect(t, h, id, engine.EndpointDesired)
		if _, err := d.Session.PatchReported(ctx, fmt.Appendf(nil, `{"battery":%d,"gone":{"soon":1}}`, i), -1); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Session.PatchReported(ctx, []byte(`{"gone":null}`), -1); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, d)
	}
	for i, d := range sessions {
		if i%2 == 0 {
			d.Session.Close(nil)
		}
	}
	for i := 100; i < 110; i++ {
		if err := h.DeleteIdentity(ctx, owner, engine.TwinID{DeviceID: deviceID(i)}, engine.IfMatch{Present: true, Any: true}); err != nil {
			t.Fatal(err)
		}
	}
	rows(t, h, "SELECT COUNT() AS n FROM devices") // they are ready
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	built := t.TempDir()
	if err := os.CopyFS(built, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	killed(t, built)

	var log bytes.Buffer
	logger := enginetest.Logger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	one, two := enginetest.New(t, enginetest.Dir(dir), logger), openAt(t, built)
	for _, text := range []string{
		"SELECT deviceId, status, connectionState, lastActivityTime, authenticationType, modelId, version, tags, properties.reported, properties.desired FROM devices",
		"SELECT deviceId, moduleId, connectionState, lastActivityTime, tags, properties.reported FROM devices.modules",
		"SELECT tags.site AS s, COUNT() AS n, AVG(tags.n) AS a, SUM(properties.reported.battery) AS b FROM devices WHERE IS_DEFINED(tags.list) GROUP BY tags.site ORDER BY s",
		"SELECT connectionState AS c, COUNT() AS n FROM devices GROUP BY connectionState",
		"SELECT COUNT() AS n FROM devices WHERE IS_DEFINED(properties.reported.gone)",
	} {
		got, want := rows(t, one, text), rows(t, two, text)
		if !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("%s\nkept  %s\nbuilt %s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if strings.Contains(log.String(), "are built from all twins") {
		t.Errorf("nothing was taken over:\n%s", log.String())
	}
	if _, err := os.Stat(keptFile(dir)); !os.IsNotExist(err) {
		t.Error("the file is still there:", err)
	}
}

// rows returns all rows of a query.
func rows(t testing.TB, h *engine.Hub, text string) (list []string) {
	t.Helper()
	for token := ""; ; {
		page, err := h.Query(t.Context(), enginetest.Owner(), engine.QueryRequest{Text: text, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Rows {
			list = append(list, string(r))
		}
		if token = page.Token; token == "" {
			return list
		}
	}
}

// A hub that is shut down while its columns are not whole yet keeps none that lack something.
func TestColumnsThatAreNotWholeAreNotKept(t *testing.T) {
	dir := t.TempDir()
	h := openAt(t, dir)
	for i := range 50 {
		if _, err := h.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: deviceID(i)}); err != nil {
			t.Fatal(err)
		}
	}
	rows(t, h, "SELECT COUNT() AS n FROM devices")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20 { // each time it is shut down at another moment
		h = openAt(t, dir)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h = openAt(t, dir)
	if got := rows(t, h, "SELECT COUNT() AS n FROM devices"); !slices.Equal(got, []string{`{"n":50}`}) {
		t.Fatal(got)
	}
}
