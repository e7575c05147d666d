package main

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"

	"github.com/muster-hub/muster/protocols/client"
)

// The twins of the query benchmark have twenty properties, thirteen tags and
// seven desired ones, since the bulk API takes these. Each engine gets the same
// documents in the form of GET /twins/{id}, metadata included.

// twinID keeps the order of numbers in the order of ids.
func twinID(i int) string { return fmt.Sprintf("device-%07d", i) }

// twinSections returns the tags and desired properties of twin i.
func twinSections(i int) (tags, desired []byte) {
	r := rand.New(rand.NewPCG(uint64(i), 6))
	hex := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "0123456789abcdef"[r.IntN(16)]
		}
		return string(b)
	}
	tags = fmt.Appendf(nil, `{"site":"site-%03d","building":"B%d","floor":%d,"customer":"customer-%04d","installed":"2025-%02d-%02d","model":"gateway-%d","channel":%q,`,
		r.IntN(200), r.IntN(20), r.IntN(12), r.IntN(5000), 1+r.IntN(12), 1+r.IntN(28), r.IntN(40), []string{"stable", "beta", "lab"}[r.IntN(3)])
	tags = fmt.Appendf(tags, `"serial":%q,"ip":"10.%d.%d.%d","uptime":%d,"online":%t,"slot":%q,"rssi":%d}`,
		hex(12), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(10_000_000), r.IntN(10) > 0, []string{"a", "b"}[r.IntN(2)], -40-r.IntN(60))
	low := r.IntN(30)
	desired = fmt.Appendf(nil, `{"battery":%d,"temperature":%d.%02d,"limit":%d.%02d,"interval":%d,"fw":{"version":"%d.%d.%d"},"alarms":{"low":%d,"high":%d}}`,
		r.IntN(101), r.IntN(60), r.IntN(100), 20+r.IntN(60), r.IntN(100), 10*(1+r.IntN(6)), 1+r.IntN(3), r.IntN(10), r.IntN(30), low, 60+low)
	return tags, desired
}

func twinItem(i int) client.BulkItem {
	key := base64.StdEncoding.EncodeToString(deviceSecret)
	tags, desired := twinSections(i)
	return client.BulkItem{
		ID: twinID(i), ImportMode: "create", Status: "enabled",
		Authentication: &client.Authentication{Type: "sas", SymmetricKey: &client.SymmetricKey{Primary: key, Secondary: key}},
		Tags:           tags, Properties: &client.BulkProperties{Desired: desired},
	}
}

// twinDocument returns twin i as GET /twins/{id} shows it.
func twinDocument(i int) []byte {
	tags, desired := twinSections(i)
	const stamp = `{"$lastUpdated":"2026-11-29T12:00:00.1234567Z","$lastUpdatedVersion":2}`
	const node = `{"$lastUpdated":"2026-11-29T12:00:00.1234567Z","$lastUpdatedVersion":2,`
	b := fmt.Appendf(nil, `{"deviceId":%q,"etag":"AAAAAAAAAAE=","deviceEtag":"AAAAAAAAAAE=","status":"enabled","statusReason":null,"statusUpdateTime":"0001-01-01T00:00:00Z",`+
		`"connectionState":"Disconnected","lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"authenticationType":"sas",`+
		`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"modelId":"","version":2,"capabilities":{"iotEdge":false},"tags":%s,"properties":{"desired":`, twinID(i), tags)
	b = append(b, desired[:len(desired)-1]...)
	b = append(b, `,"$metadata":`+node...)
	for _, key := range []string{"battery", "temperature", "limit", "interval"} {
		b = append(b, `"`+key+`":`+stamp+`,`...)
	}
	b = append(b, `"fw":`+node+`"version":`+stamp+`},"alarms":`+node+`"low":`+stamp+`,"high":`+stamp+`}},"$version":2},`...)
	return append(b, `"reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}}}`...)
}

// question is one query in the language of each engine. Variant k varies what
// is compared with, so that no engine answers from what it kept of the last one.
type question struct {
	name      string
	texts     func(k int) texts
	documents bool // whole twins come back: asked twice, since an engine keeps what it has read
}

// texts are a query in three languages.
type texts struct{ muster, postgres, sqlite string }

// distinctDocuments are the texts of the first question until one asks for what
// another one has: each of 200 sites with each of four paths.
const distinctDocuments = 4 * 200

