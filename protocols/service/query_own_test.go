package service

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// fleet makes n devices with tags.n from 0 on and tags.site A or B.
func (f *fixture) fleet(n int) {
	f.Helper()
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(n, 128) { // their commits share syncs
		wg.Go(func() {
			for i := range work {
				id := engine.TwinID{DeviceID: fmt.Sprintf("d%04d", i)}
				if _, err := f.hub.CreateIdentity(f.Context(), enginetest.Owner(), engine.Identity{DeviceID: id.DeviceID}); err != nil {
					f.Error(err)
				}
				tags := fmt.Sprintf(`{"n":%d,"site":"%c","at":{"room":"r, \"%d\""}}`, i, 'A'+rune(i%2), i)
				if _, err := f.hub.PatchTwin(f.Context(), enginetest.Owner(), id, engine.TwinUpdate{Tags: []byte(tags)}, engine.IfMatch{}); err != nil {
					f.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
}

// export asks for a query's rows as a stream.
func (f *fixture) export(method, path, body string, options ...option) (status int, contentType, text string) {
	f.Helper()
	w, data := f.read(f.send(f.Context(), method, path, body, options...))
	return w.StatusCode, w.Header.Get("Content-Type"), string(data)
}

// TestExplainedWays: there is a plan also where the columns did not find the rows.
func TestExplainedWays(t *testing.T) {
	f := newFixture(t, func(o *engine.Options) { o.Profile = engine.ProfileDefault })
	f.fleet(5)
	sorted := f.do("POST", "/api/v1/query", `{"query":"SELECT deviceId FROM devices ORDER BY tags.n DESC","limit":2}`).want(200)
	f.do("POST", "/api/v1/query", `{"query":"SELECT deviceId FROM devices ORDER BY tags.n DESC","limit":2,"explain":true,"cursor":"`+sorted.text("cursor")+`"}`).want(200).
		is("items", `[{"deviceId":"d0002"},{"deviceId":"d0001"}]`).is("plan.rows", "5").is("plan.selected", "2").
		is("plan.steps.0.kind", `"kept rows"`).is("plan.steps.0.rows", "5").is("plan.steps.0.estimate", "").is("plan.steps.1", "")
	for text, step := range map[string]string{
		"SELECT * FROM devices.jobs":                                         "scan by id: devices.jobs",
		"SELECT * FROM devices.jobs WHERE deviceId = 'd' AND jobId = 'j'":    "key lookup: jobId, deviceId",
		"SELECT * FROM devices.runs":                                         "scan by id: devices.runs",
		"SELECT * FROM devices.runs WHERE pattern = 'p'":                     "scan by id: devices.runs",
		"SELECT COUNT() AS n FROM devices.runs WHERE pattern = 'p'":          "key lookup: pattern",
		"SELECT * FROM devices.runs WHERE deviceId = 'd' AND runId IN ['r']": "key lookup: runId",
	} {
		p := f.do("POST", "/api/v1/query", string(encode(map[string]any{"query": text, "explain": true}))).want(200)
		if lines := strings.Split(p.text("planText"), "\n"); !strings.HasPrefix(lines[1], step) {
			t.Errorf("%s: %s", text, lines)
		}
	}
}

func TestOwnQuery(t *testing.T) {
	f := newFixture(t)
	f.fleet(5)
	whole := f.do("POST", "/api/v1/query", `{"where":"tags.site == \"A\" && tags.n > 0"}`).want(200)
	whole.is("itemType", `"Twin"`).is("cursor", `""`).is("items.0.deviceId", `"d0002"`).is("items.1.deviceId", `"d0004"`).is("items.2", "").is("plan", "")
	if one := f.do("GET", "/twins/d0002", "").want(200); string(encode(dig(whole.doc, "items").([]any)[0])) != string(encode(one.doc)) {
		t.Errorf("a twin in a result\n%s\nis not the twin\n%s", whole.body, one.body)
	}
	f.do("POST", "/api/v1/query", `{"query":"SELECT tags.at.room AS room, tags.n FROM devices WHERE tags.n < 2","explain":true}`).want(200).
		is("itemType", `"Raw"`).is("columns", `["room","n"]`).is("items", `[{"n":0,"room":"r, \"0\""},{"n":1,"room":"r, \"1\""}]`)
	a := f.do("POST", "/api/v1/query", `{"where":"tags.n >= 0","limit":2,"explain":true}`).want(200).is("items.1.deviceId", `"d0001"`)
	if a.at("plan.steps") == "" || !strings.Contains(a.text("planText"), "5 rows") {
		t.Errorf("the plan is %s", a.at("plan"))
	}
	var seen []string
	for cursor := a.text("cursor"); cursor != ""; cursor = a.text("cursor") {
		a = f.do("POST", "/api/v1/query", `{"where":"tags.n >= 0","limit":2,"cursor":"`+cursor+`"}`).want(200)
		for _, item := range dig(a.doc, "items").([]any) {
			seen = append(seen, dig(item, "deviceId").(string))
		}
		f.do("POST", "/api/v1/query", `{"where":"tags.n >= 1","cursor":"`+cursor+`"}`).want(400)
	}
	if strings.Join(seen, " ") != "d0002 d0003 d0004" {
		t.Errorf("the pages after the first have %v", seen)
	}

	f.do("PUT", "/devices/d0000/modules/m", "{}").want(200)
	f.do("POST", "/api/v1/query", `{"where":"moduleId == \"m\"","source":"modules"}`).want(200).is("items.0.moduleId", `"m"`).is("items.1", "")
	for body, want := range map[string]string{
		`{}`:                             "the query is missing",
		`{"query":"","where":null}`:      "the query is missing",
		`{"query":"SELECT","where":"x"}`: "expected one of them",
		`{"query":"tags.n > 1"}`:         "does not begin with SELECT",
		`{"where":"select * FROM x"}`:    "begins with SELECT",
		`{"query":"SELECT * FROM devices","source":"devices"}`: "names its own after FROM",
		`{"where":"tags.n > 1","source":"twins"}`:              "expected devices or modules",
		`{"where":"tags.n > 1","limit":1001}`:                  "expected 1 to 1000",
		`{"where":"tags.n > 1","limit":0}`:                     "at least 1",
		`{"where":"tags.n > 1","cursor":"x"}`:                  "",
		`{"where":"tags.n > 1","page":1}`:                      "is not a member here",
		`{"where":7}`:                                          "expected a string",
	} {
		if a := f.do("POST", "/api/v1/query", body).want(400); !strings.Contains(a.text("detail"), want) {
			t.Errorf("%s: %s, want %q", body, a.text("detail"), want)
		}
	}
	f.do("POST", "/api/v1/query", `{"where":"tags.n > 1"}`, f.as("registryRead")).want(403)
	f.do("POST", "/api/v1/query", strings.Repeat(" ", queryBodyBytes)+`{"where":"x"}`).want(413)
}

// What is wrong with a query is shown where it is wrong.
func TestOwnQueryFault(t *testing.T) {
	f := newFixture(t)
	f.do("POST", "/api/v1/query", `{"query":"SELECT * FROM devices WHERE tags.n >"}`).want(400).is("code", `"ArgumentInvalid"`).
		is("query.offset", "36").is("query.column", "37").is("query.caret", `"SELECT * FROM devices WHERE tags.n >\n                                    ^"`)
	f.do("POST", "/api/v1/query", `{"where":"tags.é == = 1"}`).want(400).is("query.offset", "11").is("query.column", "11").is("query.found", `"\"=\""`)
	f.do("PUT", "/api/v1/queries/q", `{"where":"tags.site =="}`).want(400).is("query.column", "13")
	f.do("GET", "/api/v1/queries/q", "").want(404).is("code", `"QueryNotFound"`).is("query", "")
}

func TestQueryExport(t *testing.T) {
	f := newFixture(t, func(o *engine.Options) { o.Profile = engine.ProfileDefault }) // without throttles
	const devices = 2050                                                              // three pages
	f.fleet(devices)
	body := `{"query":"SELECT deviceId, tags.at, tags.n, tags.none FROM devices"}`
	status, contentType, text := f.export("POST", "/api/v1/query?format=csv", body)
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if status != 200 || contentType != "text/csv; charset=utf-8" || err != nil || len(rows) != devices+1 {
		t.Fatalf("%d %s, %d rows, %v", status, contentType, len(rows), err)
	}
	if got, want := fmt.Sprintf("%q %q", rows[0], rows[2050]), `["deviceId" "at" "n" "none"] ["d2049" "{\"room\":\"r, \\\"2049\\\"\"}" "2049" ""]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	_, contentType, text = f.export("POST", "/api/v1/query", `{"where":"tags.site == \"B\""}`, header("Accept", "application/x-ndjson"))
	n := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); n++ {
		if want := fmt.Sprintf(`{"deviceId":"d%04d"`, 2*n+1); !strings.HasPrefix(lines.Text(), want) {
			t.Fatalf("line %d is %.80s", n, lines.Text())
		}
	}
	if n != devices/2 || contentType != "application/x-ndjson; charset=utf-8" {
		t.Errorf("%d lines of %s", n, contentType)
	}
	if _, _, text = f.export("POST", "/api/v1/query?format=ndjson", `{"where":"tags.n >= 0","limit":1003}`); strings.Count(text, "\n") != 1003 {
		t.Errorf("with a limit of 1003: %d lines", strings.Count(text, "\n"))
	}
	_, _, text = f.export("POST", "/api/v1/query?format=csv", `{"where":"tags.n == 3"}`)
	if want := `deviceId,moduleId,status,connectionState,lastActivityTime,modelId,version,etag,tags,desired,reported` + "\n" + `d0003,,enabled,Disconnected,`; !strings.HasPrefix(text, want) ||
		!strings.HasSuffix(text, `,"{""n"":3,""site"":""B"",""at"":{""room"":""r, \""3\""""}}",{},{}`+"\n") {
		t.Error(text)
	}
	if status, _, text = f.export("POST", "/api/v1/query?format=csv", `{"where":"false"}`); status != 200 || strings.Count(text, "\n") != 1 {
		t.Errorf("nothing: %d %s", status, text)
	}
	f.do("POST", "/api/v1/query?format=xml", `{"where":"true"}`).want(400)
	f.do("POST", "/api/v1/query?format=csv", `{"where":"true","explain":true}`).want(400)
	f.do("POST", "/api/v1/query?format=csv", `{"where":"tags.site =="}`).want(400).is("query.column", "13")
	f.do("POST", "/api/v1/query?format=csv", `{"where":"true"}`, f.as("registryRead")).want(403)
}

func TestSavedQueryRoutes(t *testing.T) {
	f := newFixture(t)
	f.fleet(4)
	a := f.do("PUT", "/api/v1/queries/site-a", `{"where":"tags.site == \"A\"","description":"Ours.","labels":{"team":"north"}}`).want(200)
	a.is("version", "1").is("source", `"devices"`).is("where", `"tags.site == \"A\""`).is("query", "").is("principal", `"policy:iothubowner"`)
	if got := a.header.Get("ETag"); got != `"`+a.text("etag")+`"` {
		t.Errorf("the header ETag is %s", got)
	}
	f.do("PUT", "/api/v1/queries/site-a", `{"query":"SELECT deviceId FROM devices WHERE tags.site = 'A'"}`, ifMatch(`"wrong"`)).want(412)
	f.do("PUT", "/api/v1/queries/site-a", `{"query":"SELECT deviceId FROM devices WHERE tags.site = 'A'"}`, ifMatch(a.header.Get("ETag"))).want(200).is("version", "2").is("labels", "")
	f.do("PUT", "/api/v1/queries/modules", `{"where":"true","source":"modules"}`).want(200).is("source", `"modules"`)
	f.do("PUT", "/api/v1/queries/bad%2Fname", `{"where":"true"}`).want(400)
	f.do("PUT", "/api/v1/queries/x", `{"where":"true","name":"x"}`).want(400)
	f.do("PUT", "/api/v1/queries/x", `{"where":"true"}`, f.as("registryRead")).want(403)

	f.do("GET", "/api/v1/queries/site-a/result?limit=1", "").want(200).is("items", `[{"deviceId":"d0000"}]`)
	cursor := f.do("GET", "/api/v1/queries/site-a/result?limit=1&explain=true", "").want(200).text("cursor")
	f.do("GET", "/api/v1/queries/site-a/result?cursor="+cursor, "").want(200).is("items", `[{"deviceId":"d0002"}]`)
	f.do("GET", "/api/v1/queries/site-a/result?version=1&cursor="+cursor, "").want(400)
	f.do("GET", "/api/v1/queries/site-a/result?version=1", "").want(200).is("items.1.tags.site", `"A"`)
	f.do("GET", "/api/v1/queries/none/result", "").want(404)
	f.do("GET", "/api/v1/queries/site-a/result?explain=yes", "").want(400)
	if _, _, text := f.export("GET", "/api/v1/queries/site-a/result?format=csv", ""); text != "deviceId\nd0000\nd0002\n" {
		t.Errorf("as CSV it is %q", text)
	}

	f.do("GET", "/api/v1/queries?limit=1", "").want(200).is("items.0.name", `"modules"`)
	cursor = f.do("GET", "/api/v1/queries?limit=1", "").text("cursor")
	f.do("GET", "/api/v1/queries?cursor="+cursor, "").want(200).is("items.0.name", `"site-a"`).is("items.1", "").is("cursor", `""`)
	f.do("PUT", "/api/v1/queries/labelled", `{"where":"true","labels":{"team":"south"}}`).want(200)
	f.do("GET", "/api/v1/queries?label=team", "").want(200).is("items.0.name", `"labelled"`).is("items.1", "")
	f.do("GET", "/api/v1/queries?label=team=north", "").want(200).is("items", `[]`)
	f.do("GET", "/api/v1/queries/site-a/versions?limit=1", "").want(200).is("items.0.version", "2")
	cursor = f.do("GET", "/api/v1/queries/site-a/versions?limit=1", "").text("cursor")
	f.do("GET", "/api/v1/queries/site-a/versions?cursor="+cursor, "").want(200).is("items.0.version", "1").is("items.1", "")
	f.do("GET", "/api/v1/queries/site-a?version=1", "").want(200).is("description", `"Ours."`)
	f.do("GET", "/api/v1/queries/site-a?version=9", "").want(404)
	f.do("DELETE", "/api/v1/queries/site-a", "", ifMatch("wrong")).want(412)
	f.do("DELETE", "/api/v1/queries/site-a", "").want(204)
	f.do("DELETE", "/api/v1/queries/site-a", "").want(404)
}

func TestSchemaRoutes(t *testing.T) {
	f := newFixture(t)
	f.fleet(3)
	a := f.do("GET", "/api/v1/schema?prefix=tags.", "").want(200).is("twins", "3").is("source", `"devices"`)
	a.is("items.2.path", `"tags.n"`).is("items.2.twins", "3").is("items.2.types", `{"number":3}`).is("items.2.column", "true")
	cursor := f.do("GET", "/api/v1/schema?prefix=tags.&limit=1", "").want(200).text("cursor")
	f.do("GET", "/api/v1/schema?prefix=tags.&limit=1&cursor="+cursor, "").want(200).is("items.0.path", `"tags.at.room"`)
	f.do("GET", "/api/v1/schema?prefix=properties.&cursor="+cursor, "").want(400)
	f.do("GET", "/api/v1/schema?source=jobs", "").want(400)
	f.do("GET", "/api/v1/schema", "", f.as("registryRead")).want(403)
	f.do("GET", "/api/v1/schema/paths?prefix=tags.a", "").want(200).is("items", `[{"bare":"tags.at","path":"tags.at","twins":3,"types":["object"]},{"bare":"tags.at.room","path":"tags.at.room","twins":3,"types":["string"]}]`)
	f.do("PATCH", "/twins/d0000", `{"tags":{"group":{"a-b":1}}}`).want(200)
	f.do("GET", "/api/v1/schema/paths?prefix=tags.gr", "").want(200).is("items.0.path", `"tags.[[group]]"`).is("items.1.path", `"tags.[[group]].[[a-b]]"`).is("items.1.bare", `"tags.group[\"a-b\"]"`)
	f.do("GET", "/api/v1/schema?prefix=properties.desired.$v", "").want(200).is("items.0.bare", `"properties.desired.$version"`)
	f.do("GET", "/api/v1/schema/paths?prefix=TAGS.s", "").want(200).is("items.0.path", `"tags.site"`)

	f.do("GET", "/api/v1/schema/declared", "").want(404).is("code", `"SchemaNotFound"`)
	declared := `{"mode":"reject","tags":{"properties":{"n":{"type":"integer","maximum":99}}}}`
	a = f.do("PUT", "/api/v1/schema/declared", declared).want(200).is("version", "1").is("mode", `"reject"`).is("tags.properties.n.maximum", "99")
	f.do("PATCH", "/twins/d0001", `{"tags":{"n":100}}`).refused(400, "ArgumentInvalid")
	if got := f.do("PATCH", "/twins/d0001", `{"tags":{"n":"x"}}`); !strings.Contains(string(got.body), `tags.n: found \"x\", expected integer`) {
		t.Errorf("%s", got.body)
	}
	f.do("GET", "/api/v1/schema/declared", "").want(200).is("violations.0.path", `"tags.n"`).is("violations.0.rejected", "2").is("violations.0.lastDevice", `"d0001"`)
	f.do("PUT", "/api/v1/schema/declared", declared, ifMatch("wrong")).want(412)
	f.do("PUT", "/api/v1/schema/declared", `{"reported":{"$ref":"https://example.com/x"}}`, ifMatch(a.text("etag"))).want(400)
	f.do("PUT", "/api/v1/schema/declared", `{"twins":{}}`).want(400)
	f.do("PUT", "/api/v1/schema/declared", declared, f.as("service")).want(403)
	f.do("DELETE", "/api/v1/schema/declared", "").want(204)
	f.do("PATCH", "/twins/d0001", `{"tags":{"n":"x"}}`).want(200)
}
