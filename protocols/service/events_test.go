package service

import (
	"bufio"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestEventPage(t *testing.T) {
	f := newFixture(t)
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "a"})
	for _, body := range []string{`{"t":1}`, "plain text", "\xff\xfe"} {
		if err := d.Telemetry(engine.Message{Body: []byte(body), QoS: 1, Properties: []engine.Property{{Name: "p", Value: "v"}}}); err != nil {
			t.Fatal(err)
		}
	}
	w := serveLocal(t, f, "/api/v1/events?cursor=start&kind=telemetry&limit=10", nil)
	var page eventPage
	if err := json.Unmarshal([]byte(w), &page); err != nil {
		t.Fatal(err, w)
	}
	var got []string
	for _, e := range page.Events {
		b, err := json.Marshal(e.Message.Body)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Message.Encoding+" "+string(b)+" "+e.Message.Properties["p"]+" "+e.Message.System["iothub-connection-device-id"])
	}
	want := `json {"t":1} v a|text "plain text" v a|base64 "//4=" v a`
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	for _, bad := range []string{"limit=0", "limit=1001", "limit=x", "wait=61", "wait=-1", "cursor=nonsense"} {
		if w := serveLocal(t, f, "/api/v1/events?"+bad, nil); !strings.Contains(w, `"ArgumentInvalid"`) {
			t.Errorf("%s: %s", bad, w)
		}
	}
}

func TestEventStream(t *testing.T) {
	f := newFixture(t)
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "a"})
	lines, last := openStream(t, f, "", "kind=telemetry&cursor=start")
	send := func(body string) {
		if err := d.Telemetry(engine.Message{Body: []byte(body), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	next := func(lines *bufio.Scanner) (id, data string) {
		for lines.Scan() {
			if v, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = v
			}
			if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return id, v
			}
		}
		t.Fatal("the stream ended: ", lines.Err())
		return "", ""
	}
	send(`"one"`)
	id, data := next(lines)
	if !strings.Contains(data, `"one"`) || last == "" {
		t.Errorf("got %s", data)
	}
	send(`"two"`)
	send(`"three"`)
	// A reader that comes back after the first event misses and repeats nothing.
	again, _ := openStream(t, f, id, "kind=telemetry")
	for _, want := range []string{"two", "three"} {
		if _, data := next(again); !strings.Contains(data, want) {
			t.Errorf("got %s, want %s", data, want)
		}
	}
	// All places taken: refused, and free again when a stream ends.
	for f.hub.FeedStats().Subscriptions < int64(f.hub.Limits().EventStreamsEach) {
		sub, err := f.hub.Subscribe(t.Context(), engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "iothubowner", Permissions: ^auth.Permission(0)}}, engine.EventFilter{}, "")
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
	}
	if w := serveLocal(t, f, "/api/v1/events", http.Header{"Accept": {"text/event-stream"}}); !strings.Contains(w, "1000 event streams of policy:iothubowner are open") {
		t.Errorf("one stream too many: %s", w)
	}
	// The hub goes: the streams end by themselves.
	f.hub.Drain()
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream did not end in order: %v", err)
	}
}

// serveLocal answers a request as the hub's owner and returns the body.
func serveLocal(t *testing.T, f *fixture, path string, head http.Header) string {
	t.Helper()
	res := localRequest(t, f, path, head)
	var b strings.Builder
	s := bufio.NewScanner(res.Body)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		b.WriteString(s.Text())
	}
	return b.String()
}

func openStream(t *testing.T, f *fixture, last, query string) (lines *bufio.Scanner, cursor string) {
	t.Helper()
	head := http.Header{"Accept": {"text/event-stream"}}
	if last != "" {
		head.Set("Last-Event-ID", last)
	}
	res := localRequest(t, f, "/api/v1/events?"+query, head)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", res.Status, res.Header.Get("Content-Type"))
	}
	lines = bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			return lines, v
		}
	}
	t.Fatal("no cursor came")
	return nil, ""
}

func localRequest(t *testing.T, f *fixture, path string, head http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, head)
	req.Header.Set("Authorization", f.token("iothubowner", enginetest.HostName))
	res, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := res.Body.Close(); err != nil {
			t.Log(err)
		}
	})
	return res
}

// TestEventTextStaysNearItsSize: what a device sends must not grow several times
// on its way to each reader.
func TestEventTextStaysNearItsSize(t *testing.T) {
	f := newFixture(t)
	for name, body := range map[string]string{
		"control characters": strings.Repeat("\x01", 64<<10),
		"markup":             strings.Repeat("<", 64<<10),
		"markup in JSON":     `"` + strings.Repeat("<&>", 20<<10) + `"`,
		"quotes":             strings.Repeat(`"`, 64<<10),
		"zeros in UTF-8":     strings.Repeat("a\x00\x00", 20<<10),
		"binary":             strings.Repeat("\xff", 64<<10),
	} {
		for _, form := range eventForms(f.hub) {
			e := &engine.Event{Kind: engine.EventTelemetry, Cursor: "c", ID: engine.TwinID{DeviceID: "d"}, Message: &engine.StoredMessage{Body: []byte(body)}}
			if n := len(form.appendText(nil, e)); n > 2*len(body)+1000 || n < len(body) {
				t.Errorf("%s in schema %s: %d bytes became %d", name, form.name, len(body), n)
			}
			var got struct {
				Body, Message any
			}
			if err := json.Unmarshal(eventJSON(form.appendText(nil, e)), &got); err != nil {
				t.Errorf("%s in schema %s: %v", name, form.name, err)
			}
		}
	}
}
