package engine

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

func method(name string) JobAction { return JobAction{Method: &JobMethodCall{Name: name}} }

func minutes(n float64) rollout.Duration {
	return rollout.Duration(n * float64(time.Minute))
}

// say makes a device answer each call with the next status; 0 is silence, and so
// is what comes after the last.
func say(statuses ...int) func(string, json.RawMessage) (int, bool) {
	return func(string, json.RawMessage) (int, bool) {
		if len(statuses) == 0 {
			return 0, false
		}
		s := statuses[0]
		statuses = statuses[1:]
		return s, s != 0
	}
}

// TestExecutionOutcomes goes through what a device may do with a job's method.
func TestExecutionOutcomes(t *testing.T) {
	retry := func(attempts int, on ...rollout.AttemptOutcome) *rollout.Retry {
		return &rollout.Retry{Attempts: attempts, On: on, Backoff: minutes(1), Factor: 2}
	}
	for name, c := range map[string]struct {
		policy   rollout.Policy
		device   func(string, json.RawMessage) (int, bool) // nil: not there
		offline  JobOffline
		connect  time.Duration
		want     rollout.ExecutionStatus
		attempts int // that are told
		calls    int // that the device got
		code     string
	}{
		"answers":                  {device: say(200), want: rollout.ExecutionSucceeded, attempts: 1, calls: 1},
		"refuses":                  {device: say(501), want: rollout.ExecutionRejected, attempts: 1, calls: 1},
		"is silent":                {policy: rollout.Policy{AttemptTimeout: minutes(2)}, device: say(), want: rollout.ExecutionTimedOut, attempts: 1, calls: 1, code: "GatewayTimeout"},
		"is silent, then answers":  {policy: rollout.Policy{AttemptTimeout: minutes(2), Retry: retry(3, rollout.AttemptTimedOut)}, device: say(0, 0, 200), want: rollout.ExecutionSucceeded, attempts: 3, calls: 3},
		"is silent too often":      {policy: rollout.Policy{AttemptTimeout: minutes(2), Retry: retry(2, rollout.AttemptTimedOut)}, device: say(0, 0, 200), want: rollout.ExecutionTimedOut, attempts: 2, calls: 2, code: "GatewayTimeout"},
		"refuses, and is to retry": {policy: rollout.Policy{Retry: retry(3, rollout.AttemptTimedOut)}, device: say(500, 200), want: rollout.ExecutionRejected, attempts: 1, calls: 1},
		"is away":                  {policy: rollout.Policy{Timeout: minutes(10)}, want: rollout.ExecutionTimedOut, code: "DeviceNotOnline"},
		"is away and may not be":   {offline: JobOfflineFail, want: rollout.ExecutionFailed, attempts: 1, code: "DeviceNotOnline"},
		"is away for a while":      {offline: JobOfflineFail, connect: 20 * time.Second, want: rollout.ExecutionFailed, attempts: 1, code: "DeviceNotOnline"},
		"is away, with retries":    {policy: rollout.Policy{Retry: retry(3, rollout.AttemptOffline)}, offline: JobOfflineFail, want: rollout.ExecutionFailed, attempts: 3, code: "DeviceNotOnline"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := runningHub(t, nil)
				id := jobDevices(t, h, 1)[0]
				var d *testDevice
				if c.device != nil {
					d = attach(t, h, id, c.device)
				}
				action := method("reboot")
				action.Offline, action.Method.ConnectTimeout = c.offline, rollout.Duration(c.connect)
				if c.policy.Timeout == 0 {
					c.policy.Timeout = minutes(30)
				}
				putJob(t, h, JobSpec{ID: "j", Action: action, Policy: c.policy}, []TwinID{id})
				e := endOfExecution(t, h, "j", id)
				if e.Status != c.want || e.Attempts != c.attempts || len(e.Last) != c.attempts || e.Code != c.code || !e.final() {
					t.Errorf("%+v", e)
				}
				if d != nil && d.called() != c.calls {
					t.Errorf("the device got %d calls, want %d", d.called(), c.calls)
				}
				for i, a := range e.Last {
					if a.ID == "" || a.Sent.IsZero() || a.Ended.Before(a.Sent) || a.Outcome == "" {
						t.Errorf("attempt %d: %+v", i+1, a)
					}
					if i > 0 && a.Sent.Sub(e.Last[i-1].Ended) < 40*time.Second {
						t.Errorf("attempt %d came %s after the one before", i+1, a.Sent.Sub(e.Last[i-1].Ended))
					}
				}
				if r := readJob(t, h, "j"); r.State.Status != rollout.JobCompleted {
					t.Errorf("the job is %s", r.State.Status)
				}
				checkQuiet(t, h, id)
			})
		})
	}
}

