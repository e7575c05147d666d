package service

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
)

const (
	key16 = "MDEyMzQ1Njc4OWFiY2RlZg=="
	sha1  = "ABCDEFabcdef0123456789012345678901234567"
)

func TestParseIdentity(t *testing.T) {
	device, module := engine.TwinID{DeviceID: "d"}, engine.TwinID{DeviceID: "d", ModuleID: "m"}
	key64 := strings.Repeat("QUFB", 21) + "QQ=="
	for _, tc := range []struct {
		name string
		id   engine.TwinID
		body string
		code engine.Code
		has  func(engine.Identity) bool
	}{
		{"empty object", device, `{}`, noError, func(i engine.Identity) bool {
			return i.DeviceID == "d" && i.Authentication.Type == engine.AuthSAS && !i.Disabled
		}},
		{"what Node sends", device, `{"deviceId":"d","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}`, noError, func(i engine.Identity) bool {
			return i.Authentication.PrimaryKey == ""
		}},
		{"other id", device, `{"deviceId":"D"}`, engine.CodeArgumentInvalid, nil},
		{"other module id", module, `{"deviceId":"d","moduleId":"n"}`, engine.CodeArgumentInvalid, nil},
		{"a module id on a device", device, `{"deviceId":"d","moduleId":"n"}`, engine.CodeArgumentInvalid, nil},
		{"status in any case", device, `{"status":"Disabled","statusReason":"lost"}`, noError, func(i engine.Identity) bool {
			return i.Disabled && i.StatusReason == "lost"
		}},
		{"unknown status", device, `{"status":"on"}`, engine.CodeArgumentInvalid, nil},
		{"status of another type", device, `{"status":1}`, engine.CodeFormat, nil},
		{"names count exactly", device, `{"Status":"disabled","STATUS":1}`, noError, func(i engine.Identity) bool { return !i.Disabled }},
		{"twice", device, `{"status":"enabled","status":"disabled"}`, engine.CodeFormat, nil},
		{"twice inside", device, `{"authentication":{"type":"sas","type":"none"}}`, engine.CodeFormat, nil},
		{"read-only members", device, `{"etag":5,"generationId":[],"connectionState":null,"cloudToDeviceMessageCount":7,"whatever":{}}`, noError, nil},
		{"nulls", device, `{"deviceId":null,"status":null,"statusReason":null,"authentication":null,"capabilities":null,"deviceScope":null,"parentScopes":null}`, noError, nil},
		{"nulls inside", device, `{"authentication":{"symmetricKey":null,"x509Thumbprint":null,"type":null}}`, noError, nil},
		{"one key", device, `{"authentication":{"symmetricKey":{"primaryKey":"` + key16 + `"}}}`, engine.CodeArgumentInvalid, nil},
		{"short key", device, `{"authentication":{"symmetricKey":{"primaryKey":"QUFBQUFBQUE=","secondaryKey":"` + key16 + `"}}}`, engine.CodeArgumentInvalid, nil},
		{"no base64", device, `{"authentication":{"symmetricKey":{"primaryKey":"` + key16 + `","secondaryKey":"!!"}}}`, engine.CodeArgumentInvalid, nil},
		{"keys of 16 and 64 bytes", device, `{"authentication":{"symmetricKey":{"primaryKey":"` + key16 + `","secondaryKey":"` + key64 + `"}}}`, noError, func(i engine.Identity) bool {
			return i.Authentication.PrimaryKey.Reveal() == key16 && i.Authentication.SecondaryKey.Reveal() == key64
		}},
		{"thumbprint", device, `{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"` + sha1 + `","secondaryThumbprint":null}}}`, noError, func(i engine.Identity) bool {
			return i.Authentication.Type == engine.AuthSelfSigned && i.Authentication.PrimaryThumbprint == sha1
		}},
		{"thumbprint without type", device, `{"authentication":{"x509Thumbprint":{"primaryThumbprint":"` + sha1 + `"}}}`, noError, func(i engine.Identity) bool {
			return i.Authentication.Type == engine.AuthSelfSigned
		}},
		{"thumbprint with colons", device, `{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"aa:bb"}}}`, engine.CodeArgumentInvalid, nil},
		{"thumbprint of odd length", device, `{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"aabb"}}}`, engine.CodeArgumentInvalid, nil},
		{"selfSigned without thumbprints", device, `{"authentication":{"type":"selfSigned"}}`, noError, nil},
		{"authority ignores keys", device, `{"authentication":{"type":"certificateAuthority","symmetricKey":{"primaryKey":"x","secondaryKey":""}}}`, noError, func(i engine.Identity) bool {
			return i.Authentication.PrimaryKey == ""
		}},
		{"none on a device", device, `{"authentication":{"type":"none"}}`, engine.CodeArgumentInvalid, nil},
		{"none on a module", module, `{"authentication":{"type":"none"}}`, noError, func(i engine.Identity) bool {
			return i.Authentication.Type == engine.AuthNone // the engine makes sas of it, but for a system module
		}},
		{"unknown type", device, `{"authentication":{"type":"password"}}`, engine.CodeArgumentInvalid, nil},
		{"edge", device, `{"capabilities":{"iotEdge":true}}`, noError, func(i engine.Identity) bool { return i.Edge }},
		{"edge of another type", device, `{"capabilities":{"iotEdge":"yes"}}`, engine.CodeFormat, nil},
		{"scopes", device, `{"deviceScope":"s","parentScopes":["p"]}`, noError, func(i engine.Identity) bool {
			return i.DeviceScope == "s" && len(i.ParentScopes) == 1
		}},
		{"scopes of another type", device, `{"parentScopes":["p",1]}`, engine.CodeFormat, nil},
		{"managed by", module, `{"managedBy":"me","status":"disabled"}`, noError, func(i engine.Identity) bool {
			return i.ManagedBy == "me" && !i.Disabled
		}},
		{"array", device, `[]`, engine.CodeFormat, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i, err := parseIdentity([]byte(tc.body), tc.id)
			if code(err) != tc.code {
				t.Fatalf("got %v, want %v", err, tc.code)
			}
			if tc.has != nil && !tc.has(i) {
				t.Errorf("got %+v", i)
			}
		})
	}
}

