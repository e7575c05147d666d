package service

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
)

// until asks again until an answer is as wanted.
func (f *fixture) until(what, path string, want func(*reply) bool) *reply {
	f.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a := f.do("GET", path, "").want(200)
		if want(a) {
			return a
		}
		if time.Now().After(end) {
			f.Fatalf("%s: not yet: %s", what, a.body)
		}
	}
}

// at says that a member is JSON text.
func at(path, want string) func(*reply) bool {
	return func(a *reply) bool { return a.at(path) == want }
}

const (
	ofLyon  = `"targetCondition":"tags.site='lyon'"`
	setFan  = `"content":{"deviceContent":{"properties.desired.fan.speed":3}}`
	someFan = `{"id":"fan",` + ofLyon + `,` + setFan + `,"priority":10}`
)

// byDefault is for tests of many requests: the azure limits slow them down.
func byDefault(o *engine.Options) { o.Profile = engine.ProfileDefault }

func TestConfigurationRequests(t *testing.T) {
	f := newFixture(t, byDefault)
	put := func(id, body string, options ...option) *reply {
		return f.do("PUT", "/configurations/"+url.PathEscape(id), body, options...)
	}
	t.Run("102 create and every form of If-Match", func(t *testing.T) {
		a := put("fan", `{"id":"fan",`+ofLyon+`,`+setFan+`,"etag":"*","labels":null,"metrics":{"queries":{"fast":"SELECT deviceId FROM devices WHERE properties.reported.fan.speed > 2"}}}`).want(200).
			golden("configuration-created").is("schemaVersion", "null").is("labels", "null").is("priority", "0")
		if got := a.header.Get("Etag"); got != a.at("etag") {
			t.Errorf("the header has %s, the body %s", got, a.at("etag"))
		}
		put("fan", someFan).refused(409, "ConfigurationAlreadyExists")
		etag := a.text("etag")
		for _, form := range []string{`"` + etag + `"`, "", `"*"`, "*"} {
			if form == "" {
				form = f.do("GET", "/configurations/fan", "").want(200).text("etag") // bare, as Python sends it
			}
			b := put("fan", `{"labels":{"n":`+string(encode(form))+`},`+setFan+`}`, ifMatch(form)).want(200).is("labels.n", string(encode(form)))
			if b.text("etag") == etag {
				t.Errorf("If-Match %s: the etag stays", form)
			}
		}
		put("fan", someFan, ifMatch(`"`+etag+`"`)).refused(412, "PreconditionFailed")
		put("none", `{`+setFan+`}`, ifMatch("*")).refused(404, "ConfigurationNotFound")
		f.do("GET", "/configurations/none", "").refused(404, "ConfigurationNotFound").golden("error-configuration-not-found")
	})
	t.Run("103 delete", func(t *testing.T) {
		put("gone", `{`+setFan+`}`).want(200)
		f.do("DELETE", "/configurations/gone", "", ifMatch(`"AAAAAAAAAAA="`)).refused(412, "PreconditionFailed")
		f.do("DELETE", "/configurations/gone", "").want(204)
		f.do("DELETE", "/configurations/gone", "").refused(404, "ConfigurationNotFound")
	})
	t.Run("104 ids and content", func(t *testing.T) {
		for _, id := range []string{"Upper", "a b", "a/b", "ä", strings.Repeat("x", 129)} {
			put(id, `{`+setFan+`}`).refused(400, "ArgumentInvalid")
		}
		const odd = "a-+%_*!'1"
		put(odd, `{`+setFan+`}`).want(200).is("id", `"`+odd+`"`)
		f.do("GET", "/configurations/a-+%25_*!'1", "").want(200).is("id", `"`+odd+`"`)
		f.do("DELETE", "/configurations/"+url.PathEscape(odd), "").want(204)
		put("other", `{"id":"fan",`+setFan+`}`).refused(400, "ArgumentInvalid")
		put("fan", `{"id":"fan"}`, ifMatch("*")).refused(400, "InvalidConfigurationContent")
	})
	t.Run("106 content that can't be applied", func(t *testing.T) {
		for _, content := range []string{
			`{}`, `null`, `{"deviceContent":{"tags.x":1}}`, `{"deviceContent":{"properties.desired":1}}`, `{"deviceContent":[]}`,
			`{"deviceContent":{"properties.desired.a":1},"moduleContent":{"properties.desired.a":1}}`,
			`{"modulesContent":{"app":{"properties.desired.a":1}}}`,
		} {
			if a := put("bad", `{"content":`+content+`}`); a.status != 400 {
				t.Errorf("%s: %d %s", content, a.status, a.body)
			}
		}
		put("bad", `{"targetCondition":"tags.x = =",`+setFan+`}`).refused(400, "InvalidConfigurationTargetCondition")
		put("bad", `{"metrics":{"queries":{"m":"SELECT nonsense"}},`+setFan+`}`).refused(400, "InvalidConfigurationCustomMetricsQuery")
		for _, body := range []string{`{"priority":-1,` + setFan + `}`, `{"priority":4294967296,` + setFan + `}`} {
			put("bad", body).refused(400, "ArgumentInvalid")
		}
		for _, body := range []string{`{"priority":"1",` + setFan + `}`, `{"labels":{"a":1},` + setFan + `}`, `{"content":1}`, `[]`} {
			put("bad", body).refused(400, "IotHubFormatError")
		}
	})
	t.Run("107 queries are tested", func(t *testing.T) {
		test := func(body string) *reply { return f.do("POST", "/configurations/testQueries", body).want(200) }
		test(`{"targetCondition":"tags.x = 'y'","customMetricQueries":{"m":"SELECT deviceId FROM devices"}}`).is("customMetricQueryErrors", "{}").is("targetConditionError", "")
		test(`{"targetCondition":"tags.x = 'y'"}`).is("targetCondition", "")
		test(`{"targetCondition":"tags.x == \"y\""}`).is("targetConditionError", "").is("targetCondition", `"tags.x = 'y'"`)
		if a := test(`{"targetCondition":"tags.x = =","customMetricQueries":{"m":"SELEC"}}`); a.at("targetConditionError") == "" || a.at("customMetricQueryErrors.m") == "" {
			t.Errorf("%s", a.body)
		}
	})
	t.Run("list", func(t *testing.T) {
		put("a", `{`+setFan+`}`).want(200)
		f.do("GET", "/configurations", "").want(200).is("0.id", `"a"`).is("1.id", `"fan"`).is("2", "")
		f.do("GET", "/configurations/?top=1", "").want(200).is("0.id", `"a"`).is("1", "")
		f.do("GET", "/configurations?top=0", "").refused(400, "ArgumentInvalid")
	})
	t.Run("permission", func(t *testing.T) {
		for _, r := range [][2]string{{"GET", "/configurations"}, {"GET", "/configurations/fan"}, {"PUT", "/configurations/fan"}, {"DELETE", "/configurations/fan"}, {"POST", "/configurations/testQueries"}, {"POST", "/devices/d/applyConfigurationContent"}} {
			f.do(r[0], r[1], "{", f.as("registryRead")).refused(401, "IotHubUnauthorizedAccess")
		}
	})
}

