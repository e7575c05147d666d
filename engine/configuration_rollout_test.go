package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/rollout"
)

// spread makes or changes a configuration with a rollout.
func (f *fleet) spread(id, condition, content, policy string) engine.Configuration {
	f.Helper()
	p, err := rollout.Parse([]byte(policy), "rollout")
	if err != nil {
		f.Fatal(err)
	}
	g := engine.Configuration{ID: id, TargetCondition: condition, Rollout: &p}
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

// values are what each of some devices has at rate.
func (f *fleet) values(devices int) string {
	f.Helper()
	time.Sleep(10 * time.Millisecond) // a job's next turn may be a millisecond away
	synctest.Wait()
	var list []string
	for i := range devices {
		t, err := f.hub.Twin(context.Background(), enginetest.Owner(), twinID(fmt.Sprint("d", i)))
		if err != nil {
			f.Fatal(err)
		}
		v, ok := t.Desired.Get("rate")
		if !ok {
			v = []byte("-")
		}
		list = append(list, string(v))
	}
	return strings.Join(list, "")
}

func (f *fleet) wantValues(devices int, want string) {
	f.Helper()
	if got := f.values(devices); got != want {
		f.Errorf("they have %s, expected %s", got, want)
	}
}

func (f *fleet) job(id string) engine.Job {
	f.Helper()
	synctest.Wait()
	j, err := f.hub.Job(context.Background(), enginetest.Owner(), id)
	if err != nil {
		f.Fatal(err)
	}
	return j
}

func (f *fleet) jobStatus(id string) rollout.JobStatus {
	f.Helper()
	j := f.job(id)
	return j.Status()
}

// approve lets the next wave begin.
func (f *fleet) approve(id string) {
	f.Helper()
	if _, err := f.hub.ApproveJob(context.Background(), enginetest.Owner(), id, -1, ""); err != nil {
		f.Fatal(err)
	}
}

const inWaves = `{"waves":[{"size":"1"},{"size":"50%","approval":true},{"size":"100%","approval":true}]}`

func TestConfigurationRollout(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		for i := range 6 {
			f.device(fmt.Sprint("d", i), `{"site":"lyon"}`)
		}
		f.put("g", 1, "tags.site = 'lyon'", `{"properties.desired.rate":1}`)
		f.wantValues(6, "111111")
		g := f.spread("g", "tags.site = 'lyon'", `{"properties.desired.rate":2}`, inWaves)
		if g.RolloutJob == "" {
			t.Fatalf("%+v", g)
		}
		if got := strings.Count(f.values(6), "2"); got != 1 {
			t.Errorf("in the first wave %d have it", got)
		}
		if p := f.progress("g"); p.Settled != 1 || p.Pending != 5 || p.Targeted != 6 {
			t.Errorf("%+v", p)
		}
		// Whose turn has not come keeps what it had, whatever happens to it, and so
		// does one that comes to be selected.
		f.device("d6", `{"site":"lyon"}`)
		for i := range 7 {
			f.patch(fmt.Sprint("d", i), `{"touched":true}`, `{"rate":9}`)
		}
		if got := f.values(7); strings.Count(got, "1") != 6 || strings.Count(got, "2") != 1 {
			t.Errorf("they have %s", got)
		}
		f.approve(g.RolloutJob)
		if got := f.values(6); strings.Count(got, "2") != 3 {
			t.Errorf("in the second wave they have %s", got)
		}
		f.approve(g.RolloutJob)
		f.wantValues(7, "2222222") // the last one follows when it has completed
		if j := f.job(g.RolloutJob); j.Status() != rollout.JobCompleted || j.Kind != engine.JobConfigure || j.State.Total().Size != 6 {
			t.Errorf("%+v", j)
		}
		if g := f.read("g"); g.RolloutJob != "" || g.Rollout == nil {
			t.Errorf("%+v", g)
		}
		f.device("d7", `{"site":"lyon"}`)
		f.wantValues(8, "22222222")
		if p := f.progress("g"); p.Settled != 8 || p.Pending != 0 || p.Targeted != 8 || p.Working {
			t.Errorf("%+v", p)
		}
	})
}

// A new configuration gives nothing to those whose turn has not come.
func TestRolloutOfANewConfiguration(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		for i := range 4 {
			f.device(fmt.Sprint("d", i), "")
		}
		g := f.spread("g", "*", `{"properties.desired.rate":1}`, inWaves)
		if got := f.values(4); strings.Count(got, "1") != 1 || strings.Count(got, "-") != 3 {
			t.Errorf("they have %s", got)
		}
		f.approve(g.RolloutJob)
		f.approve(g.RolloutJob)
		f.wantValues(4, "1111")
	})
}

