package service

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// socketClient is a WebSocket client as small as the test needs it.
type socketClient struct {
	testing.TB
	conn net.Conn
	r    *bufio.Reader
	head *http.Response
}

func dialSocket(t testing.TB, f *fixture, query string, head http.Header) *socketClient {
	t.Helper()
	return dialSocketAt(t, f, "/api/v1/events?"+query, head)
}

func dialSocketAt(t testing.TB, f *fixture, path string, head http.Header) *socketClient {
	t.Helper()
	u, err := url.Parse(f.url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = head.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Authorization": f.token("service", enginetest.HostName)} {
		req.Header.Set(name, value)
	}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	c := &socketClient{TB: t, conn: conn, r: bufio.NewReader(conn)}
	if c.head, err = http.ReadResponse(c.r, req); err != nil {
		t.Fatal(err)
	}
	return c
}

// frame reads one frame.
func (c *socketClient) frame() (op byte, compressed bool, payload []byte) {
	c.Helper()
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		c.Fatal(err)
	}
	n := uint64(head[1])
	var more [8]byte
	var err error
	switch n {
	case 126:
		_, err = io.ReadFull(c.r, more[:2])
		n = uint64(binary.BigEndian.Uint16(more[:]))
	case 127:
		_, err = io.ReadFull(c.r, more[:])
		n = binary.BigEndian.Uint64(more[:])
	}
	if err == nil {
		payload = make([]byte, n)
		_, err = io.ReadFull(c.r, payload)
	}
	if err != nil {
		c.Fatal(err)
	}
	return head[0] & 15, head[0]&0x40 != 0, payload
}

// page reads pages up to one with events.
func (c *socketClient) page() (page struct {
	Events []json.RawMessage
	Cursor string
}) {
	c.Helper()
	for len(page.Events) == 0 {
		op, compressed, payload := c.frame()
		if op != 1 {
			c.Fatalf("frame %d, %q", op, payload)
		}
		if compressed {
			var err error
			if payload, err = io.ReadAll(io.LimitReader(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))), 1<<20)); err != nil {
				c.Fatal(err)
			}
		}
		if err := json.Unmarshal(payload, &page); err != nil {
			c.Fatalf("%v: %.200q", err, payload)
		}
	}
	return page
}

