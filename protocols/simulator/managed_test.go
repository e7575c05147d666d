package simulator_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
	"github.com/muster-hub/muster/protocols/simulator"
)

// managedFleet runs devices that can be managed against a hub, until the test
// ends.
type managedFleet struct {
	*testing.T
	ctx     context.Context //nolint:containedctx // of the test
	hub     *clienttest.Hub
	load    *simulator.Load
	logName string
}

func newManagedFleet(t *testing.T, devices int, behaviour string) *managedFleet {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	t.Cleanup(stop)
	f := &managedFleet{T: t, ctx: ctx, hub: clienttest.Start(t), logName: filepath.Join(t.TempDir(), "commands")}
	b, err := simulator.ParseBehaviour([]byte("managed: true\ninterval: 1h\nrestart: 20ms\nstage: 5ms\n" + behaviour))
	if err != nil {
		t.Fatal(err)
	}
	log, err := simulator.OpenCommandLog(f.logName)
	if err != nil {
		t.Fatal(err)
	}
	l, err := simulator.NewLoad(simulator.LoadOptions{
		Service: f.hub.Service, Hub: "localhost", Transport: client.WebSocket, Address: f.hub.HTTPS, HTTPS: f.hub.HTTPS, RootCAs: f.hub.RootCAs,
		Prefix: "m-", Devices: devices, Behaviour: b, Commands: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	f.load = l
	run, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- l.Run(run) }()
	t.Cleanup(func() {
		end()
		<-done
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// has waits until the reported properties of a device hold what is wanted, a
// JSON object.
func (f *managedFleet) has(id, want string) {
	f.Helper()
	var wanted map[string]any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		f.Fatal(err)
	}
	var have map[string]any
	defer func() {
		if f.Failed() {
			f.Logf("%s reported %v", id, have)
		}
	}()
	eventually(f.ctx, f.T, id+" reports "+want, func() bool {
		have = reported(f.ctx, f.T, f.hub, id)
		return holds(have, wanted)
	})
}

func holds(have, want any) bool {
	members, ok := want.(map[string]any)
	if !ok {
		return fmt.Sprint(have) == fmt.Sprint(want)
	}
	of, ok := have.(map[string]any)
	for name, value := range members {
		if !ok || !holds(of[name], value) {
			return false
		}
	}
	return true
}

func (f *managedFleet) call(id, method, payload string, status int) map[string]any {
	f.Helper()
	r, err := f.hub.Service.InvokeMethod(f.ctx, id, "", client.MethodCall{Name: method, Payload: json.RawMessage(payload), ConnectTimeout: 20 * time.Second})
	if err != nil {
		f.Fatal(err)
	}
	if r.Status != status {
		f.Fatalf("%s: status %d, %s, want %d", method, r.Status, r.Payload, status)
	}
	answer := map[string]any{}
	if err := json.Unmarshal(r.Payload, &answer); err != nil {
		f.Fatalf("%s: %v: %s", method, err, r.Payload)
	}
	return answer
}

func (f *managedFleet) desire(id, desired string) int64 {
	f.Helper()
	t, err := f.hub.Service.PatchTwin(f.ctx, id, "", fmt.Appendf(nil, `{"properties":{"desired":%s}}`, desired), "")
	if err != nil {
		f.Fatal(err)
	}
	var v struct {
		Version int64 `json:"$version"`
	}
	if err := json.Unmarshal(t.Properties.Desired, &v); err != nil {
		f.Fatal(err)
	}
	return v.Version
}

// commands reads the log: how often each device took each command.
func (f *managedFleet) commands() map[string]int {
	f.Helper()
	file, err := os.Open(f.logName)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	times := map[string]int{}
	for s := bufio.NewScanner(file); s.Scan(); {
		var c simulator.Command
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			f.Fatalf("%v: %s", err, s.Bytes())
		}
		times[c.Device+" "+c.Name+" "+c.ID]++
	}
	return times
}

func TestManagedMethods(t *testing.T) {
	f := newManagedFleet(t, 1, "")
	const id = "m-000001"
	f.has(id, `{"boot":{"count":1,"reason":"power on"},"firmware":{"version":"2.0.0","slot":"a","slots":2,"state":"good"},"key":{"slot":"primary"}}`)

	f.call(id, "reboot", `{"id":"r1","delay":0}`, 200)
	f.has(id, `{"boot":{"count":2,"reason":"reboot"}}`)
	f.call(id, "reboot", `{"id":"r1"}`, 200) // the same again: answered, not obeyed
	if a := f.call(id, "reportStatus", `{"id":"s1"}`, 200); a["health"] != "good" || a["version"] != "2.0.0" {
		t.Errorf("status: %v", a)
	}
	f.has(id, `{"status":{"id":"s1","health":"good"},"boot":{"count":2}}`)
	if a := f.call(id, "healthCheck", `{}`, 200); a["healthy"] != true {
		t.Errorf("health: %v", a)
	}
	f.call(id, "uploadLogs", `{"id":"l1","lines":10}`, 202)
	f.has(id, `{"logs":{"id":"l1","status":"uploaded","file":"logs/l1.txt"}}`)
	var text bytes.Buffer
	if _, err := f.hub.Service.DownloadFile(f.ctx, id, "logs/l1.txt", &text); err != nil || strings.Count(text.String(), "boot 2: reboot") != 10 {
		t.Errorf("the uploaded log: %v\n%s", err, &text)
	}

	v := f.desire(id, `{"pump":{"rpm":900}}`)
	f.has(id, fmt.Sprintf(`{"pump":{"rpm":900},"configuration":{"pump":{"version":%d,"status":"applied"}}}`, v))
	v = f.desire(id, `{"pump":{"reject":true}}`)
	f.has(id, fmt.Sprintf(`{"configuration":{"pump":{"version":%d,"status":"rejected"}}}`, v))
	f.call(id, "factoryReset", `{"id":"f1","keepNetwork":true}`, 202)
	f.has(id, `{"factoryReset":{"id":"f1","status":"done"},"boot":{"count":3,"reason":"factory reset"},"pump":null,"configuration":null,"logs":null}`)

	for _, c := range []struct {
		method, payload string
		status          int
	}{
		{"reboot", `{"delay":-1}`, 400},
		{"reboot", `[]`, 400},
		{"installKey", `{"id":"k","key":"!","slot":"primary"}`, 400},
		{"installKey", `{"id":"k","key":"YWFhYWFhYWFhYWFhYWFhYQ==","slot":"third"}`, 400},
		{"firmwareConfirm", `{"job":"none"}`, 409},
		{"firmwareRevert", `{"job":"none"}`, 409},
		{"selfDestruct", `{}`, 404},
	} {
		f.call(id, c.method, c.payload, c.status)
	}
	times := f.commands()
	for command, want := range map[string]int{" reboot r1": 2, " reportStatus s1": 1, " factoryReset f1": 1, " pump ": 2, " selfDestruct ": 1} {
		if times[id+command] != want {
			t.Errorf("the log has%s %d times, want %d: %v", command, times[id+command], want, times)
		}
	}
}

func TestManagedFirmware(t *testing.T) {
	f := newManagedFleet(t, 1, "")
	const id = "m-000001"
	f.has(id, `{"firmware":{"state":"good"}}`)
	f.desire(id, `{"firmware":{"job":"j1","url":"https://x.example/fw","sha256":"00","version":"2.1.0"}}`)
	f.has(id, `{"firmware":{"job":"j1","state":"trying","version":"2.1.0","slot":"b","previous":"2.0.0"},"boot":{"count":2}}`)
	f.call(id, "firmwareConfirm", `{"job":"j1"}`, 200)
	f.has(id, `{"firmware":{"job":"j1","state":"good","version":"2.1.0","slot":"b"}}`)
	f.call(id, "firmwareConfirm", `{"job":"j1"}`, 200) // again
	f.call(id, "firmwareRevert", `{"job":"j1"}`, 200)
	f.has(id, `{"firmware":{"job":"j1","state":"failed","version":"2.0.0","slot":"a"},"boot":{"count":3}}`)
	f.call(id, "firmwareRevert", `{"job":"j1"}`, 200) // again

	f.desire(id, `{"firmware":{"job":"j2","sha256":"bad0","version":"2.2.0"}}`)
	f.has(id, `{"firmware":{"job":"j2","state":"failed","version":"2.0.0","message":"the image's SHA-256 is another one"}}`)
	f.desire(id, `{"firmware":null}`)
	f.desire(id, `{"firmware":{"job":"j2","sha256":"00","version":"2.2.0"}}`) // worked on already
	if a := f.call(id, "reportStatus", `{"id":"s"}`, 200); a["version"] != "2.0.0" {
		t.Errorf("status: %v", a)
	}
	if times := f.commands(); times[id+" firmware j1"] != 1 || times[id+" firmware j2"] != 1 {
		t.Errorf("the log: %v", times)
	}
}

func TestManagedKey(t *testing.T) {
	f := newManagedFleet(t, 1, "")
	const id = "m-000001"
	f.has(id, `{"key":{"slot":"primary"}}`)
	i, err := f.hub.Service.Identity(f.ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	f.call(id, "installKey", fmt.Sprintf(`{"id":"k1","slot":"secondary","key":%q}`, i.Authentication.SymmetricKey.Secondary), 200)
	f.has(id, `{"key":{"id":"k1","slot":"secondary"}}`)
	fresh := auth.NewKey()
	i.Authentication.SymmetricKey.Primary = fresh.Reveal()
	if _, err := f.hub.Service.UpdateIdentity(f.ctx, i, "*"); err != nil {
		t.Fatal(err)
	}
	f.call(id, "reboot", `{"id":"r"}`, 200) // it comes back with the secondary key
	f.has(id, `{"boot":{"count":2},"key":{"slot":"secondary"}}`)
}

// TestManagedMisses finds that a device acts upon what was written while it was
// away, and that cohorts have their trouble with what is managed.
func TestManagedMisses(t *testing.T) {
	f := newManagedFleet(t, 4, "cohorts:\n- {name: failing, share: 1, methods: [reboot], method_status: 500}\n- {name: rejecting, share: 1, refuse: [pump]}\n- {name: ill, share: 1, ill: true}\n")
	var versions [5]int64
	for i := 1; i <= 4; i++ {
		id := fmt.Sprintf("m-%06d", i)
		f.has(id, `{"boot":{"count":1}}`)
		versions[i] = f.desire(id, `{"valve":{"open":true}}`)
		versions[i] = f.desire(id, `{"pump":{"rpm":900}}`)
	}
	said := map[string]int{}
	for i := 1; i <= 4; i++ {
		id := fmt.Sprintf("m-%06d", i)
		f.has(id, fmt.Sprintf(`{"valve":{"open":true},"configuration":{"pump":{"version":%d}}}`, versions[i]))
		have := reported(f.ctx, t, f.hub, id)["configuration"].(map[string]any)["pump"].(map[string]any) //nolint:forcetypeassert // just seen
		said[fmt.Sprint(have["status"])]++
		r, err := f.hub.Service.InvokeMethod(f.ctx, id, "", client.MethodCall{Name: "reboot", Payload: json.RawMessage(`{"id":"x"}`)})
		if err != nil {
			t.Fatal(err)
		}
		said[fmt.Sprint("reboot ", r.Status)]++
		if r.Status == 200 {
			f.has(id, `{"boot":{"count":2}}`)
		}
		said[fmt.Sprint("healthy ", f.call(id, "healthCheck", `{}`, 200)["healthy"])]++
	}
	want := map[string]int{"applied": 3, "rejected": 1, "reboot 200": 3, "reboot 500": 1, "healthy true": 3, "healthy false": 1}
	if fmt.Sprint(said) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", said, want)
	}

	const id = "m-000001"
	f.has(id, `{"valve":{"open":true},"configuration":{"valve":{"status":"applied"}}}`)
	f.desire(id, `{"light":{"on":true},"valve":{"level":{"low":1,"high":9}}}`)
	f.has(id, `{"light":{"on":true},"valve":{"open":true,"level":{"low":1,"high":9}}}`)
	f.load.Drop()
	eventually(f.ctx, t, id+" is away", func() bool {
		i, err := f.hub.Service.Identity(f.ctx, id, "")
		return err == nil && i.ConnectionState == "Disconnected"
	})
	f.desire(id, `{"light":null,"valve":{"open":null,"level":{"low":null}}}`)
	f.has(id, `{"light":null,"valve":{"open":null,"level":{"low":null,"high":9}},"configuration":{"light":{"status":"removed"}}}`)
}

func TestCommandLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "commands")
	l, err := simulator.OpenCommandLog(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := simulator.OpenCommandLog(name); err == nil || !strings.Contains(err.Error(), "another simulator") {
		t.Errorf("a second one: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := simulator.OpenCommandLog(filepath.Join(name, "below")); err == nil {
		t.Error("a log below a file was opened")
	}
}
