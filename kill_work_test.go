package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// TestKilledHubRepeatsNoCall kills a hub while queued method calls are on the
// wire and others wait: after the restart the attempts are told as uncertain
// and are never made again, and those that waited are made, once.
func TestKilledHubRepeatsNoCall(t *testing.T) {
	t.Parallel()
	const devices, calls, rounds = 4, 5, 3 // calls for each device in each round
	binary, data := program(t), filepath.Join(t.TempDir(), "data")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stop := startHub(t, binary, data)
	service := localService(t, data)
	id := func(i int) string { return fmt.Sprint("d", i) }
	for i := range devices {
		if _, err := service.CreateIdentity(t.Context(), client.Identity{DeviceID: id(i)}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	acted := map[string][]string{} // payloads by device, in the order of the calls
	began := make(chan string, devices*calls*(rounds+1))
	uncertain := 0
	for round := range rounds + 1 {
		last := round == rounds
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range devices * calls {
			if _, err := service.QueueMethod(t.Context(), id(i%devices), "", client.MethodCall{Name: "act", Payload: fmt.Appendf(nil, "%d", round*calls+i/devices)}, time.Hour, ""); err != nil {
				t.Fatal(err)
			}
		}
		// The device that hangs has its call on the wire when the hub is killed.
		hanging := id(random.IntN(devices))
		for i := range devices {
			d := dialHub(ctx, t, data, id(i), func(ctx context.Context, _ string, payload json.RawMessage) (int, any) {
				mu.Lock()
				acted[id(i)] = append(acted[id(i)], string(payload))
				mu.Unlock()
				began <- id(i)
				if !last && id(i) == hanging {
					<-ctx.Done()
				}
				return 200, payload
			})
			if d == nil {
				t.Fatal("the hub is not there")
			}
			wg.Go(func() { _ = d.Run(ctx) }) // ends with the context
		}
		if last {
			late := time.Now().Add(time.Minute)
			for i := range devices {
				for q, err := range service.QueuedMethods(t.Context(), id(i), "", "") {
					if err != nil {
						t.Fatal(err)
					}
					if q, err = service.QueuedMethod(t.Context(), id(i), "", q.ID, time.Until(late)); err != nil || !q.Final() {
						t.Fatalf("%s of %s is %s, %v", q.ID, id(i), q.Status, err)
					}
				}
			}
			cancel()
			wg.Wait()
			break
		}
		for seen := map[string]int{}; seen[hanging] == 0; {
			select {
			case who := <-began:
				seen[who]++
			case <-time.After(30 * time.Second):
				t.Fatal("no call came")
			}
		}
		stop()
		cancel()
		wg.Wait()
		stop = startHub(t, binary, data)
		service = localService(t, data)
		now := 0
		for q, err := range service.QueuedMethods(t.Context(), "", "", "uncertain") {
			if err != nil || q.Code == "" || q.Message == "" || q.Attempt != 1 {
				t.Fatalf("%+v, %v", q, err)
			}
			now++
		}
		if now <= uncertain {
			t.Errorf("round %d: the call on the wire is not told as uncertain", round)
		}
		uncertain = now
	}
	for i := range devices {
		made, n := acted[id(i)], 0
		for q, err := range service.QueuedMethods(t.Context(), id(i), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			n++
			times := 0
			for _, payload := range made {
				if payload == string(q.Payload) {
					times++
				}
			}
			if times > 1 || q.Status == "succeeded" && times != 1 || q.Status != "succeeded" && q.Status != "uncertain" {
				t.Errorf("%s, call %s is %s and was made %d times", id(i), q.Payload, q.Status, times)
			}
		}
		if n != calls*(rounds+1) {
			t.Errorf("%s has %d calls, %d were queued", id(i), n, calls*(rounds+1))
		}
	}
	t.Logf("%d of %d calls are uncertain after %d kills", uncertain, devices*calls*(rounds+1), rounds)
	stop()
}

// hookEvent is what the endpoint keeps of an event.
type hookEvent struct {
	device  string
	version int64
}

// hookEndpoint is a webhook's endpoint that is not always well.
type hookEndpoint struct {
	mu     sync.Mutex
	random *rand.Rand
	taken  []hookEvent // in the order in which they were taken
	posts  int
	ill    int // posts that it failed
}

// illMost bounds how often it fails: each failure costs the hub some seconds
// before it tries again, the more posts a slow machine makes of the events.
const illMost = 12

func (e *hookEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var list []struct {
		Data struct {
			DeviceID string `json:"deviceId"`
			Version  int64  `json:"version"`
		} `json:"data"`
	}
	if err != nil || json.Unmarshal(body, &list) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.posts++
	kind := e.random.IntN(10)
	if e.ill == illMost {
		kind = 9
	}
	switch kind {
	case 0:
		e.ill++
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case 1:
		e.ill++
		panic(http.ErrAbortHandler) // the hub hears nothing
	}
	for _, one := range list {
		e.taken = append(e.taken, hookEvent{one.Data.DeviceID, one.Data.Version})
	}
}

// TestKilledHubLosesNoWebhookEvent kills a hub again and again while it posts
// to an endpoint that fails now and then: every change arrives, at least once,
// and those of one device in order.
func TestKilledHubLosesNoWebhookEvent(t *testing.T) {
	t.Parallel()
	const devices, rounds, changes = 8, 4, 150
	binary, data := program(t), filepath.Join(t.TempDir(), "data")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	e := &hookEndpoint{random: rand.New(rand.NewPCG(seed, 0))}
	server := httptest.NewServer(e)
	defer server.Close()
	allow := []string{"--webhook-allow", "127.0.0.1"}
	stop := startHub(t, binary, data, allow...)
	service := localService(t, data)
	for i := range devices {
		if _, err := service.CreateIdentity(t.Context(), client.Identity{DeviceID: fmt.Sprint("d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := service.PutWebhook(t.Context(), "hook", client.WebhookSettings{URL: server.URL, Kinds: []string{"twin.desired"}, Mode: "batch"}, ""); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 1))
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		done := make(chan struct{}, changes)
		for i := range devices {
			own := localService(t, data)
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if _, err := own.PatchTwin(ctx, fmt.Sprint("d", i), "", fmt.Appendf(nil, `{"properties":{"desired":{"r%d":%d}}}`, round, n), ""); err != nil {
						return
					}
					select {
					case done <- struct{}{}:
					default:
					}
				}
			})
		}
		for range changes + random.IntN(changes) {
			select {
			case <-done:
			case <-time.After(30 * time.Second):
				t.Fatal("the hub takes no changes")
			}
		}
		stop()
		cancel()
		wg.Wait()
		stop = startHub(t, binary, data, allow...)
		service = localService(t, data)
	}
	// What was stored, whether or not somebody heard that it was.
	stored := map[string][]int64{}
	for cursor := "start"; ; {
		list, next, err := service.Events(t.Context(), client.EventQuery{Cursor: cursor, Kinds: []string{"twin.desired", "gap"}, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			if one.Kind == "gap" {
				t.Fatal("the log has a gap")
			}
			stored[one.DeviceID] = append(stored[one.DeviceID], one.Version)
		}
		if next == cursor {
			break
		}
		cursor = next
	}
	for late := time.Now().Add(2 * time.Minute); ; {
		w, err := service.Webhook(t.Context(), "hook")
		if err != nil {
			t.Fatal(err)
		}
		if w.Waiting == 0 && w.Lag == 0 {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("the webhook does not come to an end: %+v", w)
		}
		<-time.After(100 * time.Millisecond)
	}
	stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	total := 0
	for device, versions := range stored {
		var first []int64 // without repetitions
		for _, one := range e.taken {
			if one.device == device && !slices.Contains(first, one.version) {
				first = append(first, one.version)
			}
		}
		if !slices.Equal(first, versions) {
			t.Errorf("%s: stored were %v, posted were %v", device, versions, first)
		}
		total += len(versions)
	}
	if total < rounds*changes {
		t.Errorf("%d changes were stored in %d rounds", total, rounds)
	}
	t.Logf("%d changes, %d taken in %d posts, over %d kills", total, len(e.taken), e.posts, rounds)
}