// What is canceled stays half done; another revision, a rollback, or the same
// one without a rollout end that.
func TestConfigurationRolloutIsGivenUp(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		ctx, owner := context.Background(), enginetest.Owner()
		const condition = "tags.site = 'lyon'"
		for i := range 4 {
			f.device(fmt.Sprint("d", i), `{"site":"lyon"}`)
		}
		f.put("g", 1, condition, `{"properties.desired.rate":1}`)
		g := f.spread("g", condition, `{"properties.desired.rate":2}`, inWaves)
		f.approve(g.RolloutJob)
		if got := f.values(4); strings.Count(got, "2") != 2 {
			t.Fatalf("they have %s", got)
		}
		if _, err := f.hub.CancelJob(ctx, owner, g.RolloutJob, "it was a mistake", ""); err != nil {
			t.Fatal(err)
		}
		if got := f.values(4); strings.Count(got, "2") != 2 || strings.Count(got, "1") != 2 {
			t.Errorf("they have %s", got)
		}
		// The next one begins where each is; a job that is under way ends with it.
		third := f.spread("g", condition, `{"properties.desired.rate":3}`, inWaves)
		if got := f.values(4); strings.Count(got, "3") != 1 || len(strings.Trim(got, "123")) != 0 {
			t.Errorf("they have %s", got)
		}
		fourth := f.spread("g", condition, `{"properties.desired.rate":4}`, inWaves)
		if s := f.jobStatus(third.RolloutJob); s != rollout.JobCanceled {
			t.Errorf("the job of the revision before is %s", s)
		}
		if got := f.values(4); strings.Count(got, "4") != 1 {
			t.Errorf("they have %s", got)
		}
		if _, err := f.hub.RollbackConfiguration(ctx, owner, "g", 1, engine.IfMatch{}); err != nil {
			t.Fatal(err)
		}
		f.wantValues(4, "1111")
		if s := f.jobStatus(fourth.RolloutJob); s != rollout.JobCanceled {
			t.Errorf("the job that was rolled back is %s", s)
		}

		fifth := f.spread("g", condition, `{"properties.desired.rate":5}`, inWaves)
		if got := f.values(4); strings.Count(got, "5") != 1 {
			t.Errorf("they have %s", got)
		}
		f.put("g", 0, condition, `{"properties.desired.rate":5}`) // to all that are left
		f.wantValues(4, "5555")
		if p := f.progress("g"); p.Settled != 4 || p.Pending != 0 {
			t.Errorf("%+v", p)
		}
		if s := f.jobStatus(fifth.RolloutJob); s != rollout.JobCanceled {
			t.Errorf("its job is %s", s)
		}
		sixth := f.spread("g", condition, `{"properties.desired.rate":6}`, inWaves)
		f.values(4)
		f.remove("g")
		if s := f.jobStatus(sixth.RolloutJob); s != rollout.JobCanceled {
			t.Errorf("its job is %s", s)
		}
		if got := f.values(4); strings.Count(got, "6") != 1 || strings.Count(got, "5") != 3 {
			t.Errorf("they have %s", got)
		}
	})
}

// A wave whose devices fall ill stops the rollout.
func TestConfigurationRolloutPausesByHealth(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		for i := range 4 {
			f.device(fmt.Sprint("d", i), "")
		}
		f.put("g", 1, "*", `{"properties.desired.rate":1}`)
		f.wantValues(4, "1111")
		// The predicate holds as soon as a device has the new value.
		g := f.spread("g", "*", `{"properties.desired.rate":2}`, `{"waves":[{"size":"2","soak":"1m","health":{"where":"desired.rate == 2","atMost":"0%","otherwise":"pause"}},{"size":"100%"}]}`)
		if got := f.values(4); strings.Count(got, "2") != 2 {
			t.Errorf("they have %s", got)
		}
		time.Sleep(2 * time.Minute)
		if j := f.job(g.RolloutJob); j.Status() != rollout.JobPaused || !strings.Contains(j.State.Reason, "health") {
			t.Errorf("%s: %s", j.Status(), j.State.Reason)
		}
		if got := f.values(4); strings.Count(got, "2") != 2 {
			t.Errorf("they have %s", got)
		}
		if _, err := f.hub.ResumeJob(context.Background(), enginetest.Owner(), g.RolloutJob, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		f.wantValues(4, "2222")
	})
}

// A twin that does not take a revision fails in its rollout, and keeps the one
// before.
func TestConfigurationRolloutFails(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		text := strings.Repeat("x", 4000)
		for i := range 2 {
			f.device(fmt.Sprint("d", i), "")
			for k := range 64 {
				if i == 1 {
					f.patch("d1", "", fmt.Sprintf(`{"own%d":%q}`, k, text))
				}
			}
		}
		f.put("g", 1, "*", `{"properties.desired.rate":1}`)
		f.wantValues(2, "11")
		g := f.spread("g", "*", fmt.Sprintf(`{"properties.desired":{"rate":2,"a":%q,"b":%q}}`, text, text), `{"waves":[{"size":"100%"}],"abort":[{"share":"1","of":["failed"]}]}`)
		j := f.job(g.RolloutJob)
		if j.Status() != rollout.JobFailed {
			t.Errorf("%s: %s", j.Status(), j.State.Reason)
		}
		f.wantValues(2, "21")
	})
}

