package query

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// BenchmarkLiveApply measures what live queries add to a patch of three
// properties: none, a hundred of which one in ten reads what is patched, and a
// hundred that all read it.
func BenchmarkLiveApply(b *testing.B) {
	reported := func(key string) Path { return Path{"properties", "reported", key} }
	for _, tc := range []struct {
		name    string
		queries int
		path    func(i int) Path
	}{
		{"none", 0, nil},
		{"100 on 10 paths", 100, func(i int) Path {
			if i%10 == 0 {
				return reported("battery")
			}
			return reported(fmt.Sprint("p", i%10))
		}},
		{"100 on the path", 100, func(int) Path { return reported("battery") }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			columns := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
			l := NewLive(columns, LiveOptions{Queries: 100, Bytes: 64 << 20, Linger: time.Minute, Instance: "b"})
			now := time.Unix(1000, 0)
			const devices = 10_000
			ids := make([]string, devices)
			for i := range devices {
				ids[i] = fmt.Sprint("device-", i)
				c := Change{ID: ids[i], Replace: true, Fields: []Field{{reported("battery"), NumberValue(float64(i % 100))}, {reported("status"), StringValue("ok")}}}
				for k := range 10 {
					c.Fields = append(c.Fields, Field{reported(fmt.Sprint("p", k)), NumberValue(float64(i % 1000))})
				}
				l.Apply(uint64(i), now, []Change{c})
			}
			for i := range tc.queries {
				q := &Query{text: fmt.Sprint(i), top: -1, items: []item{{key: "battery", path: reported("battery")}}, where: &binary{op: opLess, left: &ref{path: tc.path(i)}, right: &literal{value: NumberValue(float64(i))}}}
				if tc.path(i)[2] != "battery" {
					q.items[0].path = reported("status")
				}
				r, err := l.Open(q, "")
				if err != nil {
					b.Fatal(err)
				}
				for list, more, err := r.Next(1000, nil); len(list) > 0 || more == l.ready; list, more, err = r.Next(1000, nil) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			n := uint64(devices)
			for b.Loop() {
				n++
				l.Apply(n, now, []Change{{ID: ids[n*7919%devices], Fields: []Field{
					{reported("battery"), NumberValue(float64((n*31 + n/devices) % 100))}, {reported("status"), StringValue("ok")}, {reported("$version"), NumberValue(float64(n % 50))},
				}}})
			}
		})
	}
}

// BenchmarkLiveSites measures a patch of what a hundred queries show of devices
// that are of a site each, when the queries are of no device, of a site each, and
// a mixture: of sites, of what is low in a site, of what is low anywhere, of all.
// Their readers take what there is after each few thousand patches.
func BenchmarkLiveSites(b *testing.B) {
	const shown = "SELECT deviceId, reported.battery, reported.uptime FROM devices WHERE "
	for _, tc := range []struct {
		name  string
		where func(i int) string
	}{
		{"silent", func(i int) string { return fmt.Sprintf("reported.battery < %d", -i) }},
		{"sites", func(i int) string { return fmt.Sprintf("tags.site = 'site-%03d'", i) }},
		{"mixed", func(i int) string {
			switch {
			case i < 60:
				return fmt.Sprintf("tags.site = 'site-%03d'", i)
			case i < 80:
				return fmt.Sprintf("tags.site = 'site-%03d' AND reported.battery < 20", i)
			case i < 95:
				return fmt.Sprintf("reported.battery < %d", 12+i%15)
			}
			return fmt.Sprintf("reported.battery < %d", 1000+i)
		}},
		{"all", func(i int) string { return fmt.Sprintf("reported.battery < %d", 1000+i) }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			l := NewLive(NewColumns(ColumnOptions{ID: Path{"deviceId"}}), LiveOptions{Queries: 100, Bytes: 64 << 20, Linger: time.Minute, Instance: "b", Text: benchText})
			reported := func(key string) Path { return Path{"properties", "reported", key} }
			const devices = 10_000
			ids := make([]string, devices)
			for i := range devices {
				ids[i] = fmt.Sprint("device-", i)
				l.Apply(uint64(i), time.Unix(1000, 0), []Change{{ID: ids[i], Replace: true, Fields: []Field{
					{Path{"tags", "site"}, StringValue(fmt.Sprintf("site-%03d", i%100))}, {reported("battery"), NumberValue(50)}, {reported("uptime"), NumberValue(1)},
				}}})
			}
			var readers []*LiveReader
			var list []LiveEvent
			var page []byte
			events := 0
			read := func(r *LiveReader) {
				for {
					var more <-chan struct{}
					var err error
					if list, more, err = r.Next(512, list); err != nil {
						b.Fatal(err)
					}
					if len(list) == 0 && more != l.ready {
						return
					}
					page = page[:0]
					for i := range list {
						page = append(list[i].AppendCursor(page), list[i].Text()...)
					}
					events += len(list)
				}
			}
			for i := range 100 {
				q, err := Parse(shown+tc.where(i), Options{})
				if err != nil {
					b.Fatal(err)
				}
				r, err := l.Open(q, "")
				if err != nil {
					b.Fatal(err)
				}
				read(r)
				readers = append(readers, r)
			}
			n := uint64(devices)
			events = 0
			used := processTime()
			for b.Loop() {
				n++
				if n%4096 == 0 {
					for _, r := range readers {
						read(r)
					}
				}
				l.Apply(n, time.Unix(1001, 0), []Change{{ID: ids[n%256*37], Fields: []Field{
					{reported("battery"), NumberValue(float64(10 + n*31%90))}, {reported("uptime"), NumberValue(float64(n))},
					{reported("temperature"), NumberValue(float64(n % 40))}, {reported("$version"), NumberValue(float64(n))},
				}}})
			}
			b.ReportMetric(float64((processTime()-used).Nanoseconds())/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(events)/float64(b.N), "events/op")
		})
	}
}

// benchText is about what an edge makes of an event.
func benchText(b []byte, id string, position uint64, at time.Time, _ LiveRowText) []byte {
	b = at.UTC().AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano)
	b = append(append(append(b, `","deviceId":"`...), id...), `","position":`...)
	return append(strconv.AppendUint(b, position, 10), `,"row":`...)
}
