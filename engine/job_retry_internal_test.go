package engine

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// TestRetryOfPausedJob lets a job pause itself by what failed. What is retried
// then waits until somebody resumes, and goes on at once, as what was never
// begun does.
func TestRetryOfPausedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 6)
		var status, calls atomic.Int64
		status.Store(500)
		for _, id := range ids {
			attach(t, h, id, func(string, json.RawMessage) (int, bool) {
				calls.Add(1)
				return int(status.Load()), true
			})
		}
		putJob(t, h, JobSpec{ID: "j", Action: JobAction{Method: &JobMethodCall{Name: "m"}}, Policy: rollout.Policy{
			Waves: []rollout.Wave{{Size: rollout.Count(2)}, {Size: rollout.Percent(100)}},
			Pause: []rollout.Threshold{{Share: rollout.Percent(50), Least: 2}},
		}}, ids)
		time.Sleep(time.Minute)
		if s := readJob(t, h, "j").State; s.Status != rollout.JobPaused || s.Waves[0].Rejected != 2 || calls.Load() != 2 {
			t.Fatalf("after the first wave, %d calls: %+v", calls.Load(), s)
		}
		status.Store(200)
		if _, n, err := h.RetryFailedJob(context.Background(), everything, "j", nil, ""); err != nil || n != 2 {
			t.Fatalf("%d are retried: %v", n, err)
		}
		time.Sleep(10 * time.Minute)
		if s := readJob(t, h, "j").State; s.Status != rollout.JobPaused || calls.Load() != 2 {
			t.Fatalf("retried while paused, %d calls: %+v", calls.Load(), s)
		}
		if _, err := h.ResumeJob(context.Background(), everything, "j", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if s := readJob(t, h, "j").State; s.Status != rollout.JobCompleted || s.Total().Succeeded != 6 || calls.Load() != 8 {
			t.Errorf("a second after it was resumed, %d calls: %+v", calls.Load(), s)
		}

		status.Store(500)
		putJob(t, h, JobSpec{ID: "k", Action: JobAction{Method: &JobMethodCall{Name: "m"}}}, ids)
		time.Sleep(time.Minute)
		status.Store(200)
		if _, n, err := h.RetryFailedJob(context.Background(), everything, "k", nil, ""); err != nil || n != 6 {
			t.Fatalf("%d of a job that has ended are retried: %v", n, err)
		}
		time.Sleep(time.Second)
		if s := readJob(t, h, "k").State; s.Status != rollout.JobCompleted || s.Total().Succeeded != 6 {
			t.Errorf("a second after they were retried: %+v", s)
		}
	})
}
