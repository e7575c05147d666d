package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/storage"
)

// fleet is a hub that runs, in a bubble of synctest: when all in it rests,
// everything that follows a change has been done.
type fleet struct {
	*testing.T
	hub  *engine.Hub
	stop func()
}

// openFleet opens and runs a hub. stop ends it.
func openFleet(t *testing.T, dir string, options ...enginetest.Option) *fleet {
	t.Helper()
	o := engine.Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20, Reserve: 1}, Hosts: []string{enginetest.HostName}}
	for _, f := range options {
		f(&o)
	}
	h, err := engine.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	f := &fleet{T: t, hub: h}
	f.stop = func() {
		cancel()
		<-done
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	return f
}

// withFleet runs a test on a hub.
func withFleet(t *testing.T, f func(t *testing.T, f *fleet), options ...enginetest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := openFleet(t, t.TempDir(), options...)
		defer k.stop()
		f(t, k)
	})
}

func twinID(text string) engine.TwinID {
	d, m, _ := strings.Cut(text, "/")
	return engine.TwinID{DeviceID: d, ModuleID: m}
}

// device makes a device or module with tags.
func (f *fleet) device(id, tags string) {
	f.Helper()
	name := twinID(id)
	mustCreate(f.T, f.hub, engine.Identity{DeviceID: name.DeviceID, ModuleID: name.ModuleID})
	if tags != "" {
		f.patch(id, tags, "")
	}
}

func (f *fleet) patch(id, tags, desired string) {
	f.Helper()
	var u engine.TwinUpdate
	if tags != "" {
		u.Tags = []byte(tags)
	}
	if desired != "" {
		u.Desired = []byte(desired)
	}
	if _, err := f.hub.PatchTwin(context.Background(), enginetest.Owner(), twinID(id), u, engine.IfMatch{}); err != nil {
		f.Fatal(err)
	}
}

// put makes or changes a configuration of devices, or of modules if its condition
// begins so.
func (f *fleet) put(id string, priority int, condition, content string) engine.Configuration {
	f.Helper()
	g := engine.Configuration{ID: id, Priority: priority, TargetCondition: condition}
	switch {
	case strings.HasPrefix(condition, "FROM"):
		g.Content.Module = json.RawMessage(content)
	case strings.Contains(content, "$edgeAgent"):
		g.Content.Modules = json.RawMessage(content)
	default:
		g.Content.Device = json.RawMessage(content)
	}
	return f.store(g)
}

// store makes a configuration, or changes it when it exists.
func (f *fleet) store(g engine.Configuration) engine.Configuration {
	f.Helper()
	time.Sleep(time.Millisecond) // each is newer than those before
	stored, err := f.hub.PutConfiguration(context.Background(), enginetest.Owner(), g, engine.IfMatch{})
	if err != nil && engine.AsError(err).Code == engine.CodeConfigurationAlreadyExists {
		stored, err = f.hub.PutConfiguration(context.Background(), enginetest.Owner(), g, engine.ParseIfMatch("*"))
	}
	if err != nil {
		f.Fatal(err)
	}
	return stored
}

func (f *fleet) remove(id string) {
	f.Helper()
	if err := f.hub.DeleteConfiguration(context.Background(), enginetest.Owner(), id, engine.IfMatch{}); err != nil {
		f.Fatal(err)
	}
}

// state is a twin's desired properties and configurations, when all is done:
// {"a":1} c=Applied d=Targeted.
func (f *fleet) state(id string) string {
	f.Helper()
	synctest.Wait()
	t, err := f.hub.Twin(context.Background(), enginetest.Owner(), twinID(id))
	if err != nil {
		f.Fatal(err)
	}
	var plain any // its members in the order of their names
	if err := json.Unmarshal(t.Desired.Plain(nil), &plain); err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(plain)
	if err != nil {
		f.Fatal(err)
	}
	list := []string{string(text)}
	for id, status := range t.Configurations {
		list = append(list, id+"="+string(status))
	}
	slices.Sort(list[1:])
	return strings.Join(list, " ")
}

func (f *fleet) want(id, state string) {
	f.Helper()
	if got := f.state(id); got != state {
		f.Errorf("%s is %s, expected %s", id, got, state)
	}
}

