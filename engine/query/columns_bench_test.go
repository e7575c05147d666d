package query

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

var benchRows = flag.Int("query.rows", 100_000, "rows of the benchmarks")

// benchFields are twenty properties, as a fleet's devices have them.
func benchFields(r *rand.Rand, fields []Field) []Field {
	tag := func(key string, v Value) { fields = append(fields, Field{Path{"tags", key}, v}) }
	reported := func(key string, v Value) { fields = append(fields, Field{Path{"properties", "reported", key}, v}) }
	text := func(form string, n int) Value { return StringValue(fmt.Sprintf(form, r.IntN(n))) }
	number := func(n int) Value { return NumberValue(float64(r.IntN(n))) }
	fields = append(fields, Field{Path{"status"}, StringValue("enabled")}, Field{Path{"connectionState"}, text("state%d", 2)})
	tag("site", text("site-%d", 50))
	tag("country", text("c%d", 200))
	tag("building", text("building %d", 1000))
	tag("rack", text("rack-%d", 5000))
	tag("floor", number(20))
	tag("ring", number(4))
	reported("battery", NumberValue(float64(r.IntN(10000))/100))
	reported("temperature", NumberValue(r.Float64()*100))
	reported("lat", NumberValue(r.Float64()*180-90))
	reported("lon", NumberValue(r.Float64()*360-180))
	reported("firmware", text("1.%d.0", 30))
	reported("model", text("m%d", 10))
	reported("connectivity", text("net%d", 4))
	reported("state", text("s%d", 5))
	reported("errorCode", number(100))
	reported("uptime", number(250))
	reported("charging", BoolValue(r.IntN(2) == 0))
	return fields
}

// processTime is what the process has computed so far, which other processes
// disturb less than the time that passes.
func processTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchID(i int) string { return fmt.Sprintf("device-%08d", i) }

// uniqueFields are twenty properties as the twins of test/bench have them, of which
// two are texts that hardly any two devices share.
func uniqueFields(r *rand.Rand, fields []Field) []Field {
	text := func(form string, n int) Value { return StringValue(fmt.Sprintf(form, r.IntN(n))) }
	number := func(n int) Value { return NumberValue(float64(r.IntN(n))) }
	members := func(list ...any) (v Value) {
		for i := 0; i < len(list); i += 2 {
			v.members = append(v.members, Member{list[i].(string), list[i+1].(Value)})
		}
		return ObjectValue(v.members)
	}
	low := r.IntN(30)
	return append(fields, Field{Path{"tags"}, members(
		"site", text("site-%03d", 200), "building", text("B%d", 20), "floor", number(12),
		"customer", text("customer-%04d", 5000), "installed", text("2025-%03d", 336), "model", text("gateway-%d", 40),
		"channel", text("channel%d", 3), "serial", text("%012x", 1<<48), "ip", text("10.%d", 1<<24),
		"uptime", number(10_000_000), "online", BoolValue(r.IntN(10) > 0), "slot", text("%d", 2), "rssi", number(60),
	)}, Field{Path{"properties", "desired"}, members(
		"battery", number(101), "temperature", NumberValue(float64(r.IntN(6000))/100),
		"limit", NumberValue(float64(2000+r.IntN(6000))/100), "interval", number(6),
		"fw", members("version", text("1.%d", 900)),
		"alarms", members("low", NumberValue(float64(low)), "high", NumberValue(float64(60+low))),
	)})
}

func benchColumns(b *testing.B) *Columns {
	c := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
	benchBuild(c, *benchRows, 2, benchFields)
	return c
}

func benchBuild(c *Columns, rows, loaders int, fill func(*rand.Rand, []Field) []Field) {
	build := c.Build()
	var all sync.WaitGroup
	for k := range loaders {
		l := build.Loader()
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(k)))
			var fields []Field
			for i := rows * k / loaders; i < rows*(k+1)/loaders; i++ {
				fields = fill(r, fields[:0])
				l.Add(benchID(i), 0, fields)
			}
		})
	}
	all.Wait()
	build.Done()
}

// BenchmarkBuild shows what columns take: those of which only ids are unique, and
// those with unique texts, too.
func BenchmarkBuild(b *testing.B) {
	b.Run("ids", func(b *testing.B) { benchmarkBuild(b, benchFields) })
	b.Run("texts", func(b *testing.B) { benchmarkBuild(b, uniqueFields) })
}

func benchmarkBuild(b *testing.B, fill func(*rand.Rand, []Field) []Field) {
	for b.Loop() {
		c := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		benchBuild(c, *benchRows, 2, fill)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(*benchRows), "heapbytes/row")
		b.ReportMetric(float64(c.Stats().Bytes)/float64(*benchRows), "bytes/row")
	}
}

type noDocuments struct{}

func (noDocuments) Documents(_ context.Context, ids []string) ([]Value, error) {
	return make([]Value, len(ids)), nil
}

