package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// allDevices makes devices that answer each call as f says, with the tag site.
func allDevices(t *testing.T, h *Hub, n int, f func(i int) int) ([]TwinID, *atomic.Int64) {
	t.Helper()
	var calls atomic.Int64
	ids := jobDevices(t, h, n)
	for i, id := range ids {
		attach(t, h, id, func(string, json.RawMessage) (int, bool) { calls.Add(1); return f(i), true })
	}
	return ids, &calls
}

func always(status int) func(int) int { return func(int) int { return status } }

func tag(t *testing.T, h *Hub, id TwinID, tags string) {
	t.Helper()
	if _, err := h.PatchTwin(context.Background(), everything, id, TwinUpdate{Tags: []byte(tags)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
}

// TestDynamicJob has devices come to match a job's condition while it runs, and
// leave before their turn.
func TestDynamicJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids, calls := allDevices(t, h, 8, always(200))
		for _, id := range ids[:4] {
			tag(t, h, id, `{"in":true}`)
		}
		putJob(t, h, JobSpec{
			ID: "j", Targets: JobTargets{Where: "tags.in == true", Dynamic: true, Exclude: ids[6:7]}, Action: method("reboot"),
			Policy: rollout.Policy{Rate: &rollout.Rate{PerMinute: 1}, Timeout: minutes(600), End: time.Now().Add(time.Hour)},
		}, nil)
		time.Sleep(time.Second)
		if n := calls.Load(); n != 1 {
			t.Fatalf("%d calls at the start, at one a minute", n)
		}
		tag(t, h, ids[3], `{"in":false}`) // leaves before its turn
		tag(t, h, ids[5], `{"in":true}`)  // joins
		tag(t, h, ids[6], `{"in":true}`)  // is excluded
		tag(t, h, ids[0], `{"in":null}`)  // has had its turn, and comes again
		time.Sleep(time.Second)
		tag(t, h, ids[0], `{"in":true}`)
		time.Sleep(30 * time.Minute)
		tag(t, h, ids[7], `{"in":true}`) // joins when all the others are done
		time.Sleep(5 * time.Minute)
		for i, want := range map[int]rollout.ExecutionStatus{
			0: rollout.ExecutionSucceeded, 1: rollout.ExecutionSucceeded, 2: rollout.ExecutionSucceeded, 3: rollout.ExecutionRemoved,
			5: rollout.ExecutionSucceeded, 7: rollout.ExecutionSucceeded,
		} {
			if e := readExecution(t, h, "j", ids[i]); e.Status != want || want == rollout.ExecutionSucceeded && e.Attempts != 1 {
				t.Errorf("%s: %+v", ids[i], e)
			}
		}
		if n := calls.Load(); n != 5 {
			t.Errorf("%d calls, want 5", n)
		}
		r := readJob(t, h, "j")
		if total := r.State.Total(); total.Succeeded != 5 || total.Removed != 1 || total.Size != 6 || r.State.Status != rollout.JobRunning {
			t.Errorf("%+v", r.State)
		}
		time.Sleep(30 * time.Minute)
		if r := readJob(t, h, "j"); r.State.Status != rollout.JobCompleted {
			t.Errorf("after its end: %+v", r.State)
		}
	})
}

// TestDynamicJobJoinedTwice has devices leave and come to match again while they are
// pending, or have had their turn: each counts once, keeps its outcome when the job is
// canceled, and is not waited for.
func TestDynamicJobJoinedTwice(t *testing.T) {
	for _, cancels := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := runningHub(t, nil)
			ids, calls := allDevices(t, h, 6, always(200))
			for _, id := range ids {
				tag(t, h, id, `{"in":true}`)
			}
			putJob(t, h, JobSpec{
				ID: "j", Targets: JobTargets{Where: "tags.in == true", Dynamic: true}, Action: method("reboot"),
				Policy: rollout.Policy{Rate: &rollout.Rate{PerMinute: 1}, Parallel: 1, End: time.Now().Add(time.Hour)},
			}, nil)
			time.Sleep(time.Second)
			for range 2 {
				for _, in := range []bool{false, true} {
					for _, id := range ids {
						tag(t, h, id, fmt.Sprintf(`{"in":%v}`, in))
					}
					time.Sleep(time.Second)
				}
			}
			if cancels { // three have had their turn
				time.Sleep(2*time.Minute + 30*time.Second)
				if _, err := h.CancelJob(context.Background(), everything, "j", "", ""); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
			time.Sleep(time.Hour)
			r, done := readJob(t, h, "j"), 6
			total := r.State.Total()
			if cancels {
				done = 3
			}
			if total.Size != 6 || total.Succeeded != done || total.Open() != 0 || calls.Load() != int64(done) {
				t.Errorf("canceled %v: %+v, %d calls", cancels, total, calls.Load())
			}
			if !r.State.Status.Final() {
				t.Errorf("canceled %v: the job is %s", cancels, r.State.Status)
			}
			for i, id := range ids[:done] {
				if e := readExecution(t, h, "j", id); e.Status != rollout.ExecutionSucceeded {
					t.Errorf("canceled %v: the execution %d is %s", cancels, i, e.Status)
				}
			}
		})
	}
}