// ids are the rows of a query.
func (f *fleet) ids(text string) string {
	f.Helper()
	synctest.Wait()
	page, err := f.hub.Query(context.Background(), enginetest.Owner(), engine.QueryRequest{Text: text})
	if err != nil {
		f.Fatal(err)
	}
	var list []string
	for _, row := range page.Rows {
		var v struct{ DeviceID, ModuleID string }
		if err := json.Unmarshal(row, &v); err != nil {
			f.Fatal(err)
		}
		list = append(list, strings.TrimSuffix(v.DeviceID+"/"+v.ModuleID, "/"))
	}
	return strings.Join(list, " ")
}

func (f *fleet) progress(id string) engine.ConfigurationProgress {
	f.Helper()
	synctest.Wait()
	p, err := f.hub.ConfigurationProgress(context.Background(), enginetest.Owner(), id)
	if err != nil {
		f.Fatal(err)
	}
	return p
}

func (f *fleet) read(id string) engine.Configuration {
	f.Helper()
	synctest.Wait()
	g, err := f.hub.Configuration(context.Background(), enginetest.Owner(), id)
	if err != nil {
		f.Fatal(err)
	}
	return g
}

func TestConfigurationIsApplied(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		f.device("d1", `{"site":"lyon"}`)
		f.device("d2", `{"site":"oslo"}`)
		f.patch("d1", "", `{"own":true}`)
		f.put("rate", 5, "tags.site = 'lyon'", `{"properties.desired.rate":10}`)
		f.want("d1", `{"own":true,"rate":10} rate=Applied`)
		f.want("d2", `{}`)
		if got := f.ids("SELECT deviceId FROM devices WHERE configurations.[[rate]].status = 'Applied'"); got != "d1" {
			t.Errorf("applied in %q", got)
		}

		// A twin that begins to match, one that is made, one that stops matching.
		f.patch("d2", `{"site":"lyon"}`, "")
		f.device("d3", `{"site":"lyon"}`)
		f.patch("d1", `{"site":"oslo"}`, "")
		f.want("d1", `{"own":true}`)
		f.want("d2", `{"rate":10} rate=Applied`)
		f.want("d3", `{"rate":10} rate=Applied`)
		if got := f.ids("SELECT deviceId FROM devices WHERE configurations.[[rate]].status = 'Applied'"); got != "d2 d3" {
			t.Errorf("applied in %q", got)
		}
		if got := f.ids("SELECT deviceId FROM devices WHERE NOT is_defined(configurations)"); got != "d1" {
			t.Errorf("without are %q", got)
		}

		// What somebody else writes there does not stay; the rest is theirs.
		f.patch("d2", "", `{"rate":99,"own":1}`)
		f.want("d2", `{"own":1,"rate":10} rate=Applied`)
		f.patch("d2", "", `{"rate":null}`)
		f.want("d2", `{"own":1,"rate":10} rate=Applied`)

		// Reported properties select, too.
		f.put("new", 9, "properties.reported.fw = '2'", `{"properties.desired.rate":20}`)
		d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "d3"}, engine.EndpointDesired)
		if _, err := d.Session.PatchReported(context.Background(), []byte(`{"fw":"2"}`), -1); err != nil {
			t.Fatal(err)
		}
		f.want("d3", `{"rate":20} new=Applied rate=Targeted`)
		if n := d.Notifications(); len(n) != 1 || n[0].Patch != `{"rate":20,"$version":3}` {
			t.Errorf("the device is told %v", n)
		}
		if _, err := d.Session.PatchReported(context.Background(), []byte(`{"fw":"3"}`), -1); err != nil {
			t.Fatal(err)
		}
		f.want("d3", `{"rate":10} rate=Applied`)
	})
}