// Item 105: IoT Hub takes another content and leaves the old one in force.
func TestConfigurationContentUnderAzureLimits(t *testing.T) {
	f := newFixture(t)
	f.do("PUT", "/configurations/fan", someFan).want(200)
	f.do("PUT", "/configurations/fan", `{"content":{"deviceContent":{"properties.desired.fan.speed":9}},"priority":7}`, ifMatch("*")).want(200)
	f.do("GET", "/configurations/fan", "").want(200).is("content", `{"deviceContent":{"properties.desired.fan.speed":3}}`).is("priority", "7")
}

// overlapping makes three devices, of which two have two configurations and one
// has one.
func overlapping(t *testing.T) *fixture {
	f := newFixture(t, byDefault)
	f.runs()
	for id, site := range map[string]string{"d1": "lyon", "d2": "lyon", "d3": "nice"} {
		f.create(id)
		f.do("PATCH", "/twins/"+id, `{"tags":{"site":"`+site+`"}}`).want(200)
	}
	f.do("PUT", "/configurations/fan", `{`+ofLyon+`,"priority":10,"content":{"deviceContent":{"properties.desired.fan":{"speed":3,"auto":true}}},
		"metrics":{"queries":{"applied":"SELECT deviceId FROM devices WHERE configurations.[[fan]].status = 'Applied'"}}}`).want(200)
	f.until("applied", "/twins/d1", at("configurations.fan.status", `"Applied"`)).is("properties.desired.fan.speed", "3").golden("twin-configured")
	f.until("applied", "/twins/d2", at("configurations.fan.status", `"Applied"`))
	f.do("GET", "/twins/d3", "").want(200).is("configurations", "").is("properties.desired.fan", "")
	f.do("PUT", "/configurations/top", `{"targetCondition":"*","priority":20,"content":{"deviceContent":{"properties.desired.fan.speed":5}}}`).want(200)
	f.until("the higher priority", "/twins/d1", at("properties.desired.fan.speed", "5")).is("properties.desired.fan.auto", "true")
	f.until("the other one", "/twins/d3", at("properties.desired.fan.speed", "5"))

	return f
}

