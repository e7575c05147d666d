package engine_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

var device = engine.TwinID{DeviceID: "d"}

func TestTakeOver(t *testing.T) {
	h := enginetest.New(t)
	first := enginetest.Connect(t, h, device, engine.EndpointMethod)
	second := enginetest.Connect(t, h, device)
	if err := first.Telemetry(engine.Message{Will: true}); err != nil || h.Totals().Messages != 1 {
		t.Errorf("the will of a fenced session is lost: %v", err)
	}
	if err := first.Telemetry(engine.Message{}); err == nil {
		t.Error("a fenced session can still send")
	}
	if c := first.Closed(); c == nil || c.Code != engine.CodeConnectionClosed {
		t.Fatalf("the first session was closed with %v", c)
	}
	if _, err := first.Session.PatchReported(t.Context(), []byte(`{"a":1}`), -1); err == nil {
		t.Error("a fenced session can still write")
	}
	first.Session.Close(context.Canceled) // its socket ends late
	i, err := h.Identity(t.Context(), enginetest.Owner(), device)
	if err != nil || !i.Connected {
		t.Errorf("connected %v, %v", i.Connected, err)
	}
	if !second.Session.Resumed() || !second.Session.Subscriptions().Has(engine.EndpointMethod) {
		t.Error("the second session did not get the stored subscriptions")
	}
}

func TestSubscriptionsSurvive(t *testing.T) {
	dir := t.TempDir()
	h := enginetest.New(t, enginetest.Dir(dir))
	d := enginetest.Connect(t, h, device, engine.EndpointMethod, engine.EndpointDesired)
	if d.Session.Resumed() {
		t.Error("a first session is resumed")
	}
	if err := d.Session.Unsubscribe(t.Context(), engine.EndpointMethod); err != nil {
		t.Fatal(err)
	}
	d.Session.Close(nil)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = enginetest.New(t, enginetest.Dir(dir))
	again, err := enginetest.TryConnect(t, h, device, false)
	if err != nil {
		t.Fatal(err)
	}
	if s := again.Session.Subscriptions(); !again.Session.Resumed() || !s.Has(engine.EndpointDesired) || s.Has(engine.EndpointMethod) {
		t.Errorf("after a restart: resumed %v, %v", again.Session.Resumed(), s)
	}
	again.Session.Close(nil)
	clean, err := enginetest.TryConnect(t, h, device, true)
	if err != nil {
		t.Fatal(err)
	}
	if clean.Session.Resumed() || clean.Session.Subscriptions() != engine.NoSubscriptions() {
		t.Error("a clean session got stored subscriptions")
	}
	clean.Session.Close(nil)
	last, err := enginetest.TryConnect(t, h, device, false)
	if err != nil {
		t.Fatal(err)
	}
	if last.Session.Resumed() {
		t.Error("a clean session did not forget")
	}
}

func TestIdentityChangesEndSessions(t *testing.T) {
	f := func(name string, id engine.TwinID, change func(h *engine.Hub) error) {
		t.Run(name, func(t *testing.T) {
			h := enginetest.New(t)
			d := enginetest.Connect(t, h, id)
			if err := change(h); err != nil {
				t.Fatal(err)
			}
			if d.Closed() == nil || d.Session.Err() == nil {
				t.Fatal("the session lives on")
			}
		})
	}
	owner := enginetest.Owner()
	module := engine.TwinID{DeviceID: "d", ModuleID: "m"}
	disable := func(h *engine.Hub) error {
		i, err := h.Identity(t.Context(), owner, device)
		if err != nil {
			return err
		}
		i.Disabled = true
		_, err = h.UpdateIdentity(t.Context(), owner, i, anyETag)
		return err
	}
	f("disable", device, disable)
	f("disable its device", module, disable)
	f("delete", device, func(h *engine.Hub) error { return h.DeleteIdentity(t.Context(), owner, device, anyETag) })
	f("delete its device", module, func(h *engine.Hub) error { return h.DeleteIdentity(t.Context(), owner, device, anyETag) })
	f("new keys", device, func(h *engine.Hub) error {
		_, err := h.UpdateIdentity(t.Context(), owner, engine.Identity{DeviceID: "d"}, anyETag)
		return err
	})
	f("regenerated key", module, func(h *engine.Hub) error {
		_, _, err := h.RegenerateKeys(t.Context(), owner, engine.KeySecondary, []engine.TwinID{module})
		return err
	})
	t.Run("same keys keep it", func(t *testing.T) {
		h := enginetest.New(t)
		d := enginetest.Connect(t, h, device)
		i, err := h.Identity(t.Context(), owner, device)
		if err != nil {
			t.Fatal(err)
		}
		i.StatusReason = "inspected"
		if _, err := h.UpdateIdentity(t.Context(), owner, i, anyETag); err != nil {
			t.Fatal(err)
		}
		if d.Closed() != nil {
			t.Errorf("closed: %v", d.Closed())
		}
	})
}