// The history of a twin tells on behalf of which configuration it was changed, and
// by whom that was made; a change that changes nothing is none.
func TestConfigurationIsACause(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		f.device("d1", `{"site":"lyon"}`)
		f.put("a", 1, "tags.site = 'lyon'", `{"properties.desired.x":1}`)
		f.state("d1")
		f.put("b", 2, "tags.site = 'lyon'", `{"properties.desired.y":1}`)
		f.state("d1")
		f.put("b", 2, "*", `{"properties.desired.y":1}`)
		f.put("a", 3, "tags.site = 'lyon'", `{"properties.desired.x":1}`)
		f.patch("d1", `{"other":1}`, "")
		f.want("d1", `{"x":1,"y":1} a=Applied b=Applied`)
		list, _, err := f.hub.TwinHistory(context.Background(), enginetest.Owner(), twinID("d1"), engine.HistoryDesired, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			got = append(got, e.Cause+" "+e.Principal+" "+string(e.Patch))
		}
		if want := []string{`configuration:b local:uid=0 {"y":1}`, `configuration:a local:uid=0 {"x":1}`}; !slices.Equal(got, want) {
			t.Errorf("history %q, expected %q", got, want)
		}
		events, _, err := f.hub.ReadEvents(context.Background(), enginetest.Owner(), engine.EventFilter{Kinds: []string{"configuration.*"}}, engine.CursorStart, 100)
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, e := range events {
			got = append(got, e.Kind+" "+e.ID.DeviceID+" "+string(e.Data))
		}
		want := []string{
			`configuration.saved  {"configuration":"a","revision":1}`,
			`configuration.applied d1 {"configurations":{"a":{"status":"Applied"}}}`,
			`configuration.saved  {"configuration":"b","revision":1}`,
			`configuration.applied d1 {"configurations":{"a":{"status":"Applied"},"b":{"status":"Applied"}}}`,
			`configuration.saved  {"configuration":"b","revision":2}`,
			`configuration.saved  {"configuration":"a","revision":2}`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("events %s\nexpected %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestConfigurationsCompete(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		f.device("d1", `{"site":"lyon"}`)
		f.put("low", 1, "*", `{"properties.desired":{"rate":1,"extra":true}}`)
		f.put("high", 2, "tags.site = 'lyon'", `{"properties.desired.rate":2}`)
		f.want("d1", `{"extra":true,"rate":2} high=Applied low=Applied`)
		f.put("newer", 2, "*", `{"properties.desired.rate":3}`)
		f.want("d1", `{"extra":true,"rate":3} high=Targeted low=Applied newer=Applied`)
		f.put("low", 5, "*", `{"properties.desired":{"rate":1,"extra":true}}`) // its priority changes
		f.want("d1", `{"extra":true,"rate":1} high=Targeted low=Applied newer=Targeted`)
		f.put("low", 5, "*", `{"properties.desired":{"extra":null}}`) // its content
		f.want("d1", `{"rate":3} high=Targeted low=Applied newer=Applied`)
		f.put("newer", 2, "", `{"properties.desired.rate":3}`) // its condition
		f.want("d1", `{"rate":2} high=Applied low=Applied`)
		f.remove("high") // what it has set stays
		f.want("d1", `{"rate":2} low=Applied`)
		f.put("newer", 2, "*", `{"properties.desired.rate":3}`)
		f.want("d1", `{"rate":3} low=Applied newer=Applied`)
		f.remove("newer")
		f.remove("low")
		f.want("d1", `{"rate":3}`)
		f.put("low", 0, "*", `{"properties.desired.extra":7}`) // another one of the same name
		f.want("d1", `{"extra":7,"rate":3} low=Applied`)
	})
}

func TestModuleConfiguration(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		f.device("d1", `{"site":"lyon"}`)
		f.device("d1/m", `{"role":"scan"}`)
		f.device("d1/n", "")
		f.put("scan", 1, "FROM devices.modules WHERE tags.role = 'scan'", `{"properties.desired.dpi":300}`)
		f.put("dev", 1, "tags.site = 'lyon'", `{"properties.desired.x":1}`)
		f.want("d1", `{"x":1} dev=Applied`)
		f.want("d1/m", `{"dpi":300} scan=Applied`)
		f.want("d1/n", `{}`)
		if got := f.ids("SELECT deviceId, moduleId FROM devices.modules WHERE configurations.[[scan]].status = 'Applied'"); got != "d1/m" {
			t.Errorf("applied in %q", got)
		}
		f.patch("d1/n", `{"role":"scan"}`, "")
		f.patch("d1/m", `{"role":null}`, "")
		f.want("d1/m", `{}`)
		f.want("d1/n", `{"dpi":300} scan=Applied`)
		g := f.read("scan")
		if g.SystemMetrics.Results[engine.MetricTargeted] != 1 || g.SystemMetrics.Results[engine.MetricApplied] != 1 {
			t.Errorf("metrics %v", g.SystemMetrics)
		}
	})
}