func TestParseTwinUpdate(t *testing.T) {
	const absent = "-"
	for _, tc := range []struct {
		name, body    string
		replace       bool
		tags, desired string
		code          engine.Code
	}{
		{"nothing", `{}`, false, absent, absent, noError},
		{"both", `{"tags":{"a":1.0},"properties":{"desired":{"b":null},"reported":{"x":1}}}`, false, `{"a":1.0}`, `{"b":null}`, noError},
		{"whole document", `{"deviceId":"d","etag":"x","version":3,"status":1,"tags":{},"properties":{"desired":{"$version":4},"reported":7}}`, false, `{}`, `{"$version":4}`, noError},
		{"null in a patch", `{"tags":null,"properties":null}`, false, absent, absent, noError},
		{"null in a replacement", `{"tags":null,"properties":{"desired":null}}`, true, `{}`, `{}`, noError},
		{"tags of another type", `{"tags":[]}`, false, "", "", engine.CodeFormat},
		{"desired of another type", `{"properties":{"desired":"x"}}`, true, "", "", engine.CodeFormat},
		{"properties of another type", `{"properties":1}`, true, "", "", engine.CodeFormat},
		{"tags twice", `{"tags":{},"tags":{}}`, false, "", "", engine.CodeFormat},
		{"other spelling", `{"Tags":{"a":1}}`, false, absent, absent, noError},
		{"no object", `"x"`, false, "", "", engine.CodeFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u, err := parseTwinUpdate([]byte(tc.body), tc.replace)
			if code(err) != tc.code {
				t.Fatalf("got %v, want %v", err, tc.code)
			}
			if err != nil {
				return
			}
			for _, s := range []struct {
				name, want string
				got        []byte
			}{{"tags", tc.tags, u.Tags}, {"desired", tc.desired, u.Desired}} {
				got := string(s.got)
				if s.got == nil {
					got = absent
				}
				if got != s.want {
					t.Errorf("%s: got %s, want %s", s.name, got, s.want)
				}
			}
		})
	}
}