func TestConfigurationsReachTwins(t *testing.T) {
	f := overlapping(t)
	t.Run("112 metrics", func(t *testing.T) {
		f.do("GET", "/configurations/fan", "").want(200).is("metrics.results.applied", "2").
			is("systemMetrics.results.targetedCount", "2").is("systemMetrics.results.appliedCount", "2").golden("configuration-applied")
		f.do("GET", "/api/v1/configurations/fan/metrics", "").want(200).is("items.0.name", `"appliedCount"`).is("items.0.system", "true").is("items.0.result", "2").
			is("items.2.name", `"applied"`).is("items.2.system", "false").is("items.2.result", "2")
	})
	t.Run("progress", func(t *testing.T) {
		f.until("settled", "/api/v1/configurations/fan/progress", at("working", "false")).
			is("revision", "1").is("targeted", "2").is("settled", "2").is("applied", "2").is("pending", "0").is("failed", "0")
	})
	t.Run("delete leaves the values", func(t *testing.T) {
		f.do("DELETE", "/configurations/top", "").want(204)
		f.until("the next takes over", "/twins/d1", at("properties.desired.fan.speed", "3"))
		f.until("gone", "/twins/d3", at("configurations", "")).is("properties.desired.fan.speed", "5")
	})
}

func TestConfigurationRevisions(t *testing.T) {
	f := newFixture(t, byDefault)
	f.runs()
	f.create("d")
	f.do("PATCH", "/twins/d", `{"tags":{"site":"lyon"}}`).want(200)
	const path = "/api/v1/configurations/fan"
	f.do("PUT", path, someFan).want(200).is("revision", "1").is("principal", `"policy:iothubowner"`)
	f.until("applied", "/twins/d", at("properties.desired.fan.speed", "3"))
	record := f.do("GET", path, "").want(200)
	faster := strings.Replace(string(record.body), `fan.speed":3`, `fan.speed":4`, 1) // what was read may be sent back
	second := f.do("PUT", path, faster, ifMatch(record.text("etag"))).want(200).is("revision", "2")
	f.until("the second revision", "/twins/d", at("properties.desired.fan.speed", "4"))
	f.do("PUT", path, faster, ifMatch(record.text("etag"))).want(412).is("code", `"PreconditionFailed"`)
	f.do("PUT", path, `{"prioritty":1}`, ifMatch("*")).want(400).is("code", `"ArgumentInvalid"`)
	f.do("GET", path+"/revisions?limit=1", "").want(200).is("items.0.revision", "2").is("items.1", "")
	cursor := f.do("GET", path+"/revisions?limit=1", "").text("cursor")
	f.do("GET", path+"/revisions?limit=1&cursor="+cursor, "").want(200).is("items.0.revision", "1").is("items.0.content", `{"deviceContent":{"properties.desired.fan.speed":3}}`).is("cursor", `""`)
	f.do("GET", "/api/v1/configurations/other/revisions?cursor="+cursor, "").want(400)

	back := func(body, key string, options ...option) *reply {
		return f.do("POST", path+"/rollback", body, append(options, header("Idempotency-Key", key))...)
	}
	back(`{"revision":1}`, "k1", ifMatch(`"`+record.text("etag")+`"`)).want(412)
	back(`{"revision":9}`, "k2").want(404)
	back(`{}`, "k3").want(400).is("code", `"ArgumentNull"`)
	back(`{"revision":0}`, "k4").want(400)
	for range 2 { // the second one is the first one's answer
		back(`{"revision":1}`, "k5", ifMatch(second.text("etag"))).want(200).is("revision", "3").is("content", `{"deviceContent":{"properties.desired.fan.speed":3}}`)
	}
	f.until("rolled back", "/twins/d", at("properties.desired.fan.speed", "3"))
	f.do("DELETE", path, "").want(204)
	f.do("GET", path, "").want(404).is("code", `"ConfigurationNotFound"`)
}