func TestEdgeConfiguration(t *testing.T) {
	const base = `{"$edgeAgent":{"properties.desired":{"modules":{"a":{"version":"1"}}}},"a":{"properties.desired":{"level":1}}}`
	withFleet(t, func(t *testing.T, f *fleet) {
		mustCreate(t, f.hub, engine.Identity{DeviceID: "e1", Edge: true})
		f.patch("e1", `{"site":"lyon"}`, "")
		f.device("leaf", `{"site":"lyon"}`)
		f.device("leaf/a", "")
		f.put("base", 1, "tags.site = 'lyon'", base)
		f.put("layer", 3, "*", `{"$edgeAgent":{"properties.desired.modules.b":{"version":"2"}},"a":{"properties.desired.level":2}}`)
		f.put("other", 0, "*", strings.ReplaceAll(base, `"1"`, `"9"`))
		f.want("e1", `{}`)
		f.want("e1/$edgeAgent", `{"modules":{"a":{"version":"1"},"b":{"version":"2"}}} base=Applied layer=Applied other=Targeted`)
		f.want("leaf/a", `{}`)
		f.device("e1/a", "") // the runtime makes it
		f.want("e1/a", `{"level":2} base=Targeted layer=Applied other=Targeted`)
		g := f.read("base")
		if r := g.SystemMetrics.Results; r[engine.MetricTargeted] != 1 || r[engine.MetricApplied] != 1 || r[engine.MetricReportedSuccessful] != 0 {
			t.Errorf("metrics %v", r)
		}
		if p := f.progress("base"); p.Settled != 1 || p.Targeted != 1 || p.Pending != 0 {
			t.Errorf("progress %+v", p)
		}
		f.patch("e1", `{"site":"oslo"}`, "") // the device's tags move its modules
		f.want("e1/$edgeAgent", `{"modules":{"a":{"version":"9"},"b":{"version":"2"}}} layer=Applied other=Applied`)
	})
}

func TestApplyConfigurationContent(t *testing.T) {
	ctx := context.Background()
	withFleet(t, func(t *testing.T, f *fleet) {
		mustCreate(t, f.hub, engine.Identity{DeviceID: "e1", Edge: true})
		f.device("leaf", "")
		f.patch("e1/$edgeAgent", "", `{"old":1}`)
		content := engine.ConfigurationContent{Modules: json.RawMessage(`{"$edgeAgent":{"properties.desired":{"modules":{}}},"m":{"properties.desired":{"x":1}}}`)}
		if err := f.hub.ApplyConfigurationContent(ctx, enginetest.Owner(), "e1", content); err != nil {
			t.Fatal(err)
		}
		f.want("e1/$edgeAgent", `{"modules":{}}`)
		f.want("e1/m", `{"x":1}`)
		m, err := f.hub.Identity(ctx, enginetest.Owner(), twinID("e1/m"))
		if err != nil || m.ManagedBy != "iotEdge" || m.Authentication.PrimaryKey == "" {
			t.Errorf("the module is %+v, %v", m, err)
		}
		wantCode(t, f.hub.ApplyConfigurationContent(ctx, enginetest.Owner(), "leaf", content), engine.CodeArgumentInvalid)
		wantCode(t, f.hub.ApplyConfigurationContent(ctx, enginetest.Owner(), "nobody", content), engine.CodeDeviceNotFound)
		for _, bad := range []engine.ConfigurationContent{
			{Device: json.RawMessage(`{"properties.desired.x":1}`)},
			{Modules: json.RawMessage(`{"$edgeAgent":{"properties.desired.x":1}}`)},
			{Modules: json.RawMessage(`{"m":{"properties.desired":{}}}`)},
			{},
		} {
			wantCode(t, f.hub.ApplyConfigurationContent(ctx, enginetest.Owner(), "e1", bad), engine.CodeConfigurationContent)
		}
		service := enginetest.Owner()
		service.Permissions = auth.ServiceConnect
		content.Modules = json.RawMessage(`{"$edgeAgent":{"properties.desired":{"a":1}},"m2":{"properties.desired":{"x":1}}}`)
		wantCode(t, f.hub.ApplyConfigurationContent(ctx, service, "e1", content), engine.CodeForbidden)
		f.want("e1/$edgeAgent", `{"modules":{}}`) // all or nothing
		content.Modules = json.RawMessage(`{"$edgeAgent":{"properties.desired":{"a":1}},"m":{"properties.desired":{"x":2}}}`)
		if err := f.hub.ApplyConfigurationContent(ctx, service, "e1", content); err != nil {
			t.Error(err)
		}
		f.want("e1/m", `{"x":2}`)
	})
}

