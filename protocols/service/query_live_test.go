package service

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

const livePath = "/api/v1/query/live?"

// liveSource is a stream of server-sent events of a live query.
type liveSource struct {
	testing.TB
	lines  *bufio.Scanner
	close  func() error
	cursor string
}

func followLive(t testing.TB, f *fixture, query url.Values, last string) *liveSource {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+livePath+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Authorization", f.token("service", enginetest.HostName))
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	return &liveSource{TB: t, lines: bufio.NewScanner(res.Body), close: res.Body.Close}
}

// next reads n events, as text.
func (s *liveSource) next(n int) string {
	s.Helper()
	var list []string
	for kind := ""; len(list) < n && s.lines.Scan(); {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "id":
			s.cursor = value
		case "event":
			kind = value
		case "data":
			var d liveDocument
			if err := json.Unmarshal([]byte(value), &d); err != nil || d.Kind != kind || d.Cursor != s.cursor {
				s.Fatalf("%q of %s behind %s: %v", value, kind, s.cursor, err)
			}
			list = append(list, liveText(d))
		}
	}
	if len(list) < n {
		s.Fatalf("the stream ended behind %q: %v", list, s.lines.Err())
	}
	return strings.Join(list, "\n")
}

func liveText(d liveDocument) string {
	return strings.TrimSpace(d.Kind + " " + d.DeviceID + " " + string(d.Row))
}

func tagDevice(t testing.TB, f *fixture, id, tags string) {
	t.Helper()
	if _, err := f.hub.PatchTwin(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: id}, engine.TwinUpdate{Tags: []byte(tags)}, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
}

func TestLiveQueryStream(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"a", "b"} {
		if _, err := f.hub.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: id}); err != nil {
			t.Fatal(err)
		}
	}
	tagDevice(t, f, "a", `{"n":1}`)
	ask := url.Values{"query": {"SELECT deviceId, tags.n FROM devices WHERE tags.n > 0"}}
	s := followLive(t, f, ask, "")
	same := func(got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
	same(s.next(2), `row a {"deviceId":"a","n":1}`+"\ncurrent")
	tagDevice(t, f, "b", `{"n":2}`)
	tagDevice(t, f, "a", `{"n":3}`)
	same(s.next(2), `enter b {"deviceId":"b","n":2}`+"\n"+`change a {"deviceId":"a","n":3}`)
	_ = s.close()
	tagDevice(t, f, "b", `{"n":null}`)
	s = followLive(t, f, ask, s.cursor)
	same(s.next(1), "leave b")
	// A cursor of a hub that ran before: everything again.
	instance, rest, _ := strings.Cut(s.cursor, ".")
	s = followLive(t, f, ask, strings.Repeat("0", len(instance))+"."+rest)
	same(s.next(3), "reset\n"+`row a {"deviceId":"a","n":3}`+"\ncurrent")

	for _, compressed := range []bool{false, true} {
		head := http.Header{}
		if compressed {
			head.Set("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
		}
		c := dialSocketAt(t, f, livePath+url.Values{"where": {`deviceId == "a"`}}.Encode(), head)
		var list []string
		for len(list) < 2 {
			for _, raw := range c.page().Events {
				var d liveDocument
				if err := json.Unmarshal(raw, &d); err != nil {
					t.Fatal(err)
				}
				list = append(list, d.Kind)
			}
		}
		same(strings.Join(list, " "), "row current")
	}
}

func TestLiveQueryStreamRefuses(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		query  string
		accept string
		want   string
	}{
		{"query=" + url.QueryEscape("SELECT * FROM devices"), "application/json", "a live query is a stream"},
		{"", "text/event-stream", "0 of the parameters"},
		{"where=true&query=x", "text/event-stream", "2 of the parameters"},
		{"where=true&source=jobs", "text/event-stream", "expected devices or modules"},
		{"query=x&source=modules", "text/event-stream", "source goes with where"},
		{"query=" + url.QueryEscape("SELECT COUNT() FROM devices"), "text/event-stream", "COUNT in a live query"},
		{"where=" + url.QueryEscape("tags.a =="), "text/event-stream", "the query can't be read"},
		{"where=true&cursor=x", "text/event-stream", "the cursor is not one"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+livePath+tc.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", tc.accept)
		req.Header.Set("Authorization", f.token("service", enginetest.HostName))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p problem
		err = json.NewDecoder(res.Body).Decode(&p)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadRequest || err != nil || !strings.Contains(p.Detail, tc.want) {
			t.Errorf("%s: %d, %+v, %v; want %q", tc.query, res.StatusCode, p, err, tc.want)
		}
		if marked := p.Query != nil && strings.HasSuffix(p.Query.Caret, "^"); marked != strings.Contains(p.Detail, "column ") {
			t.Errorf("%s: where is it wrong? %+v", tc.query, p)
		}
		if strings.Contains(p.Detail, "can't be followed") && !strings.Contains(p.Next, "--watch") {
			t.Errorf("%s: the next step is %q", tc.query, p.Next)
		}
	}
}

// A query that can't be followed any more ends its stream with all that a request
// would be told.
func TestLiveQueryStreamEnds(t *testing.T) {
	const text = "the query can't be followed: the path tags.odd has no column"
	why := closingOf(&engine.Error{Code: engine.CodeArgumentInvalid, Message: text, Next: "Ask for others."})
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	s := &eventSource{conn: here, room: &newStreamPages().gatherings, left: func() {}}
	go s.finish(why, "c1")
	got, err := io.ReadAll(there)
	if want := "id: c1\nevent: end\n" + `data: {"code":"query","reason":"` + text + `","next":"Ask for others.","cursor":"c1"}` + "\n\n"; err != nil || string(got) != want {
		t.Errorf("got\n%s, %v, want\n%s", got, err, want)
	}
	// A WebSocket's reason has room for less, and for the cursor.
	if len(why.text) > 60 {
		t.Errorf("%q is too long", why.text)
	}
}

// TestLiveQueryManyStreams: many who follow the same get the same, from one
// evaluation.
func TestLiveQueryManyStreams(t *testing.T) {
	f := newFixture(t)
	if _, err := f.hub.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: "a"}); err != nil {
		t.Fatal(err)
	}
	var all []*liveSource
	for range 50 {
		s := followLive(t, f, url.Values{"query": {"SELECT tags.n FROM devices"}}, "")
		s.next(2)
		all = append(all, s)
	}
	var want []string
	for i := range 40 {
		tagDevice(t, f, "a", fmt.Sprintf(`{"n":%d}`, i))
		want = append(want, fmt.Sprintf(`change a {"n":%d}`, i))
	}
	for _, s := range all {
		if got := s.next(len(want)); got != strings.Join(want, "\n") {
			t.Fatalf("got\n%s", got)
		}
	}
	if got := f.hub.LiveQueryStats(); got.Queries != 1 || got.Subscriptions != 50 || got.Lagged != 0 {
		t.Errorf("figures: %+v", got)
	}
}
