package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// TestJobsOfOneDevice lets jobs meet on one device: one is in progress, the
// others wait and say for whom, and go on by priority and age.
func TestJobsOfOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		id := jobDevices(t, h, 1)[0]
		d := attach(t, h, id, say())
		job := func(name string, priority int) {
			putJob(t, h, JobSpec{ID: name, Action: method(name), Policy: rollout.Policy{Priority: priority, AttemptTimeout: minutes(60), Timeout: minutes(600)}}, []TwinID{id})
			time.Sleep(time.Second)
		}
		job("first", 0)
		job("low", -1)
		job("second", 0)
		job("paused", 9)
		job("high", 5)
		putJob(t, h, JobSpec{ID: "twin", Action: JobAction{Twin: &JobTwinPatch{Desired: []byte(`{"a":1}`)}}, Policy: rollout.Policy{Priority: 4, Timeout: minutes(600)}}, []TwinID{id})
		time.Sleep(time.Second)
		for _, name := range []string{"low", "second", "paused", "high", "twin"} {
			if e := readExecution(t, h, name, id); e.Status != rollout.ExecutionWaiting || e.BlockedBy != "first" || e.Attempts != 0 {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if _, err := h.PauseJob(context.Background(), everything, "paused", "", ""); err != nil {
			t.Fatal(err)
		}
		for i := range 4 { // answers each call in turn
			time.Sleep(time.Second)
			d.session.CompleteMethod(fmt.Sprint(i+1), 200, nil)
		}
		time.Sleep(time.Second)
		if _, err := h.ResumeJob(context.Background(), everything, "paused", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		d.session.CompleteMethod("5", 200, nil)
		time.Sleep(time.Second)
		d.mu.Lock()
		got := strings.Join(d.calls, " ")
		d.mu.Unlock()
		if got != "first high second low paused" {
			t.Errorf("the device was called by %s", got)
		}
		if e := readExecution(t, h, "twin", id); e.Status != rollout.ExecutionSucceeded || !e.Ended.Before(readExecution(t, h, "second", id).Started.Add(time.Millisecond)) {
			t.Errorf("twin: %+v", e)
		}
		checkQuiet(t, h, id)
	})
}

// TestJobSaysWhoHoldsItsDevices: a job that waits for devices says whether they are
// away, or which other one is in progress on them now.
func TestJobSaysWhoHoldsItsDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 2)
		d := attach(t, h, ids[0], say())
		long := rollout.Policy{AttemptTimeout: minutes(60), Timeout: minutes(600)}
		for _, job := range []struct {
			id string
			on TwinID
		}{{"first", ids[0]}, {"second", ids[0]}, {"third", ids[0]}, {"away", ids[1]}} {
			putJob(t, h, JobSpec{ID: job.id, Action: method(job.id), Policy: long}, []TwinID{job.on})
			time.Sleep(time.Second)
		}
		check := func(want map[string]string) {
			t.Helper()
			list, _, err := h.Jobs(context.Background(), everything, JobFilter{Status: []rollout.JobStatus{rollout.JobRunning}}, "", 0)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, j := range list {
				got[j.ID] = string(j.State.WaitsFor) + " " + j.BlockedBy
				if one, err := h.Job(context.Background(), everything, j.ID); err != nil || one.BlockedBy != j.BlockedBy {
					t.Errorf("%s is blocked by %q alone, and by %q in the list: %v", j.ID, one.BlockedBy, j.BlockedBy, err)
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("they wait for %v, want %v", got, want)
			}
		}
		check(map[string]string{"first": "devices ", "second": "devices first", "third": "devices first", "away": "devices "})
		d.session.CompleteMethod("1", 200, nil)
		time.Sleep(time.Second)
		check(map[string]string{"second": "devices ", "third": "devices second", "away": "devices "})
	})
}