func TestDeviceAuthentication(t *testing.T) {
	h := enginetest.New(t)
	i, err := enginetest.Identity(t, h, device)
	if err != nil {
		t.Fatal(err)
	}
	module := engine.TwinID{DeviceID: "d", ModuleID: "m"}
	m, err := enginetest.Identity(t, h, module)
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, h, engine.Identity{DeviceID: "de"})
	mustCreate(t, h, engine.Identity{DeviceID: "off", Disabled: true})
	mustCreate(t, h, engine.Identity{DeviceID: "x509", Authentication: engine.Authentication{Type: engine.AuthSelfSigned}})
	policies, err := h.Policies(t.Context(), enginetest.Owner())
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]auth.SharedAccessPolicy{}
	for _, p := range policies {
		byName[p.Name] = p
	}
	later := time.Now().Add(time.Hour)
	sign := func(resource string, k auth.Secret, policy string, expiry time.Time) string {
		b, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return auth.SignToken(resource, b, policy, expiry)
	}
	const host = enginetest.HostName
	a := i.Authentication
	for _, c := range []struct {
		name  string
		id    engine.TwinID
		token string
		ok    bool
	}{
		{"primary key", device, sign(host+"/devices/d", a.PrimaryKey, "", later), true},
		{"secondary key", device, sign(host+"/devices/d", a.SecondaryKey, "", later), true},
		{"host in capitals", device, sign("HUB.Muster.Test/devices/d", a.PrimaryKey, "", later), true},
		{"other host", device, sign("elsewhere/devices/d", a.PrimaryKey, "", later), false},
		{"other key", device, sign(host+"/devices/d", key(32), "", later), false},
		{"expired", device, sign(host+"/devices/d", a.PrimaryKey, "", time.Now().Add(-time.Second)), false},
		{"prefix of the id", engine.TwinID{DeviceID: "de"}, sign(host+"/devices/d", a.PrimaryKey, "", later), false},
		{"device key for its module", module, sign(host+"/devices/d/modules/m", a.PrimaryKey, "", later), false},
		{"module key", module, sign(host+"/devices/d/modules/m", m.Authentication.PrimaryKey, "", later), true},
		{"module key for its device", device, sign(host+"/devices/d", m.Authentication.PrimaryKey, "", later), false},
		{"short scope with a device key", device, sign(host, a.PrimaryKey, "", later), false},
		{"unknown device", engine.TwinID{DeviceID: "ghost"}, sign(host+"/devices/ghost", a.PrimaryKey, "", later), false},
		{"disabled", engine.TwinID{DeviceID: "off"}, enginetest.Token(t, h, engine.TwinID{DeviceID: "off"}, later), false},
		{"thumbprint device with a token", engine.TwinID{DeviceID: "x509"}, sign(host+"/devices/x509", a.PrimaryKey, "", later), false},
		{"policy device", device, sign(host, byName["device"].PrimaryKey, "device", later), true},
		{"policy iothubowner for one device", device, sign(host+"/devices/d", byName["iothubowner"].SecondaryKey, "iothubowner", later), true},
		{"policy for another device", device, sign(host+"/devices/de", byName["device"].PrimaryKey, "device", later), false},
		{"policy without DeviceConnect", device, sign(host, byName["service"].PrimaryKey, "service", later), false},
		{"unknown policy", device, sign(host, byName["device"].PrimaryKey, "nobody", later), false},
		{"no token", device, "", false},
		{"garbage", device, "SharedAccessSignature sr=&sig=%zz", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := h.AuthenticateDevice(t.Context(), engine.Credentials{ID: c.id, Token: c.token})
			if !c.ok {
				wantCode(t, err, engine.CodeUnauthorized)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if g.ID != c.id || g.Principal.DeviceID != c.id.DeviceID || g.Principal.ModuleID != c.id.ModuleID {
				t.Errorf("grant %+v", g)
			}
		})
	}
}