func BenchmarkQuery(b *testing.B) {
	c := benchColumns(b)
	for _, q := range []struct{ name, text string }{
		{"equality and range", "SELECT * FROM devices WHERE tags.site = 'site-7' AND reported.battery < 20"},
		{"equality and range of bytes", "SELECT TOP 100 * FROM devices WHERE tags.country = 'c7' AND reported.errorCode < 8"},
		{"range alone", "SELECT * FROM devices WHERE reported.battery < 20"},
		{"rare", "SELECT * FROM devices WHERE tags.rack = 'rack-77' AND reported.temperature > 50"},
		{"group where", "SELECT tags.site, COUNT() AS n FROM devices WHERE reported.battery < 20 GROUP BY tags.site"},
		{"group all", "SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site"},
		{"group average", "SELECT tags.rack, AVG(reported.temperature) AS t FROM devices GROUP BY tags.rack"},
		{"count", "SELECT COUNT() AS n FROM devices WHERE reported.battery < 20"},
		{"function of 1000", "SELECT COUNT() AS n FROM devices WHERE CONTAINS(tags.building, '77')"},
		{"function of unique", "SELECT COUNT() AS n FROM devices WHERE CONTAINS(deviceId, '777')"},
		{"function of number", "SELECT COUNT() AS n FROM devices WHERE ABS(reported.lat) < 5"},
		{"arithmetic of two", "SELECT COUNT() AS n FROM devices WHERE reported.battery + reported.temperature > 100 AND STARTSWITH(reported.firmware, '1.2')"},
		{"strings of two", "SELECT COUNT() AS n FROM devices WHERE tags.site = tags.country OR reported.state > reported.model"},
		{"residual", "SELECT COUNT() AS n FROM devices WHERE CONCAT(tags.site, reported.model) = 'site-7m7'"},
		{"residual page", "SELECT * FROM devices WHERE CONCAT(tags.site, reported.model) = 'site-7m7'"},
		{"order", "SELECT deviceId, reported.battery FROM devices ORDER BY reported.temperature DESC"},
		{"id", "SELECT * FROM devices WHERE deviceId = 'device-00000777'"},
		{"projection", "SELECT deviceId, tags.site, reported.battery FROM devices WHERE tags.ring = 2"},
	} {
		b.Run(q.name, func(b *testing.B) {
			parsed, err := Parse(q.text, Options{})
			if err != nil {
				b.Fatal(err)
			}
			var page *Page
			began := processTime()
			for b.Loop() {
				page, err = c.Run(b.Context(), parsed, Ask{Limit: 100, Now: testNow, Documents: noDocuments{}})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(processTime()-began)/float64(b.N), "cpu-ns/op")
			b.Logf("%d rows\n%s", len(page.IDs)+len(page.Rows), page.Plan)
		})
	}
}

func BenchmarkApply(b *testing.B) {
	c := benchColumns(b)
	r := rand.New(rand.NewPCG(7, 7))
	changes := make([]Change, 4096)
	for i := range changes {
		changes[i] = Change{ID: benchID(r.IntN(*benchRows)), Fields: []Field{
			{Path{"properties", "reported", "battery"}, NumberValue(float64(r.IntN(10000)) / 100)},
			{Path{"properties", "reported", "temperature"}, NumberValue(r.Float64() * 100)},
			{Path{"properties", "reported", "state"}, StringValue(fmt.Sprintf("s%d", r.IntN(5)))},
		}}
	}
	benchmarkApply(b, c, changes)
}

// BenchmarkApplyTexts gives a device a text at each change that none has had.
func BenchmarkApplyTexts(b *testing.B) {
	c := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
	benchBuild(c, *benchRows, 2, uniqueFields)
	r := rand.New(rand.NewPCG(8, 8))
	changes := make([]Change, 1<<18)
	for i := range changes {
		changes[i] = Change{ID: benchID(r.IntN(*benchRows)), Fields: []Field{{Path{"tags", "serial"}, StringValue(fmt.Sprintf("%012x", r.IntN(1<<48)))}}}
	}
	benchmarkApply(b, c, changes)
}

func benchmarkApply(b *testing.B, c *Columns, changes []Change) {
	i, longest := 0, time.Duration(0)
	began := processTime()
	for b.Loop() {
		at := time.Now()
		c.Apply(changes[i : i+1])
		longest = max(longest, time.Since(at))
		i = (i + 1) % len(changes)
	}
	b.ReportMetric(float64(processTime()-began)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(longest), "max-ns")
}

// BenchmarkApplyBesideQueries shows how long changes wait for queries.
func BenchmarkApplyBesideQueries(b *testing.B) {
	c := benchColumns(b)
	ctx, cancel := context.WithCancel(b.Context())
	var readers sync.WaitGroup
	for _, text := range []string{
		"SELECT COUNT() AS n FROM devices WHERE CONCAT(tags.site, reported.model) = 'site-7m7'",
		"SELECT tags.rack, AVG(reported.temperature) AS t FROM devices GROUP BY tags.rack",
	} {
		q, err := Parse(text, Options{})
		if err != nil {
			b.Fatal(err)
		}
		readers.Go(func() {
			for ctx.Err() == nil {
				_, _ = c.Run(ctx, q, Ask{Limit: 100, Now: testNow, Documents: noDocuments{}})
			}
		})
	}
	r := rand.New(rand.NewPCG(7, 7))
	var waits []time.Duration
	for b.Loop() {
		change := []Change{{ID: benchID(r.IntN(*benchRows)), Fields: []Field{{Path{"properties", "reported", "battery"}, NumberValue(float64(r.IntN(10000)) / 100)}}}}
		began := time.Now()
		c.Apply(change)
		waits = append(waits, time.Since(began))
	}
	cancel()
	readers.Wait()
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2]), "p50-ns")
	b.ReportMetric(float64(waits[len(waits)*99/100]), "p99-ns")
	b.ReportMetric(float64(waits[len(waits)-1]), "max-ns")
}
