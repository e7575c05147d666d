package service

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

// The tests named by a number are the assertions of a checklist of IoT Hub's
// service REST contract. What needs a client of another maker, 15 for
// one, is tested with that client elsewhere.

func TestAuthentication(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	key := func(policy string) []byte {
		b, err := f.keys[policy].PrimaryKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const host = enginetest.HostName
	hour := time.Now().Add(time.Hour)
	get := func(token string) *reply { return f.do("GET", "/devices/d", "", authorization(token)) }

	t.Run("1 without Authorization", func(t *testing.T) {
		a := f.do("GET", "/devices/d", "", func(r *http.Request) { r.Header.Del("Authorization") }).refused(401, "IotHubUnauthorizedAccess")
		if a.header.Get("WWW-Authenticate") == "" {
			t.Error("a 401 without a challenge")
		}
		f.do("GET", "/devices/d", "", authorization("Bearer x")).refused(401, "IotHubUnauthorizedAccess")
	})
	t.Run("2 bare and encoded host", func(t *testing.T) {
		get(auth.SignToken(host, key("iothubowner"), "iothubowner", hour)).want(200)
		get(signed(url.QueryEscape(host+"/"), "iothubowner", f, hour, "sr,sig,se,skn")).want(200)
		get(signed(strings.ReplaceAll(host, ".", "%2E"), "iothubowner", f, hour, "sr,sig,se,skn")).want(200)
	})
	t.Run("3 host in another case, another host", func(t *testing.T) {
		get(signed(strings.ToUpper(host), "iothubowner", f, hour, "sr,sig,se,skn")).want(200)
		get(signed("other.example.net", "iothubowner", f, hour, "sr,sig,se,skn")).refused(401, "IotHubUnauthorizedAccess")
	})
	t.Run("4 expired, wrong key, unknown policy, secondary key", func(t *testing.T) {
		get(auth.SignToken(host, key("iothubowner"), "iothubowner", time.Now().Add(-time.Minute))).refused(401, "IotHubUnauthorizedAccess")
		get(auth.SignToken(host, key("service"), "iothubowner", hour)).refused(401, "IotHubUnauthorizedAccess")
		wrong := get(auth.SignToken(host, key("service"), "iothubowner", hour)).text("Message")
		get(auth.SignToken(host, key("iothubowner"), "nobody", hour)).refused(401, "IotHubUnauthorizedAccess").
			is("Message", string(encode(wrong))) // a stranger does not learn which policies exist
		f.do("GET", "/devices/nope", "", authorization(auth.SignToken(host, key("service"), "iothubowner", hour))).
			is("Message", string(encode(wrong))) // nor which devices
		secondary, err := f.keys["iothubowner"].SecondaryKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		get(auth.SignToken(host, secondary, "iothubowner", hour)).want(200)
	})
	t.Run("5 order of fields, signs in sig", func(t *testing.T) {
		for _, order := range []string{"sig,se,skn,sr", "sr,sig,se,skn"} {
			for i := range 20 { // other expiries give other signatures, with / and + in some
				token := signed(host, "iothubowner", f, hour.Add(time.Duration(i)*time.Second), order)
				get(token).want(200)
				get(strings.ReplaceAll(token, "%2F", "/")).want(200)
				get(strings.ReplaceAll(token, "%2B", "+")).want(200)
			}
		}
	})
	t.Run("6 registryRead", func(t *testing.T) {
		f.do("GET", "/devices/d", "", f.as("registryRead")).want(200)
		f.do("PUT", "/devices/e", `{"deviceId":"e"}`, f.as("registryRead")).refused(401, "IotHubUnauthorizedAccess")
		f.do("POST", "/devices/query", `{"query":"SELECT * FROM devices"}`, f.as("registryRead")).refused(401, "IotHubUnauthorizedAccess")
	})
	t.Run("7 service and registryReadWrite", func(t *testing.T) {
		f.do("GET", "/twins/d", "", f.as("service")).want(200)
		f.do("PUT", "/devices/e", `{"deviceId":"e"}`, f.as("service")).refused(401, "IotHubUnauthorizedAccess")
		f.do("PUT", "/devices/e", `{"deviceId":"e"}`, f.as("registryReadWrite")).want(200)
		f.do("GET", "/twins/d", "", f.as("registryReadWrite")).refused(401, "IotHubUnauthorizedAccess")
	})
	t.Run("8 scope", func(t *testing.T) {
		scoped := authorization(auth.SignToken(host+"/devices", key("iothubowner"), "iothubowner", hour))
		f.do("GET", "/devices/d", "", scoped).want(200)
		f.do("GET", "/Devices/d", "", scoped).want(200)
		f.do("GET", "/twins/d", "", scoped).refused(401, "IotHubUnauthorizedAccess")
		f.do("GET", "/devices/d", "", authorization(auth.SignToken(host+"/dev", key("iothubowner"), "iothubowner", hour))).refused(401, "IotHubUnauthorizedAccess")
		f.do("GET", "/devices/d", "", authorization(auth.SignToken(host+"/devices/dd", key("iothubowner"), "iothubowner", hour))).refused(401, "IotHubUnauthorizedAccess")
	})
	t.Run("a device's token is no service's", func(t *testing.T) {
		token := enginetest.Token(t, f.hub, engine.TwinID{DeviceID: "d"}, hour)
		f.do("GET", "/devices/d", "", authorization(token)).refused(401, "IotHubUnauthorizedAccess")
	})
}

// signed makes a token from sr as it stands, with its fields in an order.
func signed(sr, policy string, f *fixture, expiry time.Time, order string) string {
	key, err := f.keys[policy].PrimaryKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	return signature(sr, key, policy, expiry, order)
}

func TestTransport(t *testing.T) {
	f := newFixture(t)
	t.Run("9 api-version", func(t *testing.T) {
		f.create("v")
		f.do("GET", "/devices/v?api-version=", "").refused(400, "ArgumentNull")
		f.do("GET", "/devices/v?x=api-version", "").refused(400, "ArgumentNull")
		f.do("GET", "/devices/v?api-version=latest", "").refused(400, "ArgumentInvalid")
		for _, v := range []string{"2018-06-30", "2020-05-31-preview", "2020-09-30", "2021-04-12", "2024-03-31"} {
			f.do("GET", "/devices/v?api-version="+v, "").want(200)
		}
	})
	t.Run("11 trailing slash", func(t *testing.T) {
		f.do("GET", "/devices/", "").want(200)
		f.do("GET", "/devices/v/", "").want(200)
		f.do("GET", "/configurations/", "").want(200)
	})
	t.Run("12 every mark in an id", func(t *testing.T) {
		for _, mark := range "#?%+;=@()!*,:._$'" {
			id := "a" + string(mark) + "b"
			path := "/devices/" + strings.ReplaceAll(url.QueryEscape(id), "+", "%2B")
			f.do("PUT", path, `{"deviceId":"`+id+`"}`).want(200).is("deviceId", `"`+id+`"`)
			f.do("GET", path, "").want(200).is("deviceId", `"`+id+`"`)
			f.do("GET", strings.Replace(path, "/devices/", "/twins/", 1), "").want(200).is("deviceId", `"`+id+`"`)
			f.do("DELETE", path, "", ifMatch(`"*"`)).want(204)
			f.do("GET", path, "").refused(404, "DeviceNotFound")
		}
	})
	t.Run("13 method override", func(t *testing.T) {
		f.do("POST", "/twins/v", `{"tags":{"a":1}}`, header("X-HTTP-Method-Override", "PATCH")).want(200).is("tags", `{"a":1}`)
		f.do("POST", "/twins/v", `{"tags":{"a":1}}`, header("X-HTTP-Method-Override", "DELETE")).refused(400, "ArgumentInvalid")
		f.do("POST", "/twins/v", `{"tags":{"a":1}}`).refused(405, "GenericMethodNotAllowed")
	})
	t.Run("14 unknown device", func(t *testing.T) {
		a := f.do("GET", "/devices/nope", "").refused(404, "DeviceNotFound").golden("error-device-not-found")
		if !strings.HasPrefix(a.text("Message"), "ErrorCode:DeviceNotFound;") {
			t.Errorf("%s", a.body)
		}
	})
	t.Run("19 throttled", func(t *testing.T) {
		w := fail(t, &engine.Error{Code: engine.CodeThrottled, Message: "Wait 10 seconds and try again."}, shapeMessage)
		if w.Code != 429 || errorName(w) != "ThrottlingException" || w.Header().Get("Retry-After") != "" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
	})
	t.Run("20 unknown routes", func(t *testing.T) {
		f.do("GET", "/nothing", "").refused(404, "GenericNotFound")
		f.do("GET", "/", "").refused(404, "GenericNotFound")
		f.do("PATCH", "/devices", "{}").refused(405, "GenericMethodNotAllowed")
		f.do("GET", "/digitaltwins/d", "").refused(404, "GenericNotFound").golden("error-not-built")
		f.do("GET", "/api/v1/nothing", "").want(404).is("code", `"PathNotFound"`).golden("problem-not-found")
	})
	t.Run("request ids", func(t *testing.T) {
		a := f.do("GET", "/devices/v", "", header("Request-Id", "my-id-1"))
		if got := a.header.Get("X-Ms-Request-Id"); got != "my-id-1" {
			t.Errorf("got %q", got)
		}
		a = f.do("GET", "/devices/v", "", header("Request-Id", "<script>"))
		if got := a.header.Get("X-Ms-Request-Id"); strings.Contains(got, "<") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("bodies", func(t *testing.T) {
		f.do("PUT", "/devices/b", "").refused(400, "IotHubFormatError")
		f.do("PUT", "/devices/b", "{").refused(400, "IotHubFormatError")
		f.do("PUT", "/devices/b", `{"deviceId":"b"} x`).refused(400, "IotHubFormatError")
		f.do("PUT", "/devices/b", "{\"deviceId\":\"\xff\"}").refused(400, "IotHubFormatError")
		f.do("PUT", "/devices/b", strings.Repeat("[", 1000)).refused(400, "IotHubFormatError")
		f.do("PUT", "/devices/b", strings.Repeat(" ", maxBody+1)).refused(413, "MessageTooLarge")
		f.do("PUT", "/devices/b", "{}", header("Content-Encoding", "gzip")).refused(415, "GenericUnsupportedMediaType")
		f.do("PUT", "/devices/b", `{"deviceId":"b"}`, func(r *http.Request) { r.ContentLength = -1 }).want(200)                                   // chunked
		f.do("PUT", "/devices/c", strings.Repeat(" ", maxBody+1), func(r *http.Request) { r.ContentLength = -1 }).refused(413, "MessageTooLarge") // chunked and too large
	})
}

func TestDevices(t *testing.T) {
	f := newFixture(t)
	t.Run("21 create", func(t *testing.T) {
		a := f.create("new").golden("device-created")
		for _, k := range []string{"primaryKey", "secondaryKey"} {
			if err := auth.CheckKey(a.text("authentication.symmetricKey." + k)); err != nil || len(a.text("authentication.symmetricKey."+k)) != 44 {
				t.Errorf("%s: %v", k, err)
			}
		}
		if got := a.header.Get("ETag"); got != `"`+a.text("etag")+`"` {
			t.Errorf("ETag %s, etag %s", got, a.text("etag"))
		}
	})
	t.Run("22 create again", func(t *testing.T) {
		a := f.create("twice")
		f.do("PUT", "/devices/twice", `{"deviceId":"twice","etag":"`+a.text("etag")+`"}`).refused(409, "DeviceAlreadyExists")
	})
	t.Run("23 forms of If-Match", func(t *testing.T) {
		a := f.create("forms")
		for _, form := range []string{`"*"`, `*`, `"ETAG"`, `ETAG`, `W/"ETAG"`} {
			a = f.do("PUT", "/devices/forms", string(a.body), ifMatch(strings.ReplaceAll(form, "ETAG", a.text("etag")))).want(200)
		}
	})
	t.Run("24 stale etag, missing device", func(t *testing.T) {
		a := f.create("stale")
		f.do("PUT", "/devices/stale", string(a.body), ifMatch("*")).want(200)
		f.do("PUT", "/devices/stale", string(a.body), ifMatch(a.header.Get("ETag"))).refused(412, "PreconditionFailed")
		f.do("PUT", "/devices/missing", `{"deviceId":"missing"}`, ifMatch("*")).refused(404, "DeviceNotFound")
		f.do("PUT", "/devices/missing", `{"deviceId":"missing"}`, ifMatch(`"MQ=="`)).refused(404, "DeviceNotFound")
	})
	t.Run("25 what moves the etag", func(t *testing.T) {
		a := f.create("moves")
		d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "moves"}, engine.EndpointDesired)
		if err := d.Telemetry(engine.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		f.do("PATCH", "/twins/moves", `{"tags":{"a":1}}`).want(200)
		f.do("GET", "/devices/moves", "").want(200).is("etag", a.at("etag")).is("connectionState", `"Connected"`)
		d.Session.Close(nil)
		f.do("GET", "/devices/moves", "").want(200).is("etag", a.at("etag")).is("connectionState", `"Disconnected"`)
		if b := f.do("PUT", "/devices/moves", string(a.body), ifMatch("*")).want(200); b.at("etag") == a.at("etag") {
			t.Error("an update kept the etag")
		}
	})
	t.Run("26 delete", func(t *testing.T) {
		f.create("gone")
		f.do("DELETE", "/devices/gone", "").refused(412, "PreconditionFailed")
		if a := f.do("DELETE", "/devices/gone", "", ifMatch(`"*"`)).want(204); len(a.body) != 0 {
			t.Errorf("body %q", a.body)
		}
		f.do("DELETE", "/devices/gone", "", ifMatch(`"*"`)).refused(404, "DeviceNotFound")
	})
	t.Run("27 disable", func(t *testing.T) {
		a := f.create("off")
		d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "off"})
		body := strings.Replace(strings.Replace(string(a.body), `"status":"enabled"`, `"status":"disabled"`, 1), `"statusReason":null`, `"statusReason":"lost"`, 1)
		b := f.do("PUT", "/devices/off", body, ifMatch("*")).want(200).is("status", `"disabled"`).is("statusReason", `"lost"`)
		if b.at("statusUpdatedTime") == a.at("statusUpdatedTime") {
			t.Error("statusUpdatedTime did not move")
		}
		if d.Closed() == nil && d.Session.Err() == nil {
			t.Error("the session lives")
		}
		if _, err := enginetest.TryConnect(t, f.hub, engine.TwinID{DeviceID: "off"}, false); err == nil {
			t.Error("a disabled device connected")
		}
		f.do("GET", "/devices/off", "").is("statusReason", `"lost"`)
	})
	t.Run("28 and 29 nulls and times", func(t *testing.T) {
		const never = `"0001-01-01T00:00:00"`
		f.create("fresh").is("statusReason", "null").is("connectionStateUpdatedTime", never).is("lastActivityTime", never).is("statusUpdatedTime", never)
	})
	t.Run("30 keys", func(t *testing.T) {
		put := func(primary, secondary string) *reply {
			return f.do("PUT", "/devices/keys", `{"deviceId":"keys","authentication":{"type":"sas","symmetricKey":{"primaryKey":"`+primary+`","secondaryKey":"`+secondary+`"}}}`)
		}
		put(key16, "").refused(400, "ArgumentInvalid")
		put("QUFBQUFBQUE=", "QUFBQUFBQUE=").refused(400, "ArgumentInvalid")
		key64 := strings.Repeat("QUFB", 21) + "QQ=="
		put(key16, key64).want(200).is("authentication.symmetricKey.primaryKey", `"`+key16+`"`).is("authentication.symmetricKey.secondaryKey", `"`+key64+`"`)
	})
	t.Run("31 and 32 other types", func(t *testing.T) {
		put := func(id, authentication string) *reply {
			return f.do("PUT", "/devices/"+id, `{"deviceId":"`+id+`","authentication":`+authentication+`}`)
		}
		put("x", `{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"aa:bb","secondaryThumbprint":null}}`).refused(400, "ArgumentInvalid")
		put("x", `{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"`+sha1+`","secondaryThumbprint":null}}`).want(200).
			is("authentication.x509Thumbprint.primaryThumbprint", `"`+sha1+`"`).is("authentication.symmetricKey.primaryKey", "null").golden("device-self-signed")
		put("n", `{"type":"none"}`).refused(400, "ArgumentInvalid")
		put("ca", `{"type":"certificateAuthority"}`).want(200).is("authentication", `{"symmetricKey":{"primaryKey":null,"secondaryKey":null},"type":"certificateAuthority","x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null}}`)
	})
	t.Run("33 update without authentication", func(t *testing.T) {
		a := f.create("mint")
		b := f.do("PUT", "/devices/mint", `{"deviceId":"mint"}`, ifMatch("*")).want(200)
		if a.at("authentication.symmetricKey.primaryKey") == b.at("authentication.symmetricKey.primaryKey") {
			t.Error("the keys were kept")
		}
	})
	t.Run("34 and 35 body", func(t *testing.T) {
		f.do("PUT", "/devices/one", `{"deviceId":"two"}`).refused(400, "ArgumentInvalid")
		f.do("PUT", "/devices/one", `{"deviceId":"one","generationId":"7","etag":"x","connectionState":"Connected","lastActivityTime":"2020-01-01T00:00:00Z","cloudToDeviceMessageCount":9,"unknown":[1]}`).want(200).
			is("connectionState", `"Disconnected"`).is("cloudToDeviceMessageCount", "0")
	})
	t.Run("36 list", func(t *testing.T) {
		if a := f.do("GET", "/devices?top=2", "").want(200); len(a.doc.([]any)) != 2 {
			t.Errorf("%d devices", len(a.doc.([]any)))
		}
		if a := f.do("GET", "/devices", "").want(200); len(a.doc.([]any)) < 5 {
			t.Errorf("%d devices", len(a.doc.([]any)))
		}
		for _, bad := range []string{"0", "1001", "x", ""} {
			f.do("GET", "/devices?top="+bad, "").refused(400, "ArgumentInvalid")
		}
		a := f.create("again")
		f.do("DELETE", "/devices/again", "", ifMatch("*")).want(204)
		if b := f.create("again"); a.at("generationId") == b.at("generationId") {
			t.Error("the same generationId")
		}
	})
	t.Run("37 to 39 edge", func(t *testing.T) {
		a := f.do("PUT", "/devices/edge", `{"deviceId":"edge","capabilities":{"iotEdge":true}}`).want(200).golden("device-edge")
		scope := a.text("deviceScope")
		if !strings.HasPrefix(scope, "ms-azure-iot-edge://edge-") {
			t.Errorf("scope %q", scope)
		}
		m := f.do("GET", "/devices/edge/modules", "").want(200).golden("modules-edge")
		if len(m.doc.([]any)) != 2 {
			t.Errorf("%s", m.body)
		}
		f.do("PUT", "/devices/leaf", `{"deviceId":"leaf","deviceScope":"`+scope+`"}`).want(200).is("deviceScope", `"`+scope+`"`).is("parentScopes", `["`+scope+`"]`)
		f.do("PUT", "/devices/loose", `{"deviceId":"loose","parentScopes":["`+scope+`"]}`).want(200).is("deviceScope", "").is("parentScopes", "")
		f.do("PUT", "/devices/edge", `{"deviceId":"edge","capabilities":{"iotEdge":true},"deviceScope":""}`, ifMatch("*")).want(400)
	})
	t.Run("system modules stay as they are", func(t *testing.T) {
		const path = "/devices/edge/modules/$edgeAgent"
		f.do("DELETE", path, "", ifMatch("*")).refused(401, "SystemModuleModifyUnauthorizedAccess")
		f.do("POST", "/devices", `[{"id":"edge","moduleId":"$edgeHub","importMode":"delete"}]`).want(400).is("errors.0.errorCode", "401100")
		// Who reads one and writes it back changes nothing.
		a := f.do("GET", path, "").want(200).is("authentication.type", `"none"`)
		f.do("PUT", path, string(a.body), ifMatch("*")).want(200).is("authentication.type", `"none"`).is("authentication.symmetricKey.primaryKey", "null")
		f.do("POST", "/devices", `[{"id":"edge","moduleId":"$edgeAgent","importMode":"update","authentication":{"type":"none"}}]`).want(200)
		f.do("GET", path, "").want(200).is("authentication.type", `"none"`)
		f.do("POST", "/devices/keys/regenerate", `{"policyKey":"both","devices":[{"id":"edge","moduleId":"$edgeAgent"}]}`).want(400).is("errors.0.errorCode", "400004")
		// The edge runtime gives them keys of its own.
		f.do("PUT", path, `{"authentication":{"type":"sas"}}`, ifMatch("*")).want(200).is("authentication.type", `"sas"`)
		f.do("PUT", path, string(a.body), ifMatch("*")).want(200).is("authentication.type", `"none"`)
		// They go with the capability, and with the device.
		f.do("PUT", "/devices/was", `{"capabilities":{"iotEdge":true}}`).want(200)
		f.do("PUT", "/devices/was", `{"capabilities":{"iotEdge":false}}`, ifMatch("*")).want(200)
		f.do("GET", "/devices/was/modules/$edgeHub", "").refused(404, "ModuleNotFound")
		f.do("PUT", "/devices/gone", `{"capabilities":{"iotEdge":true}}`).want(200)
		f.do("DELETE", "/devices/gone", "", ifMatch("*")).want(204)
		f.do("DELETE", "/devices/was", "", ifMatch("*")).want(204)
	})
	t.Run("40 statistics", func(t *testing.T) {
		a := f.do("GET", "/statistics/devices", "").want(200)
		enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "counted"})
		b := f.do("GET", "/statistics/devices", "").want(200)
		if number(b, "totalDeviceCount") != number(a, "totalDeviceCount")+1 || number(b, "enabledDeviceCount")+number(b, "disabledDeviceCount") != number(b, "totalDeviceCount") || number(b, "disabledDeviceCount") != 1 {
			t.Errorf("%s then %s", a.body, b.body)
		}
		f.do("GET", "/statistics/service", "").want(200).is("connectedDeviceCount", "1")
	})
}

