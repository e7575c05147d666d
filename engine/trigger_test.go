package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// triggered is a pattern that is done at once, with triggers.
func triggered(name, version string, triggers ...pattern.Trigger) enginetest.Script {
	return enginetest.Script{
		Manifest: pattern.Manifest{Name: name, Version: version, Conflicts: pattern.ConflictShare, Triggers: triggers, Params: json.RawMessage(`{"why":{"type":"string"}}`)},
		Run:      func(p *enginetest.Play) (any, error) { return nil, nil },
	}
}

// started counts the runs of a pattern by device.
func (f *runFixture) started(name string) map[string]int {
	f.t.Helper()
	n := map[string]int{}
	cursor := ""
	for {
		list, next, err := f.Runs(f.t.Context(), enginetest.Owner(), engine.RunFilter{Pattern: name}, 100, cursor)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, r := range list {
			n[r.Device.DeviceID]++
		}
		if cursor = next; cursor == "" {
			return n
		}
	}
}

// startedUntil waits for the runs of a pattern.
func (f *runFixture) startedUntil(name string, want map[string]int) {
	f.t.Helper()
	var got map[string]int
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if got = f.started(name); maps.Equal(got, want) {
			return
		}
	}
	p, err := f.Pattern(f.t.Context(), enginetest.Owner(), name, "")
	f.t.Fatalf("runs of %s: %v, want %v; %+v %v", name, got, want, p.Triggers, err)
}

func (f *runFixture) triggers(name string) []engine.TriggerState {
	f.t.Helper()
	p, err := f.Pattern(f.t.Context(), enginetest.Owner(), name, "")
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Triggers
}

// working waits until all triggers of a pattern work.
func (f *runFixture) working(name string) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(2 * time.Millisecond) {
		if !slices.ContainsFunc(f.triggers(name), func(s engine.TriggerState) bool { return !s.Active || s.Marking }) {
			return
		}
	}
	f.t.Fatalf("the triggers do not work: %+v", f.triggers(name))
}

func (f *runFixture) tag(id engine.TwinID, tags string) {
	f.t.Helper()
	if _, err := f.PatchTwin(f.t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Tags: []byte(tags)}, engine.IfMatch{}); err != nil {
		f.t.Fatal(err)
	}
}

