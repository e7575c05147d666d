package main

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/muster-hub/muster/protocols/cli"
)

// Queries, saved queries and declared schemas, asked of the program itself, and
// again after it was killed.
func TestQueryTheFleet(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	hub := b.serve()
	for _, id := range []string{"pump-1", "pump-2", "valve-1"} {
		b.must("device", "create", id)
		b.must("twin", "patch", id, "tags.kind="+strings.Split(id, "-")[0], "desired.interval="+id[len(id)-1:])
	}
	check := func() {
		t.Helper()
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"query", "-o", "csv", "SELECT deviceId, desired.interval FROM devices WHERE tags.kind = 'pump' ORDER BY desired.interval DESC"}, "deviceId,interval\npump-2,2\npump-1,1\n"},
			{[]string{"query", "-o", "csv", "SELECT tags.kind, COUNT() AS n FROM devices GROUP BY tags.kind"}, "kind,n\npump,2\nvalve,1\n"},
			{[]string{"query", "run", "pumps", "-o", "jsonl"}, `{"deviceId":"pump-1",`},
			{[]string{"schema", "tags.", "-o", "csv"}, "path,twins,types,column,examples\ntags.kind,3,string,yes,\"\"\"pump\"\", \"\"valve\"\"\"\n"},
		} {
			if out := b.must(c.args...); !strings.HasPrefix(out, c.want) {
				t.Errorf("muster %q: got %s, want %s", c.args, out, c.want)
			}
		}
		if out, code := b.run("twin", "patch", "pump-1", "tags.kind=5"); code != cli.ExitFailed || !strings.Contains(out, "tags.kind: found 5, expected string") {
			t.Errorf("exit code %d: %s", code, out)
		}
		if out, code := b.run("query", "tags.kind = 'pump'"); code != cli.ExitFailed || !strings.Contains(out, "  tags.kind = 'pump'\n            ^\n") {
			t.Errorf("exit code %d: %s", code, out)
		}
	}
	b.must("query", "save", "pumps", `tags.kind == "pump"`)
	schema := b.command(t.Context(), "schema", "declare", "-")
	schema.Stdin = strings.NewReader(`{"mode":"reject","tags":{"properties":{"kind":{"type":"string"}}}}`)
	if out, err := schema.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check()
	hub.stop(syscall.SIGKILL)
	b.serve()
	check()

	// The streams are for programs.
	client := socketClient(filepath.Join(b.dir, "muster-data"))
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://muster/api/v1/query?format=ndjson", strings.NewReader(`{"query":"SELECT deviceId FROM devices"}`))
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	var ids []string
	for d := json.NewDecoder(w.Body); d.More(); {
		var row struct{ DeviceID string }
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, row.DeviceID)
	}
	if got := strings.Join(ids, " "); got != "pump-1 pump-2 valve-1" {
		t.Errorf("the stream has %s", got)
	}
}