// send writes one masked frame.
func (c *socketClient) send(op byte, payload string) {
	c.Helper()
	b := append([]byte{0x80 | op, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	if _, err := c.conn.Write(b); err != nil {
		c.Fatal(err)
	}
}

func TestEventSocket(t *testing.T) {
	f := newFixture(t)
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "a"})
	send := func(body string) {
		t.Helper()
		if err := d.Telemetry(engine.Message{Body: []byte(body), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, compressed := range []bool{false, true} {
		head := http.Header{}
		if compressed {
			head.Set("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
		}
		c := dialSocket(t, f, "kind=telemetry", head)
		if c.head.StatusCode != http.StatusSwitchingProtocols || compressed != strings.Contains(c.head.Header.Get("Sec-WebSocket-Extensions"), "server_no_context_takeover") {
			t.Fatalf("%s %v", c.head.Status, c.head.Header)
		}
		big := `"` + strings.Repeat("big ", 50_000) + `"`
		send(`"one"`)
		first := c.page()
		send(big)
		second := c.page()
		if !strings.Contains(string(first.Events[0]), `"one"`) || !strings.Contains(string(second.Events[0]), big) {
			t.Errorf("got %.100s and %.100s", first.Events, second.Events)
		}
		// It answers pings, and resumes after any event's cursor.
		c.send(9, "there?")
		if op, _, payload := c.frame(); op != 10 || string(payload) != "there?" {
			t.Errorf("a ping got frame %d %q", op, payload)
		}
		again := dialSocket(t, f, "kind=telemetry&cursor="+first.Cursor, nil)
		if p := again.page(); !strings.Contains(string(p.Events[0]), "big big") {
			t.Errorf("resumed with %.100s", p.Events)
		}
		// It takes no messages.
		c.send(1, "hello")
		if op, _, payload := c.frame(); op != 8 || binary.BigEndian.Uint16(payload) != 1008 {
			t.Errorf("a message got frame %d %q", op, payload)
		}
	}
	c := dialSocket(t, f, "", nil)
	if op, _, payload := c.frame(); op != 1 || !strings.HasPrefix(string(payload), `{"events":[],"cursor":"`) {
		t.Errorf("the first frame is %d %q", op, payload)
	}
	f.hub.Drain()
	if op, _, payload := c.frame(); op != 8 || binary.BigEndian.Uint16(payload) != 1001 || !strings.Contains(string(payload), "shutting down; cursor=") {
		t.Errorf("a hub that goes: frame %d %q", op, payload)
	}
}

func TestEventSocketRefuses(t *testing.T) {
	f := newFixture(t)
	host := strings.TrimPrefix(f.url, "http://")
	for origin, want := range map[string]int{"": 101, "http://" + host: 101, "https://" + strings.ToUpper(host): 101, "https://evil.example": 403, "null": 403, "://": 403} {
		head := http.Header{}
		if origin != "" {
			head.Set("Origin", origin)
		}
		c := dialSocket(t, f, "", head)
		if c.head.StatusCode != want {
			t.Errorf("origin %q: %s, want %d", origin, c.head.Status, want)
		}
	}
	for query, want := range map[string]string{"cursor=x": "not one that this hub gave", "schema=avro": `the schema \"avro\" is not known`, "device=": "an item of the filter has 0 bytes"} {
		c := dialSocket(t, f, query, nil)
		body, err := io.ReadAll(c.head.Body)
		if err != nil || c.head.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %s, %v", query, c.head.Status, body, err)
		}
	}
}

// TestEventSourceGzip reads a compressed stream as any client would, to its
// end, which the hub's shutdown is.
func TestEventSourceGzip(t *testing.T) {
	f := newFixture(t)
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "a"})
	res := localRequest(t, f, "/api/v1/events?kind=telemetry", http.Header{"Accept": {"text/event-stream"}, "Accept-Encoding": {"br, gzip;q=0.5"}})
	if res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatal(res.Header)
	}
	text, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v", want, lines.Err())
	}
	for _, body := range []string{`"small"`, `"` + strings.Repeat("large ", 1000) + `"`} {
		if err := d.Telemetry(engine.Message{Body: []byte(body), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		until(body)
	}
	f.hub.Drain()
	until(`data: {"code":"closing","reason":"the hub is shutting down","cursor":"`)
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil { // the checksum among them
		t.Error(err)
	}
	for header, want := range map[string]bool{"": false, "gzip": true, "GZIP;q=1": true, "gzip; q=0": false, "gzip;q=0.000": false, "deflate, br": false, "x, gzip": true} {
		if got := takesGzip(http.Header{"Accept-Encoding": {header}}); got != want {
			t.Errorf("Accept-Encoding: %s: %t", header, got)
		}
	}
}

func TestGzipSum(t *testing.T) {
	var all []byte
	var sum gzipSum
	for i := range 50 {
		part := bytes.Repeat([]byte{byte(i), 'x'}, i*i)
		all = append(all, part...)
		sum = sum.add(sumOf(part))
		if sum.crc != crc32.ChecksumIEEE(all) || int(sum.size) != len(all) {
			t.Fatalf("after part %d: %08x of %d, want %08x of %d", i, sum.crc, sum.size, crc32.ChecksumIEEE(all), len(all))
		}
	}
}

// TestEventsShared follows the same events in every form and filter at once,
// while they happen: nobody misses, repeats or swaps any.
func TestEventsShared(t *testing.T) {
	f := newFixture(t)
	const devices, each = 3, 200
	var list []*enginetest.Device
	for i := range devices {
		list = append(list, enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: fmt.Sprintf("d%d", i)}))
	}
	type follower struct {
		name   string
		device string
		done   chan string
	}
	var followers []follower
	for i := range 24 {
		w := follower{name: fmt.Sprintf("follower %d", i), done: make(chan string, 1)}
		query := "kind=telemetry"
		if i%3 > 0 {
			w.device = fmt.Sprintf("d%d", i%devices)
			query += "&device=" + w.device + "*"
		}
		if i%4 == 0 {
			query += "&schema=iothub"
		}
		var next func() []json.RawMessage
		if i%2 == 0 {
			c := dialSocket(t, f, query, http.Header{"Sec-Websocket-Extensions": {map[bool]string{true: "permessage-deflate", false: "x"}[i%4 == 0]}})
			next = func() []json.RawMessage { return c.page().Events }
		} else {
			lines, _ := openStream(t, f, "", query)
			next = func() []json.RawMessage {
				for lines.Scan() {
					if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
						return []json.RawMessage{json.RawMessage(v)}
					}
				}
				return nil
			}
		}
		followers = append(followers, w)
		go func() {
			counts, seen := map[string]int{}, 0
			want := devices * each
			if w.device != "" {
				want = each
			}
			for seen < want {
				events := next()
				if len(events) == 0 {
					w.done <- "the stream ended"
					return
				}
				for _, e := range events {
					var d struct {
						DeviceID string
						Message  struct{ Body int }
						Body     int
						System   map[string]any `json:"systemProperties"`
					}
					if err := json.Unmarshal(e, &d); err != nil {
						w.done <- err.Error()
						return
					}
					id, n := d.DeviceID, d.Message.Body+d.Body
					if id == "" {
						id, _ = d.System["iothub-connection-device-id"].(string)
					}
					if counts[id] != n || w.device != "" && id != w.device {
						w.done <- fmt.Sprintf("%s gave %d, %d was expected", id, n, counts[id])
						return
					}
					counts[id]++
					seen++
				}
			}
			w.done <- ""
		}()
	}
	for n := range each {
		for _, d := range list {
			if err := d.Session.SubmitTelemetry(engine.Message{Body: fmt.Append(nil, n), QoS: 1}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, w := range followers {
		select {
		case got := <-w.done:
			if got != "" {
				t.Errorf("%s: %s", w.name, got)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s misses events", w.name)
		}
	}
	if n := f.handler.streams.sent.Load(); n < 8*devices*each+16*each {
		t.Errorf("%d events were sent by the counter", n)
	}
}

// TestDrainCutsStreams: a client that takes nothing does not hold up the end.
func TestDrainCutsStreams(t *testing.T) {
	f := newFixture(t)
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "a"})
	dialSocket(t, f, "", nil) // never reads
	localRequest(t, f, "/api/v1/events", http.Header{"Accept": {"text/event-stream"}, "Accept-Encoding": {"identity"}})
	for range 100 { // more than sockets hold
		if err := d.Telemetry(engine.Message{Body: bytes.Repeat([]byte{0xff}, 200_000), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	f.hub.Drain()
	done := make(chan struct{})
	go func() { f.handler.Drain(ctx); close(done) }()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		t.Fatal("streams outlive their time")
	}
	if n := f.handler.streams.open.Load(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}