func TestRolloutOfModules(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		mustCreate(t, f.hub, engine.Identity{DeviceID: "e1", Edge: true})
		f.device("d0", "")
		f.device("d0/m", `{"x":1}`)
		one := `{"waves":[{"size":"100%"}]}`
		g := f.spread("m", "FROM devices.modules WHERE tags.x = 1", `{"properties.desired.rate":1}`, one)
		f.want("d0/m", `{"rate":1} m=Applied`)
		if j := f.job(g.RolloutJob); j.Status() != rollout.JobCompleted || j.State.Total().Size != 1 {
			t.Errorf("%+v", j)
		}
		g = f.spread("edge", "*", `{"$edgeAgent":{"properties.desired":{"rate":1}}}`, one)
		f.want("e1/$edgeAgent", `{"rate":1} edge=Applied`)
		if j := f.job(g.RolloutJob); j.Status() != rollout.JobCompleted || j.State.Total().Size != 1 {
			t.Errorf("%+v", j)
		}
	})
}

// TestRolloutWarns: whoever begins a rollout hears what whoever makes a job does, and
// one that can't be done with so many twins is refused as a job is.
func TestRolloutWarns(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		for i := range 6 {
			f.device(fmt.Sprint("d", i), `{"site":"lyon"}`)
		}
		const condition, all = "tags.site = 'lyon'", `{"waves":[{"size":"1"},{"size":"100%"}]}`
		for i, c := range []struct{ policy, want string }{
			{`{"pause":[{"share":"20","of":["failed"]}]}`, "rollout.pause[0].share: is 20, and the largest wave has 6 targets"},
			{`{"start":"1999-01-01T00:00:00Z"}`, "rollout.start: is 1999-01-01T00:00:00Z, which has passed"},
			{all, ""},
		} {
			got := ""
			if g := f.spread("g", condition, fmt.Sprintf(`{"properties.desired.rate":%d}`, i), c.policy); len(g.Warnings) > 0 {
				got = rollout.Faults(g.Warnings).Error()
			}
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("%s: warnings %q, want %q", c.policy, got, c.want)
			}
			if again := f.read("g"); len(again.Warnings) > 0 {
				t.Errorf("%s: they are told again: %v", c.policy, again.Warnings)
			}
		}
		before := f.read("g")
		p, err := rollout.Parse(fmt.Appendf(nil, `{"rate":{"perMinute":0.1},"end":%q}`, time.Now().Add(10*time.Minute).Format(time.RFC3339)), "rollout")
		if err != nil {
			t.Fatal(err)
		}
		slow := engine.Configuration{ID: "g", TargetCondition: condition, Content: deviceContent(`{"properties.desired.rate":9}`), Rollout: &p}
		_, err = f.hub.PutConfiguration(context.Background(), enginetest.Owner(), slow, engine.IfMatch{Present: true, Any: true})
		wantCode(t, err, engine.CodeArgumentInvalid)
		if !strings.Contains(err.Error(), "rollout.rate.perMinute: lets 6 targets start within") {
			t.Error(err)
		}
		if after := f.read("g"); after.Revision != before.Revision {
			t.Errorf("revision %d, want %d", after.Revision, before.Revision)
		}
	})
}

func TestRolloutsAreRefused(t *testing.T) {
	h, owner := enginetest.New(t), enginetest.Owner()
	for _, c := range []struct{ policy, want string }{
		{`{"repeat":"0 3 * * 0"}`, "rollout.repeat is"},
		{`{"waves":[{"size":"10%"}]}`, "waves"},
		{`{"waves":[{"size":"1","health":{"where":"reported.x = 'y'","atMost":"1%"}},{"size":"100%"}]}`, "health.where can't be read"},
	} {
		var p rollout.Policy
		if err := json.Unmarshal([]byte(c.policy), &p); err != nil {
			t.Fatal(err)
		}
		_, err := h.PutConfiguration(t.Context(), owner, engine.Configuration{ID: "g", Content: deviceContent(`{"properties.desired.a":1}`), Rollout: &p}, engine.IfMatch{})
		wantCode(t, err, engine.CodeArgumentInvalid)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %s", c.policy, err, c.want)
		}
	}
	_, err := h.CreateJob(t.Context(), owner, engine.JobSpec{
		Targets: engine.JobTargets{Where: "*"}, Action: engine.JobAction{Configuration: &engine.JobConfiguration{ID: "g", Revision: 1}},
	}, "")
	wantCode(t, err, engine.CodeArgumentInvalid)
}
