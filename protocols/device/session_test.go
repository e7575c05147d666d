package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/wire"
)

// TestConnectCodes has every CONNACK code (checklist 20 to 29).
func TestConnectCodes(t *testing.T) {
	hub, h := newTestHub(t)
	id := engine.TwinID{DeviceID: "abc"}
	mod := engine.TwinID{DeviceID: "abc", ModuleID: "m"}
	if _, err := enginetest.Identity(t, hub, mod); err != nil {
		t.Fatal(err)
	}
	off := engine.TwinID{DeviceID: "off"}
	if i, err := enginetest.Identity(t, hub, off); err != nil {
		t.Fatal(err)
	} else {
		i.Disabled = true
		if _, err := hub.UpdateIdentity(t.Context(), enginetest.Owner(), i, engine.ParseIfMatch("*")); err != nil {
			t.Fatal(err)
		}
	}
	tokenOf := func(id engine.TwinID) string { return enginetest.Token(t, hub, id, time.Now().Add(time.Hour)) }
	tests := map[string]struct {
		id     engine.TwinID
		change func(*wire.Connect)
		code   byte
	}{
		"device":                    {id, nil, 0},
		"module":                    {mod, nil, 0},
		"client id of another":      {id, func(c *wire.Connect) { c.ClientID = "abd" }, 2},
		"client id of the module":   {id, func(c *wire.Connect) { c.ClientID = "abc/m" }, 2},
		"empty client id":           {id, func(c *wire.Connect) { c.ClientID, c.Clean = "", true }, 2},
		"no user name":              {id, func(c *wire.Connect) { c.Username, c.Password = "", "" }, 4},
		"user name without host":    {id, func(c *wire.Connect) { c.Username = "abc" }, 4},
		"password is no token":      {id, func(c *wire.Connect) { c.Password = "secret" }, 4},
		"no password":               {id, func(c *wire.Connect) { c.Password = "" }, 5},
		"token of the module":       {id, func(c *wire.Connect) { c.Password = tokenOf(mod) }, 5},
		"token of the device":       {mod, func(c *wire.Connect) { c.Password = tokenOf(id) }, 5},
		"token of another device":   {id, func(c *wire.Connect) { c.Password = tokenOf(engine.TwinID{DeviceID: "abcd"}) }, 5},
		"expired token":             {id, func(c *wire.Connect) { c.Password = enginetest.Token(t, hub, id, time.Now().Add(-time.Minute)) }, 5},
		"unknown device":            {id, func(c *wire.Connect) { c.ClientID, c.Username = "nobody", "h/nobody/?" }, 5},
		"disabled device":           {off, nil, 5},
		"provisioning":              {id, func(c *wire.Connect) { c.ClientID, c.Username = "r", "0ne/registrations/r/api-version=2019-03-31" }, 5},
		"will on own telemetry":     {id, func(c *wire.Connect) { c.Will = &wire.Will{Topic: "devices/abc/messages/events/a=b"} }, 0},
		"will on another's":         {id, func(c *wire.Connect) { c.Will = &wire.Will{Topic: "devices/abd/messages/events/"} }, 5},
		"will on a twin topic":      {id, func(c *wire.Connect) { c.Will = &wire.Will{Topic: "$iothub/twin/GET/?$rid=1"} }, 5},
		"will at QoS 2":             {id, func(c *wire.Connect) { c.Will = &wire.Will{Topic: "devices/abc/messages/events/", QoS: 2} }, 5},
		"another host":              {id, func(c *wire.Connect) { c.Username = "alias:8883/abc/?api-version=2016-11-14" }, 0},
		"user name in the old form": {id, func(c *wire.Connect) { c.Username = enginetest.HostName + "/abc/api-version=2016-11-14" }, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, p := open(t, hub, h, test.id, test.change)
			if p.Code != test.code || p.SessionPresent && p.Code != 0 {
				t.Fatalf("CONNACK %d, want %d", p.Code, test.code)
			}
			if p.Code != 0 {
				c.wantEnd()
			} else {
				c.ping()
			}
		})
	}
	t.Run("MQTT 5", func(t *testing.T) {
		c := dial(t, h)
		c.write([]byte{0x10, 0x0d, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 0}, nil)
		if p := c.want(wire.TypeConnack); p.Code != wire.ConnackBadProtocol {
			t.Errorf("CONNACK %d, want 1", p.Code)
		}
		c.wantEnd()
	})
	t.Run("draining", func(t *testing.T) {
		hub.Drain()
		c, p := open(t, hub, h, id, nil)
		if p.Code != wire.ConnackUnavailable {
			t.Errorf("CONNACK %d, want 3", p.Code)
		}
		c.wantEnd()
	})
}