// openFixture opens a hub that runs until stop is called.
func openFixture(t *testing.T, scripts *enginetest.Scripts, dir string) (f *runFixture, stop func()) {
	t.Helper()
	f = &runFixture{t: t, scripts: scripts}
	f.Hub = enginetest.New(t, enginetest.Dir(dir), enginetest.WithScripts(scripts))
	enginetest.InstallScripts(t, f.Hub, scripts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Hub.Run(ctx) }()
	wait := func() { cancel(); <-done }
	t.Cleanup(wait)
	return f, func() {
		wait()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// pass has a trigger pass all that has happened: it follows in order, so it has
// when it has started a run for what comes behind.
func (f *runFixture) pass(name string, marks *int, want map[string]int) {
	f.t.Helper()
	mark := f.device(fmt.Sprintf("mark%d", *marks))
	*marks++
	f.tag(mark, `{"mark":true}`)
	want[mark.DeviceID]++
	f.startedUntil(name, want)
}

func TestTriggerOnCondition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	scripts := enginetest.NewScripts()
	f, stop := openFixture(t, scripts, dir)
	a, b, c := f.device("a"), f.device("b"), f.device("c")
	f.tag(a, `{"hot":true}`)
	trigger := pattern.Trigger{When: "tags.hot == true or tags.mark == true", Where: "deviceId != 'c'", Params: json.RawMessage(`{"why":"hot"}`)}
	scripts.Add(triggered("cool", "1.0.0", trigger))
	enginetest.InstallScripts(t, f.Hub, scripts)
	f.working("cool")
	marks, want := 0, map[string]int{}
	flip := func(id engine.TwinID) {
		t.Helper()
		f.tag(id, `{"hot":false}`)
		f.pass("cool", &marks, want)
		f.tag(id, `{"hot":true}`)
	}
	// What held when it was enabled does not count; what comes to hold does, once.
	f.tag(b, `{"hot":true}`)
	f.tag(c, `{"hot":true}`)
	want["b"] = 1
	f.startedUntil("cool", want)
	f.tag(b, `{"note":1}`)
	flip(a)
	want["a"] = 1
	f.startedUntil("cool", want)
	r, _, err := f.Runs(t.Context(), enginetest.Owner(), engine.RunFilter{Device: b}, 1, "")
	if err != nil || r[0].Trigger != "when" || string(r[0].Params) != `{"why":"hot"}` {
		t.Errorf("%+v, %v", r, err)
	}
	// A restart neither repeats nor loses one.
	stop()
	f, _ = openFixture(t, scripts, dir)
	flip(b)
	want["b"] = 2
	f.startedUntil("cool", want)
	// The next version goes on with what this one knows.
	scripts.Add(triggered("cool", "1.1.0", trigger))
	enginetest.InstallScripts(t, f.Hub, scripts)
	d := f.device("d")
	f.tag(d, `{"hot":true}`)
	want["d"] = 1
	f.startedUntil("cool", want)
	if s := f.triggers("cool"); s[0].Started != int64(4+marks) || s[0].Refused != 0 {
		t.Errorf("%+v", s)
	}
	// While it is disabled nothing is started, and nothing is made up for.
	if _, err := f.DisablePattern(t.Context(), enginetest.Owner(), "cool", "", ""); err != nil {
		t.Fatal(err)
	}
	f.tag(a, `{"hot":false}`)
	f.tag(a, `{"hot":true}`)
	if _, err := f.EnablePattern(t.Context(), enginetest.Owner(), "cool", "", ""); err != nil {
		t.Fatal(err)
	}
	f.working("cool")
	flip(b)
	want["b"] = 3
	f.startedUntil("cool", want)
	// Deleted and made again: it comes to match again.
	if err := f.DeleteIdentity(t.Context(), enginetest.Owner(), d, engine.IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	f.pass("cool", &marks, want)
	f.device("d")
	f.tag(d, `{"hot":true}`)
	want["d"] = 2
	f.startedUntil("cool", want)
}

func TestTriggerOnEvents(t *testing.T) {
	t.Parallel()
	slow := triggered("meet", "1.0.0", pattern.Trigger{Event: pattern.EventConnected}, pattern.Trigger{Event: pattern.EventCreated, Where: "deviceId != 'b'"})
	slow.Manifest.Needs = pattern.Needs{"twin:read"}
	slow.Run = func(p *enginetest.Play) (any, error) {
		if p.Device == "b" {
			return p.Wait("tags.free == true", nil, "")
		}
		return nil, nil
	}
	f := newRunFixture(t, enginetest.NewScripts(slow))
	f.working("meet")
	a, b := f.device("a"), f.device("b")
	f.startedUntil("meet", map[string]int{"a": 1})
	answer := func(enginetest.Method) (int, []byte) { return 200, nil }
	f.connect(a, answer)
	f.connect(b, answer)
	f.startedUntil("meet", map[string]int{"a": 2, "b": 1})
	// One at a time on a device: what is refused is counted.
	f.connect(b, answer)
	for end := time.Now().Add(10 * time.Second); f.triggers("meet")[0].Refused == 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", f.triggers("meet"))
		}
	}
	if s := f.triggers("meet"); s[0].Why == "" || s[0].Last.IsZero() {
		t.Errorf("%+v", s)
	}
	f.tag(b, `{"free":true}`)
	list, _, err := f.Runs(t.Context(), enginetest.Owner(), engine.RunFilter{Device: b}, 10, "")
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	f.state(list[0].ID, pattern.Succeeded)
}

