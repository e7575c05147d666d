package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

// queryStep is a step whose words are given: queries have spaces.
type queryStep struct {
	args []string
	code int
	want string
	not  string
}

func (s queryStep) run(t *testing.T, env map[string]string) {
	t.Helper()
	got := call{args: s.args, env: env}.run(t)
	all := got.out + got.err
	if got.code != s.code || !strings.Contains(all, s.want) || s.not != "" && strings.Contains(all, s.not) {
		t.Errorf("muster %q\nexit code %d, want %d, with %q and without %q:\n%s", s.args, got.code, s.code, s.want, s.not, all)
	}
}

func tagged(t *testing.T, h *clienttest.Hub, id, tags string) {
	t.Helper()
	if _, err := h.Engine.PatchTwin(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: id}, engine.TwinUpdate{Tags: []byte(tags)}, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
}

func queryFleet(t *testing.T) (*clienttest.Hub, map[string]string) {
	h := clienttest.Start(t)
	for i := range 4 {
		id := fmt.Sprint("pump-", i)
		if _, err := h.Engine.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: id}); err != nil {
			t.Fatal(err)
		}
		tagged(t, h, id, fmt.Sprintf(`{"site":"%c","floor":%d,"at":{"building":"b%d","room":{"n":%d}},"list":[1,"\u001b[31m"]}`, 'A'+rune(i%2), i, i, i))
	}
	return h, map[string]string{"MUSTER_DATA": h.Dir}
}

