package service

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// reboot is a pattern that calls a method and waits for what it comes to.
func rebootScript() enginetest.Script {
	return enginetest.Script{
		Manifest: pattern.Manifest{
			Name: "reboot", Title: "Reboot", Summary: "Restarts a device.", Needs: pattern.Needs{"twin:read", "twin:tags:rebooted", "method:reboot"},
			Params: json.RawMessage(`{"delay":{"type":"integer","minimum":0,"maximum":60,"default":5}}`), Resumable: true,
		},
		Run: func(p *enginetest.Play) (any, error) {
			p.Report("asking", 0.25)
			p.Log("asks %s", p.Device)
			before, err := p.Get("reported.boot.count")
			if err != nil {
				return nil, err
			}
			answer, err := p.Call(pattern.CallArgs{Method: "reboot", Payload: p.Params, Timeout: "20s"})
			if err != nil {
				return nil, err
			}
			p.Report("restarting", 0.5)
			if _, err := p.Wait("reported.boot.count > before", map[string]json.RawMessage{"before": before}, "1h"); err != nil {
				return nil, err
			}
			return map[string]json.RawMessage{"answer": answer}, p.Tag(`{"rebooted":true}`)
		},
		Undo: func(p *enginetest.Play) (any, error) { return nil, p.Tag(`{"rebooted":null}`) },
	}
}

// askScript asks a person.
func askScript() enginetest.Script {
	return enginetest.Script{
		Manifest: pattern.Manifest{Name: "ask"},
		Run: func(p *enginetest.Play) (any, error) {
			return p.Approve("Shall " + p.Device + " be wiped?")
		},
	}
}

func fleetScript() enginetest.Script {
	return enginetest.Script{
		Manifest: pattern.Manifest{Name: "audit", Scope: pattern.ScopeFleet, Needs: pattern.Needs{"query"}},
		Run: func(p *enginetest.Play) (any, error) {
			return p.Step("fleet.count", pattern.FleetArgs{Where: "true"})
		},
	}
}

