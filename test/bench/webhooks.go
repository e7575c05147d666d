package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// webhookLoad is devices that send at a fixed rate, and endpoints in this
// process that take what the hub posts to them over TLS.
type webhookLoad struct {
	eventLoad
	webhooks int
	mode     string
	scheme   string

	posts   atomic.Int64
	forged  atomic.Int64 // requests whose signature is wrong
	secrets [][]byte
	seen    [][]atomic.Uint32 // by webhook and message: how often it came
	mu      []sync.Mutex
	newest  [][eventPublishers]int // by webhook and device
}

// webhooksCommand measures what posting events costs the hub.
func webhooksCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("webhooks", flag.ContinueOnError)
	o.flags(f)
	var l webhookLoad
	f.IntVar(&l.webhooks, "webhooks", 1, "webhooks, each of which gets all events")
	f.IntVar(&l.rate, "rate", 1000, "messages a second, of all devices together")
	f.DurationVar(&l.duration, "duration", 15*time.Second, "length of one measurement")
	f.IntVar(&l.body, "bytes", 100, "bytes of a message's body")
	f.StringVar(&l.scheme, "scheme", "https", "https or http")
	modes := f.String("modes", "structured,batch,binary", "modes of the webhooks, each measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	if l.webhooks < 1 || l.webhooks > 100 || l.rate < 1 || l.duration < time.Second {
		return errors.New("-webhooks must be 1 to 100, -rate at least 1, -duration at least 1s")
	}
	dir, err := os.MkdirTemp("", "bench-webhooks-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var current atomic.Pointer[webhookLoad]
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if run := current.Load(); run != nil {
			run.take(r)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	receiver.Config.ErrorLog = log.New(io.Discard, "", 0)
	if l.scheme == "http" {
		receiver.Start()
	} else {
		receiver.EnableHTTP2 = true
		receiver.StartTLS()
		ca := filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}), 0o600); err != nil {
			return err
		}
		o.extra = append(o.extra, "--webhook-ca", ca)
	}
	defer receiver.Close()
	o.extra = append(o.extra, "--webhook-allow", "127.0.0.1")
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
	if _, err := h.fill(ctx, "device", eventPublishers, 1); err != nil {
		return err
	}
	base, err := (&webhookLoad{eventLoad: eventLoad{eventPlan: l.eventPlan}}).run(ctx, h, receiver.URL)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d webhooks over %s, %d messages/s of %d bytes from %d devices, %s each\n", l.webhooks, l.scheme, l.rate, l.body, eventPublishers, l.duration)
	fmt.Fprintln(stdout, "mode        hub cores  without  p50 ms   p99 ms   max ms  events/s  requests/s  lost  repeated  not in order  generator cores")
	type result struct {
		mode  string
		cores float64
		bad   int64
	}
	var results []result
	for _, mode := range strings.Split(*modes, ",") {
		run := &webhookLoad{eventLoad: eventLoad{eventPlan: l.eventPlan}, webhooks: l.webhooks, mode: mode}
		current.Store(run)
		m, err := run.run(ctx, h, receiver.URL)
		if err != nil {
			return fmt.Errorf("%s: %w", mode, err)
		}
		fmt.Fprintf(stdout, "%-11s %9.2f %8.2f %7.1f %8.1f %8.1f %9.0f %11.0f %5d %9d %13d %16.2f\n", mode, m.cores, base.cores, milliseconds(m.latency.P50), milliseconds(m.latency.P99),
			milliseconds(m.latency.Max), m.perSecond, float64(run.posts.Load())/run.duration.Seconds(), m.missed, m.repeated, m.wrong, m.generator)
		if n := run.forged.Load(); n > 0 {
			return fmt.Errorf("%s: %d requests had a wrong signature", mode, n)
		}
		results = append(results, result{mode, m.cores, m.missed + m.wrong})
	}
	fmt.Fprintln(stdout, "\ntargets")
	for _, r := range results {
		target(stdout, r.mode, r.cores, 0.5, false, "cores")
		target(stdout, "  lost or not in order", float64(r.bad), 0, false, "events")
	}
	return nil
}