func TestConfigurationMetrics(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		for i := range 7 {
			f.device(fmt.Sprintf("d%d", i), fmt.Sprintf(`{"n":%d}`, i))
		}
		f.store(engine.Configuration{
			ID: "m", TargetCondition: "tags.n < 5", Content: engine.ConfigurationContent{Device: json.RawMessage(`{"properties.desired.x":1}`)},
			Metrics: engine.ConfigurationMetrics{Queries: map[string]string{
				"small":  "SELECT deviceId FROM devices WHERE tags.n < 2",
				"count":  "SELECT COUNT() AS n FROM devices",
				"groups": "SELECT tags.n, COUNT() FROM devices GROUP BY tags.n",
				"top":    "SELECT TOP 3 deviceId FROM devices",
				"mine":   "SELECT deviceId FROM devices WHERE configurations.[[m]].status = 'Applied'",
				"none":   "SELECT deviceId FROM devices WHERE tags.n > 100",
			}},
		})
		f.store(engine.Configuration{ID: "empty", Content: engine.ConfigurationContent{Device: json.RawMessage(`{"properties.desired.x":1}`)}})
		f.store(engine.Configuration{ID: "all", TargetCondition: "*", Content: engine.ConfigurationContent{Device: json.RawMessage(`{"properties.desired.x":2}`)}})
		g := f.read("m")
		for name, want := range map[string]int64{"small": 2, "count": 1, "groups": 7, "top": 3, "mine": 0, "none": 0} {
			if got, ok := g.Metrics.Results[name]; !ok || got != want {
				t.Errorf("%s is %d, expected %d", name, got, want)
			}
		}
		for id, want := range map[string][2]int64{"m": {5, 0}, "empty": {0, 0}, "all": {7, 7}} {
			s := f.read(id).SystemMetrics
			if s.Results[engine.MetricTargeted] != want[0] || s.Results[engine.MetricApplied] != want[1] {
				t.Errorf("%s: %v, expected %v", id, s.Results, want)
			}
			for name, text := range s.Queries { // they can be run as they are
				rows := 0
				if got := f.ids(text); got != "" {
					rows = len(strings.Fields(got))
				}
				if int64(rows) != s.Results[name] {
					t.Errorf("%s of %s gives %d rows, and the result is %d: %s", name, id, rows, s.Results[name], text)
				}
			}
		}
		if p := f.progress("m"); p.Targeted != 5 || p.Settled != 5 || p.Applied != 0 || p.Pending != 0 || p.Working {
			t.Errorf("progress %+v", p)
		}
		if err := f.hub.DeleteIdentity(context.Background(), enginetest.Owner(), twinID("d0"), engine.ParseIfMatch("*")); err != nil {
			t.Fatal(err)
		}
		if p := f.progress("m"); p.Targeted != 4 || p.Settled != 4 {
			t.Errorf("progress %+v", p)
		}
		f.put("m", 0, "tags.n = 3", `{"properties.desired.x":1}`)
		if p := f.progress("m"); p.Targeted != 1 || p.Settled != 1 || p.Revision != 2 {
			t.Errorf("progress %+v", p)
		}
	})
}

