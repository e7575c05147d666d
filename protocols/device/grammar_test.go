package device

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

var (
	device = engine.TwinID{DeviceID: "d1"}
	module = engine.TwinID{DeviceID: "d1", ModuleID: "m1"}
)

// TestParseUsername has the spellings of the SDKs (checklist 12, 13, 102).
func TestParseUsername(t *testing.T) {
	const model = "dtmi:com:ex:T;1"
	tests := map[string]struct {
		in   string
		want username
		err  error
	}{
		"Node": {
			in:   "hub.localtest/d1/?api-version=2021-04-12&model-id=dtmi:com:ex:T;1&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20)",
			want: username{host: "hub.localtest", id: device, apiVersion: "2021-04-12", product: "azure-iot-device/1.18.4 (node v20)", modelID: model},
		},
		"C": {
			in:   "127.0.0.9/d1/?api-version=2020-09-30&DeviceClientType=iothubclient%2f1.15.0%20(native%3b%20Linux%3b%20x86_64)&model-id=dtmi%3acom%3aex%3aT%3b1",
			want: username{host: "127.0.0.9", id: device, apiVersion: "2020-09-30", product: "iothubclient/1.15.0 (native; Linux; x86_64)", modelID: model},
		},
		"model with upper-case escapes": {in: "h/d1/?model-id=dtmi%3Acom%3Aex%3AT%3B1", want: username{host: "h", id: device, modelID: model}},
		"old version":                   {in: "h/d1/?api-version=2016-11-14", want: username{host: "h", id: device, apiVersion: "2016-11-14"}},
		"version of the future":         {in: "h/d1/?api-version=2031-01-01", want: username{host: "h", id: device, apiVersion: "2031-01-01"}},
		"module":                        {in: "h/d1/m1/?api-version=x", want: username{host: "h", id: module, apiVersion: "x"}},
		"without question mark":         {in: "h/d1/api-version=x&DeviceClientType=y", want: username{host: "h", id: device, apiVersion: "x", product: "y"}},
		"module, no question mark":      {in: "h/d1/m1/api-version=x", want: username{host: "h", id: module, apiVersion: "x"}},
		"bare":                          {in: "h/d1", want: username{host: "h", id: device}},
		"bare with slash":               {in: "h/d1/", want: username{host: "h", id: device}},
		"bare module":                   {in: "h/d1/m1", want: username{host: "h", id: module}},
		"bare module with slash":        {in: "h/d1/m1/", want: username{host: "h", id: module}},
		"host with port":                {in: "h:18883/d1/?", want: username{host: "h:18883", id: device}},
		"odd ids":                       {in: "h/a=b?c#d+%2F/?", want: username{host: "h", id: engine.TwinID{DeviceID: "a=b?c#d+%2F"}}},
		"raw slash in the product":      {in: "h/d1/?DeviceClientType=a/b c;(d)", want: username{host: "h", id: device, product: "a/b c;(d)"}},
		"broken escape":                 {in: "h/d1/?DeviceClientType=%zz%2&x&=&api-version", want: username{host: "h", id: device, product: "%zz%2"}},
		"empty":                         {in: "", err: errUsername},
		"only a host":                   {in: "h", err: errUsername},
		"no host":                       {in: "/d1/?", err: errUsername},
		"no id":                         {in: "h//?api-version=x", err: errUsername},
		"no id at all":                  {in: "h/", err: errUsername},
		"four segments":                 {in: "h/d1/m1/x/?", err: errUsername},
		"empty module":                  {in: "h/d1//?", err: errUsername},
		"long id":                       {in: "h/" + strings.Repeat("x", 129) + "/?", err: errUsername},
		"provisioning":                  {in: "0ne00000001/registrations/dev/api-version=2019-03-31&ClientVersion=x", err: errProvisioning},
		"a device named registrations":  {in: "h/registrations/m/?api-version=x", want: username{host: "h", id: engine.TwinID{DeviceID: "registrations", ModuleID: "m"}, apiVersion: "x"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseUsername(test.in, 128)
			if !errors.Is(err, test.err) {
				t.Fatalf("error is %v, want %v", err, test.err)
			}
			if err == nil && got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func FuzzUsername(f *testing.F) {
	f.Add("hub/d1/m1/?api-version=2021-04-12&model-id=dtmi:x;1&DeviceClientType=a%2Fb")
	f.Add("hub/d1/api-version=x")
	f.Add("0ne/registrations/d/api-version=1")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseUsername(s, 128)
		if err != nil {
			return
		}
		if u.id.DeviceID == "" || len(u.id.DeviceID) > 128 || strings.Contains(u.id.String(), "//") || len(u.product) > maxProduct || len(u.modelID) > maxModelID {
			t.Errorf("%q gives %+v", s, u)
		}
		again, err := parseUsername(u.host+"/"+u.id.String()+"/?api-version=x", 128)
		if err != nil || again.id != u.id || again.host != u.host {
			t.Errorf("%q: id %+v does not survive: %+v, %v", s, u.id, again, err)
		}
	})
}

func TestParsePublish(t *testing.T) {
	tests := []struct {
		topic string
		id    engine.TwinID
		want  publishTopic
		bad   bool
	}{
		{topic: "devices/d1/messages/events/", id: device, want: publishTopic{op: opTelemetry, expected: -1}},
		{topic: "devices/d1/messages/events", id: device, want: publishTopic{op: opTelemetry, expected: -1}},
		{topic: "devices/d1/messages/events/a b=c/d+e&%24.mid=m 1", id: device, want: publishTopic{op: opTelemetry, bag: "a b=c/d+e&%24.mid=m 1", expected: -1}},
		{topic: "devices/d1/modules/m1/messages/events/%24.on=out1/", id: module, want: publishTopic{op: opTelemetry, bag: "%24.on=out1/", expected: -1}},
		{topic: "devices/a+#b/messages/events/", id: engine.TwinID{DeviceID: "a+#b"}, want: publishTopic{op: opTelemetry, expected: -1}},
		{topic: "$iothub/twin/GET/?$rid=0af1-X", id: device, want: publishTopic{op: opTwinGet, rid: "0af1-X", expected: -1}},
		{topic: "$iothub/twin/GET/?%24rid=7", id: device, want: publishTopic{op: opTwinGet, rid: "7", expected: -1}},
		{topic: "$iothub/twin/GET/?$rid=", id: device, want: publishTopic{op: opTwinGet, expected: -1}},
		{topic: "$iothub/twin/PATCH/properties/reported/?$rid=a%20b", id: module, want: publishTopic{op: opTwinPatch, rid: "a%20b", expected: -1}},
		{topic: "$iothub/twin/PATCH/properties/reported/?$version=4&$rid=1", id: device, want: publishTopic{op: opTwinPatch, rid: "1", expected: 4}},
		{topic: "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x", id: device, want: publishTopic{op: opTwinPatch, rid: "1", expected: -2}},
		{topic: "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=-1", id: device, want: publishTopic{op: opTwinPatch, rid: "1", expected: -2}},
		{topic: "$iothub/methods/res/200/?$rid=1&z=2", id: device, want: publishTopic{op: opMethodResponse, rid: "1&z=2", status: 200, expected: -1}},
		{topic: "$iothub/methods/res/-5/?$rid=a", id: device, want: publishTopic{op: opMethodResponse, rid: "a", status: -5, expected: -1}},
		{topic: "devices/d2/messages/events/", id: device, bad: true},
		{topic: "devices/d/messages/events/", id: device, bad: true},
		{topic: "devices/d11/messages/events/", id: device, bad: true},
		{topic: "devices/d1/modules/m1/messages/events/", id: device, bad: true},
		{topic: "devices/d1/messages/events/", id: module, bad: true},
		{topic: "devices/d1/modules/m2/messages/events/", id: module, bad: true},
		{topic: "devices/d1/messages/eventsx", id: device, bad: true},
		{topic: "devices/D1/messages/events/", id: device, bad: true},
		{topic: "Devices/d1/messages/events/", id: device, bad: true},
		{topic: "devices/d1/messages/devicebound/", id: device, bad: true},
		{topic: "/devices/d1/messages/events/", id: device, bad: true},
		{topic: "$iothub/twin/get/?$rid=1", id: device, bad: true},
		{topic: "$iothub/twin/GET/", id: device, bad: true},
		{topic: "$iothub/twin/GET/?rid=1", id: device, bad: true},
		{topic: "$iothub/twin/GET/?$rid=" + strings.Repeat("x", 257), id: device, bad: true},
		{topic: "$iothub/twin/PATCH/properties/desired/?$rid=1", id: device, bad: true},
		{topic: "$iothub/methods/res/200", id: device, bad: true},
		{topic: "$iothub/methods/res/abc/?$rid=1", id: device, bad: true},
		{topic: "$iothub/methods/res/99999999999/?$rid=1", id: device, bad: true},
		{topic: "$iothub/methods/POST/x/?$rid=1", id: device, bad: true},
		{topic: "$iothub/streams/x", id: device, bad: true},
		{topic: "$dps/registrations/PUT/iotdps-register/?$rid=1", id: device, bad: true},
		{topic: "anything", id: device, bad: true},
	}
	for _, test := range tests {
		got, err := parsePublish(test.topic, test.id)
		if (err != nil) != test.bad || err == nil && got != test.want {
			t.Errorf("%s publishes to %q: %+v, %v, want %+v, bad %t", test.id, test.topic, got, err, test.want, test.bad)
		}
	}
	// The connection's end says what was nearly right.
	for topic, want := range map[string]string{
		"$iothub/methods/res/99999999999/?$rid=1":                 `status "99999999999", expected an integer of 32 bits`,
		"$iothub/methods/res//?$rid=1":                            `status "", expected an integer`,
		"$iothub/methods/res/200":                                 "$iothub/methods/res/{status}/?$rid={rid}",
		"$iothub/twin/GET/?rid=1":                                 "has no $rid",
		"$iothub/methods/res/1/?$rid=" + strings.Repeat("x", 257): "$rid of 257 bytes, at most 256",
		"devices/d2/messages/events/":                             "none that this device may publish to",
	} {
		if _, err := parsePublish(topic, device); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v does not say %q", topic, err, want)
		}
	}
}

func FuzzPublishTopic(f *testing.F) {
	for _, s := range []string{"devices/d1/messages/events/%24.ct=a", "$iothub/twin/GET/?$rid=1", "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=2", "$iothub/methods/res/200/?$rid=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		got, err := parsePublish(topic, device)
		if err != nil {
			return
		}
		if len(got.rid) > maxRequestID || !strings.Contains(topic, got.rid) || !strings.Contains(topic, got.bag) {
			t.Errorf("%q gives %+v", topic, got)
		}
		if got.op == opTwinGet || got.op == opTwinPatch {
			reply := string(appendTwinResponse(nil, 200, got.rid, -1))
			if utf8.ValidString(topic) && !strings.HasSuffix(reply, "?$rid="+got.rid) {
				t.Errorf("%q is answered at %q", topic, reply)
			}
		}
	})
}