func TestQueryCommands(t *testing.T) {
	h, env := queryFleet(t)
	if _, err := h.Engine.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: "pump-0", ModuleID: "camera"}); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, s := range []queryStep{
		{[]string{"query", `tags.site == "A" && tags.floor < 1`}, ExitOK, "at.building=b0 at.room.n=0 floor=0 list=[1,\"\\u001b[31m\"] +1", "pump-1"},
		{[]string{"query", `tags.floor > 9`}, ExitOK, "No twins match.", "DEVICE"},
		{[]string{"query", "--modules", `deviceId == "pump-0"`}, ExitOK, "camera", ""},
		{[]string{"query", "--modules", "SELECT * FROM devices"}, ExitUsage, "FROM devices.modules", ""},
		{[]string{"query", "SELECT deviceId, tags.at FROM devices WHERE tags.floor = 2"}, ExitOK, "deviceId  at.building  at.room\npump-2    b2           {\"n\":2}\n", ""},
		{[]string{"query", "  /* all\n */ select COUNT() AS n, tags.site FROM devices GROUP BY tags.site"}, ExitOK, "n  site\n2  A\n2  B\n", ""},
		{[]string{"query", "-o", "csv", "SELECT deviceId, tags.at, tags.list FROM devices WHERE tags.floor = 2"}, ExitOK, "deviceId,at,list\npump-2,\"{\"\"building\"\":\"\"b2\"\",", ""},
		{[]string{"query", "-o", "csv", "tags.floor == 2"}, ExitOK, "deviceId,moduleId,status,connectionState,lastActivityTime,modelId,version,etag,tags,desired,reported\npump-2,,enabled,", ""},
		{[]string{"query", "-o", "jsonl", "SELECT tags.floor FROM devices WHERE tags.floor < 2"}, ExitOK, "{\"floor\":0}\n{\"floor\":1}\n", ""},
		{[]string{"query", "-o", "json", "SELECT tags.floor FROM devices WHERE tags.floor < 2"}, ExitOK, "[\n  {\n    \"floor\": 0\n  },\n  {\n    \"floor\": 1\n  }\n]\n", ""},
		{[]string{"query", "-o", "json", "tags.floor > 9"}, ExitOK, "[]\n", ""},
		{[]string{"query", "--limit", "2", "true"}, ExitOK, "There are more than 2 rows", "pump-2"},
		{[]string{"query", "--limit", "4", "true"}, ExitOK, "pump-3", "more"},
		{[]string{"query", "--limit=-1", "true"}, ExitUsage, "negative", ""},
		{[]string{"query", "--explain", `tags.site == "A"`}, ExitOK, "tags.site = 'A'", "pump"},
		{[]string{"query", "--explain", "-o", "json", `tags.site == "A"`}, ExitOK, `"selected": 2`, ""},
		{[]string{"query", "--watch", "-o", "csv", "true"}, ExitUsage, "jsonl", ""},
		{[]string{"query", "SELECT * FORM devices"}, ExitFailed, "muster: the query can't be read: column 10: found \"FORM\"", ""},
		{[]string{"query", "SELECT * FORM devices"}, ExitFailed, "\n  SELECT * FORM devices\n           ^\n", ""},
		{[]string{"query", "--json-errors", "tags.site ="}, ExitFailed, `"place":"tags.site =\n`, ""},
		{[]string{"query"}, ExitUsage, "query", ""},
		{[]string{"query", "-tags.floor == -3"}, ExitUsage, "next: If it is no flag, put -- before it: `-- '-tags.floor == -3'`; `muster query --help` shows the usage.\n", "did you mean"},
		{[]string{"query", "save", "--label", "a=b", "n", "-tags.floor == -3"}, ExitUsage, "`-- '-tags.floor == -3'`; `muster query save --help`", "did you mean"},
		{[]string{"query", "--", "-tags.floor == -3"}, ExitOK, "pump-3", "pump-2"},
		{[]string{"query", "-5 < tags.floor"}, ExitUsage, "`-- '-5 < tags.floor'`", ""},
		{[]string{"query", "-x", "true"}, ExitUsage, "unknown flag -x, did you mean", "put --"},

		{[]string{"query", "save", "low", "tags.floor < 2", "--label", "team=north", "--description", "Near the ground."}, ExitOK, "version      1", ""},
		{[]string{"query", "save", "low", "tags.floor < 1", "--etag", "wrong"}, ExitConflict, "ETag", ""},
		{[]string{"query", "save", "low", "tags.floor < 1"}, ExitOK, "version      2", "Near"},
		{[]string{"query", "save", "bad", "tags.floor <"}, ExitFailed, "^", ""},
		{[]string{"query", "list"}, ExitOK, "tags.floor < 1", ""},
		{[]string{"query", "list", "--label", "team"}, ExitOK, "No saved queries", ""},
		{[]string{"query", "show", "low", "--versions"}, ExitOK, "Near the ground.", ""},
		{[]string{"query", "show", "low", "--version", "1", "-o", "json"}, ExitOK, `"team": "north"`, ""},
		{[]string{"query", "show", "nothing"}, ExitNotFound, "muster query list", ""},
		{[]string{"query", "run", "low"}, ExitOK, "pump-0", "pump-1"},
		{[]string{"query", "run", "nothing"}, ExitNotFound, "muster query list", ""},
		{[]string{"query", "delete", "low", "--yes"}, ExitOK, "Deleted", ""},
		{[]string{"query", "delete", "low", "--yes"}, ExitNotFound, "low", ""},

		{[]string{"schema", "tags.f"}, ExitOK, "tags.floor      4  number  yes     0, 1, 2", "site"},
		{[]string{"schema", "deviceId"}, ExitOK, "string  yes", "No twin"},
		{[]string{"schema", "etag"}, ExitOK, "etag  -      -      no: it is kept in documents only", ""},
		{[]string{"schema", "--limit", "1", "tags."}, ExitOK, "more than 1", "floor"},
		{[]string{"schema", "--modules", "-o", "jsonl", "moduleId"}, ExitOK, `"twins":1`, ""},
		{[]string{"schema", "declared"}, ExitNotFound, "schema declare", ""},
	} {
		s.run(t, env)
	}
	for name, text := range map[string]string{"good.json": `{"tags":{"properties":{"floor":{"type":"integer","maximum":100}}}}`, "bad.json": `{"tags":`, "list.json": `[]`, "wrong.json": `{"tags":{"type":"int"}}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []queryStep{
		{[]string{"schema", "declare", "bad.json"}, ExitUsage, "unexpected end", ""},
		{[]string{"schema", "declare", "list.json"}, ExitUsage, "can't be read", ""},
		{[]string{"schema", "declare", "none.json"}, ExitUsage, "none.json", ""},
		{[]string{"schema", "declare", "wrong.json"}, ExitFailed, "the schema of tags is not right", ""},
		{[]string{"schema", "declare", "good.json"}, ExitOK, "mode      warn", ""},
		{[]string{"twin", "patch", "pump-1", "tags.floor=high"}, ExitOK, "high", ""},
		{[]string{"schema", "declared"}, ExitOK, `tags.floor       1         0  pump-1`, ""},
		{[]string{"schema", "declare", "good.json", "--mode", "reject"}, ExitOK, "mode      reject", ""},
		{[]string{"twin", "patch", "pump-1", "tags.floor=higher"}, ExitFailed, `tags.floor: found "higher", expected integer`, ""},
		{[]string{"schema", "declared", "-o", "json"}, ExitOK, `"rejected": 1`, ""},
		{[]string{"schema", "drop", "--yes"}, ExitOK, "Dropped", ""},
		{[]string{"schema", "drop", "--yes"}, ExitNotFound, "schema", ""},
	} {
		s.run(t, env)
	}
}

func TestQueryPathsComplete(t *testing.T) {
	h, _ := queryFleet(t)
	tagged(t, h, "pump-0", `{"a-b":1,"e-f":{"g":1}}`)
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"query", "--data", h.Dir, "tags.fl"}, "tags.floor\tnumber, 4 twins\n"},
		{[]string{"query", "--limit", "5", "--data", h.Dir, `'tags.site == "é" && tags.fl`}, "tags.site == \"é\" && tags.floor\tnumber, 4 twins\n"},
		{[]string{"query", "save", "--data", h.Dir, "name", "SELECT tags.at.b"}, "SELECT tags.at.building\tstring, 4 twins\n"},
		{[]string{"schema", "--data", h.Dir, "properties.desired.$v"}, "properties.desired.$version\tnumber, 4 twins\n"},
		{[]string{"query", "--data", h.Dir, "nothing."}, ""},
		{[]string{"query", "--exp"}, "--explain\tShow how the rows are found instead of them: steps, rows touched, time.\n"},
		{[]string{"query", "-o", "js"}, "json\njsonl\n"},
		{[]string{"schema", "--data", h.Dir, "tags.a-"}, "tags.[[a-b]]\tnumber, 1 twins\n"},
		{[]string{"query", "--data", h.Dir, "SELECT deviceId FROM devices WHERE tags.a-"}, "SELECT deviceId FROM devices WHERE tags.[[a-b]]\tnumber, 1 twins\n"},
		{[]string{"query", "--data", h.Dir, "SELECT tags.[[a-"}, "SELECT tags.[[a-b]]\tnumber, 1 twins\n"},
		{[]string{"query", "--data", h.Dir, "tags.a-"}, `tags["a-b"]` + "\tnumber, 1 twins\n"},
		{[]string{"query", "--data", h.Dir, "connected and tags.a-b"}, `connected and tags["a-b"]` + "\tnumber, 1 twins\n"},
		{[]string{"query", "--data", h.Dir, `tags.site in ["A"] && tags["a-`}, `tags.site in ["A"] && tags["a-b"]` + "\tnumber, 1 twins\n"},
		{[]string{"query", "--data", h.Dir, `tags['e-f'].`}, `tags["e-f"].g` + "\tnumber, 1 twins\n"},
		{[]string{"query", "save", "--data", h.Dir, "name", `tags[\"a-b`}, `tags["a-b"]` + "\tnumber, 1 twins\n"},
	} {
		if got := (call{args: append([]string{"__complete", "--"}, c.words...)}).run(t); got.out != c.want {
			t.Errorf("%q: got %q, want %q", c.words, got.out, c.want)
		}
	}
}