// TestRefusedAttempts: the log of an identity says from where, and by which protocol,
// somebody came whose credentials were refused.
func TestRefusedAttempts(t *testing.T) {
	hub, h := newTestHub(t)
	id, other := engine.TwinID{DeviceID: "abc"}, engine.TwinID{DeviceID: "other"}
	for _, id := range []engine.TwinID{id, other} {
		if _, err := enginetest.Identity(t, hub, id); err != nil {
			t.Fatal(err)
		}
	}
	wrong := enginetest.Token(t, hub, other, time.Now().Add(time.Hour))
	log := func() engine.ConnectionEnd {
		t.Helper()
		// A change that is waited for is behind what nobody waits for.
		if _, err := hub.PatchTwin(t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Tags: []byte(`{"a":1}`)}, engine.IfMatch{}); err != nil {
			t.Fatal(err)
		}
		list, _, err := hub.Connections(t.Context(), enginetest.Owner(), id, "", 0)
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0]
	}
	c, _ := open(t, hub, h, id, func(c *wire.Connect) { c.Password = wrong })
	c.wantEnd()
	if e := log(); e.Refused != 1 || e.Protocol != "mqtt" || e.Address == "" {
		t.Errorf("by MQTT: %+v", e)
	}
	for _, row := range []struct {
		change func(*wire.Connect)
		code   string
	}{
		{func(c *wire.Connect) { c.Password = "no token" }, "IotHubUnauthorizedAccess"},
		{func(c *wire.Connect) { c.ClientID = "another" }, "ArgumentInvalid"},
	} {
		before := log().Refused
		c, _ := open(t, hub, h, id, row.change)
		c.wantEnd()
		if e := log(); e.Refused != before+1 || e.Code != row.code {
			t.Errorf("a CONNECT that can't be right: %+v", e)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/devices/abc/messages/events?api-version=2021-04-12", nil)
	r.Header.Set("Authorization", wrong)
	w := httptest.NewRecorder()
	NewHTTPHandler(hub, nil).ServeHTTP(w, r)
	if e := log(); w.Code != http.StatusUnauthorized || e.Refused != 4 || e.Protocol != "https" || e.Address != r.RemoteAddr {
		t.Errorf("by HTTPS, %d: %+v", w.Code, e)
	}
}

// TestFirstPacket closes what does not begin with CONNECT, without an answer.
func TestFirstPacket(t *testing.T) {
	_, h := newTestHub(t)
	for name, b := range map[string][]byte{
		"ping":           wire.AppendPingreq(nil),
		"HTTP":           []byte("GET / HTTP/1.1\r\n\r\n"),
		"TLS":            {0x16, 0x03, 0x01, 0x02, 0x00, 0x01},
		"large CONNECT":  {0x10, 0xff, 0xff, 0x7f},
		"another name":   {0x10, 0x0c, 0, 4, 'M', 'Q', 'T', 'X', 4, 2, 0, 0, 0, 0},
		"large PUBLISH":  {0x30, 0x80, 0x80, 0x08},
		"bad UTF-8 user": {0x10, 0x0f, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x82, 0, 0, 0, 0, 0, 1, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, h)
			c.write(b, nil)
			c.wantEnd()
		})
	}
}

