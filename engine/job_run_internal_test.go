package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// testDevice is a device as jobs see it: it answers methods as it is told.
type testDevice struct {
	session *Session
	mu      sync.Mutex
	calls   []string
	answer  func(name string, payload json.RawMessage) (status int, ok bool) // ok false: nothing
}

func (d *testDevice) Method(rid, name string, payload json.RawMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, name)
	if status, ok := d.answer(name, payload); ok {
		go d.session.CompleteMethod(rid, status, []byte(`{"from":"device"}`))
	}
	return nil
}
func (d *testDevice) Desired(int64, []byte) error               { return nil }
func (d *testDevice) Message(QueuedMessage, uint16, bool) error { return nil }
func (d *testDevice) Close(*Error)                              {}
func (d *testDevice) called() int                               { d.mu.Lock(); defer d.mu.Unlock(); return len(d.calls) }

var everything = Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: ^auth.Permission(0)}}

func runningHub(t testing.TB, reached func(string)) *Hub {
	t.Helper()
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, Reached: reached})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.runJobs(ctx) }) // alone: what else Run does looks each second, and hours pass here
	t.Cleanup(func() {
		stop()
		wg.Wait()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func jobDevices(t testing.TB, h *Hub, n int) []TwinID {
	t.Helper()
	ids := make([]TwinID, n)
	for i := range ids {
		ids[i] = TwinID{DeviceID: fmt.Sprintf("d%05d", i)}
		if _, err := h.CreateIdentity(context.Background(), everything, Identity{DeviceID: ids[i].DeviceID}); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func attach(t testing.TB, h *Hub, id TwinID, answer func(string, json.RawMessage) (int, bool)) *testDevice {
	t.Helper()
	i, err := h.Identity(context.Background(), everything, id)
	if err != nil {
		t.Fatal(err)
	}
	d := &testDevice{answer: answer}
	d.session, err = h.Connect(context.Background(), Connection{Grant: Grant{ID: id, GenerationID: i.GenerationID, endings: h.sessions.endings(id.DeviceID)}, Outbox: d})
	if err != nil {
		t.Fatal(err)
	}
	set := NoSubscriptions()
	set[EndpointMethod] = 0
	if err := d.session.Subscribe(context.Background(), set); err != nil {
		t.Fatal(err)
	}
	return d
}

// putJob makes a job over the devices, unless it has targets.
func putJob(t testing.TB, h *Hub, s JobSpec, ids []TwinID) {
	t.Helper()
	if s.Targets.Where == "" && s.Targets.Query == "" {
		s.Targets.IDs = ids
	}
	if _, err := h.CreateJob(context.Background(), everything, s, ""); err != nil {
		t.Fatal(err)
	}
}

func readJob(t testing.TB, h *Hub, id string) jobRecord {
	t.Helper()
	var r jobRecord
	err := h.view(context.Background(), "test", func(reader storage.Reader) (err error) {
		r, err = loadJob(reader, id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readExecution(t testing.TB, h *Hub, job string, id TwinID) executionRecord {
	t.Helper()
	var e executionRecord
	err := h.view(context.Background(), "test", func(reader storage.Reader) (err error) {
		e, err = executionTable.Get(reader, executionKey(job, 1, id))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTwinJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 300)
		putJob(t, h, JobSpec{ID: "one", Action: JobAction{Twin: &JobTwinPatch{Desired: json.RawMessage(`{"fw":{"v":2}}`), Tags: json.RawMessage(`{"a":1}`)}}}, ids)
		time.Sleep(time.Second)
		r := readJob(t, h, "one")
		if r.State.Status != rollout.JobCompleted || r.State.Total().Succeeded != 300 {
			t.Fatalf("%+v", r)
		}
		tw, err := h.Twin(t.Context(), everything, ids[7])
		if err != nil || string(tw.Desired.JSON(nil, false)) != `{"fw":{"v":2},"$version":2}` {
			t.Fatalf("%s %v", tw.Desired.JSON(nil, false), err)
		}
	})
}

func TestMethodJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 30)
		var devices []*testDevice
		for _, id := range ids[:20] {
			devices = append(devices, attach(t, h, id, func(string, json.RawMessage) (int, bool) { return 200, true }))
		}
		putJob(t, h, JobSpec{ID: "one", Action: JobAction{Method: &JobMethodCall{Name: "reboot"}}, Policy: rollout.Policy{Timeout: minutes(20)}}, ids)
		time.Sleep(10 * time.Second)
		r := readJob(t, h, "one")
		if r.State.Total().Succeeded != 20 || r.State.Total().Waiting != 10 {
			t.Fatalf("%+v", r)
		}
		late := attach(t, h, ids[25], func(string, json.RawMessage) (int, bool) { return 500, true })
		time.Sleep(time.Second)
		if e := readExecution(t, h, "one", ids[25]); e.Status != rollout.ExecutionRejected || late.called() != 1 {
			t.Fatalf("%+v", e)
		}
		time.Sleep(30 * time.Minute)
		r = readJob(t, h, "one")
		if r.State.Status != rollout.JobCompleted || r.State.Total().TimedOut != 9 {
			t.Fatalf("%+v", r)
		}
		for _, d := range devices {
			if d.called() != 1 {
				t.Error(d.called())
			}
		}
		if s := h.JobStats(); s.Active != 0 || s.InFlight != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}
