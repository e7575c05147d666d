package engine_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/query"
)

func follow(tb testing.TB, h *engine.Hub, text, cursor string) *engine.LiveQuery {
	tb.Helper()
	s, err := h.LiveQuery(tb.Context(), enginetest.Owner(), engine.QueryRequest{Text: text, Token: cursor})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// told reads events until there have been n of them, as text.
func told(tb testing.TB, s *engine.LiveQuery, n int) string {
	tb.Helper()
	var lines []string
	for len(lines) < n {
		list, err := s.Next(tb.Context(), time.Hour)
		if err != nil || len(list) == 0 {
			tb.Fatalf("after %q: %d events, %v", lines, len(list), err)
		}
		for _, e := range list {
			lines = append(lines, strings.TrimRight(e.Kind.String()+" "+engine.LiveIdentity(&e.LiveShown).String()+" "+e.Row(), " "))
		}
	}
	return strings.Join(lines, "\n")
}

func expect(tb testing.TB, got string, want ...string) {
	tb.Helper()
	if w := strings.Join(want, "\n"); got != w {
		tb.Fatalf("got\n%s\nwant\n%s", got, w)
	}
}

func patchTags(tb testing.TB, h *engine.Hub, id, tags string) {
	tb.Helper()
	if _, err := h.PatchTwin(tb.Context(), enginetest.Owner(), engine.TwinID{DeviceID: id}, engine.TwinUpdate{Tags: []byte(tags)}, engine.IfMatch{}); err != nil {
		tb.Fatal(err)
	}
}

func TestLiveQuery(t *testing.T) {
	h := enginetest.New(t)
	for _, id := range []string{"b", "a", "c"} {
		if _, err := h.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: id}); err != nil {
			t.Fatal(err)
		}
	}
	patchTags(t, h, "a", `{"site":"A"}`)
	patchTags(t, h, "b", `{"site":"A"}`)
	s := follow(t, h, "SELECT deviceId, tags.site, tags.floor FROM devices WHERE tags.site = 'A'", "")
	expect(t, told(t, s, 3), `row a {"deviceId":"a","site":"A"}`, `row b {"deviceId":"b","site":"A"}`, "current")
	patchTags(t, h, "c", `{"site":"A"}`)
	patchTags(t, h, "a", `{"other":1}`)
	patchTags(t, h, "a", `{"floor":2}`)
	patchTags(t, h, "b", `{"site":"B"}`)
	cursor := ""
	expect(t, told(t, s, 3), `enter c {"deviceId":"c","site":"A"}`, `change a {"deviceId":"a","site":"A","floor":2}`, "leave b")
	cursor = s.Cursor()
	if err := h.DeleteIdentity(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: "c"}, engine.IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	expect(t, told(t, s, 1), "leave c")
	s.Close()
	// Who comes again goes on behind the cursor.
	s = follow(t, h, "SELECT deviceId, tags.site, tags.floor FROM devices WHERE tags.site = 'A'", cursor)
	expect(t, told(t, s, 1), "leave c")
	defer s.Close()
	// Presence changes rows, too.
	connected := follow(t, h, "SELECT connectionState FROM devices WHERE connectionState = 'Connected'", "")
	defer connected.Close()
	expect(t, told(t, connected, 1), "current")
	d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
	expect(t, told(t, connected, 1), `enter a {"connectionState":"Connected"}`)
	d.Session.Close(errors.New("left"))
	expect(t, told(t, connected, 1), "leave a")
	if got := h.LiveQueryStats(); got.Queries != 2 || got.Subscriptions != 2 {
		t.Errorf("figures: %+v", got)
	}
}