// ranges are the paths that the first question compares, without one of them
// being declared to Muster.
func ranges(k int) (path, column, json string, bound float64) {
	switch (k + k/200) % 4 {
	case 0:
		return "properties.desired.battery", "{properties,desired,battery}", "$.properties.desired.battery", float64(8 + k%5)
	case 1:
		return "properties.desired.temperature", "{properties,desired,temperature}", "$.properties.desired.temperature", 7 + float64(k%9)/4
	case 2:
		return "tags.rssi", "{tags,rssi}", "$.tags.rssi", float64(-92 + k%4)
	}
	return "tags.uptime", "{tags,uptime}", "$.tags.uptime", float64(1_200_000 + 1000*(k%100))
}

func questions() []question {
	const version, serial = "{properties,desired,fw,version}", "{tags,serial}"
	return []question{
		{name: "equality and range, 100 documents", documents: true, texts: func(k int) texts {
			path, column, json, bound := ranges(k)
			site := fmt.Sprintf("site-%03d", k*7%200)
			return texts{
				fmt.Sprintf("SELECT TOP 100 * FROM devices WHERE tags.site = '%s' AND %s < %g", site, path, bound),
				fmt.Sprintf("SELECT doc FROM twin WHERE doc #>> '{tags,site}' = '%s' AND (doc #>> '%s')::float8 < %g ORDER BY id LIMIT 100", site, column, bound),
				fmt.Sprintf("SELECT doc FROM twin WHERE doc ->> '$.tags.site' = '%s' AND doc ->> '%s' < %g ORDER BY id LIMIT 100", site, json, bound),
			}
		}},
		{name: "count by group, with a condition", texts: func(k int) texts {
			bound := 15 + k%10
			return texts{
				fmt.Sprintf("SELECT tags.building AS building, COUNT() AS n FROM devices WHERE properties.desired.battery < %d GROUP BY tags.building", bound),
				fmt.Sprintf("SELECT doc #>> '{tags,building}', count(*) FROM twin WHERE (doc #>> '{properties,desired,battery}')::float8 < %d GROUP BY 1", bound),
				fmt.Sprintf("SELECT doc ->> '$.tags.building', count(*) FROM twin WHERE doc ->> '$.properties.desired.battery' < %d GROUP BY 1", bound),
			}
		}},
		{name: "string function, 900 values", texts: func(k int) texts {
			end := fmt.Sprintf(".%d", k%30)
			return texts{
				fmt.Sprintf("SELECT COUNT() AS n FROM devices WHERE ENDSWITH(LOWER(properties.desired.fw.version), '%s')", end),
				fmt.Sprintf("SELECT count(*) FROM twin WHERE right(lower(doc #>> '%s'), %d) = '%s'", version, len(end), end),
				fmt.Sprintf("SELECT count(*) FROM twin WHERE substr(lower(doc ->> '$.properties.desired.fw.version'), -%d) = '%s'", len(end), end),
			}
		}},
		{name: "string function, unique values", texts: func(k int) texts {
			end := fmt.Sprintf("%02x", k*37%256)
			return texts{
				fmt.Sprintf("SELECT COUNT() AS n FROM devices WHERE ENDSWITH(LOWER(tags.serial), '%s')", end),
				fmt.Sprintf("SELECT count(*) FROM twin WHERE right(lower(doc #>> '%s'), 2) = '%s'", serial, end),
				fmt.Sprintf("SELECT count(*) FROM twin WHERE substr(lower(doc ->> '$.tags.serial'), -2) = '%s'", end),
			}
		}},
		{name: "part of unique values", texts: func(k int) texts {
			part := fmt.Sprintf("%04x", k*2654435761%65536)
			return texts{
				fmt.Sprintf("SELECT COUNT() AS n FROM devices WHERE CONTAINS(tags.serial, '%s')", part),
				fmt.Sprintf("SELECT count(*) FROM twin WHERE doc #>> '%s' LIKE '%%%s%%'", serial, part),
				fmt.Sprintf("SELECT count(*) FROM twin WHERE instr(doc ->> '$.tags.serial', '%s') > 0", part),
			}
		}},
		{name: "two paths of all twins", texts: func(int) texts {
			return texts{
				"SELECT COUNT() AS n FROM devices WHERE properties.desired.temperature > properties.desired.limit",
				"SELECT count(*) FROM twin WHERE (doc #>> '{properties,desired,temperature}')::float8 > (doc #>> '{properties,desired,limit}')::float8",
				"SELECT count(*) FROM twin WHERE doc ->> '$.properties.desired.temperature' > doc ->> '$.properties.desired.limit'",
			}
		}},
	}
}
