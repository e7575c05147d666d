package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/muster-hub/muster/engine/auth"
)

// methodCommand measures the round trip of direct methods: a POST over a
// connection that is kept open, TLS included, to a device that answers at once.
func methodCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("method", flag.ContinueOnError)
	o.flags(f)
	duration := f.Duration("duration", 20*time.Second, "length of one measurement")
	rounds := f.Int("rounds", 3, "how often each is measured")
	count := f.Int("devices", 100, "devices that answer")
	if err := f.Parse(args); err != nil {
		return err
	}
	h, clean, err := newHub(o)
	if err != nil {
		return err
	}
	defer clean()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	defer func() { _ = h.signal(syscall.SIGTERM) }()
	fmt.Fprintln(stdout, "machine:", machine(h.data))
	if _, err := h.fill(ctx, "device", *count, 1); err != nil {
		return err
	}
	p := newPool()
	var answering sync.WaitGroup
	var devices []*device
	defer func() {
		for _, d := range devices {
			_ = d.stream.Close()
		}
		answering.Wait()
	}()
	for i := range *count {
		d, err := p.connect(ctx, h, deviceName("device", i), false)
		if err == nil {
			err = d.subscribe(filterMethods)
		}
		if err != nil {
			return err
		}
		devices = append(devices, d)
		answering.Go(func() { _ = d.answerMethods() }) // ends with the connection
	}
	fmt.Fprintln(stdout, heading)
	medians := map[int]outcome{}
	all := map[int][]outcome{}
	for range *rounds {
		for _, inFlight := range []int{1, 100} {
			r, err := methodRound(ctx, h, inFlight, *count, *duration)
			if err != nil {
				return err
			}
			all[inFlight] = append(all[inFlight], r)
			fmt.Fprintln(stdout, line(r))
		}
	}
	for n, list := range all {
		medians[n] = medianOf(list)
	}
	fmt.Fprintf(stdout, "\ntargets, medians of %d\n", *rounds)
	target(stdout, "p50 with 1 in flight", milliseconds(medians[1].Latency.P50), 1, false, "ms")
	target(stdout, "p99 with 100 in flight", milliseconds(medians[100].Latency.P99), 25, false, "ms")
	return nil
}

func methodRound(ctx context.Context, h *hub, inFlight, devices int, d time.Duration) (outcome, error) {
	o := outcome{Store: "method", Writers: inFlight}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), MaxIdleConnsPerHost: inFlight, MaxConnsPerHost: inFlight}}
	defer c.CloseIdleConnections()
	key, err := h.key.SharedAccessKey.Bytes()
	if err != nil {
		return o, err
	}
	token := auth.SignToken(hostName, key, h.key.SharedAccessKeyName, time.Now().Add(time.Hour))
	call := func(ctx context.Context, i int) error {
		body := `{"methodName":"ping","responseTimeoutInSeconds":30,"payload":{"n":1}}`
		target := "https://" + h.https + "/twins/" + deviceName("device", i%devices) + "/methods?api-version=2021-04-12"
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Host = hostName
		req.Header.Set("Authorization", token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"n":1`)) {
			return fmt.Errorf("a method call was answered with %d: %s", resp.StatusCode, answer)
		}
		return nil
	}
	for i := range inFlight { // opens connections, not counted
		if err := call(ctx, i); err != nil {
			return o, err
		}
	}
	before, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	r, err := loadPlan{workers: inFlight, duration: d}.run(ctx, call)
	if err != nil {
		return o, err
	}
	after, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	m, err := memoryOf(h.pid())
	o.PerSecond, o.Latency, o.Anonymous = r.perSecond(), r.Latency, m.anonymous
	o.CPUMicros = float64((after - before).Microseconds()) / float64(max(1, r.Latency.Count))
	return o, err
}
