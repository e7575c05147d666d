package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// configurationDevices is how many devices there are beside the one whose tag
// changes.
const configurationDevices = 1000

// configuration measures what a change of a tag costs when there are
// configurations whose condition is about it: processor time beside that of the
// same change without them, and how long it takes until the device is told.
func (o *jobOptions) configuration(ctx context.Context, h *hub, stdout io.Writer) error {
	if _, err := h.start(ctx); err != nil {
		return err
	}
	if _, err := h.fill(ctx, "device", configurationDevices, 8); err != nil {
		return err
	}
	q, err := newQueryHub(h, 1)
	if err != nil {
		return err
	}
	defer q.close()
	d, err := newPool().connect(ctx, h, deviceName("device", 0), false)
	if err != nil {
		return err
	}
	if err := d.subscribe(filterDesired); err != nil {
		return err
	}
	told := make(chan time.Time, 1)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = d.serve(func(topic string, payload []byte) {
			if strings.HasPrefix(topic, desiredTopic) && strings.Contains(string(payload), `"level"`) {
				told <- time.Now()
			}
		})
	}()
	defer func() { // the receiver is gone then: nothing may block the reader
		_ = d.stream.Close()
		for {
			select {
			case <-told:
			case <-served:
				return
			}
		}
	}()

	fmt.Fprintf(stdout, "%-44s %12s %30s %30s\n", "changes of a tag, one after the other", "CPU us", "answer p50, p99 ms", "answer to device p50, p99 ms")
	none, err := o.changeTag(ctx, h, q, nil, "without configurations", stdout)
	if err != nil {
		return err
	}
	// The last two are those that the change switches between; with the others
	// every condition reads a tag of the device, and some hold.
	for i := range o.configurations - 2 {
		where := fmt.Sprintf("tags.customer = 'customer-%04d' OR tags.site = 'site-%03d' AND tags.floor >= %d", i, i%10, i%12)
		if i%2 == 0 {
			where = fmt.Sprintf("tags.mode = 'mode-%d' OR tags.building = 'B%d'", i, i%20)
		}
		if err := q.putConfiguration(ctx, fmt.Sprintf("other-%d", i), where, 1, fmt.Sprintf("properties.desired.other%d", i), i); err != nil {
			return err
		}
	}
	for i, mode := range []string{"a", "b"} {
		if err := q.putConfiguration(ctx, "level-"+mode, "tags.mode = '"+mode+"'", 10, "properties.desired.level", i); err != nil {
			return err
		}
	}
	pause(ctx, settleTime)
	for len(told) > 0 { // of the configurations' first application
		<-told
	}
	all, err := o.changeTag(ctx, h, q, told, fmt.Sprintf("with %d configurations", o.configurations), stdout)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\ntargets; the processor time is for looking at the configurations and also for storing and sending what follows\n")
	target(stdout, "re-evaluation of a changed twin", float64((all-none).Microseconds())/1000, 1, false, "ms of CPU")
	return nil
}

func (q *queryHub) putConfiguration(ctx context.Context, id, where string, priority int, path string, value int) error {
	_, err := q.call(ctx, http.MethodPut, "/configurations/"+id+"?api-version=2021-04-12", map[string]any{
		"id": id, "targetCondition": where, "priority": priority, "content": map[string]any{"deviceContent": map[string]any{path: value}},
	})
	return err
}

// changeTag switches a tag to and fro, and waits each time until the device is
// told when there is told. It returns the hub's processor time for one change.
func (o *jobOptions) changeTag(ctx context.Context, h *hub, q *queryHub, told <-chan time.Time, name string, stdout io.Writer) (time.Duration, error) {
	var answers, devices histogram
	change := func(i int) (answered time.Time, err error) {
		_, err = q.call(ctx, http.MethodPatch, "/twins/"+deviceName("device", 0)+"?api-version=2021-04-12", map[string]any{
			"tags": map[string]any{"mode": string("ab"[i%2])},
		})
		return time.Now(), err
	}
	before, err := cpuOf(h.pid())
	if err != nil {
		return 0, err
	}
	for i := range o.changes {
		began := time.Now()
		answered, err := change(i)
		if err != nil {
			return 0, err
		}
		answers.add(answered.Sub(began))
		if told == nil {
			continue
		}
		select {
		case at := <-told:
			devices.add(at.Sub(answered)) // 0 when it was told before the answer was read
		case <-time.After(10 * time.Second):
			return 0, fmt.Errorf("the device was not told of change %d in 10 s", i)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	after, err := cpuOf(h.pid())
	if err != nil {
		return 0, err
	}
	each := (after - before) / time.Duration(o.changes)
	a, until := answers.summary(), "-"
	if told != nil {
		s := devices.summary()
		until = fmt.Sprintf("%.2f, %.2f", milliseconds(s.P50), milliseconds(s.P99))
	}
	fmt.Fprintf(stdout, "%-44s %12d %30s %30s\n", name, each.Microseconds(), fmt.Sprintf("%.2f, %.2f", milliseconds(a.P50), milliseconds(a.P99)), until)
	return each, nil
}
