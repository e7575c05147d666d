package service

import (
	"strings"
	"testing"
)

func TestRestoreTwin(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	f.do("PATCH", "/twins/d", `{"tags":{"site":"attic"},"properties":{"desired":{"interval":5}}}`).want(200)
	then := f.do("GET", "/api/v1/twins/d/history?limit=1", "").want(200).text("items.0.id")
	f.do("PATCH", "/twins/d", `{"tags":{"site":"cellar","floor":-1},"properties":{"desired":{"interval":60,"mode":"slow"}}}`).want(200)
	before := f.do("GET", "/twins/d", "").want(200)

	f.do("GET", "/api/v1/twins/d/as-of?at="+then, "").want(200).is("tags", `{"site":"attic"}`).is("desired.interval", "5")
	plan := f.do("POST", "/api/v1/twins/d/restore", `{"to":"`+then+`","dryRun":true}`).want(200).is("dryRun", "true")
	if got := plan.at("changes"); !strings.Contains(got, `"tags.site"`) || !strings.Contains(got, `"desired.mode"`) {
		t.Errorf("the plan is %s", got)
	}
	f.do("GET", "/twins/d", "").want(200).is("etag", before.at("etag"))

	f.do("POST", "/api/v1/twins/d/restore", `{"to":"`+then+`"}`, ifMatch(`"AAAA"`)).want(412).is("code", `"PreconditionFailed"`)
	done := f.do("POST", "/api/v1/twins/d/restore", `{"to":"`+then+`","sections":["tags"]}`, ifMatch(`"`+before.text("etag")+`"`), header("Idempotency-Key", "k")).want(200)
	after := f.do("GET", "/twins/d", "").want(200).is("tags", `{"site":"attic"}`).is("properties.desired.interval", "60")
	if after.at("etag") != done.at("etag") {
		t.Errorf("etag %s, then %s", done.at("etag"), after.at("etag"))
	}
	// The same request again does nothing again, and one that changes nothing writes nothing.
	again := f.do("POST", "/api/v1/twins/d/restore", `{"to":"`+then+`","sections":["tags"]}`, header("Idempotency-Key", "k")).want(200)
	if again.header.Get(replayedField) != "true" || string(again.body) != string(done.body) {
		t.Errorf("again: %s", again.body)
	}
	f.do("POST", "/api/v1/twins/d/restore", `{"to":"`+then+`","sections":["tags"]}`).want(200).is("changes", "[]")
	f.do("GET", "/twins/d", "").want(200).is("version", after.at("version"))
	if cause := f.do("GET", "/api/v1/twins/d/history?limit=1", "").want(200).text("items.0.cause"); cause != "restore:"+then {
		t.Errorf("the history says %q", cause)
	}

	for name, c := range map[string]struct {
		path, body, policy string
		status             int
		code               string
	}{
		"no moment":          {"d", `{}`, "service", 400, "ArgumentNull"},
		"odd moment":         {"d", `{"to":"yesterday"}`, "service", 400, "ArgumentInvalid"},
		"long moment":        {"d", `{"to":"` + strings.Repeat("9", 65) + `"}`, "service", 400, "ArgumentInvalid"},
		"too early":          {"d", `{"to":"2001-01-01T00:00:00Z"}`, "service", 404, "HistoryNotFound"},
		"reported":           {"d", `{"to":"` + then + `","sections":["reported"]}`, "service", 400, "ArgumentInvalid"},
		"no section":         {"d", `{"to":"` + then + `","sections":[]}`, "service", 400, "ArgumentInvalid"},
		"many sections":      {"d", `{"to":"` + then + `","sections":["tags","tags","tags"]}`, "service", 400, "ArgumentInvalid"},
		"unknown device":     {"e", `{"to":"` + then + `"}`, "service", 404, "DeviceNotFound"},
		"without permission": {"d", `{"to":"` + then + `"}`, "registryReadWrite", 403, "OperationNotAllowed"},
	} {
		a := f.do("POST", "/api/v1/twins/"+c.path+"/restore", c.body, f.as(c.policy))
		if a.status != c.status || a.at("code") != `"`+c.code+`"` {
			t.Errorf("%s: %d %s; want %d %s", name, a.status, a.body, c.status, c.code)
		}
	}
	f.do("GET", "/api/v1/twins/d/as-of", "").want(400)
	f.do("GET", "/api/v1/twins/e/as-of?at="+then, "").want(404)
}