type webhookOutcome struct {
	eventOutcome
	repeated int64
}

func (l *webhookLoad) run(ctx context.Context, h *hub, url string) (o webhookOutcome, err error) {
	total := int(l.duration.Seconds() * float64(l.rate))
	l.acked = make([]atomic.Int64, total)
	service, err := h.registry()
	if err != nil {
		return o, err
	}
	defer service.Close()
	l.secrets, l.seen = make([][]byte, l.webhooks), make([][]atomic.Uint32, l.webhooks)
	l.mu, l.newest = make([]sync.Mutex, l.webhooks), make([][eventPublishers]int, l.webhooks)
	for i := range l.webhooks {
		l.seen[i] = make([]atomic.Uint32, total)
		for d := range l.newest[i] {
			l.newest[i][d] = -1
		}
		name := "bench-" + strconv.Itoa(i)
		w, err := service.PutWebhook(ctx, name, client.WebhookSettings{URL: url + "/" + strconv.Itoa(i), Kinds: []string{"telemetry"}, Mode: l.mode}, "")
		if err != nil {
			return o, err
		}
		defer func() { _ = service.DeleteWebhook(context.WithoutCancel(ctx), name) }()
		if l.secrets[i], err = base64.StdEncoding.DecodeString(strings.TrimPrefix(w.Secret, "whsec_")); err != nil {
			return o, err
		}
	}
	p := newPool()
	devices := make([]*device, eventPublishers)
	for i := range devices {
		if devices[i], err = p.connect(ctx, h, deviceName("device", i), false); err != nil {
			return o, err
		}
		defer devices[i].close()
	}
	pause(ctx, time.Second)
	cpu, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	own, began := ownCPU(), time.Now()
	errs := make(chan error, len(devices))
	for i, d := range devices {
		go func() { errs <- l.publish(d, i, began) }()
	}
	for range devices {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return o, err
	}
	expected := int64(total * l.webhooks)
	for end := time.Now().Add(20 * time.Second); l.received.Load() < expected && time.Now().Before(end); {
		pause(ctx, 10*time.Millisecond)
	}
	took := time.Since(began).Seconds()
	used, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	o.cores, o.generator = (used-cpu).Seconds()/l.duration.Seconds(), (ownCPU()-own).Seconds()/l.duration.Seconds()
	o.perSecond, o.wrong, o.latency = float64(l.received.Load())/took, l.wrong.Load(), l.latency.summary()
	for i := range l.seen {
		for m := range l.seen[i] {
			switch n := l.seen[i][m].Load(); {
			case n == 0:
				o.missed++
			case n > 1:
				o.repeated += int64(n - 1)
			}
		}
	}
	return o, nil
}

// take checks a request's signature and notes its messages.
func (l *webhookLoad) take(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	number, numberErr := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || numberErr != nil || number < 0 || number >= len(l.secrets) {
		return
	}
	now := time.Now()
	m := hmac.New(sha256.New, l.secrets[number])
	m.Write([]byte(r.Header.Get("webhook-id") + "." + r.Header.Get("webhook-timestamp") + "."))
	m.Write(body)
	if r.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)) {
		l.forged.Add(1)
		return
	}
	l.posts.Add(1)
	for {
		i := bytes.Index(body, []byte(eventMark))
		if i < 0 {
			return
		}
		body = body[i+len(eventMark):]
		end := bytes.IndexByte(body, ',')
		message, err := strconv.Atoi(string(body[:max(end, 0)]))
		if err != nil || message < 0 || message >= len(l.acked) {
			l.wrong.Add(1)
			continue
		}
		if l.seen[number][message].Add(1) > 1 {
			continue
		}
		l.received.Add(1)
		if acked := l.acked[message].Load(); acked > 0 {
			l.latency.add(max(0, now.Sub(time.Unix(0, acked))))
		}
		device := message % eventPublishers
		l.mu[number].Lock()
		if message < l.newest[number][device] {
			l.wrong.Add(1)
		}
		l.newest[number][device] = max(l.newest[number][device], message)
		l.mu[number].Unlock()
	}
}