func TestTriggerOnTime(t *testing.T) {
	t.Parallel()
	daily := triggered("daily", "1.0.0", pattern.Trigger{Cron: "0 3 * * *", Where: "tags.in == true"})
	report := triggered("report", "1.0.0", pattern.Trigger{Cron: "*/5 * * * *"})
	report.Manifest.Scope = pattern.ScopeFleet
	scripts := enginetest.NewScripts(daily, report)
	f := newRunFixture(t, scripts)
	f.working("daily")
	f.working("report")
	s := f.triggers("daily")
	if s[0].Job == "" {
		t.Fatalf("%+v", s)
	}
	j, err := f.Job(t.Context(), enginetest.Owner(), s[0].Job)
	if err != nil || j.Kind != engine.JobRunPattern || j.Policy.Repeat != "0 3 * * *" || j.Targets.Where != "tags.in == true" || j.Policy.Start.Hour() != 3 || j.Labels["pattern"] != "daily" {
		t.Errorf("%+v, %v", j, err)
	}
	if s := f.triggers("report"); s[0].Job != "" || s[0].Next.Minute()%5 != 0 || s[0].Next.Before(time.Now()) {
		t.Errorf("%+v", s)
	}
	// Another version has a job of its own; none is left when it is disabled.
	daily.Manifest.Version = "2.0.0"
	scripts.Add(daily)
	enginetest.InstallScripts(t, f.Hub, scripts)
	ended := func(id string) {
		t.Helper()
		f.jobUntil(id, "its end", func(j engine.Job) bool { return j.Status().Final() && j.NextRun.IsZero() })
	}
	ended(s[0].Job)
	f.working("daily")
	next := f.triggers("daily")[0].Job
	if j, err = f.Job(t.Context(), enginetest.Owner(), next); err != nil || j.Action.Run.Version != "2.0.0" {
		t.Errorf("%+v, %v", j, err)
	}
	if _, err := f.DisablePattern(t.Context(), enginetest.Owner(), "daily", "", ""); err != nil {
		t.Fatal(err)
	}
	ended(next)
}

// TestTriggersLikeTheModel changes twins at random, restarts the hub and changes
// the pattern, and compares the runs that were started with a naive model.
func TestTriggersLikeTheModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	scripts := enginetest.NewScripts(triggered("cool", "1.0.0", pattern.Trigger{When: "tags.hot == true and tags.load > 5 or tags.mark == true"}))
	f, stop := openFixture(t, scripts, dir)
	type device struct {
		hot     bool
		load    int
		matched bool
	}
	var devices []*device
	want := map[string]int{}
	id := func(i int) engine.TwinID { return engine.TwinID{DeviceID: fmt.Sprintf("d%d", i)} }
	for i := range 8 {
		f.device(id(i).DeviceID)
		devices = append(devices, &device{})
	}
	f.working("cool")
	marks := 0
	enabled := true
	for range 100 {
		i := random.IntN(len(devices))
		d := devices[i]
		switch k := random.IntN(20); {
		case k == 0:
			stop()
			f, stop = openFixture(t, scripts, dir)
			continue
		case k == 1 && enabled:
			if _, err := f.DisablePattern(t.Context(), enginetest.Owner(), "cool", "", ""); err != nil {
				t.Fatal(err)
			}
			enabled = false
			continue
		case k < 5 && !enabled:
			if _, err := f.EnablePattern(t.Context(), enginetest.Owner(), "cool", "", ""); err != nil {
				t.Fatal(err)
			}
			enabled = true
			f.working("cool")
			for _, d := range devices { // they are marked
				d.matched = d.hot && d.load > 5
			}
			continue
		case k < 10:
			d.hot = !d.hot
			f.tag(id(i), fmt.Sprintf(`{"hot":%t}`, d.hot))
		default:
			d.load = random.IntN(11)
			f.tag(id(i), fmt.Sprintf(`{"load":%d}`, d.load))
		}
		if !enabled {
			continue
		}
		is := d.hot && d.load > 5
		if is && !d.matched {
			want[id(i).DeviceID]++
		}
		d.matched = is
		f.pass("cool", &marks, want) // one that comes and goes between two looks is not seen
	}
	f.startedUntil("cool", want)
	if s := f.triggers("cool"); s[0].Refused != 0 {
		t.Errorf("%+v", s)
	}
}