// TestConfirmedByTime: evidence that time alone brings about settles an execution when
// it is there, without a change of the twin.
func TestConfirmedByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 2)
		for i, id := range ids {
			d := attach(t, h, id, say(200))
			seen := time.Now().Add(time.Duration(i) * time.Minute).Format(time.RFC3339)
			if _, err := d.session.PatchReported(context.Background(), []byte(`{"seen":"`+seen+`"}`), -1); err != nil {
				t.Fatal(err)
			}
		}
		action := method("reboot")
		action.Confirm = `reported.seen < now() - "5m"`
		putJob(t, h, JobSpec{ID: "j", Action: action, Policy: rollout.Policy{AttemptTimeout: minutes(20), Timeout: minutes(20)}}, ids)
		begun := time.Now()
		for _, c := range []struct {
			after time.Duration
			want  [2]rollout.ExecutionStatus
		}{
			{4*time.Minute + 55*time.Second, [2]rollout.ExecutionStatus{rollout.ExecutionConfirming, rollout.ExecutionConfirming}},
			{5*time.Minute + 5*time.Second, [2]rollout.ExecutionStatus{rollout.ExecutionSucceeded, rollout.ExecutionConfirming}},
			{6*time.Minute + 5*time.Second, [2]rollout.ExecutionStatus{rollout.ExecutionSucceeded, rollout.ExecutionSucceeded}},
		} {
			time.Sleep(time.Until(begun.Add(c.after)))
			for i, id := range ids {
				if e := readExecution(t, h, "j", id); e.Status != c.want[i] {
					t.Errorf("after %s %s is %s, want %s", c.after, id, e.Status, c.want[i])
				}
			}
		}
	})
}

// endOfExecution lets time pass until an execution has ended, 40 minutes at most,
// and then as long as a retry might still wait. The store's own timers make an
// hour of a test take seconds under the race detector.
func endOfExecution(t *testing.T, h *Hub, job string, id TwinID) executionRecord {
	t.Helper()
	for end := time.Now().Add(40 * time.Minute); time.Now().Before(end); {
		time.Sleep(10 * time.Second)
		if e := readExecution(t, h, job, id); e.final() {
			break
		}
	}
	time.Sleep(5 * time.Minute)
	return readExecution(t, h, job, id)
}