// TestDynamicJobThatLostCount ends a job that an earlier hub has left with more
// pending targets counted than there are.
func TestDynamicJobThatLostCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids, _ := allDevices(t, h, 2, always(200))
		tag(t, h, ids[0], `{"in":true}`)
		putJob(t, h, JobSpec{ID: "j", Targets: JobTargets{Where: "tags.in == true", Dynamic: true}, Action: method("reboot")}, nil)
		time.Sleep(time.Second)
		err := h.step(context.Background(), "test", func(tx *storage.Tx) error {
			r, err := loadJob(tx, "j")
			if err != nil {
				return err
			}
			r.State.Waves[0].Pending += 3
			r.State.Waves[0].Size += 3
			return jobTable.Put(tx, jobKey("j"), r)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.CancelJob(context.Background(), everything, "j", "", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r := readJob(t, h, "j")
		if total := r.State.Total(); r.State.Status != rollout.JobCanceled || total.Size != 1 || total.Succeeded != 1 {
			t.Errorf("%s: %+v", r.State.Status, total)
		}
	})
}

// TestJobThatRepeats runs again at its times, and keeps what was.
func TestJobThatRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it begins at midnight
		h := runningHub(t, nil)
		ids, calls := allDevices(t, h, 3, always(200))
		putJob(t, h, JobSpec{ID: "j", Action: method("reboot"), Policy: rollout.Policy{Repeat: "30 * * * *"}}, ids)
		for hour := range 3 {
			time.Sleep(15 * time.Minute)
			if n := calls.Load(); n != int64(3*(hour+1)) {
				t.Fatalf("%d calls in hour %d", n, hour)
			}
			r := readJob(t, h, "j")
			if r.Run != uint64(hour+1) || r.State.Status != rollout.JobCompleted || r.NextRun.Minute() != 30 || h.JobStats().Active != 1 {
				t.Fatalf("hour %d: %+v", hour, r)
			}
			time.Sleep(45 * time.Minute)
		}
		if err := h.DeleteJob(context.Background(), everything, "j", ""); err == nil || !strings.Contains(err.Error(), "is to run again at 2000-01-01T03:30:00Z") {
			t.Errorf("deleted between two runs: %v", err)
		}
		err := h.view(context.Background(), "test", func(reader storage.Reader) error {
			for run := uint64(1); run <= 3; run++ {
				e, err := executionTable.Get(reader, executionKey("j", run, ids[0]))
				if err != nil || e.Status != rollout.ExecutionSucceeded {
					t.Errorf("run %d: %+v, %v", run, e, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestJobThatRepeatsWithoutTargets runs at its times, and not again at once, when
// nothing matches: at its start, and when what matched is gone.
func TestJobThatRepeatsWithoutTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids, calls := allDevices(t, h, 2, always(200))
		putJob(t, h, JobSpec{
			ID: "j", Targets: JobTargets{Where: "tags.in == true"}, Action: method("reboot"), AllowEmpty: true,
			Policy: rollout.Policy{Repeat: "*/10 * * * *", Start: time.Now().Add(10 * time.Minute)},
		}, nil)
		for n := range 9 {
			time.Sleep(10*time.Minute + time.Second)
			if r := readJob(t, h, "j"); r.Run != uint64(n+1) || r.State.Status != rollout.JobCompleted || time.Since(r.Started) > time.Minute {
				t.Fatalf("after %d times: %+v", n+1, r)
			}
			tag(t, h, ids[0], fmt.Sprintf(`{"in":%t}`, n >= 2 && n < 5))
		}
		if n := calls.Load(); n != 3 {
			t.Errorf("%d calls, want 3", n)
		}
	})
}

// TestPausedJobEnds: a job that its threshold has paused completes, and says why,
// when what was on its way has ended and nothing is left.
func TestPausedJobEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids, _ := allDevices(t, h, 3, func(i int) int {
			if i == 2 {
				time.Sleep(10 * time.Second)
				return 200
			}
			return 500
		})
		putJob(t, h, JobSpec{ID: "j", Action: method("m"), Policy: rollout.Policy{Pause: []rollout.Threshold{{Share: rollout.Count(2)}}}}, ids)
		time.Sleep(5 * time.Second)
		if s := readJob(t, h, "j").State; s.Status != rollout.JobPaused || s.PausedBy != rollout.PausedByThreshold || s.Total().Active != 1 {
			t.Fatalf("with one on its way: %+v", s)
		}
		time.Sleep(time.Minute)
		if s := readJob(t, h, "j").State; s.Status != rollout.JobCompleted || !strings.Contains(s.Reason, "the threshold is 2") || s.PausedBy != "" || s.Total().Succeeded != 1 {
			t.Errorf("with nothing left: %+v", s)
		}
	})
}