// TestFollowerHearsWhoHoldsItsDevices: who follows a job that waits is told when
// another one holds its device now, though nothing of the job itself has changed. Of
// many devices that are away the one that is held is found.
func TestFollowerHearsWhoHoldsItsDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 40)
		held := ids[len(ids)-1] // the last one that is looked at
		d := attach(t, h, held, say())
		long := func(priority int) rollout.Policy {
			return rollout.Policy{Priority: priority, AttemptTimeout: minutes(60), Timeout: minutes(600)}
		}
		putJob(t, h, JobSpec{ID: "first", Action: method("first"), Policy: long(0)}, []TwinID{held})
		time.Sleep(time.Second)
		putJob(t, h, JobSpec{ID: "waits", Action: method("waits"), Policy: long(0)}, ids)
		time.Sleep(time.Second)
		putJob(t, h, JobSpec{ID: "high", Action: method("high"), Policy: long(9)}, []TwinID{held})
		time.Sleep(time.Second)
		f, err := h.FollowJob(t.Context(), everything, "waits", "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		next := func(idle time.Duration) string {
			t.Helper()
			j, changed, err := f.Next(t.Context(), idle)
			if err != nil {
				t.Fatal(err)
			}
			if !changed {
				return "nothing"
			}
			return j.BlockedBy
		}
		if got := next(time.Minute); got != "first" {
			t.Errorf("at first it waits for %q", got)
		}
		if got := next(time.Minute); got != "nothing" {
			t.Errorf("while all is as it was, %q is told", got)
		}
		d.session.CompleteMethod("1", 200, nil)
		if got := next(time.Minute); got != "high" {
			t.Errorf("then it waits for %q", got)
		}
	})
}

// TestOrderOfOneDevice has many jobs wait for the same devices, some of them stored
// by a hub that gave them no rank; each device is called in the order of the jobs'
// priorities and ages.
func TestOrderOfOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 3)
		var devices []*testDevice
		for _, id := range ids {
			devices = append(devices, attach(t, h, id, say()))
		}
		random := rand.New(rand.NewPCG(5, 5))
		type one struct {
			name     string
			priority int
		}
		var jobs []one
		for i := range 40 {
			jobs = append(jobs, one{fmt.Sprintf("j%02d", (i*7)%40), random.IntN(9) - 4})
			putJob(t, h, JobSpec{ID: jobs[i].name, Action: method(jobs[i].name), Policy: rollout.Policy{Priority: jobs[i].priority, AttemptTimeout: minutes(60), Timeout: minutes(600)}}, ids)
			time.Sleep(time.Second)
		}
		unranked := map[string]bool{jobs[11].name: true, jobs[23].name: true}
		err := h.update(t.Context(), "test", func(tx *storage.Tx) error {
			for name := range unranked {
				r, err := loadJob(tx, name)
				if err != nil {
					return err
				}
				r.Ranked = false
				if err := jobTable.Put(tx, jobKey(name), r); err != nil {
					return err
				}
				h.wakeJobTx(tx, name)
				for _, id := range ids {
					e, err := executionTable.Get(tx, executionKey(name, 1, id))
					if err != nil {
						return err
					}
					if e.Rank == nil {
						return errors.New("an execution that waits has no rank")
					}
					e.Rank = nil
					if err := executionTable.Put(tx, executionKey(name, 1, id), e); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range jobs {
			for _, d := range devices {
				d.session.CompleteMethod(strconv.FormatInt(int64(i+1), 16), 200, nil)
			}
			time.Sleep(time.Second)
		}
		// The first was there alone, and those without a rank come behind all others.
		behind := func(o one) bool { return unranked[o.name] }
		slices.SortStableFunc(jobs[1:], func(a, b one) int {
			switch {
			case behind(a) && !behind(b):
				return 1
			case behind(b) && !behind(a):
				return -1
			}
			return b.priority - a.priority
		})
		var want []string
		for _, j := range jobs {
			want = append(want, j.name)
		}
		for i, d := range devices {
			d.mu.Lock()
			if !slices.Equal(d.calls, want) {
				t.Errorf("device %d was called by\n%s, expected\n%s", i, d.calls, want)
			}
			d.mu.Unlock()
			checkQuiet(t, h, ids[i])
		}
	})
}

// TestIdentityOfJobIsDeleted deletes targets at each point of an execution.
func TestIdentityOfJobIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 4) // one that waits, one in flight, one that is to show the effect, and one whose turn has not come
		attach(t, h, ids[1], say())
		attach(t, h, ids[2], say(200))
		action := method("reboot")
		action.Confirm = "reported.done == 1"
		putJob(t, h, JobSpec{ID: "j", Action: action, Policy: rollout.Policy{Timeout: minutes(60), Parallel: 2}}, ids)
		time.Sleep(time.Second)
		for i, want := range []rollout.ExecutionStatus{rollout.ExecutionWaiting, rollout.ExecutionRunning, rollout.ExecutionConfirming} {
			if e := readExecution(t, h, "j", ids[i]); e.Status != want {
				t.Errorf("%s: %+v", ids[i], e)
			}
		}
		for _, id := range ids {
			if err := h.DeleteIdentity(context.Background(), everything, id, IfMatch{Present: true, Any: true}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.CreateIdentity(context.Background(), everything, Identity{DeviceID: ids[0].DeviceID}); err != nil {
			t.Fatal(err)
		}
		again := attach(t, h, ids[0], say(200)) // another one of the same name
		time.Sleep(10 * time.Second)
		for _, id := range ids {
			if e := readExecution(t, h, "j", id); e.Status != rollout.ExecutionRemoved || e.Code != "DeviceNotFound" {
				t.Errorf("%s: %+v", id, e)
			}
			checkQuiet(t, h, id)
		}
		if again.called() != 0 {
			t.Error("the new identity was called")
		}
		if r := readJob(t, h, "j"); r.State.Status != rollout.JobCompleted {
			t.Errorf("%+v", r.State)
		}
	})
}

