package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// worker is a device that never gives up: what was not acknowledged it sends
// again, over however many connections that takes.
type worker struct {
	id       string
	device   *client.Device
	sent     atomic.Int64 // telemetry up to here is acknowledged
	reported atomic.Int64

	mu     sync.Mutex
	ran    map[int]int // methods by their number, and how often
	called []int       // those that the caller got an answer of
	queued []string    // cloud-to-device messages that the hub accepted
}

// queueMost is what the queue toward a device holds.
const queueMost = 50

// again repeats f, with rising n after each success, until ctx ends. What
// fails is tried again as it was.
func again(ctx context.Context, f func(n int) error) {
	for n := 1; ctx.Err() == nil; {
		if f(n) == nil {
			n++
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestUpgradeLosesNothing replaces a hub that works (SIGTERM, the program
// again), twice. Devices come back by themselves; every message that was
// acknowledged is there, in order; no method ran twice; the queues toward
// devices are whole.
func TestUpgradeLosesNothing(t *testing.T) {
	t.Parallel()
	const devices, upgrades = 8, 2
	b := newBox(t)
	b.env = append(b.env, "MUSTER_MQTTS="+freeAddress(t), "MUSTER_DRAIN=2s")
	hub := b.serve()
	data := filepath.Join(b.dir, "muster-data")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	workers := make([]*worker, devices)
	for i := range workers {
		w := &worker{id: fmt.Sprintf("worker-%d", i), ran: map[int]int{}}
		b.must("device", "create", w.id)
		w.device = dialHub(ctx, t, data, w.id, func(_ context.Context, _ string, payload json.RawMessage) (int, any) {
			var n int
			if err := json.Unmarshal(payload, &n); err != nil {
				return 400, err.Error()
			}
			w.mu.Lock()
			w.ran[n]++
			w.mu.Unlock()
			return 200, n
		})
		if w.device == nil {
			t.Fatal("no device")
		}
		workers[i] = w
		wg.Go(func() { _ = w.device.Run(ctx) }) // ends with the context
		wg.Go(func() { w.send(ctx) })
		wg.Go(func() { w.report(ctx) })
		wg.Go(func() { w.call(ctx, t, data) })
		wg.Go(func() { w.enqueue(ctx, t, data) })
	}
	progress := func(what string) {
		t.Helper()
		var from []int64
		for _, w := range workers {
			w.mu.Lock()
			from = append(from, w.sent.Load(), w.reported.Load(), int64(len(w.called)), int64(len(w.queued)))
			w.mu.Unlock()
		}
		for deadline := time.Now().Add(time.Minute); ; {
			slow := ""
			for i, w := range workers {
				w.mu.Lock()
				now := []int64{w.sent.Load(), w.reported.Load(), int64(len(w.called)), int64(len(w.queued))}
				w.mu.Unlock()
				for j := range now {
					if now[j] < from[4*i+j]+5 && (j != 3 || now[j] < queueMost) {
						slow = fmt.Sprintf("%s: %d in %v", w.id, j, now)
					}
				}
			}
			if slow == "" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: no progress of %s\n%s", what, slow, hub.text())
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	progress("at first")
	for i := range upgrades {
		began := time.Now()
		if code := hub.stop(syscall.SIGTERM); code != 0 {
			t.Fatalf("upgrade %d: exit code %d\n%s", i, code, hub.text())
		}
		stopped := time.Since(began)
		hub = b.serve()
		back := time.Since(began)
		progress("after the upgrade")
		t.Logf("upgrade %d: stopped after %s, ready again after %s, every device at work after %s", i, stopped.Round(time.Millisecond), back.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	stop()
	wg.Wait()

	service := localService(t, data)
	stored := storedTelemetry(t, service)
	for _, w := range workers {
		next := 1
		for _, n := range stored[w.id] {
			switch {
			case n == next:
				next++
			case n > next:
				t.Fatalf("%s: telemetry %d is followed by %d", w.id, next-1, n)
			}
		}
		if acked := int(w.sent.Load()); next-1 < acked {
			t.Errorf("%s: telemetry is there up to %d, acknowledged up to %d", w.id, next-1, acked)
		}
		tw, err := service.Twin(t.Context(), w.id, "")
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := numbers(tw.Properties.Reported); int64(n) < w.reported.Load() || int64(n) > w.reported.Load()+1 {
			t.Errorf("%s: reported n=%d, acknowledged %d", w.id, n, w.reported.Load())
		}
		for _, n := range w.called {
			if w.ran[n] != 1 {
				t.Errorf("%s: method %d was answered and ran %d times", w.id, n, w.ran[n])
			}
		}
		for n, times := range w.ran {
			if times > 1 {
				t.Errorf("%s: method %d ran %d times", w.id, n, times)
			}
		}
		waiting, err := service.Messages(t.Context(), w.id, queueMost)
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, m := range waiting {
			there[m.MessageID] = true
		}
		for _, id := range w.queued {
			if !there[id] {
				t.Errorf("%s: message %s was accepted and is not in the queue", w.id, id)
			}
		}
		t.Logf("%s: %d telemetry, %d reports, %d methods, %d queued", w.id, w.sent.Load(), w.reported.Load(), len(w.called), len(w.queued))
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (w *worker) send(ctx context.Context) {
	again(ctx, func(n int) error {
		err := w.device.Send(ctx, client.Message{Body: fmt.Appendf(nil, `{"n":%d}`, n), ContentType: "application/json", Encoding: "utf-8", QoS: 1})
		if err == nil {
			w.sent.Store(int64(n))
		}
		return err
	})
}

func (w *worker) report(ctx context.Context) {
	again(ctx, func(n int) error {
		_, err := w.device.PatchReported(ctx, map[string]int{"n": n})
		if err == nil {
			w.reported.Store(int64(n))
		}
		return err
	})
}

// call invokes methods; one whose answer was lost is not called again, since
// nobody knows whether it ran.
func (w *worker) call(ctx context.Context, t *testing.T, data string) {
	service := localService(t, data)
	number := 0
	again(ctx, func(int) error {
		number++
		result, err := service.InvokeMethod(ctx, w.id, "", client.MethodCall{Name: "work", Payload: fmt.Appendf(nil, "%d", number), ConnectTimeout: 20 * time.Second})
		if err == nil && result.Status == 200 {
			w.mu.Lock()
			w.called = append(w.called, number)
			w.mu.Unlock()
		}
		return err
	})
}

// enqueue fills the queue toward the device, which is never read here, up to
// its bound.
func (w *worker) enqueue(ctx context.Context, t *testing.T, data string) {
	service := localService(t, data)
	again(ctx, func(n int) error {
		if n > queueMost {
			<-ctx.Done()
			return ctx.Err()
		}
		id := fmt.Sprintf("m-%d", n)
		_, err := service.SendMessage(ctx, w.id, client.DeviceboundMessage{MessageID: id, Body: []byte("x")})
		if err == nil {
			w.mu.Lock()
			w.queued = append(w.queued, id)
			w.mu.Unlock()
			<-time.After(100 * time.Millisecond)
		}
		return err
	})
}

// storedTelemetry reads every stored message: the numbers by device, in order.
func storedTelemetry(t *testing.T, service *client.Service) map[string][]int {
	t.Helper()
	stored := map[string][]int{}
	for cursor := "start"; ; {
		list, next, err := service.Events(t.Context(), client.EventQuery{Kinds: []string{"telemetry"}, Cursor: cursor, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			var body struct{ N int }
			if e.Message == nil || json.Unmarshal(e.Message.Body, &body) != nil {
				t.Fatalf("not what was sent: %s", e.Raw)
			}
			stored[e.DeviceID] = append(stored[e.DeviceID], body.N)
		}
		if len(list) == 0 {
			return stored
		}
		cursor = next
	}
}
