package service

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestHubAndStatus(t *testing.T) {
	f := newFixture(t)
	f.do("GET", "/api/v1/hub", "").want(200).is("name", `"`+enginetest.HostName+`"`).is("ready", "true").is("limits", `"azure"`).is("notReady", "[]")
	f.create("d")
	enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "d"})
	a := f.do("GET", "/api/v1/status", "").want(200).is("devices.total", "1").is("devices.connected", "1").is("connected.0.id", `"d"`)
	for _, path := range []string{"rates.telemetry", "rates.twin", "rates.methods", "storage.commits", "totals.connects", "recent.0.kind"} {
		if a.at(path) == "" {
			t.Errorf("%s is missing in %s", path, a.body)
		}
	}
	f.do("GET", "/api/v1/status", "", f.as("registryRead")).want(403)
	f.do("GET", "/api/v1/hub", "", func(r *http.Request) { r.Header.Del("Authorization") }).want(401).is("code", `"IotHubUnauthorizedAccess"`)
	f.do("GET", "/api/v1/doctor", "").want(200)
	if a := f.do("GET", "/api/v1/openapi.json", "").want(200); !strings.Contains(string(a.body), `"/twins/{id}/methods"`) {
		t.Error("the document lacks a path")
	}
}

func TestPages(t *testing.T) {
	f := newFixture(t)
	for i := range 7 {
		f.create("p" + strconv.Itoa(i))
	}
	f.create("other")
	var got []string
	cursor, pages := "", 0
	for {
		a := f.do("GET", "/api/v1/devices?prefix=p&limit=3&cursor="+cursor, "").want(200)
		for _, item := range dig(a.doc, "items").([]any) {
			got = append(got, dig(item, "deviceId").(string))
		}
		pages++
		if cursor = a.text("cursor"); cursor == "" {
			break
		}
	}
	if strings.Join(got, " ") != "p0 p1 p2 p3 p4 p5 p6" || pages > 4 {
		t.Errorf("got %v in %d pages", got, pages)
	}
	f.do("GET", "/api/v1/devices?cursor=nonsense", "").want(400).is("code", `"ArgumentInvalid"`)
	f.do("GET", "/api/v1/devices?limit=0", "").want(400)
	f.do("GET", "/api/v1/devices?limit=1&prefix=other", "").want(200).is("items.0.deviceId", `"other"`)
	f.do("PUT", "/devices/p0/modules/m", "{}").want(200)
	f.do("GET", "/api/v1/devices/p0/modules", "").want(200).is("items.0.moduleId", `"m"`).is("cursor", `""`)
}

