package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/muster-hub/muster/protocols/client"
)

// A live query tells of each change once, by its text and by its name.
func TestQueryLive(t *testing.T) {
	h, env := queryFleet(t)
	queryStep{[]string{"query", "save", "a", "SELECT deviceId, tags.floor FROM devices WHERE tags.site = 'A'"}, ExitOK, "version", ""}.run(t, env)
	queryStep{[]string{"query", "--live", "--watch", "true"}, ExitUsage, "--watch", ""}.run(t, env)
	queryStep{[]string{"query", "--live", "-o", "csv", "true"}, ExitUsage, "jsonl", ""}.run(t, env)
	queryStep{[]string{"query", "--live", "--limit", "1", "true"}, ExitUsage, "next: Leave --limit out", "pump"}.run(t, env)
	queryStep{[]string{"query", "run", "--live", "--limit=1", "a"}, ExitUsage, "--watch", "pump"}.run(t, env)
	queryStep{[]string{"query", "run", "--live", "--limit=0", "nothing"}, ExitNotFound, "nothing", ""}.run(t, env)
	queryStep{[]string{"query", "--live", "SELECT COUNT() FROM devices"}, ExitFailed, "^", ""}.run(t, env)
	queryStep{[]string{"query", "run", "--live", "nothing"}, ExitNotFound, "nothing", ""}.run(t, env)
	ctx, stop := context.WithCancel(t.Context())
	follow := func(args ...string) (expect func(string), done chan int) {
		read, write := io.Pipe()
		done = make(chan int, 1)
		go func() {
			a := newApp(ctx, IO{In: strings.NewReader(""), Out: write, Err: io.Discard, Env: func(name string) string { return env[name] }}, Hooks{})
			done <- a.run(args)
			_ = write.Close()
		}()
		lines := bufio.NewScanner(read)
		return func(want string) {
			t.Helper()
			if !lines.Scan() || !strings.Contains(lines.Text(), want) {
				t.Fatalf("got %s, want %s", lines.Text(), want)
			}
		}, done
	}
	byName, first := follow("query", "run", "--live", "a")
	byText, second := follow("query", "--live", "-o", "jsonl", "tags.site == 'A'")
	byName(`+ pump-0  {"deviceId":"pump-0","floor":0}`)
	byName(`+ pump-2  {"deviceId":"pump-2","floor":2}`)
	byText(`"kind":"row"`)
	byText(`"kind":"row"`)
	byText(`"kind":"current"`)
	tagged(t, h, "pump-2", `{"floor":7}`)
	byName(`~ pump-2  {"deviceId":"pump-2","floor":7}`)
	byText(`"kind":"change"`)
	tagged(t, h, "pump-3", `{"site":"A"}`)
	byName(`+ pump-3  {"deviceId":"pump-3","floor":3}`)
	byText(`"kind":"enter"`)
	tagged(t, h, "pump-0", `{"site":null}`)
	byName("- pump-0")
	byText(`"kind":"leave"`)
	stop()
	for _, done := range []chan int{first, second} {
		if code := <-done; code != ExitOK {
			t.Errorf("exit code %d", code)
		}
	}
}

// What a snapshot brings again is not told again.
func TestLiveRows(t *testing.T) {
	l := liveRows{rows: map[string]string{}}
	for _, step := range []struct{ kind, id, row, want string }{
		{"row", "a", "1", "+ a  1"},
		{"row", "b", "1", "+ b  1"},
		{"row", "c", "1", "+ c  1"},
		{"current", "", "", ""},
		{"change", "b", "2", "~ b  2"},
		{"reset", "", "", ""},
		{"row", "a", "1", ""},
		{"leave", "a", "", "- a"},
		{"row", "b", "3", "~ b  3"},
		{"reset", "", "", ""}, // again, before it was whole
		{"row", "b", "3", ""},
		{"row", "d", "1", "+ d  1"},
		{"current", "", "", "- c"},
		{"enter", "c", "1", "+ c  1"},
	} {
		e := client.LiveEvent{Kind: step.kind, DeviceID: step.id, Row: json.RawMessage(step.row)}
		if got := strings.Join(l.take(e), ";"); got != step.want {
			t.Errorf("%s %s %s: got %q, want %q", step.kind, step.id, step.row, got, step.want)
		}
	}
}

// Why a stream ended is told, and the answer to the request that follows.
func TestQueryLiveEnds(t *testing.T) {
	const refusal = `{"code":"ArgumentInvalid","detail":"the query can't be followed: the path tags.odd has no column","next":"Ask for paths that have a column.","query":{"column":8,"caret":"SELECT tags.odd\n       ^"}}`
	asked := 0
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked > 2 {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, refusal)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		code, why := "slow", "read too slowly"
		if asked == 2 {
			code, why = "closing", "the hub is shutting down"
		}
		_, _ = fmt.Fprintf(w, "id: c%d\nevent: row\ndata: {\"cursor\":\"c%d\",\"kind\":\"row\",\"deviceId\":\"d%d\",\"row\":{}}\n\nevent: end\ndata: {\"code\":%q,\"reason\":%q}\n\n", asked, asked, asked, code, why)
	}))
	got := call{args: []string{"query", "--live", "SELECT tags.odd FROM devices", "--data", dir}}.run(t)
	const notes = "The hub ended the stream: read too slowly; asking again.\n" +
		"The hub does not answer; going on when it is back.\n" +
		"muster: the query can't be followed: the path tags.odd has no column\n  SELECT tags.odd\n         ^\n"
	if got.code != ExitFailed || got.out != "+ d1  {}\n+ d2  {}\n" || !strings.HasPrefix(got.err, notes) || !strings.Contains(got.err, "next: Ask for paths that have a column.\n") {
		t.Errorf("exit code %d:\n%s%s", got.code, got.out, got.err)
	}
}