func TestServiceAuthentication(t *testing.T) {
	h := enginetest.New(t)
	p, err := h.Policy(t.Context(), enginetest.Owner(), "service")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := p.PrimaryKey.Bytes()
	later := time.Now().Add(time.Hour)
	f := func(name, token, path string, ok bool) {
		t.Helper()
		got, err := h.AuthenticateService(t.Context(), engine.Caller{RequestID: "r", Address: "192.0.2.9:1"}, token, path)
		if ok != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if ok && (got.Name != "service" || !got.Permissions.Has(auth.ServiceConnect)) {
			t.Errorf("%s: principal %+v", name, got)
		}
	}
	f("whole hub", auth.SignToken(enginetest.HostName, b, "service", later), "/twins/d", true)
	f("scope covers", auth.SignToken(enginetest.HostName+"/devices", b, "service", later), "/devices/d", true)
	f("scope does not cover", auth.SignToken(enginetest.HostName+"/devices", b, "service", later), "/twins/d", false)
	f("scope by segment", auth.SignToken(enginetest.HostName+"/dev", b, "service", later), "/devices/d", false)
	f("expired", auth.SignToken(enginetest.HostName, b, "service", time.Now().Add(-time.Minute)), "/twins/d", false)
	f("no policy", auth.SignToken(enginetest.HostName, b, "", later), "/twins/d", false)
	f("empty", "", "/twins/d", false)
	rotated, err := h.RotatePolicyKey(t.Context(), enginetest.Owner(), "service", engine.KeyPrimary)
	if err != nil || rotated.PrimaryKey == p.PrimaryKey || rotated.SecondaryKey != p.SecondaryKey {
		t.Fatalf("rotate: %v", err)
	}
	f("rotated key", auth.SignToken(enginetest.HostName, b, "service", later), "/twins/d", false)
	mustCreate(t, h, engine.Identity{DeviceID: "later"})
	list, _, err := h.Audit(t.Context(), enginetest.Owner(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for _, e := range list {
		if e.Operation == "authenticate" && e.Outcome == "refused" && e.Address == "192.0.2.9:1" {
			refused = append(refused, e.Principal)
		}
	}
	if len(refused) != 6 || refused[0] != "policy:service" {
		t.Errorf("refused tokens in the audit: %v", refused)
	}
}

func TestPolicies(t *testing.T) {
	h := enginetest.New(t)
	owner := enginetest.Owner()
	made, err := h.PutPolicy(t.Context(), owner, auth.SharedAccessPolicy{Name: "ops", Permissions: auth.RegistryRead | auth.StatusRead})
	if err != nil || made.PrimaryKey == "" {
		t.Fatalf("%+v, %v", made, err)
	}
	wider, err := h.PutPolicy(t.Context(), owner, auth.SharedAccessPolicy{Name: "ops", Permissions: auth.RegistryWrite})
	if err != nil || wider.PrimaryKey != made.PrimaryKey || wider.Permissions != auth.RegistryWrite {
		t.Fatalf("%+v, %v", wider, err)
	}
	manager := engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "m", Permissions: auth.PolicyManage}}
	_, err = h.PutPolicy(t.Context(), manager, auth.SharedAccessPolicy{Name: "more", Permissions: auth.ServiceConnect})
	wantCode(t, err, engine.CodeForbidden)
	_, err = h.PutPolicy(t.Context(), owner, auth.SharedAccessPolicy{Name: "service", Permissions: auth.RegistryWrite})
	wantCode(t, err, engine.CodeForbidden)
	wantCode(t, h.DeletePolicy(t.Context(), owner, "service"), engine.CodeForbidden)
	wantCode(t, h.DeletePolicy(t.Context(), owner, "ghost"), engine.CodePolicyNotFound)
	if err := h.DeletePolicy(t.Context(), owner, "ops"); err != nil {
		t.Fatal(err)
	}
	_, err = h.Policy(t.Context(), owner, "ops")
	wantCode(t, err, engine.CodePolicyNotFound)
	cs, err := h.PolicyConnectionString(t.Context(), owner, "iothubowner", engine.KeyPrimary)
	if err != nil || cs.HostName != enginetest.HostName || cs.SharedAccessKeyName != "iothubowner" || cs.SharedAccessKey == "" {
		t.Errorf("%+v, %v", cs, err)
	}
}