// TestParseFilter has the fixed filters (checklist 43 to 45).
func TestParseFilter(t *testing.T) {
	tests := []struct {
		filter string
		id     engine.TwinID
		want   engine.Endpoint
		bad    bool
	}{
		{"$iothub/twin/res/#", device, engine.EndpointTwinResponse, false},
		{"$iothub/twin/PATCH/properties/desired/#", module, engine.EndpointDesired, false},
		{"$iothub/methods/POST/#", device, engine.EndpointMethod, false},
		{"devices/d1/messages/devicebound/#", device, engine.EndpointMessage, false},
		{"devices/+/messages/devicebound/#", device, engine.EndpointMessage, false},
		{"devices/d1/modules/m1/messages/devicebound/#", module, engine.EndpointMessage, false},
		{"devices/d1/modules/m1/inputs/#", module, engine.EndpointInput, false},
		{"devices/d1/modules/m1/#", module, engine.EndpointInput, false},
		{"#", device, 0, true},
		{"devices/#", device, 0, true},
		{"devices/d1/#", device, 0, true},
		{"devices/d2/messages/devicebound/#", device, 0, true},
		{"devices/d1/messages/deviceBound/#", device, 0, true},
		{"devices/d1/messages/devicebound/", device, 0, true},
		{"devices/d1/messages/devicebound/#", module, 0, true},
		{"devices/+/messages/devicebound/#", module, 0, true},
		{"devices/d1/modules/m1/#", device, 0, true},
		{"devices/d1/modules/m2/#", module, 0, true},
		{"$iothub/twin/#", device, 0, true},
		{"$iothub/methods/POST/+", device, 0, true},
		{"$dps/registrations/res/#", device, 0, true},
	}
	for _, test := range tests {
		got, err := parseFilter(test.filter, test.id)
		if (err != nil) != test.bad || got != test.want {
			t.Errorf("%s subscribes to %q: %d, %v, want %d, bad %t", test.id, test.filter, got, err, test.want, test.bad)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("devices/d1/modules/m1/inputs/#")
	f.Add("devices/+/messages/devicebound/#")
	f.Fuzz(func(t *testing.T, filter string) {
		for _, id := range []engine.TwinID{device, module} {
			if e, err := parseFilter(filter, id); err == nil && (!strings.HasSuffix(filter, "#") || int(e) >= engine.Endpoints) {
				t.Errorf("%s may subscribe to %q", id, filter)
			}
		}
	})
}

// TestParseBag has the spellings of property bags (checklist 53 to 57).
func TestParseBag(t *testing.T) {
	type list = []engine.Property
	tests := map[string]struct {
		bag    string
		app    list
		system list
	}{
		"empty":        {bag: ""},
		"only a slash": {bag: "/"},
		"C, nothing escaped": {
			bag:    "a b=c/d+e&%24.mid=m 1",
			app:    list{{Name: "a b", Value: "c/d+e"}},
			system: list{{Name: "message-id", Value: "m 1"}},
		},
		"content type, escaped": {bag: "%24.ct=application%2Fjson", system: list{{Name: "content-type", Value: "application/json"}}},
		"content type, raw":     {bag: "$.ct=application/json", system: list{{Name: "content-type", Value: "application/json"}}},
		"plus":                  {bag: "a=%2B&b=+", app: list{{Name: "a", Value: "+"}, {Name: "b", Value: "+"}}},
		"slash at the end":      {bag: "%24.on=out1/", system: list{{Name: "output-name", Value: "out1"}}},
		"broken escapes":        {bag: "a=%&b=%2&c=%zz&%=x", app: list{{Name: "a", Value: "%"}, {Name: "b", Value: "%2"}, {Name: "c", Value: "%zz"}, {Name: "%", Value: "x"}}},
		"not UTF-8":             {bag: "a=%FF", app: list{{Name: "a", Value: "%FF"}}},
		"lower-case escapes":    {bag: "%c3%bc=%e2%82%ac", app: list{{Name: "ü", Value: "€"}}},
		"key alone":             {bag: "a&b=", app: list{{Name: "a", Null: true}, {Name: "b"}}},
		"second equals sign":    {bag: "a=b=c", app: list{{Name: "a", Value: "b=c"}}},
		"nothing between":       {bag: "&&a=1&=2&", app: list{{Name: "a", Value: "1"}}},
		"the later wins":        {bag: "a=1&b=2&a=3", app: list{{Name: "a", Value: "3"}, {Name: "b", Value: "2"}}},
		"component":             {bag: "%24.sub=thermostat1", system: list{{Name: "dt-subject", Value: "thermostat1"}}},
		"unknown system":        {bag: "%24.new=1", system: list{{Name: "$.new", Value: "1"}}},
		"reserved names":        {bag: "iothub-connection-device-id=x&iothub-ack=full", system: list{{Name: "ack", Value: "full"}}},
		"all that have names": {
			bag: "$.cid=1&$.uid=2&$.to=3&$.ce=4&$.exp=5&$.ctime=6&$.ifid=7&$.cdid=8&$.cmid=9&$.schema=10&$.diagid=11&$.diagctx=12&iothub-operation=13",
			system: list{
				{Name: "correlation-id", Value: "1"}, {Name: "user-id", Value: "2"}, {Name: "to", Value: "3"}, {Name: "content-encoding", Value: "4"},
				{Name: "absolute-expiry-time", Value: "5"}, {Name: "creation-time-utc", Value: "6"}, {Name: "interface-id", Value: "7"},
				{Name: "connection-device-id", Value: "8"}, {Name: "connection-module-id", Value: "9"}, {Name: "message-schema", Value: "10"},
				{Name: "diagnostic-id", Value: "11"}, {Name: "diagnostic-context", Value: "12"}, {Name: "operation", Value: "13"},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var m engine.Message
			if err := parseBag(test.bag, &m); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(m.Properties, test.app) || !reflect.DeepEqual(m.System, test.system) {
				t.Errorf("got %v and %v, want %v and %v", m.Properties, m.System, test.app, test.system)
			}
		})
	}
	var m engine.Message
	if err := parseBag(strings.Repeat("a&", maxProperties), &m); err == nil {
		t.Errorf("%d properties were accepted", maxProperties+1)
	}
}

func FuzzBag(f *testing.F) {
	f.Add("a b=c/d+e&%24.mid=m 1")
	f.Add("%24.ct=application%2Fjson&x&y=&%zz=%FF/")
	f.Fuzz(func(t *testing.T, bag string) {
		var m engine.Message
		if parseBag(bag, &m) != nil {
			return
		}
		if len(m.Properties)+len(m.System) > maxProperties {
			t.Fatal("too many properties")
		}
		for _, p := range append(m.Properties, m.System...) {
			if p.Name == "" || utf8.ValidString(bag) && (!utf8.ValidString(p.Name) || !utf8.ValidString(p.Value)) || p.Null && p.Value != "" {
				t.Errorf("%q gives %+v", bag, p)
			}
		}
		for _, p := range m.Properties {
			if strings.HasPrefix(p.Name, "iothub-") || strings.HasPrefix(p.Name, "$.") {
				t.Errorf("%q has the application property %q", bag, p.Name)
			}
		}
	})
}

// TestEveryCodeIsMapped keeps the table of codes complete.
func TestEveryCodeIsMapped(t *testing.T) {
	codes := wireCodes()
	for _, info := range engine.Codes() {
		c, ok := codes[info.Code]
		if !ok {
			t.Errorf("engine code %s has no row", info.Name)
			continue
		}
		if c.connack == wire.ConnackAccepted || c.connack > wire.ConnackNotAuthorized || c.status < 400 || c.status > 599 || c.number < 400000 || c.number > 599999 {
			t.Errorf("%s is mapped to %+v", info.Name, c)
		}
		if info.Retryable && c.connack != wire.ConnackUnavailable {
			t.Errorf("%s may pass, but CONNACK %d makes devices give up", info.Name, c.connack)
		}
	}
	if len(codes) != len(engine.Codes()) {
		t.Errorf("the table has %d rows for %d codes", len(codes), len(engine.Codes()))
	}
}

func TestIdleLimit(t *testing.T) {
	const most = 1767 * time.Second
	for keepAlive, want := range map[uint16]time.Duration{
		0: most, 1: 1500 * time.Millisecond, 180: 270 * time.Second, 1177: 1765500 * time.Millisecond, 1178: 1767 * time.Second, 1179: most, 65535: most,
	} {
		if got := idleLimit(keepAlive, most); got != want {
			t.Errorf("keep-alive %d allows a silence of %s, want %s", keepAlive, got, want)
		}
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range reasonCount {
		name, number := r.info()
		if name == "" || seen[name] || r != reasonGraceful && number == 0 {
			t.Errorf("reason %d is called %q with number %d", r, name, number)
		}
		seen[name] = true
	}
}
