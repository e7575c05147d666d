package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Workers of plain updates: as many as keep the hub busy.
const (
	plainWorkers = 64
	bulkWorkers  = 16
	bulkItems    = 100
)

// rate measures twin-update jobs over a fleet beside plain durable updates of
// the same fleet through the same REST, one twin a request and a hundred, and
// method jobs over the connected devices.
func (o *jobOptions) rate(ctx context.Context, h *hub, stdout io.Writer) error {
	if _, err := h.start(ctx); err != nil {
		return err
	}
	if _, err := h.fill(ctx, "device", o.devices, 8); err != nil {
		return err
	}
	q, err := newQueryHub(h, plainWorkers)
	if err != nil {
		return err
	}
	defer q.close()
	fleet, err := connectFleet(ctx, h, o.connected)
	defer fleet.close()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d devices, %d of them connected; of the processors, requests need a part for their client\n", o.devices, o.connected)
	fmt.Fprintf(stdout, "%-34s %12s %16s\n", "round", "twins/s", "hub us of CPU")
	all := map[string][]float64{}
	for round := range o.rounds {
		for _, m := range []struct {
			name string
			run  func(context.Context, *queryHub, *jobFleet, int) (float64, int, error)
		}{
			{"PATCH, one twin a request", o.plainUpdates}, {"bulk, 100 twins a request", o.bulkUpdates},
			{"job, desired properties", o.twinJob}, {"job, direct method", o.methodJob},
		} {
			before, err := cpuOf(h.pid())
			if err != nil {
				return err
			}
			perSecond, n, err := m.run(ctx, q, fleet, round)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			after, err := cpuOf(h.pid())
			if err != nil {
				return err
			}
			all[m.name] = append(all[m.name], perSecond)
			fmt.Fprintf(stdout, "%-34s %12.0f %16.0f\n", m.name, perSecond, float64((after-before).Microseconds())/float64(n))
		}
	}
	m, err := memoryOf(h.pid())
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "anonymous memory at the end %s\n\ntargets, medians of %d\n", mib(m.anonymous), o.rounds)
	middle := func(name string) float64 {
		list := slices.Sorted(slices.Values(all[name]))
		return list[(len(list)-1)/2]
	}
	job := middle("job, desired properties")
	target(stdout, "twin job / updates one by one", 100*job/middle("PATCH, one twin a request"), 60, true, "%")
	target(stdout, "twin job / updates in bulk", 100*job/middle("bulk, 100 twins a request"), 60, true, "%")
	return nil
}

func (o *jobOptions) plainUpdates(ctx context.Context, q *queryHub, _ *jobFleet, round int) (float64, int, error) {
	var next atomic.Int64
	r, err := loadPlan{workers: plainWorkers, duration: o.duration}.run(ctx, func(ctx context.Context, _ int) error {
		n := next.Add(1)
		path := "/twins/" + deviceName("device", int(n)%o.devices) + "?api-version=2021-04-12"
		_, err := q.call(ctx, http.MethodPatch, path, desired(int(n)+round*1_000_000_000))
		return err
	})
	return r.perSecond(), int(r.Latency.Count), err
}

func (o *jobOptions) bulkUpdates(ctx context.Context, q *queryHub, _ *jobFleet, round int) (float64, int, error) {
	var next atomic.Int64
	r, err := loadPlan{workers: bulkWorkers, duration: o.duration}.run(ctx, func(ctx context.Context, _ int) error {
		first := int(next.Add(bulkItems))
		items := make([]map[string]any, bulkItems)
		for i := range items {
			items[i] = desired(first + i + round*1_000_000_000)
			items[i]["id"], items[i]["importMode"] = deviceName("device", (first+i)%o.devices), "updateTwin"
		}
		_, err := q.call(ctx, http.MethodPost, "/devices?api-version=2021-04-12", items)
		return err
	})
	return r.perSecond() * bulkItems, int(r.Latency.Count) * bulkItems, err
}

// desired is a patch that differs for each n.
func desired(n int) map[string]any {
	return map[string]any{"properties": map[string]any{"desired": map[string]any{"interval": n}}}
}

func (o *jobOptions) twinJob(ctx context.Context, q *queryHub, fleet *jobFleet, round int) (float64, int, error) {
	value := 1_000_000_000_000 + round
	fleet.desired.Store(0)
	j, err := q.startJob(ctx, "true", map[string]any{"twin": map[string]any{"desired": map[string]any{"interval": value}}})
	if err == nil {
		j, err = q.awaitJob(ctx, j.ID, o.devices)
	}
	if err != nil {
		return 0, 0, err
	}
	n, err := q.count(ctx, fmt.Sprintf("properties.desired.interval = %d", value))
	if err == nil && n != o.devices {
		err = fmt.Errorf("%d twins have the value, not %d", n, o.devices)
	}
	if err != nil {
		return 0, 0, err
	}
	// What was stored is told to the connected devices, a moment later perhaps.
	for wait := time.Now().Add(10 * time.Second); fleet.desired.Load() < int64(o.connected) && time.Now().Before(wait); {
		pause(ctx, 10*time.Millisecond)
	}
	if told := fleet.desired.Load(); told != int64(o.connected) {
		return 0, 0, fmt.Errorf("%d patches came to %d connected devices", told, o.connected)
	}
	return float64(o.devices) / j.Ended.Sub(j.Created).Seconds(), o.devices, nil
}

func (o *jobOptions) methodJob(ctx context.Context, q *queryHub, _ *jobFleet, _ int) (float64, int, error) {
	j, err := q.startJob(ctx, `connectionState == "Connected"`, map[string]any{"method": map[string]any{"name": "ping", "payload": map[string]int{"n": 1}}})
	if err == nil {
		j, err = q.awaitJob(ctx, j.ID, o.connected)
	}
	if err != nil {
		return 0, 0, err
	}
	return float64(o.connected) / j.Ended.Sub(j.Created).Seconds(), o.connected, nil
}

// jobFleet are devices that are connected, answer methods and count what
// desired properties they are told.
type jobFleet struct {
	devices []*device
	serving sync.WaitGroup
	desired atomic.Int64
}

func connectFleet(ctx context.Context, h *hub, n int) (*jobFleet, error) {
	f := &jobFleet{devices: make([]*device, n)}
	p := newPool()
	err := inParallel(ctx, n, func(ctx context.Context, i int) error {
		d, err := p.connect(ctx, h, deviceName("device", i), false)
		if err != nil {
			return err
		}
		f.devices[i] = d
		return d.subscribe(filterMethods, filterDesired)
	})
	if err != nil {
		return f, err
	}
	for _, d := range f.devices {
		f.serving.Go(func() { // ends with the connection
			_ = d.serve(func(topic string, _ []byte) {
				if strings.HasPrefix(topic, desiredTopic) {
					f.desired.Add(1)
				}
			})
		})
	}
	return f, nil
}

func (f *jobFleet) close() {
	for _, d := range f.devices {
		if d != nil {
			_ = d.stream.Close()
		}
	}
	f.serving.Wait()
}