func TestMethods(t *testing.T) {
	h := enginetest.New(t)
	owner := enginetest.Owner()
	call := func(m engine.MethodCall) (engine.MethodResult, error) {
		if m.Name == "" {
			m.Name = "ping"
		}
		return h.InvokeMethod(t.Context(), owner, device, m)
	}
	_, err := call(engine.MethodCall{})
	wantCode(t, err, engine.CodeDeviceNotFound)
	d := enginetest.Connect(t, h, device)
	_, err = call(engine.MethodCall{})
	wantCode(t, err, engine.CodeDeviceNotOnline) // connected, not subscribed
	set := engine.NoSubscriptions()
	set[engine.EndpointMethod] = 0
	if err := d.Session.Subscribe(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	d.Answer(func(m enginetest.Method) (int, []byte) {
		switch m.Name {
		case "empty":
			return 200, nil
		case "broken":
			return 200, []byte("{")
		default:
			return 299, append([]byte(`{"got":`), append(append([]byte{}, orNull(m.Payload)...), '}')...)
		}
	})
	for _, payload := range []string{`null`, `""`, `[1]`, `7`, `"x"`, `{"a":1.0}`} {
		r, err := call(engine.MethodCall{Payload: json.RawMessage(payload)})
		if err != nil || r.Status != 299 || string(r.Payload) != `{"got":`+payload+`}` {
			t.Errorf("payload %s: %+v, %v", payload, r, err)
		}
	}
	if r, err := call(engine.MethodCall{Name: "empty"}); err != nil || string(r.Payload) != "null" || r.Status != 200 {
		t.Errorf("empty answer: %+v, %v", r, err)
	}
	if last := d.Methods()[len(d.Methods())-1]; last.Payload != nil {
		t.Errorf("an absent payload reached the device as %q", last.Payload)
	}
	_, err = call(engine.MethodCall{Name: "broken"})
	wantCode(t, err, engine.CodeInvalidMethodResponse)
	for _, c := range []struct {
		m    engine.MethodCall
		want engine.Code
	}{
		{engine.MethodCall{Name: "a b"}, engine.CodeArgumentInvalid},
		{engine.MethodCall{Name: "comp*cmd", ResponseTimeout: 4 * time.Second}, engine.CodeArgumentInvalid},
		{engine.MethodCall{ResponseTimeout: 301 * time.Second}, engine.CodeArgumentInvalid},
		{engine.MethodCall{ConnectTimeout: 31 * time.Second}, engine.CodeArgumentInvalid},
		{engine.MethodCall{Payload: make([]byte, 128<<10+1)}, engine.CodeTooLarge},
	} {
		_, err := call(c.m)
		wantCode(t, err, c.want)
	}
	d.Answer(nil)
	done := make(chan error, 1)
	go func() {
		_, err := call(engine.MethodCall{Name: "hang"})
		done <- err
	}()
	d.Await(t, "the call", func() bool { return d.Methods()[len(d.Methods())-1].Name == "hang" })
	d.Session.Close(nil)
	wantCode(t, <-done, engine.CodeConnectionClosed)
	d.Session.CompleteMethod("ffff", 200, nil) // late: dropped
	if h.Totals().LateAnswers != 1 {
		t.Errorf("%d late answers", h.Totals().LateAnswers)
	}
}

func orNull(b []byte) []byte {
	if b == nil {
		return []byte("null")
	}
	return b
}

func TestMethodWaitsForTheDevice(t *testing.T) {
	h := enginetest.New(t)
	if _, err := enginetest.Identity(t, h, device); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make(chan error, 2)
	for range 2 {
		wg.Go(func() {
			_, err := h.InvokeMethod(t.Context(), enginetest.Owner(), device, engine.MethodCall{Name: "ping", ConnectTimeout: 20 * time.Second})
			results <- err
		})
	}
	d, err := enginetest.TryConnect(t, h, device, false)
	if err != nil {
		t.Fatal(err)
	}
	d.Answer(func(enginetest.Method) (int, []byte) { return 200, nil })
	set := engine.NoSubscriptions()
	set[engine.EndpointMethod] = 0
	if err := d.Session.Subscribe(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestSlowReaderIsCut(t *testing.T) {
	h := enginetest.New(t)
	d := enginetest.Connect(t, h, device, engine.EndpointDesired, engine.EndpointMethod)
	d.Fill()
	_, err := h.InvokeMethod(t.Context(), enginetest.Owner(), device, engine.MethodCall{Name: "ping"})
	wantCode(t, err, engine.CodeDeviceNotOnline)
	patch(t, h, device, engine.TwinUpdate{Desired: []byte(`{"a":1}`)})
	if d.Closed() == nil {
		t.Error("a device that does not read keeps its session")
	}
}

func TestAuditChain(t *testing.T) {
	h := enginetest.New(t)
	mustCreate(t, h, engine.Identity{DeviceID: "d"})
	patch(t, h, device, engine.TwinUpdate{Tags: []byte(`{"a":1}`)})
	if err := h.DeleteIdentity(t.Context(), enginetest.Owner(), device, anyETag); err != nil {
		t.Fatal(err)
	}
	list, _, err := h.Audit(t.Context(), enginetest.Owner(), 0, 3)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, want := range []string{"identity.delete", "twin.update", "identity.create"} {
		if list[i].Operation != want || list[i].Target != "d" || list[i].Principal != "local:uid=0" || len(list[i].Hash) != 32 {
			t.Errorf("entry %d: %+v", i, list[i])
		}
	}
	check, err := h.VerifyAudit(t.Context(), enginetest.Owner())
	if err != nil || !check.OK || check.Entries < 3 {
		t.Errorf("%+v, %v", check, err)
	}
}

func TestStatusShowsWhatHappened(t *testing.T) {
	h := enginetest.New(t)
	d := enginetest.Connect(t, h, device)
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"a":1}`), -1); err != nil {
		t.Fatal(err)
	}
	if err := d.Telemetry(engine.Message{Body: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, d.Telemetry(engine.Message{Body: make([]byte, 256<<10+1)}), engine.CodeTooLarge)
	s, err := h.Status(t.Context(), enginetest.Owner())
	if err != nil {
		t.Fatal(err)
	}
	if s.Statistics.Connected != 1 || len(s.Connected) != 1 || s.Totals.Messages != 1 || s.Totals.ReportedUpdates != 1 {
		t.Errorf("%+v", s)
	}
	if s.Recent[0].Kind != "twin.reported" || s.Recent[0].ID != device || string(s.Recent[0].Data) != `{"a":1}` {
		t.Errorf("newest change %+v", s.Recent[0])
	}
	findings, err := h.Doctor(t.Context(), enginetest.Owner())
	if err != nil || len(findings) < 4 {
		t.Errorf("%+v, %v", findings, err)
	}
}

// TestDrainAwaitsMethods: a call that a device has is waited for. Another is not
// sent any more, and no device is waited for.
func TestDrainAwaitsMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := enginetest.New(t)
		ctx, owner := t.Context(), enginetest.Owner()
		d := enginetest.Connect(t, h, device, engine.EndpointMethod)
		mustCreate(t, h, engine.Identity{DeviceID: "absent"})
		calls := make(chan enginetest.Method, 1)
		d.Forward(func(m enginetest.Method) { calls <- m })
		results := make(chan error, 2)
		go func() {
			_, err := h.InvokeMethod(ctx, owner, device, engine.MethodCall{Name: "slow"})
			results <- err
		}()
		go func() {
			_, err := h.InvokeMethod(ctx, owner, engine.TwinID{DeviceID: "absent"}, engine.MethodCall{Name: "x", ConnectTimeout: 20 * time.Second})
			results <- err
		}()
		call := <-calls
		synctest.Wait()
		h.Drain()
		wantCode(t, <-results, engine.CodeClosed) // the device that is not there
		_, err := h.InvokeMethod(ctx, owner, device, engine.MethodCall{Name: "late"})
		wantCode(t, err, engine.CodeClosed)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if h.AwaitMethods(short); short.Err() == nil || h.MethodsSent() != 1 {
			t.Errorf("AwaitMethods came back before its time, with %d calls", h.MethodsSent())
		}
		go func() {
			time.Sleep(3 * time.Second)
			d.Session.CompleteMethod(call.RequestID, 200, nil)
		}()
		h.AwaitMethods(ctx)
		if err := <-results; err != nil || h.MethodsSent() != 0 {
			t.Errorf("the call ended with %v, and %d are left", err, h.MethodsSent())
		}
	})
}

func TestDrainRefusesForNow(t *testing.T) {
	h := enginetest.New(t)
	if _, err := enginetest.Identity(t, h, device); err != nil {
		t.Fatal(err)
	}
	h.Drain()
	_, err := enginetest.TryConnect(t, h, device, false)
	wantCode(t, err, engine.CodeClosed)
	wantCode(t, h.Ready(), engine.CodeClosed)
}