func TestConnectionStrings(t *testing.T) {
	f := newFixture(t)
	d := f.create("d")
	a := f.do("GET", "/api/v1/devices/d/connection-string", "").want(200)
	want := "HostName=" + enginetest.HostName + ";DeviceId=d;SharedAccessKey=" + d.text("authentication.symmetricKey.primaryKey")
	if got := a.text("connectionString"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a = f.do("GET", "/api/v1/devices/d/connection-string?key=secondary", "").want(200)
	if !strings.HasSuffix(a.text("connectionString"), d.text("authentication.symmetricKey.secondaryKey")) {
		t.Error("not the secondary key")
	}
	f.do("GET", "/api/v1/devices/d/connection-string?key=third", "").want(400)
	f.do("GET", "/api/v1/devices/d/connection-string", "", f.as("registryRead")).want(403)
	f.do("PUT", "/devices/d/modules/m", "{}").want(200)
	if a := f.do("GET", "/api/v1/devices/d/modules/m/connection-string", "").want(200); !strings.Contains(a.text("connectionString"), ";ModuleId=m;") {
		t.Errorf("%s", a.body)
	}
}

func TestTwinHistory(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	for i := range 4 {
		f.do("PATCH", "/twins/d", `{"tags":{"n":`+strconv.Itoa(i)+`}}`, header("Request-Id", "r"+strconv.Itoa(i))).want(200)
	}
	a := f.do("GET", "/api/v1/twins/d/history?section=tags&limit=3", "").want(200).
		is("items.0.patch", `{"n":3}`).is("items.0.undo", `{"n":2}`).is("items.0.principal", `"policy:iothubowner"`).is("items.0.requestId", `"r3"`)
	f.do("GET", "/api/v1/twins/d/history?section=tags&cursor="+a.text("cursor"), "").want(200).is("items.0.patch", `{"n":0}`).is("cursor", `""`)
	f.do("GET", "/api/v1/twins/d/history?section=none", "").want(400)
	f.do("GET", "/api/v1/twins/nope/history", "").want(404).is("code", `"DeviceNotFound"`).is("detail", `"There is no such device identity: \"nope\""`)

	first := a.text("items.2.id")
	f.do("GET", "/api/v1/twins/d/diff?from="+first, "").want(200).is("changes", `[{"after":3,"before":1,"path":"tags.n"}]`)
	f.do("GET", "/api/v1/twins/d/diff?from=now&to=now", "").want(200).is("changes", "[]")
	f.do("GET", "/api/v1/twins/d/diff", "").want(400).is("code", `"ArgumentNull"`)
	f.do("GET", "/api/v1/twins/d/diff?from=gibberish", "").want(400)
}

func TestPolicies(t *testing.T) {
	f := newFixture(t)
	if a := f.do("GET", "/api/v1/policies", "").want(200); len(dig(a.doc, "items").([]any)) != 5 || strings.Contains(string(a.body), "Key") {
		t.Errorf("%s", a.body)
	}
	a := f.do("PUT", "/api/v1/policies/mine", `{"permissions":["RegistryRead"]}`).want(200)
	f.learnKeys()
	f.do("GET", "/devices", "", f.as("mine")).want(200)
	f.do("GET", "/api/v1/policies/mine", "").want(200).is("primaryKey", a.at("primaryKey")).is("permissions", `["RegistryRead"]`)

	rotate := func(key, body string) *reply {
		return f.do("POST", "/api/v1/policies/mine/rotate", body, header("Idempotency-Key", key))
	}
	b := rotate("k1", `{"key":"primary"}`).want(200).is("secondaryKey", a.at("secondaryKey"))
	c := rotate("k1", `{"key":"primary"}`).want(200)
	if string(b.body) != string(c.body) || c.header.Get(replayedField) != "true" || b.header.Get(replayedField) != "" {
		t.Errorf("%s then %s", b.body, c.body)
	}
	rotate("k1", `{"key":"secondary"}`).want(422).is("code", `"IdempotencyKeyReused"`)
	if d := rotate("k2", `{"key":"primary"}`).want(200); d.at("primaryKey") == b.at("primaryKey") {
		t.Error("another key gave the same answer")
	}
	rotate("two words", `{"key":"primary"}`).want(400)
	if e := rotate("k3", `{"key":"x"}`).want(400); rotate("k3", `{"key":"x"}`).header.Get(replayedField) != "true" {
		t.Errorf("a refusal is not replayed: %s", e.body)
	}
	f.do("GET", "/devices", "", f.as("mine")).want(401) // with the key from before

	// What a hub leaves that was killed while the request ran.
	caller := engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "iothubowner"}}
	begun := engine.Answer{Request: sha256.Sum256([]byte(`{"key":"primary"}`)), Status: statusBegun}
	if err := f.hub.KeepAnswer(t.Context(), caller, "POST /api/v1/policies/mine/rotate", "k4", begun); err != nil {
		t.Fatal(err)
	}
	before := f.do("GET", "/api/v1/policies/mine", "").want(200).at("primaryKey")
	rotate("k4", `{"key":"primary"}`).want(409).is("code", `"IdempotencyOutcomeUnknown"`)
	if after := f.do("GET", "/api/v1/policies/mine", "").want(200).at("primaryKey"); after != before {
		t.Error("it was done again")
	}

	if g := f.do("GET", "/api/v1/policies/mine/connection-string", "").want(200); !strings.HasPrefix(g.text("connectionString"), "HostName="+enginetest.HostName+";SharedAccessKeyName=mine;SharedAccessKey=") {
		t.Errorf("%s", g.body)
	}
	f.do("DELETE", "/api/v1/policies/mine", "").want(204)
	f.do("GET", "/api/v1/policies/mine", "").want(404).is("code", `"PolicyNotFound"`).golden("problem-policy")
	f.do("DELETE", "/api/v1/policies/iothubowner", "").want(403).is("code", `"OperationNotAllowed"`)
	f.do("GET", "/api/v1/policies", "", f.as("service")).want(403)
}

