package engine

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// fillHub makes devices with twins of about 1 KB, some twenty properties each.
func fillHub(tb testing.TB, h *Hub, devices int) {
	tb.Helper()
	body := func(i int) (tags, reported []byte) {
		return fmt.Appendf(nil, `{"site":"site-%d","ring":%d,"location":{"lat":%d.25,"lon":%d.5,"country":"DE"},"owner":"team-%d","model":"m%d"}`, i%1000, i%10, i%90, i%180, i%50, i%20),
			fmt.Appendf(nil, `{"battery":%d,"temperature":%d.%d,"fw":{"version":"1.%d.%d","slot":"a","state":"applied"},"uptime":%d,"net":{"type":"wifi","rssi":-%d,"ip":"10.%d.%d.%d"},"status":"ok","mode":"auto","text":"%0200d"}`,
				i%101, i%40, i%10, i%10, i%7, i, i%90, i>>16&255, i>>8&255, i&255, i%100)
	}
	ctx := context.Background()
	err := h.db.BulkLoad(ctx, func(yield func(func(tx *storage.Tx) error) bool) {
		for i := range devices {
			tags, reported := body(i)
			identity := Identity{DeviceID: fmt.Sprintf("device-%07d", i), Authentication: Authentication{Type: AuthSAS}}
			fillKeys(&identity)
			ok := yield(func(tx *storage.Tx) error {
				if _, err := h.createIdentityTx(tx, Caller{}, identity, TwinUpdate{Tags: tags}); err != nil {
					return err
				}
				t, err := h.getTwin(tx, identity.ID())
				if err != nil {
					return err
				}
				if _, err := h.applySectionTx(tx, Caller{}, identity.ID(), &t, twin.Reported, reported, sectionRule{merge: true}); err != nil {
					return err
				}
				return twinTable.Put(tx, identity.ID().key(), t)
			})
			if !ok {
				return
			}
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// benchDevices is how many devices a benchmark has: MUSTER_BENCH_DEVICES, or few
// enough to be soon ready.
func benchDevices(b *testing.B, devices int) int {
	if s := os.Getenv("MUSTER_BENCH_DEVICES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	return devices
}

// BenchmarkBuildColumns measures how soon queries are ready after a restart.
// MUSTER_BENCH_DEVICES says of how many devices, and MUSTER_BENCH_DIR where the
// hub that has them stays for another run.
func BenchmarkBuildColumns(b *testing.B) {
	devices := benchDevices(b, 20_000)
	dir := os.Getenv("MUSTER_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	o := Options{Storage: storage.Options{Dir: dir, Memory: 256 << 20}, Columns: 1 << 30}
	if _, err := os.Stat(dir + "/journal"); err != nil {
		h, err := Open(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		fillHub(b, h, devices)
		if err := h.Close(); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		begun := time.Now()
		h, err := Open(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Since(begun)
		<-h.queries.ready
		b.ReportMetric(opened.Seconds(), "s-to-open")
		b.ReportMetric(time.Since(begun).Seconds(), "s-to-queries")
		b.ReportMetric(float64(h.queries.columns[query.Devices].Stats().Bytes)/1e6, "MB-of-columns")
		b.StopTimer()
		if err := h.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkQueryFeed measures what a patch of two properties costs the columns:
// the fields computed, and taken.
func BenchmarkQueryFeed(b *testing.B) {
	h := queryHub(b)
	fillHub(b, h, 1000)
	var t twinRecord
	id := TwinID{DeviceID: "device-0000500"}
	err := h.db.View(b.Context(), func(r storage.Reader) (err error) { t, err = h.getTwin(r, id); return err })
	if err != nil {
		b.Fatal(err)
	}
	var after [100]*twin.Section
	for i := range after {
		p, err := twin.ParsePatch(fmt.Appendf(nil, `{"battery":%d,"temperature":%d.5}`, i, i), 0)
		if err != nil {
			b.Fatal(err)
		}
		if after[i], _, err = t.Reported.Merge(p, time.Now(), twin.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
	source, row := id.row()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		var f rowFields
		f.sectionChange(twin.Reported, after[(i-1)%100], after[i%100])
		h.queries.pending[source] = append(h.queries.pending[source], query.Change{ID: row, Fields: f.list})
		h.queries.published(1)
	}
}

// BenchmarkQueryTwins measures a page of 100 whole twins that lie anywhere in
// the store: what the columns choose, and what reading them takes. See
// BenchmarkBuildColumns for the variables.
func BenchmarkQueryTwins(b *testing.B) {
	devices := benchDevices(b, 20_000)
	dir := os.Getenv("MUSTER_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	o := Options{Storage: storage.Options{Dir: dir, Memory: 256 << 20}, Columns: 1 << 30}
	_, missing := os.Stat(dir + "/journal")
	h, err := Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	if missing != nil {
		fillHub(b, h, devices)
	}
	<-h.queries.ready
	c := Caller{Principal: auth.Principal{Permissions: auth.ServiceConnect}}
	site := 0
	b.ReportAllocs()
	for b.Loop() {
		site = (site + 7) % 1000
		page, err := h.Query(b.Context(), c, QueryRequest{Text: fmt.Sprintf("SELECT TOP 100 * FROM devices WHERE tags.site = 'site-%d' AND properties.reported.battery < 50", site)})
		if err != nil || len(page.Twins) == 0 {
			b.Fatal(len(page.Twins), err)
		}
	}
}