// TestBarePathsAreRead: what a completion offers is a predicate, whatever keys are
// called; the hub reads it as the path that it reports.
func TestBarePathsAreRead(t *testing.T) {
	h, env := queryFleet(t)
	tagged(t, h, "pump-2", `{"a-b":{"[c]":{"é":1}},"not":1,"in":1,"group":1,"1st":1,"it's":1,"\\":1,"if":{"let":1},"d]]e":1}`)
	got := call{args: []string{"__complete", "--", "query", "--data", h.Dir, "tags."}}.run(t)
	seen := 0
	for line := range strings.Lines(got.out) {
		path, _, _ := strings.Cut(line, "\t")
		if strings.Contains(path, "tags.at.") || strings.Contains(path, "list") {
			continue
		}
		seen++
		queryStep{[]string{"query", "-o", "jsonl", "deviceId == 'pump-2' && IS_DEFINED(" + path + ")"}, ExitOK, "pump-2", ""}.run(t, env)
	}
	if seen < 11 {
		t.Errorf("candidates: %s", got.out)
	}
}

// A watched query tells of each change once.
func TestQueryWatch(t *testing.T) {
	h, env := queryFleet(t)
	ctx, stop := context.WithCancel(t.Context())
	read, write := io.Pipe()
	done := make(chan int)
	go func() {
		a := newApp(ctx, IO{In: strings.NewReader(""), Out: write, Err: io.Discard, Env: func(name string) string { return env[name] }}, Hooks{})
		done <- a.run([]string{"query", "--watch", "--every", "100ms", "-o", "jsonl", "SELECT deviceId, tags.floor FROM devices WHERE tags.site = 'A'"})
		_ = write.Close()
	}()
	lines := bufio.NewScanner(read)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %s, want %s", lines.Text(), want)
		}
	}
	expect(`{"change":"enter","item":{"deviceId":"pump-0","floor":0}}`)
	expect(`{"change":"enter","item":{"deviceId":"pump-2","floor":2}}`)
	tagged(t, h, "pump-2", `{"floor":7}`)
	expect(`{"change":"change","item":{"deviceId":"pump-2","floor":7}}`)
	tagged(t, h, "pump-3", `{"site":"A"}`)
	expect(`{"change":"enter","item":{"deviceId":"pump-3","floor":3}}`)
	tagged(t, h, "pump-0", `{"site":null}`)
	expect(`{"change":"leave","item":{"deviceId":"pump-0","floor":0}}`)
	stop()
	if code := <-done; code != ExitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestWatchedTable(t *testing.T) {
	var out strings.Builder
	a := newApp(t.Context(), IO{In: strings.NewReader(""), Out: &out, Err: io.Discard, Env: func(string) string { return "" }}, Hooks{})
	a.zone = time.UTC
	result := func(rows ...string) *watched {
		w := &watched{rows: map[string]rowText{}}
		w.head.Columns = []string{"deviceId", "n"}
		for i, r := range rows {
			key := rowKey(rowText(r), i)
			w.keys = append(w.keys, key)
			w.rows[key] = rowText(r)
		}
		return w
	}
	before := result(`{"deviceId":"a","n":1}`, `{"deviceId":"b","n":1}`)
	for _, now := range []*watched{before, result(`{"deviceId":"b","n":2}`, `{"deviceId":"c","n":1}`)} {
		if err := a.showWatched(QueryFlags{OutputFlags: OutputFlags{Output: "table"}}, before, now); err != nil {
			t.Fatal(err)
		}
	}
	_, table, _ := strings.Cut(out.String(), "\n") // the first line has the time
	if want := "   deviceId  n\n~  b         2\n+  c         1\n-  a         1\n"; table != want {
		t.Errorf("got\n%s, want\n%s", table, want)
	}
}