func TestAudit(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	f.create("e")
	a := f.do("GET", "/api/v1/audit?limit=1", "").want(200).is("items.0.operation", `"identity.create"`).is("items.0.outcome", `"done"`)
	f.do("GET", "/api/v1/audit?limit=1&cursor="+a.text("cursor"), "").want(200).is("items.0.operation", `"identity.create"`)
	f.do("GET", "/api/v1/audit?cursor=x", "").want(400)
	if a := f.do("POST", "/api/v1/audit/verify", "").want(200).is("ok", "true"); number(a, "entries") < 2 {
		t.Errorf("%s", a.body)
	}
}

func TestLocalPrincipal(t *testing.T) {
	f := newFixture(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/policies", nil)
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	if w.Code != 401 {
		t.Errorf("nobody: %d", w.Code)
	}
	w = httptest.NewRecorder()
	f.handler.ServeHTTP(w, r.WithContext(WithLocal(r.Context(), auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: auth.AllPermissions})))
	if w.Code != 200 {
		t.Errorf("local: %d %s", w.Code, w.Body)
	}
	// A token that comes along counts, and not the socket.
	r.Header.Set("Authorization", f.token("registryRead", enginetest.HostName))
	w = httptest.NewRecorder()
	f.handler.ServeHTTP(w, r.WithContext(WithLocal(r.Context(), auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: auth.AllPermissions})))
	if w.Code != 403 {
		t.Errorf("with a token: %d", w.Code)
	}
}

func TestDenyCrossOrigin(t *testing.T) {
	f := newFixture(t)
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(f.handler.DenyCrossOrigin))
	guarded := p.Handler(f.handler)
	for path, media := range map[string]string{"/devices?api-version=2021-04-12": "application/json", "/api/v1/audit/verify": "application/problem+json"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		if w.Code != 403 || !strings.HasPrefix(w.Header().Get("Content-Type"), media) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
}

func TestMetrics(t *testing.T) {
	f := newFixture(t)
	f.do("GET", "/devices/nope", "").want(404)
	f.do("GET", "/nothing/x", "").want(404)
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, family := range families {
		seen[family.GetName()] = true
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				seen[l.GetName()+"="+l.GetValue()] = true
			}
		}
	}
	for _, want := range []string{"muster_http_requests_total", "muster_http_seconds", "route=GET /devices/{id}", "route=other", "code=404"} {
		if !seen[want] {
			t.Errorf("%s is missing in %v", want, seen)
		}
	}
	for _, info := range Metrics() {
		if !seen[info.Name] || info.Text == "" {
			t.Errorf("%+v", info)
		}
	}
}

func TestRates(t *testing.T) {
	r := newRates()
	now := r.samples[0].at
	for i := range 30 {
		now = now.Add(time.Second)
		got := r.at(now, engine.Totals{Messages: int64(10 * (i + 1)), ReportedUpdates: int64(i + 1)})
		if got["telemetry"] != 10 || got["twin"] != 1 || got["methods"] != 0 {
			t.Fatalf("after %d s: %v", i+1, got)
		}
	}
	if len(r.samples) != sampleSpan {
		t.Errorf("%d samples", len(r.samples))
	}
}