// TestTwinThatRefuses fails one execution, and leaves nothing of its change.
func TestTwinThatRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 20)
		full := ids[7]
		section := map[string]string{}
		for i := range 63 {
			section[fmt.Sprint("k", i)] = strings.Repeat("x", 4090)
		}
		body, _ := json.Marshal(section)
		if _, err := h.PatchTwin(context.Background(), everything, full, TwinUpdate{Desired: body}, IfMatch{}); err != nil {
			t.Fatal(err)
		}
		before, err := h.Twin(context.Background(), everything, full)
		if err != nil {
			t.Fatal(err)
		}
		patch, _ := json.Marshal(map[string]string{"more": strings.Repeat("y", 4000), "andMore": strings.Repeat("y", 4000)})
		putJob(t, h, JobSpec{ID: "j", Action: JobAction{Twin: &JobTwinPatch{Tags: []byte(`{"tagged":true}`), Desired: patch}}}, ids)
		time.Sleep(time.Second)
		r := readJob(t, h, "j")
		if total := r.State.Total(); total.Failed != 1 || total.Succeeded != 19 || r.State.Status != rollout.JobCompleted {
			t.Fatalf("%+v", r.State)
		}
		if e := readExecution(t, h, "j", full); e.Code != "ArgumentInvalid" || e.Message == "" || e.Attempts != 1 {
			t.Errorf("%+v", e)
		}
		after, err := h.Twin(context.Background(), everything, full)
		if err != nil || after.Version != before.Version || string(after.Tags.JSON(nil, false)) != string(before.Tags.JSON(nil, false)) {
			t.Errorf("the twin was changed: version %d, then %d, tags %s, %v", before.Version, after.Version, after.Tags.JSON(nil, false), err)
		}
	})
}

// TestLargePatches divides what does not fit into one transaction.
func TestLargePatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 60)
		section := map[string]string{}
		for i := range 50 {
			section[fmt.Sprint("k", i)] = strings.Repeat("x", 4000)
		}
		body, _ := json.Marshal(section)
		putJob(t, h, JobSpec{ID: "j", Action: JobAction{Twin: &JobTwinPatch{Desired: body}}}, ids)
		time.Sleep(time.Minute)
		r := readJob(t, h, "j")
		if total := r.State.Total(); total.Succeeded != 60 || r.State.Status != rollout.JobCompleted {
			t.Fatalf("%+v", r.State)
		}
	})
}