// TestEnds lists what ends a session (checklist 40, 42, 43).
func TestEnds(t *testing.T) {
	hub, h := newTestHub(t)
	id := engine.TwinID{DeviceID: "d"}
	ok := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := map[string][]byte{
		"QoS 2":                {0x34, 0x0a, 0, 4, 'a', 'a', 'a', 'a', 0, 1, 'x', 'y'},
		"PUBREL":               {0x62, 2, 0, 1},
		"unknown topic":        ok(wire.AppendPublish(nil, wire.Message{Topic: "a/b"})),
		"another's topic":      ok(wire.AppendPublish(nil, wire.Message{Topic: "devices/e/messages/events/"})),
		"all topics":           ok(wire.AppendSubscribe(nil, 1, wire.Filter{Topic: "#"})),
		"another's filter":     ok(wire.AppendSubscribe(nil, 1, wire.Filter{Topic: "devices/e/messages/devicebound/#"})),
		"one filter of two":    ok(wire.AppendSubscribe(nil, 1, wire.Filter{Topic: "$iothub/twin/res/#"}, wire.Filter{Topic: "x"})),
		"second CONNECT":       ok(wire.AppendConnect(nil, &wire.Connect{ClientID: "d"})),
		"a server's packet":    wire.AppendPingresp(nil),
		"malformed":            {0x30, 0x03, 0x00, 0x01, 0xff},
		"too large":            {0x30, 0x80, 0x80, 0x80, 0x01},
		"telemetry too large":  ok(wire.AppendPublish(nil, wire.Message{Topic: "devices/d/messages/events/", Payload: make([]byte, 256<<10+1), QoS: 1, ID: 1})),
		"too large by its bag": ok(wire.AppendPublish(nil, wire.Message{Topic: "devices/d/messages/events/abc=d", Payload: make([]byte, 256<<10-3)})),
		"too many properties":  ok(wire.AppendPublish(nil, wire.Message{Topic: "devices/d/messages/events/" + strings.Repeat("a=b&", 2000)})),
		"DISCONNECT":           wire.AppendDisconnect(nil),
	}
	bystander := accepted(t, hub, h, engine.TwinID{DeviceID: "bystander"})
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			c := accepted(t, hub, h, id)
			c.write(b, nil)
			c.wantEnd()
			bystander.ping()
		})
	}
}

// TestSubscribe has granted QoS, order and repetition (checklist 40, 41, 44,
// 45, 48).
func TestSubscribe(t *testing.T) {
	hub, h := newTestHub(t)
	c := accepted(t, hub, h, engine.TwinID{DeviceID: "d"})
	codes := c.subscribe(
		wire.Filter{Topic: "devices/d/messages/devicebound/#", QoS: 1},
		wire.Filter{Topic: "$iothub/twin/res/#", QoS: 0},
		wire.Filter{Topic: "$iothub/methods/POST/#", QoS: 2},
		wire.Filter{Topic: "$iothub/twin/PATCH/properties/desired/#", QoS: 1},
		wire.Filter{Topic: "devices/+/messages/devicebound/#", QoS: 0},
	)
	if !bytes.Equal(codes, []byte{1, 0, 1, 1, 0}) {
		t.Errorf("granted %v, want [1 0 1 1 0]", codes)
	}
	c.pid++
	c.write(wire.AppendUnsubscribe(nil, c.pid, wire.Filter{Topic: "never/held"}, wire.Filter{Topic: "$iothub/methods/POST/#"}))
	if p := c.want(wire.TypeUnsuback); p.ID != c.pid {
		t.Errorf("UNSUBACK of %d, want %d", p.ID, c.pid)
	}
	for _, pid := range []uint16{0, 99} { // checklist 47
		c.write(wire.AppendPuback(nil, pid), nil)
	}
	c.ping()
	m := accepted(t, hub, h, engine.TwinID{DeviceID: "d", ModuleID: "m"})
	if codes := m.subscribe(wire.Filter{Topic: "devices/d/modules/m/#", QoS: 1}, wire.Filter{Topic: "devices/d/modules/m/inputs/#", QoS: 1}, wire.Filter{Topic: "devices/d/modules/m/messages/devicebound/#"}); !bytes.Equal(codes, []byte{1, 1, 0}) {
		t.Errorf("module was granted %v", codes)
	}
	m.ping()
	c.ping() // both live (checklist 93)
}