func TestParseMethod(t *testing.T) {
	for _, tc := range []struct {
		body    string
		code    engine.Code
		payload string // "-": nil
	}{
		{`{"methodName":"m"}`, noError, "-"},
		{`{"methodName":"m","payload":null}`, noError, "null"},
		{`{"methodName":"m","payload":""}`, noError, `""`},
		{`{"methodName":"m","payload":[1, 2.0]}`, noError, `[1, 2.0]`},
		{`{"methodName":"m","responseTimeoutInSeconds":5,"connectTimeoutInSeconds":0}`, noError, "-"},
		{`{"methodName":"m","responseTimeoutInSeconds":null}`, noError, "-"},
		{`{"methodName":"m","responseTimeoutInSeconds":0}`, engine.CodeArgumentInvalid, ""},
		{`{"methodName":"m","responseTimeoutInSeconds":-1}`, engine.CodeArgumentInvalid, ""},
		{`{"methodName":"m","responseTimeoutInSeconds":99999999999}`, engine.CodeArgumentInvalid, ""},
		{`{"methodName":"m","responseTimeoutInSeconds":"5"}`, engine.CodeFormat, ""},
		{`{"methodName":"m","connectTimeoutInSeconds":1.5}`, engine.CodeFormat, ""},
		{`{"methodName":"m","responseTimeoutInSeconds":30.0,"connectTimeoutInSeconds":1e1}`, noError, "-"},
		{`{"methodName":"m","responseTimeoutInSeconds":1e400}`, engine.CodeFormat, ""},
		{`{"methodName":"m","responseTimeoutInSeconds":9007199254740993.0}`, engine.CodeArgumentInvalid, ""},
		{`{"methodName":"m","responseTimeoutInSeconds":true}`, engine.CodeFormat, ""},
		{`{"payload":1}`, engine.CodeArgumentNull, ""},
		{`{"methodName":""}`, engine.CodeArgumentNull, ""},
		{`{"methodName":7}`, engine.CodeFormat, ""},
		{`{"MethodName":"m"}`, engine.CodeArgumentNull, ""},
		{`[]`, engine.CodeFormat, ""},
	} {
		t.Run(tc.body, func(t *testing.T) {
			m, err := parseMethod([]byte(tc.body))
			if code(err) != tc.code {
				t.Fatalf("got %v, want %v", err, tc.code)
			}
			got := string(m.Payload)
			if m.Payload == nil {
				got = "-"
			}
			if err == nil && got != tc.payload {
				t.Errorf("payload %s, want %s", got, tc.payload)
			}
		})
	}
	m, _ := parseMethod([]byte(`{"methodName":"m","responseTimeoutInSeconds":300,"connectTimeoutInSeconds":12}`))
	if m.ResponseTimeout != 300*time.Second || m.ConnectTimeout != 12*time.Second {
		t.Errorf("got %v and %v", m.ResponseTimeout, m.ConnectTimeout)
	}
	m, _ = parseMethod([]byte(`{"methodName":"m","responseTimeoutInSeconds":30.0}`))
	if m.ResponseTimeout != 30*time.Second {
		t.Errorf("30.0 gave %v", m.ResponseTimeout)
	}
}

func TestParseBulk(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		code       engine.Code
		items, bad int
	}{
		{"two", `[{"id":"a","importMode":"create"},{"id":"b","importMode":"Update"}]`, noError, 2, 0},
		{"with twin", `[{"id":"a","importMode":"create","tags":{"x":1},"properties":{"desired":{"y":2}}}]`, noError, 1, 0},
		{"without mode", `[{"id":"a"}]`, noError, 1, 0},
		{"bad key of one", `[{"id":"a","authentication":{"symmetricKey":{"primaryKey":"x"}}},{"id":"b"}]`, noError, 1, 1},
		{"unknown mode of one", `[{"id":"a","importMode":"upsert"},{"id":"b"}]`, noError, 1, 1},
		{"empty", `[]`, engine.CodeArgumentInvalid, 0, 0},
		{"too many", "[" + strings.Repeat(`{"id":"a"},`, 100) + `{"id":"b"}]`, engine.CodeArgumentInvalid, 0, 0},
		{"no id", `[{"deviceId":"a"}]`, engine.CodeArgumentNull, 0, 0},
		{"id of another type", `[{"id":1}]`, engine.CodeFormat, 0, 0},
		{"no object", `[1]`, engine.CodeFormat, 0, 0},
		{"no array", `{"id":"a"}`, engine.CodeFormat, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			items, _, bad, err := parseBulk([]byte(tc.body), 100)
			if code(err) != tc.code || len(items) != tc.items || len(bad) != tc.bad {
				t.Errorf("got %d items, %d bad, %v", len(items), len(bad), err)
			}
		})
	}
	items, _, _, err := parseBulk([]byte(`[{"id":"a","eTag":"\"x\"","twinETag":"y","importMode":"UPDATEIFMATCHETAG"}]`), 100)
	if err != nil || items[0].Identity.ETag != `"x"` || items[0].TwinETag != "y" || items[0].Mode != engine.ImportUpdateIfMatch {
		t.Errorf("got %+v, %v", items, err)
	}
}

func TestParsePolicy(t *testing.T) {
	for _, tc := range []struct {
		body string
		code engine.Code
	}{
		{`{"permissions":["RegistryRead","serviceConnect"]}`, noError},
		{`{"name":"p","permissions":["RegistryRead"],"primaryKey":"` + key16 + `"}`, noError},
		{`{"name":"q","permissions":["RegistryRead"]}`, engine.CodeArgumentInvalid},
		{`{"permissions":[]}`, engine.CodeArgumentNull},
		{`{"permission":["RegistryRead"]}`, engine.CodeArgumentInvalid},
		{`{"permissions":["All"]}`, engine.CodeArgumentInvalid},
		{`{"permissions":"RegistryRead"}`, engine.CodeFormat},
		{`{"permissions":["RegistryRead"],"primaryKey":"short"}`, engine.CodeArgumentInvalid},
	} {
		if _, err := parsePolicy([]byte(tc.body), "p"); code(err) != tc.code {
			t.Errorf("%s: got %v, want %v", tc.body, err, tc.code)
		}
	}
}