// archiveOf is a script as an archive, signed with a key unless that is empty.
func archiveOf(t *testing.T, s *enginetest.Scripts, name, private string) string {
	t.Helper()
	b := s.Bundle(name, "1.0.0")
	var signature *pattern.Signature
	if private != "" {
		made, err := pattern.Sign(b, private)
		if err != nil {
			t.Fatal(err)
		}
		signature = made
	}
	data, err := pattern.WriteArchive(b, signature)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPatterns(t *testing.T) {
	scripts := enginetest.NewScripts(rebootScript(), askScript())
	f := newFixture(t, enginetest.WithScripts(scripts))
	const root, one = "/api/v1/patterns", "/api/v1/patterns/reboot"
	source := string(scripts.Bundle("reboot", "1.0.0").Files[pattern.MainFile])

	f.do("GET", root, "").want(200).is("items", "[]")
	f.do("POST", root+"?inspect=true", source).want(200).is("name", `"reboot"`).is("origin", `"unsigned"`).is("needs.2.need", `"method:reboot"`).is("needs.2.granted", "false").
		is("needs.2.text", `"Call this direct method of the device."`).is("parameters.properties.delay.default", "5").is("installedTime", "")
	f.do("GET", one, "").want(404).is("code", `"PatternNotFound"`)
	f.do("POST", root, source).want(403).is("code", `"PatternUnsigned"`)
	f.do("POST", root+"?unsigned=true", source).want(409).is("code", `"PatternGrant"`)
	f.do("POST", root+"?unsigned=true&grant=twin:read", source).want(409).is("code", `"PatternGrant"`)
	f.do("POST", root+"?unsigned=true&grant=all", source).want(201).golden("pattern")
	f.do("POST", root+"?unsigned=true&grant=all", archiveOf(t, scripts, "ask", "")).want(201).is("name", `"ask"`)

	page := f.do("GET", root+"?limit=1", "").want(200).is("items.0.name", `"ask"`)
	f.do("GET", root+"?limit=1&cursor="+page.text("cursor"), "").want(200).is("items.0.name", `"reboot"`).is("cursor", `""`)
	f.do("GET", one+"?version=1.0.0", "").want(200).is("manifest.resumable", "true").is("enabled", "true").is("default", "true").is("principal", `"policy:iothubowner"`)
	f.do("GET", one+"?version=9.0.0", "").want(404)
	f.do("GET", one+"/files", "").want(200).is("items.0.path", `"pattern.lua"`).is("items.0.content", string(encode(source)))
	f.do("GET", one+"/counts", "").want(200).is("items", "[]")
	f.do("GET", "/api/v1/patterns/none/counts", "").want(404)

	f.do("POST", one+"/disable", "", ifMatch("nonsense")).want(412)
	off := f.do("POST", one+"/disable", "").want(200).is("enabled", "false")
	if off.header.Get("ETag") != `"`+off.text("etag")+`"` {
		t.Errorf("the header says %s, the body %s", off.header.Get("ETag"), off.text("etag"))
	}
	f.do("POST", "/api/v1/runs", `{"pattern":"reboot","deviceId":"d"}`).want(409).is("code", `"PatternState"`)
	f.do("POST", one+"/enable?version=1.0.0", "", ifMatch(off.text("etag"))).want(200).is("enabled", "true")
	f.do("POST", one+"/default?version=1.0.0", "").want(200).is("default", "true")
	f.do("DELETE", "/api/v1/patterns/ask?version=1.0.0", "").want(204)
	f.do("DELETE", "/api/v1/patterns/ask", "").want(404)
	f.do("GET", "/api/v1/audit?limit=1", "").want(200)
}

func TestPatternUploadsRefused(t *testing.T) {
	f := newFixture(t, enginetest.WithScripts(enginetest.NewScripts()))
	const root = "/api/v1/patterns"
	for body, code := range map[string]string{"": "PatternInvalid", "\x00\x01": "PatternInvalid", "\x1f\x8bbroken": "PatternInvalid", "PK\x03\x04broken": "PatternInvalid", "-- no program": "PatternInvalid"} {
		f.do("POST", root+"?unsigned=true&grant=all", body).want(400).is("code", string(encode(code)))
	}
	f.do("POST", root, strings.Repeat("x", archiveBytes+1)).want(413)
	f.do("POST", root+"?unsigned=perhaps", "x").want(400)
	f.do("POST", root+"?grant=all", "x", f.as("service")).want(403)
	for _, path := range []string{"/patterns/x/enable", "/patterns/x/disable", "/patterns/x/default"} {
		f.do("POST", "/api/v1"+path, "", f.as("service")).want(403)
	}
	f.do("DELETE", root+"/x", "", f.as("service")).want(403)
	f.do("GET", root, "", f.as("registryRead")).want(403)
	// The query is a part of what an Idempotency-Key stands for.
	f.do("POST", root+"?inspect=true", "-- x", header("Idempotency-Key", "k")).want(400)
	f.do("POST", root+"?inspect=true", "-- x", header("Idempotency-Key", "k")).want(400)
	f.do("POST", root+"?grant=all", "-- x", header("Idempotency-Key", "k")).want(422).is("code", `"IdempotencyKeyReused"`)
}

func TestPatternKeysAndSecrets(t *testing.T) {
	scripts := enginetest.NewScripts(rebootScript())
	f := newFixture(t, enginetest.WithScripts(scripts))
	public, private, err := pattern.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const keys, secrets = "/api/v1/pattern-keys", "/api/v1/pattern-secrets"
	signed := archiveOf(t, scripts, "reboot", private)
	f.do("POST", "/api/v1/patterns?grant=all", signed).want(403).is("code", `"PatternUnsigned"`)
	f.do("PUT", keys+"/acme", `{"key":"nonsense"}`).want(400)
	f.do("PUT", keys+"/acme", `{}`).want(400)
	f.do("PUT", keys+"/acme", `{"key":"`+public+`"}`).want(200).is("name", `"acme"`).is("key", string(encode(public)))
	f.do("GET", keys, "").want(200).is("items.0.name", `"acme"`)
	f.do("POST", "/api/v1/patterns?grant=all", signed).want(201).is("origin", `"signed"`).is("signer", `"acme"`)
	f.do("DELETE", keys+"/acme", "").want(204)
	f.do("GET", keys, "").want(200).is("items", "[]")

	f.do("PUT", secrets+"/smtp", `{}`).want(400).is("code", `"ArgumentNull"`)
	f.do("PUT", secrets+"/smtp", `{"value":"hush"}`).want(204)
	if a := f.do("GET", secrets, "").want(200).is("items.0.name", `"smtp"`).is("items.0.principal", `"policy:iothubowner"`); strings.Contains(string(a.body), "hush") {
		t.Errorf("a secret is told: %s", a.body)
	}
	f.do("DELETE", secrets+"/smtp", "").want(204)
	f.do("DELETE", secrets+"/smtp", "").want(404).is("code", `"SecretNotFound"`)
	for _, path := range []string{keys, secrets} {
		f.do("GET", path, "", f.as("service")).want(403)
		f.do("PUT", path+"/x", `{"key":"k","value":"v"}`, f.as("service")).want(403)
		f.do("DELETE", path+"/x", "", f.as("service")).want(403)
	}
}

// TestPatternJobs: a job runs a pattern, is previewed as such, and is none of IoT
// Hub's.
func TestPatternJobs(t *testing.T) {
	wipe := askScript()
	wipe.Manifest.Name, wipe.Manifest.Danger, wipe.Manifest.Applies = "wipe", true, "tags.n > 1"
	scripts := enginetest.NewScripts(wipe)
	f := jobFixture(t, 3, enginetest.WithScripts(scripts))
	enginetest.InstallScripts(t, f.hub, scripts)
	const spec = `"id":"j","targets":{"where":"true"},"action":{"run":{"pattern":"wipe"}}`
	f.do("POST", "/api/v1/jobs", `{`+spec+`}`).want(400).is("code", `"ArgumentNull"`)
	p := f.do("POST", "/api/v1/jobs/preview", `{`+spec+`}`).want(200).is("count", "2").is("confirm", `"wipe"`).is("kind", `"runPattern"`).
		is("sample.0.pattern", `"wipe 1.0.0"`).is("excluded.0.reason", `"the pattern does not apply"`).is("excluded.0.sample", `["d1"]`)
	f.do("POST", "/api/v1/jobs", `{`+spec+`,"token":`+p.at("token")+`}`).want(201).is("kind", `"runPattern"`).is("action.run.pattern", `"wipe"`).is("action.run.version", `"1.0.0"`)
	f.do("GET", "/api/v1/jobs?kind=runPattern", "").want(200).is("items.0.id", `"j"`)
	f.do("GET", "/jobs/v2/j", "").want(200).is("type", `"unknown"`)
	f.do("GET", "/jobs/v2/query", "").want(200)

	s := f.follow("/api/v1/jobs/j/runs/stream")
	s.untilEvent("both ask", func(e map[string]any) bool {
		counts, _ := e["counts"].([]any)
		for _, c := range counts {
			if n := c.(map[string]any); n["step"] == "ctx.approve" && n["count"] == 2.0 {
				return true
			}
		}
		return false
	})
	f.do("GET", "/api/v1/runs/counts?jobId=j", "").want(200).is("items.0.step", `"ctx.approve"`).is("items.0.count", "2").is("items.1", "")
	f.do("POST", "/api/v1/runs/decide", `{"filter":{"jobId":"j"},"approve":true}`).want(200).is("decided", "2")
	s.untilEvent("its end", func(e map[string]any) bool { return e["kind"] == "ended" && e["status"] == "completed" })
	f.do("GET", "/api/v1/jobs/j/runs/stream", "").want(400)
	f.do("GET", "/api/v1/jobs/j/executions", "").want(200).is("items.0.status", `"succeeded"`).is("items.0.kind", `"runPattern"`)
	f.do("POST", "/api/v1/jobs", `{"id":"t","targets":{"where":"true"},"action":{"twin":{"tags":{"a":1}}}}`).want(201)
	res := f.send(f.Context(), http.MethodGet, "/api/v1/jobs/t/runs/stream", "", header("Accept", "text/event-stream"))
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("the runs of a job without any: %d", res.StatusCode)
	}
	f.do("GET", "/api/v1/runs?"+url.Values{"jobId": {"j"}, "state": {"succeeded"}}.Encode(), "").want(200).is("items.0.jobId", `"j"`).is("items.1.jobId", `"j"`).is("items.2", "")
}