func number(a *reply, path string) int64 {
	a.Helper()
	var n int64
	if err := json.Unmarshal([]byte(a.at(path)), &n); err != nil {
		a.Fatalf("%s: %s is %q", a.what, path, a.at(path))
	}
	return n
}

func TestModules(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	t.Run("41 create", func(t *testing.T) {
		a := f.do("PUT", "/devices/d/modules/m", `{"deviceId":"d","moduleId":"m","managedBy":"me"}`).want(200).golden("module-created").is("managedBy", `"me"`)
		f.do("GET", "/devices/d/modules/m", "").want(200).is("etag", a.at("etag"))
		f.do("PUT", "/devices/d/modules/m", `{"deviceId":"d","moduleId":"m"}`).refused(409, "ModuleAlreadyExistsOnDevice")
		f.do("PUT", "/devices/d/modules/$x", `{"deviceId":"d","moduleId":"$x"}`).refused(400, "ArgumentInvalid")
		f.do("PUT", "/devices/d/modules/none", `{"authentication":{"type":"none"}}`).want(200).is("authentication.type", `"sas"`)
		f.do("DELETE", "/devices/d/modules/none", "", ifMatch("*")).want(204)
	})
	t.Run("42 list", func(t *testing.T) {
		if a := f.do("GET", "/devices/d/modules", "").want(200); len(a.doc.([]any)) != 1 {
			t.Errorf("%s", a.body)
		}
		f.create("none")
		f.do("GET", "/devices/none/modules", "").want(200).is("0", "")
	})
	t.Run("43 unknown", func(t *testing.T) {
		f.do("GET", "/devices/d/modules/nope", "").refused(404, "ModuleNotFound")
		f.do("GET", "/devices/nope/modules/m", "").refused(404, "DeviceNotFound")
		f.do("GET", "/devices/nope/modules", "").refused(404, "DeviceNotFound")
	})
	t.Run("44 update and delete", func(t *testing.T) {
		f.do("PUT", "/devices/d/modules/m", `{"deviceId":"d","moduleId":"m"}`, ifMatch("*")).want(200).is("managedBy", "null")
		f.do("DELETE", "/devices/d/modules/m", "").refused(412, "PreconditionFailed")
		f.do("DELETE", "/devices/d", "", ifMatch("*")).want(204)
		f.do("GET", "/devices/d/modules/m", "").refused(404, "DeviceNotFound")
		f.do("GET", "/twins/d/modules/m", "").want(404)
	})
}
