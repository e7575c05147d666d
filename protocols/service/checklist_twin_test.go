package service

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestBulk(t *testing.T) {
	f := newFixture(t)
	items := func(n int, mode, prefix string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,{"id":"%s%d","importMode":"%s","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}`, prefix, i, mode)
		}
		return "[" + strings.TrimPrefix(b.String(), ",") + "]"
	}
	t.Run("45 a hundred", func(t *testing.T) {
		f.do("POST", "/devices", items(100, "create", "a")).want(200).golden("bulk-done")
	})
	t.Run("45 a hundred, each with as much of a twin as IoT Hub lets it have", func(t *testing.T) {
		long := strings.Repeat("x", 3900)
		desired := strings.TrimSuffix(strings.Repeat(`"k%d":"`+long+`",`, 8), ",")
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, `,{"id":"full%d","importMode":"create","tags":{"a":%q},"properties":{"desired":{`+desired+`}}}`, i, long, 1, 2, 3, 4, 5, 6, 7, 8)
		}
		f.do("POST", "/devices", "["+strings.TrimPrefix(b.String(), ",")+"]").want(200).is("isSuccessful", "true")
		f.do("POST", "/devices", strings.Repeat(" ", bulkBytes+1)).refused(413, "MessageTooLarge")
	})
	t.Run("46 none and too many", func(t *testing.T) {
		f.do("POST", "/devices", items(101, "create", "b")).refused(400, "ArgumentInvalid")
		f.do("POST", "/devices", "[]").refused(400, "ArgumentInvalid")
		f.do("GET", "/devices/b0", "").want(404)
	})
	t.Run("47 one duplicate", func(t *testing.T) {
		f.create("c1")
		a := f.do("POST", "/devices", items(3, "create", "c")).refused(400, "BulkRegistryOperationFailure").golden("bulk-failed")
		if got := a.header.Get("IotHubErrorCode"); got != "BulkRegistryOperationFailure" {
			t.Errorf("IotHubErrorCode %q", got)
		}
		a.is("isSuccessful", "false").is("errors.0.deviceId", `"c1"`).is("errors.0.errorCode", "409001").is("errors.1", "")
		f.do("GET", "/devices/c0", "").want(200)
		f.do("GET", "/devices/c2", "").want(200)
	})
	t.Run("48 modes", func(t *testing.T) {
		f.create("m")
		one := func(mode, more string) *reply {
			return f.do("POST", "/devices", `[{"id":"m","importMode":"`+mode+`"`+more+`}]`)
		}
		one("Update", `,"status":"disabled"`).want(200)
		f.do("GET", "/devices/m", "").is("status", `"disabled"`)
		one("update", "").want(200)
		one("updateIfMatchETag", "").want(400).is("errors.0.deviceId", `"m"`)
		one("UpdateIfMatchETag", `,"eTag":"stale"`).want(400).is("errors.0.errorCode", "412001")
		one("UpdateIfMatchETag", `,"eTag":`+f.do("GET", "/devices/m", "").at("etag")).want(200)
		f.do("POST", "/devices", `[{"id":"up","importMode":"createOrUpdate"}]`).want(200)
		f.do("POST", "/devices", `[{"id":"up","importMode":"createOrUpdate","status":"disabled"}]`).want(200)
		f.do("GET", "/devices/up", "").is("status", `"disabled"`)
		one("updateIfMatchETag", `,"eTag":"*"`).want(200)
		one("DeleteIfMatchETag", `,"eTag":"stale"`).want(400).is("errors.0.errorCode", "412001")
		one("Delete", "").want(200)
		one("delete", "").want(400).is("errors.0.errorCode", "404001")
	})
	t.Run("49 the same id twice", func(t *testing.T) {
		f.do("POST", "/devices", `[{"id":"t","importMode":"create"},{"id":"t","importMode":"create"}]`).want(400).is("errors.0.errorCode", "400011")
	})
	t.Run("50 with twin", func(t *testing.T) {
		f.do("POST", "/devices", `[{"id":"w","importMode":"create","tags":{"site":"A"},"properties":{"desired":{"rate":5}}}]`).want(200)
		f.do("GET", "/twins/w", "").want(200).is("tags", `{"site":"A"}`).is("properties.desired.rate", "5")
	})
	t.Run("an item that is wrong", func(t *testing.T) {
		f.do("POST", "/devices", `[{"id":"ok","importMode":"create"},{"id":"bad","importMode":"create","authentication":{"symmetricKey":{"primaryKey":"x","secondaryKey":""}}}]`).
			want(400).is("errors.0.deviceId", `"bad"`).is("errors.0.errorCode", "400004")
		f.do("GET", "/devices/ok", "").want(200)
		f.do("POST", "/devices", `[{"id":"bad","importMode":"x"}]`, f.as("registryRead")).refused(401, "IotHubUnauthorizedAccess")
	})
	t.Run("an item that can't be named", func(t *testing.T) {
		for _, item := range []string{`{"importMode":"create"}`, `{"id":7}`, `7`} {
			a := f.do("POST", "/devices", `[{"id":"before","importMode":"create"},`+item+`]`).want(400)
			if !strings.Contains(a.text("Message"), "[1]") || a.at("errors") != "" {
				t.Errorf("%s does not say which item", a.body)
			}
		}
		f.do("GET", "/devices/before", "").want(404)
	})
	t.Run("51 regenerate keys", func(t *testing.T) {
		a := f.create("k")
		b := f.do("POST", "/devices/keys/regenerate?api-version=2024-03-31", `{"policyKey":"primaryKey","devices":[{"id":"k"},{"id":"nope"}]}`).want(207).golden("keys-regenerated")
		b.is("rotatedKeys.0.secondaryKey", a.at("authentication.symmetricKey.secondaryKey")).is("errors.0.id", `"nope"`).is("errors.0.errorCode", "404001")
		if b.at("rotatedKeys.0.primaryKey") == a.at("authentication.symmetricKey.primaryKey") {
			t.Error("the primary key stayed")
		}
		f.do("GET", "/devices/k", "").is("authentication.symmetricKey.primaryKey", b.at("rotatedKeys.0.primaryKey"))
		f.do("POST", "/devices/keys/regenerate", `{"policyKey":"secondaryKey","devices":[{"id":"k"}]}`).want(200)
		f.do("POST", "/devices/keys/regenerate", `{"policyKey":"both","devices":[{"id":"nope"}]}`).refused(400, "BulkRegenerateDeviceKeyOperationFailure")
		f.do("POST", "/devices/keys/regenerate", `{"policyKey":"third","devices":[{"id":"k"}]}`).refused(400, "ArgumentInvalid")
		f.do("POST", "/devices/keys/regenerate", `{"policyKey":"both","devices":[]}`).refused(400, "ArgumentInvalid")
		f.do("POST", "/devices/keys/regenerate", `{"policyKey":"both"}`).refused(400, "ArgumentNull")
		// The second turn would make the key that the first answers a dead one.
		before := f.do("GET", "/devices/k", "").at("etag")
		f.create("k2")
		f.do("POST", "/devices/keys/regenerate", `{"policyKey":"primaryKey","devices":[{"id":"k"},{"id":"k2"},{"id":"k"}]}`).want(207).
			is("errors.0.errorCode", "400011").is("errors.1.errorCode", "400011").is("rotatedKeys.0.id", `"k2"`).is("rotatedKeys.1", "")
		f.do("GET", "/devices/k", "").is("etag", before)
	})
}