func TestConfigurationPages(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.do("PUT", fmt.Sprintf("/configurations/c%d", i), `{`+setFan+`}`).want(200)
	}
	var got []string
	for cursor, more := "", true; more; more = cursor != "" {
		a := f.do("GET", "/api/v1/configurations?limit=2&cursor="+cursor, "").want(200)
		for _, item := range dig(a.doc, "items").([]any) {
			got = append(got, dig(item, "id").(string))
		}
		cursor = a.text("cursor")
	}
	if strings.Join(got, " ") != "c0 c1 c2 c3 c4" {
		t.Errorf("got %v", got)
	}
	f.do("GET", "/api/v1/configurations?cursor=nonsense", "").want(400)
}

func TestApplyConfigurationContent(t *testing.T) {
	f := newFixture(t)
	f.do("PUT", "/devices/edge", `{"deviceId":"edge","capabilities":{"iotEdge":true}}`).want(200)
	f.create("leaf")
	const content = `{"modulesContent":{"$edgeAgent":{"properties.desired":{"schemaVersion":"1.1"}},"app":{"properties.desired":{"interval":5}}}}`
	apply := func(id, body string) *reply {
		return f.do("POST", "/devices/"+id+"/applyConfigurationContent", body)
	}
	apply("edge", content).want(204)
	f.do("GET", "/twins/edge/modules/app", "").want(200).is("properties.desired.interval", "5")
	f.do("GET", "/twins/edge/modules/$edgeAgent", "").want(200).is("properties.desired.schemaVersion", `"1.1"`)
	if a := apply("leaf", content); a.status != 400 {
		t.Errorf("a device that is no edge device: %d %s", a.status, a.body)
	}
	apply("none", content).refused(404, "DeviceNotFound")
	apply("edge", `{"deviceContent":{"properties.desired.a":1}}`).refused(400, "InvalidConfigurationContent")
	apply("edge", `{}`).refused(400, "InvalidConfigurationContent")
}

// Muster's own API takes a rollout, and shows the job that spreads it.
func TestConfigurationRolloutOverREST(t *testing.T) {
	f := newFixture(t, byDefault)
	f.runs()
	for i := range 4 {
		f.create(fmt.Sprint("r", i)).want(200)
	}
	const path = "/api/v1/configurations/fan"
	body := func(speed int) string {
		return fmt.Sprintf(`{"targetCondition":"*","content":{"deviceContent":{"properties.desired.fan.speed":%d}},"rollout":{"waves":[{"size":"1"},{"size":"100%%","approval":true}]}}`, speed)
	}
	a := f.do("PUT", path, body(3)).want(200)
	job := strings.Trim(a.at("rolloutJob"), `"`)
	if job == "" || a.at("rollout.waves.1.approval") != "true" {
		t.Fatalf("%s", a.body)
	}
	f.until("the first wave", path+"/progress", at("settled", "1"))
	f.do("GET", "/configurations/fan", "").want(200).is("rollout", "")
	f.until("the job waits", "/api/v1/jobs/"+job, at("waitsFor", `"approval"`))
	// IoT Hub's SDKs know no such job.
	f.do("GET", "/jobs/v2/"+job, "").want(200).is("type", `"unknown"`)
	if a := f.do("GET", "/jobs/v2/query", "").want(200); strings.Contains(string(a.body), job) {
		t.Errorf("%s", a.body)
	}
	f.do("POST", "/api/v1/jobs/"+job+"/approve", "{}").want(200)
	f.until("all", path+"/progress", at("settled", "4"))
	f.until("the job has ended", path, at("rolloutJob", ""))
	f.do("PUT", path, `{"content":{"deviceContent":{"properties.desired.a":1}},"rollout":{"waves":[{"size":"x"}]}}`, header("If-Match", "*")).want(400)
	f.do("PUT", path, `{"content":{"deviceContent":{"properties.desired.a":1}},"rollout":{"repeat":"0 3 * * 0"}}`, header("If-Match", "*")).want(400)
}
