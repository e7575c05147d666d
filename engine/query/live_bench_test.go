package query

import (
	"fmt"
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