// TestTwin has the twin operations (checklist 69 to 75, 77 to 81).
func TestTwin(t *testing.T) {
	hub, h := newTestHub(t, enginetest.Azure)
	id := engine.TwinID{DeviceID: "d"}
	c := accepted(t, hub, h, id)
	c.publish("$iothub/twin/GET/?$rid=unheard", " ", 0) // no subscription yet: no answer, no harm
	c.subscribe(allFilters()...)

	c.publish("$iothub/twin/GET/?$rid=dd8fcdb4-6c4c", " ", 0)
	if got := string(c.wantTopic("$iothub/twin/res/200/?$rid=dd8fcdb4-6c4c")); got != `{"desired":{"$version":1},"reported":{"$version":1}}` {
		t.Errorf("new twin is %s", got)
	}
	c.publish("$iothub/twin/PATCH/properties/reported/?$rid=3", `{"a":{"b":1,"c":[1]},"x":1.0}`, 0)
	if got := c.wantTopic("$iothub/twin/res/204/?$rid=3&$version=2"); len(got) != 0 {
		t.Errorf("reply to PATCH has a body: %s", got)
	}
	c.publish("$iothub/twin/PATCH/properties/reported/?$rid=4&$version=2", `{"a":{"b":null,"c":[2,3]}}`, 1)
	if p := c.want(wire.TypePuback); p.ID != c.pid {
		t.Errorf("PUBACK of %d, want %d", p.ID, c.pid)
	}
	c.wantTopic("$iothub/twin/res/204/?$rid=4&$version=3")
	c.publish("$iothub/twin/GET/?$rid=", "", 1)
	c.want(wire.TypePuback)
	if got := string(c.wantTopic("$iothub/twin/res/200/?$rid=")); got != `{"desired":{"$version":1},"reported":{"a":{"c":[2,3]},"x":1.0,"$version":3}}` {
		t.Errorf("twin is %s", got)
	}

	deep := strings.Repeat(`{"a":`, 12) + "1" + strings.Repeat("}", 12)
	for name, test := range map[string]struct {
		payload, query string
		status, number int
	}{
		"not JSON":        {"{", "", 400, 0},
		"empty":           {"", "", 400, 0},
		"no object":       {"[1]", "", 400, 0},
		"dot in key":      {`{"a.b":1}`, "", 400, 0},
		"dollar in key":   {`{"$a":1}`, "", 400, 0},
		"space in key":    {`{"a b":1}`, "", 400, 0},
		"version in it":   {`{"$version":1}`, "", 400, 0},
		"too deep":        {deep, "", 400, 0},
		"long string":     {`{"a":"` + strings.Repeat("x", 4097) + `"}`, "", 400, 0},
		"large integer":   {`{"a":4503599627370496}`, "", 400, 0},
		"large section":   {`{` + large(9, 4000) + `}`, "", 0, 0},
		"stale version":   {`{"a":1}`, "&$version=1", 412, 412001},
		"strange version": {`{"a":1}`, "&$version=x", 400, 400004},
		"not UTF-8":       {"{\"a\":\"\xff\"}", "", 400, 0},
		"duplicate key":   {`{"a":1,"a":2}`, "", 400, 0},
	} {
		c.publish("$iothub/twin/PATCH/properties/reported/?$rid=e"+test.query, test.payload, 1)
		c.want(wire.TypePuback)
		p := c.want(wire.TypePublish)
		var body errorBody
		if err := json.Unmarshal(p.Payload, &body); err != nil || body.ErrorCode == 0 || body.Message == "" || body.TrackingID == "" {
			t.Errorf("%s: body %s, %v", name, p.Payload, err)
		}
		if _, err := time.Parse(timestampLayout, body.TimestampUTC); err != nil {
			t.Errorf("%s: timestampUtc: %v", name, err)
		}
		if strings.Contains(body.Message, "ETag") {
			t.Errorf("%s: a device has no ETag, and is told %q", name, body.Message)
		}
		if want := fmt.Sprintf("$iothub/twin/res/%d/?$rid=e", test.status); test.status != 0 && p.Topic != want || test.number != 0 && body.ErrorCode != test.number {
			t.Errorf("%s: answered at %q with %s, want %q and %d", name, p.Topic, p.Payload, want, test.number)
		}
	}
	c.publish("$iothub/twin/PATCH/properties/reported/?$rid=5", `{"low":-4503599627370496,"high":4503599627370495}`, 0)
	c.wantTopic("$iothub/twin/res/204/?$rid=5&$version=4") // nothing refused counted

	// Two changes arrive in order, with nulls and $version.
	for i, patch := range []string{`{"interval":5,"gone":null}`, `{"interval":6}`} {
		if _, err := hub.PatchTwin(t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Desired: []byte(patch)}, engine.IfMatch{}); err != nil {
			t.Fatal(err)
		}
		got := string(c.wantTopic(fmt.Sprintf("$iothub/twin/PATCH/properties/desired/?$version=%d", i+2)))
		if want := strings.TrimSuffix(patch, "}") + fmt.Sprintf(`,"$version":%d}`, i+2); got != want {
			t.Errorf("notification is %s, want %s", got, want)
		}
	}
}

