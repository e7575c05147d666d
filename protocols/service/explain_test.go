package service

import "testing"

func TestExplain(t *testing.T) {
	f := overlapping(t)
	t.Run("explain", func(t *testing.T) {
		a := f.do("GET", "/api/v1/devices/d1/explain", "").want(200).golden("explanation").
			is("configurations.0.id", `"top"`).is("configurations.1.id", `"fan"`)
		paths := map[string]any{}
		for _, p := range dig(a.doc, "paths").([]any) {
			paths[dig(p, "path").(string)] = p
		}
		if got := dig(paths["fan.speed"], "configuration"); got != "top" {
			t.Errorf("fan.speed is set by %v", got)
		}
		if lost, _ := dig(paths["fan.speed"], "lost").([]any); len(lost) != 1 || dig(lost[0], "configuration") != "fan" || dig(lost[0], "reason") == "" {
			t.Errorf("fan.speed: lost %v", lost)
		}
		if got := dig(paths["fan.auto"], "configuration"); got != "fan" {
			t.Errorf("fan.auto is set by %v", got)
		}
		f.do("GET", "/api/v1/devices/none/explain", "").want(404).is("code", `"DeviceNotFound"`)
	})
	t.Run("explain if", func(t *testing.T) {
		f.do("POST", "/api/v1/devices/d3/explain", `{"tags":{"site":"lyon"}}`).want(200).golden("explanation-if").is("gained", `["fan"]`).is("lost", "[]")
		f.do("POST", "/api/v1/devices/d1/explain", `{"tags":{"site":null}}`).want(200).is("gained", "[]").is("lost", `["fan"]`)
		f.do("POST", "/api/v1/devices/d1/explain", `{"tags":[]}`).want(400)
		f.do("POST", "/api/v1/devices/d1/explain", `{}`).want(400).is("code", `"ArgumentNull"`)
		f.do("POST", "/api/v1/devices/d1/explain", `{"tags":{},"reported":{}}`).want(400).is("code", `"ArgumentInvalid"`)
		f.do("GET", "/twins/d3", "").want(200).is("tags.site", `"nice"`)
	})
}