func TestLiveQueryRefuses(t *testing.T) {
	h := enginetest.New(t)
	for text, want := range map[string]string{
		"SELECT COUNT() FROM devices":                                   "column 8: found COUNT in a live query",
		"SELECT deviceId FROM devices ORDER BY deviceId":                "column 30: found ORDER BY in a live query",
		"SELECT TOP 3 * FROM devices":                                   "column 8: found TOP in a live query",
		"SELECT * FROM devices LIMIT 3":                                 "column 23: found LIMIT or OFFSET in a live query",
		"SELECT tags.a, COUNT() FROM devices GROUP BY tags.a":           "column 16: found COUNT in a live query",
		"SELECT * FROM devices.jobs":                                    "found FROM devices.jobs in a live query",
		"SELECT * FROM devices WHERE etag = 'x'":                        "the path etag has no column",
		"SELECT properties.reported.$metadata FROM devices":             "the path properties.reported.$metadata has no column",
		"SELECT * FROM devices WHERE lastActivityTime < now() AND 1 = ": "the query can't be read",
	} {
		_, err := h.LiveQuery(t.Context(), enginetest.Owner(), engine.QueryRequest{Text: text})
		if e := engine.AsError(err); e.Code != engine.CodeArgumentInvalid || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
	var nobody engine.Caller
	if _, err := h.LiveQuery(t.Context(), nobody, engine.QueryRequest{Text: "SELECT * FROM devices"}); engine.AsError(err).Code != engine.CodeForbidden {
		t.Errorf("nobody: %v", err)
	}
	s := follow(t, h, "SELECT * FROM devices", "")
	told(t, s, 1)
	cursor := s.Cursor()
	s.Close()
	for _, bad := range []string{"x", "...", cursor + ".x.y", cursor[:len(cursor)-1] + "zzzz", strings.Repeat("a", 5000)} {
		if _, err := h.LiveQuery(t.Context(), enginetest.Owner(), engine.QueryRequest{Text: "SELECT * FROM devices", Token: bad}); engine.AsError(err).Code != engine.CodeArgumentInvalid {
			t.Errorf("cursor %.40q: %v", bad, err)
		}
	}
	if _, err := h.LiveQuery(t.Context(), enginetest.Owner(), engine.QueryRequest{Text: "SELECT * FROM devices WHERE deviceId = 'a'", Token: cursor}); engine.AsError(err).Code != engine.CodeArgumentInvalid {
		t.Errorf("another query's cursor: %v", err)
	}
}

func TestLiveQueryLimits(t *testing.T) {
	h := enginetest.New(t)
	l := h.Limits()
	var open []*engine.LiveQuery
	for i := range l.LiveQueries {
		s := follow(t, h, fmt.Sprintf("SELECT * FROM devices WHERE tags.n = %d", i), "")
		open = append(open, s)
	}
	if _, err := h.LiveQuery(t.Context(), enginetest.Owner(), engine.QueryRequest{Text: "SELECT * FROM devices"}); engine.AsError(err).Code != engine.CodeThrottled {
		t.Errorf("one query more: %v", err)
	}
	// The same query costs no place, and one that nobody reads gives way.
	for range l.LiveStreamsEach - l.LiveQueries {
		open = append(open, follow(t, h, "SELECT * FROM devices WHERE tags.n = 1", ""))
	}
	if _, err := h.LiveQuery(t.Context(), enginetest.Owner(), engine.QueryRequest{Text: "SELECT * FROM devices WHERE tags.n = 1"}); engine.AsError(err).Code != engine.CodeThrottled {
		t.Errorf("one stream more: %v", err)
	}
	open[0].Close()
	open[0] = follow(t, h, "SELECT * FROM devices", "")
	for _, s := range open {
		s.Close()
	}
	if got := h.LiveQueryStats(); got.Subscriptions != 0 {
		t.Errorf("figures: %+v", got)
	}
}

func TestLiveQueryRestart(t *testing.T) {
	dir, cursor := t.TempDir(), ""
	t.Run("before", func(t *testing.T) {
		h := enginetest.New(t, enginetest.Dir(dir))
		enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
		s := follow(t, h, "SELECT deviceId FROM devices", "")
		told(t, s, 2)
		cursor = s.Cursor()
		s.Close()
	})
	h := enginetest.New(t, enginetest.Dir(dir))
	s := follow(t, h, "SELECT deviceId FROM devices", cursor)
	defer s.Close()
	expect(t, told(t, s, 3), "reset", `row a {"deviceId":"a"}`, "current")
	h.Drain()
	if _, err := s.Next(t.Context(), time.Minute); engine.AsError(err).Code != engine.CodeClosed {
		t.Errorf("when the hub drains: %v", err)
	}
}

// TestLiveQueryDrain: who is late when the hub shuts down gets the page that others had, and what
// came after it.
func TestLiveQueryDrain(t *testing.T) {
	h := enginetest.New(t)
	enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
	patchTags(t, h, "a", `{"n":0}`)
	const text = "SELECT tags.n AS n FROM devices"
	first, late := follow(t, h, text, ""), follow(t, h, text, "")
	defer first.Close()
	defer late.Close()
	for _, s := range []*engine.LiveQuery{first, late} {
		expect(t, told(t, s, 2), `row a {"n":0}`, "current")
	}
	patchTags(t, h, "a", `{"n":1}`)
	expect(t, told(t, first, 1), `change a {"n":1}`)
	patchTags(t, h, "a", `{"n":2}`)
	h.Drain()
	expect(t, told(t, late, 2), `change a {"n":1}`, `change a {"n":2}`)
	expect(t, told(t, first, 1), `change a {"n":2}`)
	for _, s := range []*engine.LiveQuery{first, late} {
		if _, err := s.Next(t.Context(), time.Minute); engine.AsError(err).Code != engine.CodeClosed {
			t.Errorf("after all that was there: %v", err)
		}
	}
}

// TestLiveQueryTime: a condition on the time moves rows without a commit, at
// the nanosecond, and not before what a device did in the meantime is seen.
func TestLiveQueryTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := enginetest.New(t)
		d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
		report := func(at time.Time) {
			if _, err := d.Session.PatchReported(t.Context(), fmt.Appendf(nil, `{"seen":%q}`, at.UTC().Format(time.RFC3339Nano)), -1); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		report(begun)
		s := follow(t, h, "SELECT deviceId FROM devices WHERE reported.seen < now() - 15m", "")
		defer s.Close()
		expect(t, told(t, s, 1), "current")
		list, err := s.Next(t.Context(), time.Hour)
		if err != nil || len(list) != 1 || list[0].Kind != query.LiveEnter {
			t.Fatalf("%v, %v", list, err)
		}
		if late := time.Since(begun) - 15*time.Minute; late <= 0 || late > time.Second {
			t.Errorf("it entered after 15m%+v", late)
		}
		report(time.Now())
		expect(t, told(t, s, 1), "leave a")
		for range 3 { // what is reported again puts it off
			time.Sleep(10 * time.Minute)
			report(time.Now())
		}
		if list, err := s.Next(t.Context(), 14*time.Minute); err != nil || len(list) != 0 {
			t.Fatalf("%v, %v", list, err)
		}
		expect(t, told(t, s, 1), `enter a {"deviceId":"a"}`)

		silent := follow(t, h, "SELECT deviceId FROM devices WHERE lastActivityTime < now() - 1m", "")
		defer silent.Close()
		expect(t, told(t, silent, 2), `row a {"deviceId":"a"}`, "current")
		if err := d.Telemetry(engine.Message{Body: []byte("x"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		expect(t, told(t, silent, 1), "leave a")
		for range 5 {
			if list, err := silent.Next(t.Context(), 50*time.Second); err != nil || len(list) != 0 {
				t.Fatalf("a device that speaks is told of as silent: %v, %v", list, err)
			}
			if err := d.Telemetry(engine.Message{Body: []byte("x"), QoS: 1}); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, told(t, silent, 1), `enter a {"deviceId":"a"}`)
	})
}

// TestLiveQueryFolds: what subscribers fold while devices change, are made and
// deleted is in the end what the query selects, for those who read slowly, too.
func TestLiveQueryFolds(t *testing.T) {
	h := enginetest.New(t)
	texts := []string{
		"SELECT * FROM devices",
		"SELECT deviceId, reported.n FROM devices WHERE reported.n > 3",
		"SELECT tags.site FROM devices WHERE connectionState = 'Connected' AND tags.site = 'A'",
	}
	// What the device "last" shows when nothing comes any more.
	last := []string{`"site":"A"`, `"n":9`, `"site":"A"`}
	const devices = 12
	var readers, writers sync.WaitGroup
	folded := make([]map[string]string, 4*len(texts))
	for i := range folded {
		folded[i] = map[string]string{}
		s := follow(t, h, texts[i%len(texts)], "")
		readers.Go(func() {
			defer s.Close()
			for !strings.Contains(folded[i]["last"], last[i%len(texts)]) {
				list, err := s.Next(t.Context(), time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range list {
					switch e.Kind {
					case query.LiveReset:
						clear(folded[i])
					case query.LiveLeave:
						delete(folded[i], e.ID())
					case query.LiveRow, query.LiveEnter, query.LiveChange:
						folded[i][e.ID()] = e.Row()
					}
				}
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			for n := range 150 {
				id := engine.TwinID{DeviceID: fmt.Sprint("d", w, "-", r.IntN(devices/3))}
				d, err := enginetest.TryConnect(t, h, id, false)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := d.Session.PatchReported(t.Context(), fmt.Appendf(nil, `{"n":%d}`, n%8), -1); err != nil {
					t.Error(err)
				}
				patchTags(t, h, id.DeviceID, fmt.Sprintf(`{"site":%q}`, string(rune('A'+n%2))))
				if r.IntN(3) == 0 {
					d.Session.Close(errors.New("left"))
				}
				if r.IntN(6) == 0 {
					if err := h.DeleteIdentity(t.Context(), enginetest.Owner(), id, engine.IfMatch{Present: true, Any: true}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "last"})
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"n":9}`), -1); err != nil {
		t.Fatal(err)
	}
	patchTags(t, h, "last", `{"site":"A"}`)
	readers.Wait()
	for i, text := range texts {
		want := map[string]string{}
		s := follow(t, h, text, "")
		for done := false; !done; {
			list, err := s.Next(t.Context(), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				if done = e.Kind == query.LiveCurrent; !done {
					want[e.ID()] = e.Row()
				}
			}
		}
		s.Close()
		page, err := h.Query(t.Context(), enginetest.Owner(), engine.QueryRequest{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.Rows) + len(page.Twins); n != len(want) || n < 2 {
			t.Errorf("%s: %d rows in a snapshot, %d in the query's page", text, len(want), n)
		}
		for k := i; k < len(folded); k += len(texts) {
			if !maps.Equal(folded[k], want) {
				t.Errorf("%s: folded\n%v\na snapshot\n%v", text, folded[k], want)
			}
		}
	}
}