// large returns n members of about size bytes.
func large(n, size int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(`"k%d":%q`, i, strings.Repeat("v", size))
	}
	return strings.Join(parts, ",")
}

// TestMethods has direct methods (checklist 83 to 91).
func TestMethods(t *testing.T) {
	hub, h := newTestHub(t)
	id := engine.TwinID{DeviceID: "d"}
	type outcome struct {
		result engine.MethodResult
		err    error
	}
	invoke := func(m engine.MethodCall) chan outcome {
		done := make(chan outcome, 1)
		go func() {
			r, err := hub.InvokeMethod(context.WithoutCancel(t.Context()), enginetest.Owner(), id, m)
			done <- outcome{r, err}
		}()
		return done
	}
	c := accepted(t, hub, h, id)
	if o := <-invoke(engine.MethodCall{Name: "early"}); engine.AsError(o.err) == nil || engine.AsError(o.err).Code != engine.CodeDeviceNotOnline {
		t.Errorf("without subscription: %v, want DeviceNotOnline", o.err)
	}
	c.subscribe(allFilters()...)
	for name, test := range map[string]struct {
		payload   json.RawMessage
		sent      string
		response  string
		responded string
	}{
		"none":     {nil, "", "", "null"},
		"null":     {json.RawMessage("null"), "null", "null", "null"},
		"object":   {json.RawMessage(`{"a":1}`), `{"a":1}`, `{"b":2}`, `{"b":2}`},
		"128 KiB":  {json.RawMessage(`"` + strings.Repeat("x", 128<<10-2) + `"`), `"` + strings.Repeat("x", 128<<10-2) + `"`, "[]", "[]"},
		"a number": {json.RawMessage("7"), "7", "7", "7"},
	} {
		done := invoke(engine.MethodCall{Name: "comp*cmd", Payload: test.payload})
		p := c.want(wire.TypePublish)
		rid, ok := strings.CutPrefix(p.Topic, "$iothub/methods/POST/comp*cmd/?$rid=")
		if !ok || rid == "" || strings.ContainsAny(rid, "&=/") || string(p.Payload) != test.sent {
			t.Fatalf("%s: request at %q with %.40q", name, p.Topic, p.Payload)
		}
		c.publish("$iothub/methods/res/299/?$rid="+rid, test.response, 1)
		c.want(wire.TypePuback)
		if o := <-done; o.err != nil || o.result.Status != 299 || string(o.result.Payload) != test.responded {
			t.Errorf("%s: result %+v, %v", name, o.result, o.err)
		}
		c.publish("$iothub/methods/res/200/?$rid="+rid, "1", 1) // late: ignored and acknowledged
		c.want(wire.TypePuback)
	}
	// A resumed session is callable right after CONNACK.
	c.write(wire.AppendDisconnect(nil), nil)
	c.wantEnd()
	done := invoke(engine.MethodCall{Name: "wait", ConnectTimeout: 20 * time.Second})
	c, p := open(t, hub, h, id, nil)
	if !p.SessionPresent {
		t.Error("session-present is not set for a resumed session")
	}
	p = c.want(wire.TypePublish)
	c.publish(strings.Replace(p.Topic, "POST/wait", "res/1", 1), "", 0)
	if o := <-done; o.err != nil || o.result.Status != 1 {
		t.Errorf("after reconnect: %+v, %v", o.result, o.err)
	}
	// A call whose connection is lost is told so.
	done = invoke(engine.MethodCall{Name: "lost"})
	c.want(wire.TypePublish)
	_ = c.st.Close()
	if o := <-done; engine.AsError(o.err) == nil || engine.AsError(o.err).Code != engine.CodeConnectionClosed {
		t.Errorf("connection lost: %v", o.err)
	}
}