// TestQueryRunsTable: whole rows of runs and jobs have columns, those alone in
// which some row has something.
func TestQueryRunsTable(t *testing.T) {
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"itemType":"Raw","columns":["runId","deviceId","moduleId","pattern","version","state","entry","step","stepCount","phase","progress","text","code"],`+
			`"items":[{"runId":"r-1","deviceId":"d1","pattern":"reboot","version":"1.0.0","state":"failed","stepCount":3,"progress":0.5,"code":"timeout"},{"runId":"r-2","deviceId":"d2","pattern":"reboot","version":"1.0.0","state":"failed","stepCount":1,"progress":0}],"cursor":""}`)
	}))
	got := call{args: []string{"query", "SELECT * FROM devices.runs WHERE state='failed'", "--data", dir}}.run(t)
	want := "runId  deviceId  pattern  version  state   stepCount  progress  code\nr-1    d1        reboot   1.0.0    failed          3       0.5  timeout\nr-2"
	if got.code != ExitOK || !strings.HasPrefix(got.out, want) {
		t.Errorf("exit code %d:\n%s%s", got.code, got.out, got.err)
	}
}

// TestQueryMixedTypes: what is an object in some rows and something else in others
// stands under its own name, in tables and CSV.
func TestQueryMixedTypes(t *testing.T) {
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"itemType":"Raw","columns":["deviceId","mixed","at"],"items":[`+
			`{"deviceId":"a","mixed":{"x":1},"at":{"x":1}},{"deviceId":"b","mixed":3,"at":null},{"deviceId":"c","mixed":"x"}],"cursor":""}`)
	}))
	for form, want := range map[string]string{
		"table": "deviceId  mixed    at.x\na         {\"x\":1}  1\nb         3        -\nc         x        -\n",
		"csv":   "deviceId,mixed,at\na,\"{\"\"x\"\":1}\",\"{\"\"x\"\":1}\"\nb,3,null\nc,x,\n",
	} {
		got := call{args: []string{"query", "-o", form, "SELECT deviceId, tags.mixed, tags.at FROM devices", "--data", dir}}.run(t)
		if got.code != ExitOK || got.out != want {
			t.Errorf("exit code %d:\n%s%s, want\n%s", got.code, got.out, got.err, want)
		}
	}
}

