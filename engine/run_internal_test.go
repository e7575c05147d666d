package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// idleHub is a hub whose loops do not run.
func idleHub(t *testing.T) *Hub {
	t.Helper()
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// putRun stores a run as it stands, with whatever state it has.
func putRun(t *testing.T, h *Hub, id string, change func(r *runInTx)) {
	t.Helper()
	err := h.step(t.Context(), "run.test", h.inRuns(func(x *runTx) error {
		r, err := x.loadWhole(id)
		if isRunGone(err) {
			r, err = &runInTx{id: id, whole: true, runRecord: runRecord{Pattern: "p", Version: "1.0.0", Created: x.Now(), Started: x.Now(), Deadline: x.Now().Add(time.Hour)}}, nil
		}
		if err != nil {
			return err
		}
		change(r)
		return x.store(r)
	}))
	if err != nil {
		t.Fatal(err)
	}
}

// sleeping makes a run wait for a moment.
func sleeping(due time.Time) func(r *runInTx) {
	return func(r *runInTx) {
		r.State.State = pattern.Waiting
		r.State.Steps = []pattern.Step{{Op: "ctx.sleep", Open: true, Begun: due.Add(-time.Hour), Due: due, Tries: 1}}
	}
}

// TestRunDue compares what the loop finds due with a map: runs come, wait for
// other moments, become ready and end, while workers hold some of them.
func TestRunDue(t *testing.T) {
	h := idleHub(t)
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	l := &runLoop{hub: h, known: map[string]runPlace{}, tasks: newRunTasks(h)}
	wake := map[string]time.Time{} // of runs that have not ended
	base := time.Now()
	for round := range 60 {
		for range random.IntN(8) {
			id := fmt.Sprintf("r-%02d", random.IntN(40))
			switch random.IntN(4) {
			case 0:
				putRun(t, h, id, func(r *runInTx) { r.State.State, r.State.Steps = pattern.Ready, nil })
				wake[id] = base
			case 1:
				putRun(t, h, id, func(r *runInTx) { r.State.State, r.State.Steps = pattern.Canceled, nil })
				delete(wake, id)
			default:
				due := base.Add(time.Duration(random.IntN(3000)-1000) * time.Millisecond)
				putRun(t, h, id, sleeping(due))
				wake[id] = due
			}
		}
		if random.IntN(10) == 0 { // a hub that was started again knows nothing
			l = &runLoop{hub: h, known: map[string]runPlace{}, tasks: newRunTasks(h)}
		}
		if random.IntN(5) == 0 {
			h.runs.mu.Lock()
			h.runs.ready, h.runs.lost = nil, true
			h.runs.mu.Unlock()
		}
		now := time.Now()
		if err := l.collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		for id, due := range wake {
			if !due.After(now) && l.known[id] == 0 {
				t.Fatalf("round %d: the run %s is due since %s, and nobody looks at it", round, id, now.Sub(due))
			}
		}
		// A worker takes some, and gives them back as they were: none is lost.
		n := random.IntN(len(l.queue) + 1)
		taken := slices.Clone(l.queue[:n])
		l.queue = slices.Clone(l.queue[n:])
		for _, id := range taken {
			l.known[id] = runWorked
			if random.IntN(2) == 0 { // and moves it
				due := time.Now().Add(time.Duration(random.IntN(20)) * time.Millisecond)
				putRun(t, h, id, sleeping(due))
				wake[id] = due
			} else {
				putRun(t, h, id, func(r *runInTx) { r.State.State, r.State.Steps = pattern.Canceled, nil })
				delete(wake, id)
			}
		}
		if random.IntN(2) == 0 { // it is told of before the worker is done with it
			if err := l.collect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		l.finished(runsDone{ids: taken})
	}
}

// TestRunClock lets the wall's clock jump while runs wait: what waits for somebody
// gets as much more time, a moment is what it is.
func TestRunClock(t *testing.T) {
	h := idleHub(t)
	at := time.Now()
	h.jobs.clock.look(at)
	h.jobs.clock.noteLocked(at.Add(2*time.Hour), time.Hour) // an hour passed, and the clock went two
	r := &runRecord{Started: at, Deadline: at.Add(90 * time.Minute)}
	r.State = pattern.Run{State: pattern.Waiting, Steps: []pattern.Step{{Op: opWait, Open: true, Begun: at, Due: at.Add(80 * time.Minute)}}}
	if due := r.stepDue(h); !due.Equal(at.Add(140 * time.Minute)) {
		t.Errorf("the condition is given up after %s", due.Sub(at))
	}
	if r.overdue(h, at.Add(2*time.Hour)) || !r.overdue(h, at.Add(151*time.Minute)) {
		t.Error("the run's time was not put off by the jump")
	}
	r.State.Steps[0].Op = "ctx.sleep"
	if due := r.stepDue(h); !due.Equal(at.Add(80 * time.Minute)) {
		t.Errorf("the sleep ends after %s", due.Sub(at))
	}
}

// TestRunLogLost drops changes before the follower has read them: it looks at all
// runs, and finds what came true, whose device went and whose job ended.
func TestRunLogLost(t *testing.T) {
	h := idleHub(t)
	c := everything
	for _, id := range []string{"a", "b", "gone"} {
		if _, err := h.CreateIdentity(t.Context(), c, Identity{DeviceID: id}); err != nil {
			t.Fatal(err)
		}
	}
	step := func(device, where string) func(r *runInTx) {
		return func(r *runInTx) {
			args, _ := json.Marshal(pattern.WaitArgs{Where: where}) // texts always marshal
			r.Device, r.State.State = device, pattern.Waiting
			reading(t, h, func(reader storage.Reader) error {
				identity, err := loadDevice(reader, device)
				r.Generation = identity.GenerationID
				return err
			})
			r.State.Steps = []pattern.Step{{Op: opWait, Args: args, Open: true, Ref: "w1", Begun: time.Now(), Due: time.Now().Add(time.Hour)}}
		}
	}
	putRun(t, h, "r-true", step("a", "tags.x == 1"))
	putRun(t, h, "r-false", step("b", "tags.x == 1"))
	putRun(t, h, "r-gone", step("gone", "tags.x == 1"))
	putRun(t, h, "r-job", func(r *runInTx) {
		r.State.State = pattern.Waiting
		r.State.Steps = []pattern.Step{{Op: opFleetRun, Args: json.RawMessage(`{}`), Open: true, Ref: refJob + "r-none", Begun: time.Now()}}
	})
	f := &runFollower{hub: h}
	if _, err := h.PatchTwin(t.Context(), c, TwinID{DeviceID: "a"}, TwinUpdate{Tags: []byte(`{"x":1}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteIdentity(t.Context(), c, TwinID{DeviceID: "gone"}, IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := changeLog.Trim(t.Context(), h.db, storage.TrimPolicy{Before: time.Now().Add(time.Hour), Keep: 1 << 60}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.PatchTwin(t.Context(), c, TwinID{DeviceID: "b"}, TwinUpdate{Tags: []byte(`{"y":1}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	if err := f.follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]pattern.State{"r-true": pattern.Ready, "r-false": pattern.Waiting, "r-job": pattern.Ready} {
		if r := readRun(t, h, id); r.State.State != want {
			t.Errorf("%s is %s, want %s", id, r.State.State, want)
		}
	}
	if r := readRun(t, h, "r-gone"); r.Stop == nil || !strings.Contains(r.Stop.Why, "deleted") {
		t.Errorf("the run on the device that was deleted is %+v", r)
	}
}

// reading runs f on a snapshot.
func reading(t *testing.T, h *Hub, f func(r storage.Reader) error) {
	t.Helper()
	if err := h.view(t.Context(), "test", f); err != nil {
		t.Fatal(err)
	}
}

func readRun(t *testing.T, h *Hub, id string) (record runRecord) {
	t.Helper()
	reading(t, h, func(r storage.Reader) (err error) {
		record, err = loadRun(r, id)
		return err
	})
	return record
}

// TestRunsRetained keeps the newest of the runs that have ended.
func TestRunsRetained(t *testing.T) {
	h := idleHub(t)
	for i := range 120 {
		putRun(t, h, fmt.Sprintf("r-%03d", i), func(r *runInTx) { r.State.State = pattern.Ready })
		putRun(t, h, fmt.Sprintf("r-%03d", i), func(r *runInTx) {
			r.State.State = pattern.Succeeded
			for range 3 {
				r.State.Steps = append(r.State.Steps, pattern.Step{Op: "kv.set", Args: json.RawMessage(`"` + strings.Repeat("x", 9<<10) + `"`)})
			}
		})
	}
	putRun(t, h, "r-open", func(r *runInTx) { r.State.State = pattern.Ready })
	if err := h.dropRuns(t.Context(), time.Now().Add(-time.Hour), 50); err != nil {
		t.Fatal(err)
	}
	var left []string
	reading(t, h, func(r storage.Reader) error {
		for item, err := range runTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			id, _ := runOfKey(item.Key)
			left = append(left, id)
		}
		return nil
	})
	if len(left) != 51 || left[0] != "r-070" || left[50] != "r-open" {
		t.Errorf("%d runs are left: %v", len(left), left)
	}
	if err := h.dropRuns(t.Context(), time.Now().Add(time.Hour), 50); err != nil {
		t.Fatal(err)
	}
	reading(t, h, func(r storage.Reader) error {
		n, err := storage.Counter(r, counterRunsEnded)
		if n != 0 {
			t.Errorf("%d runs are counted as ended", n)
		}
		return err
	})
}