func TestCursor(t *testing.T) {
	c := makeCursor("devices", "pre", "after")
	if got, err := parseCursor(c, "devices", "pre"); got != "after" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"x", "!!", c + "A", makeCursor("audit", "pre", "1"), makeCursor("devices", "", "after"), strings.Repeat("A", 5000)} {
		if _, err := parseCursor(bad, "devices", "pre"); code(err) != engine.CodeArgumentInvalid {
			t.Errorf("%.20q was taken: %v", bad, err)
		}
	}
	if makeCursor("devices", "", "") != "" {
		t.Error("the end has a cursor")
	}
}

func FuzzParseIdentity(f *testing.F) {
	for _, s := range []string{`{"deviceId":"d","status":"enabled","authentication":{"type":"sas","symmetricKey":{"primaryKey":"a","secondaryKey":"b"}}}`, `{"capabilities":{"iotEdge":true},"parentScopes":["x"]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if checkJSON(body) != nil {
			return
		}
		i, err := parseIdentity(body, engine.TwinID{DeviceID: "d"})
		if err != nil {
			return
		}
		a := i.Authentication
		if i.DeviceID != "d" || i.ModuleID != "" || (a.PrimaryKey == "") != (a.SecondaryKey == "") || a.Type == engine.AuthNone || a.Type == "" {
			t.Fatalf("%s gave %+v", body, i)
		}
	})
}

func FuzzParseTwinUpdate(f *testing.F) {
	for _, s := range []string{`{"tags":{"a":{"b":1}},"properties":{"desired":{"c":null}}}`, `{"tags":null}`, `{"properties":{}}`} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, replace bool) {
		if checkJSON(body) != nil {
			return
		}
		u, err := parseTwinUpdate(body, replace)
		if err != nil {
			return
		}
		for _, s := range [][]byte{u.Tags, u.Desired} {
			if s != nil && (checkJSON(s) != nil || s[0] != '{') {
				t.Fatalf("%s gave %s", body, s)
			}
		}
	})
}

func FuzzParseConfiguration(f *testing.F) {
	for _, s := range []string{
		`{"id":"d","targetCondition":"*","priority":1,"labels":{"a":"b"},"content":{"deviceContent":{"properties.desired.a":null}},"metrics":{"queries":{"m":"SELECT"}}}`,
		`{"content":{"modulesContent":{"$edgeAgent":{}},"moduleContent":null},"metrics":null,"labels":null,"etag":"*"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if checkJSON(body) != nil {
			return
		}
		fields, err := object(body, "")
		if err != nil {
			return
		}
		g, err := configurationFrom(fields, "d")
		if err != nil {
			return
		}
		if g.ID != "d" || g.Priority < 0 || g.Metrics.Results != nil || g.Revision != 0 || g.ETag != "" {
			t.Fatalf("%s gave %+v", body, g)
		}
		for _, s := range [][]byte{g.Content.Device, g.Content.Module, g.Content.Modules} {
			if s != nil && (checkJSON(s) != nil || s[0] == 'n') {
				t.Fatalf("%s gave %s", body, s)
			}
		}
	})
}

func FuzzParseMethod(f *testing.F) {
	for _, s := range []string{`{"methodName":"m","payload":{"a":1},"responseTimeoutInSeconds":30,"connectTimeoutInSeconds":0}`, `{"methodName":"m","payload":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if checkJSON(body) != nil {
			return
		}
		m, err := parseMethod(body)
		if err != nil {
			return
		}
		if m.Name == "" || m.ResponseTimeout < 0 || m.ConnectTimeout < 0 || m.Payload != nil && checkJSON(m.Payload) != nil {
			t.Fatalf("%s gave %+v", body, m)
		}
	})
}

func FuzzParseBulk(f *testing.F) {
	f.Add([]byte(`[{"id":"a","importMode":"create","tags":{}},{"id":"b","properties":{"desired":{}}}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if checkJSON(body) != nil {
			return
		}
		items, order, bad, err := parseBulk(body, 3)
		if err == nil && (len(items)+len(bad) == 0 || len(items)+len(bad) > 3 || len(order) > len(items)+len(bad)) {
			t.Fatalf("%s gave %d items, %d bad", body, len(items), len(bad))
		}
	})
}