// TestPersistence has stored subscriptions and session-present (checklist 36,
// 38, 39).
func TestPersistence(t *testing.T) {
	hub, h := newTestHub(t)
	id := engine.TwinID{DeviceID: "d"}
	c, p := open(t, hub, h, id, nil)
	if p.SessionPresent {
		t.Error("session-present on the first connect")
	}
	c.subscribe(allFilters()...)
	c.write(wire.AppendDisconnect(nil), nil)
	c.wantEnd()
	c, p = open(t, hub, h, id, nil)
	if !p.SessionPresent {
		t.Error("no session-present on the second connect")
	}
	c.publish("$iothub/twin/GET/?$rid=1", "", 0) // answered without a new SUBSCRIBE (checklist 82)
	c.wantTopic("$iothub/twin/res/200/?$rid=1")
	if _, err := hub.PatchTwin(t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Desired: []byte(`{"a":1}`)}, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
	c.wantTopic("$iothub/twin/PATCH/properties/desired/?$version=2")
	clean := func(c *wire.Connect) { c.Clean = true }
	if _, p = open(t, hub, h, id, clean); p.SessionPresent || p.Code != 0 {
		t.Errorf("clean session: %+v", p)
	}
	if _, p = open(t, hub, h, id, nil); p.SessionPresent || p.Code != 0 {
		t.Errorf("after a clean session: %+v", p)
	}
}

// TestTakeOver has a second connection of one identity (checklist 33, 34).
func TestTakeOver(t *testing.T) {
	hub, h := newTestHub(t)
	id := engine.TwinID{DeviceID: "d"}
	first, _ := open(t, hub, h, id, func(c *wire.Connect) { c.Will = &wire.Will{Topic: "devices/d/messages/events/"} })
	second := accepted(t, hub, h, id)
	first.wantEnd()
	second.ping()
	i, err := hub.Identity(t.Context(), enginetest.Owner(), id)
	if err != nil || !i.Connected {
		t.Errorf("connected is %t, %v", i.Connected, err)
	}
	if n := h.Stats().Disconnects["replaced"]; n != 1 {
		t.Errorf("%d sessions were counted as replaced", n)
	}
	if n := hub.Totals().Messages; n != 1 {
		t.Errorf("%d messages, want the will of the first connection", n)
	}
}

