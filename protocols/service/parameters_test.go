package service

import (
	"strings"
	"testing"
)

// A parameter that Muster's own API does not take is refused, with the names
// of those that it does; IoT Hub's paths ignore it, and lists take limit and cursor.
func TestUnknownParameters(t *testing.T) {
	f := newFixture(t)
	f.do("PUT", "/devices/d?api-version=2021-04-12&typo=1", `{"deviceId":"d"}`).want(200)
	for path, expected := range map[string]string{
		"GET /api/v1/events?devise=d":         "cursor, device, kind, schema, limit, wait",
		"GET /api/v1/devices?prefx=a":         "prefix",
		"GET /api/v1/hub?x=1":                 "there is none here",
		"GET /api/v1/devices/d/modules?typo=": "there is none here",
		"DELETE /api/v1/devices/d/fault?x=1":  "there is none here",
	} {
		method, target, _ := strings.Cut(path, " ")
		_, query, _ := strings.Cut(target, "?")
		name, _, _ := strings.Cut(query, "=")
		text := string(f.do(method, target, "").want(400).body)
		if !strings.Contains(text, `\"`+name+`\"`) || !strings.Contains(text, expected) {
			t.Errorf("%s: %s", path, text)
		}
	}
	f.do("GET", "/api/v1/devices/d/modules?limit=5", "").want(200)
	f.do("GET", "/devices/d?api-version=2021-04-12&typo=1", "").want(200)
}