// A handler that fails in an unexpected way costs one request, not the process.
func TestPanic(t *testing.T) {
	h := NewHandler(nil, Options{}) // a hub that is nil makes the call panic
	w := httptest.NewRecorder()
	ctx := WithLocal(t.Context(), auth.Principal{Kind: auth.Local, Permissions: auth.AllPermissions})
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/devices?api-version=2021-04-12", nil))
	if w.Code != 500 || errorName(w) != "ServerError" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A misspelt member must not pass for one that was left out: "dryrun" would
// restore a twin that somebody only wanted to look at.
func TestOwnBodiesRefuseUnknownMembers(t *testing.T) {
	f := newFixture(t)
	seen := 0
	for _, r := range routes() {
		if r.shape != shapeProblem || r.request == nil || reflect.TypeOf(r.request).Kind() != reflect.Struct {
			continue
		}
		seen++
		path := strings.NewReplacer("{id}", "d", "{mid}", "m").Replace(r.pattern)
		a := f.do(r.method, path, `{"misspelt":1}`)
		if detail := a.text("detail"); a.status != 400 || !strings.Contains(detail, `"misspelt"`) {
			t.Errorf("%s: %d %s", r.label(), a.status, a.body)
		}
	}
	if seen < 20 {
		t.Errorf("%d routes with a body were tried, expected those of the API", seen)
	}
}

func TestSentMessageIsListedWhole(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	const path = "/api/v1/devices/d/messages/devicebound"
	f.do("POST", path, `{"body":"eA==","correlationId":"c","contentType":"text/plain","contentEncoding":"utf-8"}`).want(200).is("contentType", `"text/plain"`)
	f.do("GET", path, "").want(200).is("items.0.correlationId", `"c"`).is("items.0.contentType", `"text/plain"`).is("items.0.contentEncoding", `"utf-8"`)
}

// IoT Hub's clients know a batch of feedback by its content type.
func TestFeedbackBatchSaysWhatItIs(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	f.do("POST", "/api/v1/devices/d/messages/devicebound", `{"ack":"full"}`).want(200)
	f.do("DELETE", "/devices/d/commands", "").want(200)
	w, body := f.read(f.send(t.Context(), "GET", "/messages/serviceBound/feedback?api-version=2021-04-12", ""))
	if got := w.Header.Get("Content-Type"); got != "application/vnd.microsoft.iothub.feedback.json" || !strings.Contains(string(body), `"Purged"`) {
		t.Errorf("content type %q: %s", got, body)
	}
}

// Who is known and may not do it is told 403 on Muster's own paths, with the
// permission that it takes, also when the request is wrong beside that; IoT
// Hub's paths answer 401, as IoT Hub does.
func TestPermissionIsNamed(t *testing.T) {
	f := newFixture(t)
	names := func(a *reply, permission string) {
		t.Helper()
		if !strings.Contains(string(a.body), "needs the permission "+permission+", which policy:") {
			t.Errorf("%s: %s does not name %s", a.what, a.body, permission)
		}
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/v1/policies", ""},
		{"PUT", "/api/v1/policies/p", `{`},
		{"PUT", "/api/v1/policies/p", `{"permissions":["PolicyManage"]}`},
	} {
		names(f.do(c.method, c.path, c.body, f.as("service")).want(403).is("code", `"OperationNotAllowed"`), "PolicyManage")
	}
	names(f.do("POST", "/devices", `[{"id":"d"}]`, f.as("service")).refused(401, "IotHubUnauthorizedAccess"), "RegistryWrite")
	names(f.do("PUT", "/devices/d", `{`, f.as("service")).refused(401, "IotHubUnauthorizedAccess"), "RegistryWrite")
	// Allowed later, the same request with the same key is done.
	f.do("PUT", "/api/v1/policies/mine", `{"permissions":["ServiceConnect"]}`).want(200)
	f.learnKeys()
	verify := func() *reply {
		return f.do("POST", "/api/v1/audit/verify", "", f.as("mine"), header("Idempotency-Key", "k1"))
	}
	verify().want(403)
	f.do("PUT", "/api/v1/policies/mine", `{"permissions":["ServiceConnect","AuditRead"]}`, ifMatch("*")).want(200)
	verify().want(200)
}