func TestTwins(t *testing.T) {
	f := newFixture(t)
	patch := func(id, body string, options ...option) *reply { return f.do("PATCH", "/twins/"+id, body, options...) }
	t.Run("52 fresh", func(t *testing.T) {
		f.create("fresh")
		a := f.do("GET", "/twins/fresh", "").want(200).golden("twin-fresh")
		a.is("tags", "").is("properties.desired.$version", "1").is("properties.reported.$version", "1").is("properties.desired.$metadata.$lastUpdated", `"0001-01-01T00:00:00Z"`)
		if number(a, "version") < 1 || a.header.Get("ETag") != `"`+a.text("etag")+`"` {
			t.Errorf("%s", a.body)
		}
	})
	t.Run("53 merge", func(t *testing.T) {
		f.create("merge")
		a := patch("merge", `{"tags":{"a":{"b":1}}}`).want(200)
		b := patch("merge", `{"tags":{"a":{"c":2}}}`).want(200).is("tags", `{"a":{"b":1,"c":2}}`).is("properties.desired.$version", "1")
		if a.at("etag") == b.at("etag") {
			t.Error("the etag stayed")
		}
	})
	t.Run("54 null", func(t *testing.T) {
		patch("merge", `{"tags":{"a":{"b":null}}}`).want(200).is("tags", `{"a":{"c":2}}`)
		patch("merge", `{"tags":{"a":{"c":null}}}`).want(200).is("tags", `{"a":{}}`)
		patch("merge", `{"tags":{"a":null}}`).want(200).is("tags", "")
	})
	t.Run("55 empty object", func(t *testing.T) {
		patch("merge", `{"tags":{"a":{"x":1}}}`).want(200)
		patch("merge", `{"tags":{"a":{}}}`).want(200).is("tags", `{"a":{"x":1}}`)
		patch("merge", `{"tags":{}}`).want(200).is("tags", `{"a":{"x":1}}`)
	})
	t.Run("56 arrays", func(t *testing.T) {
		patch("merge", `{"properties":{"desired":{"l":[1,2,3]}}}`).want(200)
		patch("merge", `{"properties":{"desired":{"l":[4]}}}`).want(200).is("properties.desired.l", "[4]")
		patch("merge", `{"properties":{"desired":{"l":[1,null]}}}`).want(400)
	})
	t.Run("57 and 58 desired", func(t *testing.T) {
		f.create("desired")
		d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "desired"}, engine.EndpointDesired)
		patch("desired", `{"properties":{"desired":{"keep":1}}}`).want(200).is("properties.desired.$version", "2")
		a := patch("desired", `{"properties":{"desired":{"a":{"b":[1]}}}}`).want(200).is("properties.desired.$version", "3").golden("twin-patched")
		n := d.Notifications()
		if len(n) != 2 || n[1].Patch != `{"a":{"b":[1]},"$version":3}` || n[1].Version != 3 {
			t.Errorf("%+v", n)
		}
		for _, path := range []string{"$metadata", "$metadata.a", "$metadata.a.b"} {
			a.is("properties.desired."+path+".$lastUpdatedVersion", "3")
		}
		a.is("properties.desired.$metadata.keep.$lastUpdatedVersion", "2")
		d.Session.Close(nil)
	})
	t.Run("59 replace", func(t *testing.T) {
		f.create("replace")
		patch("replace", `{"tags":{"a":1,"b":2},"properties":{"desired":{"x":1,"y":2}}}`).want(200)
		f.do("PUT", "/twins/replace", `{"properties":{"desired":{"y":3}}}`).want(200).is("properties.desired.x", "").is("properties.desired.y", "3").is("tags", `{"a":1,"b":2}`)
		f.do("PUT", "/twins/replace", `{"tags":{},"properties":{"desired":{}}}`).want(200).is("properties.desired.y", "").is("tags", "")
	})
	t.Run("what can't be read is named", func(t *testing.T) {
		f.create("names")
		for body, want := range map[string]string{
			`{"properties":{"desired":{"x":{"y":1,"y":2}}}}`: `desired.x: found the key "y" twice in one object at byte 12 of desired; expected each key once`,
			`{"tags":{"a":1,"a":2}}`:                         `tags: found the key "a" twice in one object at byte 7 of tags; expected each key once`,
		} {
			patch("names", body).want(400).is("Message", string(encode("ErrorCode:ArgumentInvalid;"+want)))
		}
		// A character is shown as it was sent, not as the bytes that it is made of.
		for path, want := range map[string]string{
			"/devices/%C3%A9":         `deviceId has the character 'é' at position 0`,
			"/configurations/a%C3%A9": `the id of the configuration has the character 'é' at position 1`,
		} {
			if a := f.do("PUT", path, `{}`).want(400); !strings.Contains(a.text("Message"), want) {
				t.Errorf("%s: %s", path, a.body)
			}
		}
		a := f.do("POST", "/twins/names/methods", `{"methodName":"ü"}`).want(400)
		if !strings.Contains(string(a.body), `methodName has the character 'ü' at position 0`) {
			t.Errorf("%s", a.body)
		}
		a = f.do("PUT", "/jobs/v2/%C3%BC", `{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"a":1}}}`).want(400)
		if !strings.Contains(string(a.body), `the character 'ü' at position 0`) {
			t.Errorf("%s", a.body)
		}
	})
	t.Run("60 and 61 a whole document", func(t *testing.T) {
		f.create("whole")
		patch("whole", `{"tags":{"a":1},"properties":{"desired":{"x":{"y":1}}}}`).want(200)
		a := f.do("GET", "/twins/whole", "").want(200)
		body := strings.Replace(string(a.body), `"a":1`, `"a":2`, 1)
		body = strings.Replace(body, `"reported":{`, `"reported":{"forged":true,`, 1)
		body = strings.Replace(body, `"status":"enabled"`, `"status":"disabled"`, 1)
		patch("whole", body).want(200).is("tags", `{"a":2}`).is("properties.desired.x", `{"y":1}`).is("properties.reported.forged", "").is("status", `"enabled"`).
			is("properties.desired.$metadata.$metadata", "").is("properties.reported.$version", "1")
	})
	t.Run("62 conditions", func(t *testing.T) {
		f.create("cond")
		a := patch("cond", `{"tags":{"a":1}}`).want(200)
		patch("cond", `{"tags":{"a":2}}`, ifMatch(a.header.Get("ETag"))).want(200)
		patch("cond", `{"tags":{"a":3}}`, ifMatch(a.header.Get("ETag"))).refused(412, "PreconditionFailed")
		f.do("PUT", "/twins/cond", `{"tags":{"a":3}}`, ifMatch(a.text("etag"))).refused(412, "PreconditionFailed")
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, f.url+"/twins/cond?api-version=2021-04-12", strings.NewReader(`{"tags":{"n`+strconv.Itoa(i)+`":1}}`))
				if err != nil {
					t.Error(err)
					return
				}
				f.as("service")(r)
				ifMatch(`"*"`)(r)
				w, err := f.client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				w.Body.Close()
				if w.StatusCode != http.StatusOK {
					t.Errorf("status %d", w.StatusCode)
				}
			})
		}
		wg.Wait()
		b := f.do("GET", "/twins/cond", "").want(200)
		for i := range 30 {
			b.is("tags.n"+strconv.Itoa(i), "1")
		}
	})
	t.Run("63 limits", func(t *testing.T) {
		f.create("limits")
		desired := func(inner string) *reply { return patch("limits", `{"properties":{"desired":{`+inner+`}}}`) }
		for _, key := range []string{"a.b", "a$", "a b", "a#", `a\u0001`, strings.Repeat("k", 1025)} {
			desired(`"` + key + `":1`).want(400)
		}
		desired(`"` + strings.Repeat("k", 1024) + `":null`).want(200)
		desired(`"s":"` + strings.Repeat("x", 4097) + `"`).want(400)
		desired(`"s":"` + strings.Repeat("x", 4096) + `"`).want(200)
		desired(strings.Repeat(`"d":{`, 11) + `"v":1` + strings.Repeat("}", 11)).want(400)
		desired(`"n":4503599627370496`).want(400)
		desired(`"n":4503599627370495`).want(200).is("properties.desired.n", "4503599627370495")
		desired(`"n":-4503599627370497`).want(400)
	})
	t.Run("64 sizes", func(t *testing.T) {
		f.create("sizes")
		a := patch("sizes", `{"tags":{"a":1}}`).want(200)
		filler := func(bytes int) string {
			var b strings.Builder
			for i := 0; bytes > 0; i++ {
				n := min(bytes, 4096)
				fmt.Fprintf(&b, `,"f%d":"%s"`, i, strings.Repeat("x", n))
				bytes -= n
			}
			return strings.TrimPrefix(b.String(), ",")
		}
		for _, body := range []string{`{"tags":{` + filler(8<<10+1) + `}}`, `{"properties":{"desired":{` + filler(32<<10+1) + `}}}`} {
			if b := patch("sizes", body); b.status != 400 && b.status != 413 {
				t.Errorf("status %d", b.status)
			}
		}
		f.do("GET", "/twins/sizes", "").want(200).is("version", a.at("version")).is("etag", a.at("etag"))
	})
	t.Run("65 text of numbers and keys", func(t *testing.T) {
		f.create("text")
		a := patch("text", `{"tags":{"i":1,"f":1.0,"e":1e2,"clé":"ü","":5}}`).want(200)
		for _, part := range []string{`"i":1,`, `"f":1.0`, `"e":1e2`, `"clé":"ü"`} {
			if !strings.Contains(string(a.body), part) {
				t.Errorf("%s lacks %s", a.body, part)
			}
		}
		patch("text", `{"tags":{"big":12345678901234567}}`).want(400)
	})
	t.Run("66 and 67 of the identity", func(t *testing.T) {
		d := f.create("id")
		a := f.do("GET", "/twins/id", "").want(200).is("capabilities", `{"iotEdge":false}`).is("deviceScope", "").is("parentScopes", "").is("deviceEtag", d.at("etag"))
		d = f.do("PUT", "/devices/id", string(d.body), ifMatch("*")).want(200)
		f.do("GET", "/twins/id", "").want(200).is("etag", a.at("etag")).is("deviceEtag", d.at("etag"))
	})
	t.Run("68 missing module", func(t *testing.T) {
		f.do("GET", "/twins/id/modules/nope", "").want(404)
		f.do("GET", "/twins/nope", "").refused(404, "DeviceNotFound")
		f.do("PATCH", "/twins/nope", `{"tags":{}}`).refused(404, "DeviceNotFound")
	})
	t.Run("69 at once, and of modules", func(t *testing.T) {
		f.create("at-once")
		f.do("GET", "/twins/at-once", "").want(200)
		f.do("PUT", "/devices/at-once/modules/m", `{}`).want(200)
		f.do("GET", "/twins/at-once/modules/m", "").want(200).golden("twin-module")
		f.do("PATCH", "/twins/at-once/modules/m", `{"properties":{"desired":{"a":1}}}`).want(200).is("properties.desired.a", "1")
		f.do("PUT", "/twins/at-once/modules/m", `{"properties":{"desired":{"b":1}}}`).want(200).is("properties.desired.a", "")
	})
	t.Run("bodies", func(t *testing.T) {
		patch("id", `[]`).refused(400, "IotHubFormatError")
		patch("id", `{"tags":"x"}`).refused(400, "IotHubFormatError")
		patch("id", `{"tags":{"a":1,"a":2}}`).want(400)
		patch("id", `{"tags":{"a":1},"tags":{}}`).refused(400, "IotHubFormatError")
	})
}
