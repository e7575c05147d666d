package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// The work that every store does. There are documents of 955 bytes that look
// like twins. One update is one durable transaction that reads a document,
// changes three of its members, and writes four things: the document, its
// entry in an index over a member that changes each time, a history row (who,
// when, patch and undo patch), and a change-log entry. Stores that know
// nothing of JSON get the same bytes from the same functions, with members of
// fixed width so that the change costs next to nothing: what is measured is
// the store.

const documentSize = 955

// Members of fixed width are written between these limits.
const (
	firstID      = 1_000_000
	firstVersion = 1_000_000_000
	leastBattery = 10
	mostBattery  = 99
)

func documentID(n int) string { return "device-" + strconv.Itoa(firstID+n) }

// newDocument returns document n. Its text is as random as real twins are: ids,
// digests and readings, beside names that repeat.
func newDocument(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	hex := func(k int) string {
		b := make([]byte, k)
		for i := range b {
			b[i] = "0123456789abcdef"[r.IntN(16)]
		}
		return string(b)
	}
	b := fmt.Appendf(nil, `{"deviceId":%q,"version":%d,"reported":{"battery":%d,"uptime":%d,"temperature":%02d.5,"rssi":-%d,"status":"ok",`,
		documentID(n), firstVersion, leastBattery+r.IntN(90), 1_000_000_000+r.IntN(1000), 10+r.IntN(50), 40+r.IntN(50))
	b = fmt.Appendf(b, `"fw":{"version":"%d.%d.%d","slot":"a","sha256":%q},"network":{"mac":%q,"ip":"10.%d.%d.%d","ssid":"site-%d"},"serial":%q},`,
		1+r.IntN(3), r.IntN(10), r.IntN(30), hex(64), hex(12), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(200), hex(16))
	b = fmt.Appendf(b, `"desired":{"interval":30,"fw":{"version":"2.%d.0","url":"https://updates.example.net/images/gateway-%s.swu"},"alarms":{"low":10,"high":%d}},`,
		r.IntN(9), hex(32), 60+r.IntN(30))
	b = fmt.Appendf(b, `"tags":{"site":"site-%03d","building":"B%d","floor":%d,"customer":"customer-%04d","installed":"2025-%02d-%02d"},"note":"`,
		r.IntN(200), r.IntN(20), r.IntN(12), r.IntN(5000), 1+r.IntN(12), 1+r.IntN(28))
	const end = `"}`
	for len(b) < documentSize-len(end) {
		b = append(b, hex(1)...)
	}
	return append(b, end...)
}

// change is one update.
type change struct {
	document int
	battery  int // two digits
	uptime   int // ten digits
	reading  int // two digits
}

func randomChange(documents int) change {
	return change{
		document: rand.IntN(documents), battery: leastBattery + rand.IntN(mostBattery-leastBattery+1),
		uptime: 1_000_000_000 + rand.IntN(999_999_999), reading: 10 + rand.IntN(80),
	}
}

// field returns the place of a number of fixed width.
func field(doc []byte, key string, width int) []byte {
	i := bytes.Index(doc, []byte(key)) + len(key)
	return doc[i : i+width]
}

const (
	keyVersion     = `"version":`
	keyBattery     = `"battery":`
	keyUptime      = `"uptime":`
	keyTemperature = `"temperature":`
)

func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		panic("the document is damaged: " + err.Error())
	}
	return n
}

func versionOf(doc []byte) int { return number(field(doc, keyVersion, 10)) }
func batteryOf(doc []byte) int { return number(field(doc, keyBattery, 2)) }

// rows are what one update writes beside the index entry.
type rows struct {
	document []byte
	version  int
	battery  [2]int // before, after
	history  []byte
	log      []byte
}

// apply changes doc in place, which the caller must own.
func (c change) apply(doc []byte, now time.Time) rows {
	r := rows{document: doc, version: versionOf(doc) + 1, battery: [2]int{batteryOf(doc), c.battery}}
	oldUptime, oldReading := number(field(doc, keyUptime, 10)), number(field(doc, keyTemperature, 2))
	strconv.AppendInt(field(doc, keyVersion, 10)[:0], int64(r.version), 10)
	strconv.AppendInt(field(doc, keyBattery, 2)[:0], int64(c.battery), 10)
	strconv.AppendInt(field(doc, keyUptime, 10)[:0], int64(c.uptime), 10)
	strconv.AppendInt(field(doc, keyTemperature, 2)[:0], int64(c.reading), 10)

	id := documentID(c.document)
	patch := func(b []byte, battery, uptime, reading int) []byte {
		b = append(append(b, `{"battery":`...), strconv.Itoa(battery)...)
		b = append(append(b, `,"uptime":`...), strconv.Itoa(uptime)...)
		b = append(append(b, `,"temperature":`...), strconv.Itoa(reading)...)
		return append(b, `.5,"status":"ok"}`...)
	}
	b := append(make([]byte, 0, 256), `{"version":`...)
	b = strconv.AppendInt(b, int64(r.version), 10)
	b = now.AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano)
	b = append(append(append(b, `","principal":"device:`...), id...), `","patch":`...)
	b = patch(b, c.battery, c.uptime, c.reading)
	b = patch(append(b, `,"undo":`...), r.battery[0], oldUptime, oldReading)
	r.history = append(b, '}')

	b = append(append(make([]byte, 0, 192), `{"kind":"twin.reported","device":"`...), id...)
	b = strconv.AppendInt(append(b, `","version":`...), int64(r.version), 10)
	b = patch(append(b, `,"data":`...), c.battery, c.uptime, c.reading)
	r.log = append(b, '}')
	return r
}