// TestPolicyOfJob lets a job meet its thresholds, gates and windows with real
// executions.
func TestPolicyOfJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Saturday, midnight
		h := runningHub(t, nil)
		ids, calls := allDevices(t, h, 50, func(i int) int { return 200 + 300*(i%2) })
		report := func(i int, health string) {
			s := h.sessions.get(ids[i])
			if _, err := s.PatchReported(context.Background(), fmt.Appendf(nil, `{"health":%q}`, health), -1); err != nil {
				t.Fatal(err)
			}
		}
		at := func(name string, status rollout.JobStatus, waits rollout.WaitsFor, n int64) rollout.State {
			t.Helper()
			s := readJob(t, h, name).State
			if s.Status != status || s.WaitsFor != waits || calls.Load() != n {
				t.Errorf("%s is %s, waits for %q (%s) after %d calls; want %s, %q, %d", name, s.Status, s.WaitsFor, s.Reason, calls.Load(), status, waits, n)
			}
			return s
		}
		putJob(t, h, JobSpec{ID: "pauses", Action: method("m"), Policy: rollout.Policy{
			Parallel: 1, Pause: []rollout.Threshold{{Share: rollout.Percent(40), Least: 10}},
		}}, ids)
		time.Sleep(time.Minute)
		at("pauses", rollout.JobPaused, "", 10)
		calls.Store(0)
		putJob(t, h, JobSpec{ID: "aborts", Action: method("m"), Policy: rollout.Policy{
			Parallel: 1, Abort: []rollout.Threshold{{Share: rollout.Count(3)}},
		}}, ids)
		time.Sleep(time.Minute)
		if s := at("aborts", rollout.JobFailed, "", 6); s.Total().Canceled != 44 {
			t.Errorf("%+v", s)
		}

		calls.Store(0)
		report(0, "bad")
		putJob(t, h, JobSpec{ID: "gated", Action: JobAction{Method: &JobMethodCall{Name: "m"}, AnyAnswer: true}, Policy: rollout.Policy{Waves: []rollout.Wave{
			{Size: rollout.Count(10), Soak: minutes(10), Health: &rollout.Health{Where: "reported.health == 'bad'", AtMost: rollout.Count(1)}},
			{Size: rollout.Percent(100), Approval: true},
		}}}, ids)
		time.Sleep(5 * time.Minute)
		at("gated", rollout.JobRunning, rollout.WaitsForSoak, 10)
		time.Sleep(6 * time.Minute)
		at("gated", rollout.JobRunning, rollout.WaitsForApproval, 10)
		if _, err := h.ApproveJob(context.Background(), everything, "gated", 1, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		at("gated", rollout.JobCompleted, "", 50)

		calls.Store(0)
		for i := range ids {
			report(i, "bad")
		}
		putJob(t, h, JobSpec{ID: "sick", Action: JobAction{Method: &JobMethodCall{Name: "m"}, AnyAnswer: true}, Policy: rollout.Policy{Waves: []rollout.Wave{
			{Size: rollout.Count(10), Health: &rollout.Health{Where: "reported.health == 'bad'", AtMost: rollout.Percent(50)}}, {Size: rollout.Percent(100)},
		}}}, ids)
		time.Sleep(time.Minute)
		at("sick", rollout.JobPaused, "", 10)

		calls.Store(0)
		putJob(t, h, JobSpec{ID: "night", Action: JobAction{Method: &JobMethodCall{Name: "m"}, AnyAnswer: true}, Policy: rollout.Policy{
			Rate: &rollout.Rate{PerMinute: 1}, Windows: []rollout.Window{{Cron: "20 0 * * *", Duration: minutes(10)}},
		}}, ids)
		time.Sleep(2 * time.Minute)
		at("night", rollout.JobRunning, rollout.WaitsForWindow, 0)
		time.Sleep(time.Until(time.Now().Truncate(24 * time.Hour).Add(time.Hour)))
		if n := calls.Load(); n < 9 || n > 11 {
			t.Errorf("%d calls in a window of 10 minutes, at one a minute", n)
		}
	})
}