// A twin that can't take what it should have keeps what it had, and says why; when
// it can, it takes it.
func TestConfigurationThatATwinDoesNotTake(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		f.device("d1", "")
		text := `"` + strings.Repeat("x", 4000) + `"`
		for i := range 7 {
			f.patch("d1", "", fmt.Sprintf(`{"own%d":%s}`, i, text))
		}
		f.put("small", 1, "*", `{"properties.desired.s":1}`)
		f.put("large", 2, "*", fmt.Sprintf(`{"properties.desired.l":{"a":%s,"b":%s}}`, text, text))
		if got := f.state("d1"); !strings.HasSuffix(got, `,"s":1} large=Targeted small=Applied`) {
			t.Errorf("it ends with %s", got[max(0, len(got)-100):])
		}
		if p := f.progress("large"); p.Failed != 1 || p.Settled != 0 || p.Pending != 0 || p.Targeted != 1 || p.Applied != 0 {
			t.Errorf("progress %+v", p)
		}
		f.patch("d1", "", `{"own1":null,"l":1}`)
		if got := f.state("d1"); !strings.HasSuffix(got, `large=Applied small=Applied`) {
			t.Errorf("it ends with %s", got[max(0, len(got)-100):])
		}
		if p := f.progress("large"); p.Failed != 0 || p.Settled != 1 {
			t.Errorf("progress %+v", p)
		}
	}, enginetest.Azure)
}

// As many configurations as there may be, on a fleet of which each device has a
// tenth of them: a thousand, or under the race detector IoT Hub's hundred.
func TestManyConfigurations(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	const devices = 20
	configurations, same := 1000, "993"
	var options []enginetest.Option
	if raceDetector {
		configurations, same, options = 100, "83", []enginetest.Option{enginetest.Azure}
	}
	withFleet(t, func(t *testing.T, f *fleet) {
		for i := range devices {
			f.device(fmt.Sprint("d", i), fmt.Sprintf(`{"n":%d}`, i%10))
		}
		for i := range configurations {
			f.put(fmt.Sprint("g", i), i%7, fmt.Sprintf("tags.n = %d", i%10), fmt.Sprintf(`{"properties.desired":{"k%d":%d,"same":%d}}`, i/10, i, i))
		}
		_, err := f.hub.PutConfiguration(context.Background(), enginetest.Owner(), engine.Configuration{ID: "more", Content: deviceContent(`{"properties.desired.x":1}`)}, engine.IfMatch{})
		wantCode(t, err, engine.CodeTooManyConfigurations)
		d, err := func() (engine.Twin, error) {
			synctest.Wait()
			return f.hub.Twin(context.Background(), enginetest.Owner(), twinID("d3"))
		}()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.Configurations); n != configurations/10 {
			t.Errorf("it has %d configurations", n)
		}
		// Those of n = 3 end with a 3; at "same" the newest of the highest priority wins.
		last, third, fourth := fmt.Sprint("k", configurations/10-1), fmt.Sprint(configurations-7), fmt.Sprint(configurations-6)
		for path, want := range map[string]string{"same": same, "k0": "3", last: third} {
			if got, _ := d.Desired.Get(path); string(got) != want {
				t.Errorf("%s is %s, expected %s", path, got, want)
			}
		}
		f.patch("d3", `{"n":4}`, "")
		if got := f.state("d3"); !strings.Contains(got, fmt.Sprintf("%q:%s", last, fourth)) || strings.Contains(got, ":"+third) {
			t.Errorf("with another tag it is %s", got)
		}
		if p := f.progress("g" + third); p.Targeted != 1 || p.Settled != 1 {
			t.Errorf("%+v", p)
		}
	}, options...)
}

// When the change log was cut before it was followed, every twin is looked at.
func TestConfigurationsAfterAGapInTheChangeLog(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openFleet(t, dir)
		f.device("d1", `{"site":"oslo"}`)
		f.device("d2", `{"site":"lyon"}`)
		f.put("g", 1, "tags.site = 'lyon'", `{"properties.desired.rate":10}`)
		f.want("d2", `{"rate":10} g=Applied`)
		f.stop()
		// Nobody follows now.
		h, err := engine.Open(context.Background(), engine.Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20, Reserve: 1}, Hosts: []string{enginetest.HostName}})
		if err != nil {
			t.Fatal(err)
		}
		k := &fleet{T: t, hub: h}
		k.patch("d1", `{"site":"lyon"}`, "")
		k.patch("d2", `{"site":"oslo"}`, "")
		for i := range 300 {
			k.patch("d1", fmt.Sprintf(`{"other":%d}`, i), "")
		}
		if err := h.TrimChanges(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		f = openFleet(t, dir)
		defer f.stop()
		time.Sleep(time.Second) // what is spread waits until queries are ready
		f.want("d1", `{"rate":10} g=Applied`)
		f.want("d2", `{}`)
	})
}