// TestIdentityChanges cuts live sessions (checklist 32).
func TestIdentityChanges(t *testing.T) {
	hub, h := newTestHub(t)
	ctx, owner := t.Context(), enginetest.Owner()
	changes := map[string]func(id engine.TwinID) error{
		"delete": func(id engine.TwinID) error {
			return hub.DeleteIdentity(ctx, owner, id, engine.ParseIfMatch("*"))
		},
		"disable": func(id engine.TwinID) error {
			i, err := hub.Identity(ctx, owner, id)
			i.Disabled = true
			_, err2 := hub.UpdateIdentity(ctx, owner, i, engine.ParseIfMatch("*"))
			return errors.Join(err, err2)
		},
	}
	for name, change := range changes {
		id := engine.TwinID{DeviceID: name}
		c := accepted(t, hub, h, id)
		began := time.Now()
		if err := change(id); err != nil {
			t.Fatal(err)
		}
		c.wantEnd()
		if d := time.Since(began); d > time.Second {
			t.Errorf("%s: the session lived for another %s", name, d)
		}
	}
}

// TestPipeline sends many packets in one write: answers come in order.
func TestPipeline(t *testing.T) {
	hub, h := newTestHub(t)
	c := accepted(t, hub, h, engine.TwinID{DeviceID: "d"})
	c.subscribe(allFilters()...)
	const n = 50
	var b []byte
	var err error
	for i := range n {
		if b, err = wire.AppendPublish(b, wire.Message{Topic: "devices/d/messages/events/", Payload: make([]byte, 100), QoS: 1, ID: uint16(2*i + 1)}); err != nil {
			t.Fatal(err)
		}
		if b, err = wire.AppendPublish(b, wire.Message{Topic: fmt.Sprintf("$iothub/twin/PATCH/properties/reported/?$rid=%d", i), Payload: fmt.Appendf(nil, `{"a":%d}`, i), QoS: 1, ID: uint16(2*i + 2)}); err != nil {
			t.Fatal(err)
		}
	}
	c.write(b, nil)
	for i := range n {
		for _, want := range []int{2*i + 1, 2*i + 2} {
			if p := c.want(wire.TypePuback); int(p.ID) != want {
				t.Fatalf("PUBACK of %d, want %d", p.ID, want)
			}
		}
		c.wantTopic(fmt.Sprintf("$iothub/twin/res/204/?$rid=%d&$version=%d", i, i+2))
	}
	if got := hub.Totals().Messages; got != n {
		t.Errorf("%d messages were counted, want %d", got, n)
	}
}

// TestPacketsBehindConnect sends them in one write, without waiting for
// CONNACK.
func TestPacketsBehindConnect(t *testing.T) {
	hub, h := newTestHub(t)
	id := engine.TwinID{DeviceID: "eager"}
	c := dial(t, h)
	b, err := wire.AppendConnect(nil, connectOf(t, hub, id))
	if err != nil {
		t.Fatal(err)
	}
	b, err = wire.AppendSubscribe(b, 1, wire.Filter{Topic: "$iothub/twin/res/#"})
	if err != nil {
		t.Fatal(err)
	}
	b, err = wire.AppendPublish(b, wire.Message{Topic: "$iothub/twin/GET/?$rid=1"})
	c.write(b, err)
	if p := c.want(wire.TypeConnack); p.Code != wire.ConnackAccepted {
		t.Fatalf("CONNACK %d", p.Code)
	}
	c.want(wire.TypeSuback)
	c.wantTopic("$iothub/twin/res/200/?$rid=1")
}

// TestDrain closes sessions spread over the time left.
func TestDrain(t *testing.T) {
	hub, h := newTestHub(t)
	var clients []*testClient
	for i := range 20 {
		clients = append(clients, accepted(t, hub, h, engine.TwinID{DeviceID: fmt.Sprint("d", i)}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := h.Drain(ctx); err != nil {
		t.Errorf("Drain: %v", err)
	}
	for _, c := range clients {
		c.wantEnd()
	}
	if s := h.Stats(); s.Sessions != 0 || s.Pending != 0 || s.Disconnects["shutdown"] != 20 {
		t.Errorf("after Drain: %+v", s)
	}
	c, p := open(t, hub, h, engine.TwinID{DeviceID: "late"}, nil)
	if p.Code != wire.ConnackUnavailable {
		t.Errorf("CONNACK %d while draining, want 3", p.Code)
	}
	c.wantEnd()
}