// TestEndOfJob lets what was taken before a job's end go on after it, and
// nothing else.
func TestEndOfJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 4)
		putJob(t, h, JobSpec{ID: "j", Action: method("reboot"), Policy: rollout.Policy{
			Waves: []rollout.Wave{{Size: rollout.Count(2)}, {Size: rollout.Percent(100)}}, Timeout: minutes(120), End: time.Now().Add(90 * time.Second),
		}}, ids)
		time.Sleep(10 * time.Minute) // two of four were taken, and wait for their devices
		r := readJob(t, h, "j")
		if total := r.State.Total(); total.Waiting != 2 || total.Canceled != 2 || r.State.Status.Final() {
			t.Fatalf("after the end: %+v", r.State)
		}
		var calls atomic.Int64
		for _, id := range ids {
			attach(t, h, id, func(string, json.RawMessage) (int, bool) { calls.Add(1); return 200, true })
		}
		time.Sleep(time.Minute)
		r = readJob(t, h, "j")
		if total := r.State.Total(); total.Succeeded != 2 || total.Canceled != 2 || r.State.Status != rollout.JobCanceled || calls.Load() != 2 {
			t.Errorf("after the devices came: %d calls, %+v", calls.Load(), r.State)
		}
	})
}

// TestOwnerOfJob pauses a job whose owner may no longer do what it does.
func TestOwnerOfJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids, calls := allDevices(t, h, 5, always(200))
		p, err := h.PutPolicy(context.Background(), everything, auth.SharedAccessPolicy{Name: "robot", Permissions: auth.ServiceConnect})
		if err != nil {
			t.Fatal(err)
		}
		robot := Caller{Principal: auth.Principal{Kind: auth.Policy, Name: p.Name, Permissions: p.Permissions}}
		spec := JobSpec{ID: "j", Targets: JobTargets{IDs: ids}, Action: method("m"), Policy: rollout.Policy{Rate: &rollout.Rate{PerMinute: 1}}}
		if _, err := h.CreateJob(context.Background(), robot, spec, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if err := h.DeletePolicy(context.Background(), everything, "robot"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		r := readJob(t, h, "j")
		if r.State.Status != rollout.JobPaused || r.State.PausedBy != rollout.PausedByHub || r.State.Reason == "" || calls.Load() != 1 {
			t.Errorf("%d calls; %+v", calls.Load(), r.State)
		}
	})
}

// TestJobAcrossRestart closes the hub in the middle of a job.
func TestJobAcrossRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		open := func() (*Hub, func()) {
			h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); _ = h.Run(ctx) }()
			return h, func() {
				stop()
				<-done
				if err := h.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		h, stop := open()
		ids := jobDevices(t, h, 6)
		attach(t, h, ids[0], say(200))
		attach(t, h, ids[1], say()) // in flight when the hub stops
		putJob(t, h, JobSpec{ID: "j", Action: method("m"), Policy: rollout.Policy{
			Timeout: minutes(600), Retry: &rollout.Retry{Attempts: 2, On: []rollout.AttemptOutcome{rollout.AttemptUncertain}, Backoff: minutes(1)},
		}}, ids)
		time.Sleep(time.Second)
		stop()
		h, stop = open()
		defer stop()
		time.Sleep(time.Second)
		if e := readExecution(t, h, "j", ids[1]); e.Status != rollout.ExecutionRetrying || e.Last[0].Outcome != rollout.ExecutionUncertain {
			t.Errorf("%+v", e)
		}
		devices := []*testDevice{}
		for _, id := range ids {
			devices = append(devices, attach(t, h, id, say(200)))
		}
		time.Sleep(10 * time.Minute)
		for i, d := range devices {
			if want := min(i, 1); d.called() != want {
				t.Errorf("%s was called %d times after the restart, want %d", ids[i], d.called(), want)
			}
		}
		if r := readJob(t, h, "j"); r.State.Status != rollout.JobCompleted || r.Run != 1 {
			t.Errorf("%+v", r.State)
		}
		checkQuiet(t, h, ids[1])
	})
}

// TestManyJobs runs jobs over the same devices side by side, half of them
// methods: each device does what each job says, once.
func TestManyJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const jobs, devices = 40, 50
		h := runningHub(t, nil)
		ids, calls := allDevices(t, h, devices, always(200))
		for i := range jobs {
			action := method(fmt.Sprint("m", i))
			if i%2 == 0 {
				action = JobAction{Twin: &JobTwinPatch{Desired: fmt.Appendf(nil, `{"p%d":1}`, i)}}
			}
			putJob(t, h, JobSpec{ID: fmt.Sprint("j", i), Action: action, Policy: rollout.Policy{Priority: i % 5, Parallel: 20}}, ids)
		}
		time.Sleep(5 * time.Minute)
		for i := range jobs {
			if s := readJob(t, h, fmt.Sprint("j", i)).State; s.Status != rollout.JobCompleted || s.Waves[0].Succeeded != devices {
				t.Errorf("job %d: %+v", i, s)
			}
		}
		if n := calls.Load(); n != jobs/2*devices {
			t.Errorf("%d calls, want %d", n, jobs/2*devices)
		}
		for _, id := range ids {
			checkQuiet(t, h, id)
		}
	})
}