// checkQuiet checks that nothing is left of executions that have ended.
func checkQuiet(t *testing.T, h *Hub, id TwinID) {
	t.Helper()
	err := h.view(context.Background(), "test", func(r storage.Reader) error {
		if locked, err := executionLockTable.Has(r, id.key()); err != nil || locked {
			t.Errorf("the device is locked still: %v %v", locked, err)
		}
		q, err := loadQueue(r, id)
		if len(q.Waiting) > 0 || q.Sending != "" || q.Job != "" {
			t.Errorf("the device's queue: %+v", q)
		}
		for range queuedTable.Scan(r, storage.Range{Prefix: id.key()}) {
			t.Error("a queued call is left")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if s := h.JobStats(); s.InFlight != 0 || s.Waiting != 0 || s.Active != 0 {
		t.Errorf("figures: %+v", s)
	}
}

func TestUncertainExecution(t *testing.T) {
	answer := func(d *testDevice, n int) { d.session.CompleteMethod(string(rune('0'+n)), 200, []byte(`"late"`)) }
	for name, c := range map[string]struct {
		policy  rollout.Policy
		confirm string
		then    func(t *testing.T, h *Hub, d *testDevice) // once the device has got the call and said nothing
		want    rollout.ExecutionStatus
		calls   int
		late    int64
	}{
		"answers late": {
			policy: rollout.Policy{AttemptTimeout: minutes(10)}, want: rollout.ExecutionSucceeded, calls: 1, late: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) { time.Sleep(5 * time.Minute); answer(d, 1) },
		},
		"answers later than that": {
			policy: rollout.Policy{AttemptTimeout: minutes(10)}, want: rollout.ExecutionSucceeded, calls: 1, late: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) { time.Sleep(15 * time.Minute); answer(d, 1) },
		},
		"answers twice": {
			policy: rollout.Policy{AttemptTimeout: minutes(10)}, want: rollout.ExecutionSucceeded, calls: 1, late: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) {
				answer(d, 1)
				time.Sleep(time.Second)
				d.session.CompleteMethod("1", 500, nil)
			},
		},
		"goes away": {
			want: rollout.ExecutionUncertain, calls: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) { d.session.Close(nil) },
		},
		"goes away, and comes back without the effect": {
			confirm: "reported.done == 1", want: rollout.ExecutionUncertain, calls: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) {
				d.session.Close(nil)
				time.Sleep(time.Second)
				attach(t, h, d.session.ID(), say(200))
			},
		},
		"goes away, and comes back with the effect": {
			confirm: "reported.done == 1", want: rollout.ExecutionSucceeded, calls: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) {
				d.session.Close(nil)
				time.Sleep(time.Minute)
				report(t, attach(t, h, d.session.ID(), say(200)), `{"done":1}`)
			},
		},
		"says yes and shows nothing": {
			confirm: "reported.done == 1", want: rollout.ExecutionTimedOut, calls: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) { answer(d, 1) },
		},
		"says yes and shows it": {
			confirm: "reported.done == 1", want: rollout.ExecutionSucceeded, calls: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) {
				answer(d, 1)
				time.Sleep(time.Minute)
				report(t, d, `{"done":1}`)
			},
		},
		"shows it before it says yes": {
			confirm: "reported.done == 1", want: rollout.ExecutionSucceeded, calls: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) {
				report(t, d, `{"done":1}`)
				time.Sleep(time.Second)
				answer(d, 1)
			},
		},
		"goes away, with a retry": {
			policy: rollout.Policy{Retry: &rollout.Retry{Attempts: 2, On: []rollout.AttemptOutcome{rollout.AttemptUncertain}, Backoff: minutes(1)}},
			want:   rollout.ExecutionSucceeded, calls: 1,
			then: func(t *testing.T, h *Hub, d *testDevice) {
				d.session.Close(nil)
				time.Sleep(time.Second)
				again := attach(t, h, d.session.ID(), say(200))
				time.Sleep(5 * time.Minute)
				if again.called() != 1 {
					t.Errorf("%d calls after the retry", again.called())
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := runningHub(t, nil)
				id := jobDevices(t, h, 1)[0]
				d := attach(t, h, id, say())
				action := method("reboot")
				action.Confirm = c.confirm
				if c.policy.Timeout == 0 {
					c.policy.Timeout = minutes(30)
				}
				if c.policy.AttemptTimeout == 0 {
					c.policy.AttemptTimeout = minutes(10)
				}
				putJob(t, h, JobSpec{ID: "j", Action: action, Policy: c.policy}, []TwinID{id})
				time.Sleep(time.Second)
				if e := readExecution(t, h, "j", id); e.Status != rollout.ExecutionRunning || d.called() != 1 {
					t.Fatalf("%+v", e)
				}
				c.then(t, h, d)
				e := endOfExecution(t, h, "j", id)
				if e.Status != c.want || !e.final() || d.called() != c.calls {
					t.Errorf("%d calls; %+v", d.called(), e)
				}
				if n := h.JobStats().Late; n != c.late {
					t.Errorf("%d late answers, want %d", n, c.late)
				}
				if c.late > 0 && !strings.Contains(e.Last[0].Message, "late") {
					t.Errorf("the attempt does not say that it was answered late: %+v", e.Last[0])
				}
				r := readJob(t, h, "j")
				if total := r.State.Total(); r.State.Status != rollout.JobCompleted || total.Get(c.want.Phase(true)) != 1 {
					t.Errorf("%+v", r.State)
				}
				checkQuiet(t, h, id)
			})
		})
	}
}

func report(t *testing.T, d *testDevice, patch string) {
	t.Helper()
	if _, err := d.session.PatchReported(context.Background(), []byte(patch), -1); err != nil {
		t.Error(err)
	}
}