// TestSchemaTruncated: a list that can't be whole says so beside itself, in no form
// within it.
func TestSchemaTruncated(t *testing.T) {
	h, env := queryFleet(t)
	queryStep{[]string{"schema", "tags.floor"}, ExitOK, "tags.floor", "missing"}.run(t, env)
	for d := range 4 { // together more paths than get a column
		var many strings.Builder
		for i := range 600 {
			fmt.Fprintf(&many, `,"t%d_%d":1`, d, i)
		}
		tagged(t, h, fmt.Sprint("pump-", d), "{"+many.String()[1:]+"}")
	}
	for form, begin := range map[string]string{"table": "PATH", "json": "[\n  {", "csv": "path,"} {
		got := call{args: []string{"schema", "--limit", "2", "-o", form, "tags."}, env: env}.run(t)
		if !strings.HasPrefix(got.out, begin) || strings.Contains(got.out, "--explain") {
			t.Errorf("%s: %s", form, got.out)
		}
		if want := "There are more than 2; --limit 0 shows all.\n" + schemaTruncated + "\n"; got.code != ExitOK || got.err != want {
			t.Errorf("%s: exit code %d, standard error is %q, want %q", form, got.code, got.err, want)
		}
	}
	queryStep{[]string{"query", "--explain", "tags.t3_599 == 1"}, ExitOK, "no column: tags.t3_599", ""}.run(t, env)
}
