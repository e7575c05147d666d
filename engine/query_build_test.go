package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// Devices change, come and go while the columns are built, or read that were kept:
// none of it is lost, nothing is taken twice or in the wrong order.
func TestColumnsAreBuiltWhileDevicesChange(t *testing.T) {
	t.Run("built", func(t *testing.T) { columnsWhileDevicesChange(t, killed) })
	t.Run("kept", func(t *testing.T) { columnsWhileDevicesChange(t, func(testing.TB, string) {}) })
}

func columnsWhileDevicesChange(t *testing.T, between func(t testing.TB, dir string)) {
	const devices, writers = 4000, 16
	dir := t.TempDir()
	owner, ctx := enginetest.Owner(), context.Background()
	h := openAt(t, dir)
	for at := 0; at < devices; at += 100 {
		var items []engine.BulkItem
		for i := at; i < at+100; i++ {
			items = append(items, engine.BulkItem{Identity: engine.Identity{DeviceID: deviceID(i)}, Mode: engine.ImportCreate, Tags: []byte(`{"n":0,"o":{"p":"q"}}`)})
		}
		if failed, err := h.Bulk(ctx, owner, items); err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
	}
	rows(t, h, "SELECT COUNT() AS n FROM devices") // they are whole
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	between(t, dir)
	// Half of the changes come after the rows were read, and before the columns are whole.
	half, changed := make(chan struct{}), atomic.Int64{}
	release := sync.OnceFunc(func() { close(half) })
	h = enginetest.New(t, enginetest.Dir(dir), func(o *engine.Options) {
		engine.ColumnsRead(o, func() { <-half })
	})
	t.Cleanup(release)
	var before atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for w := range writers {
		wg.Go(func() {
			for n := 1; n < 60; n++ {
				if !h.QueryProgress().Ready {
					before.Add(1)
				}
				i := (n*997 + w) % (devices / writers) * writers // each writer has its own devices
				id := engine.TwinID{DeviceID: deviceID(i + w)}
				var err error
				switch n % 10 {
				case 3:
					err = h.DeleteIdentity(ctx, owner, id, engine.IfMatch{Present: true, Any: true})
				case 5:
					_, err = h.CreateIdentity(ctx, owner, engine.Identity{DeviceID: fmt.Sprintf("new-%d-%d", w, n)})
				case 7:
					_, err = h.ReplaceTwin(ctx, owner, id, engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d}`, n)}, engine.IfMatch{})
				default:
					_, err = h.PatchTwin(ctx, owner, id, engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d,"o":{"w":%d}}`, n, w)}, engine.IfMatch{})
				}
				if e := engine.AsError(err); e != nil && e.Code != engine.CodeDeviceNotFound {
					t.Error(err)
				}
				if changed.Add(1) == writers*30 {
					release()
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d changes in %v, %d of them while the columns were built", writers*59, time.Since(begun), before.Load())
	if before.Load() < writers*30 {
		t.Errorf("only %d changes came before the columns were whole", before.Load())
	}
	found := map[string]string{}
	for token := ""; ; {
		page, err := h.Query(ctx, owner, engine.QueryRequest{Text: "SELECT deviceId, tags, status FROM devices", Token: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page.Rows {
			var v struct {
				DeviceID string
				Tags     json.RawMessage
			}
			if err := json.Unmarshal(row, &v); err != nil {
				t.Fatal(err)
			}
			found[v.DeviceID] = string(v.Tags)
		}
		if token = page.Token; token == "" {
			break
		}
	}
	count := 0
	for after, more := "", true; more; {
		list, next, err := h.Devices(ctx, owner, "", after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			count++
			twin, err := h.Twin(ctx, owner, i.ID())
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if !twin.Tags.Empty() {
				want = string(twin.Tags.JSON(nil, false))
			}
			if got, ok := found[i.DeviceID]; !ok || !sameMembers(got, want) {
				t.Errorf("%s has the tags %s, and the query shows %s (%v)", i.DeviceID, want, got, ok)
			}
		}
		after, more = next, next != ""
	}
	if count != len(found) {
		t.Errorf("there are %d devices, and the query shows %d", count, len(found))
	}
}

func deviceID(i int) string { return fmt.Sprintf("d%05d", i) }

func sameMembers(a, b string) bool {
	if a == b {
		return true
	}
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}
